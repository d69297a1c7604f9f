//! A partial index for the value that most searches with a filter have, or a partition for it: what either would give. Measured on a copy of the rows that
//! the value leaves, with an index of their own, which is what a partition is and what a partial index holds. No application sees the copy.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use serde::Serialize;
use sqlx::PgConnection;

use super::curve::Curve;
use super::decide;
use super::effort::Effort;
use super::filter::Filter;
use super::found::Found;
use super::keys::VectorIndex;
use super::kind::Method;
use super::measure::{self, MIN_QUERIES, Sample};
use super::search::{Searcher, Stopped};
use super::spec::Spec;
use super::state::Table;
use crate::base::units;
use crate::pg::{self, qualified};

const COPY: &str = "pg_temp.pgtend_part";
const INDEX: &str = "pgtend_partial";
/// With more different values, nobody has an index for each.
const FEW_VALUES: usize = 50;
/// The longest time for the copy, for its index and for its searches, each.
const TIME: Duration = Duration::from_secs(10);

#[derive(Clone, Debug, Serialize)]
pub struct Partial {
    /// The filter with its commonest value.
    pub condition: String,
    /// Different values in the searches that were looked at.
    pub values: usize,
    pub rows: u64,
    pub build_seconds: f64,
    pub reached: bool,
    /// At the lowest setting that reaches the target, or at the highest one.
    #[serde(flatten)]
    pub found: Found,
}

impl Partial {
    /// The time of a search, where it reaches the target.
    pub fn ms(&self) -> Option<f64> {
        self.found.cost.map(|cost| cost.ms).filter(|_| self.reached)
    }
}

/// The queries of the commonest value. Pure.
struct Commonest {
    condition: String,
    numbers: Vec<usize>,
    values: usize,
}

/// Builds the index on the copy and searches it. The inner error says why that was not measured. pgvector has to be loaded.
pub async fn measure(
    connection: &mut PgConnection,
    job: &VectorIndex,
    table: &Table,
    sample: &Sample,
    (filter, method): (&Filter, Method),
    extension: &str,
) -> Result<Result<Partial, String>> {
    let commonest = match commonest(sample, filter) {
        Ok(commonest) => commonest,
        Err(why) => return Ok(Err(why)),
    };
    let measured = build_and_search(connection, job, table, sample.chosen(&commonest.numbers), (&commonest, method), extension);
    let measured = measured.await;
    // The connection goes on.
    pg::set(connection, "statement_timeout", "0").await?;
    pg::execute(connection, format!("DROP TABLE IF EXISTS {COPY}")).await?;
    match measured {
        Err(error) if pg::sql_state(&error).as_deref() == Some("57014") => Ok(Err("it took too long".to_owned())),
        Err(error) => error.downcast::<Stopped>().map(|stopped| Err(stopped.to_string())),
        measured => measured,
    }
}

async fn build_and_search(
    connection: &mut PgConnection,
    job: &VectorIndex,
    table: &Table,
    mut sample: Sample,
    (commonest, method): (&Commonest, Method),
    extension: &str,
) -> Result<Result<Partial, String>> {
    let from = &table.searched;
    let most = job.budget.sample.0 / from.value_bytes.max(1);
    measure::limit(connection, from, Instant::now() + TIME).await?;
    let sql = format!(
        "CREATE TEMP TABLE pgtend_part AS SELECT t.{tid} AS tid, t.{column}::{column_type} AS v FROM {relation} t WHERE {rows} AND ({condition}) LIMIT {most}",
        tid = from.tid,
        column = from.column,
        column_type = from.column_type,
        relation = from.relation,
        rows = from.rows_that_count(),
        condition = commonest.condition,
    );
    let rows =
        pg::execute_counting(connection, sql).await.map_err(pg::in_its_own_words).context("a copy of the rows of a filter")?;
    if rows == most {
        return Ok(Err("its rows are more than `sample` of `budget`".to_owned()));
    }
    pg::execute(connection, format!("ANALYZE {COPY}")).await?;
    let searched = from.copied(COPY, table.by_halfvec);
    let spec = match method {
        Method::Ivfflat => Spec::Ivfflat { lists: decide::lists_by_rule(rows as f64) },
        Method::Hnsw => decide::hnsw(job.m, job.ef_construction),
    };
    let began = Instant::now();
    let sql = format!(
        "CREATE INDEX {INDEX} ON {COPY} USING {method} ({} {}) WITH ({})",
        searched.key(""),
        qualified(extension, &table.operator_class),
        spec.options()
    );
    measure::limit(connection, &searched, began + TIME).await?;
    pg::execute_counting(connection, sql).await.map_err(pg::in_its_own_words).context("a partial index, on a copy")?;
    let build_seconds = began.elapsed().as_secs_f64();
    measure::find_truth(connection, &searched, &mut sample, job.recall.k, TIME).await?;
    if !sample.is_enough() {
        return Ok(Err(format!("only {} finished in time", units::plural(sample.len(), "exact search"))));
    }
    let mut searcher = Searcher {
        connection,
        searched: &searched,
        sample: &sample,
        k: job.recall.k,
        method,
        hidden: None,
        is_hiding: false,
        index: INDEX.to_owned(),
        deadline: Instant::now() + TIME,
        effort: Effort::of(&searched, rows as f64),
        spec,
        searches: 0,
        max_searches: u64::MAX,
        curve: Curve::default(),
    };
    let (reached, found) = searcher.least(job.recall.target, method.default_setting(), spec.max_setting()).await?;
    let condition = commonest.condition.clone();
    Ok(Ok(Partial { condition, values: commonest.values, rows, build_seconds, reached, found }))
}

/// Returns the value that most queries have, with these. The error says why an index for it is not measured. Pure.
fn commonest(sample: &Sample, filter: &Filter) -> Result<Commonest, String> {
    let mut by_condition: Vec<(String, Vec<usize>)> = Vec::new();
    for number in 0..sample.vectors.len() {
        let values = sample.values.get(number).map(Vec::as_slice).unwrap_or_default();
        let Some(condition) = filter.with(values) else { continue };
        match by_condition.iter_mut().find(|(known, _)| *known == condition) {
            Some((_, numbers)) => numbers.push(number),
            None => by_condition.push((condition, vec![number])),
        }
    }
    let values = by_condition.len();
    if values > FEW_VALUES {
        return Err(format!("searches have {values} different values"));
    }
    let asked = |numbers: &[usize]| numbers.iter().map(|number| sample.times(*number)).sum::<f64>();
    let most = by_condition.into_iter().max_by(|(_, one), (_, other)| asked(one).total_cmp(&asked(other)));
    match most {
        Some((condition, numbers)) if numbers.len() >= MIN_QUERIES => Ok(Commonest { condition, numbers, values }),
        _ => Err(format!("fewer than {MIN_QUERIES} queries have the same value")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::filter::Filters;
    use super::*;

    fn sample(tenants: &[usize]) -> Sample {
        let mut sample = Sample::default();
        for (tenant, count) in tenants.iter().enumerate() {
            for _ in 0..*count {
                sample.vectors.push("[1]".to_owned());
                sample.values.push(vec![Some(tenant.to_string())]);
            }
        }
        sample
    }

    #[test]
    fn an_index_is_measured_for_the_value_that_is_asked_for_most_where_values_are_few() {
        let filters = Filters::parse(&["tenant_id = $1".to_owned()]).unwrap();
        let of = |sample: &Sample| commonest(sample, &filters.all[0]);
        let found = of(&sample(&[10, 40, 30])).unwrap();
        assert_eq!((found.condition.as_str(), found.numbers.len(), found.values), ("tenant_id = E'1'", 40, 3));
        assert_eq!(found.numbers[0], 10);
        // How often a question was asked counts, not how many different ones there are.
        let mut asked = sample(&[40, 30]);
        asked.times = [vec![1.0; 40], vec![9.0; 30]].concat();
        assert_eq!(of(&asked).unwrap().condition, "tenant_id = E'1'");
        assert!(of(&sample(&[19, 19])).err().unwrap().contains("fewer than 20"));
        assert!(of(&sample(&[3; 51])).err().unwrap().contains("51 different values"));
        assert!(of(&sample(&[])).is_err());
    }
}
