//! How often indexes and large tables were used, from one audit to the next: the server's counters say only what was since they began, and
//! nothing of one that was used long ago and is no longer.

use std::collections::BTreeMap;

use anyhow::Result;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;

use super::context::{AuditContext, begin, end};
use super::document::Document;
use super::probe::reason_unknown;
use crate::pg;

/// The setting by which the queries of the checks read it (JSON). It is of this session alone.
const SETTING: &str = "pgtend.usage";

/// The counters of indexes of tables with 1,000 rows, and of tables of 16 MiB: the largest.
const COUNTERS: &str = "
    (SELECT 'index' AS kind, format('%I.%I', n.nspname, c.relname) AS name,
            CASE c.relkind WHEN 'I' THEN (SELECT coalesce(sum(pg_stat_get_numscans(h.inhrelid)), 0)::bigint FROM pg_inherits h WHERE h.inhparent = c.oid) ELSE pg_stat_get_numscans(c.oid) END AS scans, 0::bigint AS rows
     FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_class t ON t.oid = i.indrelid JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE NOT i.indisunique AND i.indisvalid AND NOT c.relispartition AND (t.relkind = 'p' OR t.reltuples >= 1000) AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pgtend') AND n.nspname NOT LIKE 'pg\\_%'
     ORDER BY c.relpages DESC, 2 LIMIT 3000)
    UNION ALL
    (SELECT 'table', format('%I.%I', n.nspname, c.relname), pg_stat_get_numscans(c.oid), pg_stat_get_tuples_returned(c.oid)
     FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE c.relkind = 'r' AND c.relpages::bigint * current_setting('block_size')::bigint >= 16777216 AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pgtend') AND n.nspname NOT LIKE 'pg\\_%'
     ORDER BY c.relpages DESC, 2 LIMIT 1000)";

/// When the counters began; where they were never reset, since when the server runs at least.
const BEGAN: &str = "SELECT coalesce(pg_stat_get_db_stat_reset_time(oid), pg_postmaster_start_time()) FROM pg_database WHERE datname = current_database()";

/// By names with their schemas, quoted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    #[serde(default)]
    pub indexes: BTreeMap<String, Used>,
    #[serde(default)]
    pub tables: BTreeMap<String, Scanned>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Used {
    pub scans: i64,
    /// No use was seen from then on.
    pub unused_since: DateTime<Utc>,
    /// How many audits saw it unused, this one included.
    pub audits: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scanned {
    /// The scans of the whole table, and the rows that they read, since the counters began.
    pub scans: i64,
    pub rows: i64,
    pub at: DateTime<Utc>,
}

/// What the last audit has counted, and when.
#[derive(Clone, Debug, Default)]
pub struct Before {
    pub at: DateTime<Utc>,
    pub usage: Usage,
}

#[derive(Debug, sqlx::FromRow)]
struct Counter {
    kind: String,
    name: String,
    scans: i64,
    rows: i64,
}

/// Counts, compares with the last audit, and tells the session, whose checks ask for it.
pub async fn look(connection: &mut PgConnection, context: &AuditContext<'_>, document: &mut Document) -> Result<()> {
    // Whatever the database or the role has set there is not ours.
    tell(connection, "").await?;
    begin(connection, context).await?;
    let counters = pg::fetch_all_as::<Counter>(connection, COUNTERS.to_owned()).await;
    end(connection).await?;
    let counters = match counters {
        Ok(counters) => counters,
        Err(error) => match reason_unknown(&error, context.audit.check_timeout) {
            Some(reason) => {
                document
                    .notes
                    .push(format!("how much indexes and tables are used is not compared with the last audit: {reason}"));
                return Ok(());
            }
            None => return Err(error.context("while reading how much indexes are used")),
        },
    };
    let began: DateTime<Utc> = sqlx::query_scalar(BEGAN).fetch_one(&mut *connection).await.map_err(pg::in_its_own_words)?;
    document.usage = carried(counters, context.before, document.statistics_since, began, context.now);
    let mut known = document.usage.clone();
    known.tables = context
        .before
        .filter(|before| !is_reset(document.statistics_since, before))
        .map(|before| before.usage.tables.clone())
        .unwrap_or_default();
    tell(connection, &serde_json::to_string(&known)?).await
}

async fn tell(connection: &mut PgConnection, value: &str) -> Result<()> {
    sqlx::query("SELECT set_config($1, $2, false)")
        .bind(SETTING)
        .bind(value)
        .execute(connection)
        .await
        .map_err(pg::in_its_own_words)?;
    Ok(())
}

/// Whether the counters were reset after the last audit.
fn is_reset(reset: Option<DateTime<Utc>>, before: &Before) -> bool {
    reset.is_some_and(|since| since > before.at)
}

/// Returns what is known now: an index whose counter stands where it stood goes on being unused. Pure.
fn carried(
    counters: Vec<Counter>,
    before: Option<&Before>,
    reset: Option<DateTime<Utc>>,
    began: DateTime<Utc>,
    now: DateTime<Utc>,
) -> Usage {
    let is_reset = before.is_some_and(|before| is_reset(reset, before));
    let since_statistics = |scans: i64| if scans == 0 { began } else { now };
    let mut usage = Usage::default();
    for Counter { kind, name, scans, rows } in counters {
        if kind == "table" {
            usage.tables.insert(name, Scanned { scans, rows, at: now });
            continue;
        }
        let then = before.and_then(|before| before.usage.indexes.get(&name));
        let (unused_since, audits) = match then {
            // What was between the last audit and the reset is not known.
            _ if is_reset || before.is_none_or(|before| before.usage.indexes.is_empty()) => (since_statistics(scans), 1),
            Some(then) if then.scans == scans => (then.unused_since, then.audits.saturating_add(1)),
            // It was used, or is new.
            _ => (now, 1),
        };
        usage.indexes.insert(name, Used { scans, unused_since, audits });
    }
    usage
}

#[cfg(test)]
mod tests {
    use super::super::document::tests::day;
    use super::*;

    fn of_index(scans: i64) -> Vec<Counter> {
        vec![Counter { kind: "index".to_owned(), name: "i".to_owned(), scans, rows: 0 }]
    }

    fn before(scans: i64, unused_since: u32) -> Before {
        let used = Used { scans, unused_since: day(unused_since), audits: 2 };
        Before { at: day(10), usage: Usage { indexes: [("i".to_owned(), used)].into(), tables: BTreeMap::new() } }
    }

    #[test]
    fn an_index_is_unused_since_the_audit_that_saw_its_last_use() {
        let of = |scans: i64, before: Option<&Before>, since: u32| {
            let usage = carried(of_index(scans), before, Some(day(since)), day(since), day(20));
            (usage.indexes["i"].unused_since, usage.indexes["i"].audits)
        };
        assert_eq!(of(0, None, 3), (day(3), 1), "since the statistics began");
        assert_eq!(of(7, None, 3), (day(20), 1), "it was used, nobody knows when");
        assert_eq!(of(7, Some(&before(7, 5)), 3), (day(5), 3), "used long ago, and no longer");
        assert_eq!(of(8, Some(&before(7, 5)), 3), (day(20), 1), "used since the last audit");
        assert_eq!(of(0, Some(&before(7, 5)), 12), (day(12), 1), "the statistics were reset");
        let others = Before {
            at: day(10),
            usage: Usage { indexes: [("j".to_owned(), before(7, 5).usage.indexes["i"].clone())].into(), tables: BTreeMap::new() },
        };
        assert_eq!(of(0, Some(&others), 3), (day(20), 1), "it was made since the last audit");
    }
}
