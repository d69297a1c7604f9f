//! All rows of a table of a set in a temporary table, where the server says which of them are wanted.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result};
use sqlx::postgres::PgConnection;
use tokio::sync::mpsc;

use super::living::{ASIDE, Column, Living};
use super::put::Rows;
use crate::base::fault::{Fault, Kind};
use crate::base::progress::Phase;
use crate::base::units;
use crate::pg::{self, identifier};
use crate::store::Store;
use crate::task::backup::restore::QUEUED_BATCHES;
use crate::task::backup::rows_out::columns_of;
use crate::task::backup::scan::TableData;
use crate::task::backup::script::{Step, Steps};
use crate::task::backup::set::Set;
use crate::task::backup::tokens::Statement;
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
    let database = &set.manifest.server.database;
    let has_own_bytes = database.has_no_way_to_utf8();
    if has_own_bytes {
        pg::set(connection, "client_encoding", &database.encoding).await?;
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
    refuse_rounding(connection, living).await?;
    Ok((read_bytes, columns))
}

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
    // Until it is known that nothing is rounded.
    let unlimited = living.rounding().map(|(column, _)| (column, column.unlimited_type.as_str()));
    set_types(connection, unlimited).await
}

async fn set_types(connection: &mut PgConnection, types: impl Iterator<Item = (&Column, &str)>) -> Result<()> {
    let set: Vec<String> = types.map(|(column, to)| format!("ALTER COLUMN {} TYPE {to}", identifier(&column.name))).collect();
    match set.is_empty() {
        true => Ok(()),
        false => pg::execute(connection, format!("ALTER TABLE {ASIDE} {}", set.join(", "))).await,
    }
}

/// Refuses rows with more digits than a column takes, which has fewer since: the server would round them without a word.
async fn refuse_rounding(connection: &mut PgConnection, living: &Living) -> Result<()> {
    for (column, takes) in living.rounding() {
        let name = identifier(&column.name);
        let sql = format!(
            "SELECT pg_catalog.count(*)::pg_catalog.text FROM {ASIDE} AS aside WHERE aside.{name}::{takes} OPERATOR(pg_catalog.<>) aside.{name}"
        );
        let rounded = count(connection, sql).await?;
        if rounded > 0 {
            let message = format!(
                "{}.{} is {takes} now, and {} of the set with more digits would be rounded: restore beside with --as, and compare",
                living.name,
                column.name,
                units::plural(rounded, "row")
            );
            return Err(Fault::new(Kind::Configuration, message).into());
        }
    }
    set_types(connection, living.rounding()).await
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
        let sql = format!("DELETE FROM {ASIDE} AS {alias} WHERE (\n{condition}\n) IS NOT TRUE");
        let deleted = pg::execute_single(connection, sql).await.map_err(pg::in_its_own_words);
        deleted.context("--where is no condition of rows of the table")?;
    }
    pg::execute(connection, format!("ANALYZE {ASIDE}")).await?;
    count(connection, format!("SELECT pg_catalog.count(*)::pg_catalog.text FROM {ASIDE}")).await
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
