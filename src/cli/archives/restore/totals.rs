//! What became of the batches of a restore, and counts of it.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::Serialize;

use super::Step;
use crate::base::units;

#[derive(Default)]
pub struct Totals {
    /// In the order in which they ended.
    pub batches: Vec<EndedBatch>,
    /// The warnings about code that the rows fire, each once.
    pub warned: BTreeSet<String>,
}

/// A batch, and what became of it.
#[derive(Serialize, JsonSchema)]
pub struct EndedBatch {
    pub store: String,
    pub batch: String,
    /// Where its rows go.
    pub database: String,
    /// As in SQL.
    pub table: String,
    pub outcome: Outcome,
    /// That were put back, or are back already; null where that is not known.
    pub rows: Option<u64>,
    /// Why nothing was put back; null where it was.
    pub why: Option<String>,
    #[serde(skip)]
    job: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    PutBack,
    AlreadyBack,
    /// Its rows never left, as the server was set back.
    NeverLeft,
    /// Another batch has its rows, as they were when they left the table.
    Replaced,
    Refused,
}

impl Totals {
    pub(super) fn add(&mut self, step: &Step<'_>, outcome: Outcome, rows: Option<u64>, why: Option<String>) {
        self.batches.push(EndedBatch {
            store: step.found.store_name.clone(),
            batch: step.name.to_string(),
            database: step.database.to_owned(),
            table: step.table.clone(),
            outcome,
            rows,
            why,
            job: step.manifest.job.clone(),
        });
    }

    pub(super) fn refuse(&mut self, step: &Step<'_>, why: String) {
        self.add(step, Outcome::Refused, None, Some(why));
    }

    /// Counts the rows that were put back.
    pub fn rows(&self) -> u64 {
        self.of(Outcome::PutBack).filter_map(|batch| batch.rows).sum()
    }

    /// Counts those of a job on a database.
    pub fn rows_of(&self, (database, job): &(String, String)) -> u64 {
        let batches = self.of(Outcome::PutBack).filter(|batch| (&batch.database, &batch.job) == (database, job));
        batches.filter_map(|batch| batch.rows).sum()
    }

    /// Returns what is back when the restore ends early.
    pub fn so_far(&self) -> String {
        match self.count(Outcome::PutBack) {
            0 => "nothing was put back".to_owned(),
            batches => format!(
                "put back so far: {} from {}; run it again for the rest",
                units::plural(self.rows() as usize, "row"),
                units::plural(batches, "batch")
            ),
        }
    }

    /// Returns an error that names the batches which did not go back; `None` when all did.
    pub fn refusal(&self) -> Option<anyhow::Error> {
        let refused: Vec<&str> = self.of(Outcome::Refused).filter_map(|batch| batch.why.as_deref()).collect();
        let error = || anyhow::anyhow!("{} not put back: {}", units::plural(refused.len(), "batch"), refused.join("; "));
        (!refused.is_empty()).then(error)
    }

    /// Returns what the restore has done, in a line.
    pub fn summary(&self) -> String {
        let rest = [(Outcome::AlreadyBack, "already back"), (Outcome::NeverLeft, "never left")].map(|(outcome, said)| match self
            .count(outcome)
        {
            0 => String::new(),
            count => format!("; {} {said}", units::plural(count, "batch")),
        });
        format!(
            "{} put back from {}{}",
            units::plural(self.rows() as usize, "row"),
            units::plural(self.count(Outcome::PutBack), "archive object"),
            rest.concat()
        )
    }

    fn of(&self, outcome: Outcome) -> impl Iterator<Item = &EndedBatch> {
        self.batches.iter().filter(move |batch| batch.outcome == outcome)
    }

    fn count(&self, outcome: Outcome) -> usize {
        self.of(outcome).count()
    }
}
