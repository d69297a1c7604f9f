//! The options of `init`, and the paths that it writes to.

use std::path::PathBuf;

use chrono::NaiveTime;
use clap::Args;

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  pgtend init postgres:///app                        one database of the server on this host
  pgtend init postgres://pgtend@db1.example.com      all databases of a server
  pgtend init postgres://pgtend@db1.example.com --fleet    also those that appear later
  pgtend init --url-env DATABASE_URL --store s3://my-backups/prod --yes
  pgtend init --dry-run                              print the files, and write none
  pgtend init                                        later: jobs for what is new

It writes new files and changes none that are there. Jobs that change a database are written with `enabled = false`.")]
pub struct Arguments {
    /// The server, or one database of it: postgres://user@host/database. The default is that of psql: PGHOST and so on. Its password is written nowhere
    #[arg(conflicts_with_all = ["url_env", "url_file"])]
    pub url: Option<String>,
    /// The environment variable that holds the URL of one database; the configuration will read it there
    #[arg(long, value_name = "VARIABLE", conflicts_with = "url_file")]
    pub url_env: Option<String>,
    /// The file that holds the URL of one database; the configuration will read it there
    #[arg(long, value_name = "FILE")]
    pub url_file: Option<PathBuf>,
    /// Only this database of the server; may be repeated [default: the one that the URL names, else all]
    #[arg(long, value_name = "NAME")]
    pub database: Vec<String>,
    /// One entry for the server, and jobs for all databases that it has and will have [default: where it has more than five]
    #[arg(long, conflicts_with_all = ["database", "url_env", "url_file", "entries"])]
    pub fleet: bool,
    /// An entry for each database that is there now, however many
    #[arg(long)]
    pub entries: bool,
    /// Where backups go: a folder, or s3://BUCKET/PREFIX (with ?region=…&endpoint=…); in a configuration that is there, the name of a store
    #[arg(long, value_name = "PLACE")]
    pub store: Option<String>,
    /// When backups begin [default: 02:00]
    #[arg(long, value_name = "HH:MM", value_parser = time_of_day)]
    pub at: Option<NaiveTime>,
    /// The time zone of schedules, by its IANA name
    #[arg(long, value_name = "ZONE", default_value = "UTC", value_parser = zone)]
    pub timezone: chrono_tz::Tz,
    /// A folder with pg_dump, pg_dumpall and psql, if they are not where packages put them
    #[arg(long, value_name = "DIR")]
    pub bin_dir: Option<PathBuf>,
    /// Ask nothing, and take the defaults for what the options do not say; so it is where there is no terminal
    #[arg(long)]
    pub yes: bool,
    /// Print what would be written, and write nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// The paths that are written to.
pub struct Place {
    pub config: PathBuf,
    pub jobs: PathBuf,
    /// The folder of the configuration; empty for the current one.
    pub folder: PathBuf,
}

/// Reads `02:00`.
pub fn time_of_day(text: &str) -> Result<NaiveTime, String> {
    NaiveTime::parse_from_str(text, "%H:%M").map_err(|_| "write it like 02:00 or 23:30".to_owned())
}

fn zone(text: &str) -> Result<chrono_tz::Tz, String> {
    text.parse().map_err(|_| format!("there is no time zone `{text}`: write it like Europe/Berlin"))
}
