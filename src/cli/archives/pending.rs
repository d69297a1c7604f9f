//! Batches that a killed run left: before rows go back, the server is asked what became of them, as the job's next run would.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use tokio_util::sync::CancellationToken;

use super::find::{Batches, Place};
use crate::archive::Archive;
use crate::base::progress::Progress;
use crate::base::units;
use crate::config::Config;
use crate::ledger::Ledger;
use crate::ledger::report::Report;
use crate::run::runner::claim::{self, Subject};

/// Completes or discards the pending batches of each archive, while no run of its job is active. Returns how many archives had a batch whose
/// end is unknown: a warning says why, and the other batches are restored all the same.
pub(super) async fn complete(config: &Config, all: &Batches, progress: &Progress, cancel: &CancellationToken) -> Result<usize> {
    let places: BTreeMap<_, _> =
        all.pending.iter().map(|(place, _)| ((&place.store_name, &place.database, &place.job), place)).collect();
    let ledger = Ledger::new(config)?.map(Arc::new);
    let mut unknown = 0;
    for place in places.into_values() {
        let Place { database, job, .. } = place;
        // A configuration with another name for the database can put its rows back (--to), and not ask about them.
        let Some(configured) = config.database(database) else { continue };
        let settings = configured.owner_settings()?;
        let subject = Subject { job, database, command: "archives restore" };
        let claim = claim::exclude_runs(config, ledger.as_ref(), &subject, &settings, progress, cancel).await?;
        let mut claims = [claim];
        let recovering = async {
            let mut connection = settings.connect().await.with_context(|| format!("database `{database}`"))?;
            Archive::new(place.store.clone(), database, job).recover(&mut connection).await
        };
        let recovered = claim::while_held(&mut claims, progress, cancel, recovering).await;
        let [claim] = claims;
        let mut report = Report::default();
        if let Ok(recovered) = &recovered {
            report.summary = format!(
                "{} of a killed run completed, {} discarded",
                units::plural(recovered.completed as usize, "batch"),
                units::count(recovered.discarded)
            );
            report.fact("recovered_batches", recovered.completed);
            report.fact("discarded_batches", recovered.discarded);
            report.warnings.extend(recovered.left.iter().cloned());
            recovered.left.iter().for_each(|left| tracing::warn!("{left}"));
        }
        claim.end(Some(&report), recovered.as_ref().err()).await;
        if let Err(error) = recovered {
            if cancel.is_cancelled() {
                return Err(error);
            }
            tracing::warn!("cannot tell what became of a batch of {job} on {database}: {error:#}");
            unknown += 1;
        }
    }
    Ok(unknown)
}
