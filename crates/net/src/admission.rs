//! Who is let in.

use identity::{Expected, MembershipFault, NodeKey, TicketFault, check_membership, check_ticket};
use proto::ids::{CommonsId, NodeId};
use proto::member::{Hello, JoinRefusal, Membership};
use proto::ticket::Ticket;
use std::fmt;

/// What becomes of a caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It is a member; the link goes up.
    Member,
    /// It becomes a member with this proof; it will call again with it.
    Newcomer(Membership),
    /// It is turned away.
    Refused(JoinRefusal),
}

/// The policy for callers. Called on a thread that may block, once for every [`Hello`].
pub trait Admission: Send + Sync + 'static {
    /// Decides on `hello` from `peer`, whose key QUIC has proven, at `now_s` (seconds since 1970 UTC).
    fn admit(&self, peer: NodeId, hello: &Hello, now_s: u64) -> Verdict;
}

/// What came of counting a use of a ticket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spent {
    /// It may be used, and this use is counted.
    Counted,
    /// It was used as often as it may be.
    UsedUp,
    /// Its introducer took it back.
    Revoked,
    /// Nobody can tell: the disk failed.
    Unknown,
}

/// Counts one use of a genuine ticket for a newcomer.
///
/// The same newcomer with the same ticket is one use: it may have crashed before it could keep its proof.
pub type Spend = dyn Fn(&Ticket, NodeId) -> Spent + Send + Sync;

/// The standard policy: members of the commons come in, and newcomers with a ticket that this node issued.
pub struct Doorkeeper {
    key: NodeKey,
    commons: CommonsId,
    membership: Membership,
    spend: Box<Spend>,
}

impl fmt::Debug for Doorkeeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Doorkeeper")
            .field("key", &self.key)
            .field("commons", &self.commons)
            .finish_non_exhaustive()
    }
}

impl Doorkeeper {
    /// The policy of the node with `key`, which belongs to `commons` by `membership`; `spend` counts uses of tickets.
    pub fn new(
        key: NodeKey,
        commons: CommonsId,
        membership: Membership,
        spend: impl Fn(&Ticket, NodeId) -> Spent + Send + Sync + 'static,
    ) -> Self {
        Self {
            key,
            commons,
            membership,
            spend: Box::new(spend),
        }
    }

    fn admit_newcomer(
        &self,
        peer: NodeId,
        ticket: &Ticket,
        now_s: u64,
    ) -> Result<Membership, JoinRefusal> {
        let expected = Expected {
            commons: Some(self.commons),
            introducer: Some(self.key.id()),
        };
        check_ticket(ticket, now_s, expected).map_err(|fault| match fault {
            TicketFault::Expired { .. } => JoinRefusal::Expired,
            TicketFault::OtherCommons { .. } => JoinRefusal::OtherCommons,
            TicketFault::BadSignature | TicketFault::OtherIntroducer { .. } => {
                JoinRefusal::NotGenuine
            }
        })?;
        let yours = identity::extend(&self.membership, &self.key, self.commons, peer, now_s)
            .map_err(|_| JoinRefusal::ChainFull)?;
        // Counted last, so that a use is spent only on somebody who comes in.
        match (self.spend)(ticket, peer) {
            Spent::Counted => Ok(yours),
            Spent::UsedUp => Err(JoinRefusal::UsedUp),
            Spent::Revoked => Err(JoinRefusal::Revoked),
            Spent::Unknown => Err(JoinRefusal::Full),
        }
    }
}

impl Admission for Doorkeeper {
    fn admit(&self, peer: NodeId, hello: &Hello, now_s: u64) -> Verdict {
        if let Some(membership) = &hello.membership {
            return match check_membership(membership, self.commons, peer) {
                Ok(()) => Verdict::Member,
                Err(MembershipFault::OtherCommons { .. }) => {
                    Verdict::Refused(JoinRefusal::OtherCommons)
                }
                Err(_) => Verdict::Refused(JoinRefusal::NotGenuine),
            };
        }
        let Some(ticket) = &hello.ticket else {
            return Verdict::Refused(JoinRefusal::NothingShown);
        };
        match self.admit_newcomer(peer, ticket, now_s) {
            Ok(yours) => Verdict::Newcomer(yours),
            Err(refusal) => Verdict::Refused(refusal),
        }
    }
}
