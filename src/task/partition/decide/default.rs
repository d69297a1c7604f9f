//! Decides about rows in the default partition: which get a partition, and why others stay.

use std::collections::BTreeSet;

use super::pieces::{cannot_move, covered, create_piece, uncovered};
use crate::base::units;
use crate::task::partition::key::Key;
use crate::task::partition::plan::{New, Plan, Step};
use crate::task::partition::state::default::MOVED_AT_ONCE_ROWS;
use crate::task::partition::state::found::State;

pub(super) fn empty_the_default(state: &State, plan: &mut Plan) {
    let Some(default) = state.default_partition() else { return };
    if state.default.strays.is_empty() {
        return;
    }
    if let Some(reason) = cannot_move(state) {
        plan.refusals.push(format!("rows in the default partition {} stay there: {reason}", default.table));
        // Nor can a partition be made of what the default partition has rows of.
        plan.steps.retain(|planned| match &planned.step {
            Step::Create(New { range: Some(range), .. }) => {
                !state.default.strays.iter().any(|stray| range.from <= stray.position && stray.position < range.to)
            }
            _ => true,
        });
        return;
    }
    let ranges = covered(state);
    let mut taken: BTreeSet<String> = state.taken.iter().cloned().collect();
    taken.extend(plan.steps.iter().filter_map(|planned| match &planned.step {
        Step::Create(new) => Some(new.name.clone()),
        _ => None,
    }));
    for stray in &state.default.strays {
        let Some(period) = state.calendar.period_at(stray.position) else { continue };
        if stray.is_dense {
            plan.refusals.push(format!(
                "the default partition {} has more than {} rows with one key in {}: moving them would hold the table locked for more than a \
                 second; move them by hand at a quiet time",
                default.table,
                units::count(MOVED_AT_ONCE_ROWS),
                state.calendar.suffix(period)
            ));
            plan.steps.retain(|planned| {
                !matches!(&planned.step, Step::Create(New { range: Some(range), .. })
                if period.from <= range.from && range.from < period.to)
            });
            continue;
        }
        for piece in uncovered(period, &ranges) {
            let more = if stray.cuts.is_empty() { "" } else { "more than " };
            let rows = units::plural(stray.rows.min(MOVED_AT_ONCE_ROWS) as usize, "row");
            let reason = format!("{more}{rows} of {} in the default partition", state.calendar.suffix(period));
            create_piece(state, plan, &mut taken, period, piece, &reason);
        }
    }
}

/// What is in it, for people.
pub(super) fn describe(state: &State, plan: &mut Plan) {
    let Some(default) = state.default_partition() else { return };
    let found = &state.default;
    if found.rows.rows > 0 {
        let nulls = match found.null_rows.rows {
            0 => String::new(),
            _ => format!(", {} of them without a key, which stay", found.null_rows),
        };
        plan.notes.push(format!("{} in the default partition {}{nulls}", found.rows, default.table));
    }
    if found.odd_rows.rows > 0 {
        let why = match state.key.is_time() {
            true if state.key == Key::Uuid => "as their uuids are not of version 7",
            true => "as their keys mean no time of the calendar, or share a period with such",
            false => "as their keys are far beyond all partitions, or are no numbers",
        };
        let keys = found.odd_keys.join(", ");
        plan.notes.push(format!("{} of {} stay there, {why}: {keys}", found.odd_rows, default.table));
    }
    plan.notes.push(format!(
        "with the default partition {} a partition is detached under ACCESS EXCLUSIVE, for a moment, and not CONCURRENTLY",
        default.table
    ));
}
