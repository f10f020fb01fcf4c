use super::*;
use proto::ad::{Held, Measured};
use proto::model::LayerRange;

fn ask(room: Room) -> Ask<'static> {
    Ask {
        room,
        model: MODEL,
        layer_bytes: 1 << 20,
        build: None,
    }
}

fn seen(members: &Members, n: u16, ask: &Ask<'_>, now: Now) -> Seen {
    let all = members.view(ask, now);
    all.into_iter().find(|seen| seen.node == id(n)).unwrap()
}

fn speed(layer_us: u32) -> Speed {
    Speed {
        model: MODEL,
        layer_us,
    }
}

/// What a member measured of another.
fn report(by: u16, of: u16, rtt_us: u32, layer_us: u32) -> Ad {
    Ad {
        links: vec![Measured {
            node: id(of),
            rtt_us,
            bytes_per_s: None,
            stage: Some(speed(layer_us)),
        }],
        ..ad(by, 1, 1)
    }
}

#[test]
fn measured_counts_before_reported_before_announced() {
    let mut members = nobody_known();
    hear(&mut members, 1, &ad(1, 1, 1), at(1));
    let check = |members: &Members, value, source| {
        let seen = seen(members, 1, &ask(Room::Square), at(1));
        assert_eq!(seen.layer_us, Estimate { value, source });
    };
    check(&members, 2 * ASSUMED_LAYER_US, Source::Assumed);
    let fast = Ad {
        speeds: vec![speed(100)],
        ..ad(2, 1, 1)
    };
    hear(&mut members, 2, &fast, at(1));
    check(&members, 200, Source::Assumed);
    let boast = Ad {
        speeds: vec![speed(10)],
        ..ad(1, 1, 2)
    };
    hear(&mut members, 1, &boast, at(1));
    check(&members, 15, Source::Announced);
    hear(&mut members, 3, &report(3, 1, 5, 70), at(1));
    check(&members, 70, Source::Announced);
    let friend = Ad {
        membership: chain(&[0, 1, 4]),
        ..report(4, 1, 5, 1)
    };
    hear(&mut members, 4, &friend, at(1));
    check(&members, 70, Source::Announced);
    hear(&mut members, 5, &report(5, 1, 5, 60), at(1));
    check(&members, 70, Source::Reported);
    hear(&mut members, 6, &report(6, 1, 5, 50), at(1));
    check(&members, 60, Source::Reported);
    let measured = |layer_us| Event::LayerTime {
        node: id(1),
        speed: speed(layer_us),
    };
    members.handle(measured(400), at(1));
    check(&members, 400, Source::Measured);
    members.handle(measured(800), at(1));
    check(&members, 500, Source::Measured);
}

#[test]
fn a_boast_is_priced_and_named() {
    let mut members = nobody_known();
    let other = Speed {
        model: Hash([7; 32]),
        layer_us: 10,
    };
    let boast = Ad {
        speeds: vec![speed(10), other],
        ..ad(1, 1, 1)
    };
    hear(&mut members, 1, &boast, at(1));
    let event = Event::LayerTime {
        node: id(1),
        speed: speed(50),
    };
    members.handle(event, at(1));
    let seen_now = seen(&members, 1, &ask(Room::Square), at(1));
    let why = seen_now.why_not.unwrap();
    assert!(!why.bars(), "{why}");
    assert_eq!(
        why,
        WhyNot::SlowerThanAnnounced {
            announced_us: 10,
            measured_us: 50
        }
    );
    // Nor is it believed with the next model.
    let with_other = Ask {
        model: other.model,
        ..ask(Room::Square)
    };
    let seen_then = seen(&members, 1, &with_other, at(1));
    assert_eq!(seen_then.layer_us.value, 50);
}

#[test]
fn ways_are_measured_reported_or_assumed() {
    let mut members = nobody_known();
    hear(&mut members, 1, &report(1, 2, 300, 1), at(1));
    hear(&mut members, 2, &report(2, 1, 500, 1), at(1));
    hear(&mut members, 3, &report(3, ME, 1_000, 1), at(1));
    let event = Event::Rtt {
        node: id(2),
        rtt_us: 700,
    };
    members.handle(event, at(1));
    for (a, b, value, source) in [
        (1, 2, 500, Source::Reported),
        (ME, 2, 700, Source::Measured),
        (3, ME, 1_500, Source::Announced),
        (ME, 1, ASSUMED_RTT_US, Source::Assumed),
        (2, 3, 2_200, Source::Assumed),
    ] {
        let expected = Estimate { value, source };
        assert_eq!(members.rtt_us(id(a), id(b)), expected, "{a} {b}");
        assert_eq!(members.rtt_us(id(b), id(a)), expected, "{b} {a}");
    }
    let told = published(&mut members, 2..50);
    let measured = told[0].1.links.iter().map(|link| (link.node, link.rtt_us));
    assert_eq!(measured.collect::<Vec<_>>(), [(id(2), 700)]);
}

#[test]
fn rooms_are_kept() {
    for (theirs, friend, circle, square) in [
        (Some(Room::Square), false, false, true),
        (Some(Room::Square), true, true, true),
        (Some(Room::Circle), false, false, false),
        (Some(Room::Circle), true, true, true),
        (Some(Room::Alone), true, false, false),
        (None, true, false, false),
    ] {
        let mut members = nobody_known();
        let room = Ad {
            room: theirs,
            ..ad(1, 1, 1)
        };
        hear(&mut members, 1, &room, at(1));
        if friend {
            members.handle(Event::Circle([id(1)].into()), at(1));
        }
        for (room, expected) in [
            (Room::Alone, false),
            (Room::Circle, circle),
            (Room::Square, square),
        ] {
            let why = seen(&members, 1, &ask(room), at(1)).why_not;
            let expected = (!expected).then_some(WhyNot::OtherRoom);
            assert_eq!(why, expected, "{theirs:?} {friend} {room:?}");
        }
    }
}

#[test]
fn reasons_are_named() {
    let draining = |standing| Ad {
        standing,
        ..ad(1, 1, 1)
    };
    let cases = [
        (draining(Some(Standing::Serving)), 1, None, "None"),
        (
            draining(Some(Standing::Draining)),
            1,
            None,
            "NotServing(Some(Draining))",
        ),
        (draining(None), 1, None, "NotServing(None)"),
        (ad(1, 1, 1), 81, None, "Stale { age_s: 81 }"),
        (ad(1, 1, 1), 1, Some("b2"), "OtherBuild"),
        (
            Ad {
                memory_bytes: 9,
                ..ad(1, 1, 1)
            },
            1,
            Some("b1"),
            "TooLittleMemory { memory_bytes: 9, needed_bytes: 1048576 }",
        ),
    ];
    for (ad, second, build, expected) in cases {
        let mut members = nobody_known();
        hear(&mut members, 1, &ad, at(0));
        let ask = Ask {
            build,
            ..ask(Room::Square)
        };
        let why = seen(&members, 1, &ask, at(second)).why_not;
        let why = why.map_or("None".to_owned(), |why| format!("{why:?}"));
        assert_eq!(why, expected);
    }
    let mut members = nobody_known();
    hear(&mut members, 1, &ad(1, 1, 1), at(0));
    members.handle(Event::CallFailed(id(1)), at(0));
    let why = |members: &Members, second| seen(members, 1, &ask(Room::Square), at(second)).why_not;
    assert_eq!(why(&members, 29), Some(WhyNot::Suspect));
    assert_eq!(why(&members, 30), None);
    hear(&mut members, 1, &draining(Some(Standing::Draining)), at(31));
    assert_eq!(why(&members, 31), Some(WhyNot::Shunned));
}

/// A link proves that a member is there, not that it does what it offers.
#[test]
fn who_refuses_is_left_out_for_longer_each_time_until_it_loads() {
    let mut members = nobody_known();
    hear(&mut members, 1, &ad(1, 1, 1), at(0));
    members.handle(Event::LinkUp(id(1)), at(0));
    let why = |members: &Members, second| seen(members, 1, &ask(Room::Square), at(second)).why_not;
    members.handle(Event::Refused(id(1)), at(0));
    members.handle(Event::LinkUp(id(1)), at(1));
    assert_eq!(why(&members, 1), Some(WhyNot::Refused { again_s: 9 }));
    hear(&mut members, 1, &ad(1, 1, 2), at(2));
    assert_eq!(why(&members, 2), Some(WhyNot::Refused { again_s: 8 }));
    assert_eq!(why(&members, 10), None);
    members.handle(Event::Refused(id(1)), at(10));
    assert_eq!(why(&members, 29), Some(WhyNot::Refused { again_s: 1 }));
    assert_eq!(why(&members, 30), None);
    members.handle(Event::Loaded(id(1)), at(30));
    members.handle(Event::Refused(id(1)), at(30));
    assert_eq!(why(&members, 30), Some(WhyNot::Refused { again_s: 10 }));
}

#[test]
fn what_is_on_disk_is_seen() {
    let mut members = nobody_known();
    let range = LayerRange { first: 2, end: 9 };
    let held = |model, whole| Held {
        model,
        manifest: None,
        layers: vec![range],
        whole,
    };
    let holder = Ad {
        addrs: Vec::new(),
        held: vec![held(Hash([1; 32]), false), held(MODEL, true)],
        ..ad(1, 1, 1)
    };
    hear(&mut members, 1, &holder, at(1));
    let one = seen(&members, 1, &ask(Room::Square), at(4));
    assert_eq!(
        (one.on_disk, one.whole, one.relayed, one.age_ms),
        (vec![range], true, true, 3_000)
    );
    assert_eq!(one.reach, Reach::Unlinked);
    members.handle(Event::LinkUp(id(1)), at(4));
    let one = seen(&members, 1, &ask(Room::Square), at(4));
    assert_eq!(one.reach, Reach::Linked);
}

#[test]
fn who_is_relayed_is_known_of_links_and_else_taken_from_ads() {
    let home = |addrs: &[&str], relays: &[&str]| Ad {
        addrs: addrs.iter().map(ToString::to_string).collect(),
        relays: relays.iter().map(ToString::to_string).collect(),
        ..ad(1, 1, 1)
    };
    let relayed = |members: &Members| seen(members, 1, &ask(Room::Square), at(1)).relayed;
    let (private, public, relay) = ("10.0.0.1:7", "203.0.113.1:7", "198.51.100.9:7");
    for (addrs, relays, expected) in [
        (&[][..], &[relay][..], true),
        (&[private], &[relay], true),
        (&[private, public], &[relay], false),
        (&[private], &[], false),
    ] {
        let mut members = nobody_known();
        hear(&mut members, 1, &home(addrs, relays), at(1));
        assert_eq!(relayed(&members), expected, "{addrs:?} {relays:?}");
    }
    let mut members = nobody_known();
    hear(&mut members, 1, &home(&[private], &[relay]), at(1));
    let node = id(1);
    members.handle(Event::LinkUp(node), at(1));
    for known in [false, true, false] {
        let way = Event::Way {
            node,
            relayed: known,
        };
        members.handle(way, at(1));
        assert_eq!(relayed(&members), known);
    }
    members.handle(Event::LinkLost(node), at(1));
    assert!(relayed(&members), "the link is no more, and the ad counts");
}

#[test]
fn calls_that_fail_while_a_member_is_left_alone_do_not_make_that_longer() {
    let mut members = nobody_known();
    hear(&mut members, 1, &ad(1, 1, 1), at(0));
    let suspect = |members: &Members, second| {
        let one = seen(members, 1, &ask(Room::Square), at(second));
        one.why_not == Some(WhyNot::Suspect)
    };
    for second in 0..30 {
        members.handle(Event::CallFailed(id(1)), at(second));
    }
    assert!(suspect(&members, 29) && !suspect(&members, 30));
    // Only now it is twice as long.
    members.handle(Event::CallFailed(id(1)), at(30));
    assert!(suspect(&members, 79));
    assert!(!suspect(&members, 90));
}

/// Neither leaving and coming back, nor starting anew, nor loading stages makes up for it; time does.
#[test]
fn who_sent_false_bytes_is_left_out_for_an_hour_whatever_it_does() {
    let mut members = nobody_known();
    hear(&mut members, 1, &ad(1, 1, 1), at(0));
    members.handle(Event::LinkUp(id(1)), at(0));
    members.handle(Event::FalseBytes(id(1)), at(10));
    let why = |members: &Members, second| seen(members, 1, &ask(Room::Square), at(second)).why_not;
    let expected = |again_s| Some(WhyNot::FalseBytes { again_s });
    assert!(expected(1).unwrap().bars());
    assert_eq!(why(&members, 11), expected(3_599));
    assert_eq!(members.doubted(at(11)), [id(1)].into());
    members.handle(Event::Loaded(id(1)), at(12));
    let bye = Ad {
        standing: Some(Standing::Leaving),
        ..ad(1, 1, 2)
    };
    hear(&mut members, 1, &bye, at(20));
    assert!(members.is_empty());
    hear(&mut members, 1, &ad(1, 2, 1), at(21));
    assert_eq!(why(&members, 30), expected(3_580));
    let later = Ad {
        issued_s: TODAY_S + 3_605,
        ..ad(1, 2, 2)
    };
    hear(&mut members, 1, &later, at(3_605));
    assert_eq!(why(&members, 3_609), expected(1));
    assert_eq!(why(&members, 3_610), None);
    assert!(members.doubted(at(3_610)).is_empty());
}

#[test]
fn of_those_who_sent_false_bytes_so_many_are_remembered() {
    let mut members = nobody_known();
    let all = FALSE_KEPT_MAX as u16 + 5;
    for n in 0..all {
        members.handle(Event::FalseBytes(id(n)), at(u64::from(n)));
    }
    let doubted = members.doubted(at(all.into()));
    assert_eq!(doubted.len(), FALSE_KEPT_MAX);
    assert_eq!(members.sizes().false_bytes, FALSE_KEPT_MAX);
    assert!(!doubted.contains(&id(4)) && doubted.contains(&id(5)));
}
