//! The target of a restore: a new database that gets its name only when all is proved, or an existing empty one.
//!
//! A new one goes through three names. Under the first it is filled, and any other process that finds it drops it. Under the second it is
//! whole and counted, accepts no connections, and gets its properties; it is never dropped. The third is the requested name.

use anyhow::{Context as _, Result};
use sqlx::Connection as _;
use sqlx::postgres::PgConnection;
use tokio_util::sync::CancellationToken;

use super::choices::{Choices, Object, RowCheck};
use super::copy_names::{Names, WHOLE_COMMENT};
use super::facts::DatabaseFacts;
use super::lacks::{self, Lacks};
use super::load::Target;
use super::restore::{Restored, check_tablespaces, stream_into};
use super::scratch::{create_scratch, drop_or_warn, lock, maintenance_connection, scratch_leftovers};
use super::set::Set;
use super::{counts, properties, scratch};
use crate::base::fault::{Fault, Kind};
use crate::base::progress::Phase;
use crate::base::units;
use crate::pg::{self, identifier, literal};
use crate::store::Store;

/// The number of attempts to rename while terminated sessions are ending.
const RENAME_TRIES: u32 = 4;

/// Refuses a target that lacks what the dump needs, before anything is written. Missing roles are created without login when requested.
/// `new_database`: the properties of the new database, where one is created.
pub async fn prepare_server(
    connection: &mut PgConnection,
    set: &Set,
    choices: &Choices,
    create_roles: bool,
    new_database: Option<&DatabaseFacts>,
) -> Result<Lacks> {
    let lacks = lacks_of(connection, set, choices, new_database).await?;
    if create_roles {
        let encoding = encoding_of(connection, new_database).await?;
        for role in &lacks.roles {
            let named = lacks::name_for(connection, role, &encoding).await;
            pg::execute(connection, format!("CREATE ROLE {} NOLOGIN", identifier(&named)))
                .await
                .with_context(|| format!("cannot create the role {role}"))?;
        }
    } else {
        anyhow::ensure!(
            lacks.roles.is_empty(),
            Fault::new(
                Kind::Configuration,
                format!(
                    "the target lacks roles that own objects or have grants or settings in the dump: {}; {}",
                    lacks.roles.join(", "),
                    if choices.for_scratch {
                        "create them there, without login (CREATE ROLE)"
                    } else {
                        "restore globals.sql.gz first, or let --create-roles create them without login; --role-map OLD=NEW maps to another role, --no-owner needs no owners"
                    }
                )
            )
        );
    }
    Ok(lacks)
}

/// Refuses a target that lacks extensions or tablespaces, and returns the roles that it lacks.
pub async fn lacks_of(
    connection: &mut PgConnection,
    set: &Set,
    choices: &Choices,
    new_database: Option<&DatabaseFacts>,
) -> Result<Lacks> {
    let source = choices.needed_of(&set.manifest.server);
    check_tablespaces(connection, &source, choices).await?;
    let mut roles = source.roles.clone();
    // A scratch database gets none of the properties.
    if let Some(like) = new_database.filter(|_| !choices.for_scratch) {
        roles.extend(like.roles());
    }
    let encoding = encoding_of(connection, new_database).await?;
    let lacks = lacks::lacks(connection, &source, &roles, &encoding).await?;
    anyhow::ensure!(
        lacks.extensions.is_empty(),
        Fault::new(
            Kind::Configuration,
            format!(
                "the target lacks extensions that the dump needs: {}; install their packages on the target's host{}",
                lacks.extensions.join(", "),
                // Options of `backups restore`.
                if choices.for_scratch || choices.for_refresh { "" } else { ", or leave them out: --without EXTENSION NAME" }
            )
        )
    );
    Ok(lacks)
}

/// The encoding of the database into which the set is restored.
async fn encoding_of(connection: &mut PgConnection, new_database: Option<&DatabaseFacts>) -> Result<String> {
    match new_database {
        Some(like) => Ok(like.encoding.clone()),
        None => Ok(sqlx::query_scalar("SELECT pg_catalog.getdatabaseencoding()::text").fetch_one(connection).await?),
    }
}

/// The properties of the new database: those of the source, except for the choices.
pub async fn like(
    connection: &mut PgConnection,
    set: &Set,
    choices: &Choices,
    encoding: Option<&str>,
    locale: Option<&str>,
) -> Result<DatabaseFacts> {
    let mut source = set.manifest.server.database.clone();
    if choices.no_tablespaces || !may_use_tablespace(connection, source.tablespace.as_deref()).await? {
        source.tablespace = None;
    }
    let mut like = source.with_roles(|role| choices.role(role).to_owned()).with_locale(encoding, locale);
    if choices.no_owner {
        let me: String = sqlx::query_scalar("SELECT current_user::text").fetch_one(connection).await?;
        let old = std::mem::replace(&mut like.owner, me.clone());
        like = like.with_roles(|role| if role == old { me.clone() } else { role.to_owned() });
    }
    Ok(like)
}

async fn may_use_tablespace(connection: &mut PgConnection, name: Option<&str>) -> Result<bool> {
    let may = sqlx::query_scalar(
        "SELECT EXISTS (SELECT FROM pg_catalog.pg_tablespace WHERE spcname = $1 AND pg_catalog.has_tablespace_privilege(oid, 'CREATE'))",
    );
    Ok(may.bind(name).fetch_one(connection).await?)
}

/// A copy that an earlier call completed.
struct Whole {
    name: String,
    has_failures: bool,
}

/// A database that does not exist yet.
pub struct NewDatabase<'a> {
    /// With its name.
    pub settings: &'a pg::Settings,
    /// Its properties.
    pub like: &'a DatabaseFacts,
    pub choices: &'a Choices,
    /// How many sessions restore it.
    pub sessions: usize,
}

/// Restores into a new database. A copy that an earlier call completed
/// but could not rename is counted and used.
pub async fn into_new_database(
    store: &Store,
    set: &Set,
    new: &NewDatabase<'_>,
    phase: &Phase,
    cancel: &CancellationToken,
) -> Result<Restored> {
    let NewDatabase { settings, like, choices, sessions } = *new;
    let name = settings.database();
    let names = Names::of(name, set, choices, like);
    let mut connection = maintenance_connection(settings).await?;
    refuse_existing(&mut connection, name).await?;
    lock(&mut connection, &names.lock).await.with_context(|| format!("cannot restore into {name}"))?;

    if let Some(found) = whole_copy(&mut connection, &names).await? {
        if !found.has_failures {
            count_again(&mut connection, set, &settings.with_database(&found.name), choices).await?;
        }
        let mut restored = take_up(&mut connection, settings, &names, &found, like).await?;
        if choices.rows == RowCheck::Hash {
            restored.notes.push("the rows of that copy were counted again, and not hashed by this call".to_owned());
        }
        return Ok(restored);
    }
    let notes = others_notes(&mut connection, &names).await?;
    for leftover in scratch_leftovers(&mut connection, &names.filling_prefix).await? {
        scratch::drop_scratch(&mut connection, settings, &leftover, None).await?;
    }
    let mut made = None;
    let filled = async {
        made = Some(create_scratch(&mut connection, &names.filling, like).await?);
        let settings = settings.with_database(&names.filling);
        let target = Target { settings: &settings, choices, in_transaction: false, superuser: None, sessions };
        stream_into(store, set, &target, phase, cancel).await
    };
    let filled = filled.await;
    if !matches!(&filled, Ok(restored) if restored.is_complete()) {
        drop(connection);
        if let Some(warning) = drop_or_warn(settings, &names.filling, made).await {
            tracing::warn!("{warning}");
        }
        return filled;
    }
    let filled = filled?;
    // The connection was idle for hours, and a proxy may have closed it.
    if connection.ping().await.is_err() {
        connection = maintenance_connection(settings).await?;
        lock(&mut connection, &names.lock).await?;
    }
    let copy = Whole { name: names.filling.clone(), has_failures: filled.failed_count > 0 };
    let comment = literal(&names.comment(copy.has_failures));
    let named = async {
        pg::execute(&mut connection, format!("COMMENT ON DATABASE {} IS {comment}", identifier(&names.filling))).await?;
        finish(&mut connection, settings, &names, &copy, like).await
    };
    // The list of failures is kept nowhere else.
    let mut restored = named.await.map_err(|error| match filled.failed_count {
        0 => error,
        count => {
            error.context(format!("{} failed and were skipped: {}", units::plural(count, "statement"), filled.failed.join("; ")))
        }
    })?;
    restored.notes.splice(0..0, filled.notes.into_iter().chain(notes));
    let Restored { failed, failed_count, sessions, seconds, hashed, .. } = filled;
    Ok(Restored { failed, failed_count, sessions, seconds, hashed, ..restored })
}

/// Renames the copy of an earlier call.
async fn take_up(
    connection: &mut PgConnection,
    settings: &pg::Settings,
    names: &Names,
    found: &Whole,
    like: &DatabaseFacts,
) -> Result<Restored> {
    let mut restored = finish(connection, settings, names, found, like).await?;
    if found.has_failures {
        restored.failed_count = 1;
        restored.failed.push(format!(
            "an earlier call had restored the set into {}; some statements failed then and were listed by that call; the copy was not counted again. To see them again, drop this database and restore once more",
            found.name
        ));
    } else {
        restored
            .notes
            .push(format!("an earlier call had restored the set into {}: it was counted again and renamed", found.name));
    }
    Ok(restored)
}

async fn refuse_existing(connection: &mut PgConnection, name: &str) -> Result<()> {
    let exists: bool = sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_catalog.pg_database WHERE datname = $1)")
        .bind(name)
        .fetch_one(connection)
        .await?;
    anyhow::ensure!(
        !exists,
        Fault::new(
            Kind::Configuration,
            format!("database {name} already exists: choose another name, or restore into it without --create if it is empty")
        )
    );
    Ok(())
}

/// A copy of this set for this database that an earlier call completed.
async fn whole_copy(connection: &mut PgConnection, names: &Names) -> Result<Option<Whole>> {
    let found: Option<(String, bool)> = sqlx::query_as(
        "SELECT datname::pg_catalog.text,
                datname = $2 OR datname = $3 AND pg_catalog.shobj_description(oid, 'pg_database') = $5
         FROM pg_catalog.pg_database
         WHERE pg_catalog.pg_has_role(datdba, 'MEMBER')
           AND (datname = $1 OR datname = $2
                OR datname = $3 AND pg_catalog.shobj_description(oid, 'pg_database') IN ($4, $5))
         LIMIT 1",
    )
    .bind(&names.whole)
    .bind(&names.with_failures)
    .bind(&names.filling)
    .bind(names.comment(false))
    .bind(names.comment(true))
    .fetch_optional(connection)
    .await?;
    Ok(found.map(|(name, has_failures)| Whole { name, has_failures }))
}

/// Notes on whole copies of other sets, which take space and would otherwise go unnoticed.
async fn others_notes(connection: &mut PgConnection, names: &Names) -> Result<Vec<String>> {
    let others: Vec<String> = sqlx::query_scalar(
        "SELECT datname::pg_catalog.text FROM pg_catalog.pg_database
         WHERE pg_catalog.starts_with(datname::pg_catalog.text, $1)
            OR pg_catalog.starts_with(datname::pg_catalog.text, $2)
               AND pg_catalog.starts_with(pg_catalog.shobj_description(oid, 'pg_database'), $3)
         ORDER BY 1",
    )
    .bind(&names.whole_prefix)
    .bind(&names.filling_prefix)
    .bind(WHOLE_COMMENT)
    .fetch_all(connection)
    .await?;
    let note = |other: &String| {
        format!(
            "database {other} is a whole copy of another set that an earlier call could not rename: DROP DATABASE {} if it is not needed",
            identifier(other)
        )
    };
    Ok(others.iter().map(note).collect())
}

async fn count_again(connection: &mut PgConnection, set: &Set, settings: &pg::Settings, choices: &Choices) -> Result<()> {
    let name = settings.database();
    // It may already have its properties, and with them its privileges to connect: during the count other roles may not connect.
    scratch::open_to_us(connection, name).await?;
    let counted = async {
        let mut inside = settings.connect().await?;
        counts::compare(&mut inside, &set.manifest.tables).await
    };
    let counted = counted.await;
    close(connection, name).await?;
    let counted = counted?;
    let leaves_out_an_extension = choices.without.iter().any(|without| without.kind == Object::Extension);
    let missing = counted.missing.iter().filter(|_| !leaves_out_an_extension);
    let missing = missing.map(|table| format!("{}.{} is missing", table.schema, table.name));
    let changed: Vec<String> = counted.differ.into_iter().chain(missing).chain(counted.unreadable).collect();
    anyhow::ensure!(
        changed.is_empty(),
        "database {name} was restored by an earlier call and has been changed since ({}); \
         to restore it again: DROP DATABASE {} WITH (FORCE)",
        changed.join("; "),
        identifier(name)
    );
    Ok(())
}

/// Gives a whole copy its properties and its name. During all of this no session can connect.
async fn finish(
    connection: &mut PgConnection,
    settings: &pg::Settings,
    names: &Names,
    found: &Whole,
    like: &DatabaseFacts,
) -> Result<Restored> {
    let name = settings.database();
    let whole = names.whole(found.has_failures);
    let mut last_resort = found.name.as_str();
    let finished = async {
        close(connection, &found.name).await?;
        if found.name != whole {
            rename(connection, &found.name, whole, "").await?;
        }
        last_resort = whole;
        let not_carried = properties::carry(connection, whole, like).await;
        rename(connection, whole, name, &format!("; ALTER DATABASE {} ALLOW_CONNECTIONS true", identifier(name))).await?;
        Ok(Restored { not_carried, ..Restored::default() })
    };
    let finished: Result<Restored> = finished.await;
    finished.with_context(|| {
        let whole = identifier(last_resort);
        let other = identifier("OTHER_NAME");
        let counted = if found.has_failures { ", except for the failed statements," } else { " and counted" };
        format!(
            "the set is restored{counted} in the database {last_resort}, which could not be renamed to {name}: run the same command again to continue. \
             Or rename it manually: ALTER DATABASE {whole} RENAME TO {other}; ALTER DATABASE {other} ALLOW_CONNECTIONS true"
        )
    })
}

/// Disallows new sessions, and terminates the existing ones.
pub async fn close(connection: &mut PgConnection, name: &str) -> Result<()> {
    pg::execute(&mut *connection, format!("ALTER DATABASE {} ALLOW_CONNECTIONS false", identifier(name))).await?;
    let sessions: Vec<i32> = sqlx::query_scalar(
        "SELECT pid FROM pg_catalog.pg_stat_activity WHERE datname = $1 AND coalesce(backend_type, 'client backend') = 'client backend'",
    )
    .bind(name)
    .fetch_all(&mut *connection)
    .await?;
    for pid in sessions {
        // A session that this role may not terminate blocks the rename, which then reports it.
        let ended: Result<bool, _> =
            sqlx::query_scalar("SELECT pg_catalog.pg_terminate_backend($1)").bind(pid).fetch_one(&mut *connection).await;
        if let Err(error) = ended {
            tracing::debug!("session {pid} in {name}: {error}");
        }
    }
    Ok(())
}

/// Renames in one transaction with `then`. Waits for sessions that are ending.
async fn rename(connection: &mut PgConnection, from: &str, to: &str, then: &str) -> Result<()> {
    let sql = format!("ALTER DATABASE {} RENAME TO {}{then}", identifier(from), identifier(to));
    for _ in 1..RENAME_TRIES {
        match pg::execute(connection, sql.clone()).await {
            // 55006: being accessed by other users. PostgreSQL itself waits for five seconds.
            Err(error) if pg::sql_state(&error).as_deref() == Some("55006") && is_ending(connection, from).await? => {}
            ended => return ended,
        }
    }
    pg::execute(connection, sql).await
}

/// Returns whether this role may terminate all sessions in it.
async fn is_ending(connection: &mut PgConnection, name: &str) -> Result<bool> {
    let foreign: bool = sqlx::query_scalar(
        "SELECT EXISTS (SELECT FROM pg_catalog.pg_stat_activity a JOIN pg_catalog.pg_roles r ON r.oid = a.usesysid
                        WHERE a.datname = $1 AND (r.rolsuper AND NOT (SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user)
                                                  OR NOT pg_catalog.pg_has_role(a.usesysid, 'MEMBER')))",
    )
    .bind(name)
    .fetch_one(connection)
    .await?;
    Ok(!foreign)
}
