//! `max_size`: keeps the newest rows of a table that fit in a size, with their indexes and their TOAST.
//!
//! Deleting rows shrinks no file: measured by the files, each run would find the table as large as before and delete again. So the size of
//! the rows counts: their stored lengths, read from the whole table where it is small, otherwise from evenly spread pieces of it; the share
//! of the indexes is added in the ratio of their files to heap and TOAST. VACUUM, and rows that reuse space, change nothing of that.

use anyhow::Result;
use chrono::{DateTime, TimeDelta, Utc};
use chrono_tz::Tz;
use serde::Serialize;
use sqlx::PgConnection;

use super::facts::Facts;
use super::key::Key;
use super::keys::Retention;
use crate::base::units::{self, Size, Span};
use crate::pg::{self, identifier, literal};
use crate::task::partition::Epoch;

/// A time further ahead than this is not the time of a row: it is an "open end", or comes from a wrong clock.
const AHEAD: TimeDelta = TimeDelta::days(1);

/// At most this many blocks are read (32 MiB), of all partitions together; smaller tables are read as a whole.
const BLOCKS: u64 = 4_096;
/// Blocks read one after the other.
const PIECE: u64 = 16;
/// Header and line pointer of a row, and half of the alignment padding.
const ROW_BYTES: u32 = 24 + 4 + 4;
/// The possible error of a size: pieces are a sample, and the share of the indexes changes when VACUUM truncates the heap or adds to its
/// maps. An excess smaller than this counts as fitting, so that neither deletes rows night after night.
const MAY_ERR: f64 = 0.02;
/// A partition goes as a whole only if it ends this long before the first row that stays: its age is evaluated a moment later.
const AGE_MARGIN: TimeDelta = TimeDelta::minutes(1);
/// The margin for wall-clock time, which has an hour that occurs twice.
const WALL_CLOCK_MARGIN: TimeDelta = TimeDelta::hours(3);

/// The size of a table's rows, and which of them stay.
#[derive(Clone, Debug, Serialize)]
pub struct Measured {
    /// The size of its rows.
    pub bytes: u64,
    pub file_bytes: u64,
    pub blocks: u64,
    pub blocks_looked_at: u64,
    /// The value of the column from which on rows stay, as text; None: all stay.
    pub keeps_from: Option<String>,
    /// The age of that value, where it is a time.
    #[serde(skip)]
    pub age: Option<Span>,
}

/// A table, or a partition.
struct Part {
    name: String,
    columns: Vec<String>,
    files: Files,
    /// None: all blocks.
    pieces: Option<Vec<(u64, u64)>>,
    /// The number of bytes that each sampled byte of a row stands for.
    weight: f64,
}

#[derive(Clone, Copy, Debug, sqlx::FromRow)]
struct Files {
    /// Bytes of all files, with indexes.
    total: i64,
    /// Bytes of heap and TOAST.
    data: i64,
    blocks: i64,
}

/// `oids`: the table, or its partitions. `now`: the server's clock.
pub async fn measure(
    connection: &mut PgConnection,
    retention: &Retention,
    max_size: Size,
    oids: &[i64],
    (key, zone, now): (Key, Tz, DateTime<Utc>),
) -> Result<Measured> {
    let mut files = Vec::new();
    for oid in oids {
        // Addressed by its own name, a partition's own privileges and row security apply.
        let facts = Facts::read(connection, *oid, &retention.column).await?;
        facts.refuse(retention)?;
        files.push((*oid, facts.sql(), read_files(connection, *oid).await?));
    }
    let sum = |of: fn(&Files) -> i64| files.iter().map(|(_, _, files)| of(files).max(0) as u64).sum::<u64>();
    let (file_bytes, blocks) = (sum(|files| files.total), sum(|files| files.blocks));
    let mut measured = Measured { bytes: file_bytes, file_bytes, blocks, blocks_looked_at: 0, keeps_from: None, age: None };
    if file_bytes <= max_size.0 {
        // Rows cannot be larger than the files.
        return Ok(measured);
    }
    let mut parts = Vec::new();
    let mut bytes = 0.0;
    for (oid, name, files) in files.into_iter().filter(|(_, _, files)| files.blocks > 0) {
        let pieces = pieces(files.blocks as u64, blocks);
        let looked_at = pieces.as_ref().map_or(files.blocks as u64, |pieces| pieces.iter().map(|(from, to)| to - from).sum());
        let mut part = Part { name, columns: columns(connection, oid).await?, files, pieces, weight: 1.0 };
        let seen = pg::fetch_text(connection, format!("SELECT sum(bytes)::text FROM ({}) r", part.rows(retention, key))).await?;
        let seen: f64 = seen.as_deref().unwrap_or("0").parse()?;
        part.weight = weight(&part.files, looked_at, seen);
        bytes += seen * part.weight;
        measured.blocks_looked_at += looked_at;
        parts.push(part);
    }
    measured.bytes = bytes as u64;
    if !is_over(bytes, max_size) {
        return Ok(measured);
    }
    let parts = parts.as_slice();
    measured.keeps_from = border(connection, retention, (key, &key.at(now + AHEAD, zone)?), parts, max_size).await?;
    if let Some(from) = &measured.keeps_from {
        measured.age = age(connection, from, (key, zone, now)).await?;
    }
    Ok(measured)
}

async fn read_files(connection: &mut PgConnection, oid: i64) -> Result<Files> {
    Ok(sqlx::query_as(
        "SELECT pg_total_relation_size(c.oid) AS total,
                pg_relation_size(c.oid) + CASE WHEN c.reltoastrelid <> 0 THEN pg_relation_size(c.reltoastrelid) ELSE 0 END AS data,
                pg_relation_size(c.oid) / current_setting('block_size')::bigint AS blocks
         FROM pg_class c WHERE c.oid = $1::bigint::oid",
    )
    .bind(oid)
    .fetch_one(connection)
    .await?)
}

/// Returns the columns that take space: not the virtual ones of PostgreSQL 18.
async fn columns(connection: &mut PgConnection, oid: i64) -> Result<Vec<String>> {
    Ok(sqlx::query_scalar(
        "SELECT attname::text FROM pg_attribute WHERE attrelid = $1::bigint::oid AND attnum > 0 AND NOT attisdropped AND attgenerated <> 'v'
         ORDER BY attnum",
    )
    .bind(oid)
    .fetch_all(connection)
    .await?)
}

/// Returns the blocks to read, each part by its share of all; None: all of them. Pure.
fn pieces(blocks: u64, blocks_of_all: u64) -> Option<Vec<(u64, u64)>> {
    if blocks_of_all <= BLOCKS {
        return None;
    }
    let count = (blocks * BLOCKS / blocks_of_all).div_ceil(PIECE).max(1);
    if count * PIECE >= blocks {
        return None;
    }
    Some((0..count).map(|number| number * blocks / count).map(|from| (from, from + PIECE)).collect())
}

/// Returns the number of bytes that one sampled byte stands for: it includes blocks that were not sampled and a share of the indexes. All rows
/// together never count as more than the files. Pure.
fn weight(files: &Files, looked_at: u64, seen: f64) -> f64 {
    if seen <= 0.0 || looked_at == 0 {
        return 1.0;
    }
    let all = files.total as f64;
    let by_blocks = files.blocks as f64 / looked_at as f64;
    (by_blocks * all / (files.data.max(1) as f64)).min(all / seen)
}

/// Returns whether the size is above the limit. Pure.
fn is_over(bytes: f64, max_size: Size) -> bool {
    bytes > max_size.0 as f64 * (1.0 + MAY_ERR)
}

impl Part {
    /// Returns a query of its sampled rows: `key`, and the `bytes` that each stands for.
    fn rows(&self, retention: &Retention, key: Key) -> String {
        let lengths = self.columns.iter().map(|column| format!(" + coalesce(pg_column_size({}), 0)", identifier(column)));
        let select = format!(
            "SELECT {} AS key, ({ROW_BYTES}{})::float8 * {:.6} AS bytes FROM ONLY {}",
            key.column(&retention.column),
            lengths.collect::<String>(),
            self.weight,
            self.name
        );
        let Some(pieces) = &self.pieces else { return select };
        let of = |(from, to): &(u64, u64)| format!("{select} WHERE ctid >= '({from},0)'::tid AND ctid < '({to},0)'::tid");
        pieces.iter().map(of).collect::<Vec<_>>().join(" UNION ALL ")
    }
}

/// Returns the newest value from which on rows take more than `max_size`. Rows with exactly that value stay. Values that are not times, NULL, and
/// future times (9999-12-31 for "open end") do not count: they would push out all real ones. None: the rows with a time fit.
async fn border(
    connection: &mut PgConnection,
    retention: &Retention,
    (key, ahead): (Key, &str),
    parts: &[Part],
    max_size: Size,
) -> Result<Option<String>> {
    pg::set(connection, "max_parallel_workers_per_gather", "0").await?;
    let rows: Vec<String> = parts.iter().map(|part| part.rows(retention, key)).collect();
    let is_a_time = key.is_a_time("r", "key").map(|condition| format!(" AND {condition}")).unwrap_or_default();
    let is_not_ahead = format!("{} OPERATOR(pg_catalog.<) {}", key.compared("r.key".to_owned()), key.compared(ahead.to_owned()));
    let sql = format!(
        "SELECT {} FROM (SELECT key, sum(bytes) OVER (ORDER BY key DESC) AS so_far FROM ({}) r WHERE key IS NOT NULL AND {is_not_ahead}{is_a_time}) s
         WHERE so_far > {}",
        key.greatest("key"),
        rows.join(" UNION ALL "),
        max_size.0
    );
    pg::fetch_text(connection, sql).await
}

/// Returns the age of a partition that ends at this value: partitions are retired by age.
async fn age(connection: &mut PgConnection, from: &str, (key, zone, now): (Key, Tz, DateTime<Utc>)) -> Result<Option<Span>> {
    let value = format!("{}::{}", literal(from), key.type_sql());
    let seconds = match key {
        Key::TimestampTz => format!("extract(epoch FROM {value})"),
        Key::Timestamp | Key::Date => {
            format!("extract(epoch FROM ({value}::timestamp without time zone AT TIME ZONE {}))", literal(zone.name()))
        }
        Key::Epoch(Epoch::Seconds) => format!("{value} / 1.0"),
        Key::Epoch(Epoch::Milliseconds) => format!("{value} / 1000.0"),
        Key::Epoch(Epoch::Microseconds) => format!("{value} / 1000000.0"),
        // 48 bits of milliseconds.
        Key::Uuid => format!("('x' || left(replace({value}::text, '-', ''), 12))::bit(48)::bigint / 1000.0"),
        // No partitioned table has a time range over such a column.
        Key::Ulid => return Ok(None),
    };
    let seconds = pg::fetch_text(connection, format!("SELECT ({seconds})::float8::text")).await?;
    let seconds = seconds.and_then(|seconds| seconds.parse::<f64>().ok()).filter(|seconds| seconds.abs() < 1e12);
    let Some(at) = seconds.and_then(|seconds| DateTime::from_timestamp(seconds.floor() as i64, 0)) else { return Ok(None) };
    let moment = if key.is_wall_clock() { WALL_CLOCK_MARGIN } else { AGE_MARGIN };
    Ok((now - at + moment).to_std().ok().map(Span))
}

impl Measured {
    /// Returns a sentence for the plan.
    pub fn note(&self, table: &str, column: &str, max_size: Size) -> String {
        if self.blocks_looked_at == 0 {
            return format!(
                "{table} with its indexes and TOAST fits in max_size ({max_size}): its files take {}",
                units::bytes(self.file_bytes)
            );
        }
        let looked_at = match self.blocks_looked_at < self.blocks {
            true => format!("estimated from {} of its {} blocks", units::count(self.blocks_looked_at), units::count(self.blocks)),
            false => "all blocks read".to_owned(),
        };
        let stay = match &self.keeps_from {
            Some(from) => format!("more than max_size ({max_size}): rows from {} = {from} on stay", identifier(column)),
            None => format!("max_size is {max_size}: all rows stay"),
        };
        format!(
            "rows of {table} take about {} with indexes and TOAST ({looked_at}; files: {}), {stay}",
            units::bytes(self.bytes),
            units::bytes(self.file_bytes)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_table_is_read_as_a_whole_and_of_a_large_one_even_pieces() {
        assert_eq!(pieces(4_096, 4_096), None);
        assert_eq!(pieces(10, 1_000_000), None, "a small partition of a large table");
        let large = pieces(1_000_000, 1_000_000).unwrap();
        assert_eq!((large.len(), large[0], large[255]), (256, (0, 16), (996_093, 996_109)));
        let half = pieces(500_000, 1_000_000).unwrap();
        assert_eq!(half.len(), 128);
        // Just above: pieces do not overlap.
        let above = pieces(5_000, 5_000).unwrap();
        assert!(above.windows(2).all(|pair| pair[0].1 <= pair[1].0), "{above:?}");
        assert!(above.last().unwrap().1 <= 5_000);
    }

    #[test]
    fn rows_count_with_their_indexes_and_free_space_does_not() {
        let files = |total, data, blocks| Files { total, data, blocks };
        for (what, files, looked_at, seen, expected) in [
            ("full, no index", files(8_192_000, 8_192_000, 1_000), 1_000, 8_000_000.0, 8_000_000.0),
            ("half of it is indexes", files(16_384_000, 8_192_000, 1_000), 1_000, 8_000_000.0, 16_000_000.0),
            ("half of it is free", files(16_384_000, 8_192_000, 1_000), 1_000, 4_000_000.0, 8_000_000.0),
            ("a tenth was looked at", files(16_384_000, 8_192_000, 1_000), 100, 400_000.0, 8_000_000.0),
            ("never more than the files", files(8_192_000, 8_192_000, 1_000), 1_000, 9_000_000.0, 8_192_000.0),
            ("no rows", files(8_192_000, 8_192_000, 1_000), 1_000, 0.0, 0.0),
        ] {
            assert!((seen * weight(&files, looked_at, seen) - expected).abs() < 1.0, "{what}");
        }
    }

    #[test]
    fn a_size_that_is_hardly_larger_fits() {
        for (bytes, expected) in [(1_000.0, false), (1_001.0, false), (1_019.0, false), (1_021.0, true)] {
            assert_eq!(is_over(bytes, Size(1_000)), expected, "{bytes}");
        }
    }
}
