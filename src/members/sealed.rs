//! A part of a JSON document that only a key opens: a file of age, in base64.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::compress::DecodeError;
use super::decrypt::open_whole;
use super::encrypt::Encryptor;
use super::encryption::Encryption;
use crate::base::age_keys::{AgeKeys, Recipient};

/// What is sealed, in a document that anyone may read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sealed {
    pub encryption: Encryption,
    /// A file of age in base64.
    pub contents: String,
}

impl Sealed {
    /// Encrypts it for these, of whom there is one at least.
    pub fn of(contents: Vec<u8>, recipients: &[Recipient]) -> Result<Self> {
        let mut encryptor = Encryptor::to(recipients)?;
        let mut stored = encryptor.push(Bytes::from(contents))?.to_vec();
        let (rest, encryption) = encryptor.finish()?;
        stored.extend_from_slice(&rest);
        let encryption = encryption.context("without recipients nothing is sealed")?;
        Ok(Self { encryption, contents: STANDARD.encode(stored) })
    }

    /// Opens it; None where no key of this host does. An error if it is not what was sealed.
    pub fn open(&self, keys: &Arc<AgeKeys>) -> Result<Option<Vec<u8>>> {
        if keys.identities.is_none() {
            return Ok(None);
        }
        match open_whole(self.stored()?, &self.encryption, keys) {
            Ok(contents) => Ok(Some(contents)),
            Err(DecodeError::Locked(_)) => Ok(None),
            Err(DecodeError::Source(error) | DecodeError::Sink(error)) => {
                Err(anyhow::Error::from(error).context("its sealed part cannot be opened"))
            }
        }
    }

    fn stored(&self) -> Result<Vec<u8>> {
        let stored = STANDARD.decode(&self.contents).context("its sealed part is not in base64")?;
        self.encryption.check(stored.len() as u64).context("its sealed part")?;
        Ok(stored)
    }
}
