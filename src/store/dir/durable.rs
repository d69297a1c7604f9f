//! A name is durable once its folder is: fsync of folders, as far as file systems have it.

use std::fs::File;
use std::io;
use std::path::Path;

use rustix::io::Errno;

/// Makes the name of `path` durable, and those of its folders up to the store's root: new ones may be among them.
pub fn sync_folders_of(path: &Path, root: &Path) -> io::Result<()> {
    for folder in path.ancestors().skip(1).take_while(|folder| folder.starts_with(root)) {
        match File::open(folder)?.sync_all() {
            Err(error) if has_no_sync_of_folders(&error) => {
                tracing::debug!("{} cannot be synced ({error}): its file system does that by itself, or never", folder.display());
            }
            answer => answer?,
        }
    }
    Ok(())
}

/// CIFS of older kernels, sshfs and rclone answer so for folders, whatever is in them; any other error is of the disk.
fn has_no_sync_of_folders(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::INVAL | Errno::NOTSUP | Errno::BADF))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_says_that_folders_cannot_be_synced_is_passed_over() {
        for errno in [Errno::INVAL, Errno::NOTSUP, Errno::BADF] {
            assert!(has_no_sync_of_folders(&errno.into()), "{errno}");
        }
        for errno in [Errno::IO, Errno::NOSPC, Errno::DQUOT, Errno::ROFS, Errno::ACCESS] {
            assert!(!has_no_sync_of_folders(&errno.into()), "{errno}");
        }
    }
}
