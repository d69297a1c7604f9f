//! Puts rows of a set back into a living table: all are loaded into a temporary table first, those that are wanted stay there, and one transaction writes them.

use std::collections::BTreeSet;
use std::fmt;

use anyhow::{Context as _, Result};
use sqlx::postgres::PgConnection;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::living::{self, ASIDE, Key, Living};
use super::names::{self, Name};
use super::put::Rows;
use super::sequences;
use crate::base::fault::{Fault, Kind};
use crate::base::progress::Phase;
use crate::base::toml_file::did_you_mean;
use crate::base::units;
use crate::pg::table::{Checked, proof};
use crate::pg::{self, identifier};
use crate::store::Store;
use crate::task::backup::restore::QUEUED_BATCHES;
use crate::task::backup::rows_out::columns_of;
use crate::task::backup::scan::TableData;
use crate::task::backup::script::{Step, Steps};
use crate::task::backup::set::Set;
use crate::task::backup::tokens::Statement;
use crate::task::backup::{own_bytes, part};
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
    /// Rows of the table, or of its partitions.
    blocks: Vec<TableData>,
    checked: Vec<Checked>,
    /// Code of others that runs.
    pub warnings: Vec<String>,
    condition: Option<String>,
    mode: Mode,
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
        let which = condition.as_ref().map_or_else(|| "all of them".to_owned(), |condition| format!("those with {condition}"));
        writeln!(f, "{}  {rows} in the set; of {which}:", living.name)?;
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
}

/// Reads what the target has, and decides. Writes nothing.
pub async fn plan(settings: &pg::Settings, set: &Set, asked: &Asked) -> Result<Plan> {
    let (name, blocks) = blocks_of(set, &asked.table)?;
    let mut connection = connect(settings).await?;
    let living = living::read(&mut connection, &name).await?;
    let columns: Vec<String> = living.columns.iter().map(|column| column.name.clone()).collect();
    living.key(&mut connection, &columns).await?;
    let events = if asked.mode == Mode::Replace { INSERT | UPDATE } else { INSERT };
    let table = name.sql();
    let touched = [Touched::new(&table, events, &[], true)];
    let (warnings, checked) = foreign_code::check(settings, &touched, asked.trust_owners).await?;
    Ok(Plan { living, blocks, checked, warnings, condition: asked.condition.clone(), mode: asked.mode })
}

/// The session in which triggers and the condition find names as in the application. Rows that a policy hides are an error.
async fn connect(settings: &pg::Settings) -> Result<PgConnection> {
    let mut connection = settings.connect_for(pg::Purpose::Rows).await?;
    pg::fires_triggers(&mut connection).await?;
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
    let refused = |message: String| Err(Fault::new(Kind::Configuration, message).into());
    let name = match found[..] {
        [name] => name.clone(),
        [] => {
            let names: Vec<String> = names.iter().map(Name::to_string).collect();
            let hint = did_you_mean(wanted, names.iter().map(String::as_str));
            let hint = hint.unwrap_or_else(|| format!("`pgtend backups show {}` lists its tables", set.name));
            return refused(format!("the set has no rows of a table `{wanted}`; {hint}"));
        }
        _ => return refused(format!("`{wanted}` means several tables: --merge takes one at a time, those that others refer to first")),
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

/// Does what the plan says, or changes nothing. An error says so, or names what kept the rows out.
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
        let (read_bytes, columns) = load(store, set, plan, &mut connection, phase).await?;
        let chosen = choose(&mut connection, plan).await?;
        let key = plan.living.key(&mut connection, &columns).await?;
        refuse_equal_keys(&mut connection, &key).await?;
        let merged = Merged { table: plan.living.name.to_string(), rows: plan.rows(), chosen, read_bytes, ..Merged::default() };
        let merged = write(&mut connection, plan, &key, &columns, merged).await?;
        Ok((connection, merged))
    };
    let (mut connection, merged) = cancel.run_until_cancelled(merging).await.ok_or_else(cancelled)??;
    // The commit itself is not interrupted.
    pg::execute(&mut connection, "COMMIT".to_owned()).await.context("it is not known whether the rows were put back: look at the table")?;
    Ok(merged)
}

/// Loads all rows aside. Returns how many bytes of the object were read, and the columns that the rows have.
async fn load(store: &Store, set: &Set, plan: &Plan, connection: &mut PgConnection, phase: &Phase) -> Result<(u64, Vec<String>)> {
    make_aside(connection, &plan.living).await?;
    let (sender, steps) = mpsc::channel(QUEUED_BATCHES);
    let database = &set.manifest.server.database;
    let has_own_bytes = database.has_no_way_to_utf8();
    if has_own_bytes {
        pg::set(connection, "client_encoding", &database.encoding).await?;
    }
    let rows = Rows::new(&plan.blocks, None, sender);
    let reading = async {
        let (bytes, rows) = part::read(store, set, plan.blocks.iter().map(part::range), phase, rows, Rows::feed).await?;
        anyhow::ensure!(rows.is_at_an_end(), "the rows of the set end inside a row");
        anyhow::Ok(bytes)
    };
    let (read, copied) = tokio::join!(reading, copy(connection, &plan.living, Steps::of(steps)));
    let read_bytes = match (read, &copied) {
        // The server did not take them, and says why.
        (Err(_), Err(error)) if !error.chain().any(|cause| cause.is::<CutShort>()) => 0,
        (read, _) => read?,
    };
    let (rows, columns) = copied?;
    anyhow::ensure!(rows == plan.rows(), "the set holds {rows} rows of the table, and its manifest says {}", plan.rows());
    if has_own_bytes {
        pg::set(connection, "client_encoding", "UTF8").await?;
    }
    Ok((read_bytes, columns))
}

#[derive(Debug, thiserror::Error)]
#[error("the rows of the set end too early")]
struct CutShort;

/// A table with the columns of the living one, its generated ones computed as there, which nobody else sees.
async fn make_aside(connection: &mut PgConnection, living: &Living) -> Result<()> {
    pg::execute(connection, format!("CREATE TEMPORARY TABLE {ASIDE} (LIKE {} INCLUDING GENERATED)", living.name.sql())).await?;
    // A column that is newer than the set gets its values when the rows are put back.
    for column in living.columns.iter().filter(|column| column.is_not_null) {
        pg::execute(connection, format!("ALTER TABLE {ASIDE} ALTER COLUMN {} DROP NOT NULL", identifier(&column.name))).await?;
    }
    Ok(())
}

/// Takes the steps to their end. Returns the number of rows, and their columns.
async fn copy(connection: &mut PgConnection, living: &Living, mut steps: Steps) -> Result<(u64, Vec<String>)> {
    let (mut rows, mut columns) = (0, BTreeSet::new());
    while let Some(step) = steps.next().await {
        let Step::Copy { text, .. } = step else { return Err(CutShort.into()) };
        let of_block = columns_of(&own_bytes::text(text));
        refuse_missing_columns(living, &of_block)?;
        let list = of_block.iter().map(|column| identifier(column)).collect::<Vec<_>>().join(", ");
        let list = if list.is_empty() { list } else { format!("({list})") };
        columns.extend(of_block);
        let mut copy = pg::copy_in(connection, ASIDE, &list).await?;
        loop {
            match steps.next().await {
                Some(Step::Rows(bytes)) => copy.send(bytes).await.map(drop).map_err(pg::in_its_own_words)?,
                Some(Step::RowsEnd) => break,
                _ => {
                    let _ = copy.abort("the rows end here").await;
                    return Err(CutShort.into());
                }
            }
        }
        rows += copy.finish().await.map_err(pg::in_its_own_words)?;
    }
    Ok((rows, columns.into_iter().collect()))
}

fn refuse_missing_columns(living: &Living, of_set: &[String]) -> Result<()> {
    let refused = |message: String| Err(Fault::new(Kind::Configuration, message).into());
    for name in of_set {
        match living.columns.iter().find(|column| column.name == *name) {
            None => return refused(format!("{} has no column {name}, which the set has: restore beside with --as, and compare", living.name)),
            Some(column) if column.is_generated => {
                return refused(format!(
                    "{} generates its column {name}, of which the set has values: restore beside with --as, and compare",
                    living.name
                ));
            }
            Some(_) => {}
        }
    }
    Ok(())
}

/// Leaves only the rows that are wanted. The condition is the user's own SQL, and one expression.
async fn choose(connection: &mut PgConnection, plan: &Plan) -> Result<u64> {
    if let Some(condition) = &plan.condition {
        let alias = identifier(&plan.living.name.name);
        if !is_one_expression(condition) {
            let message = "--where is no condition of rows: its parentheses do not match";
            return Err(Fault::new(Kind::Configuration, message).into());
        }
        let sql = format!("DELETE FROM {ASIDE} AS {alias} WHERE (\n{condition}\n) IS NOT TRUE");
        let deleted = pg::execute_single(connection, sql).await.map_err(pg::in_its_own_words);
        deleted.context("--where is no condition of rows of the table")?;
    }
    pg::execute(connection, format!("ANALYZE {ASIDE}")).await?;
    count(connection, format!("SELECT pg_catalog.count(*)::pg_catalog.text FROM {ASIDE}")).await
}

/// Returns whether the parentheses around it hold all of it.
fn is_one_expression(condition: &str) -> bool {
    let statement = Statement::whole(condition);
    let mut open = 0_i64;
    for at in 0..statement.tokens.len() {
        open += i64::from(statement.is_symbol(at, b'(')) - i64::from(statement.is_symbol(at, b')'));
        if open < 0 {
            return false;
        }
    }
    open == 0 && !statement.is_cut
}

async fn count(connection: &mut PgConnection, sql: String) -> Result<u64> {
    pg::fetch_text(connection, sql).await?.and_then(|count| count.parse().ok()).context("the server returned no count of rows")
}

/// A key that came later may not tell rows of the set apart.
async fn refuse_equal_keys(connection: &mut PgConnection, key: &Key) -> Result<()> {
    let columns = key.columns().join(", ");
    let sql = format!("SELECT EXISTS (SELECT FROM {ASIDE} GROUP BY {columns} HAVING pg_catalog.count(*) OPERATOR(pg_catalog.>) 1)::pg_catalog.text");
    let has_equal = pg::fetch_text(connection, sql).await?.as_deref() == Some("true");
    anyhow::ensure!(!has_equal, "rows of the set have the same key ({columns}), which the living table has only since: restore beside with --as");
    Ok(())
}

impl Key {
    fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(column, _)| column == name)
    }

    fn columns(&self) -> Vec<String> {
        self.0.iter().map(|(column, _)| identifier(column)).collect()
    }

    /// SQL that is true of a row `living` and the row `aside` of the same key.
    fn is_same(&self) -> String {
        let compare = |(column, operator): &(String, pg::Operator)| {
            let column = identifier(column);
            operator.of(&format!("living.{column}"), &format!("aside.{column}"))
        };
        self.0.iter().map(compare).collect::<Vec<_>>().join(" AND ")
    }
}

/// Everything but the commit. An error rolls back with the end of the session, and changes nothing.
async fn write(connection: &mut PgConnection, plan: &Plan, key: &Key, columns: &[String], mut merged: Merged) -> Result<Merged> {
    let living = &plan.living;
    pg::commit_durably(connection).await?;
    pg::execute(connection, "BEGIN".to_owned()).await?;
    let written = async {
        hold(connection, plan).await?;
        (merged.replaced, merged.inserted) = write_rows(connection, plan, key, columns).await?;
        let missing = format!(
            "SELECT pg_catalog.count(*)::pg_catalog.text FROM {ASIDE} aside WHERE NOT EXISTS (SELECT FROM {} living WHERE {})",
            living.only(),
            key.is_same()
        );
        let missing = count(connection, missing).await?;
        anyhow::ensure!(missing == 0, "{} were not taken: a trigger of the table keeps them out", units::plural(missing, "row"));
        merged.notes = fixed_columns(plan, key, columns);
        merged.notes.extend(sequences::forward(connection, living).await?);
        Ok(merged)
    };
    let written: Result<Merged> = written.await;
    written.with_context(|| format!("{} cannot take the rows, and nothing was changed", living.name))
}

/// Locks the table, and compares it with the one that was looked at. Before PostgreSQL 16, the lock needs more than INSERT.
async fn hold(connection: &mut PgConnection, plan: &Plan) -> Result<()> {
    pg::set(connection, "lock_timeout", LOCK_TIMEOUT).await?;
    let may_lock: bool = sqlx::query_scalar("SELECT pg_catalog.has_table_privilege($1::bigint::pg_catalog.oid, 'UPDATE, DELETE, TRUNCATE')")
        .bind(plan.living.oid)
        .fetch_one(&mut *connection)
        .await?;
    if may_lock {
        pg::execute(connection, format!("LOCK TABLE ONLY {} IN ROW EXCLUSIVE MODE", plan.living.name.sql())).await?;
    }
    let own = Checked::named(plan.living.name.sql(), plan.living.oid).as_in(&plan.checked);
    pg::execute(connection, proof(plan.checked.iter().chain([&own]))).await
}

/// Writes all rows in one statement, so that rows may refer to one another whatever their order. Returns how many were replaced, and inserted.
async fn write_rows(connection: &mut PgConnection, plan: &Plan, key: &Key, columns: &[String]) -> Result<(u64, u64)> {
    let living = &plan.living;
    let list = columns.iter().map(|column| identifier(column)).collect::<Vec<_>>().join(", ");
    // Where a row gives a value away that another gets (UNIQUE), it does so before.
    let sql = format!(
        "WITH replaced AS ({}), count AS (SELECT pg_catalog.count(*) AS replaced FROM replaced),
              inserted AS (INSERT INTO {} ({list}) OVERRIDING SYSTEM VALUE
                           SELECT {} FROM {ASIDE} AS aside, count WHERE count.replaced OPERATOR(pg_catalog.>=) 0 ON CONFLICT ({}) DO NOTHING RETURNING 1)
         SELECT (SELECT replaced FROM count), (SELECT pg_catalog.count(*) FROM inserted)",
        replacing(plan, key, columns),
        living.name.sql(),
        columns.iter().map(|column| format!("aside.{}", identifier(column))).collect::<Vec<_>>().join(", "),
        key.columns().join(", ")
    );
    let counts: Vec<(i64, i64)> = pg::fetch_all_as(connection, sql).await?;
    let (replaced, inserted) = counts.first().copied().context("the server returned no count of rows")?;
    Ok((replaced as u64, inserted as u64))
}

/// SQL that gives rows whose key is there the values of the set. Rows that are equal, as text, are not touched.
fn replacing(plan: &Plan, key: &Key, columns: &[String]) -> String {
    let changed: Vec<&String> = columns.iter().filter(|name| !key.has(name) && !plan.living.is_fixed(name)).collect();
    if plan.mode == Mode::InsertMissing || changed.is_empty() {
        return "SELECT 1 LIMIT 0".to_owned();
    }
    let of = |table: &str| changed.iter().map(|name| format!("{table}.{}", identifier(name))).collect::<Vec<_>>().join(", ");
    let sets: Vec<String> = changed.iter().map(|name| format!("{0} = aside.{0}", identifier(name))).collect();
    format!(
        "UPDATE {} AS living SET {} FROM {ASIDE} AS aside WHERE {} AND ROW({})::pg_catalog.text IS DISTINCT FROM ROW({})::pg_catalog.text RETURNING 1",
        plan.living.only(),
        sets.join(", "),
        key.is_same(),
        of("living"),
        of("aside")
    )
}

/// The columns that keep their values in rows that are there.
fn fixed_columns(plan: &Plan, key: &Key, columns: &[String]) -> Vec<String> {
    let is_kept = |name: &&String| plan.mode == Mode::Replace && plan.living.is_fixed(name) && !key.has(name);
    let note = |name: &String| format!("{name} is GENERATED ALWAYS AS IDENTITY: rows that were there keep their values of it");
    columns.iter().filter(is_kept).map(note).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_stays_inside_its_parentheses() {
        for (condition, expected) in [("a = 1", true), ("(a) OR (b IN (1, ')'))", true), ("a) OR (b", false), ("(a", false), ("f($$)$$)", true)] {
            assert_eq!(is_one_expression(condition), expected, "{condition}");
        }
    }
}
