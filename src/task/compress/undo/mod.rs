//! Undoes `compress install`: turns values back into text with the same guarantees, then gives the table its name back.

mod elsewhere;
mod functions;
mod plan;
mod values;

use anyhow::{Context as _, Result};
pub use plan::{Keep, UndoPlan, plan};
use values::Decompress;

use super::keys::Compress;
use super::table::Table;
use super::walk::{Done, Selection, Walk};
use super::{install, snapshots, table};
use crate::base::fault::{Fault, Kind};
use crate::base::progress::Phase;
use crate::base::units;
use crate::ledger::report::{Report, Unfinished};
use crate::live::governor::{Go, Governor};
use crate::live::session::{Attempt, Session};
use crate::pg;
use crate::work::RunContext;

/// The number of passes; rows that are locked in one pass are tried again in the next.
const PASSES: u32 = 20;

/// Does the undo. Returns what was done, and whether it is complete.
pub async fn apply(
    compress: &Compress,
    run: &RunContext<'_>,
    keep: Keep,
    undoing: &UndoPlan,
    report: &mut Report,
) -> Result<(Done, Go)> {
    let table = &undoing.table;
    let mut governor = run.or_cancelled(Governor::start(run, run.job.limits, Some(table.oid))).await?;
    let phase = run.progress.phase("undo", Some(undoing.compressed_bytes as u64));
    let mut done = Done::default();
    let walk = Walk { compress, table, run, phase: &phase };
    let mut connection = run.or_cancelled(walk.connect(governor.limits())).await?;
    let selection = Selection {
        condition: format!("{} IS NOT NULL", table.gz()),
        // The text's size is in the last four bytes of gzip.
        bytes: format!(
            "CASE WHEN octet_length({0}) < 18 THEN 0 ELSE {1} END",
            table.gz(),
            (0..4)
                .map(|byte| format!(
                    "get_byte(substring({0} FROM octet_length({0}) - {1}), 0) * {2}::bigint",
                    table.gz(),
                    3 - byte,
                    1_u64 << (8 * byte)
                ))
                .collect::<Vec<_>>()
                .join(" + ")
        ),
        too_large: "false".to_owned(),
    };
    let left = format!("SELECT 'some' FROM ONLY {} WHERE {} IS NOT NULL LIMIT 1", table.sql(), table.gz());
    let mut passes = 0;
    while pg::fetch_text(&mut connection, left.clone()).await?.is_some() {
        passes += 1;
        anyhow::ensure!(
            passes <= PASSES,
            "other sessions keep locking or changing some rows of {}: try again later",
            table.sql()
        );
        let changed = done.changed_meanwhile;
        (done.damaged, done.damaged_named) = (0, Vec::new());
        if let Go::Stop(reason) = walk.change_all(&mut connection, &mut governor, &selection, &mut done, &Decompress).await? {
            governor.report(report);
            return Ok((done, Go::Stop(reason)));
        }
        // All other rows are done, and these cannot be.
        if done.damaged > 0 && done.changed_meanwhile == changed {
            governor.report(report);
            return Err(damaged_ones(table, &done, report));
        }
    }
    governor.report(report);
    phase.done(&units::plural(done.rows as usize, "row"));
    if undoing.keep_view {
        return Ok((done, Go::On));
    }
    // That took a while, so the rest is planned again for the views that exist now. It needs a new connection: this one has an empty
    // search_path, and the name in the job may have no schema.
    let mut fresh = run.or_cancelled(run.settings.connect()).await?;
    let undoing = &run.or_cancelled(plan(compress, run, &mut fresh, keep)).await?;
    let limits = &run.job.limits;
    let mut session = run.or_cancelled(Session::open(run, limits.lock_timeout.0, limits.max_wait.0)).await?;
    run.or_cancelled(table::prepare(&mut session.connection)).await?;
    let phase = run.progress.phase("uninstall", None);
    let uninstalled = run.or_cancelled(uninstalled(run, &mut session, undoing, &phase)).await;
    run.stop_if_cancelled(session.pid).await;
    uninstalled?;
    done.lock_waits += session.lock_waits;
    report.warnings.extend(undoing.functions_stay.iter().cloned());
    Ok((done, Go::On))
}

/// Gives the table its name back, so that no session ever sees it half undone.
async fn uninstalled(run: &RunContext<'_>, session: &mut Session, undoing: &UndoPlan, phase: &Phase) -> Result<()> {
    let table = &undoing.table;
    let (validate, check) = undoing.check.split_last().context("there is a check")?;
    locked(session.transaction(check, &[table.oid]).await?, table)?;
    // From here on no row has a compressed form or gets one.
    let horizon = snapshots::horizon(&mut session.connection).await?;
    locked(install::long(session, validate, &table.checked()).await?, table)?;
    let give_up_after = session.give_up_after;
    if let Some(waited) = snapshots::wait_for_old_snapshots(run, &mut session.connection, &horizon, give_up_after, phase).await? {
        let message = format!(
            "all text of {0} is plain, but the view stays for now, because without it a transaction that began before would read NULL in place \
             of text: {waited}. End it or wait for its end, then run undo again",
            table.view_sql()
        );
        return Err(Fault::new(Kind::Busy, message).into());
    }
    match session.transaction(&undoing.statements, &[table.oid]).await {
        Err(error) => return Err(undoing.bound.explained(&mut session.connection, error).await),
        Ok(attempt) => locked(attempt, table)?,
    }
    phase.done("the table has its name back");
    Ok(())
}

/// Makes the error for values that cannot become text, while all others are text again.
fn damaged_ones(table: &Table, done: &Done, report: &mut Report) -> anyhow::Error {
    let more = done.damaged - done.damaged_named.len() as u64;
    let more = if more > 0 { format!("; and {} more", units::count(more)) } else { String::new() };
    report.fact("rows", done.rows);
    report.fact("bytes", done.raw_bytes);
    report.fact("rows_damaged", done.damaged);
    report.fact("view_stays", true);
    let message = format!(
        "text again: {}; {} cannot become text and stay as they are, behind the view: {}{more}. Write their text from a backup \
         (UPDATE {} SET {} = …), or delete them, then run undo again",
        units::plural(done.rows, "value"),
        units::count(done.damaged),
        done.damaged_named.join("; "),
        table.sql(),
        table.content()
    );
    Unfinished::error(None, message, std::mem::take(report))
}

fn locked<T>(attempt: Attempt<T>, table: &Table) -> Result<()> {
    match attempt {
        Attempt::Done(_) => Ok(()),
        Attempt::Locked(who) => {
            let message =
                format!("{} is locked: {who}; its text is plain, but the view is still there: try again", table.view_sql());
            Err(Fault::new(Kind::Busy, message).into())
        }
    }
}
