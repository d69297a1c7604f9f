//! What the source server and database are, for the manifest and for whoever restores.

use std::collections::HashSet;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use sqlx::postgres::PgConnection;

use crate::pg::Server;

/// The source, and what a target must have.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ServerFacts {
    pub version: String,
    pub version_num: i32,
    /// Differs between servers that do not descend from one another; None where it may not be read.
    pub system_identifier: Option<String>,
    pub in_recovery: bool,
    pub database: DatabaseFacts,
    pub extensions: Vec<Extension>,
    /// Owners and grantees in this database.
    pub roles: Vec<String>,
    /// That relations of the database name; the database's own is none of them.
    #[serde(default)]
    pub tablespaces: Vec<String>,
}

/// What CREATE DATABASE and ALTER DATABASE said of it; a plain dump does not hold it.
#[derive(Clone, Debug, Serialize, Deserialize, sqlx::FromRow)]
pub struct DatabaseFacts {
    pub name: String,
    pub owner: String,
    pub encoding: String,
    pub collate: String,
    pub ctype: String,
    /// `c` libc, `i` ICU, `b` builtin.
    pub locale_provider: String,
    pub locale: Option<String>,
    pub size_bytes: i64,
    /// `ALTER DATABASE … SET`: `name=value`.
    pub settings: Vec<String>,
    /// `CONNECT role`, `TEMPORARY ` (of PUBLIC), …; None where nobody ever granted or revoked anything.
    #[serde(default)]
    pub grants: Option<Vec<String>>,
    #[serde(default)]
    pub comment: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, sqlx::FromRow)]
pub struct Extension {
    pub name: String,
    pub version: String,
}

pub async fn server(connection: &mut PgConnection) -> Result<ServerFacts> {
    let server = Server::of(connection).await?;
    // Readable by all since 10, unless an administrator has revoked it.
    let system_identifier =
        sqlx::query_scalar("SELECT system_identifier::text FROM pg_control_system()").fetch_one(&mut *connection).await.ok();
    let in_recovery = sqlx::query_scalar("SELECT pg_is_in_recovery()").fetch_one(&mut *connection).await?;
    let database = database(connection).await.context("cannot read the database's properties")?;
    let extensions =
        sqlx::query_as::<_, Extension>("SELECT extname AS name, extversion AS version FROM pg_extension ORDER BY extname")
            .fetch_all(&mut *connection)
            .await?;
    let roles = roles(connection).await.context("cannot read which roles own objects")?;
    let tablespaces = sqlx::query_scalar(
        "SELECT spcname::text FROM pg_tablespace t WHERE EXISTS (SELECT FROM pg_class WHERE reltablespace = t.oid AND oid >= 16384) ORDER BY 1",
    )
    .fetch_all(&mut *connection)
    .await?;
    Ok(ServerFacts {
        version: server.version,
        version_num: server.version_num,
        system_identifier,
        in_recovery,
        database,
        extensions,
        roles,
        tablespaces,
    })
}

/// Through jsonb, because the columns differ: datlocprovider came with 15, daticulocale became datlocale in 17.
async fn database(connection: &mut PgConnection) -> Result<DatabaseFacts> {
    let facts = sqlx::query_as(
        "SELECT datname AS name, pg_get_userbyid(datdba) AS owner, pg_encoding_to_char(encoding) AS encoding,
                datcollate AS collate, datctype AS ctype,
                coalesce(to_jsonb(d) ->> 'datlocprovider', 'c') AS locale_provider,
                coalesce(to_jsonb(d) ->> 'datlocale', to_jsonb(d) ->> 'daticulocale') AS locale,
                pg_database_size(oid) AS size_bytes,
                coalesce((SELECT setconfig FROM pg_db_role_setting WHERE setdatabase = d.oid AND setrole = 0), '{}') AS settings,
                (SELECT array_agg(privilege_type || ' ' || coalesce(rolname, '') ORDER BY privilege_type, rolname)
                 FROM aclexplode(datacl) LEFT JOIN pg_roles r ON r.oid = grantee) AS grants,
                shobj_description(oid, 'pg_database') AS comment
         FROM pg_database d WHERE datname = current_database()",
    )
    .fetch_one(connection)
    .await?;
    Ok(facts)
}

/// Owners and grantees. The bootstrap superuser is pinned and so not in pg_shdepend: owners are asked for, too.
async fn roles(connection: &mut PgConnection) -> Result<Vec<String>> {
    let roles = sqlx::query_scalar(
        "SELECT r.rolname::text FROM pg_roles r WHERE r.oid IN (
             SELECT refobjid FROM pg_shdepend
             WHERE refclassid = 'pg_authid'::regclass AND dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
             UNION SELECT relowner FROM pg_class WHERE oid >= 16384
             UNION SELECT nspowner FROM pg_namespace WHERE oid >= 16384
             UNION SELECT proowner FROM pg_proc WHERE oid >= 16384
             UNION SELECT typowner FROM pg_type WHERE oid >= 16384)
         ORDER BY 1",
    )
    .fetch_all(connection)
    .await?;
    Ok(roles)
}

/// The names of all settings that a server knows.
pub async fn setting_names(connection: &mut PgConnection) -> Result<HashSet<String>> {
    let names: Vec<String> = sqlx::query_scalar("SELECT name FROM pg_settings").fetch_all(connection).await?;
    Ok(names.into_iter().collect())
}

/// What a target must have before a restore starts, and does not.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Lacks {
    pub extensions: Vec<String>,
    pub roles: Vec<String>,
    /// Worth saying, and no reason to stop.
    pub notes: Vec<String>,
}

pub async fn lacks(target: &mut PgConnection, source: &ServerFacts) -> Result<Lacks> {
    let available: Vec<String> =
        sqlx::query_scalar("SELECT name::text FROM pg_available_extensions").fetch_all(&mut *target).await?;
    let roles: Vec<String> = sqlx::query_scalar("SELECT rolname::text FROM pg_roles").fetch_all(&mut *target).await?;
    let server = Server::of(target).await?;
    let missing = |wanted: &[String], present: &[String]| wanted.iter().filter(|name| !present.contains(name)).cloned().collect();
    let extensions: Vec<String> = source.extensions.iter().map(|extension| extension.name.clone()).collect();
    let mut notes = Vec::new();
    if server.major() < source.version_num as u32 / 10_000 {
        notes.push(format!(
            "the target is PostgreSQL {} and the dump is of {}: newer syntax in it will stop the restore",
            server.version, source.version
        ));
    }
    Ok(Lacks { extensions: missing(&extensions, &available), roles: missing(&source.roles, &roles), notes })
}
