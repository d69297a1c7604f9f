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
mod give_way;
mod gzip;
mod horizon;
mod inflate;
mod install;
mod keys;
mod learn;
pub mod manual;
pub mod names;
mod pack;
mod parted;
mod plan;
mod price;
mod readers;
mod sample;
mod shown;
mod snapshots;
mod space;
mod table;
mod toast;
mod triggers;
mod undo;
mod value;
mod view_columns;
mod waiting;
mod walk;
mod without_text;

use std::fmt;

use anyhow::Result;
pub use find::without_its_view;
pub use keys::{Compress, Method, Toast, Written, resolve};
pub use names::GUARDS;
use serde::Serialize;
use sqlx::PgConnection;

use self::decide::Verdict;
use self::parted::Parted;
use self::plan::Plan;
use self::table::Table;
use crate::base::fault::{Fault, Kind};
use crate::base::units;
use crate::config::limits::Limits;
use crate::ledger::report::{Report, Unfinished};
use crate::live::governor::{self, Go, Governor};
use crate::pg;
use crate::work::{RunContext, Work};

/// The plan of a run: for a table, or for the partitions of one.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum Planned {
    Table(Box<Plan>),
    Partitions(Box<Parted>),
}

impl fmt::Display for Planned {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Table(plan) => write!(f, "{plan}"),
            Self::Partitions(parted) => write!(f, "{parted}"),
        }
    }
}

impl Work for Compress {
    type Plan = Planned;

    async fn plan(&self, run: &RunContext<'_>) -> Result<Planned> {
        let mut connection = plan::connect(run).await?;
        match parted::find(self, &mut connection).await? {
            Some(parent) => Ok(Planned::Partitions(Box::new(parted::make(self, run, &mut connection, parent).await?))),
            None => Ok(Planned::Table(Box::new(plan::make(self, run).await?))),
        }
    }

    fn refusal(&self, run: &RunContext<'_>, planned: &Planned) -> Option<anyhow::Error> {
        let reason = match planned {
            Planned::Table(plan) => plan.not_ready(self, run.job.name)?,
            Planned::Partitions(parted) => parted.not_ready(self, run.job.name)?,
        };
        Some(Fault::new(Kind::Configuration, reason).into())
    }

    async fn apply(&self, run: &RunContext<'_>, planned: Planned) -> Result<Report> {
        if let Some(refusal) = self.refusal(run, &planned) {
            return Err(refusal);
        }
        match planned {
            Planned::Table(plan) => self.one_table(run, *plan, run.job.limits).await,
            Planned::Partitions(parted) => parted::compress(self, run, *parted).await,
        }
    }
}

impl Compress {
    /// Works on one table as it is planned.
    async fn one_table(&self, run: &RunContext<'_>, plan: Plan, limits: &Limits) -> Result<Report> {
        let table = plan.table.sql();
        match self.compress(run, plan, limits).await {
            Err(error) => Err(governor::with_lock_holders(run, &table, error).await),
            report => report,
        }
    }

    async fn compress(&self, run: &RunContext<'_>, plan: Plan, limits: &Limits) -> Result<Report> {
        let mut report = Report::default();
        view_columns::bring_up_to_date(run, &plan.table, plan.outdated.as_ref(), &mut report).await?;
        if let Verdict::Nothing { reason } = &plan.verdict {
            report.fact("rows_compressed", 0);
            report.fact("rows_too_large", plan.candidates.too_large);
            report.summary = format!("nothing compressed in {}: {reason}", plan.table.view_sql());
            report.warnings.extend(plan.new_doubts());
            let mut connection = run.or_cancelled(run.settings.connect()).await?;
            run.or_cancelled(space::report(&mut connection, &plan.table, &mut report)).await?;
            return Ok(report);
        }
        let mut governor = run.or_cancelled(Governor::start(run, limits, Some(plan.table.oid))).await?;
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
    async fn may_run(&self, connection: &mut PgConnection) -> Result<String> {
        let tables = match parted::find(self, connection).await? {
            Some(parent) => parent.tables(self, connection).await?,
            None => vec![find::table(self, connection).await?],
        };
        for table in &tables {
            self.may_change(connection, table).await?;
        }
        Ok(match (self.method, tables.as_slice()) {
            (Method::Gzip, [Table { view: None, .. }]) => {
                format!("may compress {}, once `pgtend compress install` has put a view in its place", self.table)
            }
            _ => format!("may compress {}", self.table),
        })
    }

    async fn may_change(&self, connection: &mut PgConnection, table: &Table) -> Result<()> {
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
            let message = format!("GRANT {owner} TO the role: only the owner of {} may change it", table.view_sql());
            return Err(Fault::new(Kind::Permission, message).into());
        }
        let mut dependants = dependants::find(connection, table).await?;
        if self.method == Method::Toast {
            dependants.keep_those_of_toast();
        }
        if !dependants.refusals.is_empty() {
            let message = format!("{} cannot be compressed: {}", table.view_sql(), dependants.refusals.join("; "));
            return Err(Fault::new(Kind::Configuration, message).into());
        }
        Ok(())
    }
}
