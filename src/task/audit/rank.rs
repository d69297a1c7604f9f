//! How urgent a finding is, and which comes first: pure.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};

use super::checks::{Check, Query};
use super::context::Row;
use super::document::{Document, Finding, Level, Weight};
use super::keys::{Audit, CheckSetting, Profile};

/// A table below this many rows is read in a millisecond.
const SMALL_ROWS: i64 = 1000;
const SMALL_BYTES: i64 = 1 << 20;

/// Consequences that grow with the table. What is unsafe, runs out, or stops the server is as urgent for a small one.
const GROWING: [&str; 3] = ["performance", "integrity", "schema"];

/// Returns how urgent a finding is: as its check says, and less for small tables, conventions of the schema, and by the job's `checks`.
pub fn level(check: &Check, row: &Row, audit: &Audit) -> Level {
    let usual = row.level.unwrap_or(check.level);
    let is_lowered = audit.checks.get(check.id) == Some(&CheckSetting::Low) || row.convention.is_some();
    let is_small = audit.profile == Profile::Application && grows(check) && row.weight.is_some_and(is_small);
    if is_lowered || is_small { Level::Low } else { usual }
}

/// The order in which rows are looked into and listed: the most urgent first, and of equal ones the largest table.
pub fn urgency(check: &Check, row: &Row, audit: &Audit) -> (Level, Reverse<Rank>) {
    (level(check, row, audit), Reverse(rank(row.weight)))
}

fn grows(check: &Check) -> bool {
    !matches!(check.query, Query::Drift) && check.categories.iter().all(|category| GROWING.contains(category))
}

fn is_small(weight: Weight) -> bool {
    weight.rows < SMALL_ROWS && weight.bytes < SMALL_BYTES
}

/// Sorts the findings: the most urgent first, then the groups with the largest tables, and within a group the largest tables. What is of no
/// table, is of all of them.
pub fn sort(document: &mut Document) {
    let place: HashMap<String, usize> =
        document.checks.iter().enumerate().map(|(index, outcome)| (outcome.check.clone(), index)).collect();
    let mut heaviest: BTreeMap<(Level, String, Option<String>), Rank> = BTreeMap::new();
    for finding in &document.findings {
        let group = heaviest.entry(group_of(finding)).or_default();
        *group = (*group).max(rank(finding.weight));
    }
    document.findings.sort_by_cached_key(|finding| {
        let group = group_of(finding);
        let of_group = heaviest.get(&group).copied().unwrap_or_default();
        (
            finding.level,
            Reverse(of_group),
            place.get(&finding.check).copied(),
            group.2,
            Reverse(rank(finding.weight)),
            finding.key.clone(),
        )
    });
}

/// Whether it is of no table, and the size of its table.
pub type Rank = (bool, Weight);

fn rank(weight: Option<Weight>) -> Rank {
    (weight.is_none(), weight.unwrap_or_default())
}

/// Findings of one kind and cause.
pub fn group_of(finding: &Finding) -> (Level, String, Option<String>) {
    (finding.level, finding.check.clone(), finding.convention.clone())
}

#[cfg(test)]
mod tests {
    use super::super::checks;
    use super::*;

    fn weight(rows: i64, bytes: i64) -> Option<Weight> {
        Some(Weight { rows, bytes, calls: 0 })
    }

    #[test]
    fn small_tables_are_low_where_harm_grows_with_them_and_a_job_may_lower_a_check() {
        let application = Audit::default();
        let strict = Audit { profile: Profile::Strict, ..Audit::default() };
        let lowered = Audit { checks: [("no-primary-key".to_owned(), CheckSetting::Low)].into(), ..Audit::default() };
        for (id, rows, audit, expected) in [
            ("no-primary-key", 999, &application, Level::Low),
            ("no-primary-key", 1000, &application, Level::Medium),
            ("no-primary-key", 1000, &lowered, Level::Low),
            ("no-primary-key", 999, &strict, Level::Medium),
            ("fk-unindexed", 1000, &lowered, Level::High),
            ("public-can-write", 0, &application, Level::High),
            ("sequence-near-end", 0, &application, Level::High),
            ("schema-drift", 0, &application, Level::High),
        ] {
            let row = Row { weight: weight(rows, 8192), ..Row::default() };
            assert_eq!(level(checks::find(id).unwrap(), &row, audit), expected, "{id} of {rows} rows");
        }
        let check = checks::find("no-primary-key").unwrap();
        let few_and_large = Row { weight: weight(10, 1 << 30), ..Row::default() };
        assert_eq!(level(check, &few_and_large, &application), Level::Medium);
        let critical = Row { level: Some(Level::Critical), ..Row::default() };
        assert_eq!(level(check, &critical, &application), Level::Critical, "of no table");
        let convention = Row { convention: Some("39 of 41".to_owned()), weight: weight(1 << 20, 1 << 30), ..Row::default() };
        assert_eq!(level(check, &convention, &application), Level::Low);
    }
}
