//! A set of the list, with its copies, and as JSON.

use chrono::{DateTime, Utc};
use serde_json::json;

use crate::store::Store;
use crate::store::sign::Signature;
use crate::task::backup::copies::together::{Refused, Together};
use crate::task::backup::set::Set;

/// A listed set, by the copy of it that a restore would take.
pub struct Row {
    pub store: String,
    /// The others.
    pub copies: Vec<Row>,
    /// Copies in stores that are not listed, each with its store's name.
    pub elsewhere: Vec<(String, Set)>,
    pub set: Set,
    /// The fault of its signature, when it is listed anyway.
    pub signature: Option<Signature>,
    /// The storage class of its dump, where that must be thawed before it can be read.
    pub archived: Option<String>,
    pub json: serde_json::Value,
}

impl Row {
    /// What one of its copies was refused for, which holds for all.
    pub fn refused(&self, now: DateTime<Utc>) -> Option<Refused<'_>> {
        let copies = [self].into_iter().chain(&self.copies).map(|copy| (copy.store.as_str(), &copy.set));
        let elsewhere = self.elsewhere.iter().map(|(store, set)| (store.as_str(), set));
        Together::of_copies(copies.chain(elsewhere)).refused_for_its_data(&self.set, now)
    }
}

/// The set with all its copies, itself the first of them.
pub fn json_of(mut row: Row, now: DateTime<Utc>) -> serde_json::Value {
    row.json["refused_for_its_data"] = row.refused(now).map(|refused| refused.as_json(&row.set)).into();
    let copies: Vec<_> = [&row].into_iter().chain(&row.copies).map(|copy| copy_of(&copy.json)).collect();
    row.json["copies"] = copies.into();
    row.json
}

/// What differs from copy to copy.
fn copy_of(set: &serde_json::Value) -> serde_json::Value {
    let keys = "store location dump_bytes sha256 encrypted verification bytes restored held signature archived in_the_clear";
    keys.split(' ').map(|key| (key.to_owned(), set[key].clone())).collect::<serde_json::Map<_, _>>().into()
}

/// The set, and what is true of this copy of it.
pub fn as_json(
    set: &Set,
    store_name: &str,
    store: &Store,
    signature: Option<Signature>,
    now: DateTime<Utc>,
) -> serde_json::Value {
    let manifest = &set.manifest;
    json!({
        "set": set.name.to_string(),
        "store": store_name,
        "database": set.name.database,
        "job": set.name.job,
        "taken_at": set.name.taken_at,
        "location": store.location(&set.name.key(&manifest.dump.object)),
        "dump_bytes": manifest.dump.bytes,
        "uncompressed_bytes": manifest.dump.uncompressed_bytes,
        "sha256": manifest.dump.sha256,
        "encrypted": set.is_encrypted(),
        "sealed": manifest.names_are_sealed(),
        "tables": (!manifest.names_are_sealed()).then(|| manifest.table_count()),
        "rows": (!manifest.names_are_sealed()).then(|| manifest.rows()),
        "server_version": manifest.server.version,
        "verification": set.verification,
        "bytes": set.verification.verdict(),
        "restored": set.verification.was_restored(),
        "identity": set.identity().map(|identity| identity.to_string()),
        "oid": manifest.server.database.oid,
        "filtered": !set.manifest.filters.are_none(),
        "by_hand": set.manifest.by_hand,
        "adopted": manifest.adopted,
        "held": set.held(now).collect::<Vec<_>>(),
        "globals_problem": set.listed.globals_problem,
        "in_the_clear": set.listed.in_the_clear,
        "from_the_future": set.is_from_the_future(now),
        "signature": signature.unwrap_or(if store.has_sign_key() { Signature::Valid } else { Signature::NotAsked }),
        "warnings": manifest.warnings,
    })
}
