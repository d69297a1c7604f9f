//! One job on one database, and one database.

use std::time::Duration;

use chrono::{DateTime, Utc};
use maud::{Markup, html};
use serde_json::{Map, Value};

use super::frame::{Frame, document, heading};
use super::words::{about, ago, ahead, moment, outcome_word, seconds, shortened, tone, wall_clock};
use super::{actions, audits, curve, drawing, jobs, links, running, safe};
use crate::base::shell::word;
use crate::base::units::{bytes, duration, plural};
use crate::ledger::report::Outcome;
use crate::web::safety::{DatabaseStatus, Safety};
use crate::web::status::{JobStatus, RunStatus};
use crate::web::trouble::{Trouble, trouble};

/// What the ledger's last report of a job says besides its history.
#[derive(Clone, Debug, Default)]
pub struct LastReport {
    pub run: i64,
    pub facts: Map<String, Value>,
    pub until: Option<DateTime<Utc>>,
}

/// `history` of `job` has its last runs. `archives` says whether its task archives rows. `safety`: of the database of a backup job.
pub fn render(frame: &Frame, job: &JobStatus, report: &LastReport, archives: bool, safety: Option<&DatabaseStatus>) -> String {
    let now = frame.now;
    let name = html! { (job.job) };
    let way = html! { "on " a href=(links::database(&job.database)) { (job.database) } };
    let said = state(job, safety.map(DatabaseStatus::safety));
    let main = html! {
        (heading("Job", &name, &way))
        @if let Some(description) = &job.description { p.lead { (description) } }
        (about_job(job, said, now))
        @if let Some(run) = &job.running { section aria-labelledby="now" { h2 #now { "Now" } (running::progress(run, now)) } }
        @if let Some(until) = report.until { (runway(until, now)) }
        (curve::section(&report.facts))
        @if let Some(audit) = &job.audit { section aria-labelledby="audits" { h2 #audits { "Last audit" } (audits::one(job, audit, now)) } }
        (history(&job.history, now))
        @if frame.has_actions { (actions::run_now(&job.job, &job.database)) }
        section aria-labelledby="more" {
            h2 #more { "More" }
            ul.links {
                li { a href=(links::runs(&job.job, &job.database, "", None)) { "All its runs" } }
                @if archives { li { a href=(links::archive(&job.job, &job.database)) { "Archived rows" } } }
            }
            pre { "pgtend run-job " (word(&job.job)) " --database " (word(&job.database)) " --dry-run    # what it would do now\n"
                  "pgtend run-job " (word(&job.job)) " --database " (word(&job.database)) }
        }
    };
    document(frame, &format!("{} on {}: {}", job.job, job.database, said.1), said.0, None, &main)
}

/// A backup job is not well because its runs are: what they made may be gone.
fn state(job: &JobStatus, safety: Option<Safety>) -> (&'static str, &'static str) {
    match trouble(job) {
        Some(Trouble::Failed(_)) => ("bad", "needs attention: its last run failed"),
        Some(Trouble::Late) => ("bad", "needs attention: it is late"),
        None if !job.enabled => ("idle", "disabled"),
        None if job.history.is_empty() => ("idle", "not run yet"),
        None => match safety {
            Some(Safety::Unsafe) => ("bad", "its runs went well, and the database is not safe"),
            Some(Safety::AtRisk) => ("warn", "its runs went well, and the database is at risk"),
            Some(Safety::Unknown) => ("warn", "its runs went well, and the database is not known to be safe"),
            Some(Safety::Unread) => ("idle", "its runs went well; the stores are being asked"),
            Some(Safety::Safe) | None => ("good", "well"),
        },
    }
}

fn about_job(job: &JobStatus, (mood, said): (&'static str, &'static str), now: DateTime<Utc>) -> Markup {
    html! {
        dl.facts {
            div { dt { "State" } dd { b.(if mood == "idle" { "quiet" } else { mood }) { (said) } } }
            div { dt { "Task" } dd { (job.task) } }
            div { dt { "Schedule" } dd {
                (job.schedule_in_words.as_ref().or(job.schedule.as_ref()).map_or("by hand", |words| words))
                @if let Some(schedule) = &job.schedule { small { code { (schedule) } " " (job.timezone) } }
            } }
            div { dt { "Next run" } dd { @match &job.next_run_at {
                Some(next) => { (moment(next.to_utc(), &wall_clock(next, now))) ", " (ahead(next.to_utc(), now)) },
                None => span.quiet { "–" },
            } } }
            div { dt { "Last success" } dd { @match job.last_success_at { Some(at) => { (ago(at, now)) }, None => span.quiet { "never" } } } }
        }
    }
}

/// How far the partitions reach: the bar ends a quarter after what is there, or after 30 days.
fn runway(until: DateTime<Utc>, now: DateTime<Utc>) -> Markup {
    let ahead_seconds = (until - now).num_seconds().max(0);
    let whole_seconds = (ahead_seconds + ahead_seconds / 4).max(30 * 86_400);
    let percent = ahead_seconds * 100 / whole_seconds;
    let text = until.format("%Y-%m-%d %H:%M UTC").to_string();
    let label = format!("Partitions exist for rows until {text}");
    html! {
        section aria-labelledby="runway" {
            h2 #runway { "Partitions ahead" }
            div.runway role="img" aria-label=(label) { div style={ "width:" (percent) "%" } {} }
            p.line { span { "now" } span { @if ahead_seconds > 0 { "covered until " b { (moment(until, &text)) } ", " (about(until - now)) " ahead" } @else { b.bad { "no partition covers new rows since " (text) } } } }
        }
    }
}

fn history(runs: &[RunStatus], now: DateTime<Utc>) -> Markup {
    let took: Vec<f64> = succeeded(runs).filter_map(seconds).map(|took| took.as_secs_f64()).collect();
    let sizes: Vec<f64> = runs.iter().filter_map(|run| run.size_bytes).map(|size| size as f64).collect();
    html! {
        @if !runs.is_empty() {
            section aria-labelledby="history" {
                h2 #history { "Last runs" }
                div.trends {
                    div { p.meta { "Outcomes, the newest on the right" } (drawing::strip(runs, true)) }
                    @if !took.is_empty() { div { p.meta { "Duration" } (drawing::sparkline("Duration", &took, &|seconds| duration(Duration::from_secs_f64(seconds)))) } }
                    @if !sizes.is_empty() { div { p.meta { "Size" } (drawing::sparkline("Size", &sizes, &|size| bytes(size as u64))) } }
                }
                (table(runs.iter().rev(), now))
                (drawing::legend())
            }
        }
    }
}

fn succeeded(runs: &[RunStatus]) -> impl Iterator<Item = &RunStatus> {
    runs.iter().filter(|run| run.outcome == Some(Outcome::Succeeded))
}

fn table<'a>(runs: impl Iterator<Item = &'a RunStatus>, now: DateTime<Utc>) -> Markup {
    html! {
        div.scroll tabindex="0" role="group" aria-label="Last runs" { table.plain {
            thead { tr { @for title in ["Run", "Outcome", "Ended", "Took", "Size", "What"] { th scope="col" { (title) } } } }
            tbody { @for run in runs { tr {
                th scope="row" { a href=(links::run(run.id)) { (run.id) } }
                td { span.(tone(run)) { (outcome_word(run)) } }
                td { (ago(run.finished_at.unwrap_or(run.started_at), now)) }
                td { @match seconds(run) { Some(took) => { (duration(took)) }, None => { "–" } } }
                td { @match run.size_bytes { Some(size) => { (bytes(size)) }, None => { "–" } } }
                td {
                    @if let Some(error) = &run.error { (shortened(error, 200)) }
                    @for warning in &run.warnings { small.warning { (shortened(warning, 300)) } }
                }
            } } }
        } }
    }
}

/// A set that a run made, as the ledger has it.
#[derive(Clone, Debug)]
pub struct SetMade {
    pub run: i64,
    pub at: DateTime<Utc>,
    pub set: String,
    pub bytes: Option<u64>,
    pub verified: Option<String>,
}

/// A database: whether it is safe, its sets, its jobs, of which some more are not shown.
pub fn database(
    frame: &Frame,
    name: &str,
    safety: Option<&DatabaseStatus>,
    sets: &[SetMade],
    of_it: &[JobStatus],
    more: usize,
) -> String {
    let now = frame.now;
    // How the databases of a job with patterns stand is counted with that job.
    let said = safety.map_or(String::new(), |safety| format!(": {}", safe::word(safety.safety())));
    let main = html! {
        (heading("Database", &html! { (name) }, &html! {}))
        @if let Some(safety) = safety { (safe::of_one(safety, now)) }
        @if !sets.is_empty() {
            section aria-labelledby="sets" {
                h2 #sets { "Sets that were made" }
                div.scroll tabindex="0" role="group" aria-label="Sets that were made" { table.plain {
                    thead { tr { @for title in ["Set", "Made", "Size", "Proved then", "Run"] { th scope="col" { (title) } } } }
                    tbody { @for set in sets { tr {
                        th scope="row" { a href=(links::set(&set.set)) { (set.set) } }
                        td { (ago(set.at, now)) }
                        td { @match set.bytes { Some(size) => { (bytes(size)) }, None => { "–" } } }
                        td { (set.verified.as_deref().map_or("–".to_owned(), |verified| shortened(verified, 200))) }
                        td { a href=(links::run(set.run)) { (set.run) } }
                    } } }
                } }
                p.meta { "As their runs wrote them; some may have been pruned since." }
            }
        }
        section aria-labelledby="jobs" {
            h2 #jobs { "Jobs" }
            @if of_it.is_empty() { p { "No job runs on it." } } @else { (jobs::table(of_it, now, true)) (drawing::legend()) }
            @if more > 0 { p { a href=(links::jobs(name, "", "", "", 1)) { "and " (plural(more, "job")) " more" } } }
        }
    };
    document(frame, &format!("Database {name}{said}"), "idle", None, &main)
}
