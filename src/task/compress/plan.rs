//! Plans a run: what was measured, what the run would cost, who would pay for it, and what depends on the table.

use anyhow::{Context as _, Result};
use serde::Serialize;

use sqlx::PgConnection;

use super::decide::{self, Candidates, Measured, Request, Target, Verdict};
use super::dependants::{self, Dependants};
use super::keys::{Compress, Method, Toast};
use super::price::{Price, price};
use super::readers::{self, Readers};
use super::table::{self, Table};
use super::view_columns::{self, Outdated};
use super::{find, sample, toast, walk};
use crate::base::fault::{Fault, Kind};
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
    pub price: Price,
    pub readers: Option<Readers>,
    pub dependants: Dependants,
    /// The columns by which the view is out of date.
    pub outdated: Option<Outdated>,
    /// Statements that run first.
    pub settings: Vec<String>,
    #[serde(skip)]
    pub(super) job: String,
    pub(super) limits: Limits,
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
    let mut connection = connect(run).await?;
    let table = find::table(compress, &mut connection).await?.with_code_of(run);
    run.is_checked(table.view.as_ref().filter(|view| !view.is_lost).map_or(table.oid, |view| view.oid))?;
    if compress.method == Method::Toast && table.view.is_some() {
        let message = format!("{} is a view for method = \"gzip\": run `pgtend compress undo` first", compress.table);
        return Err(Fault::new(Kind::Configuration, message).into());
    }
    let is_begun = table.view.is_some() || walk::place(run, &table).is_some();
    let begun = if is_begun { toast::form_of(&table.text_column.compression) } else { None };
    let mut looks = Vec::new();
    for target in targets(compress, begun) {
        looks.push(Look::at(&mut connection, compress, run, &table, target, 1.0).await?);
    }
    // The form that saves most comes first; if none saves anything, the first one stays first.
    looks.sort_by_key(|look| std::cmp::Reverse(look.saves()));
    let look = looks.into_iter().next().context("there is a form to be measured")?;
    of(&mut connection, compress, run, table, look).await
}

/// Opens a connection for planning.
pub async fn connect(run: &RunContext<'_>) -> Result<PgConnection> {
    let mut connection = run.settings.connect().await?;
    crate::pg::set(&mut connection, "lock_timeout", "2000").await?;
    Ok(connection)
}

/// Plans the work on a table in the form of `look`.
pub async fn of(
    connection: &mut PgConnection,
    compress: &Compress,
    run: &RunContext<'_>,
    table: Table,
    look: Look,
) -> Result<Plan> {
    let Look { target, candidates, measured, verdict, forecast } = look;
    let mut dependants = dependants::find(connection, &table).await?;
    dependants::refuse_shared_text(connection, &table, &mut dependants).await?;
    if compress.method == Method::Toast {
        dependants.keep_those_of_toast();
    }
    if table::silences_triggers(connection, &table).await? {
        dependants.triggers_are_silent();
    }
    let (mut readers, mut outdated) = (None, None);
    if compress.method == Method::Gzip {
        readers = Some(readers::find(connection, &table).await?);
        outdated = view_columns::outdated(connection, &table).await?;
    }
    let gzip = measured.gzip.filter(|_| target == Target::Gzip);
    let nobody = Readers::default();
    let price = price(table.bytes, &candidates, &measured, gzip, forecast.saved_bytes, readers.as_ref().unwrap_or(&nobody));
    let settings = match &verdict {
        Verdict::Toast { compression, .. } => toast::settings(&table, *compression),
        _ => Vec::new(),
    };
    Ok(Plan {
        forecast,
        price,
        readers,
        outdated,
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
pub fn targets(compress: &Compress, begun: Option<Toast>) -> Vec<Target> {
    match (compress.method, compress.compression.or(begun)) {
        (Method::Gzip, _) => vec![Target::Gzip],
        (Method::Toast, Some(compression)) => vec![Target::Toast(compression)],
        (Method::Toast, None) => vec![Target::Toast(Toast::Pglz), Target::Toast(Toast::Lz4)],
    }
}

/// What a table's values are, and what one form would make of them.
pub struct Look {
    pub target: Target,
    candidates: Candidates,
    measured: Measured,
    pub verdict: Verdict,
    forecast: Forecast,
}

impl Look {
    /// `share` is the part of a look's effort that is for this table.
    pub async fn at(
        connection: &mut PgConnection,
        compress: &Compress,
        run: &RunContext<'_>,
        table: &Table,
        target: Target,
        share: f64,
    ) -> Result<Self> {
        let seed = run.now.timestamp();
        let (candidates, measured) = sample::take(compress, table, target, (seed, share), connection).await?;
        let is_begun = table.view.is_some() || walk::place(run, table).is_some();
        let request = Request { target, minimum_gain: compress.minimum_gain, table_bytes: table.bytes, is_begun };
        let verdict = decide::decide(request, &candidates, &measured);
        Ok(Self { forecast: forecast(target, &candidates, &measured), target, candidates, measured, verdict })
    }

    /// Returns the bytes that a run would save.
    pub fn saves(&self) -> u64 {
        if self.verdict.saved_share().is_some() { self.forecast.saved_bytes } else { 0 }
    }
}

fn forecast(target: Target, candidates: &Candidates, measured: &Measured) -> Forecast {
    let Some(form) = measured.form(target) else { return Forecast::default() };
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
