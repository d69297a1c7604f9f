//! Copies a set from one store to another, object by object, its manifest last. Each object is hashed on its way and compared with the manifest;
//! objects that are there already are compared and not sent again. In the end the copy is read back, and has a verdict of its own.

use anyhow::{Context as _, Result};
use chrono::Utc;
use sha2::{Digest as _, Sha256};
use tokio_util::sync::CancellationToken;

use super::copy_plan::{Plan, Planned};
use super::fan_out::Stored;
use super::holds;
use super::pass::{self, Source};
use super::place::{self, Place};
use super::proof::record_proof;
use crate::base::age_keys::{Recipient, in_short};
use crate::base::fault::{Fault, Kind};
use crate::base::process_identity::ProcessIdentity;
use crate::base::progress::{Phase, Progress};
use crate::pg::failure;
use crate::store::lease::{self, Lease, Taken};
use crate::store::{Precondition, Store, Upload};
use crate::task::backup::manifest::{self, Globals, Manifest};
use crate::task::backup::markers::{Hold, RUN, RunMarker};
use crate::task::backup::set::{self, AsListed, Set, globals_object};
use crate::task::backup::verdict::{Bytes, Verification};
use crate::task::backup::{dump, guard, relock, verify};

/// A copy that is to be made. The stores have their names in the configuration.
pub struct Copy<'a> {
    pub set: &'a Set,
    pub from: (&'a str, &'a Store),
    pub to: (&'a str, &'a Store),
    /// A person said that a store with a key may take a set from one without: its signature will vouch for it from then on.
    pub unsigned_ok: bool,
    /// The copy is encrypted for these, whoever the set and the store are for. None: a plain one for those of the store, and an encrypted one stays as it is.
    pub encrypt_to: Option<&'a [Recipient]>,
    /// A copy for others, which is there, gives way.
    pub replace: bool,
    /// No run of the set's job is active.
    pub runs_are_over: bool,
}

/// What was done.
#[derive(Debug, Default)]
pub struct Copied {
    /// The copy, with its verdict.
    pub set: Option<Set>,
    /// All of it was there before.
    pub was_there: bool,
    pub sent_bytes: u64,
    /// Objects that were there with the right bytes.
    pub kept: Vec<String>,
}

impl Copy<'_> {
    /// Looks, and changes nothing.
    pub async fn plan(&self) -> Result<Plan> {
        self.ensure_vouched()?;
        self.ensure_opens().await?;
        let (to_name, to) = self.to;
        let (nonce, _) = place::nonce_of(self.from.1, self.set).await?;
        let place = place::look(to, to_name, self.set, &nonce).await?;
        let is_for_others = match &place {
            Place::Complete(copy) if !self.is_for_them(copy) => self.ensure_replaces(copy).map(|()| true)?,
            _ => false,
        };
        let mut objects = Vec::new();
        for Source { object, bytes, .. } in sources(&self.set.manifest) {
            let there = if self.encrypts() { None } else { to.stat(&self.set.name.key(&object)).await? };
            objects.push(Planned { is_there: there.is_some_and(|there| there.bytes == bytes), object, bytes });
        }
        Ok(Plan {
            set: self.set.name.to_string(),
            from: self.from.0.to_owned(),
            to: to_name.to_owned(),
            is_there: matches!(place, Place::Complete(_)) && !is_for_others,
            replaces: is_for_others,
            objects,
            encrypts: self.encrypts(),
            recipients: self.recipients().iter().map(ToString::to_string).collect(),
            notes: self.sealed_for_others().into_iter().collect(),
        })
    }

    /// Copies what is not there. Whatever stops it, the set does not exist there before all of it does, and the next call goes on.
    pub async fn apply(&self, progress: &Progress, cancel: &CancellationToken) -> Result<Copied> {
        self.ensure_vouched()?;
        self.ensure_opens().await?;
        let (to_name, to) = self.to;
        let (nonce, run) = place::nonce_of(self.from.1, self.set).await?;
        match place::look(to, to_name, self.set, &nonce).await? {
            Place::Complete(copy) if !self.is_for_them(&copy) => {
                self.ensure_replaces(&copy)?;
                let proving = self.prove_source(progress);
                cancel.run_until_cancelled(proving).await.unwrap_or_else(|| Err(cancelled()))?;
            }
            Place::Complete(copy) => {
                if let Some(interrupted) = place::interrupted_deletion(to, to_name, self.set, self.runs_are_over).await? {
                    interrupted.finish(to).await?;
                }
                if self.bring_holds().await? {
                    holds::ensure_counts(to, to_name, &copy).await?;
                }
                let there = Copied { was_there: true, ..Copied::default() };
                match self.prove(*copy, there, progress, cancel).await {
                    Err(error) if !cancel.is_cancelled() => match place::look(to, to_name, self.set, &nonce).await? {
                        Place::Begun(_) => tracing::warn!("the copy in {to_name} is made anew: {}", failure::in_a_line(&error)),
                        Place::Complete(_) | Place::Free => return Err(error),
                    },
                    Ok(copied) => {
                        if let Some(copy) = &copied.set {
                            relock::renew(to, copy).await?;
                            self.remove_objects_before(&copy.manifest).await;
                        }
                        return Ok(copied);
                    }
                    Err(error) => return Err(error),
                }
            }
            Place::Begun(_) | Place::Free => {}
        }
        let lease = self.take_lease().await?;
        let (mut sent, mut held) = (Vec::new(), None);
        let copied = self.copy(lease.as_ref(), (nonce, run), (&mut sent, &mut held), progress, cancel).await;
        if copied.is_err() {
            for mut upload in sent {
                upload.abort().await;
            }
        }
        if let Some(lease) = lease
            && let Err(error) = lease.release().await
        {
            tracing::warn!("the lock object stays until it is old enough to be taken over: {error:#}");
        }
        let proved = match copied {
            Ok((copy, copied)) => self.prove(copy, copied, progress, cancel).await,
            Err(error) => Err(error),
        };
        if let (Err(_), Some(held)) = (&proved, &held) {
            self.release(held).await;
        }
        proved
    }

    /// Returns the copy, which is not read back yet. `sent`: the uploads that wait until the copy before gives way; `held`: a hold of the source
    /// that may end when the copy fails.
    async fn copy(
        &self,
        lease: Option<&Lease>,
        (nonce, run): (String, Option<i64>),
        (sent, held): (&mut Vec<Upload>, &mut Option<Hold>),
        progress: &Progress,
        cancel: &CancellationToken,
    ) -> Result<(Set, Copied)> {
        let (to_name, to) = self.to;
        let marker = RunMarker {
            process: ProcessIdentity::own(),
            nonce,
            run,
            identity: self.set.identity(),
            started_at: Utc::now(),
            completed_at: None,
        };
        let replaced = self.begin(&marker, held).await?;
        self.sealed_for_others().iter().for_each(|note| tracing::warn!("{note}"));
        let (mut copied, mut made) = (Copied::default(), Vec::new());
        for source in sources(&self.set.manifest) {
            let phase = progress.phase("copy", Some(source.bytes));
            let key = self.set.name.key(&self.object_there(&source.object));
            if !self.encrypts() && is_there(to, &key, &source, cancel).await? {
                copied.kept.push(source.object.clone());
                phase.done(&format!("{} is in {to_name}", to.location(&key)));
                continue;
            }
            let (stored, upload) = self.send(&source, &key, replaced.is_none(), (&phase, cancel)).await?;
            sent.extend(upload);
            copied.sent_bytes += stored.bytes;
            phase.done(&format!("{} → {}", self.from.1.location(&self.set.name.key(&source.object)), to.location(&key)));
            made.push((source.object, stored));
        }
        let manifest = self.manifest_there(made)?;
        // Before the manifest makes a set of them: the lock that they have is older than its own.
        let kept: Vec<String> = copied.kept.iter().map(|object| self.set.name.key(object)).collect();
        relock::as_new(to, &kept).await?;
        if let Some(lease) = lease {
            lease.prove().await?;
        }
        if let Some(old) = &replaced {
            self.take_the_place_of(old, &manifest, sent, &marker, held).await?;
        }
        self.bring_holds().await?;
        // A verdict that stands there is of the bytes before.
        to.delete(&self.set.name.key(set::VERIFICATION)).await?;
        set::write_manifest(to, &self.set.name, &manifest).await?;
        self.remove_objects_before(&manifest).await;
        let copy = Set {
            name: self.set.name.clone(),
            manifest,
            verification: Verification::default(),
            holds: self.set.holds.iter().filter(|hold| !hold.for_copy).cloned().collect(),
            listed: AsListed::default(),
        };
        Ok((copy, copied))
    }

    /// Holds the copy for as long as the set is held where it comes from: now, as a run may have held it since it was listed. Returns whether it wrote.
    async fn bring_holds(&self) -> Result<bool> {
        let (now, mut wrote) = (Utc::now(), false);
        for hold in set::read_holds(self.from.1, &self.set.name).await.iter().filter(|hold| hold.until > now && !hold.for_copy) {
            if holds::write_longer(self.to.1, &self.set.name, hold).await? {
                tracing::info!("{} is held in {}, as it is in {}", self.set.name, self.to.0, self.from.0);
                wrote = true;
            }
        }
        Ok(wrote)
    }

    /// A signature says that pgtend wrote the object: it must not be given to what anyone may have written.
    fn ensure_vouched(&self) -> Result<()> {
        let is_vouched = self.unsigned_ok || !self.to.1.has_sign_key() || self.from.1.has_sign_key();
        anyhow::ensure!(
            is_vouched,
            Fault::new(
                Kind::Configuration,
                format!(
                    "{} is not copied: {} signs what it holds, and {} has no key, so that nobody knows who wrote the set there. Give that store a \
                     key as well (sign_key_file), or add --unsigned-ok: then the copy is signed, whoever wrote it",
                    self.set.name, self.to.0, self.from.0
                )
            )
        );
        Ok(())
    }

    /// Returns whether it is encrypted on its way: a plain set that goes into a store that encrypts, or one that is for others.
    fn encrypts(&self) -> bool {
        !self.recipients().is_empty()
    }

    fn object_there(&self, object: &str) -> String {
        let ending = if self.encrypts() && !self.set.is_encrypted() { crate::members::encryption::ENDING } else { "" };
        format!("{object}{ending}")
    }

    /// A set that is encrypted stays as it is, unless somebody asks: to open it takes a secret key, which this host need not have.
    fn sealed_for_others(&self) -> Option<String> {
        let sealed = self.set.manifest.dump.encryption.as_ref().filter(|_| self.encrypt_to.is_none())?;
        let there: Vec<String> = self.to.1.age_keys().recipients.iter().map(ToString::to_string).collect();
        let is_for = |recipient: &String| sealed.recipients.contains(recipient);
        if there.is_empty() {
            return Some(format!(
                "the copy stays encrypted as it is in {}, to {}: {} itself encrypts nothing",
                self.from.0,
                sealed.recipients.iter().map(|text| in_short(text)).collect::<Vec<_>>().join(", "),
                self.to.0
            ));
        }
        let others: Vec<String> = there.iter().filter(|recipient| !is_for(recipient)).map(|text| in_short(text)).collect();
        (!others.is_empty()).then(|| {
            format!(
                "the copy stays encrypted as it is in {}, which is not to {} of {}; --encrypt-to encrypts it anew, where a key opens it",
                self.from.0,
                others.join(", "),
                self.to.0
            )
        })
    }

    /// Takes the lock of the folder of sets, which keeps other copies and deletions out.
    async fn take_lease(&self) -> Result<Option<Lease>> {
        let name = &self.set.name;
        match lease::take(self.to.1, &guard::lock_key(&name.database, &name.job), None).await? {
            Taken::Held(lease) => Ok(Some(lease)),
            Taken::HeldByOther(who) => {
                let message =
                    format!("another process copies or deletes sets of {}/{} in {}: {who}", name.database, name.job, self.to.0);
                Err(Fault::new(Kind::Busy, message).into())
            }
            // Two copies of the same bytes do each other no harm.
            Taken::Impossible(why) if !self.encrypts() => {
                tracing::debug!("copied without a lock: {why}");
                Ok(None)
            }
            Taken::Impossible(why) => Err(Fault::new(Kind::Configuration, why).into()),
        }
    }

    /// Writes `run.json` with this process, under the lock: what is there may have changed since it was looked at. Returns the copy for others that is there
    /// and stays until all was sent.
    async fn begin(&self, marker: &RunMarker, held: &mut Option<Hold>) -> Result<Option<Set>> {
        let (to_name, to) = self.to;
        let key = self.set.name.key(RUN);
        let gone = || Fault::new(Kind::Busy, format!("another process has just begun to write {} to {to_name}", self.set.name));
        match place::look(to, to_name, self.set, &marker.nonce).await? {
            Place::Complete(copy) if self.replace && !self.is_for_them(&copy) => return Ok(Some(*copy)),
            Place::Complete(_) => return Err(gone().into()),
            Place::Free if to.can_put_if().await? => {
                let written = to.put_if(&key, to.to_json(&key, marker)?, Precondition::Absent).await?;
                written.ok_or_else(gone)?;
            }
            Place::Free => to.put_json(&key, marker).await?,
            Place::Begun(there) => {
                // A run may still be writing other bytes, if they are encrypted, and removes what it wrote if it fails.
                let may_be_alive = !self.runs_are_over && there.process != marker.process && !there.is_over();
                if may_be_alive {
                    let message = format!(
                        "{} may still be written to {to_name} by {}: copy it when that has ended, on the same host, or let the next run do it",
                        self.set.name, there.process
                    );
                    return Err(Fault::new(Kind::Deferred, message).into());
                }
                let deletion = place::interrupted_deletion(to, to_name, self.set, self.runs_are_over).await?;
                if let Err(error) = self.hold_source(held).await {
                    let why = failure::in_a_line(&error);
                    tracing::warn!("{} is not held in {} while it is copied: {why}", self.set.name, self.from.0);
                }
                // Of a copy that was complete once, no sweep takes the dump before this one is.
                to.put_json(&key, &RunMarker { completed_at: there.completed_at, ..marker.clone() }).await?;
                if let Some(interrupted) = deletion {
                    interrupted.finish(to).await?;
                }
            }
        }
        Ok(None)
    }

    /// Sends one object, and makes it visible only if its bytes are those of the manifest, and now only if it is to `finish`: else it returns the upload.
    async fn send(
        &self,
        source: &Source,
        key: &str,
        finish: bool,
        (phase, cancel): (&Phase, &CancellationToken),
    ) -> Result<(Stored, Option<Upload>)> {
        let mut upload = self.to.1.upload_locked(key, source.bytes).await?;
        let sending = async {
            let key = self.set.name.key(&source.object);
            let (store_name, store) = self.from;
            let from = pass::Origin { store_name, store, key, opens: self.opens(&source.object) };
            let stored = pass::pass(&from, source, self.recipients(), &mut upload, phase).await?;
            if finish {
                upload.finish().await?;
            }
            Ok(stored)
        };
        let sent = cancel.run_until_cancelled(sending).await.unwrap_or_else(|| Err(cancelled()));
        if sent.is_err() {
            upload.abort().await;
        }
        Ok((sent?, (!finish).then_some(upload)))
    }

    /// The manifest of the copy.
    fn manifest_there(&self, made: Vec<(String, Stored)>) -> Result<Manifest> {
        let mut manifest = self.set.manifest.clone();
        if !self.encrypts() {
            return Ok(manifest);
        }
        let mut globals_stored = None;
        for (object, stored) in made {
            if object != manifest.dump.object {
                globals_stored = Some((stored.bytes, stored.sha256));
                continue;
            }
            manifest.dump.bytes = stored.bytes;
            manifest.dump.sha256 = stored.sha256;
            manifest.dump.blocks = Some(stored.blocks);
            manifest.dump.encryption = stored.encryption;
            manifest.dump.members.crc32.clear();
        }
        manifest.dump.compression.encrypted_dump_object().clone_into(&mut manifest.dump.object);
        if let (Globals::Object { bytes, sha256, .. }, Some(stored)) = (&mut manifest.globals, globals_stored) {
            (*bytes, *sha256) = stored;
        }
        match &mut manifest.adopted {
            None => manifest.format = manifest::format_of(&manifest.tables, true),
            // The hash of what is encrypted would tell whether somebody has guessed it.
            Some(adopted) => adopted.sha256 = None,
        }
        self.sealed(dump::without_words_of_servers(&manifest))
    }

    /// Reads the copy back, unless that was done; and records what was proved of the same bytes where they come from.
    async fn prove(&self, mut copy: Set, mut copied: Copied, progress: &Progress, cancel: &CancellationToken) -> Result<Copied> {
        let (to_name, to) = self.to;
        // Also what was there before: it may have changed since it was read.
        if copied.was_there || copy.verification.verdict() != Bytes::Intact {
            let verifying = verify::by_checksum(to, &mut copy, progress);
            let verified = cancel.run_until_cancelled(verifying).await.unwrap_or_else(|| Err(cancelled()));
            verified.with_context(|| format!("the copy of {} in {to_name}", self.set.name))?;
        }
        // By the clock of this store, the copy would be younger than the set.
        let written_at = self.set.written_before_it_began();
        let proved = Verification { written_at, ..self.set.verification.clone() };
        record_proof(&proved, self.from, to, &self.set.manifest, &mut copy).await?;
        self.release_source().await;
        copied.set = Some(copy);
        Ok(copied)
    }
}

/// The objects of a set besides its manifest.
pub(super) fn sources(manifest: &Manifest) -> Vec<Source> {
    let dump = &manifest.dump;
    let mut sources = vec![Source { object: dump.object.clone(), bytes: dump.bytes, sha256: dump.sha256.clone() }];
    if let Globals::Object { bytes, sha256, .. } = &manifest.globals {
        let object = globals_object(dump.encryption.is_some()).to_owned();
        sources.push(Source { object, bytes: *bytes, sha256: sha256.clone() });
    }
    sources
}

/// Returns whether the object is there with these bytes, by reading them.
async fn is_there(store: &Store, key: &str, source: &Source, cancel: &CancellationToken) -> Result<bool> {
    if store.stat(key).await?.is_none_or(|there| there.bytes != source.bytes) {
        return Ok(false);
    }
    let reading = async {
        let Some(mut reader) = store.read(key).await? else { return Ok(false) };
        let mut hash = Sha256::new();
        while let Some(chunk) = reader.chunk().await? {
            hash.update(&chunk);
        }
        anyhow::Ok(hex::encode(hash.finalize()) == source.sha256)
    };
    cancel.run_until_cancelled(reading).await.unwrap_or_else(|| Err(cancelled()))
}

fn cancelled() -> anyhow::Error {
    Fault::new(Kind::Cancelled, "cancelled: what was copied stays, and the next copy goes on from there").into()
}
