//! Writes a detached partition's rows to a store before it may be dropped, in one batch of the job's archive.
//!
//! The transaction that reads them also writes the mark that says where they are, so that both exist or neither: a killed run leaves a
//! pending manifest, and the next reader asks the server whether that transaction committed.

use anyhow::{Context as _, Result};
use sqlx::PgConnection;

use super::guard;
use super::mark::{Archived, Mark};
use super::plan::Plan;
use crate::archive::{self, Archive, Batch, BatchName, Manifest, Origin, Source};
use crate::base::units;
use crate::live::session::{Attempt, Session};
use crate::pg::table::{Checked, TableName, proof};
use crate::pg::{self, identifier};
use crate::store::Store;
use crate::work::RunContext;

/// A record that archived rows are back in their table. Its transaction has not committed yet.
pub struct ReturnRecord {
    archive: Archive,
    key: String,
    transaction: i64,
}

impl ReturnRecord {
    /// Confirms the record: its transaction has committed.
    pub async fn confirm(&self) {
        self.archive.confirm_back(&self.key, self.transaction).await;
    }
}

enum FormerStore<'m, A> {
    /// The store that the job names.
    Same,
    Other(A),
    /// The configuration does not have this store.
    Unknown(&'m str),
}

/// The archive of a partition job.
pub struct PartitionArchive<'a> {
    archive: Archive,
    /// The store's name in the configuration.
    store: String,
    run: &'a RunContext<'a>,
}

impl<'a> PartitionArchive<'a> {
    /// Opens the archive, and completes or discards what a killed run left in it.
    pub async fn open(run: &'a RunContext<'a>, store: &str, session: &mut Session) -> Result<Self> {
        let archive = Archive::new(Store::named(run.config, store).await?, run.database, run.job.name);
        let recovered = archive.recover(&mut session.connection).await?;
        recovered.left.iter().for_each(|left| tracing::warn!("{left}"));
        Ok(Self { archive, store: store.to_owned(), run })
    }

    /// Returns whether the partition's rows are in this store, as the mark says. The mark may be out of date: after a crash, after a batch
    /// was deleted by hand, or if the job names another store now. Before a drop every byte is read again, since a disk may have lost some.
    pub async fn holds(&self, session: &mut Session, parent: &TableName, mark: &Mark, before_a_drop: bool) -> Result<bool> {
        let Some(archived) = mark.archive.as_ref().filter(|_| mark.may_be_in(&self.store)) else { return Ok(false) };
        let held = async {
            let Some(batch) = self.own_batch(&mut session.connection, parent, &archived.key).await? else { return Ok(false) };
            if !before_a_drop {
                return self.archive.is_there(&batch).await;
            }
            // The mark would name the other one, had the transaction of that one not been lost with a history that the server no longer has, or been one
            // of a copy of the server. No command would put back what this batch has alone.
            if let Some(by) = self.archive.replaced_by(&batch).await?.first() {
                tracing::warn!(
                    "{by} says that it has the rows of {}, and the partition's mark does not: they are archived again",
                    archived.key
                );
                return Ok(false);
            }
            let phase = self.run.progress.phase("read", None);
            let is_whole = self.archive.is_whole(&batch, &phase).await?;
            phase.done(if is_whole {
                "the archive matches what was written"
            } else {
                "the archive differs from what was written"
            });
            Ok(is_whole)
        };
        held.await.with_context(|| format!("cannot check whether {} is in the store", archived.key))
    }

    /// Records that the partition is attached again and stays, so that its archived rows are back in their table. Returns what
    /// [`PartitionArchive::confirm_back`] needs, and None if there is nothing to record.
    pub async fn is_back(&self, session: &mut Session, plan: &Plan, archived: &Archived) -> Result<Option<ReturnRecord>> {
        match self.former(archived).await? {
            FormerStore::Same => self.record_back(session, plan, &archived.key).await,
            FormerStore::Other(former) => former.record_back(session, plan, &archived.key).await,
            FormerStore::Unknown(store) => {
                tracing::warn!(
                    "{} is in the store {store:?}, which is no longer in the configuration: the batch still counts, and `archives restore` \
                     would insert its rows a second time",
                    archived.key
                );
                Ok(None)
            }
        }
    }

    /// Returns the archive that the rows of a mark were written to. The job may name another store by now.
    async fn former<'m>(&self, archived: &'m Archived) -> Result<FormerStore<'m, PartitionArchive<'a>>> {
        let Some(store) = archived.store.as_deref().filter(|store| *store != self.store) else { return Ok(FormerStore::Same) };
        if !self.run.config.stores.contains_key(store) {
            return Ok(FormerStore::Unknown(store));
        }
        let archive = Archive::new(Store::named(self.run.config, store).await?, self.run.database, self.run.job.name);
        Ok(FormerStore::Other(Self { archive, store: store.to_owned(), run: self.run }))
    }

    async fn record_back(&self, session: &mut Session, plan: &Plan, key: &str) -> Result<Option<ReturnRecord>> {
        let batch = self.own_batch(&mut session.connection, &plan.table, key).await?;
        let is_there = match &batch {
            Some(batch) => self.archive.is_there(batch).await?,
            None => false,
        };
        let Some(batch) = batch.filter(|_| is_there) else {
            tracing::warn!(
                "{key} in this store is not an archive of {}: if it has the rows of the partition that was attached again, `archives \
                 restore` would insert them a second time",
                plan.table
            );
            return Ok(None);
        };
        let table = (&*plan.table.schema, &*plan.table.name);
        let recorded = self.archive.is_back(&mut session.connection, table, &batch).await?;
        Ok(recorded.map(|transaction| ReturnRecord { archive: self.archive.clone(), key: key.to_owned(), transaction }))
    }

    /// Returns the batch with this key, if it holds rows of the table.
    async fn own_batch(&self, connection: &mut PgConnection, parent: &TableName, key: &str) -> Result<Option<Batch>> {
        let Some(batch) = self.archive.batch(key).await? else { return Ok(None) };
        if self.is_of(connection, parent, &batch).await? {
            return Ok(Some(batch));
        }
        let of = batch.identity().map(|identity| format!(" of {identity}")).unwrap_or_default();
        tracing::warn!(
            "{key} holds rows of {}{of}, not of {parent} of this database, so it does not count",
            batch.table_in_words()
        );
        Ok(None)
    }

    /// Returns whether the batch holds rows of the table. It compares the numbers of database and table where the manifest has those of this server,
    /// otherwise names: a copy of the database has a table of the same name and number, and marks that name batches of the original. A name
    /// that no table has any more also counts, since the table may have been renamed or moved. The batch's key comes from a comment that
    /// the table's owner can write, so a name that another table has means that table's rows.
    async fn is_of(&self, connection: &mut PgConnection, parent: &TableName, batch: &Batch) -> Result<bool> {
        if let Some(is_own) = Archive::is_of_table(connection, batch, parent.oid).await? {
            return Ok(is_own);
        }
        if batch.table() == Some((&*parent.schema, &*parent.name)) {
            return Ok(true);
        }
        // By its number alone, where the name is sealed.
        let Some((schema, table)) = batch.table() else { return Ok(false) };
        // A view may have the old name, for programs that still use it.
        let is_another: bool = sqlx::query_scalar(
            "SELECT EXISTS (SELECT FROM pg_catalog.pg_class
                             WHERE oid OPERATOR(pg_catalog.=) pg_catalog.to_regclass($1)::pg_catalog.oid AND relkind IN ('r', 'p'))",
        )
        .bind(pg::qualified(schema, table))
        .fetch_one(connection)
        .await?;
        Ok(!is_another)
    }

    /// Returns the batch that the mark names and that a new batch replaces; never one of another table or database. Of one that cannot be read, the mark
    /// tells; whoever lists the two compares what they say.
    async fn replaced(&self, connection: &mut PgConnection, parent: &TableName, mark: &Mark) -> Result<Option<String>> {
        let Some(before) = &mark.archive else { return Ok(None) };
        let name = BatchName::of_object(&before.key).filter(|name| name.is_of_database(self.run.database));
        let is_own = match self.archive.described(&before.key).await? {
            Some(batch) => self.is_of(connection, parent, &batch).await?,
            None => match before.database {
                Some(database) => Origin::of(connection, parent.oid).await?.database == database,
                None => true,
            },
        };
        Ok(name.filter(|_| is_own).map(|name| name.to_string()))
    }

    /// Fails if the role may not read all rows of a partition that is about to be detached. A policy that hides some from its owner, too, refuses
    /// (row_security is off).
    pub async fn can_read(&self, session: &mut Session, plan: &Plan, partition: &TableName) -> Result<()> {
        let columns = archive::columns(&mut session.connection, partition.oid, plan.table.oid).await?;
        let list = columns.iter().map(|column| identifier(column)).collect::<Vec<_>>().join(", ");
        // The server checks rights and policies, and reads nothing.
        let explain = format!("EXPLAIN SELECT {list} FROM ONLY {}", partition.sql());
        let explained = pg::execute_counting(&mut session.connection, explain).await.map_err(pg::in_its_own_words);
        explained.map(drop).with_context(|| format!("cannot archive {partition}, so it stays attached"))
    }

    /// Archives the table's rows. Returns the mark that the table has afterwards.
    pub async fn put(&self, session: &mut Session, plan: &Plan, table: &TableName, mark: &Mark) -> Result<Attempt<Mark>> {
        // A session may still write to the table under its own name, so it is locked while it is read. That name may belong to another
        // table by now.
        let lock = format!("LOCK TABLE ONLY {} IN SHARE MODE; {}", table.sql(), proof([&Checked::of(table)]));
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
        let columns = archive::columns(connection, table.oid, plan.table.oid).await?;
        let list = columns.iter().map(|column| identifier(column)).collect::<Vec<_>>().join(", ");
        let source = Source {
            // A restore puts the rows into the parent: the partition will be gone by then.
            schema: plan.table.schema.clone(),
            table: plan.table.name.clone(),
            queries: vec![format!("SELECT {list} FROM ONLY {}", table.sql())],
            steps: None,
            columns,
        };
        let name = self.archive.name(self.run.now, archive::transaction(connection).await?);
        let phase = self.run.progress.phase("archive", None);
        let reason = format!("partition {table}, rows from {} to {}", mark.from, mark.to);
        let mut manifest = Manifest::new(self.run.job.name, self.run.database, &source, &reason).by_time(&plan.column);
        let origin = Origin::of(connection, plan.table.oid).await?;
        manifest.origin = Some(origin);
        manifest.replaces = self.replaced(connection, &plan.table, mark).await?;
        let manifest = self.archive.export(connection, &source, &name, manifest, &phase).await?;
        let exported = &manifest.exported;
        // The rows are counted in the same transaction, whose lock keeps writers out.
        let (rows, contents) = guard::contents(connection, table).await?;
        anyhow::ensure!(rows == exported.rows, "{rows} rows were counted, but {} were archived", exported.rows);
        let archived = Archived {
            key: name.object(exported),
            rows,
            contents: Some(contents),
            store: Some(self.store.clone()),
            database: Some(origin.database),
        };
        let now = Mark { archive: Some(archived), ..mark.clone() };
        let comment = format!("COMMENT ON TABLE {} IS {}", table.sql(), pg::literal(&now.comment(&plan.table.to_string())));
        pg::execute(connection, comment).await?;
        // The rows were read, and the mark was written, by the table's name.
        pg::execute(connection, proof([&Checked::of(table)])).await?;
        pg::execute(connection, "COMMIT".to_owned()).await?;
        self.archive.complete(&name, &manifest).await?;
        phase.done(&units::plural(exported.rows, "row"));
        Ok(now)
    }
}
