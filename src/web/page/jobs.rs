//! The table of jobs: those in trouble first, and the many healthy ones folded.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, Utc};
use maud::{Markup, html};

use super::drawing::{legend, sparkline, strip};
use super::trouble::{never_ran, rank, trouble};
use super::words::{ago, ahead, moment, outcome_link, place, seconds, shortened, wall_clock};
use crate::base::units::{bytes, count, duration, plural};
use crate::ledger::report::Outcome;
use crate::web::status::{JobStatus, Status};

/// A job on more databases than this is folded into one line; databases in trouble stay outside.
const FOLD_DATABASES: usize = 8;
/// The most rows outside of folds; each has a tooltip per run, which a folded one has not: 2,500 jobs must stay a small page.
const OPEN_ROWS: usize = 60;

pub(super) fn section(status: &Status) -> Markup {
    let (open, folds) = layout(&status.jobs);
    let never = status.ledger_error.is_none() && status.jobs.iter().all(|job| job.history.is_empty() && job.running.is_none());
    html! {
        section aria-labelledby="jobs" {
            h2 #jobs { "Jobs" }
            @if never {
                p.hint { "Nothing has run yet. See what a job would do: "
                    code { "pgtend run-job " (status.jobs[0].job) " --dry-run" } }
            }
            @if !open.is_empty() { (table(&open, status, Detail::Full)) }
            @for (index, (job, rows)) in folds.iter().enumerate() {
                details.fold {
                    summary { (fold_line(job.as_deref(), rows, status)) }
                    // A refresh folds it again, unless the address has its anchor.
                    p id={ "fold-" (index) } {
                        a href={ "#fold-" (index) } { "Keep this list open" } " when the page reloads."
                    }
                    (table(rows, status, if job.is_some() { Detail::DatabaseOnly } else { Detail::Brief }))
                }
            }
            @if status.jobs.iter().any(|job| !job.history.is_empty()) { (legend()) }
        }
    }
}

type Rows<'a> = Vec<&'a JobStatus>;

/// Splits rows into those that are always in view, and those folded under their job's name, or under none.
fn layout(jobs: &[JobStatus]) -> (Rows<'_>, BTreeMap<Option<String>, Rows<'_>>) {
    let mut databases: BTreeMap<&str, usize> = BTreeMap::new();
    for job in jobs {
        *databases.entry(&job.job).or_default() += 1;
    }
    let mut ranked: Rows = jobs.iter().collect();
    ranked.sort_by_key(|job| rank(job));
    let (mut open, mut folds) = (Rows::new(), BTreeMap::<_, Rows>::new());
    for job in ranked {
        let crowd = databases[job.job.as_str()] > FOLD_DATABASES;
        if open.len() < OPEN_ROWS && (!crowd || trouble(job).is_some()) {
            open.push(job);
        } else {
            folds.entry(crowd.then(|| job.job.clone())).or_default().push(job);
        }
    }
    (open, folds)
}

fn fold_line(job: Option<&str>, rows: &[&JobStatus], status: &Status) -> Markup {
    let all: Rows =
        if job.is_some() { status.jobs.iter().filter(|other| Some(other.job.as_str()) == job).collect() } else { rows.to_vec() };
    let well = all.iter().filter(|job| rank(job) == 2 && !never_ran(job)).count();
    let bad = all.iter().filter(|job| trouble(job).is_some()).count();
    let size: u64 = all.iter().filter_map(|job| job.history.iter().rev().find_map(|run| run.size_bytes)).sum();
    let next = all.iter().filter_map(|job| job.next_run_at.as_ref()).min();
    html! {
        span.job { @match job { Some(job) => { b { (job) } }, None => { b { "All other jobs" } } } }
        span {
            @let total = plural(all.len(), if job.is_some() { "database" } else { "job" });
            @if status.ledger_error.is_some() { (total) } @else { (count(well as u64)) " of " (total) " well" }
        }
        @if bad > 0 { span.bad { (count(bad as u64)) " " (if bad == 1 { "needs" } else { "need" }) " attention" } }
        @if size > 0 { span { (bytes(size)) " in all" } }
        @if let Some(next) = next { span { "next " (ahead(next.to_utc(), status.now)) } }
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Detail {
    Full,
    Brief,
    /// The short form, under a line that names the job already.
    DatabaseOnly,
}

fn table(rows: &[&JobStatus], status: &Status, detail: Detail) -> Markup {
    html! {
        table {
            thead { tr {
                @for title in ["Job", "Schedule", "Last run", "Next run", "Last 30 runs", "Duration", "Size"] {
                    th scope="col" { (title) }
                }
            } }
            tbody { @for job in rows { (row(job, status, detail)) } }
        }
    }
}

fn row(job: &JobStatus, status: &Status, detail: Detail) -> Markup {
    let class = [Some("bad"), Some("warn"), None, Some("off")][usize::from(rank(job))];
    let seconds: Vec<f64> = job
        .history
        .iter()
        .filter(|run| run.outcome == Some(Outcome::Succeeded))
        .filter_map(seconds)
        .map(|took| took.as_secs_f64())
        .collect();
    let sizes: Vec<f64> = job.history.iter().filter_map(|run| run.size_bytes).map(|size| size as f64).collect();
    let detailed = detail == Detail::Full;
    let took = |seconds| duration(Duration::from_secs_f64(seconds));
    html! {
        tr class=[class] {
            th scope="row" {
                @if detail == Detail::DatabaseOnly { b { (job.database) } } @else {
                    (place(&job.job, &job.database))
                    small { (job.task) @if detailed && let Some(description) = &job.description { ": " (description) } }
                }
                @if let Some(runway) = &job.runway { small { (runway) } }
            }
            td {
                (job.schedule_in_words.as_ref().or(job.schedule.as_ref()).map_or("by hand", |words| words))
                @if detailed && job.schedule_in_words.is_some() && let Some(schedule) = &job.schedule { small { (schedule) } }
            }
            td { (last_run(job, status)) }
            td { (next_run(job, status.now)) }
            td { (strip(&job.history, detailed)) }
            td class=[seconds.is_empty().then_some("none")] { (sparkline("Duration", &seconds, &took)) }
            td class=[sizes.is_empty().then_some("none")] { (sparkline("Size", &sizes, &|size| bytes(size as u64))) }
        }
    }
}

fn last_run(job: &JobStatus, status: &Status) -> Markup {
    let late = job.late && job.enabled;
    html! {
        @if late { span.tag.warn { "late" } " " }
        @if let Some(run) = job.history.last() {
            (outcome_link(run, status)) " " (ago(run.finished_at.unwrap_or(run.started_at), status.now))
            @if run.outcome == Some(Outcome::Skipped) {
                small { (shortened(run.error.as_deref().unwrap_or_default(), 120)) }
            } @else if let Some(seconds) = seconds(run) {
                small { "took " (duration(seconds)) }
            }
            @for warning in &run.warnings { small.warning { (shortened(warning, 200)) } }
        } @else if status.ledger_error.is_some() { span.quiet { "unknown" } } @else { span.quiet { "not yet" } }
        @let succeeded = job.history.last().is_some_and(|run| run.outcome == Some(Outcome::Succeeded));
        @match job.last_success_at {
            Some(success) if !succeeded => small { "succeeded " (ago(success, status.now)) },
            None if trouble(job).is_some() && status.ledger_error.is_none() => small { "never succeeded" },
            _ => {}
        }
    }
}

fn next_run(job: &JobStatus, now: DateTime<Utc>) -> Markup {
    html! {
        @if job.running.is_some() { a.now href="#running" { "running now" } }
        @match &job.next_run_at {
            _ if !job.enabled => span.tag { "disabled" },
            Some(next) => {
                (moment(next.to_utc(), &wall_clock(next, now)))
                small { (ahead(next.to_utc(), now)) " · " (job.timezone) }
            }
            None if job.running.is_some() => {},
            None => span.quiet { "–" },
        }
    }
}
