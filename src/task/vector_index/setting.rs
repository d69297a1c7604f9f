//! What applications search with: one setting of a database or a role for all its indexes.

use anyhow::Result;
use sqlx::PgConnection;

use super::built::Built;
use super::keys::ApplySetting;
use super::kind::Method;
use crate::base::fault::{Fault, Kind};
use crate::pg::{self, identifier};

/// What applications search with, unless they say something else themselves.
pub async fn today(connection: &mut PgConnection, method: Method, role: Option<&str>, extension: &str) -> Result<u32> {
    load(connection, extension).await?;
    let found: Option<String> = sqlx::query_scalar(
        "SELECT coalesce(
            (SELECT split_part(one, '=', 2) FROM pg_db_role_setting s, unnest(s.setconfig) one
             WHERE split_part(one, '=', 1) = $1 AND s.setdatabase IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))
               AND s.setrole IN (0, coalesce((SELECT oid FROM pg_roles WHERE rolname = $2), 0))
             ORDER BY s.setrole = 0, s.setdatabase = 0 LIMIT 1),
            (SELECT CASE WHEN source = 'configuration file' THEN reset_val ELSE boot_val END FROM pg_settings WHERE name = $1))",
    )
    .bind(method.setting())
    .bind(role)
    .fetch_one(connection)
    .await?;
    Ok(found.and_then(|text| text.parse().ok()).unwrap_or(method.default_setting()))
}

/// The highest setting that runs on other indexes of the database found out: one setting is for all of them. `but`:
/// indexes that do not count.
pub async fn of_others(connection: &mut PgConnection, method: Method, but: [Option<i64>; 2]) -> Result<u32> {
    let comments: Vec<String> = sqlx::query_scalar(
        "SELECT obj_description(x.oid, 'pg_class') FROM pg_class x JOIN pg_am am ON am.oid = x.relam
         WHERE am.amname = $1 AND x.relkind = 'i' AND x.oid::bigint <> ALL (array_remove($2::bigint[], NULL)) AND obj_description(x.oid, 'pg_class') IS NOT NULL",
    )
    .bind(method.name())
    .bind(but.to_vec())
    .fetch_all(connection)
    .await?;
    let settings = comments.iter().filter_map(|comment| Built::read(comment)).map(|built| built.setting);
    // A comment is anybody's to write.
    Ok(settings.filter(|setting| *setting <= method.setting_at_most()).max().unwrap_or(0))
}

/// Whether the role may set what applications search with, found out before hours of building. As AlterDatabaseSet and AlterRoleSet
/// of PostgreSQL ask.
pub async fn may_set(connection: &mut PgConnection, place: &ApplySetting) -> Result<()> {
    let refused = |message: String, kind| Err(Fault::new(kind, message).into());
    let ApplySetting::Role(role) = place else {
        let sql = "SELECT pg_has_role(datdba, 'USAGE') FROM pg_database WHERE datname = current_database()";
        if sqlx::query_scalar(sql).fetch_one(connection).await? {
            return Ok(());
        }
        let message =
            "apply_setting = \"database\" needs the owner of the database: GRANT its owner TO the role, or say \"role:NAME\"";
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

/// Loads pgvector, which makes its settings known to the session.
pub async fn load(connection: &mut PgConnection, extension: &str) -> Result<()> {
    let sql = format!("SELECT '[1]'::{0}.vector OPERATOR({0}.<->) '[1]'::{0}.vector", identifier(extension));
    pg::query(sql).execute(connection).await?;
    Ok(())
}
