//! Identifies a process on a machine, so that another process can tell whether it is still alive.

use std::fs;
use std::os::unix::fs::MetadataExt as _;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// A process, as it identifies itself in objects that others read. All fields are compared as text; a value that could not be
/// read is empty, and then nothing is certain.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProcessIdentity {
    pub host: String,
    /// The text of /etc/machine-id: two hosts may have the same name.
    pub machine_id: String,
    /// This differs after each boot. A container has that of its host.
    pub boot_id: String,
    /// Process ids belong to a namespace: each container has its own.
    pub pid_namespace: String,
    pub pid: u32,
    /// Clock ticks between boot and the process's start (proc(5), stat, field 22): process ids are reused.
    pub start_ticks: String,
}

/// The length of [`ProcessIdentity::mark`].
pub const MARK_BYTES: usize = 10;

impl ProcessIdentity {
    pub fn own() -> Self {
        let pid = std::process::id();
        Self {
            host: gethostname::gethostname().to_string_lossy().into_owned(),
            machine_id: line_of("/etc/machine-id"),
            boot_id: line_of("/proc/sys/kernel/random/boot_id"),
            pid_namespace: pid_namespace(),
            pid,
            start_ticks: start_ticks(pid).unwrap_or_default(),
        }
    }

    /// Returns the process in few bytes, for names of files: where it runs, as a hash, and its number. `None` where that is not known for certain.
    pub fn mark(&self) -> Option<[u8; MARK_BYTES]> {
        if [&self.host, &self.boot_id, &self.pid_namespace].iter().any(|part| part.is_empty()) {
            return None;
        }
        let place = [&*self.host, &self.machine_id, &self.boot_id, &self.pid_namespace];
        let hash = Sha256::digest(place.join("\n"));
        let mut mark = [0; MARK_BYTES];
        let (of_place, of_process) = mark.split_at_mut(MARK_BYTES - size_of::<u32>());
        of_place.copy_from_slice(hash.get(..of_place.len())?);
        of_process.copy_from_slice(&self.pid.to_be_bytes());
        Some(mark)
    }

    /// Returns true only when the process with this mark ran here and has certainly ended: nothing here has its number now.
    pub fn is_mark_of_the_dead(mark: &[u8]) -> bool {
        let Some((_, pid)) = mark.split_last_chunk() else { return false };
        let pid = u32::from_be_bytes(*pid);
        let is_here = Self { pid, ..Self::own() }.mark().is_some_and(|own| own == mark);
        is_here && matches!(start_ticks(pid), Err(error) if error.kind() == std::io::ErrorKind::NotFound)
    }

    /// Returns true only when the process ran here and has certainly ended. About processes elsewhere nothing is known.
    pub fn is_known_dead(&self) -> bool {
        let own = Self::own();
        let is_here = !self.host.is_empty()
            && self.host == own.host
            && self.machine_id == own.machine_id
            && !self.boot_id.is_empty()
            && !own.boot_id.is_empty();
        if !is_here || self.start_ticks.is_empty() {
            return false;
        }
        // The boot differs: it may have been this host, or a running copy with its name and its machine-id.
        if self.boot_id != own.boot_id {
            return false;
        }
        if self.pid_namespace.is_empty() || self.pid_namespace != own.pid_namespace {
            return false;
        }
        // A process that cannot be read may exist; one with another start is another process.
        match start_ticks(self.pid) {
            Ok(ticks) => ticks != self.start_ticks,
            Err(error) => error.kind() == std::io::ErrorKind::NotFound,
        }
    }
}

impl std::fmt::Display for ProcessIdentity {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "process {} on {}", self.pid, self.host)
    }
}

fn line_of(path: &str) -> String {
    fs::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default()
}

fn pid_namespace() -> String {
    fs::metadata("/proc/self/ns/pid").map(|namespace| namespace.ino().to_string()).unwrap_or_default()
}

/// Returns an empty text for a zombie: it holds nothing any more, and its start is of no use.
fn start_ticks(pid: u32) -> std::io::Result<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The second field is the program's name in parentheses, with any characters in it.
    let after_name = stat.rsplit_once(')').map(|(_, rest)| rest).unwrap_or_default();
    let mut fields = after_name.split_ascii_whitespace();
    let state = fields.next().unwrap_or_default();
    if matches!(state, "Z" | "X" | "x") {
        return Ok(String::new());
    }
    Ok(fields.nth(18).unwrap_or_default().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_dead_only_when_that_is_certain() {
        let own = ProcessIdentity::own();
        assert!(!own.is_known_dead(), "this process runs");
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let ended = ProcessIdentity { pid: child.id(), start_ticks: "1".into(), ..own.clone() };
        child.wait().unwrap();
        assert!(ended.is_known_dead());
        assert!(ProcessIdentity { start_ticks: "1".into(), ..own.clone() }.is_known_dead(), "its number was given to another");
        for (unknown, why) in [
            (ProcessIdentity { host: "elsewhere".into(), ..ended.clone() }, "another host"),
            (ProcessIdentity { machine_id: "elsewhere".into(), ..ended.clone() }, "another host of that name"),
            (ProcessIdentity { pid_namespace: "1".into(), ..ended.clone() }, "another container"),
            (ProcessIdentity { boot_id: "another".into(), ..ended.clone() }, "another boot, or a copy of this host"),
            (ProcessIdentity { boot_id: String::new(), ..ended.clone() }, "nothing known"),
            (ProcessIdentity::default(), "nothing known"),
        ] {
            assert!(!unknown.is_known_dead(), "{why}");
        }
    }

    #[test]
    fn a_mark_is_of_the_dead_only_when_its_process_ran_here_and_is_gone() {
        let own = ProcessIdentity::own();
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let ended = ProcessIdentity { pid: child.id(), ..own.clone() };
        child.wait().unwrap();
        let is_dead = |process: &ProcessIdentity| ProcessIdentity::is_mark_of_the_dead(&process.mark().unwrap());
        assert!(is_dead(&ended));
        assert!(!is_dead(&own), "this process runs");
        assert!(!is_dead(&ProcessIdentity { host: "elsewhere".into(), ..ended.clone() }));
        assert!(!is_dead(&ProcessIdentity { pid_namespace: "1".into(), ..ended.clone() }));
        assert_eq!(ProcessIdentity { boot_id: String::new(), ..ended }.mark(), None);
        assert!(!ProcessIdentity::is_mark_of_the_dead(&[0; MARK_BYTES]) && !ProcessIdentity::is_mark_of_the_dead(&[]));
    }
}
