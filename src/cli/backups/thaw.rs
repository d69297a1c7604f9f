//! Copies in storage classes that must be thawed before they can be read.

use anyhow::Result;
use clap::Args;

use super::find::{Filter, find_copies};
use super::found::Found;
use crate::base::fault::{Fault, Kind};
use crate::base::shell;
use crate::cli::global::Global;
use crate::config::Config;
use crate::pg::failure;
use crate::store::Store;
use crate::store::archived::{Archived, Thaw};
use crate::task::backup::latest::Choice;
use crate::task::backup::set_name::SetName;

/// What a person says about the thaw.
#[derive(Debug, Default, Args)]
pub struct Thawing {
    /// Start the thaw of a set in a storage class that needs one (GLACIER, DEEP_ARCHIVE), so that it can be read for so many days
    /// (7 by default); it takes hours, and is billed
    #[arg(long, value_name = "DAYS", num_args = 0..=1, require_equals = true, default_missing_value = "7", value_parser = clap::value_parser!(u32).range(1..=365))]
    thaw: Option<u32>,
}

/// Finds the copies of a set that can be read now. Where none can, that is an error, which says what to do, or that the thaw was started.
pub(super) async fn find_readable(
    global: &Global,
    config: &Config,
    wanted: &str,
    filter: &Filter,
    (choice, thawing): (&Choice, &Thawing),
) -> Result<Vec<Found>> {
    match find_copies(global, config, wanted, filter, choice).await {
        Ok(copies) => readable(copies, thawing).await,
        // Its manifest may be archived, too.
        Err(error) => match wanted.parse::<SetName>() {
            Ok(name) => Err(of_an_archived_folder(config, filter, &name, thawing).await.unwrap_or(error)),
            Err(_) => Err(error),
        },
    }
}

async fn readable(copies: Vec<Found>, thawing: &Thawing) -> Result<Vec<Found>> {
    let (mut readable, mut frozen) = (Vec::new(), Vec::new());
    for found in copies {
        match frozen_in(&found.store, &found.set.name).await {
            Ok(objects) if !objects.is_empty() => frozen.push((found, objects)),
            Ok(_) => readable.push(found),
            // Whoever reads it says what is wrong.
            Err(error) => {
                tracing::debug!("{}", failure::in_a_line(&error));
                readable.push(found);
            }
        }
    }
    match (frozen.first(), readable.is_empty()) {
        (Some((found, objects)), true) => {
            Err(refusal((&found.store_name, &found.store), &found.set.name, objects, thawing).await?)
        }
        _ => {
            for (found, objects) in &frozen {
                let class = objects.first().map(Archived::in_words).unwrap_or_default();
                tracing::warn!("the copy in {} is passed over: it is in storage class {class}", found.store_name);
            }
            Ok(readable)
        }
    }
}

/// The objects of a set that cannot be read now.
async fn frozen_in(store: &Store, name: &SetName) -> Result<Vec<Archived>> {
    let archived = store.archived_exactly(&name.key("")).await?;
    Ok(archived.into_iter().filter(|archived| !archived.is_readable()).collect())
}

/// None where nothing of that name is archived, in the stores that can be read.
async fn of_an_archived_folder(config: &Config, filter: &Filter, name: &SetName, thawing: &Thawing) -> Option<anyhow::Error> {
    let read = filter.read_stores(config, async |store| frozen_in(store, name).await).await.ok()?;
    let (store_name, (store, objects)) =
        read.into_iter().filter_map(|(name, read)| Some((name, read.ok()?))).find(|(_, (_, objects))| !objects.is_empty())?;
    Some(refusal((&store_name, &store), name, &objects, thawing).await.unwrap_or_else(|error| error))
}

/// Starts the thaw where that was asked for. Returns the error of the command: what it was for is not done yet.
async fn refusal(
    (store_name, store): (&str, &Store),
    name: &SetName,
    objects: &[Archived],
    thawing: &Thawing,
) -> Result<anyhow::Error> {
    let Some(slowest) = objects.iter().max_by_key(|object| object.class.thaws_in_hours()) else {
        return Ok(anyhow::anyhow!("{name} is not archived"));
    };
    let (class, takes) = (slowest.class, format!("up to {} hours", slowest.class.thaws_in_hours()));
    let progress = format!(
        "`pgtend backups show {} --store {}` says how far it is",
        shell::word(&name.to_string()),
        shell::word(store_name)
    );
    let waiting: Vec<&Archived> = objects.iter().filter(|object| object.thaw == Thaw::None).collect();
    let message = match (waiting.is_empty(), thawing.thaw) {
        (true, _) => format!(
            "{name} in {store_name} is being thawed from storage class {class}, which takes {takes} in all: {progress}; then give this command again"
        ),
        (false, None) => format!(
            "{name} in {store_name} is in storage class {class}, and can be read only after a thaw, which takes {takes} and is billed. Start it: add \
             --thaw, or --thaw=DAYS to have it readable for longer than 7 days"
        ),
        (false, Some(days)) => {
            for object in waiting {
                store.thaw(object, days).await?;
            }
            format!(
                "the thaw of {name} in {store_name} was started, from storage class {class}: it takes {takes}, and the set can then be read for {days} \
                 days. {progress}; then give this command again"
            )
        }
    };
    Ok(Fault::new(Kind::Deferred, message).into())
}
