//! Decides which partitions past their retention are detached, archived and dropped, and which are kept.

use chrono::TimeDelta;

use crate::base::units;
use crate::pg::{self, identifier};
use crate::task::consent;
use crate::task::partition::calendar::Every;
use crate::task::partition::chain::PERIODS_AHEAD;
use crate::task::partition::guard;
use crate::task::partition::key::Bound;
use crate::task::partition::keys::{Partition, Retain};
use crate::task::partition::mark::{Mark, Stage};
use crate::task::partition::plan::{Detach, Plan, Step};
use crate::task::partition::state::found::{Below, Detached, Existing, FarRow, State};

/// Returns the oids of the attached partitions that would be retired.
pub fn over(state: &State, partition: &Partition) -> Vec<i64> {
    let cutoff = cutoff(state, partition).filter(|_| state.far_row.is_none());
    let goes = |existing: &&Existing| {
        !existing.is_default && existing.is_plain && is_over(existing, cutoff) && belongs_to_the_rows(state, existing)
    };
    state.existing.iter().filter(goes).map(|existing| existing.table.oid).collect()
}

/// Returns whether the highest row may tell that the partition is past its retention: for number keys, no wide gap may lie between them.
fn belongs_to_the_rows(state: &State, existing: &Existing) -> bool {
    match (state.chain, existing.range) {
        (Some(chain), Some((Bound::At(low), _))) => chain.from <= low,
        (Some(chain), Some((Bound::Min, _))) => chain.from == i64::MIN,
        _ => !matches!(state.calendar.every, Every::Step(_)),
    }
}

fn is_over(existing: &Existing, cutoff: Option<i64>) -> bool {
    match (existing.range, cutoff) {
        (Some((_, Bound::At(high))), Some(cutoff)) => high <= cutoff,
        _ => false,
    }
}

/// Returns the position before which everything is retired, or None if nothing is.
fn cutoff(state: &State, partition: &Partition) -> Option<i64> {
    match partition.retain? {
        Retain::Age(age) => state.now.checked_sub(i64::try_from(age.0.as_micros()).ok()?),
        Retain::Numbers(numbers) => state.counted?.position.checked_sub(i64::from(numbers)),
    }
}

pub(super) fn retire(state: &State, partition: &Partition, plan: &mut Plan) {
    if is_stopped_by_a_far_row(state, partition, plan) {
        return;
    }
    let cutoff = cutoff(state, partition);
    let is_over = |existing: &Existing| is_over(existing, cutoff);
    let attached = || state.existing.iter().filter(|existing| !existing.is_default && !existing.is_pending);
    for kept in attached().filter(|existing| !is_over(existing)) {
        if let Some(mark) = &kept.mark {
            plan.push(Step::Keep { partition: kept.table.clone(), mark: mark.clone() }, "it is no longer past its retention");
        }
    }
    say_what_does_not_count(state, partition, plan);
    let mut over: Vec<&Existing> = attached().filter(|existing| is_over(existing)).collect();
    over.sort_by_key(|existing| existing.range);
    if over.is_empty() {
        return;
    }
    let names = || over.iter().map(|existing| existing.table.to_string()).collect::<Vec<_>>().join(", ");
    if let Some(apart) = state.clocks_apart.as_ref().filter(|_| state.key.is_time()) {
        plan.clocks_apart = true;
        plan.refusals.push(format!("{} would be retired, but {apart}", names()));
        return;
    }
    // PostgreSQL refuses CONCURRENTLY if there is a default partition, whose constraint would change under its readers. If other tables
    // refer to the table, the check for their rows and the detach must be one step: CONCURRENTLY lets rows in between.
    let is_plain = state.default_partition().is_some() || partition.default || !state.inbound.is_empty();
    let how = if is_plain { Detach::Plainly } else { Detach::Concurrently };
    let going: Vec<&Existing> =
        over.iter().copied().filter(|existing| kept_because(state, partition, existing).is_none()).collect();
    let question = most(state, &going);
    let needs_consent = question.is_some();
    plan.refusals.extend(question);
    for existing in over {
        match kept_because(state, partition, existing) {
            Some(KeepReason::Expected(why)) => plan.notes.push(why),
            Some(KeepReason::Failure(why)) => plan.refusals.push(why),
            None if needs_consent => {}
            None => detach(state, partition, existing, how, plan),
        }
    }
}

/// Returns the question that a person must answer before most of the table goes: a wrong number and a wrong unit look like that.
fn most(state: &State, going: &[&Existing]) -> Option<String> {
    let how = state.asks.as_ref()?;
    let all: i64 = state.existing.iter().map(|existing| existing.bytes).sum();
    let goes: i64 = going.iter().map(|existing| existing.bytes).sum();
    let share = 100.0 * goes as f64 / all as f64;
    (share > consent::MUCH).then(|| {
        format!(
            "most of {} would be retired: {} with {share:.0} % of its bytes ({}); look at its highest numbers and at `retain`; if this is \
             intended, {how}",
            state.table,
            units::plural(going.len(), "partition"),
            going.iter().map(|existing| existing.table.to_string()).collect::<Vec<_>>().join(", ")
        )
    })
}

/// Names the highest row where it would retire more than it may: one beyond the sequence, or one that stands alone.
fn say_what_does_not_count(state: &State, partition: &Partition, plan: &mut Plan) {
    let (Some(Retain::Numbers(numbers)), Some(highest), Some(counted)) = (partition.retain, state.highest_row, state.counted)
    else {
        return;
    };
    let (by_highest, by_counted) = (highest.checked_sub(i64::from(numbers)), cutoff(state, partition));
    let kept_because = |existing: &Existing| {
        !existing.is_default
            && is_over(existing, by_highest)
            && !is_over(existing, by_counted)
            && belongs_to_the_rows(state, existing)
    };
    if !state.existing.iter().any(kept_because) {
        return;
    }
    let (table, column) = (state.table.sql(), &state.column);
    let shows = |from: i64| format!("SELECT * FROM {table} WHERE {} > {from}", identifier(column));
    match counted.below {
        Some(Below::Sequence(last)) => plan.refusals.push(format!(
            "a row has {column} = {highest}, and the sequence of {column} is at {last}: partitions are retired by the numbers up to there \
             ({} shows the rows beyond); correct or delete them, or, if the sequence is behind: SELECT \
             setval(pg_get_serial_sequence({}, {}), {highest})",
            shows(last),
            pg::literal(&table),
            pg::literal(column)
        )),
        Some(Below::Alone(alone)) => plan.warnings.push(format!(
            "a row has {column} = {alone} and stands alone: the others end at {}, and there is at least one period of numbers without a row \
             in between ({} shows it), so partitions are retired by the others until rows follow it",
            counted.position,
            shows(counted.position)
        )),
        None => {}
    }
}

/// The reason why a partition past its retention is kept.
enum KeepReason {
    /// Keeping it is no failure.
    Expected(String),
    /// The job wants it retired, so the run fails.
    Failure(String),
}

fn kept_because(state: &State, partition: &Partition, existing: &Existing) -> Option<KeepReason> {
    let name = &existing.table;
    if !belongs_to_the_rows(state, existing) {
        let (table, partition) = (state.table.sql(), existing.table.sql());
        let from = state.chain.map(|chain| state.key.show(chain.from)).unwrap_or_default();
        return Some(KeepReason::Expected(format!(
            "{name} is past its retention but is kept: more than {PERIODS_AHEAD} periods lie between it and the partitions from {from} on; \
             if it is not needed: ALTER TABLE {table} DETACH PARTITION {partition}"
        )));
    }
    if !existing.is_plain {
        return Some(KeepReason::Expected(format!(
            "{name} is past its retention but is kept: it is partitioned itself, or a foreign table"
        )));
    }
    if !existing.inbound.is_empty() {
        return Some(KeepReason::Failure(format!(
            "{name} would be retired, but foreign keys refer to it: {}",
            existing.inbound.join(", ")
        )));
    }
    if !existing.referred_to.is_empty() {
        return Some(KeepReason::Expected(format!(
            "{name} is past its retention but is kept: rows of other tables refer to it ({}); delete those first, or let the referring \
             table's partition of the same period go first",
            existing.referred_to.join(", ")
        )));
    }
    if existing.has_rows_without_time {
        let (table, column) = (name.sql(), identifier(&state.column));
        return Some(KeepReason::Expected(format!(
            "{name} is past its time and is kept: it has rows whose uuid is not of version 7, and their age is unknown. SELECT * FROM {table} WHERE {} shows \
             them; delete them or move them to another table",
            state.key.is_no_time(&column).unwrap_or_default()
        )));
    }
    if !existing.dependants.is_empty() && partition.grace.is_zero() {
        let dependants = existing.dependants.join(", ");
        return Some(KeepReason::Failure(format!(
            "{name} would be dropped at once, but other objects depend on it: {dependants}; drop those first"
        )));
    }
    None
}

fn detach(state: &State, partition: &Partition, existing: &Existing, how: Detach, plan: &mut Plan) {
    if !existing.dependants.is_empty() {
        plan.warnings.push(format!(
            "{} is detached, but cannot be dropped while other objects depend on it: {}; they show the detached table until you drop them",
            existing.table,
            existing.dependants.join(", ")
        ));
    }
    let (low, high) = existing.range.unwrap_or((Bound::Min, Bound::Max));
    let mark = Mark {
        parent: state.table.oid,
        table: existing.table.oid,
        stage: Stage::Retiring,
        at: state.at,
        from: state.key.show_bound(low),
        to: state.key.show_bound(high),
        // If a killed run has left a mark, that has the comment from before.
        comment: existing.mark.as_ref().and_then(|mark| mark.comment.clone()),
        // A partition that was attached again may have an archive already: if that lacks rows, the check before the drop notices it, and a
        // new archive replaces it.
        archive: existing.mark.as_ref().and_then(|mark| mark.archive.clone()),
        bounds: Some(existing.shown.clone()).filter(|shown| !shown.is_empty()),
        is_guarded: existing.mark.as_ref().is_some_and(|mark| mark.is_guarded),
        foreign_keys: existing.mark.as_ref().map(|mark| mark.foreign_keys.clone()).unwrap_or_default(),
    };
    let reason = format!(
        "it ends at {}, and everything before {} is retired{}",
        mark.to,
        state.key.show(cutoff(state, partition).unwrap_or_default()),
        partition.archive.as_ref().map(|store| format!(", to the store `{store}` first")).unwrap_or_default()
    );
    plan.push(Step::Retire { partition: existing.table.clone(), how, mark }, reason);
}

/// Returns whether a row far ahead stops the retirement. A single wrong number must not retire the whole table: while the highest row is
/// far beyond all others, it is unknown which partitions are past their retention.
fn is_stopped_by_a_far_row(state: &State, partition: &Partition, plan: &mut Plan) -> bool {
    let Some(far) = &state.far_row else { return false };
    let words = far_row_in_words(state, far);
    let Some(Retain::Numbers(numbers)) = partition.retain else {
        plan.notes.push(format!("{words}: no partition is created for it"));
        return false;
    };
    let cutoff = far.position.saturating_sub(i64::from(numbers));
    let would_go = |existing: &Existing| !existing.is_default && !existing.is_pending && is_over(existing, Some(cutoff));
    match state.existing.iter().any(would_go) {
        true => plan.refusals.push(format!(
            "nothing is retired, because {words}; correct or delete it, or, if new rows belong there, detach the partitions below it \
             yourself"
        )),
        false => plan.notes.push(format!("{words}: no partition is created for it, and nothing is retired")),
    }
    true
}

/// Describes the row, with a query that shows it and all like it.
fn far_row_in_words(state: &State, far: &FarRow) -> String {
    let (Every::Step(step), Some(chain)) = (state.calendar.every, state.chain) else { return format!("a row has {}", far.shown) };
    format!(
        "a row has {} = {}, more than {PERIODS_AHEAD} periods beyond the other rows and partitions, which end at {} (SELECT * FROM {} WHERE {} >= {} shows all \
         such rows)",
        state.column,
        far.shown,
        chain.to,
        state.table.sql(),
        identifier(&state.column),
        chain.limit(step)
    )
}

/// Guards a table anew whose guard is another role's, which may have let changes through: what is archived is compared before a drop, and nothing
/// else tells.
fn guard_anew(detached: &Detached, function: &str, partition: &Partition, plan: &mut Plan) {
    let Detached { table, mark, .. } = detached;
    let who = format!("the function of its guard is {function}, who may change it and runs as whoever writes to the table");
    if partition.archive.is_some() && mark.archive.is_some() {
        let reason = format!("{who}: it gets a new one, and its grace period starts again");
        plan.push(Step::Confirm { table: table.clone(), mark: mark.clone() }, reason);
        return;
    }
    plan.refusals.push(format!(
        "{table} is kept: {who}, and without an archive nothing tells whether its rows were changed; DROP TRIGGER {} ON {}, and drop the table yourself if \
         its rows are not needed",
        guard::TRIGGER,
        table.sql()
    ));
}

/// Drops tables that earlier runs detached. Those that this run detaches are for the next run, unless the grace period is zero.
pub(super) fn drop_what_is_over(state: &State, partition: &Partition, plan: &mut Plan) {
    for other in &state.of_other_owners {
        plan.notes.push(format!(
            "{} was retired from {} but is kept: its owner is {}, and its mark counts only if its owner is {}; if it was a partition of \
             that table: ALTER TABLE {} OWNER TO {}",
            other.table,
            state.table,
            other.owner,
            other.expected,
            other.table.sql(),
            other.expected
        ));
    }
    for detached in &state.detached {
        if detached.mark.stage != Stage::Retired {
            continue;
        }
        if let Some(function) = &detached.guard_of_another {
            guard_anew(detached, function, partition, plan);
            continue;
        }
        if let Some(store) = partition.archive.as_ref().filter(|store| !detached.mark.may_be_in(store)) {
            let step = Step::Archive { table: detached.table.clone(), mark: detached.mark.clone() };
            let elsewhere = detached.mark.archive.as_ref().and_then(|archived| archived.store.as_ref());
            let elsewhere = elsewhere.map(|elsewhere| format!(", but in `{elsewhere}`")).unwrap_or_default();
            let age = units::age(detached.mark.at, state.at);
            plan.push(step, format!("detached {age} ago, and not yet in the store `{store}`{elsewhere}"));
            continue;
        }
        let age = state.at - detached.mark.at;
        let grace = TimeDelta::from_std(partition.grace).unwrap_or(TimeDelta::MAX);
        if age < grace {
            let left = units::duration((grace - age).to_std().unwrap_or_default());
            plan.notes.push(format!("{} is detached, and will be dropped in {left}", detached.table));
            continue;
        }
        if !detached.inbound.is_empty() {
            let inbound = detached.inbound.join(", ");
            plan.refusals.push(format!("{} would be dropped, but foreign keys refer to it: {inbound}", detached.table));
            continue;
        }
        if !detached.dependants.is_empty() {
            let dependants = detached.dependants.join(", ");
            plan.refusals.push(format!(
                "{} would be dropped, but other objects depend on it: {dependants}; drop those first",
                detached.table
            ));
            continue;
        }
        // The grace period is measured by the clock, too.
        if let Some(apart) = &state.clocks_apart {
            plan.clocks_apart = true;
            plan.refusals.push(format!("{} would be dropped, but {apart}", detached.table));
            continue;
        }
        let reason = format!(
            "detached {} ago, and `grace` is {}",
            units::age(detached.mark.at, state.at),
            units::duration(partition.grace)
        );
        plan.push(Step::Drop { table: detached.table.clone(), mark: detached.mark.clone() }, reason);
    }
}
