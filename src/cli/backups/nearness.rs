//! Which copy of a set comes first, and what happens when it cannot be used.

use std::cmp::Reverse;

use anyhow::Result;
use tokio_util::sync::CancellationToken;

use super::found::Found;
use crate::base::fault::Kind;
use crate::base::progress::Progress;
use crate::base::shell;
use crate::base::terminal::say;
use crate::cli::global::Global;
use crate::cli::signals::or_cancelled;
use crate::pg::failure;
use crate::task::backup::copies::several;
use crate::task::backup::read_back::Differs;
use crate::task::backup::set::Set;
use crate::task::backup::verdict::Bytes;
use crate::task::backup::{Backup, locked, verify};

/// The stores of each job, the nearest first, as far as the jobs can be read: on a new host there may be none.
pub(super) struct Nearness(Vec<(String, Vec<String>)>);

impl Nearness {
    pub(super) fn of(global: &Global) -> Self {
        let Ok((_, folder)) = global.read() else { return Self(Vec::new()) };
        let stores_of = |backup: &Backup| backup.stores().map(|kept| kept.store.clone()).collect();
        let jobs = folder.jobs.iter().filter_map(|job| Some((job.name.clone(), stores_of(job.task.as_a::<Backup>()?))));
        Self(jobs.collect())
    }

    /// Sorts by use: an intact copy before one that was never read, that before a damaged one; of equals, the nearest.
    pub(super) fn rank(&self, set: &Set, store: &str) -> (u8, usize) {
        let by_bytes = match set.verification.verdict() {
            Bytes::Intact => 0,
            Bytes::Unknown => 1,
            Bytes::Damaged => 2,
        };
        (by_bytes, self.place(&set.name.job, store))
    }

    pub(super) fn place(&self, job: &str, store: &str) -> usize {
        self.stores(job).iter().position(|name| name == store).unwrap_or(usize::MAX)
    }

    /// Returns whether sets of the job in `store` have copies in another store that is not among those.
    pub(super) fn has_copies(&self, job: &str, store: &str, unread: &[&str]) -> bool {
        let stores = self.stores(job);
        stores.iter().any(|name| name == store) && stores.iter().any(|name| !unread.contains(&name.as_str()))
    }

    /// Returns whether the job is known, and writes nothing to `store`.
    pub(super) fn is_of_others(&self, job: &str, store: &str) -> bool {
        let stores = self.stores(job);
        !stores.is_empty() && !stores.iter().any(|name| name == store)
    }

    /// The stores of each job.
    pub(super) fn of_each_job(&self) -> impl Iterator<Item = &[String]> {
        self.0.iter().map(|(_, stores)| &stores[..])
    }

    pub(super) fn stores(&self, job: &str) -> &[String] {
        self.0.iter().find(|(name, _)| name == job).map(|(_, stores)| &stores[..]).unwrap_or_default()
    }
}

/// Leaves out copies that this host cannot open, if it can open another.
pub(super) async fn that_open(copies: Vec<Found>) -> Result<Vec<Found>> {
    let (mut open, mut refused) = (Vec::new(), Vec::new());
    for found in copies {
        let opens = match found.set.manifest.names_are_sealed() {
            true => Err(locked::refusal(&found.store, &found.set, "its manifest is sealed")),
            false => locked::ensure_opens(&found.store, &found.set).await,
        };
        match opens {
            Ok(()) => open.push(found),
            Err(error) => refused.push((found, error)),
        }
    }
    if open.is_empty() {
        let first = refused.into_iter().next().map(|(_, error)| error);
        return Err(first.unwrap_or_else(|| anyhow::anyhow!("there is no copy")));
    }
    for (found, error) in refused {
        tracing::warn!("the copy in {} cannot be used here: {}", found.store_name, failure::in_a_line(&error));
    }
    Ok(open)
}

/// What was done with the first copy that could be used.
pub(super) struct Used<'f, T> {
    pub(super) done: T,
    /// The nearer ones that could not be used, and may be damaged.
    pub(super) passed_over: Vec<&'f Found>,
}

/// Uses the first copy; where that is damaged, or its store cannot be read, the next one, with a warning.
pub(super) async fn on_the_first_good<'f, T>(
    copies: &'f [Found],
    mut attempt: impl AsyncFnMut(&Found) -> Result<T>,
) -> Result<Used<'f, T>> {
    let mut passed_over = Vec::new();
    let Some((last, before)) = copies.split_last() else { anyhow::bail!("there is no copy") };
    if let Some(first) = before.first() {
        say(&format!("pgtend: {} copies of {}; taking that in {}", copies.len(), first.set.name, first.store_name));
    }
    for (found, next) in before.iter().zip(&copies[1..]) {
        match attempt(found).await {
            Err(error) if is_of_the_copy(found, &error).await => {
                tracing::warn!(
                    "the copy in {} cannot be used, and that in {} is taken in its place: {}",
                    found.store_name,
                    next.store_name,
                    failure::in_a_line(&error)
                );
                passed_over.extend(may_be_damaged(found, &error).await.then_some(found));
            }
            ended => return Ok(Used { done: ended?, passed_over }),
        }
    }
    Ok(Used { done: attempt(last).await?, passed_over })
}

/// Reads copies that could not be used once more, and records of each whether it is damaged, as `backups verify` does: one read that differs is no proof.
/// What the command was for is done, so all that comes of it is warnings.
pub(super) async fn judge(passed_over: &[&Found], progress: &Progress, cancel: &CancellationToken) {
    for Found { store_name, store, set } in passed_over {
        say(&format!("pgtend: reading the copy in {store_name} again, to record whether it is damaged; this can be interrupted"));
        let (name, mut set) = (shell::word(&set.name.to_string()), set.clone());
        match or_cancelled(cancel, verify::by_checksum(store, &mut set, progress)).await {
            Ok(_) => tracing::warn!(
                "the copy in {store_name} is as its manifest says now: check its store, and this host's network and memory"
            ),
            Err(error) if failure::kind_of(&error) == Some(Kind::Cancelled) => {
                tracing::warn!("the copy in {store_name} was not read again: pgtend backups verify {name} --store {store_name}");
                return;
            }
            Err(error) => tracing::warn!(
                "the copy in {store_name}: {}. If it is damaged, this mends it: pgtend backups copy {name} --to {}",
                failure::in_a_line(&error),
                shell::word(store_name)
            ),
        }
    }
}

/// Returns whether another copy may do what failed with this one: its bytes differ from the manifest, or they cannot be read.
pub(super) async fn is_of_the_copy(found: &Found, error: &anyhow::Error) -> bool {
    several::is_of_the_copy(&found.store, &found.set, error).await
}

/// Returns whether it was the bytes of the copy that failed, and not a store that does not answer.
async fn may_be_damaged(found: &Found, error: &anyhow::Error) -> bool {
    let key = found.set.name.key(&found.set.manifest.dump.object);
    error.chain().any(|cause| cause.is::<Differs>()) || found.store.stat(&key).await.is_ok()
}

/// Sorts copies by use.
pub(super) fn sort(copies: &mut [Found], nearness: &Nearness) {
    copies.sort_by_key(|found| (Reverse(found.set.name.taken_at), nearness.rank(&found.set, &found.store_name)));
}
