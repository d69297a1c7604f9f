//! `refresh`: the statements that refresh materialized views, each after those that it reads.

use anyhow::Result;
use sqlx::{FromRow, PgConnection};

use super::keys::Refresh;
use crate::base::fault::{Fault, Kind};
use crate::pg::qualified;
use crate::pg::table::with_schema;

/// A materialized view.
#[derive(Clone, Debug, FromRow)]
struct View {
    schema: String,
    name: String,
    is_populated: bool,
    /// A unique index that CONCURRENTLY can use.
    has_unique_index: bool,
}

/// Returns the statements in order. The named views bring those along that they read: what is computed from old rows is old.
pub async fn statements(connection: &mut PgConnection, refresh: &Refresh, concurrently: bool) -> Result<Vec<String>> {
    let names = match refresh {
        Refresh::All => None,
        Refresh::Named(names) => {
            let names: Vec<String> = names.iter().map(|name| with_schema(name)).collect();
            for name in &names {
                ensure_is_one(connection, name).await?;
            }
            Some(names)
        }
    };
    let views: Vec<View> = sqlx::query_as(include_str!("views.sql")).bind(names).fetch_all(connection).await?;
    Ok(views.iter().map(|view| statement(view, concurrently)).collect())
}

async fn ensure_is_one(connection: &mut PgConnection, name: &str) -> Result<()> {
    let kind: Option<String> = sqlx::query_scalar("SELECT relkind::text FROM pg_class WHERE oid = to_regclass($1)::oid")
        .bind(name)
        .fetch_optional(connection)
        .await?;
    let message = match kind.as_deref() {
        Some("m") => return Ok(()),
        Some(_) => format!("{name} is no materialized view, and `refresh` names these"),
        None => format!("there is no materialized view {name}"),
    };
    Err(Fault::new(Kind::Configuration, message).into())
}

/// CONCURRENTLY needs a unique index and rows that are there; without it, readers wait until the view is computed.
fn statement(view: &View, concurrently: bool) -> String {
    let how = if concurrently && view.is_populated && view.has_unique_index { "CONCURRENTLY " } else { "" };
    format!("REFRESH MATERIALIZED VIEW {how}{}", qualified(&view.schema, &view.name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn concurrently_is_for_views_with_rows_and_a_unique_index() {
        for (is_populated, has_unique_index, expected) in [(true, true, "CONCURRENTLY "), (true, false, ""), (false, true, "")] {
            let view = View { schema: "s".to_owned(), name: "a\"b".to_owned(), is_populated, has_unique_index };
            assert_eq!(statement(&view, true), format!("REFRESH MATERIALIZED VIEW {expected}\"s\".\"a\"\"b\""));
            assert_eq!(statement(&view, false), "REFRESH MATERIALIZED VIEW \"s\".\"a\"\"b\"");
        }
    }
}
