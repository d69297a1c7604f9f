//! A partition's way out: mark, detach, archive, wait, drop. Each step can be the last one of a killed run.
//!
//! | Killed | Leaves | The next run |
//! |---|---|---|
//! | after the mark | an attached partition with a mark | detaches it, or takes the mark off when its time is not over |
//! | in the second phase of a detach | a pending detach | finishes it |
//! | after the detach | a detached table marked "retiring" | marks it "retired"; its grace starts then |
//! | while its rows are archived | an object that does not count, or one that does and a mark that says so | throws it away, or goes on |
//! | before the drop | a detached table marked "retired" | drops it when its grace is over |

use anyhow::Result;

use super::archive::Shelf;
use super::decide::{Detach, Plan};
use super::mark::{Mark, Stage};
use super::session::{self, Attempt, Session};
use super::state::TableName;
use crate::pg::{self, literal};

pub async fn finalise(session: &mut Session, plan: &Plan, partition: &TableName) -> Result<Attempt<()>> {
    let sql = format!("ALTER TABLE {} DETACH PARTITION {} FINALIZE", plan.table.sql(), partition.sql());
    session.two_phases(sql, partition.oid, &[plan.table.oid, partition.oid]).await
}

/// Returns the mark under which it waits for its archive and its end.
pub async fn retire(
    session: &mut Session,
    plan: &Plan,
    partition: &TableName,
    how: Detach,
    mark: &Mark,
) -> Result<Attempt<Mark>> {
    let tables = [plan.table.oid, partition.oid];
    let mut mark = mark.clone();
    if mark.comment.is_none() {
        mark.comment = comment_of(session, partition).await?.filter(|comment| Mark::read(comment).is_none());
    }
    if let Attempt::Locked(who) =
        session.transaction(&[comment(partition, &mark.comment(&plan.table.to_string()))], &tables).await?
    {
        return Ok(Attempt::Locked(who));
    }
    let sql = format!("ALTER TABLE {} DETACH PARTITION {}", plan.table.sql(), partition.sql());
    let attempt = match how {
        Detach::Concurrently => session.two_phases(format!("{sql} CONCURRENTLY"), partition.oid, &tables).await?,
        Detach::Plainly => match session.transaction(&[lock(&plan.table), sql], &tables).await? {
            Attempt::Done(_) => Attempt::Done(()),
            Attempt::Locked(who) => Attempt::Locked(who),
        },
    };
    match attempt {
        Attempt::Locked(who) => Ok(Attempt::Locked(who)),
        Attempt::Done(()) => confirm(session, plan, partition, &mark).await,
    }
}

/// From now on its grace counts.
pub async fn confirm(session: &mut Session, plan: &Plan, table: &TableName, mark: &Mark) -> Result<Attempt<Mark>> {
    if is_attached(session, table).await? {
        return Ok(Attempt::Locked("its detach is not finished".to_owned()));
    }
    let mark = Mark { stage: Stage::Retired, at: pg::clock::of_server(&mut session.connection).await?, ..mark.clone() };
    Ok(match session.transaction(&[comment(table, &mark.comment(&plan.table.to_string()))], &[table.oid]).await? {
        Attempt::Done(_) => Attempt::Done(mark),
        Attempt::Locked(who) => Attempt::Locked(who),
    })
}

/// What follows a detach: its rows are archived where the job has a store, and without a grace it is dropped at once. True:
/// it was dropped.
pub async fn go_on(
    session: &mut Session,
    plan: &Plan,
    shelf: Option<&Shelf<'_>>,
    table: &TableName,
    mark: Mark,
) -> Result<Attempt<bool>> {
    let mark = match shelf {
        Some(shelf) if !shelf.holds(&mark).await? => match shelf.put(session, plan, table, &mark).await? {
            Attempt::Done(mark) => mark,
            Attempt::Locked(who) => return Ok(Attempt::Locked(who)),
        },
        _ => mark,
    };
    if !plan.grace.is_zero() && plan.at - mark.at < chrono::TimeDelta::from_std(plan.grace).unwrap_or(chrono::TimeDelta::MAX) {
        return Ok(Attempt::Done(false));
    }
    Ok(match drop_table(session, table, &mark).await? {
        Attempt::Done(()) => Attempt::Done(true),
        Attempt::Locked(who) => Attempt::Locked(who),
    })
}

/// Takes the mark off.
pub async fn keep(session: &mut Session, partition: &TableName, mark: &Mark) -> Result<Attempt<()>> {
    let before = mark.comment.as_deref().map_or("NULL".to_owned(), literal);
    let sql = format!("COMMENT ON TABLE {} IS {before}", partition.sql());
    Ok(match session.transaction(&[sql], &[partition.oid]).await? {
        Attempt::Done(_) => Attempt::Done(()),
        Attempt::Locked(who) => Attempt::Locked(who),
    })
}

/// Looks once more, under the lock that it drops under: only a table that is detached and carries the mark that the plan saw.
/// Views and the like that depend on it make DROP fail, and are named by the server.
pub async fn drop_table(session: &mut Session, table: &TableName, mark: &Mark) -> Result<Attempt<()>> {
    let check = format!(
        "BEGIN
           IF {name}::pg_catalog.regclass <> {oid}::pg_catalog.oid THEN RAISE 'another table has its name now'; END IF;
           IF EXISTS (SELECT FROM pg_catalog.pg_inherits WHERE inhrelid = {oid}::pg_catalog.oid) THEN RAISE 'it is attached'; END IF;
           IF pg_catalog.strpos(coalesce(pg_catalog.obj_description({oid}::pg_catalog.oid, 'pg_class'), ''), {mark}) = 0 THEN
             RAISE 'its mark was changed'; END IF;
         END",
        name = literal(&table.sql()),
        oid = table.oid,
        mark = literal(&serde_json::to_string(mark)?),
    );
    // Rows that somebody wrote to it by its own name, after it was archived, are in no archive.
    let count = mark.archive.as_ref().map(|archive| {
        let check = format!(
            "BEGIN
               IF (SELECT count(*) FROM ONLY {}) <> {} THEN RAISE 'its rows are not those that were archived: look at both, and drop it by hand'; END IF;
             END",
            table.sql(),
            archive.rows
        );
        format!("DO {}", literal(&check))
    });
    // Nobody looks for a detached table: the counting may take its time. What DROP itself locks beside it, the targets of its
    // foreign keys, it locks last.
    let begun = session.begin(&lock(table), table.oid).await?;
    if let Attempt::Locked(who) = begun {
        return Ok(Attempt::Locked(who));
    }
    for statement in
        [Some(format!("DO {}", literal(&check))), count, Some(format!("DROP TABLE {}", table.sql())), Some("COMMIT".to_owned())]
            .into_iter()
            .flatten()
    {
        if let Err(error) = pg::execute_counting(&mut session.connection, statement).await {
            let _ = sqlx::query("ROLLBACK").execute(&mut session.connection).await;
            if session::is_for_a_lock(&error) {
                return Ok(Attempt::Locked("a table that it refers to is in use".to_owned()));
            }
            return Err(pg::in_its_own_words(error));
        }
    }
    Ok(Attempt::Done(()))
}

fn lock(table: &TableName) -> String {
    format!("LOCK TABLE ONLY {} IN ACCESS EXCLUSIVE MODE", table.sql())
}

fn comment(table: &TableName, text: &str) -> String {
    format!("COMMENT ON TABLE {} IS {}", table.sql(), literal(text))
}

async fn comment_of(session: &mut Session, table: &TableName) -> Result<Option<String>> {
    pg::fetch_text(&mut session.connection, format!("SELECT obj_description({}::oid, 'pg_class')", table.oid)).await
}

async fn is_attached(session: &mut Session, table: &TableName) -> Result<bool> {
    Ok(sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_inherits WHERE inhrelid = $1::bigint::oid)")
        .bind(table.oid)
        .fetch_one(&mut session.connection)
        .await?)
}
