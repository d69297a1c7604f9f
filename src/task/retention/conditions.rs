//! SQL conditions that select the rows to delete.

use chrono::{DateTime, Utc};

use super::key::Key;
use super::keys::Retention;
use crate::base::units::Span;
use crate::pg::{identifier, literal};

/// The conditions for the rows of one table: the job's table, or one of its partitions.
#[derive(Clone, Debug, Default)]
pub struct Conditions {
    pub expired: String,
    /// The same, without checking whether the value of the column is a time.
    pub old: String,
    /// Matches rows whose value is not a time: of the rows that meet `old`, these stay.
    pub never: Option<String>,
}

/// The parts that conditions are built from.
pub struct Terms<'a> {
    pub retention: &'a Retention,
    pub key: Key,
    /// The smallest value that is young enough to stay; None where age does not matter.
    pub limit: Option<&'a str>,
    /// The smallest value that is a real time.
    pub floor: &'a str,
    /// All rows that count for `keep_newest`, as written after FROM.
    pub all: &'a str,
}

/// Returns SQL that rows meet whose value is not a time: they stay whatever it is. None if all values are times.
pub fn never(retention: &Retention, key: Key, floor: &str) -> Option<String> {
    let sentinels =
        retention.keeps_sentinels().then(|| format!("{} OPERATOR(pg_catalog.<) {floor}", key.column(&retention.column)));
    let without_time = key.shape(&retention.column).map(|shape| format!("NOT ({shape})"));
    let never: Vec<String> = sentinels.into_iter().chain(without_time).collect();
    (!never.is_empty()).then(|| never.join(" OR "))
}

impl Terms<'_> {
    /// `table` is quoted.
    pub fn of(&self, table: &str) -> Conditions {
        let column = self.key.column(&self.retention.column);
        let mut old = match self.limit {
            Some(limit) => format!("{column} OPERATOR(pg_catalog.<) {limit}"),
            None => format!("{column} IS NOT NULL"),
        };
        let mut expired = old.clone();
        if self.retention.keeps_sentinels() {
            expired += &format!(" AND {column} OPERATOR(pg_catalog.>=) {}", self.floor);
        }
        if let Some(shape) = self.key.shape(&self.retention.column) {
            expired += &format!(" AND {shape}");
        }
        let never = never(self.retention, self.key, self.floor);
        let mut more = String::new();
        if let Some((keep, per)) = self.retention.newest() {
            more += &format!(" AND {}", self.has_newer(keep, per, table));
        }
        if let Some(condition) = &self.retention.condition {
            // The condition ends on a line of its own, so that a comment at its end cannot comment out our SQL.
            more += &format!(" AND (\n{condition}\n)");
        }
        old += &more;
        expired += &more;
        Conditions { expired, old, never }
    }

    /// Returns the SQL condition that at least `keep` rows with the same value of `per` are newer. A value that is not a time counts as newer than none: random uuids
    /// and 'infinity' would take the places of all real times.
    fn has_newer(&self, keep: u32, per: &str, table: &str) -> String {
        let (key, column, per) = (self.key, &self.retention.column, identifier(per));
        let place = |of: &str| format!("({}, {of}.tableoid, {of}.ctid)", key.column_of(of, column));
        format!(
            "(SELECT pg_catalog.count(*) FROM (SELECT FROM {} newer WHERE newer.{per} OPERATOR(pg_catalog.=) {table}.{per}
              AND {} OPERATOR(pg_catalog.>) {}{} LIMIT {keep}) n) OPERATOR(pg_catalog.=) {keep}",
            self.all,
            place("newer"),
            place(table),
            key.is_a_time("newer", column).map(|condition| format!(" AND {condition}")).unwrap_or_default()
        )
    }
}

/// Returns the SQL condition that the cut-off is old enough by the clock of the deleting transaction. If the server's clock was set back since the plan was made,
/// nothing is deleted. The condition uses no column, so that the executor evaluates it once.
pub fn gate(older_than: Span, cutoff: DateTime<Utc>) -> String {
    format!(
        "({}::timestamp with time zone OPERATOR(pg_catalog.<=) (pg_catalog.transaction_timestamp() OPERATOR(pg_catalog.-) pg_catalog.make_interval(secs => {:.3})))",
        literal(&cutoff.format("%Y-%m-%d %H:%M:%S%.6f+00").to_string()),
        older_than.0.as_secs_f64()
    )
}
