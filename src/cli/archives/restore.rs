//! `archives restore`: chooses the rows that go back and their table, and reports what became of each batch.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result};
use clap::Args;

use super::find::Found;
use crate::archive::filter::{Filter, Key, Range};
use crate::archive::{self, BatchName, Manifest, Put};
use crate::base::fault::{Fault, Kind};
use crate::base::terminal::say;
use crate::base::units;
use crate::cli::global::Global;
use crate::cli::output::print;
use crate::config::Config;
use crate::pg;
use crate::run::job::{self, Job};
use crate::task::foreign_code;

#[derive(Debug, Args)]
pub struct Wanted {
    /// Only this batch, named as `list` shows it
    #[arg(long, value_name = "NAME")]
    pub batch: Option<String>,
    /// The configured database to restore into [default: the one that the rows came from]
    #[arg(long, value_name = "NAME")]
    to: Option<String>,
    /// Only rows of this table, written as in SQL; when no batch is of it, the table that all batches go to
    #[arg(long, value_name = "TABLE")]
    table: Option<String>,
    /// The table to restore into, written as in SQL [default: the one that the rows came from]
    #[arg(long, value_name = "TABLE")]
    into: Option<String>,
    /// Only rows from this time range, as FROM..TO without TO itself; either end may be left out
    #[arg(long, value_name = "FROM..TO")]
    time: Option<String>,
    /// The column that --time refers to [default: the one by which the job archived]
    #[arg(long, value_name = "COLUMN", requires = "time")]
    time_column: Option<String>,
    /// Only rows with this value; when --key is given several times, all must match
    #[arg(long = "key", value_name = "COLUMN=VALUE[,VALUE]")]
    keys: Vec<String>,
    /// Also put back batches that are already back, by the record beside them
    #[arg(long)]
    again: bool,
    /// Print what would be put where; write nothing
    #[arg(long)]
    dry_run: bool,
}

impl Wanted {
    /// Returns the rows of this batch that are wanted.
    fn filter(&self, manifest: &Manifest) -> Result<Filter> {
        let usage = |message: String| Fault::new(Kind::Configuration, message);
        let time = match &self.time {
            None => None,
            Some(text) => {
                let (from, to) = text
                    .split_once("..")
                    .with_context(|| usage(format!("`--time {text}`: write FROM..TO, as 2026-01-01..2026-02-01")))?;
                let side = |side: &str| (!side.trim().is_empty()).then(|| side.trim().to_owned());
                let column = self.time_column.clone().or_else(|| manifest.time_column.clone()).with_context(|| {
                    usage("the batch does not record which column holds its time: name it with --time-column".to_owned())
                })?;
                let (from, to) = (side(from), side(to));
                if from.is_none() && to.is_none() {
                    return Err(usage("`--time ..` has no limits: name FROM, TO or both".to_owned()).into());
                }
                Some(Range { column, from, to })
            }
        };
        let key = |text: &String| {
            let (column, values) = text
                .split_once('=')
                .filter(|(column, values)| !column.is_empty() && !values.is_empty())
                .with_context(|| usage(format!("`--key {text}`: write COLUMN=VALUE")))?;
            anyhow::Ok(Key { column: column.to_owned(), values: values.split(',').map(str::to_owned).collect() })
        };
        let filter = Filter { time, keys: self.keys.iter().map(key).collect::<Result<_>>()? };
        filter.check()?;
        let columns = filter.time.iter().map(|time| &time.column).chain(filter.keys.iter().map(|key| &key.column));
        for column in columns {
            let has = manifest.columns.contains(column);
            anyhow::ensure!(has, usage(format!("{} has no column {column}", table_of(manifest))));
        }
        Ok(filter)
    }
}

fn table_of(manifest: &Manifest) -> String {
    pg::qualified(&manifest.schema, &manifest.table)
}

/// Says whether `text`, written as in SQL, names the batch's table.
fn is_of(manifest: &Manifest, text: &str) -> bool {
    let plain = |name: &str| {
        if name == name.to_lowercase() { vec![name.to_owned(), pg::identifier(name)] } else { vec![pg::identifier(name)] }
    };
    let tables = plain(&manifest.table);
    let schemas = plain(&manifest.schema);
    let with_schema = schemas.iter().flat_map(|schema| tables.iter().map(move |table| format!("{schema}.{table}")));
    let is_public = manifest.schema == "public";
    with_schema.chain(tables.iter().filter(|_| is_public).cloned()).any(|name| name == text)
}

/// A batch, with the table and the database that its rows go to.
struct Step<'a> {
    found: &'a Found,
    name: &'a BatchName,
    manifest: &'a Manifest,
    database: &'a str,
    table: String,
    filter: Filter,
}

#[derive(Default)]
struct Totals {
    rows: u64,
    batches: usize,
    there: usize,
    /// Each refused batch comes with its reason.
    refused: Vec<String>,
    /// The warnings about code that the rows fire, each once.
    warned: BTreeSet<String>,
}

/// The jobs, for their `trust_owners = false`.
struct Trusts(Vec<Job>);

impl Trusts {
    /// Unreadable jobs are no reason to withhold rows in an emergency.
    fn read(global: &Global, config: &Config) -> Self {
        let jobs = match job::load_dir(&global.jobs_dir(), config) {
            Ok(folder) if folder.broken.is_empty() => folder.jobs,
            read => {
                tracing::warn!(
                    "not all jobs can be read (`pgtend check` says why), so a `trust_owners = false` in one of them is unknown"
                );
                read.map(|folder| folder.jobs).unwrap_or_default()
            }
        };
        Self(jobs)
    }

    fn owners_of(&self, job: &str) -> bool {
        self.0.iter().filter(|known| known.name == job).all(|known| known.limits.trust_owners)
    }
}

pub async fn run(global: &Global, config: &Config, found: &[Found], wanted: &Wanted, unsigned_ok: bool) -> Result<()> {
    let of_the_table = |found: &&Found| wanted.table.as_ref().is_some_and(|table| is_of(&found.batch.1, table));
    let is_a_choice = found.iter().any(|found| of_the_table(&found));
    let target = wanted.into.clone().or_else(|| wanted.table.clone().filter(|_| !is_a_choice));
    let chosen = found.iter().filter(|found| !is_a_choice || of_the_table(found));
    let steps: Vec<Step<'_>> = chosen
        .map(|found| {
            let (name, manifest) = &found.batch;
            let table = target.clone().unwrap_or_else(|| table_of(manifest));
            let database = wanted.to.as_deref().unwrap_or(&manifest.database);
            Ok(Step { found, name, manifest, database, table, filter: wanted.filter(manifest)? })
        })
        .collect::<Result<_>>()?;
    if wanted.dry_run {
        for Step { name, manifest, table, database, filter, .. } in &steps {
            let which = if filter.is_all() { String::new() } else { format!("those with {filter} of the ") };
            let rows = units::plural(manifest.exported.rows as usize, "row");
            print(&format!("would put {which}{rows} of {name} into {table} on {database}\n"))?;
        }
        return Ok(());
    }
    let mut totals = Totals::default();
    let trusts = Trusts::read(global, config);
    let mut rest = Vec::new();
    for step in &steps {
        if put(global, config, &trusts, step, wanted, (unsigned_ok, false), &mut totals).await? {
            rest.push(step);
        }
    }
    for step in rest {
        put(global, config, &trusts, step, wanted, (unsigned_ok, true), &mut totals).await?;
    }
    let there = match totals.there {
        0 => String::new(),
        there => format!("; {} already back", units::plural(there, "batch")),
    };
    print(&format!(
        "{} put back from {}{there}\n",
        units::plural(totals.rows as usize, "row"),
        units::plural(totals.batches, "archive object")
    ))?;
    if target.is_none() && totals.rows > 0 {
        say(
            "these rows are still past the limit: the job that archived them archives them again at its next run, unless you change it",
        );
    }
    let refused = &totals.refused;
    anyhow::ensure!(refused.is_empty(), "{} not put back: {}", units::plural(refused.len(), "batch"), refused.join("; "));
    Ok(())
}

/// Returns true when the batch must wait until the others are back.
async fn put(
    global: &Global,
    config: &Config,
    trusts: &Trusts,
    step: &Step<'_>,
    wanted: &Wanted,
    (unsigned_ok, rest): (bool, bool),
    totals: &mut Totals,
) -> Result<bool> {
    let Step { found, name, manifest, database, table, filter } = step;
    let configured = config.databases.get(*database).with_context(|| {
        Fault::new(Kind::Configuration, format!("the configuration has no database `{database}`; name one with --to"))
    })?;
    let settings = configured.owner_settings()?;
    // The table's triggers, defaults and checks run in this session.
    let connecting = settings.connect_for(pg::Purpose::Application);
    let mut connection = connecting.await.with_context(|| format!("database `{database}`"))?;
    // With a wrong clock, the job might archive the rows again at once.
    pg::clock::agreed(&mut connection).await.with_context(|| format!("database `{database}`"))?;
    let table = &archive::target(&mut connection, table).await.with_context(|| name.to_string())?;
    let foreign = foreign_code::warnings_of_inserts(&settings, table, trusts.owners_of(&manifest.job)).await;
    for warning in foreign.with_context(|| name.to_string())? {
        if totals.warned.insert(warning.clone()) {
            tracing::warn!("{warning}");
        }
    }
    let phase = global.progress().phase("restore", Some(manifest.exported.bytes));
    let wanted = archive::Wanted { database, table, filter, again: wanted.again, rest, unsigned_ok };
    match archive::restore(&found.store, &found.batch, &mut connection, &wanted, &phase).await {
        Ok(Put::Back(rows)) => {
            phase.done(&format!("{} into {table}", units::plural(rows as usize, "row")));
            totals.rows += rows;
            totals.batches += 1;
        }
        Ok(Put::IsThere { since, rows }) => {
            let since = since.format("%Y-%m-%d %H:%M UTC");
            phase.done(&format!(
                "{name} has been back in {table} since {since}: {}; --again puts it back once more",
                units::plural(rows as usize, "row")
            ));
            say(&format!("{name} has been back in {table} since {since}; --again puts it back once more"));
            totals.there += 1;
        }
        Ok(Put::Later) => return Ok(true),
        // unique_violation: some of its rows came back by other means. The other batches can still be restored.
        Err(error) if pg::sql_state(&error).as_deref() == Some("23505") => {
            totals.refused.push(format!("{name}, none of whose rows were written: {error:#}"));
        }
        Err(error) => {
            let before = units::plural(totals.rows as usize, "row");
            return Err(error.context(format!("{name}: nothing of this batch was written; {before} of earlier batches are back")));
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::Source;

    #[test]
    fn a_table_is_known_by_each_of_its_names() {
        let source = |schema: &str, table: &str| Source {
            schema: schema.to_owned(),
            table: table.to_owned(),
            columns: Vec::new(),
            query: String::new(),
        };
        let manifest = |schema, table| Manifest::new("job", "app", &source(schema, table), "");
        for (schema, table, text, expected) in [
            ("public", "logs", "public.logs", true),
            ("public", "logs", "logs", true),
            ("public", "logs", "\"public\".\"logs\"", true),
            ("other", "logs", "logs", false),
            ("public", "Logs", "public.Logs", false),
            ("public", "Logs", "public.\"Logs\"", true),
            ("public", "logs", "public.back", false),
        ] {
            assert_eq!(is_of(&manifest(schema, table), text), expected, "{schema} {table} {text}");
        }
    }
}
