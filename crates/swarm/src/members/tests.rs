mod quotas;
mod random;
mod sight;

use super::limits::*;
use super::*;
use identity::{CommonsKey, NodeKey, check_ad, extend, found, sign_ad};
use proto::ad::{AD_LIFE_MIN_S, Room, Speed};
use proto::ids::CommonsId;
use proto::member::Membership;

/// The wall clock when tests begin.
const TODAY_S: u64 = 1_800_000_000;
const MODEL: Hash = Hash([6; 32]);

fn commons() -> CommonsKey {
    CommonsKey::from_bytes([99; 32])
}

fn key(n: u16) -> NodeKey {
    let [a, b] = n.to_be_bytes();
    let mut seed = [1; 32];
    (seed[0], seed[1]) = (a, b);
    NodeKey::from_bytes(seed)
}

fn id(n: u16) -> NodeId {
    key(n).id()
}

/// The membership of the last of these, each let in by the one before; the first is the founder.
fn chain(nodes: &[u16]) -> Membership {
    let first = found(&commons(), id(nodes[0]), TODAY_S);
    nodes.windows(2).fold(first, |mine, two| {
        extend(&mine, &key(two[0]), commons().id(), id(two[1]), TODAY_S).unwrap()
    })
}

fn at(seconds: u64) -> Now {
    Now {
        mono_ms: seconds * 1_000,
        wall_s: TODAY_S + seconds,
    }
}

/// An ad of a member whom the founder, node 0, let in.
fn ad(n: u16, incarnation: u64, sequence: u64) -> Ad {
    let membership = if n == 0 { chain(&[0]) } else { chain(&[0, n]) };
    let [a, b] = n.to_be_bytes();
    Ad {
        commons: commons().id(),
        node: id(n),
        incarnation,
        sequence,
        issued_s: TODAY_S,
        life_s: AD_LIFE_MIN_S,
        name: format!("node {n}"),
        addrs: vec![format!("203.0.{a}.{b}:7")],
        relay: None,
        relays: Vec::new(),
        room: Some(Room::Square),
        standing: Some(Standing::Serving),
        memory_bytes: 8 << 30,
        cpu_class: "x86-64".into(),
        build: "b1".into(),
        speeds: Vec::new(),
        held: Vec::new(),
        links: Vec::new(),
        lost: Vec::new(),
        membership,
    }
}

fn signed(n: u16, ad: &Ad) -> CheckedAd {
    check_ad(sign_ad(&key(n), ad).unwrap(), commons().id()).unwrap()
}

fn offer() -> Offer {
    Offer {
        name: "we".into(),
        addrs: vec!["198.51.100.1:7".into()],
        relay: None,
        relays: Vec::new(),
        room: Room::Square,
        standing: Standing::Serving,
        memory_bytes: 1 << 30,
        cpu_class: "x86-64".into(),
        build: "b1".into(),
        speeds: Vec::new(),
        held: Vec::new(),
    }
}

const ME: u16 = 9_999;

fn nobody_known() -> Members {
    let me = Identity {
        commons: commons().id(),
        node: id(ME),
        incarnation: 7,
        membership: chain(&[0, ME]),
        secret: 5,
    };
    let mut members = Members::new(me, offer());
    let first = members.handle(Event::Tick, at(0));
    assert_eq!(words(&first), "publish 1");
    members
}

/// Effects in words; calls are left out, as they have a test of their own.
fn words(effects: &[Effect]) -> String {
    let words = effects.iter().filter_map(|effect| match effect {
        Effect::Publish(ad) => Some(format!("publish {}", ad.sequence)),
        Effect::Refuse { why, .. } => Some(format!("{why:?}")),
        Effect::Member { change, .. } => Some(format!("{change:?}")),
        Effect::Call(_) => None,
    });
    words.collect::<Vec<_>>().join(", ")
}

fn hear(members: &mut Members, n: u16, ad: &Ad, now: Now) -> String {
    let event = Event::Heard {
        ad: signed(n, ad),
        from: id(n),
    };
    words(&members.handle(event, now))
}

#[test]
fn the_newest_ad_wins() {
    let mut members = nobody_known();
    for (incarnation, sequence, expected) in [
        (1, 5, "Joined"),
        (1, 5, "Known"),
        (1, 4, "Older"),
        (1, 6, ""),
        (2, 1, "Restarted"),
        (1, 7, "Older"),
        (2, 1, "Known"),
    ] {
        let heard = hear(&mut members, 1, &ad(1, incarnation, sequence), at(1));
        assert_eq!(heard, expected, "{incarnation}, {sequence}");
        assert_eq!(members.len(), 1);
    }
    let moved = Ad {
        addrs: vec!["203.0.113.77:7".into()],
        ..ad(1, 2, 2)
    };
    assert_eq!(hear(&mut members, 1, &moved, at(2)), "Changed");
    assert_eq!(members.ad(id(1)).unwrap().addrs, moved.addrs);
}

#[test]
fn dates_are_held_against_the_wall_clock() {
    let life_s = u64::from(AD_LIFE_MIN_S);
    for (issued_s, expected) in [
        (TODAY_S, "Joined"),
        (TODAY_S + AD_SKEW_S, "Joined"),
        (TODAY_S + AD_SKEW_S + 1, "FutureDated { ahead_s: 301 }"),
        (u64::MAX, "FutureDated { ahead_s: 18446744071909551615 }"),
        (TODAY_S - AD_SKEW_S - life_s + 1, "Joined"),
        (TODAY_S - AD_SKEW_S - life_s, "Expired { ago_s: 0 }"),
        (0, "Expired { ago_s: 1799999580 }"),
    ] {
        let mut members = nobody_known();
        let ad = Ad {
            issued_s,
            ..ad(1, 1, 1)
        };
        let now = Now {
            mono_ms: 1,
            ..at(0)
        };
        assert_eq!(hear(&mut members, 1, &ad, now), expected, "{issued_s}");
    }
}

#[test]
fn two_ads_with_one_number_are_a_lie() {
    let mut members = nobody_known();
    hear(&mut members, 1, &ad(1, 1, 5), at(1));
    let other = Ad {
        memory_bytes: 1,
        ..ad(1, 1, 5)
    };
    assert_eq!(
        hear(&mut members, 1, &other, at(2)),
        "Gone(Shunned), Equivocation"
    );
    assert_eq!(hear(&mut members, 1, &ad(1, 2, 1), at(3)), "Shunned");
    assert!(members.is_empty());
    let evidence: Vec<_> = members.evidence().collect();
    assert_eq!(
        (&*evidence[0].first, &*evidence[0].second),
        (&ad(1, 1, 5), &other)
    );
    assert_eq!(evidence.len(), 1);
}

#[test]
fn ads_age_by_our_own_clock_and_cannot_be_played_back() {
    let mut members = nobody_known();
    hear(&mut members, 1, &ad(1, 1, 5), at(0));
    // Our wall clock jumps a day ahead: nothing ends earlier for it.
    let jumped = Now {
        wall_s: TODAY_S + 86_400,
        ..at(119)
    };
    assert_eq!(
        words(&members.handle(
            Event::Rtt {
                node: id(1),
                rtt_us: 1
            },
            jumped
        )),
        "publish 2"
    );
    assert_eq!(members.len(), 1);
    assert_eq!(
        words(&members.handle(Event::Tick, at(120))),
        "Gone(Expired)"
    );
    assert_eq!(hear(&mut members, 1, &ad(1, 1, 5), at(121)), "Older");
    assert_eq!(hear(&mut members, 1, &ad(1, 1, 4), at(121)), "Older");
    assert_eq!(hear(&mut members, 1, &ad(1, 1, 6), at(121)), "Joined");
}

#[test]
fn an_ad_that_was_held_back_counts_for_less() {
    let mut members = nobody_known();
    let now = at(AD_SKEW_S + 60);
    assert_eq!(
        hear(&mut members, 1, &ad(1, 1, 5), now),
        "Joined, publish 2"
    );
    let mono_ms = now.mono_ms + 60_000;
    assert_eq!(
        words(&members.handle(Event::Tick, Now { mono_ms, ..now })),
        "Gone(Expired), publish 3"
    );
}

#[test]
fn who_leaves_is_gone_at_once() {
    let mut members = nobody_known();
    hear(&mut members, 1, &ad(1, 1, 5), at(1));
    let bye = Ad {
        standing: Some(Standing::Leaving),
        ..ad(1, 1, 7)
    };
    assert_eq!(hear(&mut members, 1, &bye, at(2)), "Changed, Gone(Left)");
    assert_eq!(hear(&mut members, 1, &ad(1, 1, 6), at(3)), "Older");
    assert_eq!(hear(&mut members, 1, &ad(1, 2, 1), at(3)), "Joined");
}

#[test]
fn our_own_ads_come_back() {
    let mut members = nobody_known();
    assert_eq!(hear(&mut members, ME, &ad(ME, 7, 1), at(20)), "Own");
    assert_eq!(hear(&mut members, ME, &ad(ME, 3, 900), at(20)), "Own");
    assert_eq!(members.incarnation(), 7);
    // Our disk was restored from before: others know a later life.
    assert_eq!(
        hear(&mut members, ME, &ad(ME, 12, 3), at(20)),
        "Own, publish 1"
    );
    assert_eq!(members.incarnation(), 13);
}

#[test]
fn ads_of_another_commons_are_refused() {
    let other = CommonsKey::from_bytes([98; 32]);
    let ad = Ad {
        commons: other.id(),
        membership: found(&other, id(1), TODAY_S),
        ..ad(1, 1, 1)
    };
    let mut members = nobody_known();
    let ad = check_ad(sign_ad(&key(1), &ad).unwrap(), other.id()).unwrap();
    assert_ne!(ad.commons, CommonsId([0; 32]));
    let event = Event::Heard { ad, from: id(2) };
    assert_eq!(words(&members.handle(event, at(1))), "OtherCommons");
}

/// Runs a node for some time, and says when it published.
fn published(members: &mut Members, seconds: std::ops::Range<u64>) -> Vec<(u64, Ad)> {
    let mut ads = Vec::new();
    for second in seconds {
        for effect in members.handle(Event::Tick, at(second)) {
            if let Effect::Publish(ad) = effect {
                ads.push((second, *ad));
            }
        }
    }
    ads
}

#[test]
fn renewals_keep_an_ad_alive() {
    let mut members = nobody_known();
    let ads = published(&mut members, 1..1_000);
    assert!((25..=34).contains(&ads.len()), "{}", ads.len());
    assert!(
        ads.windows(2)
            .all(|two| two[1].0 - two[0].0 <= RENEW_MIN_MS / 1_000)
    );
    assert!(
        ads.iter()
            .all(|(at, ad)| ad.life_s == AD_LIFE_MIN_S && ad.issued_s == TODAY_S + at)
    );
    assert!(
        ads.windows(2)
            .all(|two| two[1].1.sequence == two[0].1.sequence + 1)
    );
}

#[test]
fn news_come_sooner_and_not_too_often() {
    let mut members = nobody_known();
    let news = |memory_bytes, standing| {
        Event::Offer(Box::new(Offer {
            memory_bytes,
            standing,
            ..offer()
        }))
    };
    let mut told = Vec::new();
    for second in 1..=10 {
        told.push(words(
            &members.handle(news(second, Standing::Serving), at(second)),
        ));
    }
    assert_eq!(told.concat(), "publish 2");
    assert_eq!(told[9], "publish 2");
    assert_eq!(
        words(&members.handle(news(10, Standing::Serving), at(11))),
        ""
    );
    assert_eq!(
        words(&members.handle(news(10, Standing::Draining), at(11))),
        "publish 3"
    );
    assert_eq!(
        words(&members.handle(Event::LinkUp(id(1)), at(12))),
        "publish 4"
    );
}

#[test]
fn silence_is_suspicious_and_signs_of_life_are_not() {
    let mut members = nobody_known();
    hear(&mut members, 1, &ad(1, 1, 5), at(1));
    let node = id(1);
    for (second, event, expected) in [
        (2, Event::LinkUp(node), "publish 2"),
        (3, Event::LinkSilent(node), "Suspect"),
        (4, Event::LinkUp(node), "Back"),
        (5, Event::LinkLost(node), "Suspect"),
        (6, Event::LinkUp(node), "Back, publish 3"),
        (7, Event::LinkLost(node), "Suspect"),
        (8, Event::LinkLost(node), ""),
    ] {
        let told = words(&members.handle(event.clone(), at(second)));
        assert_eq!(told, expected, "{event:?}");
    }
    let ads = published(&mut members, 9..20);
    let lost = Lost {
        node,
        incarnation: 1,
        sequence: 5,
    };
    assert_eq!((ads.len(), &ads[0].1.lost), (1, &vec![lost]));
    assert_eq!(hear(&mut members, 1, &ad(1, 1, 6), at(20)), "Back");
    let ads = published(&mut members, 21..60);
    assert!(ads[0].1.lost.is_empty());
    // Calls that fail are forgiven by being answered, by starting anew, and with time.
    assert_eq!(
        words(&members.handle(Event::CallFailed(node), at(60))),
        "Suspect"
    );
    assert_eq!(hear(&mut members, 1, &ad(1, 1, 7), at(61)), "");
    assert_eq!(
        hear(&mut members, 1, &ad(1, 2, 1), at(61)),
        "Restarted, Back"
    );
}

#[test]
fn losses_are_believed_when_several_branches_tell_of_them() {
    let mut members = nobody_known();
    hear(&mut members, 1, &ad(1, 1, 5), at(1));
    let lost = |sequence| {
        vec![Lost {
            node: id(1),
            incarnation: 1,
            sequence,
        }]
    };
    let tells = |n: u16, sequence, by: &[u16]| Ad {
        lost: lost(sequence),
        membership: chain(by),
        ..ad(n, 1, 1)
    };
    for (n, sequence, by, expected) in [
        (2, 4, &[0, 2][..], "Joined"),
        (3, 5, &[0, 3], "Joined"),
        (4, 5, &[0, 3, 4], "Joined"),
        (5, 5, &[0, 5], "Joined, Suspect"),
    ] {
        assert_eq!(
            hear(&mut members, n, &tells(n, sequence, by), at(2)),
            expected,
            "{n}"
        );
    }
    assert_eq!(hear(&mut members, 1, &ad(1, 1, 6), at(3)), "Back");
    // Who is said to be lost says something.
    let us = Ad {
        lost: vec![Lost {
            node: id(ME),
            incarnation: 7,
            sequence: 1,
        }],
        ..ad(6, 1, 1)
    };
    assert_eq!(hear(&mut members, 6, &us, at(11)), "Joined, publish 2");
}

#[test]
fn calls_go_to_the_circle_and_then_to_anybody() {
    let mut members = nobody_known();
    for n in 1..=40 {
        hear(&mut members, n, &ad(n, 1, 1), at(1));
    }
    let resting = Ad {
        standing: Some(Standing::Draining),
        ..ad(1, 1, 2)
    };
    hear(&mut members, 1, &resting, at(1));
    members.handle(Event::Circle([id(33)].into()), at(1));
    members.handle(Event::LinkUp(id(2)), at(1));
    let mut called = Vec::new();
    for second in 2..100 {
        for effect in members.handle(Event::Tick, at(second)) {
            if let Effect::Call(node) = effect {
                assert!(node != id(1) && node != id(2));
                called.push(node);
                let answer = match called.len() {
                    3 => Event::CallFailed(node),
                    _ => Event::LinkUp(node),
                };
                members.handle(answer, at(second));
                members.handle(Event::Rtt { node, rtt_us: 9 }, at(second));
            }
        }
    }
    assert_eq!(called[0], id(33));
    // 7 more links and the one that failed in 5 s each, then one each 30 s that was never measured.
    assert!((9..=12).contains(&called.len()), "{}", called.len());
    let all: BTreeSet<_> = called.iter().collect();
    assert_eq!(all.len(), called.len());
}
