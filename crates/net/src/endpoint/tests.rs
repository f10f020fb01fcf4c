use super::*;

fn addrs(texts: &[&str]) -> Vec<SocketAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn check_reachable(theirs: &[&str], ours: &[&str], expected: &[&str]) {
    assert_eq!(
        reachable(&addrs(theirs), &addrs(ours)),
        addrs(expected),
        "{theirs:?} {ours:?}"
    );
}

#[test]
fn loopback_is_tried_on_the_same_machine_only() {
    let (far, here) = ("10.0.0.2:7", "127.0.0.1:7");
    check_reachable(&[far, here], &["10.0.0.1:9", "127.0.0.1:9"], &[far]);
    check_reachable(&[far, here], &["10.0.0.2:9", "127.0.0.1:9"], &[far, here]);
    check_reachable(&[here], &["10.0.0.1:9"], &[here]);
    check_reachable(&[here], &[], &[here]);
}

#[test]
fn our_own_sockets_are_never_called() {
    check_reachable(&["127.0.0.1:7"], &["127.0.0.1:7"], &[]);
    check_reachable(
        &["172.17.0.1:7", "10.0.0.2:7"],
        &["172.17.0.1:7", "10.0.0.1:7"],
        &["10.0.0.2:7"],
    );
}

#[test]
fn ranking_keeps_loopback_and_drops_what_is_too_much() {
    let ranked = rank(addrs(&[
        "[::1]:7",
        "127.0.0.1:7",
        "[fd00::1]:7",
        "[fe80::1]:7",
        "10.0.0.2:7",
    ]));
    assert_eq!(
        ranked,
        addrs(&["10.0.0.2:7", "[fd00::1]:7", "127.0.0.1:7", "[::1]:7"])
    );
    let many = (0..40).map(|n| SocketAddr::from(([10, 0, 0, n], 7)));
    let ranked = rank(many.chain(addrs(&["127.0.0.1:7"])).collect());
    assert_eq!(ranked.len(), TICKET_ADDRS_MAX);
    assert_eq!(ranked.last(), addrs(&["127.0.0.1:7"]).last());
}
