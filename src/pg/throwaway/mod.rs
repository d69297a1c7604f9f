//! A PostgreSQL server of our own, made for one restore: on a socket in a private folder, without fsync, and gone afterwards
//! whatever happens. A shell supervises it, and stops it when its standard input ends, which it does when this process does.

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

use self::user::User;
use crate::base::fault::{Fault, Kind};
use crate::pg::{self, Settings};

/// A second where nothing else runs; on two cores under eight builds it took two minutes.
const START_TIMEOUT: Duration = Duration::from_secs(600);

/// An immediate shutdown, and the removal of the folder.
const STOP_TIMEOUT: Duration = Duration::from_secs(300);

/// How often a server that starts is asked.
const ASKED_EVERY: Duration = Duration::from_millis(50);

/// What a server takes beside its database: template databases, WAL up to `max_wal_size`, and files of sorts.
const BESIDE_THE_DATABASE_BYTES: u64 = 512 << 20;

/// What is shown of its log when it does not start.
const LOG_SHOWN_BYTES: usize = 2000;

/// How a throwaway server can be made on this host.
#[derive(Clone, Debug)]
pub struct Host {
    pub programs: Programs,
    /// Its folder is made in here.
    pub parent: PathBuf,
    /// Who runs it; None is this process's user.
    user: Option<User>,
}

impl Host {
    /// Looks whether a server of that major version can be made here, and otherwise says why not, with what helps. `parent`: the folder
    /// for its own. `run_as`: the user who runs it where this process is root's.
    pub async fn look(server_bin_dir: Option<&Path>, major: u32, parent: PathBuf, run_as: Option<&str>) -> Result<Self> {
        let programs = programs::find(server_bin_dir, major).await?;
        let user = user::find(run_as).await?;
        room::check(&parent)?;
        Ok(Self { programs, parent, user })
    }

    /// Refuses a database for which there is too little space. `database_bytes`: what it takes on its own server.
    pub fn check_space(&self, database_bytes: u64) -> Result<()> {
        let free = room::free_bytes(&self.parent)?;
        enough(database_bytes, free, &self.parent).map_err(|message| Fault::new(Kind::Configuration, message).into())
    }
}

/// Pure. A restored database is no larger than its original; an index is sorted in files of its own size.
fn enough(database_bytes: u64, free: u64, parent: &Path) -> Result<(), String> {
    let needed = database_bytes + database_bytes / 4 + BESIDE_THE_DATABASE_BYTES;
    if free >= needed {
        return Ok(());
    }
    Err(format!(
        "{} has {} free, and a server of its own for this database needs {}: set scratch_dir of [verify] to a folder with more space",
        parent.display(),
        crate::base::units::bytes(free),
        crate::base::units::bytes(needed)
    ))
}

/// A running server. Dropped, it stops by itself a moment later.
pub struct Server {
    room: Room,
    supervisor: Child,
    /// Its only superuser, whose name no role of the dump has.
    superuser: String,
}

impl Server {
    /// Makes and starts one. `taken`: names that its superuser must not have.
    pub async fn start(host: &Host, taken: &[String]) -> Result<Self> {
        let superuser = free_name("pgtend", taken);
        let room = Room::make(&host.parent, host.user.as_ref())?;
        let supervisor = supervisor::start(&host.programs, host.user.as_ref(), &room, &superuser)?;
        let mut server = Self { room, supervisor, superuser };
        match server.wait_until_ready().await {
            Ok(()) => Ok(server),
            Err(error) => {
                let said = server.log();
                if let Some(warning) = server.stop().await {
                    tracing::warn!("{warning}");
                }
                let message = format!("PostgreSQL {} of {} did not start", host.programs.version, host.programs.folder.display());
                Err(error.context(if said.is_empty() { message } else { format!("{message}: {said}") }))
            }
        }
    }

    async fn wait_until_ready(&mut self) -> Result<()> {
        let begun = Instant::now();
        let settings = self.as_superuser("postgres")?;
        loop {
            if let Some(status) = self.supervisor.try_wait().context("cannot ask for its supervisor")? {
                anyhow::bail!("its supervisor ended ({status})");
            }
            anyhow::ensure!(!self.room.server().join("ended").exists(), "it ended at once");
            if self.room.socket().exists() {
                match settings.connect().await {
                    Ok(_) => return Ok(()),
                    Err(error) if begun.elapsed() > START_TIMEOUT => return Err(error),
                    Err(_) => {}
                }
            }
            anyhow::ensure!(begun.elapsed() <= START_TIMEOUT, "it accepted no connection in {} s", START_TIMEOUT.as_secs());
            tokio::time::sleep(ASKED_EVERY).await;
        }
    }

    pub fn as_superuser(&self, database: &str) -> Result<Settings> {
        self.as_role(&self.superuser, database)
    }

    pub fn as_role(&self, role: &str, database: &str) -> Result<Settings> {
        Settings::on_socket(&self.room.server(), role, database)
    }

    /// A role that may log in and owns nothing yet, without any right of its own.
    pub async fn make_role(&self, taken: &[String]) -> Result<String> {
        let mut taken = taken.to_vec();
        taken.push(self.superuser.clone());
        let name = free_name("pgtend_proof", &taken);
        let mut connection = self.as_superuser("postgres")?.connect().await?;
        let sql = format!("CREATE ROLE {} LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION", pg::identifier(&name));
        pg::execute(&mut connection, sql).await.context("cannot make the role that restores")?;
        Ok(name)
    }

    /// Stops it and removes its folder. What did not work is a warning: the next run removes what stays.
    pub async fn stop(mut self) -> Option<String> {
        drop(self.supervisor.stdin.take());
        match tokio::time::timeout(STOP_TIMEOUT, self.supervisor.wait()).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::debug!("the throwaway server's supervisor: {error}"),
            Err(_) => {
                return Some(format!(
                    "the throwaway server in {} did not stop in {} s; its supervisor goes on, and the next run removes the folder",
                    self.room.folder().display(),
                    STOP_TIMEOUT.as_secs()
                ));
            }
        }
        self.room.remove().err().map(|error| format!("{error:#}; the next run removes it"))
    }

    /// The end of its log, as one line.
    fn log(&self) -> String {
        let text = std::fs::read(self.room.server().join("log")).unwrap_or_default();
        let text = String::from_utf8_lossy(&text[text.len().saturating_sub(LOG_SHOWN_BYTES)..]).into_owned();
        text.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; ")
    }
}

/// A name that nothing has: of so many random digits that nobody has chosen it before.
fn free_name(start: &str, taken: &[String]) -> String {
    loop {
        let digits = uuid::Uuid::new_v4().simple().to_string();
        let name = format!("{start}_{}", &digits[..12]);
        if !taken.contains(&name) {
            return name;
        }
    }
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
