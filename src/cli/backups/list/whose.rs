//! Of which databases the listed sets are: their servers and names, and their OIDs where several have had one name.

use std::collections::{BTreeMap, BTreeSet};

use super::row::Row;
use crate::base::terminal;
use crate::store::Store;
use crate::task::backup::identity::Identity;
use crate::task::backup::series::Series;
use crate::task::backup::set::Set;
use crate::task::backup::warnings;

pub struct Whose {
    are_several: bool,
    /// The identities, as texts, that more than one database has had.
    shared: BTreeSet<String>,
}

impl Whose {
    pub fn of<'s>(sets: impl IntoIterator<Item = &'s Set>) -> Self {
        let mut oids: BTreeMap<String, BTreeSet<i64>> = BTreeMap::new();
        for set in sets {
            oids.entry(text(set)).or_default().extend(set.manifest.server.database.oid);
        }
        let are_several = oids.len() > 1 || oids.values().any(|oids| oids.len() > 1);
        let shared = oids.into_iter().filter(|(_, oids)| oids.len() > 1).map(|(identity, _)| identity).collect();
        Self { are_several, shared }
    }

    pub fn are_several(&self) -> bool {
        self.are_several
    }

    /// Names the set's server and database in the form that `--from` takes, and its OID where that alone tells it from another one.
    pub fn name(&self, set: &Set) -> String {
        let identity = text(set);
        if !self.shared.contains(&identity) {
            return identity;
        }
        let oid = set.manifest.server.database.oid.map_or_else(|| "not recorded".to_owned(), |oid| oid.to_string());
        format!("{identity}, OID {oid}")
    }
}

fn text(set: &Set) -> String {
    set.identity().map_or_else(|| "not recorded".to_owned(), |identity| identity.to_string())
}

/// Says of each series beside which sets of earlier databases of its name are, and what a person can do about these. The database of the newest set is taken
/// for the one that is there now.
pub async fn advice(stores: &[(String, Store)], rows: &[Row]) -> Vec<String> {
    let mut folders: BTreeMap<(&str, &str, &str), Vec<Set>> = BTreeMap::new();
    for copy in rows.iter().flat_map(|row| [row].into_iter().chain(&row.copies)) {
        let name = &copy.set.name;
        folders.entry((&name.database, &name.job, &copy.store)).or_default().push(copy.set.clone());
    }
    let mut said = Vec::new();
    for ((database, job, store), sets) in folders {
        let Some(own) = sets.last().and_then(Set::identity).filter(|own| has_earlier(own, &sets)) else { continue };
        let Some((_, store)) = stores.iter().find(|(name, _)| name == store) else { continue };
        // What cannot be read accepts nothing.
        let series = Series::read(store, database, job).await.map(|(series, _)| series).unwrap_or_default();
        let earlier = warnings::of_earlier_ones(&series, Some(&own), &sets);
        said.extend(earlier.map(|earlier| terminal::in_one_line(&format!("{database}/{job}: {earlier}")).into_owned()));
    }
    // The stores of a job have the same sets.
    said.dedup();
    said
}

fn has_earlier(own: &Identity, sets: &[Set]) -> bool {
    sets.iter().any(|set| own.stamp.is_of_another(&set.manifest.server.database.stamp()))
}
