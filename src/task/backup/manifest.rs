//! `manifest.json`: everything that is known about a set when it is made. It ends with a checksum of its own bytes.

use std::collections::BTreeSet;
use std::ops::Range;

use anyhow::{Context as _, Result};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::adopted::Adopted;
use super::facts::ServerFacts;
use super::scan::TableData;
use crate::base::bounds::{self, Bounded};
use crate::base::units;
use crate::members::blocks::Blocks;
use crate::members::compress::Compression;
use crate::members::encryption::Encryption;
use crate::members::index::MemberIndex;
use crate::members::sealed::Sealed;
use crate::pg::identifier;

/// The newest format. A program that meets a newer one refuses it rather than guess. Format 1 had no checksum; in format 2 each entry of
/// `tables` is one COPY block; format 4 is of encrypted sets, 5 of adopted ones, and 6 of sealed manifests.
pub const FORMAT: u32 = SEALED_FORMAT;

pub const ADOPTED_FORMAT: u32 = 5;
pub const SEALED_FORMAT: u32 = 6;

/// The format of a set of ours with these tables: the oldest that says all of it, so that earlier releases read it, too.
pub fn format_of(tables: &[TableData], is_encrypted: bool) -> u32 {
    match (is_encrypted, tables.iter().any(|table| table.copies > 1)) {
        (true, _) => 4,
        (false, true) => 3,
        (false, false) => 2,
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Manifest {
    pub format: u32,
    pub pgtend_version: String,
    pub job: String,
    /// Its name in the configuration.
    pub database: String,
    /// True if a person started it although the job has a schedule.
    #[serde(default)]
    pub by_hand: bool,
    pub started_at: DateTime<Utc>,
    pub finished_at: DateTime<Utc>,
    pub server: ServerFacts,
    /// `pg_dump (PostgreSQL) 18.4`
    pub pg_dump_version: String,
    pub dump: DumpObject,
    pub globals: Globals,
    /// In the dump's order; rows as of its snapshot. A table may have several entries.
    pub tables: Vec<TableData>,
    pub large_objects: u64,
    /// Filters of the job, which leave parts out on purpose.
    pub filters: Filters,
    pub warnings: Vec<String>,
    /// Where an adopted dump comes from; None: a run of pgtend made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adopted: Option<Adopted>,
    /// The settings under which the server wrote rows as text: [`ROW_TEXT`]. None: they are not known, as in sets of earlier releases and in adopted ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub row_text: Option<u32>,
    /// The manifest without its checksum, with names and numbers of rows, which only a key opens; None: they stand in the open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sealed: Option<Sealed>,
    /// A key of this host has opened what is sealed: it stands in the other fields.
    #[serde(skip)]
    pub is_opened: bool,
}

/// The settings under which rows are written as text since this number: those that every session of ours has (pg/contract.rs), pg_dump's as well. A row that is
/// read back under the same settings is the same line. Another number when one of them changes.
pub const ROW_TEXT: u32 = 1;

impl Manifest {
    /// Returns whether the rows of a restored copy can be read back as the same text.
    pub fn has_our_row_text(&self) -> bool {
        self.row_text == Some(ROW_TEXT)
    }

    pub fn rows(&self) -> u64 {
        self.tables.iter().map(|table| table.rows).sum()
    }

    /// Returns whether it is sealed, and no key of this host has opened it: `tables` and the like are empty, whatever the set holds.
    pub fn names_are_sealed(&self) -> bool {
        self.sealed.is_some() && !self.is_opened
    }

    /// "5 tables, 1,000 rows"
    pub fn holds_in_words(&self) -> String {
        match self.names_are_sealed() {
            false => format!("{}, {}", units::plural(self.table_count(), "table"), units::plural(self.rows(), "row")),
            true => "tables whose names and rows are sealed".to_owned(),
        }
    }

    /// The encoding in which the dump's rows and statements are written.
    pub fn text_encoding(&self) -> &str {
        let database = &self.server.database;
        match &self.adopted {
            Some(adopted) => adopted.client_encoding.as_deref().unwrap_or("UTF8"),
            None if database.has_no_way_to_utf8() => &database.encoding,
            None => "UTF8",
        }
    }

    /// The number of tables. A table may have several entries.
    pub fn table_count(&self) -> usize {
        self.tables.iter().map(|table| (&table.schema, &table.name)).collect::<BTreeSet<_>>().len()
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DumpObject {
    /// `dump.sql.gz`, beside the manifest; encrypted, `dump.sql.gz.age`.
    pub object: String,
    pub compression: Compression,
    pub bytes: u64,
    /// The hash of the object, in hexadecimal.
    pub sha256: String,
    pub uncompressed_bytes: u64,
    pub members: MemberIndex,
    /// None in sets of the first release.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blocks: Option<Blocks>,
    /// None: it is not encrypted. Otherwise `bytes`, `sha256` and `blocks` are of the object as it is stored, and `members` says where members
    /// stand in what is encrypted, without checksums of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encryption: Option<Encryption>,
    pub elapsed_seconds: f64,
}

impl DumpObject {
    /// The length of the compressed members.
    pub fn contents_bytes(&self) -> u64 {
        self.encryption.as_ref().map_or(self.bytes, |encryption| encryption.contents_bytes)
    }

    /// Returns the bytes of the object that are read for these bytes of the compressed members.
    pub fn stored(&self, members: &Range<u64>) -> Range<u64> {
        self.encryption.as_ref().map_or_else(|| members.clone(), |encryption| encryption.stored(members))
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Globals {
    /// `globals.sql.gz`; without role passwords where they may not be read.
    Object { bytes: u64, sha256: String, role_passwords: bool },
    /// There is no such object, for this reason.
    Absent { reason: String },
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Filters {
    pub schemas: Vec<String>,
    pub exclude_tables: Vec<String>,
    pub exclude_table_data: Vec<String>,
}

impl Filters {
    /// Those of a set of one schema. A name in double quotes is a pattern of pg_dump's that only this schema matches, whatever letters it has: its
    /// quotes are doubled as an identifier's are.
    pub fn of_schema(schema: &str) -> Self {
        Self { schemas: vec![identifier(schema)], ..Self::default() }
    }

    /// Returns whether the set holds the whole database.
    pub fn are_none(&self) -> bool {
        self.schemas.is_empty() && self.exclude_tables.is_empty() && self.exclude_table_data.is_empty()
    }
}

const CHECKSUM_KEY: &str = ",\n  \"sha256\": \"";
const CHECKSUM_END: &str = "\"\n}\n";
const CHECKSUM_HEX: usize = 64;

/// The manifest as JSON. Its last member, `sha256`, is the hash of all bytes before it (from `{` to the comma, which is excluded): stock
/// tools can compute it with head and sha256sum.
pub fn to_json(manifest: &Manifest) -> Result<Vec<u8>> {
    to_signed_json(manifest, |open| Ok(open.to_owned()))
}

/// The same with the addition of `sign` to everything before the checksum.
pub fn to_signed_json(manifest: &Manifest, sign: impl FnOnce(&str) -> Result<String>) -> Result<Vec<u8>> {
    let text = serde_json::to_string_pretty(manifest)?;
    let open = sign(text.strip_suffix("\n}").context("a manifest is a JSON object")?)?;
    let digest = hex::encode(Sha256::digest(&open));
    Ok(format!("{open}{CHECKSUM_KEY}{digest}{CHECKSUM_END}").into_bytes())
}

/// Reads a manifest of this release or of an earlier one. An error says how it differs from what was written.
pub fn from_json(bytes: &[u8]) -> Result<Manifest> {
    #[derive(Deserialize)]
    struct FormatOnly {
        format: u32,
    }
    let sealed = check_seal(bytes)?.is_some();
    let FormatOnly { format } = serde_json::from_slice(bytes).context("it is not a manifest")?;
    anyhow::ensure!(format <= FORMAT, "it has format {format}, and this pgtend reads formats up to {FORMAT}: use a newer pgtend");
    anyhow::ensure!(sealed || format < 2, "its checksum is missing, so that the rest cannot be trusted");
    let manifest: Manifest = serde_json::from_slice(bytes).context("it is not a manifest")?;
    manifest.check()?;
    Ok(manifest)
}

/// The bounds of what a manifest says.
pub fn check(manifest: &Manifest) -> Result<()> {
    manifest.check()
}

/// The bytes before the checksum, where a signature ends. Manifests of the first release have neither.
pub fn without_checksum(bytes: &[u8]) -> &[u8] {
    check_seal(bytes).ok().flatten().unwrap_or(bytes)
}

/// The bytes before the checksum; None without one; an error when it is wrong.
fn check_seal(bytes: &[u8]) -> Result<Option<&[u8]>> {
    let Some(rest) = bytes.strip_suffix(CHECKSUM_END.as_bytes()) else { return Ok(None) };
    let Some((rest, digest)) = rest.split_last_chunk::<CHECKSUM_HEX>() else { return Ok(None) };
    let Some(open) = rest.strip_suffix(CHECKSUM_KEY.as_bytes()) else { return Ok(None) };
    let found = hex::encode(Sha256::digest(open));
    anyhow::ensure!(
        digest == found.as_bytes(),
        "it differs from what was written: its checksum is {}, but that of its bytes is {found}",
        String::from_utf8_lossy(digest)
    );
    Ok(Some(open))
}

/// Above this many members, not each of them is recorded (members.rs).
const POINTS_MOST: usize = 16_384;

impl Bounded for Manifest {
    fn check(&self) -> Result<()> {
        let Self { server, dump, globals, tables, adopted, sealed, .. } = self;
        // An earlier release would take it for a set without tables.
        anyhow::ensure!(
            sealed.is_none() || self.format >= SEALED_FORMAT,
            "it has format {}, which knows no sealed part",
            self.format
        );
        adopted.iter().try_for_each(Bounded::check)?;
        // An earlier release would take it for a backup of its own.
        anyhow::ensure!(
            adopted.is_none() || self.format >= ADOPTED_FORMAT,
            "it has format {}, which knows no adopted sets",
            self.format
        );
        bounds::time("started_at", self.started_at)?;
        bounds::time("finished_at", self.finished_at)?;
        server.clock.map_or(Ok(()), |clock| bounds::time("server.clock", clock))?;
        bounds::catalog_name("server.database.name", &server.database.name)?;
        server.database.stamp().check().context("server.database")?;
        server.roles.iter().try_for_each(|role| bounds::catalog_name("a role", role))?;
        dump.check()?;
        // An earlier release would take it for a plain one.
        anyhow::ensure!(
            dump.encryption.is_none() || self.format >= 4,
            "it has format {}, which knows no encryption",
            self.format
        );
        if let Globals::Object { bytes, sha256, .. } = globals {
            bounds::count("globals.bytes", *bytes)?;
            bounds::sha256("globals.sha256", sha256)?;
        }
        bounds::count("large_objects", self.large_objects)?;
        let (mut rows, mut bytes) = (0_u64, 0_u64);
        for table in tables {
            bounds::catalog_name("a table's schema", &table.schema)?;
            bounds::catalog_name("a table's name", &table.name)?;
            let named = || bounds::shortened(&format!("{}.{}", table.schema, table.name));
            // A row has at least a newline; and no part of the dump belongs to two tables.
            let end = table.offset.checked_add(table.bytes).filter(|end| *end <= dump.uncompressed_bytes);
            (rows, bytes) = (rows.saturating_add(table.rows), bytes.saturating_add(table.bytes));
            anyhow::ensure!(
                end.is_some() && table.rows <= table.bytes && table.copies <= table.bytes && bytes <= dump.uncompressed_bytes,
                "table {} has {} rows in {} bytes from {}, and the dump has {} bytes",
                named(),
                table.rows,
                table.bytes,
                table.offset,
                dump.uncompressed_bytes
            );
        }
        bounds::count("the rows of all tables", rows)
    }
}

impl Bounded for DumpObject {
    fn check(&self) -> Result<()> {
        // No other object is beside a manifest under that name, and none of another folder.
        let object = match self.encryption {
            None => self.compression.dump_object(),
            Some(_) => self.compression.encrypted_dump_object(),
        };
        anyhow::ensure!(self.object == object, "dump.object is {} instead of {object}", bounds::shortened(&self.object));
        if let Some(encryption) = &self.encryption {
            encryption.check(self.bytes).context("dump")?;
            anyhow::ensure!(self.blocks.is_some(), "dump.blocks are missing, which every encrypted dump has");
        }
        bounds::count("dump.bytes", self.bytes)?;
        bounds::count("dump.uncompressed_bytes", self.uncompressed_bytes)?;
        bounds::sha256("dump.sha256", &self.sha256)?;
        bounds::seconds("dump.elapsed_seconds", self.elapsed_seconds)?;
        let MemberIndex { count, every, points, crc32, .. } = &self.members;
        let contents_bytes = self.contents_bytes();
        let within = |point: &[u64; 2]| point[0] <= contents_bytes && point[1] <= self.uncompressed_bytes;
        let grows = points.windows(2).all(|pair| pair[0][0] <= pair[1][0] && pair[0][1] <= pair[1][1]);
        let are_few = points.len() <= POINTS_MOST && points.len() as u64 <= *count && crc32.len() <= points.len();
        anyhow::ensure!(
            *every > 0 && *count <= contents_bytes && are_few && grows && points.iter().all(within),
            "dump.members do not match an object of {} bytes",
            self.bytes
        );
        Ok(())
    }
}

#[cfg(test)]
#[path = "manifest_bounds_tests.rs"]
mod bounds_tests;

#[cfg(test)]
pub mod tests {
    use serde_json::json;

    use super::*;

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
        let table = |name: &str, rows| TableData {
            schema: "public".into(),
            name: name.into(),
            rows,
            offset: 0,
            bytes: 10,
            copies: 1,
            rows_hash: None,
        };
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
                encryption: None,
                elapsed_seconds: 1.5,
            },
            globals: Globals::Absent { reason: "none".into() },
            tables: vec![table("a", 1), table("b", 2)],
            large_objects: 0,
            filters: Filters::default(),
            warnings: vec![],
            adopted: None,
            row_text: None,
            sealed: None,
            is_opened: false,
        }
    }

    /// As it is written: with hashes that are some.
    pub fn sound() -> Manifest {
        let mut manifest = manifest();
        manifest.dump.sha256 = "0".repeat(64);
        manifest
    }

    #[test]
    fn each_flipped_bit_of_a_manifest_is_seen() {
        let written = to_json(&sound()).unwrap();
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
        let mut first = serde_json::to_value(sound()).unwrap();
        first["format"] = 1.into();
        first.as_object_mut().unwrap().remove("by_hand");
        assert_eq!(from_json(first.to_string().as_bytes()).unwrap().format, 1);
    }
}
