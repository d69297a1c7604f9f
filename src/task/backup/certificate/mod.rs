//! The certificate of a set: what was proved of it, when, how and by which release, and what was not. It says what is recorded beside the set, and
//! nothing else: nobody reads or restores anything for it.

pub mod html;
mod proved;
pub mod signed;
pub mod text;

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value, json};

pub use self::proved::Elsewhere;
use self::proved::moment;
use super::keep::Keep;
use super::manifest::Filters;
use super::rules::{self, Rules};
use super::series::Series;
use super::set::{Listing, Set};
use crate::base::units;
use crate::members::decrypt::recipients_in_words;
use crate::store::Store;
use crate::store::sign::Signature;

/// The number of the document's form.
const FORMAT: u32 = 1;

/// The certificate. Its four lists say all that its sentences say; the fields beside them are for machines.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Certificate {
    /// The number of its form.
    pub certificate: u32,
    pub set: String,
    pub issued_at: DateTime<Utc>,
    /// The release that wrote the certificate.
    pub pgtend_version: String,
    /// What the set is, as label and value.
    pub is: Vec<(&'static str, String)>,
    pub proved: Vec<String>,
    pub not_proved: Vec<String>,
    pub kept: Vec<String>,
    /// The manifest's and the verdicts' own values.
    #[schemars(with = "Map<String, Value>")]
    pub facts: Value,
}

/// What is known of how long the set stays.
#[derive(Debug, Default)]
pub struct Stay {
    /// The reasons of its job's `keep` at this moment; None: no job here deletes it.
    pub reasons: Option<Vec<String>>,
    /// The reason why that is not known.
    pub unknown: Option<String>,
}

impl Stay {
    /// By the rules of the job that made it, among the sets that are listed. No server is asked: the set's own identity is that of the series.
    pub fn by_rules(set: &Set, listing: &Listing, series: &Series, keep: &Keep, zone: chrono_tz::Tz, has_schedule: bool) -> Self {
        let identity = series.identity_of(set);
        let (identity, now) = (identity.as_ref(), Utc::now());
        let rules = Rules { keep, zone, now, identity, series, own: None, has_schedule, needed: &[] };
        let name = set.name.to_string();
        let decided = rules::decide(listing, &rules, None).into_iter().find(|decision| decision.name == name);
        Self { reasons: decided.map(|decision| decision.reasons), unknown: None }
    }
}

impl Certificate {
    /// `store`: where this copy of the set is, with the name of the store.
    pub fn of(set: &Set, store: (&str, &Store), stay: &Stay, elsewhere: &Elsewhere<'_>, now: DateTime<Utc>) -> Self {
        let (store_name, store) = store;
        let signature = if store.has_sign_key() { Signature::Valid } else { Signature::NotAsked };
        let location = store.location(&set.name.key(&set.manifest.dump.object));
        Self {
            certificate: FORMAT,
            set: set.name.to_string(),
            issued_at: now,
            pgtend_version: env!("CARGO_PKG_VERSION").to_owned(),
            is: what_it_is(set, store_name, &location, signature),
            proved: proved::proved(set, now),
            not_proved: proved::not_proved(set, signature, elsewhere, now),
            kept: kept(set, stay, now),
            facts: facts(set, store_name, &location, signature, elsewhere, now),
        }
    }

    /// The parts with their headings, in the order in which people read them.
    fn lists(&self) -> [(&'static str, &[String]); 3] {
        [("What was proved", &self.proved), ("What was not proved", &self.not_proved), ("How long it is kept", &self.kept)]
    }
}

fn what_it_is(set: &Set, store_name: &str, location: &str, signature: Signature) -> Vec<(&'static str, String)> {
    let manifest = &set.manifest;
    let (server, dump) = (&manifest.server, &manifest.dump);
    let of = match &server.system_identifier {
        Some(identifier) => format!("database {} of PostgreSQL {}, system {identifier}", server.database.name, server.version),
        None => format!("database {} of PostgreSQL {}", server.database.name, server.version),
    };
    let encrypted = match &dump.encryption {
        Some(encryption) => format!("by age, to {}", recipients_in_words(&encryption.recipients)),
        None => "no".to_owned(),
    };
    let mut lines = vec![("Set", set.name.to_string()), ("Where", format!("{location} (store {store_name})"))];
    match &manifest.adopted {
        Some(adopted) => lines.extend([
            ("Of", format!("filed under database {} by the person who adopted it", set.name.database)),
            ("Adopted", format!("{}, from {} ({})", moment(manifest.started_at), adopted.name, adopted.form.in_words())),
            ("Original", format!("{}, {}", units::bytes(adopted.bytes), adopted.sha256_in_words())),
            ("It claims", format!("to be by {} of PostgreSQL {}", manifest.pg_dump_version, server.version)),
            ("Taken in by", format!("pgtend {}", manifest.pgtend_version)),
        ]),
        None => lines.extend([
            ("Of", of),
            ("Began", format!("{}, right before the dump's snapshot", moment(manifest.started_at))),
            ("Complete", moment(manifest.finished_at)),
            ("Made by", format!("pgtend {}, {}", manifest.pgtend_version, manifest.pg_dump_version)),
        ]),
    }
    let held = manifest.holds_in_words();
    lines.extend([
        ("Holds", if set.is_adopted() { held } else { format!("{held}, {}", whole_or_part(&manifest.filters)) }),
        ("Dump", format!("{} ({} uncompressed)", units::bytes(dump.bytes), units::bytes(dump.uncompressed_bytes))),
        ("SHA-256", dump.sha256.clone()),
        ("Encrypted", encrypted),
        ("Signed", if signature == Signature::Valid { "with the store's key" } else { "no: the store has no key" }.to_owned()),
    ]);
    lines
}

fn whole_or_part(filters: &Filters) -> String {
    let parts = [
        ("only schemas", &filters.schemas),
        ("without tables", &filters.exclude_tables),
        ("without rows of", &filters.exclude_table_data),
    ];
    let parts: Vec<String> =
        parts.iter().filter(|(_, names)| !names.is_empty()).map(|(what, names)| format!("{what} {}", names.join(", "))).collect();
    if parts.is_empty() { "the whole database".to_owned() } else { format!("a part of the database: {}", parts.join("; ")) }
}

fn kept(set: &Set, stay: &Stay, now: DateTime<Utc>) -> Vec<String> {
    let mut said: Vec<String> = set
        .held(now)
        .map(|hold| match hold.until == DateTime::<Utc>::MAX_UTC {
            true => format!("It is held: {}.", hold.reason),
            false => format!("It is held until {}: {}. No job deletes it before.", moment(hold.until), hold.reason),
        })
        .collect();
    said.push(match (&stay.unknown, &stay.reasons) {
        (Some(why), _) => format!("When it goes is not known: {why}."),
        (None, None) => "No job of this configuration deletes it.".to_owned(),
        (None, Some(reasons)) => format!(
            "Its job's `keep` says at this moment: {}. The day when it goes depends on the sets that are made until then, and is not known.",
            reasons.join(", ")
        ),
    });
    said
}

fn facts(
    set: &Set,
    store_name: &str,
    location: &str,
    signature: Signature,
    elsewhere: &Elsewhere<'_>,
    now: DateTime<Utc>,
) -> Value {
    let manifest = &set.manifest;
    let refused = elsewhere.refused.map(|refused| refused.beside(set));
    let unread: Vec<_> = elsewhere.unread.iter().map(|(store, why)| json!({ "store": store, "reason": why })).collect();
    json!({
        "store": store_name,
        "location": location,
        "database": set.name.database,
        "job": set.name.job,
        "identity": set.identity().map(|identity| identity.to_string()),
        "server_version": manifest.server.version,
        "pg_dump_version": manifest.pg_dump_version,
        "made_by_pgtend": manifest.pgtend_version,
        "began_at": manifest.started_at,
        "finished_at": manifest.finished_at,
        "sealed": manifest.names_are_sealed(),
        "tables": (!manifest.names_are_sealed()).then(|| manifest.table_count()),
        "rows": (!manifest.names_are_sealed()).then(|| manifest.rows()),
        "large_objects": manifest.large_objects,
        "filters": manifest.filters,
        "dump_bytes": manifest.dump.bytes,
        "uncompressed_bytes": manifest.dump.uncompressed_bytes,
        "sha256": manifest.dump.sha256,
        "encryption": manifest.dump.encryption,
        "signature": signature,
        "verification": set.verification,
        "refused_for_its_data": refused,
        "unread_stores": unread,
        "adopted": manifest.adopted,
        "held": set.held(now).collect::<Vec<_>>(),
    })
}
