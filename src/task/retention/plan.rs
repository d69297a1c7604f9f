//! What would be deleted, how, and what that sets off.

use std::fmt;

use anyhow::{Context as _, Result};
use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::PgConnection;

use super::{Method, Retention};
use crate::fault::{self, Fault, Kind};
use crate::governor::Limits;
use crate::pg::{self, identifier, literal, qualified};
use crate::task::partition::with_schema;
use crate::task::{RunContext, Work as _, partition};
use crate::units;

/// Above this share of the table, one walk over its blocks is cheaper than as many steps through the index: measured
/// with 2 M rows of which 1.1 M go, 1.0 s against 2.9 s (`make bench`).
const LARGE_SHARE: f64 = 0.10;

#[derive(Debug, Serialize)]
pub struct Plan {
    pub table: String,
    pub cutoff: DateTime<Utc>,
    /// The condition that rows meet which go; `$1` is the cutoff.
    #[serde(skip)]
    pub condition: String,
    /// The same for EXPLAIN and COPY, which take no values.
    #[serde(skip)]
    pub condition_without_values: String,
    /// The table, or its partitions.
    pub parts: Vec<Part>,
    /// Whole partitions that go, before rows of the others do.
    pub whole: Option<partition::Plan>,
    pub rows_to_go: u64,
    pub references: Vec<Reference>,
    pub triggers: Vec<String>,
    pub notes: Vec<String>,
    /// Of the column: timestamptz and so on.
    #[serde(skip)]
    pub column_type: String,
    archive: Option<String>,
    limits: Limits,
}

/// A table that rows are deleted from.
#[derive(Clone, Debug, Serialize)]
pub struct Part {
    pub oid: i64,
    /// Quoted.
    pub name: String,
    pub schema: String,
    pub relation: String,
    pub blocks: i64,
    pub bytes: i64,
    pub rows: u64,
    pub rows_to_go: u64,
    /// Index or Blocks.
    pub method: Method,
    pub reason: String,
}

#[derive(Clone, Debug, sqlx::FromRow, Serialize)]
pub struct Reference {
    pub name: String,
    pub referencing: String,
    /// As in pg_constraint.confdeltype.
    pub action: String,
    pub indexed: bool,
}

#[derive(Debug, sqlx::FromRow)]
struct Facts {
    oid: i64,
    schema: String,
    name: String,
    kind: String,
    rows: f64,
    blocks: i64,
    bytes: i64,
    column_type: Option<String>,
    index: Option<String>,
    can_select: bool,
    can_delete: bool,
    can_update: bool,
    row_security: bool,
    triggers: Vec<String>,
    unpublishable: bool,
    published: bool,
}

pub async fn make(retention: &Retention, run: &RunContext<'_>) -> Result<Plan> {
    let mut connection = run.settings.connect().await?;
    pg::set(&mut connection, "lock_timeout", "2000").await?;
    let oid: Option<i64> = sqlx::query_scalar("SELECT to_regclass($1)::oid::bigint")
        .bind(with_schema(&retention.table))
        .fetch_one(&mut connection)
        .await?;
    let oid =
        oid.ok_or_else(|| refused(format!("there is no table {} in {}", with_schema(&retention.table), run.settings.display())))?;
    let facts = facts(&mut connection, oid, &retention.column).await?;
    let references: Vec<Reference> = sqlx::query_as(include_str!("references.sql")).bind(oid).fetch_all(&mut connection).await?;
    refuse(retention, &facts, &references)?;
    let has_children: bool = sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_inherits WHERE inhparent = $1::bigint::oid)")
        .bind(oid)
        .fetch_one(&mut connection)
        .await?;
    if facts.kind == "r" && has_children {
        let message = format!("tables inherit from {}, and their rows would stay: make a job of each of them", retention.table);
        return Err(refused(message));
    }

    let zone = run.job.timezone.name().to_owned();
    let column_type = facts.column_type.clone().unwrap_or_default();
    let cutoff = chrono::TimeDelta::from_std(retention.older_than.0).ok().and_then(|age| run.now.checked_sub_signed(age));
    let cutoff = cutoff.ok_or_else(|| refused(format!("older_than = \"{}\" is before all calendars", retention.older_than)))?;
    let condition = condition(retention, &column_type, &zone, "$1::pg_catalog.timestamptz");
    let literal_cutoff = format!("{}::pg_catalog.timestamptz", literal(&cutoff.to_rfc3339()));
    let condition_without_values = self::condition(retention, &column_type, &zone, &literal_cutoff);
    let table = qualified(&facts.schema, &facts.name);
    // The condition finds names as it would in the application.
    let mut application = run.settings.connect_for(pg::Purpose::Application).await?;
    pg::set(&mut application, "lock_timeout", "2000").await?;
    if let Some(condition) = &retention.condition {
        // By itself first: in parentheses, `a) OR (b` would be a condition, too, and another one.
        pg::query(format!("EXPLAIN SELECT FROM ONLY {table} WHERE {condition}\n"))
            .fetch_all(&mut application)
            .await
            .map_err(pg::in_its_own_words)
            .context("the condition in `where` of [retention]")?;
    }
    let mut parts = Vec::new();
    let mut notes = Vec::new();
    let mut whole = None;
    if facts.kind == "p" {
        match whole_partitions(retention, run, &table).await {
            Ok(found) => whole = found,
            Err(error) => {
                notes.push(format!("rows are deleted one by one from old partitions, too: {}", fault::in_a_line(&error)))
            }
        }
        let leaves: Vec<i64> = sqlx::query_scalar(
            "SELECT relid::oid::bigint FROM pg_partition_tree($1::oid::regclass) WHERE isleaf ORDER BY relid::regclass::text",
        )
        .bind(oid)
        .fetch_all(&mut connection)
        .await?;
        let gone: Vec<i64> = whole.iter().flat_map(partition::Plan::retired).collect();
        for leaf in leaves.into_iter().filter(|leaf| !gone.contains(leaf)) {
            let facts = self::facts(&mut connection, leaf, &retention.column).await?;
            // By its own name, its own privileges and row security hold.
            refuse(retention, &facts, &[])?;
            parts.push(part(&mut application, retention, facts, &condition_without_values).await?);
        }
        anyhow::ensure!(!parts.is_empty() || whole.is_some(), refused(format!("{table} is partitioned and has no partition")));
    } else {
        parts.push(part(&mut application, retention, facts_of(&facts), &condition_without_values).await?);
    }
    if facts.published {
        notes.push("deletes are published: subscribers delete the same rows".to_owned());
    }
    notes.push("the space is used again by new rows after VACUUM; the files do not shrink".to_owned());
    Ok(Plan {
        rows_to_go: parts.iter().map(|part| part.rows_to_go).sum(),
        whole,
        table,
        cutoff,
        condition,
        condition_without_values,
        parts,
        references,
        triggers: facts.triggers,
        notes,
        column_type,
        archive: retention.archive.clone(),
        limits: run.job.limits.clone(),
    })
}

impl Plan {
    /// The column's type, as SQL of ours names it.
    pub fn type_sql(&self) -> &str {
        // The others are words of the grammar, which no schema can take over.
        if self.column_type == "date" { "pg_catalog.date" } else { &self.column_type }
    }
}

/// Whole partitions that are too old: nothing with a `where`, which asks for some of their rows only. An error is the
/// reason why rows are deleted in their place.
async fn whole_partitions(retention: &Retention, run: &RunContext<'_>, table: &str) -> Result<Option<partition::Plan>> {
    if retention.condition.is_some() {
        return Ok(None);
    }
    let plan = retention.partitions(table).plan(run).await?;
    anyhow::ensure!(plan.refusals.is_empty(), plan.refusals.join("; "));
    Ok((!plan.steps.is_empty()).then_some(plan))
}

fn refused(message: String) -> anyhow::Error {
    Fault::new(Kind::Configuration, message).into()
}

async fn facts(connection: &mut PgConnection, oid: i64, column: &str) -> Result<Facts> {
    sqlx::query_as(include_str!("facts.sql"))
        .bind(oid)
        .bind(column)
        .fetch_optional(connection)
        .await?
        .context("the table was dropped just now")
}

fn facts_of(facts: &Facts) -> Facts {
    Facts {
        schema: facts.schema.clone(),
        name: facts.name.clone(),
        kind: facts.kind.clone(),
        column_type: facts.column_type.clone(),
        index: facts.index.clone(),
        triggers: facts.triggers.clone(),
        ..*facts
    }
}

/// Deletes nothing on doubt.
fn refuse(retention: &Retention, facts: &Facts, references: &[Reference]) -> Result<()> {
    let table = qualified(&facts.schema, &facts.name);
    if !matches!(facts.kind.as_str(), "r" | "p") {
        return Err(refused(format!("{table} is not a table")));
    }
    match facts.column_type.as_deref() {
        Some("timestamp with time zone" | "timestamp without time zone" | "date") => {}
        Some(other) => {
            let message =
                format!("{table}.{} is of type {other}: retention needs timestamptz, timestamp or date", retention.column);
            return Err(refused(message));
        }
        None => return Err(refused(format!("{table} has no column {}", identifier(&retention.column)))),
    }
    let missing: Vec<&str> = [("SELECT", facts.can_select), ("DELETE", facts.can_delete), ("UPDATE", facts.can_update)]
        .into_iter()
        .filter_map(|(privilege, has)| (!has).then_some(privilege))
        .collect();
    if !missing.is_empty() {
        let message = format!(
            "the role may not {0} on {table} (rows are locked before they are deleted): GRANT {0} ON {table} TO it",
            missing.join(", ")
        );
        return Err(Fault::new(Kind::Permission, message).into());
    }
    if facts.row_security {
        let message = format!(
            "row security hides rows of {table} from the role, so that old ones would stay unseen: use its owner or a role with BYPASSRLS"
        );
        return Err(Fault::new(Kind::Permission, message).into());
    }
    if facts.unpublishable {
        return Err(refused(format!(
            "{table} is published with its deletes and has no replica identity, so that PostgreSQL refuses them: ALTER TABLE {table} REPLICA IDENTITY …"
        )));
    }
    if let (Some(_), Some(reference)) =
        (&retention.archive, references.iter().find(|reference| "cnd".contains(&reference.action)))
    {
        return Err(refused(format!(
            "foreign key {} of {} changes or deletes rows there with those of {table} (ON DELETE), and they would be in no archive: \
             let them go by a job of their own and make the key NO ACTION, or leave `archive` out",
            reference.name, reference.referencing
        )));
    }
    if let Some(reference) = references.iter().find(|reference| !reference.indexed) {
        return Err(refused(format!(
            "foreign key {} of {} points at {table} without an index on its columns: each deleted row would scan {} from end to end; \
             create the index first (CREATE INDEX CONCURRENTLY)",
            reference.name, reference.referencing, reference.referencing
        )));
    }
    Ok(())
}

/// Of rows that go. `cutoff` is an expression of type timestamptz.
fn condition(retention: &Retention, column_type: &str, zone: &str, cutoff: &str) -> String {
    let column = identifier(&retention.column);
    let cutoff = match column_type {
        "timestamp with time zone" => cutoff.to_owned(),
        "date" => format!("({cutoff} AT TIME ZONE {})::pg_catalog.date", literal(zone)),
        _ => format!("({cutoff} AT TIME ZONE {})", literal(zone)),
    };
    match &retention.condition {
        // On a line of its own, so that a comment at its end comments out nothing of ours.
        Some(more) => format!("{column} OPERATOR(pg_catalog.<) {cutoff} AND (\n{more}\n)"),
        None => format!("{column} OPERATOR(pg_catalog.<) {cutoff}"),
    }
}

async fn part(application: &mut PgConnection, retention: &Retention, facts: Facts, condition: &str) -> Result<Part> {
    let name = qualified(&facts.schema, &facts.name);
    let rows_to_go = estimate(application, &name, condition).await.context("the condition in `where` of [retention]")?;
    let rows = facts.rows as u64;
    let (method, reason) = choose(retention.method, facts.index.as_deref(), rows, rows_to_go)?;
    Ok(Part {
        oid: facts.oid,
        name,
        schema: facts.schema,
        relation: facts.name,
        blocks: facts.blocks,
        bytes: facts.bytes,
        rows,
        rows_to_go,
        method,
        reason,
    })
}

/// By the planner's statistics: a count would read what is then read again.
async fn estimate(connection: &mut PgConnection, table: &str, condition: &str) -> Result<u64> {
    let sql = format!("EXPLAIN (FORMAT JSON) SELECT FROM ONLY {table} WHERE {condition}");
    let row = pg::query(sql).fetch_one(connection).await.map_err(pg::in_its_own_words)?;
    let plan: serde_json::Value = sqlx::Row::try_get(&row, 0)?;
    Ok(plan.pointer("/0/Plan/Plan Rows").and_then(serde_json::Value::as_f64).unwrap_or_default() as u64)
}

/// Pure: how the rows are found, and why.
fn choose(wanted: Method, index: Option<&str>, rows: u64, rows_to_go: u64) -> Result<(Method, String)> {
    let share = if rows == 0 { 0.0 } else { rows_to_go as f64 / rows as f64 };
    let percent = format!("about {:.0} % of the rows go", share.min(1.0) * 100.0);
    Ok(match (wanted, index) {
        (Method::Index, None) => {
            return Err(refused(
                "method = \"index\", and no index begins with the column: create one, or leave method out".to_owned(),
            ));
        }
        (Method::Blocks, _) => (Method::Blocks, "as asked for".to_owned()),
        (Method::Index, Some(index)) => (Method::Index, format!("as asked for, by {index}")),
        (Method::Auto, None) => (Method::Blocks, "no index begins with the column".to_owned()),
        (Method::Auto, Some(_)) if share >= LARGE_SHARE => {
            (Method::Blocks, format!("{percent}: one walk over the table is cheaper"))
        }
        (Method::Auto, Some(index)) => (Method::Index, format!("{percent}: by {index}")),
    })
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let how = if self.archive.is_some() { "archive and delete" } else { "delete" };
        writeln!(
            f,
            "Would {how} about {} of {} older than {}",
            units::plural(self.rows_to_go, "row"),
            self.table,
            self.cutoff.format("%Y-%m-%d %H:%M:%S UTC")
        )?;
        for step in self.whole.iter().flat_map(|whole| &whole.steps) {
            writeln!(f, "  {}: {}", step.step, step.reason)?;
        }
        for part in &self.parts {
            let size = units::bytes(part.bytes as u64);
            let method = if part.method == Method::Index { "through the index" } else { "block range by block range" };
            writeln!(
                f,
                "  {}: about {} of {} ({size}), {method} ({})",
                part.name,
                units::count(part.rows_to_go),
                units::plural(part.rows, "row"),
                part.reason
            )?;
        }
        if let Some(store) = &self.archive {
            writeln!(f, "  archive: each batch is written to store {store} and read back before its rows are deleted")?;
        }
        for reference in &self.references {
            let what = match reference.action.as_str() {
                "c" => "its rows that point here are deleted too (ON DELETE CASCADE)",
                "n" => "its columns become NULL (ON DELETE SET NULL)",
                "d" => "its columns become their defaults (ON DELETE SET DEFAULT)",
                _ => "rows that it points at cannot be deleted: the run would fail on them",
            };
            writeln!(f, "  foreign key {} of {}: {what}", reference.name, reference.referencing)?;
        }
        for trigger in &self.triggers {
            writeln!(f, "  trigger that fires: {trigger}")?;
        }
        writeln!(f, "  {}", self.limits)?;
        for note in &self.notes {
            writeln!(f, "  {note}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_share_goes_through_the_index_and_a_large_one_by_blocks() {
        let method = |wanted, index, rows, go| choose(wanted, index, rows, go).map(|(method, _)| method).ok();
        assert_eq!(method(Method::Auto, Some("i"), 1000, 10), Some(Method::Index));
        assert_eq!(method(Method::Auto, Some("i"), 1000, 500), Some(Method::Blocks));
        assert_eq!(method(Method::Auto, None, 1000, 10), Some(Method::Blocks));
        assert_eq!(method(Method::Index, Some("i"), 1000, 900), Some(Method::Index));
        assert_eq!(method(Method::Index, None, 1000, 10), None);
        assert_eq!(method(Method::Auto, Some("i"), 0, 0), Some(Method::Index), "never analyzed");
    }
}
