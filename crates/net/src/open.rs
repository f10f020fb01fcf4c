//! Every connection of the endpoint that is open, whoever made it: links, hops, blocks of models.
//!
//! iroh 1.4 remembers the best path to a node for as long as any connection to it is open, and sends new calls down that
//! path alone. When a node dies and comes back at another address, a connection that nobody closed (blocks of
//! models may be on their way) keeps the dead path chosen, and all new calls go there. So whoever fell silent loses every
//! connection, not its link alone.

use crate::end::{self, EndReason};
use iroh::endpoint::{AfterHandshakeOutcome, Connection, EndpointHooks, WeakConnectionHandle};
use proto::ids::NodeId;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The open connections of one endpoint. Clones share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Open(Arc<Mutex<Vec<(NodeId, WeakConnectionHandle)>>>);

impl Open {
    fn list(&self) -> MutexGuard<'_, Vec<(NodeId, WeakConnectionHandle)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remember(&self, connection: &Connection) {
        let peer = NodeId(*connection.remote_id().as_bytes());
        let mut list = self.list();
        list.retain(|(_, open)| {
            open.upgrade()
                .is_some_and(|open| open.close_reason().is_none())
        });
        list.push((peer, connection.weak_handle()));
    }

    /// Closes every connection to `peer`.
    pub(crate) fn end(&self, peer: NodeId, reason: &EndReason) {
        self.list().retain(|(of, open)| {
            if *of == peer
                && let Some(connection) = open.upgrade()
            {
                end::close(&connection, reason.code(), "");
            }
            *of != peer
        });
    }
}

impl EndpointHooks for Open {
    async fn after_handshake<'a>(&'a self, connection: &'a Connection) -> AfterHandshakeOutcome {
        self.remember(connection);
        AfterHandshakeOutcome::Accept
    }
}
