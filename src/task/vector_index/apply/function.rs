//! Installs the function by which applications search an index on bits, once it was tested: it finds what was measured.

use std::time::Instant;

use anyhow::{Context as _, Result};
use serde_json::Value;
use sqlx::{PgConnection, Row as _};

use super::Worker;
use crate::ledger::report::Failure;
use crate::live::indexes;
use crate::pg::table::proof;
use crate::pg::{self, identifier};
use crate::task::vector_index::function::{Function, Installed};
use crate::task::vector_index::kind::Method;
use crate::task::vector_index::measure::{self, Sample};
use crate::task::vector_index::{search, setting};

/// Queries of the test, and rounds of which the fastest counts.
const QUERIES: u32 = 20;
const ROUNDS: usize = 3;
/// The share of rows that may be farther than those of the measurement: others may write meanwhile.
const MAY_DIFFER: f64 = 0.05;

impl Worker<'_> {
    /// Makes the function search with as many candidates as were found to be enough, where there is an index.
    pub(super) async fn install_function(&mut self) -> Result<Option<Failure>> {
        let is_there = self.report_values.swapped || self.part.table.index.as_ref().is_some_and(|index| index.is_valid);
        if !is_there {
            return Ok(None);
        }
        let candidates = self.report_values.after.as_ref().map_or(self.part.setting, |after| after.setting);
        let mut connection = self.run.or_cancelled(indexes::connect(self.run)).await?;
        let installed = self.run.or_cancelled(self.install(&mut connection, candidates)).await?;
        self.report_values.summary += &format!(
            "; applications search with {}, in {:.2} ms: the {candidates} nearest by their bits, ordered by the vectors themselves",
            installed.statement, installed.ms
        );
        self.report_values.function = Some(installed);
        Ok(None)
    }

    /// Makes and tests the function in one transaction: nobody sees one that was not tested.
    async fn install(&self, connection: &mut PgConnection, candidates: u32) -> Result<Installed> {
        let table = &self.part.table;
        let function = Function::of(table);
        setting::load(connection, self.extension).await?;
        let mut sample = measure::sample(connection, &table.searched, &[], QUERIES, table.vectors()).await?;
        sample.tids = vec![None; sample.vectors.len()];
        sqlx::query("BEGIN").execute(&mut *connection).await?;
        let checked = proof(self.run.checked());
        if !checked.is_empty() {
            pg::execute(connection, checked).await?;
        }
        pg::execute(connection, table.searched.proof.clone()).await?;
        let is_new = function.candidates(connection, table).await?.is_none();
        let made = pg::execute_counting(connection, function.definition(table, candidates)).await.map_err(pg::in_its_own_words);
        made.with_context(|| format!("making the function {}", function.name))?;
        if is_new && table.facts.is_superuser {
            let owner: String =
                sqlx::query_scalar("SELECT pg_get_userbyid(relowner)::text FROM pg_class WHERE oid = $1::bigint::oid")
                    .bind(table.facts.oid)
                    .fetch_one(&mut *connection)
                    .await?;
            pg::execute(connection, format!("ALTER FUNCTION {} OWNER TO {}", function.signature(), identifier(&owner))).await?;
        }
        pg::execute(connection, function.comment(&table.index_name, candidates)).await?;
        let ms = self.test(connection, &function, &sample, candidates).await?;
        sqlx::query("COMMIT").execute(&mut *connection).await?;
        let statement = function.statement(self.job.recall.k);
        Ok(Installed { name: function.name, candidates, ms, statement })
    }

    /// Compares what the function finds with what the measured statement finds. Returns the milliseconds of a search.
    async fn test(&self, connection: &mut PgConnection, function: &Function, sample: &Sample, candidates: u32) -> Result<f64> {
        let (table, k) = (&self.part.table, self.job.recall.k);
        let deadline = Instant::now() + self.job.recall.time.0;
        search::by_index_alone(connection, Method::Hnsw, candidates, k).await?;
        measure::limit(connection, &table.searched, deadline).await?;
        let measured = table.searched.statement(k, candidates);
        let expected = measure::distances(connection, &measured, sample, 0..sample.vectors.len()).await?;
        search::as_an_application(connection, Method::Hnsw, Method::Hnsw.default_setting()).await?;
        let sql = function.distances(table, k + 1);
        let rows =
            pg::query(sql.clone()).bind(&sample.vectors).fetch_all(&mut *connection).await.map_err(pg::in_its_own_words)?;
        let found: Vec<Vec<Option<f64>>> = rows.iter().map(|row| row.try_get(0)).collect::<Result<_, sqlx::Error>>()?;
        let farther = share_of_farther(&found, &expected, table.searched.unit());
        anyhow::ensure!(
            farther <= MAY_DIFFER,
            "the function {} finds other rows than its statement does: {:.1} % are farther away; it was not installed",
            function.name,
            farther * 100.0
        );
        let mut ms = f64::MAX;
        for _ in 0..ROUNDS {
            measure::limit(connection, &table.searched, deadline).await?;
            let explain = format!("EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) {sql}");
            let row = pg::query(explain).bind(&sample.vectors).fetch_one(&mut *connection).await.map_err(pg::in_its_own_words)?;
            let plan: Value = row.try_get(0)?;
            ms = ms.min(plan[0]["Execution Time"].as_f64().unwrap_or(f64::MAX) / sample.vectors.len().max(1) as f64);
        }
        Ok(ms)
    }
}

/// Returns the share of expected rows in whose place the function found a farther one, or none. Pure.
fn share_of_farther(found: &[Vec<Option<f64>>], expected: &[Vec<Option<f64>>], unit: f64) -> f64 {
    let (mut farther, mut all) = (0_usize, 0_usize);
    for (number, expected) in expected.iter().enumerate() {
        for (place, expected) in expected.iter().enumerate() {
            let Some(expected) = expected else { continue };
            let there = found.get(number).and_then(|found| found.get(place).copied().flatten());
            all += 1;
            farther += usize::from(there.is_none_or(|there| there > expected + 1e-6 * expected.abs().max(unit)));
        }
    }
    farther as f64 / all.max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_function_that_finds_farther_rows_or_fewer_is_told_from_one_that_finds_the_same() {
        let expected = vec![vec![Some(0.1), Some(0.2)], vec![Some(0.3), None]];
        assert!(share_of_farther(&expected, &expected, 1.0) < 1e-9);
        assert!(share_of_farther(&[vec![Some(0.1), Some(0.15)], vec![Some(0.3)]], &expected, 1.0) < 1e-9);
        assert!((share_of_farther(&[vec![Some(0.1)], vec![Some(0.4)]], &expected, 1.0) - 2.0 / 3.0).abs() < 1e-9);
        assert!(share_of_farther(&[], &[], 1.0) < 1e-9);
    }
}
