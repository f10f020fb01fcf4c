use super::*;
use proptest::prelude::*;

#[derive(Debug, Clone)]
enum Step {
    Total(u64),
    Span(u32, u32, u64),
    At(u64),
    Finish,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        any::<u64>().prop_map(Step::Total),
        (0..1200u32, 0..1200u32, any::<u64>()).prop_map(|(a, b, w)| Step::Span(a, b, w)),
        (0..1200u32, 0..1200u32, 0..5000u64).prop_map(|(a, b, w)| Step::Span(a, b, w)),
        any::<u64>().prop_map(Step::At),
        (0..5000u64).prop_map(Step::At),
        Just(Step::Finish),
    ]
}

fn run(steps: &[Step]) -> Vec<(u64, u64)> {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&seen);
    let meter = Meter::new(Arc::new(move |e: &Event<'_>| {
        heard.lock().unwrap().push((e.done, e.total));
    }));
    let mut span = None;
    for (i, step) in steps.iter().enumerate() {
        match step {
            Step::Total(bytes) => meter.set_total(*bytes),
            Step::Span(a, b, work) => {
                span = Some(meter.span(&format!("phase {i}"), *a..*b, *work));
            }
            Step::At(done) => span.iter().for_each(|s| s.at(*done)),
            Step::Finish => meter.finish("done"),
        }
    }
    let seen = seen.lock().unwrap();
    seen.clone()
}

proptest! {
    #[test]
    fn reports_never_go_backwards(steps in prop::collection::vec(step(), 0..60)) {
        let seen = run(&steps);
        for (done, total) in &seen {
            prop_assert!(done <= total);
        }
        for pair in seen.windows(2) {
            prop_assert!(pair[0].0 <= pair[1].0, "{pair:?}");
            prop_assert!(pair[0].1 == pair[1].1 || pair[0].1 == 0, "{pair:?}");
        }
    }
}

#[test]
fn a_second_source_stands_still_until_it_has_caught_up_and_the_end_is_the_total() {
    use Step::{At, Finish, Span, Total};
    let steps = [
        Total(2000),
        Span(0, 500, 10),
        At(5),
        Span(0, 1000, 100),
        At(10),
        At(60),
        Finish,
    ];
    let done: Vec<u64> = run(&steps).into_iter().map(|(done, _)| done).collect();
    assert_eq!(done, [0, 500, 500, 1200, 2000]);
}
