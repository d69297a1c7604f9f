//! The highest number of a row and of the sequence, which new rows follow.

use anyhow::{Context as _, Result};
use sqlx::PgConnection;

use super::found::{Below, FarRow, RetainFrom};
use crate::base::fault::{Fault, Kind};
use crate::pg::table::TableName;
use crate::pg::{self, identifier};
use crate::task::partition::calendar::Calendar;
use crate::task::partition::chain::{self, Chain};
use crate::task::partition::key::{Bound, Key};

/// Rows are followed beyond the partitions, ten periods per query, with at most this many queries.
const LOOKS: usize = 1000;

/// The place of new rows of a table with number keys.
#[derive(Default)]
pub(super) struct Place {
    /// The highest number of a row or of the sequence, without those far beyond.
    pub now: i64,
    pub chain: Option<Chain>,
    pub highest_row: Option<i64>,
    pub counted: Option<RetainFrom>,
    pub far_row: Option<FarRow>,
    pub far_sequence: Option<i64>,
}

/// Returns whether the table has such a row.
pub async fn has_rows(connection: &mut PgConnection, table: &TableName, condition: &str) -> Result<bool> {
    let sql = format!("SELECT EXISTS (SELECT FROM ONLY {} WHERE {condition})::pg_catalog.text", table.sql());
    Ok(pg::fetch_text(connection, sql).await?.as_deref() == Some("true"))
}

impl Place {
    /// Reads the place; without `reads_rows`, from partitions and sequence alone.
    pub async fn read(
        connection: &mut PgConnection,
        (table, column, key): (&TableName, &str, Key),
        (calendar, step): (Calendar, u32),
        ranges: &[(Bound, Bound)],
        reads_rows: bool,
    ) -> Result<Self> {
        let sequence = of_sequence(connection, table, column).await?;
        let mut place = Self { chain: chain::main(ranges, sequence, step), ..Self::default() };
        if reads_rows {
            let keys = Keys { table: table.sql(), column: identifier(column), key };
            place.read_rows(connection, &keys, (calendar, step)).await?;
            place.counted = place.count(connection, &keys, calendar, sequence).await?;
        }
        place.chain = place.chain.or(sequence.map(Chain::of_row));
        place.far_sequence =
            sequence.filter(|last| place.chain.is_some_and(|chain| chain.from <= *last && !chain.takes(*last, step)));
        place.now = place.highest_row.max(sequence.filter(|_| place.far_sequence.is_none())).unwrap_or(0);
        Ok(place)
    }

    async fn read_rows(&mut self, connection: &mut PgConnection, keys: &Keys, (calendar, step): (Calendar, u32)) -> Result<()> {
        let Some(highest) = keys.highest(connection, "true").await? else { return Ok(()) };
        if self.chain.is_none() {
            self.chain = keys.lowest(connection).await?.map(Chain::of_row);
        }
        let Some(mut chain) = self.chain else { return Ok(()) };
        for _ in 0..LOOKS {
            // One query is enough if the highest of all rows belongs to the chain.
            let found = match chain.takes(highest.position, step) {
                true => Some(highest.position),
                false => keys.highest(connection, &keys.within(&chain, step)?).await?.map(|found| found.position),
            };
            self.highest_row = found;
            let Some(beyond) = found.filter(|found| *found >= chain.to) else { break };
            chain.to = calendar.period_at(beyond).map_or(i64::MAX, |period| period.to);
        }
        self.chain = Some(chain);
        let is_far = !chain.takes(highest.position, step) && highest.position >= chain.from;
        self.far_row = is_far.then_some(highest);
        Ok(())
    }
}

impl Place {
    /// Finds the number that `retain` counts from.
    async fn count(
        &self,
        connection: &mut PgConnection,
        keys: &Keys,
        calendar: Calendar,
        sequence: Option<i64>,
    ) -> Result<Option<RetainFrom>> {
        let (Some(highest), Some(chain)) = (self.highest_row, self.chain) else { return Ok(None) };
        let beyond = sequence.filter(|last| *last < highest);
        let position = match beyond {
            Some(last) => keys.highest_below(connection, &chain, last.saturating_add(1)).await?,
            None => Some(highest),
        };
        let of_sequence = beyond.map(Below::Sequence);
        let Some((position, period)) = position.and_then(|position| Some((position, calendar.period_at(position)?))) else {
            return Ok(beyond.map(|last| RetainFrom { position: last, below: of_sequence }));
        };
        let counted = RetainFrom { position, below: of_sequence };
        // The sequence hands out numbers there: the next rows will follow.
        if sequence.is_some_and(|last| period.from <= last && last < period.to) {
            return Ok(Some(counted));
        }
        let next = keys.highest_below(connection, &chain, period.from).await?;
        let next = next.filter(|next| calendar.period_at(*next).is_some_and(|others| others.to < period.from));
        Ok(Some(match next {
            Some(next) => RetainFrom { position: next, below: of_sequence.or(Some(Below::Alone(position))) },
            None => counted,
        }))
    }
}

struct Keys {
    table: String,
    column: String,
    key: Key,
}

impl Keys {
    /// Returns the highest row that meets the condition; for numeric keys, without NaN and Infinity, which are not numbers and sort after
    /// all others. The text has a name of its own: otherwise ORDER BY would sort by it, where 900 is more than 2501.
    async fn highest(&self, connection: &mut PgConnection, condition: &str) -> Result<Option<FarRow>> {
        let Self { table, column, .. } = self;
        let sql = |condition: &str| {
            format!(
                "SELECT {column}::text AS \"shown as text\" FROM {table} WHERE {column} IS NOT NULL AND {condition} ORDER BY {column} DESC LIMIT 1"
            )
        };
        let mut found = pg::fetch_text(connection, sql(condition)).await?;
        if found.as_ref().is_some_and(|text| !is_number(text)) {
            found = pg::fetch_text(connection, sql(&format!("{condition} AND {column} < 'Infinity'"))).await?;
        }
        // Only -Infinity is left.
        let found = found.filter(|text| is_number(text));
        Ok(found.map(|shown| {
            let largest = if shown.starts_with('-') { i64::MIN } else { i64::MAX };
            FarRow { position: self.key.position(&shown).unwrap_or(largest), shown }
        }))
    }

    /// Returns the highest row of the chain below a number.
    async fn highest_below(&self, connection: &mut PgConnection, chain: &Chain, end: i64) -> Result<Option<i64>> {
        let (column, from) = (&self.column, self.from(chain)?);
        let Ok(end) = self.key.sql(end) else { return Ok(None) };
        Ok(self.highest(connection, &format!("{from} AND {column} < {end}")).await?.map(|found| found.position))
    }

    async fn lowest(&self, connection: &mut PgConnection) -> Result<Option<i64>> {
        let Self { table, column, key } = self;
        let from = match super::default::limits(*key, None).0 {
            Some(from) => format!("{column} >= {from}"),
            None => "true".to_owned(),
        };
        let sql = format!(
            "SELECT {column}::text AS \"shown as text\" FROM {table} WHERE {column} IS NOT NULL AND {from} ORDER BY {column} LIMIT 1"
        );
        Ok(pg::fetch_text(connection, sql).await?.filter(|text| is_number(text)).and_then(|text| key.position(&text)))
    }

    /// Returns the condition for rows that belong to the chain. A limit that does not fit in the type is left out.
    fn within(&self, chain: &Chain, step: u32) -> Result<String> {
        let Self { column, key, .. } = self;
        let from = self.from(chain)?;
        let to = key.sql(chain.limit(step)).map_or_else(|_| "true".to_owned(), |limit| format!("{column} < {limit}"));
        Ok(format!("{from} AND {to}"))
    }
}

impl Keys {
    fn from(&self, chain: &Chain) -> Result<String> {
        let Self { column, key, .. } = self;
        Ok(if chain.from == i64::MIN { "true".to_owned() } else { format!("{column} >= {}", key.sql(chain.from)?) })
    }
}

fn is_number(text: &str) -> bool {
    text.starts_with(|first: char| first == '-' || first.is_ascii_digit()) && text != "-Infinity"
}

/// Returns the last number of the column's sequence: numbers are handed out before their rows exist.
pub async fn of_sequence(connection: &mut PgConnection, table: &TableName, column: &str) -> Result<Option<i64>> {
    // The sequence is found by its dependency: pg_get_serial_sequence fails for a name that is not a column.
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

/// Returns the highest key of all rows, before a table is converted: the first partition must reach up to it.
pub async fn highest(connection: &mut PgConnection, table: &TableName, column: &str, key: Key) -> Result<Option<i64>> {
    let name = identifier(column);
    let sql = format!(
        "SELECT {name}::text AS \"shown as text\" FROM {} WHERE {name} IS NOT NULL ORDER BY {name} DESC LIMIT 1",
        table.sql()
    );
    let Some(text) = pg::fetch_text(connection, sql).await? else { return Ok(None) };
    let position = key.position(&text).with_context(|| {
        Fault::new(
            Kind::Configuration,
            format!("{table} has a row with {column} = {text}, which is outside the supported range; correct that row first"),
        )
    });
    position.map(Some)
}
