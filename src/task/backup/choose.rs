//! Chooses the place where a set is restored for its proof.

use anyhow::{Context as _, Result};
use sqlx::postgres::PgConnection;

use super::facts::ServerFacts;
use super::keys::{Backup, Check, Scratch, Verify};
use super::place::Place;
use super::readiness;
use crate::base::fault::{Fault, Kind};
use crate::config::Config;
use crate::pg::failure;
use crate::pg::throwaway::Host;

/// Extensions that work only on a server that loaded their library at its start. A server of its own loads none.
const NEED_PRELOADING: [&str; 4] = ["citus", "pg_cron", "pgaudit", "timescaledb"];

/// Chooses by the job's `scratch`; without it, a server of its own where that is possible. `connection` leads to the source.
pub async fn place(backup: &Backup, config: &Config, source: &ServerFacts, connection: &mut PgConnection) -> Result<Place> {
    if backup.verify != Verify::Restore {
        return Ok(Place::NotAsked);
    }
    if let Some(message) = cannot_open(backup, config) {
        return Ok(Place::Nowhere { kind: Kind::Configuration, message });
    }
    match &backup.scratch {
        Scratch::Same => Ok(Place::Source { why: None }),
        Scratch::Database(name) => {
            let database = config.database(name);
            let database = database.with_context(|| format!("the configuration has no database `{name}`"))?;
            Ok(Place::Elsewhere(database.settings()?))
        }
        Scratch::Auto => Ok(match own_server(backup, config, source, connection).await {
            Ok(host) => Place::OwnServer(host),
            Err(error) => Place::Source { why: Some(failure::in_a_line(&error)) },
        }),
        Scratch::Throwaway => Ok(match own_server(backup, config, source, connection).await {
            Ok(host) => Place::OwnServer(host),
            Err(error) => Place::Nowhere {
                kind: failure::kind_of(&error).unwrap_or(Kind::Configuration),
                message: format!(
                    "scratch = \"throwaway\": a server of its own cannot be created here: {}",
                    failure::in_a_line(&error)
                ),
            },
        }),
    }
}

/// Returns why no set of the job can be restored by this host; `None` when it can open what it writes.
pub fn cannot_open(backup: &Backup, config: &Config) -> Option<String> {
    let keys = config.stores.get(&backup.first.store)?.age_keys();
    let why = (!keys.recipients.is_empty()).then(|| keys.cannot_open_own()).flatten()?;
    Some(format!(
        "verify = \"restore\": sets in store `{}` are encrypted, and this host cannot open them: {why}. Say verify = \"checksum\", and prove them by \
         `pgtend backups verify latest --restore-on DATABASE` on a host that has a secret key; or set `identity_file` of the store here",
        backup.first.store
    ))
}

/// Returns a host for a server in which a role that is not a superuser can restore the whole dump, or an error that says why there is none.
async fn own_server(backup: &Backup, config: &Config, source: &ServerFacts, connection: &mut PgConnection) -> Result<Host> {
    let tools = &config.tools;
    let major = source.version_num as u32 / 10_000;
    let mut host =
        Host::look(tools.server_bin_dir.as_deref(), major, config.verify.throwaway_parent(), tools.run_as.as_deref()).await?;
    host.memory_bytes = config.verify.memory_bytes;
    let refuse = |message: String| Fault::new(Kind::Configuration, message);
    let folder = host.programs.folder.display();
    if backup.checks.contains(&Check::Amcheck) {
        anyhow::ensure!(
            host.programs.has_extension("amcheck") != Some(false),
            refuse(format!(
                "checks = [\"amcheck\"]: the extension amcheck is not installed for the PostgreSQL {major} in {folder}: install \
                 PostgreSQL's contrib package there"
            ))
        );
    }
    // With `schemas`, pg_dump dumps no extensions, and nothing else that only a superuser may create.
    if backup.filters.schemas.is_empty() {
        let names = || source.extensions.iter().map(|extension| extension.name.as_str());
        let missing: Vec<&str> = names().filter(|name| host.programs.has_extension(name) == Some(false)).collect();
        anyhow::ensure!(
            missing.is_empty(),
            refuse(format!(
                "extensions of the dump are not installed for the PostgreSQL {major} in {folder}: {}; install their packages there",
                missing.join(", ")
            ))
        );
        let preloaded: Vec<&str> = names().filter(|name| NEED_PRELOADING.contains(name)).collect();
        anyhow::ensure!(
            preloaded.is_empty(),
            refuse(format!(
                "it loads no libraries at its start (shared_preload_libraries), but {} must be loaded then",
                preloaded.join(", ")
            ))
        );
        let of_superusers = readiness::of_superusers(connection, true).await?;
        anyhow::ensure!(
            of_superusers.is_empty(),
            refuse(format!(
                "only a superuser may restore {}, and the role that restores there is not a superuser",
                of_superusers.iter().take(5).cloned().collect::<Vec<_>>().join(", ")
            ))
        );
    }
    host.check_space(source.database.size_bytes.max(0) as u64)?;
    Ok(host)
}
