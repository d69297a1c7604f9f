//! The command line: its commands and options, and what each command prints. Data goes to stdout, logs to stderr.

mod archives;
mod at_once;
mod audit;
mod backups;
mod check;
mod cleartext;
mod completions;
mod compress;
mod digest;
mod doctor;
mod documents;
mod encryption;
mod failed;
mod filter;
mod follow;
mod global;
mod grants;
mod init;
mod jobs;
mod lifetimes;
mod logs;
mod manual;
mod notify;
mod output;
pub mod outputs;
mod partition;
pub mod render;
mod run_job;
mod runs;
mod serve;
mod signals;
mod standing;
mod table;
mod trusts;
mod unless_within;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{CommandFactory as _, Parser, Subcommand};
pub use failed::usage;
pub use global::{Global, LogFormat};
use tracing_subscriber::Layer as _;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::base::progress::{LogWriter, Progress};
use crate::base::telemetry::{self, Telemetry};
use crate::base::units::Span;
use crate::base::{descriptors, thread, tool_output};
use crate::work::Mode;

/// Tends PostgreSQL databases: runs declared jobs, and proves that they worked.
#[derive(Debug, Parser)]
#[command(name = "pgtend", version, max_term_width = 100, disable_help_subcommand = true)]
#[command(
    after_help = "Examples:\n  pgtend                          where one stands, and the next step\n  pgtend init postgres:///app     look at a server, and write a configuration and jobs\n  pgtend check --connect          try everything that a run needs\n  pgtend run-job backup-nightly   run a job now\n  pgtend serve                    run all jobs on their schedules\n\nExit codes: 0 done, 1 failed, 64 usage, 69 unreachable, 75 busy, 77 permission, 78 configuration, 143 terminated."
)]
pub struct Arguments {
    #[command(flatten)]
    pub global: Global,
    /// Without a command: where one stands, and the next step.
    #[command(subcommand)]
    pub command: Option<Command>,
}

const AWS_QUIET: &str = "aws_config=error,aws_credential_types=error,aws_runtime=error,aws_sdk_s3=error,aws_smithy_runtime=error,aws_smithy_runtime_api=error";

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Look at a server, and write a configuration and jobs that fit
    Init(init::Arguments),
    /// Run all jobs on their schedules, until SIGTERM; SIGHUP reloads the configuration
    #[command(after_help = "Examples:
  pgtend serve                     in the foreground; as a service: systemctl start pgtend
  pgtend serve --log-format json   log lines for a collector

Status page and metrics: http://127.0.0.1:9187, or [serve] listen.")]
    Serve,
    /// Run a job now
    #[command(
        name = "run-job",
        after_help = "Examples:
  pgtend run-job backup-nightly                      run it now
  pgtend run-job backup-nightly --dry-run            say what it would do, and why
  pgtend run-job backup-nightly --database app       on one of its databases
  pgtend run-job tenants-nightly@tenant_7            the same, in short
  pgtend run-job backup-nightly --unless-within 1h   before a deployment
  pgtend run-job backup-nightly --json               for scripts"
    )]
    RunJob {
        /// The job's name: that of its file in the folder of jobs, without .toml; JOB@DATABASE is the job on one of its databases
        name: String,
        /// Print what it would do, and why; write nothing
        #[arg(long)]
        dry_run: bool,
        /// Run only on this one of the job's databases
        #[arg(long, value_name = "NAME")]
        database: Option<String>,
        /// Run for the latest tick of the job's schedule: at most once per tick, whichever host asks (systemd timer, CronJob)
        #[arg(long, conflicts_with = "dry_run")]
        scheduled: bool,
        /// Confirm what the job asks for: a [retention] that would delete nearly all of its table. Applies once; the ledger
        /// remembers it
        #[arg(long)]
        yes: bool,
        /// For a [backup]: do nothing where the job's store has an intact set of this job that began within this time (30m, 1h)
        #[arg(long, value_name = "TIME", value_parser = backups::span, conflicts_with = "scheduled")]
        unless_within: Option<Span>,
    },
    /// Check the configuration and all jobs, and show every mistake at once
    #[command(after_help = "Examples:
  pgtend check                                mistakes in the files, without any connection
  pgtend check --connect                      also try databases, privileges, stores and tools
  pgtend check --config new.toml --jobs new   before files are put in place")]
    Check {
        /// Also try databases, stores and client tools; creates the ledger's schema if it is missing
        #[arg(long)]
        connect: bool,
    },
    /// Check everything that a run needs: connections, privileges, stores, clocks, versions, room, files; and say what to do
    #[command(
        after_help = "Examples:\n  pgtend doctor              what to do comes first\n  pgtend doctor --json | jq '.findings[] | select(.state != \"ok\")'\n\nThe exit code is that of the first failure; warnings end with 0. Stores get a probe that is deleted again."
    )]
    Doctor,
    /// Look for problems in a database now, and print the findings with their fixes; writes nothing to it
    Audit(audit::Arguments),
    /// List the jobs with their next run and their last outcome
    #[command(after_help = "Examples:
  pgtend jobs                                schedules, next runs, last outcomes
  pgtend jobs --all                          each database of jobs with patterns
  pgtend jobs --json | jq -r '.jobs[].job'   their names")]
    Jobs {
        /// List each database of jobs with patterns, which otherwise have one line
        #[arg(long)]
        all: bool,
    },
    /// List the runs in the ledger, newest first
    #[command(args_conflicts_with_subcommands = true)]
    Runs(runs::Arguments),
    /// Print what a run's tools said, its warnings and its error
    Logs(logs::Arguments),
    /// List, verify, restore and prune backup sets
    #[command(after_help = "Examples:
  pgtend backups list                                                  sets and their proofs
  pgtend backups verify latest --restore-on app                        prove one by a restore
  pgtend backups restore latest --into postgres:///app_copy --create   restore one")]
    Backups {
        #[command(subcommand)]
        command: backups::Command,
    },
    /// Convert the table of a [partition] job, or undo that
    #[command(after_help = "Examples:
  pgtend partition convert logs --dry-run   every statement, and the lock it takes
  pgtend partition convert logs             convert the table while it is in use")]
    Partition {
        #[command(subcommand)]
        command: partition::Command,
    },
    /// Install or undo the view of a [compress] job with method = "gzip"
    #[command(after_help = "Examples:
  pgtend compress install scripts --dry-run   what it saves, and what it changes for readers
  pgtend compress undo scripts                back to a plain table")]
    Compress {
        #[command(subcommand)]
        command: compress::Command,
    },
    /// List rows that left a table through [retention] or [partition], and put them back
    #[command(after_help = "Examples:
  pgtend archives list                                     rows that left their tables
  pgtend archives restore --job logs-retention --dry-run   what would go back, and where")]
    Archives {
        #[command(subcommand)]
        command: archives::Command,
    },
    /// Print systemd timers or Kubernetes CronJobs for the scheduled jobs
    #[command(after_help = "Examples:
  pgtend render systemd /etc/systemd/system                    a timer for each job
  pgtend render kubernetes --image registry.example/pgtend:1   a CronJob for each job and database")]
    Render {
        #[command(subcommand)]
        command: render::Command,
    },
    /// Print SQL for a role that may do what the jobs do, and no more
    Grants(grants::Arguments),
    /// Send a test message or the digest to a place of [notify.NAME]
    #[command(after_help = "Examples:
  pgtend notify test ops    a test message to [notify.ops], and what the service answers
  pgtend notify digest      the digest as it is now")]
    Notify {
        #[command(subcommand)]
        command: notify::Command,
    },
    /// Print the JSON Schema of the configuration, of jobs, and of what commands print with --json
    #[command(after_help = "Examples:
  pgtend schema job >schema/job.json   for editors: #:schema ../schema/job.json
  pgtend schema output backups list    what `pgtend backups list --json` prints
  pgtend schema output error           what a command prints that fails")]
    Schema {
        /// Print only this schema; `output` is followed by a command
        which: Option<documents::Which>,
        /// With `output`: a command, such as backups list; none is `pgtend` alone, and `error` is what each prints that fails
        #[arg(num_args = 0..)]
        command: Vec<String>,
    },
    /// Print completions for a shell
    #[command(after_help = "Examples:
  pgtend completions bash >/etc/bash_completion.d/pgtend
  pgtend completions zsh >/usr/share/zsh/site-functions/_pgtend
  pgtend completions fish >~/.config/fish/completions/pgtend.fish

They know the jobs, databases, stores and checks of the configuration, and sets and runs of its ledger.")]
    Completions { shell: clap_complete::Shell },
    /// Print the manual page, or write one for each command to a folder
    #[command(after_help = "Examples:
  pgtend man | man -l -
  pgtend man /usr/share/man/man1   a page for each command")]
    Man {
        #[arg(value_name = "DIR")]
        folder: Option<PathBuf>,
    },
}

/// Answers a shell that completes a command line, and ends the process; returns where none asks.
pub fn answer_completions() {
    completions::answer(Arguments::command);
}

/// Runs the command, and returns its exit code.
pub fn run(arguments: Arguments) -> ExitCode {
    let telemetry = start_logging(&arguments.global);
    descriptors::raise_limit();
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    // A task's future is polled through all its callees; an unoptimized build of a backup in `serve` needs more than tokio's 2
    // MiB.
    let built = builder.worker_threads(2).thread_stack_size(8 << 20).enable_all().build();
    let runtime = match built {
        Ok(runtime) => runtime,
        Err(error) => return failed::command(&arguments.global, &anyhow::Error::from(error).context("cannot start")),
    };
    let result = runtime.block_on(dispatch(&arguments));
    // A thread may still wait for a pipe: it ends with the process.
    thread::end(runtime);
    drop(telemetry);
    match result {
        Ok(code) => code,
        Err(error) => failed::command(&arguments.global, &error),
    }
}

async fn dispatch(arguments: &Arguments) -> Result<ExitCode> {
    let global = &arguments.global;
    let Some(command) = &arguments.command else { return standing::run(global).await };
    match command {
        Command::Init(arguments) => init::run(global, arguments).await,
        Command::Serve => serve::run(global).await,
        Command::RunJob { name, dry_run, database, scheduled, yes, unless_within } => {
            let mode = if *dry_run { Mode::DryRun } else { Mode::Apply };
            let request = run_job::Request::of(name, database.as_deref(), mode)?.scheduled(*scheduled);
            run_job::run(global, &request, *yes, *unless_within).await
        }
        Command::Check { connect } => check::run(global, *connect).await,
        Command::Doctor => doctor::run(global).await,
        Command::Audit(arguments) => audit::run(global, arguments).await,
        Command::Jobs { all } => jobs::run(global, *all).await,
        Command::Runs(arguments) => runs::run(global, arguments).await,
        Command::Logs(arguments) => logs::run(global, arguments).await,
        Command::Backups { command } => backups::run(global, command).await,
        Command::Partition { command } => partition::run(global, command).await,
        Command::Compress { command } => compress::run(global, command).await,
        Command::Archives { command } => archives::run(global, command).await,
        Command::Render { command } => render::run(global, command),
        Command::Grants(arguments) => grants::run(global, arguments).await,
        Command::Notify { command } => notify::run(global, command).await,
        Command::Schema { which, command } => documents::schema(*which, command),
        Command::Completions { shell } => completions::script(*shell),
        Command::Man { folder } => manual::pages(Arguments::command(), folder.as_deref()),
    }
}

fn start_logging(global: &Global) -> Option<Telemetry> {
    let quiet = Progress::detect(global.log_format == LogFormat::Json).has_bars();
    let level = global.log.clone().unwrap_or_else(|| if quiet { "warn" } else { "warn,pgtend=info" }.to_owned());
    let level = if level.contains(['=', ',']) { level } else { format!("warn,pgtend={level}") };
    // A server's notices are in the report of the run that they belong to. A pool's messages are either an error of the query or
    // of no interest: pgtend_ledger_query_duration_seconds shows a slow server. And AWS's chain of credentials logs each place
    // that had none, as Rust values; our errors have the result.
    let filter = tracing_subscriber::EnvFilter::new(format!(
        "sqlx::postgres::notice=off,sqlx::pool=off,sqlx_core::pool=off,{AWS_QUIET},{level}"
    ));
    let has_colours = global.log_format == LogFormat::Text && std::env::var_os("JOURNAL_STREAM").is_none() && output::colour();
    let lines = tracing_subscriber::fmt::layer().with_writer(move || LogWriter { has_colours }).with_target(false);
    let lines = match global.log_format {
        LogFormat::Json => lines.json().flatten_event(true).with_filter(filter).boxed(),
        // The journal adds its own times.
        LogFormat::Text if std::env::var_os("JOURNAL_STREAM").is_some() => {
            lines.without_time().with_ansi(false).with_filter(filter).boxed()
        }
        LogFormat::Text => lines.with_ansi(has_colours).with_filter(filter).boxed(),
    };
    let (telemetry, spans) = telemetry::start();
    tracing_subscriber::registry().with(lines).with(tool_output::layer()).with(spans).init();
    telemetry
}
