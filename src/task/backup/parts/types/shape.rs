//! The columns of a table, and what their types are made of, as they were when these were compared: behind a lock, and at its end, a transaction proves that
//! they are the same. ALTER TYPE waits for no lock on the table.

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
        let message = format!(
            "columns of {} were changed, or types that they are made of, since this run looked at them: run it again",
            self.table
        );
        let body = format!(
            "BEGIN IF {} OPERATOR(pg_catalog.<>) {} THEN RAISE USING MESSAGE = {}; END IF; END",
            columns(&self.table),
            literal(&self.columns),
            literal(&message)
        );
        format!("DO {}", literal(&body))
    }
}

/// SQL of a text: the columns, and each type in them, to the last, with its attributes, base type or subtype.
fn columns(table: &Name) -> String {
    let attributes = |relation: &str| {
        format!(
            "(SELECT pg_catalog.string_agg(pg_catalog.concat_ws(' ', a.attname, a.atttypid, a.atttypmod), ',' ORDER BY a.attnum)
              FROM pg_catalog.pg_attribute a WHERE a.attrelid OPERATOR(pg_catalog.=) {relation}
               AND a.attnum OPERATOR(pg_catalog.>) 0 AND NOT a.attisdropped)"
        )
    };
    let oid = format!("pg_catalog.to_regclass({})::pg_catalog.oid", literal(&table.sql()));
    format!(
        "(WITH RECURSIVE made (oid, relation) AS (
              SELECT 0::pg_catalog.oid, {oid}
              UNION
              SELECT t.oid, t.typrelid
              FROM made
              LEFT JOIN pg_catalog.pg_type m ON m.oid OPERATOR(pg_catalog.=) made.oid
              LEFT JOIN pg_catalog.pg_range r ON made.oid OPERATOR(pg_catalog.=) r.rngtypid OR made.oid OPERATOR(pg_catalog.=) r.rngmultitypid
              LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid OPERATOR(pg_catalog.=) made.relation AND a.attnum OPERATOR(pg_catalog.>) 0 AND NOT a.attisdropped
              JOIN pg_catalog.pg_type t ON t.oid OPERATOR(pg_catalog.=) ANY (ARRAY[m.typelem, m.typbasetype, r.rngsubtype, a.atttypid])
          )
          SELECT coalesce(pg_catalog.string_agg(pg_catalog.concat_ws(' ', made.oid, t.typbasetype, t.typtypmod, {}), ';' ORDER BY made.oid), '')
          FROM made LEFT JOIN pg_catalog.pg_type t ON t.oid OPERATOR(pg_catalog.=) made.oid)",
        attributes("made.relation")
    )
}
