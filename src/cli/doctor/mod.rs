//! `doctor`: everything that `check --connect` tries, and what a run meets besides: room on disks, versions, files that others can change, jobs that are
//! late or failed. Each finding says what to do.

mod above;
mod asked;
mod files;
pub(super) mod finding;
mod modes;
mod room;
mod versions;

use std::collections::BTreeSet;
use std::process::ExitCode;

use anyhow::Result;
use chrono::Utc;

use self::finding::{Finding, State};
use super::check;
use super::global::{Global, found_for};
use super::output::{print, print_json, table};
use super::{outputs, standing};
use crate::base::terminal::in_one_line;
use crate::base::units;
use crate::pg::failure;

pub async fn run(global: &Global) -> Result<ExitCode> {
    let (config, folder) = global.load_all()?;
    let mut findings = Vec::new();
    let mut first_failure = None;
    for (job, error) in check::one_place(&config, &folder.jobs).await {
        findings.push(Finding::new(State::Failed, format!("stores of {job}"), failure::in_a_line(&error)));
        first_failure.get_or_insert(failure::exit_code(&error));
    }
    findings.extend(check::notes(&config, &folder).into_iter().map(|note| Finding::new(State::Warning, "files", note)));
    for attempt in check::try_all(&config, &folder.jobs).await {
        match attempt.result {
            Err(error) => {
                first_failure.get_or_insert(failure::exit_code(&error));
                findings.push(Finding::new(State::Failed, attempt.what, failure::in_a_line(&error)));
            }
            Ok(detail) => {
                let (said, warnings) = check::parts(&detail);
                findings.extend(warnings.map(|warning| Finding::new(State::Warning, attempt.what.clone(), warning)));
                findings.push(Finding::new(State::Fine, attempt.what, said));
            }
        }
    }
    let failed: BTreeSet<&str> =
        findings.iter().filter(|finding| finding.state == State::Failed).map(|finding| finding.what.as_str()).collect();
    let (databases, of_jobs) = tokio::join!(asked::databases(&config, &failed), of_jobs(global));
    findings.extend(versions::of_tools(&config, &databases).await);
    findings.extend(files::of_others(&config, &folder.jobs, &global.jobs_dir()));
    findings.extend(room::of_stores(&config, &found_for(&config, folder.jobs, false).await?, &databases));
    findings.extend(of_jobs);
    findings.sort_by_key(|finding| finding.state);
    match global.json {
        true => print_json(&outputs::before_runs::Doctor { findings: &findings })?,
        false => print(&in_words(&findings))?,
    }
    Ok(first_failure.unwrap_or(ExitCode::SUCCESS))
}

/// Jobs that are late or failed, and databases without a proved backup: as `pgtend` alone says it.
async fn of_jobs(global: &Global) -> Vec<Finding> {
    let now = Utc::now();
    let standing = standing::look(global, now).await;
    let attention = standing.attention(now);
    if attention.is_empty() && !standing.are_all_safe() {
        return vec![Finding::new(State::Warning, "jobs", "not every database has a proved backup: `pgtend` says which")];
    }
    if attention.is_empty() {
        let every = match standing.excluded {
            0 => "every database has a proved backup".to_owned(),
            excluded => {
                format!("every database but those that [servers] exclude ({}) has a proved backup", units::count(excluded as u64))
            }
        };
        let known = match (standing.has_ledger, standing.is_scheduled) {
            (true, true) => format!("none is late, none failed last, {every}"),
            (true, false) => format!("none failed last, no backup is late, {every}; no scheduler has seen the jobs yet"),
            (false, _) => format!("{every}, and none is late; without [ledger] no more is known of the jobs"),
        };
        return vec![Finding::new(State::Fine, "jobs", known)];
    }
    attention.into_iter().map(|(what, said)| Finding::new(State::Warning, what, said)).collect()
}

fn in_words(findings: &[Finding]) -> String {
    let rows = findings.iter().map(|finding| {
        vec![finding.state.name().to_owned(), in_one_line(&finding.what).into_owned(), in_one_line(&finding.said).into_owned()]
    });
    let count = |state| findings.iter().filter(|finding| finding.state == state).count();
    let (failed, warnings) = (count(State::Failed), count(State::Warning));
    let end = match (failed, warnings) {
        (0, 0) => "All is well.".to_owned(),
        (0, warnings) => {
            format!("Nothing is in the way of a run; {} to look at, from the top.", units::plural(warnings, "thing"))
        }
        (failed, _) => format!("{} in the way of a run: begin at the top.", units::plural(failed, "thing")),
    };
    format!("{}\n{end}\n", table(&["", "", ""], rows).trim_start_matches('\n'))
}
