//! The primary key of a table that rows went back to: it tells which of a batch's rows are there.

use anyhow::Result;
use sqlx::PgConnection;
use sqlx::types::Json;

use super::restored::Place;
use crate::pg::{Operator, identifier};

/// Returns the SQL that finds the row of the table with the key of a row of `aside`. `None` when the table has no primary key (then equal rows may be
/// many), or when the batch lacks a column of it.
pub(super) async fn same_key(connection: &mut PgConnection, place: &Place, columns: &[String]) -> Result<Option<String>> {
    // Equality is that of the index: another one would find fewer rows or more. A temporal key has an index of another kind.
    let key: Vec<(String, Option<Json<Operator>>, bool)> = sqlx::query_as(
        "SELECT a.attname::pg_catalog.text, CASE WHEN o.oid IS NOT NULL THEN pg_catalog.json_build_object(
                    'name', pg_catalog.format('OPERATOR(%I.%s)', n.nspname, o.oprname), 'left', pg_catalog.format('%I.%I', ls.nspname, l.typname),
                    'right', pg_catalog.format('%I.%I', rs.nspname, r.typname)) END, c.relkind OPERATOR(pg_catalog.=) 'p'
         FROM pg_catalog.pg_index i
         JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) i.indrelid
         CROSS JOIN LATERAL pg_catalog.generate_series(0, i.indnkeyatts OPERATOR(pg_catalog.-) 1) k (place)
         JOIN pg_catalog.pg_attribute a
           ON a.attrelid OPERATOR(pg_catalog.=) i.indrelid AND a.attnum OPERATOR(pg_catalog.=) i.indkey[k.place]
         JOIN pg_catalog.pg_opclass oc ON oc.oid OPERATOR(pg_catalog.=) i.indclass[k.place]
         JOIN pg_catalog.pg_am am ON am.oid OPERATOR(pg_catalog.=) oc.opcmethod
         LEFT JOIN pg_catalog.pg_amop p
           ON p.amopfamily OPERATOR(pg_catalog.=) oc.opcfamily AND p.amoplefttype OPERATOR(pg_catalog.=) oc.opcintype
          AND p.amoprighttype OPERATOR(pg_catalog.=) oc.opcintype AND p.amopstrategy OPERATOR(pg_catalog.=) 3
          AND am.amname OPERATOR(pg_catalog.=) 'btree'
         LEFT JOIN pg_catalog.pg_operator o ON o.oid OPERATOR(pg_catalog.=) p.amopopr
         LEFT JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) o.oprnamespace
         LEFT JOIN pg_catalog.pg_type l ON l.oid OPERATOR(pg_catalog.=) o.oprleft
         LEFT JOIN pg_catalog.pg_namespace ls ON ls.oid OPERATOR(pg_catalog.=) l.typnamespace
         LEFT JOIN pg_catalog.pg_type r ON r.oid OPERATOR(pg_catalog.=) o.oprright
         LEFT JOIN pg_catalog.pg_namespace rs ON rs.oid OPERATOR(pg_catalog.=) r.typnamespace
         WHERE i.indrelid OPERATOR(pg_catalog.=) $1::bigint::pg_catalog.oid AND i.indisprimary ORDER BY k.place",
    )
    .bind(place.table)
    .fetch_all(connection)
    .await?;
    let Some((_, _, is_partitioned)) = key.first() else { return Ok(None) };
    let mut conditions = Vec::new();
    for (column, operator, _) in &key {
        let Some(operator) = operator else { return Ok(None) };
        if !columns.contains(column) {
            return Ok(None);
        }
        let column = identifier(column);
        conditions.push(operator.of(&format!("there.{column}"), &format!("aside.{column}")));
    }
    // A key spans all partitions, and not the tables that inherit.
    let only = if *is_partitioned { "" } else { "ONLY " };
    Ok(Some(format!("SELECT FROM {only}{} there WHERE {}", place.name, conditions.join(" AND "))))
}
