//! The report as one HTML document that needs no script and no other file. What a search would find is an index: each object, with links to what is said of it.

use std::collections::BTreeMap;

use maud::{Markup, html};

use super::document::{Change, Document, Finding, Level, State};
use super::groups::{self, Group};
use super::markdown::{capitalized, evidence, fixes};
use crate::base::html_page;
use crate::base::units::{count, duration, plural};

/// A finding has links to this many others of its object; the index has all.
const ALSO: usize = 20;

pub fn render(document: &Document) -> String {
    let counts = document.counts();
    let groups = groups::of(document);
    let places = places(&groups);
    let body = html! {
        header {
            h1 { "Audit of " (document.database) }
            p {
                (document.server) ", PostgreSQL " (document.server_version)
                @if document.in_recovery { " (a replica)" }
                ", " (document.started_at.format("%-d %b %Y, %H:%M UTC"))
            }
        }
        main {
            section {
                h2 { "Summary" }
                p { (capitalized(&document.in_short())) "." }
                table.summary {
                    thead { tr { th scope="col" { "Priority" } th scope="col" { "Findings" } } }
                    tbody { @for level in Level::ALL {
                        tr { th scope="row" { (badge(level)) } td.num { (counts.of_level(level)) } }
                    } }
                }
                @for note in &document.notes { p.note { (note) } }
                @if !groups.is_empty() { (overview(&groups)) }
            }
            @if !groups.is_empty() {
                section {
                    h2 { "Findings" }
                    @for level in Level::ALL { (switch(level)) }
                    @for (index, of_group) in groups.iter().enumerate() { (group(index + 1, of_group, &places)) }
                }
                (index(&places))
            }
            (waived(document))
            (list("Resolved since the last audit", &document.resolved))
            (list("Found last time, not checked this time", &document.not_seen))
            (baseline(document))
            (top_queries(document))
            (checks(document))
        }
        footer { "pgtend " (document.pgtend_version) ", job " (document.job) }
    };
    let title = format!("Audit of {}, {}", document.database, document.started_at.format("%-d %b %Y"));
    html_page::render(&title, include_str!("report.css"), &html_page::nothing(), &body)
}

fn badge(level: Level) -> Markup {
    html! { span.level.(level.name()) { (capitalized(level.name())) } }
}

/// Hides the groups of a level, by the style sheet alone.
fn switch(level: Level) -> Markup {
    let id = format!("show-{level}");
    html! { input type="checkbox" id=(id) checked; label for=(id) { (badge(level)) } " " }
}

fn overview(groups: &[Group<'_>]) -> Markup {
    html! {
        table {
            thead { tr { @for title in ["Priority", "What", "Findings", "New"] { th scope="col" { (title) } } } }
            tbody { @for (index, group) in groups.iter().enumerate() {
                tr {
                    td { (badge(group.level)) }
                    td { a href={ "#group-" (index + 1) } { (group.line()) } }
                    td.num { (group.findings.len()) }
                    td.num { @if group.newly_found() > 0 { b { (group.newly_found()) } } }
                }
            } }
        }
    }
}

/// Folded, unless it is urgent.
fn group(number: usize, group: &Group<'_>, places: &Places<'_>) -> Markup {
    let first = group.findings[0];
    html! {
        details id={ "group-" (number) } class={ "group of-" (group.level) } open[group.level <= Level::High] {
            summary {
                (badge(group.level)) " " b { (group.heading()) }
                @if group.newly_found() > 0 { " " span.what { (group.newly_found()) " new" } }
            }
            p { (first.impact) }
            p { (first.fix.words) }
            @for finding in &group.findings { (one(finding, places)) }
        }
    }
}

/// The findings of each object, with their numbers.
type Places<'a> = BTreeMap<&'a str, Vec<(usize, &'a Finding)>>;

fn places<'a>(groups: &[Group<'a>]) -> Places<'a> {
    let mut places = Places::new();
    for (number, finding) in groups.iter().flat_map(|group| group.findings.iter().copied()).enumerate() {
        places.entry(finding.object.as_str()).or_default().push((number + 1, finding));
    }
    places
}

/// Folded: the browser's own search opens it.
fn index(places: &Places<'_>) -> Markup {
    html! {
        section {
            h2 id="objects" { "Objects" }
            details {
                summary { (plural(places.len(), "object")) ", by name, with what was found of each" }
                table { tbody { @for (object, of_object) in places {
                    tr {
                        th scope="row" { code { (object) } }
                        td { @for (number, finding) in of_object { (link(*number, finding)) " " } }
                    }
                } }
            } }
        }
    }
}

fn link(number: usize, finding: &Finding) -> Markup {
    html! { a.level.(finding.level.name()) href={ "#finding-" (number) } { (finding.check) } }
}

fn one(finding: &Finding, places: &Places<'_>) -> Markup {
    let evidence = evidence(finding);
    let of_object = places.get(finding.object.as_str()).map_or(&[][..], Vec::as_slice);
    let number = of_object.iter().find(|(_, other)| other.key == finding.key).map_or(0, |(number, _)| *number);
    html! {
        article id={ "finding-" (number) } {
            h3 { code { (finding.name()) } }
            dl {
                dt { "Issue" } dd { (finding.issue) }
                dt { "Impact" } dd { (finding.impact) }
                @if let Some(decide) = &finding.fix.decide { dt { "Decide" } dd { (decide) } }
                @if !evidence.is_empty() { dt { "Evidence" } dd { (evidence) } }
                dt { "Priority" }
                dd {
                    (badge(finding.level))
                    @match finding.change {
                        Some(Change::New) => " new",
                        Some(Change::Unchanged) => { " since " (finding.since.format("%-d %b %Y")) },
                        None => {},
                    }
                }
                dt { "Fix" }
                dd {
                    p { (finding.fix.words) }
                    @for (what, _, body) in fixes(finding) { p.what { (what.replace('`', "")) } pre { (body.trim_end()) } }
                }
                dt { "Lock" } dd { (finding.fix.lock) }
                dt { "Key" } dd { code { (finding.key) } }
                @if of_object.len() > 1 {
                    dt { "Also" }
                    dd { @for (other, found) in of_object.iter().filter(|(other, _)| *other != number).take(ALSO) { (link(*other, found)) " " } a href="#objects" { "all objects" } }
                }
            }
        }
    }
}

fn waived(document: &Document) -> Markup {
    let waived: Vec<_> = document.findings.iter().filter_map(|finding| Some((finding, finding.waiver.as_ref()?))).collect();
    html! {
        @if !waived.is_empty() {
            section {
                h2 { "Waived" }
                ul { @for (finding, waiver) in waived { li { code { (finding.key) } " until " (waiver.until) ": " (waiver.reason) } } }
            }
        }
    }
}

fn list(title: &str, findings: &[Finding]) -> Markup {
    html! {
        @if !findings.is_empty() {
            section {
                h2 { (title) }
                ul { @for finding in findings { li { (finding.title) ": " code { (finding.object) } " (" (finding.key) ")" } } }
            }
        }
    }
}

fn baseline(document: &Document) -> Markup {
    html! {
        @if let Some(baseline) = &document.baseline {
            section {
                h2 { "Baseline" }
                p { "Numbers, no findings." }
                table { tbody { @for (name, value) in baseline.lines() { tr { th scope="row" { (name) } td { (value) } } } } }
            }
        }
    }
}

fn top_queries(document: &Document) -> Markup {
    html! {
        @if !document.top_queries.is_empty() {
            section {
                h2 { "Statements that take most time" }
                table {
                    thead { tr { @for title in ["Total", "Calls", "Mean", "Statement"] { th scope="col" { (title) } } } }
                    tbody { @for query in &document.top_queries {
                        tr {
                            td.num { (format!("{:.1} s", query.total_seconds)) }
                            td.num { (count(query.calls.unsigned_abs())) }
                            td.num { (format!("{:.2} ms", query.mean_milliseconds)) }
                            td { code { (query.query) } }
                        }
                    } }
                }
            }
        }
    }
}

fn checks(document: &Document) -> Markup {
    let took = (document.finished_at - document.started_at).to_std().unwrap_or_default();
    html! {
        section {
            h2 { "Checks" }
            p { (plural(document.checks.len(), "check")) " in " (duration(took)) "." }
            table {
                thead { tr { @for title in ["Check", "Result", "Why it is unknown"] { th scope="col" { (title) } } } }
                tbody { @for outcome in &document.checks {
                    tr {
                        th scope="row" { (outcome.check) }
                        td { @if outcome.state == State::Findings { (plural(outcome.findings, "finding")) } @else { (outcome.state.name()) } }
                        td { (outcome.reasons.join("; ")) }
                    }
                } }
            }
            @if !document.turned_off.is_empty() { p { "Turned off by the job: " (document.turned_off.join(", ")) "." } }
        }
    }
}
