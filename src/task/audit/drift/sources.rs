//! What the database is compared with, tried before an audit needs it: for `check --connect`.

use anyhow::{Context as _, Result};
use sqlx::PgConnection;

use super::{LOAD_TIMEOUT, against, objects};
use crate::base::fault::{Fault, Kind};
use crate::base::units;
use crate::config::Config;
use crate::pg::{self, Server};
use crate::task::audit::Audit;

const OLDEST: u32 = 14;

/// Tries `schema_file` with `scratch`, or `against`: the file is there, the other server answers, its version is known, and the role may do there what the audit does.
/// Returns that in words.
pub async fn try_sources(audit: &Audit, here: &mut PgConnection, config: &Config) -> Result<Option<String>> {
    if let Some(file) = &audit.schema_file {
        if !file.is_file() {
            let message = format!("schema_file {} does not exist", file.display());
            return Err(Fault::new(Kind::Configuration, message).into());
        }
        let Some(name) = &audit.scratch else { return Ok(Some(format!("compares with {}", file.display()))) };
        let (mut scratch, server) = reach(config, name).await.with_context(|| format!("scratch = \"{name}\""))?;
        let may = "SELECT (rolcreatedb OR rolsuper)::pg_catalog.text FROM pg_catalog.pg_roles WHERE rolname OPERATOR(pg_catalog.=) CURRENT_USER";
        if pg::fetch_text(&mut scratch, may.to_owned()).await?.as_deref() != Some("true") {
            let message = format!("scratch = \"{name}\": the role may not create databases there: ALTER ROLE … CREATEDB");
            return Err(Fault::new(Kind::Permission, message).into());
        }
        return Ok(Some(format!(
            "compares with {}, loaded on database {name}'s server (PostgreSQL {})",
            file.display(),
            server.version
        )));
    }
    let Some(name) = &audit.against else { return Ok(None) };
    let found = look(here, config, name).await.with_context(|| format!("against = \"{name}\""))?;
    Ok(Some(found))
}

/// Reads what an audit reads there.
async fn look(here: &mut PgConnection, config: &Config, name: &str) -> Result<String> {
    let (mut other, server) = reach(config, name).await?;
    if server.major() < OLDEST {
        let message = format!("its server is PostgreSQL {}, and schemas are compared from {OLDEST} on", server.version);
        return Err(Fault::new(Kind::Configuration, message).into());
    }
    if against::is_same(here, &mut other).await? {
        return Err(Fault::new(Kind::Configuration, against::itself(name)).into());
    }
    let objects = objects(&mut other, LOAD_TIMEOUT).await?;
    Ok(format!("compares with database {name} (PostgreSQL {}, {})", server.version, units::plural(objects.len(), "object")))
}

async fn reach(config: &Config, name: &str) -> Result<(PgConnection, Server)> {
    let settings =
        config.database(name).map(|database| database.settings()).context("the configuration has no such database")??;
    let mut connection = settings.connect().await?;
    let server = Server::of(&mut connection).await?;
    Ok((connection, server))
}
