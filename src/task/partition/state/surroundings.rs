//! Objects around the table: foreign keys, views, publications; and the extras of its newest partition.

use anyhow::Result;
use sqlx::PgConnection;

use super::found::{CopyStatement, Extra, Published, State};
use super::rows::has_rows;
use crate::base::units;
use crate::pg::table::TableName;
use crate::pg::{self, identifier, qualified};
use crate::task::bound::Kind as Text;
use crate::task::partition::column_settings::{self, ColumnSetting};
use crate::task::partition::decide;
use crate::task::partition::keys::Partition;
use crate::task::{consent, remade};
use crate::work::RunContext;

/// Rows that refer to a partition are counted up to here.
const REFERRING_ROWS: u64 = 1000;

impl State {
    pub(super) async fn read_foreign_keys(&mut self, connection: &mut PgConnection) -> Result<()> {
        let tables =
            self.existing.iter().map(|partition| &partition.table).chain(self.detached.iter().map(|detached| &detached.table));
        let oids: Vec<i64> = tables.map(|table| table.oid).chain([self.table.oid]).collect();
        let found: Vec<(i64, String)> = sqlx::query_as(
            "SELECT confrelid::bigint, format('%s (%I)', conrelid::regclass, conname) FROM pg_constraint
             WHERE contype = 'f' AND conparentid = 0 AND confrelid::bigint = ANY($1) ORDER BY 2",
        )
        .bind(&oids)
        .fetch_all(connection)
        .await?;
        let of = |oid: i64| found.iter().filter(|(target, _)| *target == oid).map(|(_, name)| name.clone()).collect::<Vec<_>>();
        self.inbound = of(self.table.oid);
        self.existing.iter_mut().for_each(|partition| partition.inbound = of(partition.table.oid));
        self.detached.iter_mut().for_each(|detached| detached.inbound = of(detached.table.oid));
        Ok(())
    }

    /// Reads, for partitions that would be retired, the rows that refer to theirs, and the objects that depend on them.
    pub(super) async fn read_what_keeps(&mut self, connection: &mut PgConnection, partition: &Partition) -> Result<()> {
        let over = decide::over(self, partition);
        for oid in over {
            let dependants = dependants(connection, oid).await?;
            let Some(table) = self.existing.iter().find(|existing| existing.table.oid == oid).map(|existing| &existing.table)
            else {
                continue;
            };
            let mut referred_to = Vec::new();
            if !self.inbound.is_empty() {
                referred_to = referring(connection, &self.table, table).await?;
            }
            // A [retention] looks for itself: it deletes the other rows one by one.
            let is_no_time = self.key.is_no_time(&identifier(&self.column)).filter(|_| !partition.only_retires);
            let has_rows_without_time = match is_no_time {
                Some(condition) => has_rows(connection, table, &condition).await?,
                None => false,
            };
            for existing in self.existing.iter_mut().filter(|existing| existing.table.oid == oid) {
                existing.dependants.clone_from(&dependants);
                existing.referred_to.clone_from(&referred_to);
                existing.has_rows_without_time = has_rows_without_time;
            }
        }
        for detached in &mut self.detached {
            detached.dependants = dependants(connection, detached.table.oid).await?;
        }
        Ok(())
    }
}

impl State {
    /// Reads how to agree to a large loss, and the sizes that tell whether this is one.
    pub(super) async fn read_what_needs_consent(
        &mut self,
        connection: &mut PgConnection,
        partition: &Partition,
        run: &RunContext<'_>,
    ) -> Result<()> {
        if !partition.lacks_consent() || decide::over(self, partition).is_empty() {
            return Ok(());
        }
        let sizes: Vec<(i64, i64)> = sqlx::query_as(
            "SELECT i.inhrelid::bigint, coalesce(sum(pg_relation_size(l.relid) + coalesce(pg_relation_size(nullif(c.reltoastrelid, 0)), 0)), 0)::bigint
             FROM pg_inherits i CROSS JOIN LATERAL pg_partition_tree(i.inhrelid) l JOIN pg_class c ON c.oid = l.relid
             WHERE i.inhparent = $1::bigint::oid AND l.isleaf AND c.relkind <> 'f' GROUP BY 1",
        )
        .bind(self.table.oid)
        .fetch_all(connection)
        .await?;
        for existing in &mut self.existing {
            existing.bytes = sizes.iter().find(|(oid, _)| *oid == existing.table.oid).map_or(0, |(_, bytes)| *bytes);
        }
        self.asks = Some(consent::how(run));
        Ok(())
    }
}

/// Schema and table that refer, name, columns there, columns here.
type ForeignKeyRow = (String, String, String, Vec<String>, Vec<String>);

/// Returns the foreign keys by which rows refer to this partition, each with their number. The server finds rows that are added later, at
/// the detach.
async fn referring(connection: &mut PgConnection, parent: &TableName, partition: &TableName) -> Result<Vec<String>> {
    let keys: Vec<ForeignKeyRow> = sqlx::query_as(
        "SELECT n.nspname::text, c.relname::text, k.conname::text,
                ARRAY(SELECT a.attname::text FROM unnest(k.conkey) WITH ORDINALITY u (attnum, n) JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = u.attnum ORDER BY u.n),
                ARRAY(SELECT a.attname::text FROM unnest(k.confkey) WITH ORDINALITY u (attnum, n) JOIN pg_attribute a ON a.attrelid = k.confrelid AND a.attnum = u.attnum ORDER BY u.n)
         FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE k.contype = 'f' AND k.conparentid = 0 AND k.confrelid = $1::bigint::oid ORDER BY 1, 2, 3",
    )
    .bind(parent.oid)
    .fetch_all(&mut *connection)
    .await?;
    let mut referring = Vec::new();
    for (schema, table, name, from, to) in keys {
        let pairs: Vec<String> =
            from.iter().zip(&to).map(|(from, to)| format!("f.{} = p.{}", identifier(from), identifier(to))).collect();
        let sql = format!(
            "SELECT count(*)::text FROM (SELECT FROM {} f JOIN ONLY {} p ON {} LIMIT {REFERRING_ROWS}) r",
            qualified(&schema, &table),
            partition.sql(),
            pairs.join(" AND ")
        );
        let rows: u64 = pg::fetch_text(connection, sql).await?.unwrap_or_default().parse()?;
        if rows > 0 {
            let more = if rows >= REFERRING_ROWS { " or more" } else { "" };
            let referrer = TableName { oid: 0, schema, name: table };
            referring.push(format!("{}{more} of {referrer} ({name})", units::plural(rows, "row")));
        }
    }
    Ok(referring)
}

/// Returns objects other than foreign keys that would make DROP TABLE fail. It takes along what depends on the table automatically or internally
/// (its rows' type, defaults, indexes, triggers, policies and rules of its own), and fails for what depends in another way on any of that.
async fn dependants(connection: &mut PgConnection, oid: i64) -> Result<Vec<String>> {
    Ok(sqlx::query_scalar(
        "WITH RECURSIVE goes AS (
             SELECT 'pg_class'::regclass::oid AS classid, $1::bigint::oid AS objid, 0 AS objsubid
             UNION SELECT d.classid, d.objid, d.objsubid
             FROM goes g JOIN pg_depend d ON d.refclassid = g.classid AND d.refobjid = g.objid AND g.objsubid IN (0, d.refobjsubid)
             WHERE d.deptype IN ('a', 'i', 'P', 'S'))
         SELECT DISTINCT CASE v.relkind WHEN 'm' THEN format('materialized view %s', v.oid::regclass)
                                        WHEN 'v' THEN format('view %s', v.oid::regclass)
                                        ELSE pg_describe_object(d.classid, d.objid, d.objsubid) END
         FROM goes g JOIN pg_depend d ON d.refclassid = g.classid AND d.refobjid = g.objid AND g.objsubid IN (0, d.refobjsubid)
         LEFT JOIN pg_rewrite r ON d.classid = 'pg_rewrite'::regclass AND r.oid = d.objid
         LEFT JOIN pg_class v ON v.oid = r.ev_class
         LEFT JOIN pg_constraint k ON d.classid = 'pg_constraint'::regclass AND k.oid = d.objid
         WHERE d.deptype = 'n' AND k.contype IS DISTINCT FROM 'f'
           AND NOT EXISTS (SELECT FROM goes o WHERE o.classid = d.classid AND o.objid = d.objid AND o.objsubid IN (0, d.objsubid))
         ORDER BY 1",
    )
    .bind(oid)
    .fetch_all(connection)
    .await?)
}

pub(super) async fn published(connection: &mut PgConnection, table: &TableName) -> Result<Vec<Published>> {
    Ok(sqlx::query_as(
        "SELECT DISTINCT p.pubname::text AS name, b.pubviaroot AS via_root,
                ARRAY(SELECT format('%s (%s)', s.slot_name, CASE WHEN s.active THEN 'active' ELSE 'inactive' END) FROM pg_replication_slots s
                      WHERE s.slot_type = 'logical' AND s.database = current_database() AND NOT s.temporary ORDER BY 1) AS slots
         FROM pg_publication_tables p JOIN pg_publication b ON b.pubname = p.pubname JOIN pg_namespace n ON n.nspname = p.schemaname
             JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = p.tablename
         WHERE c.oid = $1::bigint::oid OR c.oid IN (SELECT inhrelid FROM pg_inherits WHERE inhparent = $1::bigint::oid)
            OR c.oid IN (SELECT relid FROM pg_partition_ancestors($1::bigint::oid::regclass)) ORDER BY 1",
    )
    .bind(table.oid)
    .fetch_all(connection)
    .await?)
}

/// Returns the extras of the newest partition, such as a template's primary key: a person or another program has added them.
///
/// A CHECK that names the partition key is not copied: it may hold the bounds of that partition, and with them the new one would refuse all
/// its rows. One that says exactly what the bounds say (DETACH CONCURRENTLY leaves it) is not an extra.
pub async fn extras(connection: &mut PgConnection, parent: i64, model: i64, column: &str) -> Result<Vec<Extra>> {
    let constraints: Vec<Constraint> = sqlx::query_as(
        "SELECT k.oid::bigint, k.conindid::bigint, k.contype::text, format('CONSTRAINT %I ', k.conname), pg_get_constraintdef(k.oid), k.names_key
         FROM (SELECT k.*, k.contype = 'c' AND (coalesce(0 = ANY (k.conkey), false) OR EXISTS (
                   SELECT FROM pg_attribute a WHERE a.attrelid = k.conrelid AND a.attnum = ANY (k.conkey) AND a.attname = $3)) AS names_key
               FROM pg_constraint k WHERE k.conrelid = $1::bigint::oid) k
         WHERE k.conrelid = $1::bigint::oid AND k.conparentid = 0 AND k.contype IN ('p', 'u', 'x', 'f', 'c') AND k.coninhcount = 0
           AND NOT EXISTS (SELECT FROM pg_constraint same WHERE same.conrelid = $2::bigint::oid AND same.contype = k.contype
                           AND pg_get_constraintdef(same.oid) = pg_get_constraintdef(k.oid))
           AND NOT (k.contype = 'c' AND k.conname LIKE 'pgtend\\_%')
           AND NOT (k.names_key AND pg_get_constraintdef(k.oid) = format('CHECK (%s)', pg_get_partition_constraintdef(k.conrelid)))
         ORDER BY k.contype = 'p' DESC, k.conname",
    )
    .bind(model)
    .bind(parent)
    .bind(column)
    .fetch_all(&mut *connection)
    .await?;
    // The definition begins with names that differ on the new table.
    let indexes: Vec<(i64, bool, String)> = sqlx::query_as(
        "SELECT i.indexrelid::bigint, i.indisunique, substr(pg_get_indexdef(i.indexrelid), length(format('CREATE %sINDEX %I ON %I.%I ', CASE WHEN i.indisunique THEN 'UNIQUE ' ELSE '' END,
                    c.relname, n.nspname, t.relname)) + 1)
         FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_class t ON t.oid = i.indrelid JOIN pg_namespace n ON n.oid = t.relnamespace
         WHERE i.indrelid = $1::bigint::oid AND i.indisvalid AND NOT EXISTS (SELECT FROM pg_inherits h WHERE h.inhrelid = i.indexrelid)
           AND NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conindid = i.indexrelid AND k.contype IN ('p', 'u', 'x')) ORDER BY c.relname",
    )
    .bind(model)
    .fetch_all(&mut *connection)
    .await?;
    let unsafe_texts = texts_of_others(connection, model, &constraints, &indexes).await?;
    let of_others = |oids: &[i64], what: &str| {
        let (_, why) = unsafe_texts.iter().find(|(oid, _)| oids.contains(oid))?;
        Some(Extra { what: format!("{what} (not copied: {why})"), copy: None })
    };
    let mut extras: Vec<Extra> = constraints
        .into_iter()
        .map(|(oid, index, kind, name, definition, names_key)| {
            if let Some(extra) = of_others(&[oid, index], &format!("{name}{definition}")) {
                return extra;
            }
            if names_key {
                let what = format!(
                    "{name}{definition} (not copied: it names the partition key, and may hold the bounds of that partition)"
                );
                return Extra { what, copy: None };
            }
            // The names of indexes are already taken.
            let name = if ["p", "u", "x"].contains(&kind.as_str()) { String::new() } else { name };
            Extra { what: definition.clone(), copy: Some(CopyStatement::Constraint(format!("{name}{definition}"))) }
        })
        .collect();
    extras.extend(indexes.into_iter().map(|(oid, is_unique, rest)| {
        let what = format!("{}INDEX {rest}", if is_unique { "UNIQUE " } else { "" });
        of_others(&[oid], &what).unwrap_or(Extra { what, copy: Some(CopyStatement::Index(is_unique, rest)) })
    }));
    let of_parent: Vec<String> =
        column_settings::targets(connection, parent).await?.iter().flat_map(ColumnSetting::changes).collect();
    let of_model = column_settings::read(connection, model).await?;
    let changes = of_model.iter().flat_map(ColumnSetting::changes).filter(|change| !of_parent.contains(change));
    extras.extend(changes.map(|change| Extra { what: change.clone(), copy: Some(CopyStatement::Column(change)) }));
    let triggers: Vec<String> = sqlx::query_scalar(
        "SELECT format('trigger %I', tgname) FROM pg_trigger WHERE tgrelid = $1::bigint::oid AND NOT tgisinternal AND tgparentid = 0 ORDER BY 1",
    )
    .bind(model)
    .fetch_all(connection)
    .await?;
    extras.extend(triggers.into_iter().map(|what| Extra { what, copy: None }));
    Ok(extras)
}

/// A constraint: its oid and that of its index, type, name, definition, and whether it is a CHECK that names the partition key.
type Constraint = (i64, i64, String, String, String, bool);

/// Returns the oids of those whose texts could call a function of somebody with fewer rights than the login, with a sentence: PostgreSQL runs what is constant in
/// a CHECK and an index when it makes them, before it can be seen what they are bound to.
async fn texts_of_others(
    connection: &mut PgConnection,
    model: i64,
    constraints: &[Constraint],
    indexes: &[(i64, bool, String)],
) -> Result<Vec<(i64, String)>> {
    let of_constraints = constraints.iter().flat_map(|constraint| [constraint.0, constraint.1]);
    let oids: Vec<i64> = of_constraints.chain(indexes.iter().map(|index| index.0)).filter(|oid| *oid != 0).collect();
    match oids.is_empty() {
        true => Ok(Vec::new()),
        false => remade::that_run_code(connection, model, &oids, &[Text::Check, Text::Index]).await,
    }
}
