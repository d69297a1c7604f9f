//! Versions of the client tools, beside those of the servers.

use std::collections::BTreeMap;

use super::asked::Asked;
use super::finding::{Finding, State};
use crate::config::Config;
use crate::pg::client_tools;

/// Looks at the tools for each server.
pub async fn of_tools(config: &Config, databases: &BTreeMap<String, Asked>) -> Vec<Finding> {
    let by_major: BTreeMap<u32, _> = databases.values().map(|asked| (asked.server.major(), &asked.server)).collect();
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
