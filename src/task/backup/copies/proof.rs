//! What was proved of a set in one store, recorded beside its copy in another.

use anyhow::Result;
use chrono::Utc;

use crate::store::Store;
use crate::task::backup::manifest::Manifest;
use crate::task::backup::set::{self, Set};
use crate::task::backup::verdict::{Bytes, Verification};

/// Records beside an intact copy what was proved of the same bytes in another store; no proof of other bytes, and none in a store with a key that one
/// without a key says. A refusal for the data is recorded in any case: it is of what is in them.
pub async fn record_proof(
    proved: &Verification,
    (from_name, from): (&str, &Store),
    to: &Store,
    manifest: &Manifest,
    copy: &mut Set,
) -> Result<()> {
    let now = Utc::now();
    let mut proved = proved.clone();
    let has_same_bytes = copy.manifest.dump.sha256 == manifest.dump.sha256;
    let is_vouched = from.has_sign_key() || !to.has_sign_key();
    let is_intact = copy.verification.verdict() == Bytes::Intact;
    if !has_same_bytes || !is_vouched || !is_intact {
        proved.restores.retain(|check| check.refusal.is_some());
    }
    let says_nothing = !proved.was_restored() && proved.refused_for_its_data(now).is_none() && proved.written_at.is_none();
    if says_nothing {
        return Ok(());
    }
    record_beside(proved, from_name, to, copy).await
}

/// Records beside a copy what speaks against the data of the set.
pub async fn record_doubt(doubt: &Verification, from_name: &str, to: &Store, copy: &mut Set) -> Result<()> {
    record_beside(doubt.clone(), from_name, to, copy).await
}

async fn record_beside(mut proved: Verification, from_name: &str, to: &Store, copy: &mut Set) -> Result<()> {
    // What the server said may show rows, which nobody reads beside an encrypted copy.
    if to.encrypts() || copy.is_encrypted() {
        for check in proved.restores.iter_mut().filter(|check| check.refusal.is_some()) {
            let state = check.sql_state.as_ref().map(|state| format!(" (SQLSTATE {state})")).unwrap_or_default();
            check.refusal = Some(format!("it was refused{state}; what the server said stands beside the copy in {from_name}"));
        }
    }
    let now = Utc::now();
    set::record(to, copy, |verification| verification.record_proof_of_copy(&proved, from_name, now)).await
}
