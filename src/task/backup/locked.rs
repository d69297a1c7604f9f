//! Encrypted sets that this host cannot open, and plain ones in a store that encrypts.

use anyhow::{Context as _, Result};
use bytes::Bytes;

use super::set::Set;
use crate::base::age_keys::Recipient;
use crate::base::fault::{Fault, Kind};
use crate::base::subtask;
use crate::members::compress::DecodeError;
use crate::members::decrypt::{Coding, recipients_in_words};
use crate::store::Store;

/// Fails unless this host has a key for the set. Of a plain set in a store that encrypts, it warns.
pub async fn ensure_opens(store: &Store, set: &Set) -> Result<()> {
    let dump = &set.manifest.dump;
    let Some(encryption) = &dump.encryption else {
        if store.encrypts() {
            tracing::warn!(
                "{} is not encrypted, although the store has `encrypt_to`: it was made before that, or by someone else",
                set.name
            );
        }
        return Ok(());
    };
    let coding = Coding::new(dump.compression, Some(encryption), store.age_keys());
    let head = head(store, set).await?;
    // A key of RSA takes its time, and a made-up header as well.
    let tried = subtask::spawn_blocking_in_span(move || coding.tries_to_open(&head)).await?;
    match tried {
        Err(DecodeError::Locked(why)) => Err(refusal(store, set, &why)),
        // Whoever reads all of it says whether it is damaged.
        Ok(()) | Err(DecodeError::Source(_) | DecodeError::Sink(_)) => Ok(()),
    }
}

/// Reads what an encrypted dump, or any part of it, is opened with; nothing of a plain one. It needs no proof: with another one, nothing opens.
pub async fn head(store: &Store, set: &Set) -> Result<Bytes> {
    let Some(encryption) = &set.manifest.dump.encryption else { return Ok(Bytes::new()) };
    let key = set.name.key(&set.manifest.dump.object);
    let mut reader =
        store.read_range(&key, encryption.head()).await?.with_context(|| format!("{} is gone", store.location(&key)))?;
    let mut head = Vec::new();
    while let Some(chunk) = reader.chunk().await? {
        head.extend_from_slice(&chunk);
    }
    Ok(head.into())
}

/// The error of whoever needs what is in the set.
pub fn refusal(store: &Store, set: &Set, why: &str) -> anyhow::Error {
    let recipients = set.manifest.dump.encryption.as_ref().map(|encryption| encryption.recipients.clone()).unwrap_or_default();
    if names_us(store, &recipients) {
        return anyhow::anyhow!(
            "{}: its header was changed, as the manifest names a recipient whose key is here, and that does not open it: `pgtend backups \
             verify` says whether the set is damaged",
            store.location(&set.name.key(&set.manifest.dump.object))
        );
    }
    let message = format!(
        "{} is encrypted, and cannot be opened here: {why}. Its recipients are: {}. Set `identity_file` of the store to the secret key of one of \
         them, or do this on a host that has it",
        set.name,
        recipients_in_words(&recipients)
    );
    Fault::new(Kind::Configuration, message).into()
}

fn names_us(store: &Store, recipients: &[String]) -> bool {
    let Some(identities) = &store.age_keys().identities else { return false };
    let named: Vec<String> = recipients.iter().filter_map(|text| Some(Recipient::parse(text).ok()?.key())).collect();
    identities.public_keys().any(|key| named.contains(&key))
}
