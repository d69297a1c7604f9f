//! Cleans up after a kill: completes or removes the batches of transactions whose end no process recorded. What it removes, the server of the transaction
//! has rolled back, as it says itself without a restart in between: a physical copy of that server says of every later transaction that it was not committed.

use anyhow::{Context as _, Result};
use chrono::{TimeDelta, Utc};
use sqlx::PgConnection;

use super::batch::{BatchName, MANIFEST, PENDING};
use super::manifest::Manifest;
use super::outcome::{self, Recovered, Rows};
use super::restored::ran_already;
use super::session::{Fate, server_started_at, system_identifier};
use super::{Archive, listing, sealed};
use crate::store::{Object, Unfinished};

/// No run takes longer than this between two objects, or parts, that it writes.
const ABANDONED_AFTER: TimeDelta = TimeDelta::days(1);

impl Archive {
    /// Completes or removes what a killed run left. It refuses in case of doubt: a transaction that still runs, that the server has
    /// forgotten. Batches of other servers, and foreign or unreadable files, are left alone and named.
    pub async fn recover(&self, connection: &mut PgConnection) -> Result<Recovered> {
        let mut recovered = Recovered::default();
        let objects = self.store.list_readable(&self.folder).await?.objects;
        let pending = objects.iter().filter_map(|object| object.key.strip_suffix(PENDING)).map(|name| BatchName(name.to_owned()));
        let pending: Vec<BatchName> = pending.collect();
        // Before the pending files go that say whose they are.
        let uploads = self.store.unfinished(&self.folder).await?;
        for name in &pending {
            self.recover_batch(connection, name, &uploads, &mut recovered).await?;
        }
        self.note_what_never_left(connection, &objects, &mut recovered).await?;
        self.discard_abandoned(&pending, &uploads, &objects).await?;
        Ok(recovered)
    }

    /// Removes unfinished uploads without a pending file, which a killed run left before it or an earlier release of the object: of processes of this host that
    /// have ended, and what is a day old by the store's clock. Another host may still be at work on others.
    async fn discard_abandoned(&self, pending: &[BatchName], uploads: &[Unfinished], objects: &[Object]) -> Result<()> {
        let times = objects.iter().map(|object| object.modified_at).chain(uploads.iter().map(|upload| upload.started_at));
        // In a folder, a file may be dated ahead.
        let now = times.flatten().max().map(|newest| newest.min(Utc::now()));
        for upload in uploads.iter().filter(|upload| !pending.iter().any(|name| name.has(&upload.key))) {
            let is_old = upload.started_at.zip(now).is_some_and(|(at, now)| now - at > ABANDONED_AFTER);
            if is_old || self.store.is_of_the_dead(upload) {
                self.store.discard(upload).await?;
            }
        }
        Ok(())
    }

    /// Removes the unfinished uploads of a batch that has ended. Those of others are of runs on other servers, which may be at work.
    async fn discard_uploads(&self, name: &BatchName, uploads: &[Unfinished]) -> Result<()> {
        for upload in uploads.iter().filter(|upload| name.has(&upload.key)) {
            self.store.discard(upload).await?;
        }
        Ok(())
    }

    /// Completes or removes one batch. The run that makes it may still be at work, if it lost its lock and does not know that yet: only what is read
    /// after its transaction has ended describes the batch.
    async fn recover_batch(
        &self,
        connection: &mut PgConnection,
        name: &BatchName,
        uploads: &[Unfinished],
        recovered: &mut Recovered,
    ) -> Result<()> {
        let Some(announced) = self.pending(name, recovered).await? else { return Ok(()) };
        let counts = self.store.stat(&format!("{name}{MANIFEST}")).await?.is_some();
        if counts {
            return self.delete_pending(name, &announced, recovered).await;
        }
        if let Some(there) = of_another_server(connection, &announced).await? {
            recovered.left.push(format!("{}: {there}", self.location(name)));
            return Ok(());
        }
        let fate = outcome::fate_of(connection, &announced).await.with_context(|| self.location(name))?;
        // Where it is gone by now, its own run has completed or discarded the batch.
        let Some(manifest) = self.pending(name, recovered).await? else { return Ok(()) };
        let found = self.bytes_of(name, &manifest).await?;
        let rows = match is_of_another(connection, &manifest).await? && fate == Fate::Undone {
            true => Rows::LeftElsewhere,
            false => outcome::rows_after(fate, &manifest).with_context(|| self.location(name))?,
        };
        match rows {
            Rows::Stayed => {
                recovered.discarded += 1;
                self.discard_uploads(name, uploads).await?;
                self.discard(name).await?;
            }
            Rows::NothingWritten if found.is_none() => {
                recovered.discarded += 1;
                self.discard_uploads(name, uploads).await?;
                self.store.delete(&name.pending()).await?;
            }
            Rows::Left if self.has_object(name, &manifest).await? => {
                recovered.completed += 1;
                self.discard_uploads(name, uploads).await?;
                recovered.left.extend(names_no_sources(&manifest));
                self.make_count(name, &manifest).await?;
            }
            Rows::LeftElsewhere => recovered.left.push(self.may_be_of_another_server(name, &manifest)),
            // The rows may exist nowhere else: nothing of the batch is deleted, and no later run fails because of it.
            Rows::Left | Rows::NothingWritten => {
                recovered.left.push(self.does_not_match(name, &manifest, found));
            }
        }
        Ok(())
    }

    /// Returns the pending manifest of a batch; `None` when there is none, or when it is not ours, which is added to what is left.
    async fn pending(&self, name: &BatchName, recovered: &mut Recovered) -> Result<Option<Manifest>> {
        let key = name.pending();
        match sealed::read(&self.store, &key).await? {
            None => return Ok(None),
            Some(Ok((manifest, signature))) if signature.is_ours() => return Ok(Some(manifest)),
            Some(Ok((_, signature))) => {
                recovered.left.push(format!("{} stays: {}", self.store.location(&key), signature.in_words()));
            }
            Some(Err(error)) => recovered.left.push(format!("{error:#}; it stays")),
        }
        Ok(None)
    }

    /// Returns the length of the object that a manifest speaks of. One that announces no object yet may have either.
    pub(super) async fn bytes_of(&self, name: &BatchName, manifest: &Manifest) -> Result<Option<u64>> {
        let is_known = manifest.exported.bytes > 0;
        let keys = if is_known { vec![name.object(&manifest.exported)] } else { name.objects().into() };
        for key in keys {
            if let Some(object) = self.store.stat(&key).await? {
                return Ok(Some(object.bytes));
            }
        }
        Ok(None)
    }

    /// Deletes the pending file of a batch that counts already: the file no longer has a meaning, and may be an old one that was copied
    /// back.
    async fn delete_pending(&self, name: &BatchName, pending: &Manifest, recovered: &mut Recovered) -> Result<()> {
        let counts = match listing::read(&self.store, name).await {
            Ok(Some((counts, signature))) if signature.is_ours() => Some(counts),
            _ => None,
        };
        let found = match &counts {
            Some(counts) => self.bytes_of(name, counts).await?,
            None => None,
        };
        match counts.is_some_and(|counts| found == Some(counts.exported.bytes) && is_its_manifest(&counts, pending)) {
            true => {
                recovered.completed += 1;
                match self.record_what_left_again(name, pending).await {
                    true => self.store.delete(&name.pending()).await,
                    false => Ok(()),
                }
            }
            false => {
                recovered.left.push(format!(
                    "{} stays: the {MANIFEST} beside it does not match its object: compare the two",
                    self.store.location(&name.pending())
                ));
                Ok(())
            }
        }
    }

    fn may_be_of_another_server(&self, name: &BatchName, manifest: &Manifest) -> String {
        format!(
            "{} stays: its transaction {} did not commit on this server, which was started since. If this is a copy of the server that archived the rows, that one \
             completes it. If this one was set back or crashed, check whether the rows are in the table: if they are, delete the {PENDING} and {}; if \
             not, rename it to {MANIFEST}",
            self.store.location(&name.pending()),
            manifest.transaction.unwrap_or_default(),
            name.object(&manifest.exported)
        )
    }

    fn does_not_match(&self, name: &BatchName, manifest: &Manifest, found: Option<u64>) -> String {
        let object = name.object(&manifest.exported);
        let read = if manifest.exported.encryption.is_some() { "age -d -i KEY OBJECT | gunzip" } else { "gunzip -c OBJECT" };
        format!(
            "{} stays: PostgreSQL says that its transaction {} committed, or may have, so its rows were deleted. But it records {} bytes of its \
             object {object}, which {}. Check whether the rows are in the table; if not, `{read} | psql` puts them back; then delete the {PENDING}",
            self.store.location(&name.pending()),
            manifest.transaction.unwrap_or_default(),
            manifest.exported.bytes,
            match found {
                None => "does not exist".to_owned(),
                Some(found) if found == manifest.exported.bytes => "has another SHA-256".to_owned(),
                Some(found) => format!("has {found}"),
            }
        )
    }
}

/// Says whose batch it is, where it is that of a run on another server: that one alone knows what became of the rows. No two batches have one name, so this
/// one is in nobody's way.
async fn of_another_server(connection: &mut PgConnection, pending: &Manifest) -> Result<Option<String>> {
    let here = system_identifier(connection).await?;
    let Some(there) = pending.system_identifier.as_ref().filter(|there| **there != here) else { return Ok(None) };
    Ok(Some(format!(
        "a run on another server ({there}; this is {here}) left it, or is at work on it; the next run of the job there ends it. Where that server is gone for \
         good, no table may have its rows: keep the object, and rename its {PENDING} to {MANIFEST}"
    )))
}

/// Returns whether this server ran already when another one, of which it is a physical copy or the other way round, announced the batch.
async fn is_of_another(connection: &mut PgConnection, pending: &Manifest) -> Result<bool> {
    let Some(their_start) = &pending.server_started_at else { return Ok(false) };
    let own_start = server_started_at(connection).await?;
    Ok(own_start != *their_start && ran_already(&own_start, pending.archived_at, their_start))
}

/// Returns whether the manifest can be of the batch that was announced: a pending file from before there was an object knows none.
fn is_its_manifest(counts: &Manifest, pending: &Manifest) -> bool {
    let has_object = pending.exported.bytes > 0;
    let pending = Manifest { exported: if has_object { &pending.exported } else { &counts.exported }.clone(), ..pending.clone() };
    counts.is_of_the_batch_of(&pending)
}

/// Earlier releases did not write down the batches whose rows left again.
fn names_no_sources(manifest: &Manifest) -> Option<String> {
    (manifest.came_back > 0 && manifest.came_from.is_empty()).then(|| {
        format!(
            "{} rows that had come back left again in a run that was killed, but `archives restore` still counts them as back: use --again to \
             put them back",
            manifest.came_back
        )
    })
}
