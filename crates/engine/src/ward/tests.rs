use super::*;

const MODEL: Hash = Hash([1; 32]);

/// A ward, and what it kept.
fn ward() -> (Ward, Arc<Mutex<BTreeMap<Hash, ModelDeaths>>>) {
    let kept = Arc::new(Mutex::new(BTreeMap::new()));
    let there = kept.clone();
    let keep: Keep = Box::new(move |model, record| {
        let mut kept = there.lock().unwrap();
        match record {
            Some(record) => kept.insert(model, record.clone()),
            None => kept.remove(&model),
        };
    });
    (Ward::new([], keep), kept)
}

fn check(times_s: &[u64], quarantined: bool) {
    let (ward, kept) = ward();
    for time in times_s {
        ward.died(MODEL, "m", "abort", *time);
    }
    assert_eq!(ward.why(MODEL).is_some(), quarantined, "{times_s:?}");
    let again = Ward::new(kept.lock().unwrap().clone(), Box::new(|_, _| {}));
    assert_eq!(again.quarantined(), ward.quarantined(), "{times_s:?}");
}

#[test]
fn three_deaths_within_ten_minutes_are_too_many_also_over_a_restart() {
    check(&[], false);
    check(&[0, 1], false);
    check(&[0, 1, 2], true);
    check(&[0, 300, 600], true);
    check(&[0, 300, 601], false);
    check(&[0, 601, 1202, 1803], false);
    check(&[0, 601, 602, 603], true);
    // Once quarantined, time alone does not help.
    check(&[0, 1, 2, 5000], true);
}

#[test]
fn models_are_counted_each_by_itself_and_forgotten_when_well() {
    let (ward, kept) = ward();
    for n in 0..6 {
        ward.died(Hash([n; 32]), "m", "abort", 10);
    }
    assert_eq!(
        (ward.quarantined().len(), kept.lock().unwrap().len()),
        (0, 6)
    );
    ward.died(MODEL, "m", "abort", 5000);
    assert_eq!(kept.lock().unwrap().keys().collect::<Vec<_>>(), [&MODEL]);
}

#[tokio::test]
async fn a_release_wakes_who_waits_and_says_whether_there_was_anything() {
    let (ward, kept) = ward();
    let ward = Arc::new(ward);
    let name = "m".to_owned();
    let patient = Patient {
        model: MODEL,
        name,
        ward: ward.clone(),
    };
    for _ in 0..DEATHS_MAX {
        patient.died("abort");
    }
    let why = patient.quarantined().unwrap();
    assert!(
        why.contains("abort") && why.contains(&MODEL.to_string()),
        "{why}"
    );
    let waits = tokio::spawn(async move { patient.released().await });
    tokio::task::yield_now().await;
    assert!(!waits.is_finished());
    assert!(ward.release(MODEL));
    waits.await.unwrap();
    assert!(!ward.release(MODEL));
    assert!(kept.lock().unwrap().is_empty());
}

#[test]
fn long_last_words_are_cut() {
    let (ward, kept) = ward();
    ward.died(MODEL, "m", &"é".repeat(DEATH_TEXT_BYTES_MAX), 1);
    assert_eq!(
        kept.lock().unwrap()[&MODEL].newest.len(),
        DEATH_TEXT_BYTES_MAX
    );
}
