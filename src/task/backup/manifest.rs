//! `manifest.json`: all that is known of a set when it is made. It ends with a checksum of its own bytes.

use anyhow::{Context as _, Result};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::blocks::Blocks;
use super::compress::Compression;
use super::facts::ServerFacts;
use super::members::MemberIndex;
use super::scan::TableData;
use super::stream::hex;

/// A program that meets a newer one refuses it rather than guess. 1 had no checksum of its own.
pub const FORMAT: u32 = 2;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Manifest {
    pub format: u32,
    pub pgtend_version: String,
    pub job: String,
    /// Its name in the configuration.
    pub database: String,
    /// Started by a person although the job has a schedule.
    #[serde(default)]
    pub by_hand: bool,
    pub started_at: DateTime<Utc>,
    pub finished_at: DateTime<Utc>,
    pub server: ServerFacts,
    /// `pg_dump (PostgreSQL) 18.4`
    pub pg_dump_version: String,
    pub dump: DumpObject,
    pub globals: Globals,
    /// In the dump's order; rows as of its snapshot.
    pub tables: Vec<TableData>,
    pub large_objects: u64,
    /// What the job left out on purpose.
    pub filters: Filters,
    pub warnings: Vec<String>,
}

impl Manifest {
    pub fn rows(&self) -> u64 {
        self.tables.iter().map(|table| table.rows).sum()
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DumpObject {
    /// `dump.sql.gz`, beside the manifest.
    pub object: String,
    pub compression: Compression,
    pub bytes: u64,
    /// Of the object, in hexadecimal.
    pub sha256: String,
    pub uncompressed_bytes: u64,
    pub members: MemberIndex,
    /// None in sets of the first release.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blocks: Option<Blocks>,
    pub elapsed_seconds: f64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Globals {
    /// `globals.sql.gz`; without role passwords where they may not be read.
    Object { bytes: u64, sha256: String, role_passwords: bool },
    /// Why there is none.
    Absent { reason: String },
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Filters {
    pub schemas: Vec<String>,
    pub exclude_tables: Vec<String>,
    pub exclude_table_data: Vec<String>,
}

impl Filters {
    /// The set holds the whole database.
    pub fn are_none(&self) -> bool {
        self.schemas.is_empty() && self.exclude_tables.is_empty() && self.exclude_table_data.is_empty()
    }
}

const CHECKSUM_KEY: &str = ",\n  \"sha256\": \"";
const CHECKSUM_END: &str = "\"\n}\n";
const CHECKSUM_HEX: usize = 64;

/// The manifest as JSON. Its last member, `sha256`, is the hash of all bytes before it (from `{` to the comma, which does not
/// count): whoever has only stock tools can tell it with head and sha256sum.
pub fn to_json(manifest: &Manifest) -> Result<Vec<u8>> {
    let text = serde_json::to_string_pretty(manifest)?;
    let open = text.strip_suffix("\n}").context("a manifest is a JSON object")?;
    let digest = hex(&Sha256::digest(open));
    Ok(format!("{open}{CHECKSUM_KEY}{digest}{CHECKSUM_END}").into_bytes())
}

/// Reads a manifest of this release or of an earlier one. An error says how it differs from what was written.
pub fn from_json(bytes: &[u8]) -> Result<Manifest> {
    #[derive(Deserialize)]
    struct FormatOnly {
        format: u32,
    }
    let sealed = check_seal(bytes)?;
    let FormatOnly { format } = serde_json::from_slice(bytes).context("it is not a manifest")?;
    anyhow::ensure!(format <= FORMAT, "it has format {format}, and this pgtend reads up to {FORMAT}: use a newer one");
    anyhow::ensure!(sealed || format < 2, "it has lost its checksum, so that nobody can say what else it has lost");
    serde_json::from_slice(bytes).context("it is not a manifest")
}

/// Whether there is a checksum; an error when it is there and wrong.
fn check_seal(bytes: &[u8]) -> Result<bool> {
    let Some(rest) = bytes.strip_suffix(CHECKSUM_END.as_bytes()) else { return Ok(false) };
    let Some((rest, digest)) = rest.len().checked_sub(CHECKSUM_HEX).map(|at| rest.split_at(at)) else { return Ok(false) };
    let Some(open) = rest.strip_suffix(CHECKSUM_KEY.as_bytes()) else { return Ok(false) };
    let found = hex(&Sha256::digest(open));
    anyhow::ensure!(
        digest == found.as_bytes(),
        "it is not as it was written: its checksum is {} and its bytes have {found}",
        String::from_utf8_lossy(digest)
    );
    Ok(true)
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use serde_json::json;

    fn server() -> ServerFacts {
        let database = json!({
            "name": "app", "owner": "postgres", "encoding": "UTF8", "collate": "C", "ctype": "C", "locale_provider": "c",
            "locale": null, "size_bytes": 1, "settings": []
        });
        let server = json!({
            "version": "18.4", "version_num": 180_004, "system_identifier": "7", "in_recovery": false, "database": database,
            "extensions": [], "roles": []
        });
        serde_json::from_value(server).unwrap()
    }

    pub fn manifest() -> Manifest {
        let table = |name: &str, rows| TableData { schema: "public".into(), name: name.into(), rows, offset: 0, bytes: 10 };
        let now = "2026-11-23T02:00:00Z".parse().unwrap();
        Manifest {
            format: FORMAT,
            pgtend_version: "0".into(),
            job: "nightly".into(),
            database: "app".into(),
            by_hand: false,
            started_at: now,
            finished_at: now,
            server: server(),
            pg_dump_version: "18".into(),
            dump: DumpObject {
                object: "dump.sql.gz".into(),
                compression: Compression::Gzip,
                bytes: 1000,
                sha256: "00".into(),
                uncompressed_bytes: 5000,
                members: MemberIndex::default(),
                blocks: None,
                elapsed_seconds: 1.5,
            },
            globals: Globals::Absent { reason: "none".into() },
            tables: vec![table("a", 1), table("b", 2)],
            large_objects: 0,
            filters: Filters::default(),
            warnings: vec![],
        }
    }

    #[test]
    fn each_flipped_bit_of_a_manifest_is_seen() {
        let written = to_json(&manifest()).unwrap();
        assert_eq!(from_json(&written).unwrap().tables, manifest().tables);
        for at in 0..written.len() {
            for bit in 0..8 {
                let mut flipped = written.clone();
                flipped[at] ^= 1 << bit;
                assert!(from_json(&flipped).is_err(), "byte {at}, bit {bit}");
            }
        }
        for length in 0..written.len() {
            assert!(from_json(&written[..length]).is_err(), "cut at {length}");
        }
    }

    #[test]
    fn manifests_of_the_first_release_are_read() {
        let mut first = serde_json::to_value(manifest()).unwrap();
        first["format"] = 1.into();
        first.as_object_mut().unwrap().remove("by_hand");
        assert_eq!(from_json(first.to_string().as_bytes()).unwrap().format, 1);
    }
}
