//! Signatures of objects in a store: not everyone who may write into a bucket has the key. A signature is HMAC-SHA256 over the
//! object's key, a newline, and the JSON as written, up to the comma before its `signature`. Since it covers the key, an object
//! cannot be put in the place of another one.

use anyhow::{Context as _, Result};
use hmac::{Hmac, KeyInit as _, Mac as _};
use schemars::JsonSchema;
use secrecy::{ExposeSecret as _, SecretString};
use serde::Serialize;
use sha2::Sha256;

/// Markers and results beside a set, manifests of archived rows: the largest have some kB for each of at most 1,600 columns, or a
/// name for each accepted set.
pub const MARKER_BYTES: u64 = 4 << 20;

pub(super) const SIGNATURE_KEY: &[u8] = b",\n  \"signature\": \"";
const HEX: usize = 64;

/// The verdict of the store's key on an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Signature {
    /// The store has no key, so nothing is checked.
    NotAsked,
    Valid,
    Missing,
    Wrong,
}

impl Signature {
    /// Returns true when its writer had the key, or the store has none.
    pub fn is_ours(self) -> bool {
        matches!(self, Self::NotAsked | Self::Valid)
    }

    /// Returns the verdict for the end of a sentence about an object.
    pub fn in_words(self) -> &'static str {
        match self {
            Self::NotAsked => "the store has no key",
            Self::Valid => "it is signed with the store's key",
            Self::Missing => "it is not signed, although the store has a key: it was made without the key, or by someone else",
            Self::Wrong => {
                "its signature is not that of the store's key: it was made with another key, moved here from another name, or changed"
            }
        }
    }

    /// Returns the verdict for a column.
    pub fn in_short(self) -> &'static str {
        match self {
            Self::NotAsked | Self::Valid => "",
            Self::Missing => "not signed",
            Self::Wrong => "signature wrong",
        }
    }
}

#[derive(Clone, Debug)]
pub struct SignKey(SecretString);

impl SignKey {
    pub fn new(key: SecretString) -> Self {
        Self(key)
    }

    pub(super) fn mac(&self, key: &str, content: &[u8]) -> Result<Hmac<Sha256>> {
        let mut mac = Hmac::<Sha256>::new_from_slice(self.0.expose_secret().as_bytes()).context("the key of the store")?;
        mac.update(key.as_bytes());
        mac.update(b"\n");
        mac.update(content);
        Ok(mac)
    }
}

/// Splits the bytes of a JSON object without the `}` at its end into the part before a signature, and the signature.
pub(super) fn split(open: &[u8]) -> Option<(&[u8], [u8; HEX / 2])> {
    let (rest, digits) = open.strip_suffix(b"\"")?.split_last_chunk::<HEX>()?;
    let content = rest.strip_suffix(SIGNATURE_KEY)?;
    let mut signature = [0; HEX / 2];
    // Only lower case is accepted: one signature has one form.
    if digits.iter().any(u8::is_ascii_uppercase) {
        return None;
    }
    hex::decode_to_slice(digits, &mut signature).ok()?;
    Some((content, signature))
}

/// Returns a JSON object as bytes without the `}` at its end.
pub(super) fn without_end(json: &[u8]) -> &[u8] {
    let trimmed = json.trim_ascii_end();
    trimmed.strip_suffix(b"\n}").unwrap_or(trimmed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;
    use crate::store::dir::Dir;

    fn store(key: Option<&str>) -> Store {
        Store::Dir(Dir::new("/nowhere".as_ref()).signed(key.map(|key| SignKey::new(key.to_owned().into()))))
    }

    fn check(store: &Store, key: &str, json: &[u8]) -> Signature {
        json.strip_suffix(b"\n}").map_or(Signature::Missing, |open| store.signature(key, open).unwrap())
    }

    #[test]
    fn each_flipped_bit_of_what_is_signed_is_seen() {
        let ours = store(Some("k".repeat(32).as_str()));
        let written = ours.to_json("a/b", &serde_json::json!({ "x": 1, "signature": "y" })).unwrap();
        assert_eq!(check(&ours, "a/b", &written), Signature::Valid);
        assert_eq!(check(&ours, "a/c", &written), Signature::Wrong, "an object in the place of another one");
        assert_eq!(check(&store(Some("l".repeat(32).as_str())), "a/b", &written), Signature::Wrong);
        assert_eq!(check(&store(None), "a/b", &written), Signature::NotAsked);
        for at in 0..written.len() {
            for bit in 0..8 {
                let mut flipped = written.clone();
                flipped[at] ^= 1 << bit;
                assert!(!check(&ours, "a/b", &flipped).is_ours(), "byte {at}, bit {bit}");
            }
        }
        for length in 0..written.len() {
            assert!(!check(&ours, "a/b", &written[..length]).is_ours(), "cut at {length}");
        }
        let unsigned = store(None).to_json("a/b", &serde_json::json!({ "x": 1 })).unwrap();
        assert_eq!(check(&ours, "a/b", &unsigned), Signature::Missing);
    }

    #[test]
    fn stock_tools_compute_the_same_signature() {
        // { printf 'a/b\n'; printf '{\n  "x": 1'; } | openssl dgst -sha256 -hmac kkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkk
        let written = store(Some("k".repeat(32).as_str())).to_json("a/b", &serde_json::json!({ "x": 1 })).unwrap();
        let text = String::from_utf8(written).unwrap();
        assert_eq!(
            text,
            "{\n  \"x\": 1,\n  \"signature\": \"08b75264cd5fd70aaca41bcbc3dec7d81a0cbb89b9b3f95e6fdecf2ac586cb23\"\n}"
        );
    }
}
