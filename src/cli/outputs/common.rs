//! What several documents have, and what is printed where a command fails.

use std::borrow::Cow;

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::base::toml_file::Mistake;

/// An object that docs/reference/formats.md or docs/audit.md describes.
pub type Described = Map<String, Value>;

/// What a command prints that failed before it had printed anything else; mistakes in files are told one by one.
#[derive(Serialize, JsonSchema)]
pub struct Failure<'a> {
    pub error: Error<'a>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<Mistake<'a>>,
}

#[derive(Serialize, JsonSchema)]
pub struct Error<'a> {
    /// What failed, and why, on one line.
    pub message: &'a str,
    /// `usage`, `configuration`, `unreachable`, `permission`, `busy`, `not_now`, `unknown`, `timed_out`, `cancelled`, or `failed` for everything else.
    pub kind: &'static str,
    pub exit_code: u8,
    /// What to do, where the message does not say it.
    pub hint: Option<&'a str>,
}

/// A store that could not be read.
#[derive(Serialize, JsonSchema)]
pub struct UnreadStore<'a> {
    pub store: &'a str,
    pub reason: Cow<'a, str>,
}
