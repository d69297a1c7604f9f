//! Retires a partition: mark, detach, archive, wait, drop. A run may be killed after any step.
//!
//! | Killed | Leaves | The next run |
//! |---|---|---|
//! | after the mark | an attached partition with a mark | detaches it, or removes the mark if it is no longer past its retention |
//! | in the second phase of a detach | a pending detach | finishes it |
//! | after the detach | a detached table marked "retiring" | marks it "retired" and guards it; its grace period starts then |
//! | while its rows are archived | an object that does not count, or one that does and a mark that says so | discards it, or continues |
//! | before the drop | a detached table marked "retired" | drops it when its grace period is over |

use anyhow::{Context as _, Result};

use super::archive::PartitionArchive;
use super::guard::{self, Guard};
use super::mark::Mark;
use super::plan::{Detach, Plan};
use super::state::has_rows;
use crate::archive::prepare_session;
use crate::live::session::{self, Attempt, Session};
use crate::pg::table::{Checked, TableName, proof};
use crate::pg::{self, literal};

pub async fn finalise(session: &mut Session, plan: &Plan, partition: &TableName) -> Result<Attempt<()>> {
    let sql = format!("ALTER TABLE {} DETACH PARTITION {} FINALIZE", plan.table.sql(), partition.sql());
    session.two_phases(sql, partition.oid, &[plan.table.oid, partition.oid]).await
}

/// Marks and detaches a partition. Returns the mark that it has until it is archived and dropped.
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
        session.transaction(&[comment(partition, &mark.comment(&plan.table.to_string())), is_the(partition)], &tables).await?
    {
        return Ok(Attempt::Locked(who));
    }
    let sql = format!("ALTER TABLE {} DETACH PARTITION {}", plan.table.sql(), partition.sql());
    match how {
        Detach::Concurrently => {
            match session.two_phases(format!("{sql} CONCURRENTLY"), partition.oid, &tables).await? {
                Attempt::Locked(who) => Ok(Attempt::Locked(who)),
                // It cannot run in a transaction, so the guard follows right after it.
                Attempt::Done(()) => confirm(session, plan, partition, &mark).await,
            }
        }
        Detach::Plainly => {
            let (mut statements, mark) = guarded(session, plan, partition, &mark).await?;
            statements.splice(0..0, [lock(&plan.table), sql, is_the(partition)]);
            let attempt = session.transaction(&statements, &tables).await;
            match attempt.map_err(|error| still_referred_to(error, partition))? {
                Attempt::Done(_) => Ok(Attempt::Done(mark)),
                Attempt::Locked(who) => Ok(Attempt::Locked(who)),
            }
        }
    }
}

/// Explains the error if rows of another table came to refer to the partition after the plan was made.
fn still_referred_to(error: anyhow::Error, partition: &TableName) -> anyhow::Error {
    match pg::sql_state(&error).as_deref() {
        Some("23503") => error.context(format!("{partition} was not detached: rows of another table refer to it")),
        _ => error,
    }
}

/// Starts the grace period of a detached table, which refuses changes from then on.
pub async fn confirm(session: &mut Session, plan: &Plan, table: &TableName, mark: &Mark) -> Result<Attempt<Mark>> {
    if is_attached(session, table).await? {
        return Ok(Attempt::Locked("its detach is still pending".to_owned()));
    }
    let (mut statements, mark) = guarded(session, plan, table, mark).await?;
    statements.splice(0..0, [lock(table), is_the(table)]);
    Ok(match session.transaction(&statements, &[table.oid]).await? {
        Attempt::Done(_) => Attempt::Done(mark),
        Attempt::Locked(who) => Attempt::Locked(who),
    })
}

/// Returns the statements that guard a detached table, and its new mark.
async fn guarded(session: &mut Session, plan: &Plan, table: &TableName, mark: &Mark) -> Result<(Vec<String>, Mark)> {
    let foreign_keys = guard::foreign_keys(&mut session.connection, table).await?;
    let now = pg::clock::of_server(&mut session.connection).await?;
    let mark = mark.retired(now, foreign_keys.clone());
    let mut statements = guard::statements(&mut session.connection, &plan.table, table, &mark, &foreign_keys).await?;
    statements.extend([comment(table, &mark.comment(&plan.table.to_string())), is_the(table)]);
    Ok((statements, mark))
}

/// The steps that a run has completed for a detached table.
#[derive(Clone, Copy, Debug, Default)]
pub struct Retired {
    pub archived: bool,
    /// The rows of its archive, if this run has written it.
    pub archived_rows: u64,
    /// True if its rows differed from its archive: they were archived again, and its grace period starts again.
    pub was_changed: bool,
    pub dropped: bool,
    /// It has rows that stay ([`super::plan::RowsThatStay`]).
    pub attached_again: bool,
}

/// Continues with a detached table: archives its rows if the job has a store, and drops it if its grace period is over.
pub async fn continue_retiring(
    session: &mut Session,
    plan: &Plan,
    archives: Option<&PartitionArchive<'_>>,
    table: &TableName,
    mark: Mark,
) -> Result<Attempt<Retired>> {
    let mut retired = Retired::default();
    let grace = chrono::TimeDelta::from_std(plan.grace).unwrap_or(chrono::TimeDelta::MAX);
    let is_over = plan.grace.is_zero() || plan.at - mark.at >= grace;
    let mut mark = mark;
    if let Some(archives) = archives
        && !archives.holds(session, &plan.table, &mark, is_over).await?
    {
        mark = match archives.put(session, plan, table, &mark).await? {
            Attempt::Done(mark) => mark,
            Attempt::Locked(who) => return Ok(Attempt::Locked(who)),
        };
        retired.archived = true;
        retired.archived_rows = mark.archive.as_ref().map_or(0, |archive| archive.rows);
    }
    if !is_over {
        return Ok(Attempt::Done(retired));
    }
    let stay = plan.rows_that_stay.as_ref().filter(|rows| rows.may_be_in(&mark)).map(|rows| rows.condition.as_str());
    match drop_table(session, table, &mark, stay).await? {
        Attempt::Locked(who) => return Ok(Attempt::Locked(who)),
        Attempt::Done(DropOutcome::Gone) => retired.dropped = true,
        Attempt::Done(DropOutcome::WasChanged) => {
            let Some(archives) = archives else {
                anyhow::bail!(
                    "{table} is kept: its rows differ from those that were archived, and the job no longer has an `archive`; set it again, \
                     or drop the table yourself"
                );
            };
            let again = match confirm(session, plan, table, &mark).await? {
                Attempt::Done(mark) => archives.put(session, plan, table, &mark).await?,
                Attempt::Locked(who) => return Ok(Attempt::Locked(who)),
            };
            if let Attempt::Locked(who) = again {
                return Ok(Attempt::Locked(who));
            }
            retired = Retired { archived: true, was_changed: true, ..Retired::default() };
        }
        Attempt::Done(DropOutcome::HasRowsThatStay) => {
            if let Attempt::Locked(who) = attach_again(session, plan, archives, table, &mark).await? {
                return Ok(Attempt::Locked(who));
            }
            retired.attached_again = true;
        }
    }
    Ok(Attempt::Done(retired))
}

/// Makes it a partition again, as it was.
async fn attach_again(
    session: &mut Session,
    plan: &Plan,
    archives: Option<&PartitionArchive<'_>>,
    table: &TableName,
    mark: &Mark,
) -> Result<Attempt<()>> {
    let bounds = mark.bounds.as_deref().with_context(|| {
        format!("{table} stays detached: it has rows that the job keeps, and its mark does not say which bounds it had; attach it manually")
    })?;
    let attach = format!("ALTER TABLE {} ATTACH PARTITION {} {bounds}", plan.table.sql(), table.sql());
    match session.transaction(&[attach, is_the(table)], &[plan.table.oid, table.oid]).await? {
        Attempt::Done(_) => keep(session, plan, archives, table, mark).await,
        Attempt::Locked(who) => Ok(Attempt::Locked(who)),
    }
}

/// Removes the mark and the guard of a partition that stays. Its archived rows are recorded as back: otherwise `archives restore` would
/// insert them a second time.
pub async fn keep(
    session: &mut Session,
    plan: &Plan,
    archives: Option<&PartitionArchive<'_>>,
    partition: &TableName,
    mark: &Mark,
) -> Result<Attempt<()>> {
    let before = mark.comment.as_deref().map_or("NULL".to_owned(), literal);
    let mut statements = vec![format!("COMMENT ON TABLE {} IS {before}", partition.sql()), is_the(partition)];
    if mark.is_guarded {
        statements.extend(guard::removal(&mut session.connection, partition).await?);
        let there = guard::foreign_keys(&mut session.connection, partition).await?;
        for lacking in mark.foreign_keys.iter().filter(|key| !there.iter().any(|one| one.definition == key.definition)) {
            tracing::warn!(
                "{partition} is attached again, but lacks a foreign key that it had: ALTER TABLE {} ADD CONSTRAINT {} {}",
                partition.sql(),
                pg::identifier(&lacking.name),
                lacking.definition
            );
        }
    }
    let (Some(archived), Some(archives)) = (&mark.archive, archives) else {
        if let Some(archived) = &mark.archive {
            tracing::warn!(
                "{partition} stays, but the job no longer has an `archive`: the batch {} still counts, and `archives restore` would insert \
                 its rows a second time",
                archived.key
            );
        }
        return Ok(match session.transaction(&statements, &[partition.oid]).await? {
            Attempt::Done(_) => Attempt::Done(()),
            Attempt::Locked(who) => Attempt::Locked(who),
        });
    };
    // The change is in the transaction that the record names, so that both count or neither does.
    let comment = statements.remove(0);
    if let Attempt::Locked(who) = session.begin(&comment, partition.oid).await? {
        return Ok(Attempt::Locked(who));
    }
    let kept = async {
        for statement in statements {
            pg::execute(&mut session.connection, statement).await?;
        }
        let back = archives
            .is_back(session, plan, archived)
            .await
            .with_context(|| format!("cannot record that the rows of {} are back", archived.key))?;
        pg::execute(&mut session.connection, "COMMIT".to_owned()).await?;
        Ok(back)
    };
    match kept.await {
        Ok(Some(back)) => back.confirm().await,
        Ok(None) => {}
        Err(error) => {
            let _ = pg::execute(&mut session.connection, "ROLLBACK".to_owned()).await;
            return match crate::live::governor::is_lock_trouble(&error) {
                true => Ok(Attempt::Locked(session.holders(&[partition.oid]).await?)),
                false => Err(error),
            };
        }
    }
    Ok(Attempt::Done(()))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DropOutcome {
    Gone,
    /// The table was written to after it was archived: it stays.
    WasChanged,
    /// It has rows that are not to go: it stays.
    HasRowsThatStay,
}

/// The table under the lock that it would be dropped under.
enum LastCheck {
    /// These statements drop its guard.
    Goes {
        functions: Vec<String>,
    },
    Stays(DropOutcome),
}

/// Drops the table after a last check under the same lock: it must be detached, have the mark that the plan saw, and have the rows of its
/// archive. Views and other objects that depend on it make DROP fail; the server names them.
pub async fn drop_table(
    session: &mut Session,
    table: &TableName,
    mark: &Mark,
    stay: Option<&str>,
) -> Result<Attempt<DropOutcome>> {
    // A detached table is hardly used, so the check may take long. DROP itself also locks the targets of its foreign keys; it does that
    // last.
    let begun = session.begin(&lock(table), table.oid).await?;
    if let Attempt::Locked(who) = begun {
        return Ok(Attempt::Locked(who));
    }
    let compared = async {
        let check = format!("DO {}", literal(&is_the_one(table, mark)?));
        pg::execute_counting(&mut session.connection, check).await.map_err(pg::in_its_own_words)?;
        if let Some(condition) = stay
            && has_rows(&mut session.connection, table, condition).await?
        {
            return Ok(LastCheck::Stays(DropOutcome::HasRowsThatStay));
        }
        let functions = guard::drop_functions(&mut session.connection, table).await?;
        let is_as_archived = is_as_archived(session, table, mark).await?;
        anyhow::Ok(if is_as_archived { LastCheck::Goes { functions } } else { LastCheck::Stays(DropOutcome::WasChanged) })
    };
    let functions = match compared.await {
        Ok(LastCheck::Goes { functions }) => functions,
        Ok(LastCheck::Stays(why)) => {
            let _ = sqlx::query("ROLLBACK").execute(&mut session.connection).await;
            return Ok(Attempt::Done(why));
        }
        Err(error) => {
            let _ = sqlx::query("ROLLBACK").execute(&mut session.connection).await;
            return Err(error);
        }
    };
    let statements = [format!("DROP TABLE {}", table.sql())].into_iter().chain(functions).chain(["COMMIT".to_owned()]);
    for statement in statements {
        if let Err(error) = pg::execute_counting(&mut session.connection, statement).await {
            let _ = sqlx::query("ROLLBACK").execute(&mut session.connection).await;
            if session::is_lock_error(&error) {
                return Ok(Attempt::Locked("a table that it refers to is in use".to_owned()));
            }
            return Err(pg::in_its_own_words(error));
        }
    }
    Ok(Attempt::Done(DropOutcome::Gone))
}

fn is_the_one(table: &TableName, mark: &Mark) -> Result<String> {
    Ok(format!(
        "BEGIN
           IF {name}::pg_catalog.regclass <> {oid}::pg_catalog.oid THEN RAISE 'another table has its name now'; END IF;
           IF EXISTS (SELECT FROM pg_catalog.pg_inherits WHERE inhrelid = {oid}::pg_catalog.oid) THEN RAISE 'it is attached'; END IF;
           IF pg_catalog.strpos(coalesce(pg_catalog.obj_description({oid}::pg_catalog.oid, 'pg_class'), ''), {mark}) = 0 THEN
             RAISE 'its mark was changed'; END IF;
         END",
        name = literal(&table.sql()),
        oid = table.oid,
        mark = literal(&serde_json::to_string(mark)?),
    ))
}

/// Returns whether the table has the rows of its archive.
async fn is_as_archived(session: &mut Session, table: &TableName, mark: &Mark) -> Result<bool> {
    let connection = &mut session.connection;
    let Some(archived) = &mark.archive else {
        // Without an archive there is nothing to compare, and a removed guard means that the table is still needed.
        if mark.is_guarded {
            let why = match guard::look(connection, table).await? {
                Guard::Holds => return Ok(true),
                Guard::Removed => format!("its trigger {} was removed", guard::TRIGGER),
                Guard::OfAnother { function, owner } => {
                    format!("the function of its trigger {}, {function}, belongs to {owner}, who may change it", guard::TRIGGER)
                }
            };
            anyhow::bail!("{table} is kept: {why}, so its rows may be in use; drop the table yourself if they are not");
        }
        return Ok(true);
    };
    // The guard and the number of rows prove too little: a statement trigger fires neither for the apply worker of a subscription, nor for
    // writes through another root to which the table was attached in the meantime.
    prepare_session(connection).await?;
    let (rows, contents) =
        guard::contents(connection, table).await.with_context(|| format!("cannot compare {table} with its archive"))?;
    Ok(rows == archived.rows && archived.contents.as_ref() == Some(&contents))
}

/// Returns a statement that fails, and so rolls the transaction back, if the name belongs to another table. Statements use names, and the
/// owner of the schema may put another table in the partition's place.
fn is_the(table: &TableName) -> String {
    proof([&Checked::of(table)])
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
