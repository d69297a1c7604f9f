//! All rows of a table of a set in a temporary table, where the server says which of them are wanted.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result};
use sqlx::postgres::PgConnection;
use tokio::sync::mpsc;

use super::living::{ASIDE, Column, Living};
use super::put::Rows;
use crate::base::fault::{Fault, Kind};
use crate::base::progress::Phase;
use crate::pg::{self, failure, identifier};
use crate::store::Store;
use crate::task::backup::restore::QUEUED_BATCHES;
use crate::task::backup::scan::TableData;
use crate::task::backup::script::{Step, Steps};
use crate::task::backup::set::Set;
use crate::task::backup::tokens::Statement;
use crate::task::backup::tokens::columns_of;
use crate::task::backup::{own_bytes, part};

/// Loads all rows aside. Returns how many bytes of the object were read, and the columns that the rows have.
pub async fn load(
    store: &Store,
    set: &Set,
    (living, blocks): (&Living, &[TableData]),
    connection: &mut PgConnection,
    phase: &Phase,
) -> Result<(u64, Vec<String>)> {
    make_aside(connection, living).await?;
    let (sender, steps) = mpsc::channel(QUEUED_BATCHES);
    let encoding = set.manifest.text_encoding();
    let has_own_bytes = encoding != "UTF8";
    if has_own_bytes {
        pg::set(connection, "client_encoding", encoding).await?;
    }
    let rows = Rows::new(blocks, None, sender);
    let reading = async {
        let (bytes, rows) = part::read(store, set, blocks.iter().map(part::range), phase, rows, Rows::feed).await?;
        anyhow::ensure!(rows.is_at_an_end(), "the rows of the set end inside a row");
        anyhow::Ok(bytes)
    };
    let (read, copied) = tokio::join!(reading, copy(connection, living, Steps::of(steps)));
    let read_bytes = match (read, &copied) {
        // The server did not take them, and says why.
        (Err(_), Err(error)) if !error.chain().any(|cause| cause.is::<CutShort>()) => 0,
        (read, _) => read?,
    };
    let (rows, columns) = copied?;
    let expected: u64 = blocks.iter().map(|block| block.rows).sum();
    anyhow::ensure!(rows == expected, "the set holds {rows} rows of the table, and its manifest says {expected}");
    if has_own_bytes {
        pg::set(connection, "client_encoding", "UTF8").await?;
    }
    drop_newer_columns(connection, living, &columns).await?;
    Ok((read_bytes, columns))
}

/// What a row aside is known by, while a condition chooses.
const ROW: &str = "\"pgtend row\"";

#[derive(Debug, thiserror::Error)]
#[error("the rows of the set end too early")]
struct CutShort;

/// A table with the columns of the living one, its generated ones computed as there, which nobody else sees.
async fn make_aside(connection: &mut PgConnection, living: &Living) -> Result<()> {
    pg::execute(connection, format!("CREATE TEMPORARY TABLE {ASIDE} (LIKE {} INCLUDING GENERATED)", living.name.sql())).await?;
    // A column that is newer than the set gets its values when the rows are put back.
    for column in living.columns.iter().filter(|column| column.is_not_null) {
        pg::execute(connection, format!("ALTER TABLE {ASIDE} ALTER COLUMN {} DROP NOT NULL", identifier(&column.name))).await?;
    }
    Ok(())
}

/// The set has no values of columns that are newer, and of what is computed from these: a condition that names them would take none for one.
async fn drop_newer_columns(connection: &mut PgConnection, living: &Living, of_set: &[String]) -> Result<()> {
    let is_newer = |column: &&Column| !column.is_generated && !of_set.contains(&column.name);
    let drops: Vec<String> = living
        .columns
        .iter()
        .filter(is_newer)
        .map(|column| format!("DROP COLUMN {} CASCADE", identifier(&column.name)))
        .collect();
    match drops.is_empty() {
        true => Ok(()),
        false => pg::execute(connection, format!("ALTER TABLE {ASIDE} {}", drops.join(", "))).await,
    }
}

/// Takes the steps to their end. Returns the number of rows, and their columns.
async fn copy(connection: &mut PgConnection, living: &Living, mut steps: Steps) -> Result<(u64, Vec<String>)> {
    let (mut rows, mut columns) = (0, BTreeSet::new());
    while let Some(step) = steps.next().await {
        let Step::Copy { text, .. } = step else { return Err(CutShort.into()) };
        let of_block = columns_of(&own_bytes::text(text));
        refuse_missing_columns(living, &of_block)?;
        let list = of_block.iter().map(|column| identifier(column)).collect::<Vec<_>>().join(", ");
        let list = if list.is_empty() { list } else { format!("({list})") };
        columns.extend(of_block);
        let mut copy = pg::copy_in(connection, ASIDE, &list).await?;
        loop {
            match steps.next().await {
                Some(Step::Rows(bytes)) => copy.send(bytes).await.map(drop).map_err(pg::in_its_own_words)?,
                Some(Step::RowsEnd) => break,
                _ => {
                    let _ = copy.abort("the rows end here").await;
                    return Err(CutShort.into());
                }
            }
        }
        rows += copy.finish().await.map_err(pg::in_its_own_words)?;
    }
    Ok((rows, columns.into_iter().collect()))
}

fn refuse_missing_columns(living: &Living, of_set: &[String]) -> Result<()> {
    let refused = |message: String| Err(Fault::new(Kind::Configuration, message).into());
    for name in of_set {
        match living.columns.iter().find(|column| column.name == *name) {
            None => {
                return refused(format!(
                    "{} has no column {name}, which the set has: restore beside with --as, and compare",
                    living.name
                ));
            }
            Some(column) if column.is_generated => {
                return refused(format!(
                    "{} generates its column {name}, of which the set has values: restore beside with --as, and compare",
                    living.name
                ));
            }
            Some(_) => {}
        }
    }
    Ok(())
}

/// Leaves only the rows that are wanted. The condition is the user's own SQL, and one expression.
pub async fn choose(connection: &mut PgConnection, living: &Living, condition: Option<&str>) -> Result<u64> {
    if let Some(condition) = condition {
        let alias = identifier(&living.name.name);
        if !is_one_expression(condition) {
            let message = "--where is no condition of rows: its parentheses do not match";
            return Err(Fault::new(Kind::Configuration, message).into());
        }
        let columns = columns(connection).await?;
        let list: Vec<String> = columns.iter().map(|column| format!(", {}", identifier(column))).collect();
        // A table of the set's columns alone: a temporary table's own ctid and tableoid say nothing of a living one.
        let sql = format!(
            "WITH unwanted AS MATERIALIZED (
                 SELECT {alias}.{ROW} FROM (SELECT ctid AS {ROW}{} FROM {ASIDE}) AS {alias} WHERE (\n{condition}\n) IS NOT TRUE)
             DELETE FROM {ASIDE} AS aside USING unwanted WHERE aside.ctid OPERATOR(pg_catalog.=) unwanted.{ROW}",
            list.concat()
        );
        let deleted = pg::execute_single(connection, sql).await.map_err(pg::in_its_own_words);
        deleted.map_err(|error| no_condition(error, &columns))?;
    }
    pg::execute(connection, format!("ANALYZE {ASIDE}")).await?;
    count(connection, format!("SELECT pg_catalog.count(*)::pg_catalog.text FROM {ASIDE}")).await
}

/// The columns of the rows aside.
async fn columns(connection: &mut PgConnection) -> Result<Vec<String>> {
    let columns = sqlx::query_scalar(
        "SELECT attname::pg_catalog.text FROM pg_catalog.pg_attribute WHERE attrelid OPERATOR(pg_catalog.=) pg_catalog.to_regclass($1)::pg_catalog.oid
          AND attnum OPERATOR(pg_catalog.>) 0 AND NOT attisdropped ORDER BY attnum",
    );
    Ok(columns.bind(ASIDE).fetch_all(connection).await?)
}

fn no_condition(error: anyhow::Error, columns: &[String]) -> anyhow::Error {
    match pg::sql_state(&error).as_deref() {
        // undefined_column
        Some("42703") => {
            let message = format!(
                "--where names what the rows of the set do not have: {}; their columns are {}",
                failure::in_a_line(&error),
                columns.join(", ")
            );
            Fault::new(Kind::Configuration, message).into()
        }
        _ => error.context("--where is no condition of rows of the table"),
    }
}

/// Returns whether the parentheses around it hold all of it.
fn is_one_expression(condition: &str) -> bool {
    let statement = Statement::whole(condition);
    let mut open = 0_i64;
    for at in 0..statement.tokens.len() {
        open += i64::from(statement.is_symbol(at, b'(')) - i64::from(statement.is_symbol(at, b')'));
        if open < 0 {
            return false;
        }
    }
    open == 0 && !statement.is_cut
}

/// The number that a query returns as text.
pub async fn count(connection: &mut PgConnection, sql: String) -> Result<u64> {
    pg::fetch_text(connection, sql).await?.and_then(|count| count.parse().ok()).context("the server returned no count of rows")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_stays_inside_its_parentheses() {
        for (condition, expected) in
            [("a = 1", true), ("(a) OR (b IN (1, ')'))", true), ("a) OR (b", false), ("(a", false), ("f($$)$$)", true)]
        {
            assert_eq!(is_one_expression(condition), expected, "{condition}");
        }
    }
}
