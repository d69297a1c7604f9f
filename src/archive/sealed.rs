//! Sealed manifests of archived rows (`seal_manifest`): names of the table and its columns, and the reason, are encrypted for the recipients of the
//! store. What stays in the open is what a run needs on a host without a key: which batch it is, its transaction, the numbers (oid) of its table, how many rows
//! and bytes it has. Stock tools open it: `jq -r .sealed.contents FILE | base64 -d | age -d -i key`.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::manifest::{Manifest, SEALED_FORMAT};
use crate::base::age_keys::AgeKeys;
use crate::base::bounds::Bounded as _;
use crate::members::sealed::Sealed;
use crate::store::Store;
use crate::store::sign::Signature;

/// What is sealed of a manifest.
#[derive(Deserialize, Serialize)]
struct Names {
    of: Of,
    schema: String,
    table: String,
    columns: Vec<String>,
    reason: String,
    encoding: Option<String>,
    preamble: Option<String>,
    time_column: Option<String>,
}

/// The batch whose names they are: those of another one, put in their place, are refused.
#[derive(Deserialize, PartialEq, Serialize)]
struct Of {
    job: String,
    database: String,
    archived_at: DateTime<Utc>,
    transaction: Option<i64>,
}

impl Of {
    fn batch(manifest: &Manifest) -> Self {
        let Manifest { job, database, archived_at, transaction, .. } = manifest;
        Self { job: job.clone(), database: database.clone(), archived_at: *archived_at, transaction: *transaction }
    }
}

/// Returns the manifest as it is written to a store with these keys. Its format says whether it is sealed; what is sealed already stays so.
pub(super) fn as_written(manifest: &Manifest, keys: &AgeKeys) -> Result<Manifest> {
    if manifest.format < SEALED_FORMAT {
        return Ok(manifest.clone());
    }
    let sealed = match &manifest.sealed {
        Some(sealed) => sealed.clone(),
        None => {
            let names = Names {
                of: Of::batch(manifest),
                schema: manifest.schema.clone(),
                table: manifest.table.clone(),
                columns: manifest.columns.clone(),
                reason: manifest.reason.clone(),
                encoding: manifest.encoding.clone(),
                preamble: manifest.preamble.clone(),
                time_column: manifest.time_column.clone(),
            };
            Sealed::of(serde_json::to_vec(&names)?, &keys.recipients)?
        }
    };
    let mut outer = Manifest {
        schema: String::new(),
        table: String::new(),
        columns: Vec::new(),
        reason: String::new(),
        encoding: None,
        preamble: None,
        time_column: None,
        sealed: Some(sealed),
        is_opened: false,
        ..manifest.clone()
    };
    outer.came_from.iter_mut().for_each(|from| from.place.name.clear());
    Ok(outer)
}

/// Reads a manifest, and opens it if a key of this host does.
pub(super) async fn read(store: &Store, key: &str) -> Result<Option<Result<(Manifest, Signature)>>> {
    let read = store.get_json::<Manifest>(key).await?;
    Ok(read.map(|read| {
        let (manifest, signature) = read?;
        let manifest = opened(manifest, store.age_keys()).with_context(|| store.location(key))?;
        Ok((manifest, signature))
    }))
}

fn opened(outer: Manifest, keys: &Arc<AgeKeys>) -> Result<Manifest> {
    let Some(contents) = outer.sealed.as_ref().map(|sealed| sealed.open(keys)).transpose()?.flatten() else { return Ok(outer) };
    let names: Names = serde_json::from_slice(&contents).context("its sealed part is not one of a batch")?;
    anyhow::ensure!(names.of == Of::batch(&outer), "its sealed part is of another batch");
    let Names { of: _, schema, table, columns, reason, encoding, preamble, time_column } = names;
    let opened = Manifest { schema, table, columns, reason, encoding, preamble, time_column, is_opened: true, ..outer };
    opened.check().context("its sealed part")?;
    Ok(opened)
}
