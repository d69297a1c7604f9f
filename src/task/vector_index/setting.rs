//! The setting that applications search with: one value for a database or a role, shared by all its indexes.

use anyhow::Result;
use sqlx::PgConnection;

use super::built::Built;
use super::keys::ApplySetting;
use super::kind::Method;
use super::state;
use crate::base::fault::{Fault, Kind};
use crate::pg::{self, identifier};

/// Returns the value that applications search with, unless they set another themselves.
pub async fn current(connection: &mut PgConnection, method: Method, role: Option<&str>, extension: &str) -> Result<u32> {
    load(connection, extension).await?;
    let found = of_applications(connection, method.setting(), role).await?;
    Ok(found.and_then(|text| text.parse().ok()).unwrap_or(method.default_setting()))
}

/// Returns the value of a setting of pgvector that applications have, unless they set another themselves; None: the version has none.
pub async fn of_applications(connection: &mut PgConnection, name: &str, role: Option<&str>) -> Result<Option<String>> {
    let found: Option<String> = sqlx::query_scalar(
        "SELECT coalesce(
            (SELECT split_part(one, '=', 2) FROM pg_db_role_setting s, unnest(s.setconfig) one
             WHERE split_part(one, '=', 1) = $1 AND s.setdatabase IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))
               AND s.setrole IN (0, coalesce((SELECT oid FROM pg_roles WHERE rolname = $2), 0))
             ORDER BY s.setrole = 0, s.setdatabase = 0 LIMIT 1),
            (SELECT CASE WHEN source = 'configuration file' THEN reset_val ELSE boot_val END FROM pg_settings WHERE name = $1))",
    )
    .bind(name)
    .bind(role)
    .fetch_one(connection)
    .await?;
    Ok(found)
}

/// What another index needs of a setting that all indexes share.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Others {
    /// 0: no other index needs any.
    pub setting: u32,
    /// The index and its table.
    pub whose: String,
}

/// Returns the highest value that other indexes of the database were found to need: all indexes share one setting. `but`: indexes to ignore.
pub async fn of_others(connection: &mut PgConnection, method: Method, but: [Option<i64>; 2]) -> Result<Others> {
    let comments: Vec<(String, String)> = sqlx::query_as(
        "SELECT obj_description(x.oid, 'pg_class'), format('%s of %s', x.oid::regclass, i.indrelid::regclass)
         FROM pg_class x JOIN pg_am am ON am.oid = x.relam JOIN pg_index i ON i.indexrelid = x.oid
         WHERE am.amname = $1 AND x.relkind = 'i' AND x.oid::bigint <> ALL (array_remove($2::bigint[], NULL)) AND obj_description(x.oid, 'pg_class') IS NOT NULL
         ORDER BY x.oid",
    )
    .bind(method.name())
    .bind(but.to_vec())
    .fetch_all(connection)
    .await?;
    let needs =
        comments.into_iter().filter_map(|(comment, whose)| Some(Others { setting: Built::read(&comment)?.setting, whose }));
    // Any role may write a comment.
    Ok(needs.filter(|others| others.setting <= method.max_setting()).max_by_key(|others| others.setting).unwrap_or_default())
}

/// Checks before hours of building whether the role may set the value for applications, with the conditions of PostgreSQL's
/// AlterDatabaseSet and AlterRoleSet.
pub async fn may_set(connection: &mut PgConnection, place: &ApplySetting) -> Result<()> {
    let refused = |message: String, kind| Err(Fault::new(kind, message).into());
    let ApplySetting::Role(role) = place else {
        let sql = "SELECT pg_has_role(datdba, 'USAGE') FROM pg_database WHERE datname = current_database()";
        if sqlx::query_scalar(sql).fetch_one(connection).await? {
            return Ok(());
        }
        let message = "apply_setting = \"database\" needs the owner of the database: GRANT the owner's role TO the role, or use \"role:NAME\"";
        return refused(message.to_owned(), Kind::Permission);
    };
    let may: Option<bool> = sqlx::query_scalar(
        "SELECT me.rolsuper OR NOT r.rolsuper AND (r.oid = me.oid OR me.rolcreaterole AND
                (current_setting('server_version_num')::int < 160000 OR pg_has_role(me.oid, r.oid, 'MEMBER WITH ADMIN OPTION')))
         FROM pg_roles r, pg_roles me WHERE r.rolname = $1 AND me.rolname = current_user",
    )
    .bind(role)
    .fetch_optional(connection)
    .await?;
    match may {
        Some(true) => Ok(()),
        Some(false) => {
            let message = format!(
                "apply_setting = \"role:{role}\" needs that role itself, or one with CREATEROLE and ADMIN OPTION on {}",
                identifier(role)
            );
            refused(message, Kind::Permission)
        }
        None => refused(format!("apply_setting = \"role:{role}\": there is no such role"), Kind::Configuration),
    }
}

/// Loads pgvector, so that the session knows its settings.
pub async fn load(connection: &mut PgConnection, extension: &str) -> Result<()> {
    pg::execute(connection, state::proof(extension)).await?;
    let sql = format!("SELECT '[1]'::{0}.vector OPERATOR({0}.<->) '[1]'::{0}.vector", identifier(extension));
    pg::query(sql).execute(connection).await?;
    Ok(())
}
