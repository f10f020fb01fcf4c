use super::*;
use proto::member::VOUCH_CHAIN_MAX;

/// An ad of a node that these let in, with these addresses.
fn ad_at(by: &[u16], addrs: &[String]) -> Ad {
    let n = by[by.len() - 1];
    Ad {
        addrs: addrs.to_vec(),
        membership: chain(by),
        ..ad(n, 1, 1)
    }
}

fn count(told: &[String], what: &str) -> usize {
    told.iter().filter(|words| *words == what).count()
}

#[test]
fn a_thousand_keys_of_one_host_push_nobody_out() {
    let mut members = nobody_known();
    for n in 1..=100 {
        assert_eq!(hear(&mut members, n, &ad(n, 1, 1), at(1)), "Joined");
    }
    let many: Vec<_> = (1_000..2_000)
        .map(|n| {
            let addrs = [format!("198.51.100.9:{n}")];
            hear(&mut members, n, &ad_at(&[0, n], &addrs), at(1))
        })
        .collect();
    assert_eq!(count(&many, "Joined"), HOST_UNLINKED_MAX as usize);
    assert_eq!(
        count(&many, "HostQuota"),
        1_000 - HOST_UNLINKED_MAX as usize
    );
    assert!((1..=100).all(|n| members.ad(id(n)).is_some()));
    // One of them with a link is not counted; without it, there is no place for it.
    members.handle(Event::LinkUp(id(1_500)), at(1));
    let late = ad_at(&[0, 1_500], &["198.51.100.9:7".into()]);
    assert_eq!(hear(&mut members, 1_500, &late, at(1)), "Joined");
    let told = members.handle(Event::LinkLost(id(1_500)), at(1));
    assert_eq!(words(&told), "Gone(Evicted)");
}

#[test]
fn hosts_are_counted_where_they_are_the_same_for_all() {
    for (texts, expected) in [
        // Homes share private addresses; their public ones tell them apart.
        (["192.168.1.2:7", "203.0.113.%:7"], "Joined"),
        (["192.168.1.2:7", "10.0.0.%:7"], "HostQuota"),
        (["127.0.0.1:7", "127.0.0.1:%"], "HostQuota"),
        (["[::ffff:203.0.113.9]:7", "203.0.113.9:%"], "HostQuota"),
        (["[2001:db8:0:%::1]:7", "[2001:db8:0:%::2]:7"], "HostQuota"),
        (["[2001:db8:%::1]:7", "192.168.1.2:7"], "Joined"),
    ] {
        let mut members = nobody_known();
        let mut told = String::new();
        for n in 1..=HOST_UNLINKED_MAX as u16 + 1 {
            let addrs = texts.map(|text| text.replace('%', &n.to_string()));
            told = hear(&mut members, n, &ad_at(&[0, n], &addrs), at(1));
        }
        assert_eq!(told, expected, "{texts:?}");
    }
}

#[test]
fn nodes_behind_a_relay_are_counted_by_it() {
    let mut members = nobody_known();
    let told: Vec<_> = (1..=300)
        .map(|n| {
            let relays = vec!["http://203.0.113.1:80".to_owned()];
            let ad = Ad {
                relays,
                ..ad_at(&[0, n], &[])
            };
            hear(&mut members, n, &ad, at(1))
        })
        .collect();
    assert_eq!(count(&told, "Joined"), RELAYED_UNLINKED_MAX as usize);
    let nowhere: Vec<_> = (301..=330)
        .map(|n| hear(&mut members, n, &ad_at(&[0, n], &[]), at(1)))
        .collect();
    assert_eq!(count(&nowhere, "Joined"), HOST_UNLINKED_MAX as usize);
}

#[test]
fn an_ad_does_not_move_its_maker_to_a_full_host() {
    let mut members = nobody_known();
    let full = ["198.51.100.9:7".to_owned()];
    for n in 1..=HOST_UNLINKED_MAX as u16 {
        hear(&mut members, n, &ad_at(&[0, n], &full), at(1));
    }
    hear(&mut members, 100, &ad(100, 1, 1), at(1));
    let moved = Ad {
        sequence: 2,
        ..ad_at(&[0, 100], &full)
    };
    assert_eq!(hear(&mut members, 100, &moved, at(2)), "HostQuota");
    assert_eq!(members.ad(id(100)).unwrap().addrs, ad(100, 1, 1).addrs);
    // When one of them goes, there is a place.
    let bye = Ad {
        standing: Some(Standing::Leaving),
        sequence: 2,
        ..ad_at(&[0, 1], &full)
    };
    hear(&mut members, 1, &bye, at(2));
    assert_eq!(hear(&mut members, 100, &moved, at(3)), "Changed");
}

/// An introducer answers for all who came through him, also by way of others whom he made up.
#[test]
fn one_introducer_does_not_fill_the_table() {
    let mut members = nobody_known();
    let told: Vec<_> = (0..1_200_u16)
        .map(|n| {
            let node = 1_000 + n;
            let by = [0, 1, 100 + n % 7, node];
            let addrs = [format!("203.{}.{}.1:7", n / 250, n % 250)];
            hear(&mut members, node, &ad_at(&by, &addrs), at(1))
        })
        .collect();
    let quota = INTRODUCED_UNLINKED_MAX as usize;
    assert_eq!(count(&told, "Joined"), quota);
    assert_eq!(count(&told, "IntroducerQuota"), 1_200 - quota);
    assert_eq!(hear(&mut members, 50, &ad(50, 1, 1), at(1)), "Joined");
    let deep: Vec<u16> = (0..VOUCH_CHAIN_MAX as u16).collect();
    assert_eq!(
        hear(
            &mut members,
            7,
            &ad_at(&deep, &["203.9.9.9:7".into()]),
            at(1)
        ),
        "IntroducerQuota"
    );
}

/// In a full table the largest branch gives way, and nobody to it.
#[test]
fn a_full_table_is_fair_to_branches() {
    let mut members = nobody_known();
    let address = |n: u16| [format!("203.{}.{}.1:7", n / 200, n % 200)];
    let branches = MEMBERS_MAX as u16 / INTRODUCED_UNLINKED_MAX as u16;
    for n in 0..MEMBERS_MAX as u16 {
        let by = [0, 20_000 + n % branches, 30_000 + n];
        assert_eq!(
            hear(&mut members, by[2], &ad_at(&by, &address(n)), at(1)),
            "Joined"
        );
    }
    assert_eq!(members.len(), MEMBERS_MAX);
    let small = ad_at(&[0, 10], &address(9_000));
    assert_eq!(
        hear(&mut members, 10, &small, at(2)),
        "Joined, Gone(Evicted)"
    );
    let large = ad_at(&[0, 20_000], &address(9_001));
    assert_eq!(hear(&mut members, 20_000, &large, at(2)), "Full");
    members.handle(Event::LinkUp(id(20_000)), at(2));
    assert_eq!(
        hear(&mut members, 20_000, &large, at(2)),
        "Joined, Gone(Evicted)"
    );
    assert_eq!(members.len(), MEMBERS_MAX);
    assert!(members.ad(id(10)).is_some());
}
