//! Whatever happens in whatever order: nothing panics, nothing grows without bound, and what is told is what is.

use super::*;
use proptest::prelude::*;
use std::sync::OnceLock;

const NODES: u16 = 12;
const VARIANTS: u64 = 12;

/// Ads of a few nodes in many variants; signed once, as signing is dear.
fn pool() -> &'static [CheckedAd] {
    static POOL: OnceLock<Vec<CheckedAd>> = OnceLock::new();
    POOL.get_or_init(|| {
        let all = (0..NODES).flat_map(|n| (0..VARIANTS).map(move |variant| (n, variant)));
        all.map(|(n, variant)| signed(n, &variation(n, variant)))
            .collect()
    })
}

fn variation(n: u16, variant: u64) -> Ad {
    let lost = Lost {
        node: id((n + 1) % NODES),
        incarnation: 1,
        sequence: variant / 2,
    };
    Ad {
        memory_bytes: variant % 2,
        issued_s: TODAY_S + variant * 60,
        lost: if variant.is_multiple_of(3) {
            vec![lost]
        } else {
            Vec::new()
        },
        standing: Some(if variant == 7 {
            Standing::Leaving
        } else {
            Standing::Serving
        }),
        ..ad(n, 1 + variant / 6, variant / 2)
    }
}

fn event() -> impl Strategy<Value = Event> {
    let node = || (0..NODES).prop_map(id);
    let heard = (0..pool().len(), node());
    prop_oneof![
        6 => heard.prop_map(|(at, from)| Event::Heard { ad: pool()[at].clone(), from }),
        1 => Just(Event::Tick),
        1 => node().prop_map(Event::LinkUp),
        1 => node().prop_map(Event::LinkSilent),
        1 => node().prop_map(Event::LinkLost),
        1 => node().prop_map(Event::CallFailed),
        1 => node().prop_map(Event::Refused),
        1 => node().prop_map(Event::Loaded),
        1 => node().prop_map(Event::FalseBytes),
        1 => proptest::collection::btree_set(node(), 0..3).prop_map(Event::Circle),
        1 => (node(), any::<u32>()).prop_map(|(node, rtt_us)| Event::Rtt { node, rtt_us }),
        1 => (node(), any::<u64>()).prop_map(|(node, bytes_per_s)| Event::Bandwidth { node, bytes_per_s }),
        1 => (node(), any::<u32>(), any::<u8>()).prop_map(|(node, layer_us, model)| Event::LayerTime {
            node,
            speed: Speed { model: Hash([model; 32]), layer_us },
        }),
    ]
}

/// Follows the effects as a shell would.
#[derive(Default)]
struct Shell {
    members: BTreeSet<NodeId>,
    sequence: u64,
}

impl Shell {
    fn follow(&mut self, effect: &Effect) {
        match effect {
            Effect::Publish(ad) => {
                assert_eq!(ad.sequence, self.sequence + 1);
                self.sequence = ad.sequence;
                ad.check_bounds().unwrap();
            }
            Effect::Member { node, change } => match change {
                Change::Joined => assert!(self.members.insert(*node)),
                Change::Gone(_) => assert!(self.members.remove(node)),
                _ => assert!(self.members.contains(node)),
            },
            Effect::Call(node) => assert!(self.members.contains(node)),
            Effect::Refuse { .. } => {}
        }
    }
}

proptest! {
    #[test]
    fn what_is_told_is_what_is(events in proptest::collection::vec((event(), 0..30_000_u64, 0..9_u64), 1..200)) {
        let mut members = nobody_known();
        let mut shell = Shell { sequence: 1, ..Shell::default() };
        let mut mono_ms = 0;
        let mut twin = nobody_known();
        for (event, pass_ms, skew) in events {
            mono_ms += pass_ms;
            let now = Now { mono_ms, wall_s: TODAY_S + mono_ms / 1_000 + skew * 60 };
            let effects = members.handle(event.clone(), now);
            effects.iter().for_each(|effect| shell.follow(effect));
            prop_assert_eq!(effects, twin.handle(event, now));
            let there: BTreeSet<_> = members.ads().map(|ad| ad.node).collect();
            prop_assert_eq!(&there, &shell.members);
            let sizes = members.sizes();
            let all = NODES as usize;
            prop_assert!(sizes.members <= all && sizes.links <= all && sizes.tombs <= all);
            prop_assert!(sizes.shunned.max(sizes.false_bytes) <= all && sizes.measured <= all);
            let ask = Ask { room: Room::Square, model: MODEL, layer_bytes: 1, build: None };
            let view = members.view(&ask, now);
            prop_assert_eq!(view.len(), sizes.members + sizes.shunned);
            prop_assert!(members.evidence().all(|lie| lie.first.age() == lie.second.age() && lie.first != lie.second));
        }
    }
}
