//! What a restore of tables out of a set would do: the statements that it runs, the rows that it reads, and why not.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use sqlx::postgres::PgConnection;

use super::beside::{self, Renamed};
use super::closure::{self, Closure, closure};
use super::definitions::{Definitions, Item, Settings};
use super::names::{self, Name};
use super::only_rows;
use super::others;
use super::planned::{Plan, name_what_it_needs, part, refused};
use super::rights;
use super::sequences;
use super::statements::Run;
use super::subject::{Class, Mention, Object, Role};
use super::target::{self, Existing, existing};
use super::types;
use super::uses::{self, uses};
use crate::base::shell;
use crate::base::toml_file::did_you_mean;
use crate::pg::{identifier, schemas};
use crate::task::backup::choices::Choices;
use crate::task::backup::facts::Extension;
use crate::task::backup::own_bytes;
use crate::task::backup::scan::TableData;
use crate::task::backup::set::Set;
use crate::task::backup::tokens::Statement;

/// The wish of a person.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    /// Names or patterns.
    pub tables: Vec<String>,
    pub schemas: Vec<String>,
    /// Only rows, into tables that are there.
    pub data_only: bool,
    /// The new name of the one table.
    pub beside: Option<Name>,
}

/// Reads what the target has, and decides. Writes nothing.
pub async fn plan(
    connection: &mut PgConnection,
    set: &Set,
    definitions: &Definitions,
    asked: &Asked,
    choices: &Choices,
) -> Result<Plan> {
    let items = &definitions.items;
    let wanted = wanted(set, items, asked)?;
    let mut plan = match asked {
        Asked { data_only: true, .. } => only_rows::plan(connection, set, definitions, &wanted).await?,
        Asked { beside: Some(to), .. } => one_beside(connection, set, definitions, (&wanted, to), choices).await?,
        _ => whole(connection, set, definitions, wanted, choices).await?,
    };
    let mut names = uses::schemas([&plan.before, &plan.after].into_iter(), choices);
    names.extend(plan.tables().into_keys().map(|table| table.schema));
    plan.schemas = schemas::living(connection, Some(&Vec::from_iter(names))).await?;
    Ok(plan)
}

/// The objects of the dump that are meant, with the partitions of tables.
fn wanted(set: &Set, items: &[Item], asked: &Asked) -> Result<BTreeSet<Object>> {
    let made = || items.iter().filter(|item| item.subject.role.makes_it() && !item.subject.of.schema.is_empty());
    let relations = || made().filter(|item| item.subject.class == Class::Relation).map(|item| &item.subject.of);
    let mut wanted = BTreeSet::new();
    for pattern in &asked.tables {
        let found: BTreeSet<&Name> = relations().filter(|name| names::is_meant(pattern, name)).collect();
        if found.is_empty() {
            let names: Vec<String> = relations().map(Name::to_string).collect();
            let hint = did_you_mean(pattern, names.iter().map(String::as_str));
            let hint = hint.unwrap_or_else(|| format!("`pgtend backups show {}` lists its tables", set.name));
            return refused(format!("the set has no table `{pattern}`; {hint}"));
        }
        names::refuse_ambiguous(pattern, found.iter().copied())?;
        for name in found {
            wanted.extend(closure::partitions(items, name).iter().map(Object::relation));
            wanted.insert(Object::relation(name));
        }
    }
    for pattern in &asked.schemas {
        let is_meant = |object: &Object| names::is_schema_meant(pattern, &object.name.schema);
        let found: Vec<Object> = made().map(|item| item.subject.object()).filter(is_meant).collect();
        if found.is_empty() {
            let schemas: BTreeSet<&str> = made().map(|item| item.subject.of.schema.as_str()).collect();
            let hint =
                did_you_mean(pattern, schemas).unwrap_or_else(|| "no object of the set is in a schema of that name".to_owned());
            return refused(format!("the set has no schema `{pattern}`; {hint}"));
        }
        wanted.extend(found);
    }
    Ok(wanted)
}

/// The tables with what they need.
async fn whole(
    connection: &mut PgConnection,
    set: &Set,
    definitions: &Definitions,
    mut wanted: BTreeSet<Object>,
    choices: &Choices,
) -> Result<Plan> {
    let items = &definitions.items;
    let asked = closure(items, &wanted, &Existing::default()).asked;
    let existing = existing(connection, &asked).await?;
    let living: Vec<String> =
        wanted.iter().filter(|object| object.class == Class::Relation && existing.has(object)).map(Object::to_string).collect();
    if let Some(first) = living.first() {
        let others = if living.len() > 1 { format!(" (and {} more of them)", living.len() - 1) } else { String::new() };
        return refused(format!(
            "{first} exists{others}, and nothing that lives is written over: --as OTHER_NAME restores it beside, --merge insert-missing puts back the \
             rows that it lacks, --merge replace also those that were changed; --data-only fills it if it is empty"
        ));
    }
    // Types and functions that are there stay as they are.
    let there: Vec<Object> = wanted.extract_if(.., |object| existing.has(object)).collect();
    if let (Some(first), true) = (there.first(), wanted.is_empty()) {
        return refused(format!(
            "nothing is to be restored: all {} that are meant exist ({first}), and nothing that lives is written over. A function counts as there where \
             one of its name is, whatever its arguments; --create restores all of the set into a database of its own",
            there.len(),
        ));
    }
    let closure = closure(items, &wanted, &existing);
    refuse_what_is_lacking(&closure)?;
    refuse_what_no_dump_has(items, &closure)?;
    refuse_names_that_are_taken(items, &closure, &existing)?;
    refuse_missing_extensions(connection, set, items, &closure, &existing, choices).await?;
    let chosen = || closure.items.iter().map(|number| &items[*number]);
    let (before, after): (Vec<&Item>, Vec<&Item>) = chosen().partition(|item| !item.is_after_rows);
    let is_filled = |table: &TableData| wanted.contains(&Object::relation(&Name::new(&table.schema, &table.name)));
    let tables: Vec<TableData> = set.manifest.tables.iter().filter(|table| is_filled(table)).cloned().collect();
    let names: BTreeSet<Name> = tables.iter().map(|table| Name::new(&table.schema, &table.name)).collect();
    types::refuse_others(connection, items, &names).await?;
    let is_beside = |item: &&Item| item.subject.role.makes_it() && item.subject.role != Role::Table;
    let mut plan = Plan {
        made: chosen().filter(is_beside).map(Item::in_words).collect(),
        kept: kept(&closure, &existing, items, &there),
        notes: closure.notes.clone(),
        uses: uses(&chosen().collect::<Vec<_>>(), &closure.made, &existing),
        schemas: Vec::new(),
        before: Vec::new(),
        shapes: Vec::new(),
        rows: vec![tables.clone()],
        after: Vec::new(),
        renamed: None,
        is_data_only: false,
        read_bytes: definitions.read_bytes,
        part: part(set, tables),
    };
    plan.notes.extend(uses::other_owners(items, &plan.uses, &existing, choices));
    let mut run = Run::default();
    plan.before = run.statements(before.iter().map(|item| (*item, item.statements.clone())), &definitions.head);
    plan.after = run.statements(after.iter().map(|item| (*item, item.statements.clone())), &Settings::new());
    let behind = chosen().flat_map(|item| &item.names).map(|mention| mention.name.clone()).collect();
    let forward = sequences::statements(&names, &sequences::values(items, &behind));
    let values = plan.after.iter().rposition(|(text, _)| text.starts_with(b"SELECT pg_catalog.setval("));
    let after_values = values.map_or(0, |last| last + 1);
    plan.after.splice(after_values..after_values, forward);
    rights::start_from_the_default(&mut plan.before, &mut plan.after, closure.made.iter());
    let others = others::of_part(connection, &definitions.others, &closure.made, choices).await?;
    plan.after.extend(others.statements);
    plan.notes.extend(others.notes);
    name_what_it_needs(&mut plan);
    Ok(plan)
}

/// A table as a copy under another name.
async fn one_beside(
    connection: &mut PgConnection,
    set: &Set,
    definitions: &Definitions,
    (wanted, to): (&BTreeSet<Object>, &Name),
    choices: &Choices,
) -> Result<Plan> {
    let items = &definitions.items;
    let definition = |name: &Name| items.iter().find(|item| item.subject.of == *name && item.subject.role == Role::Table);
    let says = |name: &Name, words: &[&str]| {
        definition(name).is_some_and(|item| item.texts().any(|text| Statement::of(&text).find(words).is_some()))
    };
    let tables: Vec<&Name> = wanted
        .iter()
        .filter(|object| object.class == Class::Relation)
        .map(|object| &object.name)
        .filter(|name| definition(name).is_some())
        .collect();
    if let Some(table) = tables.iter().find(|table| says(table, &["PARTITION", "BY"])) {
        return refused(format!("{table} is partitioned: --as takes one table that holds rows itself, such as one partition"));
    }
    let [from] = tables[..] else { return refused("--as takes exactly one table".to_owned()) };
    if says(from, &["INHERITS"]) {
        return refused(format!(
            "{from} inherits from another table, where the rows of a copy would appear: `pgtend backups fetch` writes its rows"
        ));
    }
    let only = BTreeSet::from([Object::relation(from)]);
    let mut asked = closure(items, &only, &Existing::default()).asked;
    asked.extend([to.clone(), Name::of_schema(&to.schema)]);
    let existing = existing(connection, &asked).await?;
    if existing.names.contains(to) {
        return refused(format!("{to} exists: choose another name for --as"));
    }
    if !existing.has(&Object::schema(&to.schema)) {
        return refused(format!("there is no {}: make it, or choose another name for --as", Name::of_schema(&to.schema)));
    }
    let closure = closure(items, &only, &existing);
    refuse_what_is_lacking(&closure)?;
    refuse_what_no_dump_has(items, &closure)?;
    types::refuse_others(connection, items, [from]).await?;
    let chosen: Vec<&Item> = closure.items.iter().map(|number| &items[*number]).filter(|item| beside::takes(item)).collect();
    let indexes = free_names(connection, &chosen, to).await?;
    let renamed = Renamed { from: from.clone(), to: to.clone(), indexes };
    let rows: Vec<TableData> =
        set.manifest.tables.iter().filter(|table| (&table.schema, &table.name) == (&from.schema, &from.name)).cloned().collect();
    let under_its_new_name = |table: &TableData| TableData { schema: to.schema.clone(), name: to.name.clone(), ..table.clone() };
    let mut run = Run::default();
    let statement = |item: &Item, text: String| if renamed.is_of(item) { renamed.statement(&text) } else { text };
    let statements =
        |item: &Item| beside::statements(item).map(|text| own_bytes::bytes(&statement(item, text))).collect::<Vec<_>>();
    let of_part = |is_after: bool| chosen.iter().filter(move |item| item.is_after_rows == is_after);
    let before = run.statements(of_part(false).map(|item| (*item, statements(item))), &definitions.head);
    let after = run.statements(of_part(true).map(|item| (*item, statements(item))), &Settings::new());
    let made = chosen.iter().filter(|item| item.subject.role == Role::Object).map(|item| item.in_words()).collect();
    let part = part(set, rows.iter().map(under_its_new_name).collect());
    let read_bytes = definitions.read_bytes;
    let rows = vec![rows];
    let (kept, uses, is_data_only) = (kept(&closure, &existing, items, &[]), uses(&chosen, &closure.made, &existing), false);
    let (notes, schemas, renamed) = (uses::other_owners(items, &uses, &existing, choices), Vec::new(), Some(renamed));
    let shapes = Vec::new();
    let mut plan =
        Plan { part, before, shapes, rows, after, renamed, made, kept, notes, uses, schemas, is_data_only, read_bytes };
    name_what_it_needs(&mut plan);
    let objects = chosen.iter().filter(|item| item.subject.role == Role::Object).map(|item| item.subject.object());
    let objects: Vec<Object> = objects.chain([Object::relation(to)]).collect();
    rights::start_from_the_default(&mut plan.before, &mut plan.after, objects.iter());
    Ok(plan)
}

async fn free_names(connection: &mut PgConnection, chosen: &[&Item], to: &Name) -> Result<BTreeMap<String, String>> {
    let candidates = beside::index_names(chosen, to);
    let asked = candidates.values().flatten().map(|name| Name::new(&to.schema, name)).collect();
    let mut taken = existing(connection, &asked).await?.names;
    taken.insert(to.clone());
    let mut free = BTreeMap::new();
    for (index, names) in candidates {
        let Some(name) = names.into_iter().find(|name| !taken.contains(&Name::new(&to.schema, name))) else {
            return refused(format!("no free name is found for a copy of the index {index} in schema {}", to.schema));
        };
        taken.insert(Name::new(&to.schema, &name));
        free.insert(index, name);
    }
    Ok(free)
}

fn refuse_what_is_lacking(closure: &Closure) -> Result<()> {
    let Some((missing, by)) = closure.lacking.first_key_value() else { return Ok(()) };
    let options: Vec<String> =
        closure.lacking.keys().take(20).map(|name| format!("--table {}", shell::word(&name.to_string()))).collect();
    refused(format!("{by} needs {missing}, which is not there: restore it, too ({})", options.join(" ")))
}

/// A dump from a store is input: what it says of one object must not change another that lives.
fn refuse_what_no_dump_has(items: &[Item], closure: &Closure) -> Result<()> {
    let foreign = closure.items.iter().map(|number| &items[*number]).find(|item| !item.is_sound);
    let Some(item) = foreign else { return Ok(()) };
    anyhow::bail!("the dump holds statements about other objects at {}, where pg_dump writes none: none was run", item.entry)
}

/// An index, a sequence or a statistics object of the part whose name another object has.
fn refuse_names_that_are_taken(items: &[Item], closure: &Closure, existing: &Existing) -> Result<()> {
    let made = closure.items.iter().filter_map(|number| items[*number].subject.makes.as_ref());
    match made.clone().find(|object| existing.has(object)) {
        Some(taken) => {
            refused(format!("{taken} exists, and the part makes an object of that name: rename the one that is there"))
        }
        None => Ok(()),
    }
}

/// A type or a function of an extension is made by no statement of the dump.
async fn refuse_missing_extensions(
    connection: &mut PgConnection,
    set: &Set,
    items: &[Item],
    closure: &Closure,
    existing: &Existing,
    choices: &Choices,
) -> Result<()> {
    let there = target::extensions(connection).await?;
    let missing = set.manifest.server.extensions.iter();
    let missing: Vec<_> =
        missing.filter(|extension| !there.contains(&extension.name) && !choices.leaves_out_extension(&extension.name)).collect();
    let makers = closure::makers(items);
    let names = closure.items.iter().flat_map(|number| &items[*number].names).map(|mention| &mention.name);
    for name in names.filter(|name| !makers.contains_key(name) && !existing.names.contains(*name)) {
        let of = |extension: &&&Extension| extension.schema.as_ref() == Some(&name.schema);
        if let Some(extension) = missing.iter().find(of) {
            return refused(format!(
                "the part uses {name}, which the extension {} of the source may have brought, and the target lacks it: CREATE EXTENSION {} WITH SCHEMA {}",
                extension.name,
                identifier(&extension.name),
                identifier(&name.schema)
            ));
        }
    }
    Ok(())
}

/// What the part needs, or was meant, and the target has, among objects of the dump.
fn kept(closure: &Closure, existing: &Existing, items: &[Item], meant: &[Object]) -> Vec<String> {
    let names: BTreeSet<&Mention> = closure.items.iter().flat_map(|number| &items[*number].names).collect();
    let is_needed =
        |object: &Object| Mention::of(&object.name).iter().any(|mention| mention.may_be(object.class) && names.contains(mention));
    let is_kept = |object: &Object| existing.has(object) && !closure.made.contains(object);
    let made = items.iter().filter(|item| item.subject.role.makes_it());
    let mut kept: Vec<String> = made
        .filter(|item| {
            let object = item.subject.object();
            is_kept(&object) && (meant.contains(&object) || is_needed(&object))
        })
        .map(Item::in_words)
        .collect();
    kept.dedup();
    kept
}
