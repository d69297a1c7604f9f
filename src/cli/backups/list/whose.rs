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
    /// Those that more than one database or schema has been, as [`whose`] tells them.
    shared: BTreeSet<(String, Option<String>)>,
}

impl Whose {
    pub fn of<'s>(sets: impl IntoIterator<Item = &'s Set>) -> Self {
        let mut oids: BTreeMap<_, BTreeSet<String>> = BTreeMap::new();
        for set in sets {
            let oid = set.manifest.server.database.stamp().oid_in_words();
            // What is not recorded tells nothing.
            oids.entry(whose(set)).or_default().extend(oid);
        }
        let identities: BTreeSet<&String> = oids.keys().map(|(identity, _)| identity).collect();
        let are_several = identities.len() > 1 || oids.values().any(|oids| oids.len() > 1);
        let shared = oids.into_iter().filter(|(_, oids)| oids.len() > 1).map(|(whose, _)| whose).collect();
        Self { are_several, shared }
    }

    pub fn are_several(&self) -> bool {
        self.are_several
    }

    /// Names the set's server and database in the form that `--from` takes, and its OID where that alone tells it from another one.
    pub fn name(&self, set: &Set) -> String {
        let whose = whose(set);
        if !self.shared.contains(&whose) {
            return whose.0;
        }
        let oid = set.manifest.server.database.stamp().oid_in_words();
        format!("{}, {}", whose.0, oid.as_deref().unwrap_or("OID not recorded"))
    }
}

/// The set's server and database, and the place of the schema that alone it is of.
fn whose(set: &Set) -> (String, Option<String>) {
    let identity = set.identity().map_or_else(|| "not recorded".to_owned(), |identity| identity.to_string());
    (identity, set.manifest.server.database.schema_oid.map(|_| set.name.database.clone()))
}

/// Says of each series beside which sets of earlier databases of its name are, or of servers that are not known, and what a person can do about these. The database of the newest set is taken
/// for the one that is there now.
pub async fn advice(stores: &[(String, Store)], rows: &[Row]) -> Vec<String> {
    let mut folders: BTreeMap<(&str, &str, &str), Vec<Set>> = BTreeMap::new();
    for copy in rows.iter().flat_map(|row| [row].into_iter().chain(&row.copies)) {
        let name = &copy.set.name;
        folders.entry((&name.database, &name.job, &copy.store)).or_default().push(copy.set.clone());
    }
    let mut said = Vec::new();
    for ((database, job, store), sets) in folders {
        let Some(own) = sets.last().and_then(Set::identity).filter(|own| has_others(own, &sets)) else { continue };
        let Some((_, store)) = stores.iter().find(|(name, _)| name == store) else { continue };
        // What cannot be read accepts nothing.
        let series = Series::read(store, database, job).await.map(|(series, _)| series).unwrap_or_default();
        let earlier = warnings::of_earlier_ones(&series, Some(&own), &sets);
        let unknown = warnings::of_unknown_servers(&series, Some(&own), &sets);
        let advice = earlier.into_iter().chain(unknown);
        said.extend(advice.map(|advice| terminal::in_one_line(&format!("{database}/{job}: {advice}")).into_owned()));
    }
    // The stores of a job have the same sets.
    said.dedup();
    said
}

fn has_others(own: &Identity, sets: &[Set]) -> bool {
    sets.iter().any(|set| set.identity().is_none() || own.stamp.is_of_another(&set.manifest.server.database.stamp()))
}
