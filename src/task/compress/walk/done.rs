//! What a walk has done so far, in numbers and in words.

use std::time::Duration;

use super::super::decide::Verdict;
use crate::base::units;
use crate::ledger::report::Report;

/// The number of damaged values that are named.
const DAMAGED_NAMED: usize = 20;

#[derive(Debug, Default)]
pub struct Done {
    pub rows: u64,
    /// The stored bytes before and after.
    pub before_bytes: u64,
    pub after_bytes: u64,
    pub raw_bytes: u64,
    pub batches: u64,
    /// Rows that were changed, deleted or locked since they were read, and are left alone.
    pub changed_meanwhile: u64,
    /// Rows whose other form would not be smaller.
    pub not_smaller: u64,
    pub too_large: u64,
    /// undo: rows that cannot be decoded, and the keys of the first of them.
    pub damaged: u64,
    pub damaged_named: Vec<String>,
    /// gzip: "new", "present" or "none".
    pub dictionary: Option<&'static str>,
    /// What a person should know.
    pub remarks: Vec<String>,
    pub vacuums: u64,
    /// Who kept the last VACUUM from freeing the old forms.
    pub not_freed: Option<String>,
    pub lock_waits: u64,
    pub resumed: bool,
    pub elapsed: Duration,
}

/// The result of a batch.
#[derive(Debug, Default)]
pub struct Batch {
    pub rows: u64,
    pub before_bytes: u64,
    pub after_bytes: u64,
    pub raw_bytes: u64,
    pub changed_meanwhile: u64,
    pub not_smaller: u64,
    /// The dead bytes that it left for VACUUM.
    pub dead_bytes: u64,
    /// Rows that cannot be decoded, and stay.
    pub damaged: Vec<String>,
    /// The part of its time in which it only waited for a processor: neither its size nor the pause after it goes by that.
    pub waited: Duration,
}

impl Done {
    pub fn report(&self, report: &mut Report) {
        report.fact("rows_compressed", self.rows);
        report.fact("bytes_before", self.before_bytes);
        report.fact("bytes_after", self.after_bytes);
        report.fact("raw_bytes", self.raw_bytes);
        report.fact("batches", self.batches);
        report.fact("rows_changed_meanwhile", self.changed_meanwhile);
        report.fact("rows_not_smaller", self.not_smaller);
        report.fact("rows_too_large", self.too_large);
        if let Some(dictionary) = self.dictionary {
            report.fact("dictionary", dictionary);
        }
        report.warnings.extend(self.remarks.iter().cloned());
        report.fact("lock_waits", self.lock_waits);
        report.fact("vacuums", self.vacuums);
        report.fact("resumed", self.resumed);
        report.fact("elapsed_seconds", self.elapsed.as_secs_f64());
        if let Some(not_freed) = &self.not_freed {
            report.warnings.push(format!("{not_freed}: run VACUUM when that has ended, or leave it to autovacuum"));
            report.fact("not_freed", not_freed.clone());
        }
        if self.elapsed > Duration::ZERO && self.rows > 0 {
            report.fact("megabytes_per_second", (self.raw_bytes as f64 / 1e5 / self.elapsed.as_secs_f64()).round() / 10.0);
        }
    }

    pub fn summary(&self, table: &str, verdict: &Verdict) -> String {
        let how = match verdict {
            Verdict::Toast { compression, .. } => format!("rewritten with {compression}"),
            _ => "compressed".to_owned(),
        };
        let mut text = match self.rows {
            0 => format!("nothing compressed in {table}"),
            rows => format!("{} of {table} {how}", units::plural(rows, "value")),
        };
        if self.rows > 0 {
            let share = 100.0 * self.after_bytes as f64 / self.before_bytes.max(1) as f64;
            text +=
                &format!(": {} stored became {} ({share:.0} %)", units::bytes(self.before_bytes), units::bytes(self.after_bytes));
        }
        for (count, why) in [
            (self.changed_meanwhile, "changed or locked meanwhile, left for the next run"),
            (self.not_smaller, "left as they are: not smaller"),
            (self.too_large, "left as they are: above smaller_than"),
        ] {
            if count > 0 {
                text += &format!("; {} {why}", units::count(count));
            }
        }
        text
    }

    /// Adds the result of a batch.
    pub fn add(&mut self, batch: &Batch) {
        self.rows += batch.rows;
        self.before_bytes += batch.before_bytes;
        self.after_bytes += batch.after_bytes;
        self.raw_bytes += batch.raw_bytes;
        self.changed_meanwhile += batch.changed_meanwhile;
        self.not_smaller += batch.not_smaller;
        self.damaged += batch.damaged.len() as u64;
        let room = DAMAGED_NAMED.saturating_sub(self.damaged_named.len());
        self.damaged_named.extend(batch.damaged.iter().take(room).cloned());
        self.batches += u64::from(batch.rows > 0);
    }
}
