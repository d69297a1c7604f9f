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
use crate::pg::table::with_schema;
use crate::pg::{self, Settings, failure, identifier};

/// This many warnings are listed; the rest are only counted.
const NAMED: usize = 20;

/// One piece of such code, once for each function that it calls.
#[derive(Clone, Debug, sqlx::FromRow)]
struct ForeignCode {
    /// "trigger", "index" and the like; "table" for the table itself.
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
}

impl ForeignCode {
    fn is_the_table(&self) -> bool {
        self.kind == "table"
    }
}

impl fmt::Display for ForeignCode {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let Self { kind, table, .. } = self;
        let (owner, runs_as) = (identifier(&self.owner), identifier(&self.runs_as));
        if self.is_the_table() {
            write!(
                f,
                "{table} belongs to {owner}: code that {owner} adds to it or to its types and functions can run as {runs_as}, "
            )?;
            return match self.is_superuser {
                true => write!(f, "a superuser"),
                false => write!(f, "with rights that {owner} lacks"),
            };
        }
        write!(f, "{kind} ")?;
        if let Some(name) = &self.name {
            write!(f, "{name} ")?;
        }
        write!(f, "of {table} ")?;
        match &self.function {
            Some(function) => write!(f, "calls {function}, code of {owner}, ")?,
            None => write!(f, "is code of {owner} ")?,
        }
        match self.is_superuser {
            true => write!(f, "which may run as {runs_as}, a superuser"),
            false => write!(f, "which may run as {runs_as}, with rights that {owner} lacks"),
        }
    }
}

/// The operations of a task on the rows of its table.
#[derive(Clone, Copy, Debug)]
pub struct Touched<'a> {
    pub table: &'a str,
    /// Events of triggers that fire, as in pg_trigger.tgtype.
    pub triggers: i32,
    /// Events of rules, as in pg_rewrite.ev_type.
    pub rules: &'static [&'static str],
    /// Whether rows are written, so that CHECKs and generated columns are evaluated.
    pub writes: bool,
    /// Whether triggers are disabled by session_replication_role, where the role may set it.
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

/// The other owners' code that a run of the job would execute with more rights than the owners have, each in a sentence; an error where the
/// job refuses that.
pub async fn warnings(settings: &Settings, touched: &[Touched<'_>], trust_owners: bool) -> Result<Vec<String>> {
    let mut found: Vec<ForeignCode> = Vec::new();
    for touched in touched {
        let mut of_table = look(settings, touched).await?;
        if trust_owners && touched.silences_triggers {
            of_table.retain(|code| !is_guard(code));
        }
        // A cascade may reach code that was already found.
        of_table.retain(|code| !found.iter().any(|known| known.to_string() == code.to_string()));
        found.append(&mut of_table);
    }
    judge(found, trust_owners)
}

/// The same for rows that are restored into `table` (with its schema, quoted) by COPY, which ignores rules.
pub async fn warnings_of_inserts(settings: &Settings, table: &str, trust_owners: bool) -> Result<Vec<String>> {
    judge(look(settings, &Touched::new(table, INSERT, &[], true)).await?, trust_owners)
}

/// Turns the code found into sentences; an error where owners of tables are not trusted. Pure.
fn judge(mut found: Vec<ForeignCode>, trust_owners: bool) -> Result<Vec<String>> {
    // Concrete code comes first, as it says more. A role that `grants` created for several jobs always has rights that one of the owners
    // lacks, so the owner alone is not worth a warning there.
    found.sort_by_key(ForeignCode::is_the_table);
    found.retain(|code| !trust_owners || !code.is_the_table() || code.is_superuser);
    if let Some(first) = found.first().filter(|_| !trust_owners) {
        let message = format!(
            "{}; trust_owners = false refuses that: connect as a role without more rights than {} (that role itself, or a non-superuser that is a member of it alone; \
             set `owner_url` of the database for that)",
            in_short(&found).join("; "),
            identifier(&first.owner)
        );
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

async fn look(settings: &Settings, touched: &Touched<'_>) -> Result<Vec<ForeignCode>> {
    let mut connection = settings.connect().await?;
    let Some(table) = oid_of(&mut connection, touched).await? else { return Ok(Vec::new()) };
    sqlx::query_as(include_str!("foreign_code.sql"))
        .bind(table)
        .bind(touched.triggers)
        .bind(touched.rules)
        .bind(touched.writes)
        .bind(touched.silences_triggers)
        .fetch_all(&mut connection)
        .await
        .map_err(pg::in_its_own_words)
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
