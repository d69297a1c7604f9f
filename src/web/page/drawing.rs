//! Drawings: the strip of outcomes, the lines, the mark beside the headline. They are inline SVG, coloured by `page.css`.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use maud::{Markup, html};

use super::words::{exact, outcome_word, seconds, shortened, word};
use crate::base::units::{duration, plural};
use crate::ledger::report::Outcome;
use crate::web::status::RunStatus;

const STRIP_RUNS: usize = 30;

/// Draws runs from left to right: successes stand above the line, failures hang below it, all others are drawn on it.
pub(super) fn strip(history: &[RunStatus], detailed: bool) -> Markup {
    let runs = &history[history.len().saturating_sub(STRIP_RUNS)..];
    let places = || runs.iter().enumerate().map(|(index, run)| ((STRIP_RUNS - runs.len() + index) * 6 + 3, run));
    let mut paths: BTreeMap<&str, String> = BTreeMap::new();
    let mut tally: BTreeMap<&str, usize> = BTreeMap::new();
    for (x, run) in places() {
        let outcome = run.outcome.unwrap_or(Outcome::Crashed);
        *tally.entry(word(outcome)).or_default() += 1;
        let _ = write!(paths.entry(shape_class(outcome)).or_default(), "M{x} {}", shape(outcome));
    }
    let tally: Vec<String> = tally.iter().map(|(word, number)| format!("{number} {word}")).collect();
    let label = if runs.is_empty() { "no runs".to_owned() } else { tally.join(", ") };
    html! {
        svg.strip viewBox="0 0 180 26" role="img" aria-label=[detailed.then_some(&label)] {
            @if !detailed { title { (label) } }
            path.axis d="M0 13h180" {}
            @if detailed {
                @for (x, run) in places() {
                    @let outcome = run.outcome.unwrap_or(Outcome::Crashed);
                    g {
                        title { (tooltip(run)) }
                        path.hit d={ "M" (x) " 0v26" } {}
                        path class=(shape_class(outcome)) d={ "M" (x) " " (shape(outcome)) } {}
                    }
                }
            } @else {
                @for (class, path) in &paths { path class=(class) d=(path) {} }
            }
        }
    }
}

fn tooltip(run: &RunStatus) -> String {
    let took = seconds(run).map(|took| format!(" in {}", duration(took)));
    let error = run.error.as_ref().map(|error| format!(": {}", shortened(error, 140)));
    format!("{} {}{}{}", exact(run.started_at), outcome_word(run), took.unwrap_or_default(), error.unwrap_or_default())
}

/// Returns the path of a bar after its x, in a strip of height 26 whose line is at 13.
fn shape(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Succeeded => "11v-10",
        Outcome::Failed => "15v10",
        Outcome::TimedOut => "15v4m0 2v4",
        Outcome::Crashed => "16m-2.5 0l5 8m0-8l-5 8",
        Outcome::Skipped => "12v2",
        Outcome::Cancelled => "10m-1.5 0h3v6h-3z",
    }
}

fn shape_class(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Succeeded => "s",
        Outcome::Failed | Outcome::TimedOut => "f",
        Outcome::Crashed => "x",
        Outcome::Skipped => "k",
        Outcome::Cancelled => "c",
    }
}

pub(super) fn legend() -> Markup {
    use Outcome::{Cancelled, Crashed, Failed, Skipped, Succeeded, TimedOut};
    html! {
        p.legend aria-hidden="true" {
            @for outcome in [Succeeded, Failed, TimedOut, Crashed, Skipped, Cancelled] {
                span {
                    svg viewBox="0 0 8 26" {
                        path.axis d="M0 13h8" {}
                        path class=(shape_class(outcome)) d={ "M4 " (shape(outcome)) } {}
                    }
                    (word(outcome))
                }
            }
        }
    }
}

/// Writes the last value in words, and the values before it as a line. Changes of less than a fifth look as small as they are.
pub(super) fn sparkline(what: &str, values: &[f64], in_words: &dyn Fn(f64) -> String) -> Markup {
    let Some(last) = values.last() else { return html! { span.quiet { "–" } } };
    let (low, high) = values.iter().fold((f64::MAX, f64::MIN), |(low, high), value| (low.min(*value), high.max(*value)));
    let span = (high - low).max(high * 0.2).max(f64::MIN_POSITIVE);
    let floor = ((low + high - span) / 2.0).clamp(0.0, low.max(0.0));
    let height = |value: f64| 36 - ((value - floor) / span * 32.0).clamp(0.0, 32.0) as u32;
    let mut points = String::new();
    for (index, value) in values.iter().enumerate() {
        let _ = write!(points, "{},{} ", (STRIP_RUNS.max(values.len()) - values.len() + index) * 6, height(*value));
    }
    let label =
        format!("{what}, {}: {} to {}, last {}", plural(values.len(), "run"), in_words(low), in_words(high), in_words(*last));
    html! {
        span.num { (in_words(*last)) }
        @if values.len() > 1 {
            svg.spark viewBox="-4 0 184 40" role="img" {
                title { (label) }
                polyline points=(points.trim_end()) {}
                circle cx=((STRIP_RUNS.max(values.len()) - 1) * 6) cy=(height(*last)) r="5" {}
            }
        }
    }
}

pub(super) fn mark(mood: &str) -> Markup {
    html! {
        svg.mark viewBox="0 0 24 24" aria-hidden="true" {
            path.body d=(mark_body(mood)) {}
            path.sign d=(mark_sign(mood)) {}
        }
    }
}

fn mark_body(mood: &str) -> &'static str {
    match mood {
        "bad" => "M8 1h8l7 7v8l-7 7H8l-7-7V8z",
        "warn" => "M12 1.5 23.5 22H.5z",
        _ => "M12 1a11 11 0 1 0 0 22 11 11 0 0 0 0-22z",
    }
}

fn mark_sign(mood: &str) -> &'static str {
    match mood {
        "good" => "m7 12.5 3.5 3.5L17 9",
        "bad" => "M12 6.5v7m0 3.5v.2",
        "warn" => "M12 9v6m0 3v.2",
        _ => "M8 12h8",
    }
}

/// Returns the same mark for the tab; it is inline data, since the page may load nothing.
pub(super) fn favicon(mood: &str) -> String {
    let colour = match mood {
        "good" => "1a7f4b",
        "bad" => "c0261c",
        "warn" => "a86400",
        _ => "6b7280",
    };
    format!(
        "data:image/svg+xml,<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 24 24'><path fill='%23{colour}' d='{}'/>\
         <path fill='none' stroke='white' stroke-width='2.5' stroke-linecap='round' d='{}'/></svg>",
        mark_body(mood),
        mark_sign(mood)
    )
}
