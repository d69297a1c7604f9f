//! Does the work of `compress install JOB` and `compress undo JOB`.

use std::fmt;

use anyhow::{Context as _, Result};
use serde::Serialize;

use super::install::{self, Installation};
use super::keys::Compress;
use super::plan::{self, Plan};
use super::table::prepare;
pub use super::undo::Keep;
use super::undo::{self, UndoPlan};
use crate::base::fault::{Fault, Kind};
use crate::base::units;
use crate::ledger::report::{Report, Unfinished};
use crate::live::governor::Go;
use crate::live::session::Session;
use crate::work::{RunContext, Work};

pub struct Install {
    pub compress: Compress,
    pub force: bool,
}

/// The state that was found and the planned statements; a refusal also shows the state.
#[derive(Debug, Serialize)]
pub struct Proposal {
    #[serde(flatten)]
    pub plan: Plan,
    pub refusal: Option<String>,
    pub installation: Option<Installation>,
}

impl fmt::Display for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}", self.plan)?;
        match &self.installation {
            Some(installation) => write!(f, "\n{installation}"),
            None => Ok(()),
        }
    }
}

impl Install {
    async fn session(&self, run: &RunContext<'_>) -> Result<Session> {
        let limits = &run.job.limits;
        let mut session = Session::open(run, limits.lock_timeout.0, limits.max_wait.0).await?;
        prepare(&mut session.connection).await?;
        Ok(session)
    }

    fn refusal_of(&self, plan: &Plan) -> Option<String> {
        if !plan.dependants.refusals.is_empty() {
            return Some(format!(
                "no view can take the place of {}: {}",
                self.compress.table,
                plan.dependants.refusals.join("; ")
            ));
        }
        if self.force {
            return None;
        }
        // Statements of applications that would fail are no reason to leave a view out of date.
        let is_again = plan.table.view.is_some();
        let doubts = if is_again { plan.new_triggers().collect() } else { plan.new_doubts() };
        if !doubts.is_empty() {
            return Some(format!("look at this first, then install with --force: {}", doubts.join("; ")));
        }
        if is_again {
            return None;
        }
        plan.verdict.saved_share().is_none().then(|| format!("not installed: {}; --force installs it anyway", plan.verdict))
    }
}

impl Work for Install {
    type Plan = Proposal;

    async fn plan(&self, run: &RunContext<'_>) -> Result<Proposal> {
        let plan = plan::make(&self.compress, run).await?;
        let refusal = self.refusal_of(&plan);
        let installation = match refusal {
            None => Some(install::plan(&mut self.session(run).await?.connection, &plan.table, &plan.dependants.doubts).await?),
            Some(_) => None,
        };
        Ok(Proposal { plan, refusal, installation })
    }

    fn refusal(&self, _run: &RunContext<'_>, proposal: &Proposal) -> Option<anyhow::Error> {
        proposal.refusal.clone().map(|refusal| Fault::new(Kind::Configuration, refusal).into())
    }

    async fn apply(&self, run: &RunContext<'_>, proposal: Proposal) -> Result<Report> {
        if let Some(refusal) = self.refusal(run, &proposal) {
            return Err(refusal);
        }
        let installation = proposal.installation.context("what is not refused is planned")?;
        let mut session = run.or_cancelled(self.session(run)).await?;
        let done = run.or_cancelled(install::apply(&mut session, &installation)).await;
        run.stop_if_cancelled(session.pid).await;
        done?;
        let what = if installation.again { "brought up to date" } else { "installed" };
        let mut report = Report {
            summary: format!(
                "{}: {what}; the table behind it is {1}: use {1} for INSERT … ON CONFLICT, TRUNCATE, indexes and ALTER TABLE, and run \
                 install again after ALTER TABLE; next: pgtend run-job {2}",
                installation.view, installation.stored, run.job.name
            ),
            ..Report::default()
        };
        report.warnings.extend(proposal.plan.price.against.iter().map(|reason| format!("not recommended: {reason}")));
        report.fact("view", installation.view.as_str());
        report.fact("table", installation.stored.as_str());
        report.fact("again", installation.again);
        report.fact("lock_waits", session.lock_waits);
        Ok(report)
    }
}

pub struct Undo {
    pub compress: Compress,
    pub keep: Keep,
}

impl Work for Undo {
    type Plan = UndoPlan;

    async fn plan(&self, run: &RunContext<'_>) -> Result<UndoPlan> {
        let undoing = undo::plan(&self.compress, run, &mut run.settings.connect().await?, self.keep).await?;
        Ok(UndoPlan { table: undoing.table.with_code_of(run), ..undoing })
    }

    async fn apply(&self, run: &RunContext<'_>, undoing: UndoPlan) -> Result<Report> {
        let mut report = Report::default();
        report.warnings.extend(undoing.wider.iter().cloned());
        let (done, stopped) = undo::apply(&self.compress, run, self.keep, &undoing, &mut report).await?;
        let values = units::plural(done.rows, "value");
        report.fact("rows", done.rows);
        report.fact("bytes", done.raw_bytes);
        report.fact("rows_changed_meanwhile", done.changed_meanwhile);
        report.fact("lock_waits", done.lock_waits);
        report.fact("view_stays", self.keep.view || stopped != Go::On);
        if let Go::Stop(reason) = stopped {
            let message = format!("text again: {values}; stopped for now: {reason}. Run it again");
            return Err(Unfinished::error(Some(Kind::Deferred), message, report));
        }
        report.summary = format!(
            "{}: {values} text again ({}){}",
            undoing.table.view_sql(),
            units::bytes(done.raw_bytes),
            if self.keep.view { "; the view stays" } else { ", and the table has its name back" }
        );
        Ok(report)
    }
}
