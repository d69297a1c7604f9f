//! Sealed manifests (`seal_manifest`): the whole manifest, encrypted for the recipients of the store, in one that says only what is needed without a key:
//! which set it is, of which server, how long its objects are and which hashes they have. Names of tables, their rows, roles, settings and warnings are
//! sealed. Stock tools open it: `jq -r .sealed.contents manifest.json | base64 -d | age -d -i key`.

use anyhow::{Context as _, Result};

use super::facts::{DatabaseFacts, ServerFacts};
use super::manifest::{self, Manifest};
use crate::base::age_keys::{AgeKeys, Recipient};
use crate::members::sealed::Sealed;
use crate::store::Store;

/// Returns the manifest as it is written to a store with these keys: sealed, where the store seals and the set is encrypted to its recipients. What is
/// sealed already stays so.
pub fn as_written(manifest: &Manifest, keys: &AgeKeys) -> Result<Manifest> {
    if let Some(sealed) = &manifest.sealed {
        return Ok(without_names(manifest, sealed.clone()));
    }
    let recipients: Vec<String> = keys.recipients.iter().map(ToString::to_string).collect();
    let is_for_them = manifest.dump.encryption.as_ref().is_some_and(|encryption| encryption.recipients == recipients);
    if !keys.seals_manifests || !is_for_them {
        return Ok(manifest.clone());
    }
    Ok(without_names(manifest, seal(manifest, &keys.recipients)?))
}

/// Encrypts a manifest for these, of whom there is one at least.
pub fn seal(manifest: &Manifest, recipients: &[Recipient]) -> Result<Sealed> {
    Sealed::of(serde_json::to_vec(manifest)?, recipients)
}

/// Returns whether nobody who reads the store shall read names of tables and the like in what stands beside the set.
pub fn hides_names(store: &Store, manifest: &Manifest) -> bool {
    manifest.sealed.is_some() || store.age_keys().seals_manifests
}

/// What stands in the open.
fn without_names(manifest: &Manifest, sealed: Sealed) -> Manifest {
    let Manifest { server, .. } = manifest;
    let database = DatabaseFacts {
        name: server.database.name.clone(),
        oid: server.database.oid,
        marks: server.database.marks.clone(),
        schema_oid: server.database.schema_oid,
        size_bytes: server.database.size_bytes,
        ..DatabaseFacts::default()
    };
    let server = ServerFacts {
        database,
        extensions: Vec::new(),
        roles: Vec::new(),
        tablespaces: Vec::new(),
        event_triggers: Vec::new(),
        subscriptions: Vec::new(),
        partitions: Vec::new(),
        unreadable: Vec::new(),
        ..server.clone()
    };
    Manifest {
        format: manifest::SEALED_FORMAT,
        server,
        tables: Vec::new(),
        warnings: Vec::new(),
        sealed: Some(sealed),
        is_opened: false,
        ..manifest.clone()
    }
}

/// Opens a manifest that was read, if it is sealed and one of the keys opens it; otherwise it stays as it is. An error if what is sealed is not what was
/// written with it.
pub fn opened(outer: Manifest, keys: &std::sync::Arc<AgeKeys>) -> Result<Manifest> {
    let Some(contents) = outer.sealed.as_ref().map(|sealed| sealed.open(keys)).transpose()?.flatten() else { return Ok(outer) };
    let inner: Manifest = serde_json::from_slice(&contents).context("its sealed part is not a manifest")?;
    let of = |manifest: &Manifest| {
        let Manifest { job, database, started_at, dump, .. } = manifest;
        (job.clone(), database.clone(), *started_at, dump.bytes, dump.sha256.clone())
    };
    anyhow::ensure!(of(&inner) == of(&outer), "its sealed part is of another set");
    manifest::check(&inner).context("its sealed part")?;
    Ok(Manifest { sealed: outer.sealed, is_opened: true, ..inner })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use age::secrecy::ExposeSecret as _;
    use age::x25519::Identity;

    use super::*;
    use crate::base::age_keys::Identities;
    use crate::members::blocks::Hasher;
    use crate::members::encryption::{Encryption, Format};
    use crate::task::backup::manifest::tests::sound;

    fn keys(identity: &Identity) -> Arc<AgeKeys> {
        let recipients = vec![Recipient::parse(&identity.to_public().to_string()).unwrap()];
        let identities = Identities::parse("key".into(), identity.to_string().expose_secret()).unwrap();
        Arc::new(AgeKeys { recipients, identities: Some(identities), seals_manifests: true })
    }

    fn encrypted(identity: &Identity) -> Manifest {
        let mut manifest = sound();
        manifest.server.roles = vec!["secret_role".to_owned()];
        manifest.warnings = vec!["the dump lacks secret_table".to_owned()];
        let recipients = vec![identity.to_public().to_string()];
        let encryption = Encryption { format: Format::Age, header_bytes: 200, contents_bytes: 10, recipients };
        manifest.dump.object = "dump.sql.gz.age".to_owned();
        manifest.dump.bytes = encryption.stored_bytes();
        manifest.dump.blocks = Some(Hasher::default().finish());
        manifest.dump.encryption = Some(encryption);
        manifest.tables[0].name = "secret_table".to_owned();
        manifest
    }

    #[test]
    fn a_sealed_manifest_names_nothing_and_is_whole_again_with_a_key() {
        let (own, other) = (Identity::generate(), Identity::generate());
        let manifest = encrypted(&own);
        let outer = as_written(&manifest, &keys(&own)).unwrap();
        assert!(!serde_json::to_string(&outer).unwrap().contains("secret_"));
        assert!(outer.names_are_sealed() && outer.dump.sha256 == manifest.dump.sha256);
        let inner = opened(outer.clone(), &keys(&own)).unwrap();
        assert!(inner.tables == manifest.tables && inner.server.roles == manifest.server.roles && !inner.names_are_sealed());
        let again = as_written(&inner, &AgeKeys::default()).unwrap();
        assert_eq!(serde_json::to_value(&again).unwrap(), serde_json::to_value(&outer).unwrap(), "a copy of it is the same");
        assert!(opened(outer.clone(), &keys(&other)).unwrap().names_are_sealed());

        let mut swapped = outer;
        swapped.dump.sha256 = "1".repeat(64);
        assert!(opened(swapped, &keys(&own)).unwrap_err().to_string().contains("of another set"));
        assert!(as_written(&manifest, &keys(&other)).unwrap().sealed.is_none(), "its recipients could not open it");
    }
}
