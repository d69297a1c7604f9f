//! `run-job --unless-within`: a run that is not needed does not begin, and leaves no row in the ledger.

use anyhow::{Context as _, Result};

use crate::base::fault::{Fault, Kind};
use crate::base::terminal::say;
use crate::base::units::{self, Span};
use crate::config::Config;
use crate::pg::failure;
use crate::run::job::Job;
use crate::task::backup::{Backup, gate};

/// Returns the databases of which the job's store holds no set of this job that is recent enough. In doubt, the run is needed.
pub async fn needed(config: &Config, job: &Job, databases: Vec<String>, within: Span) -> Result<Vec<String>> {
    let makes_none = || {
        let message = format!("--unless-within asks for a recent set, and job `{}` makes none: it has no [backup]", job.name);
        Fault::new(Kind::Configuration, message)
    };
    let mut needed = Vec::new();
    for database in databases {
        let task = job.task_on(config, &database);
        let backup = task.as_a::<Backup>().with_context(makes_none)?;
        match gate::ask_for_job(config, backup, &job.name, &database, within).await {
            Ok(gate::Answer { is_met: true, newest: Some(newest), now, .. }) => {
                let ago = units::age(newest.began_at, now);
                say(&format!(
                    "pgtend: {} on {database}: {} in {} began {ago} ago, within {within}: nothing to do",
                    job.name, newest.set, newest.store
                ));
            }
            Ok(_) => needed.push(database),
            Err(error) => {
                tracing::warn!(
                    "{} on {database}: cannot tell whether there is a set within {within}, so it runs: {}",
                    job.name,
                    failure::in_a_line(&error)
                );
                needed.push(database);
            }
        }
    }
    Ok(needed)
}
