//! `method = "gzip"` compresses values into a companion column. Each is read, compressed, decoded and compared; only then one
//! statement, which changes the row only if it is still the one that was read, removes the text.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, Result};
use sha2::{Digest as _, Sha256};
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row as _};

use super::decide::Target;
use super::dictionary::Dictionary;
use super::give_way::GiveWay;
use super::learn::{self, Choice};
use super::pack::{Packed, kept, pack};
use super::sample;
use super::table::Table;
use super::walk::{self, Batch, Change, Done, Selection, Walk};
use crate::live::governor::{Go, Governor};
use crate::pg::{self, identifier};

/// `all_bytes`: of the text of all values that it would take.
pub async fn change_all(walk: &Walk<'_>, all_bytes: u64, governor: &mut Governor, done: &mut Done) -> Result<Go> {
    let mut connection = walk.run.or_cancelled(walk.connect(governor.limits())).await?;
    let condition = sample::condition(walk.compress, walk.table, Target::Gzip);
    let choice = walk.run.or_cancelled(learn::choose(walk, &condition, &mut connection, all_bytes)).await?;
    done.dictionary = Some(match &choice {
        Choice { is_new: true, .. } => "new",
        Choice { dictionary: Some(_), .. } => "present",
        _ => "none",
    });
    done.remarks.extend(choice.remark.clone());
    let exists = AtomicBool::new(!choice.is_new);
    let gzip = Gzip { exists, dictionary: choice.dictionary.map(Arc::new), give_way: GiveWay::default() };
    let content = walk.table.content();
    let selection = Selection {
        condition,
        bytes: format!("octet_length({content})"),
        too_large: format!("octet_length({content}) > {}", walk.compress.smaller_than.0),
    };
    walk.change_all(&mut connection, governor, &selection, done, &gzip).await
}

struct Value {
    ctid: String,
    xmin: String,
    fingerprint: String,
    stored: u64,
    raw: u64,
    packed: Packed,
}

struct Gzip {
    dictionary: Option<Arc<Dictionary>>,
    /// The dictionary has its function: the first batch creates it, so that there is none that no value names.
    exists: AtomicBool,
    give_way: GiveWay,
}

impl Change for Gzip {
    async fn batch(&self, connection: &mut PgConnection, table: &Table, rows: &[walk::Row]) -> Result<Batch> {
        let mut result = Batch::default();
        let waited = self.give_way.waited();
        let unchanged = read(connection, table, rows).await?;
        let dictionary = self.dictionary.clone();
        let pack = move |give_up: &AtomicBool| pack_all(&unchanged, dictionary.as_deref(), give_up);
        // Meanwhile the governor goes on watching in another task.
        let (values, not_smaller) = tokio::task::block_in_place(|| self.give_way.run(pack))?;
        result.not_smaller = not_smaller;
        result.changed_meanwhile = rows.len() as u64 - values.len() as u64 - not_smaller;
        result.waited = self.give_way.waited().saturating_sub(waited);
        if !values.is_empty() {
            let new = self.dictionary.as_deref().filter(|_| !self.exists.load(Ordering::Relaxed));
            write(connection, table, &values, new, &mut result).await?;
            if result.rows > 0 {
                self.exists.store(true, Ordering::Relaxed);
            }
        }
        Ok(result)
    }
}

/// Reads values without locks: a row that is written meanwhile is left alone.
async fn read(connection: &mut PgConnection, table: &Table, rows: &[walk::Row]) -> Result<Vec<PgRow>> {
    let (ctids, _) = walk::places(rows);
    let sql = format!(
        "SELECT ctid::text, xmin::text, {bytes}, pg_column_size({content})::bigint, {fingerprint}
         FROM ONLY {table} t WHERE ctid = ANY ($1::text[]::tid[]) AND {content} IS NOT NULL",
        bytes = table.bytes_of(&table.content()),
        content = table.content(),
        fingerprint = table.fingerprint("t"),
        table = table.sql(),
    );
    let found = pg::query(sql).bind(ctids).fetch_all(&mut *connection).await.map_err(pg::in_its_own_words)?;
    let mut unchanged = Vec::new();
    for row in found {
        let (ctid, xmin): (String, String) = (row.try_get(0)?, row.try_get(1)?);
        if rows.iter().any(|seen| seen.ctid == ctid && seen.xmin == xmin) {
            unchanged.push(row);
        }
    }
    Ok(unchanged)
}

/// Packs what was read, until it is given up. Returns the values that become smaller, and how many do not.
fn pack_all(rows: &[PgRow], dictionary: Option<&Dictionary>, give_up: &AtomicBool) -> Result<(Vec<Value>, u64)> {
    let (mut values, mut not_smaller) = (Vec::new(), 0);
    for row in rows {
        if give_up.load(Ordering::Relaxed) {
            break;
        }
        let (text, stored): (&[u8], i64) = (row.try_get(2)?, row.try_get(3)?);
        let (packed, stored) = (pack(text, dictionary)?, stored as u64);
        if kept(&packed, stored).is_none() {
            not_smaller += 1;
            continue;
        }
        let (ctid, xmin, fingerprint) = (row.try_get(0)?, row.try_get(1)?, row.try_get(4)?);
        values.push(Value { ctid, xmin, fingerprint, stored, raw: text.len() as u64, packed });
    }
    Ok((values, not_smaller))
}

/// Writes the values. `new`: a dictionary that they name and that has no function yet.
async fn write(
    connection: &mut PgConnection,
    table: &Table,
    values: &[Value],
    new: Option<&Dictionary>,
    result: &mut Batch,
) -> Result<()> {
    let (content, gz, hash) = (table.content(), table.gz(), table.hash());
    // The row must be the one that was read: the same ctid, xmin and text.
    let sql = format!(
        "UPDATE ONLY {table} t SET {content} = NULL, {gz} = d.gz, {hash} = d.hash
         FROM unnest($1::text[], $2::text[], $3::bytea[], $4::bytea[]) AS d (ctid, xmin, gz, hash)
         WHERE t.ctid = ANY (ARRAY(SELECT ctid FROM ONLY {table} WHERE ctid = ANY ($1::text[]::tid[]) FOR NO KEY UPDATE SKIP LOCKED))
           AND t.ctid = d.ctid::tid AND t.xmin = d.xmin::xid AND t.{gz} IS NULL AND pg_catalog.sha256({bytes}) = d.hash
         RETURNING t.ctid::text, d.ctid",
        table = table.sql(),
        bytes = table.bytes_of(&format!("t.{content}")),
    );
    let packed = |part: fn(&Packed) -> &Vec<u8>| values.iter().map(|value| part(&value.packed).clone()).collect::<Vec<_>>();
    walk::begin(connection, table).await?;
    if let Some(new) = new {
        create(connection, table, new).await?;
    }
    let rows = pg::query(sql)
        .bind(values.iter().map(|value| value.ctid.clone()).collect::<Vec<_>>())
        .bind(values.iter().map(|value| value.xmin.clone()).collect::<Vec<_>>())
        .bind(packed(|packed| &packed.gz))
        .bind(packed(|packed| &packed.hash))
        .fetch_all(&mut *connection)
        .await
        .map_err(pg::in_its_own_words)?;
    if rows.is_empty() {
        result.changed_meanwhile += values.len() as u64;
        return pg::execute(connection, "ROLLBACK".to_owned()).await;
    }
    let moved = walk::Moved::of(&rows)?;
    // A trigger of the table may do anything to a row, before and after the update. In that case the transaction is rolled back.
    let sql = format!(
        "SELECT ctid::text, {content} IS NULL, pg_catalog.sha256({gz}), {hash}, {}
         FROM ONLY {} t WHERE ctid = ANY ($1::text[]::tid[])",
        table.fingerprint("t"),
        table.sql()
    );
    let rows = moved.read_again(connection, table, sql).await?;
    let mut smallest: Option<(String, &Value)> = None;
    for row in rows {
        let new_ctid: String = row.try_get(0)?;
        let from = moved.from(&new_ctid)?;
        let value = values.iter().find(|value| value.ctid == from).context("the server changed a row that was not named")?;
        let (gz_hash, hash): (Option<Vec<u8>>, Option<Vec<u8>>) = (row.try_get(2)?, row.try_get(3)?);
        anyhow::ensure!(
            row.try_get::<bool, _>(1)?
                && gz_hash.as_deref() == Some(&Sha256::digest(&value.packed.gz)[..])
                && hash.as_deref() == Some(&value.packed.hash),
            "a trigger of {} changes what is stored when a value is compressed; nothing was compressed",
            table.sql()
        );
        anyhow::ensure!(
            row.try_get::<String, _>(4)? == value.fingerprint,
            "a trigger of {} changes other columns of a row when its value is compressed, as if the application had changed the text: give it \
             a WHEN condition, or disable it while the job runs",
            table.sql()
        );
        result.rows += 1;
        result.before_bytes += value.stored;
        result.after_bytes += (value.packed.gz.len() + value.packed.hash.len()) as u64;
        result.raw_bytes += value.raw;
        if smallest.as_ref().is_none_or(|(_, other)| other.packed.gz.len() > value.packed.gz.len()) {
            smallest = Some((new_ctid, value));
        }
    }
    result.dead_bytes = result.before_bytes;
    result.changed_meanwhile += values.len() as u64 - result.rows;
    if let Some((ctid, value)) = smallest {
        read_as_the_application(connection, table, &ctid, value).await?;
    }
    pg::execute(connection, "COMMIT".to_owned()).await.context("cannot commit a batch")
}

/// Creates the function of a dictionary, as the owner of those that read it.
async fn create(connection: &mut PgConnection, table: &Table, new: &Dictionary) -> Result<()> {
    let mut statements = vec![format!("SET LOCAL ROLE {}", identifier(&table.owner))];
    statements.extend(new.create(&table.schema));
    statements.push("RESET ROLE".to_owned());
    for statement in statements {
        pg::execute_counting(connection, statement).await.map_err(pg::in_its_own_words)?;
    }
    Ok(())
}

/// Reads one value of each batch, the smallest, through the functions that readers use: if they are broken or gone, the text stays.
async fn read_as_the_application(connection: &mut PgConnection, table: &Table, ctid: &str, value: &Value) -> Result<()> {
    let view = table.view.as_ref().map(|_| table.view_sql()).context("the view is installed")?;
    let key = table.key.as_ref().context("the table has a key")?;
    let same: Vec<String> =
        key.columns.iter().map(|column| format!("v.{0} OPERATOR(pg_catalog.=) t.{0}", identifier(column))).collect();
    let sql = format!(
        "SELECT pg_catalog.sha256({}) FROM ONLY {} t JOIN {view} v ON {} WHERE t.ctid = $1::text::tid",
        table.bytes_of(&format!("v.{}", table.content())),
        table.sql(),
        same.join(" AND ")
    );
    let read = pg::query(sql).bind(ctid).fetch_optional(connection).await.map_err(pg::in_its_own_words);
    let read = read.with_context(|| format!("{view} cannot read a value that was just compressed; its text stays"))?;
    let hash: Option<Vec<u8>> = read.map(|row| row.try_get(0)).transpose()?.flatten();
    anyhow::ensure!(
        hash.as_ref() == Some(&value.packed.hash),
        "{view} shows a text other than the one that was just compressed: its text stays; run `pgtend compress install` again"
    );
    Ok(())
}
