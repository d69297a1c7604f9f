//! Commands that change the results of a job, such as putting its archived rows back. The job may no longer be configured, so this is not a
//! run of it; but the job's runs are locked out meanwhile, and the ledger has a row for it.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::{Context as _, Result};
use chrono::Utc;
use chrono_tz::Tz;
use futures_util::future::{pending, select_all};
use sqlx::PgConnection;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::locks::{self, Locks};
use super::outcome_of;
use crate::base::fault::{Fault, Kind};
use crate::base::progress::Progress;
use crate::base::subtask;
use crate::config::Config;
use crate::config::limits::{self, Limits};
use crate::ledger::report::{Outcome, Report};
use crate::ledger::{self, End, Ledger, NewRun, Trigger};
use crate::pg::{self, failure};
use crate::work::{JobFacts, RunContext};

/// The job on whose objects a command acts, and the name of the command in the ledger: "archives restore", with a space.
pub struct Subject<'a> {
    pub job: &'a str,
    /// The name of the database in the configuration.
    pub database: &'a str,
    pub command: &'static str,
    /// Who asked for it on a page; nobody did for a command.
    pub asked_by: Option<&'a str>,
}

/// The locks of a job's runs on a database, and a row in the ledger, until [`Claim::end`].
pub struct Claim {
    locks: Locks,
    row: Option<(Arc<Ledger>, i64)>,
}

/// Keeps runs of the job away from the database, or says which one is under way. A ledger that does not answer does not keep rows
/// from going back: the lock in the target is then the only one.
pub async fn exclude_runs(
    config: &Config,
    ledger: Option<&Arc<Ledger>>,
    subject: &Subject<'_>,
    settings: &pg::Settings,
    progress: &Progress,
    cancel: &CancellationToken,
) -> Result<Claim> {
    let row = begin(ledger, subject).await;
    let limits: Limits = limits::Written::default().into();
    let run = RunContext {
        config,
        job: JobFacts {
            name: subject.job,
            timezone: Tz::UTC,
            limits: &limits,
            has_schedule: false,
            renames_database: false,
            timeout: None,
        },
        others: &[],
        database: subject.database,
        settings: settings.clone(),
        progress: progress.clone(),
        cancel: cancel.clone(),
        now: Utc::now(),
        run_id: row.as_ref().map(|(_, id)| *id),
        ledger: ledger.map(|ledger| &**ledger),
        by_hand: true,
        resume: None,
        checked: OnceLock::new(),
    };
    let in_ledger = row.as_ref().map(|(ledger, id)| (ledger.as_ref(), *id));
    let taken = run.or_cancelled(locks::take(&run, in_ledger)).await;
    match taken {
        Ok(locks) => {
            for crashed in &locks.crashed {
                tracing::warn!("run {} of job `{}` has crashed before", crashed.id, crashed.job);
            }
            Ok(Claim { locks, row })
        }
        Err(error) => {
            write_end(row.as_ref(), None, Some(&error)).await;
            Err(error)
        }
    }
}

/// Awaits `work` while the claims hold: it is dropped, and what it has not committed rolls back, when one of them is lost or a signal comes.
pub async fn while_held<T>(
    claims: &mut [Claim],
    progress: &Progress,
    cancel: &CancellationToken,
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    let lost = async {
        if claims.is_empty() {
            return pending().await;
        }
        select_all(claims.iter_mut().map(|claim| Box::pin(claim.locks.lost(progress)))).await.0
    };
    tokio::select! {
        result = work => result,
        () = cancel.cancelled() => Err(Fault::new(Kind::Cancelled, "cancelled by a signal").into()),
        error = lost => Err(error.context(Fault::new(Kind::Unreachable, "given up: its lock is lost, so that a run may start"))),
    }
}

impl Claim {
    /// Writes how it ended, with what was done until then, and lets runs start.
    pub async fn end(self, report: Option<&Report>, error: Option<&anyhow::Error>) {
        write_end(self.row.as_ref(), report, error).await;
        self.locks.release().await;
    }
}

/// The ledger row of a command that only reads what a job made. It locks out only a prune, which would delete that.
pub struct Reading {
    row: Option<(Arc<Ledger>, i64)>,
    beating: Option<JoinHandle<()>>,
}

/// The deletion of one set takes seconds.
const PRUNE_TIMEOUT: Duration = Duration::from_secs(60);

/// Shares the lock `lock` in the ledger's database, after the deletion that a prune is at: it begins no other. All trouble is a warning: the store may be all that is left.
pub async fn share(ledger: Option<&Arc<Ledger>>, subject: &Subject<'_>, lock: &str, progress: &Progress) -> Reading {
    let row = begin(ledger, subject).await;
    let Some((ledger, id)) = &row else { return Reading { row, beating: None } };
    let locked = async {
        let mut connection = ledger.connect().await?;
        // A prune holds it while it deletes a set.
        let is_shared = pg::wait_for_shared_lock(&mut connection, lock, PRUNE_TIMEOUT).await?;
        anyhow::Ok((connection, is_shared))
    };
    let beating = match locked.await {
        Ok((connection, is_shared)) => {
            if !is_shared {
                tracing::warn!("a prune is deleting old sets of {}/{} meanwhile", subject.database, subject.job);
            }
            Some(subtask::spawn_in_span(beat(connection, *id, progress.clone())))
        }
        Err(error) => {
            tracing::warn!("no lock keeps a prune from deleting the set meanwhile: {}", failure::in_a_line(&error));
            None
        }
    };
    Reading { row, beating }
}

impl Reading {
    pub fn is_in_the_ledger(&self) -> bool {
        self.row.is_some()
    }

    pub async fn end(self, result: Result<&Report, &anyhow::Error>) {
        if let Some(beating) = self.beating {
            // Its connection ends, and the lock with it.
            beating.abort();
        }
        write_end(self.row.as_ref(), result.ok(), result.err()).await;
    }
}

async fn beat(mut connection: PgConnection, id: i64, progress: Progress) {
    loop {
        tokio::time::sleep(Duration::from_secs(ledger::HEARTBEAT_SECONDS)).await;
        if let Err(error) = ledger::heartbeat(&mut connection, id, &progress).await {
            tracing::warn!("the ledger does not answer; a prune may delete the set meanwhile: {}", failure::in_a_line(&error));
            return;
        }
    }
}

async fn begin(ledger: Option<&Arc<Ledger>>, subject: &Subject<'_>) -> Option<(Arc<Ledger>, i64)> {
    let ledger = ledger?;
    let Subject { job, database, command, asked_by } = *subject;
    let trigger = asked_by.map_or(Trigger::Manual, |by| Trigger::Asked { by: by.to_owned() });
    let begun = async {
        if !ledger.exists().await? {
            return Ok(None);
        }
        ledger.begin(&NewRun { job, database, task: command, trigger: &trigger, retries: 0 }).await
    };
    match begun.await {
        Ok(id) => Some((Arc::clone(ledger), id?)),
        Err(error) => {
            tracing::warn!("this is not in the ledger: {}", failure::in_a_line(&error));
            None
        }
    }
}

/// Tries once to write the end: the person who waits has seen it.
async fn write_end(row: Option<&(Arc<Ledger>, i64)>, report: Option<&Report>, error: Option<&anyhow::Error>) {
    let Some((ledger, id)) = row else { return };
    let outcome = error.map_or(Outcome::Succeeded, outcome_of);
    let error = error.map(failure::in_a_line);
    let end = End { outcome: Some(outcome), report, error: error.as_deref(), ..End::default() };
    let written = ledger.finish(*id, &end).await.with_context(|| format!("the end of run {id} is not in the ledger"));
    if let Err(error) = written {
        tracing::warn!("{}", failure::in_a_line(&error));
    }
}
