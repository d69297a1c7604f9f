//! Requirements of a restore that a target server lacks.

use std::collections::HashSet;

use anyhow::Result;
use sqlx::Connection as _;
use sqlx::postgres::PgConnection;

use super::facts::ServerFacts;
use crate::pg::Server;

#[derive(Debug, Default, PartialEq, Eq)]
pub struct Lacks {
    pub extensions: Vec<String>,
    pub roles: Vec<String>,
    /// Notes that do not stop the restore.
    pub notes: Vec<String>,
}

/// `roles`: those that are needed. `encoding`: of the database that will look them up.
pub async fn lacks(target: &mut PgConnection, source: &ServerFacts, roles: &[String], encoding: &str) -> Result<Lacks> {
    let available: Vec<String> =
        sqlx::query_scalar("SELECT name::text FROM pg_catalog.pg_available_extensions").fetch_all(&mut *target).await?;
    let extensions = source.extensions.iter().map(|extension| extension.name.clone());
    let extensions = extensions.filter(|name| !available.contains(name)).collect();

    let stored = stored_role_names(target).await?;
    let mut missing = Vec::new();
    for role in roles {
        if !stored.contains(&bytes_in(target, role, encoding).await) && !missing.contains(role) {
            missing.push(role.clone());
        }
    }
    let server = Server::of(target).await?;
    let mut notes = Vec::new();
    if server.major() < source.version_num as u32 / 10_000 {
        notes.push(format!(
            "the target is PostgreSQL {} and the dump is from {}: newer syntax in it will stop the restore",
            server.version, source.version
        ));
    }
    Ok(Lacks { extensions, roles: missing, notes })
}

/// The bytes of all role names. Roles belong to the whole server, and a name's bytes are in the encoding of the database where it was
/// created: how a session reads them depends on its own encoding. Bytes compare the same in every session.
async fn stored_role_names(connection: &mut PgConnection) -> Result<HashSet<Vec<u8>>> {
    let mut transaction = connection.begin().await?;
    sqlx::query("SELECT pg_catalog.set_config('client_encoding', 'SQL_ASCII', true)").execute(&mut *transaction).await?;
    let names: Vec<String> =
        sqlx::query_scalar("SELECT pg_catalog.encode(pg_catalog.namesend(rolname), 'hex') FROM pg_catalog.pg_roles")
            .fetch_all(&mut *transaction)
            .await?;
    transaction.commit().await?;
    names.iter().map(|name| Ok(hex::decode(name)?)).collect()
}

/// The bytes that a database of that encoding looks for when it is given `name`.
async fn bytes_in(connection: &mut PgConnection, name: &str, encoding: &str) -> Vec<u8> {
    if name.is_ascii() || matches!(encoding, "UTF8" | "SQL_ASCII") {
        return name.as_bytes().to_vec();
    }
    let converted: Result<String, _> = sqlx::query_scalar("SELECT pg_catalog.encode(pg_catalog.convert_to($1, $2), 'hex')")
        .bind(name)
        .bind(encoding)
        .fetch_one(connection)
        .await;
    // The encoding lacks a character of the name: no role has that name there.
    converted.ok().and_then(|digits| hex::decode(&digits).ok()).unwrap_or_else(|| name.as_bytes().to_vec())
}

/// The name that this session must use for the role that a database of `encoding` calls `name`.
pub async fn name_for(connection: &mut PgConnection, name: &str, encoding: &str) -> String {
    let bytes = bytes_in(connection, name, encoding).await;
    if bytes == name.as_bytes() && name.is_ascii() {
        return name.to_owned();
    }
    let converted: Result<String, _> =
        sqlx::query_scalar("SELECT pg_catalog.convert_from(pg_catalog.decode($1, 'hex'), pg_catalog.getdatabaseencoding())")
            .bind(hex::encode(bytes))
            .fetch_one(connection)
            .await;
    converted.unwrap_or_else(|_| name.to_owned())
}
