//! The databases that servers were found to have: so that a server that does not answer keeps them, and that each change is told once, whoever sees it
//! first.

use anyhow::Result;
use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::Serialize;

use super::Ledger;

/// What a list changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// True if the server never gave a list before: then no database is new.
    pub is_first: bool,
    /// Names in the configuration: SERVER.DATABASE.
    pub appeared: Vec<String>,
    pub gone: Vec<String>,
}

/// The last list of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remembered {
    pub databases: Vec<String>,
    pub listed_at: DateTime<Utc>,
}

/// A database that went from its server; its sets stay.
#[derive(Clone, Debug, sqlx::FromRow, Serialize, JsonSchema)]
pub struct Gone {
    pub database: String,
    pub gone_at: DateTime<Utc>,
}

/// What went longer ago is known to whom it concerns.
const GONE_FOR_DAYS: i32 = 30;
const MOST_GONE: i64 = 1000;

impl Ledger {
    /// Writes the list that the server has given, and returns what changed since the last one.
    pub async fn remember_databases(&self, server: &str, databases: &[String]) -> Result<Changes> {
        let rows: Vec<(String, String)> = self
            .query(
                "write which databases a server has",
                sqlx::query_as(
                    "WITH listed AS (
                        INSERT INTO pgtend.servers AS s (server) VALUES ($1)
                        ON CONFLICT (server) DO UPDATE SET listed_at = clock_timestamp()),
                     before AS (SELECT 'known' AS what, server AS database FROM pgtend.servers WHERE server = $1),
                     there AS (
                        INSERT INTO pgtend.databases AS d (server, database) SELECT $1, * FROM unnest($2::text[])
                        ON CONFLICT (server, database) DO UPDATE SET found_at = clock_timestamp(), gone_at = NULL WHERE d.gone_at IS NOT NULL
                        RETURNING d.database),
                     gone AS (
                        UPDATE pgtend.databases d SET gone_at = clock_timestamp()
                        WHERE d.server = $1 AND d.gone_at IS NULL
                          AND NOT EXISTS (SELECT FROM unnest($2::text[]) AS u (database) WHERE u.database = d.database)
                        RETURNING d.database)
                     SELECT * FROM before UNION ALL SELECT 'appeared', database FROM there UNION ALL SELECT 'gone', database FROM gone
                     ORDER BY 1, 2",
                )
                .bind(server)
                .bind(databases)
                .fetch_all(&self.pool),
            )
            .await?;
        let of = |what: &str| rows.iter().filter(|(kind, _)| kind == what).map(|(_, name)| name.clone()).collect::<Vec<_>>();
        Ok(Changes { is_first: of("known").is_empty(), appeared: of("appeared"), gone: of("gone") })
    }

    /// Writes that the server has given the same list again.
    pub async fn confirm_databases(&self, server: &str) -> Result<()> {
        let update = sqlx::query("UPDATE pgtend.servers SET listed_at = clock_timestamp() WHERE server = $1").bind(server);
        self.query("write when a server was asked", update.execute(&self.pool)).await?;
        Ok(())
    }

    /// Returns the last list of the server; `None` if it never gave one.
    pub async fn remembered_databases(&self, server: &str) -> Result<Option<Remembered>> {
        let rows: Vec<(DateTime<Utc>, Option<String>)> = self
            .query(
                "read which databases a server had",
                sqlx::query_as(
                    "SELECT s.listed_at, d.database FROM pgtend.servers s
                     LEFT JOIN pgtend.databases d ON d.server = s.server AND d.gone_at IS NULL
                     WHERE s.server = $1 ORDER BY d.database COLLATE \"C\"",
                )
                .bind(server)
                .fetch_all(&self.pool),
            )
            .await?;
        let listed_at = rows.first().map(|(listed_at, _)| *listed_at);
        let databases = rows.into_iter().filter_map(|(_, database)| database).collect();
        Ok(listed_at.map(|listed_at| Remembered { databases, listed_at }))
    }

    /// Returns the databases that went in the last 30 days, the latest first.
    pub async fn gone_databases(&self) -> Result<Vec<Gone>> {
        self.query(
            "read which databases are gone",
            sqlx::query_as(
                "SELECT database, gone_at FROM pgtend.databases WHERE gone_at > clock_timestamp() - make_interval(days => $1)
                 ORDER BY gone_at DESC, database LIMIT $2",
            )
            .bind(GONE_FOR_DAYS)
            .bind(MOST_GONE)
            .fetch_all(&self.pool),
        )
        .await
    }
}
