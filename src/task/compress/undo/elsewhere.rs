//! Looks through the other tables of the database for values that name a dictionary.
//!
//! Their owners may have fewer rights than the login, and nobody has checked their code. A query would run it: the planner computes constants in the
//! expressions of a table's indexes and statistics. So all rows are read by COPY of the table itself, which plans nothing. It reads no view and no foreign
//! table, and a policy is an error (row_security is off); the values are of bytea, whose text PostgreSQL's own functions write.

use std::time::Duration;

use anyhow::Result;
use futures_util::TryStreamExt as _;
use sqlx::PgConnection;

use super::super::dictionary::{self, Key};
use super::super::pack::{TRAILER_BYTES, key_of};
use super::super::table::{Table, companion};
use crate::pg;
use crate::work::RunContext;

/// A column that may have compressed values; names are quoted.
#[derive(sqlx::FromRow)]
struct Column {
    oid: i64,
    table: String,
    name: String,
}

/// Returns why the dictionaries stay: values in another column need one, or could not be looked at.
pub async fn needs_one(
    connection: &mut PgConnection,
    table: &Table,
    dictionaries: &[String],
    run: &RunContext<'_>,
) -> Result<Option<String>> {
    for column in columns(connection, table).await? {
        // A session of its own: one that stops reading midway is of no use afterwards.
        let mut session = run.settings.connect().await?;
        let Column { table, name, .. } = &column;
        match names_one(&mut session, &column, dictionaries, run.job.limits.lock_timeout.0).await {
            Ok(false) => {}
            Ok(true) => return Ok(Some(format!("values of {table}.{name} need one"))),
            Err(error) => return Ok(Some(format!("values of {table}.{name} may need one, which could not be seen ({error:#})"))),
        }
    }
    Ok(None)
}

/// Returns all columns of the database, but the table's own, that may have compressed values: of bytea, domains over it, and arrays of these.
async fn columns(connection: &mut PgConnection, table: &Table) -> Result<Vec<Column>> {
    sqlx::query_as(
        r#"WITH RECURSIVE of_bytes (type) AS (
             SELECT 'bytea'::regtype::oid
             UNION SELECT t.oid FROM of_bytes JOIN pg_type e ON e.oid = type JOIN pg_type t ON t.oid = e.typarray OR t.typtype = 'd' AND t.typbasetype = e.oid)
         SELECT c.oid::bigint, format('%I.%I', n.nspname, c.relname) AS "table", quote_ident(a.attname) AS name
         FROM of_bytes JOIN pg_attribute a ON a.atttypid = type JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE c.relkind IN ('r', 'm') AND c.relpersistence <> 't' AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')
           AND a.attnum > 0 AND NOT a.attisdropped AND NOT (c.oid = $1::bigint::oid AND a.attname = $2)
         ORDER BY 2, 3"#,
    )
    .bind(table.oid)
    .bind(companion(&table.text_column.name, "_gz"))
    .fetch_all(connection)
    .await
    .map_err(pg::in_its_own_words)
}

/// Returns whether a value of the column names one of the dictionaries; an error also where the name has led to another table.
async fn names_one(session: &mut PgConnection, column: &Column, dictionaries: &[String], lock_timeout: Duration) -> Result<bool> {
    let is_one = |key: Key| {
        let name = dictionary::name(&key);
        dictionaries.iter().any(|dictionary| dictionary.contains(&name))
    };
    pg::set(session, "lock_timeout", &lock_timeout.as_millis().to_string()).await?;
    pg::execute(session, "BEGIN READ ONLY".to_owned()).await?;
    let mut rows = pg::copy_table_out(session, &column.table, &column.name).await?;
    while let Some(row) = rows.try_next().await.map_err(pg::in_its_own_words)? {
        // The server sends each row as one message.
        anyhow::ensure!(row.ends_with(b"\n"), "a row is incomplete");
        if keys(&row).any(is_one) {
            return Ok(true);
        }
    }
    drop(rows);
    let other = pg::locked::beside(session, &[column.oid]).await?;
    anyhow::ensure!(other.is_none(), "its schema was renamed or replaced meanwhile");
    Ok(false)
}

/// Returns the keys of dictionaries that the values in a row of COPY name. Each value is one run of hexadecimal digits, also within an array.
fn keys(row: &[u8]) -> impl Iterator<Item = Key> {
    row.split(|byte| !matches!(byte, b'0'..=b'9' | b'a'..=b'f')).filter_map(key_of_digits)
}

fn key_of_digits(value: &[u8]) -> Option<Key> {
    // Its first byte and its last ones say it.
    let end = value.len().checked_sub(2 * TRAILER_BYTES).filter(|end| *end >= 2)?;
    key_of(&hex::decode([&value[..2], &value[end..]].concat()).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_value_of_a_row_that_names_a_dictionary_has_its_key() {
        let key = [0xab; 16];
        let value = hex::encode([&[1, 7, 7][..], &key, &[1, 0, 0, 0]].concat());
        let row = |row: String| keys(row.as_bytes()).collect::<Vec<_>>();
        assert_eq!(row(format!("\\\\x{value}\n")), [key]);
        assert_eq!(row(format!("[2:4]={{\"\\\\\\\\x{value}\",NULL,\"\\\\\\\\x{value}\"}}\n")), [key, key]);
        for none in
            ["\\N\n".to_owned(), "\\\\x\n".to_owned(), format!("\\\\x02{}\n", &value[2..]), format!("\\\\x{}\n", &value[6..])]
        {
            assert!(row(none.clone()).is_empty(), "{none}");
        }
    }
}
