//! A PostgreSQL server of our own for one restore: it listens on a socket in a private folder, runs without fsync, and is removed
//! afterwards whatever happens. A shell supervises it, and stops it when the shell's standard input ends, as it does when this
//! process ends.

mod folder;
#[cfg(target_os = "linux")]
mod linux;
mod memory;
mod processes;
mod programs;
mod room;
mod supervisor;
mod user;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
pub use programs::Programs;
pub use room::{Room, leftovers, remove_leftover};
use tokio::process::Child;

use self::folder::Folder;
use self::memory::Memory;
use self::user::User;
use crate::base::fault::{Fault, Kind};
use crate::base::subtask;
use crate::base::units;
use crate::pg::{self, Settings};

/// The time limit for the start: it takes a second on an idle machine, and took two minutes on two cores under eight builds.
const START_TIMEOUT: Duration = Duration::from_secs(600);

/// The time limit for an immediate shutdown and the removal of the folder.
const STOP_TIMEOUT: Duration = Duration::from_secs(300);

/// The interval between connection attempts while the server starts.
const RETRY_EVERY: Duration = Duration::from_millis(50);

/// The space that a server needs beside its database: for template databases, WAL up to `max_wal_size`, and the files of sorts.
const BESIDE_THE_DATABASE_BYTES: u64 = 512 << 20;

/// The part of its log that is shown when it does not start.
const LOG_SHOWN_BYTES: u64 = 2000;

/// A restore ends when less than this is free: others use the disk, too. One that takes no more than was foreseen leaves more.
const RESERVE_BYTES: u64 = 128 << 20;

/// The interval between looks at the free space.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The means to create a throwaway server on this host.
#[derive(Clone, Debug)]
pub struct Host {
    pub programs: Programs,
    /// The server's folder is created in this one.
    pub parent: PathBuf,
    /// The user who runs it; None is this process's user.
    user: Option<User>,
    /// The limit for the address space of each of its processes.
    pub memory_bytes: Option<u64>,
}

impl Host {
    /// Checks whether a server of that major version can be created here; if not, the error says why, and what helps. `parent` is the
    /// folder for its own. `run_as` is the user who runs it if this process runs as root.
    pub async fn look(server_bin_dir: Option<&Path>, major: u32, parent: PathBuf, run_as: Option<&str>) -> Result<Self> {
        let programs = programs::find(server_bin_dir, major).await?;
        let user = user::find(run_as).await?;
        Folder::for_servers(&parent)?;
        Ok(Self { programs, parent, user, memory_bytes: None })
    }

    /// Refuses a database for which there is too little space. `database_bytes` is its size on its own server.
    pub fn check_space(&self, database_bytes: u64) -> Result<()> {
        let free = room::free_bytes(&self.parent)?;
        enough(database_bytes, free, &self.parent).map_err(|message| Fault::new(Kind::Configuration, message).into())
    }

    /// Returns, once the disk is almost full, an error that says so.
    pub async fn until_almost_full(&self) -> anyhow::Error {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            match room::free_bytes(&self.parent) {
                Ok(free) if free < RESERVE_BYTES => {
                    let message = format!(
                        "the restore was stopped, as {} had only {} left: set scratch_dir of [verify] to a folder with more space",
                        self.parent.display(),
                        units::bytes(free)
                    );
                    return Fault::new(Kind::Configuration, message).into();
                }
                Ok(_) => {}
                Err(error) => tracing::debug!("{error:#}"),
            }
        }
    }
}

/// Checks the space. A restored database is not larger than its original; sorting an index needs files of its size. This is pure.
fn enough(database_bytes: u64, free: u64, parent: &Path) -> Result<(), String> {
    let needed = database_bytes + database_bytes / 4 + BESIDE_THE_DATABASE_BYTES;
    if free >= needed {
        return Ok(());
    }
    Err(format!(
        "{} has {} free, and a throwaway server for this database needs {}: set scratch_dir of [verify] to a folder with more space",
        parent.display(),
        units::bytes(free),
        units::bytes(needed)
    ))
}

/// A running server. Dropping it makes it stop by itself a moment later.
pub struct Server {
    room: Room,
    supervisor: Child,
    /// Its only superuser.
    superuser: Role,
    /// True if it has less memory than usual, because little is free.
    pub has_little_memory: bool,
}

/// A role that no dump has, with its password.
pub struct Role {
    pub name: String,
    password: String,
}

impl Role {
    fn new(start: &str, taken: &[String]) -> Self {
        Self { name: free_name(start, taken), password: random() + &random() }
    }
}

impl Server {
    /// Begins to create a server; [`Server::stop`] ends it, ready or not. `taken` are the names that its superuser must not have.
    pub fn start(host: &Host, taken: &[String]) -> Result<Self> {
        let superuser = Role::new("pgtend", taken);
        let room = Room::make(&host.parent, host.user.as_ref())?;
        let memory = Memory::within(memory::free_bytes());
        if memory.is_less_than_usual() {
            let (buffers, build) = (units::bytes(memory.shared_buffers_bytes), units::bytes(memory.build_bytes));
            tracing::info!(
                "little memory is free: the server that restores has {buffers} of shared buffers, and {build} to build an index"
            );
        }
        match supervisor::start(
            &host.programs,
            host.user.as_ref(),
            (memory, host.memory_bytes),
            &room,
            &superuser.name,
            &superuser.password,
        ) {
            Ok(supervisor) => Ok(Self { room, supervisor, superuser, has_little_memory: memory.is_less_than_usual() }),
            Err(error) => {
                room.remove()?;
                Err(error)
            }
        }
    }

    /// Waits until it accepts connections.
    pub async fn ready(&mut self, host: &Host) -> Result<()> {
        self.wait_until_ready().await.map_err(|error| {
            let said = self.log();
            let message = format!("PostgreSQL {} of {} did not start", host.programs.version, host.programs.folder.display());
            error.context(if said.is_empty() { message } else { format!("{message}: {said}") })
        })
    }

    async fn wait_until_ready(&mut self) -> Result<()> {
        let begun = Instant::now();
        let settings = self.as_superuser("postgres")?;
        loop {
            if let Some(status) = self.supervisor.try_wait().context("cannot query the state of its supervisor")? {
                anyhow::bail!("the server's supervisor ended ({status})");
            }
            anyhow::ensure!(!self.room.server().join("ended").exists(), "the server ended immediately");
            if self.room.socket().exists() {
                match settings.connect().await {
                    Ok(_) => return Ok(()),
                    Err(error) if begun.elapsed() > START_TIMEOUT => return Err(error),
                    Err(_) => {}
                }
            }
            anyhow::ensure!(
                begun.elapsed() <= START_TIMEOUT,
                "the server accepted no connection within {} s",
                START_TIMEOUT.as_secs()
            );
            tokio::time::sleep(RETRY_EVERY).await;
        }
    }

    pub fn as_superuser(&self, database: &str) -> Result<Settings> {
        self.as_role(&self.superuser, database)
    }

    pub fn as_role(&self, role: &Role, database: &str) -> Result<Settings> {
        Settings::on_socket(&self.room.server(), &role.name, &role.password, database)
    }

    /// Creates a role that may log in, owns nothing, and has no privileges.
    pub async fn make_role(&self, taken: &[String]) -> Result<Role> {
        let role = Role::new("pgtend_proof", taken);
        let mut connection = self.as_superuser("postgres")?.connect().await?;
        let sql = format!(
            "CREATE ROLE {} LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION PASSWORD {}",
            pg::identifier(&role.name),
            pg::literal(&role.password)
        );
        pg::execute(&mut connection, sql).await.context("cannot create the role that restores")?;
        Ok(role)
    }

    /// Stops it and removes its folder. A failure is returned as a warning: the next run removes what stays.
    pub async fn stop(mut self) -> Option<String> {
        drop(self.supervisor.stdin.take());
        match tokio::time::timeout(STOP_TIMEOUT, self.supervisor.wait()).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::debug!("the throwaway server's supervisor: {error}"),
            Err(_) => {
                return Some(format!(
                    "the throwaway server in {} did not stop within {} s; its supervisor keeps trying, and the next run removes the folder",
                    self.room.folder().display(),
                    STOP_TIMEOUT.as_secs()
                ));
            }
        }
        let room = self.room;
        let removed = subtask::spawn_blocking_in_span(|| room.remove()).await;
        let failed = removed.map_err(anyhow::Error::from).flatten().err();
        failed.map(|error| format!("{error:#}; the next run removes it"))
    }

    /// Returns the end of its log as one line.
    fn log(&self) -> String {
        let text = self.room.end_of_log(LOG_SHOWN_BYTES).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        text.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; ")
    }
}

/// Returns an unused name, with so many random digits that no user has chosen it.
fn free_name(start: &str, taken: &[String]) -> String {
    loop {
        let name = format!("{start}_{}", &random()[..12]);
        if !taken.contains(&name) {
            return name;
        }
    }
}

/// Returns 122 random bits as 32 letters.
fn random() -> String {
    uuid::Uuid::new_v4().simple().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_little_space_is_refused_with_both_numbers() {
        let parent = Path::new("/scratch");
        assert_eq!(enough(1 << 30, 4 << 30, parent), Ok(()));
        let refused = enough(10 << 30, 4 << 30, parent).unwrap_err();
        assert!(refused.contains("/scratch has 4.3 GB free") && refused.contains("needs 14.0 GB"), "{refused}");
    }
}
