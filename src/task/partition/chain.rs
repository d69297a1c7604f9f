//! Number keys: which partitions and rows belong together. Pure.
//!
//! For time keys the clock tells where new rows go. For number keys only the highest row and the sequence do, and a single wrong row at
//! 10^12 would create partitions there and retire all others. So a key counts only if at most ten periods lie between it and the partitions
//! or rows below it.

use super::key::Bound;

/// A key that lies this many periods beyond all others is taken to be wrong.
pub const PERIODS_AHEAD: u32 = 10;

/// Partitions and rows, with no gap of more than ten periods between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chain {
    pub from: i64,
    /// The end of the last partition, or of the period of the last row. A partition up to MAXVALUE ends where its rows end.
    pub to: i64,
}

impl Chain {
    pub fn of_row(position: i64) -> Self {
        Self { from: position, to: position }
    }

    /// Returns the position from which on keys are far beyond the chain.
    pub fn limit(&self, step: u32) -> i64 {
        self.to.saturating_add(i64::from(step) * i64::from(PERIODS_AHEAD))
    }

    /// Returns whether a row with this key belongs to the chain.
    pub fn takes(&self, position: i64, step: u32) -> bool {
        self.from <= position && position < self.limit(step)
    }
}

/// Returns the chain that new rows go to: the one with the sequence's last number, otherwise the one with the most partitions, and the
/// lower of two such chains.
pub fn main(ranges: &[(Bound, Bound)], sequence: Option<i64>, step: u32) -> Option<Chain> {
    let chains = chains(ranges, step);
    let with_sequence = sequence.and_then(|last| chains.iter().find(|(chain, _)| chain.takes(last, step)));
    let longest = chains.iter().rev().max_by_key(|(_, partitions)| *partitions);
    with_sequence.or(longest).map(|(chain, _)| *chain)
}

/// Returns all chains in order, each with the number of its partitions.
fn chains(ranges: &[(Bound, Bound)], step: u32) -> Vec<(Chain, usize)> {
    let mut ranges = ranges.to_vec();
    ranges.sort();
    let mut chains: Vec<(Chain, usize)> = Vec::new();
    for (low, high) in ranges {
        let from = match low {
            Bound::Min => i64::MIN,
            Bound::At(low) => low,
            Bound::Max => i64::MAX,
        };
        let to = match high {
            Bound::At(high) => high,
            // It covers all numbers, so nothing lies beyond it.
            Bound::Max if low == Bound::Min => i64::MAX,
            Bound::Min | Bound::Max => from,
        };
        match chains.last_mut() {
            Some((last, partitions)) if from <= last.limit(step) => {
                last.to = last.to.max(to);
                *partitions += 1;
            }
            _ => chains.push((Chain { from, to }, 1)),
        }
    }
    chains
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_far_apart_are_several_chains_and_new_rows_come_to_one_of_them() {
        use Bound::{At, Max, Min};
        let far = 1_000_000_000_000;
        let real = [(At(0), At(1000)), (At(1000), At(2000)), (At(3000), At(4000))];
        let with = |more: &[(Bound, Bound)]| [&real[..], more].concat();
        for (ranges, sequence, expected) in [
            (vec![], None, None),
            (real.to_vec(), None, Some((0, 4000))),
            // Ten periods are no gap, and more are one.
            (with(&[(At(14_000), At(15_000))]), None, Some((0, 15_000))),
            (with(&[(At(14_001), At(15_000))]), None, Some((0, 4000))),
            // The chain of the sequence comes first, then the one with the most partitions.
            (with(&[(At(far), At(far + 1000))]), None, Some((0, 4000))),
            (with(&[(At(far), At(far + 1000))]), Some(far + 7), Some((far, far + 1000))),
            (with(&[(At(far), At(far + 1000))]), Some(far * 2), Some((0, 4000))),
            (vec![(At(0), At(1000)), (At(far), At(far + 1000))], None, Some((0, 1000))),
            (vec![(At(0), At(1000)), (At(far), At(far + 1000)), (At(far + 1000), At(far + 2000))], None, Some((far, far + 2000))),
            // Without ends.
            (vec![(Min, At(5)), (At(5), Max)], None, Some((i64::MIN, 5))),
            (with(&[(At(4000), Max)]), None, Some((0, 4000))),
            (vec![(Min, Max)], None, Some((i64::MIN, i64::MAX))),
            // Next to the largest number there is no room for ten periods.
            (vec![(At(i64::MAX - 5), At(i64::MAX))], Some(i64::MAX), Some((i64::MAX - 5, i64::MAX))),
        ] {
            let found = main(&ranges, sequence, 1000).map(|chain| (chain.from, chain.to));
            assert_eq!(found, expected, "{ranges:?} {sequence:?}");
        }
    }
}
