//! The bytes of one object on their way from one store to another: hashed, opened and encrypted where that is asked for, and in the end compared with the
//! manifest.

use anyhow::{Context as _, Result};
use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;

use super::fan_out::Stored;
use crate::base::age_keys::Recipient;
use crate::base::progress::Phase;
use crate::members::blocks;
use crate::members::compress::{Compression, DecodeError};
use crate::members::decrypt::Coding;
use crate::members::encrypt::Encryptor;
use crate::members::encryption::{Encryption, HEADER_LONGEST_BYTES};
use crate::members::opened::opened;
use crate::store::{Reader, Store, Upload};
use crate::task::backup::read_back::Differs;

/// The most chunks on their way from the store to whoever opens or encrypts them.
const QUEUED_CHUNKS: usize = 4;

/// An object of the set, as its manifest says it is in the store that it comes from.
pub struct Source {
    pub object: String,
    pub bytes: u64,
    /// In hexadecimal.
    pub sha256: String,
}

/// Where an object is read, and how it is opened there.
pub struct Origin<'a> {
    pub store_name: &'a str,
    pub store: &'a Store,
    pub key: String,
    /// None: it goes as it is.
    pub opens: Option<Opens>,
}

/// How an object is opened.
pub enum Opens {
    /// The manifest says where its header ends.
    Known(Encryption),
    /// Its own header says that.
    AsItSays,
}

/// Passes all of it on, encrypted for the recipients, if there are some. An error if what was read is not what the manifest says: then the upload must not be
/// finished.
pub async fn pass(
    from: &Origin<'_>,
    source: &Source,
    recipients: &[Recipient],
    upload: &mut Upload,
    phase: &Phase,
) -> Result<Stored> {
    let location = from.store.location(&from.key);
    let reader = from.store.read(&from.key).await?.with_context(|| format!("{location} is gone"))?;
    let coding = coding(from, source).await?;
    let mut out =
        Out { upload, encryptor: Encryptor::to(recipients)?, bytes: 0, hash: Sha256::new(), blocks: blocks::Hasher::default() };
    let (sender, receiver) = mpsc::channel(QUEUED_CHUNKS);
    let writing = async {
        match coding {
            None => out.take_all(receiver).await,
            Some(coding) => out.take_opened(opened(coding, receiver)?).await,
        }
    };
    let ((read_bytes, sha256), opened) = tokio::try_join!(read(reader, sender, phase), writing)?;
    if (read_bytes, &sha256) != (source.bytes, &source.sha256) {
        return Err(Differs(format!(
            "{location} in {} differs from its manifest: {read_bytes} bytes with SHA-256 {sha256} were read, {} with {} were written. Nothing of it was \
             copied; `pgtend backups verify` says whether it is damaged",
            from.store_name, source.bytes, source.sha256
        ))
        .into());
    }
    opened.with_context(|| format!("{location} could not be encrypted anew"))?;
    out.finish().await
}

/// Reads all of it, whatever becomes of it: in the end its hash says whether it was what was written.
async fn read(mut reader: Reader, sender: mpsc::Sender<Bytes>, phase: &Phase) -> Result<(u64, String)> {
    let (mut bytes, mut hash, mut is_wanted) = (0, Sha256::new(), true);
    while let Some(chunk) = reader.chunk().await? {
        bytes += chunk.len() as u64;
        hash.update(&chunk);
        phase.advance(chunk.len() as u64);
        is_wanted = is_wanted && sender.send(chunk).await.is_ok();
    }
    Ok((bytes, hex::encode(hash.finalize())))
}

async fn coding(from: &Origin<'_>, source: &Source) -> Result<Option<Coding>> {
    let encryption = match &from.opens {
        None => return Ok(None),
        Some(Opens::Known(encryption)) => encryption.clone(),
        Some(Opens::AsItSays) => {
            let range = 0..source.bytes.min(HEADER_LONGEST_BYTES);
            let location = || from.store.location(&from.key);
            let mut reader = from.store.read_range(&from.key, range).await?.with_context(|| format!("{} is gone", location()))?;
            let mut head = Vec::new();
            while let Some(chunk) = reader.chunk().await? {
                head.extend_from_slice(&chunk);
            }
            let found = Encryption::of_object(&head, source.bytes);
            found.ok_or_else(|| Differs(format!("{} is no file of age", location())))?
        }
    };
    // It is opened and not decoded.
    Ok(Some(Coding::new(Compression::Gzip, Some(&encryption), from.store.age_keys())))
}

struct Out<'a> {
    upload: &'a mut Upload,
    encryptor: Encryptor,
    bytes: u64,
    hash: Sha256,
    blocks: blocks::Hasher,
}

impl Out<'_> {
    async fn take_all(&mut self, mut chunks: mpsc::Receiver<Bytes>) -> Result<Result<(), DecodeError>> {
        while let Some(chunk) = chunks.recv().await {
            self.take(chunk).await?;
        }
        Ok(Ok(()))
    }

    /// The outer error is that of the store that it goes to.
    async fn take_opened(&mut self, mut opened: mpsc::Receiver<Result<Bytes, DecodeError>>) -> Result<Result<(), DecodeError>> {
        while let Some(chunk) = opened.recv().await {
            match chunk {
                Ok(chunk) => self.take(chunk).await?,
                Err(error) => return Ok(Err(error)),
            }
        }
        Ok(Ok(()))
    }

    async fn take(&mut self, chunk: Bytes) -> Result<()> {
        let encrypted = self.encryptor.push(chunk)?;
        self.write(encrypted).await
    }

    async fn write(&mut self, bytes: Bytes) -> Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.hash.update(&bytes);
        self.blocks.push(&bytes);
        self.bytes += bytes.len() as u64;
        self.upload.write(bytes).await
    }

    async fn finish(mut self) -> Result<Stored> {
        let (rest, encryption) = std::mem::take(&mut self.encryptor).finish()?;
        self.write(rest).await?;
        Ok(Stored { bytes: self.bytes, sha256: hex::encode(self.hash.finalize()), blocks: self.blocks.finish(), encryption })
    }
}
