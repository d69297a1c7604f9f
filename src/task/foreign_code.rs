//! Other owners' code that a job's table holds and that runs with our session's rights: triggers, rules, CHECKs, generated columns,
//! expressions of indexes. Before each run a warning names the code that can be found, and every owner of such a table who has fewer rights
//! than our role. Not all code can be found: a function that runs as its owner may leave a cursor WITH HOLD or a prepared statement, which
//! then runs as us; casts, domains and types call functions that no expression names. So `trust_owners = false` in `[limits]` refuses the
//! owner, whatever is found. The same holds for a dump of the database that is restored to verify it.
//!
//! The search comes before the run's own queries, because planning them may already execute such code.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use anyhow::Result;
use sqlx::PgConnection;

use super::compress;
use crate::base::fault::{Fault, Kind};
use crate::pg::table::{ATTACHED, Attached, Checked, with_schema};
use crate::pg::{self, Settings, failure, identifier};
use crate::work::RestoresOn;
use crate::work::touched::{INSERT, Touched};

/// This many warnings are listed; the rest are only counted.
const NAMED: usize = 20;
/// This many statements are spelled out in a refusal.
const REVOKES_NAMED: usize = 5;

/// One piece of such code, once for each function that it calls.
#[derive(Clone, Debug, sqlx::FromRow)]
struct ForeignCode {
    /// "trigger", "index" and the like; for an owner "table", "schema", "type", "server", or "extension" and "operators" for the owner of their schema; for a
    /// role that owns nothing of it the privilege: "TRIGGER", "REFERENCES", or "CREATE" on its schema.
    kind: String,
    /// Quoted; None for a partition key and for a table. For "CREATE" the schema.
    name: Option<String>,
    /// With its schema, quoted.
    table: String,
    /// None for a rule and for a table.
    function: Option<String>,
    /// None is PUBLIC.
    owner: Option<String>,
    /// The login role of the session: RESET ROLE gives its rights.
    runs_as: String,
    /// The login is a superuser, or may become one.
    is_superuser: bool,
    is_superuser_itself: bool,
    /// What the login has and the owner lacks: "rights" in this database or in the whole server, or only the run "history" in the schema
    /// pgtend, or only something "elsewhere", in other databases of the server.
    gains: String,
}

impl ForeignCode {
    /// Returns whether it names an owner, with or without code that was found.
    fn is_an_owner(&self) -> bool {
        matches!(self.kind.as_str(), "table" | "schema" | "type" | "server" | "extension" | "operators")
            && self.function.is_none()
    }

    /// Returns whether it names a role that may put code there, with or without code that was found.
    fn is_a_holder(&self) -> bool {
        matches!(self.kind.as_str(), "TRIGGER" | "REFERENCES" | "CREATE")
    }

    fn owner(&self) -> String {
        self.owner.as_deref().map_or_else(|| "PUBLIC".to_owned(), identifier)
    }

    /// Returns the statement that takes the privilege of such a role away.
    fn revoke(&self) -> String {
        let from = self.owner();
        match (self.kind.as_str(), &self.name) {
            ("CREATE", Some(schema)) => format!("REVOKE CREATE ON SCHEMA {schema} FROM {from}"),
            (kind, _) => format!("REVOKE {kind} ON {} FROM {from}", self.table),
        }
    }

    /// Returns whether the login has nothing more in this database than the run history. A login for several databases, or one that keeps the
    /// history here, always has such rights.
    fn is_beside_the_tables(&self) -> bool {
        self.gains != "rights"
    }

    /// Says what the code may do that its owner may not.
    fn gains(&self) -> String {
        let owner = self.owner();
        match (self.is_superuser, self.gains.as_str()) {
            (true, _) if self.is_superuser_itself => "a superuser".to_owned(),
            (true, _) => "which may become a superuser".to_owned(),
            (false, "history") => "which may read and change the run history (schema pgtend)".to_owned(),
            (false, "elsewhere") => format!("which has rights in other databases that {owner} lacks"),
            (false, _) => format!("with rights that {owner} lacks"),
        }
    }
}

impl fmt::Display for ForeignCode {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let Self { kind, table, .. } = self;
        let (owner, runs_as, gains) = (self.owner(), identifier(&self.runs_as), self.gains());
        let name = self.name.as_deref().unwrap_or_default();
        match (kind.as_str(), &self.function) {
            ("TRIGGER" | "REFERENCES" | "CREATE", _) => {
                let may = match kind.as_str() {
                    "TRIGGER" => format!("add triggers to {table}"),
                    "REFERENCES" => format!("add foreign keys to {table}, with triggers of their own"),
                    _ => format!("create tables in the schema {name} of {table}"),
                };
                let who = if self.owner.is_none() { "everyone (PUBLIC)" } else { &owner };
                write!(f, "{who} may {may} (privilege {kind}): such code can run as {runs_as}, {gains}")
            }
            ("event trigger", Some(function)) => {
                write!(f, "event trigger {name} calls {function}, code of {owner}, which may run as {runs_as}, {gains}")
            }
            ("table", _) => write!(
                f,
                "{table} belongs to {owner}: code that {owner} adds to it or to its types and functions can run as {runs_as}, {gains}"
            ),
            ("schema", _) => write!(
                f,
                "the schema {name} of {table} belongs to {owner}, who can put another table in its place: code that {owner} puts there can run as {runs_as}, {gains}"
            ),
            ("type", None) => write!(
                f,
                "a column of {table} has the type {name}, which belongs to {owner}: code that {owner} adds to it can run as {runs_as}, {gains}"
            ),
            ("server", _) => write!(
                f,
                "the rows of {table} come from the foreign server {name}, which belongs to {owner}: what {owner} sends can run as {runs_as}, {gains}"
            ),
            ("extension", _) => write!(
                f,
                "the schema of the extension {name} belongs to {owner}, who can put operators of other code in its place: code that {owner} puts there can run as {runs_as}, {gains}"
            ),
            ("operators", _) => write!(
                f,
                "the schema {name} of operators that compare keys of {table} belongs to {owner}, who can put operators of other code in their place: code that {owner} puts there can run as {runs_as}, {gains}"
            ),
            (_, function) => {
                write!(f, "{kind} ")?;
                if !name.is_empty() {
                    write!(f, "{name} ")?;
                }
                match function {
                    Some(function) => write!(f, "of {table} calls {function}, code of {owner}, ")?,
                    None => write!(f, "of {table} is code of {owner} ")?,
                }
                write!(f, "which may run as {runs_as}, {gains}")
            }
        }
    }
}

/// The other owners' code that a run of the job would execute with more rights than the owners have, each in a sentence, with the tables that
/// were looked at: the run works on these alone. An error where the job refuses such code.
pub async fn check(settings: &Settings, touched: &[Touched<'_>], trust_owners: bool) -> Result<(Vec<String>, Vec<Checked>)> {
    let mut found: Vec<ForeignCode> = Vec::new();
    let mut checked = Vec::new();
    for touched in touched {
        let (table, mut of_table) = look(settings, touched).await?;
        checked.extend(table);
        if trust_owners && touched.silences_triggers {
            of_table.retain(|code| !is_guard(code));
        }
        // A cascade may reach code that was already found.
        of_table.retain(|code| !found.iter().any(|known| known.to_string() == code.to_string()));
        found.append(&mut of_table);
    }
    Ok((judge(found, trust_owners)?, checked))
}

/// The same for rows that are restored into `table` (with its schema, quoted) by COPY, which ignores rules.
pub async fn check_inserts(settings: &Settings, table: &str, trust_owners: bool) -> Result<(Vec<String>, Vec<Checked>)> {
    check(settings, &[Touched::new(table, INSERT, &[], true)], trust_owners).await
}

/// Turns the code found into sentences; an error where owners of tables are not trusted. Pure.
fn judge(mut found: Vec<ForeignCode>, trust_owners: bool) -> Result<Vec<String>> {
    // Concrete code comes first, as it says more. A role that `grants` created for several jobs always has rights that one of the owners
    // lacks, so the owner alone is not worth a warning there.
    found.sort_by_key(|code| (code.is_a_holder(), code.is_an_owner(), code.is_beside_the_tables()));
    found.retain(|code| !trust_owners || !code.is_an_owner() && !code.is_a_holder() || code.is_superuser);
    if trust_owners {
        // What the login has beside the tables is said once for each owner.
        let mut said: Vec<Option<String>> = Vec::new();
        found.retain(|code| {
            code.is_superuser
                || !code.is_beside_the_tables()
                || !said.contains(&code.owner) && {
                    said.push(code.owner.clone());
                    true
                }
        });
    }
    let (holders, found): (Vec<ForeignCode>, Vec<ForeignCode>) = found.into_iter().partition(ForeignCode::is_a_holder);
    let holders = without_owners(holders, &found);
    let mut lines = in_short(found.iter().map(ToString::to_string).collect());
    lines.extend(in_short(holders_in_words(&holders)));
    if trust_owners || lines.is_empty() {
        return Ok(lines);
    }
    let mut ways_out = Vec::new();
    if let Some(first) = found.first() {
        let owner = first.owner();
        ways_out.push(format!(
            "connect as a role without more rights than {owner}. That is {owner} itself (set `owner_url` of the \
             database for that; the run history is then still written by the login in `url`), or a non-superuser that is a member of {owner} alone \
             and has nothing else, in any database of the server"
        ));
    }
    if !holders.is_empty() {
        ways_out.push(revokes(holders.iter().map(ForeignCode::revoke).collect()));
    }
    let message = format!("{}; trust_owners = false refuses that: {}", lines.join("; "), ways_out.join("; and "));
    Err(Fault::new(Kind::Permission, message).into())
}

/// A role that is named as an owner already may put code there in any case.
fn without_owners(mut holders: Vec<ForeignCode>, found: &[ForeignCode]) -> Vec<ForeignCode> {
    holders.retain(|holder| !found.iter().any(|code| code.is_an_owner() && code.owner == holder.owner));
    holders
}

/// One line for each role: its first privilege, and how many more there are.
fn holders_in_words(holders: &[ForeignCode]) -> Vec<String> {
    let mut of_roles: Vec<(&ForeignCode, usize)> = Vec::new();
    for holder in holders {
        match of_roles.iter_mut().find(|(first, _)| first.owner == holder.owner) {
            Some((_, more)) => *more += 1,
            None => of_roles.push((holder, 0)),
        }
    }
    let in_words = |(first, more): &(&ForeignCode, usize)| match more {
        0 => first.to_string(),
        more => format!("{first} (and {more} more such {})", if *more == 1 { "privilege" } else { "privileges" }),
    };
    of_roles.iter().map(in_words).collect()
}

/// The statements that take privileges away, with a few spelled out.
fn revokes(statements: Vec<String>) -> String {
    let named = statements.iter().take(REVOKES_NAMED).cloned().collect::<Vec<_>>().join("; ");
    match statements.len().checked_sub(REVOKES_NAMED).filter(|more| *more > 0) {
        None => named,
        Some(more) => format!("{named}; and {more} more of the kind"),
    }
}

/// Returns whether it is a trigger that `compress install` created. It belongs to the owner, who could change it: it is trusted as the owner is.
fn is_guard(code: &ForeignCode) -> bool {
    code.kind == "trigger"
        && code.name.as_deref().is_some_and(|name| compress::GUARDS.contains(&name))
        && code.function.as_deref().is_some_and(|function| function.trim_end_matches('"').ends_with("_pgtend_guard"))
}

fn in_short(mut lines: Vec<String>) -> Vec<String> {
    if lines.len() > NAMED {
        let more = lines.len() - NAMED;
        lines.truncate(NAMED);
        lines.push(format!("and {more} more"));
    }
    lines
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

/// Those with fewer rights than the login.
const LESSER_AUTHORS: &str = concat!(
    "WITH RECURSIVE ",
    include_str!("rights.sql"),
    include_str!("creators.sql"),
    " JOIN lesser l ON l.oid = a.oid ORDER BY 1"
);
/// All but superusers: none of them is known on another server.
const EVERY_AUTHOR: &str = concat!(
    "WITH RECURSIVE ",
    include_str!("rights.sql"),
    include_str!("creators.sql"),
    " WHERE a.oid = 0 OR a.oid IN (SELECT e.oid FROM every_author e) ORDER BY 1"
);

/// The roles whose code runs with more rights than they have when a dump of the database is restored for `verify = "restore"`: CHECKs,
/// expressions of indexes, generated columns and the functions that they call run as the role that restores. Not only owners: a role that may
/// create something can do that while the dump begins, and drop it before anyone looks again. `on` says where it is restored: on
/// another server, no owner of this database is known, so all of them count but superusers; in a server of its own, a role without rights
/// restores, so none of them counts.
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
        Some(why) => format!("install what is missing for a server of its own, where such code has no rights ({why})"),
        None => "restore in a server of its own, where such code has no rights (scratch = \"throwaway\")".to_owned(),
    };
    let line = format!("verify = \"restore\" runs code of {}: {}", authors_in_words(&authors), may_run_as(&restores, gains));
    let revoked: Vec<String> = authors.iter().filter(|author| !author.is_owner).flat_map(Author::revoke).collect();
    let revoked = if revoked.is_empty() { String::new() } else { format!(", say {}", revokes(revoked)) };
    judge_restore(authors.is_empty(), &line, trust_owners, &format!("{revoked}, {own_server}, or say verify = \"checksum\""))
}

/// The same before a run. A scratch server that cannot be reached is a warning then: the dump does not need it, and the run asks again before it
/// restores.
pub async fn check_restore_before_a_dump(settings: &Settings, on: &RestoresOn, trust_owners: bool) -> Result<Vec<String>> {
    match check_restore(settings, on, trust_owners).await {
        Err(error) if matches!(on, RestoresOn::Elsewhere(_)) && failure::kind_of(&error) == Some(Kind::Unreachable) => {
            Ok(vec![failure::in_a_line(&error)])
        }
        checked => checked,
    }
}

/// The same for a set that a person restores on a server to verify it. `roles`: owners and grantees of its objects, as its manifest names them.
/// Those that are superusers on that server, by name, do not count.
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

impl Author {
    fn name(&self) -> String {
        self.role.clone().unwrap_or_else(|| "everyone (PUBLIC)".to_owned())
    }

    fn revoke(&self) -> impl Iterator<Item = String> {
        let from = self.role.as_deref().unwrap_or("PUBLIC");
        self.creates_in.iter().map(move |place| format!("REVOKE CREATE ON {place} FROM {from}"))
    }
}

/// "bob, owners in this database, and of carl, who may create objects in it".
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

/// A warning, or an error where owners are not trusted; nothing without owners. Pure.
fn judge_restore(is_nobodys: bool, line: &str, trust_owners: bool, way_out: &str) -> Result<Vec<String>> {
    match (is_nobodys, trust_owners) {
        (true, _) => Ok(Vec::new()),
        (false, true) => Ok(vec![line.to_owned()]),
        (false, false) => {
            let message = format!("{line}; trust_owners = false refuses that: trust them (trust_owners = true){way_out}");
            Err(Fault::new(Kind::Permission, message).into())
        }
    }
}

async fn look(settings: &Settings, touched: &Touched<'_>) -> Result<(Option<Checked>, Vec<ForeignCode>)> {
    let mut connection = settings.connect().await?;
    if touched.triggers != 0 || touched.writes {
        pg::fires_triggers(&mut connection).await?;
    }
    let Some(table) = oid_of(&mut connection, touched).await? else { return Ok((None, Vec::new())) };
    // Before the search: code that comes in between is new to the run then, and stops it.
    let attached: Vec<(i64, Attached)> =
        sqlx::query_as(ATTACHED).bind(table).fetch_all(&mut connection).await.map_err(pg::in_its_own_words)?;
    let tree: HashMap<i64, Attached> = attached.into_iter().collect();
    let sql = concat!(
        "WITH RECURSIVE ",
        include_str!("rights.sql"),
        ", ",
        include_str!("../pg/acting_functions.sql"),
        include_str!("foreign_code.sql")
    );
    let found = sqlx::query_as(sql)
        .bind(table)
        .bind(touched.triggers)
        .bind(touched.rules)
        .bind(touched.writes)
        .bind(touched.silences_triggers)
        .bind(touched.extension)
        .fetch_all(&mut connection)
        .await
        .map_err(pg::in_its_own_words)?;
    // By its name, as statements go by it: the view of a [compress] job may be lost, and then there is no table of that name.
    let owner = "SELECT relowner::bigint FROM pg_catalog.pg_class WHERE oid = pg_catalog.to_regclass($1)::pg_catalog.oid AND oid = $2::bigint::pg_catalog.oid";
    let name = with_schema(touched.table);
    let owner: Option<i64> = sqlx::query_scalar(owner).bind(&name).bind(table).fetch_optional(&mut connection).await?;
    let code = tree.get(&table).cloned();
    Ok((owner.map(|owner| Checked { name, oid: table, owner: Some(owner), code, tree: Arc::new(tree) }), found))
}

/// None also for a name that is not a table's: the task reports that itself.
async fn oid_of(connection: &mut PgConnection, touched: &Touched<'_>) -> Result<Option<i64>> {
    let name = with_schema(touched.table);
    let found: Result<Option<i64>, sqlx::Error> = sqlx::query_scalar("SELECT pg_catalog.to_regclass($1)::pg_catalog.oid::bigint")
        .bind(&name)
        .fetch_one(&mut *connection)
        .await;
    match found {
        Err(error @ sqlx::Error::Database(_)) if failure::kind_of_sqlx(&error).is_none() => Ok(None),
        // A [compress] job finds its table even if the view in front of it was dropped.
        Ok(None) if touched.silences_triggers => Ok(compress::without_its_view(connection, &name).await?.map(|(table, _)| table)),
        found => Ok(found?),
    }
}
