//! The plan as people read it.

use std::fmt;

use super::decide::Form;
use super::keys::Method;
use super::plan::Plan;
use super::value::ValueType;
use crate::base::units;

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let about = if self.candidates.exact { "" } else { "about " };
        writeln!(
            f,
            "Values in {}.{}: {about}{} above larger_than; {about}{} to compress, {} {}, {} as stored",
            self.table.view_sql(),
            self.table.content(),
            units::count(self.candidates.above),
            units::count(self.candidates.rows),
            units::bytes(self.candidates.raw_bytes),
            if self.table.value_type() == ValueType::Text { "as text" } else { "by their size" },
            units::bytes(self.candidates.stored_bytes)
        )?;
        writeln!(f, "  {}", self.verdict)?;
        if self.candidates.too_large > 0 && self.method == Method::Gzip {
            writeln!(f, "  {about}{} above smaller_than stay as they are", units::count(self.candidates.too_large))?;
        }
        if self.measured.values > 0 {
            self.table_of_forms(f)?;
        }
        if self.verdict.saved_share().is_some() {
            let forecast = &self.forecast;
            writeln!(
                f,
                "  forecast: {} less stored; until VACUUM {} more on disk; {} of WAL, also for replicas; {:.0} s to compress",
                units::bytes(forecast.saved_bytes),
                units::bytes(forecast.disk_bytes),
                units::bytes(forecast.wal_bytes),
                forecast.write_seconds
            )?;
            writeln!(
                f,
                "  reading one: {:.1} ms now, {:.1} ms then",
                forecast.read_milliseconds_now, forecast.read_milliseconds_then
            )?;
        }
        self.priced(f)?;
        for statement in &self.settings {
            writeln!(f, "  first: {statement}")?;
        }
        if let Some(outdated) = &self.outdated {
            writeln!(f, "  {}", outdated.remark(&self.job))?;
        }
        for refusal in &self.dependants.refusals {
            writeln!(f, "  refused: {refusal}")?;
        }
        let new = self.new_doubts();
        for doubt in &self.dependants.doubts {
            let what =
                if new.contains(doubt) { "look at this (install --force accepts it)" } else { "accepted when it was installed" };
            writeln!(f, "  {what}: {doubt}")?;
        }
        for note in &self.dependants.notes {
            writeln!(f, "  {note}")?;
        }
        if self.method == Method::Gzip && self.table.view.is_none() {
            writeln!(f, "  a run compresses nothing until `pgtend compress install {}` was run", self.job)?;
        }
        writeln!(f, "  {}", self.limits)
    }
}

impl Plan {
    /// Prints what is saved of the whole table, and what readers pay for it.
    fn priced(&self, f: &mut fmt::Formatter) -> fmt::Result {
        if self.measured.values > 0 {
            self.price.lines().iter().try_for_each(|line| writeln!(f, "  {line}"))?;
        }
        if let Some(readers) = self.readers.as_ref().filter(|_| self.measured.values > 0) {
            readers.lines().iter().try_for_each(|line| writeln!(f, "  {line}"))?;
        }
        self.price.against.iter().try_for_each(|reason| writeln!(f, "  not recommended: {reason}"))
    }

    fn table_of_forms(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let measured = &self.measured;
        let values = measured.values as f64;
        writeln!(f, "  measured on {}, per row:", units::plural(measured.values as usize, "row"))?;
        let mut line = |what: &str, bytes: u64, write: Option<f64>, read: f64| {
            let write = write.map_or("-".to_owned(), |write| format!("{:.2}", write / values));
            writeln!(
                f,
                "    {what:<10} {:>10}  {:>4.0} % of stored  write {write:>6} ms  read {:>6.2} ms",
                units::bytes((bytes as f64 / values) as u64),
                100.0 * bytes as f64 / measured.stored_bytes.max(1) as f64,
                read / values
            )
        };
        line("stored now", measured.stored_bytes, None, measured.read_milliseconds)?;
        let forms: [(&str, Option<Form>); 3] = [("pglz", measured.pglz), ("lz4", measured.lz4), ("gzip", measured.gzip)];
        for (what, form) in forms {
            if let Some(form) = form {
                line(what, form.bytes, Some(form.write_milliseconds), form.read_milliseconds)?;
            }
        }
        Ok(())
    }
}
