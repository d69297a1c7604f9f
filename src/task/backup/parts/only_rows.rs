//! What a restore of rows alone would do (`--data-only`): they go into tables that are there and empty.

use std::collections::BTreeSet;

use anyhow::Result;
use sqlx::postgres::PgConnection;

use super::closure;
use super::definitions::Definitions;
use super::names::Name;
use super::planned::{Plan, name_what_it_needs, part, refused};
use super::sequences;
use super::statements::Run;
use super::subject::{Class, Object};
use super::target::{self, existing};
use super::types;
use super::uses::Uses;
use crate::task::backup::scan::TableData;
use crate::task::backup::set::Set;

/// Reads what the target has, and decides. Writes nothing.
pub async fn plan(
    connection: &mut PgConnection,
    set: &Set,
    definitions: &Definitions,
    wanted: &BTreeSet<Object>,
) -> Result<Plan> {
    let items = &definitions.items;
    let is_filled = |table: &&TableData| wanted.contains(&Object::relation(&Name::new(&table.schema, &table.name)));
    let tables: Vec<TableData> = set.manifest.tables.iter().filter(is_filled).cloned().collect();
    let names: BTreeSet<Name> = tables.iter().map(|table| Name::new(&table.schema, &table.name)).collect();
    let without = without_rows(items, wanted, &names);
    if tables.iter().all(|table| table.rows == 0) {
        let which = if without.is_empty() { "the tables that are meant".to_owned() } else { without.join(", ") };
        return refused(format!(
            "nothing is to be restored: the set has no rows of {which}, and --data-only restores nothing but rows"
        ));
    }
    let existing = existing(connection, &names).await?;
    if let Some(missing) = names.iter().find(|name| !existing.has(&Object::relation(name))) {
        return refused(format!("{missing} does not exist here: leave out --data-only to restore it with its definition"));
    }
    let shapes = types::refuse_changed(connection, items, &names).await?;
    let mut behind = BTreeSet::new();
    for name in &names {
        behind.append(&mut sequences::names(connection, name).await?);
    }
    let after = sequences::statements(&names, &sequences::values(items, &behind));
    let names = closure::by_foreign_keys(items, &names);
    let of_table = |name: &Name| {
        let of = |table: &&TableData| (&table.schema, &table.name) == (&name.schema, &name.name);
        tables.iter().filter(of).cloned().collect::<Vec<_>>()
    };
    let rows = names.iter().map(of_table).collect();
    let mut plan = Plan {
        before: Run::default().statements([], &definitions.head),
        shapes,
        rows,
        after,
        renamed: None,
        made: Vec::new(),
        kept: Vec::new(),
        notes: without
            .into_iter()
            .map(|name| format!("{name} has no rows in the set, and --data-only leaves it as it is"))
            .collect(),
        uses: Uses::default(),
        schemas: Vec::new(),
        is_data_only: true,
        read_bytes: definitions.read_bytes,
        part: part(set, tables),
    };
    name_what_it_needs(&mut plan);
    Ok(plan)
}

/// Relations that are meant and are no tables with rows, nor partitioned ones whose rows are meant with them.
fn without_rows(items: &[super::definitions::Item], wanted: &BTreeSet<Object>, tables: &BTreeSet<Name>) -> Vec<String> {
    let relations = wanted.iter().filter(|object| object.class == Class::Relation).map(|object| &object.name);
    let has_rows = |name: &Name| tables.contains(name) || closure::partitions(items, name).iter().any(|one| tables.contains(one));
    relations.filter(|name| !has_rows(name)).map(Name::to_string).collect()
}

/// Refuses `--data-only` where a table has rows. A query of a table runs what is constant in its owner's expressions of indexes when it is planned, so
/// the code of the owners is looked at before.
pub async fn refuse_filled(connection: &mut PgConnection, plan: &Plan) -> Result<()> {
    match target::first_with_rows(connection, plan.tables().keys()).await? {
        None => Ok(()),
        Some(filled) => refused(format!("{filled} {FILLED}")),
    }
}

/// Why a table takes no rows alone, and what to do.
pub const FILLED: &str = "has rows, and --data-only fills tables that are empty: --merge insert-missing puts back the rows that it lacks, --as OTHER_NAME \
                          restores it beside";
