//! The 95 % interval of a recall: pure. Its lower end decides whether a target is met.
//!
//! It is Wilson's score interval, which stays within 0 and 1 and is right near 1, where the normal one is not. Neighbours of one query are
//! found or lost together, so its count is neither that of queries nor that of neighbours, but the one that has the variance of the recalls:
//! `p (1 - p) / s²` queries for each query, no fewer than one. With `n` of these and `z = 1.96`:
//! `(p + z²/2n ± z √(p (1 - p) / n + z²/4n²)) / (1 + z²/n)`.

/// 97.5 % of a normal distribution lie below this many standard deviations.
const Z: f64 = 1.96;

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    pub mean: f64,
    pub lower: f64,
    pub upper: f64,
}

impl Interval {
    /// Returns the interval of the mean of recalls, one for each query.
    #[cfg(test)]
    pub fn of(recalls: &[f64]) -> Self {
        Self::of_weighed(&recalls.iter().map(|recall| (*recall, 1.0)).collect::<Vec<_>>())
    }

    /// Returns the interval of the mean of recalls, each with the number of times that its query was asked. A question that is asked a hundred times
    /// counts a hundred times in the mean, and is one question: the width is that of as many as are different.
    pub fn of_weighed(recalls: &[(f64, f64)]) -> Self {
        let count = recalls.len() as f64;
        let all = recalls.iter().map(|(_, times)| times).sum::<f64>();
        if all <= 0.0 {
            return Self { mean: 0.0, lower: 0.0, upper: 1.0 };
        }
        // Never above 1 by rounding.
        let mean = (recalls.iter().map(|(recall, times)| recall * times).sum::<f64>() / all).min(1.0);
        let squares = recalls.iter().map(|(recall, times)| times * (recall - mean).powi(2)).sum::<f64>() / all;
        let variance = squares * count / (count - 1.0).max(1.0);
        let each = if variance > 0.0 { (mean * (1.0 - mean) / variance).max(1.0) } else { 1.0 };
        Self::wilson(mean, count * each)
    }

    fn wilson(mean: f64, count: f64) -> Self {
        let by = Z * Z / count;
        let middle = mean + by / 2.0;
        let half = Z * (mean * (1.0 - mean) / count + by / (4.0 * count)).max(0.0).sqrt();
        Self { mean, lower: ((middle - half) / (1.0 + by)).max(0.0), upper: ((middle + half) / (1.0 + by)).min(1.0) }
    }

    /// Returns half of its width.
    pub fn margin(self) -> f64 {
        (self.upper - self.lower) / 2.0
    }
}

/// Returns the highest recall that this many queries can show: the lower end where every neighbour was found.
pub fn most(queries: usize) -> f64 {
    Interval::wilson(1.0, queries.max(1) as f64).lower
}

/// Returns the number of queries that can show this recall.
pub fn needed(target: f64) -> u64 {
    (Z * Z * target / (1.0 - target).max(1e-9)).ceil() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_wilsons_and_narrows_with_more_queries() {
        // 81 of 263, as in the literature on the interval: 0.2553 to 0.3662 (Newcombe 1998).
        let hits: Vec<f64> = (0..263).map(|number| f64::from(u8::from(number < 81))).collect();
        let interval = Interval::of(&hits);
        assert!((interval.lower - 0.2553).abs() < 2e-3 && (interval.upper - 0.3662).abs() < 2e-3, "{interval:?}");
        let few = Interval::of(&[1.0, 0.8, 0.9, 0.7].repeat(5));
        let many = Interval::of(&[1.0, 0.8, 0.9, 0.7].repeat(125));
        assert!((few.mean - 0.85).abs() < 1e-9 && many.margin() < few.margin() / 4.0, "{few:?} {many:?}");
        assert!(few.lower < 0.85 && few.upper > 0.85);
        assert_eq!(Interval::of(&[]), Interval { mean: 0.0, lower: 0.0, upper: 1.0 });
    }

    #[test]
    fn a_question_that_is_repeated_counts_more_and_makes_nothing_surer() {
        let different: Vec<(f64, f64)> = (0..100).map(|number| (if number % 4 == 0 { 0.6 } else { 1.0 }, 1.0)).collect();
        let repeated: Vec<(f64, f64)> = different.iter().map(|(recall, _)| (*recall, 10.0)).collect();
        let (once, ten_times) = (Interval::of_weighed(&different), Interval::of_weighed(&repeated));
        assert!((once.mean - 0.9).abs() < 1e-9 && (once.lower - ten_times.lower).abs() < 1e-9, "{once:?} {ten_times:?}");
        // As separate questions they would look surer than they are.
        let as_independent = Interval::of(&different.iter().map(|(recall, _)| *recall).collect::<Vec<_>>().repeat(10));
        assert!(as_independent.margin() < once.margin() / 3.0);
        let one_of_all = Interval::of_weighed(&[(0.5, 900.0), (1.0, 50.0), (1.0, 50.0)]);
        assert!((one_of_all.mean - 0.55).abs() < 1e-9 && one_of_all.margin() > 0.15, "{one_of_all:?}");
    }

    #[test]
    fn what_was_found_altogether_is_no_certainty() {
        assert!((most(100) - 0.963).abs() < 1e-3 && (Interval::of(&[1.0; 100]).lower - most(100)).abs() < 1e-12);
        assert_eq!((needed(0.95), needed(0.99)), (73, 381));
        assert!(most(73) >= 0.95 && most(72) < 0.95);
        assert!(Interval::of(&[0.0; 50]).upper > 0.05);
    }
}
