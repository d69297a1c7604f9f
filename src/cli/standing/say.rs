//! Where one stands, in words and as JSON: pure.

use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use crate::base::terminal;
use crate::base::units;
use crate::cli::output::table;
use crate::run::standing::{Backup, Configured, Standing, Step};

/// More lines of a kind than this are counted only.
const LISTED: usize = 20;

pub fn in_words(standing: &Standing, now: DateTime<Utc>) -> String {
    let mut text = match standing.configured {
        Configured::No => format!("There is no configuration: no {}, and none in /etc/pgtend.\n", standing.file),
        Configured::WithMistakes(count) => format!("{} and its jobs have {}.\n", standing.file, units::plural(count, "mistake")),
        Configured::Yes { stores, jobs } => format!(
            "{}: {}, {}, {}\n",
            standing.file,
            units::plural(standing.databases.len(), "database"),
            units::plural(stores, "store"),
            units::plural(jobs, "job")
        ),
    };
    if !standing.databases.is_empty() {
        let rows = standing.databases.iter().map(|database| {
            vec![
                line(&database.name),
                line(&database.backup_in_words(now)),
                database.backup.as_ref().map_or_else(|_| String::new(), set_of),
            ]
        });
        text += &format!("\n{}", table(&["DATABASE", "LAST PROVED BACKUP", "SET"], rows));
    }
    text += &section("Skipped, with mistakes in their files:", standing.broken.iter().cloned());
    text += &section("Late:", standing.late.iter().map(|late| late.in_words(now)));
    text += &section("Failed last:", standing.failed.iter().map(|failed| failed.in_words(now)));
    text += &section("Without an answer:", standing.unread.iter().cloned());
    let Step { command, why } = standing.next();
    text + &format!("\nNext: {command}    # {why}\n")
}

pub fn as_json(standing: &Standing, now: DateTime<Utc>) -> Value {
    let next = standing.next();
    let databases = standing.databases.iter().map(|database| {
            let backup = database.backup.as_ref().ok().and_then(Option::as_ref).map(|backup| {
                json!({
                    "set": backup.set,
                    "store": backup.store,
                    "began_at": backup.began_at,
                    "age_seconds": (now - backup.began_at).num_seconds().max(0),
                    "restored_at": backup.restored_at,
                })
            });
            let unknown = database.backup.as_ref().err().or(database.unsure.as_ref());
            json!({ "database": database.name, "job": database.job, "newest": backup, "unsure": unknown,
                "idle": database.idle, "lost": database.lost.as_ref().map(|lost| json!({ "set": lost.set, "store": lost.store, "why": lost.why })) })
        });
    let late = standing.late.iter().map(
        |late| json!({ "job": late.job, "database": late.database, "tick": late.tick, "last_success_at": late.last_success_at }),
    );
    let failed = standing.failed.iter().map(|failed| {
            json!({ "run": failed.run, "job": failed.job, "database": failed.database, "at": failed.at, "outcome": failed.outcome, "error": failed.error })
        });
    let (mistakes, stores, jobs) = match standing.configured {
        Configured::No => (0, 0, 0),
        Configured::WithMistakes(count) => (count, 0, 0),
        Configured::Yes { stores, jobs } => (0, stores, jobs),
    };
    json!({
        "file": standing.file,
        "configured": matches!(standing.configured, Configured::Yes { .. }),
        "mistakes": mistakes,
        "stores": stores,
        "jobs": jobs,
        "broken": standing.broken,
        "databases": databases.collect::<Vec<_>>(),
        "late": late.collect::<Vec<_>>(),
        "failed": failed.collect::<Vec<_>>(),
        "unread": standing.unread,
        "next": { "command": next.command, "why": next.why },
    })
}

fn set_of(backup: &Option<Backup>) -> String {
    backup.as_ref().map_or_else(String::new, |backup| format!("{} in {}", backup.set, backup.store))
}

fn section(heading: &str, lines: impl ExactSizeIterator<Item = String>) -> String {
    let count = lines.len();
    if count == 0 {
        return String::new();
    }
    let more =
        count.checked_sub(LISTED).filter(|more| *more > 0).map(|more| format!("  … and {more} more\n")).unwrap_or_default();
    let listed: String = lines.take(LISTED).map(|text| format!("  {}\n", line(&text))).collect();
    format!("\n{heading}\n{listed}{more}")
}

fn line(text: &str) -> String {
    terminal::in_one_line(text).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::standing::{Failed, Late, Lost, OfDatabase};

    fn database(backup: Result<Option<Backup>, String>) -> OfDatabase {
        OfDatabase { name: "app".to_owned(), job: Some("nightly".to_owned()), idle: None, backup, lost: None, unsure: None }
    }

    fn standing(databases: Vec<OfDatabase>) -> Standing {
        Standing {
            configured: Configured::Yes { stores: 1, jobs: 1 },
            databases,
            has_ledger: true,
            is_scheduled: true,
            ..Standing::default()
        }
    }

    fn set() -> Option<Backup> {
        Some(Backup {
            set: "app/nightly/x".to_owned(),
            store: "local".to_owned(),
            began_at: Utc::now(),
            restored_at: None,
            stores: vec!["local".to_owned()],
            measured: None,
        })
    }

    #[test]
    fn the_next_step_is_the_one_that_helps_most() {
        let late = || Late {
            job: "nightly".to_owned(),
            database: "app".to_owned(),
            tick: Utc::now(),
            last_success_at: None,
            is_by_sets: false,
        };
        let failed = || Failed {
            run: 7,
            job: "nightly".to_owned(),
            database: "app".to_owned(),
            at: Utc::now(),
            outcome: "failed".to_owned(),
            error: String::new(),
        };
        let without_job = OfDatabase { job: None, ..database(Ok(None)) };
        let disabled = OfDatabase { idle: Some("is disabled"), ..database(Ok(set())) };
        let newer = Lost { set: "app/nightly/y".to_owned(), store: "local".to_owned(), why: "its bytes are damaged".to_owned() };
        let lost = OfDatabase { lost: Some(newer), ..database(Ok(set())) };
        for (standing, expected) in [
            (Standing::default(), "pgtend init"),
            (Standing { configured: Configured::WithMistakes(2), ..Standing::default() }, "pgtend check"),
            (Standing { broken: vec!["x".to_owned()], ..standing(vec![database(Ok(None))]) }, "pgtend check"),
            (standing(vec![without_job]), "pgtend init"),
            (standing(vec![database(Ok(None))]), "pgtend run-job nightly"),
            (standing(vec![database(Ok(set())), database(Ok(None))]), "pgtend run-job nightly --database app"),
            (
                Standing { failed: vec![failed()], late: vec![late()], ..standing(vec![database(Ok(set()))]) },
                "pgtend runs show 7",
            ),
            (standing(vec![database(Err("no".to_owned()))]), "pgtend check --connect"),
            (Standing { unread: vec!["the ledger".to_owned()], ..standing(vec![database(Ok(set()))]) }, "pgtend check --connect"),
            (Standing { late: vec![late()], ..standing(vec![database(Ok(set()))]) }, "pgtend serve"),
            (Standing { is_scheduled: false, ..standing(vec![database(Ok(set()))]) }, "pgtend serve"),
            (standing(vec![database(Ok(set()))]), "pgtend jobs"),
            (Standing { is_scheduled: false, ..standing(vec![disabled]) }, "pgtend jobs"),
            (standing(vec![lost]), "pgtend run-job nightly --database app"),
        ] {
            assert_eq!(standing.next().command, expected, "{standing:?}");
            assert!(in_words(&standing, Utc::now()).contains(&format!("Next: {expected}")), "{standing:?}");
        }
    }
}
