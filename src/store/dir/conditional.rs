//! Conditional writes in a directory. A writer holds a lock on a guard file in the store's root, so that its look and its write
//! are one step among all processes that do the same.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};

use super::Dir;
use super::beneath::{self, Place};
use super::walk::GUARD;
use crate::base::fault::{Fault, Kind};
use crate::base::subtask;
use crate::store::conditional::Conditional;
use crate::store::object::Version;

/// The guard is held for a few system calls: a process that holds it longer hangs.
const GUARD_TIMEOUT: Duration = Duration::from_secs(30);

impl Dir {
    /// Writes when there is no such object (`expected` is `None`), or when it still is `expected`.
    pub async fn put_if(&self, key: &str, content: Vec<u8>, expected: Option<Version>) -> Result<Conditional> {
        let (dir, key) = (self.clone(), key.to_owned());
        subtask::spawn_blocking_in_span(move || dir.put_if_blocking(&key, &content, expected.as_ref())).await?
    }

    fn put_if_blocking(&self, key: &str, content: &[u8], expected: Option<&Version>) -> Result<Conditional> {
        let (temporary, mut file) = self.temporary_for(key)?;
        let place = Arc::clone(&temporary.place);
        let written = file
            .write_all(content)
            .and_then(|()| file.sync_all())
            .map_err(|error| self.explain(error))
            .and_then(|()| self.name_if(&place, &temporary.name, content, expected));
        // Dropping removes it, unless it has its final name by now.
        drop(temporary);
        if !matches!(written, Ok(Conditional::Written(_))) {
            place.remove_empty_folders();
        }
        written
    }

    fn name_if(&self, place: &Place, temporary: &str, content: &[u8], expected: Option<&Version>) -> Result<Conditional> {
        let _guard = self.guard()?;
        match expected {
            None => match place.place_from(temporary) {
                Ok(()) => {}
                Err(Errno::EXIST) => return Ok(Conditional::NotSo),
                Err(Errno::PERM | Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => {
                    return Ok(Conditional::Unsupported(
                        "its file system can neither link nor rename without replacing".to_owned(),
                    ));
                }
                Err(error) => return Err(self.explain(error.into())),
            },
            Some(expected) => {
                if version_of(place)?.as_ref() != Some(expected) {
                    return Ok(Conditional::NotSo);
                }
                place.rename_from(temporary).map_err(|error| self.explain(error))?;
            }
        }
        place.sync_folders().map_err(|error| self.explain(error))?;
        Ok(Conditional::Written(version(content)))
    }

    /// Deletes an object that still is `expected`; returns false when it is not.
    pub async fn delete_if(&self, key: &str, expected: &Version) -> Result<bool> {
        let (dir, key, expected) = (self.clone(), key.to_owned(), expected.clone());
        let deleted = subtask::spawn_blocking_in_span(move || {
            dir.check_mounted()?;
            let Some(place) = Place::find(&dir.root, &key)? else { return Ok(false) };
            let is_same = {
                let _guard = dir.guard()?;
                let is_same = version_of(&place)?.as_ref() == Some(&expected);
                if is_same {
                    place.remove(&place.name)?;
                }
                is_same
            };
            place.remove_empty_folders();
            anyhow::Ok(is_same)
        });
        deleted.await?
    }

    /// The guard is held until it is dropped, or its process ends.
    fn guard(&self) -> Result<File> {
        let path = self.root.join(GUARD);
        let file = beneath::open_guard(&path).map_err(|error| self.explain(error))?;
        let started = Instant::now();
        loop {
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(file),
                Err(Errno::WOULDBLOCK) if started.elapsed() < GUARD_TIMEOUT => std::thread::sleep(Duration::from_millis(20)),
                Err(Errno::WOULDBLOCK) => {
                    let message = format!(
                        "another process has held the lock of {} for 30 s, so it probably hangs: end that process",
                        path.display()
                    );
                    return Err(Fault::new(Kind::Busy, message).into());
                }
                Err(error) => return Err(error).with_context(|| format!("cannot lock {}", path.display())),
            }
        }
    }
}

pub fn version(content: &[u8]) -> Version {
    Version(hex::encode(Sha256::digest(content)))
}

fn version_of(place: &Place) -> Result<Option<Version>> {
    let mut content = Vec::new();
    let Some(file) = place.open()? else { return Ok(None) };
    // A larger object is not one that is written conditionally.
    file.take(crate::store::SMALL_OBJECT_BYTES + 1).read_to_end(&mut content)?;
    Ok(Some(version(&content)))
}
