//! Other owners' code that a job's table holds and that runs with our session's rights: triggers, rules, CHECKs, generated columns,
//! expressions of indexes. Before each run a warning names the code that can be found, and every owner of such a table who has fewer rights
//! than our role. Not all code can be found: a function that runs as its owner may leave a cursor WITH HOLD or a prepared statement, which
//! then runs as us; casts, domains and types call functions that no expression names. So `trust_owners = false` in `[limits]` refuses the
//! owner, whatever is found. The same holds for a dump of the database that is restored to verify it.
//!
//! The search comes before the run's own queries, because planning them may already execute such code.

use std::collections::HashMap;
use std::sync::Arc;

use anyhow::Result;
use sqlx::PgConnection;

use super::compress;
use crate::pg::table::{ATTACHED, Attached, Checked, with_schema};
use crate::pg::{self, Settings, failure};
use crate::work::touched::{INSERT, Touched};

mod found;
mod judge;
mod living;
mod path;
mod queried;
mod restore;
use found::ForeignCode;
use judge::judge;
pub use living::{Used, check_part};
pub use queried::Queried;
pub use restore::{check_restore, check_restore_before_a_dump, check_restore_beside_others, check_restore_of_a_set};

/// Returns other owners' code that a run of the job would execute with more rights than the owners have, each piece in a sentence, and the
/// tables that were searched: the run works on these alone. It is an error where the job refuses such code.
pub async fn check(settings: &Settings, touched: &[Touched<'_>], trust_owners: bool) -> Result<(Vec<String>, Vec<Checked>)> {
    let mut found: Vec<ForeignCode> = Vec::new();
    let mut checked = Vec::new();
    for touched in touched {
        let (table, mut of_table) = look(settings, touched).await?;
        checked.extend(table);
        if trust_owners && touched.silences_triggers {
            let owners: Vec<(String, Option<String>)> = of_table
                .iter()
                .filter(|code| code.kind == "table")
                .map(|code| (code.table.clone(), code.owner.clone()))
                .collect();
            of_table.retain(|code| !is_guard(code, &owners));
        }
        // A cascade may reach code that was already found.
        of_table.retain(|code| !found.iter().any(|known| known.to_string() == code.to_string()));
        found.append(&mut of_table);
    }
    if touched.iter().any(|touched| touched.finds_names) {
        found.extend(path::search(settings).await?);
        found = ForeignCode::once(found);
    }
    Ok((judge(found, trust_owners)?, checked))
}

/// Checks the code that runs when rows are restored into `table` (with its schema, quoted) by COPY, which ignores rules. `finds_names`: by a session for
/// rows, which finds names as the application does.
pub async fn check_inserts(
    settings: &Settings,
    table: &str,
    finds_names: bool,
    trust_owners: bool,
) -> Result<(Vec<String>, Vec<Checked>)> {
    check(settings, &[Touched { finds_names, ..Touched::new(table, INSERT, &[], true) }], trust_owners).await
}

/// Returns the code of roles with fewer rights than the login that a query of a table (its oid) may run, or an EXPLAIN of it. `extension`: see
/// [`Touched::extension`].
pub async fn queried(connection: &mut PgConnection, table: i64, extension: &'static str) -> Result<Queried> {
    let touched = Touched { extension: Some(extension), ..Touched::new("", 0, &[], false) };
    Ok(Queried::of(&search(connection, table, &touched).await?))
}

/// Returns whether it is a trigger that `compress install` created. It belongs to the owner, who could change it: it is trusted as the owner is. Whoever has
/// TRIGGER on the table may give one of theirs these names. `owners`: tables, and who owns them.
fn is_guard(code: &ForeignCode, owners: &[(String, Option<String>)]) -> bool {
    code.kind == "trigger"
        && owners.contains(&(code.table.clone(), code.owner.clone()))
        && code.name.as_deref().is_some_and(|name| compress::GUARDS.contains(&name))
        && code.function.as_deref().is_some_and(|function| function.trim_end_matches('"').ends_with("_pgtend_guard"))
}

/// Searches the code of one table, and returns the table as it was then.
async fn look(settings: &Settings, touched: &Touched<'_>) -> Result<(Option<Checked>, Vec<ForeignCode>)> {
    let mut connection = settings.connect().await?;
    if touched.triggers != 0 || touched.writes {
        pg::check_triggers_fire(&mut connection).await?;
    }
    let Some(table) = oid_of(&mut connection, touched).await? else { return Ok((None, Vec::new())) };
    // Before the search: code that comes in between is new to the run then, and stops it.
    let attached: Vec<(i64, Attached)> =
        sqlx::query_as(ATTACHED).bind(table).fetch_all(&mut connection).await.map_err(pg::in_its_own_words)?;
    let tree: HashMap<i64, Attached> = attached.into_iter().collect();
    let found = search(&mut connection, table, touched).await?;
    // By its name, as statements go by it: the view of a [compress] job may be lost, and then there is no table of that name.
    let owner = "SELECT relowner::bigint FROM pg_catalog.pg_class WHERE oid = pg_catalog.to_regclass($1)::pg_catalog.oid AND oid = $2::bigint::pg_catalog.oid";
    let name = with_schema(touched.table);
    let owner: Option<i64> = sqlx::query_scalar(owner).bind(&name).bind(table).fetch_optional(&mut connection).await?;
    let code = tree.get(&table).cloned();
    Ok((owner.map(|owner| Checked { name, oid: table, owner: Some(owner), code, tree: Arc::new(tree) }), found))
}

async fn search(connection: &mut PgConnection, table: i64, touched: &Touched<'_>) -> Result<Vec<ForeignCode>> {
    let sql = concat!(
        "WITH RECURSIVE ",
        include_str!("../rights.sql"),
        ", ",
        include_str!("../../pg/acting_functions.sql"),
        include_str!("search.sql")
    );
    sqlx::query_as(sql)
        .bind(table)
        .bind(touched.triggers)
        .bind(touched.rules)
        .bind(touched.writes)
        .bind(touched.silences_triggers)
        .bind(touched.extension)
        .fetch_all(connection)
        .await
        .map_err(pg::in_its_own_words)
}

/// Returns the oid of the table; None also for a name that is not a table's: the task reports that itself.
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
