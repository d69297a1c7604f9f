//! The state of a partitioned table.

use std::fmt;

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use serde::Serialize;

use super::super::calendar::Calendar;
use super::super::chain::Chain;
use super::super::key::{Bound, Key};
use super::super::mark::Mark;
use crate::base::units;
use crate::pg::Server;
use crate::pg::table::TableName;

/// An attached partition, or one whose detach is pending.
#[derive(Clone, Debug)]
pub struct Existing {
    pub table: TableName,
    /// Its bounds as the server shows them.
    pub shown: String,
    /// None: the default partition, or a bound that is not understood.
    pub range: Option<(Bound, Bound)>,
    pub is_default: bool,
    /// An ordinary table: neither partitioned itself nor a foreign table.
    pub is_plain: bool,
    /// False if it is partitioned itself and has no partition of its own.
    pub takes_rows: bool,
    pub is_pending: bool,
    pub mark: Option<Mark>,
    /// Foreign keys that name this very partition.
    pub inbound: Vec<String>,
    /// Rows of other tables that refer to its rows through the table itself; read only if it would be retired.
    pub referred_to: Vec<String>,
    /// Views and other objects that name this very partition; read only if it would be retired.
    pub dependants: Vec<String>,
    /// It has rows whose key is no time; looked for where it would go.
    pub has_rows_without_time: bool,
    /// The size of its rows, with TOAST; read only where a large loss needs consent.
    pub bytes: i64,
}

/// A detached table with a mark of ours.
#[derive(Clone, Debug)]
pub struct Detached {
    pub table: TableName,
    pub mark: Mark,
    pub inbound: Vec<String>,
    pub dependants: Vec<String>,
    /// The function of its guard, and the role that it belongs to, which may change it: neither the table's owner nor a member of it.
    pub guard_of_another: Option<String>,
}

/// A table that looks like one that was retired from this one, and belongs to another owner.
#[derive(Clone, Debug)]
pub struct OtherOwnersTable {
    pub table: TableName,
    /// Quoted.
    pub owner: String,
    /// The owner of the partitioned table, quoted.
    pub expected: String,
}

#[derive(Clone, Debug)]
pub struct State {
    pub server: Server,
    pub table: TableName,
    pub column: String,
    pub key: Key,
    pub calendar: Calendar,
    /// The time zone of keys without one.
    pub zone: Tz,
    /// The position of new rows: the clock of the server, or the highest number.
    pub now: i64,
    /// The highest number of a row in `chain`. The sequence does not count: a wrong one must not retire partitions.
    pub highest_row: Option<i64>,
    /// The number that `retain` counts from: the highest that other numbers confirm.
    pub counted: Option<RetainFrom>,
    /// The way to agree to a large loss, in words; None where it needs no consent, or has it.
    pub asks: Option<String>,
    /// For number keys: the partitions and rows that new rows follow.
    pub chain: Option<Chain>,
    /// A row far beyond the chain. No partition is created for it, and nothing is retired while it exists.
    pub far_row: Option<FarRow>,
    /// The last number of the sequence, if it is far beyond the chain.
    pub far_sequence: Option<i64>,
    pub at: DateTime<Utc>,
    /// The difference between this host's clock and the server's, in words, if it is too large.
    pub clocks_apart: Option<String>,
    pub existing: Vec<Existing>,
    pub detached: Vec<Detached>,
    /// Foreign keys that name the partitioned table.
    pub inbound: Vec<String>,
    /// Tables with a mark and a guard of ours, but with another owner than the table: they are reported and kept.
    pub of_other_owners: Vec<OtherOwnersTable>,
    pub published: Vec<Published>,
    /// Properties that the newest partition has and the table itself lacks.
    pub extras: Vec<Extra>,
    /// The contents of the default partition.
    pub default: DefaultContents,
    /// Names in the table's schema that are taken.
    pub taken: Vec<String>,
}

/// The number that `retain` counts from. One wrong number must not retire partitions, so a row counts only up to the sequence, and only if it
/// does not stand alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetainFrom {
    pub position: i64,
    /// The reason why a higher row does not count.
    pub below: Option<Below>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Below {
    /// It is beyond the last number of the sequence.
    Sequence(i64),
    /// There is at least one whole period without a row between this row and the others.
    Alone(i64),
}

/// The highest of all rows, if it is far beyond all others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FarRow {
    /// The number as the server shows it.
    pub shown: String,
    /// For larger numbers, the largest position.
    pub position: i64,
}

/// The contents of the default partition.
#[derive(Clone, Debug, Default)]
pub struct DefaultContents {
    pub rows: Counted,
    pub null_rows: Counted,
    /// Rows that stay: their keys are '-infinity', BC, zero values and the like, or share a period with these.
    pub odd_rows: Counted,
    /// A few of their keys.
    pub odd_keys: Vec<String>,
    pub strays: Vec<StrayPeriod>,
}

/// A count that may have ended at a limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(into = "u64")]
pub struct Counted {
    pub rows: u64,
    /// True if there may be more.
    pub is_capped: bool,
}

impl From<Counted> for u64 {
    fn from(counted: Counted) -> Self {
        counted.rows
    }
}

impl fmt::Display for Counted {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let more = if self.is_capped { " or more" } else { "" };
        write!(f, "{}{more}", units::plural(self.rows, "row"))
    }
}

/// A period that the default partition has rows of.
#[derive(Clone, Debug)]
pub struct StrayPeriod {
    pub position: i64,
    /// Counted up to one more than [`super::default::MOVED_AT_ONCE_ROWS`].
    pub rows: u64,
    /// Between any two of them lie [`super::default::MOVED_AT_ONCE_ROWS`] rows; at most [`super::default::CUTS`].
    pub cuts: Vec<i64>,
    /// True if so many rows have one key that the period cannot be cut.
    pub is_dense: bool,
}

/// A publication that the table, or a partition, is in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, sqlx::FromRow)]
pub struct Published {
    pub name: String,
    /// Changes are published as the root's: subscribers need no partition of the same name.
    pub via_root: bool,
    /// Slots that publish it, which may be those of subscribers.
    pub slots: Vec<String>,
}

/// Something that the newest partition has and its parent lacks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Extra {
    /// For people: `PRIMARY KEY (id)`.
    pub what: String,
    /// The SQL after ALTER TABLE …, or CREATE INDEX ON …; None if it is not copied.
    #[serde(skip)]
    pub copy: Option<CopyStatement>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CopyStatement {
    /// `ADD …`
    Constraint(String),
    /// `ALTER COLUMN …`
    Column(String),
    /// An index: true if it is unique, and `USING …`.
    Index(bool, String),
}

impl CopyStatement {
    /// Returns the statement for another table.
    pub fn sql(&self, table: &str) -> String {
        match self {
            Self::Constraint(definition) => format!("ALTER TABLE {table} ADD {definition}"),
            Self::Column(change) => format!("ALTER TABLE {table} {change}"),
            Self::Index(is_unique, rest) => format!("CREATE {}INDEX ON {table} {rest}", if *is_unique { "UNIQUE " } else { "" }),
        }
    }
}
