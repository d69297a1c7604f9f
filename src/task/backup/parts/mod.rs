//! Restores parts of a set into a database in use: tables with what they need (`plan`, `put`), or rows by condition (`merge`).

mod aliases;
mod aside;
mod beside;
mod closure;
pub mod commit;
pub mod definitions;
mod fates;
mod living;
pub mod merge;
pub mod names;
pub mod only_rows;
mod others;
pub mod plan;
pub mod planned;
pub mod put;
mod quiet;
mod rights;
mod sequences;
mod statements;
mod subject;
mod target;
mod types;
pub mod under_lock;
mod uses;

use anyhow::Result;

use super::read_back;
use super::set::Set;
use crate::base::progress::Phase;
use crate::store::Store;

/// Proves a set of the first release, which has no hashes of its parts: it is read once more as a whole. Other sets are proved part by part.
pub async fn prove(store: &Store, set: &Set, phase: &Phase) -> Result<()> {
    if set.manifest.dump.blocks.is_some() {
        return Ok(());
    }
    tracing::info!(
        "{} was made by an earlier release: it is read as a whole, once to prove it, and once for each part",
        set.name
    );
    let read = read_back::read_dump(store, set, phase, |_| Ok(())).await?;
    anyhow::ensure!(read.problems.is_empty(), "{} differs from its manifest: {}", set.name, read.problems.join("; "));
    Ok(())
}
