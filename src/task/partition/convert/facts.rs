//! What a table has that its successor must have too, and what keeps it from having one.

use anyhow::Result;
use chrono_tz::Tz;
use sqlx::PgConnection;

use super::super::Partition;
use super::super::calendar::partition_name;
use super::super::key::Key;
use super::super::session::Session;
use super::super::state::{self, TableName};
use super::{CHECK, NEW_KEY};
use crate::fault::{Fault, Kind};
use crate::pg::{identifier, literal};

pub struct Facts {
    pub table: TableName,
    pub column: String,
    pub key: Key,
    pub is_not_null: bool,
    pub highest: i64,
    pub now: i64,
    pub primary: Option<Primary>,
    /// The name of the index that becomes the primary key.
    pub new_key: String,
    /// Of a conversion that was killed.
    pub has_leftovers: bool,
    pub foreign_keys: Vec<Named>,
    pub triggers: Vec<Trigger>,
    pub identities: Vec<Identity>,
    pub owned_sequences: Vec<Sequence>,
    /// Statements that make views anew, on the new table.
    pub views: Vec<String>,
    pub replica_identity: Option<&'static str>,
    pub notes: Vec<String>,
}

pub struct Primary {
    pub name: String,
    pub columns: Vec<String>,
    pub has_key: bool,
}

#[derive(sqlx::FromRow)]
pub struct Named {
    pub name: String,
    pub definition: String,
}

pub struct Trigger {
    pub name: String,
    pub definition: String,
    /// How it is switched, when not as usual.
    pub state: Option<&'static str>,
}

#[derive(sqlx::FromRow)]
pub struct Sequence {
    /// Quoted.
    pub name: String,
    pub column: String,
}

#[derive(sqlx::FromRow)]
pub struct Identity {
    pub column: String,
    pub is_always: bool,
    /// Quoted, with its schema.
    pub sequence: String,
    pub options: String,
}

impl Identity {
    /// The sequence goes with the old column and comes back, under its name and with its number, on the new one.
    /// PostgreSQL 18 refuses a partition with an identity column of its own.
    pub fn hand_over(&self, old: &str, new: &str) -> String {
        let column = identifier(&self.column);
        let kind = if self.is_always { "ALWAYS" } else { "BY DEFAULT" };
        let drop = format!("ALTER TABLE {old} ALTER COLUMN {column} DROP IDENTITY");
        let add = format!(
            "ALTER TABLE {new} ALTER COLUMN {column} ADD GENERATED {kind} AS IDENTITY (SEQUENCE NAME {} {})",
            self.sequence, self.options
        );
        let body = format!(
            "DECLARE last record; given record; acl pg_catalog.aclitem[]; BEGIN
               SELECT last_value, is_called INTO last FROM {sequence};
               SELECT relacl INTO acl FROM pg_catalog.pg_class WHERE oid = {name}::pg_catalog.regclass;
               EXECUTE {};
               EXECUTE {};
               PERFORM pg_catalog.setval({name}::pg_catalog.regclass, last.last_value, last.is_called);
               FOR given IN SELECT x.privilege_type, coalesce(pg_catalog.quote_ident(r.rolname), 'PUBLIC') AS role
                   FROM pg_catalog.aclexplode(acl) x LEFT JOIN pg_catalog.pg_roles r ON r.oid = x.grantee
                   WHERE x.grantee = 0 OR r.rolname IS NOT NULL LOOP
                 EXECUTE pg_catalog.format('GRANT %s ON SEQUENCE %s TO %s', given.privilege_type, {name}, given.role);
               END LOOP;
             END",
            literal(&drop),
            literal(&add),
            sequence = self.sequence,
            name = literal(&self.sequence),
        );
        format!("DO {}", literal(&body))
    }
}

#[derive(sqlx::FromRow)]
struct Found {
    oid: i64,
    schema: String,
    name: String,
    kind: String,
    persistence: String,
    is_partition: bool,
    key_type: Option<String>,
    is_not_null: Option<bool>,
    is_generated: Option<bool>,
    replica_identity: String,
    owner: String,
    is_owner: bool,
    may_create: bool,
}

pub async fn read(partition: &Partition, zone: Tz, session: &mut Session) -> Result<Facts> {
    let connection = &mut session.connection;
    let found = find(connection, partition).await?;
    let table = TableName { oid: found.oid, schema: found.schema.clone(), name: found.name.clone() };
    let key = Key::of(&partition.column, found.key_type.as_deref().unwrap_or_default(), partition.every, partition.epoch)?;
    let obstacles = obstacles(connection, partition, &found, &table).await?;
    if !obstacles.is_empty() {
        let message = format!("{table} cannot be converted: {}", obstacles.join("; "));
        return Err(Fault::new(Kind::Configuration, message).into());
    }
    let (highest, now) = super::reach(partition, &table, key, zone, connection).await?;
    let new_key = partition_name(&table.name, NEW_KEY);
    Ok(Facts {
        column: partition.column.clone(),
        key,
        is_not_null: found.is_not_null == Some(true),
        highest,
        now,
        primary: primary(connection, &table, &partition.column).await?,
        has_leftovers: sqlx::query_scalar(
            "SELECT EXISTS (SELECT FROM pg_constraint WHERE conrelid = $1::bigint::oid AND conname = $2)
                 OR EXISTS (SELECT FROM pg_index JOIN pg_class c ON c.oid = indexrelid WHERE indrelid = $1::bigint::oid AND relname = $3)",
        )
        .bind(table.oid)
        .bind(CHECK)
        .bind(&new_key)
        .fetch_one(&mut *connection)
        .await?,
        new_key,
        foreign_keys: sqlx::query_as(
            "SELECT conname::text AS name, pg_get_constraintdef(oid) AS definition FROM pg_constraint
             WHERE conrelid = $1::bigint::oid AND contype = 'f' ORDER BY 1",
        )
        .bind(table.oid)
        .fetch_all(&mut *connection)
        .await?,
        triggers: triggers(connection, &table).await?,
        identities: identities(connection, &table).await?,
        owned_sequences: sqlx::query_as(
            "SELECT s.oid::regclass::text AS name, a.attname::text AS column FROM pg_depend d JOIN pg_class s ON s.oid = d.objid AND s.relkind = 'S'
             JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
             WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass AND d.refobjid = $1::bigint::oid AND d.deptype = 'a'",
        )
        .bind(table.oid)
        .fetch_all(&mut *connection)
        .await?,
        views: views(connection, &table).await?,
        replica_identity: match found.replica_identity.as_str() {
            "f" => Some("FULL"),
            "n" => Some("NOTHING"),
            _ => None,
        },
        notes: Vec::new(),
        table,
    })
}

async fn find(connection: &mut PgConnection, partition: &Partition) -> Result<Found> {
    let found: Option<Found> = sqlx::query_as(
        "SELECT c.oid::bigint AS oid, n.nspname::text AS schema, c.relname::text AS name, c.relkind::text AS kind,
                c.relpersistence::text AS persistence, c.relispartition AS is_partition, c.relreplident::text AS replica_identity,
                format_type(coalesce(nullif(t.typbasetype, 0), t.oid), NULL) AS key_type, a.attnotnull AS is_not_null,
                a.attgenerated <> '' AS is_generated, pg_get_userbyid(c.relowner)::text AS owner,
                pg_has_role(c.relowner, 'USAGE') AS is_owner, has_schema_privilege(n.oid, 'CREATE') AS may_create
         FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
         LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = $2 AND a.attnum > 0 AND NOT a.attisdropped
         LEFT JOIN pg_type t ON t.oid = a.atttypid
         WHERE c.oid = to_regclass($1)",
    )
    .bind(state::with_schema(&partition.table))
    .bind(&partition.column)
    .fetch_optional(connection)
    .await?;
    let refuse = |kind, message: String| Err(Fault::new(kind, message).into());
    match found {
        None => refuse(Kind::Configuration, format!("there is no table {}", partition.table)),
        Some(found) if found.kind == "p" => {
            refuse(Kind::Configuration, format!("{} is partitioned already: nothing to do", partition.table))
        }
        Some(found) if found.kind != "r" => refuse(Kind::Configuration, format!("{} is no table", partition.table)),
        Some(found) if found.key_type.is_none() => {
            refuse(Kind::Configuration, format!("{} has no column {}", partition.table, partition.column))
        }
        Some(found) if !found.is_owner || !found.may_create => refuse(
            Kind::Permission,
            format!("only {} may convert {}, with CREATE on its schema", identifier(&found.owner), partition.table),
        ),
        Some(found) => Ok(found),
    }
}

/// All at once: who has five of them does not want to find them one by one.
async fn obstacles(
    connection: &mut PgConnection,
    partition: &Partition,
    found: &Found,
    table: &TableName,
) -> Result<Vec<String>> {
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
    // Each names what it is about. What depends on the table's number, and not on its name, would go on with the old table.
    let found: Vec<String> = sqlx::query_scalar(
        "SELECT format('a foreign key refers to it: %s (%I)', conrelid::regclass, conname) FROM pg_constraint
             WHERE contype = 'f' AND confrelid = $1::bigint::oid
         UNION ALL SELECT format('its foreign key %I is NOT VALID: validate it first', conname) FROM pg_constraint
             WHERE contype = 'f' AND conrelid = $1::bigint::oid AND NOT convalidated
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
             FROM pg_publication_tables WHERE schemaname = $4 AND tablename = $5
         UNION ALL SELECT DISTINCT format('materialized view %s reads it: drop it first', r.ev_class::regclass)
             FROM pg_depend d JOIN pg_rewrite r ON r.oid = d.objid JOIN pg_class v ON v.oid = r.ev_class
             WHERE d.classid = 'pg_rewrite'::regclass AND d.refclassid = 'pg_class'::regclass AND d.refobjid = $1::bigint::oid AND v.relkind = 'm'
         UNION ALL SELECT format('it has a rule: %I', rulename) FROM pg_rules WHERE schemaname = $4 AND tablename = $5
         UNION ALL SELECT DISTINCT format('%s depends on it by more than its name', pg_describe_object(classid, objid, 0)) FROM pg_depend
             WHERE deptype = 'n' AND ((refclassid = 'pg_class'::regclass AND refobjid = $1::bigint::oid AND classid IN ('pg_proc'::regclass, 'pg_policy'::regclass)
                    AND NOT (classid = 'pg_policy'::regclass AND objid IN (SELECT oid FROM pg_policy WHERE polrelid = $1::bigint::oid)))
                OR (refclassid = 'pg_type'::regclass AND refobjid IN (SELECT reltype FROM pg_class WHERE oid = $1::bigint::oid
                      UNION SELECT typarray FROM pg_type WHERE typrelid = $1::bigint::oid)))",
    )
    .bind(table.oid)
    .bind(&partition.column)
    .bind(partition_name(&table.name, NEW_KEY))
    .bind(&table.schema)
    .bind(&table.name)
    .fetch_all(&mut *connection)
    .await?;
    obstacles.extend(found);
    if !is_not_null {
        let column = identifier(&partition.column);
        let sql = format!("SELECT 'some' FROM {} WHERE {column} IS NULL LIMIT 1", table.sql());
        if crate::pg::fetch_text(connection, sql).await?.is_some() {
            obstacles.push(format!("some of its rows have no {column}: give them one first"));
        }
    }
    Ok(obstacles)
}

async fn primary(connection: &mut PgConnection, table: &TableName, key: &str) -> Result<Option<Primary>> {
    let found: Option<(String, Vec<String>)> = sqlx::query_as(
        "SELECT conname::text, ARRAY(SELECT a.attname::text FROM unnest(conkey) WITH ORDINALITY k (attnum, n)
             JOIN pg_attribute a ON a.attrelid = conrelid AND a.attnum = k.attnum ORDER BY n)
         FROM pg_constraint WHERE conrelid = $1::bigint::oid AND contype = 'p'",
    )
    .bind(table.oid)
    .fetch_optional(connection)
    .await?;
    Ok(found.map(|(name, columns)| Primary { name, has_key: columns.iter().any(|column| column == key), columns }))
}

async fn triggers(connection: &mut PgConnection, table: &TableName) -> Result<Vec<Trigger>> {
    let found: Vec<(String, String, String)> = sqlx::query_as(
        "SELECT tgname::text, pg_get_triggerdef(oid), tgenabled::text FROM pg_trigger
         WHERE tgrelid = $1::bigint::oid AND NOT tgisinternal ORDER BY 1",
    )
    .bind(table.oid)
    .fetch_all(connection)
    .await?;
    let trigger = |(name, definition, enabled): (String, String, String)| Trigger {
        name,
        definition,
        state: match enabled.as_str() {
            "D" => Some("DISABLE"),
            "A" => Some("ENABLE ALWAYS"),
            "R" => Some("ENABLE REPLICA"),
            _ => None,
        },
    };
    Ok(found.into_iter().map(trigger).collect())
}

async fn identities(connection: &mut PgConnection, table: &TableName) -> Result<Vec<Identity>> {
    Ok(sqlx::query_as(
        "SELECT a.attname::text AS column, a.attidentity = 'a' AS is_always, s.oid::regclass::text AS sequence,
                format('INCREMENT %s MINVALUE %s MAXVALUE %s START %s CACHE %s %s', q.seqincrement, q.seqmin, q.seqmax, q.seqstart, q.seqcache,
                       CASE WHEN q.seqcycle THEN 'CYCLE' ELSE 'NO CYCLE' END) AS options
         FROM pg_attribute a JOIN pg_depend d ON d.refobjid = a.attrelid AND d.refobjsubid = a.attnum AND d.deptype = 'i'
              AND d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass
         JOIN pg_class s ON s.oid = d.objid AND s.relkind = 'S' JOIN pg_sequence q ON q.seqrelid = s.oid
         WHERE a.attrelid = $1::bigint::oid AND a.attidentity <> '' AND NOT a.attisdropped ORDER BY 1",
    )
    .bind(table.oid)
    .fetch_all(connection)
    .await?)
}

/// A view knows its table by number. Made anew from its text, in which the session's empty search_path spells all names out,
/// it reads the table that has the name now; its privileges stay.
async fn views(connection: &mut PgConnection, table: &TableName) -> Result<Vec<String>> {
    Ok(sqlx::query_scalar(
        "SELECT format('CREATE OR REPLACE VIEW %s%s AS %s', v.oid::regclass,
                       coalesce(' WITH (' || array_to_string(v.reloptions, ', ') || ')', ''), rtrim(pg_get_viewdef(v.oid), ';'))
         FROM pg_class v WHERE v.relkind = 'v' AND v.oid IN (
             SELECT r.ev_class FROM pg_depend d JOIN pg_rewrite r ON r.oid = d.objid
             WHERE d.classid = 'pg_rewrite'::regclass AND d.refclassid = 'pg_class'::regclass AND d.refobjid = $1::bigint::oid)
         ORDER BY v.oid",
    )
    .bind(table.oid)
    .fetch_all(connection)
    .await?)
}
