//! The transaction of a batch: how it begins, and how the rows that it has written are read again before it commits.

use anyhow::{Context as _, Result};
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row as _};

use super::super::table::Table;
use super::page::Row;
use crate::pg;

/// Begins the transaction of a batch, and proves that the table's name still means the table that was found, with the code that the run found
/// on it.
pub async fn begin(connection: &mut PgConnection, table: &Table) -> Result<()> {
    let begin = format!(
        "BEGIN ISOLATION LEVEL READ COMMITTED; LOCK TABLE ONLY {} IN ROW EXCLUSIVE MODE; {}",
        table.sql(),
        pg::table::proof([&table.checked()])
    );
    pg::execute_counting(connection, begin).await.map_err(pg::in_its_own_words)?;
    Ok(())
}

/// The rows that an UPDATE has written: the present place of each, and its former one.
pub struct Moved(Vec<(String, String)>);

impl Moved {
    /// Reads the rows of `RETURNING t.ctid::text, d.ctid`.
    pub fn of(rows: &[PgRow]) -> Result<Self> {
        let places = rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?)));
        Ok(Self(places.collect::<Result<_, sqlx::Error>>()?))
    }

    pub fn from(&self, place: &str) -> Result<&str> {
        let found = self.0.iter().find(|(to, _)| to == place);
        found.map(|(_, from)| from.as_str()).context("a row is not where it was written")
    }

    /// Reads the rows as the transaction will leave them, after all triggers, also the deferred ones. `sql` takes the places as $1.
    pub async fn read_again(&self, connection: &mut PgConnection, table: &Table, sql: String) -> Result<Vec<PgRow>> {
        pg::execute(connection, "SET CONSTRAINTS ALL IMMEDIATE".to_owned()).await.map_err(|error| {
            error.context(format!("a deferred trigger or constraint of {} raised an error: nothing was changed", table.sql()))
        })?;
        let places: Vec<&str> = self.0.iter().map(|(to, _)| to.as_str()).collect();
        let rows = pg::query(sql).bind(places).fetch_all(connection).await.map_err(pg::in_its_own_words)?;
        anyhow::ensure!(
            rows.len() == self.0.len(),
            "a trigger of {} changes or deletes rows that were just written: nothing was changed; disable it while the job runs",
            table.sql()
        );
        Ok(rows)
    }
}

/// Returns the places and xmins of a batch's rows as arrays to be bound.
pub fn places(rows: &[Row]) -> (Vec<String>, Vec<String>) {
    (rows.iter().map(|row| row.ctid.clone()).collect(), rows.iter().map(|row| row.xmin.clone()).collect())
}
