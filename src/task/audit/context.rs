//! The context that a check gets, and the result that it returns.

use std::time::Duration;

use anyhow::Result;
use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde_json::{Map, Value};
use sqlx::PgConnection;
use tokio_util::sync::CancellationToken;

use super::document::{Level, TopQuery};
use super::keys::Audit;
use crate::base::progress::Progress;
use crate::config::Config;
use crate::pg;
use crate::work::Other;

/// The objects of an audit: the database, and the settings for checking it.
pub struct AuditContext<'a> {
    pub audit: &'a Audit,
    pub config: &'a Config,
    /// All jobs of the configuration: some cover tables, others make backups.
    pub others: &'a [Other],
    pub job: &'a str,
    /// Its name in the configuration.
    pub database: &'a str,
    pub settings: &'a pg::Settings,
    pub progress: &'a Progress,
    pub now: DateTime<Utc>,
    /// True if this is `pgtend audit`, which holds no lock.
    pub is_manual: bool,
    pub cancel: &'a CancellationToken,
    /// `trust_owners` in the job's `[limits]`.
    pub trust_owners: bool,
    /// The statements of the last audit.
    pub baseline: &'a [TopQuery],
}

/// One row of a check's query; see `checks.rs`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Row {
    pub object: String,
    pub identity: Option<String>,
    pub issue: Option<String>,
    pub evidence: Option<Map<String, Value>>,
    pub fix: Option<String>,
    pub job: Option<String>,
    pub command: Option<String>,
    /// SQL that `schema_file` lacks.
    pub file: Option<String>,
    pub lock: Option<String>,
    pub level: Option<Level>,
    pub unknown: Option<String>,
    pub probe: Option<String>,
    /// The table that `probe` names, quoted.
    pub reads: Option<String>,
    pub reads_oid: Option<i64>,
    /// A second table that it names: the one that a foreign key refers to.
    pub also_reads: Option<String>,
    pub also_reads_oid: Option<i64>,
}

/// The result of a check: its rows, and the reasons why some are unknown.
#[derive(Debug, Default)]
pub struct CheckResult {
    pub rows: Vec<Row>,
    pub unknown: Vec<String>,
}

impl CheckResult {
    pub fn unknown(reason: impl Into<String>) -> Self {
        Self { rows: Vec::new(), unknown: vec![reason.into()] }
    }
}

/// Other sessions queue behind a lock that we wait for, so the wait is short.
pub(super) const LOCK_TIMEOUT: Duration = Duration::from_secs(1);

/// Returns a connection that can write nothing, whatever statements are sent through it.
pub async fn session(context: &AuditContext<'_>) -> Result<PgConnection> {
    let mut connection = context.settings.connect().await?;
    pg::set(&mut connection, "default_transaction_read_only", "on").await?;
    Ok(connection)
}

/// Begins a transaction for one query. Nested loops are off: the lists of `prelude.sql` have no statistics, and with 2,000 tables the
/// planner's guess costs 3.8 s where a hash join takes 0.1.
pub async fn begin(connection: &mut PgConnection, context: &AuditContext<'_>) -> Result<()> {
    let settings = format!(
        "BEGIN READ ONLY; SET LOCAL statement_timeout = {}; SET LOCAL lock_timeout = {}; SET LOCAL search_path = pg_catalog, pg_temp;
         SET LOCAL TimeZone = 'UTC'; SET LOCAL DateStyle = 'ISO'; SET LOCAL IntervalStyle = 'postgres'; SET LOCAL enable_nestloop = off",
        context.audit.check_timeout.as_millis(),
        LOCK_TIMEOUT.as_millis()
    );
    pg::execute(connection, settings).await
}

pub async fn end(connection: &mut PgConnection) -> Result<()> {
    pg::execute(connection, "ROLLBACK".to_owned()).await
}
