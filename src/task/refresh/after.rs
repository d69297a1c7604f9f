//! Runs the user's SQL in the copy, and asks whether what is expected is true.

use std::time::Instant;

use anyhow::Result;
use serde_json::{Value, json};

use crate::base::fault::{self, Fault};
use crate::base::progress::Progress;
use crate::base::units;
use crate::pg::{self, InTransaction, failure};
use crate::task::backup::{expect, shown};

/// Runs the commands in one session, each by itself. Returns what each did. The session is one of our own: where row security would hide rows
/// from it that are to be masked, that is an error.
pub async fn run(settings: &pg::Settings, search_path: &str, statements: &[String], progress: &Progress) -> Result<Vec<Value>> {
    let mut done = Vec::new();
    if statements.is_empty() {
        return Ok(done);
    }
    let phase = progress.phase("after", None);
    let mut connection = settings.connect().await?;
    for (index, statement) in statements.iter().enumerate() {
        let started = Instant::now();
        let number = format!("{} of {}", index + 1, statements.len());
        phase.say(&number);
        // Code of others may have run in the session, and have set another one.
        let mut rows = Vec::new();
        let ran = match pg::set(&mut connection, "search_path", search_path).await {
            Ok(()) => pg::execute_script_into(&mut connection, statement, &mut rows).await,
            Err(error) => Err(error),
        };
        ran.map_err(|error| failed(&number, statement, &error))?;
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

fn failed(number: &str, statement: &str, error: &anyhow::Error) -> anyhow::Error {
    // Rows that are not masked yet are nobody's to read.
    let words = fault::without_values(&shown::said_of(statement, &failure::in_a_line(error)));
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
        let unmet = expect::unmet(settings, search_path, std::slice::from_ref(query)).await?;
        answers.push(json!({ "query": query, "is_true": unmet.is_empty() }));
        all_unmet.extend(unmet.iter().map(|unmet| fault::without_values(unmet)));
    }
    Ok((answers, all_unmet))
}
