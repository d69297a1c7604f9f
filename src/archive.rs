//! Rows that left a table, as objects that stock tools restore: `gunzip -c OBJECT | psql`.
//!
//! A batch is `DATABASE/JOB/archive/TIME-TRANSACTION.sql.gz`. It counts once its `.json` is there. Before the rows'
//! transaction commits there is only a `.pending.json`, which names that transaction: whoever finds one that was
//! left asks the server whether it committed (pg_xact_status), so that a kill at any moment neither loses rows nor
//! keeps them twice.

mod listing;
mod manifest;
mod target;

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use anyhow::{Context as _, Result};
use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures_util::TryStreamExt as _;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use sqlx::PgConnection;

use crate::pg;
use crate::progress::Phase;
use crate::store::Store;
use crate::task::backup::Compression;
use crate::task::backup::compress::{Compressor, MEMBER_BYTES};
use crate::task::backup::read_back::decode_object;
use crate::task::backup::set;
use crate::task::backup::stream::hex;
use crate::units;

pub use self::listing::{Broken, Listing, list};
pub use self::manifest::Manifest;
pub use self::target::target;

const OBJECT: &str = ".sql.gz";
const PENDING: &str = ".pending.json";
const MANIFEST: &str = ".json";

/// Where the rows of one job on one database go.
#[derive(Clone, Debug)]
pub struct Archive {
    store: Store,
    /// `DATABASE/JOB/archive/`
    folder: String,
}

/// What is archived, and what it goes back to.
#[derive(Clone, Debug)]
pub struct Source {
    pub schema: String,
    pub table: String,
    /// In the order of `query`. Without generated columns, which take no values.
    pub columns: Vec<String>,
    /// A SELECT of these columns.
    pub query: String,
}

/// An object as it was written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exported {
    pub rows: u64,
    pub bytes: u64,
    pub uncompressed_bytes: u64,
    /// Of the object.
    pub sha256: String,
}

/// A batch's name without endings: its key in the store.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BatchName(String);

impl BatchName {
    pub fn object(&self) -> String {
        format!("{}{OBJECT}", self.0)
    }

    /// Whether it stands in the folder of the job and database that the manifest names.
    fn is_of(&self, manifest: &Manifest) -> bool {
        self.0.starts_with(&format!("{}archive/", set::folder(&manifest.database, &manifest.job)))
    }
}

impl std::fmt::Display for BatchName {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a look at the archive after a kill has done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Their transaction had committed: the rows are archived.
    pub completed: u64,
    /// It had not: the rows are in the table.
    pub discarded: u64,
    /// What names no batch of ours, and stays as it is.
    pub left: Vec<String>,
}

impl Archive {
    pub fn new(store: Store, database: &str, job: &str) -> Self {
        Self { store, folder: format!("{}archive/", set::folder(database, job)) }
    }

    /// Whether the object with this key is in this store, and counts: by a manifest of ours, and with the bytes that it says. Reads it.
    pub async fn counts(&self, key: &str) -> Result<bool> {
        let Some(name) = key.strip_suffix(OBJECT) else { return Ok(false) };
        let Some(read) = self.store.get_json::<Manifest>(&format!("{name}{MANIFEST}")).await? else { return Ok(false) };
        let manifest = match read {
            Ok((manifest, signature)) if signature.is_ours() => manifest,
            Ok((_, signature)) => {
                tracing::warn!("{} counts for nothing: {}", self.store.location(key), signature.in_words());
                return Ok(false);
            }
            Err(error) => {
                tracing::warn!("{error:#}; it counts for nothing");
                return Ok(false);
            }
        };
        is_as_written(&self.store, key, &manifest.exported).await
    }

    pub fn location(&self, name: &BatchName) -> String {
        self.store.location(&name.object())
    }

    /// A name for a batch. `unique` is what no other batch has, in any run: the number of its transaction, say.
    pub fn name(&self, started_at: DateTime<Utc>, unique: i64) -> BatchName {
        BatchName(format!("{}{}-{unique:010}", self.folder, started_at.format("%Y-%m-%dT%H-%M-%SZ")))
    }

    /// Writes the rows of `source`, reads the object back, and compares. `connection` is in the transaction that takes
    /// the rows out of their table, and whose commit makes the batch count: until then a `.pending.json` names it, from
    /// before there is an object, so that nobody takes that for a leftover. After an error the connection is of no use
    /// any more, and its transaction never commits.
    pub async fn export(
        &self,
        connection: &mut PgConnection,
        source: &Source,
        name: &BatchName,
        provisional: Manifest,
        phase: &Phase,
    ) -> Result<Manifest> {
        // Writing over another batch would lose its rows.
        let is_there = self.store.read(&name.object()).await?.is_some();
        anyhow::ensure!(!is_there, "{} is there already: nothing is written over it", self.location(name));
        let mut manifest = provisional.decided_by(connection).await?;
        self.prepare(name, &manifest).await?;
        manifest.exported = write(connection, source, &self.store, &name.object(), phase).await?;
        self.read_back(source, name, &manifest.exported, phase).await?;
        self.prepare(name, &manifest).await?;
        Ok(manifest)
    }

    /// Whether the object in the store is the one that was written: its bytes, its hash, and every row of it.
    async fn read_back(&self, source: &Source, name: &BatchName, written: &Exported, phase: &Phase) -> Result<()> {
        let key = name.object();
        let location = self.store.location(&key);
        let reader = self.store.read(&key).await?.with_context(|| format!("{location} is gone"))?;
        // COPY's text format has a line for each row, with the newlines in values escaped.
        let head = head(&source.schema, &source.table, &source.columns);
        let other_lines = memchr::memchr_iter(b'\n', head.as_bytes()).count() as u64 + 1;
        let decoded = decode_object(
            reader,
            Compression::Gzip,
            phase,
            None,
            Lines::default(),
            |lines, bytes| {
                lines.feed(bytes);
                Ok(())
            },
            |_| (),
        )
        .await?;
        let members = decoded.members.map_err(|error| anyhow::anyhow!("{location} does not decode: {error:?}"))?;
        let read = Exported {
            rows: decoded.state.newlines.saturating_sub(other_lines),
            bytes: decoded.bytes,
            uncompressed_bytes: decoded.state.bytes,
            sha256: decoded.sha256,
        };
        anyhow::ensure!(members > 0 && read == *written, "{location} is not what was written: {read:?} and not {written:?}");
        Ok(())
    }

    /// Before the commit: says which transaction decides whether the batch counts.
    async fn prepare(&self, name: &BatchName, manifest: &Manifest) -> Result<()> {
        self.store.put_json(&format!("{name}{PENDING}"), manifest).await
    }

    /// After the commit: the batch counts.
    pub async fn complete(&self, name: &BatchName, manifest: &Manifest) -> Result<()> {
        self.store.put_json(&format!("{name}{MANIFEST}"), manifest).await?;
        self.store.delete(&format!("{name}{PENDING}")).await
    }

    /// The transaction rolled back: the rows are where they were.
    pub async fn discard(&self, name: &BatchName) -> Result<()> {
        self.store.delete(&name.object()).await?;
        self.store.delete(&format!("{name}{PENDING}")).await
    }

    /// Ends what a killed run left. Refuses on doubt: a transaction that still runs, or that the server has
    /// forgotten, or of another system. What is not ours, or cannot be read, is left alone and named.
    pub async fn recover(&self, connection: &mut PgConnection) -> Result<Recovered> {
        let mut recovered = Recovered::default();
        let objects = self.store.list_readable(&self.folder).await?.objects;
        let bytes_of = |key: &str| objects.iter().find(|object| object.key == key).map(|object| object.bytes);
        for (object, name) in objects.iter().filter_map(|object| Some((object, object.key.strip_suffix(PENDING)?))) {
            let name = BatchName(name.to_owned());
            let location = self.store.location(&object.key);
            let read = self.store.get_json::<Manifest>(&object.key).await?.with_context(|| format!("{location} is gone"))?;
            let manifest = match read {
                Ok((manifest, signature)) if signature.is_ours() => manifest,
                Ok((_, signature)) => {
                    recovered.left.push(format!("{location} stays: {}", signature.in_words()));
                    continue;
                }
                Err(error) => {
                    recovered.left.push(format!("{error:#}; it stays"));
                    continue;
                }
            };
            let found = bytes_of(&name.object());
            // It counts already: what is pending says nothing any more, and may be an old one that somebody put back.
            if bytes_of(&format!("{name}{MANIFEST}")).is_some() {
                match listing::read(&self.store, &name).await {
                    Ok(Some((counts, signature))) if signature.is_ours() && found == Some(counts.exported.bytes) => {
                        self.store.delete(&object.key).await?;
                        recovered.completed += 1;
                    }
                    _ => recovered
                        .left
                        .push(format!("{location} stays: the {MANIFEST} beside it is none of its object: look at both")),
                }
                continue;
            }
            let is_committed = committed(connection, &manifest).await.with_context(|| self.location(&name))?;
            let bytes = manifest.exported.bytes;
            match found {
                _ if !is_committed => {
                    self.discard(&name).await?;
                    recovered.discarded += 1;
                }
                Some(found) if bytes > 0 && found == bytes => {
                    self.complete(&name, &manifest).await?;
                    recovered.completed += 1;
                }
                // The rows may be nowhere else: nothing of it goes, and no later run fails for it.
                found => recovered.left.push(format!(
                    "{location} stays: PostgreSQL says that its transaction {} committed, so that its rows were deleted, but it says \
                     {bytes} bytes of its object, which {}: look whether the rows are in the table; if not, `gunzip -c OBJECT | psql` \
                     puts them back; then delete the {PENDING}",
                    manifest.transaction.unwrap_or_default(),
                    found.map_or("is not there".to_owned(), |found| format!("has {found}"))
                )),
            }
        }
        for upload in self.store.unfinished(&self.folder).await? {
            self.store.discard(&upload).await?;
        }
        Ok(recovered)
    }
}

/// Puts the rows of a batch into `table` (quoted, as in SQL), all or none. The batch stays in the archive.
pub async fn restore(
    store: &Store,
    (name, manifest): &(BatchName, Manifest),
    connection: &mut PgConnection,
    table: &str,
    phase: &Phase,
) -> Result<u64> {
    let location = store.location(&name.object());
    let written = &manifest.exported;
    // Its rows set off triggers: none is sent before all of it is proved. Then it is read once more.
    let is_proved = is_as_written(store, &name.object(), written).await?;
    anyhow::ensure!(
        is_proved,
        "{location} is not what was written: its length or its SHA-256 is another one than its manifest says"
    );
    let reader = store.read(&name.object()).await?.with_context(|| format!("{location} is gone"))?;
    prepare_session(connection).await?;
    pg::execute(connection, "BEGIN".to_owned()).await?;
    let done = async {
        let (sender, mut receiver) = tokio::sync::mpsc::channel::<Bytes>(4);
        let rows_only = RowsOnly::of(&manifest.schema, &manifest.table, &manifest.columns);
        let bound = Bound { bytes: written.uncompressed_bytes, rows: written.rows };
        let is_well = AtomicBool::new(false);
        let decoding = async {
            let decoded = decode_object(
                reader,
                Compression::Gzip,
                phase,
                None,
                (rows_only, bound, Some(sender)),
                |(rows_only, bound, sender), bytes| {
                    bound.take_bytes(bytes)?;
                    let rows = rows_only.feed(bytes)?;
                    bound.take_rows(&rows)?;
                    match sender {
                        Some(sender) if !rows.is_empty() => sender.blocking_send(rows).map_err(std::io::Error::other),
                        _ => Ok(()),
                    }
                },
                |_| (),
            );
            let mut decoded = decoded.await?;
            is_well.store(decoded.members.is_ok() && decoded.sha256 == written.sha256, Relaxed);
            // Without this the copying below would wait for more.
            decoded.state.2 = None;
            anyhow::Ok(decoded)
        };
        let copying = async {
            let mut copy = pg::copy_in(connection, table, &column_list(&manifest.columns)).await?;
            while let Some(rows) = receiver.recv().await {
                copy.send(rows).await.map_err(pg::in_its_own_words)?;
            }
            if !is_well.load(Relaxed) {
                copy.abort("its object is not what was written").await.map_err(pg::in_its_own_words)?;
                return Ok(0);
            }
            copy.finish().await.map_err(pg::in_its_own_words)
        };
        let (decoded, copied) = tokio::join!(decoding, copying);
        let copied = copied.with_context(|| format!("cannot put the rows of {location} into {table}"))?;
        let decoded = decoded?;
        decoded.members.map_err(|error| anyhow::anyhow!("{location} does not decode: {error:?}"))?;
        decoded.state.0.check().with_context(|| location.clone())?;
        anyhow::ensure!(
            decoded.sha256 == written.sha256 && decoded.bytes == written.bytes && copied == written.rows,
            "{location} is not what was written: {} and not {}",
            units::plural(copied, "row"),
            units::count(written.rows)
        );
        pg::execute(connection, "COMMIT".to_owned()).await?;
        Ok(copied)
    };
    let done: Result<u64> = done.await;
    if done.is_err() {
        let _ = pg::execute(connection, "ROLLBACK".to_owned()).await;
    }
    done
}

/// Whether an object has the length and the SHA-256 that it was written with. Reads it, and not much further than its length.
async fn is_as_written(store: &Store, key: &str, written: &Exported) -> Result<bool> {
    let Some(mut reader) = store.read(key).await? else { return Ok(false) };
    let (mut hash, mut bytes) = (Sha256::new(), 0);
    while let Some(chunk) = reader.chunk().await? {
        bytes += chunk.len() as u64;
        if bytes > written.bytes {
            return Ok(false);
        }
        hash.update(&chunk);
    }
    Ok(bytes == written.bytes && hex(&hash.finalize()) == written.sha256)
}

/// What may still come of an object: an archive may have been put in its place since it was proved.
struct Bound {
    bytes: u64,
    rows: u64,
}

impl Bound {
    fn take_bytes(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        Self::take(&mut self.bytes, bytes.len() as u64, "bytes")
    }

    fn take_rows(&mut self, rows: &[u8]) -> std::io::Result<()> {
        Self::take(&mut self.rows, memchr::memchr_iter(b'\n', rows).count() as u64, "rows")
    }

    fn take(left: &mut u64, count: u64, what: &str) -> std::io::Result<()> {
        let more = || std::io::Error::other(format!("it holds more {what} than its manifest says"));
        *left = left.checked_sub(count).ok_or_else(more)?;
        Ok(())
    }
}

/// Takes what comes before the rows and after them off a stream.
#[doc(hidden)]
#[derive(Default)]
pub struct RowsOnly {
    head: Bytes,
    seen: usize,
    /// The last bytes, which may be the tail.
    held: Vec<u8>,
}

impl RowsOnly {
    pub fn of(schema: &str, table: &str, columns: &[String]) -> Self {
        Self { head: head(schema, table, columns).into(), ..Self::default() }
    }

    pub fn feed(&mut self, mut bytes: &[u8]) -> std::io::Result<Bytes> {
        let of_head = (self.head.len() - self.seen).min(bytes.len());
        if bytes[..of_head] != self.head[self.seen..self.seen + of_head] {
            return Err(std::io::Error::other("it does not begin as an archive of this table does"));
        }
        self.seen += of_head;
        bytes = &bytes[of_head..];
        self.held.extend_from_slice(bytes);
        let ready = self.held.len().saturating_sub(TAIL.len());
        Ok(self.held.drain(..ready).collect::<Vec<u8>>().into())
    }

    pub fn check(&self) -> Result<()> {
        anyhow::ensure!(self.seen == self.head.len() && self.held == TAIL, "its end is missing");
        Ok(())
    }
}

// What follows is asked between statements that other people's triggers belong to: every name and operator is qualified.

/// The columns of a table that rows are put back into: generated ones take no values.
pub async fn columns(connection: &mut PgConnection, table: i64) -> Result<Vec<String>> {
    Ok(sqlx::query_scalar(
        "SELECT attname::pg_catalog.text FROM pg_catalog.pg_attribute
         WHERE attrelid OPERATOR(pg_catalog.=) $1::bigint::pg_catalog.oid AND attnum OPERATOR(pg_catalog.>) 0
           AND NOT attisdropped AND attgenerated OPERATOR(pg_catalog.=) ''::pg_catalog.\"char\" ORDER BY attnum",
    )
    .bind(table)
    .fetch_all(connection)
    .await?)
}

/// The number of the transaction that `connection` is in, which no other of this server ever has.
pub async fn transaction(connection: &mut PgConnection) -> Result<i64> {
    // xid8 goes over as text: it is wider than any type that is read here.
    let xid: String = sqlx::query_scalar("SELECT pg_catalog.pg_current_xact_id()::pg_catalog.text").fetch_one(connection).await?;
    xid.parse().context("a transaction's number")
}

/// Settings under which values are written so that any server reads the same: those of pg_dump
/// (setup_connection in pg_dump.c).
pub async fn prepare_session(connection: &mut PgConnection) -> Result<()> {
    for (name, value) in
        [("datestyle", "ISO"), ("intervalstyle", "postgres"), ("extra_float_digits", "3"), ("bytea_output", "hex")]
    {
        pg::set(connection, name, value).await?;
    }
    Ok(())
}

const BY_HAND: &str = "look whether the rows are in the table; if not, rename its .pending.json to .json, else delete it";

/// Whether the transaction that took a batch's rows out of their table committed. An error on doubt.
async fn committed(connection: &mut PgConnection, manifest: &Manifest) -> Result<bool> {
    let transaction = manifest.transaction.context("its manifest names no transaction")?;
    let here = system_identifier(connection).await?;
    anyhow::ensure!(
        manifest.system_identifier.as_ref() == Some(&here),
        "left by a run on another server ({:?}, this is {here}): {BY_HAND}",
        manifest.system_identifier
    );
    let status: std::result::Result<Option<String>, sqlx::Error> = sqlx::query_scalar("SELECT pg_xact_status($1::text::xid8)")
        .bind(transaction.to_string())
        .fetch_one(&mut *connection)
        .await;
    let status = match status.map_err(anyhow::Error::from) {
        Ok(status) => status,
        // "transaction ID is in the future": a crash has undone it so thoroughly that its number is free again.
        Err(error) if pg::sql_state(&error).as_deref() == Some("22023") => Some("aborted".to_owned()),
        Err(error) => return Err(error),
    };
    if status.as_deref() == Some("in progress") {
        anyhow::bail!("the transaction {transaction} of another run is still in progress: try again later");
    }
    let has_restarted = manifest.server_started_at != Some(server_started_at(connection).await?);
    match status.as_deref() {
        Some("committed") if has_restarted => anyhow::bail!(
            "transaction {transaction} of a killed run committed, but the server was started anew since, and may have given \
             the number to another after a crash: {BY_HAND}"
        ),
        Some("committed") => Ok(true),
        Some(_) => Ok(false),
        None => {
            anyhow::bail!("the server no longer knows whether transaction {transaction} of a killed run committed: {BY_HAND}")
        }
    }
}

async fn server_started_at(connection: &mut PgConnection) -> Result<String> {
    let started_at: DateTime<Utc> =
        sqlx::query_scalar("SELECT pg_catalog.pg_postmaster_start_time()").fetch_one(connection).await?;
    Ok(started_at.to_rfc3339())
}

/// Changes with initdb and pg_restore, not with failover or physical restore, which keep transactions.
async fn system_identifier(connection: &mut PgConnection) -> Result<String> {
    Ok(sqlx::query_scalar("SELECT system_identifier::pg_catalog.text FROM pg_catalog.pg_control_system()")
        .fetch_one(connection)
        .await?)
}

/// Streams rows into an object; memory is two members and the upload's parts.
async fn write(connection: &mut PgConnection, source: &Source, store: &Store, key: &str, phase: &Phase) -> Result<Exported> {
    let mut upload = store.upload(key, 0).await?;
    let written = async {
        let mut writer = Writer::new()?;
        writer.pending.extend_from_slice(head(&source.schema, &source.table, &source.columns).as_bytes());
        let mut rows = pg::copy_out(connection, &source.query).await?;
        while let Some(chunk) = rows.try_next().await.map_err(pg::in_its_own_words)? {
            writer.rows += chunk.iter().filter(|byte| **byte == b'\n').count() as u64;
            phase.advance(chunk.len() as u64);
            writer.pending.extend_from_slice(&chunk);
            if writer.pending.len() >= MEMBER_BYTES {
                upload.write(writer.member().await?).await?;
            }
        }
        writer.pending.extend_from_slice(TAIL);
        upload.write(writer.member().await?).await?;
        upload.finish().await?;
        Ok(Exported {
            rows: writer.rows,
            bytes: writer.bytes,
            uncompressed_bytes: writer.uncompressed_bytes,
            sha256: hex(&writer.hash.finalize()),
        })
    };
    let written: Result<Exported> = written.await;
    if written.is_err() {
        upload.abort().await;
    }
    written.with_context(|| format!("cannot archive rows to {}", store.location(key)))
}

/// What comes before the rows, so that psql alone puts them back.
#[doc(hidden)]
pub fn head(schema: &str, table: &str, columns: &[String]) -> String {
    format!(
        "-- pgtend archive\nSET client_encoding = 'UTF8';\nSET datestyle = 'ISO';\nSET intervalstyle = 'postgres';\n\
         COPY {} {} FROM stdin;\n",
        pg::qualified(schema, table),
        column_list(columns)
    )
}

const TAIL: &[u8] = b"\\.\n";

fn column_list(columns: &[String]) -> String {
    format!("({})", columns.iter().map(|column| pg::identifier(column)).collect::<Vec<_>>().join(", "))
}

struct Writer {
    compressor: Option<Compressor>,
    pending: Vec<u8>,
    hash: Sha256,
    rows: u64,
    bytes: u64,
    uncompressed_bytes: u64,
}

impl Writer {
    fn new() -> Result<Self> {
        Ok(Self {
            compressor: Some(Compressor::new(Compression::Gzip, Compression::Gzip.default_level())?),
            pending: Vec::with_capacity(MEMBER_BYTES + (64 << 10)),
            hash: Sha256::new(),
            rows: 0,
            bytes: 0,
            uncompressed_bytes: 0,
        })
    }

    /// What is pending, as a member.
    async fn member(&mut self) -> Result<Bytes> {
        let input = std::mem::replace(&mut self.pending, Vec::with_capacity(MEMBER_BYTES + (64 << 10)));
        self.uncompressed_bytes += input.len() as u64;
        let mut compressor = self.compressor.take().context("the compressor is in use")?;
        let (compressor, member) = tokio::task::spawn_blocking(move || {
            let member = compressor.member(&input);
            (compressor, member)
        })
        .await?;
        self.compressor = Some(compressor);
        let member = member?;
        self.hash.update(&member);
        self.bytes += member.len() as u64;
        Ok(member.into())
    }
}

/// What an archive object decodes to, counted.
#[derive(Default)]
struct Lines {
    bytes: u64,
    newlines: u64,
}

impl Lines {
    fn feed(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
        self.newlines += memchr::memchr_iter(b'\n', bytes).count() as u64;
    }
}
