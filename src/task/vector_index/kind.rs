//! pgvector's types, metrics and methods: which combinations exist, and up to how many dimensions.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    Ivfflat,
    Hnsw,
}

impl Method {
    /// Returns its name in pg_am.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ivfflat => "ivfflat",
            Self::Hnsw => "hnsw",
        }
    }

    pub fn of(name: &str) -> Option<Self> {
        [Self::Ivfflat, Self::Hnsw].into_iter().find(|method| method.name() == name)
    }

    /// Returns the setting of a search: a higher value makes it better and slower.
    pub fn setting(self) -> &'static str {
        match self {
            Self::Ivfflat => "ivfflat.probes",
            Self::Hnsw => "hnsw.ef_search",
        }
    }

    /// Below this value searches lose more than neighbours: hnsw returns no more rows than ef_search, whatever LIMIT says. It is at least
    /// pgvector's own default, as some searches of an application may use another k than the job's.
    pub fn min_setting(self, k: u32) -> u32 {
        match self {
            Self::Ivfflat => 1,
            Self::Hnsw => self.default_setting().max(k),
        }
    }

    pub fn max_setting(self) -> u32 {
        match self {
            Self::Ivfflat => 32_768,
            Self::Hnsw => 1000,
        }
    }

    /// Returns the setting of the other method at its highest: the planner then takes its indexes for too expensive.
    pub fn disable_other_method(self) -> (&'static str, &'static str) {
        match self {
            Self::Ivfflat => (Self::Hnsw.setting(), "1000"),
            Self::Hnsw => (Self::Ivfflat.setting(), "32768"),
        }
    }

    /// Returns pgvector's default.
    pub fn default_setting(self) -> u32 {
        match self {
            Self::Ivfflat => 1,
            Self::Hnsw => 40,
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    Cosine,
    L2,
    InnerProduct,
    L1,
    Hamming,
    Jaccard,
}

impl Metric {
    pub fn operator(self) -> &'static str {
        match self {
            Self::Cosine => "<=>",
            Self::L2 => "<->",
            Self::InnerProduct => "<#>",
            Self::L1 => "<+>",
            Self::Hamming => "<~>",
            Self::Jaccard => "<%>",
        }
    }

    fn in_operator_class(self) -> &'static str {
        match self {
            Self::Cosine => "cosine",
            Self::L2 => "l2",
            Self::InnerProduct => "ip",
            Self::L1 => "l1",
            Self::Hamming => "hamming",
            Self::Jaccard => "jaccard",
        }
    }

    /// Returns the name as in the job.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cosine => "cosine",
            Self::L2 => "l2",
            Self::InnerProduct => "inner_product",
            Self::L1 => "l1",
            Self::Hamming => "hamming",
            Self::Jaccard => "jaccard",
        }
    }
}

/// How vectors are made smaller for the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Quantize {
    /// Half of the precision, and half of the size.
    Halfvec,
    /// The sign of each dimension: a bit for each.
    Bit,
}

impl Quantize {
    pub fn value(self) -> ValueType {
        match self {
            Self::Halfvec => ValueType::Halfvec,
            Self::Bit => ValueType::Bit,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ValueType {
    Vector,
    Halfvec,
    Bit,
    Sparsevec,
}

impl ValueType {
    /// Returns the type with this name in pg_type.
    pub fn of(name: &str) -> Option<Self> {
        [Self::Vector, Self::Halfvec, Self::Bit, Self::Sparsevec].into_iter().find(|kind| kind.name() == name)
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Vector => "vector",
            Self::Halfvec => "halfvec",
            Self::Bit => "bit",
            Self::Sparsevec => "sparsevec",
        }
    }

    /// Returns the operator class, if it exists: pgvector 0.8's README, "Indexing".
    pub fn operator_class(self, method: Method, metric: Metric) -> Option<String> {
        use Metric::{Cosine, Hamming, InnerProduct, Jaccard, L1, L2};
        let is_there = matches!(
            (method, self, metric),
            (_, Self::Vector | Self::Halfvec, L2 | InnerProduct | Cosine)
                | (_, Self::Bit, Hamming)
                | (Method::Hnsw, Self::Vector | Self::Halfvec, L1)
                | (Method::Hnsw, Self::Bit, Jaccard)
                | (Method::Hnsw, Self::Sparsevec, L2 | InnerProduct | Cosine | L1)
        );
        is_there.then(|| format!("{}_{}_ops", self.name(), metric.in_operator_class()))
    }

    /// Returns the maximum for an index. For a sparse vector, the number of non-zero elements is limited instead.
    pub fn max_dimensions(self) -> u32 {
        match self {
            Self::Vector => 2_000,
            Self::Halfvec => 4_000,
            Self::Bit => 64_000,
            Self::Sparsevec => u32::MAX,
        }
    }

    /// Returns the bytes of one value in an index.
    pub fn bytes(self, dimensions: u32) -> u64 {
        let dimensions = u64::from(dimensions);
        match self {
            Self::Vector => 8 + 4 * dimensions,
            Self::Halfvec => 8 + 2 * dimensions,
            Self::Bit => 8 + dimensions.div_ceil(8),
            // The length is unknown; pgvector indexes up to 1,000 elements of 8 bytes.
            Self::Sparsevec => 16 + 8 * dimensions.min(1000),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operator_classes_are_those_of_pgvector() {
        let class = |kind: ValueType, method, metric| kind.operator_class(method, metric);
        assert_eq!(class(ValueType::Vector, Method::Ivfflat, Metric::Cosine).as_deref(), Some("vector_cosine_ops"));
        assert_eq!(class(ValueType::Halfvec, Method::Hnsw, Metric::L1).as_deref(), Some("halfvec_l1_ops"));
        assert_eq!(class(ValueType::Bit, Method::Ivfflat, Metric::Hamming).as_deref(), Some("bit_hamming_ops"));
        assert_eq!(class(ValueType::Bit, Method::Ivfflat, Metric::Jaccard), None);
        assert_eq!(class(ValueType::Sparsevec, Method::Ivfflat, Metric::L2), None);
        assert_eq!(class(ValueType::Vector, Method::Ivfflat, Metric::L1), None);
    }
}
