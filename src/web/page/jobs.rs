//! The table of jobs: those in trouble first, and the many databases of one job folded into a line.

use std::collections::BTreeSet;
use std::time::Duration;

use chrono::{DateTime, Utc};
use maud::{Markup, html};

use super::drawing::{legend, sparkline, strip};
use super::links;
use super::words::{ago, ahead, moment, outcome_link, seconds, shortened, wall_clock};
use crate::base::shell::word;
use crate::base::units::{bytes, count, duration, plural};
use crate::ledger::report::Outcome;
use crate::web::choice::{Choice, Filter, Fold, STATES};
use crate::web::status::{JobStatus, Status};
use crate::web::trouble::{rank, trouble};

/// The jobs of the page, and the form that finds others.
pub(super) fn section(status: &Status, choice: &Choice, filter: &Filter) -> Markup {
    let never = status.ledger_error.is_none() && status.jobs.iter().all(|job| job.history.is_empty() && job.running.is_none());
    let are_known = status.ledger_error.is_none();
    html! {
        section aria-labelledby="jobs" {
            h2 #jobs { "Jobs" @if filter.is_set() { span.count { (count(choice.matching as u64)) " found" } } }
            @if status.jobs.len() > FEW || filter.is_set() { (form(status, filter)) }
            @if never && !filter.is_set() {
                p.hint { "Nothing has run yet. See what a job would do: "
                    code { "pgtend run-job " (word(&status.jobs[0].job)) " --dry-run" } }
            }
            @if choice.rows.is_empty() && choice.folds.is_empty() { p { "No job is like that. " a href=(links::jobs("", "", "", "", 1)) { "All jobs" } } }
            @if !choice.rows.is_empty() { (table(&choice.rows, status.now, are_known)) }
            @if !choice.folds.is_empty() { ul.folds { @for fold in &choice.folds { li.fold { (fold_line(fold, status.now, are_known)) } } } }
            (pages(choice, filter))
            @if choice.rows.iter().any(|job| !job.history.is_empty()) { (legend()) }
        }
    }
}

/// With fewer jobs there is nothing to search.
const FEW: usize = 8;

fn form(status: &Status, filter: &Filter) -> Markup {
    let tasks: BTreeSet<&str> = status.jobs.iter().map(|job| job.task).collect();
    html! {
        form.filter method="get" action="/#jobs" role="search" aria-label="Jobs" {
            label { "Job, database or words " input type="search" name="q" value=(filter.q) maxlength="200"; }
            label { "Task " select name="task" {
                option value="" { "all" }
                @for task in tasks { option value=(task) selected[filter.task == task] { (task) } }
            } }
            label { "State " select name="state" {
                option value="" { "all" }
                @for (state, words) in STATES { option value=(state) selected[filter.state == state] { (words) } }
            } }
            @if !filter.group.is_empty() { label { "Of " input name="group" value=(filter.group); } }
            button { "Show" }
            @if filter.is_set() { a href=(links::jobs("", "", "", "", 1)) { "All jobs" } }
        }
    }
}

fn pages(choice: &Choice, filter: &Filter) -> Markup {
    let to = |page| links::jobs(&filter.q, &filter.task, &filter.state, &filter.group, page);
    html! {
        @if choice.pages > 1 {
            nav.pages aria-label="Pages of jobs" {
                @if choice.page > 1 { a rel="prev" href=(to(choice.page - 1)) { "Before" } }
                span { "page " (count(choice.page as u64)) " of " (count(choice.pages as u64)) }
                @if choice.page < choice.pages { a rel="next" href=(to(choice.page + 1)) { "After" } }
            }
        }
    }
}

fn fold_line(fold: &Fold, now: DateTime<Utc>, are_known: bool) -> Markup {
    let total = plural(fold.total, if fold.is_fleet { "job" } else { "database" });
    html! {
        a.job href=(links::jobs("", "", "", &fold.name, 1)) { (fold.name) }
        span { @if fold.is_part { (count(fold.running as u64)) " of its databases under way" } @else if are_known { (count(fold.well as u64)) " of " (total) " well" } @else { (total) } }
        @if fold.bad > 0 { span.bad { (count(fold.bad as u64)) " " (if fold.bad == 1 { "needs" } else { "need" }) " attention" } }
        @if fold.size_bytes > 0 { span { (bytes(fold.size_bytes)) " in all" } }
        @if let Some(next) = fold.next_at { span { "next " (ahead(next, now)) } }
    }
}

pub(super) fn table(rows: &[JobStatus], now: DateTime<Utc>, are_known: bool) -> Markup {
    html! {
        table.jobs {
            thead { tr {
                @for title in ["Job", "Schedule", "Last run", "Next run", "Last 30 runs", "Duration", "Size"] {
                    th scope="col" { (title) }
                }
            } }
            tbody { @for job in rows { (row(job, now, are_known)) } }
        }
    }
}

fn row(job: &JobStatus, now: DateTime<Utc>, are_known: bool) -> Markup {
    let class = [Some("bad"), Some("warn"), None, Some("off")][usize::from(rank(job))];
    let seconds: Vec<f64> = job
        .history
        .iter()
        .filter(|run| run.outcome == Some(Outcome::Succeeded))
        .filter_map(seconds)
        .map(|took| took.as_secs_f64())
        .collect();
    let sizes: Vec<f64> = job.history.iter().filter_map(|run| run.size_bytes).map(|size| size as f64).collect();
    let took = |seconds| duration(Duration::from_secs_f64(seconds));
    html! {
        tr class=[class] {
            th scope="row" {
                (links::place(&job.job, &job.database))
                small { (job.task) @if let Some(description) = &job.description { ": " (description) } }
                @if let Some(runway) = &job.runway { small { (runway) } }
            }
            td {
                (job.schedule_in_words.as_ref().or(job.schedule.as_ref()).map_or("by hand", |words| words))
                @if job.schedule_in_words.is_some() && let Some(schedule) = &job.schedule { small { (schedule) } }
            }
            td { (last_run(job, now, are_known)) }
            td { (next_run(job, now)) }
            td { (strip(&job.history, true)) }
            td class=[seconds.is_empty().then_some("none")] { (sparkline("Duration", &seconds, &took)) }
            td class=[sizes.is_empty().then_some("none")] { (sparkline("Size", &sizes, &|size| bytes(size as u64))) }
        }
    }
}

fn last_run(job: &JobStatus, now: DateTime<Utc>, are_known: bool) -> Markup {
    let late = job.late && job.enabled;
    html! {
        @if late { span.tag.warn { "late" } " " }
        @if let Some(run) = job.history.last() {
            (outcome_link(run)) " " (ago(run.finished_at.unwrap_or(run.started_at), now))
            @if run.outcome == Some(Outcome::Skipped) {
                small { (shortened(run.error.as_deref().unwrap_or_default(), 120)) }
            } @else if let Some(seconds) = seconds(run) {
                small { "took " (duration(seconds)) }
            }
            @for warning in &run.warnings { small.warning { (shortened(warning, 400)) } }
        } @else if !are_known { span.quiet { "unknown" } } @else { span.quiet { "not yet" } }
        @let succeeded = job.history.last().is_some_and(|run| run.outcome == Some(Outcome::Succeeded));
        @match job.last_success_at {
            Some(success) if !succeeded => small { "succeeded " (ago(success, now)) },
            None if trouble(job).is_some() && are_known => small { "never succeeded" },
            _ => {}
        }
    }
}

fn next_run(job: &JobStatus, now: DateTime<Utc>) -> Markup {
    html! {
        @if job.running.is_some() { a.now href=(links::job(&job.job, &job.database)) { "running now" } }
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
