//! Finds servers and databases that the configuration reaches by two addresses: only the server can tell.

use sqlx::postgres::PgConnection;

use crate::base::fault::{Fault, Kind};
use crate::config::Config;
use crate::config::servers::name_of;
use crate::pg;
use crate::pg::databases::{self, Listed};

/// Says which of the servers before it this one is, too.
pub(super) fn under_two_names(name: &str, listed: &Listed, before: &[(&String, Listed)]) -> Option<anyhow::Error> {
    let is_same = |other: &&(&String, Listed)| other.1.started_at.is_some() && other.1.started_at == listed.started_at;
    let (other, _) = before.iter().find(is_same)?;
    let message = format!(
        "[servers.{other}] and [servers.{name}] are one server under two addresses: each job runs twice on its databases"
    );
    Some(Fault::new(Kind::Configuration, message).into())
}

/// An entry whose database is found as well, as its address is another one for the same server: jobs with patterns run on it twice.
pub(super) async fn also_found(
    name: &str,
    settings: &pg::Settings,
    connection: &mut PgConnection,
    config: &Config,
    servers: &[(&String, Listed)],
) -> Option<String> {
    config.databases.get(name)?;
    let started_at = databases::started_at(connection).await.ok()?;
    let place = |server: &String| config.servers.get(server)?.login.settings().ok().map(|login| login.server());
    let (server, _) = servers.iter().find(|(server, listed)| {
        let takes = config.servers.get(*server).is_some_and(|server| server.takes(settings.database()));
        takes && listed.started_at == Some(started_at) && listed.names.iter().any(|own| own == settings.database())
    })?;
    let (here, there) = (settings.server(), place(server)?);
    (here != there).then(|| {
        format!(
            "it is also {}, as {here} and {there} are one server: jobs with patterns run on it under both names. Write the same host and port in both URLs",
            name_of(server, settings.database())
        )
    })
}
