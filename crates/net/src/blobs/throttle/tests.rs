use super::*;

const A: NodeId = NodeId([1; 32]);
const B: NodeId = NodeId([2; 32]);
const S: Duration = Duration::from_secs(1);

fn throttle(all: u64, peer: u64) -> Throttle {
    let limits = UploadLimits {
        all_bytes_s: NonZeroU64::new(all),
        peer_bytes_s: NonZeroU64::new(peer),
    };
    Throttle::new(limits, Duration::ZERO)
}

#[test]
fn a_burst_is_free_and_what_is_more_waits_for_as_long_as_the_rate_says() {
    let mut one = throttle(1_000, 0);
    assert_eq!(
        one.take(A, UPLOAD_BURST_BYTES, Duration::ZERO),
        Duration::ZERO
    );
    assert_eq!(one.take(A, 500, Duration::ZERO), S / 2);
    assert_eq!(one.take(B, 500, Duration::ZERO), S);
    assert_eq!(one.take(B, 0, S), Duration::ZERO);
    assert_eq!(one.take(A, 1, S), Duration::from_millis(1));
    // However long nothing was sent, no more than a burst is saved up.
    assert_eq!(one.take(A, UPLOAD_BURST_BYTES + 1_000, 1_000_000 * S), S);
}

#[test]
fn one_peer_cannot_use_up_what_another_may_have_and_both_share_the_whole() {
    let mut both = throttle(4_000, 1_000);
    let burst = UPLOAD_BURST_BYTES / 2;
    assert_eq!(both.take(A, burst, Duration::ZERO), Duration::ZERO);
    assert_eq!(both.take(B, burst, Duration::ZERO), Duration::ZERO);
    assert_eq!(
        both.take(A, 400, Duration::ZERO),
        S / 10,
        "all have had their burst"
    );
    both.take(A, burst, Duration::ZERO);
    let later = 1_000_000 * S;
    assert_eq!(both.take(A, 0, later), Duration::ZERO);
    assert_eq!(both.take(A, UPLOAD_BURST_BYTES + 1_000, later), S);
    assert_eq!(both.take(B, 0, later), S / 4);
}

#[test]
fn without_limits_nobody_waits_and_peers_at_rest_are_forgotten() {
    assert_eq!(
        throttle(0, 0).take(A, u64::MAX, Duration::ZERO),
        Duration::ZERO
    );
    let mut each = throttle(0, 1_000);
    each.take(A, 5, Duration::ZERO);
    each.take(B, 5, S);
    assert_eq!(each.each.len(), 1);
}

#[test]
fn what_may_be_sent_by_a_time_never_exceeds_burst_and_rate() {
    let mut one = throttle(10_000, 0);
    let (mut now, mut sent) = (Duration::ZERO, 0);
    for step in 0..1_000u64 {
        let bytes = 1 + step * 7_919 % 65_536;
        now += one.take(A, bytes, now) + Duration::from_millis(step % 3);
        sent += bytes;
        let allowed = UPLOAD_BURST_BYTES as f64 + 10_000.0 * now.as_secs_f64();
        assert!(sent as f64 <= allowed + 1.0, "{sent} bytes by {now:?}");
    }
    assert!(now > 100 * S, "the limit never struck");
}
