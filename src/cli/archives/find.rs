//! Finds the batches that a command names.

use anyhow::{Context as _, Result};

use crate::archive::{self, BatchName, Broken, Manifest, Pending, Replaced, SameTable};
use crate::base::units;
use crate::cli::filter::Filter;
use crate::config::Config;
use crate::store::sign::Signature;
use crate::store::{Store, key};

pub(super) struct Found {
    pub(super) store_name: String,
    pub(super) store: Store,
    pub(super) batch: (BatchName, Manifest),
    /// `None` when the batch is signed with the store's key, or the store has none.
    pub(super) signature: Option<Signature>,
    /// The batches, in their stores, that have the rows of this one.
    pub(super) replaced_by: Vec<(Store, (BatchName, Manifest))>,
    /// The batches that it replaces, for a restore.
    pub(super) replaces: Vec<(BatchName, Manifest)>,
}

impl Found {
    /// Returns whether this batch may replace the other one: it must not be of another table, and its store must not prove less, since anyone who
    /// can write to a store without a key could name any batch.
    fn may_take_the_place_of(&self, other: &Self) -> bool {
        let ((_, by), (name, of)) = (&self.batch, &other.batch);
        let proves_enough = self.signature.is_none() && (self.store.has_sign_key() || !other.store.has_sign_key());
        self.store_name != other.store_name
            && by.replaces.as_deref() == Some(&*name.to_string())
            && (&by.database, &by.job) == (&of.database, &of.job)
            && by.same_table(of) != SameTable::No
            && proves_enough
    }

    /// Returns whether a batch says that it has the rows of this one, and nothing shows that both are of one database.
    fn is_doubted(&self) -> bool {
        let is_known = |by: &(Store, (BatchName, Manifest))| by.1.1.same_table(&self.batch.1) == SameTable::Yes;
        !self.replaced_by.is_empty() && !self.replaced_by.iter().any(is_known)
    }
}

/// The archive of a job in a store.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) store_name: String,
    pub(super) store: Store,
    pub(super) database: String,
    pub(super) job: String,
}

/// The result of a search through the stores.
#[derive(Default)]
pub(super) struct Batches {
    pub(super) found: Vec<Found>,
    pub(super) not_ours: Vec<Found>,
    /// Each comes with the name of its store.
    pub(super) broken: Vec<(String, Broken)>,
    /// Batches whose rows are in a later batch, unless the rows of that one never left.
    pub(super) replaced: Vec<Found>,
    /// Each comes with its store, and the database and job of its folder.
    pub(super) pending: Vec<(Place, Pending)>,
}

impl Batches {
    /// Leaves out batches that one in another store replaces: a job that names another store than before archives its partitions there
    /// again. The listing of each store has left out what was replaced within it.
    fn pass_by_what_was_replaced_from_another_store(&mut self) {
        let replacing = |found: &Found| {
            let by = self.found.iter().filter(|by| by.may_take_the_place_of(found));
            by.map(|by| (by.store.clone(), by.batch.clone())).collect::<Vec<_>>()
        };
        let by: Vec<_> = self.found.iter().map(replacing).collect();
        for (mut found, by) in std::mem::take(&mut self.found).into_iter().zip(by) {
            found.replaced_by.extend(by);
            let is_listed = found.replaced_by.is_empty() || found.is_doubted();
            let list = if is_listed { &mut self.found } else { &mut self.replaced };
            list.push(found);
        }
    }

    /// Takes in what was replaced: the server to which batches go back says whether the ones that replace them are of its history.
    pub(super) fn take_in_what_was_replaced(&mut self) {
        let replaced = std::mem::take(&mut self.replaced);
        self.found.extend(replaced);
        let all: Vec<_> = self.found.iter().map(|found| (found.batch.clone(), found.replaced_by.clone())).collect();
        for found in &mut self.found {
            let by_it = all.iter().filter(|(_, by)| by.iter().any(|(_, by)| by.0 == found.batch.0));
            found.replaces = by_it.map(|(batch, _)| batch.clone()).collect();
        }
    }

    /// Counts the batches that exist, or may exist, in addition to those that were found. A folder that cannot be read may hold some when
    /// other batches of its series were found; it is unknown to which series other folders belong.
    pub(super) fn unreadable(&self) -> usize {
        let is_of_a_series = |key: &str| {
            let folder = format!("{key}/");
            key.split('/').count() > 2 || self.found.iter().any(|found| found.batch.0.to_string().starts_with(&folder))
        };
        self.broken.iter().filter(|(_, broken)| broken.may_have_rows && is_of_a_series(&broken.key)).count()
    }

    /// Logs what was found but is not listed.
    pub(super) fn log_what_is_not_listed(&self) {
        for Found { store_name, batch, signature, .. } in &self.not_ours {
            let why = signature.map(Signature::in_words).unwrap_or_default();
            tracing::warn!("skipped {} in {store_name}: {why}; --unsigned-ok includes it", batch.0);
        }
        for Found { batch, replaced_by, .. } in &self.replaced {
            let by = replaced_by.iter().map(|(_, (name, _))| name.to_string()).collect::<Vec<_>>().join(", ");
            tracing::info!("skipped {}: a later batch has its rows, as they were when they left the table: {by}", batch.0);
        }
        for Found { batch, replaced_by, .. } in self.found.iter().filter(|found| found.is_doubted()) {
            let by = replaced_by.iter().map(|(_, (name, _))| name.to_string()).collect::<Vec<_>>().join(", ");
            tracing::warn!(
                "{by} says that it has the rows of {}, and nothing shows that both are of one database: it may be of a copy of it",
                batch.0
            );
        }
        for (Place { store_name, .. }, pending) in self.pending.iter().filter(|(_, pending)| !pending.counts) {
            let rows = pending.rows.map_or("rows".to_owned(), |rows| units::plural(rows as usize, "row"));
            tracing::warn!(
                "{} in {store_name}: {rows} of a run that is under way or was killed, and may have left their table; the job's next run, or `pgtend \
                 archives restore`, asks the server",
                pending.key()
            );
        }
        for (store_name, Broken { key, reason, .. }) in &self.broken {
            tracing::warn!("skipped {key} in {store_name}: {reason}");
        }
    }
}

/// Finds the batches that the filter lets pass.
pub(super) async fn find(config: &Config, filter: &Filter, unsigned_ok: bool) -> Result<Batches> {
    let mut all = Batches::default();
    let list = async |store: &Store| match store.is_there() {
        true => archive::list(store, "").await.map(Some),
        false => Ok(None),
    };
    for (store_name, read) in filter.read_stores(config, list).await? {
        let (store, Some(listing)) = read.with_context(|| format!("store `{store_name}`"))? else { continue };
        let ours = listing.batches.into_iter().map(|batch| (batch, None));
        let not_ours = listing.not_ours.into_iter().map(|(name, manifest, signature)| ((name, manifest), Some(signature)));
        for (batch, signature) in ours.chain(not_ours) {
            if filter.has_database(&batch.1.database) && filter.has_job(&batch.1.job) {
                let found = Found {
                    store_name: store_name.clone(),
                    store: store.clone(),
                    batch,
                    signature,
                    replaced_by: Vec::new(),
                    replaces: Vec::new(),
                };
                let list = if signature.is_none() || unsigned_ok { &mut all.found } else { &mut all.not_ours };
                list.push(found);
            }
        }
        let is_meant = |manifest: &Manifest| filter.has_database(&manifest.database) && filter.has_job(&manifest.job);
        for Replaced { batch, by, is_doubted } in listing.replaced.into_iter().filter(|replaced| is_meant(&replaced.batch.1)) {
            let replaced_by: Vec<_> = by.into_iter().map(|by| (store.clone(), by)).collect();
            if is_doubted {
                let is_it = |found: &&mut Found| found.store_name == store_name && found.batch.0 == batch.0;
                all.found.iter_mut().filter(is_it).for_each(|found| found.replaced_by.clone_from(&replaced_by));
                continue;
            }
            let store_name = store_name.clone();
            all.replaced.push(Found {
                store_name,
                store: store.clone(),
                batch,
                signature: None,
                replaced_by,
                replaces: Vec::new(),
            });
        }
        for pending in listing.pending {
            let key = pending.key();
            let mut folders = key.split('/').map(key::decode);
            let (Some(Ok(database)), Some(Ok(job))) = (folders.next(), folders.next()) else { continue };
            if filter.has_database(&database) && filter.has_job(&job) {
                let place = Place { store_name: store_name.clone(), store: store.clone(), database, job };
                all.pending.push((place, pending));
            }
        }
        // Only the place of an unreadable batch is known.
        let broken = listing.broken.into_iter().filter(|broken| {
            let mut parts = broken.key.split('/').map(key::decode);
            let fits = |part: Option<Result<String>>, wanted: &Option<String>| match (part, wanted) {
                (Some(name), Some(wanted)) => name.is_ok_and(|name| name == *wanted),
                _ => true,
            };
            fits(parts.next(), &filter.database) && fits(parts.next(), &filter.job)
        });
        all.broken.extend(broken.map(|broken| (store_name.clone(), broken)));
    }
    all.pass_by_what_was_replaced_from_another_store();
    all.found.sort_by(|a, b| (&a.store_name, &a.batch.0).cmp(&(&b.store_name, &b.batch.0)));
    Ok(all)
}
