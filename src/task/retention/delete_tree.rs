//! A batch with `cascade`: children first, each archived; the whole tree of a batch or nothing.

use anyhow::{Context as _, Result};
use sqlx::{PgConnection, Row as _};

use super::batch::Batch;
use super::context::Work;
use super::pick::{Place, bind};
use crate::archive::{self, Archive, BatchName, Home, Manifest, Source};
use crate::base::fault::{Fault, Kind};
use crate::base::units;
use crate::pg::{self, identifier};

impl Work<'_> {
    /// In a transaction: rows of the job's table are locked, and deleted when all rows that go with them are gone. A lock on a row of the
    /// job's table keeps new rows from referencing it.
    pub(super) async fn delete_tree(&self, connection: &mut PgConnection, place: &Place, size: u64) -> Result<Batch> {
        self.part.kept.check_visible()?;
        let picked = pg::query(format!(
            "{} SELECT (SELECT pg_catalog.array_agg(at)::pg_catalog.text FROM going), (SELECT pg_catalog.count(*) FROM going), (SELECT {} FROM picked),
                (SELECT at::pg_catalog.text FROM picked ORDER BY picked.at DESC LIMIT 1)",
            self.with(&self.pick_at(place, true)),
            self.plan.key.greatest("key")
        ));
        let row = bind(picked, place, size).fetch_one(&mut *connection).await?;
        let (places, found, last_key): (Option<String>, i64, Option<String>) =
            (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        let last_at: Option<String> = row.try_get(3)?;
        let Some(places) = places else {
            return Ok(Batch { last_at, ..self.nothing(connection, last_key).await? });
        };
        let places = format!("{}::pg_catalog.tid[]", pg::literal(&places));
        // Parents are locked first, so that no new row references a row after those that did are gone: a cascade of the database would
        // delete such a row without archiving it.
        if self.plan.tree.branches.len() > 1 {
            for branch in self.plan.tree.branches.iter().rev() {
                let which = branch.goes_with(&self.part.name, &places);
                pg::execute_counting(connection, format!("SELECT FROM {} WHERE {which} FOR UPDATE", branch.sql())).await?;
            }
        }
        let mut taken = Archived::default();
        for (number, branch) in self.plan.tree.branches.iter().enumerate() {
            let which = branch.goes_with(&self.part.name, &places);
            let target = Target { oid: branch.oid, schema: &branch.schema, name: &branch.name, from: branch.sql() };
            // Parents are restored before their children: their names sort that way.
            let number = self.plan.tree.branches.len() - number;
            let rows = self.take(connection, &target, &which, number, &mut taken).await?;
            taken.tree_rows += rows;
        }
        // If a trigger has kept a row from us, the database's own cascade would delete it with its parent, without archiving it.
        for branch in &self.plan.tree.branches {
            let which = branch.goes_with(&self.part.name, &places);
            let is_left = pg::query(format!("SELECT EXISTS (SELECT FROM {} WHERE {which})", branch.sql()));
            let is_left: bool = is_left.fetch_one(&mut *connection).await?.try_get(0)?;
            anyhow::ensure!(
                !is_left,
                "rows of {} that reference rows of {} stay because a trigger or a rule keeps them: no rows of either table were deleted",
                branch.sql(),
                self.part.name
            );
        }
        let part = self.part;
        let target = Target { oid: part.oid, schema: &part.schema, name: &part.relation, from: format!("ONLY {}", part.name) };
        let which = format!("ctid OPERATOR(pg_catalog.=) ANY ({places}) AND {}", self.plan.gate);
        let rows = self.take(connection, &target, &which, 0, &mut taken).await?;
        anyhow::ensure!(
            rows == found as u64,
            "{} of {} should have been deleted and only {rows} were: a trigger keeps some, and rows that reference them stay too",
            units::plural(found as u64, "row"),
            part.name
        );
        if self.run.cancel.is_cancelled() {
            return Err(Fault::new(Kind::Cancelled, "cancelled").into());
        }
        pg::execute(connection, "COMMIT".to_owned()).await.context("cannot commit a batch")?;
        for (name, manifest) in &taken.batches {
            let archive = self.archive.context("rows were archived")?;
            archive.complete(name, manifest).await?;
        }
        Ok(Batch { rows, found: rows, last_key, last_at, archived_bytes: taken.bytes, tree_rows: taken.tree_rows })
    }

    /// Deletes rows of one table and archives them if the job asks for it. Returns their number.
    async fn take(
        &self,
        connection: &mut PgConnection,
        target: &Target<'_>,
        which: &str,
        number: usize,
        taken: &mut Archived,
    ) -> Result<u64> {
        let delete = format!("DELETE FROM {} WHERE {which}", target.from);
        let Some(archive) = self.archive else {
            return Ok(pg::execute_counting(connection, delete).await?);
        };
        let is_there = pg::query(format!("SELECT EXISTS (SELECT FROM {} WHERE {which})", target.from));
        if !is_there.fetch_one(&mut *connection).await?.try_get::<bool, _>(0)? {
            return Ok(0);
        }
        pg::execute(connection, format!("LOCK TABLE {} IN ROW EXCLUSIVE MODE", target.from)).await?;
        let home = Home { oid: target.oid, schema: target.schema.to_owned(), name: target.name.to_owned() };
        let home = Home::of(connection, home).await?;
        let columns = archive::columns(connection, target.oid, home.oid).await?;
        let list = columns.iter().map(|column| identifier(column)).collect::<Vec<_>>().join(", ");
        let queries = vec![format!("{delete} RETURNING {list}")];
        let source = Source { schema: home.schema, table: home.name, columns, queries, steps: None };
        let name = self.name_of(archive, connection, number).await?;
        let reason = format!("with rows of {} {}", self.plan.table, self.retention.in_words());
        let manifest = Manifest::new(self.run.job.name, self.run.database, &source, &reason);
        let manifest = archive.export(connection, &source, &name, manifest, self.phase).await?;
        let exported = manifest.exported.clone();
        if exported.rows == 0 {
            archive.discard(&name).await?;
            return Ok(0);
        }
        taken.bytes += exported.bytes;
        taken.batches.push((name, manifest));
        Ok(exported.rows)
    }

    async fn name_of(&self, archive: &Archive, connection: &mut PgConnection, number: usize) -> Result<BatchName> {
        let name = archive.name(self.run.now, archive::transaction(connection).await?);
        Ok(if number == 0 { name } else { name.further(number) })
    }
}

struct Target<'a> {
    oid: i64,
    schema: &'a str,
    name: &'a str,
    /// The tables, as written after FROM.
    from: String,
}

#[derive(Default)]
struct Archived {
    batches: Vec<(BatchName, Manifest)>,
    bytes: u64,
    tree_rows: u64,
}
