//! Who holds one of the places for connections, and who gives up its place for another.
//!
//! A connection costs nothing to open and to keep, so whoever holds all that are allowed would shut everybody else
//! out, the node's owner as well. Therefore a new connection takes the place of the one that has been without a request
//! for longest, a connection in the middle of its first head included. Only where all are busy is a new one refused.

use axum::body::Body;
use hyper::body::{Body as HttpBody, Bytes, Frame, SizeHint};
use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use tokio_util::sync::CancellationToken;

/// All seats.
#[derive(Debug)]
pub(crate) struct Crowd {
    seats_max: usize,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    /// Seats that are taken.
    taken: usize,
    /// Those without a request, by when they began to have none.
    idle: BTreeMap<u64, CancellationToken>,
    /// Counts the beginnings.
    beginnings: u64,
}

/// A connection's seat, free again when dropped.
#[derive(Debug)]
pub(crate) struct Seat {
    state: Arc<Mutex<State>>,
    leave: CancellationToken,
    /// Its key among the idle ones; `None` while it has a request. Changes only under the lock of `state`.
    idle_since: Mutex<Option<u64>>,
}

/// A seat that has a request, until the answer's last byte.
#[derive(Debug)]
pub(crate) struct Busy(Arc<Seat>);

impl Crowd {
    pub(crate) fn new(seats_max: usize) -> Self {
        let state = Arc::default();
        Self { seats_max, state }
    }

    /// A free seat, or that of the connection that has been idle for longest; `None` if all are busy.
    pub(crate) fn seat(&self) -> Option<Arc<Seat>> {
        let mut state = lock(&self.state);
        if state.taken < self.seats_max {
            state.taken += 1;
        } else {
            // Its place goes to the new one.
            state.idle.pop_first()?.1.cancel();
        }
        let leave = CancellationToken::new();
        let idle_since = Mutex::new(Some(state.idle(leave.clone())));
        let state = self.state.clone();
        Some(Arc::new(Seat {
            state,
            leave,
            idle_since,
        }))
    }
}

impl State {
    fn idle(&mut self, leave: CancellationToken) -> u64 {
        self.beginnings += 1;
        self.idle.insert(self.beginnings, leave);
        self.beginnings
    }
}

impl Seat {
    /// Notes a request; over when what this returns is dropped.
    pub(crate) fn busy(self: &Arc<Self>) -> Busy {
        let mut state = lock(&self.state);
        if let Some(since) = lock(&self.idle_since).take() {
            state.idle.remove(&since);
        }
        drop(state);
        Busy(self.clone())
    }

    pub(crate) fn is_busy(&self) -> bool {
        lock(&self.idle_since).is_none()
    }

    /// Waits until another connection gets this seat.
    pub(crate) async fn lost(&self) {
        self.leave.cancelled().await;
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut state = lock(&self.state);
        if let Some(since) = *lock(&self.idle_since) {
            state.idle.remove(&since);
        }
        if !self.leave.is_cancelled() {
            state.taken -= 1;
        }
    }
}

impl Busy {
    /// The same body, which keeps its connection busy until it has been sent.
    pub(crate) fn until_sent(self, body: Body) -> Sending {
        Sending { body, _busy: self }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let seat = &self.0;
        let mut state = lock(&seat.state);
        if !seat.leave.is_cancelled() {
            *lock(&seat.idle_since) = Some(state.idle(seat.leave.clone()));
        }
    }
}

/// A body that is being sent.
#[derive(Debug)]
pub(crate) struct Sending {
    body: Body,
    _busy: Busy,
}

impl HttpBody for Sending {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn has_left(seat: &Seat) -> bool {
        seat.leave.is_cancelled()
    }

    #[test]
    fn the_longest_idle_gives_up_its_seat() {
        let crowd = Crowd::new(2);
        let (first, second) = (crowd.seat().unwrap(), crowd.seat().unwrap());
        // The first has just had a request, so the second is idle for longer.
        drop(first.busy());
        let third = crowd.seat().unwrap();
        assert!(has_left(&second) && !has_left(&first) && !has_left(&third));
        let _fourth = crowd.seat().unwrap();
        assert!(has_left(&first) && !has_left(&third));
    }

    #[test]
    fn busy_ones_keep_their_seats() {
        let crowd = Crowd::new(2);
        let (first, second) = (crowd.seat().unwrap(), crowd.seat().unwrap());
        let (busy, _also) = (first.busy(), second.busy());
        assert!(crowd.seat().is_none() && first.is_busy());
        drop(busy);
        assert!(crowd.seat().is_some() && has_left(&first) && !first.is_busy());
    }

    #[test]
    fn seats_are_free_again_however_they_end() {
        let crowd = Crowd::new(1);
        for round in 0..3 {
            let seat = crowd.seat().unwrap();
            let busy = (round > 0).then(|| seat.busy());
            drop(seat);
            drop(busy);
            assert_eq!(lock(&crowd.state).taken, 0, "round {round}");
            assert!(lock(&crowd.state).idle.is_empty());
        }
        let (lost, now) = (crowd.seat().unwrap(), crowd.seat().unwrap());
        drop(lost.busy());
        drop(lost);
        assert_eq!(lock(&crowd.state).taken, 1, "the seat went to another");
        drop(now);
        assert_eq!(lock(&crowd.state).taken, 0);
    }
}
