//! One batch in one transaction: its rows are found, locked without waiting, archived if the job asks for it, and deleted.
//!
//! Triggers and the user's `where` run in this session and resolve names through the role's own search_path, as they do for the
//! application. So every name, type and operator of our own SQL is qualified here, and the session ends when the deleting ends.

use std::time::Instant;

use anyhow::{Context as _, Result};
use sqlx::postgres::PgArguments;
use sqlx::query::Query;
use sqlx::{PgConnection, Postgres, Row as _};

use super::context::Work;
use super::references;
use crate::archive::{self, Archive, Home, Manifest, Source};
use crate::base::fault::{Fault, Kind};
use crate::live::governor::{self, Steps};
use crate::pg::table::{Checked, proof, proof_of_trees};
use crate::pg::{self, identifier, literal};

/// A smaller batch is hardly faster, see [`governor::Pace::with_enough`]. Measured on two processors with six busy loops and a pgbench at full speed,
/// 60,000 rows: 24 s with batches of 1.8 blocks, 11 s with these; other sessions committed within 2 × idle in both.
pub(super) const ENOUGH_BLOCKS: u64 = 8;
pub(super) const ENOUGH_ROWS: u64 = 300;
const BEYOND: &str = "OPERATOR(pg_catalog.>)";

/// The position where a batch begins.
#[derive(Clone)]
pub enum Place {
    /// A range of blocks; the second is not included.
    Blocks(u64, u64),
    /// A value of the column, as text.
    Key(String),
    /// Only rows with this value, after this place in the table: more of them than a batch has may stay.
    Same(String, String),
    /// All rows with this value were looked at.
    Past(String),
}

impl Place {
    fn is_by_order(&self) -> bool {
        matches!(self, Self::Key(_) | Self::Past(_))
    }
}

/// The result of a batch.
pub struct Batch {
    pub rows: u64,
    /// Rows that were found and locked.
    pub found: u64,
    /// The largest value of the column among them.
    pub last_key: Option<String>,
    /// Of [`Place::Same`]: the last place of a row that was found.
    pub last_at: Option<String>,
    pub archived_bytes: u64,
    /// Rows of tables in `cascade`.
    pub tree_rows: u64,
}

/// The kinds of row that a batch skips. Each check costs as much as the deleting, so the first attempt goes without them.
#[derive(Clone, Copy, Default)]
struct Around {
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
        let mut around = Around { locks: matches!(place, Place::Same(..)), references: !self.part.kept.selves.is_empty() };
        // Of the first attempt: what it waited counts.
        let mut first = None;
        loop {
            let deleted = async {
                let begun = self.begin(connection).await?;
                let begun = *first.get_or_insert(begun);
                let batch = match around {
                    Around { locks: false, references: false } => self.delete_all(connection, place, size).await?,
                    _ => self.delete_picked(connection, place, size, around).await?,
                };
                pg::execute(connection, "COMMIT".to_owned()).await?;
                anyhow::Ok((batch, begun))
            };
            let deleted = deleted.await;
            if deleted.is_err() {
                let _ = pg::execute(connection, "ROLLBACK".to_owned()).await;
            }
            match deleted {
                Err(error) if governor::is_lock_trouble(&error) && !around.locks => around.locks = true,
                Err(error) if references::is_referred(&error) && !around.references && !self.part.kept.is_empty() => {
                    self.part.kept.may_be_seen()?;
                    around.references = true;
                }
                // When walking by keys, no rows may mean that none are left or that a trigger kept them.
                Ok((batch, _)) if batch.rows == 0 && place.is_by_order() && !around.locks => around.locks = true,
                other => return other,
            }
        }
    }

    async fn delete_all(&self, connection: &mut PgConnection, place: &Place, size: u64) -> Result<Batch> {
        let (table, condition, gate) = (&self.part.name, &self.part.conditions.goes, &self.plan.gate);
        let column = self.column();
        let which = match place {
            Place::Blocks(..) => bound_blocks(),
            _ => format!(
                "ctid OPERATOR(pg_catalog.=) ANY (ARRAY(
                    SELECT ctid FROM ONLY {table} WHERE {} AND {condition} ORDER BY {column} LIMIT $2::pg_catalog.text::bigint))",
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

    async fn delete_picked(&self, connection: &mut PgConnection, place: &Place, size: u64, around: Around) -> Result<Batch> {
        let sql = format!(
            "{},
             gone AS (DELETE FROM ONLY {} WHERE ctid OPERATOR(pg_catalog.=) ANY (ARRAY(SELECT at FROM going)) AND {} RETURNING 1)
             SELECT (SELECT pg_catalog.count(*) FROM gone), (SELECT pg_catalog.count(*) FROM going), (SELECT {} FROM picked),
                    (SELECT at::pg_catalog.text FROM picked ORDER BY picked.at DESC LIMIT 1)",
            self.with(&self.pick_at(place, around.references)),
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
            pg::query(format!("SELECT EXISTS (SELECT FROM ONLY {table} WHERE {whole} AND {})", self.part.conditions.goes));
        if !is_there.fetch_one(&mut *connection).await?.try_get::<bool, _>(0)? {
            return self.nothing(connection, last_key).await;
        }
        // From here until the commit no column can be added or dropped.
        pg::execute(connection, format!("LOCK TABLE ONLY {table} IN ROW EXCLUSIVE MODE")).await?;
        let home = Home { oid: self.part.oid, schema: self.part.schema.clone(), name: self.part.relation.clone() };
        let home = Home::of(connection, home).await?;
        let columns = archive::columns(connection, self.part.oid, home.oid).await?;
        let list = columns.iter().map(|column| identifier(column)).collect::<Vec<_>>().join(", ");
        // A statement that fails midway costs an upload, so references are checked first.
        let around_references = !self.part.kept.is_empty();
        if around_references {
            self.part.kept.may_be_seen()?;
        }
        let ranges = match steps {
            // Rows that refer to each other go in one statement.
            Some(steps) if self.part.kept.selves.is_empty() => {
                self.ranges(connection, place, size, last_key.as_deref(), steps).await?
            }
            _ => vec![whole],
        };
        let delete = |range: &String| {
            format!(
                "{} DELETE FROM ONLY {table} WHERE ctid OPERATOR(pg_catalog.=) ANY (ARRAY(SELECT at FROM going)) AND {} RETURNING {list}",
                self.with(&self.pick(range, "", around_references)),
                self.plan.gate
            )
        };
        let source =
            Source { schema: home.schema, table: home.name, columns, queries: ranges.iter().map(delete).collect(), steps };
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

    pub(super) async fn nothing(&self, connection: &mut PgConnection, last_key: Option<String>) -> Result<Batch> {
        pg::execute(connection, "ROLLBACK".to_owned()).await?;
        Ok(Batch { rows: 0, found: 0, last_key, last_at: None, archived_bytes: 0, tree_rows: 0 })
    }

    /// SQL: the rows of a batch; with the last value among them, if they go by values. `None`: there are no rows.
    async fn range(&self, connection: &mut PgConnection, place: &Place, size: u64) -> Result<Option<(String, Option<String>)>> {
        match place {
            Place::Blocks(from, to) => Ok(Some((between_blocks(*from, *to), None))),
            // A batch has all rows with its last value.
            Place::Same(..) => Ok(None),
            Place::Key(key) | Place::Past(key) => {
                let last = self.key_after(connection, place, size).await?;
                Ok(last.map(|last| (self.between_keys(self.beyond(place), key, &last), Some(last))))
            }
        }
    }

    /// The same rows in ranges that are small enough for the other sessions. `last` is the value that ends the batch.
    async fn ranges(
        &self,
        connection: &mut PgConnection,
        place: &Place,
        size: u64,
        last: Option<&str>,
        steps: Steps,
    ) -> Result<Vec<String>> {
        match (place, last) {
            (Place::Blocks(from, to), _) => {
                let step = steps.size(ENOUGH_BLOCKS);
                Ok((*from..*to).step_by(step as usize).map(|start| between_blocks(start, (start + step).min(*to))).collect())
            }
            (Place::Key(key) | Place::Past(key), Some(last)) => {
                let mut keys = self.keys_after(connection, place, size, steps.size(ENOUGH_ROWS)).await?;
                // Rows may have come or gone since the last value was read.
                keys.pop();
                keys.push(last.to_owned());
                let (mut from, mut beyond) = (key.clone(), self.beyond(place));
                let mut ranges = Vec::new();
                for key in keys {
                    ranges.push(self.between_keys(beyond, &from, &key));
                    (from, beyond) = (key, BEYOND);
                }
                Ok(ranges)
            }
            _ => Ok(Vec::new()),
        }
    }

    fn between_keys(&self, beyond: &str, from: &str, last: &str) -> String {
        let column = self.column();
        let (from, last) = (self.key_value(from), self.key_value(last));
        format!("{column} {beyond} {from} AND {column} OPERATOR(pg_catalog.<=) {last}")
    }

    /// The last value of every `step` of the `size` rows from `place` on, each value once.
    async fn keys_after(&self, connection: &mut PgConnection, place: &Place, size: u64, step: u64) -> Result<Vec<String>> {
        let column = self.column();
        let sql = format!(
            "SELECT {} FROM (SELECT {column} AS key, (pg_catalog.row_number() OVER (ORDER BY {column}) OPERATOR(pg_catalog.-) 1)
                OPERATOR(pg_catalog./) {step} AS step FROM ONLY {} WHERE {column} {} {} AND {}
             ORDER BY {column} LIMIT $2::pg_catalog.text::bigint) k GROUP BY step ORDER BY step",
            self.plan.key.greatest("key"),
            self.part.name,
            self.beyond(place),
            self.bound_key(),
            self.part.conditions.goes
        );
        let mut keys = Vec::new();
        for row in bound(sql, place, size).fetch_all(connection).await? {
            keys.push(row.try_get(0)?);
        }
        keys.dedup();
        Ok(keys)
    }

    /// The value of the column that ends a batch of about `size` rows from `place` on.
    async fn key_after(&self, connection: &mut PgConnection, place: &Place, size: u64) -> Result<Option<String>> {
        let column = self.column();
        let sql = format!(
            "SELECT {} FROM (SELECT {column} AS key FROM ONLY {} WHERE {column} {} {} AND {}
             ORDER BY {column} LIMIT $2::pg_catalog.text::bigint) k",
            self.plan.key.greatest("key"),
            self.part.name,
            self.beyond(place),
            self.bound_key(),
            self.part.conditions.goes
        );
        Ok(bound(sql, place, size).fetch_one(connection).await?.try_get(0)?)
    }

    /// A query that picks the rows at `place`, whose values are bound as parameters.
    pub(super) fn pick_at(&self, place: &Place, around_references: bool) -> String {
        let column = self.column();
        match place {
            Place::Blocks(..) => self.pick(&bound_blocks(), "", around_references),
            Place::Same(_, after) => self.pick(
                &format!("{} AND ctid OPERATOR(pg_catalog.>) {}::pg_catalog.tid", self.from(place), literal(after)),
                "ORDER BY ctid LIMIT $2::pg_catalog.text::bigint",
                around_references,
            ),
            Place::Key(_) | Place::Past(_) => {
                self.pick(&self.from(place), &format!("ORDER BY {column} LIMIT $2::pg_catalog.text::bigint"), around_references)
            }
        }
    }

    /// SQL: rows at or beyond the value of `place`.
    fn from(&self, place: &Place) -> String {
        let operator = match place {
            Place::Same(..) => "=",
            Place::Past(_) => ">",
            _ => ">=",
        };
        format!("{} OPERATOR(pg_catalog.{operator}) {}", self.column(), self.bound_key())
    }

    /// A query that finds rows and locks them: `at`, `key`, and the columns that tell parents from children.
    fn pick(&self, which: &str, tail: &str, around_references: bool) -> String {
        let (table, kept) = (&self.part.name, &self.part.kept);
        let (free, columns) = match around_references {
            true => (kept.and_free(table), kept.columns()),
            false => (String::new(), String::new()),
        };
        format!(
            "SELECT ctid AS at, {} AS key{columns} FROM ONLY {table} WHERE {which} AND {} AND {}{free} {tail} FOR UPDATE SKIP LOCKED",
            identifier(&self.retention.column),
            self.part.conditions.goes,
            self.plan.gate
        )
    }

    /// The places of the picked rows that may go, as `going`.
    pub(super) fn with(&self, pick: &str) -> String {
        match self.part.kept.kept(self.part.oid) {
            None => format!("WITH picked AS MATERIALIZED ({pick}), going AS MATERIALIZED (SELECT at FROM picked)"),
            Some(kept) => format!(
                "WITH RECURSIVE picked AS MATERIALIZED ({pick}), kept (at) AS ({kept}),
                 going AS MATERIALIZED (SELECT at FROM picked EXCEPT SELECT at FROM kept)"
            ),
        }
    }

    fn column(&self) -> String {
        self.plan.key.column(&self.retention.column)
    }

    fn key_value(&self, key: &str) -> String {
        format!("{}::{}", literal(key), self.plan.key.type_sql())
    }

    fn bound_key(&self) -> String {
        format!("$1::pg_catalog.text::{}", self.plan.key.type_sql())
    }

    /// Rows at the last key were checked together with it; at the very start there is no last key.
    fn beyond(&self, place: &Place) -> &'static str {
        if matches!(place, Place::Key(key) if *key == self.plan.start) { "OPERATOR(pg_catalog.>=)" } else { BEYOND }
    }
}

fn between_blocks(from: u64, to: u64) -> String {
    between(&format!("'({from},0)'::pg_catalog.tid"), &format!("'({to},0)'::pg_catalog.tid"))
}

/// Rows in a range of blocks; the end is not included.
fn between(from: &str, to: &str) -> String {
    format!("ctid OPERATOR(pg_catalog.>=) {from} AND ctid OPERATOR(pg_catalog.<) {to}")
}

fn bound_blocks() -> String {
    between("$1::pg_catalog.text::pg_catalog.tid", "$2::pg_catalog.text::pg_catalog.tid")
}

fn bound<'q>(sql: String, place: &Place, size: u64) -> Query<'q, Postgres, PgArguments> {
    bind(pg::query(sql), place, size)
}

/// Binds `place` and `size` as `$1` and `$2`.
pub fn bind<'q>(query: Query<'q, Postgres, PgArguments>, place: &Place, size: u64) -> Query<'q, Postgres, PgArguments> {
    let (from, to) = match place {
        Place::Blocks(from, to) => (format!("({from},0)"), format!("({to},0)")),
        Place::Key(key) | Place::Same(key, _) | Place::Past(key) => (key.clone(), size.to_string()),
    };
    query.bind(from).bind(to)
}
