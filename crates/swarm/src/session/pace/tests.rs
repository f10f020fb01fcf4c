use super::*;

#[test]
fn deadlines_follow_the_laps() {
    fn check(kind: StepKind, laps_ms: &[u64], smoothed: Option<u64>, deadline: u64) {
        let mut pace = Pace::default();
        let rows = if kind == StepKind::Decode { 1 } else { 256 };
        laps_ms.iter().for_each(|&lap| pace.observe(rows, lap));
        assert_eq!(pace.smoothed_ms(kind), smoothed, "{kind} {laps_ms:?}");
        assert_eq!(pace.deadline_ms(kind), deadline, "{kind} {laps_ms:?}");
    }
    check(StepKind::Decode, &[], None, 500);
    check(StepKind::Decode, &[10], Some(10), 500);
    check(StepKind::Decode, &[400], Some(400), 1_200);
    check(StepKind::Decode, &[400, 1_200], Some(500), 1_500);
    check(StepKind::Decode, &[400; 50], Some(400), 1_200);
    check(StepKind::Decode, &[u64::MAX], Some(30_000), 90_000);
    check(StepKind::Prefill, &[100], Some(100), 5_000);
    check(StepKind::Prefill, &[2_000], Some(2_000), 6_000);
}

#[test]
fn doubts_come_soon_and_within_bounds() {
    fn check(laps_ms: &[u64], expected: u64) {
        let mut pace = Pace::default();
        laps_ms.iter().for_each(|&lap| pace.observe(1, lap));
        assert_eq!(pace.doubt_ms(StepKind::Decode), expected, "{laps_ms:?}");
    }
    check(&[], 120);
    check(&[10], 120);
    check(&[70], 210);
    check(&[1_000], 250);
}

#[test]
fn rows_of_a_prompt_say_how_long_a_replay_takes() {
    let mut pace = Pace::default();
    assert_eq!(pace.again_ms(1_000), 0, "nothing is known");
    pace.observe(1, 8);
    assert_eq!(pace.again_ms(100), 800);
    pace.observe(100, 250);
    pace.observe(1, 8);
    assert_eq!(pace.again_ms(100), 250, "single rows take longer");
    assert_eq!(pace.again_ms(u32::MAX), u64::from(u32::MAX) * 2_500 / 1_000);
}

#[test]
fn kinds_do_not_mix() {
    let mut pace = Pace::default();
    pace.observe(256, 9_000);
    assert_eq!(pace.smoothed_ms(StepKind::of(1)), None);
}
