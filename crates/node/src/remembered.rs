//! Members of before: whoever was linked once or told of itself. In a commons that fell into two, each half forgets the other
//! one's ads; as somebody calls somebody of before now and then, it grows together again.

use proto::ids::NodeId;
use proto::member::Member;
use std::collections::BTreeMap;
use std::ops::Bound;

/// The most members that are remembered.
const REMEMBERED_MAX: usize = 4_096;

/// Members of before, and who of them was called last.
#[derive(Debug, Default)]
pub(crate) struct Remembered {
    members: BTreeMap<NodeId, Member>,
    last: Option<NodeId>,
}

impl Remembered {
    /// Takes note of a member, and of where it is now. There is room for so many.
    pub(crate) fn note(&mut self, member: Member) {
        if self.members.len() < REMEMBERED_MAX || self.members.contains_key(&member.id) {
            self.members.insert(member.id, member);
        }
    }

    /// The next one to call, each in turn, of those that are not there.
    pub(crate) fn next(&mut self, there: impl Fn(NodeId) -> bool) -> Option<Member> {
        let behind = self.last.map_or(Bound::Unbounded, Bound::Excluded);
        let rest = self.members.range((behind, Bound::Unbounded));
        let around = rest.chain(&self.members);
        let next = around
            .map(|(_, member)| member)
            .find(|member| !there(member.id))?
            .clone();
        self.last = Some(next.id);
        Some(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u16) -> NodeId {
        let mut id = [0; 32];
        id[..2].copy_from_slice(&n.to_be_bytes());
        NodeId(id)
    }

    fn member(n: u16) -> Member {
        Member {
            id: id(n),
            addrs: vec![format!("192.0.2.1:{}", n + 1)],
            name: String::new(),
            relays: None,
        }
    }

    #[test]
    fn those_who_are_not_there_are_called_in_turn() {
        let mut before = Remembered::default();
        assert_eq!(before.next(|_| false), None);
        (1..=4).for_each(|n| before.note(member(n)));
        let mut called = || before.next(|node| node == id(2)).map(|member| member.id);
        let order = [(); 5].map(|()| called().unwrap());
        assert_eq!(order, [1, 3, 4, 1, 3].map(id));
        assert_eq!(before.next(|_| true), None, "all are there");
    }

    #[test]
    fn there_is_room_for_so_many_and_the_newest_address_counts() {
        let mut before = Remembered::default();
        let most = REMEMBERED_MAX as u16;
        (0..=most).for_each(|n| before.note(member(n)));
        assert_eq!(before.members.len(), REMEMBERED_MAX);
        let moved = Member {
            addrs: vec!["192.0.2.2:7".into()],
            ..member(0)
        };
        before.note(moved.clone());
        assert_eq!(before.next(|_| false), Some(moved));
    }
}
