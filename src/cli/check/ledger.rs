//! Tries the ledger.

use anyhow::Result;

use super::attempt::{Attempt, LONGEST, warnings};
use crate::config::Config;
use crate::ledger::Ledger;
use crate::task::backup::copies::several::within_time;

/// Tries it, where one is configured.
pub(super) async fn try_ledger(config: &Config) -> Option<Attempt> {
    Some(Attempt::new("ledger", readiness(config).await.transpose()?))
}

async fn readiness(config: &Config) -> Result<Option<String>> {
    let Some(mut ledger) = Ledger::new(config)? else { return Ok(None) };
    let trying = async {
        let ready = ledger.readiness().await?;
        let strangers = if config.servers.is_empty() { Vec::new() } else { ledger.strangers().await? };
        Ok(format!("{ready}{}", warnings(of_strangers(&strangers))))
    };
    within_time(LONGEST, trying).await.map(Some)
}

/// Tenants who may connect to the ledger's database can take the locks by which runs know each other.
fn of_strangers(roles: &[String]) -> Option<String> {
    let first = roles.first()?;
    let others = if roles.len() > 1 { format!(" and {} others", roles.len() - 1) } else { String::new() };
    Some(format!(
        "{}{others} may connect to its database without being runners: such a session can take the locks by which runs of one job, and `max_concurrent` over \
         several hosts, are known. REVOKE CONNECT ON DATABASE of the ledger FROM PUBLIC",
        first.escape_debug()
    ))
}
