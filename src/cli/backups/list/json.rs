//! `pgtend backups list --json`.

use chrono::{DateTime, Utc};

use super::row::{Listed, Row};
use crate::cli::outputs::common::UnreadStore;
use crate::cli::outputs::sets as printed;
use crate::pg::failure;
use crate::store::sign::Signature;
use crate::task::backup::set::Set;

pub fn of<'a>(listed: &'a Listed, not_known: &'a [(String, String)], now: DateTime<Utc>) -> printed::List<'a> {
    let broken = listed.broken.iter();
    let broken = broken.map(|(store, name, reason)| printed::Unrestorable { store, set: name.to_string(), reason });
    let not_ours = listed.not_ours.iter();
    let not_ours =
        not_ours.map(|(store, name, signature)| printed::NotOurs { store, set: name.to_string(), signature: *signature });
    let unseen = listed.unseen.iter().map(|(location, reason)| printed::NotLookedInto { location, reason });
    let failed = listed.failed.iter();
    let failed = failed.map(|(store, error)| UnreadStore { store, reason: failure::in_a_line(error).into() });
    let not_known = not_known.iter().map(|(store, reason)| UnreadStore { store, reason: reason.into() });
    printed::List {
        sets: listed.sets.iter().map(|row| set_as_json(row, now)).collect(),
        unrestorable: broken.collect(),
        not_ours: not_ours.collect(),
        not_looked_into: unseen.collect(),
        unread_stores: failed.chain(not_known).collect(),
    }
}

/// The set with all its copies, itself the first of them.
fn set_as_json(row: &Row, now: DateTime<Utc>) -> printed::Set<'_> {
    let Set { name, manifest, .. } = &row.set;
    let is_open = !manifest.names_are_sealed();
    printed::Set {
        set: name.to_string(),
        database: &name.database,
        job: &name.job,
        taken_at: name.taken_at,
        first: copy_as_json(row, now),
        uncompressed_bytes: manifest.dump.uncompressed_bytes,
        sealed: !is_open,
        tables: is_open.then(|| manifest.table_count()),
        rows: is_open.then(|| manifest.rows()),
        server_version: &manifest.server.version,
        identity: row.set.identity().map(|identity| identity.to_string()),
        oid: manifest.server.database.oid,
        schema_oid: manifest.server.database.schema_oid,
        filtered: !manifest.filters.are_none(),
        by_hand: manifest.by_hand,
        adopted: manifest.adopted.as_ref(),
        globals_problem: row.set.listed.globals_problem.as_deref(),
        refused_for_its_data: row.refused(now).map(|refused| refused.beside(&row.set)),
        from_the_future: row.set.is_from_the_future(now),
        warnings: &manifest.warnings,
        copies: [row].into_iter().chain(&row.copies).map(|copy| copy_as_json(copy, now)).collect(),
    }
}

/// What differs from copy to copy.
fn copy_as_json(row: &Row, now: DateTime<Utc>) -> printed::SetCopy<'_> {
    let Set { manifest, verification, .. } = &row.set;
    let asked = if row.store_has_key { Signature::Valid } else { Signature::NotAsked };
    printed::SetCopy {
        store: &row.store,
        location: &row.location,
        dump_bytes: manifest.dump.bytes,
        sha256: &manifest.dump.sha256,
        encrypted: row.set.is_encrypted(),
        verification,
        bytes: verification.verdict(),
        restored: verification.was_restored(),
        held: row.set.held(now).collect(),
        signature: row.signature.unwrap_or(asked),
        archived: row.archived.as_deref(),
        in_the_clear: &row.set.listed.in_the_clear,
    }
}
