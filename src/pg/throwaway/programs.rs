//! Finds the server programs on this host: initdb and postgres of one version.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::base::child;
use crate::base::fault::{Fault, Kind};
use crate::pg::client_tools::{major_of, packaged_folders};

/// A folder with initdb and postgres.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Programs {
    pub folder: PathBuf,
    pub major: u32,
    /// The version, such as `18.4`.
    pub version: String,
}

impl Programs {
    /// Returns whether the files of an extension are installed for these programs; None if their folder is not found: then only the server
    /// can tell.
    pub fn has_extension(&self, name: &str) -> Option<bool> {
        let folders: Vec<PathBuf> = self.extension_folders().into_iter().filter(|folder| folder.is_dir()).collect();
        let file = format!("{name}.control");
        (!folders.is_empty()).then(|| folders.iter().any(|folder| folder.join(&file).is_file()))
    }

    /// Lists the folders where packages put extensions: beside the programs, or (Debian) in /usr/share.
    fn extension_folders(&self) -> Vec<PathBuf> {
        let real = self.folder.canonicalize().unwrap_or_else(|_| self.folder.clone());
        let major = self.major;
        let beside = [
            "share/extension".to_owned(),
            "share/postgresql/extension".to_owned(),
            format!("share/postgresql@{major}/extension"),
        ];
        let beside = real.parent().map(|above| beside.map(|folder| above.join(folder)).to_vec()).unwrap_or_default();
        let debian = PathBuf::from(format!("/usr/share/postgresql/{major}/extension"));
        beside.into_iter().chain([debian]).collect()
    }
}

/// Returns the server programs of that major version; `server_bin_dir` is searched first.
pub async fn find(server_bin_dir: Option<&Path>, major: u32) -> Result<Programs> {
    let mut seen = Vec::new();
    for folder in server_bin_dir.map(Path::to_owned).into_iter().chain(packaged_folders()) {
        if !folder.join("initdb").is_file() || !folder.join("postgres").is_file() {
            continue;
        }
        match inspect(&folder).await {
            Some(programs) if programs.major == major => return Ok(programs),
            Some(programs) => seen.push(format!("{} in {}", programs.version, folder.display())),
            None => tracing::debug!("the postgres in {} does not report its version", folder.display()),
        }
    }
    let seen = if seen.is_empty() { String::new() } else { format!(" (found: {})", seen.join(", ")) };
    let message = format!(
        "there are no server programs (initdb, postgres) of PostgreSQL {major} on this host{seen}: install postgresql-{major} \
         (Debian, Ubuntu) or postgresql{major}-server (Red Hat), or set server_bin_dir of [tools]"
    );
    Err(Fault::new(Kind::Configuration, message).into())
}

async fn inspect(folder: &Path) -> Option<Programs> {
    let mut command = Command::new(folder.join("postgres"));
    command.arg("--version");
    let said = child::output(command).await.ok()?;
    let version = said.trim().split(") ").nth(1)?.split(' ').next()?.to_owned();
    Some(Programs { folder: folder.to_owned(), major: major_of(said.trim())?, version })
}
