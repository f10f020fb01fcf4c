//! Fetching a model because a client asked for it.

use api::{Fault, PullEvent};
use std::sync::{Arc, Mutex, PoisonError};
use store::models::Models;
use store::progress::Event;
use store::reference::Reference;
use tokio::sync::{OwnedSemaphorePermit, mpsc};

/// Reports that may wait for a slow client; further ones are skipped, as each holds the whole state.
const REPORTS_WAITING_MAX: usize = 16;

/// Models that are fetched at once: each takes the line and the disk.
pub(super) const PULLS_MAX: usize = 2;

/// What a client may ask for: names, hashes and files of the hub, but no path of this machine.
///
/// # Errors
///
/// 400, with the reason.
pub(super) fn wanted(name: &str) -> Result<Reference, Fault> {
    match name.parse() {
        Ok(Reference::Path(_)) => Err(Fault::invalid(
            "model",
            "a client cannot name a file of this machine; name a model of the catalogue or hf:OWNER/REPOSITORY/FILE",
        )),
        Ok(wanted) => Ok(wanted),
        Err(error) => Err(Fault::invalid("model", format!("{error}"))),
    }
}

/// Fetches until it is there or nobody listens; returns the reports and what does the work, on one of [`PULLS_MAX`] places.
pub(super) fn pull(
    models: Models,
    wanted: Reference,
    place: OwnedSemaphorePermit,
) -> (mpsc::Receiver<PullEvent>, impl Future<Output = ()> + Send) {
    let (events, receiver) = mpsc::channel(REPORTS_WAITING_MAX);
    let work = async move {
        let _place = place;
        let reports = Mutex::new(events.clone());
        let progress = Arc::new(move |event: &Event<'_>| {
            let reports = reports.lock().unwrap_or_else(PoisonError::into_inner);
            // A client that reads slowly sees fewer steps.
            let _ = reports.try_send(PullEvent::Fetching {
                sha256: None,
                total: event.total,
                completed: event.done,
            });
        });
        let ended = tokio::select! {
            pulled = models.pull(&wanted, None, progress) => pulled,
            () = events.closed() => return,
        };
        let last = match ended {
            Ok(_) => PullEvent::Done,
            Err(error) => PullEvent::Failed(Fault::bad_request("pull_failed", error.to_string())),
        };
        // A client that is gone needs no end.
        let _ = events.send(last).await;
    };
    (receiver, work)
}
