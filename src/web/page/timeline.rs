//! The timeline of the last and the next 24 hours: a lane for each group of jobs. What went well stands on the line, failures hang below it with a cross,
//! and what is planned is a ring: nothing depends on colour.

use std::fmt::Write as _;

use chrono::{DateTime, TimeDelta, Utc};
use maud::{Markup, html};

use super::links;
use super::words::{ahead, moment};
use crate::base::units::count;
use crate::web::timeline::{Lane, Mark, SLOT_SECONDS, SLOTS, Timeline};

/// The width of a part of the time.
const WIDTH: i32 = 10;

/// The hours between two lines of the grid.
const GRID_HOURS: i32 = 6;

pub(super) fn section(timeline: &Timeline) -> Markup {
    let has_any = timeline.lanes.iter().any(|lane| !lane.past.is_empty() || !lane.planned.is_empty());
    html! {
        @if has_any {
            section aria-labelledby="timeline" {
                h2 #timeline { "Last and next 24 hours" }
                div.timeline {
                    (hours(timeline.now))
                    ul { @for lane in &timeline.lanes { li.lane { (name(lane)) (drawing(lane, timeline.now)) } } }
                }
                (legend())
            }
        }
    }
}

fn name(lane: &Lane) -> Markup {
    html! { @if lane.is_others { span.quiet { (lane.name) } } @else { a href=(links::jobs("", "", "", &lane.name, 1)) { (lane.name) } } }
}

/// The times of the grid, from left to right.
fn hours(now: DateTime<Utc>) -> Markup {
    let times = (-24 / GRID_HOURS..=24 / GRID_HOURS).map(|step| step * GRID_HOURS);
    html! {
        div.hours aria-hidden="true" {
            span {}
            div { @for hour in times {
                span { @if hour == 0 { b { "now" } } @else { ((now + TimeDelta::hours(i64::from(hour))).format("%H:%M")) } }
            } }
        }
    }
}

fn drawing(lane: &Lane, now: DateTime<Utc>) -> Markup {
    let middle = SLOTS * WIDTH;
    let mut paths: [(&str, String); 4] = ["s", "f", "k", "r"].map(|class| (class, String::new()));
    for (slot, marks) in &lane.past {
        let x = slot * WIDTH + WIDTH / 2;
        for mark in marks {
            let (path, shape) = match mark {
                Mark::Succeeded => (&mut paths[0].1, "11v-9"),
                Mark::Failed => (&mut paths[1].1, "15v9m-3-6l6 6m0-6l-6 6"),
                Mark::Skipped => (&mut paths[2].1, "12v2"),
                Mark::Running => (&mut paths[3].1, "2v22"),
            };
            let _ = write!(path, "M{x} {shape}");
        }
    }
    let mut grid = String::new();
    for step in (0..=2 * SLOTS).step_by((GRID_HOURS * 3600 / SLOT_SECONDS) as usize) {
        let _ = write!(grid, "M{} 0v26", step * WIDTH);
    }
    html! {
        svg.day viewBox={ "0 0 " (2 * middle) " 26" } preserveAspectRatio="none" role="img" aria-label=(in_words(lane, now)) {
            path.grid d=(grid) {}
            path.axis d={ "M0 13h" (2 * middle) } {}
            path.now d={ "M" (middle) " 0v26" } {}
            @for (class, path) in &paths { @if !path.is_empty() { path class=(class) d=(path) {} } }
            @for slot in &lane.planned { ellipse.planned cx=(middle + slot * WIDTH + WIDTH / 2) cy="13" rx="3.5" ry="4" {} }
        }
        span.next {
            @if let Some(next) = lane.next_at { "next " (moment(next, &ahead(next, now))) } @else { "–" }
        }
    }
}

/// "nightly, last 24 hours: 3 succeeded, 1 failed; next 24 hours: 2 half-hours with a run"
fn in_words(lane: &Lane, now: DateTime<Utc>) -> String {
    let counts: Vec<String> = lane.counts.iter().map(|(mark, runs)| format!("{} {}", count(*runs as u64), mark.word())).collect();
    let past = if counts.is_empty() { "no runs".to_owned() } else { counts.join(", ") };
    let at = |slot: &i32| (now + TimeDelta::seconds(i64::from(*slot) * i64::from(SLOT_SECONDS))).format("%H:%M").to_string();
    let next = match lane.planned.iter().map(at).take(6).collect::<Vec<_>>() {
        times if times.is_empty() => "none planned".to_owned(),
        times if lane.planned.len() > times.len() => format!("in the half-hours of {} and others", times.join(", ")),
        times => format!("in the half-hours of {}", times.join(", ")),
    };
    format!("{}: last 24 hours {past}; next 24 hours {next}", lane.name)
}

fn legend() -> Markup {
    html! {
        p.legend aria-hidden="true" {
            @for (class, shape, word) in [("s", "M4 11v-9", "succeeded"), ("f", "M4 15v9m-3-6l6 6m0-6l-6 6", "failed"), ("k", "M4 12v2", "skipped"), ("r", "M4 2v22", "running")] {
                span { svg viewBox="0 0 8 26" { path.axis d="M0 13h8" {} path class=(class) d=(shape) {} } (word) }
            }
            span { svg viewBox="0 0 8 26" { path.axis d="M0 13h8" {} ellipse.planned cx="4" cy="13" rx="3.5" ry="4" {} } "planned" }
        }
    }
}
