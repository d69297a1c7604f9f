//! The position of a run in its statements.

use std::sync::atomic::AtomicUsize;
use std::sync::{Mutex, PoisonError};

use super::kept::Tally;

/// The position of a run in its list, which can still be read when the run itself was cancelled.
#[derive(Debug, Default)]
pub struct Progress {
    /// The number of the statement that was sent last; 0 before the first. The COMMIT at the end is one more than there are
    /// statements.
    pub sent: AtomicUsize,
    state: Mutex<State>,
}

/// The state of the transactions after the last answer of the server.
#[derive(Clone, Debug, Default)]
pub struct State {
    pub tally: Tally,
    pub open: Option<Open>,
}

impl Progress {
    pub fn state(&self) -> State {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn set(&self, tally: &Tally, open: Option<&Open>) {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = State { tally: tally.clone(), open: open.cloned() };
    }
}

/// A transaction that statements of the list have begun.
#[derive(Clone, Debug)]
pub struct Open {
    /// The index of the statement that began it.
    pub by: usize,
    /// The time at which it began; None while only its BEGIN was sent.
    pub began: Option<String>,
}
