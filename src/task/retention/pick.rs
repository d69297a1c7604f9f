//! The rows of a batch: where it begins, and the SQL that finds, splits and locks them.

use anyhow::Result;
use sqlx::postgres::PgArguments;
use sqlx::query::Query;
use sqlx::{PgConnection, Postgres, Row as _};

use super::context::Work;
use crate::live::governor::Steps;
use crate::pg::{self, identifier, literal};

/// A smaller batch is hardly faster, see [`crate::live::governor::Pace::with_enough`]. Measured on two processors with six busy loops and a pgbench at full speed,
/// 60,000 rows: 24 s with batches of 1.8 blocks, 11 s with these; other sessions committed within 2 × idle in both.
pub const ENOUGH_BLOCKS: u64 = 8;
pub const ENOUGH_ROWS: u64 = 300;
const BEYOND: &str = "OPERATOR(pg_catalog.>)";

/// The position where a batch begins.
#[derive(Clone)]
pub enum Place {
    /// A range of blocks; the second is not included.
    Blocks(u64, u64),
    /// A value of the column, as text.
    Key(String),
    /// Only rows with this value, after this place in the table: more of them than a batch has may stay.
    Same(String, String),
    /// All rows with this value were looked at.
    Past(String),
}

impl Place {
    pub fn is_by_order(&self) -> bool {
        matches!(self, Self::Key(_) | Self::Past(_))
    }
}

impl Work<'_> {
    /// Returns the SQL condition for the rows of a batch, and the last value among them if they go by values; `None` when there are no rows.
    pub(super) async fn range(
        &self,
        connection: &mut PgConnection,
        place: &Place,
        size: u64,
    ) -> Result<Option<(String, Option<String>)>> {
        match place {
            Place::Blocks(from, to) => Ok(Some((between_blocks(*from, *to), None))),
            // A batch has all rows with its last value.
            Place::Same(..) => Ok(None),
            Place::Key(key) | Place::Past(key) => {
                let last = self.key_after(connection, place, size).await?;
                Ok(last.map(|last| (self.between_keys(self.beyond(place), key, &last), Some(last))))
            }
        }
    }

    /// Splits the rows of a batch into ranges that are small enough for the other sessions. `last` is the value that ends the batch.
    pub(super) async fn ranges(
        &self,
        connection: &mut PgConnection,
        place: &Place,
        size: u64,
        last: Option<&str>,
        steps: Steps,
    ) -> Result<Vec<String>> {
        match (place, last) {
            (Place::Blocks(from, to), _) => {
                let step = steps.size(ENOUGH_BLOCKS);
                Ok((*from..*to).step_by(step as usize).map(|start| between_blocks(start, (start + step).min(*to))).collect())
            }
            (Place::Key(key) | Place::Past(key), Some(last)) => {
                let mut keys = self.keys_after(connection, place, size, steps.size(ENOUGH_ROWS)).await?;
                // Rows may have come or gone since the last value was read.
                keys.pop();
                keys.push(last.to_owned());
                let (mut from, mut beyond) = (key.clone(), self.beyond(place));
                let mut ranges = Vec::new();
                for key in keys {
                    ranges.push(self.between_keys(beyond, &from, &key));
                    (from, beyond) = (key, BEYOND);
                }
                Ok(ranges)
            }
            _ => Ok(Vec::new()),
        }
    }

    fn between_keys(&self, beyond: &str, from: &str, last: &str) -> String {
        let column = self.column();
        let (from, last) = (self.key_value(from), self.key_value(last));
        format!("{column} {beyond} {from} AND {column} OPERATOR(pg_catalog.<=) {last}")
    }

    /// Returns the last value of every `step` of the `size` rows from `place` on, each value once.
    async fn keys_after(&self, connection: &mut PgConnection, place: &Place, size: u64, step: u64) -> Result<Vec<String>> {
        let (column, order) = (self.column(), self.order());
        let sql = format!(
            "SELECT {} FROM (SELECT {column} AS key, (pg_catalog.row_number() OVER (ORDER BY {order}) OPERATOR(pg_catalog.-) 1)
                OPERATOR(pg_catalog./) {step} AS step FROM ONLY {} WHERE {column} {} {} AND {}
             ORDER BY {order} LIMIT $2::pg_catalog.text::bigint) k GROUP BY step ORDER BY step",
            self.plan.key.greatest("key"),
            self.part.name,
            self.beyond(place),
            self.bound_key(),
            self.part.conditions.expired
        );
        let mut keys = Vec::new();
        for row in bound(sql, place, size).fetch_all(connection).await? {
            keys.push(row.try_get(0)?);
        }
        keys.dedup();
        Ok(keys)
    }

    /// Returns the value of the column that ends a batch of about `size` rows from `place` on.
    async fn key_after(&self, connection: &mut PgConnection, place: &Place, size: u64) -> Result<Option<String>> {
        let (column, order) = (self.column(), self.order());
        let sql = format!(
            "SELECT {} FROM (SELECT {column} AS key FROM ONLY {} WHERE {column} {} {} AND {}
             ORDER BY {order} LIMIT $2::pg_catalog.text::bigint) k",
            self.plan.key.greatest("key"),
            self.part.name,
            self.beyond(place),
            self.bound_key(),
            self.part.conditions.expired
        );
        Ok(bound(sql, place, size).fetch_one(connection).await?.try_get(0)?)
    }

    /// Returns a query that picks the rows at `place`, whose values are bound as parameters.
    pub(super) fn pick_at(&self, place: &Place, around_references: bool) -> String {
        match place {
            Place::Blocks(..) => self.pick(&bound_blocks(), "", around_references),
            Place::Same(_, after) => self.pick(
                &format!("{} AND ctid OPERATOR(pg_catalog.>) {}::pg_catalog.tid", self.from(place), literal(after)),
                "ORDER BY ctid LIMIT $2::pg_catalog.text::bigint",
                around_references,
            ),
            Place::Key(_) | Place::Past(_) => {
                let order = self.order();
                self.pick(&self.from(place), &format!("ORDER BY {order} LIMIT $2::pg_catalog.text::bigint"), around_references)
            }
        }
    }

    /// Returns the SQL condition for rows at or beyond the value of `place`.
    pub(super) fn from(&self, place: &Place) -> String {
        let operator = match place {
            Place::Same(..) => "=",
            Place::Past(_) => ">",
            _ => ">=",
        };
        format!("{} OPERATOR(pg_catalog.{operator}) {}", self.column(), self.bound_key())
    }

    /// Returns a query that finds rows and locks them: `at`, `key`, and the columns that tell parents from children.
    pub(super) fn pick(&self, which: &str, tail: &str, around_references: bool) -> String {
        let (table, kept) = (&self.part.name, &self.part.kept);
        let (free, columns) = match around_references {
            true => (kept.and_free(table), kept.columns()),
            false => (String::new(), String::new()),
        };
        format!(
            "SELECT ctid AS at, {} AS key{columns} FROM ONLY {table} WHERE {which} AND {} AND {}{free} {tail} FOR UPDATE SKIP LOCKED",
            identifier(&self.retention.column),
            self.part.conditions.expired,
            self.plan.gate
        )
    }

    /// Returns the places of the picked rows that may go, as `going`.
    pub(super) fn with(&self, pick: &str) -> String {
        match self.part.kept.kept(self.part.oid) {
            None => format!("WITH picked AS MATERIALIZED ({pick}), going AS MATERIALIZED (SELECT at FROM picked)"),
            Some(kept) => format!(
                "WITH RECURSIVE picked AS MATERIALIZED ({pick}), kept (at) AS ({kept}),
                 going AS MATERIALIZED (SELECT at FROM picked EXCEPT SELECT at FROM kept)"
            ),
        }
    }

    pub(super) fn column(&self) -> String {
        self.plan.key.column(&self.retention.column)
    }

    /// The column for ORDER BY, with its table: a bare name there is first looked up among the columns that a query returns, and a column named `at`
    /// would be the row's place.
    pub(super) fn order(&self) -> String {
        self.plan.key.column_of(&self.part.name, &self.retention.column)
    }

    fn key_value(&self, key: &str) -> String {
        format!("{}::{}", literal(key), self.plan.key.type_sql())
    }

    fn bound_key(&self) -> String {
        format!("$1::pg_catalog.text::{}", self.plan.key.type_sql())
    }

    /// Rows at the last key were checked together with it; at the very start there is no last key.
    fn beyond(&self, place: &Place) -> &'static str {
        if matches!(place, Place::Key(key) if *key == self.plan.start) { "OPERATOR(pg_catalog.>=)" } else { BEYOND }
    }
}

fn between_blocks(from: u64, to: u64) -> String {
    between(&format!("'({from},0)'::pg_catalog.tid"), &format!("'({to},0)'::pg_catalog.tid"))
}

/// Returns the SQL condition for rows in a range of blocks; the end is not included.
fn between(from: &str, to: &str) -> String {
    format!("ctid OPERATOR(pg_catalog.>=) {from} AND ctid OPERATOR(pg_catalog.<) {to}")
}

pub fn bound_blocks() -> String {
    between("$1::pg_catalog.text::pg_catalog.tid", "$2::pg_catalog.text::pg_catalog.tid")
}

/// Returns the query with `place` and `size` bound as `$1` and `$2`.
pub fn bound<'q>(sql: String, place: &Place, size: u64) -> Query<'q, Postgres, PgArguments> {
    bind(pg::query(sql), place, size)
}

/// Binds `place` and `size` as `$1` and `$2`.
pub fn bind<'q>(query: Query<'q, Postgres, PgArguments>, place: &Place, size: u64) -> Query<'q, Postgres, PgArguments> {
    let (from, to) = match place {
        Place::Blocks(from, to) => (format!("({from},0)"), format!("({to},0)")),
        Place::Key(key) | Place::Same(key, _) | Place::Past(key) => (key.clone(), size.to_string()),
    };
    query.bind(from).bind(to)
}
