//! Runs under way, and how far they are.

use chrono::{DateTime, Utc};
use maud::{Markup, html};

use super::links;
use super::words::{exact, shortened};
use crate::base::units::{age, bytes, count};
use crate::web::status::RunStatus;

const SHOWN: usize = 20;

pub(super) fn section(running: &[&RunStatus], now: DateTime<Utc>) -> Markup {
    html! {
        @if !running.is_empty() {
            section aria-labelledby="running" {
                h2 #running { "Running" span.count { (count(running.len() as u64)) } }
                ul.running {
                    @for run in running.iter().take(SHOWN) { li { (progress(run, now)) } }
                }
                @if running.len() > SHOWN { p.quiet { "and " (count((running.len() - SHOWN) as u64)) " more" } }
            }
        }
    }
}

pub(super) fn progress(run: &RunStatus, now: DateTime<Utc>) -> Markup {
    let progress = run.progress.as_ref();
    let phase = progress.map_or("starting", |progress| &progress.phase);
    // A total is an estimate, and never zero here; the bytes done may exceed it.
    let known = progress.and_then(|progress| Some((progress.done_bytes, progress.total_bytes.filter(|total| *total > 0)?)));
    let percent = known.map(|(done, total)| (done as f64 / total as f64 * 100.0).min(100.0) as u64);
    let label = format!("{} on {}: {phase}", run.job, run.database);
    html! {
        div.line {
            (links::place(&run.job, &run.database))
            a.num href=(links::run(run.id)) title={ "run " (run.id) ", started " (exact(run.started_at)) " on " (run.host) } {
                "run " (run.id) ", " (age(run.started_at, now))
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
        // Of a run of [sql] this is the statement.
        @if let Some(detail) = progress.and_then(|progress| progress.detail.as_ref()) { div.line { span.detail { (shortened(detail, 2000)) } } }
    }
}
