//! Jobs with patterns in `databases`, or with `schemas`: a line for each, however many databases it has.

use maud::{Markup, html};

use super::links;
use super::words::{ago, ahead, moment, shortened, wall_clock};
use crate::base::units::{count, plural};
use crate::run::standing::fleets::some_of;
use crate::web::choice::Filter;
use crate::web::status::{FleetStatus, Status};

pub(super) fn section(status: &Status, filter: &Filter) -> Markup {
    let shown: Vec<&FleetStatus> =
        status.fleets.iter().filter(|fleet| filter.matches_name(&fleet.job) || filter.matches_name(&fleet.patterns)).collect();
    let is_said = !(status.uncovered.is_empty() && status.left_out.is_empty() && status.gone.is_empty());
    html! {
        @if !shown.is_empty() || is_said {
            section aria-labelledby="fleets" {
                h2 #fleets { (if status.fleets.is_empty() { "Databases of servers" } else { "Jobs on many databases" }) }
                @if !shown.is_empty() { div.scroll tabindex="0" role="group" aria-label="Jobs on many databases" { table.plain {
                    thead { tr {
                        @for title in ["Job", "Databases", "Schedule", "How they stand", "Oldest success", "Next run"] {
                            th scope="col" { (title) }
                        }
                    } }
                    tbody { @for fleet in shown { (row(fleet, status)) } }
                } } }
                @if !status.uncovered.is_empty() { p.hint { "No job backs up all of them: " b { (shortened(&some_of(status.uncovered.iter().cloned()), 300)) } } }
                @if !status.left_out.is_empty() { (left_out(status)) }
                @if !status.gone.is_empty() { (gone(status)) }
            }
        }
    }
}

/// Living databases on which no job can run.
fn left_out(status: &Status) -> Markup {
    const SHOWN: usize = 20;
    html! {
        p.hint {
            "Left out, so no job runs there: "
            @for (index, left_out) in status.left_out.iter().take(SHOWN).enumerate() {
                @if index > 0 { ", " }
                b { (left_out.database) } " (" (left_out.why) ")"
            }
            @if status.left_out.len() > SHOWN { " and " (count((status.left_out.len() - SHOWN) as u64)) " more" }
        }
    }
}

fn row(fleet: &FleetStatus, status: &Status) -> Markup {
    let class = if fleet.failed + fleet.late + fleet.without_proof > 0 || fleet.is_empty() {
        Some("bad")
    } else if !fleet.enabled {
        Some("off")
    } else {
        None
    };
    html! {
        tr class=[class] {
            th scope="row" {
                a href=(links::runs(&fleet.job, "", "", None)) { b { (fleet.job) } }
                small { (fleet.task) @if let Some(description) = &fleet.description { ": " (description) } }
            }
            td { (plural(fleet.databases, fleet.has_runs_for)) small { (fleet.patterns) } }
            td { (fleet.schedule_in_words.as_ref().or(fleet.schedule.as_ref()).map_or("by hand", |words| words)) }
            td { (standing(fleet, status)) }
            td { (oldest(fleet, status)) }
            td {
                @match &fleet.next_run_at {
                    _ if !fleet.enabled => span.tag { "disabled" },
                    Some(next) => {
                        (moment(next.to_utc(), &wall_clock(next, status.now)))
                        small { (ahead(next.to_utc(), status.now)) " · " (fleet.timezone) }
                    }
                    None => span.quiet { "–" },
                }
            }
        }
    }
}

fn standing(fleet: &FleetStatus, status: &Status) -> Markup {
    html! {
        @if status.ledger_error.is_some() { span.quiet { "unknown" } } @else if fleet.databases == 0 {
            span.tag.warn { "no " (fleet.has_runs_for) } @match &fleet.unknown {
                Some(why) => small.wrong { (shortened(why, 300)) },
                None => small { "nothing matches " (fleet.patterns) },
            }
        } @else {
            span.good { (count(fleet.well as u64)) " well" }
            @if fleet.failed > 0 { " · " span.bad { (count(fleet.failed as u64)) " failed" } }
            @if fleet.late > 0 { " · " span.tag.warn { (count(fleet.late as u64)) " late" } }
            @let not_safe = fleet.without_proof - fleet.by_ledger;
            @if not_safe > 0 { " · " span.bad { (count(not_safe as u64)) " not safe" } }
            @if fleet.by_ledger > 0 { " · " span.tag.warn { (count(fleet.by_ledger as u64)) " not known to be safe" } }
            @if let Some(by_stores) = &fleet.by_stores { small.wrong { "by the stores: " (shortened(by_stores, 300)) } }
            @if !fleet.not_well.is_empty() { (not_well(fleet)) }
            @if fleet.waiting > 0 { small { (count(fleet.waiting as u64)) " without a success yet" } }
            @if let Some(at) = fleet.stores_asked_at { small { "stores asked " (ago(at, status.now)) } }
        }
    }
}

/// The first of those that are not well, each with its page.
fn not_well(fleet: &FleetStatus) -> Markup {
    let all = fleet.failed + fleet.late + fleet.without_proof + fleet.waiting;
    html! {
        small {
            "not well: "
            @for (index, name) in fleet.not_well.iter().enumerate() {
                @if index > 0 { ", " }
                a href=(links::database(name)) { (shortened(name, 80)) }
            }
            @if all > fleet.not_well.len() { " and " (count((all - fleet.not_well.len()) as u64)) " more" }
        }
    }
}

fn oldest(fleet: &FleetStatus, status: &Status) -> Markup {
    html! {
        @match (&fleet.oldest_success_at, &fleet.oldest_success_on) {
            (Some(at), Some(database)) => { (ago(*at, status.now)) small { (shortened(database, 80)) } }
            _ => span.quiet { "none yet" },
        }
    }
}

/// Databases that went: their sets are still there.
fn gone(status: &Status) -> Markup {
    const SHOWN: usize = 20;
    html! {
        p.hint {
            "Gone, with their sets kept: "
            @for (index, gone) in status.gone.iter().take(SHOWN).enumerate() {
                @if index > 0 { ", " }
                b { (gone.database) } " " (ago(gone.gone_at, status.now))
            }
            @if status.gone.len() > SHOWN { " and " (count((status.gone.len() - SHOWN) as u64)) " more" }
        }
    }
}
