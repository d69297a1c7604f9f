//! Where a set is restored to: a new database that gets its name only when all is proved, or an existing empty one.

use anyhow::{Context as _, Result};
use sha2::{Digest as _, Sha256};
use sqlx::postgres::PgConnection;

use super::choices::Choices;
use super::facts::{self, DatabaseFacts, Lacks};
use super::restore::{Restored, Target, check_tablespaces, stream_into};
use super::scratch::{create_scratch, drop_scratch, maintenance_connection, scratch_leftovers};
use super::set::Set;
use super::stream::hex;
use crate::fault::{Fault, Kind};
use crate::pg::{self, identifier, literal};
use crate::progress::Phase;
use crate::store::Store;
use crate::units;

/// Refuses a target that lacks what the dump needs, before anything is written. Missing roles are created without
/// login when asked for.
pub async fn prepare_server(connection: &mut PgConnection, set: &Set, choices: &Choices, create_roles: bool) -> Result<Lacks> {
    let needed = choices.needed_of(&set.manifest.server);
    check_tablespaces(connection, &needed, choices).await?;
    let lacks = facts::lacks(connection, &needed).await?;
    anyhow::ensure!(
        lacks.extensions.is_empty(),
        Fault::new(
            Kind::Configuration,
            format!(
                "the target lacks extensions that the dump needs: {}; install their packages on the target's host, or leave them out: --without EXTENSION NAME",
                lacks.extensions.join(", ")
            )
        )
    );
    if create_roles {
        for role in &lacks.roles {
            pg::execute(connection, format!("CREATE ROLE {} NOLOGIN", identifier(role)))
                .await
                .with_context(|| format!("cannot create the role {role}"))?;
        }
    } else {
        anyhow::ensure!(
            lacks.roles.is_empty(),
            Fault::new(
                Kind::Configuration,
                format!(
                    "the target lacks roles that own objects or have grants in the dump: {}; restore globals.sql.gz first, or let --create-roles make them without login; --role-map OLD=NEW names another role, --no-owner needs no owners",
                    lacks.roles.join(", ")
                )
            )
        );
    }
    Ok(lacks)
}

/// Restores into a database `settings.database()` that does not exist yet. Until it is complete it has another name.
pub async fn into_new_database(
    store: &Store,
    set: &Set,
    settings: &pg::Settings,
    choices: &Choices,
    phase: &Phase,
) -> Result<Restored> {
    let name = settings.database();
    let mut connection = maintenance_connection(settings).await?;
    let exists: bool = sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)")
        .bind(name)
        .fetch_one(&mut connection)
        .await?;
    anyhow::ensure!(
        !exists,
        Fault::new(
            Kind::Configuration,
            format!("database {name} exists already: choose another name, or restore into it without --create if it is empty")
        )
    );

    let digest = hex(&Sha256::digest(name));
    let scratch = format!("pgtend_restore_{}", &digest[..16]);
    for leftover in scratch_leftovers(&mut connection, &scratch).await? {
        drop_scratch(&mut connection, &leftover).await?;
    }
    create_scratch(&mut connection, &scratch, &set.manifest.server.database).await?;
    let target = Target { settings: &settings.with_database(&scratch), choices, in_transaction: false };
    let restored = stream_into(store, set, &target, phase).await;
    if !matches!(&restored, Ok(restored) if restored.is_complete()) {
        if let Err(error) = drop_scratch(&mut connection, &scratch).await {
            tracing::warn!("{error:#}");
        }
        return restored;
    }
    pg::execute(&mut connection, format!("ALTER DATABASE {} RENAME TO {}", identifier(&scratch), identifier(name)))
        .await
        .with_context(|| format!("the restore is complete in database {scratch} but cannot be renamed to {name}"))?;
    // After the rename: killed in between, the database is whole and only its comment is wrong. The other way round it
    // would be a leftover that nobody may drop.
    pg::execute(&mut connection, format!("COMMENT ON DATABASE {} IS NULL", identifier(name))).await?;
    if let Err(error) = carry_settings(&mut connection, name, &set.manifest.server.database).await {
        tracing::warn!("database {name} is restored, but not all of its properties: {error:#}");
    }
    restored
}

/// Restores into an existing database, all or nothing; refused when there is anything in it.
pub async fn into_empty_database(
    store: &Store,
    set: &Set,
    settings: &pg::Settings,
    choices: &Choices,
    phase: &Phase,
) -> Result<Restored> {
    let objects = objects_in(settings).await?;
    anyhow::ensure!(
        objects == 0,
        Fault::new(
            Kind::Configuration,
            format!(
                "database {} is not empty ({} objects): restore into a new one with --create",
                settings.database(),
                units::count(objects as u64)
            )
        )
    );
    let restored = stream_into(store, set, &Target { settings, choices, in_transaction: true }, phase).await;
    if !matches!(&restored, Ok(restored) if restored.is_complete()) {
        // A server that cannot be reached any more cannot be asked either: it rolls back by itself.
        let left = objects_in(settings).await.unwrap_or_default();
        let why = match &restored {
            Ok(Restored { refusal: Some(refusal), .. }) => refusal.message.clone(),
            Ok(restored) => restored.problems.join("; "),
            Err(error) => format!("{error:#}"),
        };
        anyhow::ensure!(
            left == 0,
            "the restore failed, and database {} is NOT as it was before: {} objects are in it ({why})",
            settings.database(),
            units::count(left as u64)
        );
    }
    restored
}

/// Objects of its own, and large objects.
async fn objects_in(settings: &pg::Settings) -> Result<i64> {
    let mut connection = settings.connect().await?;
    Ok(sqlx::query_scalar(include_str!("objects.sql")).fetch_one(&mut connection).await?)
}

/// `ALTER DATABASE … SET` and the owner, which a plain dump leaves out. Values go through set_config and FROM
/// CURRENT: they are bound, and lists such as search_path keep their form.
async fn carry_settings(connection: &mut PgConnection, name: &str, facts: &DatabaseFacts) -> Result<()> {
    for setting in &facts.settings {
        let Some((setting, value)) = setting.split_once('=') else { continue };
        sqlx::query("SELECT set_config($1, $2, false)")
            .bind(setting)
            .bind(value)
            .execute(&mut *connection)
            .await
            .with_context(|| format!("setting {setting}"))?;
        // A custom setting has a dot that is not part of a name.
        let quoted = setting.split('.').map(identifier).collect::<Vec<_>>().join(".");
        pg::execute(connection, format!("ALTER DATABASE {} SET {quoted} FROM CURRENT", identifier(name)))
            .await
            .with_context(|| format!("setting {setting}"))?;
    }
    if let Some(comment) = &facts.comment {
        pg::execute(connection, format!("COMMENT ON DATABASE {} IS {}", identifier(name), literal(comment)))
            .await
            .context("comment")?;
    }
    if let Some(grants) = &facts.grants {
        carry_grants(connection, name, grants).await.context("grants")?;
    }
    pg::execute(connection, format!("ALTER DATABASE {} OWNER TO {}", identifier(name), identifier(&facts.owner)))
        .await
        .context("owner")
}

/// What PUBLIC has by default goes first: it may have been revoked.
async fn carry_grants(connection: &mut PgConnection, name: &str, grants: &[String]) -> Result<()> {
    let database = identifier(name);
    pg::execute(&mut *connection, format!("REVOKE ALL ON DATABASE {database} FROM PUBLIC")).await?;
    for grant in grants {
        let Some((privilege @ ("CONNECT" | "CREATE" | "TEMPORARY"), role)) = grant.split_once(' ') else { continue };
        let grantee = if role.is_empty() { "PUBLIC".to_owned() } else { identifier(role) };
        pg::execute(&mut *connection, format!("GRANT {privilege} ON DATABASE {database} TO {grantee}")).await?;
    }
    Ok(())
}
