//! What is different where a job has several stores: none is waited for without end, and an error may be of all of them.

use std::time::Duration;

use anyhow::Result;
use tokio::time::timeout;

use crate::base::fault::{Fault, Kind};
use crate::base::units;
use crate::pg::failure;
use crate::store::Store;

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

/// Fails where two stores, each with its server and folder, are one place, or one lies within the other: a copy there is no second one, and each store
/// would delete the other's sets.
pub fn ensure_apart(stores: &[(&str, &(String, String))]) -> Result<()> {
    for (number, (name, (server, folder))) in stores.iter().enumerate() {
        for (other_name, (other_server, other)) in &stores[number + 1..] {
            if server == other_server && (folder.starts_with(other.as_str()) || other.starts_with(folder.as_str())) {
                let message = format!(
                    "the stores `{name}` and `{other_name}` are one place, or one is within the other ({folder}, {other}): a second copy needs another one"
                );
                return Err(Fault::new(Kind::Configuration, message).into());
            }
        }
    }
    Ok(())
}
