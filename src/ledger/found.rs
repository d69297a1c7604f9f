//! The databases that servers were found to have, and the schemas of databases: so that one that does not answer keeps them, and that each change is told
//! once, whoever sees it first. For a list of schemas, `server` is DATABASE:*, which no server is called, and `database` the name of the place.

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
    /// Names in the configuration: SERVER.DATABASE, or DATABASE:SCHEMA.
    pub appeared: Vec<String>,
    pub gone: Vec<String>,
    /// Those that the server has, and on which no job can run any more or yet.
    pub left_out: Vec<String>,
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

/// A database that its server has, and on which no job can run.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow, Serialize, JsonSchema)]
pub struct LeftOut {
    pub database: String,
    pub why: String,
    pub since: DateTime<Utc>,
}

/// What went longer ago is known to whom it concerns.
const GONE_FOR_DAYS: i32 = 30;
const MOST_GONE: i64 = 1000;

/// As many as a server may have (`pg::databases`).
const MOST_LEFT_OUT: i64 = 100_000;

impl Ledger {
    /// Writes the list that the server has given, and returns what changed since the last one. `left_out`: the other databases, each with the reason.
    pub async fn remember_databases(&self, server: &str, databases: &[String], left_out: &[(String, &str)]) -> Result<Changes> {
        let (names, reasons): (Vec<&str>, Vec<&str>) = left_out.iter().map(|(name, why)| (name.as_str(), *why)).unzip();
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
                        ON CONFLICT (server, database) DO UPDATE
                        SET found_at = clock_timestamp(), gone_at = NULL, left_out = NULL, left_out_at = NULL
                        WHERE d.gone_at IS NOT NULL OR d.left_out IS NOT NULL
                        RETURNING d.database),
                     left_out AS (
                        INSERT INTO pgtend.databases AS d (server, database, left_out, left_out_at)
                        SELECT $1, u.database, u.why, clock_timestamp() FROM unnest($3::text[], $4::text[]) AS u (database, why)
                        ON CONFLICT (server, database) DO UPDATE
                        SET gone_at = NULL, left_out = EXCLUDED.left_out, left_out_at = coalesce(d.left_out_at, EXCLUDED.left_out_at)
                        WHERE d.gone_at IS NOT NULL OR d.left_out IS DISTINCT FROM EXCLUDED.left_out
                        RETURNING d.database),
                     gone AS (
                        UPDATE pgtend.databases d SET gone_at = clock_timestamp()
                        WHERE d.server = $1 AND d.gone_at IS NULL
                          AND NOT EXISTS (SELECT FROM unnest($2::text[] || $3::text[]) AS u (database) WHERE u.database = d.database)
                        RETURNING d.database)
                     SELECT * FROM before UNION ALL SELECT 'appeared', database FROM there UNION ALL SELECT 'gone', database FROM gone
                     UNION ALL SELECT 'left out', database FROM left_out
                     ORDER BY 1, 2",
                )
                .bind(server)
                .bind(databases)
                .bind(names)
                .bind(reasons)
                .fetch_all(&self.pool),
            )
            .await?;
        let of = |what: &str| rows.iter().filter(|(kind, _)| kind == what).map(|(_, name)| name.clone()).collect::<Vec<_>>();
        Ok(Changes { is_first: of("known").is_empty(), appeared: of("appeared"), gone: of("gone"), left_out: of("left out") })
    }

    /// Writes that these servers have given the same lists again.
    pub async fn confirm_databases(&self, servers: &[String]) -> Result<()> {
        let update = sqlx::query("UPDATE pgtend.servers SET listed_at = clock_timestamp() WHERE server = ANY ($1)").bind(servers);
        self.query("write when servers were asked", update.execute(&self.pool)).await?;
        Ok(())
    }

    /// Returns the last list of the server; `None` if it never gave one.
    pub async fn remembered_databases(&self, server: &str) -> Result<Option<Remembered>> {
        let rows: Vec<(DateTime<Utc>, Option<String>)> = self
            .query(
                "read which databases a server had",
                sqlx::query_as(
                    "SELECT s.listed_at, d.database FROM pgtend.servers s
                     LEFT JOIN pgtend.databases d ON d.server = s.server AND d.gone_at IS NULL AND d.left_out IS NULL
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

    /// Returns all that is in the last lists: server and database, in the order of both.
    pub async fn remembered_anywhere(&self) -> Result<Vec<(String, String)>> {
        let sql = "SELECT server, database FROM pgtend.databases WHERE gone_at IS NULL AND left_out IS NULL
                   ORDER BY server COLLATE \"C\", database COLLATE \"C\"";
        self.query("read which databases servers had", sqlx::query_as(sql).fetch_all(&self.pool)).await
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

    /// Returns the databases that servers had when they were last asked, and on which no job could run.
    pub async fn left_out_databases(&self) -> Result<Vec<LeftOut>> {
        let sql = "SELECT database, left_out AS why, coalesce(left_out_at, found_at) AS since FROM pgtend.databases
                   WHERE left_out IS NOT NULL AND gone_at IS NULL ORDER BY database LIMIT $1";
        let left_out = sqlx::query_as(sql).bind(MOST_LEFT_OUT);
        self.query("read which databases are left out", left_out.fetch_all(&self.pool)).await
    }
}
