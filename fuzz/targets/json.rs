//! What stands in a store as JSON: manifests of sets and of archives, verifications, markers. What is read is within its bounds, and
//! is read the same again.

#![no_main]

use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use libfuzzer_sys::fuzz_target;
use pgtend::base::bounds::Bounded;
use pgtend::members::blocks::Proof;
use pgtend::store::key::parse_time;
use pgtend::task::audit::document::Document;
use pgtend::task::backup::identity::Identity;
use pgtend::task::backup::manifest::{self, Manifest};
use pgtend::task::backup::markers::{DeletingMarker, Hold, RunMarker};
use pgtend::task::backup::series::Series;
use pgtend::task::backup::set_name::SetName;
use pgtend::task::backup::verdict::Verification;
use pgtend_fuzz::memory::most_held;
use serde::Serialize;
use serde::de::DeserializeOwned;

fuzz_target!(|bytes: &[u8]| {
    let (_, held) = most_held(|| set(bytes));
    assert!(held < (1 << 20) + 256 * bytes.len(), "{held} bytes held for {}", bytes.len());
    if let Some(verification) = read_again::<Verification>(bytes) {
        let (_, _) = (verification.in_words(), verification.restored_in_words(chrono::DateTime::UNIX_EPOCH));
        assert!(verification.damaged_at().is_none() || verification.verdict().name() == "damaged");
    }
    read_again::<RunMarker>(bytes);
    read_again::<DeletingMarker>(bytes);
    read_again::<Hold>(bytes);
    read_again::<Series>(bytes);
    read_again::<pgtend::archive::Manifest>(bytes);
    if let Some(document) = read_again::<Document>(bytes) {
        document.counts();
    }
    if let Ok(text) = std::str::from_utf8(bytes) {
        names(text);
    }
});

fn set(bytes: &[u8]) {
    // A checksum is not guessed: what has lost it is of the first format.
    let unsealed = String::from_utf8_lossy(bytes).replacen("\"format\": 2", "\"format\": 1", 1);
    for bytes in [bytes, unsealed.as_bytes()] {
        let Ok(mut manifest) = manifest::from_json(bytes) else { continue };
        used(&manifest);
        manifest.dump.elapsed_seconds = 1.5;
        let again = manifest::to_json(&manifest).expect("it is written");
        let read = manifest::from_json(&again).expect("what was written is read");
        assert_eq!(again, manifest::to_json(&read).expect("it is written"));
        assert_ne!(manifest::without_checksum(&again), again);
    }
}

/// As listings, comparisons and restores use it.
fn used(manifest: &Manifest) {
    let dump = &manifest.dump;
    assert!(manifest.rows() <= dump.uncompressed_bytes);
    let _ = (manifest.filters.are_none(), Identity::of(&manifest.server));
    assert!(!dump.object.contains('/'));
    let mut comparison = dump.members.comparison(dump.bytes);
    (0..50).for_each(|_| comparison.feed(&[0; 77]));
    let _ = comparison.finish();
    if let Some(blocks) = dump.blocks.clone() {
        let mut proof = Proof::new(blocks, dump.bytes, Arc::new(AtomicBool::new(false)));
        for _ in 0..50 {
            proof.feed(&[0; 77]);
        }
        proof.finish();
    }
}

fn read_again<T: Serialize + DeserializeOwned + Bounded + Debug>(bytes: &[u8]) -> Option<T> {
    let value: T = serde_json::from_slice(bytes).ok()?;
    value.check().ok()?;
    let written = serde_json::to_string_pretty(&value).expect("it is written");
    let read: T = serde_json::from_str(&written).unwrap_or_else(|error| panic!("{error}: {written}"));
    assert_eq!(without_seconds(format!("{value:?}")), without_seconds(format!("{read:?}")));
    Some(value)
}

/// serde_json reads the last bit of a fraction as it likes.
fn without_seconds(text: String) -> String {
    let mut parts = text.split("elapsed_seconds: ");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |kept, part| {
        kept + part.trim_start_matches(|letter: char| letter.is_ascii_digit() || ".e-".contains(letter))
    })
}

fn names(text: &str) {
    if let Ok(name) = text.parse::<SetName>() {
        let again: SetName = name.to_string().parse().expect("a set's name is read as it is written");
        assert_eq!(again, name);
        assert!(!name.key("x").split('/').any(|part| part == "." || part == ".."), "{}", name.key("x"));
    }
    if let Some(time) = parse_time(text) {
        assert_eq!(time.format("%Y-%m-%dT%H-%M-%SZ").to_string(), text);
    }
}
