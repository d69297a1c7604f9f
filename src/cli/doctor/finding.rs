//! What `doctor` found.

/// Something that was looked at.
#[derive(Debug)]
pub struct Finding {
    pub what: String,
    pub state: State,
    pub said: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// In the way of a run.
    Failed,
    /// To be looked at.
    Warning,
    Fine,
}

impl State {
    pub fn name(self) -> &'static str {
        match self {
            Self::Failed => "FAILED",
            Self::Warning => "WARNING",
            Self::Fine => "ok",
        }
    }
}

impl Finding {
    pub fn new(state: State, what: impl Into<String>, said: impl Into<String>) -> Self {
        Self { what: what.into(), state, said: said.into() }
    }
}
