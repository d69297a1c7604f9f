//! What `pgtend backups list` has read.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};

use crate::store::Store;
use crate::store::sign::Signature;
use crate::task::backup::copies::together::{Refused, Together};
use crate::task::backup::set::Set;
use crate::task::backup::set_name::SetName;

/// A listed set, by the copy of it that a restore would take.
pub(super) struct Row {
    pub(super) store: String,
    /// The others.
    pub(super) copies: Vec<Row>,
    /// Copies in stores that are not listed, each with its store's name.
    pub(super) elsewhere: Vec<(String, Set)>,
    pub(super) set: Set,
    /// The fault of its signature, when it is listed anyway.
    pub(super) signature: Option<Signature>,
    pub(super) store_has_key: bool,
    /// The storage class of its dump, where that must be thawed before it can be read.
    pub(super) archived: Option<String>,
    /// Where its dump is.
    pub(super) location: String,
}

impl Row {
    /// What one of its copies was refused for, which holds for all.
    pub(super) fn refused(&self, now: DateTime<Utc>) -> Option<Refused<'_>> {
        let copies = [self].into_iter().chain(&self.copies).map(|copy| (copy.store.as_str(), &copy.set));
        let elsewhere = self.elsewhere.iter().map(|(store, set)| (store.as_str(), set));
        Together::of_copies(copies.chain(elsewhere)).refused_for_its_data(&self.set, now)
    }
}

/// The sets that are listed, of all stores.
#[derive(Default)]
pub(super) struct Listed {
    pub(super) sets: Vec<Row>,
    /// Sets without a valid signature in stores that have a key, each with its store's name.
    pub(super) not_ours: Vec<(String, SetName, Signature)>,
    /// The folders that could not be read, and why.
    pub(super) unseen: Vec<(String, String)>,
    pub(super) broken: Vec<(String, SetName, String)>,
    /// The stores that could not be read.
    pub(super) failed: Vec<(String, anyhow::Error)>,
    /// The stores that were read.
    pub(super) stores: Vec<(String, Store)>,
    /// The databases and jobs of all sets, whatever the filter.
    pub(super) databases: BTreeSet<String>,
    pub(super) jobs: BTreeSet<String>,
}
