//! Plans a run, and prints the plan: what was measured, what the run would cost, and what depends on the table.

use std::fmt;

use anyhow::{Context as _, Result};
use serde::Serialize;

use super::decide::{self, Candidates, Form, Measured, Request, Target, Verdict};
use super::dependants::{self, Dependants};
use super::keys::{Compress, Method, Toast};
use super::table::{self, Table};
use super::{find, sample, toast, walk};
use crate::base::fault::{Fault, Kind};
use crate::base::units;
use crate::config::limits::Limits;
use crate::work::RunContext;

/// The WAL of a batch as a share of the bytes that it stores, as measured.
const WAL_SHARE: f64 = 1.15;

#[derive(Debug, Serialize)]
pub struct Plan {
    pub table: Table,
    pub column: String,
    pub method: Method,
    pub candidates: Candidates,
    pub measured: Measured,
    pub verdict: Verdict,
    pub forecast: Forecast,
    pub dependants: Dependants,
    /// Statements that run first.
    pub settings: Vec<String>,
    #[serde(skip)]
    job: String,
    limits: Limits,
}

/// A forecast for all values, scaled up from the sample.
#[derive(Debug, Default, Serialize)]
pub struct Forecast {
    pub saved_bytes: u64,
    /// The additional bytes until VACUUM, because new forms are written before the old ones are freed.
    pub disk_bytes: u64,
    pub wal_bytes: u64,
    pub write_seconds: f64,
    /// The time to read one value of average size in its present form, and in the new one.
    pub read_milliseconds_now: f64,
    pub read_milliseconds_then: f64,
}

pub async fn make(compress: &Compress, run: &RunContext<'_>) -> Result<Plan> {
    let mut connection = run.settings.connect().await?;
    crate::pg::set(&mut connection, "lock_timeout", "2000").await?;
    let table = find::table(compress, &mut connection).await?.with_code_of(run);
    run.is_checked(table.view.as_ref().filter(|view| !view.is_lost).map_or(table.oid, |view| view.oid))?;
    if compress.method == Method::Toast && table.view.is_some() {
        let message = format!("{} is a view for method = \"gzip\": run `pgtend compress undo` first", compress.table);
        return Err(Fault::new(Kind::Configuration, message).into());
    }
    let mut dependants = dependants::find(&mut connection, &table).await?;
    if compress.method == Method::Toast {
        dependants.keep_those_of_toast();
    }
    if table::silences_triggers(&mut connection, &table).await? {
        dependants.triggers_are_silent();
    }
    let is_begun = table.view.is_some() || walk::place(run, &table).is_some();
    let mut looks = Vec::new();
    for target in targets(compress, &table, is_begun) {
        let (candidates, measured) = sample::take(compress, &table, target, run.now.timestamp(), &mut connection).await?;
        let verdict = decide::decide(Request { target, is_begun }, &candidates, &measured);
        looks.push((forecast(&candidates, &measured, &verdict), candidates, measured, verdict));
    }
    // The form that saves most comes first; if none saves anything, the first one stays first.
    looks.sort_by_key(|(forecast, ..)| std::cmp::Reverse(forecast.saved_bytes));
    let (forecast, candidates, measured, verdict) = looks.into_iter().next().context("there is a form to be measured")?;
    let settings = match &verdict {
        Verdict::Toast { compression, .. } => toast::settings(&table, *compression),
        _ => Vec::new(),
    };
    Ok(Plan {
        forecast,
        column: compress.column.clone(),
        method: compress.method,
        candidates,
        measured,
        verdict,
        dependants,
        settings,
        job: run.job.name.to_owned(),
        limits: run.job.limits.clone(),
        table,
    })
}

/// Returns the forms to be compared. If a run was stopped midway, the form that it chose stays.
fn targets(compress: &Compress, table: &Table, is_begun: bool) -> Vec<Target> {
    let begun = if is_begun { toast::form_of(table) } else { None };
    match (compress.method, compress.compression.or(begun)) {
        (Method::Gzip, _) => vec![Target::Gzip],
        (Method::Toast, Some(compression)) => vec![Target::Toast(compression)],
        (Method::Toast, None) => vec![Target::Toast(Toast::Pglz), Target::Toast(Toast::Lz4)],
    }
}

fn forecast(candidates: &Candidates, measured: &Measured, verdict: &Verdict) -> Forecast {
    let form = match verdict {
        Verdict::Gzip { .. } => measured.gzip,
        Verdict::Toast { compression: Toast::Pglz, .. } => measured.pglz,
        Verdict::Toast { compression: Toast::Lz4, .. } => measured.lz4,
        Verdict::Nothing { .. } => None,
    };
    let Some(form) = form else { return Forecast::default() };
    let scale = candidates.stored_bytes as f64 / measured.stored_bytes.max(1) as f64;
    let then = (form.bytes as f64 * scale) as u64;
    Forecast {
        saved_bytes: candidates.stored_bytes.saturating_sub(then),
        disk_bytes: then,
        wal_bytes: (then as f64 * WAL_SHARE) as u64,
        write_seconds: form.write_milliseconds * scale / 1000.0,
        read_milliseconds_now: measured.read_milliseconds / measured.values.max(1) as f64,
        read_milliseconds_then: form.read_milliseconds / measured.values.max(1) as f64,
    }
}

/// Says that the view was dropped, and what to do.
pub fn lost(table: &str, job: &str) -> String {
    format!(
        "the view {table} was dropped, but all its rows are there: run `pgtend compress install {job}`, which creates it again"
    )
}

impl Plan {
    /// Returns why this run may not act, and what to do; None if it may.
    pub fn not_ready(&self, compress: &Compress, job: &str) -> Option<String> {
        let table = &compress.table;
        match (&self.table.view, compress.method) {
            (None, Method::Toast) if self.dependants.refusals.is_empty() => None,
            (None, Method::Toast) => Some(format!("{table} cannot be compressed: {}", self.dependants.refusals.join("; "))),
            (None, Method::Gzip) => Some(format!(
                "nothing compressed: no view stands in the place of {table} yet. Look at `pgtend compress install {job} --dry-run`, \
                 then run it without --dry-run"
            )),
            (Some(view), _) if view.is_lost => Some(lost(table, job)),
            (Some(view), _) if !view.is_whole => Some(format!(
                "the view {table} is not completely installed, or its undo has begun: run `pgtend compress install {job}` again, \
                 or finish `pgtend compress undo {job}`"
            )),
            (Some(_), _) if self.table.other_encoding.is_some() => Some(format!(
                "the values of {table} were compressed in a database with encoding {}, and this one has {}: run `pgtend compress undo \
                 {job}`, then `pgtend compress install {job}`",
                self.table.encoding,
                self.table.other_encoding.as_deref().unwrap_or_default()
            )),
            // The refusals came after the installation, and compressing would lose text or do harm now.
            (Some(_), _) if !self.dependants.refusals.is_empty() => {
                Some(format!("{table} can no longer be compressed: {}", self.dependants.refusals.join("; ")))
            }
            (Some(_), _) if self.new_triggers().next().is_some() => Some(format!(
                "nothing compressed in {table}: triggers were added after the installation; look at them, then run `pgtend compress install \
                 {job} --force`, or drop them: {}",
                self.new_triggers().collect::<Vec<_>>().join("; ")
            )),
            (Some(_), _) => None,
        }
    }

    /// Returns the doubts that no person has accepted by an installation.
    pub fn new_doubts(&self) -> Vec<String> {
        let accepted = self.table.view.as_ref().map(|view| view.accepted.as_slice()).unwrap_or_default();
        self.dependants.doubts.iter().filter(|doubt| !accepted.contains(doubt)).cloned().collect()
    }

    /// Returns those new doubts that are about triggers: these may do harm with each value that is compressed.
    pub fn new_triggers(&self) -> impl Iterator<Item = String> {
        self.new_doubts().into_iter().filter(|doubt| dependants::is_about_a_trigger(doubt))
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let about = if self.candidates.exact { "" } else { "about " };
        writeln!(
            f,
            "Values in {}.{}: {about}{} above larger_than, {} as text, {} as stored",
            self.table.view_sql(),
            self.table.content(),
            units::count(self.candidates.rows),
            units::bytes(self.candidates.raw_bytes),
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
        for statement in &self.settings {
            writeln!(f, "  first: {statement}")?;
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
