//! Blocking work that ends when nobody waits for it any more.

use std::future::pending;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Tells blocking work that its caller is gone. Work asks once per chunk.
#[derive(Debug, Clone, Default)]
pub(crate) struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Whether the work should end.
    pub(crate) fn asked(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Asks for the stop when the future that awaits the work is dropped.
struct StopOnDrop(Stop);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.0.store(true, Ordering::Relaxed);
    }
}

/// Runs `work` on a blocking thread. A panic in it continues in the caller.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce(&Stop) -> T + Send + 'static,
) -> T {
    let stop = Stop::default();
    let _asks = StopOnDrop(stop.clone());
    match tokio::task::spawn_blocking(move || work(&stop)).await {
        Ok(value) => value,
        Err(error) if error.is_panic() => resume_unwind(error.into_panic()),
        // The runtime is ending and never started the work: nobody will poll this future again.
        Err(_) => pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[tokio::test]
    async fn work_whose_caller_is_dropped_is_asked_to_stop() {
        let (started, starts) = tokio::sync::oneshot::channel();
        let (ended, ends) = mpsc::sync_channel(1);
        let waits = blocking(move |stop| {
            started.send(()).unwrap();
            while !stop.asked() {
                std::thread::yield_now();
            }
            ended.send(()).unwrap();
        });
        tokio::select! {
            () = waits => panic!("the work ended before it was asked to"),
            begun = starts => begun.unwrap(),
        }
        ends.recv().unwrap();
    }
}
