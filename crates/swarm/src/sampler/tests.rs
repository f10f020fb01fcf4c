use super::*;
use proptest::prelude::*;

const WARM: Sampling = Sampling {
    temperature: 1.0,
    top_k: 0,
    top_p: 1.0,
    seed: 7,
};

/// Logits that look like a language model's and need no random source.
fn logits(vocabulary: usize) -> Vec<f32> {
    let mixed = (0..vocabulary as u64).map(|id| id.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40);
    mixed
        .map(|bits| bits as f32 / (1u32 << 24) as f32 * 12.0 - 6.0)
        .collect()
}

/// Softmax in plain floating point, by which draws are judged.
fn softmax(logits: &[f32], temperature: f64) -> Vec<f64> {
    let peak = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let raw = logits
        .iter()
        .map(|&l| ((f64::from(l) - f64::from(peak)) / temperature).exp());
    let raw: Vec<f64> = raw.collect();
    let sum: f64 = raw.iter().sum();
    raw.iter().map(|share| share / sum).collect()
}

/// Pearson's statistic: Σ (seen − expected)² / expected.
fn chi_square(seen: &[u32], shares: &[f64]) -> f64 {
    let draws: u32 = seen.iter().sum();
    let cells = seen.iter().zip(shares).map(|(&seen, share)| {
        let expected = share * f64::from(draws);
        (f64::from(seen) - expected).powi(2) / expected
    });
    cells.sum()
}

/// The quantile 0.9999 of the chi-square distribution with 15 degrees of freedom.
const CHI_SQUARE_15: f64 = 44.3;

// The golden values were computed by another program from the same definition, in Python.
#[test]
fn numbers_are_golden() {
    fn check(seed: u64, position: u32, expected: u64, second: u64) {
        let got = (number(seed, position), second_number(seed, position));
        assert_eq!(got, (expected, second), "seed {seed}, position {position}");
    }
    check(0, 0, 14_768_444_013_709_385_094, 13_612_115_607_579_846_505);
    check(0, 1, 8_698_578_788_320_220_117, 8_355_672_982_037_453_067);
    check(1, 0, 572_533_853_689_085_571, 3_221_718_646_710_255_420);
    check(
        42,
        1_000_000,
        17_027_564_546_563_777_768,
        7_981_340_247_559_401_178,
    );
    check(
        u64::MAX,
        u32::MAX,
        13_331_081_473_140_685_708,
        5_781_664_038_849_452_080,
    );
}

#[test]
fn tokens_are_golden() {
    fn check(vocabulary: usize, temperature: f32, top_k: u32, top_p: f32, expected: [i32; 6]) {
        let sampling = Sampling {
            temperature,
            top_k,
            top_p,
            seed: 2026,
        };
        let row = logits(vocabulary);
        let mut sampler = Sampler::new();
        let drawn = [0, 1, 2, 3, 255, 256].map(|at| sampler.sample(&row, &sampling, at).unwrap());
        assert_eq!(drawn, expected, "{vocabulary} {sampling:?}");
    }
    check(
        49_152,
        0.0,
        0,
        1.0,
        [46_368, 46_368, 46_368, 46_368, 46_368, 46_368],
    );
    check(
        49_152,
        1.0,
        0,
        1.0,
        [982, 25_984, 44_970, 2_029, 8_522, 33_595],
    );
    check(
        49_152,
        0.7,
        40,
        1.0,
        [987, 27_060, 45_758, 2_584, 7_752, 34_812],
    );
    check(
        49_152,
        0.7,
        0,
        0.9,
        [987, 25_984, 44_978, 2_029, 8_522, 33_600],
    );
    check(
        49_152,
        0.2,
        100,
        0.95,
        [987, 26_450, 45_148, 1_974, 8_739, 33_825],
    );
    check(
        250_000,
        1.3,
        0,
        0.999,
        [4_956, 132_135, 228_699, 10_310, 43_318, 170_819],
    );
}

#[test]
fn greedy_takes_the_lowest_of_equal_ids_and_never_nan() {
    fn check(logits: &[f32], expected: Result<i32, SampleError>) {
        assert_eq!(sample(logits, &Sampling::GREEDY, 3), expected, "{logits:?}");
    }
    let none = |vocabulary| Err(SampleError::NoCandidate { vocabulary });
    check(&[1.0, 5.0, 5.0], Ok(1));
    check(&[-0.0, 0.0], Ok(0));
    check(&[f32::NAN, -3.0, f32::NAN, -2.0], Ok(3));
    check(&[f32::NAN, f32::NEG_INFINITY, -f32::MAX], Ok(2));
    check(&[0.0, f32::INFINITY, f32::INFINITY], Ok(1));
    check(&[], none(0));
    check(&[f32::NAN; 4], none(4));
    check(&[f32::NEG_INFINITY; 2], none(2));
}

#[test]
fn settings_outside_their_range_are_refused() {
    fn check(sampling: Sampling, expected: &str) {
        let error = sample(&[1.0, 2.0], &sampling, 0).unwrap_err();
        assert_eq!(error.to_string().split(" is").next().unwrap(), expected);
    }
    check(
        Sampling {
            temperature: -1.0,
            ..WARM
        },
        "temperature -1",
    );
    check(
        Sampling {
            temperature: f32::NAN,
            ..WARM
        },
        "temperature NaN",
    );
    check(
        Sampling {
            temperature: f32::INFINITY,
            ..WARM
        },
        "temperature inf",
    );
    check(
        Sampling {
            top_p: -0.1,
            ..WARM
        },
        "top_p -0.1",
    );
    check(Sampling { top_p: 1.5, ..WARM }, "top_p 1.5");
    check(
        Sampling {
            top_p: f32::NAN,
            ..WARM
        },
        "top_p NaN",
    );
    let many = vec![0.0; VOCABULARY_MAX + 1];
    let refused = Err(SampleError::TooManyLogits {
        vocabulary: VOCABULARY_MAX + 1,
    });
    assert_eq!(sample(&many, &WARM, 0), refused);
}

#[test]
fn draws_follow_the_softmax() {
    fn check(sampling: Sampling, shares: &[f64]) {
        let row = logits(16);
        let mut seen = [0; 16];
        let mut sampler = Sampler::new();
        for position in 0..40_000 {
            seen[sampler.sample(&row, &sampling, position).unwrap() as usize] += 1;
        }
        let kept: Vec<usize> = (0..16).filter(|&id| shares[id] > 0.0).collect();
        assert!(
            (0..16).all(|id| kept.contains(&id) || seen[id] == 0),
            "{sampling:?}: {seen:?}"
        );
        let (seen, shares): (Vec<u32>, Vec<f64>) =
            kept.iter().map(|&id| (seen[id], shares[id])).unzip();
        let statistic = chi_square(&seen, &shares);
        assert!(statistic < CHI_SQUARE_15, "{sampling:?}: {statistic}");
    }
    /// Shares of the tokens that `keep` lets through, in falling order of probability.
    fn cut(shares: &[f64], mut keep: impl FnMut(usize, f64) -> bool) -> Vec<f64> {
        let mut order: Vec<usize> = (0..shares.len()).collect();
        order.sort_by(|&a, &b| shares[b].total_cmp(&shares[a]));
        let mut kept = vec![0.0; shares.len()];
        let mut before = 0.0;
        for (place, id) in order.into_iter().enumerate() {
            if keep(place, before) {
                kept[id] = shares[id];
            }
            before += shares[id];
        }
        let sum: f64 = kept.iter().sum();
        kept.iter().map(|share| share / sum).collect()
    }
    let row = logits(16);
    for temperature in [0.8f32, 1.0, 3.0] {
        let all = softmax(&row, f64::from(temperature));
        let warm = Sampling {
            temperature,
            ..WARM
        };
        check(warm, &all);
        check(
            Sampling { top_k: 5, ..warm },
            &cut(&all, |place, _| place < 5),
        );
        check(
            Sampling { top_p: 0.8, ..warm },
            &cut(&all, |_, before| before < 0.8),
        );
        let five = cut(&all, |place, _| place < 5);
        let both = cut(&five, |_, before| before < 0.7);
        check(
            Sampling {
                top_k: 5,
                top_p: 0.7,
                ..warm
            },
            &both,
        );
    }
}

#[test]
fn a_wrong_distribution_is_noticed() {
    let warm = softmax(&logits(16), 1.0);
    let warmer = softmax(&logits(16), 1.1);
    let seen: Vec<u32> = warmer
        .iter()
        .map(|share| (share * 40_000.0) as u32)
        .collect();
    assert!(chi_square(&seen, &warm) > CHI_SQUARE_15);
}

#[test]
fn neighbouring_positions_and_seeds_are_independent() {
    /// Pairs of two-bit numbers fill the sixteen cells evenly when the two are independent.
    fn check(name: &str, pair: impl Fn(u32) -> (u64, u64)) {
        let mut seen = [0; 16];
        for step in 0..40_000 {
            let (a, b) = pair(step);
            seen[((a >> 62) * 4 + (b >> 62)) as usize] += 1;
        }
        let statistic = chi_square(&seen, &[1.0 / 16.0; 16]);
        assert!(statistic < CHI_SQUARE_15, "{name}: {statistic}");
    }
    check("next position", |step| {
        (number(5, step), number(5, step + 1))
    });
    check("position after next", |step| {
        (number(5, step), number(5, step + 2))
    });
    check("next seed", |step| {
        (number(u64::from(step), 9), number(u64::from(step) + 1, 9))
    });
    check("position and seed swapped", |step| {
        (number(u64::from(step), 1), number(1, step))
    });
    check("second number", |step| {
        (number(5, step), second_number(5, step))
    });
    check("second number of the position before", |step| {
        (number(5, step + 1), second_number(5, step))
    });
}

#[test]
fn drawing_again_gives_the_softmax_of_what_is_allowed() {
    let row = logits(40);
    // Every third token is forbidden, the best one among them.
    let best = sample(&row, &Sampling::GREEDY, 0).unwrap() as usize;
    let allowed: Vec<usize> = (0..40).filter(|id| id % 3 != best % 3).take(16).collect();
    let mut masked = vec![f32::NEG_INFINITY; 40];
    allowed.iter().for_each(|&id| masked[id] = row[id]);
    let shares = softmax(&masked, 1.0);
    let shares: Vec<f64> = allowed.iter().map(|&id| shares[id]).collect();
    let (mut seen, mut second) = ([0; 16], 0);
    let mut sampler = Sampler::new();
    for position in 0..40_000 {
        let first = sampler.sample(&row, &WARM, position).unwrap() as usize;
        let place = allowed
            .iter()
            .position(|&id| id == first)
            .unwrap_or_else(|| {
                second += 1;
                let again = sampler.sample_again(&masked, &WARM, position).unwrap() as usize;
                allowed.iter().position(|&id| id == again).unwrap()
            });
        seen[place] += 1;
    }
    assert!(second > 10_000, "most first draws are forbidden: {second}");
    let statistic = chi_square(&seen, &shares);
    assert!(statistic < CHI_SQUARE_15, "{statistic}");
}

#[test]
fn settings_that_leave_one_token_agree_with_greedy() {
    let row = logits(5_000);
    let greedy = sample(&row, &Sampling::GREEDY, 0).unwrap();
    for position in 0..200 {
        for sampling in [
            Sampling { top_k: 1, ..WARM },
            Sampling { top_p: 0.0, ..WARM },
            Sampling {
                temperature: 1e-30,
                ..WARM
            },
        ] {
            assert_eq!(
                sample(&row, &sampling, position),
                Ok(greedy),
                "{sampling:?}"
            );
        }
    }
}

#[test]
fn infinite_logits_share_evenly() {
    let row = [f32::INFINITY, 9.0, f32::INFINITY, f32::NAN];
    let drawn: Vec<i32> = (0..400)
        .map(|at| sample(&row, &WARM, at).unwrap())
        .collect();
    let first = drawn.iter().filter(|&&token| token == 0).count();
    assert!((150..250).contains(&first) && drawn.iter().all(|token| [0, 2].contains(token)));
}

/// The same rules, with a full sort and no shortcuts.
fn plainly(logits: &[f32], sampling: &Sampling, position: u32) -> Option<i32> {
    let (_, peak) = largest(logits)?;
    let every = (0u32..).zip(logits).map(|(id, &logit)| Candidate {
        weight: 0,
        id,
        logit,
    });
    let possible = every.filter(|candidate| candidate.logit > f32::NEG_INFINITY);
    let mut ranked: Vec<Candidate> = possible.collect();
    ranked.sort_by(Candidate::rank);
    if sampling.temperature == 0.0 {
        return Some(ranked[0].token());
    }
    if sampling.top_k > 0 {
        ranked.truncate(sampling.top_k as usize);
    }
    let scale = Scale::new(peak, sampling.temperature);
    ranked
        .iter_mut()
        .for_each(|candidate| candidate.weight = scale.weight(candidate.logit));
    let total: u64 = ranked.iter().map(|candidate| candidate.weight).sum();
    if sampling.top_p < 1.0 {
        let wanted = ((f64::from(sampling.top_p) * total as f64).ceil() as u64).max(1);
        let mut sum = 0;
        ranked.retain(|candidate| {
            let before = sum;
            sum += candidate.weight;
            before < wanted
        });
    }
    ranked.sort_by_key(|candidate| candidate.id);
    let total: u64 = ranked.iter().map(|candidate| candidate.weight).sum();
    let at = (u128::from(number(sampling.seed, position)) * u128::from(total)) >> 64;
    let mut sum = 0;
    let drawn = ranked.iter().find(|candidate| {
        sum += u128::from(candidate.weight);
        at < sum
    });
    drawn.map(Candidate::token)
}

fn any_logit() -> impl Strategy<Value = f32> {
    prop_oneof![
        8 => -30f32..30.0,
        4 => (-3i8..3).prop_map(f32::from),
        1 => prop_oneof![
            Just(f32::NAN), Just(f32::INFINITY), Just(f32::NEG_INFINITY), Just(f32::MAX), Just(-f32::MAX)
        ],
    ]
}

proptest! {
    #[test]
    fn shortcuts_change_nothing(
        row in prop::collection::vec(any_logit(), 0..900),
        temperature in prop_oneof![Just(0.0f32), 0.01f32..4.0, Just(1e30)],
        top_k in 0u32..40,
        top_p in prop_oneof![Just(1.0f32), 0f32..1.0],
        seed: u64,
        position: u32,
    ) {
        let sampling = Sampling { temperature, top_k, top_p, seed };
        let fast = sample(&row, &sampling, position);
        prop_assert_eq!(fast.ok(), plainly(&row, &sampling, position));
    }

    #[test]
    fn earlier_draws_leave_no_trace(
        rows in prop::collection::vec(prop::collection::vec(any_logit(), 1..300), 1..5),
        top_k in 0u32..40,
        top_p in 0f32..=1.0,
    ) {
        let sampling = Sampling { temperature: 0.9, top_k, top_p, seed: 3 };
        let mut reused = Sampler::new();
        for (position, row) in rows.iter().enumerate() {
            let fresh = sample(row, &sampling, position as u32);
            prop_assert_eq!(reused.sample(row, &sampling, position as u32), fresh);
        }
    }
}
