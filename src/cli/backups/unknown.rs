//! Names in `--job` and `--database` that nothing has.

use std::collections::BTreeSet;

use anyhow::Result;

use super::find::Filter;
use crate::base::fault::{Fault, Kind};
use crate::base::toml_file::did_you_mean;
use crate::cli::global::Global;
use crate::config::Config;

/// Refuses an unknown job or database as a typing error. When the jobs cannot be read, the sets alone say which names exist.
pub(super) fn refuse_unknown(
    global: &Global,
    config: &Config,
    filter: &Filter,
    (jobs_of_sets, databases_of_sets): (&BTreeSet<String>, &BTreeSet<String>),
) -> Result<()> {
    let configured: Vec<String> =
        global.load().map(|(_, folder)| folder.jobs.into_iter().map(|job| job.name).collect()).unwrap_or_default();
    let jobs: BTreeSet<String> = configured.into_iter().chain(jobs_of_sets.iter().cloned()).collect();
    let databases: BTreeSet<String> = config.databases.keys().cloned().chain(databases_of_sets.iter().cloned()).collect();
    for (what, wanted, known) in [("job", &filter.job, jobs), ("database", &filter.database, databases)] {
        let is_known = |wanted: &String| known.contains(wanted) || what == "database" && config.place(wanted).is_some();
        let Some(wanted) = wanted.as_ref().filter(|wanted| !is_known(wanted)) else { continue };
        let hint = did_you_mean(wanted, known.iter().map(String::as_str)).unwrap_or_else(|| match known.is_empty() {
            true => "there is none".to_owned(),
            false => format!("there are: {}", known.iter().cloned().collect::<Vec<_>>().join(", ")),
        });
        let message = format!("no set of a {what} `{wanted}`, and none of that name is configured; {hint}");
        return Err(Fault::new(Kind::Configuration, message).into());
    }
    Ok(())
}
