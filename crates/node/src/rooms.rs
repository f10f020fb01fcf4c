//! Rooms: who may see the requests made here, and for whom this node computes.
//!
//! Whoever computes a stage can read the request from its activations. So a request goes only over members of its room,
//! and where the ring at hand has others in it, it is refused rather than sent.

use api::Fault;
use proto::ad::Room;
use proto::ids::NodeId;
use proto::member::Member;
use std::collections::BTreeSet;

/// The rooms of a node, as its owner set them.
#[derive(Debug, Clone)]
pub struct Rooms {
    /// The widest room of requests made here.
    pub room: Room,
    /// For whom this node computes.
    pub serve: Room,
    /// The members that the owner named.
    pub circle: BTreeSet<NodeId>,
}

impl Rooms {
    /// Lets a request into the path over `hosts`, if all of them are in the room that it asks for.
    pub(crate) fn admit<'a>(
        &self,
        asked: Option<api::Room>,
        hosts: impl Iterator<Item = &'a Member>,
    ) -> Result<(), Fault> {
        let room = asked.map_or(self.room, |asked| room(asked).min(self.room));
        for host in hosts {
            if !self.holds(room, host.id) {
                return Err(outside(room, host));
            }
        }
        Ok(())
    }

    /// Whether a member is in a room of ours.
    #[must_use]
    pub fn holds(&self, room: Room, member: NodeId) -> bool {
        match room {
            Room::Alone => false,
            Room::Circle => self.circle.contains(&member),
            Room::Square => true,
        }
    }

    /// Whether this node computes for a coordinator; else why not.
    ///
    /// # Errors
    ///
    /// Words for the coordinator's owner.
    pub fn serves(&self, coordinator: NodeId) -> Result<(), &'static str> {
        match self.serve {
            _ if self.holds(self.serve, coordinator) => Ok(()),
            Room::Alone => Err("this node computes for nobody else (--serve alone)"),
            _ => Err(
                "this node computes for its owner's circle only, and you are not in it; ask its owner",
            ),
        }
    }
}

fn room(asked: api::Room) -> Room {
    match asked {
        api::Room::Alone => Room::Alone,
        api::Room::Circle => Room::Circle,
        api::Room::Square => Room::Square,
    }
}

fn outside(room: Room, host: &Member) -> Fault {
    let node = format!("node {} {:?}", host.id.short(), host.name);
    let message = match room {
        Room::Alone => format!(
            "the request is for this machine alone, and the model runs over {node} too; ask with a wider room (header \
             x-myzel-room), or choose a model that fits here"
        ),
        _ => format!(
            "the request is for the circle, and the ring runs over {node}, which is not in it; name that node with \
             --circle, or ask with x-myzel-room: square"
        ),
    };
    Fault::forbidden("outside_room", message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(n: u8) -> Member {
        Member {
            id: NodeId([n; 32]),
            addrs: Vec::new(),
            name: "m".to_owned(),
            relays: None,
        }
    }

    fn check(room: Room, asked: Option<api::Room>, hosts: &[u8], admitted: bool) {
        let rooms = Rooms {
            room,
            serve: Room::Square,
            circle: [NodeId([1; 32]), NodeId([2; 32])].into(),
        };
        let hosts: Vec<Member> = hosts.iter().map(|n| member(*n)).collect();
        let outcome = rooms.admit(asked, hosts.iter());
        assert_eq!(outcome.is_ok(), admitted, "{room:?} {asked:?} {hosts:?}");
    }

    #[test]
    fn a_request_goes_over_members_of_its_room_alone() {
        use api::Room::{Alone, Circle, Square};
        check(Room::Square, None, &[1, 9], true);
        check(Room::Square, Some(Circle), &[1, 2], true);
        check(Room::Square, Some(Circle), &[1, 9], false);
        check(Room::Square, Some(Alone), &[], true);
        check(Room::Square, Some(Alone), &[1], false);
        // The node's own setting is the widest that a request can have.
        check(Room::Circle, Some(Square), &[9], false);
        check(Room::Circle, None, &[2], true);
        check(Room::Alone, Some(Square), &[1], false);
    }

    #[test]
    fn a_node_computes_for_whom_its_owner_says() {
        let serves = |serve, coordinator: u8| {
            let rooms = Rooms {
                room: Room::Square,
                serve,
                circle: [NodeId([1; 32])].into(),
            };
            rooms.serves(NodeId([coordinator; 32])).is_ok()
        };
        assert!(serves(Room::Square, 9) && serves(Room::Circle, 1));
        assert!(!serves(Room::Circle, 9) && !serves(Room::Alone, 1));
    }
}
