//! `partition convert --undo`: the partition that was the table becomes it again, as long as no other partition has rows.

use std::fmt;

use anyhow::{Context as _, Result};
use serde::Serialize;

use super::{carried, dependants, meanwhile, objects};
use crate::base::fault::{Fault, Kind};
use crate::ledger::report::Report;
use crate::live::session::{self, Attempt, Session};
use crate::pg::table::{TableName, with_schema};
use crate::pg::{self, identifier, literal, qualified};
use crate::task::bound::Bound;
use crate::task::partition::calendar::partition_name;
use crate::task::partition::keys::Partition;
use crate::task::remade;
use crate::work::{RunContext, Work};

/// The work of `partition convert JOB --undo`.
pub struct Undo {
    pub partition: Partition,
}

#[derive(Debug, Serialize)]
pub struct UndoPlan {
    pub table: TableName,
    /// The first partition, which becomes the table again.
    pub partition: TableName,
    /// The statements, all in one transaction.
    pub statements: Vec<String>,
    pub notes: Vec<String>,
    /// The table's surroundings when the plan was made ([`meanwhile`]).
    #[serde(skip)]
    surroundings: String,
    #[serde(skip)]
    bound: Bound,
}

impl fmt::Display for UndoPlan {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        writeln!(f, "{} becomes {} again\n\nIn one transaction, under ACCESS EXCLUSIVE:", self.partition, self.table)?;
        for statement in &self.statements {
            writeln!(f, "  {statement};")?;
        }
        for note in &self.notes {
            writeln!(f, "\nnote: {note}")?;
        }
        Ok(())
    }
}

impl Undo {
    async fn session(&self, run: &RunContext<'_>) -> Result<Session> {
        Session::open(run, self.partition.lock_timeout, self.partition.give_up_after).await
    }
}

impl Work for Undo {
    type Plan = UndoPlan;

    async fn plan(&self, run: &RunContext<'_>) -> Result<UndoPlan> {
        let back = plan(&self.partition, &mut self.session(run).await?).await?;
        run.is_checked(back.table.oid)?;
        Ok(back)
    }

    async fn apply(&self, run: &RunContext<'_>, back: UndoPlan) -> Result<Report> {
        let mut session = run.or_cancelled(self.session(run)).await?;
        session::exclude_other_jobs(&mut session.connection, &back.table).await?;
        let tables = [back.table.oid, back.partition.oid];
        let statements = meanwhile::guarded(&back.table, (&back.surroundings, &back.bound), back.statements.iter().cloned());
        let done = run.or_cancelled(session.transaction(&statements, &tables)).await;
        let done = match done {
            Err(error) => {
                run.stop_if_cancelled(session.pid).await;
                return Err(back.bound.explained(&mut session.connection, error).await);
            }
            Ok(done) => done,
        };
        if let Attempt::Locked(who) = done {
            let message = format!("{} is locked: {who}; nothing was changed", back.table);
            return Err(Fault::new(Kind::Busy, message).into());
        }
        let mut report = Report {
            summary: format!("{} is one table again: its partition {} has taken its place", back.table, back.partition),
            warnings: back.notes,
            ..Report::default()
        };
        report.fact("table", back.table.to_string());
        report.fact("lock_waits", session.lock_waits);
        Ok(report)
    }
}

async fn plan(partition: &Partition, session: &mut Session) -> Result<UndoPlan> {
    let connection = &mut session.connection;
    let refuse = |message: String| anyhow::Error::from(Fault::new(Kind::Configuration, message));
    let found: Option<(i64, String, String, String)> = sqlx::query_as(
        "SELECT c.oid::bigint, n.nspname::text, c.relname::text, c.relkind::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE c.oid = to_regclass($1)",
    )
    .bind(with_schema(&partition.table))
    .fetch_optional(&mut *connection)
    .await?;
    let (oid, schema, name, kind) = found.with_context(|| refuse(format!("there is no table {}", partition.table)))?;
    let table = TableName { oid, schema, name };
    if kind != "p" {
        return Err(refuse(format!("{table} is not partitioned: there is nothing to undo")));
    }
    let surroundings = meanwhile::fingerprint(connection, table.oid).await?;
    let partitions: Vec<(i64, String, String, String, bool)> = sqlx::query_as(
        "SELECT c.oid::bigint, n.nspname::text, c.relname::text, c.relkind::text, pg_get_expr(c.relpartbound, 0) LIKE 'FOR VALUES FROM (MINVALUE) TO %'
         FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid JOIN pg_namespace n ON n.oid = c.relnamespace WHERE i.inhparent = $1::bigint::oid ORDER BY 2, 3",
    )
    .bind(table.oid)
    .fetch_all(&mut *connection)
    .await?;
    let mut first = None;
    let mut others = Vec::new();
    for (oid, schema, name, kind, is_first) in partitions {
        let is_converted = is_first && kind == "r" && name.contains("_before_");
        let partition = TableName { oid, schema, name };
        if is_converted { first = Some(partition) } else { others.push(partition) }
    }
    let child = first.with_context(|| {
        refuse(format!(
            "{table} was not converted: it has no partition from MINVALUE on with the name that a conversion gives (_before_)"
        ))
    })?;
    for other in &others {
        let sql = format!("SELECT 'some' FROM {} LIMIT 1", other.sql());
        if pg::fetch_text(connection, sql).await?.is_some() {
            return Err(refuse(format!(
                "{other} has rows, which would be lost: a conversion can be undone only while no other partition has rows"
            )));
        }
    }
    let in_the_way = in_the_way(connection, &table, &child).await?;
    if !in_the_way.is_empty() {
        return Err(refuse(format!("the conversion of {table} cannot be undone: {}", in_the_way.join("; "))));
    }
    let (statements, bound) = statements(connection, &table, &child, &others).await?;
    let notes = vec![format!(
        "the primary key still contains {0}, and {0} stays NOT NULL: to get the former key back, use CREATE UNIQUE INDEX CONCURRENTLY and \
         ADD PRIMARY KEY USING INDEX",
        identifier(&partition.column)
    )];
    Ok(UndoPlan { table, partition: child, statements, notes, surroundings, bound })
}

/// Lists what belongs to the partitioned table, and would not belong to the one that takes its name.
async fn in_the_way(connection: &mut sqlx::PgConnection, table: &TableName, child: &TableName) -> Result<Vec<String>> {
    let mut found: Vec<String> = sqlx::query_scalar(
        "SELECT format('a foreign key refers to it: %s (%I)', conrelid::regclass, conname) FROM pg_constraint
             WHERE contype = 'f' AND confrelid = $1::bigint::oid AND conparentid = 0
         UNION ALL SELECT format('publication %I publishes it: remove it from the publication first', pubname) FROM (
             SELECT pubname FROM pg_publication_tables WHERE schemaname = $3 AND tablename = $4 OR schemaname = $5 AND tablename = $6
             UNION SELECT p.pubname FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid WHERE r.prrelid IN ($1::bigint::oid, $2::bigint::oid)) p
         UNION ALL SELECT format('its index %I exists on the partitioned table alone (ON ONLY) and would be lost: drop it, or create one like it on %s and ATTACH it',
                                 c.relname, $2::bigint::oid::regclass)
             FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid WHERE i.indrelid = $1::bigint::oid
               AND NOT EXISTS (SELECT FROM pg_inherits h JOIN pg_index below ON below.indexrelid = h.inhrelid
                               WHERE h.inhparent = c.oid AND below.indrelid = $2::bigint::oid)
         UNION ALL SELECT 'its replica identity is an index: set it to DEFAULT or FULL first' FROM pg_class WHERE oid = $1::bigint::oid AND relreplident = 'i'
         ORDER BY 1",
    )
    .bind(table.oid)
    .bind(child.oid)
    .bind(&table.schema)
    .bind(&table.name)
    .bind(&child.schema)
    .bind(&child.name)
    .fetch_all(&mut *connection)
    .await?;
    found.extend(dependants::that_cannot_follow(connection, table).await?);
    Ok(found)
}

/// Returns the statements, in the reverse order of a conversion: names first, since definitions of triggers and views name the table; and what the objects are
/// bound to that they make again.
async fn statements(
    connection: &mut sqlx::PgConnection,
    table: &TableName,
    child: &TableName,
    others: &[TableName],
) -> Result<(Vec<String>, Bound)> {
    let views = remade::views(connection, table.oid, &[child.oid], &meanwhile::TEXTS_BACK).await?;
    let triggers = objects::triggers(connection, table).await?;
    let identities = objects::identities(connection, table).await?;
    let sequences = objects::owned_sequences(connection, table).await?;
    let (name, first) = (table.sql(), child.sql());
    let old_name = partition_name(&table.name, "pgtend_old");
    let old = qualified(&table.schema, &old_name);
    let mut sql = views.locks;
    sql.push(format!("LOCK TABLE {name} IN ACCESS EXCLUSIVE MODE"));
    sql.push(objects::are_the_triggers(table, &triggers));
    for other in others {
        let check = format!(
            "BEGIN IF EXISTS (SELECT FROM {}) THEN RAISE 'a row was inserted into % in the meantime: nothing was changed', {}; END IF; \
             END",
            other.sql(),
            literal(&other.to_string())
        );
        sql.push(format!("DO {}", literal(&check)));
    }
    sql.push(carried::exchange_index_names(&first, &name));
    sql.push(format!("ALTER TABLE {name} DETACH PARTITION {first}"));
    sql.extend(
        sequences
            .iter()
            .map(|sequence| format!("ALTER SEQUENCE {} OWNED BY {first}.{}", sequence.name, identifier(&sequence.column))),
    );
    sql.extend(identities.iter().map(|identity| identity.hand_over(&name, &first)));
    sql.push(format!("ALTER TABLE {name} RENAME TO {}", identifier(&old_name)));
    sql.push(format!("ALTER TABLE {first} RENAME TO {}", identifier(&table.name)));
    sql.extend(triggers.iter().flat_map(|trigger| trigger.make(&name)));
    sql.extend(carried::back(connection, table, child).await?);
    sql.extend(views.statements);
    let statistics = carried::statistics_back(connection, table, child).await?;
    // Its empty partitions are dropped with it.
    sql.push(format!("DROP TABLE {old}"));
    sql.extend(statistics);
    Ok((sql, views.bound))
}
