//! `archives restore`: chooses the rows that go back and their table, and reports what became of each batch.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use anyhow::{Context as _, Result};
use clap::Args;
use sqlx::PgConnection;
use tokio_util::sync::CancellationToken;

use super::find::Found;
use super::refused;
use crate::archive::filter::{Filter, Key, Range};
use crate::archive::{self, BatchName, Intent, Manifest, Put};
use crate::base::fault::{Fault, Kind};
use crate::base::progress::Progress;
use crate::base::terminal::say;
use crate::base::units;
use crate::cli::global::Global;
use crate::cli::output::print;
use crate::cli::signals::or_cancelled;
use crate::cli::trusts::Trusts;
use crate::config::{self, Config};
use crate::ledger::Ledger;
use crate::ledger::report::Report;
use crate::live::session;
use crate::pg;
use crate::pg::table::Checked;
use crate::run::runner::claim::{self, Claim, Subject};
use crate::task::foreign_code;

#[derive(Debug, Args)]
pub struct Wanted {
    /// Only this batch, named as `list` shows it
    #[arg(long, value_name = "NAME")]
    pub batch: Option<String>,
    /// The configured database to restore into [default: the one that the rows came from]
    #[arg(long, value_name = "NAME")]
    to: Option<String>,
    /// Only rows of this table, written as in SQL
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
    /// Only rows of this database, as `list --json` and messages name it: SYSTEM_IDENTIFIER/DATABASE, or the first part alone
    #[arg(long, value_name = "IDENTITY")]
    pub from: Option<String>,
    /// Also when a folder has rows of several databases or servers
    #[arg(long, conflicts_with = "from")]
    pub any: bool,
    /// Also put back batches that are already back, according to the record beside them
    #[arg(long)]
    again: bool,
    /// Print what would be restored where; write nothing
    #[arg(long)]
    dry_run: bool,
}

impl Wanted {
    pub fn is_dry_run(&self) -> bool {
        self.dry_run
    }

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

/// Returns the batches that hold rows of the table with `--table`. Without any, `--into` may be what is meant: rows of another table never go there
/// by themselves.
fn chosen<'a>(found: &'a [Found], wanted: &Wanted) -> Result<Vec<&'a Found>> {
    let Some(table) = &wanted.table else { return Ok(found.iter().collect()) };
    let chosen: Vec<&Found> = found.iter().filter(|found| is_of(&found.batch.1, table)).collect();
    if chosen.is_empty() {
        let tables: BTreeSet<String> = found.iter().map(|found| table_of(&found.batch.1)).collect();
        let message = format!(
            "no batch holds rows of {table}, but of {}: --into {table} puts rows of other tables there",
            tables.into_iter().collect::<Vec<_>>().join(", ")
        );
        return Err(Fault::new(Kind::Configuration, message).into());
    }
    Ok(chosen)
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
    /// The rows that were put back, by database and job.
    rows: BTreeMap<(String, String), u64>,
    batches: usize,
    there: usize,
    /// Batches whose rows never left, as the server was set back.
    never_left: usize,
    /// Each refused batch comes with its reason.
    refused: Vec<String>,
    /// The warnings about code that the rows fire, each once.
    warned: BTreeSet<String>,
}

impl Totals {
    fn rows(&self) -> u64 {
        self.rows.values().sum()
    }

    /// Returns what is back when the restore ends early.
    fn so_far(&self) -> String {
        match self.batches {
            0 => "nothing was put back".to_owned(),
            batches => format!(
                "put back so far: {} from {}; run it again for the rest",
                units::plural(self.rows() as usize, "row"),
                units::plural(batches, "batch")
            ),
        }
    }

    /// Returns an error that names the batches which did not go back; `None` when all did.
    fn refusal(&self) -> Option<anyhow::Error> {
        let refused = &self.refused;
        let error = || anyhow::anyhow!("{} not put back: {}", units::plural(refused.len(), "batch"), refused.join("; "));
        (!refused.is_empty()).then(error)
    }
}

/// What became of a batch.
enum Ended {
    Done,
    /// It waits until the batches after it are back.
    Later,
    /// A foreign key of its rows misses rows, which another batch may have.
    Lacks(anyhow::Error),
}

/// The context that all batches of a restore share.
struct Restore<'a> {
    config: &'a Config,
    wanted: &'a Wanted,
    unsigned_ok: bool,
    trusts: Trusts,
    progress: Progress,
}

/// A batch's table in a session that may write to it.
struct Target {
    connection: PgConnection,
    table: String,
    /// The table as it was when it was searched for foreign code.
    checked: Vec<Checked>,
}

pub async fn run(
    global: &Global,
    config: &Config,
    found: &[Found],
    wanted: &Wanted,
    unsigned_ok: bool,
    cancel: &CancellationToken,
) -> Result<()> {
    let steps: Vec<Step<'_>> = chosen(found, wanted)?
        .into_iter()
        .map(|found| {
            let (name, manifest) = &found.batch;
            let table = wanted.into.clone().unwrap_or_else(|| table_of(manifest));
            let database = wanted.to.as_deref().unwrap_or(&manifest.database);
            Ok(Step { found, name, manifest, database, table, filter: wanted.filter(manifest)? })
        })
        .collect::<Result<_>>()?;
    let restore = Restore { config, wanted, unsigned_ok, trusts: Trusts::read(global, config), progress: global.progress() };
    let mut totals = Totals::default();
    if wanted.dry_run {
        return or_cancelled(cancel, restore.say_what_would_be_done(&steps, &mut totals)).await;
    }
    let (jobs, mut claims) = restore.exclude_runs(&steps, cancel).await?;
    let putting = restore.put_all(&steps, &mut totals);
    let result = claim::while_held(&mut claims, &restore.progress, cancel, putting).await;
    let result = result.map_err(|error| error.context(totals.so_far()));
    let refused = totals.refusal();
    for (of, claim) in jobs.into_iter().zip(claims) {
        let rows = totals.rows.get(&of).copied().unwrap_or_default();
        let mut report = Report { summary: format!("{} put back", units::plural(rows as usize, "row")), ..Report::default() };
        report.fact("rows_put_back", rows);
        let error = result.as_ref().err().or(refused.as_ref());
        claim.end(Some(&report), error).await;
    }
    result?;
    let mut there = match totals.there {
        0 => String::new(),
        there => format!("; {} already back", units::plural(there, "batch")),
    };
    if totals.never_left > 0 {
        there += &format!("; {} never left", units::plural(totals.never_left, "batch"));
    }
    print(&format!(
        "{} put back from {}{there}\n",
        units::plural(totals.rows() as usize, "row"),
        units::plural(totals.batches, "archive object")
    ))?;
    if wanted.into.is_none() && totals.rows() > 0 {
        say(
            "these rows are still past the limit: the next run of the job that archived them archives them again, unless you change the \
             job",
        );
    }
    refused.map_or(Ok(()), Err)
}

impl Restore<'_> {
    /// Excludes runs of the jobs that archived the rows: a run that deletes or archives at the same time would take them away again.
    async fn exclude_runs(&self, steps: &[Step<'_>], cancel: &CancellationToken) -> Result<(Vec<(String, String)>, Vec<Claim>)> {
        let ledger = Ledger::new(self.config)?.map(Arc::new);
        let jobs: BTreeSet<(String, String)> =
            steps.iter().map(|step| (step.database.to_owned(), step.manifest.job.clone())).collect();
        let mut claims = Vec::new();
        for (database, job) in &jobs {
            let settings = self.database(database)?.owner_settings()?;
            let subject = Subject { job, database, command: "archives restore" };
            match claim::exclude_runs(self.config, ledger.as_ref(), &subject, &settings, &self.progress, cancel).await {
                Ok(claim) => claims.push(claim),
                Err(error) => {
                    for claim in claims {
                        claim.end(None, Some(&error)).await;
                    }
                    return Err(error);
                }
            }
        }
        Ok((jobs.into_iter().collect(), claims))
    }

    fn database(&self, name: &str) -> Result<&config::Database> {
        self.config.databases.get(name).with_context(|| {
            Fault::new(Kind::Configuration, format!("the configuration has no database `{name}`; name one with --to"))
        })
    }

    /// Checks everything that could keep the rows from going back, except conflicts with rows of the table.
    async fn say_what_would_be_done(&self, steps: &[Step<'_>], totals: &mut Totals) -> Result<()> {
        for step in steps {
            let mut target = self.target(step, totals).await?;
            let Step { found, name, manifest, filter, .. } = step;
            let wanted = self.asked_of(step, (&target.table, &target.checked), true);
            let intent = archive::prepare(&found.store, &found.batch, &mut target.connection, &wanted).await;
            let table = &target.table;
            match intent.with_context(|| name.to_string())? {
                Intent::Leave(Put::IsThere { since, .. }) => {
                    let since = since.format("%Y-%m-%d %H:%M UTC");
                    print(&format!(
                        "{name} has been back in {table} since {since}: would skip it; --again puts it back once more\n"
                    ))?;
                }
                Intent::Leave(Put::NeverLeft(why)) => print(&format!("{why}: would skip them\n"))?,
                Intent::Leave(_) => print(&format!("{name}: would put back the rows that {table} has no more\n"))?,
                Intent::Put(prepared) => {
                    let which = match prepared.expected().filter(|rows| *rows < manifest.exported.rows) {
                        Some(rows) => format!("{} of the ", units::count(rows)),
                        None if filter.is_all() => String::new(),
                        None => format!("those with {filter} of the "),
                    };
                    let rows = units::plural(manifest.exported.rows as usize, "row");
                    print(&format!("would put {which}{rows} of {name} into {table} on {}\n", step.database))?;
                }
            }
        }
        Ok(())
    }

    /// Batches of which some rows left again come last. A batch that refers to rows of a later one is tried again for as long as others come back:
    /// a child may leave its table before its parent, and rows of one table may refer to each other.
    async fn put_all(&self, steps: &[Step<'_>], totals: &mut Totals) -> Result<()> {
        let mut open: Vec<(&Step<'_>, bool)> = steps.iter().map(|step| (step, false)).collect();
        let mut rest = Vec::new();
        loop {
            let tried = open.len();
            let mut lacking = Vec::new();
            for (step, is_rest) in open {
                match self.put(step, is_rest, totals).await? {
                    Ended::Done => {}
                    Ended::Later => rest.push(step),
                    Ended::Lacks(error) => lacking.push((step, is_rest, error)),
                }
            }
            let is_stuck = lacking.len() == tried;
            open = lacking.iter().map(|(step, is_rest, _)| (*step, *is_rest)).collect();
            if !is_stuck && !lacking.is_empty() {
                continue;
            }
            // Rows of it that were changed may be in a batch that lacks something, and go before what they were.
            let goes = |step: &mut &Step<'_>| {
                !lacking
                    .iter()
                    .any(|(other, is_rest, _)| !is_rest && (other.database, &other.table) == (step.database, &step.table))
            };
            let further: Vec<_> = rest.extract_if(.., goes).collect();
            if further.is_empty() {
                totals.refused.extend(lacking.into_iter().map(|(step, _, error)| refused::for_what_it_lacks(step.name, &error)));
                let waiting =
                    |step: &Step<'_>| format!("{}, of which some rows left again: it comes after those of its table", step.name);
                totals.refused.extend(rest.into_iter().map(waiting));
                return Ok(());
            }
            open.extend(further.into_iter().map(|step| (step, true)));
        }
    }

    async fn put(&self, step: &Step<'_>, rest: bool, totals: &mut Totals) -> Result<Ended> {
        let Target { mut connection, table, checked } = self.target(step, totals).await?;
        let Step { found, name, manifest, .. } = step;
        let phase = self.progress.phase("restore", Some(manifest.exported.bytes));
        let wanted = self.asked_of(step, (&table, &checked), rest);
        match archive::restore(&found.store, &found.batch, &mut connection, &wanted, &phase).await {
            Ok(Put::Back(rows)) => {
                phase.done(&format!("{} into {table}", units::plural(rows as usize, "row")));
                *totals.rows.entry((step.database.to_owned(), manifest.job.clone())).or_default() += rows;
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
            Ok(Put::NeverLeft(why)) => {
                phase.done("never left");
                say(&why);
                totals.never_left += 1;
            }
            Ok(Put::Later) => return Ok(Ended::Later),
            // foreign_key_violation
            Err(error) if pg::sql_state(&error).as_deref() == Some("23503") => return Ok(Ended::Lacks(error)),
            Err(error) => match refused::way_out(&error) {
                // The other batches are not kept from coming back.
                Some(way_out) => {
                    totals
                        .refused
                        .push(format!("{name} ({}), of which nothing was put back: {error:#}; {way_out}", manifest.reason));
                }
                None => {
                    return Err(refused::explained(error, manifest).context(format!("{name}, of which nothing was put back")));
                }
            },
        }
        Ok(Ended::Done)
    }

    /// Finds the table, and refuses it where a restore may not write to it.
    async fn target(&self, step: &Step<'_>, totals: &mut Totals) -> Result<Target> {
        let Step { name, manifest, database, table, .. } = step;
        let settings = self.database(database)?.owner_settings()?;
        // The table's triggers, defaults and checks run in this session.
        let connecting = settings.connect_for(pg::Purpose::Rows);
        let mut connection = connecting.await.with_context(|| format!("database `{database}`"))?;
        // With a wrong clock, the job might archive the rows again at once.
        pg::clock::agreed(&mut connection).await.with_context(|| format!("database `{database}`"))?;
        let table = archive::target(&mut connection, table).await;
        let table = table.map_err(|error| refused::explained(error, manifest)).with_context(|| name.to_string())?;
        let checked = foreign_code::check_inserts(&settings, &table, self.trusts.owners_of(&manifest.job)).await;
        let (foreign, checked) = checked.with_context(|| name.to_string())?;
        for warning in foreign {
            if totals.warned.insert(warning.clone()) {
                tracing::warn!("{warning}");
            }
        }
        let oid: Option<i64> = sqlx::query_scalar("SELECT pg_catalog.to_regclass($1)::pg_catalog.oid::bigint")
            .bind(&table)
            .fetch_one(&mut connection)
            .await?;
        // A [partition] job of another name may move, detach and archive there.
        if let Some(oid) = oid {
            session::exclude_jobs_of_partitions(&settings, &mut connection, &[oid]).await.with_context(|| name.to_string())?;
        }
        Ok(Target { connection, table, checked })
    }

    fn asked_of<'a>(&self, step: &'a Step<'_>, (table, checked): (&'a str, &'a [Checked]), rest: bool) -> archive::Wanted<'a> {
        archive::Wanted {
            database: step.database,
            table,
            filter: &step.filter,
            again: self.wanted.again,
            rest,
            unsigned_ok: self.unsigned_ok,
            checked,
        }
    }
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
            queries: Vec::new(),
            steps: None,
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
