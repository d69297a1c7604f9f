//! JSON objects that a store writes signed, and whose signatures it checks.

use anyhow::{Context as _, Result};
use hmac::Mac as _;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Store;
use super::sign::{MARKER_BYTES, SIGNATURE_KEY, SignKey, Signature, split};
use crate::base::bounds::Bounded;

impl Store {
    fn sign_key(&self) -> Option<&SignKey> {
        match self {
            Self::Dir(dir) => dir.sign_key.as_ref(),
            Self::S3(s3) => s3.sign_key.as_ref(),
            Self::Cloud(cloud) => cloud.sign_key.as_ref(),
        }
    }

    pub fn has_sign_key(&self) -> bool {
        self.sign_key().is_some()
    }

    /// Signs the object `key` before it is written: JSON without the `}` at its end. Without a store key the JSON is unchanged.
    pub fn sign(&self, key: &str, open: &str) -> Result<String> {
        let Some(sign_key) = self.sign_key() else { return Ok(open.to_owned()) };
        let signature = sign_key.mac(key, open.as_bytes())?.finalize().into_bytes();
        Ok(format!("{open}{}{}\"", String::from_utf8_lossy(SIGNATURE_KEY), hex::encode(signature)))
    }

    /// Returns the verdict on the object `key`; `open` is its JSON up to the end of the signature.
    pub fn signature(&self, key: &str, open: &[u8]) -> Result<Signature> {
        let Some(sign_key) = self.sign_key() else { return Ok(Signature::NotAsked) };
        let Some((content, signature)) = split(open) else { return Ok(Signature::Missing) };
        // The comparison takes constant time.
        let is_right = sign_key.mac(key, content)?.verify_slice(&signature).is_ok();
        Ok(if is_right { Signature::Valid } else { Signature::Wrong })
    }

    /// Returns the signature of a text that is called `key`; None where the store has no key.
    pub fn signature_of(&self, key: &str, text: &[u8]) -> Result<Option<String>> {
        let Some(sign_key) = self.sign_key() else { return Ok(None) };
        Ok(Some(hex::encode(sign_key.mac(key, text)?.finalize().into_bytes())))
    }

    /// Returns whether that is the signature by the store's key; false where it has none.
    pub fn has_signed(&self, key: &str, text: &[u8], signature: &str) -> Result<bool> {
        let (Some(sign_key), Ok(signature)) = (self.sign_key(), hex::decode(signature)) else { return Ok(false) };
        Ok(sign_key.mac(key, text)?.verify_slice(&signature).is_ok())
    }

    /// Returns a JSON object as bytes, signed if the store has a key.
    pub fn to_json<T: Serialize>(&self, key: &str, value: &T) -> Result<Vec<u8>> {
        let text = serde_json::to_string_pretty(value)?;
        let open = text.strip_suffix("\n}").context("only a JSON object can be signed")?;
        Ok(format!("{}\n}}", self.sign(key, open)?).into_bytes())
    }

    /// Writes a JSON object, signed if the store has a key.
    pub async fn put_json<T: Serialize>(&self, key: &str, value: &T) -> Result<()> {
        self.put(key, self.to_json(key, value)?).await
    }

    /// Reads a JSON object of at most 4 MiB; `None` when there is none. The inner error says what is wrong with the object, and
    /// names it.
    pub async fn get_json<T: DeserializeOwned + Bounded>(&self, key: &str) -> Result<Option<Result<(T, Signature)>>> {
        let Some(bytes) = self.get_at_most(key, MARKER_BYTES).await? else { return Ok(None) };
        Ok(Some(self.read_json(key, &bytes)))
    }
}
