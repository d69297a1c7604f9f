//! Writes rows into an object: COPY's text, in gzip members, encrypted where the store asks for it, hashed and counted.

use std::time::Instant;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use futures_util::TryStreamExt as _;
use futures_util::stream::BoxStream;
use sha2::{Digest as _, Sha256};
use sqlx::PgConnection;

use super::batch::{Exported, Source};
use super::known::Known;
use super::manifest::{CameFrom, Manifest};
use super::session::{convert_again, in_another_encoding, pass_bytes};
use super::text::{TAIL, head};
use crate::base::age_keys::Recipient;
use crate::base::progress::Phase;
use crate::base::subtask;
use crate::members::compress::{self, Compression, Compressor, MEMBER_BYTES};
use crate::members::encrypt::Encryptor;
use crate::pg;
use crate::store::{Store, Upload};

/// Streams rows into an object; it needs memory for two members and the upload's parts. Rows of `known` are in another batch, and
/// are skipped. Returns also the batches that have these.
pub(super) async fn write(
    connection: &mut PgConnection,
    source: &Source,
    manifest: &Manifest,
    store: &Store,
    key: &str,
    phase: &Phase,
    known: &mut Known<'_>,
) -> Result<(Exported, Vec<CameFrom>)> {
    let mut upload = store.upload(key, 0).await?;
    let written = async {
        let mut writer = Writer::new(&store.age_keys().recipients)?;
        writer.pending.extend_from_slice(head(manifest).as_bytes());
        if let Some(encoding) = &manifest.encoding {
            pass_bytes(connection, encoding).await?;
        }
        for (number, query) in source.queries.iter().enumerate() {
            let began = Instant::now();
            let refused = match pg::copy_out(connection, query).await {
                Ok(rows) => {
                    writer.take(rows, &mut upload, phase, known).await?;
                    None
                }
                Err(error) => Some(error),
            };
            if let Some(error) = refused {
                pg::keep_step(connection).await;
                return Err(error);
            }
            if let Some(steps) = source.steps.filter(|_| number + 1 < source.queries.len()) {
                tokio::time::sleep(steps.rest_after(began.elapsed())).await;
            }
        }
        if manifest.encoding.is_some() {
            convert_again(connection).await?;
        }
        writer.pending.extend_from_slice(TAIL);
        writer.send(&mut upload).await?;
        let exported = writer.finish(&mut upload).await?;
        upload.finish().await?;
        Ok(exported)
    };
    let written: Result<Exported> = written.await.map_err(|error| in_another_encoding(error, manifest.encoding.as_deref()));
    if written.is_err() {
        upload.abort().await;
    }
    let written = written.with_context(|| format!("cannot archive rows to {}", store.location(key)))?;
    Ok((written, known.came_from()))
}

struct Writer {
    compressor: Option<Compressor>,
    encryptor: Encryptor,
    pending: Vec<u8>,
    hash: Sha256,
    rows: u64,
    bytes: u64,
    uncompressed_bytes: u64,
}

impl Writer {
    fn new(recipients: &[Recipient]) -> Result<Self> {
        Ok(Self {
            compressor: Some(Compressor::new(Compression::Gzip, Compression::Gzip.default_level())?),
            encryptor: Encryptor::to(recipients)?,
            pending: Vec::with_capacity(MEMBER_BYTES + (64 << 10)),
            hash: Sha256::new(),
            rows: 0,
            bytes: 0,
            uncompressed_bytes: 0,
        })
    }

    /// Takes all rows of a COPY.
    async fn take(
        &mut self,
        mut rows: BoxStream<'_, sqlx::Result<Bytes>>,
        upload: &mut Upload,
        phase: &Phase,
        known: &mut Known<'_>,
    ) -> Result<()> {
        // A row may come in pieces, or several at once.
        let mut line = Vec::new();
        while let Some(chunk) = rows.try_next().await.map_err(pg::in_its_own_words)? {
            phase.advance(chunk.len() as u64);
            if known.is_empty() {
                self.rows += memchr::memchr_iter(b'\n', &chunk).count() as u64;
                self.pending.extend_from_slice(&chunk);
            } else {
                for piece in chunk.split_inclusive(|byte| *byte == b'\n') {
                    line.extend_from_slice(piece);
                    if line.ends_with(b"\n") {
                        if !known.has(&line) {
                            self.rows += 1;
                            self.pending.extend_from_slice(&line);
                        }
                        line.clear();
                    }
                }
            }
            if self.pending.len() >= MEMBER_BYTES {
                self.send(upload).await?;
            }
        }
        anyhow::ensure!(line.is_empty(), "the server's last row is incomplete");
        Ok(())
    }

    /// Sends the pending bytes as a member.
    async fn send(&mut self, upload: &mut Upload) -> Result<()> {
        let member = self.member().await?;
        let stored = self.encryptor.push(member)?;
        self.store(stored, upload).await
    }

    async fn store(&mut self, stored: Bytes, upload: &mut Upload) -> Result<()> {
        if stored.is_empty() {
            return Ok(());
        }
        self.hash.update(&stored);
        self.bytes += stored.len() as u64;
        upload.write(stored).await
    }

    async fn finish(mut self, upload: &mut Upload) -> Result<Exported> {
        let (rest, encryption) = std::mem::take(&mut self.encryptor).finish()?;
        self.store(rest, upload).await?;
        Ok(Exported {
            rows: self.rows,
            bytes: self.bytes,
            uncompressed_bytes: self.uncompressed_bytes,
            sha256: hex::encode(self.hash.finalize()),
            encryption,
        })
    }

    /// Compresses the pending bytes into a member. One that is to be encrypted is read back at once: this host may have no key to do so later, and the
    /// rows leave their table.
    async fn member(&mut self) -> Result<Bytes> {
        let input = std::mem::replace(&mut self.pending, Vec::with_capacity(MEMBER_BYTES + (64 << 10)));
        self.uncompressed_bytes += input.len() as u64;
        let mut compressor = self.compressor.take().context("the compressor is in use")?;
        let is_read_back = self.encryptor.encrypts();
        let (compressor, member) = subtask::spawn_blocking_in_span(move || {
            let member = compressor.member(&input);
            let member = member.and_then(|member| if is_read_back { read_back(member, &input) } else { Ok(member) });
            (compressor, member)
        })
        .await?;
        self.compressor = Some(compressor);
        Ok(member?.into())
    }
}

/// Returns the member if it decodes to the input.
fn read_back(member: Vec<u8>, input: &[u8]) -> Result<Vec<u8>> {
    let mut rest = input;
    let decoded = compress::decode(Compression::Gzip, &member[..], |bytes| {
        rest = rest.strip_prefix(bytes).ok_or_else(|| std::io::Error::other("it decodes to something else"))?;
        Ok(())
    });
    anyhow::ensure!(
        decoded.is_ok() && rest.is_empty(),
        "a compressed member does not decode to its rows: check this host's memory"
    );
    Ok(member)
}

/// The decoded content of an archive object, counted.
#[derive(Default)]
pub(super) struct Lines {
    pub bytes: u64,
    pub newlines: u64,
}

impl Lines {
    pub fn feed(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
        self.newlines += memchr::memchr_iter(b'\n', bytes).count() as u64;
    }
}
