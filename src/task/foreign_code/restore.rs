//! Foreign code that runs when a dump of the database is restored to verify it.

use anyhow::Result;
use sqlx::PgConnection;

use super::judge::{NAMED, revokes};
use crate::base::fault::{Fault, Kind};
use crate::pg::{self, Settings, failure, identifier};
use crate::work::RestoresOn;

/// Selects the authors with fewer rights than the login.
const LESSER_AUTHORS: &str = concat!(
    "WITH RECURSIVE ",
    include_str!("../rights.sql"),
    include_str!("creators.sql"),
    " JOIN lesser l ON l.oid = a.oid ORDER BY 1"
);
/// Selects all authors but superusers: none of them is known on another server.
const EVERY_AUTHOR: &str = concat!(
    "WITH RECURSIVE ",
    include_str!("../rights.sql"),
    include_str!("creators.sql"),
    " WHERE a.oid = 0 OR a.oid IN (SELECT e.oid FROM every_author e) ORDER BY 1"
);

/// Returns the roles whose code runs with more rights than they have when a dump of the database is restored for `verify = "restore"`: CHECKs,
/// expressions of indexes, generated columns and the functions that they call run as the role that restores. Not only owners: a role that may
/// create something can do that while the dump begins, and drop it before anyone looks again. `on` says where it is restored: on
/// another server, no owner of this database is known, so all of them count but superusers; in a throwaway server, a role without rights
/// restores, so none of them counts. It is an error where the job trusts no owners.
pub async fn check_restore(settings: &Settings, on: &RestoresOn, trust_owners: bool) -> Result<Vec<String>> {
    let (target, authors, why) = match on {
        RestoresOn::OwnServer => return Ok(Vec::new()),
        RestoresOn::Source { why } => (settings, LESSER_AUTHORS, why.as_deref()),
        RestoresOn::Elsewhere(other) => (other, EVERY_AUTHOR, None),
    };
    let restores = login(&mut target.connect().await?).await?;
    let mut connection = settings.connect().await?;
    let authors: Vec<Author> = sqlx::query_as(authors).fetch_all(&mut connection).await.map_err(pg::in_its_own_words)?;
    let gains = match (on, restores.is_superuser) {
        (RestoresOn::Elsewhere(_), true) => "a superuser of the server that `scratch` names",
        (RestoresOn::Elsewhere(_), false) => "a role of the server that `scratch` names",
        (_, true) if restores.is_superuser_itself => "a superuser",
        (_, true) => "which may become a superuser",
        (_, false) => "with rights that they lack",
    };
    let own_server = match why {
        Some(why) => format!("install what is missing for a throwaway server, where such code has no rights ({why})"),
        None => "restore in a server of its own, where such code has no rights (scratch = \"throwaway\")".to_owned(),
    };
    let line = format!("verify = \"restore\" runs code of {}: {}", authors_in_words(&authors), may_run_as(&restores, gains));
    let revoked: Vec<String> = authors.iter().filter(|author| !author.is_owner).flat_map(Author::revoke).collect();
    let revoked = if revoked.is_empty() { String::new() } else { format!(", say {}", revokes(revoked)) };
    judge_restore(authors.is_empty(), &line, trust_owners, &format!("{revoked}, {own_server}, or set verify = \"checksum\""))
}

/// Checks a restore before a run. A scratch server that cannot be reached is a warning then: the dump does not need it, and the run asks again before it
/// restores.
pub async fn check_restore_before_a_dump(settings: &Settings, on: &RestoresOn, trust_owners: bool) -> Result<Vec<String>> {
    match check_restore(settings, on, trust_owners).await {
        Err(error) if matches!(on, RestoresOn::Elsewhere(_)) && failure::kind_of(&error) == Some(Kind::Unreachable) => {
            Ok(vec![failure::in_a_line(&error)])
        }
        checked => checked,
    }
}

/// Checks the restore of a set that a person verifies on a server. `roles` are the owners and grantees of its objects, as its manifest names
/// them. Those whose name is a superuser's on that server do not count.
pub async fn check_restore_of_a_set(on: &Settings, roles: &[String], trust_owners: bool) -> Result<Vec<String>> {
    let mut connection = on.connect().await?;
    let restores = login(&mut connection).await?;
    let owners: Vec<String> = sqlx::query_scalar(
        "SELECT DISTINCT pg_catalog.quote_ident(o.name) FROM pg_catalog.unnest($1::text[]) o (name)
         WHERE NOT pg_catalog.starts_with(o.name, 'pg_') AND NOT EXISTS (SELECT FROM pg_catalog.pg_roles r WHERE r.rolname = o.name AND r.rolsuper) ORDER BY 1",
    )
    .bind(roles)
    .fetch_all(&mut connection)
    .await?;
    let gains = if restores.is_superuser { "a superuser of that server" } else { "a role of that server" };
    let who = format!("the restore runs code of {}, roles that the set's objects belong to or are granted to", named(&owners));
    judge_restore(owners.is_empty(), &format!("{who}: {}", may_run_as(&restores, gains)), trust_owners, "")
}

/// Returns the roles with fewer rights than the login that own something in the database or may create something there: a part of a set that is restored
/// into it may run their code. What the part uses is searched before ([`super::check_part`]) and named one by one; but what lives there reaches further than
/// a search can follow: attributes of composite types, default operator classes, queries of views, event triggers, bodies of functions, names that somebody
/// takes meanwhile. So a job that trusts no owners gets no part into such a database: it is an error.
pub async fn check_restore_beside_others(settings: &Settings, trust_owners: bool) -> Result<Vec<String>> {
    let mut connection = settings.connect().await?;
    let restores = login(&mut connection).await?;
    let authors: Vec<Author> = sqlx::query_as(LESSER_AUTHORS).fetch_all(&mut connection).await.map_err(pg::in_its_own_words)?;
    let gains = if restores.is_superuser { "a superuser, or one that may become one" } else { "with rights that they lack" };
    let line = format!(
        "a part that is restored into a database in use may run code of {}: {}",
        authors_in_words(&authors),
        may_run_as(&restores, gains)
    );
    judge_restore(
        authors.is_empty(),
        &line,
        trust_owners,
        ", restore the part into a new database of its own and copy it from there as the role that owns the rows, or connect as a role that has no more rights than they have",
    )
}

/// A role whose code a restore of the database's dump may run.
#[derive(Debug, sqlx::FromRow)]
struct Author {
    /// Quoted; None is PUBLIC.
    role: Option<String>,
    is_owner: bool,
    /// What it may create in: "SCHEMA x" or "DATABASE y", in SQL.
    creates_in: Vec<String>,
}

impl Author {
    fn name(&self) -> String {
        self.role.clone().unwrap_or_else(|| "everyone (PUBLIC)".to_owned())
    }

    fn revoke(&self) -> impl Iterator<Item = String> {
        let from = self.role.as_deref().unwrap_or("PUBLIC");
        self.creates_in.iter().map(move |place| format!("REVOKE CREATE ON {place} FROM {from}"))
    }
}

/// Returns "bob, owners in this database, and of carl, who may create objects in it".
fn authors_in_words(authors: &[Author]) -> String {
    let names = |is_owner: bool| -> Vec<String> {
        authors.iter().filter(|author| author.is_owner == is_owner).map(Author::name).collect()
    };
    let (owners, others) = (names(true), names(false));
    let owning = format!("{}, owners in this database", named(&owners));
    let creating = format!("{}, who may create objects in this database", named(&others));
    match (owners.is_empty(), others.is_empty()) {
        (_, true) => owning,
        (true, false) => creating,
        (false, false) => format!("{owning}, and of {creating}"),
    }
}

#[derive(sqlx::FromRow)]
struct Login {
    name: String,
    /// It is one, or may become one.
    is_superuser: bool,
    is_superuser_itself: bool,
}

async fn login(connection: &mut PgConnection) -> Result<Login> {
    let sql = "SELECT r.rolname::text AS name, r.rolsuper AS is_superuser_itself,
                      r.rolsuper OR EXISTS (SELECT FROM pg_catalog.pg_roles s WHERE s.rolsuper AND pg_catalog.pg_has_role(r.oid, s.oid,
                          CASE WHEN pg_catalog.current_setting('server_version_num')::int < 160000 THEN 'MEMBER' ELSE 'USAGE, SET' END)) AS is_superuser
               FROM pg_catalog.pg_roles r WHERE r.rolname = session_user";
    Ok(sqlx::query_as(sql).fetch_one(connection).await?)
}

fn may_run_as(login: &Login, gains: &str) -> String {
    format!("CHECKs, expressions of indexes and what they call may run as {}, {gains}", identifier(&login.name))
}

fn named(owners: &[String]) -> String {
    let named = owners.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
    if owners.len() > NAMED { format!("{named} and {} more", owners.len() - NAMED) } else { named }
}

/// Returns a warning, or an error where owners are not trusted; nothing without authors. Pure.
fn judge_restore(has_no_authors: bool, line: &str, trust_owners: bool, remedy: &str) -> Result<Vec<String>> {
    match (has_no_authors, trust_owners) {
        (true, _) => Ok(Vec::new()),
        (false, true) => Ok(vec![line.to_owned()]),
        (false, false) => {
            let message = format!("{line}; trust_owners = false refuses that: trust them (trust_owners = true){remedy}");
            Err(Fault::new(Kind::Permission, message).into())
        }
    }
}
