//! Puts archived rows back into a table: a batch as a whole or not at all, and once.

use anyhow::{Context as _, Result};
use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use super::batch::BatchName;
use super::chosen::{self, ASIDE, Chosen};
use super::copy::{NotAll, copy};
use super::filter::Filter;
use super::look::look_at_what_is_back;
use super::manifest::Manifest;
use super::never_left::{Standing, may_be_of_a_copy, standing};
use super::primary_key::same_key;
use super::restored::{Accepts, Ends, Here, Place, Record, Restored};
use super::session::{prepare_session, transaction};
use crate::base::fault::{Fault, Kind};
use crate::base::progress::Phase;
use crate::base::units;
use crate::pg;
use crate::pg::table::{Checked, proof};
use crate::store::Store;

/// The request for a restore.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// The configured name of the target database.
    pub database: &'a str,
    /// The target table, as in SQL.
    pub table: &'a str,
    pub filter: &'a Filter,
    /// Also put back batches that are already back.
    pub again: bool,
    /// Also put back the rest of a batch whose rows left again in part. This comes last: a row that was changed in the meantime is in a
    /// later batch.
    pub rest: bool,
    /// The batches, in their stores, that have the rows of this one as they were when they left.
    pub replaced_by: &'a [(Store, (BatchName, Manifest))],
    /// The batches that this one says it replaces.
    pub replaces: &'a [(BatchName, Manifest)],
    /// Records without a signature of the store's key count, as its batches do.
    pub unsigned_ok: bool,
    /// The table as it was when the restore looked for foreign code in it.
    pub checked: &'a [Checked],
}

/// The result of a restore.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RestoreOutcome {
    /// The number of rows that were put back.
    Restored(u64),
    /// Nothing was done: the rows are already back.
    AlreadyBack { since: DateTime<Utc>, rows: u64 },
    /// Nothing was done: the rows never left, as the message says.
    NeverLeft(String),
    /// Nothing was done: it cannot be shown that the rows left this server, as the message says.
    Doubted(String),
    /// Nothing was done: this batch has the rows, as they were when they left.
    Replaced(BatchName),
    /// Nothing was done: ask again with `rest`.
    Later,
}

/// The decision about a batch, before anything is written.
pub enum Intent {
    Restore(Box<Prepared>),
    /// Nothing is to be done.
    Leave(RestoreOutcome),
}

/// A batch that goes back, and how it does.
pub struct Prepared {
    here: Here,
    /// The server's answers about transactions in the record.
    ends: Ends,
    filter: Filter,
    /// Filters of the rows that are already back.
    there: Vec<Filter>,
    /// The number of these rows, as the server counted them.
    rows_there: u64,
    /// The number of rows that go back, if that is known.
    expected: Option<u64>,
    /// The batch is back, but for rows that left again. By this SQL ([`same_key`]) a row is there, and is left out.
    by_key: Option<String>,
}

/// Reads where the batch's rows would go and which of them are back already, and decides. Writes nothing.
pub async fn prepare(
    store: &Store,
    batch: &(BatchName, Manifest),
    connection: &mut PgConnection,
    request: &Request<'_>,
) -> Result<Intent> {
    let (name, manifest) = batch;
    prepare_session(connection).await?;
    let here = Here::of(connection, request.database, request.table).await?;
    let here = here.with_context(|| Fault::new(Kind::Configuration, format!("there is no table {}", request.table)))?;
    let filter = request.filter.resolved(connection, &here.place.name).await?;
    let mut record = Record::read(store, name, request.accepts()).await?;
    let ends = record.resolve(connection, &here).await?;
    if request.again {
        let expected = filter.is_all().then_some(manifest.exported.rows);
        return Ok(Intent::Restore(Box::new(Prepared { expected, ..Prepared::all(here, ends, filter) })));
    }
    for (store, by) in request.replaced_by {
        let mut record = Record::read(store, &by.0, request.accepts()).await?;
        record.resolve(connection, &here).await?;
        // A batch whose rows never left this server replaces nothing here: it is of a history that this server no longer has, or of a copy of it.
        if let Standing::Left = standing(store, by, connection, &mut record, &here).await? {
            let doubt = may_be_of_a_copy(batch, by, &here);
            return Ok(Intent::Leave(doubt.map_or_else(|| RestoreOutcome::Replaced(by.0.clone()), RestoreOutcome::Doubted)));
        }
    }
    match standing(store, batch, connection, &mut record, &here).await? {
        Standing::Left if record.at(&here).next().is_some() => {}
        Standing::Left => {
            if let Some(why) = request.replaces.iter().find_map(|replaced| may_be_of_a_copy(replaced, batch, &here)) {
                return Ok(Intent::Leave(RestoreOutcome::Doubted(why)));
            }
        }
        Standing::NeverLeft(why) => return Ok(Intent::Leave(RestoreOutcome::NeverLeft(why))),
        Standing::Doubted(why) => return Ok(Intent::Leave(RestoreOutcome::Doubted(why))),
    }
    refuse_what_may_be_back(&record, name, &here)?;
    refuse_what_is_sealed(&record, name, &here)?;
    look_at_what_is_back(store, batch, connection, &record, &here).await?;
    let is_there =
        |restored: &Restored| Ok(Intent::Leave(RestoreOutcome::AlreadyBack { since: restored.at, rows: restored.rows }));
    match record.whole(&here) {
        Some(whole) if whole.left_again == 0 => return is_there(whole),
        Some(_) if !request.rest => return Ok(Intent::Leave(RestoreOutcome::Later)),
        Some(whole) => {
            let Some(by_key) = same_key(connection, &here.place, &manifest.columns).await? else {
                let message = format!(
                    "{} of the {} of {name} left {} again, which no longer has a primary key that tells which: select them with --key or \
                     --time, together with --again",
                    units::count(whole.left_again),
                    units::plural(whole.rows as usize, "row"),
                    here.place.name
                );
                return Err(Fault::new(Kind::Busy, message).into());
            };
            let expected = Some(whole.left_again).filter(|_| request.filter.is_all());
            let by_key = Some(by_key.sql);
            return Ok(Intent::Restore(Box::new(Prepared { expected, by_key, ..Prepared::all(here, ends, filter) })));
        }
        None => {}
    }
    if let Some(same) = record.at(&here).find(|restored| restored.filter == filter) {
        return is_there(same);
    }
    let there = record.at(&here).map(|restored| restored.filter.clone()).collect();
    let rows_there = record.at(&here).map(|restored| restored.rows).sum();
    let expected = filter.is_all().then(|| manifest.exported.rows.saturating_sub(rows_there));
    Ok(Intent::Restore(Box::new(Prepared { there, rows_there, expected, ..Prepared::all(here, ends, filter) })))
}

/// Refuses a batch whose rows may be in the table already: only a person can tell.
fn refuse_what_may_be_back(record: &Record, name: &BatchName, here: &Here) -> Result<()> {
    if let Some(restored) = record.in_doubt(here) {
        let message = format!(
            "{} of {name} went back into {} of database `{}` on {}. That is this database under another name, or a physical copy of it: \
             check whether the rows are in {}, and use --again if they are not",
            units::plural(restored.rows as usize, "row"),
            if restored.place.name.is_empty() { &here.place.name } else { &restored.place.name },
            restored.place.configured,
            restored.at.format("%Y-%m-%d %H:%M UTC"),
            here.place.name
        );
        return Err(Fault::new(Kind::Busy, message).into());
    }
    if let Some(restored) = record.at(here).find(|restored| !restored.is_committed) {
        let message = format!(
            "the restore of {} of {name} on {} may not have committed: check whether the rows are in {}, and use --again if they are not",
            units::plural(restored.rows as usize, "row"),
            restored.at.format("%Y-%m-%d %H:%M UTC"),
            here.place.name
        );
        return Err(Fault::new(Kind::Busy, message).into());
    }
    Ok(())
}

/// Refuses a batch of which some rows are back that only another key tells.
fn refuse_what_is_sealed(record: &Record, name: &BatchName, here: &Here) -> Result<()> {
    if record.at(here).all(|restored| restored.filter.sealed.is_none()) {
        return Ok(());
    }
    let message = format!(
        "some rows of {name} are back in {}, and which they are is sealed for a key that is not here (`identity_file`): check whether the rows that you \
         miss are in the table, and use --again, with --key or --time, if they are not",
        here.place.name
    );
    Err(Fault::new(Kind::Configuration, message).into())
}

impl Prepared {
    /// Returns a batch of which no row is known to be back.
    fn all(here: Here, ends: Ends, filter: Filter) -> Self {
        Self { here, ends, filter, there: Vec::new(), rows_there: 0, expected: None, by_key: None }
    }

    /// Returns how many rows go back, if that is known before they are read.
    pub fn expected(&self) -> Option<u64> {
        self.expected
    }
}

impl Request<'_> {
    fn accepts(&self) -> Accepts {
        Accepts { unsigned: self.unsigned_ok, replaces: self.again }
    }
}

/// Puts the rows of a batch into a table, all or none. The batch stays in the archive, and a record beside it says which rows went where.
pub async fn restore(
    store: &Store,
    batch: &(BatchName, Manifest),
    connection: &mut PgConnection,
    request: &Request<'_>,
    phase: &Phase,
) -> Result<RestoreOutcome> {
    // The lock comes before the record is read: another process that restores the batch into the same database may write it.
    let lock = format!("pgtend restore {}", batch.0);
    if !pg::try_lock(connection, &lock).await? {
        return Err(Fault::new(Kind::Busy, format!("another process is restoring {}", batch.0)).into());
    }
    let done = restore_alone(store, batch, connection, request, phase).await;
    // If this fails, the connection is lost, and the lock with it.
    let _ = pg::unlock(connection, &lock).await;
    done
}

async fn restore_alone(
    store: &Store,
    batch: &(BatchName, Manifest),
    connection: &mut PgConnection,
    request: &Request<'_>,
    phase: &Phase,
) -> Result<RestoreOutcome> {
    let prepared = match prepare(store, batch, connection, request).await? {
        Intent::Restore(prepared) => prepared,
        Intent::Leave(put) => return Ok(put),
    };
    let name = &batch.0;
    // The record will say that the rows are back.
    pg::commit_durably(connection).await?;
    pg::execute(connection, "BEGIN".to_owned()).await?;
    let done = async {
        hold(connection, &prepared.here.place, request.checked).await?;
        put(store, batch, connection, &prepared, request, phase).await
    };
    let done = done.await;
    if done.is_err() {
        let _ = pg::execute(connection, "ROLLBACK".to_owned()).await;
    }
    let (rows, transaction) = done?;
    let recorded = Record::change(store, name, request.accepts(), |record| {
        record.commit(transaction, &prepared.here.server_started_at);
    });
    // Without this, the next restore asks the server.
    if let Err(error) = recorded.await {
        tracing::warn!("{error:#}");
    }
    Ok(RestoreOutcome::Restored(rows))
}

/// Locks the table, which the rows reach by its name, and compares it with the one that was checked. Before PostgreSQL 16, the lock needs
/// more than INSERT.
async fn hold(connection: &mut PgConnection, place: &Place, checked: &[Checked]) -> Result<()> {
    let may_lock: bool =
        sqlx::query_scalar("SELECT pg_catalog.has_table_privilege($1::bigint::pg_catalog.oid, 'UPDATE, DELETE, TRUNCATE')")
            .bind(place.table)
            .fetch_one(&mut *connection)
            .await?;
    if may_lock {
        pg::execute(connection, format!("LOCK TABLE ONLY {} IN ROW EXCLUSIVE MODE", place.name)).await?;
    }
    let own = Checked::named(place.name.clone(), place.table).as_in(checked);
    pg::execute(connection, proof(checked.iter().chain([&own]))).await
}

/// Returns the number of rows and of the transaction.
async fn put(
    store: &Store,
    (name, manifest): &(BatchName, Manifest),
    connection: &mut PgConnection,
    prepared: &Prepared,
    request: &Request<'_>,
    phase: &Phase,
) -> Result<(u64, i64)> {
    let Prepared { here, ends, filter, there, rows_there, by_key, .. } = prepared;
    let place = &here.place;
    let is_plain = filter.is_all() && there.is_empty() && by_key.is_none();
    let rows = if is_plain {
        copy(store, name, manifest, connection, (&place.name, None), phase).await?
    } else {
        chosen::make_aside(connection, &place.name, &manifest.columns).await?;
        copy(store, name, manifest, connection, (ASIDE, None), phase).await?;
        let chosen = Chosen::of_aside(connection, filter, there, by_key.as_deref()).await?;
        // All rows go back by COPY: a rule of the table fires on INSERT only.
        match chosen.count() {
            0 => 0,
            _ => copy(store, name, manifest, connection, (&place.name, Some(chosen)), phase).await?,
        }
    };
    if by_key.is_none() && filter.is_all() && rows_there + rows < manifest.exported.rows {
        let message = format!(
            "{} of its {} came back earlier by filters, and {} have none of these values: the table or the meaning of a filter was changed \
             since. Use --again, with --key or --time, for those that are missing",
            units::count(*rows_there),
            units::plural(manifest.exported.rows as usize, "row"),
            units::count(rows)
        );
        return Err(NotAll(message).into());
    }
    let left_again = match by_key {
        Some(by_key) if !filter.is_all() => chosen::still_missing(connection, by_key).await?,
        _ => 0,
    };
    // With the rows that were there before, the whole batch is back.
    let is_whole = filter.is_all() || by_key.is_some();
    let transaction = transaction(connection).await?;
    let restored = Restored {
        place: place.clone(),
        filter: if is_whole { Filter::default() } else { filter.clone() },
        at: Utc::now(),
        rows: if is_whole { manifest.exported.rows } else { rows },
        left_again,
        transaction,
        server_started_at: here.server_started_at.clone(),
        is_committed: false,
        never_left: false,
        left_with: Vec::new(),
        is_elsewhere: false,
    };
    let recorded = Record::change(store, name, request.accepts(), |record| {
        record.end(ends);
        record.times.push(restored.clone());
    });
    // The rows are put back even if the store cannot be written to.
    if let Err(error) = recorded.await {
        tracing::warn!("{error:#}: a second restore would insert the rows of {name} again");
    }
    pg::execute(connection, "COMMIT".to_owned()).await?;
    Ok((rows, transaction))
}
