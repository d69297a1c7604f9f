//! Resolves a job from its keys, and finds mistakes: numbers out of range, and keys that do not go together.

use std::time::Duration;

use toml::Spanned;

use super::filter::Filters;
use super::keys::{
    ApplySetting, Auto, Budget, Lists, OneOrSeveral, Queries, Recall, VectorIndex, Written, WrittenMethod, WrittenQueries,
    WrittenRecall,
};
use super::kind::{Method, Metric, Quantize};
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

pub fn resolve(written: Written, checker: &mut Checker<'_>) -> Option<VectorIndex> {
    check(&written, checker);
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
        quantize: written.quantize.map(Spanned::into_inner),
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

/// Returns the method that the job asks for. A key of one method implies that method.
fn resolve_method(written: &Written) -> Option<Method> {
    match written.method.as_ref().map(Spanned::get_ref) {
        Some(WrittenMethod::Auto) => None,
        Some(WrittenMethod::Ivfflat) => Some(Method::Ivfflat),
        Some(WrittenMethod::Hnsw) => Some(Method::Hnsw),
        None if written.quantize.as_ref().is_some_and(|quantize| *quantize.get_ref() == Quantize::Bit) => Some(Method::Hnsw),
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
            let message = format!("`target = {}` is out of range", recall.target);
            checker.problem(place, message, "a share above 0, up to 1: 0.95 is 95 %".to_owned());
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

fn check(written: &Written, checker: &mut Checker<'_>) {
    check_numbers(written, checker);
    check_method(written, checker);
    check_bits(written, checker);
}

/// Checks that each number is in the range that pgvector and PostgreSQL accept.
fn check_numbers(written: &Written, checker: &mut Checker<'_>) {
    let range = |checker: &mut Checker<'_>, name: &str, value: &Option<Spanned<u32>>, min: u32, max: u32| {
        if let Some(value) = value.as_ref().filter(|value| !(min..=max).contains(value.get_ref())) {
            checker.problem(value, format!("`{name} = {}` is out of range", value.get_ref()), format!("{min} to {max}"));
        }
    };
    range(checker, "m", &written.m, 2, 100);
    range(checker, "ef_construction", &written.ef_construction, 4, 1000);
    range(checker, "probes", &written.probes, 1, 32_768);
    range(checker, "ef_search", &written.ef_search, 1, 1000);
    range(checker, "parallel_workers", &written.parallel_workers, 0, 1024);
    if let Some(size) = written.maintenance_work_mem.as_ref().filter(|size| size.get_ref().0 < 1 << 20) {
        checker.problem(
            size,
            format!("`maintenance_work_mem` of {} is too little", size.get_ref()),
            "at least \"1MiB\": maintenance_work_mem = \"512MiB\"".to_owned(),
        );
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

/// Checks that nothing is asked for that searches by bits do not have.
fn check_bits(written: &Written, checker: &mut Checker<'_>) {
    let Some(quantize) = written.quantize.as_ref().filter(|quantize| *quantize.get_ref() == Quantize::Bit) else { return };
    let mut cannot = |what: &str, hint: &str| {
        checker.problem(quantize, format!("`quantize = \"bit\"` cannot be combined with {what}"), hint.to_owned());
    };
    if written.method.as_ref().is_some_and(|method| *method.get_ref() != WrittenMethod::Hnsw) || written.lists.is_some() {
        cannot("another method than hnsw", "remove `method` and `lists`");
    }
    if !matches!(written.metric, None | Some(Metric::Cosine | Metric::L2 | Metric::InnerProduct)) {
        cannot("this `metric`", "cosine, l2 or inner_product");
    }
    if written.probes.is_some() || written.ef_search.is_some() || written.apply_setting.is_some() {
        cannot("`probes`, `ef_search` and `apply_setting`", "remove them: the function has the setting that it needs");
    }
    if written.filter.is_some() {
        cannot(
            "`filter`",
            "remove one of them: a condition as an argument of the function would be SQL that it runs for whoever calls it",
        );
    }
}
