//! `archives restore`: puts batches back, and reports what became of each.

mod arguments;
mod totals;

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;

use anyhow::{Context as _, Result};
pub use arguments::Arguments;
use arguments::table_of;
use sqlx::PgConnection;
use tokio_util::sync::CancellationToken;
use totals::Totals;

use super::find::Found;
use super::refused;
use crate::archive::filter::Filter;
use crate::archive::{self, BatchName, Intent, Manifest, RestoreOutcome};
use crate::base::fault::{Fault, Kind};
use crate::base::progress::Progress;
use crate::base::terminal::say;
use crate::base::units;
use crate::cli::global::Global;
use crate::cli::output::{print, print_json};
use crate::cli::outputs::runs::{BatchOutcome, EndedBatch, PutBack};
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

/// A batch, with the table and the database that its rows go to.
struct Step<'a> {
    found: &'a Found,
    name: &'a BatchName,
    manifest: &'a Manifest,
    database: &'a str,
    table: String,
    filter: Filter,
}

/// The result of one batch.
enum Next {
    Done,
    /// It waits until the batches after it are back.
    Later,
    /// Rows that a foreign key refers to are missing; another batch may have them.
    MissesReferenced(anyhow::Error),
}

/// The context that all batches of a restore share.
struct Restore<'a> {
    config: &'a Config,
    arguments: &'a Arguments,
    unsigned_ok: bool,
    trusts: Trusts,
    progress: Progress,
    /// One document says it all at the end.
    json: bool,
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
    arguments: &Arguments,
    unsigned_ok: bool,
    cancel: &CancellationToken,
) -> Result<()> {
    ensure_names_are_known(found).await?;
    let steps: Vec<Step<'_>> = arguments
        .choose(found)?
        .into_iter()
        .map(|found| {
            let (name, manifest) = &found.batch;
            let table = arguments.into.clone().unwrap_or_else(|| table_of(manifest));
            let database = arguments.to.as_deref().unwrap_or(&manifest.database);
            Ok(Step { found, name, manifest, database, table, filter: arguments.filter(manifest)? })
        })
        .collect::<Result<_>>()?;
    warn_of_plain(&steps);
    let restore = Restore {
        config,
        arguments,
        unsigned_ok,
        trusts: Trusts::read(global, config),
        progress: global.progress(),
        json: global.json,
    };
    let mut totals = Totals::default();
    if arguments.dry_run {
        or_cancelled(cancel, restore.say_what_would_be_done(&steps, &mut totals)).await?;
        return restore.print(&totals);
    }
    let (jobs, mut claims) = restore.exclude_runs(&steps, cancel).await?;
    let putting = restore.put_all(&steps, &mut totals);
    let result = claim::while_held(&mut claims, &restore.progress, cancel, putting).await;
    let result = result.map_err(|error| error.context(totals.so_far()));
    let refused = totals.refusal();
    for (of, claim) in jobs.into_iter().zip(claims) {
        let rows = totals.rows_of(&of);
        let mut report = Report { summary: format!("{} put back", units::plural(rows as usize, "row")), ..Report::default() };
        report.fact("rows_put_back", rows);
        let error = result.as_ref().err().or(refused.as_ref());
        claim.end(Some(&report), error).await;
    }
    result?;
    restore.print(&totals)?;
    if arguments.into.is_none() && totals.rows() > 0 {
        say(
            "these rows are still past the limit: the next run of the job that archived them archives them again, unless you change the \
             job",
        );
    }
    refused.map_or(Ok(()), Err)
}

/// Fails where nobody knows from which table rows came: the names are sealed, as the rows are.
async fn ensure_names_are_known(found: &[Found]) -> Result<()> {
    let Some(Found { store, batch: (name, manifest), .. }) = found.iter().find(|found| found.batch.1.names_are_sealed()) else {
        return Ok(());
    };
    archive::ensure_opens(store, name, manifest).await?;
    anyhow::bail!("{name}: its manifest is sealed for other keys than its rows, and none of them is here")
}

/// Warns of batches that anyone may have put there: a plain one in a store that encrypts.
fn warn_of_plain(steps: &[Step<'_>]) {
    for Step { found, name, manifest, .. } in steps {
        if found.store.encrypts() && manifest.exported.encryption.is_none() {
            tracing::warn!(
                "{name} is not encrypted, although the store has `encrypt_to`: it was made before that, or by someone else"
            );
        }
    }
}

impl Step<'_> {
    fn ended(&self, outcome: BatchOutcome, rows: Option<u64>, why: Option<String>) -> EndedBatch {
        EndedBatch {
            store: self.found.store_name.clone(),
            batch: self.name.to_string(),
            job: self.manifest.job.clone(),
            database: self.database.to_owned(),
            table: self.table.clone(),
            outcome,
            rows,
            why,
        }
    }

    fn refused(&self, why: String) -> EndedBatch {
        self.ended(BatchOutcome::Refused, None, Some(why))
    }
}

impl Restore<'_> {
    /// Prints what became of all batches; a dry run has said it in words of each.
    fn print(&self, totals: &Totals) -> Result<()> {
        let dry_run = self.arguments.dry_run;
        match self.json {
            true => print_json(&PutBack { dry_run, rows: totals.rows(), batches: &totals.batches }),
            false if dry_run => Ok(()),
            false => print(&format!("{}\n", totals.summary())),
        }
    }

    /// Excludes runs of the jobs that archived the rows: a run that deletes or archives at the same time would take them away again.
    async fn exclude_runs(&self, steps: &[Step<'_>], cancel: &CancellationToken) -> Result<(Vec<(String, String)>, Vec<Claim>)> {
        let ledger = Ledger::new(self.config)?.map(Arc::new);
        let jobs: BTreeSet<(String, String)> =
            steps.iter().map(|step| (step.database.to_owned(), step.manifest.job.clone())).collect();
        let mut claims = Vec::new();
        for (database, job) in &jobs {
            let settings = self.database(database)?.owner_settings()?;
            let subject = Subject { job, database, command: "archives restore", asked_by: None };
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

    fn database(&self, name: &str) -> Result<Cow<'_, config::Database>> {
        self.config.database(name).with_context(|| {
            Fault::new(Kind::Configuration, format!("the configuration has no database `{name}`; name one with --to"))
        })
    }

    /// Checks everything that could keep the rows from going back, except conflicts with rows of the table, and what is after the head of an object.
    async fn say_what_would_be_done(&self, steps: &[Step<'_>], totals: &mut Totals) -> Result<()> {
        for step in steps {
            let mut target = self.target(step, totals).await?;
            let request = self.request(step, (&target.table, &target.checked), true);
            let intent = archive::prepare(&step.found.store, &step.found.batch, &mut target.connection, &request).await;
            let (outcome, rows, said) = would_be(step, &target.table, intent.with_context(|| step.name.to_string())?);
            if outcome == BatchOutcome::PutBack {
                archive::ensure_opens(&step.found.store, step.name, step.manifest).await?;
            }
            if !self.json {
                print(&format!("{said}\n"))?;
            }
            totals.batches.push(step.ended(outcome, rows, (outcome != BatchOutcome::PutBack).then_some(said)));
        }
        Ok(())
    }

    /// Batches whose rows partly left again come last. A batch that refers to rows of a later one is retried while other batches succeed:
    /// a child may leave its table before its parent, and rows of one table may refer to each other.
    async fn put_all(&self, steps: &[Step<'_>], totals: &mut Totals) -> Result<()> {
        let mut open: Vec<(&Step<'_>, bool)> = steps.iter().map(|step| (step, false)).collect();
        let mut rest = Vec::new();
        loop {
            let tried = open.len();
            let mut lacking = Vec::new();
            for (step, is_rest) in open {
                match self.put(step, is_rest, totals).await? {
                    Next::Done => {}
                    Next::Later => rest.push(step),
                    Next::MissesReferenced(error) => lacking.push((step, is_rest, error)),
                }
            }
            let is_stuck = lacking.len() == tried;
            open = lacking.iter().map(|(step, is_rest, _)| (*step, *is_rest)).collect();
            if !is_stuck && !lacking.is_empty() {
                continue;
            }
            // Changed rows of it may be in a batch that could not go back yet, and that one goes first.
            let goes = |step: &mut &Step<'_>| {
                !lacking
                    .iter()
                    .any(|(other, is_rest, _)| !is_rest && (other.database, &other.table) == (step.database, &step.table))
            };
            let further: Vec<_> = rest.extract_if(.., goes).collect();
            if further.is_empty() {
                for (step, _, error) in lacking {
                    totals.batches.push(step.refused(refused::by_a_foreign_key(step.name, &error)));
                }
                for step in rest {
                    let waits = "some of its rows left again, and it waits for the batches of its table that were not put back";
                    totals.batches.push(step.refused(format!("{}: {waits}", step.name)));
                }
                return Ok(());
            }
            open.extend(further.into_iter().map(|step| (step, true)));
        }
    }

    async fn put(&self, step: &Step<'_>, rest: bool, totals: &mut Totals) -> Result<Next> {
        let Target { mut connection, table, checked } = self.target(step, totals).await?;
        let Step { found, name, manifest, .. } = step;
        let phase = self.progress.phase("restore", Some(manifest.exported.bytes));
        let request = self.request(step, (&table, &checked), rest);
        match archive::restore(&found.store, &found.batch, &mut connection, &request, &phase).await {
            Ok(RestoreOutcome::Restored(rows)) => {
                phase.done(&format!("{} into {table}", units::plural(rows as usize, "row")));
                totals.batches.push(step.ended(BatchOutcome::PutBack, Some(rows), None));
            }
            Ok(RestoreOutcome::AlreadyBack { since, rows }) => {
                let since = since.format("%Y-%m-%d %H:%M UTC");
                phase.done(&format!(
                    "{name} has been back in {table} since {since}: {}; --again puts it back once more",
                    units::plural(rows as usize, "row")
                ));
                let said = format!("{name} has been back in {table} since {since}; --again puts it back once more");
                say(&said);
                totals.batches.push(step.ended(BatchOutcome::AlreadyBack, Some(rows), Some(said)));
            }
            Ok(RestoreOutcome::NeverLeft(why)) => {
                phase.done("never left");
                say(&why);
                totals.batches.push(step.ended(BatchOutcome::NeverLeft, None, Some(why)));
            }
            Ok(RestoreOutcome::Doubted(why)) => {
                totals.batches.push(step.refused(format!("nothing was put back of {name}: {why}")))
            }
            Ok(RestoreOutcome::Replaced(by)) => {
                let why = replaced(name, &by);
                tracing::info!("skipped {why}");
                totals.batches.push(step.ended(BatchOutcome::Replaced, None, Some(why)));
            }
            Ok(RestoreOutcome::Later) => return Ok(Next::Later),
            // foreign_key_violation
            Err(error) if pg::sql_state(&error).as_deref() == Some("23503") => return Ok(Next::MissesReferenced(error)),
            Err(error) => match refused::remedy(&error) {
                // The other batches are not kept from coming back.
                Some(remedy) => {
                    totals
                        .batches
                        .push(step.refused(format!("{name} ({}): nothing was put back: {error:#}; {remedy}", manifest.reason)));
                }
                None => {
                    return Err(refused::explained(error, manifest).context(format!("{name}: nothing was put back")));
                }
            },
        }
        Ok(Next::Done)
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
        let checked = foreign_code::check_inserts(&settings, &table, true, self.trusts.owners_of(&manifest.job)).await;
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

    fn request<'a>(&self, step: &'a Step<'_>, (table, checked): (&'a str, &'a [Checked]), rest: bool) -> archive::Request<'a> {
        archive::Request {
            database: step.database,
            table,
            filter: &step.filter,
            again: self.arguments.again,
            rest,
            replaced_by: &step.found.replaced_by,
            replaces: &step.found.replaces,
            unsigned_ok: self.unsigned_ok,
            checked,
        }
    }
}

/// What would become of a batch: the rows that would go back or are there, if that is known, and all of it in words.
fn would_be(step: &Step<'_>, table: &str, intent: Intent) -> (BatchOutcome, Option<u64>, String) {
    let Step { name, manifest, filter, .. } = step;
    match intent {
        Intent::Leave(RestoreOutcome::AlreadyBack { since, rows }) => {
            let since = since.format("%Y-%m-%d %H:%M UTC");
            let said = format!("{name} has been back in {table} since {since}: would skip it; --again puts it back once more");
            (BatchOutcome::AlreadyBack, Some(rows), said)
        }
        Intent::Leave(RestoreOutcome::NeverLeft(why)) => (BatchOutcome::NeverLeft, None, format!("{why}: would skip them")),
        Intent::Leave(RestoreOutcome::Doubted(why)) => (BatchOutcome::Refused, None, format!("{why}: would not put them back")),
        Intent::Leave(RestoreOutcome::Replaced(by)) => {
            (BatchOutcome::Replaced, None, format!("{}: would skip it", replaced(name, &by)))
        }
        Intent::Leave(RestoreOutcome::Restored(_) | RestoreOutcome::Later) => {
            (BatchOutcome::PutBack, None, format!("{name}: would put back the rows that {table} no longer has"))
        }
        Intent::Restore(prepared) => {
            let which = match prepared.expected().filter(|rows| *rows < manifest.exported.rows) {
                Some(rows) => format!("{} of the ", units::count(rows)),
                None if filter.is_all() => String::new(),
                None => format!("those with {filter} of the "),
            };
            let rows = units::plural(manifest.exported.rows as usize, "row");
            let said = format!("would put {which}{rows} of {name} into {table} on {}", step.database);
            (BatchOutcome::PutBack, prepared.expected(), said)
        }
    }
}

fn replaced(name: &BatchName, by: &BatchName) -> String {
    format!(
        "{name}: {by} has its rows, as they were when they left the table; --again --batch {name} puts those of this one back"
    )
}
