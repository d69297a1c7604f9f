//! What a command does to the work of a job, such as putting its archived rows back. The job need not be configured any more, so that this
//! is no run of it; it keeps the job's runs away all the same, and has a row in the ledger.

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
use crate::config::Config;
use crate::config::limits::{self, Limits};
use crate::ledger::report::{Outcome, Report};
use crate::ledger::{self, End, Ledger, NewRun, Trigger};
use crate::pg::{self, failure};
use crate::work::{JobFacts, RunContext};

/// Whose work a command acts on, and what it is called in the ledger: "archives restore", with a space.
pub struct Subject<'a> {
    pub job: &'a str,
    /// As the configuration calls it.
    pub database: &'a str,
    pub command: &'static str,
}

/// The locks of a job's runs on a database, and a row in the ledger, until [`Claim::end`].
pub struct Claim {
    locks: Locks,
    row: Option<(Arc<Ledger>, i64)>,
}

/// Keeps runs of the job away from the database, or says which one is under way. A ledger that does not answer is no reason to leave rows
/// where they are: the lock in the target stands alone then.
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
        job: JobFacts { name: subject.job, timezone: Tz::UTC, limits: &limits, has_schedule: false },
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
            write_end(row.as_ref(), Err(&error)).await;
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
    /// Writes how it ended, then lets runs start.
    pub async fn end(self, result: Result<&Report, &anyhow::Error>) {
        write_end(self.row.as_ref(), result).await;
        self.locks.release().await;
    }
}

/// A row in the ledger of a command that only reads what a job made; it keeps nobody away but a prune, which would delete it.
pub struct Reading {
    row: Option<(Arc<Ledger>, i64)>,
    beating: Option<JoinHandle<()>>,
}

/// Shares the lock `lock` in the ledger's database. All trouble is a warning: the store may be all that is left.
pub async fn share(ledger: Option<&Arc<Ledger>>, subject: &Subject<'_>, lock: &str, progress: &Progress) -> Reading {
    let row = begin(ledger, subject).await;
    let Some((ledger, id)) = &row else { return Reading { row, beating: None } };
    let locked = async {
        let mut connection = ledger.connect().await?;
        let is_shared = pg::try_shared_lock(&mut connection, lock).await?;
        anyhow::Ok((connection, is_shared))
    };
    let beating = match locked.await {
        Ok((connection, is_shared)) => {
            if !is_shared {
                tracing::warn!("a prune is deleting old sets of {}/{} meanwhile", subject.database, subject.job);
            }
            Some(tokio::spawn(beat(connection, *id, progress.clone())))
        }
        Err(error) => {
            tracing::warn!("no lock keeps a prune from deleting the set meanwhile: {}", failure::in_a_line(&error));
            None
        }
    };
    Reading { row, beating }
}

impl Reading {
    pub async fn end(self, result: Result<&Report, &anyhow::Error>) {
        if let Some(beating) = self.beating {
            // Its connection ends, and the lock with it.
            beating.abort();
        }
        write_end(self.row.as_ref(), result).await;
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
    let Subject { job, database, command } = *subject;
    let begun = async {
        if !ledger.exists().await? {
            return Ok(None);
        }
        ledger.begin(&NewRun { job, database, task: command, trigger: &Trigger::Manual, retries: 0 }).await
    };
    match begun.await {
        Ok(id) => Some((Arc::clone(ledger), id?)),
        Err(error) => {
            tracing::warn!("this is not in the ledger: {}", failure::in_a_line(&error));
            None
        }
    }
}

/// Once: the person who waits has seen how it ended.
async fn write_end(row: Option<&(Arc<Ledger>, i64)>, result: Result<&Report, &anyhow::Error>) {
    let Some((ledger, id)) = row else { return };
    let error = result.err().map(failure::in_a_line);
    let outcome = result.err().map_or(Outcome::Succeeded, outcome_of);
    let end = End { outcome: Some(outcome), report: result.ok(), error: error.as_deref(), ..End::default() };
    let written = ledger.finish(*id, &end).await.with_context(|| format!("the end of run {id} is not in the ledger"));
    if let Err(error) = written {
        tracing::warn!("{}", failure::in_a_line(&error));
    }
}
