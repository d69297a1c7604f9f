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
    // A value of this session would hide where its own comes from.
    pg::execute(connection, format!("RESET {}", method.setting())).await?;
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

/// Indexes that are named in a line.
const NAMED: usize = 5;
/// pgvector's settings of a search beside [`Method::setting`]; each version knows some of them.
const OF_SEARCHES: [&str; 5] =
    ["hnsw.iterative_scan", "hnsw.max_scan_tuples", "hnsw.scan_mem_multiplier", "ivfflat.iterative_scan", "ivfflat.max_probes"];

/// Makes the session search with the settings of applications, which may differ from those of pgtend's own role. pgvector has to be loaded.
pub async fn as_applications(connection: &mut PgConnection, role: Option<&str>) -> Result<()> {
    let known: Vec<String> = sqlx::query_scalar("SELECT name FROM pg_settings WHERE name = ANY ($1) ORDER BY name")
        .bind(OF_SEARCHES.as_slice())
        .fetch_all(&mut *connection)
        .await?;
    for name in known {
        // A value of this session would hide where its own comes from.
        pg::execute(connection, format!("RESET {name}")).await?;
        if let Some(value) = of_applications(connection, &name, role).await? {
            pg::set(connection, &name, &value).await?;
        }
    }
    Ok(())
}

/// What other indexes need of a setting that all indexes share.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Others {
    /// The highest value that one was found to need; 0: no other index needs any.
    pub setting: u32,
    /// The index and its table.
    pub whose: String,
    /// Indexes of which nobody recorded what they need, each with its table.
    pub unknown: Vec<String>,
    /// The value of today, which stays while there are such indexes; 0: there are none.
    pub kept: u32,
}

impl Others {
    /// Returns the value below which the setting is not set.
    pub fn least(&self) -> u32 {
        self.setting.max(self.kept)
    }

    /// Says why it is not set lower than this, and for whom.
    pub fn in_words(&self, name: &str) -> Vec<String> {
        let mut words = Vec::new();
        if self.setting > 0 {
            let (setting, whose) = (self.setting, &self.whose);
            words.push(format!("other indexes of the database need {name} = {setting}: it will not be set lower ({whose})"));
        }
        if self.kept > self.setting {
            words.push(format!(
                "{name} = {} stays, because pgtend does not know what other indexes need: {}",
                self.kept,
                some_of(&self.unknown)
            ));
        }
        words
    }
}

/// Returns the first names, and how many there are beside them.
pub fn some_of(names: &[String]) -> String {
    match names.len().checked_sub(NAMED).filter(|more| *more > 0) {
        Some(more) => format!("{} and {more} more", names[..NAMED].join(", ")),
        None => names.join(", "),
    }
}

/// An index of another table or column, and what its comment says.
#[derive(sqlx::FromRow)]
struct Other {
    comment: Option<String>,
    whose: String,
    is_trusted: bool,
}

/// Returns what other indexes of the database need: all share one setting. `but`: indexes to ignore; `table`: whose owner may say so, as the login, the
/// database's owner and superusers may. Comments of other owners are not obeyed, and indexes of temporary tables count for nothing.
pub async fn of_others(
    connection: &mut PgConnection,
    (method, role): (Method, Option<&str>),
    table: i64,
    but: [Option<i64>; 2],
    extension: &str,
) -> Result<Others> {
    let found: Vec<Other> = sqlx::query_as(
        "SELECT obj_description(x.oid, 'pg_class') AS comment, format('%s of %s', x.oid::regclass, i.indrelid::regclass) AS whose,
                x.relowner IN ((SELECT oid FROM pg_roles WHERE rolname = current_user), (SELECT datdba FROM pg_database WHERE datname = current_database()),
                               (SELECT relowner FROM pg_class WHERE oid = $3::bigint::oid)) OR r.rolsuper AS is_trusted
         FROM pg_class x JOIN pg_am am ON am.oid = x.relam JOIN pg_index i ON i.indexrelid = x.oid JOIN pg_roles r ON r.oid = x.relowner
         WHERE am.amname = $1 AND x.relkind = 'i' AND x.relpersistence <> 't' AND i.indisvalid AND x.oid::bigint <> ALL (array_remove($2::bigint[], NULL))
         ORDER BY x.oid",
    )
    .bind(method.name())
    .bind(but.to_vec())
    .bind(table)
    .fetch_all(&mut *connection)
    .await?;
    let mut others = Others::default();
    for Other { comment, whose, is_trusted } in found {
        let need = comment.filter(|_| is_trusted).and_then(|comment| Built::read(&comment));
        if need.as_ref().is_some_and(|need| need.is_by_function) {
            continue;
        }
        match need.map(|need| need.setting).filter(|setting| *setting <= method.max_setting()) {
            Some(setting) if setting > others.setting => (others.setting, others.whose) = (setting, whose),
            Some(_) => {}
            None => others.unknown.push(whose),
        }
    }
    if !others.unknown.is_empty() {
        others.kept = current(connection, method, role, extension).await?;
    }
    Ok(others)
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
