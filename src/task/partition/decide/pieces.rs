//! Which periods no partition covers, and the partitions that would.

use std::collections::BTreeSet;

use super::super::calendar::{self, Period};
use super::super::key::{Bound, Key};
use crate::task::partition::plan::{New, Plan, Planned, Step};
use crate::task::partition::state::default::CUTS;
use crate::task::partition::state::found::State;

/// Pieces of one period that older partitions leave uncovered.
const PIECES: usize = 100;

/// Ranges that take rows, in order.
pub(super) fn covered(state: &State) -> Vec<(Bound, Bound)> {
    let mut ranges: Vec<_> = state.existing.iter().filter_map(|partition| partition.range).collect();
    ranges.sort();
    ranges
}

/// What of `period` no range covers: the whole, nothing, or pieces between partitions of other sizes.
pub(super) fn uncovered(period: Period, ranges: &[(Bound, Bound)]) -> Vec<Period> {
    let (mut from, mut pieces) = (period.from, Vec::new());
    for (low, high) in ranges {
        let low = match low {
            Bound::Min => i64::MIN,
            Bound::At(low) => *low,
            Bound::Max => i64::MAX,
        };
        let high = match high {
            Bound::Min => i64::MIN,
            Bound::At(high) => *high,
            Bound::Max => i64::MAX,
        };
        if high <= from || low >= period.to {
            continue;
        }
        if low > from {
            pieces.push(Period { from, to: low });
        }
        from = from.max(high);
    }
    if from < period.to {
        pieces.push(Period { from, to: period.to });
    }
    pieces.truncate(PIECES);
    pieces
}

/// What one transaction makes, and fills from the default partition: where that has too many rows of a period for one, the
/// period gets several partitions. There is no merging them before PostgreSQL 19; they go by their bounds, like all.
pub(super) fn create_piece(
    state: &State,
    plan: &mut Plan,
    taken: &mut BTreeSet<String>,
    period: Period,
    piece: Period,
    reason: &str,
) {
    let stray = state.default.strays.iter().find(|stray| period.from <= stray.position && stray.position < period.to);
    let mut from = piece.from;
    for cut in stray.map(|stray| stray.cuts.as_slice()).unwrap_or_default() {
        if from < *cut && *cut < piece.to {
            create_slice(state, plan, taken, period, Period { from, to: *cut }, reason);
            from = *cut;
        }
    }
    // More than one run takes: the next one goes on from there.
    if stray.is_none_or(|stray| stray.cuts.len() < CUTS) {
        create_slice(state, plan, taken, period, Period { from, to: piece.to }, reason);
    }
}

fn create_slice(state: &State, plan: &mut Plan, taken: &mut BTreeSet<String>, period: Period, piece: Period, reason: &str) {
    if let Err(error) = state.key.sql(piece.to) {
        plan.refusals.push(format!("no partition for {}: {error}", state.key.show(piece.from)));
        return;
    }
    let is_there = |planned: &Planned| matches!(&planned.step, Step::Create(new) if new.range == Some(piece));
    if plan.steps.iter().any(is_there) {
        return;
    }
    let name = free_name(state, &state.calendar.suffix(period), taken);
    let has_strays = state.default.strays.iter().any(|stray| period.from <= stray.position && stray.position < period.to);
    // A uuid that is no time may lie in any period. It moves along: a partition with such a row is never dropped.
    let may_have_others = state.default.odd_rows.rows > 0 && state.key == Key::Uuid && cannot_move(state).is_none();
    let moves_rows = has_strays || may_have_others;
    let new = New { name, range: Some(piece), moves_rows, model: model(state) };
    let range = format!("{} to {}", state.key.show(piece.from), state.key.show(piece.to));
    plan.push(Step::Create(new), format!("{range}; {reason}"));
}

/// Why rows cannot leave the default partition by our hands: what a DELETE there would do elsewhere.
pub(super) fn cannot_move(state: &State) -> Option<String> {
    let default = state.default_partition()?;
    let inbound: Vec<_> = state.inbound.iter().chain(&default.inbound).cloned().collect();
    if !inbound.is_empty() {
        return Some(format!("foreign keys refer to it, which a move would fire: {}", inbound.join(", ")));
    }
    if !state.published.is_empty() {
        let names: Vec<&str> = state.published.iter().map(|published| published.name.as_str()).collect();
        return Some(format!(
            "it is published ({}), and subscribers would lose the rows: the partition they go to is published only after them",
            names.join(", ")
        ));
    }
    None
}

pub(super) fn free_name(state: &State, suffix: &str, taken: &mut BTreeSet<String>) -> String {
    let mut name = calendar::partition_name(&state.table.name, suffix);
    for number in 2..=taken.len() + 2 {
        if taken.insert(name.clone()) {
            break;
        }
        name = calendar::partition_name(&state.table.name, &format!("{suffix}_{number}"));
    }
    name
}

pub(super) fn model(state: &State) -> Option<i64> {
    state.model().map(|model| model.table.oid)
}
