//! A directory as a store: temporary name, fsync, rename, fsync of the folder.

mod beneath;
mod conditional;
mod durable;
pub(super) mod mounted;
mod walk;

use std::collections::{BTreeSet, HashMap};
use std::io::{ErrorKind, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use anyhow::{Context as _, Result};
use bytes::{Bytes, BytesMut};
use tokio::fs;
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _, AsyncWriteExt as _};

use self::beneath::Place;
pub use self::conditional::version;
use self::walk::Walked;
use super::object::{Listed, Object, Unfinished};
use super::pace::Pace;
use super::sign::SignKey;
use crate::base::age_keys::AgeKeys;
use crate::base::process_identity::{MARK_BYTES, ProcessIdentity};
use crate::base::subtask;
use crate::base::units::Rate;

/// The suffix of a file that is being written; such a file is not an object.
const TEMPORARY: &str = ".partial";

const READ_BYTES: usize = 1 << 20;

#[derive(Clone, Debug)]
pub struct Dir {
    root: PathBuf,
    remembered: Option<mounted::Remembered>,
    pub(super) sign_key: Option<SignKey>,
    pub(super) age: Arc<AgeKeys>,
    pub(super) pace: Option<Arc<Pace>>,
}

impl Dir {
    pub fn new(root: &Path) -> Self {
        let remembered = mounted::remembered(root);
        Self { root: root.to_owned(), remembered, sign_key: None, age: Arc::default(), pace: None }
    }

    /// Adds a key for signed objects.
    pub fn signed(self, sign_key: Option<SignKey>) -> Self {
        Self { sign_key, ..self }
    }

    /// Adds the keys of encrypted objects.
    pub fn with_age(self, age: Arc<AgeKeys>) -> Self {
        Self { age, ..self }
    }

    /// Limits the bytes that are written to it in a second.
    pub fn paced(self, max_upload: Option<Rate>) -> Self {
        let pace = Pace::of(&self.root.display().to_string(), max_upload);
        Self { pace, ..self }
    }

    /// Returns an error when the store is not the one that it was: its disk is not mounted.
    pub fn check_mounted(&self) -> Result<()> {
        mounted::check(&self.root, self.remembered.as_ref())
    }

    pub fn path_of(&self, key: &str) -> PathBuf {
        self.root.join(key)
    }

    pub async fn list(&self, folder: &str) -> Result<Listed> {
        Ok(listed(self.walk(folder).await?))
    }

    /// Lists many folders on one thread. One that cannot be read is not in the answer.
    pub async fn list_many(&self, folders: &BTreeSet<String>) -> Result<HashMap<String, Listed>> {
        self.check_mounted()?;
        let (root, folders) = (self.root.clone(), folders.clone());
        let walk = move || {
            let of_folder = |folder: String| walk::walk(&root, &folder).ok().map(|walked| (folder, listed(walked)));
            folders.into_iter().filter_map(of_folder).collect()
        };
        Ok(subtask::spawn_blocking_in_span(walk).await?)
    }

    /// Returns whether the process that wrote a temporary file is known to have ended: it ran on this host.
    pub fn is_of_the_dead(temporary: &str) -> bool {
        parts_of(temporary).is_some_and(|(_, unique)| ProcessIdentity::is_mark_of_the_dead(&unique[..MARK_BYTES]))
    }

    /// Folders that cannot be read hold no files that could be removed.
    pub async fn unfinished(&self, folder: &str) -> Result<Vec<Unfinished>> {
        let files = self.walk(folder).await?.files;
        let temporary = files.into_iter().filter(|file| file.key.ends_with(TEMPORARY));
        let unfinished = |file: Object| Unfinished {
            key: object_of(&file.key).unwrap_or_else(|| file.key.clone()),
            id: file.key,
            started_at: file.modified_at,
        };
        Ok(temporary.map(unfinished).collect())
    }

    async fn walk(&self, folder: &str) -> Result<Walked> {
        self.check_mounted()?;
        let (root, folder) = (self.root.clone(), folder.to_owned());
        let path = self.path_of(&folder);
        let walked = subtask::spawn_blocking_in_span(move || walk::walk(&root, &folder)).await?;
        walked.with_context(|| path.display().to_string())
    }

    /// Runs `work` at the place of an object, on a thread that may wait for a disk. Returns `None` when its folder does not
    /// exist.
    async fn at<T: Send + 'static>(
        &self,
        key: &str,
        work: impl FnOnce(&Place) -> std::io::Result<T> + Send + 'static,
    ) -> std::io::Result<Option<T>> {
        let (root, key) = (self.root.clone(), key.to_owned());
        let done = subtask::spawn_blocking_in_span(move || {
            let Some(place) = Place::find(&root, &key)? else { return Ok(None) };
            work(&place).map(Some)
        });
        done.await.map_err(std::io::Error::other)?
    }

    pub async fn stat(&self, key: &str) -> Result<Option<Object>> {
        self.check_mounted()?;
        let status = self.at(key, Place::stat).await?.flatten();
        Ok(status.map(|status| walk::object(key.to_owned(), &status)))
    }

    /// Returns whether an object exists.
    pub async fn exists_for_certain(&self, key: &str) -> Result<bool> {
        anyhow::ensure!(
            self.root.is_dir(),
            "there is no folder {}: it is unknown whether it held an object of that name",
            self.root.display()
        );
        Ok(self.stat(key).await?.is_some())
    }

    pub async fn read(&self, key: &str, range: Option<Range<u64>>) -> Result<Option<Reader>> {
        self.check_mounted()?;
        let Some(file) = self.at(key, Place::open).await?.flatten() else { return Ok(None) };
        let mut file = fs::File::from_std(file);
        let range = range.unwrap_or(0..u64::MAX);
        if range.start > 0 {
            file.seek(SeekFrom::Start(range.start)).await?;
        }
        Ok(Some(Reader { file, left: range.end.saturating_sub(range.start) }))
    }

    pub async fn upload(&self, key: &str) -> Result<Upload> {
        let (dir, key) = (self.clone(), key.to_owned());
        let (temporary, file) = subtask::spawn_blocking_in_span(move || dir.temporary_for(&key)).await??;
        let (place, temporary) = temporary.keep();
        Ok(Upload { dir: self.clone(), place, temporary, file: Some(fs::File::from_std(file)) })
    }

    /// Creates the file that an object is written to, in a store that is known to exist.
    fn temporary_for(&self, key: &str) -> Result<(Temporary, std::fs::File)> {
        self.check_mounted()?;
        let created = Temporary::create(&self.root, key).and_then(|created| {
            mounted::mark(&self.root, self.remembered.as_ref())?;
            Ok(created)
        });
        created.map_err(|error| self.explain(error))
    }

    pub async fn delete(&self, key: &str) -> Result<()> {
        self.check_mounted()?;
        let deleted = self.at(key, |place| {
            place.remove(&place.name)?;
            place.remove_empty_folders();
            Ok(())
        });
        deleted.await.map(drop).map_err(|error| self.explain(error))
    }

    pub fn free_bytes(&self) -> Option<u64> {
        let existing = self.root.ancestors().find(|path| path.exists())?;
        let status = rustix::fs::statvfs(existing).ok()?;
        Some(status.f_bavail * status.f_frsize)
    }

    fn explain(&self, error: std::io::Error) -> anyhow::Error {
        let hint = match error.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
                let free = self.free_bytes().map(crate::base::units::bytes).unwrap_or_default();
                format!("the disk of {} is full ({free} free): free some space, or keep fewer sets", self.root.display())
            }
            ErrorKind::PermissionDenied => {
                let message = format!("no permission to write in {}", self.root.display());
                return anyhow::Error::new(error)
                    .context(crate::base::fault::Fault::new(crate::base::fault::Kind::Permission, message));
            }
            _ => format!("cannot write in {}", self.root.display()),
        };
        anyhow::Error::new(error).context(hint)
    }
}

fn listed(Walked { files, unread }: Walked) -> Listed {
    Listed { objects: files.into_iter().filter(|file| !file.key.ends_with(TEMPORARY)).collect(), unread }
}

/// A file beside the one that it will become. Dropping removes it.
struct Temporary {
    place: Arc<Place>,
    /// Empty when another owner removes the file.
    name: String,
}

/// A name begins with the mark of the process that writes, and ends with chance. Earlier releases wrote chance alone.
fn temporary_name(object: &str) -> String {
    static MARK: LazyLock<Option<[u8; MARK_BYTES]>> = LazyLock::new(|| ProcessIdentity::own().mark());
    let mut bytes = uuid::Uuid::new_v4().into_bytes();
    if let (Some(mark), Some((of_process, _))) = (*MARK, bytes.split_first_chunk_mut()) {
        *of_process = mark;
    }
    format!(".{object}.{}{TEMPORARY}", hex::encode(bytes))
}

/// Returns the key of the object that a temporary file would have become; `None` for a file with another name.
fn object_of(temporary: &str) -> Option<String> {
    let (folder, _) = temporary.rsplit_once('/').unwrap_or(("", temporary));
    let (object, _) = parts_of(temporary)?;
    Some(if folder.is_empty() { object.to_owned() } else { format!("{folder}/{object}") })
}

/// The object's own name, and what makes the temporary one unique.
fn parts_of(temporary: &str) -> Option<(&str, [u8; 16])> {
    let file = temporary.rsplit_once('/').map_or(temporary, |(_, file)| file);
    let (object, unique) = file.strip_prefix('.')?.strip_suffix(TEMPORARY)?.rsplit_once('.')?;
    let mut bytes = [0; 16];
    hex::decode_to_slice(unique, &mut bytes).ok()?;
    Some((object, bytes))
}

impl Temporary {
    /// Creates it with its folders. Its name cannot be guessed beforehand.
    fn create(root: &Path, key: &str) -> std::io::Result<(Self, std::fs::File)> {
        let mut attempts = 0..3;
        loop {
            let created = Place::make(root, key).and_then(|place| {
                let name = temporary_name(&place.name);
                let file = place.create_new(&name)?;
                Ok((Self { place: Arc::new(place), name }, file))
            });
            match created {
                // A process that deletes the last object of a folder removes the folder.
                Err(error) if error.kind() == ErrorKind::NotFound && attempts.next().is_some() => {}
                other => return other,
            }
        }
    }

    fn keep(mut self) -> (Arc<Place>, String) {
        (Arc::clone(&self.place), std::mem::take(&mut self.name))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.name.is_empty() {
            let _ = self.place.remove(&self.name);
        }
    }
}

pub struct Reader {
    file: fs::File,
    /// At most this many bytes are still to be read.
    left: u64,
}

impl Reader {
    pub async fn chunk(&mut self) -> Result<Option<Bytes>> {
        if self.left == 0 {
            return Ok(None);
        }
        let mut buffer = BytesMut::with_capacity(READ_BYTES);
        let count = self.file.read_buf(&mut buffer).await?;
        buffer.truncate(self.left.min(count as u64) as usize);
        self.left -= buffer.len() as u64;
        Ok((count > 0).then(|| buffer.freeze()))
    }
}

pub struct Upload {
    dir: Dir,
    place: Arc<Place>,
    temporary: String,
    /// `None` once it is finished or aborted.
    file: Option<fs::File>,
}

impl Upload {
    pub async fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let file = self.file.as_mut().context("the upload has ended")?;
        file.write_all(bytes).await.map_err(|error| self.dir.explain(error))
    }

    pub async fn finish(&mut self) -> Result<()> {
        let file = self.file.as_mut().context("the upload has ended")?;
        let made_durable = async {
            file.flush().await?;
            file.sync_all().await?;
            let (place, temporary) = (Arc::clone(&self.place), self.temporary.clone());
            let named = subtask::spawn_blocking_in_span(move || {
                place.rename_from(&temporary)?;
                // The rename is durable with its folder, and a new folder with the one above it.
                place.sync_folders()
            });
            named.await.map_err(std::io::Error::other)?
        };
        made_durable.await.map_err(|error: std::io::Error| self.dir.explain(error))?;
        self.file = None;
        Ok(())
    }

    pub async fn abort(&mut self) -> Result<()> {
        if self.file.take().is_none() {
            return Ok(());
        }
        let (place, temporary) = (Arc::clone(&self.place), self.temporary.clone());
        let removed = subtask::spawn_blocking_in_span(move || {
            place.remove(&temporary)?;
            place.remove_empty_folders();
            std::io::Result::Ok(())
        });
        removed.await?.with_context(|| format!("cannot remove {} of {}", self.temporary, self.dir.root.display()))
    }
}
