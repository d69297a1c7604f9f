//! The context that a check gets, and the result that it returns.

use std::time::{Duration, Instant};

use anyhow::Result;
use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde_json::{Map, Value};
use sqlx::PgConnection;
use tokio_util::sync::CancellationToken;

use super::document::{Level, TopQuery, Weight};
use super::keys::Audit;
use super::usage::Before;
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
    /// What the last audit counted.
    pub before: Option<&'a Before>,
    /// The end of the time of the check that is made: `check_timeout`, or the end of `audit_timeout`.
    pub deadline: Instant,
}

impl AuditContext<'_> {
    /// Returns the same for a check that begins now, which has to be done by `end`.
    pub fn of_check(&self, end: Instant) -> Self {
        Self { deadline: (Instant::now() + self.audit.check_timeout).min(end), ..*self }
    }

    /// Returns the time that the check has left.
    pub fn left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }
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
    /// What a person has to decide, and SQL in which `<THAT>` is left open.
    pub decide: Option<String>,
    pub draft: Option<String>,
    /// What its siblings in the schema may share with it ("foreign keys of schema x have no ON DELETE action"), how many of how many do, and
    /// which do not.
    pub convention: Option<String>,
    pub sharing: Option<i64>,
    pub siblings: Option<i64>,
    pub differ: Option<String>,
    /// The size of its table; no query returns it.
    pub weight: Option<Weight>,
    /// The finding holds unless the planner says that an index serves this foreign key.
    pub foreign_key: Option<ForeignKey>,
    /// The finding holds unless the planner would not use this index.
    pub trial: Option<Trial>,
}

impl Row {
    /// Returns what a finding keeps from one audit to the next.
    pub fn identity(&self) -> &str {
        self.identity.as_deref().unwrap_or(&self.object)
    }

    /// Whether it is a finding, whatever a table or the planner says.
    pub fn is_certain(&self) -> bool {
        let is_open = |key: &ForeignKey| key.open.iter().all(|table| !table.leading.is_empty());
        self.unknown.is_none() && self.probe.is_none() && self.trial.is_none() && !self.foreign_key.as_ref().is_some_and(is_open)
    }
}

/// A foreign key for which the catalog alone cannot say that each of its tables has an index.
#[derive(Debug, Deserialize)]
pub struct ForeignKey {
    /// How many tables the server checks: one, or all partitions.
    pub tables: usize,
    /// Those of them that may have no index.
    pub open: Vec<KeyTable>,
}

#[derive(Debug, Deserialize)]
pub struct KeyTable {
    /// Its name, quoted.
    pub reads: String,
    pub reads_oid: i64,
    pub is_readable: bool,
    /// The types of the check's parameters, as SQL, and their number.
    pub types: String,
    pub parameters: usize,
    /// The server's own check of this table, without its FOR KEY SHARE.
    pub check: String,
    /// The btree and hash indexes that a column of the key leads.
    pub leading: Vec<String>,
    /// What the catalog alone says.
    pub serves_by_catalog: bool,
    /// The statement that builds an index here.
    pub create: String,
}

/// An index that is proposed, and the statement that it is for.
#[derive(Debug, Deserialize)]
pub struct Trial {
    /// The table, quoted.
    pub reads: String,
    pub reads_oid: i64,
    pub is_readable: bool,
    /// CREATE INDEX.
    pub index: String,
    pub query: String,
}

/// The result of a check: its rows, and the reasons why some are unknown.
#[derive(Debug, Default)]
pub struct CheckResult {
    pub rows: Vec<Row>,
    pub unknown: Vec<String>,
    /// The level that the most urgent of the rows that were not read may have.
    pub unread: Option<Level>,
}

impl CheckResult {
    pub fn of(rows: Vec<Row>) -> Self {
        Self { rows, ..Self::default() }
    }

    pub fn unknown(reason: impl Into<String>) -> Self {
        Self { unknown: vec![reason.into()], ..Self::default() }
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

/// Begins a transaction for one query, which may take the time that the check has left. Nested loops are off: the lists of `prelude.sql` have no
/// statistics, and with 2,000 tables the planner's guess costs 3.8 s where a hash join takes 0.1.
pub async fn begin(connection: &mut PgConnection, context: &AuditContext<'_>) -> Result<()> {
    begin_within(connection, context.left()).await
}

/// The same, with this time.
pub async fn begin_within(connection: &mut PgConnection, limit: Duration) -> Result<()> {
    begin_with(connection, limit, "enable_nestloop = off").await
}

/// This many queries at least share the time that a check has left.
const SHARES: u32 = 4;

/// Begins a transaction for one of so many queries into tables: while others wait, it may not take all the time that is left. The same few statements
/// are asked about each table, whose plans are made once.
pub async fn begin_one_of(connection: &mut PgConnection, context: &AuditContext<'_>, queries: usize) -> Result<()> {
    let shares = u32::try_from(queries).map_or(SHARES, |queries| queries.clamp(1, SHARES));
    begin_with(connection, context.left() / shares, "plan_cache_mode = force_generic_plan").await
}

async fn begin_with(connection: &mut PgConnection, limit: Duration, setting: &str) -> Result<()> {
    let settings = format!(
        "BEGIN READ ONLY; SET LOCAL statement_timeout = {}; SET LOCAL lock_timeout = {}; SET LOCAL search_path = pg_catalog, pg_temp;
         SET LOCAL TimeZone = 'UTC'; SET LOCAL DateStyle = 'ISO'; SET LOCAL IntervalStyle = 'postgres'; SET LOCAL {setting}",
        // Zero would be no limit.
        limit.as_millis().max(1),
        LOCK_TIMEOUT.as_millis()
    );
    pg::execute(connection, settings).await
}

pub async fn end(connection: &mut PgConnection) -> Result<()> {
    pg::execute(connection, "ROLLBACK".to_owned()).await
}
