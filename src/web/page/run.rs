//! One run: how it ended, what it did in which order, and what it and its tools said.

use std::time::Duration;

use chrono::{DateTime, Utc};
use maud::{Markup, html};
use serde_json::{Map, Value};

use super::frame::{Frame, document, heading};
use super::words::{ago, exact, moment, outcome_word, seconds, shortened, tone};
use super::{curve, facts, links, running};
use crate::base::shell::word;
use crate::base::story::Story;
use crate::base::units::{bytes, duration, plural};
use crate::ledger::Row;
use crate::ledger::report::Report;
use crate::web::status::RunStatus;

/// A page has no more of a text that a tool wrote.
const MAX_TEXT_CHARS: usize = 200_000;

pub fn render(frame: &Frame, row: &Row, attempts: &[Row]) -> String {
    let run = RunStatus::from(row.clone());
    let name = html! { (row.id) };
    let way = html! { (links::place(&row.job, &row.database)) };
    let mood = if tone(&run) == "quiet" { "idle" } else { tone(&run) };
    let main = html! {
        (heading("Run", &name, &way))
        (summary(row, &run, frame.now))
        @if row.outcome.0.is_none() { section aria-labelledby="now" { h2 #now { "Now" } (running::progress(&run, frame.now)) } }
        @if let Some(error) = &row.error { section aria-labelledby="error" { h2 #error { (error_heading(&run)) } pre.error { (shortened(error, MAX_TEXT_CHARS)) } } }
        @if let Some(report) = &row.report { (report_sections(report)) }
        @if let Some(stderr) = row.stderr.as_deref().filter(|text| !text.trim().is_empty()) {
            section aria-labelledby="stderr" { h2 #stderr { "Output of its tools" } pre.long tabindex="0" { (shortened(stderr.trim_end(), MAX_TEXT_CHARS)) } }
        }
        @if attempts.len() > 1 || row.retry_at.is_some() { (attempts_section(row, attempts, frame.now)) }
        section aria-labelledby="more" {
            h2 #more { "At a terminal" }
            pre { "pgtend runs show " (row.id) "\npgtend run-job " (word(&row.job)) " --database " (word(&row.database)) " --dry-run    # what it would do now" }
            p.meta { "The log of the whole process is where its stderr goes (journalctl, kubectl logs): pid " (row.pid) " on " (row.host) "." }
        }
    };
    let title = format!("Run {} of {}: {}", row.id, row.job, outcome_word(&run));
    document(frame, &title, mood, None, &main)
}

fn error_heading(run: &RunStatus) -> &'static str {
    if tone(run) == "quiet" { "Why" } else { "Error" }
}

fn summary(row: &Row, run: &RunStatus, now: DateTime<Utc>) -> Markup {
    html! {
        dl.facts {
            div { dt { "Outcome" } dd { b.(tone(run)) { (outcome_word(run)) } } }
            div { dt { "Started" } dd { (moment(row.started_at, &exact(row.started_at))) " (" (ago(row.started_at, now)) ")" } }
            @if let Some(seconds) = seconds(run) { div { dt { "Took" } dd { (duration(seconds)) } } }
            div { dt { "Task" } dd { (row.task) } }
            div { dt { "Trigger" } dd {
                (row.trigger)
                @if row.attempt > 1 { ", attempt " (row.attempt) }
                @if let Some(first) = row.retry_of { " of run " a href=(links::run(first)) { (first) } }
                @if let Some(tick) = row.scheduled_for { ", for " (exact(tick)) }
                @if let Some(by) = row.report.as_ref().and_then(|report| report.story.asked_by.as_ref()) { ", asked for on a page by " (by) }
            } }
            div { dt { "By" } dd { "pgtend " (row.version) ", pid " (row.pid) " on " (row.host) } }
        }
    }
}

fn report_sections(report: &Report) -> Markup {
    html! {
        @if !report.summary.is_empty() { section aria-labelledby="summary" { h2 #summary { "What it did" } p.summary { (report.summary) } } }
        @if !report.warnings.is_empty() {
            section aria-labelledby="warnings" {
                h2 #warnings { (plural(report.warnings.len(), "warning")) }
                ul.warnings { @for warning in &report.warnings { li { (shortened(warning, MAX_TEXT_CHARS)) } } }
            }
        }
        (story(&report.story))
        (curve::section(&report.facts))
        @if let Some(set) = report.facts.get("set").and_then(Value::as_str) { p.more { "The set: " a href=(links::set(set)) { (set) } } }
        (facts_section(&report.facts))
    }
}

/// The steps in order, what was logged meanwhile, and what was planned before them.
fn story(story: &Story) -> Markup {
    html! {
        @if !story.steps.is_empty() {
            section aria-labelledby="steps" {
                h2 #steps { "Steps" }
                div.scroll tabindex="0" role="group" aria-label="Steps" { table.plain {
                    thead { tr { @for title in ["Step", "After", "Took", "Bytes", "What it said last"] { th scope="col" { (title) } } } }
                    tbody { @for step in &story.steps { tr {
                        th scope="row" { (step.phase) }
                        td { (in_words(step.after_seconds)) }
                        td { @match step.elapsed_seconds { Some(elapsed) => { (in_words(elapsed)) }, None => { "not ended" } } }
                        td { @if step.bytes > 0 { (bytes(step.bytes)) } @else { "–" } }
                        td { (shortened(step.said.as_deref().unwrap_or_default(), 500)) }
                    } } }
                } }
            }
        }
        @if !story.lines.is_empty() {
            section aria-labelledby="log" {
                h2 #log { "Log" }
                pre.long tabindex="0" { @for line in &story.lines { (line.at.format("%H:%M:%S")) " " (line.level) " " (shortened(&line.text, MAX_TEXT_CHARS)) "\n" } }
            }
        }
        @if let Some(plan) = &story.plan { section aria-labelledby="plan" { h2 #plan { "Plan" } pre.long tabindex="0" { (shortened(plan, MAX_TEXT_CHARS)) } } }
    }
}

fn in_words(seconds: f64) -> String {
    duration(Duration::try_from_secs_f64(seconds).unwrap_or_default())
}

fn facts_section(facts: &Map<String, Value>) -> Markup {
    html! { @if !facts.is_empty() { section aria-labelledby="facts" { h2 #facts { "Facts" } (facts::list(facts)) } } }
}

fn attempts_section(row: &Row, attempts: &[Row], now: DateTime<Utc>) -> Markup {
    html! {
        section aria-labelledby="attempts" {
            h2 #attempts { "Attempts" }
            ol.attempts {
                @for attempt in attempts {
                    @let run = RunStatus::from(attempt.clone());
                    li {
                        @if attempt.id == row.id { b { "run " (attempt.id) } } @else { a href=(links::run(attempt.id)) { "run " (attempt.id) } }
                        " " span.(tone(&run)) { (outcome_word(&run)) } " " (ago(attempt.finished_at.unwrap_or(attempt.started_at), now))
                        @if let Some(error) = &attempt.error { small { (shortened(error, 300)) } }
                    }
                }
            }
            @if let Some(at) = attempts.iter().filter_map(|attempt| attempt.retry_at).next_back().or(row.retry_at) { p.meta { "The next attempt is due " (exact(at)) "." } }
        }
    }
}
