//! Writes a detached partition's rows to a store before it may be dropped, in one batch of the job's archive.
//!
//! The transaction that reads them also writes the mark that says where they are, so that both exist or neither: a killed run leaves a
//! pending manifest, and the next reader asks the server whether that transaction committed.

use anyhow::{Context as _, Result};
use sqlx::PgConnection;

use super::guard;
use super::mark::{Archived, Mark};
use super::plan::Plan;
use crate::archive::{self, Archive, BatchName, Manifest, Source};
use crate::base::units;
use crate::live::session::{Attempt, Session};
use crate::pg::table::TableName;
use crate::pg::{self, identifier};
use crate::store::Store;
use crate::work::RunContext;

/// The archive of a partition job.
pub struct PartitionArchive<'a> {
    archive: Archive,
    run: &'a RunContext<'a>,
}

impl<'a> PartitionArchive<'a> {
    /// Ends what a killed run left there.
    pub async fn open(run: &'a RunContext<'a>, store: &str, session: &mut Session) -> Result<Self> {
        let archive = Archive::new(Store::named(run.config, store).await?, run.database, run.job.name);
        let recovered = archive.recover(&mut session.connection).await?;
        recovered.left.iter().for_each(|left| tracing::warn!("{left}"));
        Ok(Self { archive, run })
    }

    /// Whether its rows are in this store, as the mark says. A crash, somebody who ended a batch by hand, or another store in
    /// the job may have made it untrue. Before a drop every byte is read again: a disk may have lost some since.
    pub async fn holds(&self, session: &mut Session, parent: &TableName, mark: &Mark, before_a_drop: bool) -> Result<bool> {
        let Some(archived) = &mark.archive else { return Ok(false) };
        let held = async {
            let (schema, name) = self.archived_as(&mut session.connection, parent, &archived.key).await?;
            if !before_a_drop {
                return self.archive.counts(&archived.key, (&schema, &name)).await;
            }
            let phase = self.run.progress.phase("read", None);
            let is_whole = self.archive.is_whole(&archived.key, (&schema, &name), &phase).await?;
            phase.done(if is_whole { "the archive is what was written" } else { "the archive is not what was written" });
            Ok(is_whole)
        };
        held.await.with_context(|| format!("cannot look for {}", archived.key))
    }

    /// The partition is attached again, and stays: what was archived of it is in its table.
    pub async fn is_back(&self, session: &mut Session, plan: &Plan, key: &str) -> Result<Option<i64>> {
        let (schema, name) = self.archived_as(&mut session.connection, &plan.table, key).await?;
        if !self.archive.counts(key, (&schema, &name)).await? {
            tracing::warn!(
                "{key} is no archive of {} in this store: if its rows are those of the partition that was attached again, \
                 `archives restore` would put them in a second time",
                plan.table
            );
            return Ok(None);
        }
        let table = (&*plan.table.schema, &*plan.table.name);
        self.archive.is_back(&mut session.connection, table, (&schema, &name), key).await
    }

    /// Returns the schema and the name that the table had when this was archived: the present ones, or those in the manifest if no table is
    /// called so any more, since it was renamed or moved. The key comes from a comment that the table's owner may write: with a name that
    /// another table has, it names that table's rows.
    async fn archived_as(&self, connection: &mut PgConnection, parent: &TableName, key: &str) -> Result<(String, String)> {
        let own = (parent.schema.clone(), parent.name.clone());
        let Some(named) = self.archive.table_of(key).await?.filter(|named| *named != own) else { return Ok(own) };
        let is_there: bool = sqlx::query_scalar("SELECT pg_catalog.to_regclass($1) IS NOT NULL")
            .bind(pg::qualified(&named.0, &named.1))
            .fetch_one(connection)
            .await?;
        Ok(if is_there { own } else { named })
    }

    /// Returns the batch that the mark names and whose place a new one takes: never one of another table.
    async fn replaced(&self, connection: &mut PgConnection, parent: &TableName, mark: &Mark) -> Result<Option<String>> {
        let Some(before) = &mark.archive else { return Ok(None) };
        let name = BatchName::of_object(&before.key).filter(|name| name.is_of_database(self.run.database));
        let named = self.archive.table_of(&before.key).await?;
        let is_own = named.is_none() || named == Some(self.archived_as(connection, parent, &before.key).await?);
        Ok(name.filter(|_| is_own).map(|name| name.to_string()))
    }

    pub async fn is_back_for_good(&self, key: &str, transaction: i64) {
        self.archive.is_back_for_good(key, transaction).await;
    }

    /// Returns the mark that the table has now.
    pub async fn put(&self, session: &mut Session, plan: &Plan, table: &TableName, mark: &Mark) -> Result<Attempt<Mark>> {
        // A session may still write to it by its own name: not while it is read.
        let lock = format!("LOCK TABLE ONLY {} IN SHARE MODE", table.sql());
        if let Attempt::Locked(who) = session.begin(&lock, table.oid).await? {
            return Ok(Attempt::Locked(who));
        }
        let done = self.write(session, plan, table, mark).await;
        if done.is_err() {
            let _ = pg::execute(&mut session.connection, "ROLLBACK".to_owned()).await;
        }
        done.map(Attempt::Done).with_context(|| format!("cannot archive {table}"))
    }

    async fn write(&self, session: &mut Session, plan: &Plan, table: &TableName, mark: &Mark) -> Result<Mark> {
        let connection = &mut session.connection;
        archive::prepare_session(connection).await?;
        let columns = archive::columns(connection, table.oid).await?;
        let list = columns.iter().map(|column| identifier(column)).collect::<Vec<_>>().join(", ");
        let source = Source {
            // Restored, they go to where they came from: the partition will be gone.
            schema: plan.table.schema.clone(),
            table: plan.table.name.clone(),
            query: format!("SELECT {list} FROM ONLY {}", table.sql()),
            columns,
        };
        let name = self.archive.name(self.run.now, archive::transaction(connection).await?);
        let phase = self.run.progress.phase("archive", None);
        let reason = format!("partition {table}, rows from {} to {}", mark.from, mark.to);
        let mut manifest = Manifest::new(self.run.job.name, self.run.database, &source, &reason).by_time(&plan.column);
        manifest.replaces = self.replaced(connection, &plan.table, mark).await?;
        let manifest = self.archive.export(connection, &source, &name, manifest, &phase).await?;
        let exported = &manifest.exported;
        // In the same transaction, whose lock lets nobody write.
        let (rows, contents) = guard::contents(connection, table).await?;
        anyhow::ensure!(rows == exported.rows, "{rows} rows were counted, and {} archived", exported.rows);
        let archived = Archived { key: name.object(), rows, contents: Some(contents) };
        let mark = Mark { archive: Some(archived), ..mark.clone() };
        let comment = format!("COMMENT ON TABLE {} IS {}", table.sql(), pg::literal(&mark.comment(&plan.table.to_string())));
        pg::execute(connection, comment).await?;
        pg::execute(connection, "COMMIT".to_owned()).await?;
        self.archive.complete(&name, &manifest).await?;
        phase.done(&units::plural(exported.rows, "row"));
        Ok(mark)
    }
}
