//! Finds the table of a job in the catalogs.

use anyhow::Result;
use sqlx::PgConnection;

use super::keys::{Compress, Method};
use super::names::{CONSTRAINT, GUARDS, PLAIN, WRITE};
use super::table::{Column, Key, Mark, Table, View, companion, prepare};
use super::value::ValueType;
use super::{definition, dictionary};
use crate::base::fault::{Fault, Kind};
use crate::pg::table::with_schema;
use crate::pg::views::table_behind;
use crate::pg::{self, Server, identifier};

/// Finds the table by the name that the application uses, and sets the session up.
pub async fn table(compress: &Compress, connection: &mut PgConnection) -> Result<Table> {
    let named: Option<(i64, String, String)> =
        sqlx::query_as("SELECT oid::bigint, relkind::text, relname::text FROM pg_class WHERE oid = to_regclass($1)")
            .bind(with_schema(&compress.table))
            .fetch_optional(&mut *connection)
            .await
            .map_err(pg::in_its_own_words)?;
    let without_view = if named.is_none() { without_its_view(connection, &compress.table).await? } else { None };
    prepare(connection).await?;
    if let Some((base, name)) = without_view {
        return read(compress, connection, base, Some((0, name))).await;
    }
    let (named, kind, name) = named.ok_or_else(|| refused(format!("there is no table {}", compress.table)))?;
    let base = match kind.as_str() {
        "r" => named,
        "v" => table_behind(connection, named)
            .await?
            .ok_or_else(|| refused(format!("{} is a view, and not one that `pgtend compress install` made", compress.table)))?,
        "p" => {
            return Err(refused(format!(
                "{} is partitioned, and a view cannot take its place: method = \"toast\" compresses its partitions",
                compress.table
            )));
        }
        _ => return Err(refused(format!("{} is not a table", compress.table))),
    };
    let table = read(compress, connection, base, (kind == "v").then_some((named, name))).await?;
    refuse_type(compress, &table)?;
    Ok(table)
}

/// Finds a table by its oid, and sets the session up: a partition of the job's table.
pub async fn partition(compress: &Compress, connection: &mut PgConnection, oid: i64) -> Result<Table> {
    prepare(connection).await?;
    let table = read(compress, connection, oid, None).await?;
    refuse_type(compress, &table)?;
    Ok(table)
}

fn refused(message: String) -> anyhow::Error {
    Fault::new(Kind::Configuration, message).into()
}

fn refuse_type(compress: &Compress, table: &Table) -> Result<()> {
    let types = match (compress.method, ValueType::of(&table.text_column.data_type)) {
        (_, Some(ValueType::Text)) | (Method::Toast, Some(_)) => return Ok(()),
        (Method::Gzip, _) => "text and varchar with method = \"gzip\"",
        (Method::Toast, None) => "text, varchar, bytea, jsonb, json, xml and arrays",
    };
    Err(refused(format!(
        "{}.{} has type {}: [compress] supports {types}",
        compress.table, compress.column, table.text_column.data_type
    )))
}

/// Returns the table behind a view that was dropped, and the view's name.
pub async fn without_its_view(connection: &mut PgConnection, name: &str) -> Result<Option<(i64, String)>> {
    let parts: Vec<String> =
        sqlx::query_scalar("SELECT parse_ident($1)").bind(with_schema(name)).fetch_one(&mut *connection).await?;
    let Some((name, schema)) = parts.split_last() else { return Ok(None) };
    let stored: Vec<String> = schema.iter().chain([&companion(name, "_stored")]).map(|part| identifier(part)).collect();
    let base: Option<i64> =
        sqlx::query_scalar("SELECT conrelid::bigint FROM pg_constraint WHERE conrelid = to_regclass($1) AND conname = $2")
            .bind(stored.join("."))
            .bind(CONSTRAINT)
            .fetch_optional(connection)
            .await?;
    Ok(base.map(|base| (base, name.clone())))
}

#[derive(sqlx::FromRow)]
struct Found {
    schema: String,
    name: String,
    owner: String,
    rows: f64,
    blocks: i64,
    bytes: i64,
    toast_bytes: i64,
    row_security: bool,
    has_row_security: bool,
    mark: Option<String>,
    /// The constraint's definition.
    check: Option<String>,
    is_whole: Option<bool>,
}

async fn read(compress: &Compress, connection: &mut PgConnection, oid: i64, view: Option<(i64, String)>) -> Result<Table> {
    // This comes before everything else is read, so that a later change shows.
    let definition = definition::of(connection, oid).await?;
    let found = facts(connection, oid, view.as_ref().map(|(oid, _)| *oid)).await?;
    let mark = found.mark.as_deref().and_then(|mark| serde_json::from_str::<Mark>(mark).ok());
    let of = format!("{}.{}", identifier(&found.schema), identifier(&found.name));
    let view = installed_view(compress, connection, &found, &of, view, mark.as_ref()).await?;
    if found.row_security {
        let message = format!("row security hides rows of {of} from the role: use the owner or a role with BYPASSRLS");
        return Err(Fault::new(Kind::Permission, message).into());
    }
    let here = encoding(connection).await?;
    let encoding = mark.filter(|_| view.is_some()).and_then(|mark| mark.encoding).unwrap_or_else(|| here.clone());
    let columns = columns(connection, oid).await?;
    let text_column = columns.iter().find(|column| column.name == compress.column).cloned();
    let text_column =
        text_column.ok_or_else(|| refused(format!("{} has no column {}", compress.table, identifier(&compress.column))))?;
    Ok(Table {
        oid,
        schema: found.schema,
        name: found.name,
        owner: found.owner,
        version_num: Server::of(connection).await?.version_num,
        other_encoding: (encoding != here).then_some(here),
        encoding,
        columns,
        text_column,
        key: key(connection, oid, &compress.column).await?,
        view,
        rows: found.rows as u64,
        blocks: found.blocks as u64,
        bytes: found.bytes as u64,
        toast_bytes: found.toast_bytes as u64,
        has_row_security: found.has_row_security,
        may_have_dictionaries: compress.dictionary,
        definition,
        code: None,
    })
}

/// Reads the facts about the table `oid` and the view in its place.
async fn facts(connection: &mut PgConnection, oid: i64, view: Option<i64>) -> Result<Found> {
    Ok(sqlx::query_as(
        "SELECT n.nspname::text AS schema, c.relname::text AS name, pg_get_userbyid(c.relowner)::text AS owner,
                greatest(c.reltuples, 0)::float8 AS rows, (pg_relation_size(c.oid) / current_setting('block_size')::bigint)::bigint AS blocks,
                pg_total_relation_size(c.oid)::bigint AS bytes,
                CASE WHEN c.reltoastrelid = 0 THEN 0 ELSE pg_relation_size(c.reltoastrelid) END::bigint AS toast_bytes,
                row_security_active(c.oid) AS row_security, c.relrowsecurity AS has_row_security,
                obj_description(k.oid, 'pg_constraint') AS mark, pg_get_constraintdef(k.oid) AS check,
                CASE WHEN k.oid IS NOT NULL THEN k.convalidated
                    AND NOT EXISTS (SELECT FROM pg_constraint WHERE conrelid = c.oid AND conname = $4)
                    AND cardinality($5) = (
                        SELECT count(*) FROM pg_trigger WHERE tgrelid = c.oid AND tgname = ANY ($5) AND tgenabled = 'A')
                    AND EXISTS (SELECT FROM pg_trigger WHERE tgrelid = $2::bigint::oid AND tgname = $6 AND tgenabled <> 'D')
                    AND (NOT c.relrowsecurity OR EXISTS (
                        SELECT FROM pg_class v, pg_options_to_table(v.reloptions) WHERE v.oid = $2::bigint::oid
                          AND CASE WHEN option_name = 'security_invoker' THEN option_value::boolean ELSE false END))
                END AS is_whole
         FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
         LEFT JOIN pg_constraint k ON k.conrelid = c.oid AND k.conname = $3
         WHERE c.oid = $1::bigint::oid",
    )
    .bind(oid)
    .bind(view)
    .bind(CONSTRAINT)
    .bind(PLAIN)
    .bind(&GUARDS[..])
    .bind(WRITE)
    .fetch_one(connection)
    .await?)
}

/// Returns the view in the table's place, by the mark on the table's constraint; `of` names the table in messages.
async fn installed_view(
    compress: &Compress,
    connection: &mut PgConnection,
    found: &Found,
    of: &str,
    view: Option<(i64, String)>,
    mark: Option<&Mark>,
) -> Result<Option<View>> {
    let view = match (view, mark) {
        (Some((oid, name)), Some(mark)) => View {
            oid,
            name,
            not_null: mark.not_null,
            not_null_name: mark.not_null_name.clone(),
            is_whole: found.is_whole == Some(true),
            is_lost: oid == 0,
            accepted: mark.accepted.clone(),
            dictionaries: mark.dictionaries.iter().filter(|name| name.starts_with(dictionary::PREFIX)).cloned().collect(),
        },
        (Some(_), ..) => {
            let comment = remade(compress, connection, found.check.as_deref().unwrap_or_default()).await?.on(of)?;
            return Err(refused(format!(
                "constraint {CONSTRAINT} of {of} has lost its comment, which pgtend needs; a dump with --no-comments leaves it out. If \
                 `column` is still {}, and its values were compressed in a database with this encoding, run: {comment}",
                identifier(&compress.column)
            )));
        }
        (None, ..) if found.is_whole.is_some() => {
            return Err(refused(format!("{of} is the table behind a view of pgtend: name the view in `table`")));
        }
        (None, ..) => return Ok(None),
    };
    if let Some(mark) = mark.filter(|mark| mark.column != compress.column) {
        return Err(refused(format!(
            "the view {} compresses column {}, and a table can have only one such column: `column` is {}",
            compress.table,
            identifier(&mark.column),
            identifier(&compress.column)
        )));
    }
    Ok(Some(view))
}

async fn encoding(connection: &mut PgConnection) -> Result<String> {
    Ok(sqlx::query_scalar("SELECT getdatabaseencoding()::text").fetch_one(connection).await?)
}

/// Rebuilds a lost mark from the job and the constraint.
async fn remade(compress: &Compress, connection: &mut PgConnection, check: &str) -> Result<Mark> {
    let column = compress.column.clone();
    // pg_get_constraintdef quotes a name only where it must.
    let quoted: String = sqlx::query_scalar("SELECT quote_ident($1)").bind(&column).fetch_one(&mut *connection).await?;
    let not_null = check.contains(&format!("({quoted} IS NOT NULL)"));
    Ok(Mark {
        pgtend: 1,
        column,
        not_null,
        not_null_name: None,
        encoding: Some(encoding(connection).await?),
        accepted: Vec::new(),
        dictionaries: Vec::new(),
    })
}

async fn columns(connection: &mut PgConnection, oid: i64) -> Result<Vec<Column>> {
    Ok(sqlx::query_as(
        "SELECT a.attname::text AS name, format_type(a.atttypid, a.atttypmod) AS data_type, a.attnotnull AS is_not_null,
                a.attgenerated <> '' AS is_generated, a.attidentity::text AS identity, a.attstorage::text AS storage,
                a.attcompression::text AS compression,
                CASE WHEN a.attgenerated = '' THEN pg_get_expr(d.adbin, d.adrelid) END AS default,
                CASE WHEN a.attcollation <> t.typcollation THEN a.attcollation::regcollation::text END AS collation
         FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
         LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
         WHERE a.attrelid = $1::bigint::oid AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum",
    )
    .bind(oid)
    .fetch_all(connection)
    .await?)
}

/// Returns a unique index whose columns have operators in pg_catalog: others would have to be found by the search_path.
async fn key(connection: &mut PgConnection, oid: i64, column: &str) -> Result<Option<Key>> {
    Ok(sqlx::query_as(
        "SELECT x.indexrelid::regclass::text AS index, k.columns, k.types
         FROM pg_index x CROSS JOIN LATERAL (
             SELECT array_agg(a.attname::text ORDER BY u.n) AS columns, array_agg(format_type(a.atttypid, a.atttypmod) ORDER BY u.n) AS types,
                    bool_and(a.attnotnull AND a.attname <> $2 AND o.opcdefault AND EXISTS (
                        SELECT FROM pg_amop m JOIN pg_operator p ON p.oid = m.amopopr
                        WHERE m.amopfamily = o.opcfamily AND m.amopstrategy = 5 AND m.amoplefttype = o.opcintype
                          AND m.amoprighttype = o.opcintype AND p.oprnamespace = 'pg_catalog'::regnamespace)) AS is_good
             FROM unnest(x.indkey::int2[]) WITH ORDINALITY u (attnum, n)
             JOIN pg_attribute a ON a.attrelid = x.indrelid AND a.attnum = u.attnum
             JOIN pg_opclass o ON o.oid = x.indclass[u.n - 1]
             WHERE u.n <= x.indnkeyatts) k
         WHERE x.indrelid = $1::bigint::oid AND x.indisunique AND x.indisvalid AND x.indimmediate AND x.indpred IS NULL
           AND x.indexprs IS NULL AND k.is_good
         ORDER BY x.indisprimary DESC, x.indnkeyatts, x.indexrelid LIMIT 1",
    )
    .bind(oid)
    .bind(column)
    .fetch_optional(connection)
    .await?)
}
