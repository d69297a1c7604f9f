//! What makes the view out of date: columns that the application added to the table behind it (an ORM's addColumn, once it names that table), and a
//! trigger function of an earlier release, or with an earlier name of the table. A run brings the view up to date.

use anyhow::Result;
use serde::Serialize;
use sqlx::PgConnection;

use super::names::WRITE;
use super::table::{Table, prepare};
use super::{install, triggers};
use crate::base::fault::Kind;
use crate::ledger::report::Report;
use crate::live::session::Session;
use crate::pg::{failure, identifier};
use crate::work::RunContext;

/// The differences between the table and its view.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub struct Outdated {
    /// Columns of the table that the view does not show.
    pub new: Vec<String>,
    /// Columns of the view that have another name in the table.
    pub renamed: Vec<String>,
    /// The trigger function of the view is another one than this release makes for this table.
    pub writes_otherwise: bool,
}

/// Compares the two; None where the view is up to date, or is not there.
pub async fn outdated(connection: &mut PgConnection, table: &Table) -> Result<Option<Outdated>> {
    let Some(view) = table.view.as_ref().filter(|view| !view.is_lost) else { return Ok(None) };
    let shown: Vec<String> = sqlx::query_scalar(
        "SELECT attname::text FROM pg_attribute WHERE attrelid = $1::bigint::oid AND attnum > 0 AND NOT attisdropped ORDER BY attnum",
    )
    .bind(view.oid)
    .fetch_all(&mut *connection)
    .await?;
    let there: Vec<String> = table.visible().map(|column| column.name.clone()).collect();
    let source: Option<String> = sqlx::query_scalar(
        "SELECT p.prosrc FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid WHERE t.tgrelid = $1::bigint::oid AND t.tgname = $2",
    )
    .bind(view.oid)
    .bind(WRITE)
    .fetch_optional(connection)
    .await?;
    // Without a trigger, the view is not whole, and a person has to install it.
    let writes_otherwise = source.is_some_and(|source| source != triggers::write_source(table, &table.sql()));
    Ok(compare(&there, &shown, writes_otherwise))
}

fn compare(there: &[String], shown: &[String], writes_otherwise: bool) -> Option<Outdated> {
    let beyond = |these: &[String], those: &[String]| -> Vec<String> {
        these.iter().filter(|name| !those.contains(name)).cloned().collect()
    };
    let outdated = Outdated { new: beyond(there, shown), renamed: beyond(shown, there), writes_otherwise };
    (outdated != Outdated::default()).then_some(outdated)
}

impl Outdated {
    /// Says what a run will do about it, or what a person has to do.
    pub fn remark(&self, job: &str) -> String {
        match self.renamed.is_empty() {
            true => format!("{}: the run brings it up to date", self.what()),
            false => format!(
                "the view shows {}, which the table has no longer under that name (it has {}), so that writes through the view fail: ALTER VIEW … RENAME \
                 COLUMN, then run `pgtend compress install {job}`",
                names(&self.renamed),
                names(&self.new)
            ),
        }
    }

    fn what(&self) -> String {
        match self.new.is_empty() {
            true => "the trigger function of the view is not the one that this release makes for this table".to_owned(),
            false => format!("the view lacks {}", names(&self.new)),
        }
    }
}

fn names(columns: &[String]) -> String {
    columns.iter().map(|column| identifier(column)).collect::<Vec<_>>().join(", ")
}

/// Brings the view up to date where it only lacks columns. Where it cannot, a warning says why: the values are compressed all the same.
pub async fn bring_up_to_date(
    run: &RunContext<'_>,
    table: &Table,
    outdated: Option<&Outdated>,
    report: &mut Report,
) -> Result<()> {
    let Some(outdated) = outdated else { return Ok(()) };
    if !outdated.renamed.is_empty() {
        report.warnings.push(outdated.remark(run.job.name));
        return Ok(());
    }
    let limits = &run.job.limits;
    let mut session = run.or_cancelled(Session::open(run, limits.lock_timeout.0, limits.max_wait.0)).await?;
    let done = run.or_cancelled(refresh(&mut session, table)).await;
    run.stop_if_cancelled(session.pid).await;
    match done {
        Ok(()) => {
            if outdated.new.is_empty() {
                tracing::info!("{}: {} was brought up to date", outdated.what(), table.view_sql());
                return Ok(());
            }
            let new = names(&outdated.new);
            report.fact("view_columns_added", outdated.new.clone());
            report.warnings.push(format!("the view {} lacked {new}, and was brought up to date", table.view_sql()));
            Ok(())
        }
        Err(error) if failure::kind_of(&error) == Some(Kind::Cancelled) => Err(error),
        Err(error) => {
            let (what, view, job) = (outdated.what(), table.view_sql(), run.job.name);
            report
                .warnings
                .push(format!("{view}: {what}: run `pgtend compress install {job}`; it could not be done here: {error:#}"));
            Ok(())
        }
    }
}

async fn refresh(session: &mut Session, table: &Table) -> Result<()> {
    prepare(&mut session.connection).await?;
    let accepted = table.view.as_ref().map(|view| view.accepted.clone()).unwrap_or_default();
    let installation = install::plan(&mut session.connection, table, &accepted).await?;
    install::apply(session, &installation).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_column_that_the_view_lacks_is_told_from_one_that_was_renamed() {
        let columns = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let of = |there: &[&str], shown: &[&str]| compare(&columns(there), &columns(shown), false);
        assert_eq!(of(&["id", "content"], &["id", "content"]), None);
        let lacks = of(&["id", "content", "author"], &["id", "content"]).unwrap();
        assert_eq!((lacks.new.as_slice(), lacks.renamed.as_slice()), (&["author".to_owned()][..], &[][..]));
        assert!(lacks.remark("j").contains("the view lacks \"author\""));
        assert!(
            compare(&columns(&["id"]), &columns(&["id"]), true).unwrap().remark("j").contains("the trigger function of the view")
        );
        assert!(of(&["id", "name"], &["id", "title"]).unwrap().remark("j").contains("\"title\", which the table has no longer"));
    }
}
