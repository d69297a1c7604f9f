//! What the system knows about processes of servers, and of their user.

use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

/// The start of the name of a server's folder; the process that created it, and the start time of that process, follow.
pub const PREFIX: &str = "pgtend-throwaway-";

/// Finds a process of that user that does not work in the folder of a throwaway server. Only Linux tells.
pub fn of_another_program(uid: u32) -> Option<String> {
    let processes = std::fs::read_dir("/proc").ok()?.flatten();
    let mut others = processes.filter_map(|entry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        let is_theirs = user_of(&entry.path()) == Some(uid);
        let folder = is_theirs.then(|| std::fs::read_link(entry.path().join("cwd")))?;
        let is_ours = match folder {
            Ok(folder) => folder.components().any(|part| part.as_os_str().as_bytes().starts_with(PREFIX.as_bytes())),
            // Root without CAP_SYS_PTRACE, as in a container, cannot see what works where: then any process counts.
            Err(error) if error.kind() == ErrorKind::PermissionDenied => false,
            // A process that has ended, and waits to be noticed, works nowhere.
            Err(_) => return None,
        };
        let name = std::fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        (!is_ours).then(|| format!("process {pid}, {}", name.trim()))
    });
    others.next()
}

/// Returns the effective user of a process by its folder in /proc. The owner of that folder may be root instead.
pub fn user_of(process: &Path) -> Option<u32> {
    let status = std::fs::read_to_string(process.join("status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("Uid:"))?.split_whitespace().nth(1)?.parse().ok()
}
