use super::*;
use proto::ids::RingId;

const MIB: u64 = 1 << 20;

fn id(n: u8) -> NodeId {
    NodeId([n; 32])
}

fn member(n: u8, name: &str) -> Member {
    Member {
        id: id(n),
        addrs: Vec::new(),
        name: name.to_owned(),
        relays: None,
    }
}

fn said(done_bytes: u64, total_bytes: u64) -> RingProgress {
    RingProgress {
        ring: RingId([0; 16]),
        done_bytes,
        total_bytes,
    }
}

fn two(now: Instant) -> Loads {
    Loads::new(&[member(1, "bo"), member(2, "cy")], 100 * MIB, now)
}

#[test]
fn a_fetch_takes_as_long_as_it_goes_on_and_no_longer() {
    let begun = Instant::now();
    let mut loads = two(begun);
    loads.loading(id(1), begun);
    loads.ready(id(2), begun);
    let mut now = begun;
    for done in 1..=10 {
        now += LOAD_MAX - Duration::from_secs(1);
        assert!(loads.progress(id(1), said(done * MIB, 20 * MIB), now));
        assert!(loads.until() > now);
    }
    assert!(now > begun + 9 * LOAD_MAX);
    let words = loads.words().unwrap();
    assert!(words.contains("\"bo\" has fetched 10 of 20 MiB"), "{words}");
    assert!(words.contains("50 %"), "{words}");
    // The same again, less, or a few bytes more are no progress.
    for done in [10 * MIB, 9 * MIB, 10 * MIB + 1] {
        assert!(!loads.progress(id(1), said(done, 20 * MIB), now));
    }
    let end = loads.until();
    assert_eq!(end, now + LOAD_MAX);
    let late = loads.late(end);
    assert!(
        late.contains("10 of 20 MiB") && late.contains("nothing more for 120 s"),
        "{late}"
    );
    assert!(!late.contains("cy"), "{late}");
}

#[test]
fn nobody_fetches_forever_what_cannot_be_so_much() {
    let begun = Instant::now();
    let mut loads = two(begun);
    assert!(loads.progress(id(1), said(200 * MIB, u64::MAX), begun));
    assert!(!loads.progress(id(1), said(201 * MIB, u64::MAX), begun));
    assert!(
        !loads.progress(id(9), said(MIB, MIB), begun),
        "nobody asked it"
    );
}

#[test]
fn the_last_bytes_count_however_few_and_then_loading_has_its_time() {
    let begun = Instant::now();
    let mut loads = two(begun);
    loads.ready(id(2), begun);
    loads.progress(id(1), said(MIB, MIB + 1), begun);
    let later = begun + Duration::from_secs(100);
    assert!(loads.progress(id(1), said(MIB + 1, MIB + 1), later));
    assert_eq!(loads.until(), later + LOAD_MAX);
    assert!(
        loads
            .late(later + LOAD_MAX)
            .contains("did not load within 120 s")
    );
    let much_later = later + 5 * LOAD_MAX;
    loads.ready(id(1), much_later);
    assert!(loads.all_ready() && loads.words().is_none());
    assert_eq!(loads.until(), much_later + LOAD_MAX, "for the last hop");
    let late = loads.late(loads.until());
    assert!(late.contains("\"cy\" did not call back"), "{late}");
    assert!(!loads.progress(id(1), said(9 * MIB, 9 * MIB), later));
}

#[test]
fn who_says_nothing_is_waited_for_a_short_time_only() {
    let begun = Instant::now();
    let mut loads = two(begun);
    loads.loading(id(1), begun);
    let end = loads.until();
    assert_eq!(end, begun + FIRST_WORD_MAX);
    let late = loads.late(end);
    assert!(late.contains("\"cy\" did not say within 10 s"), "{late}");
    assert!(!late.contains("bo"), "{late}");
    // Saying the same again does not make it longer.
    loads.loading(id(2), begun);
    loads.loading(id(2), begun + FIRST_WORD_MAX);
    assert_eq!(loads.until(), begun + LOAD_MAX);
}
