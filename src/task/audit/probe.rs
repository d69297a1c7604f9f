//! Queries into the tables themselves, by name, where the catalog only raises a suspicion.

use std::time::Duration;

use anyhow::{Result, bail};
use sqlx::PgConnection;

use super::context::{AuditContext, CheckResult, Row, begin_one_of, end};
use super::trust::{Code, Trust};
use crate::base::fault::Kind;
use crate::base::units;
use crate::pg::{self, failure};

/// The limit of queries into tables for one check, whatever time it has.
const MAX_PROBES: usize = 200;
const UNDEFINED_TABLE: &str = "42P01";
/// pg_stat_statements keeps comments.
pub const MARK: &str = "/* pgtend */";

/// Queries the tables themselves where the catalog only raises a suspicion, in the order of the rows. A table that cannot be queried, or not
/// without running code that is not trusted, is unknown; so are those that are left when the time of the check is over.
pub async fn probe(
    connection: &mut PgConnection,
    context: &AuditContext<'_>,
    trust: &mut Trust,
    seen: &mut CheckResult,
) -> Result<()> {
    let (mut kept, mut refused, mut left_out) = (Vec::new(), Vec::new(), Vec::new());
    let (suspected, others): (Vec<Row>, Vec<Row>) =
        std::mem::take(&mut seen.rows).into_iter().partition(|row| row.probe.is_some() && row.unknown.is_none());
    let number = suspected.len();
    for (index, mut row) in suspected.into_iter().enumerate() {
        let (Some(sql), Some(name), Some(oid)) = (row.probe.take(), row.reads.take(), row.reads_oid) else {
            bail!("a probe of {} does not say what it reads", row.object)
        };
        if index >= MAX_PROBES || context.left().is_zero() {
            left_out.push(row.object);
            continue;
        }
        let mut tables = vec![(name, oid)];
        tables.extend(row.also_reads.take().zip(row.also_reads_oid));
        begin_one_of(connection, context, number.min(MAX_PROBES) - index).await?;
        let answer = read(connection, trust, &tables, sql).await;
        end(connection).await?;
        match answer {
            Ok(Answer::Nothing) => continue,
            Ok(Answer::Refused(name, code)) => {
                refused.push((name, code));
                continue;
            }
            Ok(Answer::Measured(text)) => {
                row.evidence.get_or_insert_default().insert("measured".to_owned(), text.into());
            }
            Err(error) => {
                let reason = reason_of_one(error, context, || format!("while reading {}", row.object))?;
                row.unknown = Some(format!("{}: {reason}", row.object));
            }
        }
        kept.push(row);
    }
    kept.extend(others);
    seen.rows = kept;
    if let Some(first) = left_out.first() {
        let limit = match context.left().is_zero() {
            true => out_of_time(context),
            false => format!("at most {MAX_PROBES} are"),
        };
        let more = units::plural(left_out.len(), "table");
        seen.unknown.push(format!("{more} of {number} were not looked into, because {limit}: {first} is the largest"));
    }
    seen.unknown.extend(trust.reasons(&refused));
    Ok(())
}

enum Answer {
    Measured(String),
    /// The suspicion is wrong, or the table is gone.
    Nothing,
    /// The table, and the code for which it is not read.
    Refused(String, Code),
}

/// Runs a query of these tables: each by its name, with the oid that the name should have.
async fn read(connection: &mut PgConnection, trust: &mut Trust, tables: &[(String, i64)], sql: String) -> Result<Answer> {
    for (name, oid) in tables {
        match lock(connection, trust, name, *oid).await? {
            Way::Open => {}
            Way::Gone => return Ok(Answer::Nothing),
            Way::Refused(code) => return Ok(Answer::Refused(name.clone(), code)),
        }
    }
    // The mark keeps it out of the statements that the audit judges.
    Ok(pg::fetch_text(connection, format!("{sql} {MARK}")).await?.map_or(Answer::Nothing, Answer::Measured))
}

/// Whether a table may be read.
pub(super) enum Way {
    Open,
    /// It is no longer there, or its name is that of another one.
    Gone,
    Refused(Code),
}

/// Locks the table `oid`, whose name is `name`, so that a query by its name reads this table and none with code that is not trusted. The lock keeps the table from being dropped, renamed or given to another owner
/// between the question whom it belongs to and the query. Nothing does the same for the name of its schema, so the schema's owner is asked
/// for as well.
pub(super) async fn lock(connection: &mut PgConnection, trust: &mut Trust, name: &str, oid: i64) -> Result<Way> {
    // Before the lock, which waits for others.
    if let Some(code) = trust.refused(connection, oid).await? {
        return Ok(Way::Refused(code));
    }
    match pg::execute(connection, format!("LOCK TABLE ONLY {name} IN ACCESS SHARE MODE")).await {
        Err(error) if pg::sql_state(&error).as_deref() == Some(UNDEFINED_TABLE) => return Ok(Way::Gone),
        locked => locked?,
    }
    let named: Option<i64> = sqlx::query_scalar("SELECT to_regclass($1)::oid::bigint")
        .bind(name)
        .fetch_one(&mut *connection)
        .await
        .map_err(pg::in_its_own_words)?;
    if named != Some(oid) {
        return Ok(Way::Gone);
    }
    if let Some(code) = trust.refused(connection, oid).await? {
        return Ok(Way::Refused(code));
    }
    Ok(Way::Open)
}

/// Says that the time of the check is over.
pub fn out_of_time(context: &AuditContext<'_>) -> String {
    format!("the check takes longer than {} (check_timeout)", units::duration(context.audit.check_timeout))
}

/// Returns the reason why a check could not be made, where it is not a defect of the check.
pub fn reason_unknown(error: &anyhow::Error, timeout: Duration) -> Option<String> {
    let said = failure::in_a_line(error);
    Some(match pg::sql_state(error).as_deref() {
        Some("57014") => format!("the time of the check did not suffice: {} (check_timeout)", units::duration(timeout)),
        Some("55P03") => format!("another session holds a lock on an object that it reads: {said}"),
        Some("42501" | "55000") => said,
        _ if failure::kind_of(error) == Some(Kind::Permission) => said,
        _ => return None,
    })
}

/// Returns the reason why nothing is known of one table, also where its answer is an error that nobody expects: one odd table must not hide what is wrong
/// with all others. Any other error is one of the connection.
pub fn reason_of_one(error: anyhow::Error, context: &AuditContext<'_>, doing: impl FnOnce() -> String) -> Result<String> {
    match reason_unknown(&error, context.audit.check_timeout) {
        Some(reason) => Ok(reason),
        None if pg::sql_state(&error).is_some() => Ok(format!("the server does not answer: {}", failure::in_a_line(&error))),
        None => Err(error.context(doing())),
    }
}
