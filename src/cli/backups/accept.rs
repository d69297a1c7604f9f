//! `pgtend backups accept`: a person says what pgtend cannot know.

use std::process::ExitCode;

use anyhow::{Context as _, Result};
use chrono::Utc;
use clap::Args;

use super::{Filter, find, stores};
use crate::cli::Global;
use crate::cli::output::print;
use crate::fault::{Fault, Kind};
use crate::task::backup::latest::Choice;
use crate::task::backup::markers::HOLD;
use crate::task::backup::series::{Accepted, Identity, Series};
use crate::task::backup::set;

#[derive(Debug, Args)]
pub struct Arguments {
    /// A set whose dump lost tables, or shrank: the set before it is no longer held for that
    #[arg(required_unless_present = "identity", conflicts_with = "identity")]
    set: Option<String>,
    #[command(flatten)]
    filter: Filter,
    /// A server, SYSTEM_IDENTIFIER/DATABASE as messages name it, whose sets belong to whoever backs up under these names now
    /// (after an upgrade, a migration, a disaster); with the present server's own, that it carries on although it went back in time
    #[arg(long, value_name = "IDENTITY")]
    identity: Option<String>,
}

pub async fn run(global: &Global, arguments: &Arguments) -> Result<ExitCode> {
    match (&arguments.identity, &arguments.set) {
        (Some(identity), _) => accept_identity(global, identity, &arguments.filter).await,
        (None, Some(set)) => accept_loss(global, set, &arguments.filter).await,
        (None, None) => anyhow::bail!("name a set, or an --identity"),
    }
}

async fn accept_loss(global: &Global, wanted: &str, filter: &Filter) -> Result<ExitCode> {
    let config = global.load_config()?;
    let found = find(&config, wanted, filter, &Choice { older_ok: true, ..Choice::default() }).await?;
    let name = found.set.name.to_string();
    let listing = set::list(&found.store, &set::folder(&found.set.name.database, &found.set.name.job)).await?;
    let mut text = String::new();
    for set in listing.sets {
        if set.hold.as_ref().is_some_and(|hold| hold.because_of.as_deref() == Some(&name)) {
            found.store.delete(&set.name.key(HOLD)).await?;
            text += &format!("{} is no longer held\n", set.name);
        }
    }
    print(if text.is_empty() { "no set is held because of that one\n" } else { &text })?;
    Ok(ExitCode::SUCCESS)
}

async fn accept_identity(global: &Global, text: &str, filter: &Filter) -> Result<ExitCode> {
    let config = global.load_config()?;
    let mut said = String::new();
    for (store_name, store) in stores(&config, filter).await? {
        let listing = set::list(&store, "").await?;
        let mut folders: Vec<(String, String, Identity, Vec<String>)> = Vec::new();
        for set in listing.sets.iter().filter(|set| filter.matches(&set.name)) {
            let Some(identity) = set.identity().filter(|identity| identity.is_meant_by(text)) else { continue };
            let (database, job) = (&set.name.database, &set.name.job);
            match folders.iter_mut().find(|folder| (&folder.0, &folder.1, &folder.2) == (database, job, &identity)) {
                Some(folder) => folder.3.push(set.name.to_string()),
                None => folders.push((database.clone(), job.clone(), identity, vec![set.name.to_string()])),
            }
        }
        for (database, job, identity, sets) in folders {
            let mut series = Series::read(&store, &database, &job).await?;
            series.accepted.retain(|accepted| accepted.identity != identity);
            let count = sets.len();
            series.accepted.push(Accepted { identity: identity.clone(), at: Utc::now(), sets });
            series.write(&store, &database, &job).await.with_context(|| format!("store `{store_name}`"))?;
            said += &format!("{database}/{job} in {store_name}: the {count} sets of {identity} are of the series now\n");
        }
    }
    if said.is_empty() {
        let message = format!("there are no sets of `{text}`: `pgtend backups list --json` names the identities");
        return Err(Fault::new(Kind::Configuration, message).into());
    }
    print(&said)?;
    Ok(ExitCode::SUCCESS)
}
