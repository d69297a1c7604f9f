//! `encrypt_to`, `encrypt_to_file` and `identity_file` of a store.

use std::collections::BTreeSet;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use toml::Spanned;

use super::Loader;
use crate::base::age_keys::{AgeKeys, IDENTITY_FILE_BYTES, Identities, MAX_RECIPIENTS, Recipient, is_secret, recipients_of};
use crate::base::units;
use crate::config::NamedFile;
use crate::config::written::WrittenStore;

impl Loader<'_> {
    /// A store with a mistake among its recipients has a problem, so that nothing is written to it in the clear.
    pub(super) fn age_keys(&mut self, store: &str, written: &mut WrittenStore) -> AgeKeys {
        let (listed, file, identity_file) =
            (written.encrypt_to.take(), written.encrypt_to_file.take(), written.identity_file.take());
        let mut recipients = Vec::new();
        recipients.extend(listed.into_iter().flat_map(|listed| self.listed(store, listed)));
        recipients.extend(file.into_iter().flat_map(|file| self.in_file(store, &file)));
        let mut seen = BTreeSet::new();
        recipients.retain(|recipient| seen.insert(recipient.key()));
        if recipients.len() > MAX_RECIPIENTS {
            let message = format!("store `{store}`: {} recipients", recipients.len());
            let hint = format!("at most {MAX_RECIPIENTS}: each is in the head of every object");
            self.problems.push(self.source.problem(None, message, Some(hint)));
        }
        let identities = identity_file.and_then(|file| self.identities(store, &file));
        AgeKeys { seals_manifests: self.seals(store, written, &recipients), recipients, identities }
    }

    fn seals(&mut self, store: &str, written: &WrittenStore, recipients: &[Recipient]) -> bool {
        let Some(seal) = written.seal_manifest.as_ref().filter(|seal| *seal.get_ref()) else { return false };
        if recipients.is_empty() {
            let message = format!("`seal_manifest` of store `{store}`, which encrypts nothing");
            self.problem(seal, message, "name who may open it: encrypt_to = [\"age1…\"]");
        }
        true
    }

    fn listed(&mut self, store: &str, listed: Spanned<Vec<Spanned<String>>>) -> Vec<Recipient> {
        if listed.get_ref().is_empty() {
            let hint = "name a public key, or remove `encrypt_to`: \"age1…\", which `age-keygen` prints";
            self.problem(&listed, format!("`encrypt_to` of store `{store}` is empty, and nothing would be encrypted"), hint);
        }
        let mut recipients = Vec::new();
        for text in listed.into_inner() {
            match Recipient::parse(text.get_ref()) {
                Ok(recipient) => recipients.push(recipient),
                // The problem does not point at a secret key, whose line would be shown.
                Err(why) => {
                    let place = (!is_secret(text.get_ref())).then(|| text.span());
                    let message = format!("store `{store}`: a text in `encrypt_to` {why}");
                    self.problems.push(self.source.problem(place, message, Some(HOW_TO.to_owned())));
                }
            }
        }
        recipients
    }

    fn in_file(&mut self, store: &str, file: &Spanned<PathBuf>) -> Vec<Recipient> {
        let Some((shown, text)) = self.text_of("encrypt_to_file", store, file) else { return Vec::new() };
        let wrong = match recipients_of(&text) {
            Ok(recipients) if recipients.is_empty() => "has no public key, and nothing would be encrypted".to_owned(),
            Ok(recipients) => return recipients,
            Err(why) => why,
        };
        self.problem(file, format!("`encrypt_to_file` of store `{store}`: `{shown}`: {wrong}"), HOW_TO);
        Vec::new()
    }

    fn identities(&mut self, store: &str, file: &Spanned<PathBuf>) -> Option<Identities> {
        let (shown, text) = self.text_of("identity_file", store, file)?;
        match Identities::parse(self.folder.join(file.get_ref()), &text) {
            Ok(identities) => Some(identities),
            Err(why) => {
                let hint = "a file of `age-keygen`, or a private key of OpenSSH, without a passphrase";
                self.problem(file, format!("`identity_file` of store `{store}`: `{shown}` {why}"), hint);
                None
            }
        }
    }

    /// Returns the file's name and text. Of a secret file, others may read nothing; its group may, as systemd's credentials are given so.
    fn text_of(&mut self, key: &str, store: &str, file: &Spanned<PathBuf>) -> Option<(String, String)> {
        let path = self.folder.join(file.get_ref());
        let shown = path.display().to_string();
        let of = || format!("`{key}` of store `{store}`");
        if is_secret(&shown) {
            self.problem(
                file,
                format!("{} is a secret key itself", of()),
                "write it into a file with mode 600, and name the file",
            );
            return None;
        }
        self.files.push(NamedFile { key: of(), path: path.clone(), is_secret: key == "identity_file" });
        let read = std::fs::metadata(&path).and_then(|metadata| {
            if !metadata.is_file() {
                return Err(std::io::Error::other("it is not a regular file"));
            }
            let text = match metadata.len() {
                0..=IDENTITY_FILE_BYTES => std::fs::read_to_string(&path)?,
                more => return Err(std::io::Error::other(format!("it has {}, and a file of keys has less", units::bytes(more)))),
            };
            Ok((metadata, text))
        });
        let (metadata, text) = match read {
            Ok(read) => read,
            Err(error) => {
                self.problem(file, format!("{}: cannot read `{shown}`: {error}", of()), "it must be there whenever pgtend runs");
                return None;
            }
        };
        let mode = metadata.permissions().mode();
        if key == "encrypt_to_file"
            && rustix::process::geteuid().is_root()
            && let Some(who) = who_may_replace(&path, metadata.uid())
        {
            let message = format!(
                "{}: {who} may write `{shown}` or replace it, and whose key they add there could open all that is written",
                of()
            );
            self.problem(file, message, "root runs this: give the file and its folder to root, and run chmod go-w on both");
            return None;
        }
        if key == "encrypt_to_file" && mode & 0o022 != 0 {
            let message =
                format!("{}: others may write `{shown}`, and whose key they add there could open all that is written", of());
            self.problem(file, message, "run chmod go-w on it");
            return None;
        }
        if key == "identity_file" && mode & 0o007 != 0 {
            let message = format!("{}: everyone on this host may read `{shown}`, and with it all that is encrypted", of());
            self.problem(file, message, "run chmod 600 on it; in Kubernetes, set defaultMode: 0440 for the secret's volume");
            return None;
        }
        if key == "identity_file" && mode & 0o020 != 0 {
            let message = format!("{}: the group of `{shown}` may write it, and put another key there", of());
            self.problem(file, message, "run chmod g-w on it");
            return None;
        }
        Some((shown, text))
    }
}

/// Returns who but root may put another file in its place: its owner, or whoever may write to its folder.
fn who_may_replace(path: &Path, owner: u32) -> Option<String> {
    const STICKY: u32 = 0o1000;
    if owner != 0 {
        return Some(format!("its owner, the user with the ID {owner},"));
    }
    // Links are followed: what counts is where the file is.
    let folder = path.canonicalize().ok()?.parent()?.to_owned();
    let found = folder.metadata().ok()?;
    let mode = found.permissions().mode();
    match found.uid() {
        0 if mode & 0o022 != 0 && mode & STICKY == 0 => {
            Some(format!("others, who may write to its folder {},", folder.display()))
        }
        0 => None,
        owner => Some(format!("the user with the ID {owner}, who owns its folder {},", folder.display())),
    }
}

const HOW_TO: &str = "a public key: \"age1…\", which `age-keygen` prints, or a line of a .pub file of OpenSSH";
