//! Other owners' code that a job's table holds and that runs with our session's rights: triggers, rules, CHECKs, generated columns,
//! expressions of indexes. Before each run a warning names the code that can be found, and every owner of such a table who has fewer rights
//! than our role. Not all code can be found: a function that runs as its owner may leave a cursor WITH HOLD or a prepared statement, which
//! then runs as us; casts, domains and types call functions that no expression names. So `trust_owners = false` in `[limits]` refuses the
//! owner, whatever is found.
//!
//! The search comes before the run's own queries, because planning them may already execute such code.

use std::fmt;

use anyhow::Result;
use sqlx::PgConnection;

use super::compress;
use crate::base::fault::{Fault, Kind};
use crate::pg::table::{Checked, with_schema};
use crate::pg::{self, Settings, failure, identifier};
use crate::work::RestoresOn;
use crate::work::touched::{INSERT, Touched};

/// This many warnings are listed; the rest are only counted.
const NAMED: usize = 20;

/// One piece of such code, once for each function that it calls.
#[derive(Clone, Debug, sqlx::FromRow)]
struct ForeignCode {
    /// "trigger", "index" and the like; "table", "schema" and "type" for the owner of one.
    kind: String,
    /// Quoted; None for a partition key and for a table.
    name: Option<String>,
    /// With its schema, quoted.
    table: String,
    /// None for a rule and for a table.
    function: Option<String>,
    owner: String,
    /// The login role of the session: RESET ROLE gives its rights.
    runs_as: String,
    is_superuser: bool,
    /// True when all that the login has and the owner lacks is the run history, in the schema pgtend.
    only_history: bool,
}

impl ForeignCode {
    /// Returns whether it names an owner, with or without code that was found.
    fn is_an_owner(&self) -> bool {
        matches!(self.kind.as_str(), "table" | "schema" | "type")
    }

    /// Says what the code may do that its owner may not.
    fn gains(&self) -> String {
        let owner = identifier(&self.owner);
        match (self.is_superuser, self.only_history) {
            (true, _) => "a superuser".to_owned(),
            (false, true) => "which may read and change the run history (schema pgtend)".to_owned(),
            (false, false) => format!("with rights that {owner} lacks"),
        }
    }
}

impl fmt::Display for ForeignCode {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let Self { kind, table, .. } = self;
        let (owner, runs_as, gains) = (identifier(&self.owner), identifier(&self.runs_as), self.gains());
        let name = self.name.as_deref().unwrap_or_default();
        match (kind.as_str(), &self.function) {
            ("table", _) => write!(
                f,
                "{table} belongs to {owner}: code that {owner} adds to it or to its types and functions can run as {runs_as}, {gains}"
            ),
            ("schema", _) => write!(
                f,
                "the schema {name} of {table} belongs to {owner}, who can put another table in its place: code that {owner} puts there can run as {runs_as}, {gains}"
            ),
            ("type", _) => write!(
                f,
                "a column of {table} has the type {name}, which belongs to {owner}: code that {owner} adds to it can run as {runs_as}, {gains}"
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
    found.sort_by_key(|code| (code.is_an_owner(), code.only_history));
    found.retain(|code| !trust_owners || !code.is_an_owner() || code.is_superuser);
    if trust_owners {
        // A login that keeps the history in the same database always has it: that is said once for each owner.
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
                "keep the run history out of reach of {owner} (`[ledger] database`: another database), or connect as {owner} itself (set `owner_url` \
                 of the database for that)"
            ),
            false => format!(
                "connect as a role without more rights than {owner} (that role itself, or a non-superuser that is a member of it alone; set \
                 `owner_url` of the database for that)"
            ),
        };
        let message = format!("{}; trust_owners = false refuses that: {way_out}", in_short(&found).join("; "));
        return Err(Fault::new(Kind::Permission, message).into());
    }
    Ok(in_short(&found))
}

/// Whether it is a trigger that `compress install` created. It belongs to the owner, who could change it: it is trusted as the owner is.
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

/// The owners whose code runs as a superuser when a dump of the database is restored for `verify = "restore"`: CHECKs, expressions of indexes,
/// generated columns and the functions that they call. Empty where the role that restores is not a superuser: then the code can do what that
/// role can. Empty also for a server of its own, where a role without rights restores. `on` is the server that the dump is restored on.
pub async fn check_restore(settings: &Settings, on: &RestoresOn, trust_owners: bool) -> Result<Vec<String>> {
    let (target, whose, why) = match on {
        RestoresOn::OwnServer => return Ok(Vec::new()),
        RestoresOn::Source { why } => (settings, "", why.as_deref()),
        RestoresOn::Elsewhere(other) => (other, " of the server that `scratch` names", None),
    };
    let restores: (String, bool) =
        sqlx::query_as("SELECT rolname::text, rolsuper FROM pg_catalog.pg_roles WHERE rolname = session_user")
            .fetch_one(&mut target.connect().await?)
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
         superuser{whose}",
        identifier(&runs_as)
    );
    if trust_owners {
        return Ok(vec![line]);
    }
    let own_server = match why {
        Some(why) => format!("install what is missing for a server of its own, where such code has no rights ({why})"),
        None => "restore in a server of its own, where such code has no rights (scratch = \"throwaway\")".to_owned(),
    };
    let message = format!(
        "{line}; trust_owners = false refuses that: {own_server}, connect as a role that is not a superuser (`pgtend grants` writes its \
         SQL), or say verify = \"checksum\""
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
