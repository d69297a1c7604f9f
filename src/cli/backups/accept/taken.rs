//! Which sets are taken into a series, and what these have that its own lack. Pure.

use std::collections::BTreeSet;

use anyhow::Result;
use chrono::{DateTime, Utc};

use super::super::find::Filter;
use crate::base::fault::{Fault, Kind};
use crate::base::{shell, units};
use crate::task::backup::facts::ServerFacts;
use crate::task::backup::identity::Identity;
use crate::task::backup::loss;
use crate::task::backup::of_store::newest_good;
use crate::task::backup::series::Series;
use crate::task::backup::set::{Listing, Set};
use crate::task::backup::set_name::SetName;

/// What a person has written.
pub struct Wanted<'a> {
    /// SYSTEM_IDENTIFIER/DATABASE, or the first part alone.
    pub identity: &'a str,
    pub filter: &'a Filter,
    /// `--of`
    pub of: Option<&'a SetName>,
    pub by_name: bool,
}

/// The sets of one `DATABASE/JOB` that are meant, the oldest first.
pub struct Folder<'s> {
    pub database: String,
    pub job: String,
    /// None where only sets are there whose server is not recorded: then the database's own may be meant.
    pub identity: Option<Identity>,
    sets: Vec<&'s Set>,
    /// Those whose server is not recorded.
    unknown: Vec<&'s Set>,
}

/// What is accepted of a folder.
pub struct Taken<'s> {
    /// Of the database that is there now: they may be ahead in the log.
    pub own: Vec<&'s Set>,
    /// Of one that had its name on its server before, of another server, or of one that is not recorded.
    pub theirs: Vec<&'s Set>,
    /// Of others that had that name one after another, or whose server is not recorded.
    pub left: Vec<Vec<&'s Set>>,
}

/// A set that is taken, and has something that the newest of the series lacks.
pub struct Loss<'s> {
    pub before: &'s Set,
    pub because_of: &'s Set,
    pub reason: String,
}

/// The folders with sets that may be meant. An error where a system identifier alone means several databases in one of them.
pub fn folders<'s>(listing: &'s Listing, wanted: &Wanted<'_>) -> Result<Vec<Folder<'s>>> {
    let text = wanted.identity;
    let mut folders: Vec<Folder<'s>> = Vec::new();
    for set in listing.sets.iter().filter(|set| wanted.filter.matches(&set.name)) {
        let identity = set.identity();
        if identity.as_ref().is_some_and(|identity| !identity.is_meant_by(text)) {
            continue;
        }
        let (database, job) = (&set.name.database, &set.name.job);
        let is_here = |folder: &Folder<'_>| (&folder.database, &folder.job) == (database, job);
        if !folders.iter().any(is_here) {
            let (database, job) = (database.clone(), job.clone());
            folders.push(Folder { database, job, identity: None, sets: Vec::new(), unknown: Vec::new() });
        }
        let Some(folder) = folders.iter_mut().find(|folder| is_here(folder)) else { continue };
        match identity {
            None => folder.unknown.push(set),
            Some(identity) => {
                let known = folder.identity.get_or_insert_with(|| identity.clone());
                if *known != identity {
                    let message = format!(
                        "{text} means several databases with sets in {database}/{job}, {known} and {identity}: name one of them as --identity"
                    );
                    return Err(Fault::new(Kind::Configuration, message).into());
                }
                folder.sets.push(set);
            }
        }
    }
    Ok(folders)
}

impl<'s> Folder<'s> {
    /// Chooses the sets that are accepted. Those of several databases that had one name are never taken at once: the newest would push the others out, of which
    /// one may be somebody else's. Those whose server is not recorded are only taken by name. Where the server may have been
    /// set back, that alone is what a person answers: nothing is said of databases that had the name before. None where none is meant.
    pub fn take(
        &self,
        series: &Series,
        (into, server): (&Identity, &ServerFacts),
        wanted: &Wanted<'_>,
        now: DateTime<Utc>,
    ) -> Option<Taken<'s>> {
        let is_another = |set: &Set| into.stamp.is_of_another(&set.manifest.server.database.stamp());
        let (mut own, mut others, mut unknown) = (Vec::new(), self.sets.clone(), Vec::new());
        if self.identity.as_ref().is_none_or(|identity| identity == into) {
            (others, own) = others.into_iter().partition(|set| is_another(set));
            unknown = self.unknown.iter().copied().filter(|set| !series.unites(Some(into), set)).collect();
        }
        if wanted.by_name {
            others.append(&mut unknown);
            others.sort_by_key(|set| set.name.taken_at);
            return Some(Taken { own, theirs: others, left: Vec::new() });
        }
        let is_known = !others.is_empty();
        let mut left = series.by_database(others);
        left.extend(series.by_database(unknown));
        let Some(named) = wanted.of else {
            // Where there are no others, these are meant.
            let answers_doubt = !own.is_empty() && series.ahead_of(server, self.sets.iter().copied(), now).is_some();
            let takes_first = !answers_doubt && is_known || own.is_empty() && left.len() == 1;
            let theirs = if takes_first { left.remove(0) } else { Vec::new() };
            return (!own.is_empty() || !theirs.is_empty()).then_some(Taken { own, theirs, left });
        };
        let index = left.iter().position(|sets| sets.iter().any(|set| set.name == *named))?;
        Some(Taken { own: Vec::new(), theirs: left.remove(index), left: Vec::new() })
    }
}

impl<'s> Taken<'s> {
    /// Finds the sets that may be the last with something: of each database whose sets are new to the series the newest, where the newest of the series lacks
    /// something of it. Where the series has no set yet, the next run compares its own.
    pub fn losses(
        &self,
        listing: &'s Listing,
        (database, job): (&str, &str),
        series: &Series,
        into: &Identity,
        now: DateTime<Utc>,
    ) -> Vec<Loss<'s>> {
        let of_folder = listing.sets.iter().filter(|set| (set.name.database.as_str(), set.name.job.as_str()) == (database, job));
        let of_series: Vec<&Set> = of_folder.filter(|set| series.unites(Some(into), set)).collect();
        let Some(after) = newest_good(&of_series, now) else { return Vec::new() };
        let are_new = self.theirs.iter().copied().filter(|set| !series.unites(Some(into), set));
        let before = series.by_database(are_new.collect()).into_iter().filter_map(|sets| newest_good(&sets, now));
        before.filter_map(|before| Some(Loss { before, because_of: after, reason: lost(before, after)? })).collect()
    }

    /// Says what was accepted, for a person. Sets of the database's own identity may be ahead of its log, or of another database that had its name.
    pub fn in_words(&self, identity: &Identity, into: &Identity) -> String {
        let count = |sets: &[&Set]| units::plural(sets.len(), "set");
        let own = (!self.own.is_empty())
            .then(|| format!("accepted {} of {identity}, which may be ahead of its present WAL position", count(&self.own)));
        let (unknown, theirs): (Vec<&Set>, Vec<&Set>) = self.theirs.iter().copied().partition(|set| set.identity().is_none());
        let unknown = (!unknown.is_empty())
            .then(|| format!("{} whose server is not recorded now belong to the series of {into}", count(&unknown)));
        let theirs = (!theirs.is_empty()).then(|| match identity == into {
            false => format!("{} of {identity} now belong to the series of {into}", count(&theirs)),
            true => format!(
                "{} of a {} that had the name of {into} before now belong to the series of the present one",
                count(&theirs),
                into.stamp.kind()
            ),
        });
        let left = self.left.iter().filter_map(|sets| left_in_words(sets, identity));
        own.into_iter().chain(theirs).chain(unknown).chain(left).collect::<Vec<_>>().join("; ")
    }
}

/// What a set lacks of another. What nobody here can read may lack anything.
fn lost(before: &Set, after: &Set) -> Option<String> {
    match before.manifest.names_are_sealed() || after.manifest.names_are_sealed() {
        true => Some("whether the dump lacks something cannot be seen without the key of both".to_owned()),
        // Without the ledger it is not known which tables pgtend's own jobs have dropped: then more is held than necessary.
        false => loss::lost(&before.manifest, &after.manifest, &BTreeSet::new()),
    }
}

fn left_in_words(sets: &[&Set], identity: &Identity) -> Option<String> {
    let newest = sets.last()?;
    let stamp = newest.manifest.server.database.stamp();
    let (kind, oid) = (stamp.kind(), stamp.oid_in_words().unwrap_or_else(|| "OID not recorded".to_owned()));
    let whose = match newest.identity() {
        Some(_) => format!("of another {kind} that had that name before ({oid})"),
        None => format!("whose server is not recorded ({oid})"),
    };
    Some(format!(
        "{} {whose}, the newest of them {}, stay as they are; where they are of the \
         same one: pgtend backups accept --identity {} --of {}",
        units::plural(sets.len(), "set"),
        newest.name,
        shell::word(&identity.to_string()),
        shell::word(&newest.name.to_string())
    ))
}
