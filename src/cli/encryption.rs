//! What `check` says about stores that encrypt.

use crate::base::age_keys::in_short;
use crate::config::{Config, Store};
use crate::run::job::Job;
use crate::task::backup::choose::cannot_open;
use crate::task::backup::{Backup, Verify};

/// Says to whom a store encrypts, and whether this host opens what it writes; `None` for a store without keys.
pub fn in_words(store: &Store) -> Option<String> {
    let keys = store.age_keys();
    if keys.recipients.is_empty() {
        let identities = keys.identities.as_ref()?;
        return Some(format!(
            "what is written is not encrypted; {} opens what is encrypted to {}",
            identities.file.display(),
            public_keys(store)
        ));
    }
    let recipients: Vec<String> = keys.recipients.iter().map(|recipient| in_short(&recipient.to_string())).collect();
    let opens = match keys.cannot_open_own() {
        None => "this host opens what it writes".to_owned(),
        Some(why) => format!("this host cannot open what it writes: {why}"),
    };
    Some(format!("to {}; {opens}", recipients.join(", ")))
}

fn public_keys(store: &Store) -> String {
    let keys: Vec<String> = store.age_keys().identities.iter().flat_map(|identities| identities.public_keys()).collect();
    keys.iter().map(|key| in_short(key)).collect::<Vec<_>>().join(", ")
}

/// Warns of keys that would be missed, and of jobs that cannot do here what they ask for.
pub fn warnings(config: &Config, jobs: &[Job]) -> Vec<String> {
    let mut warnings = Vec::new();
    for (name, store) in &config.stores {
        let keys = store.age_keys();
        // No key at all is a choice; one that fits nothing is mostly a rotation that was not finished.
        if let (false, Some(_), Some(why)) = (keys.recipients.is_empty(), &keys.identities, keys.cannot_open_own()) {
            warnings.push(format!("store `{name}`: this host has a secret key, and cannot open what it writes: {why}"));
        }
        if keys.seals_manifests && keys.cannot_open_own().is_some() {
            warnings.push(format!(
                "store `{name}` seals manifests, and this host has no key for them: a run does not notice that a dump lacks tables which the one before it \
                 had, but only that it is half as long"
            ));
        }
        if let [only] = &keys.recipients[..] {
            warnings.push(format!(
                "store `{name}` encrypts to one key alone, {}: whoever loses that loses every backup. Add the public key of a second one, which lies \
                 somewhere safe (docs/howto/encrypt-backups.md)",
                in_short(&only.to_string())
            ));
        }
    }
    for job in jobs {
        let restoring = job.task.as_a::<Backup>().filter(|backup| backup.verify == Verify::Restore);
        let why = restoring.and_then(|backup| cannot_open(backup, config));
        warnings.extend(why.map(|why| format!("job `{}`: {why}", job.name)));
    }
    warnings
}
