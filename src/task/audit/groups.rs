//! Findings of one kind and cause are one line: pure.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;

use super::document::{Change, Document, Finding, Level, Weight};
use super::rank::group_of;
use crate::base::units;

/// The lines of a summary: what fits on a screen beside other things.
const SUMMARY_LINES: usize = 10;
/// A line names this many objects.
const NAMED: usize = 2;

/// Findings of one check, level and convention, the largest table first.
pub struct Group<'a> {
    pub level: Level,
    pub check: &'a str,
    pub title: &'a str,
    /// The sentence that says which convention of the schema they follow.
    pub convention: Option<&'a str>,
    pub findings: Vec<&'a Finding>,
}

/// Returns the groups of the findings that are not waived, in their order.
pub fn of(document: &Document) -> Vec<Group<'_>> {
    let mut places: BTreeMap<(Level, String, Option<String>), usize> = BTreeMap::new();
    let mut groups: Vec<Group<'_>> = Vec::new();
    for finding in document.open() {
        let place = *places.entry(group_of(finding)).or_insert(groups.len());
        if place == groups.len() {
            groups.push(Group {
                level: finding.level,
                check: &finding.check,
                title: &finding.title,
                convention: finding.convention.as_deref(),
                findings: Vec::new(),
            });
        }
        groups[place].findings.push(finding);
    }
    groups
}

impl Group<'_> {
    pub fn newly_found(&self) -> usize {
        self.findings.iter().filter(|finding| finding.change == Some(Change::New)).count()
    }

    /// Returns the title with the number of findings.
    pub fn heading(&self) -> String {
        match (self.convention, self.findings.len()) {
            (Some(convention), _) => format!("{}: {convention}", self.title),
            (None, 1) => self.title.to_owned(),
            (None, number) => format!("{} ({})", self.title, units::count(number as u64)),
        }
    }

    /// Returns the heading and the largest objects.
    pub fn line(&self) -> String {
        if self.convention.is_some() {
            return self.heading();
        }
        let mut names: Vec<String> = self.findings.iter().take(NAMED).map(|finding| finding.name().to_owned()).collect();
        if let (Some(first), Some(weight)) = (names.first_mut(), self.findings[0].weight.filter(|weight| weight.rows > 0)) {
            *first += &format!(" ({})", in_words(weight));
        }
        let more = if self.findings.len() > NAMED { ", …" } else { "" };
        format!("{}: {}{more}", self.heading(), names.join(", "))
    }

    /// Returns the group as JSON has it.
    pub fn counted(&self) -> Counted<'_> {
        let Self { level, check, title, convention, ref findings } = *self;
        let largest = findings.first().map(|finding| finding.key.as_str());
        Counted { level, check, title, convention, findings: findings.len(), new: self.newly_found(), largest }
    }
}

/// A group, with the numbers of its findings.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Group")]
pub struct Counted<'a> {
    level: Level,
    check: &'a str,
    title: &'a str,
    convention: Option<&'a str>,
    findings: usize,
    new: usize,
    /// The key of its largest finding.
    largest: Option<&'a str>,
}

fn in_words(weight: Weight) -> String {
    let rows = units::plural(weight.rows.unsigned_abs(), "row");
    format!("{rows}, {}", units::bytes(weight.bytes.unsigned_abs()))
}

/// Returns the first screen: what was found, what is new, and the first groups. Each part is a line.
pub fn summary(document: &Document) -> Vec<String> {
    let mut lines = vec![
        format!("{}: {}", document.database, document.in_short()),
        format!(
            "{}, PostgreSQL {}{}, {}",
            document.server,
            document.server_version,
            if document.in_recovery { " (a replica)" } else { "" },
            document.started_at.format("%Y-%m-%d %H:%M UTC")
        ),
    ];
    lines.extend(news(document));
    let groups = of(document);
    let room = SUMMARY_LINES - lines.len();
    let shown = if groups.len() > room { room - 1 } else { groups.len() };
    lines.extend(groups.iter().take(shown).map(|group| format!("{:<8}  {}: {}", group.level.name(), group.check, group.line())));
    if groups.len() > shown {
        let more = groups.len() - shown;
        lines.push(format!("and {more} more {}", if more == 1 { "group" } else { "groups" }));
    }
    lines
}

fn news(document: &Document) -> Option<String> {
    let new: Vec<&str> =
        document.open().filter(|finding| finding.change == Some(Change::New)).map(|finding| finding.key.as_str()).collect();
    let more = new.len().saturating_sub(NAMED);
    let named = new.iter().take(NAMED).copied().collect::<Vec<_>>().join(", ");
    (!new.is_empty()).then(|| format!("new: {named}{}", if more > 0 { format!(" and {more} more") } else { String::new() }))
}

#[cfg(test)]
mod tests {
    use super::super::document::Fix;
    use super::super::document::tests::{document, finding};
    use super::super::rank;
    use super::*;

    fn of_table(key: &str, level: Level, rows: i64) -> Finding {
        Finding { weight: Some(Weight { rows, bytes: rows * 100, calls: 0 }), fix: Fix::default(), ..finding(key, level) }
    }

    #[test]
    fn findings_of_one_kind_are_a_group_and_large_tables_come_first() {
        let mut document = document(vec![
            of_table("b:small", Level::High, 10),
            of_table("a:1", Level::High, 500),
            of_table("b:large", Level::High, 100_000),
            finding("c:server", Level::High),
            Finding { convention: Some("39 of 41 things are so".to_owned()), ..of_table("b:x", Level::Low, 1_000_000) },
            of_table("b:y", Level::Low, 7),
        ]);
        rank::sort(&mut document);
        let lines: Vec<String> = of(&document).iter().map(Group::line).collect();
        let expected = [
            "title of c: server",
            "title of b (2): large (100,000 rows, 10.0 MB), small",
            "title of a: 1 (500 rows, 50.0 kB)",
            "title of b: 39 of 41 things are so",
            "title of b: y (7 rows, 700 B)",
        ];
        assert_eq!(lines, expected);
    }

    #[test]
    fn a_summary_has_ten_lines_at_most_and_begins_with_what_is_new() {
        for (number, new) in [(0, 0), (3, 0), (3, 2), (7, 1), (8, 0), (9, 3), (60, 60)] {
            let findings = (0..number).map(|index| Finding {
                change: Some(if index < new { Change::New } else { Change::Unchanged }),
                ..finding(&format!("check{index}:x"), Level::Medium)
            });
            let document = document(findings.collect());
            let lines = summary(&document);
            assert!(lines.len() <= SUMMARY_LINES, "{lines:#?}");
            assert_eq!(lines.iter().filter(|line| line.starts_with("new: ")).count(), usize::from(new > 0));
            assert_eq!(
                lines.iter().any(|line| line.contains("more group")),
                number > SUMMARY_LINES - 2 - usize::from(new > 0),
                "{lines:#?}"
            );
        }
    }
}
