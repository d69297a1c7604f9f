//! How often indexes and large tables were used, and how tables grew, from one audit to the next: the server's counters say only what was since they began, and
//! nothing of one that was used long ago and is no longer. Pure.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

/// By names with their schemas, quoted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    #[serde(default)]
    pub indexes: BTreeMap<String, Used>,
    #[serde(default)]
    pub tables: BTreeMap<String, Scanned>,
    #[serde(default)]
    pub growth: BTreeMap<String, Grown>,
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

/// A table of many rows, since the first audit that counted them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grown {
    pub rows: i64,
    pub since: DateTime<Utc>,
    pub rows_then: i64,
    /// Rows that were updated or deleted since then, as far as the server has counted them.
    pub changed: i64,
    /// The server's own count of them.
    pub counter: i64,
    pub audits: u32,
}

/// What the last audit has counted, and when.
#[derive(Clone, Debug, Default)]
pub struct Before {
    pub at: DateTime<Utc>,
    pub usage: Usage,
}

/// `kind`: index, table, or growth, of which `scans` are rows that were updated or deleted.
#[derive(Debug, sqlx::FromRow)]
pub struct Counter {
    pub kind: String,
    pub name: String,
    pub scans: i64,
    pub rows: i64,
}

/// Whether the counters were reset after the last audit.
pub fn is_reset(reset: Option<DateTime<Utc>>, before: &Before) -> bool {
    reset.is_some_and(|since| since > before.at)
}

/// Returns what is known now: an index whose counter stands where it stood goes on being unused. Pure.
pub fn carried(
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
        if kind == "growth" {
            let then = before.and_then(|before| before.usage.growth.get(&name));
            usage.growth.insert(name, grown(then, rows, scans, now));
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

fn grown(then: Option<&Grown>, rows: i64, counter: i64, now: DateTime<Utc>) -> Grown {
    let Some(then) = then else { return Grown { rows, since: now, rows_then: rows, changed: 0, counter, audits: 1 } };
    // A counter that is lower than before was reset meanwhile.
    let more = if counter >= then.counter { counter - then.counter } else { counter };
    Grown { rows, counter, changed: then.changed.saturating_add(more), audits: then.audits.saturating_add(1), ..*then }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn day(day: u32) -> DateTime<Utc> {
        format!("2026-11-{day:02}T00:00:00Z").parse().unwrap()
    }

    fn of_index(scans: i64) -> Vec<Counter> {
        vec![Counter { kind: "index".to_owned(), name: "i".to_owned(), scans, rows: 0 }]
    }

    fn before(scans: i64, unused_since: u32) -> Before {
        let used = Used { scans, unused_since: day(unused_since), audits: 2 };
        Before { at: day(10), usage: Usage { indexes: [("i".to_owned(), used)].into(), ..Usage::default() } }
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
            usage: Usage { indexes: [("j".to_owned(), before(7, 5).usage.indexes["i"].clone())].into(), ..Usage::default() },
        };
        assert_eq!(of(0, Some(&others), 3), (day(20), 1), "it was made since the last audit");
    }

    #[test]
    fn a_table_grows_since_the_first_audit_that_counted_it() {
        let first = grown(None, 100, 7, day(3));
        assert_eq!(
            (first.since, first.rows_then, first.changed, first.audits),
            (day(3), 100, 0, 1),
            "what was before does not count"
        );
        let second = grown(Some(&first), 250, 9, day(10));
        assert_eq!((second.since, second.rows_then, second.rows, second.changed, second.audits), (day(3), 100, 250, 2, 2));
        let third = grown(Some(&second), 300, 4, day(20));
        assert_eq!((third.changed, third.audits), (6, 3), "the counter was reset");
    }
}
