//! `audit`: looks for problems on demand, and explains the checks.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Subcommand, ValueEnum};

use super::global::Global;
use super::output::{self, print, print_json};
use super::outputs::runs as printed;
use super::signals::cancelled_by_signals;
use crate::base::fault::{Fault, Kind};
use crate::base::terminal::say;
use crate::base::toml_file::did_you_mean;
use crate::config::Config;
use crate::run::job::Job;
use crate::task::audit::checks::{self, CHECKS, Check};
use crate::task::audit::document::{Change, Document, State};
use crate::task::audit::groups::{self, Group};
use crate::task::audit::{self, Audit, FailOn, OwnJob, html, markdown};
use crate::work::Other;

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
#[command(after_help = "Examples:
  pgtend audit --database app                        findings, the most urgent first
  pgtend audit --database app --format markdown      with fixes, and the locks they take
  pgtend audit --database app --check fk-unindexed   one check alone
  pgtend audit --database app --fail-on high         for CI: ends with 1")]
pub struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// The database, by its name in the configuration
    #[arg(long, value_name = "NAME", required = true)]
    database: Option<String>,
    /// Run only this check
    #[arg(long, value_name = "ID")]
    check: Option<String>,
    /// The output format
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    format: Format,
    /// Exit with 1 when a finding is at least this urgent [default: that of the database's audit job, else critical]
    #[arg(long, value_name = "LEVEL")]
    fail_on: Option<FailOn>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Say what a check looks for, why, and which lock its fix takes; without an ID, list the checks
    #[command(after_help = "Examples:
  pgtend audit explain                all checks
  pgtend audit explain fk-unindexed   what it looks for, why, and which lock its fix takes")]
    Explain {
        /// The check's ID as reports show it, such as fk-unindexed
        id: Option<String>,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Table,
    Markdown,
    Html,
    Json,
}

pub async fn run(global: &Global, arguments: &Arguments) -> Result<ExitCode> {
    if let Some(Command::Explain { id }) = &arguments.command {
        return explain(global, id.as_deref());
    }
    let (config, folder) = global.load()?;
    let name = arguments.database.as_deref().unwrap_or_default();
    if config.database(name).is_none() {
        let names = config.databases.keys().map(String::as_str);
        let hint =
            did_you_mean(name, names.clone()).unwrap_or_else(|| format!("there are: {}", names.collect::<Vec<_>>().join(", ")));
        return Err(Fault::new(Kind::Configuration, format!("the configuration has no database `{name}`; {hint}")).into());
    }
    let only = arguments.check.as_deref().map(find).transpose()?;
    let on_database = folder.jobs.iter().filter(|job| job.would_run_on(name, &config));
    let own = |job: &Job| {
        let audit = job.task.as_a::<Audit>()?.clone();
        Some(OwnJob { job: job.name.clone(), audit, trust_owners: job.limits.trust_owners })
    };
    let own = on_database.filter_map(own).next();
    let others: Vec<Other> = folder.jobs.iter().map(|job| seen_on(job, name, &config)).collect();
    let (mut audit, document) =
        audit::manual(&config, &others, own, name, only, &global.progress(), &cancelled_by_signals()?).await?;
    if let Some(fail_on) = arguments.fail_on {
        audit.fail_on = fail_on.level();
    }
    match (arguments.format, global.json) {
        (Format::Json, _) | (Format::Table, true) => {
            let groups = groups::of(&document);
            let groups = groups.iter().map(Group::counted).collect();
            print_json(&printed::Audit { counts: document.counts(), groups, audit: &document })?;
        }
        (Format::Table, false) => print(&table(&document))?,
        (Format::Markdown, _) => print(&markdown::render(&document))?,
        (Format::Html, _) => print(&html::render(&document))?,
    }
    Ok(match audit.failure(&document) {
        Some(message) => {
            say(&format!("pgtend: {message}"));
            ExitCode::FAILURE
        }
        None => ExitCode::SUCCESS,
    })
}

/// A job as the audit sees it. Whether its patterns stand for this database is known without asking a server.
fn seen_on(job: &Job, database: &str, config: &Config) -> Other {
    let mut other = job.in_short();
    if job.would_run_on(database, config) && !other.runs_on(database) {
        other.databases.push(database.to_owned());
    }
    other
}

fn find(id: &str) -> Result<&'static Check> {
    checks::find(id).ok_or_else(|| {
        let hint = did_you_mean(id, CHECKS.iter().map(|check| check.id))
            .unwrap_or_else(|| "`pgtend audit explain` lists them".to_owned());
        Fault::new(Kind::Configuration, format!("there is no check `{id}`; {hint}")).into()
    })
}

/// The most findings that are shown for one check, unless `--check` asks for it alone.
const SHOWN: usize = 8;
/// Up to this many findings of a check are each shown with their issue.
const WITH_ISSUE: usize = 3;

/// A first screen, then the groups, the most urgent first, with their largest objects. What is cut off is counted, and is in the other formats.
fn table(document: &Document) -> String {
    let mut text = groups::summary(document).join("\n") + "\n";
    let groups = groups::of(document);
    let is_one_check = document.checks.len() == 1;
    for group in &groups {
        text += &format!("\n{:<8}  {}: {}\n", group.level.name(), group.check, group.heading());
        let shown = if is_one_check || group.findings.len() <= SHOWN { group.findings.len() } else { SHOWN };
        for finding in group.findings.iter().take(shown) {
            text +=
                &format!("          {}{}\n", finding.name(), if finding.change == Some(Change::New) { "  (new)" } else { "" });
            if group.findings.len() <= WITH_ISSUE {
                text += &format!("              {}\n", finding.issue);
            }
        }
        if let Some(more) = group.findings.len().checked_sub(shown).filter(|more| *more > 0) {
            text += &format!("          and {more} more: --check {}\n", group.check);
        }
    }
    if !groups.is_empty() {
        text += "\nFixes with their locks: --format markdown. What a check is about: pgtend audit explain CHECK\nA finding that may stay: waive = [{ key = \"CHECK:NAME\", … }] in an [audit] job\n";
    }
    let mut section = |title: &str, lines: Vec<String>| {
        if !lines.is_empty() {
            text += &format!("\n{title}:\n{}\n", lines.iter().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n"));
        }
    };
    section("Resolved", document.resolved.iter().map(|finding| finding.key.clone()).collect());
    section("Notes", document.notes.clone());
    let reasons = |wanted: State| -> Vec<String> {
        let outcomes = document.checks.iter().filter(|outcome| outcome.state == wanted && !outcome.reasons.is_empty());
        outcomes.map(|outcome| format!("{}: {}", outcome.check, outcome.reasons.join("; "))).collect()
    };
    section("Unknown", reasons(State::Unknown));
    section("Could be checked only in part", reasons(State::Findings));
    section("Failed", reasons(State::Failed));
    section("Turned off by the job", document.turned_off.clone());
    text
}

fn explain(global: &Global, id: Option<&str>) -> Result<ExitCode> {
    let Some(id) = id else {
        if global.json {
            print_json(&printed::Explain::All { checks: CHECKS.iter().map(Into::into).collect() })?;
        } else {
            let rows = CHECKS.iter().map(|check| vec![check.id.to_owned(), check.level.to_string(), check.title.to_owned()]);
            print(&output::table(&["CHECK", "LEVEL", "WHAT"], rows))?;
        }
        return Ok(ExitCode::SUCCESS);
    };
    let check = find(id)?;
    if global.json {
        print_json(&printed::Explain::One(check.into()))?;
    } else {
        print(&format!(
            "{}: {}\n\n  priority  {}\n  about     {}\n  impact    {}\n  fix       {}\n  lock      {}\n  unseen    {}\n",
            check.id,
            check.title,
            check.level,
            check.categories.join(", "),
            check.why,
            check.fix,
            check.lock,
            checks::cannot_show(check.id).unwrap_or("nothing that is known")
        ))?;
        if let checks::Query::Catalog(sql) | checks::Query::Statements(sql) = check.query {
            let why: Vec<&str> =
                sql.lines().take_while(|line| line.starts_with("--")).map(|line| line.trim_start_matches("-- ")).collect();
            if !why.is_empty() {
                print(&format!("\n  {}\n", why.join("\n  ")))?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}
