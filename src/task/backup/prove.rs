//! Proves the set of a run by a restore, in the place that the plan has chosen.

use anyhow::Result;

use super::choose;
use super::keys::{Backup, Scratch};
use super::place::Place;
use super::plan::Plan;
use super::restore::Refusal;
use super::set::Set;
use super::verify::{self, Proof, Verified, Where};
use crate::base::fault::Kind;
use crate::pg::failure;
use crate::store::Store;
use crate::task::foreign_code;
use crate::work::{RestoresOn, RunContext};

/// Restores the set, unless its place cannot be prepared, or code in the dump would run there with rights that its owners lack while the job does
/// not trust them: then the bytes are read back, and the result has a refusal.
pub async fn by_restore(backup: &Backup, store: &Store, set: &mut Set, plan: &Plan, run: &RunContext<'_>) -> Result<Verified> {
    Proving { backup, store, plan, run }.prove(set).await
}

struct Proving<'a, 'r> {
    backup: &'a Backup,
    store: &'a Store,
    plan: &'a Plan,
    run: &'a RunContext<'r>,
}

impl Proving<'_, '_> {
    async fn prove(&self, set: &mut Set) -> Result<Verified> {
        let place = match self.plan.sweep.throwaway_folders.is_empty() {
            true => self.plan.place.clone(),
            // The folders that were swept since may have filled the disk when the place was chosen.
            false => self.choose_again().await,
        };
        let settings = place.scratch_settings(&self.run.settings);
        let scratch = Where::Scratch { settings: &settings, name: self.plan.scratch_name.clone() };
        let host = match &place {
            Place::NotAsked | Place::Source { .. } | Place::Elsewhere(_) => {
                return self.with_rights(&scratch, &place.restores_on(), set).await;
            }
            Place::Nowhere { kind, message } => {
                let refusal = Refusal { kind: Some(*kind), message: message.clone(), ..Refusal::default() };
                return self.refused(refusal, set).await;
            }
            Place::OwnServer(host) => host,
        };
        let mut verified = self.restore(&Where::OwnServer(host), set).await?;
        // Once a statement of the dump has run there, its refusal is the verdict: what failed without rights is not tried with more.
        if self.backup.scratch == Scratch::Auto
            && !verified.has_begun
            && let Some(refusal) = verified.refusal.take()
        {
            let warning = format!(
                "no PostgreSQL server of its own could be prepared for set {}, so the scratch database is on the source's server \
                 (scratch = \"same\" does that without trying the other first): {}",
                set.name, refusal.message
            );
            tracing::warn!("{warning}");
            let mut warnings = std::mem::take(&mut verified.warnings);
            warnings.push(warning);
            verified = self.with_rights(&scratch, &RestoresOn::Source { why: Some(refusal.message) }, set).await?;
            verified.warnings.splice(0..0, warnings);
        }
        Ok(verified)
    }

    /// Restores on a server that stays. The owners are asked for again: the dump may hold objects of owners who came after the search before the
    /// run, that search may not have reached the server, and the place may be another one.
    async fn with_rights(&self, place: &Where<'_>, on: &RestoresOn, set: &mut Set) -> Result<Verified> {
        let asked = foreign_code::check_restore(&self.run.settings, on, self.run.job.limits.trust_owners);
        match self.run.or_cancelled(asked).await {
            Ok(warnings) => {
                let mut verified = self.restore(place, set).await?;
                verified.warnings.extend(warnings);
                Ok(verified)
            }
            Err(error) if failure::kind_of(&error) == Some(Kind::Cancelled) => Err(error),
            Err(error) => self.refused(verify::refusal_of(&error), set).await,
        }
    }

    async fn restore(&self, place: &Where<'_>, set: &mut Set) -> Result<Verified> {
        let Backup { expect, checks, vector_indexes, rows, restore_sessions, .. } = self.backup;
        let (vector_indexes, rows, sessions) = (*vector_indexes, *rows, *restore_sessions);
        let proof = Proof { place, expect, checks, vector_indexes, rows, sessions, cancel: &self.run.cancel };
        let mut verified = verify::by_restore(self.store, set, &proof, &self.run.progress).await?;
        match verified.unrecorded.take() {
            Some(error) => Err(error),
            None => Ok(verified),
        }
    }

    /// The bytes are proved although the set is not restored: `keep` counts it by them.
    async fn refused(&self, refusal: Refusal, set: &mut Set) -> Result<Verified> {
        self.run.or_cancelled(verify::by_checksum(self.store, set, &self.run.progress)).await?;
        Ok(Verified { refusal: Some(refusal), ..Verified::default() })
    }

    async fn choose_again(&self) -> Place {
        let choosing = async {
            let mut connection = self.run.settings.connect().await?;
            choose::place(self.backup, self.run.config, &self.plan.server, &mut connection).await
        };
        choosing.await.unwrap_or_else(|error: anyhow::Error| {
            tracing::debug!("{error:#}");
            self.plan.place.clone()
        })
    }
}
