//! Counts what became of the batches of a restore.

use std::collections::{BTreeMap, BTreeSet};

use crate::base::units;

#[derive(Default)]
pub struct Totals {
    /// The rows that were put back, by database and job.
    pub rows: BTreeMap<(String, String), u64>,
    pub batches: usize,
    pub there: usize,
    /// Batches whose rows never left, as the server was set back.
    pub never_left: usize,
    /// Each refused batch comes with its reason.
    pub refused: Vec<String>,
    /// The warnings about code that the rows fire, each once.
    pub warned: BTreeSet<String>,
}

impl Totals {
    pub fn rows(&self) -> u64 {
        self.rows.values().sum()
    }

    /// Returns what is back when the restore ends early.
    pub fn so_far(&self) -> String {
        match self.batches {
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
        let refused = &self.refused;
        let error = || anyhow::anyhow!("{} not put back: {}", units::plural(refused.len(), "batch"), refused.join("; "));
        (!refused.is_empty()).then(error)
    }

    /// Returns what the restore has done, in a line.
    pub fn summary(&self) -> String {
        let mut rest = match self.there {
            0 => String::new(),
            there => format!("; {} already back", units::plural(there, "batch")),
        };
        if self.never_left > 0 {
            rest += &format!("; {} never left", units::plural(self.never_left, "batch"));
        }
        format!(
            "{} put back from {}{rest}",
            units::plural(self.rows() as usize, "row"),
            units::plural(self.batches, "archive object")
        )
    }
}
