//! Runs the user's SQL in the copy, and asks whether what is expected is true.

use std::time::Instant;

use anyhow::Result;
use serde_json::{Value, json};
use sqlx::PgConnection;

use super::said;
use crate::base::fault::{Fault, Kind};
use crate::base::progress::Progress;
use crate::base::units;
use crate::pg::{self, InTransaction, failure};
use crate::task::backup::{expect, shown};

/// Runs the commands in one session, each by itself. Returns what each did. The session is one of our own: where row security would hide rows
/// from it that are to be masked, that is an error. So is a search_path that is another one after a command: by code of others, or by a SET of the user,
/// the next command would mask another table.
pub async fn run(settings: &pg::Settings, search_path: &str, statements: &[String], progress: &Progress) -> Result<Vec<Value>> {
    let mut done = Vec::new();
    if statements.is_empty() {
        return Ok(done);
    }
    let phase = progress.phase("after", None);
    let mut connection = settings.connect().await?;
    pg::set(&mut connection, "search_path", search_path).await?;
    for (index, statement) in statements.iter().enumerate() {
        let started = Instant::now();
        let number = format!("{} of {}", index + 1, statements.len());
        phase.say(&number);
        let mut rows = Vec::new();
        let ran = pg::execute_script_into(&mut connection, statement, &mut rows).await;
        ran.map_err(|error| failed(&number, statement, &error))?;
        if !is_start(statement) {
            ensure_path(&mut connection, search_path, &number, statement).await?;
        }
        done.push(json!({
            "statement": shown::shown(statement),
            "rows": rows.iter().sum::<u64>(),
            "elapsed_seconds": started.elapsed().as_secs_f64(),
        }));
    }
    anyhow::ensure!(
        pg::in_transaction(&mut connection).await? == InTransaction::No,
        "a transaction is still open after the last statement of `after`, so that nothing of it is kept: end it with COMMIT"
    );
    phase.done(&units::plural(statements.len(), "statement"));
    Ok(done)
}

/// Returns whether a command only begins a transaction: SET TRANSACTION must come before any query in it, also before one of ours.
fn is_start(statement: &str) -> bool {
    let mut words =
        statement.split(|c: char| !c.is_ascii_alphabetic()).filter(|word| !word.is_empty()).map(str::to_ascii_uppercase);
    match words.next().as_deref() {
        Some("BEGIN" | "START") => true,
        Some("SET") => words.next().as_deref() == Some("TRANSACTION"),
        _ => false,
    }
}

async fn ensure_path(connection: &mut PgConnection, search_path: &str, number: &str, statement: &str) -> Result<()> {
    let now = pg::fetch_text(connection, "SELECT pg_catalog.current_setting('search_path')".to_owned()).await?;
    if now.as_deref() == Some(search_path) {
        return Ok(());
    }
    let message = format!(
        "statement {number} of `after` changed search_path, so that those after it would find other tables: {}. Write names with their schemas, or set \
         the key `search_path`",
        shown::shown(statement)
    );
    Err(Fault::new(Kind::Configuration, message).into())
}

fn failed(number: &str, statement: &str, error: &anyhow::Error) -> anyhow::Error {
    let words = said::of_statement(error, statement);
    let message = format!("statement {number} of `after` failed: {}: {words}", shown::shown(statement));
    match failure::kind_of(error) {
        Some(kind) => Fault::new(kind, message).into(),
        None => anyhow::Error::msg(message),
    }
}

/// Asks each query, in a session that cannot write. Returns each with its answer, and those that are not true, in words.
pub async fn expectations(settings: &pg::Settings, search_path: &str, queries: &[String]) -> Result<(Vec<Value>, Vec<String>)> {
    let (mut answers, mut all_unmet) = (Vec::new(), Vec::new());
    for query in queries {
        let unmet = expect::unmet_in_words(settings, search_path, std::slice::from_ref(query), said::of_statement).await?;
        answers.push(json!({ "query": query, "is_true": unmet.is_empty() }));
        all_unmet.extend(unmet);
    }
    Ok((answers, all_unmet))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_that_only_begins_a_transaction_is_told() {
        for (command, is) in [
            ("begin", true),
            ("START TRANSACTION READ WRITE", true),
            ("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE", true),
            ("SET search_path = t2", false),
            ("UPDATE t SET a = 1", false),
        ] {
            assert_eq!(is_start(command), is, "{command}");
        }
    }
}
