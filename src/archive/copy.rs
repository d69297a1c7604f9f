//! Copies rows of an object into a table, proved before and on the way.

use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use sqlx::PgConnection;
use tokio::sync::mpsc::{Receiver, Sender};

use super::batch::{BatchName, Exported};
use super::chosen::Chosen;
use super::manifest::Manifest;
use super::proved::is_as_written;
use super::session::{convert_again, in_another_encoding, pass_bytes};
use super::text::{RowsOnly, column_list};
use crate::base::fault::{Fault, Kind};
use crate::base::progress::Phase;
use crate::base::subtask;
use crate::base::units;
use crate::members::compress::DecodeError;
use crate::members::decode::{Decoded, decode_object};
use crate::members::decrypt::recipients_in_words;
use crate::pg;
use crate::store::{Reader, Store};

/// The table has fewer rows of a batch than it was sent, or than the record says: nothing of the batch was put back.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct NotAll(pub(super) String);

/// Copies the rows of the object, which is proved on the way, into a table: all of them, or the chosen ones. Returns their number.
pub(super) async fn copy(
    store: &Store,
    name: &BatchName,
    manifest: &Manifest,
    connection: &mut PgConnection,
    (table, chosen): (&str, Option<Chosen>),
    phase: &Phase,
) -> Result<u64> {
    let written = &manifest.exported;
    let object = name.object(written);
    let location = store.location(&object);
    // Its rows fire triggers, so none is sent before the whole object is proved. Then it is read again.
    anyhow::ensure!(
        is_as_written(store, &object, written, phase).await?,
        "{location} differs from what was written: its length or its SHA-256 does not match its manifest"
    );
    let reader = store.read(&object).await?.with_context(|| format!("{location} is gone"))?;
    let sent = chosen.as_ref().map_or(written.rows, Chosen::count);
    if let Some(encoding) = &manifest.encoding {
        pass_bytes(connection, encoding).await?;
    }
    let (sender, receiver) = tokio::sync::mpsc::channel::<Bytes>(4);
    let rows = Rows {
        rows_only: RowsOnly::of(manifest),
        bound: Bound { bytes: written.uncompressed_bytes, rows: written.rows },
        chosen,
        sender: Some(sender),
    };
    let is_well = AtomicBool::new(false);
    let (decoded, copied) = tokio::join!(
        decode(reader, (written, store), rows, &is_well, phase),
        copy_in(receiver, connection, table, &manifest.columns, &is_well)
    );
    let copied = copied.map_err(|error| in_another_encoding(error, manifest.encoding.as_deref()));
    let copied = copied.with_context(|| format!("cannot put the rows of {location} into {table}"))?;
    let decoded = decoded?;
    decoded.members.map_err(|error| cannot_be_decoded(&location, written, error))?;
    decoded.state.rows_only.check().with_context(|| location.clone())?;
    let read = written.rows - decoded.state.bound.rows;
    anyhow::ensure!(
        decoded.sha256 == written.sha256 && decoded.bytes == written.bytes && read == written.rows,
        "{location} differs from what was written: {} instead of {}",
        units::plural(read, "row"),
        units::count(written.rows)
    );
    if copied != sent {
        let message = format!(
            "{table} took {} of the {} that it was sent: a trigger of the table keeps the others out",
            units::count(copied),
            units::plural(sent, "row")
        );
        return Err(NotAll(message).into());
    }
    if manifest.encoding.is_some() {
        convert_again(connection).await?;
    }
    Ok(copied)
}

/// Fails unless this host has a key for the batch's object; reads no more than its head.
pub async fn ensure_opens(store: &Store, name: &BatchName, manifest: &Manifest) -> Result<()> {
    let written = &manifest.exported;
    let Some(encryption) = &written.encryption else { return Ok(()) };
    let object = name.object(written);
    let location = store.location(&object);
    let mut reader = store.read_range(&object, encryption.head()).await?.with_context(|| format!("{location} is gone"))?;
    let mut head = Vec::new();
    while let Some(chunk) = reader.chunk().await? {
        head.extend_from_slice(&chunk);
    }
    let coding = written.coding(store);
    // A key of RSA takes its time, and a made-up header as well.
    let opened = subtask::spawn_blocking_in_span(move || coding.tries_to_open(&head.into())).await?;
    opened.map_err(|error| cannot_be_decoded(&location, written, error))
}

/// Decodes the object and sends its rows. Sets `is_well` before the last of them is received, if the object is the one that was written.
async fn decode(
    reader: Reader,
    (written, store): (&Exported, &Store),
    rows: Rows,
    is_well: &AtomicBool,
    phase: &Phase,
) -> Result<Decoded<Rows>> {
    let feed = |rows: &mut Rows, bytes: &[u8]| rows.feed(bytes);
    let mut decoded = decode_object(reader, written.coding(store), phase, None, rows, feed, |_| ()).await?;
    is_well.store(decoded.members.is_ok() && decoded.sha256 == written.sha256, Relaxed);
    // Without this, the copying would wait for more rows.
    decoded.state.sender = None;
    Ok(decoded)
}

fn cannot_be_decoded(location: &str, written: &Exported, error: DecodeError) -> anyhow::Error {
    let DecodeError::Locked(why) = error else { return anyhow::anyhow!("{location} cannot be decoded: {error}") };
    let recipients =
        written.encryption.as_ref().map(|encryption| recipients_in_words(&encryption.recipients)).unwrap_or_default();
    let message = format!(
        "{location} is encrypted, and cannot be opened here: {why}. Its recipients are: {recipients}. Set `identity_file` of the store to the secret \
         key of one of them"
    );
    Fault::new(Kind::Configuration, message).into()
}

/// Copies the rows that are received into the table, and returns their number; none if the object is not the one that was written.
/// An error drops the receiver: the decoder does not wait for room after the server has refused the rows.
async fn copy_in(
    mut rows: Receiver<Bytes>,
    connection: &mut PgConnection,
    table: &str,
    columns: &[String],
    is_well: &AtomicBool,
) -> Result<u64> {
    let mut copy = pg::copy_in(connection, table, &column_list(columns)).await?;
    while let Some(rows) = rows.recv().await {
        copy.send(rows).await.map_err(pg::in_its_own_words)?;
    }
    if !is_well.load(Relaxed) {
        copy.abort("its object differs from what was written").await.map_err(pg::in_its_own_words)?;
        return Ok(0);
    }
    copy.finish().await.map_err(pg::in_its_own_words)
}

/// Takes the chosen rows out of the decoded bytes of an object.
struct Rows {
    rows_only: RowsOnly,
    bound: Bound,
    chosen: Option<Chosen>,
    /// `None` when all rows are sent.
    sender: Option<Sender<Bytes>>,
}

impl Rows {
    fn feed(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.bound.take_bytes(bytes)?;
        let rows = self.rows_only.feed(bytes)?;
        self.bound.take_rows(&rows)?;
        let rows = match &mut self.chosen {
            Some(chosen) => chosen.feed(&rows),
            None => rows,
        };
        match &self.sender {
            Some(sender) if !rows.is_empty() => sender.blocking_send(rows).map_err(std::io::Error::other),
            _ => Ok(()),
        }
    }
}

/// Bounds the rest of an object: another may have replaced it since it was proved.
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
        let more = || std::io::Error::other(format!("it has more {what} than its manifest says"));
        *left = left.checked_sub(count).ok_or_else(more)?;
        Ok(())
    }
}
