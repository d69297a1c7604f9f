//! Writes new files, and never touches one that is there.

use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

/// A file that `init` would write.
#[derive(Clone, Debug)]
pub struct NewFile {
    pub path: PathBuf,
    pub text: String,
    /// What it is for.
    pub about: String,
}

/// Returns whether something is at this path: also a link that leads nowhere.
pub fn is_there(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

/// Writes the files in order, each whole or not at all. One that came into being meanwhile is left as it is, and is an error.
pub fn all(files: &[NewFile]) -> Result<()> {
    for file in files {
        let shown = file.path.display();
        let folder = file.path.parent().filter(|folder| *folder != Path::new("")).unwrap_or(Path::new("."));
        std::fs::create_dir_all(folder).with_context(|| format!("cannot create the folder {}", folder.display()))?;
        let mut builder = tempfile::Builder::new();
        // As for any new file: the umask takes its part of that.
        builder.permissions(std::fs::Permissions::from_mode(0o666));
        let mut new = builder.tempfile_in(folder).with_context(|| format!("cannot write to {}", folder.display()))?;
        new.write_all(file.text.as_bytes())
            .and_then(|()| new.as_file().sync_all())
            .with_context(|| format!("cannot write {shown}"))?;
        new.persist_noclobber(&file.path).map_err(|failed| match failed.error.kind() {
            ErrorKind::AlreadyExists => anyhow::anyhow!("{shown} is there by now and was left as it is: run `pgtend init` again"),
            _ => anyhow::Error::from(failed.error).context(format!("cannot create {shown}")),
        })?;
    }
    Ok(())
}
