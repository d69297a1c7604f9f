//! `[compress]` stores large text in less space, without any change for those who read it.
//!
//! `method = "toast"` rewrites values with another of PostgreSQL's own compression methods. `method = "gzip"` keeps them in a
//! companion column behind a view that `pgtend compress install` made: a text is removed only after its compressed form was
//! decoded and compared, and only while the row is the one that was read.
//!
//! An interruption leaves rows in either form, each of them whole, because every batch is a transaction.

mod decide;
mod decoder;
mod definition;
mod dependants;
mod dictionary;
mod entry;
mod find;
mod gzip;
mod inflate;
mod install;
mod keys;
mod learn;
pub mod manual;
pub mod names;
mod pack;
mod plan;
mod sample;
mod snapshots;
mod space;
mod table;
mod toast;
mod triggers;
mod undo;
mod walk;

use anyhow::Result;
pub use find::{base_of, without_its_view};
pub use keys::{Compress, Method, Toast, Written, resolve};
pub use names::GUARDS;
pub use plan::Plan;

use self::decide::Verdict;
use crate::base::fault::{Fault, Kind};
use crate::base::units;
use crate::ledger::report::{Report, Unfinished};
use crate::live::governor::{self, Go, Governor};
use crate::pg;
use crate::work::{RunContext, Work};

impl Work for Compress {
    type Plan = Plan;

    async fn plan(&self, run: &RunContext<'_>) -> Result<Plan> {
        plan::make(self, run).await
    }

    fn refusal(&self, run: &RunContext<'_>, plan: &Plan) -> Option<anyhow::Error> {
        let reason = plan.not_ready(self, run.job.name)?;
        Some(Fault::new(Kind::Configuration, reason).into())
    }

    async fn apply(&self, run: &RunContext<'_>, plan: Plan) -> Result<Report> {
        let table = plan.table.sql();
        match self.compress(run, plan).await {
            Err(error) => Err(governor::with_lock_holders(run, &table, error).await),
            report => report,
        }
    }
}

impl Compress {
    async fn compress(&self, run: &RunContext<'_>, plan: Plan) -> Result<Report> {
        if let Some(refusal) = self.refusal(run, &plan) {
            return Err(refusal);
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
        let mut governor = run.or_cancelled(Governor::start(run, run.job.limits, Some(plan.table.oid))).await?;
        let phase = run.progress.phase("compress", Some(plan.candidates.stored_bytes));
        let mut done = walk::Done::default();
        let walk = walk::Walk { compress: self, table: &plan.table, run, phase: &phase };
        let stopped = match &plan.verdict {
            Verdict::Gzip { .. } => gzip::change_all(&walk, plan.candidates.raw_bytes, &mut governor, &mut done).await?,
            Verdict::Toast { compression, .. } => toast::change_all(&walk, *compression, &mut governor, &mut done).await?,
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
                return Err(Unfinished::error(Some(Kind::Deferred), message, report));
            }
            report.summary += &format!("; stopped for now: {reason}");
            report.warnings.push(format!("stopped for now: {reason}; the next run goes on"));
            report.fact("stopped", reason);
        }
        Ok(report)
    }

    /// Checks, for `check --connect`, whether the role may do it.
    async fn may_run(&self, connection: &mut sqlx::PgConnection) -> Result<String> {
        let table = find::table(self, connection).await?;
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
