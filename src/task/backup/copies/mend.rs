//! Copies what single stores of a run lack, after the run's own set is complete.

use anyhow::Result;

use super::copy::Copy;
use super::target::Target;
use crate::base::fault::Kind;
use crate::pg::failure;
use crate::work::RunContext;

/// Copies into each store that took the set of this run what it lacks of earlier ones. Returns warnings: a copy that failed leaves the run's
/// own set as good as it is.
pub async fn mend(targets: &mut [Target], run: &RunContext<'_>) -> Result<Vec<String>> {
    let mut warnings = Vec::new();
    for into in 0..targets.len() {
        for lacking in targets[into].lacks.clone() {
            let from = targets.iter().find(|target| target.name() == lacking.from && target.is_good());
            let (Some(from), true) = (from, targets[into].is_good()) else { continue };
            let to = &targets[into];
            let copy = Copy {
                set: &lacking.copied,
                from: (from.name(), &from.store),
                to: (to.name(), &to.store),
                unsigned_ok: false,
                // The run has the job's lock: no other writes sets of it.
                runs_are_over: run.run_id.is_some(),
            };
            match copy.apply(&run.progress, &run.cancel).await {
                Ok(_) => {
                    tracing::info!("copied {} from {} to {}, which lacked it", lacking.set, lacking.from, targets[into].name());
                    targets[into].copied.push(lacking.set);
                }
                Err(error) if failure::kind_of(&error) == Some(Kind::Cancelled) => return Err(error),
                Err(error) => warnings.push(format!(
                    "{} lacks {}, and it could not be copied there from {}: {}",
                    targets[into].name(),
                    lacking.set,
                    lacking.from,
                    failure::in_a_line(&error)
                )),
            }
        }
    }
    Ok(warnings)
}
