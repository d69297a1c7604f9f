//! Streams a set's dump into a server: read from the store, proved and run at once, in a session of ours. In the end all of it is restored
//! or nothing, and the proof comes first: SHA-256, members, trailer, and every table's count.

use std::io;

use anyhow::{Context as _, Result};
use sqlx::postgres::PgConnection;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::choices::{Choices, RowCheck};
use super::compare_rows;
use super::facts::ServerFacts;
use super::how_proved::Hashed;
use super::load::Loader;
use super::read_back;
pub use super::refusal::Refusal;
use super::row_sums::RowSums;
use super::script::{Script, Steps};
use super::set::Set;
use super::superuser::Superuser;
use crate::base::fault::{Fault, Kind};
use crate::base::progress::Phase;
use crate::base::subtask::in_span;
use crate::base::tool_output;
use crate::store::Store;
use crate::task::backup::load::Target;

/// The queue between reading and the server, in batches: each holds the steps of a decoded piece of 256 KiB. One by one, two threads would
/// wake each other for each statement.
pub const QUEUED_BATCHES: usize = 4;

/// The result of a restore: the verdict on the set's bytes, and whether this server accepted them. The two are independent.
#[derive(Debug, Default)]
pub struct Restored {
    /// Differences from the manifest, by this one read; empty when there are none.
    pub problems: Vec<String>,
    /// The reason why this server refused them; None when all is restored, except for `failed`.
    pub refusal: Option<Refusal>,
    /// Notes about a complete restore.
    pub notes: Vec<String>,
    /// What the role of a proof may not restore, in words.
    pub not_tried: Vec<String>,
    /// With `OnError::Continue`: skipped statements, each with its reason; the first 100.
    pub failed: Vec<String>,
    /// The number of skipped statements.
    pub failed_count: usize,
    /// Properties of the database that the new one does not have, and why. All other properties were set.
    pub not_carried: Vec<String>,
    /// How many sessions restored it; None where an earlier call did.
    pub sessions: Option<usize>,
    /// The seconds in which rows came, and those of what came after them: indexes, constraints, views.
    pub seconds: Option<(f64, f64)>,
    /// What was compared by its values, where that was asked for.
    pub hashed: Option<Hashed>,
    /// In a server of its own: what its superuser has run, and what waits for [`Superuser::finish`].
    pub superuser: Option<Superuser>,
}

impl Restored {
    /// Returns whether it is as complete as requested.
    pub fn is_complete(&self) -> bool {
        self.problems.is_empty() && self.refusal.is_none()
    }
}

/// Runs the set's dump in a session on the target. An error comes from the store, from this host, or from the connection before anything
/// was written; or the restore was cancelled, and nothing is committed: the commit itself is not interrupted.
pub async fn stream_into(
    store: &Store,
    set: &Set,
    target: &Target<'_>,
    phase: &Phase,
    cancel: &CancellationToken,
) -> Result<Restored> {
    let cancelled = || Fault::new(Kind::Cancelled, "cancelled by a signal: nothing was restored");
    let loaded = cancel.run_until_cancelled(load(store, set, target, phase)).await.ok_or_else(cancelled)??;
    let (mut loader, mut refusal) = match loaded {
        Loaded::Damaged { problems } => return Ok(Restored { problems, ..Restored::default() }),
        Loaded::All { loader, refusal } => (loader, refusal),
    };
    if refusal.is_none() {
        refusal = loader.commit().await.err();
    }
    let mut not_tried = loader.not_tried();
    if !target.choices.in_own_server {
        loader.notes.extend(not_tried.drain(..).map(|what| format!("not tested: {what}")));
    }
    let seconds = loader.seconds();
    let Loader { notes, failed, failed_count, superuser, sessions, hashed, .. } = *loader;
    Ok(Restored {
        refusal,
        notes,
        not_tried,
        failed,
        failed_count,
        superuser,
        sessions: Some(sessions),
        seconds,
        hashed,
        ..Restored::default()
    })
}

enum Loaded {
    /// The differences of the bytes from the manifest.
    Damaged { problems: Vec<String> },
    /// All is restored and proved, except for the commit; or the server refused.
    All { loader: Box<Loader>, refusal: Option<Refusal> },
}

async fn load(store: &Store, set: &Set, target: &Target<'_>, phase: &Phase) -> Result<Loaded> {
    // Nothing runs before its bytes are proved. Newer sets have hashes of their parts.
    if set.manifest.dump.blocks.is_none() {
        tracing::info!("{} was made by an earlier release: it is read once to prove it, and once to restore it", set.name);
        let read = read_back::read_dump(store, set, phase, |_| Ok(())).await?;
        if !read.problems.is_empty() {
            return Ok(Loaded::Damaged { problems: read.problems });
        }
    }
    let mut loader = Loader::open(target, &set.manifest).await?;
    let is_hashed = target.choices.rows == RowCheck::Hash && compare_rows::why_not(&set.manifest).is_none();
    loader.sums = is_hashed.then(RowSums::default);
    let (sender, steps) = mpsc::channel(QUEUED_BATCHES);
    let mut script = Script::with_sums(loader.sums.clone());
    let sink = move |bytes: &[u8]| {
        let mut batch = Vec::new();
        script.feed(bytes, |step| batch.push(step))?;
        // The session has stopped: its refusal says why.
        sender.blocking_send(batch).map_err(|_| io::ErrorKind::BrokenPipe.into())
    };
    let mut loading = on_a_task(loader, Steps::of(steps));
    let (read, loaded) = tokio::join!(read_back::read_dump(store, set, phase, sink), loading.join_next());
    let read = read?;
    if !read.problems.is_empty() {
        return Ok(Loaded::Damaged { problems: read.problems });
    }
    let (mut loader, loaded) = loaded.context("the restore's task ended unexpectedly")??;
    let refusal = match (loaded, read.sink_error) {
        (Err(refusal), _) => Some(refusal),
        (Ok(()), Some(error)) => Some(Refusal { message: error.to_string(), ..Refusal::default() }),
        (Ok(()), None) => loader.prove().await.err(),
    };
    Ok(Loaded::All { loader: Box::new(loader), refusal })
}

/// Runs the steps on a thread that also waits for the server's answers: otherwise one thread wakes another for each statement. Dropping the JoinSet ends
/// its task.
pub fn on_a_task(mut loader: Loader, steps: Steps) -> JoinSet<(Loader, Result<(), Refusal>)> {
    let mut loading = JoinSet::new();
    loading.spawn(in_span(async move {
        // A GRANT or REVOKE that this role may not make is only a warning of the server.
        let (loaded, notices) = tool_output::notices(loader.run(steps)).await;
        let warnings = notices.into_iter().filter(|notice| notice.is_warning);
        loader.notes.extend(warnings.map(|notice| format!("the server warned: {}", notice.message)));
        (loader, loaded)
    }));
    loading
}

/// Refuses a target without the tablespaces that the dump names, before anything is written. `connection` is to any
/// database of the server.
pub async fn check_tablespaces(connection: &mut PgConnection, source: &ServerFacts, choices: &Choices) -> Result<()> {
    if choices.no_tablespaces || choices.for_scratch || choices.on_error == super::choices::OnError::Continue {
        return Ok(());
    }
    let missing: Vec<String> = sqlx::query_scalar(
        "SELECT name FROM pg_catalog.unnest($1::pg_catalog.text[]) name
         WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_tablespace WHERE spcname = name)",
    )
    .bind(&source.tablespaces)
    .fetch_all(connection)
    .await?;
    anyhow::ensure!(
        missing.is_empty(),
        Fault::new(
            Kind::Configuration,
            format!(
                "the target lacks tablespaces that the dump names: {}; create them, or restore into the database's own with --no-tablespaces",
                missing.join(", ")
            )
        )
    );
    Ok(())
}
