use super::*;
use futures::FutureExt;
use std::pin::Pin;

type Take = Pin<Box<dyn Future<Output = Place>>>;

fn ask(places: &Arc<Places>, caller: u8) -> Take {
    Box::pin(Arc::clone(places).take(ShareScope([caller; 16])))
}

/// Which of the callers have got their place by now; each is polled once.
fn granted(asked: &mut [Take]) -> Vec<Option<Place>> {
    asked.iter_mut().map(|take| take.now_or_never()).collect()
}

#[test]
fn who_is_alone_has_them_all() {
    let places = Places::new(8);
    let mut asked: Vec<Take> = (0..10).map(|_| ask(&places, 1)).collect();
    let got = granted(&mut asked);
    assert_eq!(got.iter().filter(|place| place.is_some()).count(), 8);
    assert_eq!(places.taken(), 8);
    drop(got);
    assert_eq!(places.taken(), 2, "the two that waited have theirs");
    drop(asked);
    assert_eq!(places.taken(), 0, "they went away before they saw it");
}

#[test]
fn a_free_place_goes_to_who_holds_the_fewest() {
    let places = Places::new(4);
    let mut greedy: Vec<Take> = (0..6).map(|_| ask(&places, 1)).collect();
    let mut held = granted(&mut greedy[..4]);
    assert!(greedy[4].as_mut().now_or_never().is_none());
    let mut modest = ask(&places, 2);
    assert!(modest.as_mut().now_or_never().is_none(), "all are taken");
    held.pop();
    assert!(greedy[4].as_mut().now_or_never().is_none());
    assert!(modest.as_mut().now_or_never().is_some());
}

#[test]
fn those_who_wait_get_equal_shares() {
    let mut inner = Inner::default();
    let mut asked = Vec::new();
    let mut wait = |inner: &mut Inner, caller: u8| {
        let (place, granted) = oneshot::channel();
        asked.push(granted);
        inner.waiting.push_back(Waiting {
            caller: ShareScope([caller; 16]),
            place,
        });
    };
    for caller in [1, 1, 1, 1, 1, 1, 2, 2, 3, 4] {
        wait(&mut inner, caller);
    }
    let mut order = Vec::new();
    while let Some(next) = inner.next(8) {
        order.push(next.caller.0[0]);
    }
    assert_eq!(order, [1, 2, 3, 4, 1, 2, 1, 1]);
    wait(&mut inner, 3);
    inner.release(ShareScope([1; 16]));
    assert_eq!(inner.next(8).unwrap().caller.0[0], 3);
}

#[test]
fn who_goes_away_gives_way() {
    let places = Places::new(1);
    let first = ask(&places, 1).now_or_never().unwrap();
    let mut gone = ask(&places, 2);
    assert!(gone.as_mut().now_or_never().is_none());
    let mut next = ask(&places, 3);
    assert!(next.as_mut().now_or_never().is_none());
    drop(gone);
    drop(first);
    assert!(next.as_mut().now_or_never().is_some());
}
