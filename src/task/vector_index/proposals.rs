//! Proposes the next numbers of lists to build on the copy, from those that were measured: pure.

use std::time::Duration;

use super::candidates::{Candidate, Tuning};

/// The factor between candidates; two steps are a decade: 100, 316, 1000.
const STEP: f64 = 3.162;
/// Candidates that are nearer to each other cost the same within some percent.
const NEAR: f64 = 1.9;
/// The limit of different numbers of lists, and of builds with one of them.
const MAX_NUMBERS: usize = 9;
const BUILDS_OF_ONE: usize = 3;

/// Returns other numbers of lists, the most promising first, because it may take longer than there is time for. At the end, the best is built once
/// more. Pure.
pub fn next_candidates(tuning: &Tuning, max_lists: u32) -> Vec<u32> {
    let mut next = if tuning.lists().len() < MAX_NUMBERS { next_lists(tuning, max_lists) } else { Vec::new() };
    let best = tuning.best().map(Candidate::lists);
    next.extend(best.filter(|lists| tuning.builds(*lists).count() < BUILDS_OF_ONE));
    next
}

/// Goes downhill in large steps until both neighbours of the best are worse, then between them. The cost over lists has one valley: centres
/// to compare on one side, members on the other. Pure.
fn next_lists(tuning: &Tuning, max_lists: u32) -> Vec<u32> {
    let Some(best) = tuning.best().map(Candidate::lists) else { return Vec::new() };
    let tried = || tuning.candidates.iter().map(Candidate::lists);
    let (lower, upper) = (tried().filter(|lists| *lists < best).max(), tried().filter(|lists| *lists > best).min());
    let scaled = |lists: f64| (lists.round() as u32).clamp(1, max_lists);
    let is_far = |one: u32, other: u32| f64::from(one.max(other)) / f64::from(one.min(other)) > NEAR;
    let between = |other: u32| {
        let lists = scaled((f64::from(best) * f64::from(other)).sqrt());
        (is_far(best, other) && lists != best && lists != other).then_some(lists)
    };
    let up = || Some(scaled(f64::from(best) * STEP)).filter(|lists| is_far(*lists, best));
    let down = || Some(scaled(f64::from(best) / STEP)).filter(|lists| is_far(*lists, best));
    let beyond = match (lower, upper) {
        (_, None) if up().is_some() => up(),
        (None, _) => down(),
        _ => None,
    };
    let inside = upper.and_then(between).into_iter().chain(lower.and_then(between));
    beyond.into_iter().chain(inside).collect()
}

/// Returns the expected duration of a build: k-means compares every sampled row with every centre, and there are 50 rows a centre.
pub fn expected_build(tuning: &Tuning, lists: u32) -> Duration {
    let Some(near) = tuning.candidates.iter().min_by_key(|one| one.lists().abs_diff(lists)) else { return Duration::ZERO };
    Duration::from_secs_f64(near.build_seconds * (f64::from(lists) / f64::from(near.lists())).powf(1.7).max(0.2))
}

#[cfg(test)]
mod tests {
    use super::super::candidates::Spec;
    use super::super::found::{Cost, Found};
    use super::*;

    /// As measured on 100,000 × 128: a valley at 316.
    fn search(start: u32, max_lists: u32, affordable: u32, ms: impl Fn(f64) -> f64) -> (Vec<u32>, u32) {
        let mut tuning = Tuning { share: 1.0, ..Tuning::default() };
        let mut next = Some(start);
        for _ in 0..40 {
            let Some(lists) = next else { break };
            let cost = Cost { ms: 1.0, pages: 1.0, work: ms(f64::from(lists)), is_planners_choice: true, is_read_whole: false };
            let found = Found { setting: 1, recall: 0.95, margin: 0.01, lower: 0.95, queries: 100, cost: Some(cost) };
            let spec = Spec::Ivfflat { lists };
            tuning.candidates.push(Candidate {
                spec,
                build_seconds: 1.0,
                reached: true,
                found,
                at_todays_setting: None,
                at_recall_of_hnsw: None,
                pairs: None,
            });
            next = next_candidates(&tuning, max_lists).into_iter().find(|lists| *lists <= affordable);
        }
        assert!(next.is_none(), "no end: {:?}", tuning.candidates);
        let best = tuning.best().unwrap().lists();
        assert_eq!(tuning.builds(best).count(), BUILDS_OF_ONE);
        let mut tried: Vec<u32> = tuning.candidates.iter().map(Candidate::lists).collect();
        tried.dedup();
        (tried, best)
    }

    #[test]
    fn a_number_of_lists_that_was_lucky_once_does_not_win() {
        let built = |lists: u32, setting: u32, ms: f64| {
            let cost = Cost { ms: 1.0, pages: 1.0, work: ms * 1000.0, is_planners_choice: true, is_read_whole: false };
            let found = Found { setting, recall: 0.96, margin: 0.01, lower: 0.95, queries: 1000, cost: Some(cost) };
            Candidate {
                spec: Spec::Ivfflat { lists },
                build_seconds: 1.0,
                reached: true,
                found,
                at_todays_setting: None,
                at_recall_of_hnsw: None,
                pairs: None,
            }
        };
        // As seen on 20,000 × 1536.
        let candidates = [(100, 3, 0.6), (316, 7, 0.65), (32, 1, 0.71), (178, 4, 0.62), (57, 1, 0.5)];
        let mut tuning = Tuning { share: 1.0, ..Tuning::default() };
        tuning.candidates = candidates.map(|(lists, setting, ms)| built(lists, setting, ms)).into();
        assert_eq!(next_candidates(&tuning, 2000), [57]);
        tuning.candidates.push(built(57, 2, 0.9));
        assert_eq!(tuning.best().unwrap().lists(), 100);
        for _ in 0..2 {
            assert_eq!(next_candidates(&tuning, 2000), [100]);
            tuning.candidates.push(built(100, 3, 0.61));
        }
        assert!(next_candidates(&tuning, 2000).is_empty(), "it was the best three times");
        // A build that misses the target rules its number out.
        tuning.candidates.push(Candidate { reached: false, ..built(100, 100, 0.6) });
        assert_ne!(tuning.best().unwrap().lists(), 100);
    }

    #[test]
    fn the_search_goes_downhill_and_ends_beside_the_valley() {
        let ms = |lists: f64| lists / 316.0 + 316.0 / lists;
        for start in [1, 20, 100, 1000, 3000] {
            let (tried, best) = search(start, 32_768, 32_768, ms);
            assert!(ms(f64::from(best)) < 2.0 * 1.1, "from {start}: {best} of {tried:?}");
            assert!(tried.len() <= 13, "{tried:?}");
        }
        assert_eq!(search(100, 120, 120, ms).1, 100);
        // Where the next step up takes too long, what lies between is still tried.
        let (tried, best) = search(100, 32_768, 1000, |lists| lists / 562.0 + 562.0 / lists);
        assert_eq!((tried.as_slice(), best), ([100, 316, 999, 562].as_slice(), 562));
        assert_eq!(search(1, 1, 1, ms), (vec![1], 1));
    }
}
