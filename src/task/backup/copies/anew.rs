//! A copy for other recipients than those of the set, or of the store that it goes to: what is encrypted is opened on its way, and encrypted anew. A copy for
//! others that is there already gives way only when a person says so, and only after the one that it is made of was read and decoded.

use anyhow::Result;

use super::copy::Copy;
use super::pass::Opens;
use crate::base::age_keys::Recipient;
use crate::base::fault::{Fault, Kind};
use crate::base::progress::Progress;
use crate::members::decrypt::recipients_in_words;
use crate::task::backup::locked;
use crate::task::backup::manifest::Manifest;
use crate::task::backup::sealed;
use crate::task::backup::set::Set;
use crate::task::backup::verify;

impl Copy<'_> {
    /// To whom it is encrypted on its way; nobody: it goes as it is.
    pub(super) fn recipients(&self) -> &[Recipient] {
        match self.encrypt_to {
            Some(recipients) => recipients,
            None if self.set.is_encrypted() => &[],
            None => &self.to.1.age_keys().recipients,
        }
    }

    /// How an object is opened on its way; None: it is not.
    pub(super) fn opens(&self, object: &str) -> Option<Opens> {
        let dump = &self.set.manifest.dump;
        let encryption = dump.encryption.as_ref().filter(|_| self.encrypt_to.is_some())?;
        Some(if object == dump.object { Opens::Known(encryption.clone()) } else { Opens::AsItSays })
    }

    /// Fails where the set has to be opened, and no key of this host does that.
    pub(super) async fn ensure_opens(&self) -> Result<()> {
        if self.encrypt_to.is_none() || !self.set.is_encrypted() {
            return Ok(());
        }
        let (name, store) = self.from;
        let refused = || format!("it cannot be encrypted for others: that takes a key that opens the copy in {name}");
        if self.set.manifest.names_are_sealed() {
            return Err(locked::refusal(store, self.set, "its manifest is sealed").context(refused()));
        }
        locked::ensure_opens(store, self.set).await.map_err(|error| error.context(refused()))
    }

    /// Returns whether a copy that is there is one for those that were asked for; whoever did not ask takes any.
    pub(super) fn is_for_them(&self, copy: &Set) -> bool {
        let Some(asked) = self.encrypt_to else { return true };
        let keys = |mut keys: Vec<String>| {
            keys.sort();
            keys
        };
        let there = copy.manifest.dump.encryption.iter().flat_map(|encryption| &encryption.recipients);
        let there = there.map(|text| Recipient::parse(text).map_or_else(|_| text.clone(), |recipient| recipient.key()));
        keys(there.collect()) == keys(asked.iter().map(Recipient::key).collect())
    }

    /// Fails unless a copy for others may give way.
    pub(super) fn ensure_replaces(&self, copy: &Set) -> Result<()> {
        let (to, set) = (self.to.0, &self.set.name);
        let message = || {
            format!(
                "{set} is in {to} already, {}, and stays as it is. With --replace, this copy takes its place when all of it was sent",
                in_words(copy)
            )
        };
        anyhow::ensure!(self.replace, Fault::new(Kind::Configuration, message()));
        Ok(())
    }

    /// Reads and decodes the set where it comes from: a copy that is there does not give way for less.
    pub(super) async fn prove_source(&self, progress: &Progress) -> Result<()> {
        let mut set = self.set.clone();
        match verify::by_checksum(self.from.1, &mut set, progress).await? {
            None => Ok(()),
            Some(why) => Err(locked::refusal(self.from.1, self.set, &why)),
        }
    }

    /// Seals the manifest of a copy for others than those of the store, if the set's is sealed, or the store seals all.
    pub(super) fn sealed(&self, manifest: Manifest) -> Result<Manifest> {
        let Some(recipients) = self.encrypt_to else { return Ok(manifest) };
        let seals = manifest.sealed.is_some() || self.to.1.age_keys().seals_manifests;
        let manifest = Manifest { sealed: None, is_opened: false, ..manifest };
        if !seals {
            return Ok(manifest);
        }
        let sealed = sealed::seal(&manifest, recipients)?;
        Ok(Manifest { sealed: Some(sealed), is_opened: true, ..manifest })
    }
}

fn in_words(copy: &Set) -> String {
    match &copy.manifest.dump.encryption {
        None => "not encrypted".to_owned(),
        Some(encryption) => format!("encrypted to {}", recipients_in_words(&encryption.recipients)),
    }
}
