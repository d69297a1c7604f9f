//! Turns a table in use into a partitioned one: it becomes the first partition of a new table that takes its name.
//!
//! The long steps (checking that every key lies below the bound, building the new primary key) come first, under locks that let reads and
//! writes go on. The swap, which no session may see half done, is one transaction under ACCESS EXCLUSIVE. It reads no row of the table:
//! ATTACH relies on the validated CHECK, and finds every index that it needs.
//!
//! A run that is killed before the swap leaves the CHECK `pgtend_bound` and perhaps an index `…_pgtend_key`: the next one removes both
//! first. Until then the application can't insert keys beyond the bound, at least one whole period ahead.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use chrono_tz::Tz;
use sqlx::PgConnection;

use super::calendar::{Calendar, Every, partition_name};
use super::chain::PERIODS_AHEAD;
use super::keys::Partition;
use super::{create, rights};
use crate::base::fault::{Fault, Kind};
use crate::ledger::report::Report;
use crate::live::governor::{Go, Governor};
use crate::live::session::{self, Attempt, Session};
use crate::pg::table::{Checked, with_schema};
use crate::pg::{self, identifier, literal, qualified};
use crate::work::{RunContext, Work};

mod carried;
mod conversion;
mod dependants;
mod facts;
mod meanwhile;
mod names;
mod objects;
mod obstacles;
mod source;
mod undo;
pub use conversion::{Conversion, Statement};
use conversion::{EXCLUSIVE, NONE, SHARED};
use facts::Facts;
use names::{CHECK, NEW_KEY};
pub use undo::Undo;

/// Reads the table and plans its conversion. All obstacles are one error.
async fn plan(partition: &Partition, zone: Tz, session: &mut Session) -> Result<Conversion> {
    // The surroundings are read before everything else, so that later changes are noticed.
    let oid: Option<i64> = sqlx::query_scalar("SELECT to_regclass($1)::oid::bigint")
        .bind(with_schema(&partition.table))
        .fetch_one(&mut session.connection)
        .await?;
    let surroundings = meanwhile::fingerprint(&mut session.connection, oid.unwrap_or_default()).await?;
    let facts = facts::read(partition, zone, session).await?;
    let (key, table) = (facts.key, &facts.table);
    let zone =
        if key.is_wall_clock() || matches!(partition.every, Every::Step(_)) { Tz::UTC } else { partition.zone.unwrap_or(zone) };
    let calendar = Calendar { every: partition.every, zone };
    not_far_ahead(&facts, &calendar)?;
    let bound = calendar
        .period_at(facts.highest.max(facts.now))
        .and_then(|current| calendar.after(current))
        .with_context(|| {
            Fault::new(Kind::Configuration, format!("the keys of {table} are outside the supported range (years 1 to 9998)"))
        })?
        .to;
    let child =
        partition_name(&table.name, &format!("before_{}", calendar.suffix(calendar.period_at(bound).context("a next period")?)));
    let mut conversion = Conversion {
        table: table.clone(),
        bound: key.show(bound),
        before: Vec::new(),
        swap: Vec::new(),
        rollback: Vec::new(),
        notes: facts.notes.clone(),
        partition: child.clone(),
        surroundings,
        texts: facts.views.bound.clone(),
    };
    prepare(&facts, &key.sql(bound)?, &mut conversion);
    swap(&facts, &key.sql(bound)?, &child, &mut session.connection, &mut conversion).await?;
    Ok(conversion)
}

/// Refuses keys far ahead: otherwise the first partition would reach up to a single wrong row in 2327, or to a wrong number.
fn not_far_ahead(facts: &Facts, calendar: &Calendar) -> Result<()> {
    let (key, table, column) = (facts.key, &facts.table, &facts.column);
    let Some(mut period) = calendar.period_at(facts.now) else { return Ok(()) };
    for _ in 0..PERIODS_AHEAD {
        match calendar.after(period) {
            Some(next) => period = next,
            None => return Ok(()),
        }
    }
    if facts.highest < period.to {
        return Ok(());
    }
    let of_what = if key.is_time() { "ahead" } else { "beyond its sequence" };
    let or_sequence = if key.is_time() { "" } else { ", or set the sequence" };
    let message = format!(
        "{table} has a row with {} = {}, more than {PERIODS_AHEAD} periods {of_what}, and its first partition would reach that far: \
         correct the row first{or_sequence}; SELECT * FROM {} WHERE {} >= {} shows all such rows",
        identifier(column),
        key.show(facts.highest),
        table.sql(),
        identifier(column),
        key.sql(period.to)?
    );
    Err(Fault::new(Kind::Configuration, message).into())
}

fn prepare(facts: &Facts, bound: &str, conversion: &mut Conversion) {
    let (table, column) = (facts.table.sql(), identifier(&facts.column));
    let drop_check = Statement::new(format!("ALTER TABLE {table} DROP CONSTRAINT IF EXISTS {CHECK}"), EXCLUSIVE);
    let index = qualified(&facts.table.schema, &facts.new_key);
    let drop_index = Statement::long(format!("DROP INDEX CONCURRENTLY IF EXISTS {index}"), SHARED);
    if facts.has_leftovers {
        conversion.before.extend([drop_check.clone(), drop_index.clone()]);
    }
    conversion.before.push(Statement::new(
        format!("ALTER TABLE {table} ADD CONSTRAINT {CHECK} CHECK ({column} IS NOT NULL AND {column} < {bound}) NOT VALID"),
        EXCLUSIVE,
    ));
    conversion.before.push(Statement::long(format!("ALTER TABLE {table} VALIDATE CONSTRAINT {CHECK}"), SHARED));
    conversion.rollback.push(drop_check);
    if !facts.is_not_null {
        conversion
            .notes
            .push(format!("{column} becomes NOT NULL: afterwards an INSERT without it fails, unless it has a default"));
    }
    if let Some(primary) = &facts.primary
        && !primary.has_key
    {
        let list = |columns: &[String]| columns.iter().map(|column| identifier(column)).collect::<Vec<_>>().join(", ");
        let columns = list(&primary.columns);
        let included = match primary.included.as_slice() {
            [] => String::new(),
            included => format!(" INCLUDE ({})", list(included)),
        };
        conversion.before.push(Statement::long(
            format!(
                "CREATE UNIQUE INDEX CONCURRENTLY {} ON {table} ({columns}, {column}){included}{}",
                identifier(&facts.new_key),
                primary.place
            ),
            SHARED,
        ));
        conversion.rollback.push(drop_index);
        conversion.notes.push(format!(
            "a partitioned table's primary key contains its partition key: ({columns}) becomes ({columns}, {column}). {columns} alone is \
             no longer unique, and ON CONFLICT ({columns}) finds no constraint: change the application to ({columns}, {column}) first"
        ));
    }
}

/// Plans the swap. The order matters: the key first, so that the new table is created with it; names last, so that definitions of triggers
/// and views, which name the table, refer to the new one.
async fn swap(facts: &Facts, bound: &str, child: &str, connection: &mut PgConnection, conversion: &mut Conversion) -> Result<()> {
    let (old, schema) = (&facts.table, &facts.table.schema);
    let (table, column) = (old.sql(), identifier(&facts.column));
    let new_name = partition_name(&old.name, "pgtend_new");
    let (new, child_sql) = (qualified(schema, &new_name), qualified(schema, child));
    // Readers lock a view before its table, and so does the swap: the reverse order would deadlock again and again.
    let mut sql = facts.views.locks.clone();
    sql.push(format!("LOCK TABLE ONLY {table} IN ACCESS EXCLUSIVE MODE"));
    sql.push(objects::are_the_triggers(old, &facts.triggers));
    if !facts.is_not_null {
        // This reads no rows: the validated CHECK proves it.
        sql.push(format!("ALTER TABLE {table} ALTER COLUMN {column} SET NOT NULL"));
    }
    sql.extend(exchange_of_keys(facts, &table));
    sql.push(format!(
        "CREATE TABLE {new} (LIKE {table} INCLUDING ALL EXCLUDING IDENTITY EXCLUDING STATISTICS) PARTITION BY RANGE ({column}){}",
        facts.place
    ));
    sql.push(format!("ALTER TABLE {new} DROP CONSTRAINT {CHECK}"));
    sql.extend(create::comment(connection, old, &new).await?);
    sql.extend(facts.type_comment.iter().map(|comment| format!("COMMENT ON TYPE {new} IS {}", literal(comment))));
    sql.extend(rights::privileges(connection, old, &new).await?);
    sql.extend(facts.replica_identity.iter().map(|identity| format!("ALTER TABLE {new} REPLICA IDENTITY {identity}")));
    for foreign_key in &facts.foreign_keys {
        sql.push(format!("ALTER TABLE {new} ADD CONSTRAINT {} {}", identifier(&foreign_key.name), foreign_key.definition));
    }
    for sequence in &facts.owned_sequences {
        sql.push(format!("ALTER SEQUENCE {} OWNED BY {new}.{}", sequence.name, identifier(&sequence.column)));
    }
    for identity in &facts.identities {
        sql.push(identity.hand_over(&table, &new));
    }
    sql.extend(facts.column_settings.iter().flat_map(|setting| setting.statements(&new)));
    sql.extend(facts.statistics.iter().map(objects::Statistics::rename));
    sql.extend(facts.triggers.iter().map(|trigger| format!("DROP TRIGGER {} ON {table}", identifier(&trigger.name))));
    sql.push(format!("ALTER TABLE {table} RENAME TO {}", identifier(child)));
    sql.push(format!("ALTER TABLE {new} RENAME TO {}", identifier(&old.name)));
    sql.push(format!("ALTER TABLE {table} ATTACH PARTITION {child_sql} FOR VALUES FROM (MINVALUE) TO ({bound})"));
    sql.push(format!("ALTER TABLE {child_sql} DROP CONSTRAINT {CHECK}"));
    sql.push(carried::exchange_index_names(&table, &child_sql));
    sql.extend(facts.statistics.iter().flat_map(objects::Statistics::make));
    sql.extend(facts.of_indexes.iter().cloned());
    // By now, a policy that reads its own table refers to the new one.
    sql.extend(create::policies(connection, old, &table).await?);
    sql.extend(facts.triggers.iter().flat_map(|trigger| trigger.make(&table)));
    sql.extend(facts.views.statements.iter().cloned());
    conversion.swap = sql.into_iter().map(with_its_lock).collect();
    Ok(())
}

/// Returns statements that replace the primary key by the one with the partition key, using the index that was built before.
fn exchange_of_keys(facts: &Facts, table: &str) -> Vec<String> {
    let Some(primary) = facts.primary.as_ref().filter(|primary| !primary.has_key) else { return Vec::new() };
    let name = identifier(&primary.name);
    let mut sql = vec![
        format!("ALTER TABLE {table} DROP CONSTRAINT {name}"),
        format!(
            "ALTER TABLE {table} ADD CONSTRAINT {name} PRIMARY KEY USING INDEX {}{}",
            identifier(&facts.new_key),
            primary.deferrable
        ),
    ];
    // The CLUSTER mark went with the former index.
    if facts.clustered_on.as_ref() == Some(&primary.name) {
        sql.push(format!("ALTER TABLE {table} CLUSTER ON {name}"));
    }
    sql
}

fn with_its_lock(sql: String) -> Statement {
    let lock = match sql.split(' ').next() {
        Some("LOCK") => "ACCESS EXCLUSIVE: all other sessions wait until the transaction ends",
        _ if sql.contains("FOREIGN KEY") => "SHARE ROW EXCLUSIVE on the referenced table: its writers wait as well",
        _ if sql.starts_with("ALTER VIEW ") => "ACCESS EXCLUSIVE on the view",
        _ => NONE,
    };
    Statement::new(sql, lock)
}

/// The work of `partition convert JOB`.
pub struct Convert {
    pub partition: Partition,
}

impl Convert {
    async fn session(&self, run: &RunContext<'_>) -> Result<Session> {
        Session::open(run, self.partition.lock_timeout, self.partition.give_up_after).await
    }
}

impl Work for Convert {
    type Plan = Conversion;

    async fn plan(&self, run: &RunContext<'_>) -> Result<Conversion> {
        let conversion = plan(&self.partition, run.job.timezone, &mut self.session(run).await?).await?;
        run.is_checked(conversion.table.oid)?;
        Ok(conversion)
    }

    /// Converts the table, or undoes what was done.
    async fn apply(&self, run: &RunContext<'_>, conversion: Conversion) -> Result<Report> {
        let started = Instant::now();
        let mut session = run.or_cancelled(self.session(run)).await?;
        session::exclude_other_jobs(&mut session.connection, &conversion.table).await?;
        let mut governor = run.or_cancelled(Governor::start(run, run.job.limits, Some(conversion.table.oid))).await?;
        let done = run.or_cancelled(go(&mut session, &mut governor, &conversion)).await;
        let lock_waits = session.lock_waits;
        let swap_elapsed = match done {
            Ok(swap_elapsed) => Some(swap_elapsed),
            Err(error) => {
                run.stop_if_cancelled(session.pid).await;
                drop(session);
                self.take_back(run, &conversion, error).await?;
                None
            }
        };
        let mut report = Report {
            summary: format!(
                "{} is partitioned by {}; its existing rows are in its partition {}, up to {}; next: pgtend run-job {}",
                conversion.table, self.partition.column, conversion.partition, conversion.bound, run.job.name
            ),
            warnings: conversion.notes.clone(),
            ..Report::default()
        };
        report.fact("table", conversion.table.to_string());
        report.fact("partition", conversion.partition.as_str());
        report.fact("bound", conversion.bound.as_str());
        report.fact("lock_waits", lock_waits);
        report.fact("elapsed_seconds", started.elapsed().as_secs_f64());
        report.fact("swap_seconds", swap_elapsed.map(|elapsed| elapsed.as_secs_f64()));
        governor.report(&mut report);
        Ok(report)
    }
}

impl Convert {
    /// Undoes what was done, on a new connection: the other one may be gone, or in the middle of a transaction. Returns Ok if there is
    /// nothing to undo because the swap was committed after all.
    async fn take_back(&self, run: &RunContext<'_>, conversion: &Conversion, error: anyhow::Error) -> Result<()> {
        let manually = || {
            let statements = conversion.rollback.iter().map(|statement| statement.sql.as_str()).collect::<Vec<_>>();
            format!(
                "its CHECK and index are left, and the next conversion removes them; to remove them yourself: {}",
                statements.join("; ")
            )
        };
        let mut session = match self.session(run).await {
            Ok(session) => session,
            Err(second) => return Err(error.context(format!("{}: {second:#}", manually()))),
        };
        let is_partition = "SELECT EXISTS (SELECT FROM pg_class WHERE oid = $1::bigint::oid AND relispartition)";
        match sqlx::query_scalar(is_partition).bind(conversion.table.oid).fetch_one(&mut session.connection).await {
            Ok(true) => return Ok(()),
            Ok(false) => {}
            Err(second) => return Err(error.context(format!("{}: {second}", manually()))),
        }
        tracing::warn!("undoing what was done: {error:#}");
        for statement in &conversion.rollback {
            let taken_back = async {
                match is_there(&mut session, conversion, statement).await? {
                    true => execute(&mut session, conversion, std::slice::from_ref(statement)).await,
                    false => Ok(()),
                }
            };
            if let Err(second) = taken_back.await {
                return Err(error.context(format!("{}: {second:#}", manually())));
            }
        }
        Err(error.context(format!("{} was not converted, and is as it was", conversion.table)))
    }
}

/// Returns whether a statement of the rollback has something to remove: if not, it would still ask for a lock.
async fn is_there(session: &mut Session, conversion: &Conversion, statement: &Statement) -> Result<bool> {
    let sql = "SELECT CASE WHEN $2 THEN EXISTS (SELECT FROM pg_index i JOIN pg_class c ON c.oid = indexrelid
                                             WHERE i.indrelid = $1::bigint::oid AND c.relname = $3)
                    ELSE EXISTS (SELECT FROM pg_constraint WHERE conrelid = $1::bigint::oid AND conname = $4) END";
    Ok(sqlx::query_scalar(sql)
        .bind(conversion.table.oid)
        .bind(statement.takes_long)
        .bind(partition_name(&conversion.table.name, NEW_KEY))
        .bind(CHECK)
        .fetch_one(&mut session.connection)
        .await?)
}

/// Runs all statements. Returns how long the swap took, with its waits.
async fn go(session: &mut Session, governor: &mut Governor, conversion: &Conversion) -> Result<Duration> {
    for statement in &conversion.before {
        // Reading all of the table, and writing an index, can wait while the server is under strain.
        if statement.takes_long
            && let Go::Stop(reason) = governor.go().await?
        {
            return Err(
                Fault::new(Kind::Deferred, format!("stopped for now: {reason}; next statement: {}", statement.sql)).into()
            );
        }
        execute(session, conversion, std::slice::from_ref(statement)).await?;
    }
    let started = Instant::now();
    let swap = conversion.swap.iter().map(|statement| statement.sql.clone());
    let swap = meanwhile::guarded(&conversion.table, (&conversion.surroundings, &conversion.texts), swap).into_iter();
    let swap: Vec<Statement> = swap.map(|sql| Statement::new(sql, NONE)).collect();
    execute(session, conversion, &swap).await?;
    Ok(started.elapsed())
}

async fn execute(session: &mut Session, conversion: &Conversion, statements: &[Statement]) -> Result<()> {
    let started = Instant::now();
    if let [statement] = statements
        && statement.takes_long
    {
        // No session waits behind it, so it may wait for others as long as it takes.
        for name in ["lock_timeout", "statement_timeout"] {
            pg::set(&mut session.connection, name, "0").await?;
        }
        let result = match statement.sql.contains(" VALIDATE CONSTRAINT ") {
            // It calls functions that the owner can write.
            true => {
                let table = [Checked::of(&conversion.table)];
                session.long("SHARE UPDATE EXCLUSIVE", &table, &statement.sql).await.map_err(pg::in_its_own_words)
            }
            false => pg::execute(&mut session.connection, statement.sql.clone()).await,
        };
        pg::set(&mut session.connection, "lock_timeout", &session.lock_timeout.as_millis().to_string()).await?;
        result.with_context(|| format!("cannot run: {}", statement.sql))?;
    } else {
        let sql: Vec<String> = statements.iter().map(|statement| statement.sql.clone()).collect();
        let done = match session.transaction(&sql, &[conversion.table.oid]).await {
            Err(error) => return Err(conversion.texts.explained(&mut session.connection, error).await),
            Ok(done) => done,
        };
        if let Attempt::Locked(who) = done {
            let message = format!(
                "{} is locked: {who}; try again when it is less busy, or with a longer `give_up_after`",
                conversion.table
            );
            return Err(Fault::new(Kind::Busy, message).into());
        }
    }
    let elapsed: Duration = started.elapsed();
    tracing::info!(
        "{:.1} s: {}",
        elapsed.as_secs_f64(),
        if let [statement] = statements { statement.sql.as_str() } else { "the swap" }
    );
    Ok(())
}
