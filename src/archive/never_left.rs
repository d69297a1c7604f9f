//! Batches of a history that a server no longer has: it was set back to a state before them (a snapshot of its disk, a recovery to a point in time,
//! a failover that lost the last transactions). Their rows never left, so that they are in the table or in a later batch.

use anyhow::Result;
use chrono::Utc;
use sqlx::PgConnection;

use super::batch::{BatchName, MANIFEST, PENDING, RESTORED};
use super::filter::Filter;
use super::left_here::{Left, is_its_table, left};
use super::manifest::{Manifest, SameTable};
use super::outcome::Recovered;
use super::restored::{Accepts, Here, Record, Restored};
use super::session::{self, Fate};
use super::{Archive, listing, look};
use crate::base::fault::{Fault, Kind};
use crate::store::{Object, Store};

impl Archive {
    /// Finds batches of this archive whose transaction is in the server's future, and records that their rows never left. Afterwards the server
    /// gives their numbers out again, and nothing tells any more.
    pub(super) async fn note_what_never_left(
        &self,
        connection: &mut PgConnection,
        objects: &[Object],
        recovered: &mut Recovered,
    ) -> Result<()> {
        let next = session::next_transaction(connection).await?;
        let counts = |key: &str| key.ends_with(MANIFEST) && !key.ends_with(PENDING) && !key.ends_with(RESTORED);
        for name in objects.iter().filter(|object| counts(&object.key)).filter_map(|object| object.key.strip_suffix(MANIFEST)) {
            let name = BatchName(name.to_owned());
            if name.transaction().is_none_or(|transaction| transaction < next) {
                continue;
            }
            // A file that cannot be read is named where batches are listed.
            let Ok(Some((manifest, signature))) = listing::read(&self.store, &name).await else { continue };
            if signature.is_ours() && self.note(connection, &name, &manifest).await? {
                recovered.left.push(never_left(&name, &manifest));
            }
        }
        Ok(())
    }

    /// Returns false if there is nothing to record.
    async fn note(&self, connection: &mut PgConnection, name: &BatchName, manifest: &Manifest) -> Result<bool> {
        let Some(table) = manifest.table_here(connection).await? else { return Ok(false) };
        let Some(here) = Here::of(connection, &self.database, &table).await? else { return Ok(false) };
        if left(connection, manifest, &here).await? != Left::Never {
            return Ok(false);
        }
        // Rows that came back did so in the same history as the batch.
        let mut record = Record::read(&self.store, name, Accepts::default()).await?;
        record.resolve(connection, &here).await?;
        if !record.may_never_have_left(&here) {
            return Ok(false);
        }
        Record::change(&self.store, name, Accepts::default(), |record| {
            record.times.push(entry(manifest, &here));
        })
        .await?;
        Ok(true)
    }
}

fn entry(manifest: &Manifest, here: &Here) -> Restored {
    Restored {
        place: here.place.clone(),
        filter: Filter::default(),
        at: Utc::now(),
        rows: manifest.exported.rows,
        left_again: 0,
        // It came before whatever takes the rows from now on.
        transaction: 0,
        server_started_at: here.server_started_at.clone(),
        is_committed: true,
        never_left: true,
        left_with: Vec::new(),
        is_elsewhere: false,
    }
}

/// Says whether the rows of a batch have left the table.
pub(super) enum Standing {
    Left,
    NeverLeft(String),
    /// It cannot be shown that they left this server.
    Doubted(String),
}

/// Finds that out, where nothing says that rows of the batch came back. A note of a server with another start may be one of a physical copy, which knows nothing
/// of the batch: it counts where rows are found in the table, and not where this server knows that they left. It is an error where neither tells.
pub(super) async fn standing(
    store: &Store,
    batch: &(BatchName, Manifest),
    connection: &mut PgConnection,
    record: &mut Record,
    here: &Here,
) -> Result<Standing> {
    let (name, manifest) = batch;
    let Some(noted) = record.whole(here).filter(|whole| whole.never_left && whole.left_again == 0).cloned() else {
        if !record.may_never_have_left(here) {
            return Ok(Standing::Left);
        }
        if let Some(noted) = record.never_left_elsewhere(here).find(|noted| is_its_table(manifest, &noted.place)) {
            return Ok(Standing::Doubted(noted_elsewhere(name, manifest, noted)));
        }
        return Ok(match left(connection, manifest, here).await? {
            Left::Here => Standing::Left,
            Left::Never => Standing::NeverLeft(never_left(name, manifest)),
            Left::Unknown(why) => Standing::Doubted(doubted(name, manifest, &why)),
        });
    };
    if noted.server_started_at == here.server_started_at {
        return Ok(Standing::NeverLeft(never_left(name, manifest)));
    }
    if has_left(connection, manifest).await? {
        record.forget_what_never_left(here);
        return Ok(Standing::Left);
    }
    if look::is_any_there(store, batch, connection, (&here.place, &noted.filter)).await? {
        return Ok(Standing::NeverLeft(never_left(name, manifest)));
    }
    Err(Fault::new(Kind::Busy, noted_by_another(name, manifest, &noted)).into())
}

/// Says why a batch and the one that replaces it, `by`, may be of two servers or databases, in a database that neither of them left: a physical copy of a
/// server finds its batches, and makes one of its own in the place of the original's, and so did a copy of a database in earlier releases. A server that was
/// restarted since looks the same. Pure.
pub(super) fn may_be_of_a_copy(
    (name, manifest): &(BatchName, Manifest),
    (by_name, by): &(BatchName, Manifest),
    here: &Here,
) -> Option<String> {
    if is_its_table(by, &here.place) {
        return None;
    }
    let compare = format!(
        "Compare the two (`pgtend archives list`), and put back the one whose rows you want: --again --batch {name} (as they were first), or --again \
         --batch {by_name}"
    );
    if by.same_table(manifest) != SameTable::Yes {
        return Some(format!(
            "{by_name} was made in the place of {name}, and nothing shows that both are of one database: it may be of a copy, whose rows may be others. \
             {compare}"
        ));
    }
    let start = |manifest: &Manifest| manifest.server_started_at.clone();
    let (start, by_start) = start(manifest).zip(start(by)).filter(|(start, by_start)| start != by_start)?;
    Some(format!(
        "{by_name} was made in the place of {name}, by a server that was started at {by_start}, and the other one by one that was started at {start}: \
         that is the same server, restarted since, or a physical copy of it, whose rows may be others. {compare}"
    ))
}

/// Returns whether this server knows, without a restart since, that the batch's transaction committed.
async fn has_left(connection: &mut PgConnection, manifest: &Manifest) -> Result<bool> {
    let Some(transaction) = manifest.transaction else { return Ok(false) };
    Ok(session::fate(connection, transaction, manifest.server_started_at.as_deref()).await? == Fate::Committed)
}

fn noted_by_another(name: &BatchName, manifest: &Manifest, noted: &Restored) -> String {
    format!(
        "a server that was started at {} noted on {} that the rows of {name} never left {}: this one, set back to a state before that, or a physical copy of \
         it, which knows nothing of the batch. None of them was found there. Where no later batch has them either, --again puts them back",
        noted.server_started_at,
        noted.at.format("%Y-%m-%d"),
        manifest.table_in_words()
    )
}

fn noted_elsewhere(name: &BatchName, manifest: &Manifest, noted: &Restored) -> String {
    format!(
        "a server that was started at {} noted on {} that the rows of {name} never left {}: the one that archived them was set back to a state before that, \
         or it is a physical copy, which knows nothing of the batch. Where it was set back, a later batch has them, too. Where none has, \
         --again --batch {name} puts them back",
        noted.server_started_at,
        noted.at.format("%Y-%m-%d"),
        manifest.table_in_words()
    )
}

fn doubted(name: &BatchName, manifest: &Manifest, why: &str) -> String {
    format!(
        "nothing shows that the rows of {name} left {} of this server: {why}. Check whether they are in the table, or in another batch; where they are in \
         neither, --again --batch {name} puts them back",
        manifest.table_in_words()
    )
}

fn never_left(name: &BatchName, manifest: &Manifest) -> String {
    format!(
        "the rows of {name} never left {}: the server was set back to a state before transaction {}, which archived them. They are in the \
         table, or in another batch; --again puts them back anyway",
        manifest.table_in_words(),
        manifest.transaction.unwrap_or_default()
    )
}
