//! Names, times and outcomes as the page writes them.

use std::time::Duration;

use chrono::{DateTime, Datelike as _, SecondsFormat, TimeDelta, TimeZone, Utc};
use maud::{Markup, html};

use super::links;
use crate::ledger::report::Outcome;
use crate::web::status::RunStatus;

/// Links to the run.
pub(super) fn outcome_link(run: &RunStatus) -> Markup {
    html! { a.(tone(run)) href=(links::run(run.id)) title=[run.summary.as_ref()] { (outcome_word(run)) } }
}

pub(super) fn outcome_word(run: &RunStatus) -> &'static str {
    run.outcome.map_or("not finished", word)
}

pub(super) fn word(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Succeeded => "succeeded",
        Outcome::Skipped => "skipped",
        Outcome::Failed => "failed",
        Outcome::TimedOut => "timed out",
        Outcome::Cancelled => "cancelled",
        Outcome::Crashed => "crashed",
    }
}

pub(super) fn tone(run: &RunStatus) -> &'static str {
    match run.outcome {
        Some(Outcome::Succeeded) => "good",
        Some(Outcome::Failed | Outcome::TimedOut | Outcome::Crashed) => "bad",
        Some(Outcome::Skipped | Outcome::Cancelled) | None => "quiet",
    }
}

pub(super) fn seconds(run: &RunStatus) -> Option<Duration> {
    (run.finished_at? - run.started_at).to_std().ok()
}

pub(super) fn ago(then: DateTime<Utc>, now: DateTime<Utc>) -> Markup {
    let past = now - then;
    moment(then, &if past < TimeDelta::seconds(5) { "just now".to_owned() } else { format!("{} ago", about(past)) })
}

pub(super) fn ahead(then: DateTime<Utc>, now: DateTime<Utc>) -> String {
    if then > now { format!("in {}", about(then - now)) } else { format!("due {} ago", about(now - then)) }
}

/// Returns the span in its largest unit, which is enough for an overview; the title has the rest.
pub(super) fn about(span: TimeDelta) -> String {
    match span.num_seconds() {
        seconds @ ..60 => format!("{seconds} s"),
        seconds @ ..3600 => format!("{} min", seconds / 60),
        seconds @ ..172_800 => format!("{} h", seconds / 3600),
        seconds => format!("{} d", seconds / 86_400),
    }
}

pub(super) fn moment(then: DateTime<Utc>, text: &str) -> Markup {
    html! { time datetime=(then.to_rfc3339_opts(SecondsFormat::Secs, true)) title=(exact(then)) { (text) } }
}

pub(super) fn exact(then: DateTime<Utc>) -> String {
    then.format("%Y-%m-%d %H:%M:%S UTC").to_string()
}

pub(super) fn shortened(text: &str, max_chars: usize) -> String {
    match text.char_indices().nth(max_chars) {
        Some((end, _)) => format!("{}…", text[..end].trim_end()),
        None => text.to_owned(),
    }
}

/// Returns `today 14:00`, `tomorrow 02:00` or `Sun 29 Nov 03:00`, in the time's own zone.
pub(super) fn wall_clock<Z: TimeZone<Offset: std::fmt::Display>>(then: &DateTime<Z>, now: DateTime<Utc>) -> String {
    let today = now.with_timezone(&then.timezone()).date_naive();
    match (then.date_naive() - today).num_days() {
        0 => then.format("today %H:%M"),
        1 => then.format("tomorrow %H:%M"),
        _ if then.year() == today.year() => then.format("%a %-d %b %H:%M"),
        _ => then.format("%-d %b %Y %H:%M"),
    }
    .to_string()
}
