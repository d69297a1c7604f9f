//! Code of others that a job's table holds, and that runs with the rights of our session: triggers, rules, CHECKs, generated columns, expressions
//! of indexes. A person hears of it before each run, and of every owner of such a table who has fewer rights than we: what can be found is named,
//! and not all can be. A function that runs as its owner may leave a cursor WITH HOLD or a prepared statement, which then run as us; casts, domains
//! and types call functions that no expression names. So `trust_owners = false` in `[limits]` refuses the owner, whatever is found.
//!
//! It is looked for before the run's own queries, whose planning runs some of it.

use std::fmt;

use anyhow::Result;
use sqlx::PgConnection;

use super::compress;
use crate::base::fault::{Fault, Kind};
use crate::pg::table::{Checked, with_schema};
use crate::pg::{self, Settings, failure, identifier};

/// More names than these help nobody; the rest is a number.
const NAMED: usize = 20;

/// One piece of it, once for each function that it calls.
#[derive(Clone, Debug, sqlx::FromRow)]
struct ForeignCode {
    /// "trigger", "index" and the like; "table" for the table itself.
    kind: String,
    /// Quoted; None for a partition key and a table.
    name: Option<String>,
    /// With its schema, quoted.
    table: String,
    /// None for a rule and a table.
    function: Option<String>,
    owner: String,
    /// The login of the session: its rights are a RESET ROLE away.
    runs_as: String,
    is_superuser: bool,
    /// All that the login has and the owner has not is the run history, in the schema pgtend.
    only_history: bool,
}

impl ForeignCode {
    /// An owner is named, with or without code that was found.
    fn is_an_owner(&self) -> bool {
        matches!(self.kind.as_str(), "table" | "schema" | "type")
    }

    /// What the code may do that its owner may not.
    fn gains(&self) -> String {
        let owner = identifier(&self.owner);
        match (self.is_superuser, self.only_history) {
            (true, _) => "a superuser".to_owned(),
            (false, true) => "which may read and change the run history (schema pgtend)".to_owned(),
            (false, false) => format!("with rights that {owner} has not"),
        }
    }
}

impl fmt::Display for ForeignCode {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let Self { kind, table, .. } = self;
        let (owner, runs_as, gains) = (identifier(&self.owner), identifier(&self.runs_as), self.gains());
        let name = self.name.as_deref().unwrap_or_default();
        match (kind.as_str(), &self.function) {
            ("table", _) => {
                write!(f, "{table} belongs to {owner}: all that {owner} puts there or around it can run as {runs_as}, {gains}")
            }
            ("schema", _) => write!(
                f,
                "the schema {name} of {table} belongs to {owner}, who can put another table in its place: what {owner} puts there can run as {runs_as}, {gains}"
            ),
            ("type", _) => write!(
                f,
                "a column of {table} has the type {name}, which belongs to {owner}: what {owner} puts there can run as {runs_as}, {gains}"
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

/// What a task does to the rows of its table.
#[derive(Clone, Copy, Debug)]
pub struct Touched<'a> {
    pub table: &'a str,
    /// Events of triggers that fire, as in pg_trigger.tgtype.
    pub triggers: i32,
    /// Events of rules, as in pg_rewrite.ev_type.
    pub rules: &'static [&'static str],
    /// Rows are written: CHECKs are tried, generated columns computed.
    pub writes: bool,
    /// By session_replication_role, where the role may.
    pub silences_triggers: bool,
}

/// Events of triggers, as in pg_trigger.tgtype.
pub const INSERT: i32 = 4;
pub const DELETE: i32 = 8;
pub const UPDATE: i32 = 16;

impl<'a> Touched<'a> {
    pub fn new(table: &'a str, triggers: i32, rules: &'static [&'static str], writes: bool) -> Self {
        Self { table, triggers, rules, writes, silences_triggers: false }
    }
}

/// What a run of the job runs of others' code with more rights than they have, each in a sentence, with the tables that were looked at: a run
/// does what it does to these alone. An error where the job refuses such code.
pub async fn check(settings: &Settings, touched: &[Touched<'_>], trust_owners: bool) -> Result<(Vec<String>, Vec<Checked>)> {
    let mut found: Vec<ForeignCode> = Vec::new();
    let mut checked = Vec::new();
    for touched in touched {
        let (table, mut of_table) = look(settings, touched).await?;
        checked.extend(table);
        if trust_owners && touched.silences_triggers {
            of_table.retain(|code| !is_guard(code));
        }
        // A cascade may reach what is named, too.
        of_table.retain(|code| !found.iter().any(|known| known.to_string() == code.to_string()));
        found.append(&mut of_table);
    }
    Ok((judge(found, trust_owners)?, checked))
}

/// The same of rows that are put back into `table` (with its schema, quoted): by COPY, which knows no rules.
pub async fn check_inserts(settings: &Settings, table: &str, trust_owners: bool) -> Result<(Vec<String>, Vec<Checked>)> {
    check(settings, &[Touched::new(table, INSERT, &[], true)], trust_owners).await
}

/// Pure: what was found, in sentences; an error where the owners of tables are not trusted.
fn judge(mut found: Vec<ForeignCode>, trust_owners: bool) -> Result<Vec<String>> {
    // Code that was found first: it is the more telling. A role that `grants` made for several jobs always has rights that one owner has not:
    // there the owner alone is no news.
    found.sort_by_key(|code| (code.is_an_owner(), code.only_history));
    found.retain(|code| !trust_owners || !code.is_an_owner() || code.is_superuser);
    if trust_owners {
        // The login that keeps the history in the same database always has it: said once of each owner.
        let mut said: Vec<String> = Vec::new();
        found.retain(|code| {
            !code.only_history
                || !said.contains(&code.owner) && {
                    said.push(code.owner.clone());
                    true
                }
        });
    }
    if let Some(first) = found.first().filter(|_| !trust_owners) {
        let owner = identifier(&first.owner);
        let way_out = match first.only_history {
            true => format!(
                "keep the history where {owner} cannot come (`[ledger] database`: another database), or connect as {owner} itself (`owner_url` of \
                 the database is for that)"
            ),
            false => format!(
                "connect as a role without more rights than {owner} (itself, or a member of it alone that is no superuser; `owner_url` of the \
                 database is for that)"
            ),
        };
        let message = format!("{}; trust_owners = false refuses that: {way_out}", in_short(&found).join("; "));
        return Err(Fault::new(Kind::Permission, message).into());
    }
    Ok(in_short(&found))
}

/// A trigger that `compress install` made. It belongs to the owner, who could change it: it is trusted as the owner is.
fn is_guard(code: &ForeignCode) -> bool {
    code.kind == "trigger"
        && code.name.as_deref().is_some_and(|name| compress::GUARDS.contains(&name))
        && code.function.as_deref().is_some_and(|function| function.trim_end_matches('"').ends_with("_pgtend_guard"))
}

fn in_short(found: &[ForeignCode]) -> Vec<String> {
    let mut lines: Vec<String> = found.iter().take(NAMED).map(ToString::to_string).collect();
    if found.len() > NAMED {
        lines.push(format!("and {} more", found.len() - NAMED));
    }
    lines
}

/// Whose code runs as a superuser when a dump of the database is restored for `verify = "restore"`: CHECKs, expressions of indexes, generated
/// columns and the functions that they call, of whoever owns something in the database. Empty where who restores is no superuser: then the code
/// can do what that role can. `on`: the server that it is restored on, where that is another.
pub async fn check_restore(settings: &Settings, on: Option<&Settings>, trust_owners: bool) -> Result<Vec<String>> {
    let restores: (String, bool) =
        sqlx::query_as("SELECT rolname::text, rolsuper FROM pg_catalog.pg_roles WHERE rolname = session_user")
            .fetch_one(&mut on.unwrap_or(settings).connect().await?)
            .await?;
    let (runs_as, true) = restores else { return Ok(Vec::new()) };
    let owners: Vec<String> = sqlx::query_scalar(concat!(
        "WITH RECURSIVE ",
        include_str!("rights.sql"),
        "SELECT pg_catalog.quote_ident(r.rolname) FROM owners o JOIN pg_catalog.pg_roles r ON r.oid = o.oid ORDER BY 1"
    ))
    .fetch_all(&mut settings.connect().await?)
    .await
    .map_err(pg::in_its_own_words)?;
    if owners.is_empty() {
        return Ok(Vec::new());
    }
    let mut named = owners.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
    if owners.len() > NAMED {
        named += &format!(" and {} more", owners.len() - NAMED);
    }
    let line = format!(
        "verify = \"restore\" runs code of {named}, owners in this database: CHECKs, expressions of indexes and what they call may run as {}, a \
         superuser{}",
        identifier(&runs_as),
        if on.is_some() { " of the server that `scratch` names" } else { "" }
    );
    if trust_owners {
        return Ok(vec![line]);
    }
    let message = format!(
        "{line}; trust_owners = false refuses that: connect as a role that is no superuser (`pgtend grants` writes its SQL), or say verify = \"checksum\""
    );
    Err(Fault::new(Kind::Permission, message).into())
}

async fn look(settings: &Settings, touched: &Touched<'_>) -> Result<(Option<Checked>, Vec<ForeignCode>)> {
    let mut connection = settings.connect().await?;
    let Some(table) = oid_of(&mut connection, touched).await? else { return Ok((None, Vec::new())) };
    let found = sqlx::query_as(concat!("WITH RECURSIVE ", include_str!("rights.sql"), include_str!("foreign_code.sql")))
        .bind(table)
        .bind(touched.triggers)
        .bind(touched.rules)
        .bind(touched.writes)
        .bind(touched.silences_triggers)
        .fetch_all(&mut connection)
        .await
        .map_err(pg::in_its_own_words)?;
    // By its name, as statements go by it: the view of a [compress] job may be lost, and then there is no table of that name.
    let owner = "SELECT relowner::bigint FROM pg_catalog.pg_class WHERE oid = pg_catalog.to_regclass($1)::pg_catalog.oid AND oid = $2::bigint::pg_catalog.oid";
    let name = with_schema(touched.table);
    let owner: Option<i64> = sqlx::query_scalar(owner).bind(&name).bind(table).fetch_optional(&mut connection).await?;
    Ok((owner.map(|owner| Checked { name, oid: table, owner: Some(owner) }), found))
}

/// None also for what is no table's name: the task says so in its own words.
async fn oid_of(connection: &mut PgConnection, touched: &Touched<'_>) -> Result<Option<i64>> {
    let name = with_schema(touched.table);
    let found: Result<Option<i64>, sqlx::Error> = sqlx::query_scalar("SELECT pg_catalog.to_regclass($1)::pg_catalog.oid::bigint")
        .bind(&name)
        .fetch_one(&mut *connection)
        .await;
    match found {
        Err(error @ sqlx::Error::Database(_)) if failure::kind_of_sqlx(&error).is_none() => Ok(None),
        // A [compress] job finds its table also where somebody dropped the view in front of it.
        Ok(None) if touched.silences_triggers => Ok(compress::without_its_view(connection, &name).await?.map(|(table, _)| table)),
        found => Ok(found?),
    }
}
