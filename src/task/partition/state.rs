//! What is there: the table, its partitions with their bounds, and what stands in the way. Reads catalogs, and of tables
//! only the default partition and the highest number.

use std::fmt;

use anyhow::{Context as _, Result};
use chrono::{DateTime, TimeZone as _, Utc};
use chrono_tz::Tz;
use serde::Serialize;
use sqlx::PgConnection;

use super::Partition;
use super::calendar::{Calendar, Every, Period};
use super::key::{Bound, Key};
use super::mark::Mark;
use super::session::Session;
use crate::fault::{Fault, Kind};
use crate::pg::{self, Server, identifier, qualified};
use crate::task::RunContext;

/// Of periods found in the default partition by one run; the next one goes on.
const DEFAULT_PERIODS: usize = 200;
/// Of partitions that a period with too many rows is cut to by one run, and one more.
pub const CUTS: usize = 50;
/// As many rows as move within a second on a slow disk, with three indexes. A period that has more is cut.
pub const MOVED_AT_ONCE_ROWS: u64 = 50_000;
/// Rows of the default partition are counted up to here: its count is for people.
const COUNTED_ROWS: u64 = 1_000_000;
/// Counting and looking up must not go on for hours where no index helps.
const READ_TIMEOUT: &str = "600000";

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct TableName {
    pub oid: i64,
    pub schema: String,
    pub name: String,
}

impl TableName {
    pub fn sql(&self) -> String {
        qualified(&self.schema, &self.name)
    }
}

/// For people: quoted only where SQL needs it.
impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let plain = |name: &str| {
            let is_plain = name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
                && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
            if is_plain { name.to_owned() } else { identifier(name) }
        };
        write!(f, "{}.{}", plain(&self.schema), plain(&self.name))
    }
}

/// An attached partition, or one whose detach is pending.
#[derive(Clone, Debug)]
pub struct Existing {
    pub table: TableName,
    /// As the server shows it.
    pub shown: String,
    /// None: the default partition, or a bound that is not understood.
    pub range: Option<(Bound, Bound)>,
    pub is_default: bool,
    /// An ordinary table: neither partitioned itself nor a foreign table.
    pub is_plain: bool,
    pub is_pending: bool,
    pub mark: Option<Mark>,
    /// Foreign keys that name this very partition.
    pub inbound: Vec<String>,
}

/// A table with a mark of ours that is no partition any more.
#[derive(Clone, Debug)]
pub struct Detached {
    pub table: TableName,
    pub mark: Mark,
    pub inbound: Vec<String>,
}

/// A period that the default partition has rows of.
#[derive(Clone, Debug)]
pub struct Stray {
    pub position: i64,
    /// Counted up to one more than [`MOVED_AT_ONCE_ROWS`].
    pub rows: u64,
    /// Between any two of them lie [`MOVED_AT_ONCE_ROWS`] rows; at most [`CUTS`].
    pub cuts: Vec<i64>,
    /// So many rows have one key that there is nothing to cut.
    pub is_dense: bool,
}

#[derive(Clone, Debug)]
pub struct State {
    pub server: Server,
    pub table: TableName,
    pub column: String,
    pub key: Key,
    pub calendar: Calendar,
    /// Of the wall that keys without a zone are read from.
    pub zone: Tz,
    /// Where new rows come: the clock of the server, or the highest number.
    pub now: i64,
    /// Of number keys. A sequence that was set wrong makes partitions, and drops none.
    pub highest_row: Option<i64>,
    pub at: DateTime<Utc>,
    /// How far this host's clock is from the server's, when that is too far.
    pub clocks_apart: Option<String>,
    pub existing: Vec<Existing>,
    pub detached: Vec<Detached>,
    /// Foreign keys that name the partitioned table.
    pub inbound: Vec<String>,
    pub publications: Vec<String>,
    pub default_rows: u64,
    pub default_null_rows: u64,
    pub strays: Vec<Stray>,
    /// Names in the table's schema that are taken.
    pub taken: Vec<String>,
}

#[derive(sqlx::FromRow)]
struct Found {
    oid: i64,
    schema: String,
    name: String,
    kind: String,
    persistence: String,
    strategy: Option<String>,
    key_columns: Option<i16>,
    key: Option<String>,
    key_column: Option<String>,
    key_type: Option<String>,
    owner: String,
    is_owner: bool,
    may_create: bool,
}

impl State {
    pub async fn read(partition: &Partition, run: &RunContext<'_>, session: &mut Session) -> Result<Self> {
        pg::set(&mut session.connection, "statement_timeout", READ_TIMEOUT).await?;
        let connection = &mut session.connection;
        let server = Server::of(connection).await?;
        let found = find(connection, &partition.table).await?;
        let table = TableName { oid: found.oid, schema: found.schema.clone(), name: found.name.clone() };
        let key = key_of(&found, &table, partition)?;
        may(connection, &found, &table).await?;

        let zone = partition.zone.unwrap_or(run.job.timezone);
        let asked_at = Utc::now();
        let at = pg::clock::of_server(connection).await?;
        let clocks_apart = pg::clock::apart(at, asked_at, Utc::now());
        let existing = partitions(connection, &table, key).await?;
        let mut highest_row = None;
        let (now, calendar) = match (partition.every, key.is_on_the_wall()) {
            (Every::Step(_), _) => {
                highest_row = of_rows(connection, &table, &partition.column, key).await?;
                let now = highest_row.max(of_sequence(connection, &table, &partition.column).await?).unwrap_or(0);
                (now, Calendar { every: partition.every, zone: Tz::UTC })
            }
            (Every::Unit(_), true) => {
                let on_the_wall = zone.from_utc_datetime(&at.naive_utc()).naive_local().and_utc();
                (on_the_wall.timestamp_micros(), Calendar { every: partition.every, zone: Tz::UTC })
            }
            (Every::Unit(_), false) => (at.timestamp_micros(), Calendar { every: partition.every, zone }),
        };
        let oids: Vec<i64> = existing.iter().map(|partition| partition.table.oid).collect();
        let mut state = Self {
            server,
            column: partition.column.clone(),
            key,
            calendar,
            zone,
            now,
            highest_row,
            at,
            clocks_apart,
            detached: detached(connection, table.oid, &oids).await?,
            inbound: Vec::new(),
            publications: publications(connection, &table).await?,
            default_rows: 0,
            default_null_rows: 0,
            strays: Vec::new(),
            taken: taken(connection, &table.schema).await?,
            existing,
            table,
        };
        state.read_foreign_keys(connection).await?;
        state.read_default(connection).await?;
        Ok(state)
    }

    pub fn default_partition(&self) -> Option<&Existing> {
        self.existing.iter().find(|partition| partition.is_default)
    }

    async fn read_foreign_keys(&mut self, connection: &mut PgConnection) -> Result<()> {
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

    /// Goes from period to period by the lowest key above the last one: each step is one index lookup where there is an
    /// index that leads with the key.
    async fn read_default(&mut self, connection: &mut PgConnection) -> Result<()> {
        let Some(default) = self.default_partition().filter(|default| default.is_plain && !default.is_pending) else {
            return Ok(());
        };
        let (from, column) = (format!("ONLY {}", default.table.sql()), identifier(&self.column));
        self.default_rows = count(connection, &from, "true", COUNTED_ROWS).await?;
        if self.default_rows == 0 {
            return Ok(());
        }
        self.default_null_rows = count(connection, &from, &format!("{column} IS NULL"), COUNTED_ROWS).await?;
        let mut above = "true".to_owned();
        for _ in 0..DEFAULT_PERIODS {
            let sql = format!(
                "SELECT {column}::text AS \"shown as text\" FROM {from} WHERE {column} IS NOT NULL AND {above} ORDER BY {column} LIMIT 1"
            );
            let Some(lowest) = pg::fetch_text(connection, sql).await? else { break };
            let Some((position, period)) =
                self.key.position(&lowest).and_then(|position| Some((position, self.calendar.period_at(position)?)))
            else {
                break;
            };
            let to = self.key.sql(period.to)?;
            let within = format!("{column} >= {} AND {column} < {to}", self.key.sql(period.from)?);
            let rows = count(connection, &from, &within, MOVED_AT_ONCE_ROWS + 1).await?;
            let mut stray = Stray { position, rows, cuts: Vec::new(), is_dense: false };
            if rows > MOVED_AT_ONCE_ROWS {
                cut(connection, &from, &column, self.key, period, &mut stray).await?;
            }
            self.strays.push(stray);
            above = format!("{column} >= {to}");
        }
        Ok(())
    }
}

/// Looks for keys that leave so many rows before them as one transaction can move.
async fn cut(connection: &mut PgConnection, from: &str, column: &str, key: Key, period: Period, stray: &mut Stray) -> Result<()> {
    let mut low = period.from;
    for _ in 0..CUTS {
        let sql = format!(
            "SELECT {column}::text AS \"shown as text\" FROM {from} WHERE {column} >= {} AND {column} < {} ORDER BY {column} OFFSET {MOVED_AT_ONCE_ROWS} LIMIT 1",
            key.sql(low)?,
            key.sql(period.to)?
        );
        let Some(next) = pg::fetch_text(connection, sql).await?.and_then(|text| key.position(&text)) else { break };
        if next <= low {
            stray.is_dense = true;
            break;
        }
        stray.cuts.push(next);
        low = next;
    }
    Ok(())
}

async fn count(connection: &mut PgConnection, from: &str, within: &str, limit: u64) -> Result<u64> {
    let sql = format!("SELECT count(*)::text FROM (SELECT FROM {from} WHERE {within} LIMIT {limit}) counted");
    let text = pg::fetch_text(connection, sql).await?.unwrap_or_default();
    text.parse().context("a count is a number")
}

async fn find(connection: &mut PgConnection, table: &str) -> Result<Found> {
    let found: Option<Found> = sqlx::query_as(
        "SELECT c.oid::bigint AS oid, n.nspname::text AS schema, c.relname::text AS name, c.relkind::text AS kind,
                c.relpersistence::text AS persistence, p.partstrat::text AS strategy, p.partnatts AS key_columns,
                pg_get_partkeydef(c.oid) AS key, a.attname::text AS key_column,
                format_type(coalesce(nullif(t.typbasetype, 0), t.oid), NULL) AS key_type,
                pg_get_userbyid(c.relowner)::text AS owner, pg_has_role(c.relowner, 'USAGE') AS is_owner,
                has_schema_privilege(n.oid, 'CREATE') AS may_create
         FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
         LEFT JOIN pg_partitioned_table p ON p.partrelid = c.oid
         LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = p.partattrs[0] AND a.attnum > 0
         LEFT JOIN pg_type t ON t.oid = a.atttypid
         WHERE c.oid = to_regclass($1)",
    )
    .bind(with_schema(table))
    .fetch_optional(connection)
    .await
    .map_err(pg::in_its_own_words)
    .with_context(|| Fault::new(Kind::Configuration, format!("`table = '{table}'` is no table's name")))?;
    found.with_context(|| {
        let hint = "write it as in SQL: schema.table, and names with capitals or dots in double quotes";
        Fault::new(Kind::Configuration, format!("there is no table {table}; {hint}"))
    })
}

/// Whether a run could start: the table, its key, and the role's privileges.
pub async fn check(connection: &mut PgConnection, partition: &Partition) -> Result<String> {
    let found = find(connection, &partition.table).await?;
    let table = TableName { oid: found.oid, schema: found.schema.clone(), name: found.name.clone() };
    key_of(&found, &table, partition)?;
    may(connection, &found, &table).await?;
    Ok(format!("owns {table}, and may make tables in its schema"))
}

/// The session has no search_path, so that a name without a schema is one of `public`.
pub fn with_schema(table: &str) -> String {
    let mut is_quoted = false;
    let has_dot = table.chars().any(|c| {
        is_quoted ^= c == '"';
        c == '.' && !is_quoted
    });
    if has_dot { table.to_owned() } else { format!("public.{table}") }
}

fn key_of(found: &Found, table: &TableName, partition: &Partition) -> Result<Key> {
    let refuse = |message: String| Err(Fault::new(Kind::Configuration, message).into());
    let column = &partition.column;
    match (found.kind.as_str(), found.strategy.as_deref()) {
        ("p", Some("r")) => {}
        ("r", _) => {
            return refuse(format!(
                "{table} is not partitioned: `pgtend partition convert JOB --dry-run` says how it becomes so while it is in use"
            ));
        }
        ("p", _) => {
            return refuse(format!(
                "{table} is partitioned by {}, and pgtend tends ranges only",
                found.key.as_deref().unwrap_or("?")
            ));
        }
        _ => return refuse(format!("{table} is no table")),
    }
    if found.persistence == "t" {
        return refuse(format!("{table} is temporary"));
    }
    let key = found.key.as_deref().unwrap_or("?");
    if found.key_columns != Some(1) {
        return refuse(format!("{table} is partitioned by {key}: several columns, and pgtend tends tables with one"));
    }
    match &found.key_column {
        None => refuse(format!("{table} is partitioned by {key}: an expression, and pgtend tends tables with a column as key")),
        Some(actual) if actual != column => {
            refuse(format!("{table} is partitioned by column {actual}, not by `column = \"{column}\"`"))
        }
        Some(_) => Key::of(column, found.key_type.as_deref().unwrap_or("?"), partition.every, partition.epoch),
    }
}

async fn may(connection: &mut PgConnection, found: &Found, table: &TableName) -> Result<()> {
    let role: String = sqlx::query_scalar("SELECT current_user::text").fetch_one(connection).await?;
    let refuse = |message: String| Err(Fault::new(Kind::Permission, message).into());
    if !found.is_owner {
        let (owner, role) = (identifier(&found.owner), identifier(&role));
        return refuse(format!("only its owner {owner} may change {table}: GRANT {owner} TO {role}"));
    }
    if !found.may_create {
        let (schema, role) = (identifier(&found.schema), identifier(&role));
        return refuse(format!("partitions are made beside {table}: GRANT CREATE ON SCHEMA {schema} TO {role}"));
    }
    Ok(())
}

async fn partitions(connection: &mut PgConnection, table: &TableName, key: Key) -> Result<Vec<Existing>> {
    #[derive(sqlx::FromRow)]
    struct Row {
        oid: i64,
        schema: String,
        name: String,
        kind: String,
        bound: Option<String>,
        is_pending: bool,
        comment: Option<String>,
    }
    // Without the relation, pg_get_expr needs no lock on it; a constant needs no relation.
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT c.oid::bigint AS oid, n.nspname::text AS schema, c.relname::text AS name, c.relkind::text AS kind,
                pg_get_expr(c.relpartbound, 0) AS bound, i.inhdetachpending AS is_pending,
                obj_description(c.oid, 'pg_class') AS comment
         FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE i.inhparent = $1::bigint::oid ORDER BY n.nspname, c.relname",
    )
    .bind(table.oid)
    .fetch_all(connection)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| {
            let shown = row.bound.unwrap_or_default();
            let mark = row.comment.as_deref().and_then(Mark::read);
            Existing {
                range: key.range(&shown),
                is_default: shown == "DEFAULT",
                is_plain: row.kind == "r",
                is_pending: row.is_pending,
                mark: mark.filter(|mark| mark.table == row.oid && mark.parent == table.oid),
                inbound: Vec::new(),
                table: TableName { oid: row.oid, schema: row.schema, name: row.name },
                shown,
            }
        })
        .collect())
}

async fn detached(connection: &mut PgConnection, parent: i64, attached: &[i64]) -> Result<Vec<Detached>> {
    let rows: Vec<(i64, String, String, String)> = sqlx::query_as(
        "SELECT c.oid::bigint, n.nspname::text, c.relname::text, d.description
         FROM pg_description d JOIN pg_class c ON c.oid = d.objoid JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE d.classoid = 'pg_class'::regclass AND d.objsubid = 0 AND c.relkind = 'r' AND NOT c.relispartition
           AND d.description LIKE '%pgtend-partition: {%' ORDER BY 2, 3",
    )
    .fetch_all(connection)
    .await?;
    let ours = rows.into_iter().filter_map(|(oid, schema, name, comment)| {
        let mark = Mark::read(&comment)?;
        let is_ours = mark.parent == parent && mark.table == oid && !attached.contains(&oid);
        is_ours.then(|| Detached { table: TableName { oid, schema, name }, mark, inbound: Vec::new() })
    });
    Ok(ours.collect())
}

async fn publications(connection: &mut PgConnection, table: &TableName) -> Result<Vec<String>> {
    Ok(sqlx::query_scalar(
        "SELECT DISTINCT p.pubname::text FROM pg_publication_tables p JOIN pg_namespace n ON n.nspname = p.schemaname
             JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = p.tablename
         WHERE c.oid = $1::bigint::oid OR c.oid IN (SELECT inhrelid FROM pg_inherits WHERE inhparent = $1::bigint::oid) ORDER BY 1",
    )
    .bind(table.oid)
    .fetch_all(connection)
    .await?)
}

async fn taken(connection: &mut PgConnection, schema: &str) -> Result<Vec<String>> {
    let sql = "SELECT c.relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = $1
               UNION SELECT t.typname::text FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace WHERE n.nspname = $1";
    Ok(sqlx::query_scalar(sql).bind(schema).fetch_all(connection).await?)
}

/// Of the column's sequence: numbers are handed out before their rows are there.
async fn of_sequence(connection: &mut PgConnection, table: &TableName, column: &str) -> Result<Option<i64>> {
    // By its dependency: pg_get_serial_sequence fails for a name that is no column's.
    Ok(sqlx::query_scalar(
        "SELECT max(pg_sequence_last_value(s.oid)) FROM pg_class s JOIN pg_depend d ON d.objid = s.oid AND d.classid = 'pg_class'::regclass
         JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
         WHERE s.relkind = 'S' AND d.deptype IN ('a', 'i') AND d.refobjid = $1::bigint::oid AND a.attname = $2",
    )
    .bind(table.oid)
    .bind(column)
    .fetch_one(connection)
    .await?)
}

/// The highest key of all rows. The text has a name of its own: ORDER BY would mean it otherwise, and 900 is more than 2501.
async fn of_rows(connection: &mut PgConnection, table: &TableName, column: &str, key: Key) -> Result<Option<i64>> {
    let name = identifier(column);
    let sql = format!(
        "SELECT {name}::text AS \"shown as text\" FROM {} WHERE {name} IS NOT NULL ORDER BY {name} DESC LIMIT 1",
        table.sql()
    );
    let Some(text) = pg::fetch_text(connection, sql).await? else { return Ok(None) };
    let position = key.position(&text).with_context(|| {
        Fault::new(
            Kind::Configuration,
            format!("{table} has a key that no calendar holds: {column} = {text}; correct that row first"),
        )
    });
    position.map(Some)
}

/// The highest key there is, or will be next.
pub async fn highest(connection: &mut PgConnection, table: &TableName, column: &str, key: Key) -> Result<i64> {
    let rows = of_rows(connection, table, column, key).await?;
    if key.is_time() {
        return Ok(rows.unwrap_or(i64::MIN));
    }
    Ok(rows.max(of_sequence(connection, table, column).await?).unwrap_or(0))
}
