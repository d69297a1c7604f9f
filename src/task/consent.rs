//! Consent to a loss that looks like a mistake: a person gives it with `--yes`, to one rule of a job, and the ledger keeps it with each run.

use anyhow::Result;

use crate::base::shell::word;
use crate::ledger::RunsByRule;
use crate::ledger::report::Report;
use crate::work::RunContext;

/// A run that takes more than this percentage of a table needs consent.
pub const MUCH: f64 = 90.0;

/// The loss that a person has agreed to, now or before.
#[derive(Clone, Debug, Default)]
pub struct Consent {
    /// Every key of the job that says which rows go, as the ledger keeps it: with another rule the job counts as a new one.
    pub rule: String,
    /// Nearly all rows may go.
    pub is_given: bool,
    /// No row need stay.
    pub is_to_all: bool,
}

/// Reads what earlier runs by this rule were allowed to do. Without an answer from the ledger they are unknown, so that the job asks.
pub async fn before(run: &RunContext<'_>, rule: &str) -> RunsByRule {
    let Some(ledger) = run.ledger else { return RunsByRule::default() };
    ledger.runs_by_rule(run.job.name, run.database, rule).await.unwrap_or_else(|error| {
        tracing::warn!("{error:#}");
        RunsByRule::default()
    })
}

/// Returns the question: what would happen, and how to agree.
pub fn question(run: &RunContext<'_>, what: &str) -> String {
    format!("{what}: if this is intended, {}", how(run))
}

/// Says how to agree.
pub fn how(run: &RunContext<'_>) -> String {
    format!("confirm it once with pgtend run-job {} --database {} --yes", word(run.job.name), word(run.database))
}

impl Consent {
    /// Notes the rule in the ledger, with the consent to it if it was given: however the run ends, consent is not asked for twice.
    pub async fn note(&self, run: &RunContext<'_>) -> Result<Report> {
        let mut noted = Report::default();
        self.report(&mut noted);
        if let (true, Some(ledger), Some(id)) = (self.is_given, run.ledger, run.run_id) {
            ledger.note(id, &noted).await?;
        }
        Ok(noted)
    }

    pub fn report(&self, report: &mut Report) {
        report.fact("rule", self.rule.clone());
        if self.is_given {
            report.fact("agreed", true);
        }
        if self.is_to_all {
            report.fact("agreed_to_all", true);
        }
    }
}
