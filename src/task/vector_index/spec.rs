//! The parameters by which an index is built.

use serde::{Deserialize, Serialize};

use super::kind::Method;
use crate::base::units;

/// The parameters of a build.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case", tag = "method")]
pub enum Spec {
    Ivfflat { lists: u32 },
    Hnsw { m: u32, ef_construction: u32 },
}

impl Spec {
    /// Returns the parameters of an index that are known only in part: pgvector's defaults for the others.
    pub fn known(method: Method, lists: Option<u32>, m: Option<u32>) -> Self {
        match method {
            Method::Ivfflat => Self::Ivfflat { lists: lists.unwrap_or(100) },
            Method::Hnsw => Self::Hnsw { m: m.unwrap_or(16), ef_construction: 64 },
        }
    }

    pub fn method(self) -> Method {
        match self {
            Self::Ivfflat { .. } => Method::Ivfflat,
            Self::Hnsw { .. } => Method::Hnsw,
        }
    }

    /// Returns the parameters of CREATE INDEX … WITH (…).
    pub fn options(self) -> String {
        match self {
            Self::Ivfflat { lists } => format!("lists = {lists}"),
            Self::Hnsw { m, ef_construction } => format!("m = {m}, ef_construction = {ef_construction}"),
        }
    }

    /// Returns the maximum of ivfflat.probes or hnsw.ef_search, or the value above which a higher one has no effect.
    pub fn max_setting(self) -> u32 {
        match self {
            Self::Ivfflat { lists } => lists,
            Self::Hnsw { .. } => 1000,
        }
    }
}

impl std::fmt::Display for Spec {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        match self {
            Self::Ivfflat { lists } => write!(f, "ivfflat with {}", units::plural(*lists as usize, "list")),
            Self::Hnsw { m, ef_construction } => write!(f, "hnsw with m = {m}, ef_construction = {ef_construction}"),
        }
    }
}
