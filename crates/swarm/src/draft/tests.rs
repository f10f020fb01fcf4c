use super::*;

#[test]
fn what_followed_last_time_is_guessed() {
    let check = |text: &[i32], most: usize, expected: &[i32]| {
        assert_eq!(look_up(text, most).tokens, expected, "{text:?}");
    };
    check(&[1, 2, 3, 4, 5, 6, 1, 2, 3], 3, &[4, 5, 6]);
    check(&[1, 2, 3, 4, 1, 2, 3, 5, 1, 2, 3], 2, &[5, 1]);
    check(&[1, 2, 3, 4, 1, 2, 3], 9, &[4, 1, 2, 3]);
    check(&[7, 7, 7, 7], 9, &[7]);
    // More tokens that are the same count more than that they are newer.
    check(&[9, 1, 2, 3, 4, 7, 1, 2, 3, 5, 9, 1, 2, 3], 2, &[4, 7]);
    check(&[9, 1, 2, 3, 4, 7, 1, 2, 3, 5, 8, 1, 2, 3], 2, &[5, 8]);
    check(&[1, 2, 3, 4, 2, 3], 9, &[]);
    check(&[1, 2, 3], 9, &[]);
    check(&[1, 2], 9, &[]);
    check(&[], 9, &[]);
}

const STEP: Duration = Duration::from_millis(10);

/// Costs after a plain step, and one with so many guesses that took so many plain ones.
fn costs(guesses: usize, cost: f64) -> Costs {
    let mut costs = Costs::default();
    costs.learn(0, STEP);
    costs.learn(guesses, STEP.mul_f64(cost));
    costs.rest = TRIAL_EVERY;
    costs
}

#[test]
fn guesses_follow_chance_and_cost() {
    let check = |cost_of_eight: f64, chance: f64, expected: usize| {
        let got = costs(8, cost_of_eight).choose(|_| chance, 8);
        assert_eq!(got, expected, "{cost_of_eight} {chance}");
    };
    check(1.0, 0.9, 8);
    check(1.8, 0.9, 8);
    check(1.8, 0.5, 2);
    check(1.8, 0.1, 0);
    check(7.0, 0.5, 0);
    check(7.0, 1.0, 8);
    check(9.0, 1.0, 0);
    assert_eq!(
        costs(8, 1.0).choose(|_| 0.9, 3),
        3,
        "no more than there are"
    );
    assert_eq!(
        costs(2, 1.2).choose(|_| 0.9, 8),
        8,
        "costs of others are derived"
    );
}

#[test]
fn what_does_not_pay_is_tried_rarely() {
    let mut costs = Costs::default();
    assert_eq!(costs.choose(|_| 1.0, 8), 0, "nothing to compare with yet");
    costs.learn(0, STEP);
    assert_eq!(costs.choose(|_| 0.4, 8), 0, "rather wrong than right");
    let mut trials = 0;
    for _ in 0..10 * TRIAL_EVERY {
        let guesses = costs.choose(|_| 0.8, 8);
        costs.learn(guesses, STEP * (1 + guesses as u32));
        trials += u32::from(guesses > 0);
        assert!([0, 3].contains(&guesses));
    }
    assert!((9..=11).contains(&trials), "{trials}");
    let cheap: usize = (0..2 * TRIAL_EVERY)
        .map(|_| {
            let guesses = costs.choose(|_| 0.8, 8);
            costs.learn(guesses, STEP);
            guesses
        })
        .sum();
    assert!(
        cheap > 3 * TRIAL_EVERY as usize,
        "{cheap}: that it pays now is found"
    );
}

#[test]
fn sessions_learn_also_where_nothing_is_guessed() {
    let guess = |tokens| Guess { tokens, matched: 3 };
    let (mut dear, mut drafting) = (costs(8, 9.0), Drafting::default());
    for _ in 0..20 {
        assert_eq!(drafting.worth(&guess(&[5, 6]), &mut dear), 0);
        drafting.learn(&[], &[5]);
    }
    assert!(drafting.chances[0] > 0.9);
    assert_eq!(drafting.worth(&guess(&[5, 6]), &mut costs(8, 1.5)), 2);
    drafting.learn(&[5, 6], &[5, 7]);
    let chance = drafting.chances[0];
    assert!((0.7..0.9).contains(&chance), "one of two was right");
    for _ in 0..20 {
        let _ = drafting.worth(&guess(&[5]), &mut dear);
        drafting.learn(&[], &[7]);
    }
    assert!(drafting.chances[0] < 0.1);
    let _ = drafting.worth(&guess(&[]), &mut dear);
    drafting.learn(&[], &[7]);
}

#[test]
fn what_has_been_the_same_for_long_is_guessed_further() {
    let guess = |matched| Guess {
        tokens: &[1, 2, 3, 4, 5, 6, 7, 8],
        matched,
    };
    let mut drafting = Drafting::default();
    for _ in 0..20 {
        // Guesses behind three tokens are wrong, those behind many right.
        let _ = drafting.worth(&guess(3), &mut costs(8, 9.0));
        drafting.learn(&[], &[0]);
        let _ = drafting.worth(&guess(16), &mut costs(8, 9.0));
        drafting.learn(&[], &[1]);
    }
    assert_eq!(drafting.worth(&guess(3), &mut costs(8, 1.2)), 0);
    assert_eq!(drafting.worth(&guess(16), &mut costs(8, 1.2)), 8);
}
