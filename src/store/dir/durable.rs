//! Makes names durable: a name is durable once its folder is synced, as far as file systems can do that.

use std::fs::File;
use std::io;

use rustix::io::Errno;

/// Makes the names in a folder durable.
pub fn sync_folder(folder: &File) -> io::Result<()> {
    match folder.sync_all() {
        Err(error) if has_no_sync_of_folders(&error) => {
            tracing::debug!("a folder cannot be synced ({error}): its file system does that by itself, or not at all");
            Ok(())
        }
        answer => answer,
    }
}

/// CIFS of older kernels, sshfs and rclone answer like this for any folder; every other error is the disk's.
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
