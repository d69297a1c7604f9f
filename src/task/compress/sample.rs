//! Measures, on this server, the bytes of a table's values now, and those that some of them would have in every other form.

use std::time::Instant;

use anyhow::Result;
use sqlx::{PgConnection, Row as _};

use super::decide::{Form, Measured, Target};
use super::keys::Compress;
use super::table::Table;
use super::value::ValueType;
use super::{inflate, learn, pack};
use crate::pg;
use crate::task::compress::decide::Candidates;

/// The number of blocks that are read for the sizes of values; a larger table is sampled.
const BLOCKS: f64 = 4_000.0;
/// The largest number of values that are measured, and their bytes.
const BODIES: i64 = 100;
const BYTES: i64 = 8 << 20;
/// The least number of them, where the effort is shared among many partitions.
const FEWEST_BODIES: i64 = 10;
/// The number of these that are decoded by PL/pgSQL.
const DECODED: usize = 10;

/// Samples the table, and measures some of its values. `seed` chooses the blocks of a large table: with the same ones each time, the
/// others would never be seen. `share` is the part of the effort that is for this table: a partition is one of several.
pub async fn take(
    compress: &Compress,
    table: &Table,
    target: Target,
    (seed, share): (i64, f64),
    connection: &mut PgConnection,
) -> Result<(Candidates, Measured)> {
    pg::set(connection, "statement_timeout", "60000").await?;
    let percent = (100.0 * BLOCKS * share / table.blocks.max(1) as f64).min(100.0);
    let (content, size, name) = (table.content(), table.size(), table.sql());
    let sample = format!("ONLY {name} TABLESAMPLE SYSTEM ({percent}) REPEATABLE ({seed})");
    let condition = condition(compress, table, target);
    let sql = format!(
        "SELECT count(*) FILTER (WHERE {condition}), coalesce(sum({size}) FILTER (WHERE {condition}), 0)::bigint,
                coalesce(sum(pg_column_size({content})) FILTER (WHERE {condition}), 0)::bigint,
                count(*) FILTER (WHERE {size} > {}), count(*) FILTER (WHERE {size} > {}), coalesce(sum({size}), 0)::bigint
         FROM {sample}",
        compress.smaller_than.0, compress.larger_than.0
    );
    let row = pg::query(sql).fetch_one(&mut *connection).await.map_err(pg::in_its_own_words)?;
    let scaled = |index: usize| Ok::<u64, sqlx::Error>((row.try_get::<i64, _>(index)? as f64 * 100.0 / percent).round() as u64);
    let candidates = Candidates {
        rows: scaled(0)?,
        raw_bytes: scaled(1)?,
        stored_bytes: scaled(2)?,
        too_large: scaled(3)?,
        above: scaled(4)?,
        all_bytes: scaled(5)?,
        exact: percent >= 100.0,
    };
    let values = ((BODIES as f64 * share) as i64).max(FEWEST_BODIES);
    let sql = format!(
        "SELECT ctid FROM (
             SELECT ctid::text AS ctid, sum({size}) OVER anywhere AS bytes, row_number() OVER anywhere AS number
             FROM {sample} WHERE {condition} WINDOW anywhere AS (ORDER BY hashtextextended(ctid::text, {seed}))) s
         WHERE number = 1 OR number <= {values} AND bytes <= {BYTES} ORDER BY number"
    );
    let rows = pg::query(sql).fetch_all(&mut *connection).await.map_err(pg::in_its_own_words)?;
    let ctids = rows.iter().map(|row| row.try_get(0)).collect::<Result<Vec<String>, _>>()?;
    if ctids.is_empty() {
        return Ok((candidates, Measured::default()));
    }
    // The rollback removes the temporary objects of the measurement.
    pg::execute(connection, "BEGIN".to_owned()).await?;
    let measured = measure(table, &ctids, candidates.raw_bytes, connection).await;
    let _ = pg::execute(connection, "ROLLBACK".to_owned()).await;
    Ok((candidates, measured?))
}

/// Returns a condition for the values that a run takes.
pub fn condition(compress: &Compress, table: &Table, target: Target) -> String {
    let (content, size) = (table.content(), table.size());
    let (min_bytes, max_bytes) = (compress.larger_than.0, compress.smaller_than.0);
    match target {
        Target::Gzip => format!("{size} > {min_bytes} AND {size} <= {max_bytes}"),
        Target::Toast(form) => {
            format!("{size} > {min_bytes} AND pg_column_compression({content}) IS DISTINCT FROM '{form}'")
        }
    }
}

async fn measure(table: &Table, ctids: &[String], all_bytes: u64, connection: &mut PgConnection) -> Result<Measured> {
    let mut measured = Measured::default();
    let (content, name) = (table.content(), table.sql());
    let these = format!("FROM ONLY {name} WHERE ctid = ANY ($1::text[]::tid[])");
    let is_text = table.value_type() == ValueType::Text;
    let read = table.value_type().read(&content, &table.text_column.data_type);
    let started = Instant::now();
    // The length alone would not read the value.
    let sql = format!("SELECT sum({read})::bigint {these}");
    pg::query(sql).bind(ctids).fetch_one(&mut *connection).await.map_err(pg::in_its_own_words)?;
    measured.read_milliseconds = milliseconds(started);
    if is_text {
        let started = Instant::now();
        let sql = format!("SELECT count(*) {these} AND {content} ILIKE '%No text has this in it.%'");
        pg::query(sql).bind(ctids).fetch_one(&mut *connection).await.map_err(pg::in_its_own_words)?;
        measured.search_milliseconds = milliseconds(started);
    }

    let sql = format!("SELECT {}, pg_column_size({content})::bigint {these}", table.bytes_of_value(&content));
    let rows = pg::query(sql).bind(ctids).fetch_all(&mut *connection).await.map_err(pg::in_its_own_words)?;
    let values = rows.iter().map(|row| row.try_get(0)).collect::<Result<Vec<&[u8]>, _>>()?;
    let priced = tokio::task::block_in_place(|| learn::price(table, &values, all_bytes))?;
    let mut gzipped = Form { write_milliseconds: priced.elapsed.as_secs_f64() * 1000.0, ..Form::default() };
    for ((row, value), packed) in rows.iter().zip(&values).zip(&priced.packed) {
        let stored = row.try_get::<i64, _>(1)? as u64;
        measured.values += 1;
        measured.raw_bytes += value.len() as u64;
        measured.stored_bytes += stored;
        gzipped.bytes += pack::kept(packed, stored).unwrap_or(stored);
    }
    measured.gzip = is_text.then_some(gzipped);
    let (in_recovery, may, builds): (bool, bool, Vec<String>) = sqlx::query_as(
        "SELECT pg_is_in_recovery(), has_database_privilege(current_database(), 'TEMP'),
                (SELECT enumvals FROM pg_settings WHERE name = 'default_toast_compression')",
    )
    .fetch_one(&mut *connection)
    .await?;
    if in_recovery || !may {
        return Ok(measured);
    }
    let has = |name: &str| builds.iter().any(|build| build == name);
    measured.pglz = if has("pglz") { Some(toasted(table, ctids, "pglz", connection).await?) } else { None };
    measured.lz4 = if has("lz4") { Some(toasted(table, ctids, "lz4", connection).await?) } else { None };
    if !is_text {
        return Ok(measured);
    }
    pg::execute(connection, inflate::gunzip("pg_temp.pgtend_gunzip".to_owned(), "pg_temp").statement).await?;
    for statement in priced.dictionaries.iter().flat_map(|dictionary| dictionary.create("pg_temp")) {
        pg::execute(connection, statement).await?;
    }
    let some = &priced.packed[..priced.packed.len().min(DECODED)];
    let started = Instant::now();
    let sql = "SELECT octet_length(pg_temp.pgtend_gunzip($1, $2, $3))";
    for packed in some {
        sqlx::query(sql).bind(&packed.gz).bind(&packed.hash).bind(&table.encoding).fetch_one(&mut *connection).await?;
    }
    let share = some.len() as f64 / priced.packed.len() as f64;
    if let Some(form) = &mut measured.gzip {
        form.read_milliseconds = milliseconds(started) / share;
    }
    Ok(measured)
}

async fn toasted(table: &Table, ctids: &[String], compression: &str, connection: &mut PgConnection) -> Result<Form> {
    let temporary = format!("pg_temp.pgtend_{compression}");
    pg::execute(
        connection,
        format!("CREATE TEMPORARY TABLE pgtend_{compression} (body {} COMPRESSION {compression})", table.text_column.data_type),
    )
    .await?;
    let started = Instant::now();
    let sql = format!(
        "INSERT INTO {temporary} SELECT {} FROM ONLY {} WHERE ctid = ANY ($1::text[]::tid[])",
        table.anew(&table.content()),
        table.sql()
    );
    pg::query(sql).bind(ctids).execute(&mut *connection).await.map_err(pg::in_its_own_words)?;
    let write_milliseconds = milliseconds(started);
    let started = Instant::now();
    let read = table.value_type().read("body", &table.text_column.data_type);
    let sql = format!("SELECT sum(pg_column_size(body))::bigint, sum({read})::bigint FROM {temporary}");
    let row = pg::query(sql).fetch_one(&mut *connection).await.map_err(pg::in_its_own_words)?;
    Ok(Form { bytes: row.try_get::<i64, _>(0)? as u64, write_milliseconds, read_milliseconds: milliseconds(started) })
}

fn milliseconds(started: Instant) -> f64 {
    started.elapsed().as_secs_f64() * 1000.0
}
