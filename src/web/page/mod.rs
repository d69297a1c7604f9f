//! The status page: a pure function from data to one HTML document that needs no script and no other file.
//!
//! Nothing here depends on colour alone: each outcome has a word, and in a strip a place and a shape.

mod audits;
mod drawing;
mod fleets;
mod jobs;
mod trouble;
mod words;

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use maud::{Markup, html};

use self::words::{ago, exact, moment, outcome_link, outcome_word, place, seconds, shortened, tone};
use crate::base::html_page;
use crate::base::units::{age, bytes, count, duration, plural};
use crate::web::status::{FleetStatus, JobStatus, RunStatus, Status};

const STDERR_LINES: usize = 20;

pub fn render(status: &Status) -> String {
    let verdict = verdict(status);
    let running: Vec<&RunStatus> = status.jobs.iter().filter_map(|job| job.running.as_ref()).collect();
    // A refresh closes what a reader unfolded, so it is frequent only while there is progress to see.
    let refresh_seconds = if running.is_empty() { 60 } else { 15 };
    let head = html! {
        meta http-equiv="refresh" content=(refresh_seconds);
        link rel="icon" href=(drawing::favicon(verdict.mood));
    };
    let body = html! {
        header.top {
            p.brand { "pgtend" span { "on " (status.host) } }
            p { (moment(status.now, &status.now.format("%-d %b %Y, %H:%M UTC").to_string())) }
        }
        main {
            (headline(status, &verdict))
            (banners(status))
            @if !running.is_empty() { (running_section(&running, status.now)) }
            @if !status.jobs.is_empty() { (jobs::section(status)) } @else if status.fleets.is_empty() { (no_jobs()) }
            (fleets::section(status))
            @if !status.failures.is_empty() { (failures_section(status)) }
            (audits::section(status))
        }
        footer {
            p { "pgtend " (status.version) ", up for " (age(status.started_at, status.now)) }
            p { "This page reloads every " (refresh_seconds) " seconds." }
        }
    };
    let title = format!("{} – pgtend on {}", verdict.headline, status.host);
    html_page::render(&title, include_str!("page.css"), &head, &body)
}

struct Verdict<'a> {
    mood: &'static str,
    headline: String,
    /// The jobs that need attention, the worst first.
    trouble: Vec<(&'a JobStatus, Trouble<'a>)>,
}

fn verdict(status: &Status) -> Verdict<'_> {
    let mut trouble: Vec<_> = status.jobs.iter().filter_map(|job| Some((job, trouble(job)?))).collect();
    trouble.sort_by_key(|(job, _)| rank(job));
    let enabled = || status.jobs.iter().filter(|job| job.enabled);
    let fleets = || status.fleets.iter().filter(|fleet| fleet.enabled);
    let jobs = enabled().map(|job| &job.job).chain(fleets().map(|fleet| &fleet.job)).collect::<BTreeSet<_>>().len();
    let in_trouble = names(trouble.iter().map(|(job, _)| *job));
    let databases = trouble.len() + not_shown(status);
    let broken = status.broken.len();
    let (mood, headline) = if status.jobs.is_empty() && status.fleets.is_empty() && broken == 0 {
        ("idle", "No jobs yet".to_owned())
    } else if !trouble.is_empty() {
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
    } else if enabled().all(never_ran) && fleets().all(|fleet| fleet.well + fleet.failed + fleet.late == 0) {
        ("idle", format!("{} {} for the first run", plural(jobs, "job"), if jobs == 1 { "waits" } else { "wait" }))
    } else {
        let mood = if status.configuration_error.is_some() { "warn" } else { "good" };
        (mood, if jobs == 1 { "The job is healthy".to_owned() } else { format!("All {} are healthy", plural(jobs, "job")) })
    };
    Verdict { mood, headline, trouble }
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
    const SHOWN: usize = 5;
    let more = verdict.trouble.len().saturating_sub(SHOWN) + not_shown(status);
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
                @if !verdict.trouble.is_empty() {
                    ul {
                        @for (job, trouble) in verdict.trouble.iter().take(SHOWN) {
                            li { (place(&job.job, &job.database)) " " (in_short(*trouble, status)) }
                        }
                        @if more > 0 { li { "and " (count(more as u64)) " more" } }
                    }
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

fn in_short(trouble: Trouble, status: &Status) -> Markup {
    match trouble {
        Trouble::Failed(run) => html! {
            (outcome_link(run, status)) " " (ago(run.finished_at.unwrap_or(run.started_at), status.now))
            @if let Some(error) = &run.error { span.why { ": " (shortened(error, 140)) } }
        },
        Trouble::Late => html! { "is late" },
    }
}

fn banners(status: &Status) -> Markup {
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
            }
        }
        @if let Some(error) = &status.ledger_error {
            section.banner role="status" {
                h2 { "The ledger cannot be read" }
                p { "Until it can, past runs are not shown, and failures are unknown." }
                pre { (error) }
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

fn running_section(running: &[&RunStatus], now: DateTime<Utc>) -> Markup {
    const SHOWN: usize = 20;
    html! {
        section aria-labelledby="running" {
            h2 #running { "Running" span.count { (count(running.len() as u64)) } }
            ul.running {
                @for run in running.iter().take(SHOWN) { li { (running_run(run, now)) } }
            }
            @if running.len() > SHOWN { p.quiet { "and " (count((running.len() - SHOWN) as u64)) " more" } }
        }
    }
}

fn running_run(run: &RunStatus, now: DateTime<Utc>) -> Markup {
    let progress = run.progress.as_ref();
    let phase = progress.map_or("starting", |progress| &progress.phase);
    // A total is an estimate, and never zero here; the bytes done may exceed it.
    let known = progress.and_then(|progress| Some((progress.done_bytes, progress.total_bytes.filter(|total| *total > 0)?)));
    let percent = known.map(|(done, total)| (done as f64 / total as f64 * 100.0).min(100.0) as u64);
    let label = format!("{} on {}: {phase}", run.job, run.database);
    html! {
        div.line {
            (place(&run.job, &run.database))
            span.num title={ "run " (run.id) ", started " (exact(run.started_at)) " on " (run.host) } {
                (age(run.started_at, now))
            }
        }
        @match percent {
            Some(percent) => progress value=(percent) max="100" aria-label=(label) { (percent) " %" },
            None => progress aria-label=(label) {},
        }
        div.line {
            span { (phase) @if let Some(percent) = percent { " · " (percent) " %" } }
            @if let Some(progress) = progress {
                span.num { (bytes(progress.done_bytes)) @if let Some((_, total)) = known { " of " (bytes(total)) } }
            }
        }
        @if let Some(detail) = progress.and_then(|progress| progress.detail.as_ref()) { div.line { span { (detail) } } }
    }
}

fn failures_section(status: &Status) -> Markup {
    html! {
        section aria-labelledby="failures" {
            h2 #failures { "Recent failures" }
            @for (index, run) in status.failures.iter().enumerate() { (failure(run, status, index < 3)) }
        }
    }
}

fn failure(run: &RunStatus, status: &Status, recent: bool) -> Markup {
    let ended = run.finished_at.unwrap_or(run.started_at);
    let job = status.jobs.iter().find(|job| job.job == run.job && job.database == run.database);
    let well_since =
        job.filter(|job| trouble(job).is_none()).and_then(|job| job.last_success_at).filter(|success| *success > ended);
    html! {
        article class={ "failure" @if well_since.is_some() { " over" } } id={ "run-" (run.id) } {
            h3 { (place(&run.job, &run.database)) }
            p.meta {
                span.(tone(run)) { (outcome_word(run)) } " " (ago(ended, status.now))
                @if let Some(seconds) = seconds(run) { " after " (duration(seconds)) }
                " · by " (run.trigger) " on " (run.host)
                @if let Some(success) = well_since { " · " span.good { "succeeded again " (ago(success, status.now)) } }
            }
            @if let Some(error) = &run.error { pre.error { (shortened(error, 4000)) } }
            @if let Some(stderr) = run.stderr.as_deref().filter(|text| !text.trim().is_empty()) {
                // It is open while it matters, since a refresh would close it.
                details open[recent && well_since.is_none()] {
                    summary { "Output of its tools" }
                    pre { (tail(stderr)) }
                }
            }
            p.meta { "Full details: " code { "pgtend runs show " (run.id) } }
        }
    }
}

/// Returns the end of a text, where a tool says why it failed.
fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.trim_end().lines().collect();
    let left_out = lines.len().saturating_sub(STDERR_LINES);
    let shown: Vec<String> = lines[left_out..].iter().map(|line| shortened(line, 1000)).collect();
    if left_out > 0 { format!("… {} before\n{}", plural(left_out, "line"), shown.join("\n")) } else { shown.join("\n") }
}

#[cfg(test)]
mod tests;
use trouble::{Trouble, never_ran, rank, trouble};
