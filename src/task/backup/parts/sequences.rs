//! Sequences behind columns of a table that got rows: a sequence that is behind them would give out numbers that are taken.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use sqlx::postgres::PgConnection;

use super::definitions::Item;
use super::names::Name;
use super::subject::{self, Role};
use crate::pg::{self, identifier, literal};
use crate::task::backup::own_bytes;
use crate::task::backup::tokens::Statement;

/// By sequence, the value that a set has of it, and whether it was given out.
pub type Values = BTreeMap<Name, (i64, bool)>;

#[derive(sqlx::FromRow)]
struct Behind {
    schema: String,
    name: String,
    column: String,
    /// The column has its numbers as they are.
    is_number: bool,
    may_look: bool,
    may_move: bool,
    increment: i64,
    least: i64,
    most: i64,
    cycles: bool,
}

/// Rows that were inserted: SQL of a relation, and those of its columns that the set has; all of them where None.
pub struct Inserted<'a> {
    pub rows: String,
    pub columns: Option<&'a [String]>,
}

/// What became of sequences, in words. No rollback takes back that one was moved.
#[derive(Debug, Default)]
pub struct Forward {
    pub moved: Vec<String>,
    pub left: Vec<String>,
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
    Ok(behind(connection, table).await?.into_iter().map(|behind| behind.sequence()).collect())
}

/// Moves sequences behind columns of a table, never back: to the value of the set; and one that the set does not know, past the inserted rows.
/// It belongs right before the commit, after all that can fail.
pub async fn forward(
    connection: &mut PgConnection,
    table: &Name,
    inserted: &Inserted<'_>,
    values: &Values,
    forward: &mut Forward,
) -> Result<()> {
    for behind in behind(connection, table).await? {
        let name = behind.sequence();
        let (value, is_called) = match values.get(&name) {
            Some((value, is_called)) => (i128::from(*value), *is_called),
            None => match past_rows(connection, &behind, inserted).await? {
                Some(value) => (value, true),
                None => continue,
            },
        };
        let advance = Advance { behind: &behind, value, is_called };
        if behind.may_look && !advance.is_ahead(connection).await? {
            continue;
        }
        let of = format!("the sequence {name}, behind {table}.{}", behind.column);
        if !behind.may_look || !behind.may_move {
            forward.left.push(format!("this login may not move {of}, to {value}"));
        } else if !advance.has_next() {
            forward.left.push(format!("{of}, was left where it is: after {value} it has no next number"));
        } else {
            if pg::fetch_text(connection, advance.statement()).await?.is_some() {
                forward.moved.push(format!("the sequence {name} was moved forward to {value}"));
            }
        }
    }
    Ok(())
}

/// Follows the words that a transaction which moved these changed nothing.
pub fn but_for(moved: &[String]) -> String {
    match moved {
        [] => String::new(),
        _ => format!(", except for sequences, which no rollback moves back: {}", moved.join("; ")),
    }
}

impl Behind {
    fn sequence(&self) -> Name {
        Name::new(&self.schema, &self.name)
    }
}

/// A value that a sequence may be moved to.
struct Advance<'a> {
    behind: &'a Behind,
    value: i128,
    is_called: bool,
}

impl Advance<'_> {
    /// Returns whether the sequence gives out a number after it.
    fn has_next(&self) -> bool {
        let Behind { increment, least, most, cycles, .. } = *self.behind;
        let bounds = i128::from(least)..=i128::from(most);
        let next = if self.is_called && !cycles { self.value + i128::from(increment) } else { self.value };
        bounds.contains(&self.value) && bounds.contains(&next)
    }

    async fn is_ahead(&self, connection: &mut PgConnection) -> Result<bool> {
        Ok(pg::fetch_text(connection, format!("SELECT '' {}", self.source_and_condition())).await?.is_some())
    }

    fn statement(&self) -> String {
        let Self { behind, value, is_called } = self;
        let sequence = literal(&behind.sequence().sql());
        format!(
            "SELECT pg_catalog.setval({sequence}::pg_catalog.regclass, '{value}'::pg_catalog.int8, {is_called})::pg_catalog.text {}",
            self.source_and_condition()
        )
    }

    /// Returns FROM and WHERE of a query that has a row if the sequence would move forward.
    fn source_and_condition(&self) -> String {
        let Self { behind, value, is_called } = self;
        let ahead = if behind.increment > 0 { ">" } else { "<" };
        format!(
            "FROM {} s WHERE '{value}'::pg_catalog.numeric OPERATOR(pg_catalog.{ahead}) s.last_value::pg_catalog.numeric
                OR '{value}'::pg_catalog.numeric OPERATOR(pg_catalog.=) s.last_value::pg_catalog.numeric AND {is_called} AND NOT s.is_called",
            behind.sequence().sql()
        )
    }
}

/// The largest number of the inserted rows; the smallest, where the sequence counts down.
async fn past_rows(connection: &mut PgConnection, behind: &Behind, inserted: &Inserted<'_>) -> Result<Option<i128>> {
    let is_of_set = inserted.columns.is_none_or(|columns| columns.contains(&behind.column));
    if !behind.is_number || behind.cycles || !is_of_set {
        return Ok(None);
    }
    let last = if behind.increment > 0 { "max" } else { "min" };
    let sql = format!(
        "SELECT pg_catalog.trunc(pg_catalog.{last}({})::pg_catalog.numeric)::pg_catalog.text FROM {}",
        identifier(&behind.column),
        inserted.rows
    );
    // NaN and infinity are beyond all numbers.
    let beyond = if behind.increment > 0 { i128::from(i64::MAX) + 1 } else { i128::from(i64::MIN) - 1 };
    let number = |text: String| text.parse().unwrap_or(beyond);
    Ok(pg::fetch_text(connection, sql).await?.map(number))
}

async fn behind(connection: &mut PgConnection, table: &Name) -> Result<Vec<Behind>> {
    let sql = format!(
        "WITH RECURSIVE given (oid) AS (SELECT pg_catalog.to_regclass({})::pg_catalog.oid),\n{}",
        literal(&table.sql()),
        include_str!("sequences.sql")
    );
    pg::fetch_all_as(connection, sql).await
}

/// SQL of the rows of a table that was empty, without those of tables that inherit.
pub async fn all_rows(connection: &mut PgConnection, table: &Name) -> Result<String> {
    let sql = format!(
        "SELECT CASE c.relkind WHEN 'p' THEN '' ELSE 'ONLY ' END FROM pg_catalog.pg_class c WHERE c.oid OPERATOR(pg_catalog.=) pg_catalog.to_regclass({})::pg_catalog.oid",
        literal(&table.sql())
    );
    Ok(pg::fetch_text(connection, sql).await?.unwrap_or_default() + &table.sql())
}
