//! One batch in one transaction: its rows are found, locked without waiting, archived if the job asks for it, and deleted.
//!
//! Triggers and the user's `where` run in this session and resolve names through the role's own search_path, as they do for the
//! application. So every name, type and operator of our own SQL is qualified here, and the session ends when the deleting ends.

use std::time::Instant;

use anyhow::{Context as _, Result};
use sqlx::{PgConnection, Row as _};

use super::context::Work;
use super::pick::{Place, bound, bound_blocks};
use super::references;
use crate::archive::{self, Archive, Home, Manifest, Source};
use crate::base::fault::{Fault, Kind};
use crate::live::governor::{self, Steps};
use crate::pg::table::{Checked, proof, proof_of_trees};
use crate::pg::{self, identifier};

/// The result of a batch.
pub struct Batch {
    pub rows: u64,
    /// Rows that were found and locked.
    pub found: u64,
    /// The largest value of the column among them.
    pub last_key: Option<String>,
    /// The last place of a row that was found, for [`Place::Same`].
    pub last_at: Option<String>,
    pub archived_bytes: u64,
    /// Rows of tables in `cascade`.
    pub tree_rows: u64,
}

/// The kinds of row that a batch skips. Each check costs as much as the deleting, so the first attempt goes without them.
#[derive(Clone, Copy, Default)]
struct Skips {
    locks: bool,
    references: bool,
}

impl Work<'_> {
    /// Returns also when its transaction had begun: it locks rows from then on. The proof before that takes 1 to 2 ms, whatever the size of the
    /// batch: counted, it would make batches of a small `batch_time` tiny.
    pub(super) async fn batch(
        &self,
        connection: &mut PgConnection,
        place: &Place,
        size: u64,
        steps: Option<Steps>,
    ) -> Result<(Batch, Instant)> {
        if self.archive.is_none() && self.plan.tree.is_empty() {
            return self.delete(connection, place, size).await;
        }
        let done = async {
            let begun = self.begin(connection).await?;
            let batch = match self.archive {
                Some(archive) if self.plan.tree.is_empty() => {
                    self.archive_and_delete(connection, archive, place, size, steps).await?
                }
                _ => self.delete_tree(connection, place, size).await?,
            };
            anyhow::Ok((batch, begun))
        };
        let done = done.await;
        if done.is_err() {
            // A connection that is lost has rolled back by itself.
            let _ = pg::execute(connection, "ROLLBACK".to_owned()).await;
        }
        done
    }

    /// Begins a transaction in which the names of the part and of the job's tables mean the tables of the plan. It is one message, as a batch is
    /// short.
    async fn begin(&self, connection: &mut PgConnection) -> Result<Instant> {
        let own = Checked::named(self.part.name.clone(), self.part.oid).as_in(self.run.checked());
        if own.code.is_none() && !self.run.checked().is_empty() {
            let message =
                format!("{} became a part of {} after this run checked its code: run it again", own.name, self.retention.table);
            return Err(Fault::new(Kind::Configuration, message).into());
        }
        let mut begin = format!("BEGIN; LOCK TABLE ONLY {} IN ROW EXCLUSIVE MODE; ", self.part.name);
        // Rows of these go before ours: their triggers run in this transaction, too.
        let branches = &self.plan.tree.branches;
        for branch in branches.iter().rev() {
            begin += &format!("LOCK TABLE {} IN ROW EXCLUSIVE MODE; ", branch.sql());
        }
        let of_branches = self.run.checked().iter().filter(|checked| branches.iter().any(|branch| branch.oid == checked.oid));
        // A table without partitions is its own part: its code is compared once, and its oid under both spellings of its name.
        let is_the_table = self.run.checked().iter().any(|checked| checked.oid == own.oid);
        let own = Checked { code: own.code.filter(|_| !is_the_table), ..own };
        let proofs = [proof_of_trees(of_branches), proof(self.run.checked().iter().chain([&own]))];
        for proof in proofs.iter().filter(|proof| !proof.is_empty()) {
            begin += &format!("{proof}; ");
        }
        pg::execute(connection, begin).await?;
        Ok(Instant::now())
    }

    /// First tries without checks for locks and references; where another session has locked one of the rows, it skips the locked rows, and
    /// where one is still referenced, it skips the referenced rows.
    async fn delete(&self, connection: &mut PgConnection, place: &Place, size: u64) -> Result<(Batch, Instant)> {
        let mut skips = Skips { locks: matches!(place, Place::Same(..)), references: !self.part.kept.selves.is_empty() };
        // Of the first attempt: what it waited counts.
        let mut first = None;
        loop {
            let deleted = async {
                let begun = self.begin(connection).await?;
                let begun = *first.get_or_insert(begun);
                let batch = match skips {
                    Skips { locks: false, references: false } => self.delete_all(connection, place, size).await?,
                    _ => self.delete_picked(connection, place, size, skips).await?,
                };
                pg::execute(connection, "COMMIT".to_owned()).await?;
                anyhow::Ok((batch, begun))
            };
            let deleted = deleted.await;
            if deleted.is_err() {
                let _ = pg::execute(connection, "ROLLBACK".to_owned()).await;
            }
            match deleted {
                Err(error) if governor::is_lock_trouble(&error) && !skips.locks => skips.locks = true,
                Err(error) if references::is_referred(&error) && !skips.references && !self.part.kept.is_empty() => {
                    self.part.kept.check_visible()?;
                    skips.references = true;
                }
                // When walking by keys, no rows may mean that none are left or that a trigger kept them.
                Ok((batch, _)) if batch.rows == 0 && place.is_by_order() && !skips.locks => skips.locks = true,
                other => return other,
            }
        }
    }

    async fn delete_all(&self, connection: &mut PgConnection, place: &Place, size: u64) -> Result<Batch> {
        let (table, condition, gate) = (&self.part.name, &self.part.conditions.expired, &self.plan.gate);
        let order = self.order();
        let which = match place {
            Place::Blocks(..) => bound_blocks(),
            _ => format!(
                "ctid OPERATOR(pg_catalog.=) ANY (ARRAY(
                    SELECT ctid FROM ONLY {table} WHERE {} AND {condition} ORDER BY {order} LIMIT $2::pg_catalog.text::bigint))",
                self.from(place)
            ),
        };
        // The condition is repeated outside the subquery: a row may have changed since it was found.
        let delete = format!("DELETE FROM ONLY {table} WHERE {which} AND {condition} AND {gate}");
        if matches!(place, Place::Blocks(..)) {
            let rows = bound(delete, place, size).execute(connection).await?.rows_affected();
            return Ok(Batch { rows, found: rows, last_key: None, last_at: None, archived_bytes: 0, tree_rows: 0 });
        }
        let sql = format!(
            "WITH gone AS ({delete} RETURNING {} AS key) SELECT pg_catalog.count(*), {} FROM gone",
            identifier(&self.retention.column),
            self.plan.key.greatest("key")
        );
        let row = bound(sql, place, size).fetch_one(connection).await?;
        let rows = row.try_get::<i64, _>(0)? as u64;
        Ok(Batch { rows, found: rows, last_key: row.try_get(1)?, last_at: None, archived_bytes: 0, tree_rows: 0 })
    }

    async fn delete_picked(&self, connection: &mut PgConnection, place: &Place, size: u64, skips: Skips) -> Result<Batch> {
        let sql = format!(
            "{},
             gone AS (DELETE FROM ONLY {} WHERE ctid OPERATOR(pg_catalog.=) ANY (ARRAY(SELECT at FROM going)) AND {} RETURNING 1)
             SELECT (SELECT pg_catalog.count(*) FROM gone), (SELECT pg_catalog.count(*) FROM going), (SELECT {} FROM picked),
                    (SELECT at::pg_catalog.text FROM picked ORDER BY picked.at DESC LIMIT 1)",
            self.with(&self.pick_at(place, skips.references)),
            self.part.name,
            self.plan.gate,
            self.plan.key.greatest("key")
        );
        let row = bound(sql, place, size).fetch_one(connection).await?;
        let (rows, found): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
        Ok(Batch {
            rows: rows as u64,
            found: found as u64,
            last_key: row.try_get(2)?,
            last_at: row.try_get(3)?,
            archived_bytes: 0,
            tree_rows: 0,
        })
    }

    /// In one transaction, a statement deletes rows and hands them to the archive, so that exactly the deleted rows are archived; beside
    /// others there are several such statements, with rests between them. The transaction commits after the rows were read back.
    async fn archive_and_delete(
        &self,
        connection: &mut PgConnection,
        archive: &Archive,
        place: &Place,
        size: u64,
        steps: Option<Steps>,
    ) -> Result<Batch> {
        let table = &self.part.name;
        let Some((whole, last_key)) = self.range(connection, place, size).await? else {
            return self.nothing(connection, None).await;
        };
        let is_there =
            pg::query(format!("SELECT EXISTS (SELECT FROM ONLY {table} WHERE {whole} AND {})", self.part.conditions.expired));
        if !is_there.fetch_one(&mut *connection).await?.try_get::<bool, _>(0)? {
            return self.nothing(connection, last_key).await;
        }
        // From here until the commit no column can be added or dropped.
        pg::execute(connection, format!("LOCK TABLE ONLY {table} IN ROW EXCLUSIVE MODE")).await?;
        // A statement that fails midway costs an upload, so references are checked first.
        if !self.part.kept.is_empty() {
            self.part.kept.check_visible()?;
        }
        let ranges = match steps {
            // Rows that refer to each other go in one statement.
            Some(steps) if self.part.kept.selves.is_empty() => {
                self.ranges(connection, place, size, last_key.as_deref(), steps).await?
            }
            _ => vec![whole],
        };
        let source = self.source(connection, &ranges, steps).await?;
        let name = archive.name(self.run.now, archive::transaction(connection).await?);
        let reason = format!("{} {} on {}", self.retention.column, self.retention.in_words(), self.plan.now.format("%Y-%m-%d"));
        let manifest = Manifest::new(self.run.job.name, self.run.database, &source, &reason).by_time(&self.retention.column);
        let manifest = archive.export(connection, &source, &name, manifest, self.phase).await?;
        let exported = manifest.exported.clone();
        if self.run.cancel.is_cancelled() {
            // The archive's lock may be lost: the rows stay, and so does the manifest that says that this transaction did not commit.
            return Err(Fault::new(Kind::Cancelled, "cancelled").into());
        }
        if exported.rows == 0 {
            // All of them are locked, referenced, or kept by a trigger.
            let nothing = self.nothing(connection, last_key).await?;
            archive.discard(&name).await?;
            return Ok(nothing);
        }
        // If the answer gets lost, the pending manifest tells the next run which transaction to ask about.
        pg::execute(connection, "COMMIT".to_owned()).await.context("cannot commit a batch")?;
        archive.complete(&name, &manifest).await?;
        Ok(Batch {
            rows: exported.rows,
            found: exported.rows,
            last_key,
            last_at: None,
            archived_bytes: exported.bytes,
            tree_rows: 0,
        })
    }

    /// Returns the statements that delete the rows in these ranges, and where their archive restores them.
    async fn source(&self, connection: &mut PgConnection, ranges: &[String], steps: Option<Steps>) -> Result<Source> {
        let home = Home { oid: self.part.oid, schema: self.part.schema.clone(), name: self.part.relation.clone() };
        let home = Home::of(connection, home).await?;
        let columns = archive::columns(connection, self.part.oid, home.oid).await?;
        let list = columns.iter().map(|column| identifier(column)).collect::<Vec<_>>().join(", ");
        let around_references = !self.part.kept.is_empty();
        let delete = |range: &String| {
            format!(
                "{} DELETE FROM ONLY {} WHERE ctid OPERATOR(pg_catalog.=) ANY (ARRAY(SELECT at FROM going)) AND {} RETURNING {list}",
                self.with(&self.pick(range, "", around_references)),
                self.part.name,
                self.plan.gate
            )
        };
        let queries = ranges.iter().map(delete).collect();
        Ok(Source { schema: home.schema, table: home.name, columns, queries, steps })
    }

    pub(super) async fn nothing(&self, connection: &mut PgConnection, last_key: Option<String>) -> Result<Batch> {
        pg::execute(connection, "ROLLBACK".to_owned()).await?;
        Ok(Batch { rows: 0, found: 0, last_key, last_at: None, archived_bytes: 0, tree_rows: 0 })
    }
}
