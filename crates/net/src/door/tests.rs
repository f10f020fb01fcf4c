use super::*;
use std::time::Duration;

fn host(n: u16) -> Host {
    let [a, b] = n.to_be_bytes();
    Host::V4(Ipv4Addr::new(10, 0, a, b))
}

fn enter(door: &Door, host: Host, now: Instant) -> Option<Guest> {
    match door.knock(host, true, now) {
        Knock::In(guest) => Some(guest),
        _ => None,
    }
}

#[test]
fn one_host_takes_its_places_and_leaves_the_others_theirs() {
    let (door, now) = (Door::default(), Instant::now());
    let crowd: Vec<_> = (0..100)
        .filter_map(|_| enter(&door, host(1), now))
        .collect();
    assert_eq!(crowd.len(), STRANGERS_PER_HOST_MAX);
    assert!(matches!(door.knock(host(1), true, now), Knock::Crowded));
    assert!(enter(&door, host(2), now).is_some());
    drop(crowd);
    assert!(enter(&door, host(1), now).is_some());
}

#[test]
fn there_is_room_for_so_many_strangers_and_whoever_is_late_shows_its_address() {
    let (door, now) = (Door::default(), Instant::now());
    let mut crowd = Vec::new();
    for n in 0..STRANGERS_MAX {
        let from = host(n as u16);
        if n < STRANGERS_CALM {
            assert!(matches!(door.knock(from, false, now), Knock::In(_)));
        } else {
            assert!(matches!(door.knock(from, false, now), Knock::ShowYourself));
        }
        crowd.push(enter(&door, from, now).unwrap());
    }
    assert!(matches!(door.knock(host(999), true, now), Knock::Crowded));
    crowd.pop();
    assert!(enter(&door, host(999), now).is_some());
}

#[test]
fn calls_and_newcomers_of_one_host_come_at_a_rate() {
    let (door, now) = (Door::default(), Instant::now());
    let calls = |host, at| (0..2000).filter_map(|_| enter(&door, host, at)).count();
    assert_eq!(calls(host(1), now), CALLS_PER_HOST_BURST as usize);
    assert!(matches!(door.knock(host(1), true, now), Knock::TooFast));
    assert_eq!(calls(host(2), now), CALLS_PER_HOST_BURST as usize);

    let joins = |host, at| {
        let guest = enter(&door, host, at).unwrap();
        (0..2000).filter(|_| guest.may_join(at)).count()
    };
    assert_eq!(joins(host(3), now), JOINS_PER_HOST_BURST as usize);
    let later = now + Duration::from_secs(60);
    let a_minute = (60.0 * JOINS_PER_HOST_PER_S) as usize;
    assert_eq!(joins(host(3), later), a_minute);
    assert_eq!(joins(host(4), later), JOINS_PER_HOST_BURST as usize);
}

#[test]
fn an_ipv6_host_is_its_network_and_a_mapped_address_is_ipv4() {
    let of = |text: &str| Host::of(text.parse().unwrap());
    assert_eq!(of("[2001:db8::1]:1"), of("[2001:db8::ffff:2]:9"));
    assert_ne!(of("[2001:db8::1]:1"), of("[2001:db8:0:1::1]:1"));
    assert_eq!(of("[::ffff:192.0.2.1]:1"), of("192.0.2.1:2"));
    assert_ne!(of("192.0.2.1:1"), of("192.0.2.2:1"));
}

#[test]
fn so_many_hosts_are_told_apart_and_idle_ones_are_forgotten() {
    let (door, now) = (Door::default(), Instant::now());
    for n in 0..HOSTS_MAX {
        drop(enter(&door, host(n as u16), now).unwrap());
    }
    let guest = enter(&door, Host::V6([1; 8]), now).unwrap();
    assert_eq!(guest.host, Host::Others);
    let later = now + Duration::from_secs(3600);
    let guest = enter(&door, Host::V6([1; 8]), later).unwrap();
    assert_eq!(guest.host, Host::V6([1; 8]));
    assert!(door.crowd().hosts.len() <= 3);
}
