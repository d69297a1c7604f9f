//! Sequences behind columns of a table that got rows: a sequence that is behind them would give out numbers that are taken.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use sqlx::postgres::PgConnection;

use super::definitions::Item;
use super::living::{ASIDE, Living};
use super::names::Name;
use super::statements::{self, Statements};
use super::subject::{self, Role};
use crate::pg::{self, literal};
use crate::task::backup::own_bytes;
use crate::task::backup::tokens::Statement;

/// By sequence, the value that a set has of it, and whether it was given out.
pub type Values = BTreeMap<Name, (i64, bool)>;

#[derive(sqlx::FromRow)]
struct Behind {
    schema: String,
    name: String,
    column: String,
    /// None where this login may not move it.
    statement: Option<String>,
}

/// The values that the set has of these sequences.
pub fn values(items: &[Item], sequences: &BTreeSet<Name>) -> Values {
    let of_values = items.iter().filter(|item| item.subject.role == Role::Value && sequences.contains(&item.subject.of));
    let value = |statement: &Vec<u8>| subject::value(&Statement::of(&own_bytes::text(statement.clone())));
    let values = of_values.flat_map(|item| &item.statements).filter_map(value);
    values.map(|(name, number, is_called)| (name, (number, is_called))).collect()
}

/// The sequences behind columns of a table.
pub async fn names(connection: &mut PgConnection, table: &Name) -> Result<BTreeSet<Name>> {
    let behind: Vec<Behind> = pg::fetch_all_as(connection, of_name(table, &Values::new())).await?;
    Ok(behind.into_iter().map(|Behind { schema, name, .. }| Name { schema, name }).collect())
}

/// Statements for the transaction that fills these tables, after the rows. What the login may not move is a warning of the server.
pub fn statements<'a>(tables: impl IntoIterator<Item = &'a Name>, values: &Values) -> Statements {
    let of_table = |table: &Name| {
        let message = format!(
            "'this login may not move the sequence ' || b.schema || '.' || b.name || ', behind ' || {} || '.' || b.column || ', past the rows'",
            literal(&table.to_string())
        );
        let sql = format!(
            "SELECT pg_catalog.string_agg(coalesce(b.statement, pg_catalog.format('DO %L', pg_catalog.format('BEGIN RAISE WARNING USING MESSAGE = %L; END', {message}))), E';\\n')
             FROM ({}) b",
            of_name(table, values)
        );
        statements::ours(&sql)
    };
    tables.into_iter().map(of_table).collect()
}

/// Moves the sequences behind those columns of a table that have rows aside. Returns in words what was moved, and what may not be.
pub async fn forward(connection: &mut PgConnection, living: &Living, columns: &[String], values: &Values) -> Result<Vec<String>> {
    let oid = format!("{}::pg_catalog.oid", living.oid);
    let behind: Vec<Behind> = pg::fetch_all_as(connection, query(&oid, &literal(ASIDE), values)).await?;
    let mut notes = Vec::new();
    for Behind { schema, name, column, statement } in behind.into_iter().filter(|behind| columns.contains(&behind.column)) {
        let Some(statement) = statement else {
            notes.push(format!(
                "this login may not move the sequence {schema}.{name}, behind {}.{column}, past the rows",
                living.name
            ));
            continue;
        };
        if let Some(to) = pg::fetch_text(connection, statement).await? {
            notes.push(format!("the sequence {schema}.{name} was moved forward to {to}"));
        }
    }
    Ok(notes)
}

fn of_name(table: &Name, values: &Values) -> String {
    let oid = format!("pg_catalog.to_regclass({})::pg_catalog.oid", literal(&table.sql()));
    let rows = format!(
        "(SELECT CASE c.relkind WHEN 'p' THEN '' ELSE 'ONLY ' END FROM pg_catalog.pg_class c WHERE c.oid OPERATOR(pg_catalog.=) {oid}) || {}",
        literal(&table.sql())
    );
    query(&oid, &rows, values)
}

/// `table`: SQL of its oid; `rows`: SQL of a text, which is that of the relation with the rows.
fn query(table: &str, rows: &str, values: &Values) -> String {
    let row = |(name, (value, is_called)): (&Name, &(i64, bool))| {
        format!("({}, {}, {value}::pg_catalog.numeric, {is_called})", literal(&name.schema), literal(&name.name))
    };
    let sets: Vec<String> = values.iter().map(row).collect();
    let none = "(NULL::pg_catalog.text, NULL::pg_catalog.text, NULL::pg_catalog.numeric, NULL::pg_catalog.bool)";
    let sets = if sets.is_empty() { none.to_owned() } else { sets.join(", ") };
    format!(
        "WITH RECURSIVE given (oid, rows) AS (SELECT {table}, {rows}), sets (schema, name, value, is_called) AS (VALUES {sets}),\n{}",
        include_str!("sequences.sql")
    )
}
