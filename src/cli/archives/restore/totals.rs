//! What became of the batches of a restore, and counts of it.

use std::collections::BTreeSet;

use crate::base::units;
use crate::cli::outputs::runs::{BatchOutcome, EndedBatch};

#[derive(Default)]
pub struct Totals {
    /// In the order in which they ended.
    pub batches: Vec<EndedBatch>,
    /// The warnings about code that the rows fire, each once.
    pub warned: BTreeSet<String>,
}

impl Totals {
    /// Counts the rows that were put back.
    pub fn rows(&self) -> u64 {
        self.of(BatchOutcome::PutBack).filter_map(|batch| batch.rows).sum()
    }

    /// Counts those of a job on a database.
    pub fn rows_of(&self, (database, job): &(String, String)) -> u64 {
        let batches = self.of(BatchOutcome::PutBack).filter(|batch| (&batch.database, &batch.job) == (database, job));
        batches.filter_map(|batch| batch.rows).sum()
    }

    /// Returns what is back when the restore ends early.
    pub fn so_far(&self) -> String {
        match self.count(BatchOutcome::PutBack) {
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
        let refused: Vec<&str> = self.of(BatchOutcome::Refused).filter_map(|batch| batch.why.as_deref()).collect();
        let error = || anyhow::anyhow!("{} not put back: {}", units::plural(refused.len(), "batch"), refused.join("; "));
        (!refused.is_empty()).then(error)
    }

    /// Returns what the restore has done, in a line.
    pub fn summary(&self) -> String {
        let rest =
            [(BatchOutcome::AlreadyBack, "already back"), (BatchOutcome::NeverLeft, "never left")].map(|(outcome, said)| {
                match self.count(outcome) {
                    0 => String::new(),
                    count => format!("; {} {said}", units::plural(count, "batch")),
                }
            });
        format!(
            "{} put back from {}{}",
            units::plural(self.rows() as usize, "row"),
            units::plural(self.count(BatchOutcome::PutBack), "archive object"),
            rest.concat()
        )
    }

    fn of(&self, outcome: BatchOutcome) -> impl Iterator<Item = &EndedBatch> {
        self.batches.iter().filter(move |batch| batch.outcome == outcome)
    }

    fn count(&self, outcome: BatchOutcome) -> usize {
        self.of(outcome).count()
    }
}
