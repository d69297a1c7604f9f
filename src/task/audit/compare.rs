//! Compares this audit with the last one, and applies the waivers: pure.

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, NaiveDate, Utc};

use super::document::{Change, Document, Finding, State, TopQuery, Waiver};
use super::tenants;
use super::usage::{Before, Usage};

/// The last audit, from the store or from the ledger.
#[derive(Clone, Debug, Default)]
pub struct Previous {
    pub at: DateTime<Utc>,
    pub findings: Vec<Finding>,
    pub top_queries: Vec<TopQuery>,
    pub usage: Usage,
}

impl Previous {
    pub fn counted(&self) -> Before {
        Before { at: self.at, usage: self.usage.clone() }
    }
}

impl From<Document> for Previous {
    fn from(document: Document) -> Self {
        // Findings that could not be checked then may still exist.
        let findings = document.findings.into_iter().chain(document.not_seen).collect();
        Self { at: document.started_at, findings, top_queries: document.top_queries, usage: document.usage }
    }
}

/// Marks findings as new, resolved or waived, and sorts them, most urgent first.
pub fn compare_with_previous(document: &mut Document, previous: Option<Previous>, waivers: &[Waiver], today: NaiveDate) {
    if let Some(previous) = previous {
        document.previous = Some(previous.at);
        let before: HashMap<&str, &Finding> = previous.findings.iter().map(|finding| (finding.key.as_str(), finding)).collect();
        let regrouped_before: HashMap<Regrouped<'_>, &Finding> =
            previous.findings.iter().filter_map(|finding| Some((regrouped(finding, true)?, finding))).collect();
        for finding in &mut document.findings {
            let of_group = || regrouped(finding, false).and_then(|group| regrouped_before.get(&group).copied());
            let then = before.get(finding.key.as_str()).copied().or_else(of_group);
            finding.change = Some(if then.is_some() { Change::Unchanged } else { Change::New });
            finding.since = then.map_or(finding.since, |then| then.since);
        }
        let now: HashSet<&str> = document.findings.iter().map(|finding| finding.key.as_str()).collect();
        let groups: HashSet<Regrouped<'_>> = document.findings.iter().filter_map(|finding| regrouped(finding, false)).collect();
        let is_gone = |finding: &&Finding| {
            !now.contains(finding.key.as_str()) && !regrouped(finding, true).is_some_and(|group| groups.contains(&group))
        };
        let gone: Vec<Finding> = previous.findings.iter().filter(is_gone).cloned().collect();
        for finding in gone {
            let outcome = document.checks.iter().find(|outcome| outcome.check == finding.check);
            // A check that could not judge every object does not prove that a finding is gone.
            let was_made = outcome.is_some_and(|outcome| outcome.state != State::Failed && outcome.reasons.is_empty());
            if was_made {
                document.resolved.push(finding);
            } else {
                document.not_seen.push(finding);
            }
        }
    }
    waive(document, waivers, today);
    let place: HashMap<&str, usize> =
        document.checks.iter().enumerate().map(|(index, outcome)| (outcome.check.as_str(), index)).collect();
    document.findings.sort_by_cached_key(|finding| {
        (finding.level, place.get(finding.check.as_str()).copied(), finding.object.clone(), finding.key.clone())
    });
}

/// A finding in one schema, or the same in many as one finding: its check, the end of its name, and whether it is of one schema now.
type Regrouped<'a> = (&'a str, &'a str, bool);

/// The same finding is reported for each schema while they are few, and once when they are many: that resolves nothing, and is nothing new.
fn regrouped(finding: &Finding, is_before: bool) -> Option<Regrouped<'_>> {
    let of_one = !finding.name().starts_with('*');
    Some((&finding.check, tenants::after_schema(finding.name())?, of_one != is_before))
}

fn waive(document: &mut Document, waivers: &[Waiver], today: NaiveDate) {
    for waiver in waivers {
        let is_over = waiver.until < today;
        let mut fits = 0;
        for finding in document.findings.iter_mut().filter(|finding| waiver.fits(&finding.key)) {
            fits += 1;
            if !is_over {
                finding.waiver = Some(waiver.clone());
            }
        }
        if is_over {
            let what = if fits == 0 { "and no finding matches it any more: remove it" } else { "so that it counts again" };
            document.notes.push(format!("the waiver of {} ended on {}, {what} ({})", waiver.key, waiver.until, waiver.reason));
        } else if fits == 0
            && document
                .checks
                .iter()
                .any(|outcome| waiver.key.split(':').next() == Some(&outcome.check) && outcome.reasons.is_empty())
        {
            document.notes.push(format!("no finding matches the waiver of {} any more: remove it", waiver.key));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::document::tests::{self, day, finding};
    use super::super::document::{Level, Outcome};
    use super::*;

    fn document(findings: &[&str], unknown: &[&str]) -> Document {
        let outcome = |check: &str| Outcome {
            check: check.to_owned(),
            state: if unknown.contains(&check) { State::Unknown } else { State::Ok },
            reasons: if unknown.contains(&check) { vec!["no privilege".to_owned()] } else { Vec::new() },
            findings: 0,
            elapsed_seconds: 0.0,
            cut: None,
        };
        let level = |key: &str| if key.starts_with('a') { Level::Low } else { Level::High };
        let findings = findings.iter().map(|key| finding(key, level(key))).collect();
        Document { checks: vec![outcome("a"), outcome("b")], ..tests::document(findings) }
    }

    fn previous(keys: &[&str]) -> Previous {
        let findings = keys.iter().map(|key| Finding { since: day(1), ..finding(key, Level::Low) }).collect();
        Previous { at: day(1), findings, ..Previous::default() }
    }

    fn keys(findings: &[Finding]) -> Vec<&str> {
        findings.iter().map(|finding| finding.key.as_str()).collect()
    }

    #[test]
    fn new_unchanged_and_resolved_are_told_apart_and_the_urgent_come_first() {
        let mut document = document(&["a:2", "a:1", "b:1"], &[]);
        compare_with_previous(&mut document, Some(previous(&["a:1", "a:3"])), &[], day(2).date_naive());
        assert_eq!(keys(&document.findings), ["b:1", "a:1", "a:2"]);
        let changes: Vec<_> = document.findings.iter().map(|finding| finding.change.unwrap()).collect();
        assert_eq!(changes, [Change::New, Change::Unchanged, Change::New]);
        assert_eq!(document.findings[1].since, day(1));
        assert_eq!(keys(&document.resolved), ["a:3"]);
        assert_eq!(document.in_short(), "1 high, 2 low; 2 new, 1 resolved since the last audit");
    }

    #[test]
    fn what_many_schemas_have_is_neither_resolved_nor_new_because_it_is_told_once() {
        for (before, now, resolved, changes) in [
            (vec!["a:t1.o x", "a:t2.o x", "a:t1.p"], vec!["a:*.o x"], vec!["a:t1.p"], vec![Change::Unchanged]),
            (vec!["a:*.o x"], vec!["a:t1.o x", "a:t2.p"], vec![], vec![Change::Unchanged, Change::New]),
            (vec!["a:t1.o x"], vec!["a:t2.o x"], vec!["a:t1.o x"], vec![Change::New]),
            (vec!["a:*.o x"], vec![], vec!["a:*.o x"], vec![]),
        ] {
            let mut document = document(&now, &[]);
            compare_with_previous(&mut document, Some(previous(&before)), &[], day(2).date_naive());
            assert_eq!(keys(&document.resolved), resolved, "{before:?} {now:?}");
            let said: Vec<_> = document.findings.iter().map(|finding| finding.change.unwrap()).collect();
            assert_eq!(said, changes, "{before:?} {now:?}");
        }
    }

    #[test]
    fn what_a_check_could_not_see_is_not_resolved_and_is_remembered() {
        let mut document = document(&[], &["a"]);
        compare_with_previous(&mut document, Some(previous(&["a:1", "b:1"])), &[], day(2).date_naive());
        assert_eq!(keys(&document.resolved), ["b:1"]);
        assert_eq!(keys(&document.not_seen), ["a:1"]);
        assert_eq!(keys(&Previous::from(document).findings), ["a:1"]);
    }

    #[test]
    fn a_waiver_holds_through_its_last_day_and_an_expired_one_is_named() {
        let waiver =
            |key: &str, until: u32| Waiver { key: key.to_owned(), reason: "known".to_owned(), until: day(until).date_naive() };
        for (waivers, today, open, notes) in [
            (vec![waiver("a:1", 10)], 10, 2, 0),
            (vec![waiver("a:1", 10)], 11, 3, 1),
            (vec![waiver("a:*", 10)], 3, 1, 0),
            (vec![waiver("a:", 10)], 3, 3, 1),
        ] {
            let mut document = document(&["a:1", "a:2", "b:1"], &[]);
            compare_with_previous(&mut document, None, &waivers, day(today).date_naive());
            assert_eq!(
                (document.open().count(), document.notes.len()),
                (open, notes),
                "{waivers:?} {today} {:?}",
                document.notes
            );
        }
    }

    #[test]
    fn a_first_audit_compares_with_nothing() {
        let mut document = document(&["a:1"], &[]);
        compare_with_previous(&mut document, None, &[], day(2).date_naive());
        assert_eq!(document.findings[0].change, None);
        assert_eq!(document.in_short(), "1 low");
    }
}
