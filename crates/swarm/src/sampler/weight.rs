//! A logit's share of the draw, as a whole number that every machine computes alike.

/// The weight of the largest logit: 2⁴⁰. A token 2⁻⁴¹ times as probable weighs nothing.
pub(super) const WEIGHT_MAX: u64 = 1 << 40;

/// Below this exponent a weight rounds to 0: −41 · ln 2, rounded away from 0.
const EXPONENT_MIN: f64 = -28.5;
/// 2⁵². A number from 0 to 2⁵² added to it is rounded to a whole one, which its lower 52 bits then hold.
const WHOLE: f64 = 4_503_599_627_370_496.0;
/// 1.5 · 2⁵². The same for numbers of either sign.
const WHOLE_SIGNED: f64 = 1.5 * WHOLE;

/// Turns logits into weights, for one temperature and largest logit.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scale {
    peak: f32,
    /// 1 / temperature.
    steepness: f64,
}

impl Scale {
    /// `temperature` is above 0; `peak` is the largest logit.
    pub(super) fn new(peak: f32, temperature: f32) -> Self {
        Self {
            peak,
            steepness: 1.0 / f64::from(temperature),
        }
    }

    /// `e^((logit − peak) / temperature)` in units of 2⁻⁴⁰, rounded.
    ///
    /// Whole numbers, because their sum does not depend on the order of adding. NaN and −∞ weigh 0. There is
    /// neither a branch nor a cast on the usual way, so that a loop over it becomes vector instructions.
    #[inline]
    pub(super) fn weight(&self, logit: f32) -> u64 {
        if self.peak == f32::INFINITY {
            return if logit == self.peak { WEIGHT_MAX } else { 0 };
        }
        let exponent = (f64::from(logit) - f64::from(self.peak)) * self.steepness;
        // `max` prefers the number to a NaN.
        let weight = exp(exponent.max(EXPONENT_MIN)) * WEIGHT_MAX as f64;
        (weight + WHOLE).to_bits() - WHOLE.to_bits()
    }
}

/// `e^x` for −700 ≤ x ≤ 0, with a relative error below 10⁻¹².
///
/// Written out, because the result of `f64::exp` differs between platforms in the last bit. x = n·ln 2 + r with |r| ≤
/// ½·ln 2 in two-part arithmetic (Cody and Waite, *Software Manual for the Elementary Functions*, 1980, chapter 6);
/// e^r is its Taylor polynomial of degree 10, whose remainder is below 3 · 10⁻¹³.
#[inline]
fn exp(x: f64) -> f64 {
    /// ln 2 in two parts; the first has its low 32 bits clear, so that n times it is exact.
    const LN_2_HIGH: f64 = f64::from_bits(0x3FE6_2E42_FEE0_0000);
    const LN_2_LOW: f64 = f64::from_bits(0x3DEA_39EF_3579_3C76);
    /// 1/n! for n from 10 down to 0.
    const TERMS: [f64; 11] = [
        1.0 / 3_628_800.0,
        1.0 / 362_880.0,
        1.0 / 40_320.0,
        1.0 / 5_040.0,
        1.0 / 720.0,
        1.0 / 120.0,
        1.0 / 24.0,
        1.0 / 6.0,
        0.5,
        1.0,
        1.0,
    ];
    let shifted = x * std::f64::consts::LOG2_E + WHOLE_SIGNED;
    let n = shifted - WHOLE_SIGNED;
    let r = (x - n * LN_2_HIGH) - n * LN_2_LOW;
    let fraction = TERMS.iter().fold(0.0, |sum, term| sum * r + term);
    // The low bits of `shifted` are n in two's complement; adding them to the exponent multiplies by 2ⁿ.
    f64::from_bits(fraction.to_bits().wrapping_add(shifted.to_bits() << 52))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_agrees_with_the_platform() {
        for step in 0..=70_000 {
            let x = f64::from(step) * -0.01;
            let error = (exp(x) / x.exp() - 1.0).abs();
            assert!(error < 1e-12, "e^{x}: {error:e}");
        }
        assert_eq!(exp(0.0), 1.0);
    }

    #[test]
    fn weights_of_special_logits() {
        fn check(logit: f32, peak: f32, expected: u64) {
            assert_eq!(
                Scale::new(peak, 1.0).weight(logit),
                expected,
                "{logit} below {peak}"
            );
        }
        check(3.0, 3.0, WEIGHT_MAX);
        check(-28.0, 0.0, 1);
        check(-28.6, 0.0, 0);
        check(f32::NAN, 0.0, 0);
        check(f32::NEG_INFINITY, 0.0, 0);
        check(-f32::MAX, f32::MAX, 0);
        check(1.0, f32::INFINITY, 0);
        check(f32::INFINITY, f32::INFINITY, WEIGHT_MAX);
    }

    #[test]
    fn a_tiny_temperature_leaves_the_peak_alone() {
        let scale = Scale::new(1.0, f32::from_bits(1));
        assert_eq!(scale.weight(1.0), WEIGHT_MAX);
        assert_eq!(scale.weight(0.999), 0);
    }
}
