//! Decides which functions an undo drops, and which stay: those that other objects need, and dictionaries that other rows may need.

use anyhow::Result;
use sqlx::PgConnection;

use super::super::dictionary::PREFIX;
use super::super::names::{CONSTRAINT, FORMER_FUNCTIONS, FUNCTIONS};
use super::super::table::Table;
use super::elsewhere;
use crate::pg::table::with_schema;
use crate::pg::{self, qualified};
use crate::work::{Does, RunContext};

#[derive(Debug, Default)]
pub struct Functions {
    /// Statements, for the owner of the table.
    pub drops: Vec<String>,
    /// Why each of the others stays.
    pub stay: Vec<String>,
}

/// Looks at the functions of the table, and at its dictionaries, if these are to be dropped.
pub async fn of(
    connection: &mut PgConnection,
    table: &Table,
    run: &RunContext<'_>,
    drop_dictionaries: bool,
) -> Result<Functions> {
    let mut names: Vec<String> = FUNCTIONS
        .iter()
        .chain(&FORMER_FUNCTIONS)
        .map(|(what, arguments)| format!("{}({arguments})", table.function(what)))
        .collect();
    let mut stay = Vec::new();
    let dictionaries = dictionaries(connection, table).await?;
    if !dictionaries.is_empty() {
        match needed(connection, table, &dictionaries, run, drop_dictionaries).await? {
            Some(reason) => stay.push(format!("dictionaries stay, as {reason}: {}", dictionaries.join(", "))),
            None => names.extend(dictionaries),
        }
    }
    if drop_dictionaries {
        stay.extend(of_no_table(connection, table).await?);
    }
    let mut functions = droppable(connection, table, names).await?;
    functions.stay.extend(stay);
    Ok(functions)
}

/// Returns the functions of the table's dictionaries that are there.
async fn dictionaries(connection: &mut PgConnection, table: &Table) -> Result<Vec<String>> {
    let names: Vec<String> =
        table.dictionaries().iter().map(|name| format!("{}(bytea)", qualified(&table.schema, name))).collect();
    let there = "SELECT name FROM unnest($1::text[]) WITH ORDINALITY f (name, number) WHERE to_regprocedure(name) IS NOT NULL ORDER BY number";
    sqlx::query_scalar(there).bind(names).fetch_all(connection).await.map_err(pg::in_its_own_words)
}

/// Returns why the dictionaries stay. Rows that were archived, or copied in their compressed form, can be read with them alone, so they are
/// dropped only when that is asked for, and nothing is found that needs them.
async fn needed(
    connection: &mut PgConnection,
    table: &Table,
    dictionaries: &[String],
    run: &RunContext<'_>,
    drop: bool,
) -> Result<Option<String>> {
    if !drop {
        let reason = "rows that were archived, or copied in their compressed form, may need them, and each takes some 50 kB only";
        return Ok(Some(format!("{reason} (undo --drop-dictionaries drops them; afterwards, DROP FUNCTION)")));
    }
    // Whatever entry of the configuration it is for: two may name the same database.
    for job in run.others {
        let Does::Retention { table: named } = &job.does else { continue };
        let is_of_it: bool = sqlx::query_scalar("SELECT coalesce(to_regclass($1)::oid::bigint = ANY ($2), false)")
            .bind(with_schema(named))
            .bind(vec![table.oid, table.view.as_ref().map_or(table.oid, |view| view.oid)])
            .fetch_one(&mut *connection)
            .await
            .map_err(pg::in_its_own_words)?;
        if is_of_it {
            return Ok(Some(format!("rows that job {} has archived may need them", job.name)));
        }
    }
    elsewhere::needs_one(connection, table, dictionaries, run).await
}

/// Returns why dictionaries of the owner stay that no table's mark names: they are of an earlier undo, or of a table that is gone, and nothing says of which.
async fn of_no_table(connection: &mut PgConnection, table: &Table) -> Result<Vec<String>> {
    let names: Vec<String> = sqlx::query_scalar(
        "SELECT format('%I.%I(bytea)', n.nspname, p.proname) FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace JOIN pg_class c ON c.oid = $1::bigint::oid
         WHERE n.nspname = $2 AND p.proowner = c.relowner AND starts_with(p.proname::text, $3) AND p.proargtypes = '17'::oidvector
           AND NOT EXISTS (SELECT FROM pg_constraint k JOIN pg_class o ON o.oid = k.conrelid AND o.relowner = c.relowner WHERE k.conname = $4 AND strpos(obj_description(k.oid, 'pg_constraint'), p.proname::text) > 0)
         ORDER BY 1",
    )
    .bind(table.oid)
    .bind(&table.schema)
    .bind(PREFIX)
    .bind(CONSTRAINT)
    .fetch_all(connection)
    .await
    .map_err(pg::in_its_own_words)?;
    let reason =
        "are of an earlier undo, or of a table that is gone: DROP FUNCTION, if no rows that were archived or copied need them";
    Ok(if names.is_empty() {
        names
    } else {
        vec![format!("dictionaries that no table names stay; they {reason}: {}", names.join(", "))]
    })
}

/// Tells functions that can be dropped from those that cannot: everybody may make an object that needs one of them, or a function of that name.
async fn droppable(connection: &mut PgConnection, table: &Table, names: Vec<String>) -> Result<Functions> {
    let found: Vec<(String, Option<String>, Option<String>)> = sqlx::query_as(
        "SELECT f.name, CASE WHEN p.proowner <> c.relowner THEN pg_get_userbyid(p.proowner)::text END,
             (SELECT string_agg(DISTINCT CASE WHEN v.oid IS NULL THEN pg_describe_object(d.classid, d.objid, d.objsubid)
                                              ELSE pg_describe_object('pg_class'::regclass, v.oid, 0) END, ', ')
              FROM pg_depend d LEFT JOIN pg_rewrite r ON d.classid = 'pg_rewrite'::regclass AND r.oid = d.objid LEFT JOIN pg_class v ON v.oid = r.ev_class
              LEFT JOIN pg_trigger t ON d.classid = 'pg_trigger'::regclass AND t.oid = d.objid
              WHERE d.refclassid = 'pg_proc'::regclass AND d.refobjid = p.oid
                AND v.oid IS DISTINCT FROM $2::bigint::oid AND (t.tgrelid IS NULL OR t.tgrelid NOT IN ($1::bigint::oid, $2::bigint::oid)))
         FROM unnest($3::text[]) WITH ORDINALITY f (name, number) JOIN pg_proc p ON p.oid = to_regprocedure(f.name) JOIN pg_class c ON c.oid = $1::bigint::oid
         ORDER BY f.number",
    )
    .bind(table.oid)
    .bind(table.view.as_ref().map_or(0, |view| view.oid))
    .bind(names)
    .fetch_all(connection)
    .await
    .map_err(pg::in_its_own_words)?;
    let mut functions = Functions::default();
    for (name, other_owner, needed_by) in found {
        match (other_owner, needed_by) {
            (Some(owner), _) => functions.stay.push(format!("the function {name} stays, as it belongs to {owner}")),
            (None, Some(what)) => functions.stay.push(format!("the function {name} stays, as other objects need it: {what}")),
            (None, None) => functions.drops.push(format!("DROP FUNCTION IF EXISTS {name}")),
        }
    }
    Ok(functions)
}
