//! `pgtend backups adopt`.

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use tokio_util::sync::CancellationToken;

use super::require::refuse_unknown;
use crate::base::fault::{Fault, Kind};
use crate::base::{terminal, units};
use crate::cli::global::Global;
use crate::cli::output::{print, print_json};
use crate::cli::outputs::sets as printed;
use crate::config::Config;
use crate::store::Store;
use crate::task::backup::adopt::{self, Destination, Source};
use crate::task::backup::set::Set;

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  pgtend backups adopt old.dump --database app
  pgtend backups adopt nightly/app.sql.gz --key --database app --store s3   an object of the store")]
pub struct Arguments {
    /// The dump of one database by pg_dump: SQL, also in gzip or zstd, or the custom format (-Fc); told by its content, not by its
    /// name. A file of this host, or with --key an object of the store
    #[arg(value_name = "FILE|KEY")]
    dump: OsString,
    /// It is the key of an object in the store
    #[arg(long)]
    key: bool,
    /// The database to file it under, by its name in the configuration
    #[arg(long, value_name = "NAME")]
    database: String,
    /// The store of the set; needed where the configuration has several
    #[arg(long, value_name = "NAME")]
    store: Option<String>,
}

pub async fn run(global: &Global, arguments: &Arguments, cancel: &CancellationToken) -> Result<ExitCode> {
    let Arguments { dump, key, database, store } = arguments;
    let config = global.load_config()?;
    refuse_unknown(&config, database)?;
    let store_name = store_of(&config, store.as_deref())?;
    let store = Store::named(&config, &store_name).await?;
    let source = match key {
        true => Source::object(&store, key_of(dump)?).await?,
        false => {
            let opened = cancel.run_until_cancelled(Source::file(Path::new(dump))).await;
            opened.ok_or_else(|| Fault::new(Kind::Cancelled, "cancelled: nothing was adopted"))??
        }
    };
    let phase = global.progress().phase("adopt", None);
    let into = Destination { store: &store, database, bin_dir: config.tools.bin_dir.clone() };
    let (set, sha256) = adopt::adopt(source, &into, &phase, cancel).await?;
    phase.done(&format!("{} from {}", set.name, terminal::in_one_line(&dump.to_string_lossy())));
    match global.json {
        true => print_json(&as_json(&set, &store_name, &sha256))?,
        false => print(&in_words(&set, &store_name, &sha256))?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Keys are text. A file may have any name.
fn key_of(dump: &OsStr) -> Result<&str> {
    let message = || format!("{} is no key: keys are UTF-8", dump.display());
    Ok(dump.to_str().ok_or_else(|| Fault::new(Kind::Configuration, message()))?)
}

fn store_of(config: &Config, wanted: Option<&str>) -> Result<String> {
    let names: Vec<&str> = config.stores.keys().map(String::as_str).collect();
    let refused = |said: &str| Fault::new(Kind::Configuration, format!("{said}: it has {}", names.join(", "))).into();
    match (wanted, &names[..]) {
        (Some(name), _) if names.contains(&name) => Ok(name.to_owned()),
        (Some(name), _) => Err(refused(&format!("the configuration has no store `{name}`"))),
        (None, [only]) => Ok((*only).to_owned()),
        (None, _) => Err(refused("name the store with --store, as the configuration does not have exactly one")),
    }
}

fn as_json<'a>(set: &'a Set, store: &'a str, sha256: &'a str) -> printed::Adopt<'a> {
    let manifest = &set.manifest;
    printed::Adopt {
        set: set.name.to_string(),
        store,
        sha256,
        adopted: manifest.adopted.as_ref(),
        server_version: &manifest.server.version,
        pg_dump_version: &manifest.pg_dump_version,
        tables: manifest.table_count(),
        rows: manifest.rows(),
        dump_bytes: manifest.dump.bytes,
    }
}

fn in_words(set: &Set, store: &str, sha256: &str) -> String {
    let manifest = &set.manifest;
    let origin = manifest
        .adopted
        .as_ref()
        .map(|adopted| format!("{} ({}, SHA-256 {sha256})", terminal::in_one_line(&adopted.name), adopted.form.in_words()));
    format!(
        "{} in {store}: adopted from {}: {}, {}. Nobody has proved it: `pgtend backups verify {}`, and with --restore-on DATABASE\n",
        set.name,
        origin.unwrap_or_default(),
        units::plural(manifest.table_count(), "table"),
        units::plural(manifest.rows(), "row"),
        set.name
    )
}
