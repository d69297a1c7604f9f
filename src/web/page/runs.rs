//! Runs, the newest first, by a filter.

use maud::{Markup, html};
use serde::Deserialize;

use super::frame::{Frame, document};
use super::links;
use super::words::{ago, shortened};
use crate::base::units::age;
use crate::ledger::Brief;
use crate::ledger::report::Outcome;

/// The runs of one page.
pub const ROWS: i64 = 100;

/// The filter of the runs, as the address has it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Filter {
    /// Empty: of all jobs. The same holds for the others.
    pub job: String,
    pub database: String,
    pub outcome: String,
    /// Only runs with a lower number.
    pub before: Option<i64>,
}

pub fn render(frame: &Frame, filter: &Filter, runs: &[Brief]) -> String {
    let last = runs.last().filter(|_| runs.len() as i64 == ROWS).map(|run| run.id);
    let main = html! {
        div.heading { h1 { "Runs" } }
        (form(filter))
        @if runs.is_empty() { p { "No run is like that." } } @else {
            div.scroll tabindex="0" role="group" aria-label="Runs" { table.plain {
                thead { tr { @for title in ["Run", "Job", "Outcome", "Started", "Took", "What"] { th scope="col" { (title) } } } }
                tbody { @for run in runs { (row(frame, run)) } }
            } }
        }
        nav.pages aria-label="Pages of runs" {
            @if filter.before.is_some() { a href=(links::runs(&filter.job, &filter.database, &filter.outcome, None)) { "The newest" } }
            @if last.is_some() { a rel="next" href=(links::runs(&filter.job, &filter.database, &filter.outcome, last)) { "Earlier" } }
        }
    };
    document(frame, "Runs", "idle", None, &main)
}

fn form(filter: &Filter) -> Markup {
    html! {
        form.filter method="get" action="/runs" role="search" aria-label="Runs" {
            label { "Job " input name="job" value=(filter.job); }
            label { "Database " input name="database" value=(filter.database); }
            label { "Outcome " select name="outcome" {
                option value="" { "all" }
                @for outcome in Outcome::ALL { option value=(outcome.name()) selected[filter.outcome == outcome.name()] { (outcome.in_words()) } }
            } }
            button { "Show" }
        }
    }
}

fn row(frame: &Frame, run: &Brief) -> Markup {
    let outcome = run.outcome.0;
    let class = match outcome {
        Some(Outcome::Succeeded) => "good",
        Some(Outcome::Failed | Outcome::TimedOut | Outcome::Crashed) => "bad",
        _ => "quiet",
    };
    html! {
        tr {
            th scope="row" { a href=(links::run(run.id)) { (run.id) } }
            td { (links::place(&run.job, &run.database)) @if run.task.contains(' ') { small { (run.task) } } }
            td { span.(class) { (outcome.map_or("running".to_owned(), Outcome::in_words)) } @if run.attempt > 1 { small { "attempt " (run.attempt) } } }
            td { (ago(run.started_at, frame.now)) }
            td { (age(run.started_at, run.finished_at.unwrap_or(frame.now))) }
            td { (shortened(run.error.as_deref().or(run.summary.as_deref()).unwrap_or_default(), 240)) }
        }
    }
}
