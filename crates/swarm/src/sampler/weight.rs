//! A logit's share of the draw, as a whole number that every machine computes alike.

/// The weight of the largest logit: 2⁴⁰. A token 2⁻⁴¹ times as probable weighs nothing.
pub(super) const WEIGHT_MAX: u64 = 1 << 40;

/// Below this exponent a weight rounds to 0: −41 · ln 2, rounded away from 0.
const EXPONENT_MIN: f64 = -28.5;

/// `e^((logit − peak) / temperature)` in units of 2⁻⁴⁰, rounded.
///
/// Whole numbers, because their sum does not depend on the order of adding. NaN and −∞ weigh 0.
pub(super) fn weight(logit: f32, peak: f32, temperature: f64) -> u64 {
    if peak == f32::INFINITY {
        return if logit == peak { WEIGHT_MAX } else { 0 };
    }
    let exponent = (f64::from(logit) - f64::from(peak)) / temperature;
    if exponent >= EXPONENT_MIN {
        (exp(exponent) * WEIGHT_MAX as f64 + 0.5) as u64
    } else {
        0
    }
}

/// `e^x` for −700 ≤ x ≤ 0, with a relative error below 10⁻¹⁴.
///
/// Written out, because the result of `f64::exp` differs between platforms in the last bit. x = n·ln 2 + r with |r| ≤
/// ½·ln 2 in two-part arithmetic (Cody and Waite, *Software Manual for the Elementary Functions*, 1980, chapter 6);
/// e^r is its Taylor polynomial of degree 12, whose remainder is below 10⁻¹⁵.
fn exp(x: f64) -> f64 {
    /// ln 2 in two parts; the first has its low 32 bits clear, so that n times it is exact.
    const LN_2_HIGH: f64 = f64::from_bits(0x3FE6_2E42_FEE0_0000);
    const LN_2_LOW: f64 = f64::from_bits(0x3DEA_39EF_3579_3C76);
    /// 1/n! for n from 12 down to 0.
    const TERMS: [f64; 13] = [
        1.0 / 479_001_600.0,
        1.0 / 39_916_800.0,
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
    // A cast cuts towards zero, which rounds to the nearest once a half is taken off a negative number.
    let n = (x * std::f64::consts::LOG2_E - 0.5) as i64;
    let r = (x - n as f64 * LN_2_HIGH) - n as f64 * LN_2_LOW;
    let fraction = TERMS.iter().fold(0.0, |sum, term| sum * r + term);
    let power = f64::from_bits(((1023 + n) as u64) << 52);
    fraction * power
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_agrees_with_the_platform() {
        for step in 0..=70_000 {
            let x = f64::from(step) * -0.01;
            let error = (exp(x) / x.exp() - 1.0).abs();
            assert!(error < 1e-14, "e^{x}: {error:e}");
        }
        assert_eq!(exp(0.0), 1.0);
    }

    #[test]
    fn weights_of_special_logits() {
        fn check(logit: f32, peak: f32, expected: u64) {
            assert_eq!(weight(logit, peak, 1.0), expected, "{logit} below {peak}");
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
        assert_eq!(weight(1.0, 1.0, f64::from(f32::MIN_POSITIVE)), WEIGHT_MAX);
        assert_eq!(weight(0.999, 1.0, f64::from(f32::MIN_POSITIVE)), 0);
    }
}
