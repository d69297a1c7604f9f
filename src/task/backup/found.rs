//! Reads what is in the stores of a job.

use anyhow::{Context as _, Result};
use chrono::Utc;
use futures_util::future::join_all;

use super::copies::holds::{self, Elsewhere};
use super::copies::several::{ensure_apart, none_took_it, within};
use super::keys::{Backup, InStore};
use super::series::Series;
use super::set::{self, Listing};
use super::sweep::{self, Leftover};
use crate::members::decrypt::recipients_in_words;
use crate::pg::failure;
use crate::store::{Store, Unfinished, key};
use crate::work::RunContext;

/// What is in one of the stores.
pub struct Found {
    pub kept: InStore,
    pub store: Store,
    /// Where the sets of the series are.
    pub location: String,
    /// To whom a set is encrypted there, in words.
    pub encrypted_to: Option<String>,
    /// Names in its manifests are encrypted, too.
    pub seals: bool,
    /// It has a key, by which it signs.
    pub signs: bool,
    /// Its sets; the holds of their copies in other stores are among theirs.
    pub listing: Listing,
    pub held_elsewhere: Vec<Elsewhere>,
    pub series: Series,
    /// The reason why the accepted series could not be read.
    pub series_trouble: Option<String>,
    pub leftovers: Vec<Leftover>,
    pub uploads: Vec<Unfinished>,
    pub free_bytes: Option<u64>,
}

impl Found {
    async fn read(kept: &InStore, run: &RunContext<'_>) -> Result<Self> {
        let store = Store::named(run.config, &kept.store).await?;
        let folder = key::folder(run.database, run.job.name);
        let reading = async {
            let listing = set::list(&store, &folder).await?;
            let (series, series_trouble) = Series::read(&store, run.database, run.job.name).await?;
            let (leftovers, uploads) = sweep::read(&store, &folder, &listing).await?;
            anyhow::Ok(Self {
                kept: kept.clone(),
                store: store.clone(),
                location: store.location(&folder),
                encrypted_to: encrypted_to(&store),
                seals: store.age_keys().seals_manifests,
                signs: store.has_sign_key(),
                listing,
                held_elsewhere: Vec::new(),
                series,
                series_trouble,
                leftovers,
                uploads,
                free_bytes: store.free_bytes(),
            })
        };
        reading.await.with_context(|| format!("store `{}`", kept.store))
    }
}

/// Reads the stores of a job: the nearest that can be read, the others, and those that cannot be read. A store alone must be readable.
pub async fn in_stores(backup: &Backup, run: &RunContext<'_>) -> Result<(Found, Vec<Found>, Vec<(InStore, String)>)> {
    let are_several = !backup.copies.is_empty();
    let reading = backup.stores().map(|kept| async move { (kept, within(are_several, Found::read(kept, run)).await) });
    let (mut found, mut away, mut errors) = (Vec::new(), Vec::new(), Vec::new());
    for (kept, read) in join_all(reading).await {
        match read {
            Ok(read) => found.push(read),
            Err(error) => {
                away.push((kept.clone(), failure::in_a_line(&error)));
                errors.push(error);
            }
        }
    }
    let stores: Vec<_> = found.iter().map(|found: &Found| (&*found.kept.store, &found.store)).collect();
    ensure_apart(&stores, false).await?;
    share_holds(&mut found);
    let mut found = found.into_iter();
    let main = found.next().ok_or_else(|| none_took_it(errors))?;
    Ok((main, found.collect(), away))
}

/// What is held in one store is held in all.
fn share_holds(found: &mut [Found]) {
    let now = Utc::now();
    let of = |into: &Found| {
        let others = found.iter().filter(|other| other.kept.store != into.kept.store);
        let others: Vec<(&str, &Listing)> = others.map(|other| (other.kept.store.as_str(), &other.listing)).collect();
        holds::elsewhere(&into.listing, &others, now)
    };
    let held: Vec<Vec<Elsewhere>> = found.iter().map(of).collect();
    for (found, held) in found.iter_mut().zip(held) {
        holds::add(&mut found.listing, &held);
        found.held_elsewhere = held;
    }
}

fn encrypted_to(store: &Store) -> Option<String> {
    let recipients: Vec<String> = store.age_keys().recipients.iter().map(ToString::to_string).collect();
    (!recipients.is_empty()).then(|| recipients_in_words(&recipients))
}
