//! The last runs that failed, with their errors.

use maud::{Markup, html};

use super::links;
use super::words::{ago, outcome_word, seconds, shortened, tone};
use crate::base::units::{duration, plural};
use crate::web::status::{RunStatus, Status};
use crate::web::trouble::trouble;

const STDERR_LINES: usize = 20;

pub(super) fn section(status: &Status) -> Markup {
    html! {
        @if !status.failures.is_empty() {
            section aria-labelledby="failures" {
                h2 #failures { "Recent failures" }
                @for (index, run) in status.failures.iter().enumerate() { (failure(run, status, index < 3)) }
            }
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
            h3 { (links::place(&run.job, &run.database)) }
            p.meta {
                a.(tone(run)) href=(links::run(run.id)) { (outcome_word(run)) } " " (ago(ended, status.now))
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
            p.meta { a href=(links::run(run.id)) { "Run " (run.id) } " has all of it, and so has " code { "pgtend runs show " (run.id) } }
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
