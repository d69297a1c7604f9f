//! What `pgtend backups list` has read.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};

use crate::store::Store;
use crate::store::sign::Signature;
use crate::task::backup::copies::together::{Refused, Together};
use crate::task::backup::set::Set;
use crate::task::backup::set_name::SetName;

/// A listed set, by the copy of it that a restore would take.
pub struct Row {
    pub store: String,
    /// The others.
    pub copies: Vec<Row>,
    /// Copies in stores that are not listed, each with its store's name.
    pub elsewhere: Vec<(String, Set)>,
    pub set: Set,
    /// The fault of its signature, when it is listed anyway.
    pub signature: Option<Signature>,
    pub store_has_key: bool,
    /// The storage class of its dump, where that must be thawed before it can be read.
    pub archived: Option<String>,
    /// Where its dump is.
    pub location: String,
}

impl Row {
    /// What one of its copies was refused for, which holds for all.
    pub fn refused(&self, now: DateTime<Utc>) -> Option<Refused<'_>> {
        let copies = [self].into_iter().chain(&self.copies).map(|copy| (copy.store.as_str(), &copy.set));
        let elsewhere = self.elsewhere.iter().map(|(store, set)| (store.as_str(), set));
        Together::of_copies(copies.chain(elsewhere)).refused_for_its_data(&self.set, now)
    }
}

/// The sets that are listed, of all stores.
#[derive(Default)]
pub struct Listed {
    pub sets: Vec<Row>,
    /// Sets without a valid signature in stores that have a key, each with its store's name.
    pub not_ours: Vec<(String, SetName, Signature)>,
    /// The folders that could not be read, and why.
    pub unseen: Vec<(String, String)>,
    pub broken: Vec<(String, SetName, String)>,
    /// The stores that could not be read.
    pub failed: Vec<(String, anyhow::Error)>,
    /// The stores that were read.
    pub stores: Vec<(String, Store)>,
    /// The databases and jobs of all sets, whatever the filter.
    pub databases: BTreeSet<String>,
    pub jobs: BTreeSet<String>,
}
