//! What keeps a table from being converted.

use anyhow::Result;
use sqlx::PgConnection;

use super::dependants;
use super::facts::Found;
use super::names::NEW_KEY;
use crate::pg::table::TableName;
use crate::pg::{self, identifier};
use crate::task::partition::calendar::partition_name;
use crate::task::partition::keys::Partition;

/// All at once: who has five of them does not want to find them one by one.
pub async fn read(connection: &mut PgConnection, partition: &Partition, found: &Found, table: &TableName) -> Result<Vec<String>> {
    let mut obstacles: Vec<String> = Vec::new();
    let is_not_null = found.is_not_null == Some(true);
    for (is_so, what) in [
        (found.is_partition, "it is a partition itself"),
        (found.persistence != "p", "it is temporary or unlogged"),
        (found.is_generated == Some(true), "its partition key would be a generated column"),
        (found.replica_identity == "i", "its replica identity is an index: set it to DEFAULT or FULL first"),
    ] {
        if is_so {
            obstacles.push(what.to_owned());
        }
    }
    // Each names what it is about.
    let found: Vec<String> = sqlx::query_scalar(
        "SELECT format('a foreign key refers to it: %s (%I)', conrelid::regclass, conname) FROM pg_constraint
             WHERE contype = 'f' AND confrelid = $1::bigint::oid
         -- 18 knows constraints that are NOT ENFORCED, and gives names to NOT NULL.
         UNION ALL SELECT format('its %s %I is %s first', CASE contype WHEN 'f' THEN 'foreign key' WHEN 'c' THEN 'CHECK' ELSE 'NOT NULL' END, conname,
                                 CASE to_jsonb(k) ->> 'conenforced' WHEN 'false' THEN 'NOT ENFORCED: enforce or drop it' ELSE 'NOT VALID: validate it' END)
             FROM pg_constraint k WHERE contype IN ('f', 'c', 'n') AND conrelid = $1::bigint::oid AND NOT convalidated AND conname <> 'pgtend_bound'
         UNION ALL SELECT format('its %s %I is NO INHERIT, which a partitioned table cannot have: make it again without',
                                 CASE contype WHEN 'c' THEN 'CHECK' ELSE 'NOT NULL' END, conname)
             FROM pg_constraint WHERE contype IN ('c', 'n') AND conrelid = $1::bigint::oid AND connoinherit
         UNION ALL SELECT format('its primary key %I is WITHOUT OVERLAPS, and %I cannot be added to it: drop it first', conname, $2)
             FROM pg_constraint k WHERE contype = 'p' AND conrelid = $1::bigint::oid AND to_jsonb(k) ->> 'conperiod' = 'true'
               AND NOT (SELECT a.attnum FROM pg_attribute a WHERE a.attrelid = k.conrelid AND a.attname = $2) = ANY (k.conkey)
         UNION ALL SELECT format('it is a typed table (OF %s), which cannot be a partition: ALTER TABLE ... NOT OF first', reloftype::regtype)
             FROM pg_class WHERE oid = $1::bigint::oid AND reloftype <> 0
         UNION ALL SELECT format('it belongs to extension %I: ALTER EXTENSION %1$I DROP TABLE ... first', e.extname)
             FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid
             WHERE d.classid = 'pg_class'::regclass AND d.objid = $1::bigint::oid AND d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e'
         UNION ALL SELECT format('its row trigger %I has transition tables (REFERENCING), which a partitioned table cannot have', tgname) FROM pg_trigger
             WHERE tgrelid = $1::bigint::oid AND NOT tgisinternal AND tgtype & 1 = 1 AND (tgoldtable IS NOT NULL OR tgnewtable IS NOT NULL)
         UNION ALL SELECT DISTINCT format('view %s is grouped by its primary key, which changes: name all its columns in GROUP BY', r.ev_class::regclass)
             FROM pg_constraint k JOIN pg_depend d ON d.refclassid = 'pg_constraint'::regclass AND d.refobjid = k.oid AND d.classid = 'pg_rewrite'::regclass
             JOIN pg_rewrite r ON r.oid = d.objid WHERE k.conrelid = $1::bigint::oid
         UNION ALL SELECT format('its exclusion constraint %I cannot be kept across partitions', conname) FROM pg_constraint
             WHERE contype = 'x' AND conrelid = $1::bigint::oid
         UNION ALL SELECT format('its unique index %s does not contain %I, and would hold for each partition alone: drop it first', i.indexrelid::regclass, $2)
             FROM pg_index i WHERE i.indrelid = $1::bigint::oid AND i.indisunique AND NOT i.indisprimary AND indisvalid
               AND NOT (SELECT a.attnum FROM pg_attribute a WHERE a.attrelid = i.indrelid AND a.attname = $2) = ANY (i.indkey[0:i.indnkeyatts - 1])
               AND (SELECT relname FROM pg_class WHERE oid = i.indexrelid) <> $3
         UNION ALL SELECT format('its index %s is invalid: REINDEX or drop it first', indexrelid::regclass) FROM pg_index JOIN pg_class c ON c.oid = indexrelid
             WHERE indrelid = $1::bigint::oid AND NOT indisvalid AND relname <> $3
         UNION ALL SELECT format('%s inherits from it, or it from that', CASE WHEN inhrelid = $1::bigint::oid THEN inhparent ELSE inhrelid END::regclass)
             FROM pg_inherits WHERE inhrelid = $1::bigint::oid OR inhparent = $1::bigint::oid
         UNION ALL SELECT DISTINCT format('publication %I: take it out, or publish it through its root, when it is converted', pubname)
             FROM pg_publication_tables WHERE schemaname = $4 AND tablename = $5",
    )
    .bind(table.oid)
    .bind(&partition.column)
    .bind(partition_name(&table.name, NEW_KEY))
    .bind(&table.schema)
    .bind(&table.name)
    .fetch_all(&mut *connection)
    .await?;
    obstacles.extend(found);
    obstacles.extend(dependants::that_cannot_follow(connection, table).await?);
    if !is_not_null {
        let column = identifier(&partition.column);
        let sql = format!("SELECT 'some' FROM {} WHERE {column} IS NULL LIMIT 1", table.sql());
        if pg::fetch_text(connection, sql).await?.is_some() {
            obstacles.push(format!(
                "some of its rows have no {column}, which becomes NOT NULL: give them one first, as UPDATE {0} SET {column} = TIME WHERE {column} IS NULL, \
                 with a time before all others where nobody knows it, or archive and delete them",
                table.sql()
            ));
        }
    }
    Ok(obstacles)
}
