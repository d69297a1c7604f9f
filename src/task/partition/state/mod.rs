//! Reads the current state: the table, its partitions with their bounds, and obstacles. It reads catalogs, and of tables only the default
//! partition and the highest number.

pub mod default;
pub mod found;
mod rows;
pub mod surroundings;
mod table;

use anyhow::Result;
use chrono::{TimeZone as _, Utc};
use chrono_tz::Tz;
use found::OtherOwnersTable;
pub use found::{DefaultContents, Detached, Existing, State};
use rows::Place;
pub use rows::{has_rows, highest, of_sequence};
use sqlx::PgConnection;
pub use table::{check, parents};

use super::calendar::{Calendar, Every};
use super::guard::{self, Guard};
use super::key::Key;
use super::keys::Partition;
use super::mark::Mark;
use crate::live::session::Session;
pub use crate::pg::table::TableName;
use crate::pg::{self, Server};
use crate::work::RunContext;

/// Counting and looking up must not go on for hours where no index helps.
const READ_TIMEOUT: &str = "600000";

impl State {
    pub async fn read(partition: &Partition, run: &RunContext<'_>, session: &mut Session) -> Result<Self> {
        pg::set(&mut session.connection, "statement_timeout", READ_TIMEOUT).await?;
        let (table, key) = table::changeable(&mut session.connection, partition).await?;
        let mut state = Self::bounds(partition, run, session, (table, key), true).await?;
        let connection = &mut session.connection;
        state.published = surroundings::published(connection, &state.table).await?;
        state.read_foreign_keys(connection).await?;
        state.read_what_keeps(connection, partition).await?;
        state.read_what_needs_consent(connection, partition, run).await?;
        if let Some(model) = state.model().map(|model| model.table.oid) {
            state.extras = surroundings::extras(connection, state.table.oid, model, &state.column).await?;
        }
        state.default = default::read(connection, &state).await?;
        Ok(state)
    }

    /// Reads the partitions of a table that could not be read, from catalogs alone, which neither a lock nor another owner hides.
    pub async fn read_catalogs(partition: &Partition, run: &RunContext<'_>, session: &mut Session) -> Result<Self> {
        let found = table::readable(&mut session.connection, partition).await?;
        Self::bounds(partition, run, session, found, false).await
    }

    /// Reads the partitions and their bounds. For number keys, new rows follow the highest row or the last number of the sequence; without
    /// `reads_rows`, the sequence alone.
    async fn bounds(
        partition: &Partition,
        run: &RunContext<'_>,
        session: &mut Session,
        (table, key): (TableName, Key),
        reads_rows: bool,
    ) -> Result<Self> {
        let connection = &mut session.connection;
        let server = Server::of(connection).await?;
        let zone = partition.zone.unwrap_or(run.job.timezone);
        let asked_at = Utc::now();
        let at = pg::clock::of_server(connection).await?;
        let clocks_apart = pg::clock::apart(at, asked_at, Utc::now());
        let existing = partitions(connection, &table, key).await?;
        let mut numbers = Place::default();
        let (now, calendar) = match (partition.every, key.is_wall_clock()) {
            (Every::Step(step), _) => {
                let calendar = Calendar { every: partition.every, zone: Tz::UTC };
                let ranges: Vec<_> =
                    existing.iter().filter(|existing| !existing.is_pending).filter_map(|existing| existing.range).collect();
                let column = (&table, &*partition.column, key);
                numbers = Place::read(connection, column, (calendar, step), &ranges, reads_rows).await?;
                (numbers.now, calendar)
            }
            (Every::Unit(_), true) => {
                let on_the_wall = zone.from_utc_datetime(&at.naive_utc()).naive_local().and_utc();
                (on_the_wall.timestamp_micros(), Calendar { every: partition.every, zone: Tz::UTC })
            }
            (Every::Unit(_), false) => (at.timestamp_micros(), Calendar { every: partition.every, zone }),
        };
        let oids: Vec<i64> = existing.iter().map(|partition| partition.table.oid).collect();
        Ok(Self {
            server,
            column: partition.column.clone(),
            key,
            calendar,
            zone,
            now,
            highest_row: numbers.highest_row,
            counted: numbers.counted,
            asks: None,
            chain: numbers.chain,
            far_row: numbers.far_row,
            far_sequence: numbers.far_sequence,
            at,
            clocks_apart,
            detached: detached(connection, table.oid, &oids).await?,
            inbound: Vec::new(),
            of_other_owners: of_other_owners(connection, table.oid).await?,
            published: Vec::new(),
            extras: Vec::new(),
            default: DefaultContents::default(),
            taken: taken(connection, &table.schema).await?,
            existing,
            table,
        })
    }

    pub fn default_partition(&self) -> Option<&Existing> {
        self.existing.iter().find(|partition| partition.is_default)
    }

    /// Returns the newest ordinary partition, which is the model of new ones.
    pub fn model(&self) -> Option<&Existing> {
        let plain = self.existing.iter().filter(|existing| existing.is_plain && existing.range.is_some());
        plain.max_by_key(|existing| existing.range)
    }
}

async fn partitions(connection: &mut PgConnection, table: &TableName, key: Key) -> Result<Vec<Existing>> {
    #[derive(sqlx::FromRow)]
    struct Row {
        oid: i64,
        schema: String,
        name: String,
        kind: String,
        takes_rows: bool,
        bound: Option<String>,
        is_pending: bool,
        comment: Option<String>,
    }
    // Without the relation, pg_get_expr needs no lock on it; a constant needs no relation.
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT c.oid::bigint AS oid, n.nspname::text AS schema, c.relname::text AS name, c.relkind::text AS kind,
                pg_get_expr(c.relpartbound, 0) AS bound, i.inhdetachpending AS is_pending,
                c.relkind <> 'p' OR EXISTS (
                    WITH RECURSIVE below AS (
                        SELECT inhrelid FROM pg_inherits WHERE inhparent = c.oid AND NOT inhdetachpending
                        UNION ALL SELECT h.inhrelid FROM below b JOIN pg_inherits h ON h.inhparent = b.inhrelid AND NOT h.inhdetachpending)
                    SELECT FROM below b JOIN pg_class l ON l.oid = b.inhrelid WHERE l.relkind <> 'p') AS takes_rows,
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
                takes_rows: row.takes_rows,
                is_pending: row.is_pending,
                mark: mark.filter(|mark| mark.table == row.oid && mark.parent == table.oid),
                inbound: Vec::new(),
                referred_to: Vec::new(),
                dependants: Vec::new(),
                has_rows_without_time: false,
                bytes: 0,
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
           AND d.description LIKE '%pgtend-partition: {%'
           -- The owner of a table can write any comment on it: a mark counts only on tables of the parent's owner.
           AND c.relowner = (SELECT relowner FROM pg_class WHERE oid = $1::bigint::oid) ORDER BY 2, 3",
    )
    .bind(parent)
    .fetch_all(&mut *connection)
    .await?;
    let ours = rows.into_iter().filter_map(|(oid, schema, name, comment)| {
        let mark = Mark::read(&comment)?;
        let is_ours = mark.parent == parent && mark.table == oid && !attached.contains(&oid);
        let table = TableName { oid, schema, name };
        is_ours.then(|| Detached { table, mark, inbound: Vec::new(), dependants: Vec::new(), guard_of_another: None })
    });
    let mut ours: Vec<Detached> = ours.collect();
    for detached in ours.iter_mut().filter(|detached| detached.mark.is_guarded) {
        if let Guard::OfAnother { function, owner } = guard::look(connection, &detached.table).await? {
            detached.guard_of_another = Some(format!("{function} of {owner}"));
        }
    }
    Ok(ours)
}

/// Returns tables of other owners whose marks say that they were retired from this one. Anyone can write such a comment on their own table,
/// so the mark does not count: the table is only reported, and only if it has the guard, whose function belongs to the owner of this one.
async fn of_other_owners(connection: &mut PgConnection, parent: i64) -> Result<Vec<OtherOwnersTable>> {
    let rows: Vec<(i64, String, String, String, String, String)> = sqlx::query_as(
        "SELECT c.oid::bigint, n.nspname::text, c.relname::text, d.description, quote_ident(pg_get_userbyid(c.relowner)), quote_ident(pg_get_userbyid(p.relowner))
         FROM pg_description d JOIN pg_class c ON c.oid = d.objoid JOIN pg_namespace n ON n.oid = c.relnamespace
         JOIN pg_class p ON p.oid = $1::bigint::oid AND p.relowner <> c.relowner
         WHERE d.classoid = 'pg_class'::regclass AND d.objsubid = 0 AND c.relkind = 'r' AND NOT c.relispartition
           AND d.description LIKE '%pgtend-partition: {%'
           AND EXISTS (SELECT FROM pg_trigger t JOIN pg_proc f ON f.oid = t.tgfoid
                       WHERE t.tgrelid = c.oid AND t.tgname = $2 AND pg_has_role(f.proowner, p.relowner, 'USAGE')
                         AND (f.proname = format('%s_%s', $2, c.oid) OR starts_with(f.proname, format('%s_%s_', $2, c.oid)))) ORDER BY 2, 3",
    )
    .bind(parent)
    .bind(guard::TRIGGER)
    .fetch_all(connection)
    .await?;
    let ours = rows.into_iter().filter_map(|(oid, schema, name, comment, owner, expected)| {
        let mark = Mark::read(&comment).filter(|mark| mark.parent == parent && mark.table == oid);
        mark.map(|_| OtherOwnersTable { table: TableName { oid, schema, name }, owner, expected })
    });
    Ok(ours.collect())
}

async fn taken(connection: &mut PgConnection, schema: &str) -> Result<Vec<String>> {
    let sql = "SELECT c.relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = $1
               UNION SELECT t.typname::text FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace WHERE n.nspname = $1";
    Ok(sqlx::query_scalar(sql).bind(schema).fetch_all(connection).await?)
}
