//! What searches at one setting found, and what they cost.

use serde::Serialize;

use super::interval::Interval;

/// Another number of lists must reduce the time to this share to be worth a build.
pub const WORTH_IT: f64 = 0.85;

/// The result of searches at one setting.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Found {
    /// probes or ef_search.
    pub setting: u32,
    pub recall: f64,
    /// Half of the 95 % interval.
    pub margin: f64,
    /// The lower end of the 95 % interval.
    pub lower: f64,
    pub queries: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost: Option<Cost>,
}

impl Found {
    pub fn of(setting: u32, interval: &Interval, queries: usize) -> Self {
        // What is below 1 is not rounded to it: 1 is all neighbours.
        let round = |share: f64| ((share * 10_000.0).round() / 10_000.0).min(if share < 1.0 { 0.9999 } else { 1.0 });
        let (recall, margin, lower) = (round(interval.mean), round(interval.margin()), round(interval.lower));
        Self { setting, recall, margin, lower, queries, cost: None }
    }

    /// Returns whether the target is met: by the lower end of the interval; with too few queries to show it, if all neighbours were found.
    pub fn reaches(&self, target: f64) -> bool {
        // It is rounded to four digits.
        self.lower + 5e-5 >= target || self.recall >= 1.0
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Cost {
    /// Milliseconds per query, in the server.
    pub ms: f64,
    /// Pages per query, from memory or disk.
    pub pages: f64,
    /// Pages by which searches of one method compare, whatever else the machine does: see [`super::effort::Effort::work`].
    pub work: f64,
    /// True if the planner chose the index by itself.
    pub is_planners_choice: bool,
    /// True if the planner by itself reads the whole table, whatever indexes there are.
    pub is_read_whole: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_met_by_the_lower_end_of_the_interval() {
        let found = |mean: f64, queries: usize| {
            let recalls: Vec<f64> = (0..queries).map(|number| if number % 2 == 0 { mean - 0.04 } else { mean + 0.04 }).collect();
            Found::of(3, &Interval::of(&recalls), queries)
        };
        assert!(!found(0.952, 100).reaches(0.95), "{:?}", found(0.952, 100));
        assert!(found(0.952, 4000).reaches(0.95) && found(0.96, 400).reaches(0.95));
        // Twenty cannot show it, whatever they find; all is the best that can be asked of them.
        let all = |queries| Found::of(3, &Interval::of(&vec![1.0; queries]), queries);
        assert!(all(20).lower < 0.9 && all(20).reaches(0.95) && all(20).reaches(1.0));
        assert!(!found(0.96, 20).reaches(0.95));
        let mut one_missed = vec![1.0; 9_999];
        one_missed.push(0.9);
        assert!(!Found::of(3, &Interval::of(&one_missed), 10_000).reaches(1.0));
    }
}
