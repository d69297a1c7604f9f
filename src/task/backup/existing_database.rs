//! A restore into an existing empty database: one transaction of one session, which is committed when all is proved.

use anyhow::Result;
use sqlx::PgConnection;
use tokio_util::sync::CancellationToken;

use super::choices::Choices;
use super::load::Target;
use super::restore::{Restored, stream_into};
use super::set::Set;
use crate::base::fault::{Fault, Kind};
use crate::base::progress::Phase;
use crate::base::units;
use crate::pg;
use crate::store::Store;

/// The schema of the ledger.
const LEDGER: &str = "pgtend";

/// Restores into an existing database, all or nothing; refuses one that has any objects.
pub async fn into_empty_database(
    store: &Store,
    set: &Set,
    settings: &pg::Settings,
    choices: &Choices,
    phase: &Phase,
    cancel: &CancellationToken,
) -> Result<Restored> {
    let objects = objects_in(settings).await?;
    anyhow::ensure!(
        objects == 0,
        Fault::new(
            Kind::Configuration,
            format!(
                "database {} is not empty ({} objects): restore into a new one with --create, or a part of the set into this one with --schema or --table",
                settings.database(),
                units::count(objects as u64)
            )
        )
    );
    let restored =
        stream_into(store, set, &Target { settings, choices, in_transaction: true, superuser: None, sessions: 1 }, phase, cancel)
            .await;
    if !matches!(&restored, Ok(restored) if restored.is_complete()) {
        // A server that cannot be reached any more cannot be queried either: it rolls back by itself.
        let left = objects_in(settings).await.unwrap_or_default();
        let why = match &restored {
            Ok(Restored { refusal: Some(refusal), .. }) => refusal.message.clone(),
            Ok(restored) => restored.problems.join("; "),
            Err(error) => format!("{error:#}"),
        };
        anyhow::ensure!(
            left == 0,
            "the restore failed, and database {} is NOT empty any more: it has {} objects ({why})",
            settings.database(),
            units::count(left as u64)
        );
    }
    restored
}

/// The number of the database's own objects and large objects.
pub async fn objects_in(settings: &pg::Settings) -> Result<i64> {
    objects(&mut settings.connect().await?, &[]).await
}

/// Returns whether a database has nothing of its own but a run history of pgtend.
pub async fn is_empty_but_for_runs(connection: &mut PgConnection) -> Result<bool> {
    Ok(objects(connection, &[LEDGER]).await? == 0)
}

async fn objects(connection: &mut PgConnection, but_schemas: &[&str]) -> Result<i64> {
    Ok(sqlx::query_scalar(include_str!("objects.sql")).bind(but_schemas).fetch_one(connection).await?)
}
