//! The databases of a server: which there are, and which of them nobody could work on.

use std::time::Duration;

use anyhow::{Context as _, Result};
use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use super::Settings;
use crate::base::fault::{Fault, Kind};

/// A catalog of 100,000 databases is read in less than a second; a server that takes longer does not answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// No server has more databases than this: its directory of files would not hold them.
const MOST: i64 = 100_000;

/// Scratch databases of proofs and of refreshes, which are gone in a while (`scratch` of backup, `mark` of refresh).
const OF_OUR_OWN: [&str; 2] = ["pgtend_verify_", "pgtend_refresh_"];

/// The databases of a server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listed {
    /// Those to work on, in the order of their names.
    pub names: Vec<String>,
    /// The others, each with the reason; the server's templates are not worth a word.
    pub left_out: Vec<(String, &'static str)>,
    /// When the server started, to the microsecond: whatever address leads to it, that is its own.
    pub started_at: Option<DateTime<Utc>>,
}

/// Asks the server for all of its databases. An error is no list: it says nothing about any database.
pub async fn list(settings: &Settings) -> Result<Listed> {
    let asking = async {
        let mut connection = settings.connect().await?;
        // As bytes: the name of a database may be in another encoding than that of this one.
        let rows: Vec<(Vec<u8>, bool, bool, bool, bool)> = sqlx::query_as(
            "SELECT pg_catalog.namesend(d.datname), d.datistemplate, d.datallowconn, d.datconnlimit OPERATOR(pg_catalog.=) -2,
                    pg_catalog.has_database_privilege(d.oid, 'CONNECT')
             FROM pg_catalog.pg_database d ORDER BY d.oid LIMIT $1",
        )
        .bind(MOST + 1)
        .fetch_all(&mut connection)
        .await
        .map_err(super::in_its_own_words)?;
        anyhow::ensure!(rows.len() as i64 <= MOST, "it has more than {MOST} databases");
        Ok(Listed { started_at: Some(started_at(&mut connection).await?), ..sorted(rows) })
    };
    let answered = tokio::time::timeout(PATIENCE, asking).await;
    let answered = answered
        .unwrap_or_else(|_| Err(Fault::new(Kind::Unreachable, format!("it did not answer in {} s", PATIENCE.as_secs())).into()));
    answered.with_context(|| format!("cannot ask {} for its databases", settings.server()))
}

/// When the server of a connection started: no two have the same time, and every role may ask.
pub async fn started_at(connection: &mut PgConnection) -> Result<DateTime<Utc>> {
    let started_at = sqlx::query_scalar("SELECT pg_catalog.pg_postmaster_start_time()").fetch_one(connection).await;
    started_at.map_err(super::in_its_own_words)
}

/// Tells those to work on from the others. Pure.
fn sorted(rows: Vec<(Vec<u8>, bool, bool, bool, bool)>) -> Listed {
    let mut listed = Listed::default();
    for (bytes, is_template, takes_connections, is_invalid, may_connect) in rows {
        let Ok(name) = String::from_utf8(bytes) else {
            listed.left_out.push(("one".to_owned(), "its name is not UTF-8"));
            continue;
        };
        let is_our_own = OF_OUR_OWN.iter().any(|prefix| name.starts_with(prefix));
        let why_not = match () {
            () if is_our_own || matches!(name.as_str(), "template0" | "template1") => continue,
            () if is_template => "it is a template",
            () if is_invalid => "it is invalid: a DROP DATABASE was interrupted",
            () if !takes_connections => "it takes no connections",
            () if !may_connect => "the role may not connect to it",
            () => {
                listed.names.push(name);
                continue;
            }
        };
        listed.left_out.push((name, why_not));
    }
    listed.names.sort_unstable();
    listed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_can_work_on_is_left_out_with_its_reason() {
        let row = |name: &str, flags: [bool; 4]| (name.as_bytes().to_vec(), flags[0], flags[1], flags[2], flags[3]);
        let listed = sorted(vec![
            row("template0", [true, false, false, true]),
            row("template1", [true, true, false, true]),
            row("shop", [false, true, false, true]),
            row("app\n", [false, true, false, true]),
            row("mould", [true, true, false, true]),
            row("closed", [false, false, false, true]),
            row("half", [false, true, true, true]),
            row("secret", [false, true, false, false]),
            row("pgtend_verify_0123456789ab_1", [false, true, false, true]),
            (vec![0xff], false, true, false, true),
        ]);
        assert_eq!(listed.names, ["app\n", "shop"]);
        let names: Vec<&str> = listed.left_out.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["mould", "closed", "half", "secret", "one"]);
    }
}
