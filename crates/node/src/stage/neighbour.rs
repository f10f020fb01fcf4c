//! Hops as a stage holds them: to another node, or within this one. A node that hosts two stages of one ring, one behind the
//! other, cannot call itself.

use bytes::Bytes;
use net::{EndReason, HopReceiver, HopSender};
use proto::ring::HopBody;
use tokio::sync::mpsc;

/// Frames that may wait between two stages on this node; more make the first one wait, as a connection would.
pub(super) const FRAMES_MAX: usize = 16;

/// A frame and its payload.
pub(super) type Frame = (HopBody, Bytes);

/// The writing end.
#[derive(Debug)]
pub(super) enum Outlet {
    Net(Box<HopSender>),
    Here(mpsc::Sender<Frame>),
}

/// The reading end.
#[derive(Debug)]
pub(super) enum Inlet {
    Net(Box<HopReceiver>),
    Here(mpsc::Receiver<Frame>),
}

/// Both ends of a hop within this node.
pub(super) fn here() -> (Outlet, Inlet) {
    let (sender, receiver) = mpsc::channel(FRAMES_MAX);
    (Outlet::Here(sender), Inlet::Here(receiver))
}

impl Outlet {
    /// Sends a frame. Its end is told by [`Outlet::ended`].
    pub(super) async fn send(&mut self, body: HopBody, payload: Bytes) {
        match self {
            Self::Net(hop) => drop(hop.send(body, payload).await),
            Self::Here(hop) => drop(hop.send((body, payload)).await),
        }
    }

    /// Waits for the end, and says why.
    pub(super) async fn ended(&self) -> EndReason {
        match self {
            Self::Net(hop) => hop.ended().await,
            Self::Here(hop) => {
                hop.closed().await;
                EndReason::Here
            }
        }
    }
}

impl Inlet {
    /// The next frame, or why there is none. Cancel-safe.
    pub(super) async fn recv(&mut self) -> Result<Frame, EndReason> {
        match self {
            Self::Net(hop) => hop.recv().await,
            Self::Here(hop) => hop.recv().await.ok_or(EndReason::Finished),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::ids::SessionId;
    use proto::ring::OpenSession;

    #[tokio::test]
    async fn frames_go_through_in_order_and_the_end_is_noticed_at_both_ends() {
        let (mut outlet, mut inlet) = here();
        let body = |epoch| {
            HopBody::Open(OpenSession {
                session: SessionId([1; 16]),
                epoch,
                positions_max: 1,
            })
        };
        for epoch in 1..=3 {
            outlet.send(body(epoch), Bytes::new()).await;
        }
        for epoch in 1..=3 {
            assert_eq!(inlet.recv().await, Ok((body(epoch), Bytes::new())));
        }
        drop(inlet);
        assert_eq!(outlet.ended().await, EndReason::Here);
        let (outlet, mut inlet) = here();
        drop(outlet);
        assert_eq!(inlet.recv().await, Err(EndReason::Finished));
    }
}
