//! How far a list of statements is.

use std::sync::atomic::AtomicUsize;
use std::sync::{Mutex, PoisonError};

use super::kept::{Prepared, Tally};

/// How far a run is: still readable when the run itself was cancelled.
#[derive(Debug, Default)]
pub struct Progress {
    /// The number of the statement that was sent last; 0: none was. One more than there are is the COMMIT at the end.
    pub sent: AtomicUsize,
    prepared: Mutex<Vec<Prepared>>,
}

impl Progress {
    pub fn prepared(&self) -> Vec<Prepared> {
        self.prepared.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn now_prepared(&self, tally: &Tally) {
        *self.prepared.lock().unwrap_or_else(PoisonError::into_inner) = tally.prepared().to_vec();
    }
}

/// A transaction that statements of the list have begun.
#[derive(Clone)]
pub struct Open {
    /// The index of the statement.
    pub by: usize,
    /// None: its own BEGIN is all that was sent so far.
    pub began: Option<String>,
}
