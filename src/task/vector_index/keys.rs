//! `[vector_index]`: the keys of a job, as written and resolved.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use toml::Spanned;

use super::filter::Filters;
use super::kind::{Method, Metric};
use super::measure;
use crate::base::units::{Size, Span};
use crate::config::checker::Checker;

/// Exact searches of some hundred queries through 100,000 rows take seconds; through a hundred times as many rows, this long.
const MEASURE_FOR: Span = Span(Duration::from_secs(120));

/// The number of queries for an interval of about ± 0.007 at a recall of 0.95.
const QUERIES: u32 = 1_000;

/// The number of searches for some twenty candidates: for each up to a thousand at a few settings, and 2,500 for its time.
const SEARCHES: u64 = 150_000;

/// The size of 43,000 vectors of 1,536 dimensions, or of half a million of 128.
const SAMPLE: Size = Size(256 << 20);

/// An exact search through this many vectors takes some milliseconds.
const EXACT_BELOW: u64 = 2_000;

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
    pub table: String,
    /// A column of type vector, halfvec, bit or sparsevec.
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
    /// ivfflat: a number of lists, or "auto" (default): found by building candidates on a copy.
    #[schemars(with = "Option<Lists>")]
    pub lists: Option<Spanned<Lists>>,
    /// hnsw: connections of each row; default 16.
    #[schemars(with = "Option<u32>")]
    pub m: Option<Spanned<u32>>,
    /// hnsw: candidates considered during the build, at least twice `m`; default 64.
    #[schemars(with = "Option<u32>")]
    pub ef_construction: Option<Spanned<u32>>,
    #[schemars(with = "Option<WrittenRecall>")]
    pub recall: Option<Spanned<WrittenRecall>>,
    /// The application's own questions: recall is measured with them. Default: rows of the table, moved away from their places.
    #[schemars(with = "Option<WrittenQueries>")]
    pub queries: Option<Spanned<WrittenQueries>>,
    /// A condition of the application's searches, as in `WHERE`, or several: `tenant_id = $1`. `$1` is the value of that column in a row or
    /// a question.
    #[schemars(with = "Option<OneOrSeveral>")]
    pub filter: Option<Spanned<OneOrSeveral>>,
    /// The value of ivfflat.probes that the application sets itself; default: the setting of the database or role.
    #[schemars(with = "Option<u32>")]
    pub probes: Option<Spanned<u32>>,
    /// The value of hnsw.ef_search that the application sets itself.
    #[schemars(with = "Option<u32>")]
    pub ef_search: Option<Spanned<u32>>,
    #[serde(default)]
    pub budget: WrittenBudget,
    /// With fewer vectors than this no index is built; default 2000.
    pub exact_below: Option<u64>,
    /// maintenance_work_mem of the session that builds, at least 1 MiB; default: the server's.
    #[schemars(with = "Option<Size>")]
    pub maintenance_work_mem: Option<Spanned<Size>>,
    /// max_parallel_maintenance_workers of the session that builds; default: the server's.
    #[schemars(with = "Option<u32>")]
    pub parallel_workers: Option<Spanned<u32>>,
    /// The place to set the lowest setting that reaches the target: "database", or "role:NAME" for that role in this database.
    #[schemars(with = "Option<String>")]
    pub apply_setting: Option<Spanned<String>>,
}

#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WrittenRecall {
    /// The share of the true neighbours that a search must find; default 0.95.
    pub target: Option<f64>,
    /// The number of neighbours in a search; default 10.
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
    Number(u32),
    Auto(Auto),
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Auto {
    Auto,
}

pub fn resolve(written: Written, checker: &mut Checker<'_>) -> Option<VectorIndex> {
    check_numbers(&written, checker);
    check_method(&written, checker);
    let method = written.method.as_ref().map(|method| *method.get_ref());
    let queries = written.queries.as_ref().and_then(|queries| resolve_queries(queries, &written.column, checker));
    let filters = written.filter.as_ref().map(|filter| resolve_filters(filter, checker)).unwrap_or_default();
    Some(VectorIndex {
        method: resolve_method(&written),
        recall: resolve_recall(written.recall.as_ref(), checker),
        queries,
        filters,
        apply_setting: written.apply_setting.and_then(|place| resolve_apply_setting(&place, checker)),
        table: written.table,
        column: written.column,
        index: written.index,
        compares_methods: method == Some(WrittenMethod::Auto),
        metric: written.metric.unwrap_or(Metric::Cosine),
        lists: written.lists.and_then(|lists| match lists.into_inner() {
            Lists::Number(number) => Some(number),
            Lists::Auto(Auto::Auto) => None,
        }),
        m: written.m.map(Spanned::into_inner),
        ef_construction: written.ef_construction.map(Spanned::into_inner),
        setting: written.probes.or(written.ef_search).map(Spanned::into_inner),
        budget: Budget {
            time: written.budget.time,
            queries: written.budget.queries.unwrap_or(SEARCHES),
            sample: written.budget.sample.unwrap_or(SAMPLE),
        },
        exact_below: written.exact_below.unwrap_or(EXACT_BELOW),
        maintenance_work_mem: written.maintenance_work_mem.map(Spanned::into_inner),
        parallel_workers: written.parallel_workers.map(Spanned::into_inner),
    })
}

/// Checks that each number is in the range that pgvector and PostgreSQL accept.
fn check_numbers(written: &Written, checker: &mut Checker<'_>) {
    let range = |checker: &mut Checker<'_>, name: &str, value: &Option<Spanned<u32>>, min: u32, max: u32| {
        if let Some(value) = value.as_ref().filter(|value| !(min..=max).contains(value.get_ref())) {
            checker.problem(value, format!("`{name} = {}`", value.get_ref()), format!("{min} to {max}"));
        }
    };
    range(checker, "m", &written.m, 2, 100);
    range(checker, "ef_construction", &written.ef_construction, 4, 1000);
    range(checker, "probes", &written.probes, 1, 32_768);
    range(checker, "ef_search", &written.ef_search, 1, 1000);
    range(checker, "parallel_workers", &written.parallel_workers, 0, 1024);
    if let Some(size) = written.maintenance_work_mem.as_ref().filter(|size| size.get_ref().0 < 1 << 20) {
        checker.problem(size, format!("`maintenance_work_mem = \"{}\"`", size.get_ref()), "at least \"1MiB\"".to_owned());
    }
    if let Some(lists) = &written.lists
        && let Lists::Number(0 | 32_769..) = lists.get_ref()
    {
        checker.problem(lists, "`lists` is out of range", "1 to 32768, or \"auto\"".to_owned());
    }
    let m = written.m.as_ref().map_or(16, |m| *m.get_ref());
    if let Some(ef) = written.ef_construction.as_ref().filter(|ef| *ef.get_ref() < 2 * m) {
        // pgvector accepts it in ALTER INDEX, and fails in the build that follows.
        checker.problem(
            ef,
            format!("`ef_construction = {}` is less than twice m ({m})", ef.get_ref()),
            format!("at least {}", 2 * m),
        );
    }
}

/// Checks that the keys of one method are not set for the other one.
fn check_method(written: &Written, checker: &mut Checker<'_>) {
    match written.method.as_ref().map(Spanned::get_ref) {
        Some(WrittenMethod::Auto) => {
            if let Some(lists) = written.lists.as_ref().filter(|lists| matches!(lists.get_ref(), Lists::Number(_))) {
                checker.problem(lists, "`lists` cannot be combined with `method = \"auto\"`", "remove one of them".to_owned());
            }
            for (name, key) in [("probes", &written.probes), ("ef_search", &written.ef_search)] {
                if let Some(key) = key {
                    let hint = "set it in the database or for a role, or set `method`".to_owned();
                    checker.problem(key, format!("`{name}` belongs to one method, and `method` is \"auto\""), hint);
                }
            }
        }
        Some(WrittenMethod::Hnsw) => {
            if let Some(lists) = &written.lists {
                checker.problem(lists, "`lists` does not apply to hnsw", None);
            }
            if let Some(probes) = &written.probes {
                checker.problem(probes, "`probes` does not apply to hnsw", "use `ef_search`".to_owned());
            }
        }
        Some(WrittenMethod::Ivfflat) => {
            let keys = [("m", &written.m), ("ef_construction", &written.ef_construction), ("ef_search", &written.ef_search)];
            for (name, key) in keys {
                if let Some(key) = key {
                    checker.problem(key, format!("`{name}` does not apply to ivfflat"), None);
                }
            }
        }
        None => {
            if let Some(probes) = written.probes.as_ref().filter(|_| written.ef_search.is_some()) {
                checker.problem(
                    probes,
                    "`probes` and `ef_search` are both set",
                    "keep the one that belongs to the index's method".to_owned(),
                );
            }
        }
    }
}

/// Returns the method that the job asks for. A key of one method implies that method.
fn resolve_method(written: &Written) -> Option<Method> {
    match written.method.as_ref().map(Spanned::get_ref) {
        Some(WrittenMethod::Auto) => None,
        Some(WrittenMethod::Ivfflat) => Some(Method::Ivfflat),
        Some(WrittenMethod::Hnsw) => Some(Method::Hnsw),
        None if written.lists.is_some() || written.probes.is_some() => Some(Method::Ivfflat),
        None if written.m.is_some() || written.ef_construction.is_some() || written.ef_search.is_some() => Some(Method::Hnsw),
        None => None,
    }
}

fn resolve_recall(written: Option<&Spanned<WrittenRecall>>, checker: &mut Checker<'_>) -> Recall {
    let recall = written.map(|recall| recall.get_ref().clone()).unwrap_or_default();
    let recall = Recall {
        target: recall.target.unwrap_or(0.95),
        k: recall.k.unwrap_or(10),
        queries: recall.queries.unwrap_or(QUERIES),
        time: recall.time.unwrap_or(MEASURE_FOR),
    };
    if let Some(place) = written {
        if !(recall.target > 0.0 && recall.target <= 1.0) {
            checker.problem(place, "`target` is out of range", "set a share above 0, up to 1".to_owned());
        }
        if !(1..=500).contains(&recall.k) || !(measure::MIN_QUERIES as u32..=10_000).contains(&recall.queries) {
            let hint = format!("k is 1 to 500, queries {} to 10000", measure::MIN_QUERIES);
            checker.problem(place, "`k` or `queries` is out of range", hint);
        }
    }
    recall
}

fn resolve_queries(written: &Spanned<WrittenQueries>, column: &str, checker: &mut Checker<'_>) -> Option<Queries> {
    match written.get_ref().clone() {
        WrittenQueries { table: Some(table), column: own, newest_by, sql: None } => {
            Some(Queries::Table { table, column: own.unwrap_or_else(|| column.to_owned()), newest_by })
        }
        WrittenQueries { table: None, column: None, newest_by: None, sql: Some(sql) } => Some(Queries::Sql(sql)),
        _ => {
            let hint = "table = \"search_log\", with `column` and `newest_by`; or sql = \"SELECT …\" alone".to_owned();
            checker.problem(written, "[vector_index.queries] has neither a `table` nor only `sql`", hint);
            None
        }
    }
}

fn resolve_filters(written: &Spanned<OneOrSeveral>, checker: &mut Checker<'_>) -> Filters {
    let texts = match written.get_ref().clone() {
        OneOrSeveral::One(text) => vec![text],
        OneOrSeveral::Several(texts) => texts,
    };
    match Filters::parse(&texts) {
        Ok(filters) => filters,
        Err(why) => {
            checker.problem(written, why, "a condition as in WHERE: \"tenant_id = $1\"".to_owned());
            Filters::default()
        }
    }
}

fn resolve_apply_setting(place: &Spanned<String>, checker: &mut Checker<'_>) -> Option<ApplySetting> {
    match place.get_ref().split_once(':') {
        None if place.get_ref() == "database" => Some(ApplySetting::Database),
        Some(("role", role)) if !role.is_empty() => Some(ApplySetting::Role(role.to_owned())),
        _ => {
            let hint = "\"database\", or \"role:NAME\"".to_owned();
            checker.problem(place, format!("`apply_setting = \"{}\"`", place.get_ref()), hint);
            None
        }
    }
}
