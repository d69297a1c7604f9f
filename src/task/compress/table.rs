//! The table of a job: where its bodies are, whether a view stands in its place, and what tells its rows apart.

use anyhow::Result;
use serde::Serialize;
use sqlx::PgConnection;

use super::definition;
use super::keys::Compress;
use super::names::{GUARDS, PLAIN, WRITE};
use crate::base::fault::{Fault, Kind};
use crate::pg::table::{Checked, with_schema};
use crate::pg::{self, Server, identifier, literal, qualified};
use crate::task::compress::names::CONSTRAINT;

/// PostgreSQL cuts longer names off.
const NAME_BYTES: usize = 63;

#[derive(Debug, Serialize)]
pub struct Table {
    pub oid: i64,
    pub schema: String,
    /// Of the table that holds the rows.
    pub name: String,
    #[serde(skip)]
    pub owner: String,
    #[serde(skip)]
    pub version_num: i32,
    /// Of compressed text, as convert_to takes it: the database's, unless it was restored in one of another encoding.
    #[serde(skip)]
    pub encoding: String,
    /// Which is then this.
    #[serde(skip)]
    pub other_encoding: Option<String>,
    #[serde(skip)]
    pub columns: Vec<Column>,
    #[serde(skip)]
    pub body: Column,
    pub key: Option<Key>,
    /// The view in its place, once it is installed.
    pub view: Option<View>,
    pub rows: u64,
    pub blocks: u64,
    pub bytes: u64,
    pub toast_bytes: u64,
    #[serde(skip)]
    pub has_row_security: bool,
    /// Of when it was looked at: what is planned is for this, and for nothing that somebody made of it since.
    #[serde(skip)]
    pub definition: String,
}

#[derive(Clone, Debug, sqlx::FromRow)]
pub struct Column {
    pub name: String,
    /// With its length, as in SQL.
    pub data_type: String,
    pub is_not_null: bool,
    pub is_generated: bool,
    /// "a" always, "d" by default.
    pub identity: String,
    pub default: Option<String>,
    /// Quoted, where it is not the type's.
    pub collation: Option<String>,
    /// As in pg_attribute.attstorage.
    pub storage: String,
    /// "p" pglz, "l" lz4, empty: default_toast_compression.
    pub compression: String,
}

/// A unique index that orders the rows.
#[derive(Clone, Debug, Serialize, sqlx::FromRow)]
pub struct Key {
    pub index: String,
    pub columns: Vec<String>,
    #[serde(skip)]
    pub types: Vec<String>,
}

#[derive(Clone, Debug, Serialize)]
pub struct View {
    #[serde(skip)]
    pub oid: i64,
    pub name: String,
    /// The body's column was NOT NULL.
    pub not_null: bool,
    #[serde(skip)]
    pub not_null_name: Option<String>,
    /// The constraint was checked for all rows, all triggers are there, no undo was begun, and policies are the reader's where
    /// there are any.
    pub is_whole: bool,
    /// Somebody dropped it; the table behind it is there.
    pub is_lost: bool,
    /// Doubts that somebody has looked at: they were there when it was installed.
    pub accepted: Vec<String>,
}

/// What `install` writes on its constraint.
#[derive(Debug, Serialize, serde::Deserialize)]
pub struct Mark {
    pub pgtend: u32,
    pub column: String,
    pub not_null: bool,
    /// The name of that constraint; before PostgreSQL 18 it has none.
    pub not_null_name: Option<String>,
    /// Of the database. A dump may have been restored in one of another encoding; the compressed bytes are what they were.
    pub encoding: Option<String>,
    #[serde(default)]
    pub accepted: Vec<String>,
}

impl Mark {
    /// The statement that writes it.
    pub fn on(&self, table: &str) -> Result<String> {
        Ok(format!("COMMENT ON CONSTRAINT {CONSTRAINT} ON {table} IS {}", literal(&serde_json::to_string(self)?)))
    }
}

impl Table {
    pub fn sql(&self) -> String {
        qualified(&self.schema, &self.name)
    }

    /// As it was when it was found.
    pub fn checked(&self) -> Checked {
        Checked { name: self.sql(), oid: self.oid, owner: None }
    }

    /// What the application calls it.
    pub fn public_name(&self) -> &str {
        self.view.as_ref().map_or(&self.name, |view| &view.name)
    }

    pub fn view_sql(&self) -> String {
        qualified(&self.schema, self.public_name())
    }

    /// Quoted names of the columns with the other form.
    pub fn gz(&self) -> String {
        identifier(&companion(&self.body.name, "_gz"))
    }

    pub fn hash(&self) -> String {
        identifier(&companion(&self.body.name, "_sha256"))
    }

    pub fn content(&self) -> String {
        identifier(&self.body.name)
    }

    pub fn function(&self, what: &str) -> String {
        qualified(&self.schema, &companion(self.public_name(), &format!("_pgtend_{what}")))
    }

    /// The bytes of an expression of type text, as they are stored.
    pub fn bytes_of(&self, text: &str) -> String {
        format!("pg_catalog.convert_to({text}, {})", pg::literal(&self.encoding))
    }

    /// Columns as the application sees them.
    pub fn visible(&self) -> impl Iterator<Item = &Column> {
        let hidden = [companion(&self.body.name, "_gz"), companion(&self.body.name, "_sha256")];
        let is_installed = self.view.is_some();
        self.columns.iter().filter(move |column| !is_installed || !hidden.contains(&column.name))
    }

    /// An expression that changes whenever another column than the body does. What tells a time may change: `updated_at`.
    pub fn fingerprint(&self, alias: &str) -> String {
        let others: Vec<String> = self
            .visible()
            .filter(|column| column.name != self.body.name && !is_time(&column.data_type))
            .map(|column| format!("{alias}.{}", identifier(&column.name)))
            .collect();
        format!("pg_catalog.encode(pg_catalog.sha256({}), 'hex')", self.bytes_of(&format!("ROW({})::text", others.join(", "))))
    }
}

fn is_time(data_type: &str) -> bool {
    !data_type.ends_with(']') && (data_type.starts_with("timestamp") || data_type == "date")
}

/// As format_type writes it: `character varying(10)`, and not an array of these.
fn is_text(data_type: &str) -> bool {
    data_type == "text"
        || data_type == "character varying"
        || data_type.starts_with("character varying(") && data_type.ends_with(')')
}

/// `name` with an ending, as long as a name may be.
pub fn companion(name: &str, ending: &str) -> String {
    let mut end = name.len().min(NAME_BYTES - ending.len());
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{ending}", &name[..end])
}

fn refused(message: String) -> anyhow::Error {
    Fault::new(Kind::Configuration, message).into()
}

/// Settings under which keys and expressions read the same for every role.
pub async fn prepare(connection: &mut PgConnection) -> Result<()> {
    for (name, value) in [
        ("DateStyle", "ISO, YMD"),
        ("IntervalStyle", "postgres"),
        ("TimeZone", "UTC"),
        ("extra_float_digits", "3"),
        ("bytea_output", "hex"),
        ("standard_conforming_strings", "on"),
        ("default_transaction_isolation", "read committed"),
        // Rows that a policy hides would stay unseen: an error instead.
        ("row_security", "off"),
        // Readers are in no hurry to share their processors.
        ("max_parallel_workers_per_gather", "0"),
    ] {
        pg::set(connection, name, value).await?;
    }
    Ok(())
}

/// Whether triggers of the table stay out of what a connection does: what is compressed or becomes text again is the same row to the
/// application, so that no time of a change moves, no audit gets an entry, and nothing that is derived from the text is computed from
/// none. Only where the role may; one that is to fire for replicas alone is somebody's plan, and stays in charge.
pub async fn silences_triggers(connection: &mut PgConnection, table: &Table) -> Result<bool> {
    let may = if table.version_num >= 150_000 {
        "has_parameter_privilege('session_replication_role', 'SET')"
    } else {
        "(SELECT rolsuper FROM pg_roles WHERE rolname = current_user)"
    };
    let sql = format!(
        "SELECT ({may} AND NOT EXISTS (SELECT FROM pg_trigger WHERE tgrelid = {}::oid AND tgenabled = 'R'))::text",
        table.oid
    );
    Ok(pg::fetch_text(connection, sql).await?.as_deref() == Some("true"))
}

/// Finds the table by the name that the application knows, and sets the session up.
pub async fn find(compress: &Compress, connection: &mut PgConnection) -> Result<Table> {
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
        "v" => base_of(connection, named)
            .await?
            .ok_or_else(|| refused(format!("{} is a view, and not one that `pgtend compress install` made", compress.table)))?,
        "p" => {
            return Err(refused(format!(
                "{} is partitioned: make a job for each of its partitions, with method = \"toast\"",
                compress.table
            )));
        }
        _ => return Err(refused(format!("{} is not a table", compress.table))),
    };
    let table = read(compress, connection, base, (kind == "v").then_some((named, name))).await?;
    if !is_text(&table.body.data_type) {
        let message =
            format!("{}.{} is of type {}: [compress] is for text", compress.table, compress.column, table.body.data_type);
        return Err(refused(message));
    }
    Ok(table)
}

/// The table behind a view that `compress install` made; None for any other view.
pub async fn base_of(connection: &mut PgConnection, view: i64) -> Result<Option<i64>> {
    Ok(sqlx::query_scalar(
        "SELECT DISTINCT d.refobjid::bigint FROM pg_rewrite r
         JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid AND d.refclassid = 'pg_class'::regclass
         JOIN pg_constraint k ON k.conrelid = d.refobjid AND k.conname = $2 AND k.contype = 'c'
         JOIN pg_class v ON v.oid = r.ev_class JOIN pg_class t ON t.oid = d.refobjid AND t.relnamespace = v.relnamespace
         WHERE r.ev_class = $1::bigint::oid
           AND (EXISTS (SELECT FROM pg_trigger WHERE tgrelid = v.oid AND tgname = $3)
             OR EXISTS (SELECT FROM pg_depend f JOIN pg_proc p ON f.refclassid = 'pg_proc'::regclass AND p.oid = f.refobjid
                        WHERE f.classid = 'pg_rewrite'::regclass AND f.objid = r.oid AND p.proname LIKE '%\\_pgtend\\_gunzip'))",
    )
    .bind(view)
    .bind(CONSTRAINT)
    .bind(WRITE)
    .fetch_optional(connection)
    .await?)
}

/// The table behind a view that is not there any more, and the view's name.
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
    /// Of the constraint.
    check: Option<String>,
    is_whole: Option<bool>,
}

async fn read(compress: &Compress, connection: &mut PgConnection, oid: i64, view: Option<(i64, String)>) -> Result<Table> {
    // Before all else is read.
    let definition = definition::of(connection, oid).await?;
    let found: Found = sqlx::query_as(
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
                    AND (NOT c.relrowsecurity OR EXISTS (SELECT FROM pg_class v WHERE v.oid = $2::bigint::oid AND v.reloptions && ARRAY['security_invoker=true']))
                END AS is_whole
         FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
         LEFT JOIN pg_constraint k ON k.conrelid = c.oid AND k.conname = $3
         WHERE c.oid = $1::bigint::oid",
    )
    .bind(oid)
    .bind(view.as_ref().map(|(oid, _)| *oid))
    .bind(CONSTRAINT)
    .bind(PLAIN)
    .bind(&GUARDS[..])
    .bind(WRITE)
    .fetch_one(&mut *connection)
    .await?;
    let mark = found.mark.as_deref().and_then(|mark| serde_json::from_str::<Mark>(mark).ok());
    let of = format!("{}.{}", identifier(&found.schema), identifier(&found.name));
    let view = match (view, &mark) {
        (Some((oid, name)), Some(mark)) => Some(View {
            oid,
            name,
            not_null: mark.not_null,
            not_null_name: mark.not_null_name.clone(),
            is_whole: found.is_whole == Some(true),
            is_lost: oid == 0,
            accepted: mark.accepted.clone(),
        }),
        (Some(_), ..) => {
            let comment = remade(compress, connection, found.check.as_deref().unwrap_or_default()).await?.on(&of)?;
            return Err(refused(format!(
                "constraint {CONSTRAINT} of {of} has lost the comment that says what it is about, as a dump with --no-comments does. If \
                 `column` is {} as ever, and its bodies were compressed in a database of this one's encoding: {comment}",
                identifier(&compress.column)
            )));
        }
        (None, ..) if found.is_whole.is_some() => {
            return Err(refused(format!("{of} is what a view of pgtend stands for: name the view in `table`")));
        }
        _ => None,
    };
    if let (Some(mark), Some(_)) = (&mark, &view)
        && mark.column != compress.column
    {
        return Err(refused(format!(
            "the view {} stands for column {}, and there is one such column for a table: `column` is {}",
            compress.table,
            identifier(&mark.column),
            identifier(&compress.column)
        )));
    }
    if found.row_security {
        let message = format!("row security hides rows of {of} from the role: use its owner or a role with BYPASSRLS");
        return Err(Fault::new(Kind::Permission, message).into());
    }
    let here = encoding(connection).await?;
    let encoding = mark.filter(|_| view.is_some()).and_then(|mark| mark.encoding).unwrap_or_else(|| here.clone());
    let columns = columns(connection, oid).await?;
    let body = columns.iter().find(|column| column.name == compress.column).cloned();
    let body = body.ok_or_else(|| refused(format!("{} has no column {}", compress.table, identifier(&compress.column))))?;
    Ok(Table {
        oid,
        schema: found.schema,
        name: found.name,
        owner: found.owner,
        version_num: Server::of(connection).await?.version_num,
        other_encoding: (encoding != here).then_some(here),
        encoding,
        columns,
        body,
        key: key(connection, oid, &compress.column).await?,
        view,
        rows: found.rows as u64,
        blocks: found.blocks as u64,
        bytes: found.bytes as u64,
        toast_bytes: found.toast_bytes as u64,
        has_row_security: found.has_row_security,
        definition,
    })
}

async fn encoding(connection: &mut PgConnection) -> Result<String> {
    Ok(sqlx::query_scalar("SELECT getdatabaseencoding()::text").fetch_one(connection).await?)
}

/// What the mark was, as the job and the constraint have it.
async fn remade(compress: &Compress, connection: &mut PgConnection, check: &str) -> Result<Mark> {
    let column = compress.column.clone();
    // As pg_get_constraintdef writes it: with quotes only where they have to be.
    let quoted: String = sqlx::query_scalar("SELECT quote_ident($1)").bind(&column).fetch_one(&mut *connection).await?;
    let not_null = check.contains(&format!("({quoted} IS NOT NULL)"));
    Ok(Mark {
        pgtend: 1,
        column,
        not_null,
        not_null_name: None,
        encoding: Some(encoding(connection).await?),
        accepted: Vec::new(),
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

/// Of the unique indexes, one whose order the server's own operators have: others would have to be found by a path.
async fn key(connection: &mut PgConnection, oid: i64, body: &str) -> Result<Option<Key>> {
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
    .bind(body)
    .fetch_optional(connection)
    .await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_an_ending_are_no_longer_than_postgres_allows_and_end_in_whole_characters() {
        assert_eq!(companion("content", "_gz"), "content_gz");
        let long = "ü".repeat(31);
        assert_eq!(companion(&long, "_sha256").len(), 63);
        assert!(companion(&long, "_sha256").ends_with("ü_sha256"));
    }

    #[test]
    fn arrays_are_no_text() {
        for (data_type, expected) in [
            ("text", true),
            ("character varying", true),
            ("character varying(10)", true),
            ("text[]", false),
            ("character varying(10)[]", false),
            ("character varying[]", false),
            ("character(10)", false),
        ] {
            assert_eq!(is_text(data_type), expected, "{data_type}");
        }
    }
}
