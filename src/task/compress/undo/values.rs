//! Turns the values of a batch back into text.

use std::collections::HashMap;

use anyhow::{Context as _, Result};
use sha2::{Digest as _, Sha256};
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row as _};

use super::super::dictionary::{self, Dictionary, Key};
use super::super::pack;
use super::super::table::Table;
use super::super::walk::{self, Batch, Change};
use crate::pg::{self, literal, qualified};

struct Value {
    /// The row's key, for messages.
    place: String,
    ctid: String,
    xmin: String,
    stored: u64,
    fingerprint: String,
    hash: Vec<u8>,
    text: Vec<u8>,
}

pub struct Decompress;

impl Change for Decompress {
    async fn batch(&self, connection: &mut PgConnection, table: &Table, rows: &[walk::Row]) -> Result<Batch> {
        let (gz, hash, name) = (table.gz(), table.hash(), table.sql());
        let (ctids, _) = walk::places(rows);
        let sql = format!(
            "SELECT ctid::text, xmin::text, {gz}, {hash}, {} FROM ONLY {name} t WHERE ctid = ANY ($1::text[]::tid[]) AND {gz} IS NOT NULL",
            table.fingerprint("t")
        );
        let found = pg::query(sql).bind(ctids).fetch_all(&mut *connection).await.map_err(pg::in_its_own_words)?;
        let mut result = Batch::default();
        let dictionaries = dictionaries(connection, &found).await?;
        let values = tokio::task::block_in_place(|| {
            let mut values = Vec::new();
            for row in found {
                let (ctid, xmin): (String, String) = (row.try_get(0)?, row.try_get(1)?);
                let Some(seen) = rows.iter().find(|seen| seen.ctid == ctid && seen.xmin == xmin) else { continue };
                let (packed, hash): (&[u8], Option<Vec<u8>>) = (row.try_get(2)?, row.try_get(3)?);
                let place = place_of(table, seen);
                let key = pack::key_of(packed);
                let dictionary = key.and_then(|key| dictionaries.get(&key));
                if let (Some(key), None) = (key, dictionary) {
                    let function = qualified(&table.schema, &dictionary::name(&key));
                    result.damaged.push(format!("{place}: its dictionary is missing, the function {function}(bytea)"));
                    continue;
                }
                let text = match pack::unpack(packed, dictionary) {
                    Ok(text) if hash.as_deref() == Some(&Sha256::digest(&text)[..]) => text,
                    Ok(_) => {
                        result.damaged.push(format!("{place}: its SHA-256 does not match"));
                        continue;
                    }
                    Err(error) => {
                        result.damaged.push(format!("{place}: {error:#}"));
                        continue;
                    }
                };
                let hash = hash.unwrap_or_default();
                values.push(Value {
                    place,
                    ctid,
                    xmin,
                    stored: (packed.len() + hash.len()) as u64,
                    fingerprint: row.try_get(4)?,
                    hash,
                    text,
                });
            }
            anyhow::Ok(values)
        })?;
        if let Err(error) = write(connection, table, &values, &mut result).await {
            if !is_unwritable(&error) {
                return Err(error);
            }
            // The database may have another encoding, so that only some values fail: each is written by itself.
            for value in &values {
                pg::execute(connection, "ROLLBACK".to_owned()).await?;
                match write(connection, table, std::slice::from_ref(value), &mut result).await {
                    Err(error) if is_unwritable(&error) => result.damaged.push(format!("{}: {error:#}", value.place)),
                    written => written?,
                }
            }
            pg::execute(connection, "ROLLBACK".to_owned()).await?;
        }
        result.dead_bytes = result.before_bytes;
        result.changed_meanwhile = rows.len() as u64 - result.rows - result.damaged.len() as u64;
        Ok(result)
    }
}

/// Reads the dictionaries that the values of these rows name, those that exist.
async fn dictionaries(connection: &mut PgConnection, rows: &[PgRow]) -> Result<HashMap<Key, Dictionary>> {
    let mut dictionaries = HashMap::new();
    for row in rows {
        let Some(key) = pack::key_of(row.try_get(2)?) else { continue };
        if !dictionaries.contains_key(&key)
            && let Some(dictionary) = dictionary::read(connection, &key).await?
        {
            dictionaries.insert(key, dictionary);
        }
    }
    Ok(dictionaries)
}

/// Recognizes the errors for a character that this database's encoding does not have, and for bytes that are not text.
fn is_unwritable(error: &anyhow::Error) -> bool {
    pg::sql_state(error).is_some_and(|state| ["22P05", "22021"].contains(&state.as_str()))
}

async fn write(connection: &mut PgConnection, table: &Table, values: &[Value], result: &mut Batch) -> Result<()> {
    if values.is_empty() {
        return Ok(());
    }
    let (content, gz, hash, name) = (table.content(), table.gz(), table.hash(), table.sql());
    let sql = format!(
        "UPDATE ONLY {name} t SET {content} = pg_catalog.convert_from(d.text, {encoding}), {gz} = NULL, {hash} = NULL
         FROM unnest($1::text[], $2::text[], $3::bytea[], $4::bytea[]) AS d (ctid, xmin, text, hash)
         WHERE t.ctid = ANY (ARRAY(SELECT ctid FROM ONLY {name} WHERE ctid = ANY ($1::text[]::tid[]) FOR NO KEY UPDATE SKIP LOCKED))
           AND t.ctid = d.ctid::tid AND t.xmin = d.xmin::xid AND t.{content} IS NULL AND t.{hash} = d.hash
         RETURNING t.ctid::text, d.ctid",
        encoding = literal(&table.encoding),
    );
    walk::begin(connection, table).await?;
    let written = pg::query(sql)
        .bind(values.iter().map(|value| value.ctid.clone()).collect::<Vec<_>>())
        .bind(values.iter().map(|value| value.xmin.clone()).collect::<Vec<_>>())
        .bind(values.iter().map(|value| value.text.clone()).collect::<Vec<_>>())
        .bind(values.iter().map(|value| value.hash.clone()).collect::<Vec<_>>())
        .fetch_all(&mut *connection)
        .await
        .map_err(pg::in_its_own_words)?;
    let moved = walk::Moved::of(&written)?;
    let sql = format!(
        "SELECT ctid::text, pg_catalog.sha256({}), {gz} IS NULL AND {hash} IS NULL, {}
         FROM ONLY {name} t WHERE ctid = ANY ($1::text[]::tid[])",
        table.bytes_of(&content),
        table.fingerprint("t")
    );
    for row in moved.read_again(connection, table, sql).await? {
        let place: String = row.try_get(0)?;
        let from = moved.from(&place)?;
        let value = values.iter().find(|value| value.ctid == from).context("the server changed a row that was not named")?;
        anyhow::ensure!(
            row.try_get::<Option<Vec<u8>>, _>(1)?.as_ref() == Some(&value.hash)
                && row.try_get::<bool, _>(2)?
                && row.try_get::<String, _>(3)? == value.fingerprint,
            "a trigger of {name} changes rows whose value becomes text again: nothing was changed; disable it during the undo"
        );
        result.rows += 1;
        result.before_bytes += value.stored;
        result.raw_bytes += value.text.len() as u64;
        result.after_bytes += value.text.len() as u64;
    }
    pg::execute(connection, "COMMIT".to_owned()).await.context("cannot commit a batch")
}

/// Names a row by its key, for messages.
fn place_of(table: &Table, row: &walk::Row) -> String {
    let columns = table.key.as_ref().map(|key| key.columns.join(", ")).unwrap_or_default();
    format!("({columns}) = ({})", row.key.join(", "))
}
