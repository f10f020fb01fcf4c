//! The little statistics that a benchmark needs.

use std::fmt;

/// The same quantity measured round after round; never empty.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Series(Vec<f64>);

impl Series {
    /// Values in the order of their rounds.
    ///
    /// # Panics
    ///
    /// When there are none: our own bug.
    pub(crate) fn new(values: Vec<f64>) -> Self {
        assert!(!values.is_empty(), "a series has at least one round");
        Self(values)
    }

    /// The middle value, or the mean of the two in the middle.
    pub(crate) fn median(&self) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        if sorted.len() % 2 == 1 {
            sorted[middle]
        } else {
            (sorted[middle - 1] + sorted[middle]) / 2.0
        }
    }

    /// The least value.
    pub(crate) fn min(&self) -> f64 {
        self.0.iter().copied().fold(f64::INFINITY, f64::min)
    }

    /// The greatest value.
    pub(crate) fn max(&self) -> f64 {
        self.0.iter().copied().fold(f64::NEG_INFINITY, f64::max)
    }

    /// This less `other`, round by round.
    ///
    /// # Panics
    ///
    /// When the two have different numbers of rounds: our own bug.
    pub(crate) fn less(&self, other: &Self) -> Self {
        self.with(other, |a, b| a - b)
    }

    /// This over `other`, round by round. What slows both down in a round leaves their ratio alone.
    ///
    /// # Panics
    ///
    /// When the two have different numbers of rounds: our own bug.
    pub(crate) fn over(&self, other: &Self) -> Self {
        self.with(other, |a, b| a / b)
    }

    fn with(&self, other: &Self, of: impl Fn(f64, f64) -> f64) -> Self {
        assert_eq!(
            self.0.len(),
            other.0.len(),
            "both were measured in the same rounds"
        );
        let pairs = self.0.iter().zip(&other.0);
        Self(pairs.map(|(a, b)| of(*a, *b)).collect())
    }
}

/// The median, and least and greatest value in parentheses. The precision (`{:.2}`) is that of all three.
impl fmt::Display for Series {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = f.precision().unwrap_or(1);
        let (median, min, max) = (self.median(), self.min(), self.max());
        write!(f, "{median:.digits$} ({min:.digits$}–{max:.digits$})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(values: &[f64], median: f64, text: &str) {
        let series = Series::new(values.to_vec());
        assert_eq!(series.median(), median);
        assert_eq!(series.to_string(), text);
    }

    #[test]
    fn the_median_is_in_the_middle_whatever_the_order() {
        check(&[3.0], 3.0, "3.0 (3.0–3.0)");
        check(&[9.0, 1.0, 4.0], 4.0, "4.0 (1.0–9.0)");
        check(&[4.0, 1.0, 2.0, 8.0], 3.0, "3.0 (1.0–8.0)");
        check(&[100.0, 2.0, 2.0, 2.0, 2.0], 2.0, "2.0 (2.0–100.0)");
    }

    #[test]
    fn ratios_are_between_values_of_one_round() {
        let ours = Series::new(vec![90.0, 45.0, 100.0]);
        let theirs = Series::new(vec![100.0, 50.0, 50.0]);
        assert_eq!(ours.over(&theirs), Series::new(vec![0.9, 0.9, 2.0]));
        assert_eq!(format!("{:.2}", ours.over(&theirs)), "0.90 (0.90–2.00)");
        let less = Series::new(vec![-10.0, -5.0, 50.0]);
        assert_eq!(ours.less(&theirs), less);
    }

    #[test]
    #[should_panic(expected = "at least one round")]
    fn nothing_has_no_median() {
        let _ = Series::new(Vec::new());
    }
}
