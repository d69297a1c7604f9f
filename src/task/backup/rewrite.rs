//! Decides the fate of each statement of a dump in a restore: it runs unchanged, changed, or not at all. Pure.

use std::borrow::Cow;
use std::collections::HashSet;
use std::ops::Range;

use super::by_superuser::{self, Turn};
use super::choices::{Choices, Object};
use super::named::{Named, named_objects, owners_position, role_positions};
use super::tokens::{Kind, Statement};
use super::{pg_dumps, vector_indexes};
use crate::pg::{identifier, literal};

pub use super::named::role_names;

/// Properties of a target.
#[derive(Debug, Default)]
pub struct Server {
    pub settings: HashSet<String>,
    /// Tablespaces that the role may use.
    pub tablespaces: HashSet<String>,
    pub is_superuser: bool,
    /// Roles that may own the objects that this one creates.
    pub owners: HashSet<String>,
}

#[derive(Debug, PartialEq)]
pub enum Fate<'a> {
    /// The statement runs, with an optional note.
    Run(Cow<'a, str>, Option<String>),
    /// The statement is skipped without being named in a choice, with an optional note.
    Pass(Option<String>),
    /// The statement is left out by `Choices::without`, with its index.
    LeftOut(usize),
    /// The same for objects inside another: the remaining statement, and the indexes of those left out.
    Cut(String, Vec<usize>),
    /// A statement that a superuser runs, in a server of its own.
    BySuperuser(Turn),
    /// A statement that pg_dump never writes.
    Foreign,
    /// A foreign key by `Choices::without`: added for new rows only, or left out if even that fails.
    NotValid(String, usize),
}

/// `text`: one statement without its semicolon.
pub fn fate<'a>(text: &'a str, choices: &Choices, server: &Server) -> Fate<'a> {
    let as_it_is = || Fate::Run(Cow::Borrowed(text), None);
    let statement = Statement::of(text);
    if !pg_dumps::writes(&statement) {
        return Fate::Foreign;
    }
    if choices.in_own_server
        && let Some(turn) = by_superuser::turn(&statement)
    {
        return Fate::BySuperuser(turn);
    }
    let first = text.split([' ', '\n']).next().unwrap_or_default();
    match first {
        "SET" => set(&statement, choices, server),
        "RESET" if is_unprivileged(choices, server) => Fate::Pass(None),
        "SELECT" if text.starts_with("SELECT pg_catalog.set_config('search_path'") => match &choices.search_path {
            Some(path) => {
                Fate::Run(Cow::Owned(format!("SELECT pg_catalog.set_config('search_path', {}, false)", literal(path))), None)
            }
            None => as_it_is(),
        },
        "CREATE" | "ALTER" | "COMMENT" | "SECURITY" | "GRANT" | "REVOKE" => unprivileged(&statement, choices, server)
            .or_else(|| made_before(&statement, choices))
            .or_else(|| vector_index(&statement, choices))
            .or_else(|| subscription(&statement, choices))
            .or_else(|| without(&statement, choices))
            .or_else(|| public(&statement))
            .or_else(|| owner(&statement, choices))
            .or_else(|| roles(&statement, choices))
            .unwrap_or_else(as_it_is),
        _ => as_it_is(),
    }
}

fn set<'a>(statement: &Statement<'a>, choices: &Choices, server: &Server) -> Fate<'a> {
    let text = statement.text;
    if statement.says(1, &["SESSION", "AUTHORIZATION"]) {
        if is_unprivileged(choices, server) {
            return not_tested(
                choices,
                "the grantors were not tested: the verifying role is not a superuser and granted these privileges itself",
            );
        }
        return roles(statement, choices).unwrap_or(Fate::Run(Cow::Borrowed(text), None));
    }
    let Some(setting) = statement.name(1) else { return Fate::Run(Cow::Borrowed(text), None) };
    // A setting that the server does not know cannot have mattered to the dump: pg_dump 17 and newer write `SET transaction_timeout = 0`
    // for servers of any version.
    if statement.is_symbol(2, b'=') && !server.settings.contains(&setting) {
        return Fate::Pass(None);
    }
    if setting == "default_tablespace"
        && let Some(tablespace) = statement.name(3)
    {
        if choices.no_tablespaces {
            return Fate::Pass(None);
        }
        if choices.for_scratch && !server.tablespaces.contains(&tablespace) {
            return Fate::Pass(Some(format!(
                "this role cannot use the tablespace {tablespace}: its objects were restored into the database's own"
            )));
        }
    }
    Fate::Run(Cow::Borrowed(text), None)
}

fn is_unprivileged(choices: &Choices, server: &Server) -> bool {
    choices.for_scratch && !server.is_superuser
}

/// A scratch database shows whether the dump can be restored, not who owns what: if the role is not a superuser, which is recommended, it
/// need not be a member of every owner.
fn unprivileged<'a>(statement: &Statement<'a>, choices: &Choices, server: &Server) -> Option<Fate<'a>> {
    if !is_unprivileged(choices, server) {
        return None;
    }
    let is_another = |index: usize| statement.name(index).is_some_and(|role| !server.owners.contains(&role));
    let owner = owners_position(statement).filter(|index| is_another(*index));
    let defaults = statement.says(0, &["ALTER", "DEFAULT", "PRIVILEGES", "FOR", "ROLE"]) && is_another(5);
    if owner.is_some() && choices.in_own_server && !is_not_tried(statement) {
        return Some(Fate::Pass(Some("owners of objects with names that are not UTF-8 were not tested".to_owned())));
    }
    if owner.is_some() {
        let note = "owners of objects were not tested: the verifying role is neither a superuser nor a member of them";
        return Some(not_tested(choices, note));
    }
    if defaults {
        let note = "ALTER DEFAULT PRIVILEGES of other roles was not tested: the verifying role is not a superuser";
        return Some(not_tested(choices, note));
    }
    let of_event_trigger = ["CREATE", "ALTER"].iter().any(|word| statement.says(0, &[word, "EVENT", "TRIGGER"]))
        || statement.says(0, &["COMMENT", "ON", "EVENT", "TRIGGER"])
        || (statement.says(0, &["SECURITY", "LABEL"]) && statement.says(5, &["EVENT", "TRIGGER"]));
    of_event_trigger.then(|| not_tested(choices, "event triggers were not tested: the verifying role is not a superuser"))
}

/// Returns whether it is about an object whose owner must be a superuser, or which is not restored.
fn is_not_tried(statement: &Statement) -> bool {
    [&["EVENT", "TRIGGER"][..], &["FOREIGN", "DATA", "WRAPPER"], &["SUBSCRIPTION"]].iter().any(|kind| statement.says(1, kind))
}

/// The statement is skipped, with this note where another role would have tested it. For a server of its own, the report lists all that is
/// not tested.
fn not_tested<'a>(choices: &Choices, note: &str) -> Fate<'a> {
    Fate::Pass((!choices.in_own_server).then(|| note.to_owned()))
}

/// Skips the schemas of extensions that a superuser has already created, and the comments on these extensions, which only their owner may
/// change.
fn made_before<'a>(statement: &Statement<'a>, choices: &Choices) -> Option<Fate<'a>> {
    let extensions = &choices.made_before;
    let is_schema = |name: &str| extensions.iter().any(|extension| extension.schema.as_deref() == Some(name));
    let is_made = match () {
        () if statement.says(0, &["CREATE", "SCHEMA"]) => statement.name(2).is_some_and(|name| is_schema(&name)),
        () if statement.says(0, &["COMMENT", "ON", "EXTENSION"]) => {
            statement.name(3).is_some_and(|name| extensions.iter().any(|extension| extension.name == name))
        }
        () => false,
    };
    is_made.then_some(Fate::Pass(None))
}

/// A new database has `public` already, and pg_dump makes it where a filter names it (`-n`): so that psql refuses such a dump, too.
fn public<'a>(statement: &Statement<'a>) -> Option<Fate<'a>> {
    (statement.text == "CREATE SCHEMA public").then_some(Fate::Run(Cow::Borrowed("CREATE SCHEMA IF NOT EXISTS public"), None))
}

fn vector_index<'a>(statement: &Statement<'a>, choices: &Choices) -> Option<Fate<'a>> {
    let sql = if choices.no_vector_indexes { vector_indexes::over_no_row(statement) } else { None };
    sql.map(|sql| Fate::Run(Cow::Owned(sql), Some(vector_indexes::NOT_BUILT.to_owned())))
}

/// An enabled copy of a subscription takes over the replication slot of the original; and a database with a subscription that has a slot
/// cannot be dropped without the publisher, where that drops the slot.
fn subscription<'a>(statement: &Statement<'a>, choices: &Choices) -> Option<Fate<'a>> {
    let creates = statement.says(0, &["CREATE", "SUBSCRIPTION"]);
    let of_one = creates
        || statement.says(0, &["ALTER", "SUBSCRIPTION"])
        || statement.says(0, &["COMMENT", "ON", "SUBSCRIPTION"])
        || (statement.says(0, &["SECURITY", "LABEL"]) && statement.find(&["ON", "SUBSCRIPTION"]).is_some());
    if of_one && choices.for_scratch {
        return Some(Fate::Pass(None));
    }
    if !creates {
        return None;
    }
    let name = statement.name(2)?;
    let slot = (0..statement.tokens.len()).rev().find(|index| {
        statement.tokens[*index].depth == 1 && statement.says(*index, &["slot_name"]) && statement.is_symbol(index + 1, b'=')
    });
    let (sql, had) = match slot.and_then(|index| statement.tokens.get(index + 2)) {
        Some(value) => {
            let had = statement.raw(value).to_owned();
            (replaced(statement.text, &[(value.at.clone(), "NONE".to_owned())]), had)
        }
        // pg_dump does not write this: it is told not to connect.
        None => (format!("{} WITH (connect = false, slot_name = NONE)", statement.text), "NONE".to_owned()),
    };
    let quoted = identifier(&name);
    let enable = if had == "NONE" {
        format!(
            "create a slot for it on the publisher, then ALTER SUBSCRIPTION {quoted} SET (slot_name = '…'); ALTER SUBSCRIPTION {quoted} ENABLE; ALTER SUBSCRIPTION {quoted} REFRESH PUBLICATION"
        )
    } else {
        format!(
            "if this database replaces the old subscriber, and that one is gone for good: ALTER SUBSCRIPTION {quoted} SET (slot_name = {had}); ALTER SUBSCRIPTION {quoted} ENABLE; ALTER SUBSCRIPTION {quoted} REFRESH PUBLICATION"
        )
    };
    Some(Fate::Run(
        Cow::Owned(sql),
        Some(format!("the subscription {name} was restored without its replication slot and is disabled: {enable}")),
    ))
}

fn without<'a>(statement: &Statement<'a>, choices: &Choices) -> Option<Fate<'a>> {
    if choices.without.is_empty() {
        return None;
    }
    let named = named_objects(statement);
    let asked = |object: Object, schema: Option<&str>, table: Option<&str>, name: &str| {
        choices.without.iter().position(|without| without.kind == object && is_called(&without.name, schema, table, name))
    };
    for Named { object, schema, table, name } in &named {
        if let Some(which) = asked(*object, schema.as_deref(), table.as_deref(), name) {
            let is_foreign_key = statement.find(&["FOREIGN", "KEY"]).is_some() && statement.says(0, &["ALTER", "TABLE"]);
            return Some(match is_foreign_key {
                true => Fate::NotValid(not_valid(statement.text), which),
                false => Fate::LeftOut(which),
            });
        }
    }
    inline_constraint(statement, |schema, table, name| asked(Object::Constraint, schema, table, name))
}

/// The foreign key, valid for new rows only.
pub fn not_valid(text: &str) -> String {
    if text.ends_with("NOT VALID") { text.to_owned() } else { format!("{text} NOT VALID") }
}

/// `x`, `schema.x`, `table.x` or `schema.table.x`.
fn is_called(wanted: &str, schema: Option<&str>, table: Option<&str>, name: &str) -> bool {
    let Some(before) = wanted.strip_suffix(name) else { return false };
    let before = before.strip_suffix('.').or(before.is_empty().then_some(before));
    before.is_some_and(|before| {
        before.is_empty()
            || Some(before) == schema
            || Some(before) == table
            || schema.zip(table).is_some_and(|(schema, table)| before == format!("{schema}.{table}"))
    })
}

/// Cuts `CONSTRAINT name CHECK (…)`, or `CONSTRAINT name NOT NULL`, out of CREATE TABLE and CREATE DOMAIN.
fn inline_constraint<'a>(
    statement: &Statement<'a>,
    asked: impl Fn(Option<&str>, Option<&str>, &str) -> Option<usize>,
) -> Option<Fate<'a>> {
    let depth = match () {
        () if statement.says(0, &["CREATE", "DOMAIN"]) => 0,
        () if statement.says(0, &["CREATE"]) && statement.find(&["TABLE"]).is_some_and(|index| index <= 3) => 1,
        () => return None,
    };
    let named_at = if depth == 0 { 2 } else { statement.find(&["TABLE"])? + 1 };
    let (schema, table, _) = statement.qualified(named_at)?;
    let tokens = &statement.tokens;
    let mut cuts = Vec::new();
    let mut which = Vec::new();
    let mut index = 0;
    while index < tokens.len() {
        let name =
            (tokens[index].depth == depth && statement.says(index, &["CONSTRAINT"])).then(|| statement.name(index + 1)).flatten();
        let found = name.and_then(|name| asked(schema.as_deref(), Some(&table), &name));
        let Some(found) = found else {
            index += 1;
            continue;
        };
        which.push(found);
        let comma_before = index > 0 && statement.is_symbol(index - 1, b',');
        let stands_alone = depth == 1 && (comma_before || (index > 0 && statement.is_symbol(index - 1, b'(')));
        // The cut ends with the parenthesis of its CHECK, or with NOT NULL, which names its column where it stands alone.
        let end = match statement.says(index + 2, &["CHECK"]) {
            true => (index + 3..tokens.len()).find(|at| statement.is_symbol(*at, b')') && tokens[*at].depth == depth)?,
            false if statement.says(index + 2, &["NOT", "NULL"]) => index + 3 + usize::from(stands_alone),
            false => return None,
        };
        let end = if statement.says(end + 1, &["NO", "INHERIT"]) { end + 2 } else { end };
        let end_at = tokens.get(end)?.at.end;
        // The cut includes the comma before it, or else the one after it.
        let cut_up_to = cuts.last().map_or(0, |(cut, _): &(Range<usize>, _)| cut.end);
        let comma_is_there = comma_before && cut_up_to <= tokens[index - 1].at.start;
        let (from, to) = match stands_alone {
            true if comma_is_there => (tokens[index - 1].at.start, end_at),
            true if statement.is_symbol(end + 1, b',') => (tokens[index].at.start, tokens[end + 1].at.end),
            _ => (tokens[index].at.start, end_at),
        };
        cuts.push((from..to, String::new()));
        index = end + 1;
    }
    (!cuts.is_empty()).then(|| Fate::Cut(replaced(statement.text, &cuts), which))
}

fn owner<'a>(statement: &Statement<'a>, choices: &Choices) -> Option<Fate<'a>> {
    (choices.no_owner && owners_position(statement).is_some()).then_some(Fate::Pass(None))
}

/// Replaces roles with their new names.
fn roles<'a>(statement: &Statement<'a>, choices: &Choices) -> Option<Fate<'a>> {
    if choices.role_map.is_empty() {
        return None;
    }
    let mut changes = Vec::new();
    for index in role_positions(statement) {
        let token = &statement.tokens[index];
        let raw = statement.raw(token);
        let Some(name) =
            statement.name(index).or_else(|| (token.kind == Kind::String).then(|| raw.trim_matches('\'').to_owned()))
        else {
            continue;
        };
        let new = choices.role(&name);
        if new != name && raw != "PUBLIC" {
            changes.push((token.at.clone(), identifier(new)));
        }
    }
    changes.sort_by_key(|(at, _)| at.start);
    (!changes.is_empty()).then(|| Fate::Run(Cow::Owned(replaced(statement.text, &changes)), None))
}

/// The text with `changes` applied, which are in order and do not overlap.
pub fn replaced(text: &str, changes: &[(Range<usize>, String)]) -> String {
    let mut new = String::with_capacity(text.len() + 32);
    let mut at = 0;
    for (range, with) in changes {
        new += &text[at..range.start];
        new += with;
        at = range.end;
    }
    new + &text[at..]
}

#[cfg(test)]
#[path = "rewrite_tests.rs"]
mod tests;
