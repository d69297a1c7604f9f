//! `expect`: the queries that must be true in a restored copy.

use std::time::Duration;

use anyhow::{Context as _, Result};
use sqlx::postgres::PgConnection;

use super::manifest::Manifest;
use crate::pg::{self, failure};

/// The time limit for each query, so that none delays a proof for ever.
const TIMEOUT: Duration = Duration::from_secs(600);

/// The path on which the source's own sessions find tables without a schema.
pub fn search_path(manifest: &Manifest) -> &str {
    let own = &manifest.server.database.settings;
    own.iter().find_map(|setting| setting.strip_prefix("search_path=")).unwrap_or("public")
}

/// Runs each query in the copy, to which `settings` lead, as the role that restored it. Returns those that are not true, with their
/// results. They cannot write.
pub async fn unmet(settings: &pg::Settings, search_path: &str, statements: &[String]) -> Result<Vec<String>> {
    unmet_in_words(settings, search_path, statements, |error, _| failure::in_a_line(error)).await
}

/// Does the same; `words` says why a query failed.
pub async fn unmet_in_words(
    settings: &pg::Settings,
    search_path: &str,
    statements: &[String],
    words: impl Fn(&anyhow::Error, &str) -> String,
) -> Result<Vec<String>> {
    if statements.is_empty() {
        return Ok(Vec::new());
    }
    let mut connection = settings.connect().await.context("cannot connect to the restored copy for `expect`")?;
    pg::set(&mut connection, "search_path", search_path).await?;
    pg::set(&mut connection, "statement_timeout", &TIMEOUT.as_millis().to_string()).await?;
    pg::set(&mut connection, "default_transaction_read_only", "on").await?;
    let mut unmet = Vec::new();
    for statement in statements {
        let why = match unmet_one(&mut connection, statement).await {
            Ok(why) => why,
            Err(error) => Some(format!("failed: {}", words(&error, statement))),
        };
        if let Some(why) = why {
            unmet.push(format!("{statement}: {why}"));
        }
    }
    Ok(unmet)
}

/// Returns None if it is true.
async fn unmet_one(connection: &mut PgConnection, statement: &str) -> Result<Option<String>> {
    let inner = statement.trim().trim_end_matches(';');
    let sql = format!(
        "SELECT CASE WHEN returned.value IS TRUE THEN 'true' WHEN returned.value IS FALSE THEN 'false' END FROM (SELECT ({inner}\n) AS value) returned"
    );
    Ok(match pg::fetch_text(connection, sql).await? {
        Some(value) if value == "true" => None,
        Some(value) => Some(format!("returned {value}")),
        None => Some("returned NULL, or no row".to_owned()),
    })
}
