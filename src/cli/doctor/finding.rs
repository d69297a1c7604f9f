//! What `doctor` found.

use schemars::JsonSchema;
use serde::Serialize;

/// Something that was looked at.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Finding {
    pub what: String,
    pub state: State,
    pub said: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// In the way of a run.
    Failed,
    /// To be looked at.
    Warning,
    #[serde(rename = "ok")]
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
