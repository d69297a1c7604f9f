//! Reads the current state: the table, its parts, and which rows would go. It changes nothing.

use anyhow::{Context as _, Result};
use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use super::conditions::{Terms, gate};
use super::consent::{self, Goes};
use super::estimate::estimate;
use super::facts::{Facts, refused};
use super::key::Key;
use super::keys::{Method, Retention, Subscribers};
use super::plan::{Part, Plan};
use super::references::{self, Kept};
use super::size;
use super::tree::Tree;
use super::whole::{self, Whole};
use crate::base::units::Span;
use crate::pg::table::with_schema;
use crate::pg::{self, identifier};
use crate::task::{compress, partition};
use crate::work::RunContext;

/// 0001-01-01.
const FIRST_SECOND: i64 = -62_135_596_800;

/// Above this share of the table, one walk over its blocks is cheaper than as many steps through the index: with 2 M rows of which 1.1 M
/// go, 1.0 s against 2.9 s (`make bench`).
const LARGE_SHARE: f64 = 0.10;

pub async fn make(retention: &Retention, run: &RunContext<'_>) -> Result<Plan> {
    let mut connection = run.settings.connect().await?;
    pg::set(&mut connection, "lock_timeout", "2000").await?;
    let oid: Option<i64> = sqlx::query_scalar("SELECT to_regclass($1)::oid::bigint")
        .bind(with_schema(&retention.table))
        .fetch_one(&mut connection)
        .await?;
    let oid =
        oid.ok_or_else(|| refused(format!("there is no table {} in {}", with_schema(&retention.table), run.settings.display())))?;
    run.is_checked(oid)?;
    let mut facts = Facts::read(&mut connection, oid, &retention.column).await?;
    let mut oid = oid;
    if facts.kind == "v"
        && let Some(base) = compress::base_of(&mut connection, oid).await?
    {
        // A [compress] job has replaced the table with a view.
        oid = base;
        facts = Facts::read(&mut connection, oid, &retention.column).await?;
    }
    let references = references::load(&mut connection, oid).await?;
    facts.refuse(retention)?;
    refuse_other_deeds(&mut connection, oid, &facts.sql()).await?;
    let tree = Tree::load(&mut connection, retention, &references).await?;
    references::refuse(&references, retention, &tree.oids())?;
    let has_children: bool = sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_inherits WHERE inhparent = $1::bigint::oid)")
        .bind(oid)
        .fetch_one(&mut connection)
        .await?;
    if facts.kind == "r" && has_children {
        let message = format!(
            "other tables inherit from {}, and their rows would stay: configure a job for each of those tables",
            retention.table
        );
        return Err(refused(message));
    }
    if facts.kind == "r" && retention.subscribers == Some(Subscribers::Keep) {
        let message = format!(
            "subscribers = \"keep\" is only for partitioned tables: rows that are deleted from {} are deleted at its subscribers too",
            retention.table
        );
        return Err(refused(message));
    }
    let column_type = facts.column_type.clone().unwrap_or_default();
    let key = Key::of(retention, &facts.sql(), &column_type)?;

    // The server's clock decides how old a row is.
    let now = pg::clock::agreed(&mut connection).await?;
    let zone = run.job.timezone;
    let cutoff = match retention.older_than {
        Some(older_than) => Some(cutoff(now, older_than)?),
        None => None,
    };
    let mut limit = match cutoff {
        Some(cutoff) => Some(key.at(cutoff, zone)?),
        None => None,
    };
    let mut age = retention.older_than;
    let measured = match retention.max_size {
        Some(max_size) => {
            let oids = if facts.kind == "p" { other_leaves(&mut connection, oid, None).await? } else { vec![oid] };
            let measured = size::measure(&mut connection, retention, max_size, &oids, (key, zone, now)).await?;
            limit = Some(key.lower(&mut connection, limit, measured.keeps_from.as_deref().unwrap_or(&key.start())).await?);
            age = measured.age.map(|of_size| Span(age.map_or(of_size.0, |age| age.0.max(of_size.0))));
            Some(measured)
        }
        None => None,
    };
    // When all rows stay, there is no need to walk the table.
    let all_stay = measured.as_ref().is_some_and(|measured| measured.keeps_from.is_none());
    let floor = key.floor(zone)?;
    let table = facts.sql();
    let all = if facts.kind == "p" { table.clone() } else { format!("ONLY {table}") };
    let terms = Terms { retention, key, limit: limit.as_deref(), floor: &floor, all: &all };
    if let Some((_, per)) = retention.newest() {
        check_per(&mut connection, oid, &table, per).await?;
    }
    // The condition resolves names as it would in the application.
    let mut application = run.settings.connect_for(pg::Purpose::Application).await?;
    pg::set(&mut application, "lock_timeout", "2000").await?;
    pg::set(&mut application, "row_security", "off").await?;
    pg::set(&mut application, "max_parallel_workers_per_gather", "0").await?;
    key.check(&mut application, &table, &retention.column, &column_type).await?;
    if let Some(condition) = &retention.condition {
        // It is tested by itself first: in parentheses, `a) OR (b` would also parse, as a different condition.
        pg::query(format!("EXPLAIN SELECT FROM ONLY {table} WHERE {condition}\n"))
            .fetch_all(&mut application)
            .await
            .map_err(pg::in_its_own_words)
            .context("the condition in `where` of [retention]")?;
    }
    let mut whole = Whole::default();
    let mut leaves = Vec::new();
    if facts.kind == "p" {
        whole = whole::choose(retention, run, &mut connection, &facts, &references, (key, &floor, age)).await?;
        if !whole.nothing_else && !all_stay {
            leaves = other_leaves(&mut connection, oid, whole.plan.as_ref()).await?;
        }
        anyhow::ensure!(
            !leaves.is_empty() || whole.plan.is_some() || whole.nothing_else || all_stay,
            refused(format!("{table} is partitioned and has no partition"))
        );
    }
    let mut parts = Vec::new();
    for leaf in leaves {
        let facts = Facts::read(&mut connection, leaf, &retention.column).await?;
        // Addressed by its own name, a partition's own privileges and row security apply.
        facts.refuse(retention)?;
        let of_leaf = if references.is_empty() { Vec::new() } else { references::load(&mut connection, leaf).await? };
        let kept = Kept::load(&mut connection, &of_leaf, &tree.oids()).await?;
        parts.push(part(&mut application, retention, facts, kept, &terms).await?);
    }
    if facts.kind == "r" && !all_stay {
        let kept = Kept::load(&mut connection, &references, &tree.oids()).await?;
        parts.push(part(&mut application, retention, facts.clone(), kept, &terms).await?);
    }
    let goes = Goes { condition: &terms.of(&table).goes, key, limit: limit.as_deref() };
    let consent = consent::look(retention, run, &mut application, &facts, &goes).await?;
    let mut notes = whole.notes;
    if let Some(cutoff) = cutoff.filter(|_| key.is_on_the_wall()) {
        let wall = cutoff.with_timezone(&zone).format("%Y-%m-%d %H:%M:%S");
        notes.push(format!("{} has no time zone and is read as {zone}: rows before {wall} there", identifier(&retention.column)));
    }
    if let (Some(measured), Some(max_size)) = (&measured, retention.max_size) {
        notes.push(measured.note(&table, &retention.column, max_size));
    }
    if !facts.publications.is_empty() && !whole.nothing_else {
        notes.push(format!(
            "deletes are replicated by publication {}: subscribers delete the same rows",
            facts.publications.join(", ")
        ));
    }
    notes.push("new rows reuse the space after VACUUM; the files do not shrink".to_owned());
    let mut plan = Plan {
        rows_to_go: parts.iter().map(|part| part.rows_to_go).sum(),
        whole: whole.plan,
        asks: consent.asks.clone(),
        consent,
        column: retention.column.clone(),
        start: key.start(),
        key,
        gate: retention.older_than.zip(cutoff).map_or("true".to_owned(), |(older_than, cutoff)| gate(older_than, cutoff)),
        which: retention.in_words(),
        table,
        cutoff,
        measured,
        age,
        now,
        parts,
        references,
        tree,
        triggers: facts.triggers,
        notes,
        archive: retention.archive.clone(),
        limits: run.job.limits.clone(),
    };
    plan.note_sentinels(&mut application).await?;
    Ok(plan)
}

pub(super) fn cutoff(now: DateTime<Utc>, older_than: Span) -> Result<DateTime<Utc>> {
    let cutoff = chrono::TimeDelta::from_std(older_than.0).ok().and_then(|age| now.checked_sub_signed(age));
    let cutoff = cutoff.filter(|cutoff| cutoff.timestamp() > FIRST_SECOND);
    cutoff.ok_or_else(|| refused(format!("older_than = \"{older_than}\" is outside PostgreSQL's date range")))
}

/// Checks `per`: for each row, a query counts how many newer rows have the same value.
async fn check_per(connection: &mut PgConnection, oid: i64, table: &str, per: &str) -> Result<()> {
    let (is_there, has_index): (bool, bool) = sqlx::query_as(
        "SELECT count(a.attnum) > 0, count(x.indexrelid) > 0 FROM pg_attribute a
         LEFT JOIN pg_index x ON x.indrelid = a.attrelid AND x.indkey[0] = a.attnum AND x.indisvalid AND x.indpred IS NULL
         WHERE a.attrelid = $1::bigint::oid AND a.attname = $2 AND a.attnum > 0 AND NOT a.attisdropped",
    )
    .bind(oid)
    .bind(per)
    .fetch_one(connection)
    .await?;
    let per = identifier(per);
    if !is_there {
        return Err(refused(format!("{table} has no column {per}, which `per` names")));
    }
    if !has_index {
        return Err(refused(format!(
            "no index of {table} begins with {per}, so that checking each row would read the whole table: create an index on ({per}, time column)"
        )));
    }
    Ok(())
}

/// Partitions that are not dropped as a whole.
async fn other_leaves(connection: &mut PgConnection, oid: i64, whole: Option<&partition::Plan>) -> Result<Vec<i64>> {
    let leaves: Vec<i64> = sqlx::query_scalar(
        "SELECT relid::oid::bigint FROM pg_partition_tree($1::oid::regclass) WHERE isleaf AND relid::oid <> $1::oid ORDER BY relid::regclass::text",
    )
    .bind(oid)
    .fetch_all(connection)
    .await?;
    let gone: Vec<i64> = whole.into_iter().flat_map(partition::Plan::retired).collect();
    Ok(leaves.into_iter().filter(|leaf| !gone.contains(leaf)).collect())
}

pub(super) async fn part(
    application: &mut PgConnection,
    retention: &Retention,
    facts: Facts,
    kept: Kept,
    terms: &Terms<'_>,
) -> Result<Part> {
    let name = facts.sql();
    let conditions = terms.of(&name);
    let rows_to_go = estimate(application, &name, &conditions.goes).await.context("the condition in `where` of [retention]")?;
    let rows = facts.rows as u64;
    let (method, reason) = match kept.selves.first() {
        Some(own) => (Method::Blocks, format!("it references itself ({}), and children go before their parents", own.name)),
        None if terms.limit.is_none() => (Method::Blocks, "for each row a query counts the newer ones".to_owned()),
        None => choose(retention.method, facts.index.as_deref(), rows, rows_to_go)?,
    };
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
        kept,
        conditions,
    })
}

/// Chooses how the rows are found, and says why. Pure.
pub(super) fn choose(wanted: Method, index: Option<&str>, rows: u64, rows_to_go: u64) -> Result<(Method, String)> {
    let share = if rows == 0 { 0.0 } else { rows_to_go as f64 / rows as f64 };
    let percent = format!("about {:.0} % of the rows go", share.min(1.0) * 100.0);
    Ok(match (wanted, index) {
        (Method::Index, None) => {
            return Err(refused(
                "method = \"index\", but no index begins with the column: create one, or remove `method`".to_owned(),
            ));
        }
        (Method::Blocks, _) => (Method::Blocks, "as configured".to_owned()),
        (Method::Index, Some(index)) => (Method::Index, format!("as configured, by {index}")),
        (Method::Auto, None) => (Method::Blocks, "no index begins with the column".to_owned()),
        (Method::Auto, Some(_)) if share >= LARGE_SHARE => {
            (Method::Blocks, format!("{percent}: one walk over the table is cheaper"))
        }
        (Method::Auto, Some(index)) => (Method::Index, format!("{percent}: by {index}")),
    })
}

/// Refuses a rule that does something INSTEAD of a DELETE: the rows would stay, and each run would archive them again.
async fn refuse_other_deeds(connection: &mut PgConnection, table: i64, name: &str) -> Result<()> {
    let rules: Vec<String> = sqlx::query_scalar(
        "SELECT DISTINCT w.rulename::text FROM pg_rewrite w
         WHERE w.ev_type = '4' AND w.is_instead AND w.ev_enabled <> 'D'
           AND (w.ev_class = $1::bigint::oid OR w.ev_class IN (SELECT relid FROM pg_partition_tree($1::bigint::oid::regclass))) ORDER BY 1",
    )
    .bind(table)
    .fetch_all(connection)
    .await?;
    if rules.is_empty() {
        return Ok(());
    }
    let message = format!(
        "rule {} of {name} does something INSTEAD of a DELETE: rows would be reported as deleted and stay; disable the rule or drop it",
        rules.join(", ")
    );
    Err(refused(message))
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
