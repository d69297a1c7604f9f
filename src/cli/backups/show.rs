//! `pgtend backups show`: what is in a set, by its manifest.

use std::collections::BTreeMap;
use std::process::ExitCode;

use anyhow::Result;
use chrono::Utc;

use super::find::{Filter, Found, Which, find_copies};
use super::other_copies::OtherCopies;
use crate::base::{terminal, units};
use crate::cli::global::Global;
use crate::cli::output::{self, print, print_json};
use crate::cli::outputs::common::UnreadStore;
use crate::cli::outputs::sets::{Show, ShownCopy, Table};
use crate::members::decrypt::recipients_in_words;
use crate::store::archived::Archived;
use crate::task::backup::copies::together::{Refused, Together};
use crate::task::backup::how_proved::HowProved;
use crate::task::backup::latest::Choice;
use crate::task::backup::manifest::{Globals, Manifest};
use crate::task::backup::part;
use crate::task::backup::scan::TableData;
use crate::task::backup::set::Set;
use crate::task::backup::verdict::Verification;

pub async fn run(global: &Global, wanted: &str, filter: &Filter, which: &Which) -> Result<ExitCode> {
    let config = global.load_config()?;
    // It restores nothing, so an older set does no harm.
    let copies = find_copies(global, &config, wanted, filter, &Choice { older_ok: true, ..which.choice() }).await?;
    let Some(found) = copies.first() else { anyhow::bail!("there is no copy") };
    let tables = tables(&found.set.manifest);
    let mut archived = Vec::new();
    for copy in &copies {
        archived.extend(archived_in(copy).await?.map(|said| (copy.store_name.clone(), said)));
    }
    let (others, now) = (OtherCopies::of(global, &config, found).await?, Utc::now());
    // Those in stores that --store leaves out count here.
    let all = [found].into_iter().chain(&others.found).map(|copy| (copy.store_name.as_str(), &copy.set));
    let refused = Together::of_copies(all).refused_for_its_data(&found.set, now);
    let doubt = Doubt { refused, unread: &others.unread };
    match global.json {
        true => print_json(&as_json(found, &copies, &tables, &archived, &doubt))?,
        false => print(&in_words(found, &copies, &tables, &archived, &doubt))?,
    }
    Ok(ExitCode::SUCCESS)
}

/// What speaks against the set, of all its copies.
struct Doubt<'a> {
    refused: Option<Refused<'a>>,
    /// The stores that may have a copy, and could not be read, each with the reason.
    unread: &'a [(String, String)],
}

impl Doubt<'_> {
    fn in_words(&self, found: &Found) -> Vec<(&'static str, String)> {
        let refused = self.refused.map(|refused| {
            let (on, copy) = (refused.check.checked_at.format("%Y-%m-%d"), refused.as_the_copy(&found.store_name));
            ("refused", format!("for its data on {on}{copy}: {}", refused.words_beside(&found.set)))
        });
        let unread = self.unread.iter();
        let unread =
            unread.map(|(store, why)| ("not known", format!("whether a copy in {store} was refused for its data: {why}")));
        refused.into_iter().chain(unread).collect()
    }
}

/// The tables by name.
fn tables(manifest: &Manifest) -> Vec<Table> {
    let mut blocks: BTreeMap<(&str, &str), Vec<&TableData>> = BTreeMap::new();
    for table in &manifest.tables {
        blocks.entry((&table.schema, &table.name)).or_default().push(table);
    }
    let of = |((schema, name), blocks): ((&str, &str), Vec<&TableData>)| {
        let mut table = Table { schema: schema.to_owned(), name: name.to_owned(), ..Table::default() };
        for block in blocks {
            let extent = part::extent(&manifest.dump, part::range(block));
            table.rows += block.rows;
            table.bytes += block.bytes;
            table.members += part::count(&manifest.dump, &extent);
            table.member_bytes += extent.members.end - extent.members.start;
        }
        table
    };
    blocks.into_iter().map(of).collect()
}

/// In which storage class the dump is that must be thawed before it can be read, and how far that is; nothing of others.
async fn archived_in(copy: &Found) -> Result<Option<String>> {
    let name = &copy.set.name;
    let dump = name.key(&copy.set.manifest.dump.object);
    let archived = copy.store.archived_exactly(&name.key("")).await?;
    Ok(archived.iter().find(|archived| archived.key == dump).map(Archived::in_words))
}

fn as_json<'a>(
    found: &'a Found,
    copies: &'a [Found],
    tables: &'a [Table],
    archived: &'a [(String, String)],
    doubt: &Doubt<'a>,
) -> Show<'a> {
    let Set { name, manifest, verification, .. } = &found.set;
    let copy = |copy: &'a Found| ShownCopy {
        store: &copy.store_name,
        location: copy.store.location(&copy.set.name.key(&copy.set.manifest.dump.object)),
        archived: archived.iter().find(|(store, _)| *store == copy.store_name).map(|(_, said)| said.as_str()),
        verification: &copy.set.verification,
        bytes: copy.set.verification.verdict(),
    };
    let is_open = !manifest.names_are_sealed();
    Show {
        set: name.to_string(),
        copies: copies.iter().map(copy).collect(),
        store: &found.store_name,
        location: found.store.location(&name.key(&manifest.dump.object)),
        format: manifest.format,
        started_at: manifest.started_at,
        finished_at: manifest.finished_at,
        server_version: &manifest.server.version,
        pg_dump_version: &manifest.pg_dump_version,
        database: &manifest.server.database.name,
        identity: found.set.identity().map(|identity| identity.to_string()),
        oid: manifest.server.database.oid,
        schema_oid: manifest.server.database.schema_oid,
        encoding: &manifest.server.database.encoding,
        dump_bytes: manifest.dump.bytes,
        uncompressed_bytes: manifest.dump.uncompressed_bytes,
        members: manifest.dump.members.count,
        encryption: manifest.dump.encryption.as_ref(),
        sealed: !is_open,
        rows: is_open.then(|| manifest.rows()),
        tables: is_open.then_some(tables),
        large_objects: manifest.large_objects,
        extensions: &manifest.server.extensions,
        globals: &manifest.globals,
        filters: &manifest.filters,
        verification,
        bytes: verification.verdict(),
        refused_for_its_data: doubt.refused.map(|refused| refused.beside(&found.set)),
        unread_stores: doubt.unread.iter().map(|(store, reason)| UnreadStore { store, reason: reason.into() }).collect(),
        adopted: manifest.adopted.as_ref(),
        warnings: &manifest.warnings,
    }
}

fn in_words(found: &Found, copies: &[Found], tables: &[Table], archived: &[(String, String)], doubt: &Doubt<'_>) -> String {
    let (set, manifest) = (&found.set, &found.set.manifest);
    let mut lines = vec![
        ("set", format!("{} in {}", set.name, found.store_name)),
        ("of", format!("database {}, PostgreSQL {}", manifest.server.database.name, manifest.server.version)),
        ("identity", identity_in_words(&found.set)),
        (
            "dump",
            format!(
                "{}, {} uncompressed, {}",
                units::bytes(manifest.dump.bytes),
                units::bytes(manifest.dump.uncompressed_bytes),
                units::plural(manifest.dump.members.count, "member")
            ),
        ),
        ("encryption", encryption_in_words(manifest)),
        ("bytes", format!("{}; {}", set.verification.verdict().name(), set.verification.in_words())),
        ("rows of copies", rows_in_words(&set.verification)),
        ("globals", set.listed.globals_problem.clone().unwrap_or_else(|| globals_in_words(&manifest.globals))),
        ("large objects", units::count(manifest.large_objects)),
    ];
    if let Some(adopted) = &manifest.adopted {
        lines
            .insert(1, ("adopted from", format!("{}, {}, {}", adopted.name, adopted.form.in_words(), adopted.sha256_in_words())));
    }
    let also = copies.iter().filter(|copy| copy.store_name != found.store_name);
    lines.extend(also.map(|copy| {
        let verification = &copy.set.verification;
        ("copy", format!("in {}: {}; {}", copy.store_name, verification.verdict().name(), verification.in_words()))
    }));
    lines.extend(doubt.in_words(found));
    lines.extend(archived.iter().map(|(store, said)| ("storage class", format!("in {store}: {said}"))));
    let extensions: Vec<String> =
        manifest.server.extensions.iter().map(|extension| format!("{} {}", extension.name, extension.version)).collect();
    if !extensions.is_empty() {
        lines.push(("extensions", extensions.join(", ")));
    }
    let filters = &manifest.filters;
    let filters = [
        ("only schemas", &filters.schemas),
        ("without tables", &filters.exclude_tables),
        ("without rows of", &filters.exclude_table_data),
    ];
    lines
        .extend(filters.iter().filter(|(_, patterns)| !patterns.is_empty()).map(|(what, patterns)| (*what, patterns.join(", "))));
    lines.extend(manifest.warnings.iter().map(|warning| ("warning", warning.clone())));
    let head: String = lines.iter().map(|(what, said)| format!("{what:<15} {}\n", terminal::in_one_line(said))).collect();
    if manifest.names_are_sealed() {
        return head + "\nits tables are sealed: a host with an `identity_file` for one of its recipients shows them\n";
    }
    if tables.is_empty() {
        return head + "\nno table data\n";
    }
    let row = |table: &Table| {
        vec![
            format!("{}.{}", table.schema, table.name),
            units::count(table.rows),
            units::bytes(table.bytes),
            units::count(table.members),
            units::bytes(table.member_bytes),
        ]
    };
    head + "\n" + &output::table(&["TABLE", "ROWS", "UNCOMPRESSED", "MEMBERS", "IN THE OBJECT"], tables.iter().map(row))
}

/// The identity in the form that `--from` takes, and the OID that tells the database from others that have had its name.
fn identity_in_words(set: &Set) -> String {
    let identity = set.identity().map_or_else(|| "its server is not recorded".to_owned(), |identity| identity.to_string());
    let oid = set.manifest.server.database.stamp().oid_in_words();
    identity + &oid.map(|oid| format!(", {oid}")).unwrap_or_default()
}

/// Says how the rows of the last restored copy were compared with the set.
fn rows_in_words(verification: &Verification) -> String {
    let restored = verification.restores.iter().rev().find(|check| check.refusal.is_none());
    match restored.map(|check| check.how.as_ref()) {
        None => "no server has restored it".to_owned(),
        Some(Some(how)) if how.is_sealed && how.has_hashed() => "counted, and hashed (of how many tables is sealed)".to_owned(),
        Some(Some(HowProved { tables, hashed: Some(hashed), is_sealed: false, .. })) => hashed.in_words(*tables),
        Some(_) => "counted".to_owned(),
    }
}

fn encryption_in_words(manifest: &Manifest) -> String {
    match &manifest.dump.encryption {
        None => "none".to_owned(),
        Some(encryption) => format!("age, to {}", recipients_in_words(&encryption.recipients)),
    }
}

fn globals_in_words(globals: &Globals) -> String {
    match globals {
        Globals::Object { bytes, role_passwords: true, .. } => format!("{}, with passwords of roles", units::bytes(*bytes)),
        Globals::Object { bytes, role_passwords: false, .. } => format!("{}, without passwords of roles", units::bytes(*bytes)),
        Globals::Absent { reason } => format!("none: {reason}"),
    }
}
