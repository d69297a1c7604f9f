//! The properties of a table that its successor must have, too.

use anyhow::Result;
use chrono_tz::Tz;
use sqlx::PgConnection;

use super::super::calendar::partition_name;
use super::super::key::Key;
use super::names::{CHECK, NEW_KEY};
use super::{carried, dependants, obstacles};
use crate::base::fault::{Fault, Kind};
use crate::live::session::Session;
use crate::pg::table::{TableName, with_schema};
use crate::pg::{identifier, literal};
use crate::task::partition::column_settings;
use crate::task::partition::keys::Partition;

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
    /// True if a killed conversion left its CHECK or its index.
    pub has_leftovers: bool,
    pub foreign_keys: Vec<Named>,
    pub triggers: Vec<Trigger>,
    pub identities: Vec<Identity>,
    pub owned_sequences: Vec<Sequence>,
    /// Statements that recreate views on the new table.
    pub views: Vec<String>,
    /// Settings of columns, which LIKE does not copy.
    pub column_settings: Vec<column_settings::ColumnSetting>,
    pub statistics: Vec<Statistics>,
    /// Statements that carry over comments and settings of its indexes and constraints.
    pub of_indexes: Vec<String>,
    pub replica_identity: Option<&'static str>,
    /// ` USING … TABLESPACE …`, for future partitions; empty where it is the default.
    pub place: String,
    /// The comment of its row type.
    pub type_comment: Option<String>,
    /// The index that it is clustered on.
    pub clustered_on: Option<String>,
    pub notes: Vec<String>,
}

pub struct Primary {
    pub name: String,
    pub columns: Vec<String>,
    /// The columns of INCLUDE.
    pub included: Vec<String>,
    /// `DEFERRABLE …`, or nothing.
    pub deferrable: &'static str,
    /// ` WITH (…) TABLESPACE …` of its index, or nothing.
    pub place: String,
    pub has_key: bool,
}

/// Extended statistics: those of the new table get the names that people know.
#[derive(sqlx::FromRow)]
pub struct Statistics {
    /// Quoted, with its schema.
    pub name: String,
    /// Without its schema, not quoted.
    pub own_name: String,
    /// The new name of the old table's statistics.
    pub other_name: String,
    /// Names the table by the name that the new one gets in the end.
    pub definition: String,
    pub target: Option<i32>,
    pub comment: Option<String>,
    /// Quoted; None if it is the role that creates them.
    pub owner: Option<String>,
}

impl Statistics {
    pub fn rename(&self) -> String {
        format!("ALTER STATISTICS {} RENAME TO {}", self.name, identifier(&self.other_name))
    }

    pub fn make(&self) -> Vec<String> {
        let mut statements = vec![self.definition.clone()];
        statements.extend(self.target.map(|target| format!("ALTER STATISTICS {} SET STATISTICS {target}", self.name)));
        let comment = self.comment.as_ref();
        statements.extend(comment.map(|comment| format!("COMMENT ON STATISTICS {} IS {}", self.name, literal(comment))));
        statements.extend(self.owner.as_ref().map(|owner| format!("ALTER STATISTICS {} OWNER TO {owner}", self.name)));
        statements
    }
}

#[derive(sqlx::FromRow)]
pub struct Named {
    pub name: String,
    pub definition: String,
}

pub struct Trigger {
    pub name: String,
    definition: String,
    /// `DISABLE`, `ENABLE ALWAYS` or `ENABLE REPLICA`; None if it is enabled as usual.
    state: Option<&'static str>,
    comment: Option<String>,
    /// The comment of a constraint trigger's constraint.
    constraint_comment: Option<String>,
    /// The extensions that it depends on (DEPENDS ON EXTENSION), quoted.
    extensions: Vec<String>,
}

impl Trigger {
    /// Returns statements that create it on the table that has the name by then.
    pub fn make(&self, table: &str) -> Vec<String> {
        let name = identifier(&self.name);
        let mut statements = vec![self.definition.clone()];
        statements.extend(self.state.iter().map(|state| format!("ALTER TABLE {table} {state} TRIGGER {name}")));
        for (what, comment) in [("TRIGGER", &self.comment), ("CONSTRAINT", &self.constraint_comment)] {
            let comment = comment.as_ref().map(|comment| format!("COMMENT ON {what} {name} ON {table} IS {}", literal(comment)));
            statements.extend(comment);
        }
        let depends = |extension: &String| format!("ALTER TRIGGER {name} ON {table} DEPENDS ON EXTENSION {extension}");
        statements.extend(self.extensions.iter().map(depends));
        statements
    }
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
    /// Returns a statement that drops the sequence with the identity of the old column and creates it for the new one, with its name and
    /// its last number. PostgreSQL 18 refuses a partition with an identity column of its own.
    pub fn hand_over(&self, old: &str, new: &str) -> String {
        let column = identifier(&self.column);
        let kind = if self.is_always { "ALWAYS" } else { "BY DEFAULT" };
        let drop = format!("ALTER TABLE {old} ALTER COLUMN {column} DROP IDENTITY");
        let add = format!(
            "ALTER TABLE {new} ALTER COLUMN {column} ADD GENERATED {kind} AS IDENTITY (SEQUENCE NAME {} {})",
            self.sequence, self.options
        );
        let body = format!(
            "DECLARE last record; given record; acl pg_catalog.aclitem[]; note text; BEGIN
               SELECT last_value, is_called INTO last FROM {sequence};
               SELECT relacl, pg_catalog.obj_description(oid, 'pg_class') INTO acl, note FROM pg_catalog.pg_class WHERE oid = {name}::pg_catalog.regclass;
               EXECUTE {};
               EXECUTE {};
               PERFORM pg_catalog.setval({name}::pg_catalog.regclass, last.last_value, last.is_called);
               IF note IS NOT NULL THEN EXECUTE pg_catalog.format('COMMENT ON SEQUENCE %s IS %L', {name}, note); END IF;
               -- Default privileges have granted these on the new sequence.
               FOR given IN SELECT DISTINCT coalesce(pg_catalog.quote_ident(r.rolname), 'PUBLIC') AS role
                   FROM pg_catalog.pg_class c, pg_catalog.aclexplode(c.relacl) x LEFT JOIN pg_catalog.pg_roles r ON r.oid = x.grantee
                   WHERE c.oid = {name}::pg_catalog.regclass AND x.grantee <> c.relowner AND (x.grantee = 0 OR r.rolname IS NOT NULL) LOOP
                 EXECUTE pg_catalog.format('REVOKE ALL ON SEQUENCE %s FROM %s', {name}, given.role);
               END LOOP;
               FOR given IN SELECT x.privilege_type, coalesce(pg_catalog.quote_ident(r.rolname), 'PUBLIC') AS role,
                     CASE WHEN x.is_grantable AND x.grantee <> 0 THEN ' WITH GRANT OPTION' ELSE '' END AS option
                   FROM pg_catalog.aclexplode(acl) x LEFT JOIN pg_catalog.pg_roles r ON r.oid = x.grantee
                   WHERE x.grantee = 0 OR r.rolname IS NOT NULL LOOP
                 EXECUTE pg_catalog.format('GRANT %s ON SEQUENCE %s TO %s%s', given.privilege_type, {name}, given.role, given.option);
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
pub struct Found {
    oid: i64,
    schema: String,
    name: String,
    kind: String,
    pub persistence: String,
    pub is_partition: bool,
    key_type: Option<String>,
    pub is_not_null: Option<bool>,
    pub is_generated: Option<bool>,
    pub replica_identity: String,
    owner: String,
    is_owner: bool,
    may_create: bool,
}

pub async fn read(partition: &Partition, zone: Tz, session: &mut Session) -> Result<Facts> {
    let connection = &mut session.connection;
    let found = find(connection, partition).await?;
    let table = TableName { oid: found.oid, schema: found.schema.clone(), name: found.name.clone() };
    let key = Key::of(&partition.column, found.key_type.as_deref().unwrap_or_default(), partition.every, partition.epoch)?;
    let obstacles = obstacles::read(connection, partition, &found, &table).await?;
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
        owned_sequences: owned_sequences(connection, &table).await?,
        views: dependants::views(connection, &table).await?,
        column_settings: column_settings::read(connection, table.oid).await?,
        statistics: statistics(connection, &table).await?,
        of_indexes: carried::of_indexes_and_constraints(connection, &table).await?,
        replica_identity: match found.replica_identity.as_str() {
            "f" => Some("FULL"),
            "n" => Some("NOTHING"),
            _ => None,
        },
        place: place(connection, &table).await?,
        type_comment: sqlx::query_scalar("SELECT obj_description(reltype, 'pg_type') FROM pg_class WHERE oid = $1::bigint::oid")
            .bind(table.oid)
            .fetch_one(&mut *connection)
            .await?,
        clustered_on: sqlx::query_scalar(
            "SELECT relname::text FROM pg_index JOIN pg_class c ON c.oid = indexrelid WHERE indrelid = $1::bigint::oid AND indisclustered",
        )
        .bind(table.oid)
        .fetch_optional(&mut *connection)
        .await?,
        notes: what_changes(connection, &table).await?,
        table,
    })
}

/// Returns where future partitions are stored: where the table is. A partitioned table has an access method since 17; before, that of the
/// newest partition counts.
async fn place(connection: &mut PgConnection, table: &TableName) -> Result<String> {
    let (method, space): (Option<String>, Option<String>) = sqlx::query_as(
        "SELECT (SELECT quote_ident(amname) FROM pg_am WHERE oid = c.relam AND amname <> 'heap' AND current_setting('server_version_num')::int >= 170000),
                (SELECT quote_ident(spcname) FROM pg_tablespace WHERE oid = c.reltablespace)
         FROM pg_class c WHERE c.oid = $1::bigint::oid",
    )
    .bind(table.oid)
    .fetch_one(connection)
    .await?;
    Ok(method.map(|method| format!(" USING {method}")).unwrap_or_default()
        + &space.map(|space| format!(" TABLESPACE {space}")).unwrap_or_default())
}

/// Lists changes that the plan reports, and that are not obstacles.
async fn what_changes(connection: &mut PgConnection, table: &TableName) -> Result<Vec<String>> {
    Ok(sqlx::query_scalar(
        "SELECT format('it is clustered on %I: only its first partition keeps that, because a partitioned table has no CLUSTER ON; new partitions have none',
                       c.relname)
             FROM pg_index JOIN pg_class c ON c.oid = indexrelid WHERE indrelid = $1::bigint::oid AND indisclustered
         UNION ALL SELECT DISTINCT format('its foreign key %I is disabled by DISABLE TRIGGER: new partitions enforce it', k.conname)
             FROM pg_trigger t JOIN pg_constraint k ON k.oid = t.tgconstraint
             WHERE t.tgrelid = $1::bigint::oid AND t.tgisinternal AND t.tgenabled = 'D' AND k.contype = 'f'
         UNION ALL SELECT 'autovacuum analyzes partitions, but not the partitioned table itself: ANALYZE it afterwards, and from time to time'
         ORDER BY 1",
    )
    .bind(table.oid)
    .fetch_all(connection)
    .await?)
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
    .bind(with_schema(&partition.table))
    .bind(&partition.column)
    .fetch_optional(connection)
    .await?;
    let refuse = |kind, message: String| Err(Fault::new(kind, message).into());
    match found {
        None => refuse(Kind::Configuration, format!("there is no table {}", partition.table)),
        Some(found) if found.kind == "p" => {
            refuse(Kind::Configuration, format!("{} is already partitioned: there is nothing to convert", partition.table))
        }
        Some(found) if found.kind != "r" => refuse(Kind::Configuration, format!("{} is not a table", partition.table)),
        Some(found) if found.key_type.is_none() => {
            refuse(Kind::Configuration, format!("{} has no column {}", partition.table, partition.column))
        }
        Some(found) if !found.is_owner || !found.may_create => refuse(
            Kind::Permission,
            format!(
                "only its owner {} may convert {}, and needs CREATE on its schema",
                identifier(&found.owner),
                partition.table
            ),
        ),
        Some(found) => Ok(found),
    }
}

/// Name, columns, INCLUDE columns, deferrable, deferred, options and tablespace of its index.
type PrimaryRow = (String, Vec<String>, Vec<String>, bool, bool, Option<String>, Option<String>);

async fn primary(connection: &mut PgConnection, table: &TableName, key: &str) -> Result<Option<Primary>> {
    let found: Option<PrimaryRow> = sqlx::query_as(
        "SELECT conname::text, ARRAY(SELECT a.attname::text FROM unnest(conkey) WITH ORDINALITY k (attnum, n)
             JOIN pg_attribute a ON a.attrelid = conrelid AND a.attnum = k.attnum ORDER BY n),
             ARRAY(SELECT a.attname::text FROM pg_index i, unnest(i.indkey::int2[]) WITH ORDINALITY k (attnum, n)
                 JOIN pg_attribute a ON a.attrelid = $1::bigint::oid AND a.attnum = k.attnum
                 WHERE i.indexrelid = conindid AND k.n > i.indnkeyatts ORDER BY n),
             condeferrable, condeferred, array_to_string(x.reloptions, ', '), quote_ident(s.spcname)
         FROM pg_constraint JOIN pg_class x ON x.oid = conindid LEFT JOIN pg_tablespace s ON s.oid = x.reltablespace
         WHERE conrelid = $1::bigint::oid AND contype = 'p'",
    )
    .bind(table.oid)
    .fetch_optional(connection)
    .await?;
    Ok(found.map(|(name, columns, included, is_deferrable, is_deferred, options, space)| Primary {
        name,
        place: options.map(|options| format!(" WITH ({options})")).unwrap_or_default()
            + &space.map(|space| format!(" TABLESPACE {space}")).unwrap_or_default(),
        has_key: columns.iter().any(|column| column == key),
        // A key column cannot be an INCLUDE column as well.
        included: included.into_iter().filter(|column| column != key).collect(),
        columns,
        deferrable: match (is_deferrable, is_deferred) {
            (true, true) => " DEFERRABLE INITIALLY DEFERRED",
            (true, false) => " DEFERRABLE",
            _ => "",
        },
    }))
}

/// Name, definition, state, comments of the trigger and of its constraint, extensions.
type TriggerRow = (String, String, String, Option<String>, Option<String>, Vec<String>);

pub async fn triggers(connection: &mut PgConnection, table: &TableName) -> Result<Vec<Trigger>> {
    let found: Vec<TriggerRow> = sqlx::query_as(
        "SELECT tgname::text, pg_get_triggerdef(oid), tgenabled::text, obj_description(oid, 'pg_trigger'), obj_description(tgconstraint, 'pg_constraint'),
                ARRAY(SELECT quote_ident(e.extname) FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid
                      WHERE d.classid = 'pg_trigger'::regclass AND d.objid = pg_trigger.oid AND d.refclassid = 'pg_extension'::regclass AND d.deptype = 'x' ORDER BY 1)
         FROM pg_trigger WHERE tgrelid = $1::bigint::oid AND NOT tgisinternal ORDER BY 1",
    )
    .bind(table.oid)
    .fetch_all(connection)
    .await?;
    let trigger = |(name, definition, enabled, comment, constraint_comment, extensions): TriggerRow| Trigger {
        name,
        definition,
        comment,
        constraint_comment,
        extensions,
        state: match enabled.as_str() {
            "D" => Some("DISABLE"),
            "A" => Some("ENABLE ALWAYS"),
            "R" => Some("ENABLE REPLICA"),
            _ => None,
        },
    };
    Ok(found.into_iter().map(trigger).collect())
}

pub async fn statistics(connection: &mut PgConnection, table: &TableName) -> Result<Vec<Statistics>> {
    Ok(sqlx::query_as(
        "SELECT format('%I.%I', n.nspname, s.stxname) AS name, s.stxname::text AS own_name, left(s.stxname, 12) || '_' || s.oid AS other_name, pg_get_statisticsobjdef(s.oid) AS definition,
                nullif(s.stxstattarget::int, -1) AS target, obj_description(s.oid, 'pg_statistic_ext') AS comment,
                (SELECT nullif(quote_ident(rolname), quote_ident(current_user)) FROM pg_roles r WHERE r.oid IN (s.stxowner, c.relowner) AND pg_has_role(r.oid, 'USAGE')
                     AND (has_schema_privilege(r.oid, s.stxnamespace, 'CREATE') OR (SELECT rolsuper FROM pg_roles WHERE rolname = current_user))
                 ORDER BY r.oid <> s.stxowner LIMIT 1) AS owner
         FROM pg_statistic_ext s JOIN pg_namespace n ON n.oid = s.stxnamespace JOIN pg_class c ON c.oid = s.stxrelid WHERE s.stxrelid = $1::bigint::oid ORDER BY 1",
    )
    .bind(table.oid)
    .fetch_all(connection)
    .await?)
}

pub async fn owned_sequences(connection: &mut PgConnection, table: &TableName) -> Result<Vec<Sequence>> {
    Ok(sqlx::query_as(
            "SELECT s.oid::regclass::text AS name, a.attname::text AS column FROM pg_depend d JOIN pg_class s ON s.oid = d.objid AND s.relkind = 'S'
             JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
             WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass AND d.refobjid = $1::bigint::oid AND d.deptype = 'a'",
        )
        .bind(table.oid)
        .fetch_all(connection)
        .await?)
}

pub async fn identities(connection: &mut PgConnection, table: &TableName) -> Result<Vec<Identity>> {
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
