//! The report as one HTML document that needs no script and no other file.

use maud::{Markup, html};

use super::document::{Change, Document, Finding, Level, State};
use super::markdown::{capitalized, evidence, fixes};
use crate::base::html_page;
use crate::base::units::{count, duration, plural};

pub fn render(document: &Document) -> String {
    let counts = document.counts();
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
                @if document.open().next().is_some() { (overview(document)) }
            }
            @if document.open().next().is_some() {
                section {
                    h2 { "Findings" }
                    @for (index, finding) in document.open().enumerate() { (one(index + 1, finding)) }
                }
            }
            (waived(document))
            (list("Resolved since the last audit", &document.resolved))
            (list("Found last time, not checked this time", &document.not_seen))
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

fn overview(document: &Document) -> Markup {
    html! {
        table {
            thead { tr { @for title in ["Priority", "Finding", "Object", ""] { th scope="col" { (title) } } } }
            tbody { @for (index, finding) in document.open().enumerate() {
                tr {
                    td { (badge(finding.level)) }
                    td { a href={ "#finding-" (index + 1) } { (finding.title) } }
                    td { code { (finding.name()) } }
                    td { @if finding.change == Some(Change::New) { b { "new" } } }
                }
            } }
        }
    }
}

fn one(number: usize, finding: &Finding) -> Markup {
    let evidence = evidence(finding);
    html! {
        article id={ "finding-" (number) } {
            h3 { (number) ". " (finding.title) }
            p { code { (finding.object) } }
            dl {
                dt { "Issue" } dd { (finding.issue) }
                dt { "Impact" } dd { (finding.impact) }
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
        }
    }
}
