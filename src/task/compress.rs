//! `[compress]`: large text takes less room, and whoever reads it notices nothing.
//!
//! `method = "toast"` writes bodies anew in a smaller form of PostgreSQL's own. `method = "gzip"` keeps them in a companion
//! column behind a view that `pgtend compress install` made: text goes only after its compressed form was decoded and compared,
//! and only while the row is the one that was read.
//!
//! What an interruption leaves behind: rows in either form, each whole, as every batch is a transaction.

pub mod by_hand;
mod decide;
mod definition;
mod dependants;
mod gzip;
mod install;
mod plan;
mod sample;
mod snapshots;
mod space;
mod table;
mod toast;
mod triggers;
mod undo;
mod walk;

pub use install::GUARDS;
pub use plan::Plan;
pub use table::{base_of, without_its_view};

use std::fmt;

use anyhow::Result;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use toml::Spanned;

use self::decide::Verdict;
use self::table::{find, prepare};
use crate::fault::{Fault, Kind};
use crate::governor::{self, Go, Governor};
use crate::job::Checker;
use crate::pg;
use crate::report::{Report, Unfinished};
use crate::task::{RunContext, Work};
use crate::units::{self, Size};

/// As the audit has it: TOAST's pglz does well enough below.
const LARGER_THAN: Size = Size(10_000);
/// PL/pgSQL reads about 4 MB a second: a third of a second for one of these (docs/benchmarks.md).
const SMALLER_THAN: Size = Size(1_000_000);
/// Smaller values are not toasted, and so not compressed by PostgreSQL.
const TOAST_LEAST: u64 = 2_000;
/// A field holds no more.
const MOST: u64 = 1 << 30;
/// Read through the view, one of these takes a quarter of a minute; compressing it takes three times its size in memory.
const GZIP_MOST: u64 = 64_000_000;

/// `[compress]`, resolved.
#[derive(Clone, Debug)]
pub struct Compress {
    pub table: String,
    pub column: String,
    pub larger_than: Size,
    pub smaller_than: Size,
    pub method: Method,
    pub compression: Option<Toast>,
    pub vacuum: bool,
}

/// `[compress]` as written.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Written {
    /// As in SQL: `public.scripts`, `"Odd Name"`. It keeps that name when a view takes its place.
    pub table: String,
    /// Its large text: text or varchar.
    pub column: String,
    /// "gzip": in a companion column, behind a view; "toast": by PostgreSQL itself.
    pub method: Method,
    /// Bodies above this; at least 2 kB; default "10KB".
    #[schemars(with = "Option<Size>")]
    pub larger_than: Option<Spanned<Size>>,
    /// gzip: bodies above this stay, as reading them through the view takes long; at most 64 MB; default "1MB".
    #[schemars(with = "Option<Size>")]
    pub smaller_than: Option<Spanned<Size>>,
    /// toast: "pglz" or "lz4"; default whichever is smaller.
    #[schemars(with = "Option<Toast>")]
    pub compression: Option<Spanned<Toast>>,
    /// VACUUM (not FULL) between batches, so that the space is used again at once; default true.
    pub vacuum: Option<bool>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    Gzip,
    Toast,
}

/// Of TOAST's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Toast {
    Pglz,
    Lz4,
}

impl fmt::Display for Toast {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Self::Pglz => "pglz",
            Self::Lz4 => "lz4",
        })
    }
}

pub fn resolve(written: Written, checker: &mut Checker<'_>) -> Option<Compress> {
    let mut good = true;
    let larger_than = written.larger_than.as_ref().map_or(LARGER_THAN, |size| *size.get_ref());
    let default = SMALLER_THAN.0.max(larger_than.0.saturating_mul(10)).min(GZIP_MOST);
    let smaller_than = written.smaller_than.as_ref().map_or(default, |size| size.get_ref().0);
    if let Some(size) = written.larger_than.as_ref().filter(|size| size.get_ref().0 < TOAST_LEAST) {
        checker.problem(
            size,
            "`larger_than` is below 2 kB",
            "PostgreSQL keeps such values in the row; \"10KB\" is a good start".to_owned(),
        );
        good = false;
    }
    if let Some(size) = written.smaller_than.as_ref().filter(|size| size.get_ref().0 <= larger_than.0) {
        checker.problem(size, "`smaller_than` leaves nothing between", "more than `larger_than`".to_owned());
        good = false;
    }
    if let Some(size) = written.smaller_than.as_ref().filter(|size| size.get_ref().0 > GZIP_MOST) {
        let hint = "at most \"64MB\", which takes a quarter of a minute to read through the view".to_owned();
        checker.problem(size, "`smaller_than` is too large", hint);
        good = false;
    }
    if let (Method::Gzip, None, Some(size)) = (written.method, &written.smaller_than, &written.larger_than)
        && size.get_ref().0 >= GZIP_MOST
    {
        checker.problem(size, "`larger_than` leaves nothing", "with method = \"gzip\", less than \"64MB\"".to_owned());
        good = false;
    }
    if let (Method::Toast, Some(size)) = (written.method, &written.smaller_than) {
        checker.problem(size, "`smaller_than` has no meaning for method = \"toast\"", "leave it out".to_owned());
        good = false;
    }
    if let (Method::Gzip, Some(compression)) = (written.method, &written.compression) {
        checker.problem(compression, "`compression` has no meaning for method = \"gzip\"", "leave it out".to_owned());
        good = false;
    }
    good.then_some(Compress {
        table: written.table,
        column: written.column,
        larger_than,
        smaller_than: Size(if written.method == Method::Gzip { smaller_than } else { MOST }),
        method: written.method,
        compression: written.compression.map(Spanned::into_inner),
        vacuum: written.vacuum.unwrap_or(true),
    })
}

impl Work for Compress {
    type Plan = Plan;

    async fn plan(&self, run: &RunContext<'_>) -> Result<Plan> {
        plan::make(self, run).await
    }

    async fn apply(&self, run: &RunContext<'_>, plan: Plan) -> Result<Report> {
        let table = plan.table.sql();
        match self.compress(run, plan).await {
            Err(error) => Err(governor::naming_holders(run, &table, error).await),
            report => report,
        }
    }
}

impl Compress {
    async fn compress(&self, run: &RunContext<'_>, plan: Plan) -> Result<Report> {
        if let Some(reason) = plan.not_ready(self, &run.job.name) {
            return Err(Fault::new(Kind::Configuration, reason).into());
        }
        let mut report = Report::default();
        if let Verdict::Nothing { reason } = &plan.verdict {
            report.fact("rows_compressed", 0);
            report.fact("rows_too_large", plan.candidates.too_large);
            report.summary = format!("nothing compressed in {}: {reason}", plan.table.view_sql());
            report.warnings.extend(plan.new_doubts());
            let mut connection = run.or_cancelled(run.settings.connect()).await?;
            run.or_cancelled(space::report(&mut connection, &plan.table, &mut report)).await?;
            return Ok(report);
        }
        let mut governor = run.or_cancelled(Governor::start(run, &run.job.limits, Some(plan.table.oid))).await?;
        let phase = run.progress.phase("compress", Some(plan.candidates.stored_bytes));
        let mut done = walk::Done::default();
        let work = walk::Work { compress: self, table: &plan.table, run, phase: &phase };
        let stopped = match &plan.verdict {
            Verdict::Gzip { .. } => gzip::all(&work, &mut governor, &mut done).await?,
            Verdict::Toast { compression, .. } => toast::all(&work, *compression, &mut governor, &mut done).await?,
            Verdict::Nothing { .. } => Go::On,
        };
        phase.done(&units::plural(done.rows as usize, "row"));
        done.report(&mut report);
        report.warnings.extend(plan.new_doubts());
        governor.report(&mut report);
        let mut connection = run.or_cancelled(run.settings.connect()).await?;
        run.or_cancelled(space::report(&mut connection, &plan.table, &mut report)).await?;
        report.summary = done.summary(&plan.table.view_sql(), &plan.verdict);
        if let Go::Stop(reason) = stopped {
            if done.rows == 0 && governor.is_strained() {
                let message = format!("nothing was compressed: {reason}");
                return Err(Unfinished { kind: Some(Kind::NotNow), message, report }.into());
            }
            report.summary += &format!("; stopped for now: {reason}");
            report.warnings.push(format!("stopped for now: {reason}; the next run goes on"));
            report.fact("stopped", reason);
        }
        Ok(report)
    }

    /// Whether the role may do it, for `check --connect`, whose connection is others' too.
    pub async fn check(&self, connection: &mut sqlx::PgConnection) -> Result<String> {
        self.may(connection).await
    }

    async fn may(&self, connection: &mut sqlx::PgConnection) -> Result<String> {
        let table = table::find(self, connection).await?;
        let (may_write, is_owner): (bool, bool) = sqlx::query_as(
            "SELECT has_table_privilege($1::bigint::oid, 'SELECT') AND has_table_privilege($1::bigint::oid, 'UPDATE'),
                    pg_has_role($2::name, 'USAGE')",
        )
        .bind(table.oid)
        .bind(&table.owner)
        .fetch_one(&mut *connection)
        .await?;
        if !may_write || (!is_owner && (self.method == Method::Toast || table.view.is_none())) {
            let owner = pg::identifier(&table.owner);
            let message = format!("GRANT {owner} TO the role: only the owner of {} may change it", self.table);
            return Err(Fault::new(Kind::Permission, message).into());
        }
        let mut dependants = dependants::find(connection, &table).await?;
        if self.method == Method::Toast {
            dependants.keep_those_of_toast();
        }
        if !dependants.refusals.is_empty() {
            let message = format!("{} cannot be compressed: {}", self.table, dependants.refusals.join("; "));
            return Err(Fault::new(Kind::Configuration, message).into());
        }
        Ok(match (self.method, &table.view) {
            (Method::Gzip, None) => {
                format!("may compress {}, once `pgtend compress install` has put a view in its place", self.table)
            }
            _ => format!("may compress {}", self.table),
        })
    }
}
