//! The summary of a run: for one table, and for several below one root.

use anyhow::Result;
use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use super::calendar::Every;
use super::keys::Partition;
use super::plan::Plan;
use super::runway::Runway;
use super::skipped::{self, SkippedTable};
use crate::base::fault::Kind;
use crate::base::units;
use crate::ledger::report::{Report, Unfinished};

/// The steps that a run has done so far, by kind, and those that it could not do.
#[derive(Default)]
pub(super) struct Progress {
    pub created: Vec<String>,
    pub finalised: Vec<String>,
    pub detached: Vec<String>,
    pub archived: Vec<String>,
    pub archived_rows: u64,
    pub dropped: Vec<String>,
    /// Partitions that were written to after they were archived, and were archived again.
    pub changed: Vec<String>,
    /// They got rows that stay after the plan had looked, and were attached again.
    pub attached_again: Vec<String>,
    pub rows_moved: u64,
    pub detach_is_pending: bool,
    /// Steps that met a lock, each with its reason.
    pub locked: Vec<String>,
    /// Steps that will never work in this state, each with its reason.
    pub failed: Vec<String>,
}

/// The result for one table.
pub(super) struct TableResult {
    pub report: Report,
    pub failure: Option<(Option<Kind>, String)>,
    /// True if new rows have, or will soon have, no partition: such a failure is reported first.
    pub has_no_runway: bool,
}

impl From<SkippedTable> for TableResult {
    fn from(left: SkippedTable) -> Self {
        let message = left.in_words();
        let report = Report { summary: message.clone(), ..Report::default() };
        Self { report, failure: Some((left.kind, message)), has_no_runway: left.has_no_runway }
    }
}

impl Partition {
    /// Returns the result for one table.
    pub(super) fn conclude(&self, plan: &Plan, after: &Plan, progress: Progress) -> TableResult {
        let covered = after.runway().in_words();
        let mut did: Vec<String> = Vec::new();
        for (what, names) in [
            ("created", &progress.created),
            ("finished the detach of", &progress.finalised),
            ("detached", &progress.detached),
            ("archived", &progress.archived),
            ("dropped", &progress.dropped),
        ] {
            if !names.is_empty() {
                did.push(format!("{what} {}", units::plural(names.len(), "partition")));
            }
        }
        if progress.rows_moved > 0 {
            did.push(format!("moved {} out of the default partition", units::plural(progress.rows_moved as usize, "row")));
        }
        let did = if did.is_empty() { "nothing to do".to_owned() } else { did.join(", ") };
        let summary = match self.only_retires {
            true => format!("{}: {did}", plan.table),
            false => format!("{}: {did}; {covered}", plan.table),
        };

        let mut report = Report { summary: summary.clone(), ..Report::default() };
        report.warnings = progress
            .changed
            .iter()
            .map(|table| {
                format!("{table} was written to after it was archived: it was archived again, and its grace period starts again")
            })
            .collect();
        report.warnings.extend(progress.attached_again.iter().map(|table| {
            format!("{table} was attached again, and was not dropped: while it was being detached it got rows that the job keeps")
        }));
        report.warnings.extend(plan.warnings.iter().chain(&after.notes).cloned());
        let until = after.covered_until_instant.map(|until| until.to_rfc3339_opts(chrono::SecondsFormat::Secs, true));
        match self.every {
            Every::Unit(_) => report.fact("covered_until", until),
            Every::Step(_) => report.fact("covered_until_number", after.covered_until.clone()),
        }
        report.fact("created", &*progress.created);
        report.fact("finalised", &*progress.finalised);
        report.fact("detached", &*progress.detached);
        report.fact("archived", &*progress.archived);
        report.fact("archived_rows", progress.archived_rows);
        report.fact("dropped", &*progress.dropped);
        report.fact("rows_moved", progress.rows_moved);
        report.fact("default_rows", after.default_rows.rows);
        if after.default_rows.is_capped {
            report.fact("default_rows_is_capped", true);
        }
        report.fact("partitions", after.partitions);

        let failure = if !after.is_covered {
            let mut message = format!("{summary}; {}", Runway::short_in_words(self.every));
            for reason in progress.locked.iter().chain(&progress.failed) {
                message += &format!("; {reason}");
            }
            Some((None, message))
        } else if !progress.failed.is_empty() {
            let reasons = progress.failed.iter().chain(&progress.locked).cloned().collect::<Vec<_>>().join("; ");
            let kind = plan.clocks_apart.then_some(Kind::Configuration);
            Some((kind, format!("{summary}; not done: {reasons}")))
        } else if !progress.locked.is_empty() {
            Some((Some(Kind::Busy), format!("{summary}; left for the next run: {}", progress.locked.join("; "))))
        } else {
            None
        };
        TableResult { report, failure, has_no_runway: !after.is_covered }
    }
}

/// Merges the results of all tables into one report: lists are joined, numbers are summed, and the shortest runway and the worst failure
/// count.
pub(super) fn merged(mut concluded: Vec<TableResult>) -> Result<Report> {
    let tables = concluded.len();
    concluded.sort_by_key(|one| !one.has_no_runway);
    let mut all = Report::default();
    let (mut failures, mut kinds, mut summaries, mut went_well) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for TableResult { report, failure, .. } in concluded {
        for (name, value) in report.facts {
            let merged = match (all.facts.remove(&name), value) {
                (Some(Value::Array(before)), Value::Array(here)) => Value::Array(before.into_iter().chain(here).collect()),
                (Some(Value::Number(before)), Value::Number(here)) => {
                    json!(before.as_u64().unwrap_or_default() + here.as_u64().unwrap_or_default())
                }
                (Some(before), here) if name.starts_with("covered_until") => earlier(before, here),
                (Some(before), _) => before,
                (None, here) => here,
            };
            all.facts.insert(name, merged);
        }
        all.warnings.extend(report.warnings);
        match failure {
            Some((kind, message)) => {
                kinds.push(kind);
                failures.push(message);
            }
            None => went_well.push(report.summary.clone()),
        }
        summaries.push(report.summary);
    }
    all.summary = summaries.join("; ");
    if tables > 1 {
        all.fact("tables", tables);
    }
    match skipped::worst(kinds.iter().copied()) {
        Some(kind) => {
            if !went_well.is_empty() {
                failures.push(format!("the others: {}", went_well.join("; ")));
            }
            Err(Unfinished::error(kind, failures.join("; "), all))
        }
        None => Ok(all),
    }
}

/// Returns the shorter of two runways, both times or both numbers. One that is null is the shortest.
fn earlier(one: Value, other: Value) -> Value {
    let at = |value: &Value| {
        let text = value.as_str()?;
        text.parse::<i64>().ok().or_else(|| Some(text.parse::<DateTime<Utc>>().ok()?.timestamp_micros()))
    };
    match (at(&one), at(&other)) {
        (Some(first), Some(second)) if second < first => other,
        (Some(_), None) => other,
        _ => one,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn of_several_runways_the_shortest_is_told() {
        for (one, other, shortest) in [
            (json!("1003000"), json!("4000"), json!("4000")),
            (json!("4000"), json!("1003000"), json!("4000")),
            (json!("2026-12-01T00:00:00Z"), json!("2026-11-01T00:00:00+00:00"), json!("2026-11-01T00:00:00+00:00")),
            (json!("2026-12-01T00:00:00Z"), Value::Null, Value::Null),
        ] {
            assert_eq!(earlier(one.clone(), other.clone()), shortest, "{one} {other}");
        }
    }
}
