//! Numbers that are no findings: whether they are good depends on the machine and its load. They are in each report, for the one after it.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::base::units;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, sqlx::FromRow)]
pub struct Baseline {
    /// Since when the server counts.
    pub since: Option<DateTime<Utc>>,
    pub work_mem_bytes: i64,
    pub shared_buffers_bytes: i64,
    pub temp_files: i64,
    pub temp_bytes: i64,
    /// How many of the blocks that were asked for were in shared_buffers. None: none was asked for.
    pub hit_percent: Option<f64>,
    pub index_hit_percent: Option<f64>,
    /// None: pg_stat_statements is not read.
    #[sqlx(skip)]
    #[serde(default)]
    pub statements: Option<Statements>,
}

/// The statements that take most time, and those of them that only read by their text: a replica could run them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Statements {
    pub top: usize,
    pub read_only: usize,
    pub read_only_seconds: f64,
    /// The time of all statements, not only of these.
    pub seconds: f64,
}

impl Baseline {
    /// Returns names and values, as a report shows them.
    pub fn lines(&self) -> Vec<(&'static str, String)> {
        let since = self
            .since
            .map_or_else(|| "since the server counts".to_owned(), |since| format!("since {}", since.format("%Y-%m-%d")));
        let bytes = |bytes: i64| units::bytes(bytes.unsigned_abs());
        let percent =
            |percent: Option<f64>| percent.map_or_else(|| "none asked for".to_owned(), |percent| format!("{percent:.1} %"));
        let mut lines = vec![
            ("work_mem", bytes(self.work_mem_bytes)),
            ("Temporary files", format!("{}, {} {since}", units::count(self.temp_files.unsigned_abs()), bytes(self.temp_bytes))),
            ("shared_buffers", bytes(self.shared_buffers_bytes)),
            (
                "Blocks found in shared_buffers",
                format!("{}; of indexes {} ({since})", percent(self.hit_percent), percent(self.index_hit_percent)),
            ),
        ];
        lines.extend(self.statements.as_ref().map(|statements| ("Statements that only read", statements.in_words())));
        lines
    }
}

impl Statements {
    fn in_words(&self) -> String {
        let share = if self.seconds > 0.0 { 100.0 * self.read_only_seconds / self.seconds } else { 0.0 };
        format!(
            "{} of the {} that take most time, with {share:.0} % of the time of all: by their text, a replica could run them",
            self.read_only, self.top
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_baseline_says_how_much_of_the_time_could_go_to_a_replica() {
        let statements = Statements { top: 20, read_only: 14, read_only_seconds: 61.0, seconds: 100.0 };
        let baseline =
            Baseline { work_mem_bytes: 4 << 20, hit_percent: Some(99.06), statements: Some(statements), ..Baseline::default() };
        let lines = baseline.lines();
        assert_eq!(lines[3].1, "99.1 %; of indexes none asked for (since the server counts)");
        assert!(lines[4].1.starts_with("14 of the 20 that take most time, with 61 % of the time of all"), "{lines:?}");
        assert!(Statements::default().in_words().contains("with 0 %"));
    }
}
