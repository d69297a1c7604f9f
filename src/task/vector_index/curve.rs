//! Recall against speed at the settings that were measured: the curve by which the literature compares indexes. Pure.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::kind::Method;

/// More settings that are measured for the curve alone, as multiples of the lowest that reaches the target.
const MORE: [f64; 3] = [0.5, 2.0, 4.0];

/// The points of an index, by setting.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Curve(Vec<Point>);

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// probes or ef_search.
    pub setting: u32,
    pub recall: f64,
    pub queries: usize,
    /// Searches by one session, one after the other, of the fastest statement: each statement has up to fifty searches.
    pub searches_per_second: f64,
}

/// A curve as reports have it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Drawn {
    /// "before": of the index that was there; "after": of the new one.
    pub index: String,
    /// `hnsw.ef_search`
    pub setting: String,
    pub points: Vec<Point>,
}

impl Drawn {
    pub fn of(index: &str, method: Method, curve: &Curve) -> Self {
        Self { index: index.to_owned(), setting: method.setting().to_owned(), points: curve.0.clone() }
    }
}

impl Curve {
    /// Adds a measurement. Of two at one setting the one with more queries counts. `each`: the time of a search.
    pub fn add(&mut self, setting: u32, recall: f64, queries: usize, each: Duration) {
        // Whole nanoseconds: a search takes some thousands of them.
        let searches_per_second = (1e10 / each.as_nanos().max(1) as f64).round() / 10.0;
        let point = Point { setting, recall, queries, searches_per_second };
        match self.0.binary_search_by_key(&setting, |known| known.setting) {
            Ok(place) if self.0[place].queries <= queries => self.0[place] = point,
            Ok(_) => {}
            Err(place) => self.0.insert(place, point),
        }
    }

    /// Returns the settings that are still to be measured so that it is a curve: around the lowest one that is enough.
    pub fn missing(&self, least: u32, (min_setting, max_setting): (u32, u32)) -> Vec<u32> {
        let mut missing: Vec<u32> = MORE
            .iter()
            .map(|times| ((f64::from(least) * times).round() as u32).clamp(min_setting.min(max_setting), max_setting))
            .filter(|setting| self.0.iter().all(|known| known.setting != *setting))
            .collect();
        missing.dedup();
        missing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_two_measurements_at_a_setting_the_surer_one_counts_and_points_stand_in_order() {
        let mut curve = Curve::default();
        let ms = Duration::from_millis;
        curve.add(80, 0.97, 200, ms(2));
        curve.add(40, 0.90, 200, ms(1));
        curve.add(40, 0.99, 50, ms(1));
        curve.add(80, 0.96, 1000, ms(4));
        let points: Vec<(u32, f64, f64)> =
            curve.0.iter().map(|point| (point.setting, point.recall, point.searches_per_second)).collect();
        assert_eq!(points, [(40, 0.90, 1000.0), (80, 0.96, 250.0)]);
    }

    #[test]
    fn a_curve_goes_on_to_both_sides_as_far_as_there_are_settings() {
        let mut curve = Curve::default();
        assert_eq!(curve.missing(60, (40, 1000)), [40, 120, 240]);
        curve.add(120, 0.97, 200, Duration::from_millis(1));
        assert_eq!(curve.missing(60, (40, 1000)), [40, 240]);
        // An index with 30 lists.
        assert_eq!(curve.missing(20, (1, 30)), [10, 30]);
        assert_eq!(curve.missing(1, (1, 1)), [1]);
    }
}
