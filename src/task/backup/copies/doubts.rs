//! What speaks against the data of a set is of all its copies: a restore that was refused for them, and a manifest that was written before the set began. Each
//! copy gets it before any is deleted, as it would be forgotten with the one that has it.

use chrono::{DateTime, Utc};

use super::proof::record_doubt;
use super::several::within;
use super::together::Together;
use crate::pg::failure;
use crate::store::Store;
use crate::task::backup::needed::{Needed, Why};
use crate::task::backup::set::{Listing, Set};
use crate::task::backup::verdict::Verification;

/// Records it beside every copy of these stores that lacks it. Returns the sets whose copies elsewhere stay because one could not be told, and warnings.
pub async fn share(stores: &[(&str, &Store, &Listing)]) -> (Vec<Needed>, Vec<String>) {
    let now = Utc::now();
    let together = Together::of(stores.iter().map(|(name, _, listing)| (*name, *listing)));
    let (mut untold, mut warnings) = (Vec::new(), Vec::new());
    for (name, store, listing) in stores {
        // One that has failed once is not waited for again.
        let mut has_failed = false;
        for set in &listing.sets {
            let Some((doubt, copy_in)) = not_recorded(&together, set, now) else { continue };
            let recorded = match has_failed {
                true => Err(anyhow::anyhow!("it has just failed")),
                false => within(true, record_doubt(&doubt, &copy_in, store, &mut set.clone())).await,
            };
            match recorded {
                Ok(()) => tracing::info!("what speaks against {} is recorded beside its copy in {name}", set.name),
                Err(error) => {
                    has_failed = true;
                    let why = failure::in_a_line(&error);
                    warnings
                        .push(format!("what speaks against {} could not be recorded beside its copy in {name}: {why}", set.name));
                    untold.push(Needed { set: set.name.clone(), store: (*name).to_owned(), why: Why::Untold });
                }
            }
        }
    }
    (untold, warnings)
}

/// What stands beside other copies of the set, and not beside this one; and the store whose copy was refused.
fn not_recorded(together: &Together<'_>, set: &Set, now: DateTime<Utc>) -> Option<(Verification, String)> {
    let refused = together.refused_for_its_data(set, now).filter(|refused| !set.verification.knows(refused.check));
    let written_at = together.written_before_it_began(set).filter(|_| set.written_before_it_began().is_none());
    if refused.is_none() && written_at.is_none() {
        return None;
    }
    let restores = refused.iter().map(|refused| refused.check.clone()).collect();
    let copy_in = refused.map(|refused| refused.copy_in.to_owned()).unwrap_or_default();
    Some((Verification { restores, written_at, ..Verification::default() }, copy_in))
}
