//! Objects of a table that its successor gets: each with the statements that create it there.

use anyhow::Result;
use sqlx::PgConnection;

use crate::pg::table::TableName;
use crate::pg::{identifier, literal};

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

/// Name, columns, INCLUDE columns, deferrable, deferred, options and tablespace of its index.
type PrimaryRow = (String, Vec<String>, Vec<String>, bool, bool, Option<String>, Option<String>);

pub async fn primary(connection: &mut PgConnection, table: &TableName, key: &str) -> Result<Option<Primary>> {
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

/// Returns a statement that fails if these are not the table's triggers by now. It belongs behind the lock: what was read of a trigger that was there for a
/// moment alone must not be made again.
pub fn are_the_triggers(table: &TableName, triggers: &[Trigger]) -> String {
    let read: Vec<String> = triggers.iter().map(|trigger| literal(&trigger.definition)).collect();
    let body = format!(
        "BEGIN IF ARRAY(SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE tgrelid = {} AND NOT tgisinternal ORDER BY tgname::text) <> ARRAY[{}]::text[] THEN
             RAISE 'the triggers of % have changed since this run read them: nothing was done; run the command again', {}; END IF; END",
        table.oid,
        read.join(", "),
        literal(&table.to_string())
    );
    format!("DO {}", literal(&body))
}

#[derive(sqlx::FromRow)]
pub struct Sequence {
    /// Quoted.
    pub name: String,
    pub column: String,
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
