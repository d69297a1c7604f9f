//! Sequences behind columns of a table that rows were put back into: a sequence that is behind them would give out numbers that are taken.

use anyhow::Result;
use sqlx::postgres::PgConnection;

use super::living::{ASIDE, Living};
use crate::pg::{self, identifier, literal, qualified};

/// Moves each sequence that a column of the table owns past the largest value of that column, never back. Returns what was moved, in words.
pub async fn forward(connection: &mut PgConnection, living: &Living) -> Result<Vec<String>> {
    let owned: Vec<(String, String, String)> = sqlx::query_as(
        "WITH RECURSIVE whole AS (
             SELECT t.oid FROM pg_catalog.pg_type t
             WHERE t.oid OPERATOR(pg_catalog.=) ANY (ARRAY['pg_catalog.int2', 'pg_catalog.int4', 'pg_catalog.int8']::pg_catalog.regtype[]::pg_catalog.oid[])
             UNION SELECT d.oid FROM whole JOIN pg_catalog.pg_type d ON d.typtype OPERATOR(pg_catalog.=) 'd' AND d.typbasetype OPERATOR(pg_catalog.=) whole.oid)
         SELECT n.nspname::pg_catalog.text, s.relname::pg_catalog.text, a.attname::pg_catalog.text
         FROM pg_catalog.pg_depend d
         JOIN pg_catalog.pg_class s ON s.oid OPERATOR(pg_catalog.=) d.objid AND s.relkind OPERATOR(pg_catalog.=) 'S'
         JOIN pg_catalog.pg_sequence q ON q.seqrelid OPERATOR(pg_catalog.=) s.oid AND q.seqincrement OPERATOR(pg_catalog.>) 0 AND NOT q.seqcycle
         JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) s.relnamespace
         JOIN pg_catalog.pg_attribute a ON a.attrelid OPERATOR(pg_catalog.=) d.refobjid AND a.attnum OPERATOR(pg_catalog.=) d.refobjsubid
          AND a.atttypid OPERATOR(pg_catalog.=) ANY (ARRAY(SELECT oid FROM whole))
         WHERE d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refobjid OPERATOR(pg_catalog.=) $1::bigint::pg_catalog.oid
           AND d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass
           AND d.deptype OPERATOR(pg_catalog.=) ANY (ARRAY['a', 'i']::pg_catalog.\"char\"[])",
    )
    .bind(living.oid)
    .fetch_all(&mut *connection)
    .await?;
    let mut moved = Vec::new();
    for (schema, name, column) in owned {
        let sequence = qualified(&schema, &name);
        // In one statement: between reading and moving it, others take numbers.
        let sql = format!(
            "SELECT pg_catalog.setval({}::pg_catalog.regclass, m.most)::pg_catalog.text
             FROM (SELECT pg_catalog.max({column}::pg_catalog.int8) AS most FROM {ASIDE}) m, {sequence} s
             WHERE m.most OPERATOR(pg_catalog.>) s.last_value OR m.most OPERATOR(pg_catalog.=) s.last_value AND NOT s.is_called",
            literal(&sequence),
            column = identifier(&column),
        );
        if let Some(to) = pg::fetch_text(connection, sql).await? {
            moved.push(format!("the sequence {schema}.{name} was moved forward to {to}"));
        }
    }
    Ok(moved)
}
