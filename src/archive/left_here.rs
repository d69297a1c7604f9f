//! Decides whether the rows of a batch left this very server: its transaction is in the history of this one. A standby that was promoted has the history of
//! its primary up to a place in the log; a physical copy has that of the original up to its own start. All have the same system identifier.

use anyhow::Result;
use sqlx::PgConnection;

use super::manifest::Manifest;
use super::restored::{Here, Place};
use super::session::{self, Fate};
use crate::pg;
use crate::pg::wal::{self, Branch, parse_lsn};

/// Says where the rows of a batch left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Left {
    Here,
    /// The rows are in the table, or in a later batch: the transaction is not in the history of this server.
    Never,
    /// It cannot be shown; the text says why.
    Unknown(String),
}

/// What this server, which was started since, says of the batch's transaction and of itself.
#[derive(Clone, Debug)]
struct Facts {
    /// Batches of the first release do not say when their server was started.
    says_its_start: bool,
    /// This server ran already when a server with another start archived the rows.
    ran_already: bool,
    fate: Fate,
    /// The timelines of the batch and of this server.
    timelines: Option<(i64, i64)>,
    /// The transaction comes after the place where this server left that timeline; `None` where nothing tells.
    is_past_the_branch: Option<bool>,
}

/// Asks the server, and decides. Not within a transaction.
pub(super) async fn left(connection: &mut PgConnection, manifest: &Manifest, here: &Here) -> Result<Left> {
    // Of another table or database, the record and the person who names it decide.
    let Some(transaction) = manifest.transaction.filter(|_| is_its_table(manifest, &here.place)) else { return Ok(Left::Here) };
    let its_start = manifest.server_started_at.as_deref().unwrap_or_default();
    if its_start == here.server_started_at {
        return Ok(Left::Here);
    }
    // A server that does not say is one whose timeline decides nothing.
    let own = wal::position(connection).await.ok().map(|position| position.timeline);
    let timelines = manifest.timeline.zip(own);
    let is_past_the_branch = match timelines {
        Some((theirs, own)) if theirs < own => match wal::branch(connection, own, theirs).await {
            Branch::At(lsn) => manifest.lsn.as_deref().and_then(parse_lsn).map(|written_at| written_at >= lsn),
            Branch::Never => Some(true),
            Branch::Unknown => None,
        },
        _ => None,
    };
    let fate = session::fate(connection, transaction, None).await?;
    let ran_already = here.ran_already(manifest.archived_at, its_start);
    Ok(decide(&Facts { says_its_start: !its_start.is_empty(), ran_already, fate, timelines, is_past_the_branch }))
}

/// Only the table that the rows were in can tell.
pub(super) fn is_its_table(manifest: &Manifest, place: &Place) -> bool {
    let is_its_table = match manifest.origin {
        Some(origin) => (origin.database, origin.table) == (place.database, place.table),
        None => !manifest.names_are_sealed() && pg::qualified(&manifest.schema, &manifest.table) == place.name,
    };
    manifest.database == place.configured && manifest.system_identifier.as_ref() == Some(&place.system_identifier) && is_its_table
}

/// Pure.
fn decide(facts: &Facts) -> Left {
    let Facts { says_its_start, ran_already, fate, timelines, is_past_the_branch } = facts;
    let is_promoted = timelines.is_some_and(|(theirs, own)| theirs < own);
    match fate {
        // Its number is free, or is of one that was rolled back.
        Fate::Undone if is_promoted || !ran_already => return Left::Never,
        Fate::Undone => {
            let why = "this server, which ran already then, says that the transaction did not commit here: a physical copy of it \
                       archived the rows, or the one that it is a copy of";
            return Left::Unknown(why.to_owned());
        }
        _ => {}
    }
    match (timelines, is_past_the_branch) {
        (_, Some(true)) => Left::Never,
        (_, Some(false)) => Left::Here,
        (Some((theirs, own)), _) if theirs > own => Left::Unknown(format!(
            "they left on timeline {theirs}, and this server is on timeline {own}: one that was promoted, or a copy of this one, archived them"
        )),
        (Some((theirs, own)), None) if theirs < own && *ran_already => Left::Unknown(format!(
            "they left on timeline {theirs} of another server, and whether this one, which is on timeline {own}, has that transaction is not \
             known: a role with the rights of pg_read_server_files and EXECUTE on pg_read_file(text) can tell"
        )),
        (Some((theirs, own)), None) if theirs < own => Left::Here,
        _ if *ran_already && *says_its_start => Left::Unknown(format!(
            "another server archived them while this one ran already{}",
            if timelines.is_none() { ", and on which timelines the two were is not known" } else { "" }
        )),
        _ => Left::Here,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_left_here_only_where_the_history_of_this_server_has_the_transaction() {
        let (left, never, unknown) = ("left", "never", "unknown");
        for (ran_already, fate, timelines, is_past_the_branch, expected) in [
            // Restarted since.
            (false, Fate::Committed, Some((1, 1)), None, left),
            (false, Fate::Forgotten, None, None, left),
            // Set back to a state before it.
            (false, Fate::Undone, Some((1, 1)), None, never),
            (false, Fate::Undone, None, None, never),
            // A promoted standby.
            (true, Fate::Undone, Some((1, 2)), None, never),
            (true, Fate::Committed, Some((1, 2)), Some(true), never),
            (true, Fate::Committed, Some((1, 2)), Some(false), left),
            (true, Fate::Committed, Some((1, 2)), None, unknown),
            (false, Fate::Committed, Some((1, 2)), Some(true), never),
            (false, Fate::Committed, Some((1, 2)), None, left),
            // The former primary, or the original of a copy that was promoted.
            (true, Fate::Committed, Some((2, 1)), None, unknown),
            (false, Fate::Committed, Some((2, 1)), None, unknown),
            (false, Fate::Undone, Some((2, 1)), None, never),
            // A copy on the same timeline, beside this server.
            (true, Fate::Committed, Some((1, 1)), None, unknown),
            (true, Fate::Undone, Some((1, 1)), None, unknown),
            (true, Fate::Committed, None, None, unknown),
            (true, Fate::Undone, None, None, unknown),
        ] {
            let facts = Facts { says_its_start: true, ran_already, fate, timelines, is_past_the_branch };
            let decided = match decide(&facts) {
                Left::Here => left,
                Left::Never => never,
                Left::Unknown(_) => unknown,
            };
            assert_eq!(decided, expected, "{facts:?}");
        }
    }
}
