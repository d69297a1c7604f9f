//! Reads the current state: the table, its parts, and which rows would go. It changes nothing.

use anyhow::{Context as _, Result};
use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use super::conditions::{Terms, gate};
use super::consent::{self, ExpiredRows};
use super::decide;
use super::estimate::estimate;
use super::facts::{Facts, refused};
use super::key::Key;
use super::keys::{Method, Retention, Subscribers};
use super::plan::{Part, Plan};
use super::references::{self, Kept, Reference};
use super::size::{self, Measured};
use super::tree::Tree;
use super::whole::{self, WholePartitions};
use crate::base::units::Span;
use crate::pg::table::with_schema;
use crate::pg::{self, identifier};
use crate::task::partition;
use crate::work::RunContext;

/// 0001-01-01.
const FIRST_SECOND: i64 = -62_135_596_800;

/// Reads everything that the plan is made of.
pub async fn make(retention: &Retention, run: &RunContext<'_>) -> Result<Plan> {
    let mut connection = run.settings.connect().await?;
    pg::set(&mut connection, "lock_timeout", "2000").await?;
    let target = Target::find(&mut connection, retention, run).await?;
    let facts = &target.facts;
    let table = facts.sql();
    let column_type = facts.column_type.clone().unwrap_or_default();
    let key = Key::of(retention, &table, &column_type)?;
    // The server's clock decides how old a row is.
    let now = pg::clock::agreed(&mut connection).await?;
    let expiry = Expiry::find(&mut connection, retention, run, &target, (key, now)).await?;
    let floor = key.floor(run.job.timezone)?;
    let all = if facts.kind == "p" { table.clone() } else { format!("ONLY {table}") };
    let terms = Terms { retention, key, limit: expiry.limit.as_deref(), floor: &floor, all: &all };
    if let Some((_, per)) = retention.newest() {
        check_per(&mut connection, target.oid, &table, per).await?;
    }
    let mut application = connect_as_application(retention, run, &table, (key, &column_type)).await?;
    let whole = match facts.kind.as_str() {
        "p" => whole::choose(retention, run, &mut connection, facts, &target.references, (key, &floor, expiry.age)).await?,
        _ => WholePartitions::default(),
    };
    let parts = parts((&mut connection, &mut application), retention, &target, (&whole, &expiry), &terms).await?;
    let expired = ExpiredRows { condition: &terms.of(&table).expired, key, limit: expiry.limit.as_deref() };
    let rule = retention.rule(key, run.job.timezone);
    let asked = consent::look(retention, run, &mut application, facts, (&expired, rule)).await?;
    let gate = retention.older_than.zip(expiry.cutoff).map_or("true".to_owned(), |(age, cutoff)| gate(age, cutoff));
    let mut plan = Plan {
        rows_to_go: parts.iter().map(|part| part.rows_to_go).sum(),
        notes: notes(retention, run, facts, (key, &expiry), &whole),
        whole: whole.plan,
        asks: asked.asks,
        consent: asked.consent,
        column: retention.column.clone(),
        start: key.start(),
        key,
        gate,
        which: retention.in_words(),
        table,
        cutoff: expiry.cutoff,
        measured: expiry.measured,
        age: expiry.age,
        now,
        parts,
        references: target.references,
        tree: target.tree,
        triggers: target.facts.triggers,
        archive: retention.archive.clone(),
        limits: run.job.limits.clone(),
    };
    plan.note_sentinels(&mut application).await?;
    Ok(plan)
}

/// The table of the job, with those that its rows are related to.
struct Target {
    oid: i64,
    facts: Facts,
    references: Vec<Reference>,
    tree: Tree,
}

impl Target {
    /// Finds the table, and refuses it where its rows cannot be deleted as the job says.
    async fn find(connection: &mut PgConnection, retention: &Retention, run: &RunContext<'_>) -> Result<Self> {
        let oid: Option<i64> = sqlx::query_scalar("SELECT to_regclass($1)::oid::bigint")
            .bind(with_schema(&retention.table))
            .fetch_one(&mut *connection)
            .await?;
        let mut oid = oid.ok_or_else(|| {
            refused(format!("there is no table {} in {}", with_schema(&retention.table), run.settings.display()))
        })?;
        run.is_checked(oid)?;
        let mut facts = Facts::read(connection, oid, &retention.column).await?;
        if facts.kind == "v"
            && let Some(base) = pg::views::table_behind(connection, oid).await?
        {
            // A [compress] job has replaced the table with a view.
            oid = base;
            facts = Facts::read(connection, oid, &retention.column).await?;
        }
        let references = references::load(connection, oid).await?;
        facts.refuse(retention)?;
        refuse_other_deeds(connection, oid, &facts.sql()).await?;
        let tree = Tree::load(connection, retention, &references).await?;
        references::refuse(&references, retention, &tree.oids())?;
        if facts.kind == "r" {
            refuse_unpartitioned(connection, retention, oid).await?;
        }
        Ok(Self { oid, facts, references, tree })
    }
}

/// Refuses a table that is not partitioned where other tables inherit from it, or where its subscribers are to keep their rows.
async fn refuse_unpartitioned(connection: &mut PgConnection, retention: &Retention, oid: i64) -> Result<()> {
    let table = &retention.table;
    let has_children: bool = sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_inherits WHERE inhparent = $1::bigint::oid)")
        .bind(oid)
        .fetch_one(connection)
        .await?;
    if has_children {
        return Err(refused(format!(
            "other tables inherit from {table}, and their rows would stay: configure a job for each of those tables"
        )));
    }
    if retention.subscribers == Some(Subscribers::Keep) {
        return Err(refused(format!(
            "subscribers = \"keep\" is only for partitioned tables: rows that are deleted from {table} are deleted at its subscribers too"
        )));
    }
    Ok(())
}

/// The limit that separates the rows that go from those that stay.
struct Expiry {
    /// Rows before this time are old enough; None where `older_than` is not set.
    cutoff: Option<DateTime<Utc>>,
    /// The smallest value of the column that is young enough to stay, as SQL.
    limit: Option<String>,
    /// The age at which a partition goes.
    age: Option<Span>,
    /// The size of the table, where `max_size` is set.
    measured: Option<Measured>,
}

impl Expiry {
    async fn find(
        connection: &mut PgConnection,
        retention: &Retention,
        run: &RunContext<'_>,
        target: &Target,
        (key, now): (Key, DateTime<Utc>),
    ) -> Result<Self> {
        let zone = run.job.timezone;
        let cutoff = retention.older_than.map(|older_than| cutoff(now, older_than)).transpose()?;
        let limit = cutoff.map(|cutoff| key.at(cutoff, zone)).transpose()?;
        let by_age = Self { cutoff, limit, age: retention.older_than, measured: None };
        let Some(max_size) = retention.max_size else { return Ok(by_age) };
        let oids = if target.facts.kind == "p" { other_leaves(connection, target.oid, None).await? } else { vec![target.oid] };
        let measured = size::measure(connection, retention, max_size, &oids, (key, zone, now)).await?;
        let keeps_from = measured.keeps_from.clone().unwrap_or_else(|| key.start());
        Ok(Self {
            cutoff,
            limit: Some(key.lower(connection, by_age.limit, &keeps_from).await?),
            age: measured.age.map(|of_size| Span(by_age.age.map_or(of_size.0, |age| age.0.max(of_size.0)))),
            measured: Some(measured),
        })
    }

    /// Returns whether all rows stay, so that there is no need to walk the table.
    fn all_stay(&self) -> bool {
        self.measured.as_ref().is_some_and(|measured| measured.keeps_from.is_none())
    }
}

/// Opens a session in which the condition resolves names as it would in the application, and checks the condition and the column there.
async fn connect_as_application(
    retention: &Retention,
    run: &RunContext<'_>,
    table: &str,
    (key, column_type): (Key, &str),
) -> Result<PgConnection> {
    let mut application = run.settings.connect_for(pg::Purpose::Rows).await?;
    pg::set(&mut application, "lock_timeout", "2000").await?;
    pg::set(&mut application, "row_security", "off").await?;
    pg::set(&mut application, "max_parallel_workers_per_gather", "0").await?;
    key.check(&mut application, table, &retention.column, column_type).await?;
    if let Some(condition) = &retention.condition {
        // It is tested by itself first: in parentheses, `a) OR (b` would also parse, as a different condition.
        pg::query(format!("EXPLAIN SELECT FROM ONLY {table} WHERE {condition}\n"))
            .fetch_all(&mut application)
            .await
            .map_err(pg::in_its_own_words)
            .context("the condition in `where` of [retention]")?;
    }
    Ok(application)
}

/// Returns the tables whose rows are deleted one by one: the table itself, or those of its partitions that are not dropped.
async fn parts(
    (connection, application): (&mut PgConnection, &mut PgConnection),
    retention: &Retention,
    target: &Target,
    (whole, expiry): (&WholePartitions, &Expiry),
    terms: &Terms<'_>,
) -> Result<Vec<Part>> {
    let Target { oid, facts, references, tree } = target;
    let mut parts = Vec::new();
    if facts.kind == "p" {
        let mut leaves = Vec::new();
        if !whole.nothing_else && !expiry.all_stay() {
            leaves = other_leaves(connection, *oid, whole.plan.as_ref()).await?;
        }
        anyhow::ensure!(
            !leaves.is_empty() || whole.plan.is_some() || whole.nothing_else || expiry.all_stay(),
            refused(format!("{} is partitioned and has no partition", facts.sql()))
        );
        for leaf in leaves {
            let facts = Facts::read(connection, leaf, &retention.column).await?;
            // Addressed by its own name, a partition's own privileges and row security apply.
            facts.refuse(retention)?;
            let of_leaf = if references.is_empty() { Vec::new() } else { references::load(connection, leaf).await? };
            let kept = Kept::load(connection, &of_leaf, &tree.oids()).await?;
            parts.push(part(application, retention, facts, kept, terms).await?);
        }
    }
    if facts.kind == "r" && !expiry.all_stay() {
        let kept = Kept::load(connection, references, &tree.oids()).await?;
        parts.push(part(application, retention, facts.clone(), kept, terms).await?);
    }
    Ok(parts)
}

/// Returns what people should know about the plan in addition to its numbers.
fn notes(
    retention: &Retention,
    run: &RunContext<'_>,
    facts: &Facts,
    (key, expiry): (Key, &Expiry),
    whole: &WholePartitions,
) -> Vec<String> {
    let mut notes = whole.notes.clone();
    if let Some(cutoff) = expiry.cutoff.filter(|_| key.is_wall_clock()) {
        let zone = run.job.timezone;
        let wall = cutoff.with_timezone(&zone).format("%Y-%m-%d %H:%M:%S");
        notes.push(format!("{} has no time zone and is read as {zone}: rows before {wall} there", identifier(&retention.column)));
    }
    if let (Some(measured), Some(max_size)) = (&expiry.measured, retention.max_size) {
        notes.push(measured.note(&facts.sql(), &retention.column, max_size));
    }
    if !facts.publications.is_empty() && !whole.nothing_else {
        notes.push(format!(
            "deletes are replicated by publication {}: subscribers delete the same rows",
            facts.publications.join(", ")
        ));
    }
    notes.push("new rows reuse the space after VACUUM; the files do not shrink".to_owned());
    notes
}

/// Returns the time before which rows are old enough.
fn cutoff(now: DateTime<Utc>, older_than: Span) -> Result<DateTime<Utc>> {
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

/// Returns partitions that are not dropped as a whole.
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

/// Describes a table whose rows are deleted one by one: how many go, and how they are found.
async fn part(
    application: &mut PgConnection,
    retention: &Retention,
    facts: Facts,
    kept: Kept,
    terms: &Terms<'_>,
) -> Result<Part> {
    let name = facts.sql();
    let conditions = terms.of(&name);
    let rows_to_go =
        estimate(application, &name, &conditions.expired).await.context("the condition in `where` of [retention]")?;
    let rows = facts.rows as u64;
    let (method, reason) = match kept.selves.first() {
        Some(own) => (Method::Blocks, format!("it references itself ({}), and children go before their parents", own.name)),
        None if terms.limit.is_none() => (Method::Blocks, "for each row a query counts the newer ones".to_owned()),
        None => decide::choose_method(retention.method, facts.index.as_deref(), rows, rows_to_go)?,
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

/// Refuses a rule with INSTEAD for DELETE: the rows would stay, and each run would archive them again.
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
