//! A request without a ring looks for the next one.

use super::{Ring, State};
use proto::ids::RingId;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// How long nobody needs to be trying to form a ring until a request gives up: those who could take over are known at once.
const NOBODY_MAX: Duration = Duration::from_millis(1_500);
/// How long a request waits in any case.
const SEEK_MAX: Duration = Duration::from_secs(120);
/// Sessions can be lost and the ring be well: a stage's engine died, and starts again. That takes a while; or the ring is about
/// to break. Twice as long each time.
const SETTLE: Duration = Duration::from_millis(250);
/// How often that doubles at most.
const SETTLE_DOUBLINGS_MAX: u32 = 3;

/// The search, from the moment when the request left its ring.
#[derive(Debug)]
pub(super) struct Stranded {
    left: RingId,
    /// Until when it is not gone back to.
    settled: Instant,
    since: Instant,
    /// Since when no ring is being formed.
    nobody_since: Option<Instant>,
}

impl Stranded {
    /// The request left this ring, having come back to it so often before.
    pub(super) fn new(left: RingId, returns: u32) -> Self {
        let since = Instant::now();
        Self {
            left,
            settled: since + SETTLE * (1 << returns.min(SETTLE_DOUBLINGS_MAX)),
            since,
            nobody_since: None,
        }
    }

    /// Waits for a ring that can be gone on over, or for the reason why there is none. Without a search it never ends;
    /// dropped half-way, it is only put off.
    pub(super) async fn found(
        search: &mut Option<Self>,
        rings: &mut watch::Receiver<State>,
    ) -> Result<Arc<Ring>, String> {
        let Some(search) = search else {
            return std::future::pending().await;
        };
        loop {
            let until = match search.look(&rings.borrow_and_update()) {
                Ok(ring) => return Ok(ring),
                Err((until, why)) if until <= Instant::now() => return Err(why),
                Err((until, _)) => until,
            };
            tokio::select! {
                changed = rings.changed() => if changed.is_err() {
                    return Err("this node is shutting down".to_owned());
                },
                () = tokio::time::sleep_until(until) => {}
            }
        }
    }

    /// The ring to take, or until when to wait for a change, and why there is none.
    fn look(&mut self, state: &State) -> Result<Arc<Ring>, (Instant, String)> {
        let (now, end) = (Instant::now(), self.since + SEEK_MAX);
        let late = "no ring could be formed in time; see: myzel status".to_owned();
        match state {
            State::Up(ring) if ring.is_whole() => {
                if ring.id == self.left && now < self.settled {
                    return Err((self.settled, late));
                }
                Ok(ring.clone())
            }
            // The coordinator has not noticed yet.
            State::Up(_) => Err((end, late)),
            State::Forming { .. } => {
                self.nobody_since = None;
                Err((end, late))
            }
            State::Waiting { why, .. } => {
                let since = *self.nobody_since.get_or_insert(now);
                let why = why.as_ref().map_or(late, |why| why.words().to_owned());
                Err(((since + NOBODY_MAX).min(end), why))
            }
        }
    }
}
