//! Takes in a dump that pgtend did not make: its text becomes the dump of a set of ours, compressed anew, so that it is listed, verified and restored like
//! any other. Nobody has proved it until somebody does, and nobody knows who wrote it: what a manifest of a backup says of the source and of the snapshot,
//! the manifest of an adopted set says only as far as the dump itself does.

mod claims;
mod examined;
mod source;

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use chrono::{DateTime, Utc};
use tokio_util::sync::CancellationToken;

use self::claims::Claims;
use self::source::ReadAll;
pub use self::source::Source;
use super::adopted::{Adopted, JOB, UNKNOWN};
use super::copies::fan_out::{FanOut, Stored};
use super::facts::{DatabaseFacts, ServerFacts};
use super::guard::{self, Asked};
use super::manifest::{self, DumpObject, Filters, Globals, Manifest};
use super::markers::{self, RunMarker};
use super::set::{self, Set};
use super::set_name::SetName;
use super::stream::{self, Pieces, Shape, Streamed};
use super::sweep;
use super::verdict::Verification;
use crate::base::fault::{Fault, Kind};
use crate::base::process_identity::ProcessIdentity;
use crate::base::progress::Phase;
use crate::members::compress::Compression;
use crate::pg::failure;
use crate::store::{Store, key};

/// Where the dump goes, and with which tools.
pub struct Destination<'a> {
    pub store: &'a Store,
    /// The database that it is filed under, by its name in the configuration.
    pub database: &'a str,
    /// The folder of pg_restore, where the configuration names one.
    pub bin_dir: Option<PathBuf>,
}

/// Adopts the dump; returns its set, and the SHA-256 of the original. The set exists when this returns Ok, and nothing is left when it does not.
pub async fn adopt(source: Source, into: &Destination<'_>, phase: &Phase, cancel: &CancellationToken) -> Result<(Set, String)> {
    remove_leftovers(into).await;
    let started_at = Utc::now();
    let marker = RunMarker {
        process: ProcessIdentity::own(),
        nonce: uuid::Uuid::new_v4().to_string(),
        run: None,
        identity: None,
        started_at,
        completed_at: None,
    };
    let name = markers::claim(into.store, &SetName::new(into.database, JOB, started_at), &marker).await?;
    let made = make(source, into, &name, started_at, phase, cancel).await;
    if made.is_err() {
        set::clean_up(into.store, &name, &marker).await;
    }
    made
}

async fn make(
    source: Source,
    into: &Destination<'_>,
    name: &SetName,
    started_at: DateTime<Utc>,
    phase: &Phase,
    cancel: &CancellationToken,
) -> Result<(Set, String)> {
    let store = into.store;
    let object = match store.encrypts() {
        false => Compression::Gzip.dump_object(),
        true => Compression::Gzip.encrypted_dump_object(),
    };
    // Its own compression may be a better one.
    let mut upload = FanOut::to_one(store, &name.key(object), source.bytes().saturating_mul(2)).await?;
    let taken = cancel.run_until_cancelled(take_in(source, into, &mut upload, phase)).await;
    let taken = taken.unwrap_or_else(|| Err(Fault::new(Kind::Cancelled, "cancelled: nothing was adopted").into()));
    if taken.is_err() {
        upload.abort().await;
    }
    let (streamed, stored, read) = taken?;
    let sha256 = read.sha256.clone();
    let manifest = manifest_of(into, object, started_at, (streamed, stored), read, phase);
    set::write_manifest(store, name, &manifest).await?;
    Ok((
        Set {
            name: name.clone(),
            manifest,
            verification: Verification::default(),
            holds: Vec::new(),
            listed: set::AsListed::default(),
        },
        sha256,
    ))
}

async fn take_in(
    source: Source,
    into: &Destination<'_>,
    upload: &mut FanOut,
    phase: &Phase,
) -> Result<(Streamed, Stored, ReadAll)> {
    let origin = source.name().to_owned();
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(4);
    let compression = Compression::Gzip;
    // It is not known how the values in it were written.
    let shape = Shape { compression, level: compression.default_level(), threads, hashes_rows: false };
    let mut read = None;
    let streamed = stream::compress_into(upload, shape, phase, async |pieces: Pieces| {
        read = Some(source.read_into(pieces, into.bin_dir.as_deref()).await?);
        Ok(())
    });
    let streamed = streamed.await.with_context(|| format!("{origin} is not adopted"))?;
    let read = read.context("the dump was not read")?;
    anyhow::ensure!(
        streamed.contents.complete,
        "{origin} is not adopted: the last line of a dump, \"-- PostgreSQL database dump complete\", is missing. It was cut off, or pg_dump did not write it"
    );
    // This is the last step: an unfinished upload does not exist as an object.
    let stored = upload.finish_one().await?;
    Ok((streamed, stored, read))
}

fn manifest_of(
    into: &Destination<'_>,
    object: &str,
    started_at: DateTime<Utc>,
    (mut streamed, stored): (Streamed, Stored),
    ReadAll { name, bytes, sha256, form, claims }: ReadAll,
    phase: &Phase,
) -> Manifest {
    let sha256 = (!into.store.encrypts()).then_some(sha256);
    let adopted = Adopted { name, bytes, sha256, form, client_encoding: claims.client_encoding.clone() };
    let reason = "a dump of one database has none".to_owned();
    if stored.encryption.is_some() {
        // They are of the contents, about which the manifest shall tell no more than how long they are.
        streamed.members.crc32.clear();
    }
    let warning = format!(
        "adopted from {}: when it was dumped, from which server, by whom and whether it is the whole database is not known",
        adopted.name
    );
    Manifest {
        format: manifest::ADOPTED_FORMAT,
        pgtend_version: env!("CARGO_PKG_VERSION").to_owned(),
        job: JOB.to_owned(),
        database: into.database.to_owned(),
        by_hand: true,
        started_at,
        finished_at: Utc::now(),
        pg_dump_version: claims.pg_dump_version(),
        server: server_of(into.database, claims),
        dump: DumpObject {
            object: object.to_owned(),
            compression: Compression::Gzip,
            bytes: stored.bytes,
            sha256: stored.sha256,
            uncompressed_bytes: streamed.contents.bytes,
            members: streamed.members,
            blocks: Some(stored.blocks),
            encryption: stored.encryption,
            elapsed_seconds: phase.elapsed().as_secs_f64(),
        },
        globals: Globals::Absent { reason },
        tables: streamed.contents.tables,
        large_objects: streamed.contents.large_objects,
        filters: Filters::default(),
        warnings: vec![warning],
        adopted: Some(adopted),
        row_text: None,
        sealed: None,
        is_opened: false,
    }
}

/// What the dump itself says of its source. Empty texts are not known: a database that is made for it gets the properties of a new one.
fn server_of(database: &str, claims: Claims) -> ServerFacts {
    ServerFacts {
        version: claims.server_version.clone().unwrap_or_else(|| UNKNOWN.to_owned()),
        version_num: claims.version_num(),
        system_identifier: None,
        in_recovery: false,
        database: DatabaseFacts { name: database.to_owned(), ..DatabaseFacts::default() },
        extensions: claims.extensions,
        roles: claims.roles.into_iter().collect(),
        host: String::new(),
        clock: None,
        timeline: None,
        lsn: None,
        tablespaces: claims.tablespaces.into_iter().collect(),
        event_triggers: Vec::new(),
        subscriptions: Vec::new(),
        partitions: Vec::new(),
        unreadable: Vec::new(),
    }
}

/// Removes what a call that was killed has left. What cannot be removed is no reason not to adopt.
async fn remove_leftovers(into: &Destination<'_>) {
    let folder = key::folder(into.database, JOB);
    let removing = async {
        let listing = set::list(into.store, &folder).await?;
        if listing.incomplete.is_empty() {
            return anyhow::Ok(());
        }
        let (leftovers, uploads) = sweep::read(into.store, &folder, &listing).await?;
        for left in sweep::decide(leftovers, uploads, None, listing.not_after_now()).left.iter().filter(|left| left.for_ever) {
            tracing::warn!("{} is left as it is: {}", left.name, left.reason);
        }
        match guard::ask(into.store, into.database, JOB, false, None).await {
            Asked::Refused(why) => anyhow::bail!(why),
            Asked::Granted(mut guard) => {
                let swept = sweep::apply(into.store, &folder, None, &mut guard).await;
                guard.release().await;
                swept?.iter().for_each(|warning| tracing::warn!("{warning}"));
                Ok(())
            }
        }
    };
    if let Err(error) = removing.await {
        tracing::warn!("what an interrupted call has left in {folder} stays: {}", failure::in_a_line(&error));
    }
}
