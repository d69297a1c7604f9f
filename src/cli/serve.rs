//! `serve` runs the scheduler as a service, handles its signals, and reports to systemd.

use std::process::ExitCode;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result};
use sd_notify::NotifyState;
use secrecy::{ExposeSecret as _, SecretString};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::digest;
use super::global::Global;
use crate::base::fault::{Fault, Kind};
use crate::base::progress::Progress;
use crate::base::units;
use crate::config::Config;
use crate::ledger::Ledger;
use crate::ledger::metrics::Metrics;
use crate::run::job::{Broken, Folder, Job};
use crate::run::notify::Notifier;
use crate::run::runner::{self, Context};
use crate::run::scheduler::Scheduler;
use crate::web::http::{self, Hosts, Readers, Site};

/// This is a third of the unit's WatchdogSec, or less.
const WATCHDOG_EVERY: Duration = Duration::from_secs(10);
/// The scheduler counts as alive while it was last heard within this time.
const SCHEDULER_SILENT_FOR: Duration = Duration::from_secs(30);

/// An editor that writes a file in two steps leaves it broken for less.
const BROKEN_FILES_EVERY: Duration = Duration::from_secs(10);

pub async fn run(global: &Global) -> Result<ExitCode> {
    let (config, folder) = global.load()?;
    let ledger = Ledger::for_the_service(&config)?.map(Arc::new).with_context(|| {
        let message = "`serve` needs a ledger: it records every tick there before it runs";
        let path = config.path.display();
        Fault::new(Kind::Configuration, format!("{message}: add to {path}: [ledger] database = \"NAME\""))
    })?;
    let (listen, actions_token) = (config.serve.listen, config.serve.actions_token.clone());
    let readers = match config.serve.token.clone() {
        Some(token) => Readers::WithToken(token),
        None => Readers::ByName(Hosts::new(listen.ip(), config.serve.hosts.clone())),
    };
    if config.serve.is_open_to_others() {
        tracing::warn!("{listen} is open to others, who can read job names and errors: set token_file in [serve]");
    }
    let listener = http::listen(listen).await?;
    let listen = listener.local_addr()?;
    let drain_timeout = config.serve.drain_timeout;
    let metrics = Metrics::new(Some(&ledger));
    metrics.broken_jobs(folder.broken.len());
    let context = context(config, folder.jobs, Arc::clone(&ledger), metrics, CancellationToken::new());
    let (stop, pages_done) = (CancellationToken::new(), CancellationToken::new());
    let scheduler = Scheduler::new(context, ledger, folder.broken);
    let site = Site::new(Arc::clone(&scheduler), stop.clone(), actions_token);

    let pages = tokio::spawn(http::serve(Arc::clone(&site), listener, readers, pages_done.clone()));
    let planning = tokio::spawn({
        let scheduler = Arc::clone(&scheduler);
        async move { scheduler.run().await }
    });
    let digests = tokio::spawn(digest::put_when_due(Arc::clone(&site)));
    let broken = tokio::spawn(tell_broken_files(Arc::clone(&site)));
    tracing::info!("serving {} on http://{listen}", jobs_in_words(&scheduler));
    notify_systemd(&[NotifyState::Ready, NotifyState::Status(&state_in_words(&scheduler))]);

    follow_signals(global, &site).await?;

    stop.cancel();
    digests.abort();
    broken.abort();
    notify_systemd(&[NotifyState::Stopping]);
    tracing::info!("stopping: no further ticks start; running jobs have {} to finish", units::duration(drain_timeout));
    scheduler
        .drain(drain_timeout, |running| {
            let status = format!("stopping: {running} still running");
            // This is longer than the time to the next call, so that systemd waits as long as we do.
            notify_systemd(&[NotifyState::Status(&status), NotifyState::ExtendTimeoutUsec(30_000_000), NotifyState::Watchdog]);
        })
        .await;
    planning.await.context("the scheduler panicked")??;
    scheduler.context().notifier.drain().await;
    pages_done.cancel();
    // A reader that never ends its connection does not delay the end.
    let _ = tokio::time::timeout(Duration::from_secs(2), pages).await;
    tracing::info!("stopped");
    Ok(ExitCode::SUCCESS)
}

/// Waits for SIGTERM or SIGINT; a second one ends the process at once. SIGHUP reloads the configuration.
async fn follow_signals(global: &Global, site: &Arc<Site>) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let mut watchdog = tokio::time::interval(WATCHDOG_EVERY);
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hangup.recv() => reload(global, site).await,
            _ = watchdog.tick() => {
                // The watchdog is fed only while the scheduler is alive: a process whose scheduler hangs deserves a restart.
                if site.scheduler.looked() < SCHEDULER_SILENT_FOR {
                    notify_systemd(&[NotifyState::Watchdog, NotifyState::Status(&state_in_words(&site.scheduler))]);
                }
            }
        }
    }
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::warn!("second signal: exiting at once");
        std::process::exit(143);
    });
    Ok(())
}

/// Reloads the configuration. A mistake in it keeps the old one; a mistake in a job's file keeps that job as it was.
async fn reload(global: &Global, site: &Arc<Site>) {
    let monotonic = NotifyState::monotonic_usec_now();
    notify_systemd(&[NotifyState::Reloading]);
    if let Ok(monotonic) = monotonic {
        notify_systemd(&[monotonic]);
    }
    let old = site.scheduler.context();
    let mut is_whole = true;
    let error = match global.load() {
        Ok((config, Folder { mut jobs, broken, .. })) => {
            warn_of_what_needs_a_restart(&old.config, &config);
            keep_as_before(&mut jobs, &broken, &old.jobs, &config);
            old.metrics.broken_jobs(broken.len());
            is_whole = broken.is_empty();
            site.scheduler.set_broken(broken);
            let new = context(config, jobs, Arc::clone(site.scheduler.ledger()), old.metrics.clone(), old.cancel.clone());
            site.scheduler.replace(new);
            tracing::info!("configuration reloaded: {}", jobs_in_words(&site.scheduler));
            None
        }
        Err(error) => {
            let text = match error.downcast_ref::<crate::base::toml_file::Problems>() {
                Some(problems) => format!("{problems}:\n{}", problems.render(false)),
                None => format!("{error:#}"),
            };
            tracing::error!("the new configuration has mistakes; the old one stays in effect: {}", text.trim_end());
            Some(text)
        }
    };
    old.metrics.reloaded(error.is_none() && is_whole);
    *site.configuration_error.lock().unwrap_or_else(PoisonError::into_inner) = error;
    notify_systemd(&[NotifyState::Ready, NotifyState::Status(&state_in_words(&site.scheduler))]);
}

/// Tells of jobs whose files have mistakes, and of those that have none any more, until the task is dropped.
async fn tell_broken_files(site: Arc<Site>) {
    loop {
        if site.scheduler.has_asked() && site.scheduler.ledger_error().is_none() {
            let context = site.scheduler.context();
            context.notifier.broken(&site.scheduler.broken(), &context.jobs).await;
        }
        tokio::time::sleep(BROKEN_FILES_EVERY).await;
    }
}

/// A job whose file was broken by an edit goes on as before, if the database and the store that it names still exist.
fn keep_as_before(jobs: &mut Vec<Job>, broken: &[Broken], before: &[Job], config: &Config) {
    for broken in broken {
        let Some(job) = before.iter().find(|job| job.name == broken.job) else { continue };
        let is_whole = job.databases.iter().all(|database| config.place(database).is_some())
            && job.after.iter().all(|name| jobs.iter().any(|other| other.name == *name));
        if is_whole {
            tracing::warn!("job `{}` keeps running as before its file was changed, until the next restart", job.name);
            jobs.push(job.clone());
        }
    }
    jobs.sort_by(|a, b| a.path.cmp(&b.path));
}

fn warn_of_what_needs_a_restart(old: &Config, new: &Config) {
    let ledger_url = |config: &Config| {
        let ledger = config.ledger.as_ref()?;
        let url = config.databases.get(&ledger.database)?.url.as_ref()?;
        Some(url.expose_secret().to_owned())
    };
    let text = |token: &Option<SecretString>| token.as_ref().map(|token| token.expose_secret().to_owned());
    let tokens = |config: &Config| [text(&config.serve.token), text(&config.serve.actions_token)];
    let changed = [
        ("a token of [serve]", tokens(old) != tokens(new)),
        ("[serve] listen", old.serve.listen != new.serve.listen),
        ("[serve] hosts", old.serve.hosts != new.serve.hosts),
        ("[serve] max_concurrent", old.serve.max_concurrent != new.serve.max_concurrent),
        ("[serve] drain_timeout", old.serve.drain_timeout != new.serve.drain_timeout),
        ("[ledger]", ledger_url(old) != ledger_url(new)),
    ];
    for (what, _) in changed.iter().filter(|(_, changed)| *changed) {
        tracing::warn!("{what} changed: the change takes effect at the next restart");
    }
}

fn context(config: Config, jobs: Vec<Job>, ledger: Arc<Ledger>, metrics: Metrics, cancel: CancellationToken) -> runner::Context {
    Context {
        notifier: Notifier::new(&config, &jobs, Some(&ledger)),
        config: Arc::new(config),
        others: Arc::new(jobs.iter().map(Job::in_short).collect()),
        jobs: Arc::new(jobs),
        ledger: Some(ledger),
        progress: Progress::logged(),
        metrics,
        cancel,
    }
}

fn jobs_in_words(scheduler: &Scheduler) -> String {
    let jobs = scheduler.context().jobs;
    let scheduled = jobs.iter().filter(|job| job.enabled && job.schedule.is_some()).count();
    format!("{}, {scheduled} of them scheduled", units::plural(jobs.len(), "job"))
}

/// Describes the state for `systemctl status`.
fn state_in_words(scheduler: &Scheduler) -> String {
    let mut text = jobs_in_words(scheduler);
    if scheduler.running() > 0 {
        text += &format!("; {} running", scheduler.running());
    }
    if let Some((job, at)) = scheduler.next() {
        text += &format!("; next: {job} at {}", at.format("%Y-%m-%d %H:%M:%S UTC"));
    }
    if scheduler.ledger_error().is_some() && scheduler.has_asked() {
        text += "; the ledger is not reachable";
    }
    text
}

/// Tells systemd, if it listens.
fn notify_systemd(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!("cannot notify systemd: {error}");
    }
}
