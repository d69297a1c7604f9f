//! Versions of the client tools, beside those of the servers.

use std::collections::BTreeMap;

use futures_util::StreamExt as _;

use super::finding::{Finding, State};
use crate::config::Config;
use crate::pg::{Server, client_tools};

const AT_ONCE: usize = 16;

/// Looks at the tools for each server. What does not connect was said before.
pub async fn of_tools(config: &Config) -> Vec<Finding> {
    let servers = futures_util::stream::iter(config.databases.values()).map(|database| async move {
        let mut connection = database.settings().ok()?.connect().await.ok()?;
        Server::of(&mut connection).await.ok()
    });
    let servers: Vec<Option<Server>> = servers.buffer_unordered(AT_ONCE).collect().await;
    let by_major: BTreeMap<u32, Server> = servers.into_iter().flatten().map(|server| (server.major(), server)).collect();
    let mut findings = Vec::new();
    for (major, server) in by_major {
        let Ok(tools) = client_tools::find(config.tools.bin_dir.as_deref(), major).await else { continue };
        let what = format!("versions for PostgreSQL {major}");
        if let Some(update) = tools.needs_update_to() {
            let said =
                format!("{} in {} lacks the fix of CVE-2024-7348: update it to {update}", tools.version, tools.folder.display());
            findings.push(Finding::new(State::Warning, what, said));
        } else if tools.major != major {
            let said = format!(
                "the server is {} and pg_dump is {}: that works, and dumps restore best with the server's own version (postgresql-client-{major})",
                server.version, tools.version
            );
            findings.push(Finding::new(State::Warning, what, said));
        } else {
            findings.push(Finding::new(State::Fine, what, format!("the server is {}, {}", server.version, tools.version)));
        }
    }
    findings
}
