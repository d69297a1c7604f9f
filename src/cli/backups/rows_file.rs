//! The output of `backups fetch`: a file that appears only when all its rows are proved, or a pipe, a device or stdout, which gets rows as
//! they are read.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, fchown};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use tempfile::NamedTempFile;
use tokio::sync::oneshot;

use crate::base::fault::{Fault, Kind};
use crate::base::thread;

/// Names of stdout, which is written as it is without a name: what the shell has redirected it to stays.
const STDOUT: [&str; 4] = ["-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"];

/// Linux follows this many links in a row.
const LINKS_MOST: usize = 40;

pub enum RowsFile {
    Stdout,
    /// A regular file, which need not exist yet. `partial` is beside it, and is removed unless it gets this name.
    File {
        path: PathBuf,
        partial: NamedTempFile,
    },
    /// A device or a pipe, which must not be replaced.
    Device(PathBuf),
}

impl RowsFile {
    /// Decides by the file that `path` leads to, through links.
    pub fn of(path: Option<&Path>) -> Result<Self> {
        let Some(path) = path.filter(|path| STDOUT.iter().all(|name| *path != Path::new(name))) else { return Ok(Self::Stdout) };
        match fs::metadata(path) {
            Ok(found) if found.is_dir() => {
                let message = format!("{} is a folder: name a file in it with --output", path.display());
                Err(Fault::new(Kind::Configuration, message).into())
            }
            Ok(found) if !found.is_file() => Ok(Self::Device(path.to_owned())),
            Ok(_) => Self::beside(fs::canonicalize(path).with_context(|| format!("cannot find {}", path.display()))?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Self::beside(end_of_links(path)?),
            Err(error) => Err(error).with_context(|| format!("cannot write {}", path.display())),
        }
    }

    fn beside(path: PathBuf) -> Result<Self> {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let partial = tempfile::Builder::new().prefix(".pgtend-fetch-").tempfile_in(folder);
        let partial = partial.with_context(|| format!("cannot write in the folder {}", folder.display()))?;
        Ok(Self::File { path, partial })
    }

    /// Returns whether a failure leaves something behind.
    pub fn shows_rows_as_they_come(&self) -> bool {
        !matches!(self, Self::File { .. })
    }

    /// Waits for a reader where this is a named pipe.
    pub async fn open(&self) -> Result<Box<dyn Write + Send>> {
        Ok(match self {
            Self::Stdout => Box::new(BufWriter::new(io::stdout())),
            Self::File { partial, .. } => {
                // An earlier copy may have turned out damaged midway.
                partial.as_file().set_len(0)?;
                Box::new(BufWriter::new(partial.reopen()?))
            }
            Self::Device(path) => Box::new(BufWriter::new(open_device(path.clone()).await?)),
        })
    }

    /// Gives the file its name. What stood there must be a regular file, and leaves its mode to the new one; and its owner, as far as this
    /// user may give files away.
    pub fn finish(self) -> Result<()> {
        let Self::File { path, partial } = self else { return Ok(()) };
        match fs::symlink_metadata(&path) {
            Ok(found) if found.is_file() => {
                let _ = fchown(partial.as_file(), None, Some(found.gid()));
                let _ = fchown(partial.as_file(), Some(found.uid()), None);
                partial.as_file().set_permissions(Permissions::from_mode(found.mode() & 0o777))?;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            found => {
                found.with_context(|| format!("cannot write {}", path.display()))?;
                anyhow::bail!("{} is no longer a regular file: it stays, and the rows were not written", path.display());
            }
        }
        partial.as_file().sync_all()?;
        partial.persist(&path).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(())
    }
}

/// The file that a link without a file names.
fn end_of_links(path: &Path) -> Result<PathBuf> {
    let mut end = path.to_owned();
    for _ in 0..LINKS_MOST {
        let Ok(named) = fs::read_link(&end) else { return Ok(end) };
        end = end.parent().unwrap_or(Path::new("")).join(named);
    }
    anyhow::bail!("{} leads through too many links", path.display())
}

/// Opens it in a thread, since a named pipe without a reader makes it wait.
async fn open_device(path: PathBuf) -> Result<File> {
    let shown = path.display().to_string();
    let (sender, receiver) = oneshot::channel();
    thread::spawn("open-output", move || {
        let _ = sender.send(OpenOptions::new().write(true).open(path));
    })?;
    receiver.await.context("the opening thread ended")?.with_context(|| format!("cannot write {shown}"))
}
