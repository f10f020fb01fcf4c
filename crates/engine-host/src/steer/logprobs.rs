//! Natural logarithms of probabilities, from logits as the model gave them.

/// What is needed to name the probability of any token of a row.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scale {
    peak: f64,
    /// The logarithm of the sum of all e^(logit − peak).
    sum: f64,
}

impl Scale {
    /// Reads a row. Sums are of f64: the results are within 10⁻⁶ of the exact ones, and not equal to the bit on every platform.
    pub(super) fn of(logits: &[f32]) -> Self {
        let peak = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let peak = f64::from(peak);
        let powers = logits.iter().map(|&logit| below(peak, logit).exp());
        Self {
            peak,
            sum: powers.sum::<f64>().ln(),
        }
    }

    /// ln p of a token with this logit.
    pub(super) fn logprob(self, logit: f32) -> f32 {
        (below(self.peak, logit) - self.sum) as f32
    }
}

/// The logit less the peak; equal to 0 even where both are infinite. What is no number has no share.
fn below(peak: f64, logit: f32) -> f64 {
    match f64::from(logit) {
        logit if logit == peak => 0.0,
        logit if logit.is_nan() => f64::NEG_INFINITY,
        logit => logit - peak,
    }
}

/// The tokens with the `count` largest logits, best first, of equal ones the lower id first.
pub(super) fn best(logits: &[f32], count: usize) -> Vec<i32> {
    let mut best: Vec<usize> = Vec::with_capacity(count + 1);
    for (token, logit) in logits.iter().enumerate() {
        if logit.is_nan()
            || (best.len() == count && best.last().is_none_or(|&b| *logit <= logits[b]))
        {
            continue;
        }
        let at = best.partition_point(|&b| logits[b] >= *logit);
        best.insert(at, token);
        best.truncate(count);
    }
    best.into_iter().map(|token| token as i32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_probabilities_together_are_one() {
        let rows: [&[f32]; 4] = [
            &[0.0],
            &[1.0, 2.0, 3.0, f32::NEG_INFINITY, f32::NAN],
            &[-80.0, 30.0, 90.0, 89.5],
            &[f32::INFINITY, 1.0, f32::INFINITY],
        ];
        for row in rows {
            let scale = Scale::of(row);
            let sum: f64 = row.iter().map(|&l| f64::from(scale.logprob(l)).exp()).sum();
            assert!((sum - 1.0).abs() < 1e-6, "{row:?}: {sum}");
        }
        let half = Scale::of(&[5.0, 5.0]).logprob(5.0);
        assert!((half - 0.5_f32.ln()).abs() < 1e-7, "{half}");
    }

    #[test]
    fn the_best_come_first_and_of_equals_the_lower_id() {
        let check = |row: &[f32], count, expected: &[i32]| {
            assert_eq!(best(row, count), expected, "{row:?} {count}");
        };
        check(&[1.0, 3.0, 2.0, 3.0], 3, &[1, 3, 2]);
        check(&[3.0, 3.0, 3.0], 2, &[0, 1]);
        check(&[f32::NAN, 0.0, f32::NEG_INFINITY], 9, &[1, 2]);
        check(&[1.0, 2.0], 0, &[]);
        check(&[], 3, &[]);
    }
}
