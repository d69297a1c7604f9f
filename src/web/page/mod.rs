//! The status page and the pages behind it: pure functions from data to one HTML document that needs no script and no other file.
//!
//! Nothing here depends on colour alone: each outcome has a word, and in a drawing a place and a shape.

mod actions;
mod archive;
mod audits;
mod curve;
mod drawing;
mod facts;
mod failures;
mod fleets;
mod frame;
pub mod job;
mod jobs;
pub mod links;
pub mod run;
mod running;
pub mod runs;
mod safe;
pub mod set;
mod timeline;
mod words;

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
pub use frame::{Frame, sorry};
use maud::{Markup, html};

pub use self::archive::{Batch, render as archive};
use self::words::{ago, outcome_link, shortened};
use crate::base::units::{count, plural};
use crate::run::notify::untold;
use crate::web::choice::{Choice, Filter};
use crate::web::safety::{DatabaseStatus, Safety};
use crate::web::status::{BrokenStatus, FleetStatus, JobStatus, RunStatus, Status};
use crate::web::timeline::Timeline;
use crate::web::trouble::{Trouble, never_ran, rank, trouble};

/// What the status page shows.
pub struct Overview<'a> {
    pub status: &'a Status,
    /// Empty where there are no stores.
    pub safety: &'a [DatabaseStatus],
    pub has_stores: bool,
    pub timeline: &'a Timeline,
    pub filter: &'a Filter,
    pub choice: &'a Choice,
}

impl Frame {
    pub fn of(status: &Status) -> Self {
        let Status { host, version, started_at, now, .. } = status;
        Self { host: host.clone(), version, started_at: *started_at, now: *now, note: None, has_actions: false }
    }
}

pub fn render(overview: &Overview<'_>) -> String {
    let Overview { status, safety, has_stores, timeline, filter, choice } = overview;
    let verdict = verdict(status, safety);
    let running: Vec<&RunStatus> = status.jobs.iter().filter_map(|job| job.running.as_ref()).collect();
    let is_asking = is_asking(status, safety);
    // A page that reloads unasked takes the text away from whoever reads slowly, or hears it (WCAG 2.2.1).
    let refresh_seconds = match (is_asking, running.is_empty()) {
        _ if filter.live.is_empty() => None,
        (true, _) => Some(5),
        (false, false) => Some(15),
        (false, true) => Some(60),
    };
    let main = html! {
        (headline(status, &verdict))
        (safe::section(safety, filter, status.now))
        @if !(*has_stores || status.jobs.is_empty() && status.fleets.is_empty()) { p.hint.no-store { "No store is configured, so pgtend makes no backups here, and cannot say whether the data are safe: " code { "pgtend init" } } }
        (banners(status))
        (trouble_section(status, &verdict))
        (running::section(&running, status.now))
        (self::timeline::section(timeline))
        @if !status.jobs.is_empty() { (jobs::section(status, choice, filter)) } @else if status.fleets.is_empty() { (no_jobs()) }
        (fleets::section(status, filter))
        (failures::section(status))
        (audits::section(status))
        p.live {
            @if filter.live.is_empty() { a href="/?live=on" { "Keep this page open: it then reloads by itself" } }
            @else { a href="/" { "Stop reloading" } }
        }
    };
    frame::document(&Frame::of(status), &verdict.headline, verdict.mood, refresh_seconds, &main)
}

struct Verdict<'a> {
    mood: &'static str,
    headline: String,
    /// The jobs that need attention, the worst first.
    trouble: Vec<(&'a JobStatus, Trouble<'a>)>,
}

fn verdict<'a>(status: &'a Status, safety: &[DatabaseStatus]) -> Verdict<'a> {
    let mut trouble: Vec<_> = status.jobs.iter().filter_map(|job| Some((job, trouble(job)?))).collect();
    trouble.sort_by_key(|(job, _)| rank(job));
    let enabled = || status.jobs.iter().filter(|job| job.enabled);
    let fleets = || status.fleets.iter().filter(|fleet| fleet.enabled);
    let jobs = enabled().map(|job| &job.job).chain(fleets().map(|fleet| &fleet.job)).collect::<BTreeSet<_>>().len();
    // Of a fleet whose sets are too old, no database is named.
    let late_fleets = fleets().filter(|fleet| fleet.failed + fleet.late > 0).map(|fleet| &fleet.job);
    let in_trouble = trouble.iter().map(|(job, _)| &job.job).chain(late_fleets).collect::<BTreeSet<_>>().len();
    let databases = trouble.len() + not_shown(status);
    let broken = status.broken.len();
    let (mood, headline) = if status.jobs.is_empty() && status.fleets.is_empty() && broken == 0 {
        ("idle", "No jobs yet".to_owned())
    } else if in_trouble > 0 {
        let needs = if in_trouble == 1 { "needs" } else { "need" };
        // One job may run on hundreds of databases, so the headline says on how many.
        let spread = if databases > in_trouble { format!(" on {}", plural(databases, "database")) } else { String::new() };
        ("bad", format!("{} {needs} attention{spread}", plural(in_trouble, "job")))
    } else if broken > 0 {
        ("bad", format!("{} {} skipped", plural(broken, "job"), if broken == 1 { "is" } else { "are" }))
    } else if status.ledger_error.is_some() {
        ("warn", "The state of the jobs is unknown".to_owned())
    } else if jobs == 0 {
        ("idle", "Every job is disabled".to_owned())
    } else if let Some(nothing) = without_databases(status) {
        nothing
    } else if let Some(silent) = status.silent.first() {
        let more = status.silent.len() - 1;
        let said = silent.split_once(" since ").map_or(silent.as_str(), |(said, _)| said);
        ("warn", if more == 0 { capitalized(said) } else { format!("{}, and {more} more", capitalized(said)) })
    } else if enabled().all(never_ran) && fleets().all(|fleet| fleet.well + fleet.failed + fleet.late == 0) {
        ("idle", format!("{} {} for the first run", plural(jobs, "job"), if jobs == 1 { "waits" } else { "wait" }))
    } else if is_asking(status, safety) {
        // Green would say what nobody knows yet.
        ("idle", "The stores are being asked whether the backups are there".to_owned())
    } else {
        let mood = if status.configuration_error.is_some() { "warn" } else { "good" };
        (mood, if jobs == 1 { "The job is healthy".to_owned() } else { format!("All {} are healthy", plural(jobs, "job")) })
    };
    match (doubts(status, safety), mood) {
        (None, _) => Verdict { mood, headline, trouble },
        (Some((_, said)), "bad") => Verdict { mood, headline: format!("{said}; {headline}"), trouble },
        (Some((mood, said)), _) => Verdict { mood, headline: said, trouble },
    }
}

/// Whether it is not known yet what the stores have.
fn is_asking(status: &Status, safety: &[DatabaseStatus]) -> bool {
    status.is_asking || safety.iter().any(|database| database.safety() == Safety::Unread)
}

/// The jobs that should run on databases of servers, and that have none.
fn without_databases(status: &Status) -> Option<(&'static str, String)> {
    let empty: Vec<&FleetStatus> = status.fleets.iter().filter(|fleet| fleet.is_empty()).collect();
    let of = empty.first()?;
    let mood = if empty.iter().any(|fleet| fleet.unknown.is_some()) { "bad" } else { "warn" };
    let said = match empty.len() {
        1 => format!("Job {} has no {} to run on", of.job, of.has_runs_for),
        many => format!("{many} jobs have no databases to run on"),
    };
    Some((mood, said))
}

fn capitalized(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

/// "2 databases are not safe, 1 is at risk", with the mood of that; nothing while all are safe, as far as they were asked.
fn doubts(status: &Status, safety: &[DatabaseStatus]) -> Option<(&'static str, String)> {
    let of_kind = |kind| safety.iter().filter(|database| database.safety() == kind).count();
    let (not_safe, not_known) = of_fleets(status);
    let of_servers = not_safe + status.uncovered.len() + status.left_out.len();
    let has_schemas = status.fleets.iter().any(|fleet| fleet.not_safe() > 0 && fleet.has_runs_for == "schema");
    let mut said: Vec<String> = Vec::new();
    let mut mood = None;
    for (number, words, of_it) in [
        (of_kind(Safety::Unsafe) + of_servers, "not safe", "bad"),
        (of_kind(Safety::AtRisk), "at risk", "warn"),
        (of_kind(Safety::Unknown) + not_known, "not known to be safe", "warn"),
    ] {
        if number == 0 {
            continue;
        }
        let counted = match (said.is_empty(), has_schemas, number) {
            (true, true, 1) => "1 database or schema".to_owned(),
            (true, true, _) => format!("{} databases and schemas", count(number as u64)),
            (true, false, _) => plural(number, "database"),
            (false, ..) => count(number as u64),
        };
        said.push(format!("{counted} {} {words}", if number == 1 { "is" } else { "are" }));
        mood.get_or_insert(of_it);
    }
    mood.map(|mood| (mood, said.join(", ")))
}

/// How many databases of jobs with patterns are not safe, and how many are not known to be. Jobs with the same patterns have the same databases.
fn of_fleets(status: &Status) -> (usize, usize) {
    let mut by_patterns: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for fleet in &status.fleets {
        let most = by_patterns.entry(&fleet.patterns).or_default();
        *most = (most.0.max(fleet.not_safe()), most.1.max(fleet.by_ledger));
    }
    by_patterns.values().fold((0, 0), |(not_safe, not_known), of| (not_safe + of.0, not_known + of.1))
}

/// Counts the databases in trouble that are not named, as too many are.
fn not_shown(status: &Status) -> usize {
    let of_fleet = |fleet: &FleetStatus| {
        let named = status.jobs.iter().filter(|job| job.job == fleet.job && trouble(job).is_some()).count();
        (fleet.failed + fleet.late).saturating_sub(named)
    };
    status.fleets.iter().filter(|fleet| fleet.enabled).map(of_fleet).sum()
}

fn names<'a>(jobs: impl Iterator<Item = &'a JobStatus>) -> usize {
    jobs.map(|job| &job.job).collect::<BTreeSet<_>>().len()
}

fn headline(status: &Status, verdict: &Verdict) -> Markup {
    let runs = |wanted: &dyn Fn(&JobStatus) -> bool| status.jobs.iter().filter(|job| wanted(job)).count();
    let mut facts = vec![jobs_and_databases(status)];
    for (number, what) in [
        (runs(&|job| job.running.is_some()), "running"),
        (runs(&|job| job.history.last().is_some_and(|run| !run.warnings.is_empty())), "with warnings"),
        (runs(&|job| job.enabled && never_ran(job) && status.ledger_error.is_none()), "not run yet"),
        (runs(&|job| !job.enabled), "disabled"),
    ] {
        if number > 0 {
            facts.push(format!("{} {what}", count(number as u64)));
        }
    }
    html! {
        section class={ "verdict " (verdict.mood) } {
            (drawing::mark(verdict.mood))
            div {
                h1 { (verdict.headline) }
                @if !status.jobs.is_empty() || !status.fleets.is_empty() { p.facts { (facts.join(" · ")) } }
            }
        }
    }
}

fn trouble_section(status: &Status, verdict: &Verdict) -> Markup {
    const SHOWN: usize = 5;
    let more = verdict.trouble.len().saturating_sub(SHOWN) + not_shown(status);
    html! {
        @if !verdict.trouble.is_empty() {
            section.trouble aria-labelledby="trouble" {
                h2 #trouble { "Needs attention" }
                ul {
                    @for (job, trouble) in verdict.trouble.iter().take(SHOWN) {
                        li { (links::place(&job.job, &job.database)) " " (in_short(*trouble, status.now)) }
                    }
                    @if more > 0 { li { a href=(links::jobs("", "", "trouble", "", 1)) { "and " (count(more as u64)) " more" } } }
                }
            }
        }
    }
}

/// Jobs on the same patterns have the same databases.
fn jobs_and_databases(status: &Status) -> String {
    let is_of_fleet = |job: &&JobStatus| status.fleets.iter().any(|fleet| fleet.job == job.job);
    let alone: Vec<&JobStatus> = status.jobs.iter().filter(|job| !is_of_fleet(job)).collect();
    let databases = alone.iter().map(|job| &job.database).collect::<BTreeSet<_>>().len();
    let by_patterns: BTreeMap<&str, usize> =
        status.fleets.iter().map(|fleet| (fleet.patterns.as_str(), fleet.databases)).collect();
    let jobs = names(alone.into_iter()) + status.fleets.len();
    format!("{} on {}", plural(jobs, "job"), plural(databases + by_patterns.values().sum::<usize>(), "database"))
}

fn in_short(trouble: Trouble, now: DateTime<Utc>) -> Markup {
    match trouble {
        Trouble::Failed(run) => html! {
            (outcome_link(run)) " " (ago(run.finished_at.unwrap_or(run.started_at), now))
            @if let Some(error) = &run.error { span.why { ": " (shortened(error, 140)) } }
        },
        Trouble::Late => html! { "is late" },
    }
}

fn banners(status: &Status) -> Markup {
    const SILENT_SHOWN: usize = 5;
    html! {
        @if let Some(error) = &status.configuration_error {
            section.banner role="status" {
                h2 { "The new configuration was refused" }
                p { "The old one stays in effect. Every mistake and its place: " code { "pgtend check" } }
                pre { (error) }
            }
        }
        @if !status.broken.is_empty() {
            section.banner role="status" {
                h2 { (plural(status.broken.len(), "job")) " skipped" }
                p { "A file has mistakes; the other jobs go on. Every mistake and its place: " code { "pgtend check" } }
                pre {
                    @for broken in &status.broken {
                        @for reason in &broken.reasons { (shortened(reason, 1000)) "\n" }
                    }
                }
                @for broken in status.broken.iter().filter(|broken| !broken.stands.is_empty()) { (stands(broken)) }
            }
        }
        @if let Some(error) = &status.ledger_error {
            section.banner role="status" {
                h2 { "The ledger cannot be read" }
                p { "Until it can, past runs are not shown, and failures are unknown." }
                pre { (error) }
            }
        }
        @if !status.silent.is_empty() {
            section.banner role="status" {
                h2 { "Without an answer" }
                @for silent in status.silent.iter().take(SILENT_SHOWN) { p { (shortened(silent, 1000)) } }
                @if status.silent.len() > SILENT_SHOWN { p { "and " (status.silent.len() - SILENT_SHOWN) " more" } }
                p { "What to do: " code { "pgtend check --connect" } }
            }
        }
        @if !status.untold.is_empty() {
            section.banner role="status" {
                h2 { "Messages that nobody got" }
                @for untold in &status.untold { p { b { (untold::about(untold)) } ": " (shortened(&untold::in_words(untold), 1000)) } }
            }
        }
        @if status.draining {
            section.banner.calm role="status" {
                h2 { "Shutting down" }
                p { "Runs that have started are completed; no others start." }
            }
        }
    }
}

/// Whether a job that cannot run is late, on a few of its databases.
fn stands(broken: &BrokenStatus) -> Markup {
    const SHOWN: usize = 5;
    html! {
        ul {
            @for sentence in broken.stands.iter().take(SHOWN) { li { b { (broken.job) } ": " (shortened(sentence, 300)) } }
            @if broken.stands.len() > SHOWN { li { "and on " (plural(broken.stands.len() - SHOWN, "more database")) } }
        }
    }
}

fn no_jobs() -> Markup {
    html! {
        section.empty {
            p { "A job is a file in the folder " code { "jobs" } ", for instance " code { "jobs/backup-nightly.toml" } ":" }
            pre { "schedule = \"0 2 * * *\"\ndatabase = \"app\"\n\n[backup]\nstore = \"local\"\nverify = \"restore\"" }
            p { "Then check whether everything it needs is in place:" }
            pre { "pgtend check --connect" }
        }
    }
}

#[cfg(test)]
mod pages_tests;
#[cfg(test)]
mod tests;
