//! Puts rows of a set back into a living table: all are loaded into a temporary table first, those that are wanted stay there, and one transaction writes them.

use std::collections::BTreeSet;
use std::fmt;

use anyhow::{Context as _, Result};
use sqlx::postgres::PgConnection;
use tokio_util::sync::CancellationToken;

use super::aside;
use super::commit::{self, NotKnown};
use super::definitions::Definitions;
use super::fates::{self, Fates, Rows};
use super::living::{self, ASIDE, Key, Living};
use super::names::{self, Name};
use super::quiet;
use super::sequences;
use super::types::{self, Shape};
use crate::base::fault::{Fault, Kind};
use crate::base::progress::Phase;
use crate::base::toml_file::did_you_mean;
use crate::base::units;
use crate::live::session;
use crate::pg::table::{Checked, proof};
use crate::pg::{self, identifier};
use crate::store::Store;
use crate::task::backup::scan::TableData;
use crate::task::backup::set::Set;
use crate::task::foreign_code;
use crate::work::touched::{INSERT, Touched, UPDATE};

/// How long the transaction waits for a lock on the living table.
const LOCK_TIMEOUT: &str = "10s";

/// What becomes of rows whose key the living table has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Mode {
    /// Put back the rows that the table lacks; leave the others as they are
    InsertMissing,
    /// The same, and give rows that were changed since the values that they have in the set
    Replace,
}

/// The wish of a person.
#[derive(Clone, Debug)]
pub struct Asked {
    pub table: String,
    /// SQL, of their own.
    pub condition: Option<String>,
    pub mode: Mode,
    /// Whether the job of the set trusts the owners of tables.
    pub trust_owners: bool,
}

/// What will be done.
#[derive(Debug)]
pub struct Plan {
    living: Living,
    /// The table as its columns are.
    shapes: Vec<Shape>,
    /// Rows of the table, or of its partitions.
    blocks: Vec<TableData>,
    checked: Vec<Checked>,
    /// Code of others that runs.
    pub warnings: Vec<String>,
    condition: Option<String>,
    mode: Mode,
    values: sequences::Values,
    /// Of the object, for the definitions.
    read_bytes: u64,
}

/// What was done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Merged {
    pub table: String,
    /// Rows of the set, as the manifest has them.
    pub rows: u64,
    /// Those of them that meet the condition.
    pub chosen: u64,
    pub inserted: u64,
    pub replaced: u64,
    pub notes: Vec<String>,
    pub read_bytes: u64,
}

impl Merged {
    /// Rows that are as they were.
    pub fn left(&self) -> u64 {
        self.chosen.saturating_sub(self.inserted + self.replaced)
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let Self { living, condition, mode, .. } = self;
        let rows = units::plural(self.rows(), "row");
        let which =
            condition.as_ref().map_or_else(|| ", all of them:".to_owned(), |condition| format!("; of those with {condition}:"));
        writeln!(f, "{}  {rows} in the set{which}", living.name)?;
        writeln!(f, "  rows whose key the table lacks are inserted")?;
        match mode {
            Mode::InsertMissing => writeln!(f, "  rows whose key it has stay as they are")?,
            Mode::Replace => writeln!(f, "  rows whose key it has get the values of the set, where these differ")?,
        }
        let fires = |trigger: &&living::Trigger| trigger.on_insert || *mode == Mode::Replace && trigger.on_update;
        let triggers: Vec<&str> = living.triggers.iter().filter(fires).map(|trigger| trigger.name.as_str()).collect();
        match triggers.is_empty() {
            true => writeln!(f, "no trigger fires"),
            false => writeln!(f, "triggers that fire: {}", triggers.join(", ")),
        }
    }
}

impl Plan {
    fn rows(&self) -> u64 {
        self.blocks.iter().map(|block| block.rows).sum()
    }

    fn compared<'a>(&'a self, key: &'a Key, columns: &'a [String]) -> Rows<'a> {
        Rows { living: &self.living, key, columns, replaces: self.mode == Mode::Replace }
    }
}

/// Reads what the target has, and decides. Writes nothing.
pub async fn plan(settings: &pg::Settings, set: &Set, definitions: &Definitions, asked: &Asked) -> Result<Plan> {
    let (name, blocks) = blocks_of(set, &asked.table)?;
    let mut connection = connect(settings).await?;
    let living = living::read(&mut connection, &name).await?;
    let columns: Vec<String> = living.columns.iter().map(|column| column.name.clone()).collect();
    living.key(&mut connection, &columns).await?;
    let mut looking = settings.connect().await?;
    let shapes = types::refuse_changed(&mut looking, &definitions.items, [&name]).await?;
    let values = sequences::values(&definitions.items, &sequences::names(&mut looking, &name).await?);
    let events = if asked.mode == Mode::Replace { INSERT | UPDATE } else { INSERT };
    let table = name.sql();
    let touched = [Touched { finds_names: true, ..Touched::new(&table, events, &[], true) }];
    let (warnings, checked) = foreign_code::check(settings, &touched, asked.trust_owners).await?;
    let (condition, mode, read_bytes) = (asked.condition.clone(), asked.mode, definitions.read_bytes);
    Ok(Plan { living, shapes, blocks, checked, warnings, condition, mode, values, read_bytes })
}

/// The session in which triggers and the condition find names as in the application. Rows that a policy hides are an error.
async fn connect(settings: &pg::Settings) -> Result<PgConnection> {
    let mut connection = settings.connect_for(pg::Purpose::Rows).await?;
    pg::check_triggers_fire(&mut connection).await?;
    pg::set(&mut connection, "row_security", "off").await?;
    Ok(connection)
}

/// The one table that is meant, and the entries of its rows and of those of its partitions.
fn blocks_of(set: &Set, wanted: &str) -> Result<(Name, Vec<TableData>)> {
    let manifest = &set.manifest;
    let of_tables = manifest.tables.iter().map(|table| Name::new(&table.schema, &table.name));
    let roots = manifest.server.partitions.iter().map(|partition| Name::new(&partition.root_schema, &partition.root_name));
    let names: BTreeSet<Name> = of_tables.chain(roots).collect();
    let found: Vec<&Name> = names.iter().filter(|name| names::is_meant(wanted, name)).collect();
    names::refuse_ambiguous(wanted, found.iter().copied())?;
    let refused = |message: String| Err(Fault::new(Kind::Configuration, message).into());
    let name = match found[..] {
        [name] => name.clone(),
        [] => {
            let names: Vec<String> = names.iter().map(Name::to_string).collect();
            let hint = did_you_mean(wanted, names.iter().map(String::as_str));
            let hint = hint.unwrap_or_else(|| format!("`pgtend backups show {}` lists its tables", set.name));
            return refused(format!("the set has no rows of a table `{wanted}`; {hint}"));
        }
        _ => {
            return refused(format!(
                "`{wanted}` means several tables: --merge takes one at a time, those that others refer to first"
            ));
        }
    };
    let is_partition = |table: &TableData| {
        manifest.server.partitions.iter().any(|partition| {
            (&partition.schema, &partition.name) == (&table.schema, &table.name)
                && (&partition.root_schema, &partition.root_name) == (&name.schema, &name.name)
        })
    };
    let is_own = |table: &TableData| (&table.schema, &table.name) == (&name.schema, &name.name);
    let blocks = manifest.tables.iter().filter(|table| is_own(table) || is_partition(table)).cloned().collect();
    Ok((name, blocks))
}

/// Does what the plan says, or changes nothing. An error says so, or names what kept the rows out. With [`NotKnown`], it may have been done.
pub async fn merge(
    store: &Store,
    set: &Set,
    plan: &Plan,
    settings: &pg::Settings,
    phase: &Phase,
    cancel: &CancellationToken,
) -> Result<Merged> {
    let cancelled = || Fault::new(Kind::Cancelled, "cancelled by a signal: nothing was changed");
    let merging = async {
        let mut connection = connect(settings).await?;
        session::exclude_jobs_of(settings, &mut connection, &[plan.living.oid]).await?;
        let (merged, key, columns) = load(&mut connection, (store, set), plan, phase).await?;
        let merged = write(&mut connection, plan, &key, &columns, merged).await?;
        anyhow::Ok((connection, merged))
    };
    let (mut connection, merged) = cancel.run_until_cancelled(merging).await.ok_or_else(cancelled)??;
    // The commit itself is not interrupted.
    pg::execute(&mut connection, "COMMIT".to_owned()).await.map_err(|error| not_committed(error, &plan.living))?;
    Ok(merged)
}

fn not_committed(error: anyhow::Error, living: &Living) -> anyhow::Error {
    match commit::is_refused(pg::sql_state(&error).as_deref()) {
        true => error.context("the server refused the commit, and nothing was changed"),
        false => error.context(NotKnown(format!("the rows were put back into {}", living.name), "the table".to_owned())),
    }
}

/// Says what a merge would do, and writes nothing but temporary tables of its own: no trigger fires, and nothing is locked against writers.
pub async fn look(store: &Store, set: &Set, plan: &Plan, settings: &pg::Settings, phase: &Phase) -> Result<Merged> {
    let mut connection = connect(settings).await?;
    let loud = quiet::event_triggers_that_fire(&mut connection).await?;
    let (mut merged, key, columns) = load(&mut connection, (store, set), plan, phase).await?;
    let rows = plan.compared(&key, &columns);
    let fates = fates::decide(&mut connection, &rows).await?;
    (merged.inserted, merged.replaced) = (fates.missing, fates.changed);
    merged.notes = notes(plan, &rows, fates);
    merged.notes.extend(loud);
    Ok(merged)
}

/// Loads the chosen rows aside. Returns their counts, and the columns of their key and of them all.
async fn load(
    connection: &mut PgConnection,
    (store, set): (&Store, &Set),
    plan: &Plan,
    phase: &Phase,
) -> Result<(Merged, Key, Vec<String>)> {
    let (read_bytes, columns) = aside::load(store, set, (&plan.living, &plan.blocks[..]), connection, phase).await?;
    let chosen = aside::choose(connection, &plan.living, plan.condition.as_deref()).await?;
    let key = plan.living.key(connection, &columns).await?;
    refuse_equal_keys(connection, &key).await?;
    let read_bytes = plan.read_bytes + read_bytes;
    let merged = Merged { table: plan.living.name.to_string(), rows: plan.rows(), chosen, read_bytes, ..Merged::default() };
    Ok((merged, key, columns))
}

/// A key that came later may not tell rows of the set apart.
async fn refuse_equal_keys(connection: &mut PgConnection, key: &Key) -> Result<()> {
    let sql = format!(
        "SELECT EXISTS (SELECT FROM {ASIDE} AS living JOIN {ASIDE} AS aside ON {} WHERE living.ctid OPERATOR(pg_catalog.<>) aside.ctid)::pg_catalog.text",
        key.is_same()
    );
    let has_equal = pg::fetch_text(connection, sql).await?.as_deref() == Some("true");
    anyhow::ensure!(
        !has_equal,
        "rows of the set have the same key ({}), which the living table has only since: restore beside with --as",
        key.columns().join(", ")
    );
    Ok(())
}

/// Everything but the commit. An error rolls back with the end of the session, and changes nothing.
async fn write(connection: &mut PgConnection, plan: &Plan, key: &Key, columns: &[String], mut merged: Merged) -> Result<Merged> {
    let living = &plan.living;
    pg::commit_durably(connection).await?;
    pg::execute(connection, "BEGIN".to_owned()).await?;
    let written = async {
        hold(connection, plan).await?;
        let rows = plan.compared(key, columns);
        let fates = fates::decide(connection, &rows).await?;
        (merged.replaced, merged.inserted) = write_rows(connection, &rows).await?;
        // What acts at the commit acts now, before the rows are looked at.
        pg::execute(connection, "SET CONSTRAINTS ALL IMMEDIATE".to_owned()).await?;
        merged.notes = fates::prove(connection, &rows).await?;
        merged.notes.extend(notes(plan, &rows, fates));
        merged.notes.extend(of_others(plan, fates, &merged)?);
        merged.notes.extend(sequences::forward(connection, living, columns, &plan.values).await?);
        Ok(merged)
    };
    let written: Result<Merged> = written.await;
    written.with_context(|| format!("{} cannot take the rows, and nothing was changed", living.name))
}

/// Rows of these keys that came while the others were written: they are not replaced.
fn of_others(plan: &Plan, fates: Fates, merged: &Merged) -> Result<Option<String>> {
    let others = (fates.missing + fates.changed).saturating_sub(merged.inserted + merged.replaced);
    let count = units::plural(others, "row");
    anyhow::ensure!(
        others == 0 || plan.mode == Mode::InsertMissing,
        "another session or a trigger wrote {count} meanwhile: run the merge again"
    );
    Ok((others > 0).then(|| format!("another session or a trigger inserted {count} meanwhile, which stay as they are")))
}

/// Locks the table, and compares it with the one that was looked at. Before PostgreSQL 16, the lock needs more than INSERT.
async fn hold(connection: &mut PgConnection, plan: &Plan) -> Result<()> {
    pg::set(connection, "lock_timeout", LOCK_TIMEOUT).await?;
    let may_lock: bool =
        sqlx::query_scalar("SELECT pg_catalog.has_table_privilege($1::bigint::pg_catalog.oid, 'UPDATE, DELETE, TRUNCATE')")
            .bind(plan.living.oid)
            .fetch_one(&mut *connection)
            .await?;
    if may_lock {
        pg::execute(connection, format!("LOCK TABLE ONLY {} IN ROW EXCLUSIVE MODE", plan.living.name.sql())).await?;
    }
    let own = Checked::named(plan.living.name.sql(), plan.living.oid).as_in(&plan.checked);
    pg::execute(connection, proof(plan.checked.iter().chain([&own]))).await?;
    for shape in &plan.shapes {
        pg::execute(connection, shape.proof()).await?;
    }
    Ok(())
}

/// Writes all rows in one statement, so that rows may refer to one another whatever their order. Returns how many were replaced, and inserted.
/// Triggers see those rows alone that are written; ON CONFLICT is for rows that others insert meanwhile.
async fn write_rows(connection: &mut PgConnection, rows: &Rows<'_>) -> Result<(u64, u64)> {
    let list =
        |table: &str| rows.columns.iter().map(|column| format!("{table}{}", identifier(column))).collect::<Vec<_>>().join(", ");
    // Where a row gives a value away that another gets (UNIQUE), it does so before.
    let sql = format!(
        "WITH replaced AS ({}), count AS (SELECT pg_catalog.count(*) AS replaced FROM replaced),
              inserted AS (INSERT INTO {} ({}) OVERRIDING SYSTEM VALUE
                           SELECT {} FROM {}, count WHERE count.replaced OPERATOR(pg_catalog.>=) 0 AND fate.before IS NULL
                           {} RETURNING 1)
         SELECT (SELECT replaced FROM count), (SELECT pg_catalog.count(*) FROM inserted)",
        replacing(rows),
        rows.living.name.sql(),
        list(""),
        list("aside."),
        fates::joined(),
        on_conflict(connection, rows).await?
    );
    let counts: Vec<(i64, i64)> = pg::fetch_all_as(connection, sql).await?;
    let (replaced, inserted) = counts.first().copied().context("the server returned no count of rows")?;
    Ok((replaced as u64, inserted as u64))
}

/// PostgreSQL takes no ON CONFLICT where a deferrable index has the same columns. A row that another session inserts meanwhile is an error there.
async fn on_conflict(connection: &mut PgConnection, rows: &Rows<'_>) -> Result<String> {
    let names: Vec<&str> = rows.key.0.iter().map(|(column, _)| column.as_str()).collect();
    let is_deferrable: bool = sqlx::query_scalar(
        "SELECT EXISTS (SELECT FROM pg_catalog.pg_index i WHERE i.indrelid OPERATOR(pg_catalog.=) $1::bigint::pg_catalog.oid AND i.indisunique AND NOT i.indimmediate
             AND NOT EXISTS (SELECT FROM pg_catalog.pg_attribute a
                             WHERE a.attrelid OPERATOR(pg_catalog.=) i.indrelid AND a.attnum OPERATOR(pg_catalog.=) ANY (i.indkey::pg_catalog.int2[])
                               AND a.attname::pg_catalog.text OPERATOR(pg_catalog.<>) ALL ($2::pg_catalog.text[])))",
    )
    .bind(rows.living.oid)
    .bind(names)
    .fetch_one(connection)
    .await?;
    Ok(if is_deferrable { String::new() } else { format!("ON CONFLICT ({}) DO NOTHING", rows.key.columns().join(", ")) })
}

/// SQL that gives rows whose key is there the values of the set. Rows that are equal, as text, are not touched.
fn replacing(rows: &Rows) -> String {
    let replaceable = rows.replaceable();
    if replaceable.is_empty() {
        return "SELECT 1 LIMIT 0".to_owned();
    }
    let sets: Vec<String> = replaceable.iter().map(|name| format!("{0} = aside.{0}", identifier(name))).collect();
    format!(
        "UPDATE {} AS living SET {} FROM {} WHERE {} AND fate.before IS NOT NULL AND {} RETURNING 1",
        rows.living.only(),
        sets.join(", "),
        fates::joined(),
        rows.key.is_same(),
        Rows::differ(&replaceable)
    )
}

/// What a person should know of the rows.
fn notes(plan: &Plan, rows: &Rows, fates: Fates) -> Vec<String> {
    let is_kept = |name: &&String| plan.mode == Mode::Replace && plan.living.is_fixed(name) && !rows.key.has(name);
    let note = |name: &String| format!("{name} is GENERATED ALWAYS AS IDENTITY: rows that were there keep their values of it");
    let of_children = (fates.inherited > 0).then(|| {
        format!(
            "the keys of {} that {} lacks are in tables that inherit from it: a query of {} finds them twice then",
            units::plural(fates.inherited, "row"),
            plan.living.name,
            plan.living.name
        )
    });
    rows.columns.iter().filter(is_kept).map(note).chain(of_children).collect()
}
