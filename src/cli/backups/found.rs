//! A set that a command is about.

use crate::store::Store;
use crate::task::backup::set::Set;

/// A set and the store that has it.
#[derive(Clone)]
pub(super) struct Found {
    pub(super) store_name: String,
    pub(super) store: Store,
    pub(super) set: Set,
}
