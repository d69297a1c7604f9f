//! Decides which functions an undo drops, and which stay: those that other objects need, and dictionaries that other rows may need.

use anyhow::Result;
use sqlx::PgConnection;

use super::super::dictionary::PREFIX;
use super::super::names::{FORMER_FUNCTIONS, FUNCTIONS};
use super::super::table::{Table, companion};
use crate::pg::table::with_schema;
use crate::pg::{self, literal, qualified};
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
    for (relation, column, is_array) in others(connection, table).await? {
        match names_one(connection, &relation, (&column, is_array), dictionaries).await {
            Ok(false) => {}
            Ok(true) => return Ok(Some(format!("values of {relation}.{column} need one"))),
            Err(error) => {
                return Ok(Some(format!("values of {relation}.{column} may need one, which could not be seen ({error:#})")));
            }
        }
    }
    Ok(None)
}

/// Returns all columns of the database, but the table's own, that may have compressed values: of bytea, domains over it, and arrays of these. The third is
/// whether it is an array.
async fn others(connection: &mut PgConnection, table: &Table) -> Result<Vec<(String, String, bool)>> {
    sqlx::query_as(
        "WITH RECURSIVE of_bytes (type, is_array) AS (
             SELECT 'bytea'::regtype::oid, false
             UNION SELECT t.oid, is_array OR t.typtype <> 'd' FROM of_bytes JOIN pg_type e ON e.oid = type
             JOIN pg_type t ON t.oid = e.typarray OR t.typtype = 'd' AND t.typbasetype = e.oid)
         SELECT format('%I.%I', n.nspname, c.relname), quote_ident(a.attname), is_array
         FROM of_bytes JOIN pg_attribute a ON a.atttypid = type JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE c.relkind IN ('r', 'm') AND c.relpersistence <> 't' AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')
           AND a.attnum > 0 AND NOT a.attisdropped AND NOT (c.oid = $1::bigint::oid AND a.attname = $2)
         ORDER BY 1, 2",
    )
    .bind(table.oid)
    .bind(companion(&table.text_column.name, "_gz"))
    .fetch_all(connection)
    .await
    .map_err(pg::in_its_own_words)
}

async fn names_one(
    connection: &mut PgConnection,
    relation: &str,
    (column, is_array): (&str, bool),
    dictionaries: &[String],
) -> Result<bool> {
    let values = if is_array { format!("unnest(t.{column}::bytea[])") } else { format!("(SELECT t.{column}::bytea)") };
    let sql = format!(
        "SELECT EXISTS (SELECT FROM ONLY {relation} t, LATERAL {values} v (gz) WHERE octet_length(v.gz) > 20 AND substring(v.gz FROM 1 FOR 1) = decode('01', 'hex')
             AND EXISTS (SELECT FROM unnest($1::text[]) name WHERE strpos(name, {} || left(encode(sha256(
                 substring(v.gz FROM octet_length(v.gz) - 19 FOR 16)), 'hex'), 16)) > 0))",
        literal(PREFIX)
    );
    let found = pg::query(sql).bind(dictionaries).fetch_one(connection).await.map_err(pg::in_its_own_words)?;
    Ok(sqlx::Row::try_get(&found, 0)?)
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
