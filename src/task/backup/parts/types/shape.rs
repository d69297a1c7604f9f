//! The columns of a table as they were when their types were compared: behind a lock, a transaction proves that they are the same.

use anyhow::Result;
use sqlx::postgres::PgConnection;

use crate::pg::{self, literal};
use crate::task::backup::parts::names::Name;

#[derive(Debug)]
pub struct Shape {
    table: Name,
    columns: String,
}

impl Shape {
    pub async fn of(connection: &mut PgConnection, table: &Name) -> Result<Self> {
        let columns = pg::fetch_text(connection, format!("SELECT {}", columns(table))).await?.unwrap_or_default();
        Ok(Self { table: table.clone(), columns })
    }

    /// A statement that fails where columns have changed since, wherever the session finds names.
    pub fn proof(&self) -> String {
        let message = format!("columns of {} were changed since this run looked at them: run it again", self.table);
        let body = format!(
            "BEGIN IF {} OPERATOR(pg_catalog.<>) {} THEN RAISE USING MESSAGE = {}; END IF; END",
            columns(&self.table),
            literal(&self.columns),
            literal(&message)
        );
        format!("DO {}", literal(&body))
    }
}

/// SQL of a text.
fn columns(table: &Name) -> String {
    format!(
        "(SELECT coalesce(pg_catalog.string_agg(pg_catalog.concat_ws(' ', a.attname, a.atttypid, a.atttypmod), ',' ORDER BY a.attnum), '')
          FROM pg_catalog.pg_attribute a WHERE a.attrelid OPERATOR(pg_catalog.=) pg_catalog.to_regclass({})::pg_catalog.oid
           AND a.attnum OPERATOR(pg_catalog.>) 0 AND NOT a.attisdropped)",
        literal(&table.sql())
    )
}
