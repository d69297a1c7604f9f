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
use crate::pg::table::with_schema;
use crate::pg::{self, Settings, failure, identifier};
use crate::work::touched::{INSERT, Touched};

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
            write!(f, "{table} belongs to {owner}: all that {owner} puts there or around it can run as {runs_as}, ")?;
            return match self.is_superuser {
                true => write!(f, "a superuser"),
                false => write!(f, "with rights that {owner} has not"),
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
            false => write!(f, "which may run as {runs_as}, with rights that {owner} has not"),
        }
    }
}

/// What a run of the job runs of others' code with more rights than they have, each in a sentence; an error where the job refuses that.
pub async fn warnings(settings: &Settings, touched: &[Touched<'_>], trust_owners: bool) -> Result<Vec<String>> {
    let mut found: Vec<ForeignCode> = Vec::new();
    for touched in touched {
        let mut of_table = look(settings, touched).await?;
        if trust_owners && touched.silences_triggers {
            of_table.retain(|code| !is_guard(code));
        }
        // A cascade may reach what is named, too.
        of_table.retain(|code| !found.iter().any(|known| known.to_string() == code.to_string()));
        found.append(&mut of_table);
    }
    judge(found, trust_owners)
}

/// The same of rows that are put back into `table` (with its schema, quoted): by COPY, which knows no rules.
pub async fn warnings_of_inserts(settings: &Settings, table: &str, trust_owners: bool) -> Result<Vec<String>> {
    judge(look(settings, &Touched::new(table, INSERT, &[], true)).await?, trust_owners)
}

/// Pure: what was found, in sentences; an error where the owners of tables are not trusted.
fn judge(mut found: Vec<ForeignCode>, trust_owners: bool) -> Result<Vec<String>> {
    // Code that was found first: it is the more telling. A role that `grants` made for several jobs always has rights that one owner has not:
    // there the owner alone is no news.
    found.sort_by_key(ForeignCode::is_the_table);
    found.retain(|code| !trust_owners || !code.is_the_table() || code.is_superuser);
    if let Some(first) = found.first().filter(|_| !trust_owners) {
        let message = format!(
            "{}; trust_owners = false refuses that: connect as a role without more rights than {} (itself, or a member of it alone that is no \
             superuser; `owner_url` of the database is for that)",
            in_short(&found).join("; "),
            identifier(&first.owner)
        );
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
