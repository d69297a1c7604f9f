//! The URL that `init` was given, and how an entry of the configuration says it.

use std::path::Path;

use anyhow::{Context as _, Result};

use super::arguments::Arguments;
use super::facts::{Contents, Listed};
use super::names::quoted;
use super::text::DatabaseEntry;
use crate::base::fault::{Fault, Kind};
use crate::base::units;
use crate::config::is_of_a_variable;
use crate::pg::Settings;

/// Where the URL is, and what an entry of `[databases]` says of that.
pub struct Given {
    pub url: String,
    /// `url_env = …` or `url_file = …`: for the one database that it names.
    pub elsewhere: Option<String>,
}

impl Given {
    pub fn by(arguments: &Arguments) -> Result<Self> {
        if let Some(variable) = &arguments.url_env {
            let url = std::env::var(variable).map_err(|_| Fault::new(Kind::Configuration, no_variable(variable)))?;
            return Ok(Given { url, elsewhere: Some(format!("url_env = {}", quoted(variable))) });
        }
        if let Some(file) = &arguments.url_file {
            let url = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
            return Ok(Given { url: url.trim().to_owned(), elsewhere: Some(format!("url_file = {}", quoted(&absolute(file)))) });
        }
        Ok(Given { url: arguments.url.clone().unwrap_or_else(|| "postgres://".to_owned()), elsewhere: None })
    }

    /// The line that says where one database of the server is.
    pub fn connection(&self, database: &str) -> Result<String> {
        if let Some(elsewhere) = &self.elsewhere {
            return Ok(elsewhere.clone());
        }
        let url = Settings::written(&self.url, database).map_err(|mistake| Fault::new(Kind::Configuration, mistake))?;
        Ok(format!("url = {}", quoted(&url.text)))
    }

    /// The entry of a database.
    pub fn entry(&self, name: &str, listed: &Listed, contents: &Contents) -> Result<DatabaseEntry> {
        let renamed = if name == listed.name { String::new() } else { format!("{} on its server, ", listed.name) };
        let extensions =
            if contents.extensions.is_empty() { String::new() } else { format!("; {}", contents.extensions.join(", ")) };
        let size = listed.size_bytes.map_or("of unknown size".to_owned(), |bytes| units::bytes(bytes.unsigned_abs()));
        let remark = format!("{renamed}{size}{extensions}");
        Ok(DatabaseEntry { name: name.to_owned(), connection: self.connection(&listed.name)?, remark })
    }
}

/// What is no name of a variable may be the URL itself.
fn no_variable(name: &str) -> String {
    match is_of_a_variable(name) {
        true => format!("the environment has no variable `{name}`"),
        false => "the environment has no such variable: --url-env takes the name of one, not the URL".to_owned(),
    }
}

pub fn absolute(path: &Path) -> String {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned()).display().to_string()
}
