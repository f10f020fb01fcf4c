use super::*;

fn loss(stage: u32) -> Loss {
    Loss {
        stage,
        cause: "silent".to_owned(),
        detected: Duration::from_millis(300),
        at: Instant::now(),
    }
}

fn resent(recomputed: u64, replayed: u64) -> Resent {
    let stage = |stage, replayed, recomputed| RebuiltStage {
        stage,
        replayed,
        recomputed,
    };
    Resent {
        stages: vec![stage(1, 0, recomputed), stage(2, replayed, 0)],
        bytes: 10,
    }
}

#[test]
fn sessions_of_one_recovery_are_summed_up() {
    let recoveries = Recoveries::default();
    let first = recoveries.begin(loss(2));
    recoveries.formed(first);
    recoveries.resumed(first, &resent(0, 100));
    recoveries.resumed(first, &resent(3, 50));
    let shown = recoveries.newest().remove(0);
    assert_eq!(
        (shown.stage, shown.detected_ms, shown.sessions),
        (2, 300, 2)
    );
    assert_eq!((shown.rows_replayed, shown.rows_recomputed), (150, 3));
    assert_eq!(shown.bytes_resent, 20);
    let rows = shown.stages.iter().map(|s| (s.replayed, s.recomputed));
    assert_eq!(rows.collect::<Vec<_>>(), [(0, 3), (150, 0)]);
    assert!(shown.formed_ms.is_some() && shown.resumed_ms >= shown.formed_ms);
    assert!(shown.at_ms > 1_000_000_000_000, "since 1970");
}

#[test]
fn the_oldest_are_forgotten_and_stay_counted() {
    let recoveries = Recoveries::default();
    let first = recoveries.begin(loss(1));
    for n in 0..RECOVERIES_MAX as u32 {
        recoveries.begin(loss(n + 2));
    }
    recoveries.resumed(first, &resent(0, 5));
    let newest = recoveries.newest();
    assert_eq!((newest.len(), newest[0].stage), (RECOVERIES_MAX, 2));
    assert!(newest.iter().all(|shown| shown.sessions == 0));
    let totals = recoveries.totals();
    assert_eq!((totals.losses, totals.sessions), (17, 1));
    assert_eq!((totals.rows_replayed, totals.bytes_resent), (5, 10));
}
