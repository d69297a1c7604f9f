//! Facts about the source server and database, for the manifest and for the restore.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use anyhow::{Context as _, Result};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sqlx::Connection as _;
use sqlx::postgres::PgConnection;

use super::stamp::{self, Stamp};
use crate::base::fault::{Fault, Kind};
use crate::base::terminal;
use crate::pg::{self, Server};

/// The source, and what a target must have. Fields with a default are newer than the first release, whose manifests lack them.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ServerFacts {
    pub version: String,
    pub version_num: i32,
    /// It differs between servers that do not descend from one another; None where the role may not read it.
    pub system_identifier: Option<String>,
    pub in_recovery: bool,
    pub database: DatabaseFacts,
    pub extensions: Vec<Extension>,
    /// Owners and grantees of objects in the database; those of the database itself are in `database`.
    pub roles: Vec<String>,
    /// `HOST:PORT`, as this host reached it.
    #[serde(default)]
    pub host: String,
    /// The server's clock when it was asked.
    #[serde(default)]
    pub clock: Option<DateTime<Utc>>,
    /// The timeline of the WAL; for a standby, that of its last restart point.
    #[serde(default)]
    pub timeline: Option<i64>,
    /// A WAL position at or after the one where the dump began.
    #[serde(default)]
    pub lsn: Option<String>,
    /// Tablespaces that relations of the database use; the database's own is in `database`.
    #[serde(default)]
    pub tablespaces: Vec<String>,
    #[serde(default)]
    pub event_triggers: Vec<String>,
    #[serde(default)]
    pub subscriptions: Vec<String>,
    /// Partitions that hold rows.
    #[serde(default)]
    pub partitions: Vec<Partition>,
    /// Objects of the database that the backup's role may not read: they are not in the dump.
    #[serde(default)]
    pub unreadable: Vec<String>,
}

/// Properties from CREATE DATABASE and ALTER DATABASE, which a plain dump does not hold.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct DatabaseFacts {
    pub name: String,
    #[serde(default)]
    pub oid: Option<i64>,
    /// They tell it from another database, which may have its name and its OID: [`Stamp::marks`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub marks: Vec<String>,
    /// [`Stamp::younger`].
    #[serde(skip)]
    pub younger_marks: Arc<HashSet<String>>,
    /// Of the one schema that is backed up: [`Stamp::schema_oid`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema_oid: Option<i64>,
    pub owner: String,
    pub encoding: String,
    pub collate: String,
    pub ctype: String,
    /// `c` libc, `i` ICU, `b` builtin.
    pub locale_provider: String,
    pub locale: Option<String>,
    #[serde(default)]
    pub icu_rules: Option<String>,
    pub size_bytes: i64,
    /// -1 means no limit.
    #[serde(default)]
    pub connection_limit: Option<i32>,
    #[serde(default)]
    pub is_template: bool,
    /// None is pg_default.
    #[serde(default)]
    pub tablespace: Option<String>,
    /// `ALTER DATABASE … SET`: `name=value`.
    pub settings: Vec<String>,
    /// `ALTER ROLE … IN DATABASE … SET`.
    #[serde(default)]
    pub role_settings: Vec<RoleSettings>,
    /// `CONNECT role`, `TEMPORARY ` (of PUBLIC), …; None where no privilege was ever granted or revoked. For display; `privileges` is
    /// complete.
    #[serde(default)]
    pub grants: Option<Vec<String>>,
    #[serde(default)]
    pub privileges: Option<Vec<Privilege>>,
    #[serde(default)]
    pub security_labels: Vec<SecurityLabel>,
    #[serde(default)]
    pub comment: Option<String>,
}

impl DatabaseFacts {
    pub fn stamp(&self) -> Stamp {
        Stamp { oid: self.oid, marks: self.marks.clone(), younger: Arc::clone(&self.younger_marks), schema_oid: self.schema_oid }
    }

    /// Says which values of people stand in a manifest, which is not encrypted: those of settings of their own, and the comment.
    pub fn readable_values(&self) -> Option<String> {
        let all = self.settings.iter().chain(self.role_settings.iter().flat_map(|role| &role.settings));
        let names = all.filter_map(|setting| setting.split('=').next()).filter(|name| name.contains('.'));
        let names: BTreeSet<&str> = names.collect();
        let mut values: Vec<String> = names.into_iter().map(|name| format!("the value of the setting {name}")).collect();
        values.extend(self.comment.as_ref().map(|_| "the comment on the database".to_owned()));
        (!values.is_empty()).then(|| {
            format!(
                "the store encrypts, but manifests do not: whoever can read it can read {}. Keep no secret there \
                 (docs/howto/encrypt-backups.md, \"What stays readable\")",
                values.join(", ")
            )
        })
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoleSettings {
    pub role: String,
    /// `name=value`
    pub settings: Vec<String>,
}

/// One item of a database's access list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Privilege {
    /// `CONNECT`, `CREATE` or `TEMPORARY`.
    pub privilege: String,
    /// None is PUBLIC.
    pub grantee: Option<String>,
    /// None where the role no longer exists.
    pub grantor: Option<String>,
    /// WITH GRANT OPTION.
    pub grantable: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecurityLabel {
    pub provider: String,
    pub label: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extension {
    pub name: String,
    pub version: String,
    /// The schema of its objects; None in sets of the first release.
    #[serde(default)]
    pub schema: Option<String>,
}

/// A partition that holds rows, and the table at the top of its tree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Partition {
    pub schema: String,
    pub name: String,
    pub root_schema: String,
    pub root_name: String,
}

impl DatabaseFacts {
    /// The roles that ALTER DATABASE, GRANT and ALTER ROLE … IN DATABASE name.
    pub fn roles(&self) -> Vec<String> {
        let privileges = self.privileges.iter().flatten();
        let of_privileges = privileges.flat_map(|privilege| [privilege.grantee.clone(), privilege.grantor.clone()]).flatten();
        // A manifest of the first release has only these.
        let of_grants = self.grants.iter().flatten().filter_map(|grant| Some(grant.split_once(' ')?.1.to_owned()));
        let mut roles: Vec<String> = [self.owner.clone()]
            .into_iter()
            .chain(of_privileges)
            .chain(of_grants)
            .chain(self.role_settings.iter().map(|settings| settings.role.clone()))
            .filter(|role| !role.is_empty())
            .collect();
        roles.sort();
        roles.dedup();
        roles
    }

    /// A copy with other names for its roles.
    #[must_use]
    pub fn with_roles(mut self, rename: impl Fn(&str) -> String) -> Self {
        let privileges = self.privileges.iter_mut().flatten();
        let of_privileges = privileges.flat_map(|privilege| [&mut privilege.grantee, &mut privilege.grantor]).flatten();
        let of_settings = self.role_settings.iter_mut().map(|settings| &mut settings.role);
        for role in std::iter::once(&mut self.owner).chain(of_privileges).chain(of_settings) {
            *role = rename(role);
        }
        for grant in self.grants.iter_mut().flatten() {
            if let Some((privilege, role)) = grant.split_once(' ').filter(|(_, role)| !role.is_empty()) {
                *grant = format!("{privilege} {}", rename(role));
            }
        }
        self
    }

    /// A copy with another encoding, or another locale: of libc, or `icu:NAME`, `builtin:NAME`.
    #[must_use]
    pub fn with_locale(mut self, encoding: Option<&str>, locale: Option<&str>) -> Self {
        if let Some(encoding) = encoding {
            self.encoding = encoding.to_owned();
        }
        if let Some(written) = locale {
            let (provider, locale) = match written.split_once(':') {
                Some(("icu", name)) => ("i", name),
                Some(("builtin", name)) => ("b", name),
                Some(("libc", name)) => ("c", name),
                _ => ("c", written),
            };
            self.locale_provider = provider.to_owned();
            self.icu_rules = None;
            // ICU and the builtin provider still want a libc locale, and C is in every libc.
            let libc = if provider == "c" { locale } else { "C" };
            (self.collate, self.ctype) = (libc.to_owned(), libc.to_owned());
            self.locale = (provider != "c").then(|| locale.to_owned());
        }
        self
    }

    /// Returns whether text of this database reaches a UTF-8 client without a conversion, as plain bytes.
    pub fn has_no_way_to_utf8(&self) -> bool {
        matches!(self.encoding.as_str(), "SQL_ASCII" | "MULE_INTERNAL")
    }
}

/// A table that another session locks for longer keeps nobody waiting.
const SIZE_LOCK_TIMEOUT: &str = "1s";

/// Reads the facts about the server and database of `connection`, and about the one schema that is backed up, if it is one: a copy of a tenant needs no room for
/// all of them.
pub async fn place(connection: &mut PgConnection, settings: &pg::Settings, schema: Option<&str>) -> Result<ServerFacts> {
    let mut server = server(connection, settings).await?;
    if let Some(schema) = schema {
        server.database.schema_oid = schema_oid(connection, schema).await?;
        match size_of(connection, schema).await {
            Ok(size) => server.database.size_bytes = size,
            Err(error) => tracing::debug!("the size of the schema is not known: {error:#}"),
        }
    }
    Ok(server)
}

/// Fails where the one schema that is meant is not there: nothing tells then which of those that have had its name the sets are of.
pub fn ensure_there(server: &ServerFacts, schema: Option<&str>) -> Result<()> {
    let Some(schema) = schema.filter(|_| server.database.schema_oid.is_none()) else { return Ok(()) };
    let message = format!(
        "the database has no schema \"{}\", so nothing tells whose sets these are: it may have been dropped, and the next one of that name is another",
        terminal::in_one_line(schema)
    );
    Err(Fault::new(Kind::Configuration, message).into())
}

/// The OID of the schema that has this name now.
pub async fn schema_oid(connection: &mut PgConnection, schema: &str) -> Result<Option<i64>> {
    let oid = "SELECT n.oid::pg_catalog.int8 FROM pg_catalog.pg_namespace n WHERE n.nspname OPERATOR(pg_catalog.=) $1";
    sqlx::query_scalar(oid).bind(schema).fetch_optional(connection).await.map_err(pg::in_its_own_words)
}

async fn size_of(connection: &mut PgConnection, schema: &str) -> Result<i64> {
    let before = pg::fetch_text(&mut *connection, "SHOW lock_timeout".to_owned()).await?.unwrap_or_default();
    pg::set(connection, "lock_timeout", SIZE_LOCK_TIMEOUT).await?;
    let size = sqlx::query_scalar(
        "SELECT coalesce(pg_catalog.sum(pg_catalog.pg_total_relation_size(c.oid)), 0)::pg_catalog.int8
         FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
         WHERE n.nspname OPERATOR(pg_catalog.=) $1 AND c.relkind OPERATOR(pg_catalog.=) ANY ('{r,m,S}')",
    );
    let size: Result<i64, sqlx::Error> = size.bind(schema).fetch_one(&mut *connection).await;
    pg::set(connection, "lock_timeout", &before).await?;
    Ok(size?)
}

/// Reads the facts about the server and database of `connection`.
pub async fn server(connection: &mut PgConnection, settings: &pg::Settings) -> Result<ServerFacts> {
    #[derive(Deserialize)]
    struct Read {
        in_recovery: bool,
        clock: DateTime<Utc>,
        database: DatabaseFacts,
        extensions: Vec<Extension>,
        roles: Vec<String>,
        tablespaces: Vec<String>,
        event_triggers: Vec<String>,
        subscriptions: Vec<String>,
        partitions: Vec<Partition>,
        unreadable: Vec<String>,
    }
    let server = Server::of(connection).await?;
    // All roles can read it since PostgreSQL 10, unless an administrator has revoked that.
    let identity: Option<(String, i64)> = sqlx::query_as(
        "SELECT s.system_identifier::text, c.timeline_id::bigint
         FROM pg_catalog.pg_control_system() s, pg_catalog.pg_control_checkpoint() c",
    )
    .fetch_one(&mut *connection)
    .await
    .ok();
    // Some hosted servers lack these functions. The checkpoint's timeline lags behind after a promotion.
    let position: Option<(Option<String>, Option<String>)> = sqlx::query_as(
        "SELECT CASE WHEN r THEN pg_catalog.pg_last_wal_replay_lsn() ELSE pg_catalog.pg_current_wal_lsn() END::text,
                CASE WHEN NOT r THEN pg_catalog.substr(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()), 1, 8) END
         FROM pg_catalog.pg_is_in_recovery() r",
    )
    .fetch_one(&mut *connection)
    .await
    .ok();
    let (lsn, wal_timeline) = position.unwrap_or_default();
    let wal_timeline = wal_timeline.and_then(|digits| i64::from_str_radix(&digits, 16).ok());
    let (system_identifier, checkpoint_timeline) = identity.unzip();

    let read = read_json(connection, include_str!("facts.sql")).await.context("cannot read the database's properties")?;
    let mut read: Read = serde_json::from_value(read).context("facts.sql returned unexpected fields")?;
    if let Some(oid) = read.database.oid {
        let mut marks = stamp::marks(connection, &[oid]).await.context("cannot read the database's properties")?;
        let stamp::Marks { recorded, younger } = marks.remove(&oid).unwrap_or_default();
        (read.database.marks, read.database.younger_marks) = (recorded, younger);
    }
    Ok(ServerFacts {
        version: server.version,
        version_num: server.version_num,
        system_identifier,
        in_recovery: read.in_recovery,
        database: read.database,
        extensions: read.extensions,
        roles: read.roles,
        host: settings.server(),
        clock: Some(read.clock),
        timeline: wal_timeline.or(checkpoint_timeline),
        lsn,
        tablespaces: read.tablespaces,
        event_triggers: read.event_triggers,
        subscriptions: read.subscriptions,
        partitions: read.partitions,
        unreadable: read.unreadable,
    })
}

/// The value of a query that returns one jsonb, whatever bytes it holds: names are stored in the encoding of the session that created them,
/// and a database in SQL_ASCII refuses to send bytes that are not UTF-8 to a UTF-8 client. Such bytes are read as �.
async fn read_json(connection: &mut PgConnection, query: &str) -> Result<serde_json::Value> {
    let mut transaction = connection.begin().await?;
    sqlx::query(
        "SELECT pg_catalog.set_config('client_encoding', 'SQL_ASCII', true) WHERE pg_catalog.current_setting('server_encoding') = 'SQL_ASCII'",
    )
    .execute(&mut *transaction)
    .await?;
    let hex = pg::fetch_text(&mut transaction, format!("SELECT pg_catalog.encode(pg_catalog.textsend(({query})::text), 'hex')"))
        .await?
        .context("the query has no row")?;
    transaction.commit().await?;
    Ok(serde_json::from_str(&String::from_utf8_lossy(&hex::decode(&hex)?))?)
}

/// The names of all settings that a server knows.
pub async fn setting_names(connection: &mut PgConnection) -> Result<HashSet<String>> {
    let names: Vec<String> = sqlx::query_scalar("SELECT name FROM pg_catalog.pg_settings").fetch_all(connection).await?;
    Ok(names.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_locale_is_of_libc_unless_it_says_otherwise() {
        let source = || DatabaseFacts { encoding: "LATIN1".into(), collate: "de_DE".into(), ..DatabaseFacts::default() };
        let shown = |facts: DatabaseFacts| {
            format!("{} {} {} {}", facts.encoding, facts.collate, facts.locale_provider, facts.locale.unwrap_or_default())
        };
        for (locale, expected) in [
            ("C.UTF-8", "UTF8 C.UTF-8 c "),
            ("libc:fr_FR", "UTF8 fr_FR c "),
            ("icu:de-DE", "UTF8 C i de-DE"),
            ("builtin:C.UTF-8", "UTF8 C b C.UTF-8"),
        ] {
            assert_eq!(shown(source().with_locale(Some("UTF8"), Some(locale))), expected);
        }
        assert_eq!(shown(source().with_locale(None, None)), "LATIN1 de_DE  ");
    }

    #[test]
    fn a_manifest_of_the_first_release_is_read() {
        let facts: ServerFacts = serde_json::from_str(
            r#"{"version":"18.4","version_num":180004,"system_identifier":null,"in_recovery":false,"extensions":[],"roles":["app"],
                "database":{"name":"d","owner":"o","encoding":"UTF8","collate":"C","ctype":"C","locale_provider":"c","locale":null,
                            "size_bytes":1,"settings":["work_mem=7MB"],"grants":["CONNECT reader","TEMPORARY "],"comment":null}}"#,
        )
        .unwrap();
        assert_eq!(facts.database.roles(), ["o", "reader"]);
        assert!(facts.clock.is_none() && facts.partitions.is_empty());
    }
}
