//! A distribution of times: counts in classes, from which quantiles are read.

use serde::{Deserialize, Serialize};

/// Times by their length.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Times {
    /// Upper bounds of the classes, rising, in seconds; the last one is open (`None`).
    pub bounds_s: Vec<Option<f64>>,
    /// How many are in each class, not in those before it.
    pub buckets: Vec<u64>,
    /// All of them: the sum of the classes.
    pub count: u64,
    /// Their sum in seconds.
    pub sum_s: f64,
}

impl Times {
    /// These counts in classes with these bounds, in seconds; `counts` has one more for what is longer.
    pub fn new(bounds: impl IntoIterator<Item = f64>, counts: &[u64], sum_s: f64) -> Self {
        let bounds_s: Vec<Option<f64>> = bounds.into_iter().map(Some).chain([None]).collect();
        let count = counts.iter().fold(0, |sum: u64, count| sum.saturating_add(*count));
        Self {
            buckets: counts.iter().copied().chain(std::iter::repeat(0)).take(bounds_s.len()).collect(),
            bounds_s,
            count,
            sum_s,
        }
    }

    /// What came after `before`, which is the same distribution at an earlier time; `None` when it is not.
    pub fn since(&self, before: &Self) -> Option<Self> {
        if self.bounds_s != before.bounds_s || self.buckets.len() != before.buckets.len() {
            return None;
        }
        let pairs = self.buckets.iter().zip(&before.buckets);
        let buckets: Vec<u64> = pairs.map(|(now, then)| now.checked_sub(*then)).collect::<Option<_>>()?;
        let count = buckets.iter().sum();
        Some(Self { bounds_s: self.bounds_s.clone(), buckets, count, sum_s: (self.sum_s - before.sum_s).max(0.0) })
    }

    /// The time that this share of them (0 to 1) did not exceed, by linear interpolation; `None` without any.
    pub fn quantile(&self, share: f64) -> Option<f64> {
        let total: u64 = self.buckets.iter().sum();
        let wanted = share.clamp(0.0, 1.0) * total as f64;
        let (mut seen, mut low) = (0.0, 0.0);
        for (bound, &count) in self.bounds_s.iter().zip(&self.buckets) {
            let count = count as f64;
            if count > 0.0 && seen + count >= wanted {
                return Some(bound.map_or(low, |bound| low + (bound - low) * ((wanted - seen) / count)));
            }
            seen += count;
            low = bound.unwrap_or(low);
        }
        None
    }

    /// How many were at most so long; `bound` should be one of the classes' bounds.
    pub fn within(&self, bound: f64) -> u64 {
        // A bound that was computed may differ in its last digit.
        let fits = |edge: &Option<f64>| edge.is_some_and(|edge| edge <= bound * (1.0 + 1e-9));
        self.bounds_s.iter().zip(&self.buckets).take_while(|(edge, _)| fits(edge)).map(|(_, count)| count).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_lies_in_its_class() {
        let times = Times::new([0.1, 0.2, 0.4], &[10, 0, 10, 1], 3.0);
        assert_eq!(times.count, 21);
        assert_eq!(times.quantile(0.0), Some(0.0));
        assert!((times.quantile(10.0 / 21.0).unwrap() - 0.1).abs() < 1e-9);
        assert!((times.quantile(15.0 / 21.0).unwrap() - 0.3).abs() < 1e-9);
        assert_eq!(times.quantile(1.0), Some(0.4), "what is longer than the last bound is shown as that");
        assert_eq!(Times::default().quantile(0.5), None);
    }

    #[test]
    fn two_looks_give_what_came_between_them() {
        let before = Times::new([0.1], &[3, 1], 1.0);
        let now = Times::new([0.1], &[5, 1], 1.5);
        assert_eq!(now.since(&before), Some(Times::new([0.1], &[2, 0], 0.5)));
        assert_eq!(before.since(&now), None, "the server was started again");
        assert_eq!(now.since(&Times::new([0.2], &[3, 1], 1.0)), None);
        assert_eq!((now.within(0.1), now.within(0.05)), (5, 0));
    }
}
