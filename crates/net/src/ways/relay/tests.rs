use super::*;
use std::sync::atomic::{AtomicBool, Ordering};

const COMMONS: CommonsId = CommonsId([1; 32]);

fn endpoint(n: u8) -> EndpointId {
    iroh::SecretKey::from_bytes(&[n; 32]).public()
}

/// Connections are numbered by the server alone, so they are taken from requests.
fn connection(n: u8) -> ConnectionId {
    let (parts, ()) = http::Request::new(()).into_parts();
    let version = iroh_relay::http::ProtocolVersion::default();
    ClientRequest::new(endpoint(n), version, parts).connection_id()
}

fn knock(gate: &Gate, n: u8, now: Instant) -> Result<ConnectionId, &'static str> {
    let connection = connection(n);
    let pass = pass(COMMONS, node(endpoint(n)));
    gate.admit(endpoint(n), connection, Some(&pass), now)
        .map(|()| connection)
}

#[test]
fn without_the_pass_of_the_commons_nobody_comes_in() {
    let gate = Gate::new(COMMONS, |_| true);
    let now = Instant::now();
    let others = pass(COMMONS, node(endpoint(2)));
    let elsewhere = pass(CommonsId([2; 32]), node(endpoint(1)));
    for shown in [None, Some(""), Some(others.as_str()), Some(&elsewhere)] {
        let refused = gate.admit(endpoint(1), connection(1), shown, now);
        assert!(refused.is_err(), "{shown:?}");
    }
    assert!(knock(&gate, 1, now).is_ok());
}

#[test]
fn members_stay_and_guests_go_unless_they_become_members() {
    let joined = Arc::new(AtomicBool::new(false));
    let has_joined = joined.clone();
    let newcomer = node(endpoint(2));
    let member = node(endpoint(1));
    let gate = Gate::new(COMMONS, move |node| {
        node == member || (node == newcomer && has_joined.load(Ordering::SeqCst))
    });
    let now = Instant::now();
    knock(&gate, 1, now).unwrap();
    knock(&gate, 2, now).unwrap();
    let stranger = knock(&gate, 3, now).unwrap();
    joined.store(true, Ordering::SeqCst);
    let soon = now + Duration::from_millis(RELAY_GUEST_MS - 1);
    assert_eq!(gate.overstayed(soon), []);
    let late = now + Duration::from_millis(RELAY_GUEST_MS);
    assert_eq!(gate.overstayed(late), [(endpoint(3), stranger)]);
    gate.forget(stranger);
    assert_eq!(gate.overstayed(late), []);
}

#[test]
fn so_many_guests_and_so_many_clients() {
    let gate = Gate::new(COMMONS, |_| false);
    let now = Instant::now();
    let come: Vec<_> = (0..100).filter_map(|n| knock(&gate, n, now).ok()).collect();
    assert_eq!(come.len(), RELAY_GUESTS_MAX);
    gate.forget(come[0]);
    assert!(knock(&gate, 200, now).is_ok());

    let gate = Gate::new(COMMONS, |_| true);
    let come = (0..200).filter(|n| knock(&gate, *n, now).is_ok()).count();
    assert_eq!(come, RELAY_CLIENTS_MAX);
}

#[test]
fn a_node_without_a_public_address_offers_nothing_by_itself() {
    let addrs = |texts: &[&str]| -> Vec<SocketAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    };
    let (home, public) = (addrs(&["10.0.0.1:7", "[2a00::1]:7"]), addrs(&["8.8.8.8:7"]));
    let at = "10.0.0.1:9".parse().unwrap();
    assert_eq!(place(RelayOffer::Auto, &home), None);
    assert_eq!(place(RelayOffer::Auto, &public), Some(public[0]));
    assert_eq!(place(RelayOffer::Off, &public), None);
    assert_eq!(place(RelayOffer::At(at), &home), Some(at));
}
