//! The search_path that the login has by itself, which sessions of ours do not have: by it pg_dump finds tables of patterns without a schema
//! (`exclude_tables = ["logs"]`).

use anyhow::{Context as _, Result};

use super::patterns::Patterns;
use crate::pg;

/// A search_path, as it is shown, and its schemas that exist.
pub struct SearchPath {
    pub shown: String,
    pub schemas: Vec<String>,
}

impl SearchPath {
    pub async fn of_login(settings: &pg::Settings) -> Result<Self> {
        let mut connection = settings.connect_for(pg::Purpose::Application).await?;
        let shown =
            pg::fetch_text(&mut connection, "SHOW search_path".to_owned()).await?.context("the server shows no search_path")?;
        let schemas =
            sqlx::query_scalar("SELECT pg_catalog.current_schemas(false)::pg_catalog.text[]").fetch_one(&mut connection).await?;
        Ok(Self { shown, schemas })
    }

    /// Returns the schemas in which the login finds what patterns without a schema mean; none where no pattern is without one.
    pub async fn schemas_for(patterns: &Patterns, settings: &pg::Settings) -> Result<Vec<String>> {
        match patterns.need_a_search_path() {
            true => Ok(Self::of_login(settings).await?.schemas),
            false => Ok(Vec::new()),
        }
    }
}
