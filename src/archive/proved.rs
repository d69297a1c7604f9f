//! Checks whether an object is the one that was written.

use anyhow::Result;
use sha2::{Digest as _, Sha256};

use super::batch::Exported;
use crate::base::progress::Phase;
use crate::store::Store;

/// Returns whether an object has the length and the SHA-256 that it was written with. Reads little more than its length.
pub(super) async fn is_as_written(store: &Store, key: &str, written: &Exported, phase: &Phase) -> Result<bool> {
    let Some(mut reader) = store.read(key).await? else { return Ok(false) };
    let (mut hash, mut bytes) = (Sha256::new(), 0);
    while let Some(chunk) = reader.chunk().await? {
        bytes += chunk.len() as u64;
        if bytes > written.bytes {
            return Ok(false);
        }
        hash.update(&chunk);
        phase.advance(chunk.len() as u64);
    }
    Ok(bytes == written.bytes && hex::encode(hash.finalize()) == written.sha256)
}
