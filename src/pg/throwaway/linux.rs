//! Ends the processes of a server whose supervisor was killed.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::Result;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open, pidfd_send_signal};

use super::folder::Folder;
use super::processes;

/// The time for an immediate shutdown; then its processes are killed.
const QUIT: Duration = Duration::from_secs(10);

/// The time after which a process that cannot be killed is an error.
const KILL: Duration = Duration::from_secs(60);

const LOOK_EVERY: Duration = Duration::from_millis(50);

pub fn end(server: &Folder) -> Result<()> {
    let Ok(data) = server.open("data") else { return Ok(()) };
    let owner = server.owner()?;
    let begun = Instant::now();
    loop {
        let running = running(&data, owner);
        let Some((pid, _)) = running.first() else { return Ok(()) };
        anyhow::ensure!(
            begun.elapsed() < KILL,
            "process {} of the throwaway server in {} cannot be ended",
            pid.as_raw_nonzero(),
            server.path().display()
        );
        let signal = if begun.elapsed() < QUIT { Signal::QUIT } else { Signal::KILL };
        for (pid, process) in &running {
            tracing::debug!("ending process {} of the throwaway server in {}", pid.as_raw_nonzero(), server.path().display());
            // One that has just ended is not an error.
            let _ = match process {
                Some(process) => pidfd_send_signal(process, signal),
                // A kernel before 5.3.
                None => kill_process(*pid, signal),
            };
        }
        sleep(LOOK_EVERY);
    }
}

/// Finds its processes. A process is one of them only if all of this is so: it works in the data folder, its program is `postgres`, and it
/// is of the user to whom the server's folder belongs. The process is opened before it is looked at, so that the id cannot become
/// another's.
fn running(data: &Folder, owner: u32) -> Vec<(Pid, Option<OwnedFd>)> {
    let Ok(all) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = all.flatten().filter_map(|entry| Pid::from_raw(entry.file_name().to_str()?.parse().ok()?));
    pids.filter_map(|pid| {
        let process = pidfd_open(pid, PidfdFlags::empty()).ok();
        is_of_the_server(Path::new(&format!("/proc/{}", pid.as_raw_nonzero())), data, owner).then_some((pid, process))
    })
    .collect()
}

fn is_of_the_server(process: &Path, data: &Folder, owner: u32) -> bool {
    let program = fs::read_link(process.join("exe")).map(without_mark);
    data.is_same(&process.join("cwd"))
        && program.is_ok_and(|program| program.file_name().is_some_and(|name| name == "postgres"))
        && processes::user_of(process) == Some(owner)
}

/// The kernel marks what was removed since.
fn without_mark(path: PathBuf) -> PathBuf {
    let bytes = path.as_os_str().as_bytes();
    match bytes.strip_suffix(b" (deleted)") {
        Some(bytes) => PathBuf::from(std::ffi::OsStr::from_bytes(bytes)),
        None => path,
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_process_that_only_works_in_the_folder_is_left_alone() {
        let server = tempfile::tempdir().unwrap();
        let data = server.path().join("data");
        fs::create_dir(&data).unwrap();
        let mut visitor = Command::new("sleep").arg("600").current_dir(&data).spawn().unwrap();
        end(&Folder::for_servers(server.path()).unwrap()).unwrap();
        assert!(visitor.try_wait().unwrap().is_none(), "somebody looks at the folder with another program");
        visitor.kill().unwrap();
        visitor.wait().unwrap();
    }
}
