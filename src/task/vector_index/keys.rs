//! `[vector_index]`: the keys of a job, as written and resolved.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;
use toml::Spanned;

use super::filter::Filters;
use super::kind::{Method, Metric, Quantize};
use crate::base::units::{Size, Span};

/// `[vector_index]`, resolved.
#[derive(Clone, Debug)]
pub struct VectorIndex {
    pub table: String,
    pub column: String,
    pub index: Option<String>,
    /// None: the method of the present index.
    pub method: Option<Method>,
    /// True if hnsw is compared with ivfflat, and the faster one is built.
    pub compares_methods: bool,
    pub metric: Metric,
    /// None: the index has the vectors as they are.
    pub quantize: Option<Quantize>,
    /// None: found by a search.
    pub lists: Option<u32>,
    pub m: Option<u32>,
    pub ef_construction: Option<u32>,
    pub recall: Recall,
    /// Where the application's questions are; None: rows of the table are the queries.
    pub queries: Option<Queries>,
    pub filters: Filters,
    /// The setting that applications use themselves.
    pub setting: Option<u32>,
    pub budget: Budget,
    pub exact_below: u64,
    pub maintenance_work_mem: Option<Size>,
    pub parallel_workers: Option<u32>,
    pub apply_setting: Option<ApplySetting>,
}

#[derive(Clone, Debug)]
pub struct Recall {
    pub target: f64,
    pub k: u32,
    pub queries: u32,
    pub time: Span,
}

/// Where the application's questions are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Queries {
    Table { table: String, column: String, newest_by: Option<String> },
    Sql(String),
}

#[derive(Clone, Debug)]
pub struct Budget {
    pub time: Option<Span>,
    pub queries: u64,
    pub sample: Size,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ApplySetting {
    Database,
    Role(String),
}

/// `[vector_index]` as written.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Written {
    /// The table, as in SQL: `public.script_embeddings`, `"Odd Name"`.
    #[schemars(example = &"public.script_embeddings")]
    pub table: String,
    /// A column of type vector, halfvec, bit or sparsevec.
    #[schemars(example = &"embedding")]
    pub column: String,
    /// The index to maintain, if the column has several for the metric; the name for a new index, if there is none.
    pub index: Option<String>,
    /// "ivfflat", "hnsw", or "auto": whichever is faster at the target; default: the method of the present index, or "hnsw" where there is
    /// none.
    #[schemars(with = "Option<WrittenMethod>")]
    pub method: Option<Spanned<WrittenMethod>>,
    /// "cosine" (default), "l2", "inner_product", "l1", "hamming", "jaccard".
    #[schemars(with = "Option<Metric>")]
    pub metric: Option<Metric>,
    /// "halfvec": an index in half precision, of half the size; "bit": on one bit for each dimension, with a function that orders what it finds
    /// by the vectors.
    #[schemars(with = "Option<Quantize>")]
    pub quantize: Option<Spanned<Quantize>>,
    /// ivfflat: a number of lists, or "auto" (default): found by building candidates on a copy.
    #[schemars(with = "Option<Lists>", example = &"auto", example = 100)]
    pub lists: Option<Spanned<Lists>>,
    /// hnsw: connections of each row; default 16.
    #[schemars(with = "Option<u32>", range(min = 2, max = 100), example = 16)]
    pub m: Option<Spanned<u32>>,
    /// hnsw: candidates considered during the build, at least twice `m`; default 64.
    #[schemars(with = "Option<u32>", range(min = 4, max = 1000), example = 64)]
    pub ef_construction: Option<Spanned<u32>>,
    /// The recall that searches must reach, and how it is measured.
    #[schemars(with = "Option<WrittenRecall>", example = json!({ "target": 0.95, "k": 10 }))]
    pub recall: Option<Spanned<WrittenRecall>>,
    /// The application's own questions: recall is measured with them. Default: rows of the table, moved away from their places.
    #[schemars(with = "Option<WrittenQueries>", example = json!({ "table": "search_log", "newest_by": "created_at" }))]
    pub queries: Option<Spanned<WrittenQueries>>,
    /// A condition of the application's searches, as in `WHERE`, or several: `tenant_id = $1`. `$1` is the value of that column in a row or
    /// a question.
    #[schemars(with = "Option<OneOrSeveral>", example = &"tenant_id = $1")]
    pub filter: Option<Spanned<OneOrSeveral>>,
    /// The value of ivfflat.probes that the application sets itself; default: the setting of the database or role.
    #[schemars(with = "Option<u32>", range(min = 1, max = 32_768), example = 10)]
    pub probes: Option<Spanned<u32>>,
    /// The value of hnsw.ef_search that the application sets itself.
    #[schemars(with = "Option<u32>", range(min = 1, max = 1000), example = 40)]
    pub ef_search: Option<Spanned<u32>>,
    /// Limits for the search for lists.
    #[schemars(example = json!({ "time": "30m" }))]
    #[serde(default)]
    pub budget: WrittenBudget,
    /// With fewer vectors than this no index is built; default 2000.
    pub exact_below: Option<u64>,
    /// maintenance_work_mem of the session that builds, at least 1 MiB; default: the server's.
    #[schemars(with = "Option<Size>", example = &"512MiB")]
    pub maintenance_work_mem: Option<Spanned<Size>>,
    /// max_parallel_maintenance_workers of the session that builds; default: the server's.
    #[schemars(with = "Option<u32>", range(max = 1024), example = 2)]
    pub parallel_workers: Option<Spanned<u32>>,
    /// The place to set the lowest setting that reaches the target: "database", or "role:NAME" for that role in this database.
    #[schemars(with = "Option<String>", regex(pattern = "^(database|role:.+)$"), example = &"database")]
    pub apply_setting: Option<Spanned<String>>,
}

#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WrittenRecall {
    /// The share of the true neighbours that a search must find; default 0.95.
    #[schemars(range(max = 1), extend("exclusiveMinimum" = 0), example = 0.95)]
    pub target: Option<f64>,
    /// The number of neighbours in a search; default 10.
    #[schemars(range(min = 1, max = 500), example = 10)]
    pub k: Option<u32>,
    /// The maximum number of the table's rows that are used as queries; default 1000.
    pub queries: Option<u32>,
    /// The longest time for one measurement; default 2 min.
    pub time: Option<Span>,
}

/// Where the application's questions are: a table, or a statement.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WrittenQueries {
    /// A table in which the application keeps questions: `search_log`.
    pub table: Option<String>,
    /// Its column with the vectors; default: the name of the indexed column.
    pub column: Option<String>,
    /// A column of its: the newest questions by it are taken; default: some of all.
    pub newest_by: Option<String>,
    /// A SELECT that returns vectors, and the columns of filters by name. It runs in a transaction that is read only.
    pub sql: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "`filter` is a condition, or a list of conditions")]
pub enum OneOrSeveral {
    One(String),
    Several(Vec<String>),
}

/// Limits for the search for lists.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WrittenBudget {
    /// The longest time for the search; default: as long as three builds of the index, at least 1 min.
    pub time: Option<Span>,
    /// The total number of searches; default 150000.
    pub queries: Option<u64>,
    /// Larger tables are sampled to this size of vectors; default 256 MiB.
    pub sample: Option<Size>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WrittenMethod {
    Auto,
    Ivfflat,
    Hnsw,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "`lists` is a number, or \"auto\"")]
pub enum Lists {
    Number(#[schemars(range(min = 1, max = 32_768))] u32),
    Auto(Auto),
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Auto {
    Auto,
}
