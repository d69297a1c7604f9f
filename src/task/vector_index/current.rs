//! Measures today's index: its recall at the setting of applications, the lowest setting that reaches the target, and how its lists are filled.

use std::time::Instant;

use anyhow::Result;
use sqlx::PgConnection;

use super::candidates::Spec;
use super::curve::Curve;
use super::decide::{Current, Index};
use super::effort::Effort;
use super::keys::VectorIndex;
use super::kind::Method;
use super::measure::{self, Sample};
use super::queries;
use super::search::{Searcher, Stopped};
use super::state::{Found, Table};
use crate::work::RunContext;

/// The share of a measurement's time for exact searches.
pub const EXACT_SHARE: f64 = 2.0 / 3.0;

/// Measures today's index. `setting`: the value that applications search with.
pub async fn measure_current(
    connection: &mut PgConnection,
    job: &VectorIndex,
    run: &RunContext<'_>,
    table: &Table,
    setting: u32,
) -> Result<(Current, Sample)> {
    let mut current = Current { vectors: table.vectors(), ..Current::default() };
    let deadline = Instant::now() + job.recall.time.0;
    let mut sample = Sample::default();
    if current.vectors >= 1.0 && table.index.as_ref().is_none_or(|index| !index.is_valid) {
        // This only determines how long an exact search takes.
        sample = measure::sample(connection, &table.searched, &[], 5, table.vectors()).await?;
        measure::find_truth(connection, &table.searched, &mut sample, job.recall.k, job.recall.time.0).await?;
        measure::time_exact(connection, &table.searched, &mut sample, job.recall.k).await?;
        current.exact_ms = sample.exact_ms;
    }
    let Some(index) = &table.index else { return Ok((current, sample)) };
    let built = index.built();
    let graph = built.as_ref().and_then(|built| built.graph);
    let mut measured = Index {
        method: Method::of(&index.method),
        is_valid: index.is_valid,
        lists_in_catalog: (index.method == "ivfflat").then(|| index.option("lists").unwrap_or(100)),
        lists_in_fact: None,
        m: graph.map_or(index.option("m").unwrap_or(16), |graph| graph.m),
        ef_construction: graph.map_or(index.option("ef_construction").unwrap_or(64), |graph| graph.ef_construction),
        is_built_by_pgtend: built.as_ref().is_some_and(|built| built.built_at.is_some()),
        rows_then: built.as_ref().map(|built| built.rows as f64),
        tuned: built.as_ref().is_some_and(|built| built.tuned),
        skew: None,
        now: None,
        least: None,
        curve: Curve::default(),
        declined: built.as_ref().and_then(|built| built.declined).map(|declined| (declined.spec, declined.rows as f64)),
        unmeasured: None,
        is_behind_a_new_one: false,
    };
    if index.is_valid && current.vectors >= 1.0 {
        let time = job.recall.time.0.mul_f64(EXACT_SHARE);
        sample = queries::asked(connection, job, run, &table.searched, table.vectors(), time).await?;
        current.exact_ms = sample.exact_ms;
        if !sample.is_enough() {
            measured.unmeasured =
                Some(format!("only {} exact searches finished in {}: raise `time` of `recall`", sample.len(), job.recall.time));
        } else if let Err(error) = measure_index(connection, job, table, index, &sample, setting, deadline, &mut measured).await {
            match error.downcast_ref::<Stopped>() {
                Some(stopped) => {
                    measured.is_behind_a_new_one = matches!(stopped, Stopped::OtherPlan(scan) if *scan == table.new_name());
                    measured.unmeasured = Some(stopped.to_string());
                }
                None => return Err(error),
            }
        }
    }
    current.index = Some(measured);
    Ok((current, sample))
}

#[allow(clippy::too_many_arguments)]
async fn measure_index(
    connection: &mut PgConnection,
    job: &VectorIndex,
    table: &Table,
    index: &Found,
    sample: &Sample,
    setting: u32,
    deadline: Instant,
    measured: &mut Index,
) -> Result<()> {
    let Some(method) = Method::of(&index.method) else { return Ok(()) };
    let mut searcher = Searcher {
        connection,
        searched: &table.searched,
        sample,
        k: job.recall.k,
        method,
        hidden: None,
        is_hiding: false,
        index: index.name.clone(),
        deadline,
        effort: Effort::of(&table.searched, table.vectors()),
        spec: Spec::known(method, index.option("lists"), Some(measured.m)),
        searches: 0,
        max_searches: u64::MAX,
        curve: Curve::default(),
    };
    if method == Method::Ivfflat {
        measured.lists_in_fact = searcher.lists().await?;
        searcher.spec = Spec::known(method, measured.lists_in_fact.or(measured.lists_in_catalog), None);
        // This comes first, as it is cheap and says most: the rest may take too long with an index that was built with few rows.
        if let Some(lists) = measured.lists_in_fact {
            let pages = searcher.pages(1, 40).await?;
            let (index_pages, k) = (index.bytes as f64 / 8192.0, f64::from(job.recall.k));
            measured.skew = skew(&pages, index_pages, f64::from(lists), table.value_bytes() as f64, k);
        }
    }
    let max_setting = match method {
        Method::Ivfflat => measured.lists_in_fact.or(measured.lists_in_catalog).unwrap_or(32_768),
        Method::Hnsw => 1000,
    };
    let mut now = searcher.recall(setting.min(max_setting.max(1))).await?;
    now.setting = setting;
    measured.now = Some(now.clone());
    now.cost = Some(searcher.cost(setting).await?);
    measured.now = Some(now);
    let (reached, least) = searcher.least(job.recall.target, setting, max_setting).await?;
    measured.least = Some((reached, least.clone()));
    searcher.measure_the_curve(least.setting, max_setting).await?;
    measured.curve = searcher.curve;
    Ok(())
}

/// Returns the pages of a search of one list (the 90th percentile), as a multiple of an average list's. Pure.
fn skew(pages: &[f64], index_pages: f64, lists: f64, value_bytes: f64, k: f64) -> Option<f64> {
    let ninth = pages.get(pages.len().checked_sub(1)? * 9 / 10)?;
    let centres = (lists / (8168.0 / value_bytes).floor().max(1.0)).ceil();
    // The rows that are found are read, too; a long value is stored out of line.
    let found = (k + 1.0) * if value_bytes > 2000.0 { 5.0 } else { 1.0 };
    let average = ((index_pages - centres) / lists).max(1.0);
    Some(((ninth - centres - found) / average).max(0.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_an_index_that_was_built_empty_are_found_lopsided() {
        // 20,000 × 384 in 20 lists: measured pages of a search with one probe (p90), research.
        let pages = |ninth: f64| vec![ninth; 10];
        let lopsided = skew(&pages(478.0), 1400.0, 20.0, 1544.0, 10.0).unwrap();
        let even = skew(&pages(64.0 + 15.0), 1400.0, 20.0, 1544.0, 10.0).unwrap();
        assert!(lopsided > 3.0 && even < 1.5, "{lopsided} {even}");
        assert_eq!(skew(&[], 1400.0, 20.0, 1544.0, 10.0), None);
    }
}
