//! The steps of a refresh: sweep, restore, change, ask, swap.

use std::time::Instant;

use anyhow::{Context as _, Result};
use sqlx::Connection as _;
use sqlx::postgres::PgConnection;

use super::copies::SetCopy;
use super::copy::{self, Fresh};
use super::keys::Refresh;
use super::plan::{ChosenSet, Plan, WorkOn};
use super::swap::{Swap, Swapped};
use super::{after, beside, mark, state, sweep};
use crate::base::{shell, units};
use crate::ledger::report::{Report, Unfinished};
use crate::pg::{self, failure};
use crate::task::backup::copies::several::is_of_the_copy;
use crate::task::backup::load::Target;
use crate::task::backup::read_back::Differs;
use crate::task::backup::sessions::restore_sessions;
use crate::task::backup::set_name::SetName;
use crate::task::backup::{guard, restore, scratch, verify};
use crate::work::RunContext;

/// The deletion of one set takes seconds.
const PRUNE_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(60);

/// Longer than a server takes to see that a client is gone, and than a rename waits for sessions.
const DEAD_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(10);

pub async fn apply(keys: &Refresh, run: &RunContext<'_>, mut plan: Plan) -> Result<Report> {
    let work = plan.work.take().context("the plan has no set")?;
    let started = Instant::now();
    let mut report = begun(run, &plan);
    let mut server = run.or_cancelled(locked(run, work.target.oid)).await?;
    run.or_cancelled(sweep::sweep(&mut server, run, keys, &mut report)).await?;
    // While it lives, no prune deletes the set.
    let first = work.copies.first().context("the plan has no set")?;
    let _reading = run.or_cancelled(keep_prunes_out(run, &first.set.name, &mut report)).await?;
    if keys.create_roles {
        report.warnings.extend(run.or_cancelled(keys.prepare_server(&mut server, &first.set, &work.target)).await?);
    }
    let (copy, mut server) = filled(keys, run, (&plan, &work), server, &mut report).await?;
    if !keys.swap {
        drop(server);
        let left = copy.drop(run).await;
        report.fact("swapped", false);
        report.fact("elapsed_seconds", started.elapsed().as_secs_f64());
        report.summary = summary(&plan, &report, None);
        return match left {
            None => Ok(report),
            // It holds rows that nobody may have masked.
            Some(left) => Err(Unfinished::error(None, left, report)),
        };
    }
    let swapped = async {
        server = still_there(server, run, &work, &copy).await?;
        Swap { run, keys, copy: &copy, target_oid: work.target.oid }.swap(&mut server).await
    };
    let swapped = swapped.await;
    match swapped {
        // Whatever has become of the transaction: the copy goes by its name, which it no longer has after a swap.
        Err(error) => Err(copy.given_up(run, keys, error, report).await),
        Ok(swapped) => {
            report.fact("swapped", true);
            report.fact("old_database", swapped.old_name.clone());
            report.fact("keep_old_seconds", keys.keep_old.0.as_secs());
            report.fact("terminated_sessions", swapped.terminated);
            report.fact("elapsed_seconds", started.elapsed().as_secs_f64());
            report.summary = summary(&plan, &report, Some((&swapped, keys)));
            Ok(report)
        }
    }
}

/// Makes the new database of the first copy of the set that can be used: where one is damaged, or its store cannot be read, of the next one. What fails for
/// another reason ends the run.
async fn filled(
    keys: &Refresh,
    run: &RunContext<'_>,
    (plan, work): (&Plan, &WorkOn),
    mut server: PgConnection,
    report: &mut Report,
) -> Result<(Fresh, PgConnection)> {
    let mut copies = work.copies.iter();
    let mut from = copies.next().context("the plan has no set")?;
    loop {
        let mut copy = copy::make(&mut server, run, keys, &from.set, &work.target).await?;
        let swap = Swap { run, keys, copy: &copy, target_oid: work.target.oid };
        let may_swap = if keys.swap { run.or_cancelled(swap.try_out(&mut server, &work.target)).await } else { Ok(()) };
        let filled = match may_swap {
            Ok(()) => run.or_cancelled(fill(keys, run, &plan.statements, from, &mut copy, report)).await,
            Err(error) => Err(error),
        };
        let Err(error) = filled else {
            taken_from(report, plan, from);
            return Ok((copy, server));
        };
        // The session that made it holds its lock.
        drop(server);
        let is_of_the_copy = !copy.is_restored && is_of_the_copy(&from.store, &from.set, &error).await;
        let Some(next) = copies.next().filter(|_| is_of_the_copy) else {
            return Err(copy.given_up(run, keys, error, std::mem::take(report)).await);
        };
        report.warnings.extend(passed_over(run, from, next, &error).await);
        report.warnings.extend(copy.drop(run).await);
        server = run.or_cancelled(locked(run, work.target.oid)).await?;
        from = next;
    }
}

/// A session beside the target that the plan saw, with its lock: one refresh at a time works on it, whatever the job and the configuration.
async fn locked(run: &RunContext<'_>, target_oid: Option<i64>) -> Result<PgConnection> {
    let mut server = beside::connect(run).await?;
    let target = run.settings.database();
    beside::ensure_same(target, state::oid(&mut server, target).await?, target_oid)?;
    let started = Instant::now();
    loop {
        match scratch::lock(&mut server, &mark::prefix(target)).await {
            Ok(()) => return Ok(server),
            // The session of a killed run ends when its last statement does.
            Err(error) if started.elapsed() > DEAD_TIMEOUT => return Err(error.context(format!("cannot refresh {target}"))),
            Err(error) => tracing::debug!("{error:#}"),
        }
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
}

/// The session was idle for as long as the restore took, and a proxy may have closed it.
async fn still_there(mut server: PgConnection, run: &RunContext<'_>, work: &WorkOn, copy: &Fresh) -> Result<PgConnection> {
    if server.ping().await.is_ok() {
        return Ok(server);
    }
    let mut server = locked(run, work.target.oid).await?;
    scratch::lock(&mut server, &copy.name).await?;
    Ok(server)
}

/// Shares the lock that a prune takes before it deletes a set of the series. Without a ledger, or with one that is away, nothing keeps it out.
async fn keep_prunes_out(run: &RunContext<'_>, name: &SetName, report: &mut Report) -> Result<Option<PgConnection>> {
    let Some(ledger) = run.ledger else { return Ok(None) };
    let shared = async {
        let mut connection = ledger.connect().await?;
        let lock = guard::readers_lock(&name.database, &name.job);
        let is_shared = pg::wait_for_shared_lock(&mut connection, &lock, PRUNE_TIMEOUT).await?;
        anyhow::ensure!(is_shared, "a prune is deleting old sets of {}/{}", name.database, name.job);
        anyhow::Ok(connection)
    };
    match shared.await {
        Ok(connection) => Ok(Some(connection)),
        Err(error) => {
            report
                .warnings
                .push(format!("nothing keeps a prune from deleting the set meanwhile: {}", failure::in_a_line(&error)));
            Ok(None)
        }
    }
}

/// Restores the set into the copy, runs the user's SQL, and asks what must be true.
async fn fill(
    keys: &Refresh,
    run: &RunContext<'_>,
    statements: &[String],
    from: &SetCopy,
    copy: &mut Fresh,
    report: &mut Report,
) -> Result<()> {
    let set = &from.set;
    let phase = run.progress.phase("restore", Some(set.manifest.dump.bytes));
    let (choices, sessions) = (keys.choices(), restore_sessions(keys.sessions, &set.manifest));
    let target = Target { settings: &copy.settings, choices: &choices, in_transaction: false, superuser: None, sessions };
    let restored = restore::stream_into(&from.store, set, &target, &phase, &run.cancel).await?;
    anyhow::ensure!(
        restored.problems.is_empty(),
        Differs(format!(
            "{} was not restored: it differs from what was written: {}; `pgtend backups verify` says whether it is damaged",
            set.name,
            restored.problems.join("; ")
        ))
    );
    if let Some(refusal) = restored.refusal {
        return Err(anyhow::Error::from(refusal).context(format!("{} was not restored", set.name)));
    }
    copy.is_restored = true;
    report.fact("restore_seconds", phase.elapsed().as_secs_f64());
    report.fact("restore_sessions", restored.sessions);
    report.warnings.extend(restored.notes);
    phase.done(&set.name.to_string());

    let search_path = keys.search_path(set);
    report.fact("after", after::run(&copy.settings, &search_path, statements, &run.progress).await?);
    copy.take_back().await?;
    let (answers, unmet) = after::expectations(&copy.settings, &search_path, &keys.expect).await?;
    report.fact("expectations", answers);
    anyhow::ensure!(unmet.is_empty(), "these queries of `expect` are not true: {}", unmet.join("; "));
    Ok(())
}

/// Reads a copy that could not be used once more, and records beside it whether it is damaged: one read that differs is no proof. Returns warnings.
async fn passed_over(run: &RunContext<'_>, from: &SetCopy, next: &SetCopy, error: &anyhow::Error) -> Vec<String> {
    let SetCopy { store_name, store, set } = from;
    let mut warnings = vec![format!(
        "the copy of {} in {store_name} could not be used, and that in {} is taken in its place: {}",
        set.name,
        next.store_name,
        failure::in_a_line(error)
    )];
    if error.chain().any(|cause| cause.is::<Differs>()) {
        let mut set = set.clone();
        let (name, to) = (shell::word(&set.name.to_string()), shell::word(store_name));
        let verified = run.or_cancelled(verify::by_checksum(store, &mut set, &run.progress)).await;
        warnings.extend(verified.err().map(|error| {
            format!(
                "the copy in {store_name}: {}. If it is damaged, this mends it: pgtend backups copy {name} --to {to}",
                failure::in_a_line(&error)
            )
        }));
    }
    warnings
}

/// Says in the report which copy was restored.
fn taken_from(report: &mut Report, plan: &Plan, from: &SetCopy) {
    let planned = plan.set.as_ref().map(|set| set.store.as_str());
    if planned == Some(from.store_name.as_str()) {
        return;
    }
    let manifest = &from.set.manifest;
    report.fact("source", format!("{}:{}/{}", from.store_name, from.set.name.database, from.set.name.job));
    report.fact("set_state", from.set.verification.in_words());
    report.fact("set_dump_bytes", manifest.dump.bytes);
    report.fact("set_sha256", manifest.dump.sha256.clone());
}

/// The report of a run that has done nothing yet: which set, of whom, made by which release.
fn begun(run: &RunContext<'_>, plan: &Plan) -> Report {
    let mut report = Report::default();
    report.warnings.extend(plan.foreign_code.iter().cloned());
    report.warnings.extend(plan.notes.iter().cloned());
    report.fact("target", plan.target.clone());
    report.fact("server_version", plan.server_version.clone());
    report.fact("source", plan.source.clone());
    report.fact("pgtend_version", env!("CARGO_PKG_VERSION"));
    report.fact("started_at", run.now.to_rfc3339());
    if let Some(ChosenSet { name, store: _, taken_at, age_seconds, state, tables, rows, dump_bytes, sha256, pgtend_version }) =
        &plan.set
    {
        report.fact("set", name.clone());
        report.fact("set_taken_at", taken_at.to_rfc3339());
        report.fact("set_age_seconds", *age_seconds);
        report.fact("set_state", state.clone());
        report.fact("set_dump_bytes", *dump_bytes);
        report.fact("set_sha256", sha256.clone());
        report.fact("set_pgtend_version", pgtend_version.clone());
        report.fact("tables", *tables);
        report.fact("rows", *rows);
    }
    report
}

fn summary(plan: &Plan, report: &Report, swapped: Option<(&Swapped, &Refresh)>) -> String {
    let (name, age) = plan.set.as_ref().map(|set| (set.name.clone(), set.age())).unwrap_or_default();
    let (tables, rows) = plan.set.as_ref().map(|set| (set.tables, set.rows)).unwrap_or_default();
    let seconds = report.facts.get("restore_seconds").and_then(serde_json::Value::as_f64).unwrap_or_default();
    let restored = units::duration(std::time::Duration::from_secs_f64(seconds));
    let did = format!(
        "{} and {} restored in {restored}, {} run, {} met",
        units::plural(tables, "table"),
        units::plural(rows, "row"),
        units::plural(plan.after.len(), "statement"),
        units::plural(plan.expect.len(), "expectation")
    );
    match swapped {
        Some((Swapped { old_name, .. }, keys)) => format!(
            "{} is now {name}, {age} old: {did}; the database before is {old_name}, kept for {}",
            plan.database, keys.keep_old
        ),
        None => format!("drill with {name}, {age} old: {did}; removed again"),
    }
}
