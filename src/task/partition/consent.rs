//! Consent to retire most of a table whose key is a number: one wrong number, or a wrong unit, looks like that.

use super::calendar::Every;
use super::keys::Partition;
use crate::pg::table::with_schema;
use crate::task::consent::{self, Consent};
use crate::work::RunContext;

impl Partition {
    /// Returns what a person has agreed to; None where the job needs no consent: without `retain` nothing goes, a [retention] asks by itself,
    /// and bounds that are times are compared with the clock.
    pub(super) async fn consent(&self, run: &RunContext<'_>) -> Option<Consent> {
        let rule = self.rule()?;
        let is_given = self.agreed || consent::before(run, &rule).await.was_agreed;
        Some(Consent { rule, is_given, is_to_all: false })
    }

    /// Returns the job with the consent that was given to it, now or before.
    pub(super) async fn with_consent(&self, run: &RunContext<'_>) -> Self {
        let agreed = self.consent(run).await.is_some_and(|consent| consent.is_given);
        Self { agreed, ..self.clone() }
    }

    /// Returns whether a large loss needs consent that was not given.
    pub(super) fn lacks_consent(&self) -> bool {
        !self.agreed && self.rule().is_some()
    }

    /// Returns every key that says which partitions go.
    fn rule(&self) -> Option<String> {
        let is_of_numbers = self.epoch.is_some() || matches!(self.every, Every::Step(_));
        let retain = self.retain.filter(|_| is_of_numbers && !self.only_retires)?;
        let keys = serde_json::json!({ "every": self.every, "epoch": self.epoch, "retain": retain });
        Some(format!("partitions of {} by {}, {keys}", with_schema(&self.table), self.column))
    }
}
