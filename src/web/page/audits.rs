//! The results of the last audits.

use chrono::{DateTime, Utc};
use maud::{Markup, html};

use super::links;
use super::words::{ago, moment, shortened};
use crate::base::units::{count, plural};
use crate::web::status::{AuditStatus, JobStatus, Status};

/// The audits on the status page; a job's own page has each.
const AUDITS: usize = 20;

/// The number of findings shown, the most urgent ones; the report has all of them.
const SHOWN: usize = 12;

pub(super) fn section(status: &Status) -> Markup {
    let audits: Vec<(&JobStatus, &AuditStatus)> = status.jobs.iter().filter_map(|job| Some((job, job.audit.as_ref()?))).collect();
    html! {
        @if !audits.is_empty() {
            section aria-labelledby="audits" {
                h2 #audits { "Audits" }
                @for (job, audit) in audits.iter().take(AUDITS) { (one(job, audit, status.now)) }
            }
        }
    }
}

pub(super) fn one(job: &JobStatus, audit: &AuditStatus, now: DateTime<Utc>) -> Markup {
    let left_out = audit.open().saturating_sub(audit.findings.len().min(SHOWN) as u64);
    html! {
        article.audit {
            h3 { (links::place(&job.job, &job.database)) }
            p.meta {
                span.levels { @for (level, number) in audit.levels() { @if number > 0 { span class={ "level " (level) } { (count(number)) " " (level) } " " } } }
                @if audit.open() == 0 { span.good { "no findings" } " " }
                (ago(audit.at, now))
                @if let Some(previous) = audit.previous {
                    " · " (count(audit.counts.new)) " new, " (count(audit.counts.resolved)) " resolved since "
                    (moment(previous, &previous.format("%-d %b %Y").to_string()))
                }
                @if audit.counts.waived > 0 { " · " (count(audit.counts.waived)) " waived" }
                @if audit.counts.unknown > 0 { " · " (plural(audit.counts.unknown as usize, "check")) " unknown" }
                @if audit.counts.failed > 0 { " · " span.bad { (plural(audit.counts.failed as usize, "check")) " failed" } }
            }
            @if !audit.findings.is_empty() {
                ul {
                    @for finding in audit.findings.iter().take(SHOWN) {
                        li {
                            span class={ "level " (finding.level) } { (finding.level) } " "
                            (finding.title) ": " code { (shortened(&finding.object, 80)) }
                            @if finding.change.as_deref() == Some("new") { " " span.tag { "new" } }
                        }
                    }
                    @if left_out > 0 { li.quiet { "and " (count(left_out)) " more" } }
                }
            }
            @if let Some(report) = &audit.report { p.meta { a href=(links::audit(&job.job, &job.database)) { "The report, with fixes and their locks" } ": " code { (report) } } }
        }
    }
}
