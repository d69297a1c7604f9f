//! The list for people.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};

use super::row::Row;
use super::whose::Whose;
use crate::base::units;
use crate::cli::output;
use crate::task::backup::adopted::UNKNOWN;
use crate::task::backup::manifest::Manifest;
use crate::task::backup::verdict::Bytes;

/// The table of the sets.
pub fn table(sets: &[Row], whose: &Whose, now: DateTime<Utc>) -> String {
    let with_identity = whose.are_several();
    let rows = sets.iter().map(|listed| {
        let Row { store, copies, set, .. } = listed;
        let manifest = &set.manifest;
        let stores: Vec<&str> = [store].into_iter().chain(copies.iter().map(|copy| &copy.store)).map(String::as_str).collect();
        let mut row = vec![
            set.name.to_string(),
            stores.join(", "),
            if set.is_adopted() { UNKNOWN.to_owned() } else { units::age(set.name.taken_at, now) },
            units::bytes(manifest.dump.bytes),
            unless_sealed(manifest, units::count(manifest.table_count() as u64)),
            unless_sealed(manifest, units::count(manifest.rows())),
            set.verification.verdict().name().to_owned(),
            set.verification.restored_in_words(now),
        ];
        row.extend(with_identity.then(|| whose.name(set)));
        row.push(notes(listed, now));
        row
    });
    match with_identity {
        true => {
            output::table(&["SET", "STORE", "AGE", "SIZE", "TABLES", "ROWS", "BYTES", "RESTORED", "OF SERVER/DATABASE", ""], rows)
        }
        false => output::table(&["SET", "STORE", "AGE", "SIZE", "TABLES", "ROWS", "BYTES", "RESTORED", ""], rows),
    }
}

fn unless_sealed(manifest: &Manifest, number: String) -> String {
    if manifest.names_are_sealed() { "sealed".to_owned() } else { number }
}

/// Returns the age of the newest intact set of each series: a series does not make up for another, nor a set with filters for one of all of the database.
pub fn newest(sets: &[Row], whose: &Whose, now: DateTime<Utc>) -> String {
    // The time of the newest intact set, and whether restores of some were refused.
    type Newest = (Option<DateTime<Utc>>, bool);
    let mut series: BTreeMap<(String, String, bool), Newest> = BTreeMap::new();
    // Nobody knows how old an adopted one is.
    for row in sets.iter().filter(|row| !row.set.is_adopted()) {
        let (Row { set, signature, .. }, is_refused) = (row, row.refused(now).is_some());
        let is_partial = !set.manifest.filters.are_none();
        let (newest, some_are_refused) =
            series.entry((format!("{}/{}", set.name.database, set.name.job), whose.name(set), is_partial)).or_default();
        let counts = signature.is_none()
            && set.verification.verdict() == Bytes::Intact
            && set.listed.globals_problem.is_none()
            && !set.is_from_the_future(now)
            && !is_refused;
        *some_are_refused |= is_refused;
        *newest = (*newest).max(counts.then_some(set.name.taken_at));
    }
    let folders: BTreeSet<&String> = series.keys().map(|(folder, ..)| folder).collect();
    let of_each: BTreeSet<(&String, &String)> = series.keys().map(|(folder, identity, _)| (folder, identity)).collect();
    let lines = series.iter().map(|((folder, identity, is_partial), (newest, some_are_refused))| {
        let kind = if *is_partial { " partial" } else { "" };
        let of = match (of_each.len() == 1, folders.len() == of_each.len()) {
            (true, _) => String::new(),
            (false, true) => format!(" of {folder}"),
            (false, false) => format!(" of {folder} ({identity})"),
        };
        match newest {
            Some(at) => format!("The last intact{kind} set{of} is {} old.\n", units::age(*at, now)),
            None if *some_are_refused => format!("No intact{kind} set{of} is left whose data no restore refused.\n"),
            None if of.is_empty() => format!("No{kind} set has been read back: `pgtend backups verify latest`.\n"),
            None => format!("No{kind} set{of} has been read back.\n"),
        }
    });
    lines.collect()
}

/// Until when it is held; where not all of its copies are, in which store.
fn held_in_words(row: &Row, now: DateTime<Utc>) -> Vec<String> {
    let until = |row: &Row| Some(row.set.held(now).map(|hold| hold.until).max()?.format("%Y-%m-%d").to_string());
    let copies: Vec<(&str, Option<String>)> =
        [row].into_iter().chain(&row.copies).map(|copy| (copy.store.as_str(), until(copy))).collect();
    let Some((_, first)) = copies.first() else { return Vec::new() };
    if copies.iter().all(|(_, until)| until == first) {
        return first.iter().map(|until| format!("held until {until}")).collect();
    }
    copies.iter().filter_map(|(store, until)| Some(format!("held until {} in {store}", until.as_ref()?))).collect()
}

/// Returns a set's notes for the last column.
fn notes(row: &Row, now: DateTime<Utc>) -> String {
    let Row { set, copies, signature, archived, .. } = row;
    let mut notes: Vec<String> = signature.map(|signature| signature.in_short().to_owned()).into_iter().collect();
    let others = copies.iter().filter(|copy| copy.set.verification.verdict() != set.verification.verdict());
    notes.extend(others.map(|copy| format!("{} in {}", copy.set.verification.verdict().name(), copy.store)));
    notes.extend(archived.clone());
    notes.extend(copies.iter().filter_map(|copy| Some(format!("{} in {}", copy.archived.as_ref()?, copy.store))));
    if set.is_encrypted() {
        notes.push("encrypted".to_owned());
    }
    if set.verification.not_decoded().is_some() {
        notes.push("not decoded".to_owned());
    }
    if !set.manifest.filters.are_none() {
        notes.push("partial".to_owned());
    }
    if set.is_adopted() {
        notes.push("adopted".to_owned());
    } else if set.manifest.by_hand {
        notes.push("by hand".to_owned());
    }
    if set.listed.globals_problem.is_some() {
        notes.push("without its globals".to_owned());
    }
    let exposed = [row].into_iter().chain(copies).filter(|copy| !copy.set.listed.in_the_clear.is_empty());
    notes.extend(exposed.map(|copy| format!("in the clear in {}: {}", copy.store, copy.set.listed.in_the_clear.join(", "))));
    notes.extend(row.refused(now).map(|refused| {
        format!("refused for its data on {}{}", refused.check.checked_at.format("%Y-%m-%d"), refused.as_the_copy(&row.store))
    }));
    notes.extend(held_in_words(row, now));
    if set.is_from_the_future(now) {
        notes.push("dated in the future".to_owned());
    }
    notes.join(", ")
}
