//! Whether the data are safe: each database with its newest backup that counts.

use std::time::Duration;

use chrono::{DateTime, Utc};
use maud::{Markup, html};

use super::links;
use super::words::{about, ago, shortened};
use crate::base::units::{count, duration, plural};
use crate::run::standing::{Backup, Unasked};
use crate::task::backup::gate::Measured;
use crate::web::choice::Filter;
use crate::web::safety::{DatabaseStatus, Safety};

/// The databases of one page, the worst first; a search shows others.
const SHOWN: usize = 20;

pub(super) fn section(safety: &[DatabaseStatus], filter: &Filter, now: DateTime<Utc>) -> Markup {
    let mut shown: Vec<&DatabaseStatus> = safety.iter().filter(|database| filter.matches_name(&database.name)).collect();
    if shown.is_empty() {
        return html! {};
    }
    shown.sort_by_key(|database| (database.safety(), oldest_first(database)));
    let left_out = &shown[shown.len().min(SHOWN)..];
    html! {
        section aria-labelledby="safe" {
            h2 #safe { "Is it safe?" span.count { (summary(safety)) } }
            div.scroll {
                table.safe {
                    thead { tr { @for title in ["Database", "Safe?", "Newest proved backup", "Restore takes", "Copies"] { th scope="col" { (title) } } } }
                    tbody { @for database in shown.iter().take(SHOWN) { (row(database, now)) } }
                }
            }
            @if !left_out.is_empty() {
                p.quiet { "and " (plural(left_out.len(), "database")) " more (" (summary_of(left_out.iter().copied())) "): search for one below" }
            }
        }
    }
}

fn oldest_first(database: &DatabaseStatus) -> Option<DateTime<Utc>> {
    backup(database).map(|backup| backup.began_at)
}

fn backup(database: &DatabaseStatus) -> Option<&Backup> {
    database.read.as_ref()?.found.backup.as_ref().ok()?.as_ref()
}

/// "3 of 4 databases are safe"
pub(super) fn summary(safety: &[DatabaseStatus]) -> String {
    let safe = safety.iter().filter(|database| database.safety() == Safety::Safe).count();
    let verb = if safety.len() == 1 { "is" } else { "are" };
    format!("{} of {} {verb} safe", count(safe as u64), plural(safety.len(), "database"))
}

fn summary_of<'a>(databases: impl Iterator<Item = &'a DatabaseStatus> + Clone) -> String {
    let kinds = [Safety::Unsafe, Safety::AtRisk, Safety::Unknown, Safety::Unread, Safety::Safe];
    let counts = kinds.into_iter().filter_map(|kind| {
        let number = databases.clone().filter(|database| database.safety() == kind).count();
        (number > 0).then(|| format!("{} {}", count(number as u64), word(kind)))
    });
    counts.collect::<Vec<_>>().join(", ")
}

pub(super) fn word(safety: Safety) -> &'static str {
    match safety {
        Safety::Unsafe => "not safe",
        Safety::AtRisk => "at risk",
        Safety::Unknown => "unknown",
        Safety::Unread => "being asked",
        Safety::Safe => "safe",
    }
}

fn class(safety: Safety) -> Option<&'static str> {
    match safety {
        Safety::Unsafe => Some("bad"),
        Safety::AtRisk | Safety::Unknown => Some("warn"),
        Safety::Unread | Safety::Safe => None,
    }
}

fn row(database: &DatabaseStatus, now: DateTime<Utc>) -> Markup {
    let safety = database.safety();
    html! {
        tr class=[class(safety)] {
            th scope="row" { a href=(links::database(&database.name)) { b { (database.name) } } }
            (cells(database, safety, now))
        }
    }
}

/// The answer in four cells, for a table of many databases.
fn cells(database: &DatabaseStatus, safety: Safety, now: DateTime<Utc>) -> Markup {
    let backup = backup(database);
    html! {
        td data-of="Safe?" {
            span.verdict-word.(safety_class(safety)) { (word(safety)) }
            @for wrong in wrongs(database) { small.wrong { (shortened(&wrong, 300)) } }
        }
        td data-of="Newest proved backup" {
            @match backup {
                Some(backup) => {
                    (ago(backup.began_at, now)) small { (backup.proof_in_words()) " · " a href=(links::set(&backup.set)) { (backup.set) } }
                },
                None => span.quiet { "–" },
            }
        }
        td data-of="Restore takes" { (restore_time(backup, now)) }
        td data-of="Copies" {
            @match backup {
                Some(backup) => { (count(backup.stores.len() as u64)) small { (backup.stores.join(", ")) } },
                None => span.quiet { "–" },
            }
        }
    }
}

fn restore_time(backup: Option<&Backup>, now: DateTime<Utc>) -> Markup {
    html! { @match backup { Some(backup) => { (took(backup.measured, now)) }, None => span.quiet { "–" } } }
}

/// How long a restore took, and when that was.
pub(super) fn took(measured: Option<Measured>, now: DateTime<Utc>) -> Markup {
    html! {
        @match measured {
            Some(Measured { seconds, at }) => {
                (duration(Duration::try_from_secs_f64(seconds).unwrap_or_default())) small { "measured " (about(now - at)) " ago" }
            },
            None => span.quiet { "not measured" },
        }
    }
}

fn safety_class(safety: Safety) -> &'static str {
    match safety {
        Safety::Unsafe => "bad",
        Safety::AtRisk | Safety::Unknown => "warning",
        Safety::Unread => "quiet",
        Safety::Safe => "good",
    }
}

/// What is wrong, a sentence each.
fn wrongs(database: &DatabaseStatus) -> Vec<String> {
    let Some(read) = &database.read else { return Vec::new() };
    let found = &read.found;
    let none = match (&found.backup, &found.job) {
        (Err(why), _) => Some(format!("nobody knows: {why}")),
        (Ok(None), None) if found.by_schemas => {
            Some("there is no backup of all of it, and no job makes one: its schemas are backed up one by one".to_owned())
        }
        (Ok(None), _) if !found.anothers.is_empty() => Some(format!("there is {}", found.none_in_words())),
        (Ok(None), None) if !found.in_part.is_empty() => Some(format!("there is {}", found.none_in_words())),
        (Ok(None), None) => Some("there is no backup, and no job makes one".to_owned()),
        (Ok(None), Some(job)) => Some(format!("there is no backup that counts; job {job} makes one")),
        (Ok(Some(_)), _) => None,
    };
    let late = database.late.iter().map(|job| format!("its job {job} is late"));
    let unasked = database.unasked.as_ref().map(Unasked::in_words);
    none.into_iter().chain(found.wrongs()).chain(late).chain(unasked).collect()
}

/// The answer for one database, on its own page.
pub(super) fn of_one(database: &DatabaseStatus, now: DateTime<Utc>) -> Markup {
    let safety = database.safety();
    html! {
        section aria-labelledby="safe" {
            h2 #safe { "Is it safe?" }
            div.scroll { table.safe {
                thead { tr { @for title in ["Database", "Safe?", "Newest proved backup", "Restore takes", "Copies"] { th scope="col" { (title) } } } }
                tbody { (row(database, now)) }
            } }
            @match &database.read {
                Some(read) => p.meta { "Stores and database were asked " (ago(read.at, now)) "." },
                None => p.meta { "Stores and database are being asked; this page does not wait for them." },
            }
            @if let Some(set) = backup(database).filter(|_| safety != Safety::Unread) {
                p.more { "How to restore it: " a href=(links::set(&set.set)) { (set.set) } }
            }
        }
    }
}
