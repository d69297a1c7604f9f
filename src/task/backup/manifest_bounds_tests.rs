//! Manifests that pgtend never wrote.

use std::collections::BTreeSet;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::tests::sound;
use super::*;
use crate::members::encryption::Format;
use crate::task::backup::row_sum::RowsHash;
use crate::task::backup::set::{DUMPS, Set};
use crate::task::backup::verdict::Verification;
use crate::task::backup::{loss, part};

/// With members, times and globals, so that there is something to get wrong.
fn written() -> Value {
    let mut manifest = sound();
    manifest.format = 1;
    manifest.server.clock = Some(manifest.started_at);
    manifest.dump.members.push(&[1; 400], 2000);
    manifest.dump.members.push(&[2; 600], 3000);
    manifest.dump.members.finish();
    manifest.globals = Globals::Object { bytes: 10, sha256: "0".repeat(64), role_passwords: true };
    serde_json::to_value(manifest).unwrap()
}

/// The same, encrypted.
fn encrypted() -> Value {
    let mut manifest: Manifest = serde_json::from_value(written()).unwrap();
    manifest.format = FORMAT;
    let dump = &mut manifest.dump;
    let encryption =
        Encryption { format: Format::Age, header_bytes: 200, contents_bytes: 1000, recipients: vec!["age1x".into()] };
    (dump.bytes, dump.object) = (encryption.stored_bytes(), "dump.sql.gz.age".into());
    dump.blocks = Some(Blocks { block_bytes: 1 << 20, sha256: vec!["0".repeat(64)] });
    dump.encryption = Some(encryption);
    serde_json::to_value(manifest).unwrap()
}

fn read(value: &Value) -> Result<Manifest> {
    let text = serde_json::to_string_pretty(value).unwrap();
    let Some(open) = text.strip_suffix("\n}") else { return from_json(text.as_bytes()) };
    from_json(format!("{open}{CHECKSUM_KEY}{}{CHECKSUM_END}", hex::encode(Sha256::digest(open))).as_bytes())
}

#[test]
fn a_manifest_with_a_value_that_nobody_writes_is_an_error_that_names_it() {
    read(&written()).unwrap();
    read(&encrypted()).unwrap();
    for (pointer, value, says) in [
        ("/dump/object", json!("dump.sql.gz"), "instead of dump.sql.gz.age"),
        ("/dump/bytes", json!(1231), "encryption is of an object of 1232 bytes"),
        ("/dump/encryption/header_bytes", json!(u64::MAX), "encryption"),
        ("/dump/encryption/contents_bytes", json!(u64::MAX), "encryption.contents_bytes"),
        ("/format", json!(2), "which knows no encryption"),
        ("/dump/encryption/format", json!("gpg"), "not a manifest"),
        ("/dump/blocks", Value::Null, "dump.blocks are missing"),
    ] {
        let mut value_with = encrypted();
        *value_with.pointer_mut(pointer).unwrap() = value;
        let error = format!("{:#}", read(&value_with).unwrap_err());
        assert!(error.contains(says), "{pointer}: {error}");
    }
    let long = "x".repeat(2000);
    for (pointer, value, says) in [
        ("/dump/object", json!("../../etc/passwd"), "dump.object is `../../etc/passwd`"),
        ("/dump/object", json!("manifest.json"), "dump.object"),
        ("/dump/object", json!("dump.sql.gz\n"), "`dump.sql.gz\\n`"),
        ("/dump/object", json!("dump.sql.gz\u{0}"), "`dump.sql.gz\\0`"),
        ("/dump/object", json!(""), "dump.object"),
        ("/dump/object", json!("dump.sql.zst"), "dump.object"),
        ("/dump/bytes", json!(-1), "-1"),
        ("/dump/bytes", json!(1.5), "1.5"),
        ("/dump/bytes", json!(u64::MAX), "dump.bytes"),
        ("/dump/bytes", json!(1e300), "expected u64"),
        ("/dump/uncompressed_bytes", json!(u64::MAX), "dump.uncompressed_bytes"),
        ("/dump/uncompressed_bytes", json!(5), "dump.members"),
        ("/dump/sha256", json!("00"), "dump.sha256"),
        ("/dump/sha256", json!("G".repeat(64)), "dump.sha256"),
        ("/dump/elapsed_seconds", json!(-1.0), "dump.elapsed_seconds"),
        ("/dump/elapsed_seconds", json!(1e300), "dump.elapsed_seconds"),
        ("/dump/members/every", json!(0), "dump.members"),
        ("/dump/members/count", json!(u64::MAX), "dump.members"),
        ("/dump/members/points/1/0", json!(1001), "dump.members"),
        ("/dump/members/points/0/0", json!(500), "dump.members"),
        ("/dump/members/crc32", json!([1, 2, 3]), "dump.members"),
        ("/dump/members/crc32/0", json!(u64::MAX), "invalid value"),
        ("/globals/object/bytes", json!(u64::MAX), "globals.bytes"),
        ("/globals/object/sha256", json!("../x"), "globals.sha256"),
        ("/large_objects", json!(u64::MAX), "large_objects"),
        ("/tables/0/name", json!("a\u{0}b"), "`a\\0b`"),
        ("/tables/0/name", json!(""), "a table's name"),
        ("/tables/0/schema", json!(long), "a table's schema"),
        ("/tables/0/rows", json!(11), "has 11 rows in 10 bytes"),
        ("/tables/0/rows", json!(u64::MAX), "rows in 10 bytes"),
        ("/tables/0/offset", json!(u64::MAX), "bytes from 18446744073709551615"),
        ("/tables/1/bytes", json!(4999), "in 4999 bytes from 0"),
        ("/started_at", json!("1969-12-31T23:59:59Z"), "started_at"),
        ("/finished_at", json!("+10000-01-02T00:00:00Z"), "finished_at"),
        ("/server/clock", json!("+262142-12-31T23:59:59Z"), ""),
        ("/server/clock", json!("-262143-01-01T00:00:00Z"), ""),
        ("/server/database/name", json!("a\u{0}"), "server.database.name"),
        ("/server/version_num", json!(i64::MAX), "invalid value"),
        ("/format", json!(u64::MAX), "not a manifest"),
        ("/tables", json!({}), "not a manifest"),
    ] {
        let mut value_of = written();
        *value_of.pointer_mut(pointer).unwrap_or_else(|| panic!("{pointer}")) = value;
        let error = read(&value_of).map(|_| ()).unwrap_err();
        assert!(format!("{error:#}").contains(says), "{pointer}: {error:#}");
    }
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    assert!(from_json(deep.as_bytes()).is_err(), "nested so deep that a parser without a limit would end the process");
}

#[test]
fn names_that_postgresql_allows_are_no_damage() {
    for name in ["a/b", "..", "we\"ird; drop", "new\nline", "ö", "\u{1b}[31m"] {
        let mut value = written();
        value["tables"][0]["name"] = json!(name);
        assert_eq!(read(&value).unwrap().tables[0].name, name);
    }
}

#[test]
fn a_manifest_of_a_hundred_thousand_tables_fits_into_what_is_read() {
    let name = "n".repeat(63);
    let with_tables = |count: u64| {
        let mut manifest = sound();
        manifest.dump.uncompressed_bytes = 100_000_000;
        let offsets = 99_000_000..99_000_000 + count;
        manifest.tables = offsets
            .map(|offset| TableData {
                schema: name.clone(),
                name: name.clone(),
                rows: 3,
                offset,
                bytes: 100,
                copies: 1,
                rows_hash: Some(RowsHash::default()),
            })
            .collect();
        to_json(&manifest).unwrap()
    };
    // Extrapolated from a thousand: a debug build needs a minute for all of them.
    let (empty, thousand) = (with_tables(0).len(), with_tables(1000));
    assert_eq!(from_json(&thousand).unwrap().tables.len(), 1000);
    let hundred_thousand = empty + (thousand.len() - empty) * 100;
    // Twice, since partitions are named once more.
    assert!((2 * hundred_thousand as u64) < crate::store::SMALL_OBJECT_BYTES, "{hundred_thousand} bytes");
}

/// All places of a JSON value.
fn places(value: &Value, at: &str, found: &mut Vec<String>) {
    found.push(at.to_owned());
    match value {
        Value::Object(members) => members.iter().for_each(|(key, value)| places(value, &format!("{at}/{key}"), found)),
        Value::Array(items) => items.iter().enumerate().for_each(|(index, value)| places(value, &format!("{at}/{index}"), found)),
        _ => {}
    }
}

fn hostile() -> impl Strategy<Value = Value> {
    prop_oneof![
        any::<u64>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(|number| json!(number)),
        (0_u64..6000).prop_map(Value::from),
        ".{0,20}".prop_map(Value::from),
        Just(json!("+262142-12-31T23:59:59Z")),
        Just(json!("-262143-01-01T00:00:00Z")),
        Just(json!("dump.sql.zst")),
        Just(Value::Null),
        Just(json!([])),
        Just(json!({})),
        Just(json!([[0, 0], [u64::MAX, u64::MAX]])),
        Just(json!([[900, 900], [0, 0]])),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    /// Whatever one writes into it: it is an error, or all that is asked of a manifest has an answer.
    #[test]
    fn a_manifest_that_somebody_has_changed_is_an_error_or_usable(
        changes in proptest::collection::vec((any::<prop::sample::Index>(), hostile()), 1..4), is_encrypted in any::<bool>(),
    ) {
        let mut value = if is_encrypted { encrypted() } else { written() };
        for (index, hostile) in changes {
            let mut found = Vec::new();
            places(&value, "", &mut found);
            let place: &String = index.get(&found);
            *value.pointer_mut(place).unwrap() = hostile;
        }
        if let Ok(manifest) = read(&value) {
            manifest.rows();
            let mut comparison = manifest.dump.members.comparison(manifest.dump.bytes);
            for _ in 0..30 {
                comparison.feed(&[0; 100]);
            }
            comparison.finish();
            for extent in part::extents(&manifest.dump, manifest.tables.iter().map(part::range)) {
                prop_assert!(extent.members.start <= extent.members.end && extent.members.end <= manifest.dump.contents_bytes());
                let stored = manifest.dump.stored(&extent.members);
                prop_assert!(stored.start <= stored.end && stored.end <= manifest.dump.bytes);
            }
            let _ = loss::lost(&manifest, &sound(), &BTreeSet::new());
            let _ = loss::lost(&sound(), &manifest, &BTreeSet::new());
            let name = "app/nightly/9999-12-31T23-59-59Z".parse().unwrap();
            let set = Set { name, manifest: manifest.clone(), verification: Verification::default(), holds: vec![], listed: Default::default() };
            let _ = (set.is_from_the_future(Utc::now()), set.identity());
            prop_assert!(DUMPS.contains(&manifest.dump.object.as_str()));
        }
    }

    #[test]
    fn any_bytes_are_an_error_and_no_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(from_json(&bytes).is_err());
    }
}
