//! What is different where a job has several stores: none is waited for without end, and an error may be of all of them.

use std::time::Duration;

use anyhow::Result;
use tokio::time::timeout;

use crate::base::fault::{Fault, Kind};
use crate::base::units;
use crate::pg::failure;
use crate::store::Store;
use crate::task::backup::read_back::Differs;
use crate::task::backup::set::Set;

/// A store that does not answer in this time is left out: its requests are tried again and again before they fail.
const ANSWERS_WITHIN: Duration = Duration::from_secs(120);

/// Where several are read, a store whose first answer takes longer is passed over. Its listing may take longer than this.
const FIRST_ANSWER_WITHIN: Duration = Duration::from_secs(20);

/// No store has it: to ask whether it is there is the cheapest question.
const ABSENT: &str = ".pgtend-answers";

/// Fails if the store does not answer at all; a refusal is an answer.
pub async fn ensure_answers(store: &Store) -> Result<()> {
    match within_time(FIRST_ANSWER_WITHIN, store.stat(ABSENT)).await {
        Err(error) if failure::kind_of(&error) == Some(Kind::Unreachable) => Err(error),
        Ok(_) | Err(_) => Ok(()),
    }
}

/// Waits for a store; where there are others, not for ever.
pub async fn within<T>(are_several: bool, work: impl Future<Output = Result<T>>) -> Result<T> {
    match are_several {
        true => within_time(ANSWERS_WITHIN, work).await,
        false => work.await,
    }
}

/// Waits for a store for this long.
pub async fn within_time<T>(limit: Duration, work: impl Future<Output = Result<T>>) -> Result<T> {
    timeout(limit, work).await.unwrap_or_else(|_| {
        let message = format!("it has not answered for {}", units::duration(limit));
        Err(Fault::new(Kind::Unreachable, message).into())
    })
}

/// The error of a run whose set no store has. That of one store is its own.
pub fn none_took_it(mut failures: Vec<anyhow::Error>) -> anyhow::Error {
    match failures.len() {
        0 => anyhow::anyhow!("no store is left"),
        1 => failures.remove(0),
        _ => {
            let kind = failures.iter().find_map(failure::kind_of);
            let said: Vec<String> = failures.iter().map(failure::in_a_line).collect();
            let message = format!("no store took the set: {}", said.join("; "));
            kind.map_or_else(|| anyhow::anyhow!(message.clone()), |kind| Fault::new(kind, message.clone()).into())
        }
    }
}

/// Returns whether another copy may do what failed with this one: its bytes differ from the manifest, or they cannot be read.
pub async fn is_of_the_copy(store: &Store, set: &Set, error: &anyhow::Error) -> bool {
    if failure::kind_of(error) == Some(Kind::Cancelled) {
        return false;
    }
    let dump = &set.manifest.dump;
    error.chain().any(|cause| cause.is::<Differs>())
        || !matches!(store.stat(&set.name.key(&dump.object)).await, Ok(Some(there)) if there.bytes == dump.bytes)
}

/// Fails where two stores are one place, or one lies within the other: a copy there is no second one, and each store would delete the other's sets. They are
/// told apart by their names, as folders, and by their ids; `gives_ids`: a store that has none gets one first.
pub async fn ensure_apart(stores: &[(&str, &Store)], gives_ids: bool) -> Result<()> {
    if stores.len() < 2 {
        return Ok(());
    }
    let mut pairs = Vec::new();
    for (number, one) in stores.iter().enumerate() {
        for other in &stores[number + 1..] {
            apart_by_name(*one, *other)?;
            pairs.push((*one, *other));
        }
    }
    let mut ids = Vec::new();
    // One after the other: the second name of a place shows the id that the first one has got.
    for (name, store) in stores {
        let reading = async {
            if gives_ids {
                store.ensure_id().await;
            }
            Ok(store.id().await)
        };
        ids.push((*name, within(true, reading).await.ok().flatten()));
    }
    let id_of = |name: &str| ids.iter().find(|(of, _)| *of == name).and_then(|(_, id)| *id);
    for ((name, store), (other_name, other)) in pairs {
        if id_of(name).is_none() || id_of(name) != id_of(other_name) {
            continue;
        }
        match within(true, store.is_one_with(other)).await {
            Ok(false) => {}
            Ok(true) => return Err(one_place((name, store), (other_name, other)).into()),
            Err(error) => {
                let message = format!(
                    "the stores `{name}` and `{other_name}` have one id, in .pgtend-store.json, and may be one place. If one was copied from the other, empty \
                     that file in the copy, and the next run gives it an id of its own. It could not be tried: {}",
                    failure::in_a_line(&error)
                );
                return Err(Fault::new(Kind::Configuration, message).into());
            }
        }
    }
    Ok(())
}

/// Does the same by what names and folders say, and asks no server.
pub fn apart_by_name((name, store): (&str, &Store), (other_name, other): (&str, &Store)) -> Result<()> {
    let ((server, folder), (other_server, other_folder)) = (store.place(), other.place());
    let is_within = folder.starts_with(&other_folder) || other_folder.starts_with(&folder);
    match (server == other_server && is_within) || store.is_one_folder_with(other) {
        true => Err(one_place((name, store), (other_name, other)).into()),
        false => Ok(()),
    }
}

fn one_place((name, store): (&str, &Store), (other_name, other): (&str, &Store)) -> Fault {
    let message = format!(
        "the stores `{name}` and `{other_name}` are one place, or one is within the other ({}, {}): a second copy needs another one",
        store.place().1,
        other.place().1
    );
    Fault::new(Kind::Configuration, message)
}
