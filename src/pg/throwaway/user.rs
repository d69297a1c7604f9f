//! The user who runs a throwaway server.

use std::process::Command;

use anyhow::Result;

use super::processes;
use crate::base::child;
use crate::base::fault::{Fault, Kind};

/// A user of this system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    pub name: String,
    pub uid: u32,
    pub gid: u32,
}

/// Returns the user who runs a server; None is this process's user, whom a server accepts unless that is root.
pub async fn find(run_as: Option<&str>) -> Result<Option<User>> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let name = run_as.unwrap_or("nobody");
    let number = async |flag: &str| -> Result<u32> {
        let mut command = Command::new("id");
        command.args([flag, "--", name]);
        let said = child::output(command).await.map_err(|_| unknown(name))?;
        Ok(said.trim().parse::<u32>().map_err(|_| unknown(name))?)
    };
    let (uid, gid) = (number("-u").await?, number("-g").await?);
    anyhow::ensure!(
        uid != 0,
        Fault::new(
            Kind::Configuration,
            format!("run_as = \"{name}\" of [tools] is root, and a PostgreSQL server does not run as root")
        )
    );
    if run_as.is_none()
        && let Some(other) = processes::of_another_program(uid)
    {
        let message = format!(
            "the user `{name}`, who would run it, runs other programs, too ({other}), and these could read the restored copy: set run_as of \
             [tools] to a user who owns nothing and runs nothing else"
        );
        return Err(Fault::new(Kind::Configuration, message).into());
    }
    Ok(Some(User { name: name.to_owned(), uid, gid }))
}

fn unknown(name: &str) -> Fault {
    Fault::new(
        Kind::Configuration,
        format!(
            "pgtend runs as root, a PostgreSQL server does not, and this system has no user `{name}`: set run_as of [tools] to a user \
             that owns nothing, or run pgtend as another user"
        ),
    )
}
