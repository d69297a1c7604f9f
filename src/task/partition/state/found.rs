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
    /// As the server shows it.
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
    /// Rows of other tables that refer to its rows through the table itself; looked for where it would go.
    pub referred_to: Vec<String>,
    /// Views and the like that name this very partition; looked for where it would go.
    pub dependants: Vec<String>,
    /// It has rows whose key is no time; looked for where it would go.
    pub has_rows_without_time: bool,
}

/// A table with a mark of ours that is no partition any more.
#[derive(Clone, Debug)]
pub struct Detached {
    pub table: TableName,
    pub mark: Mark,
    pub inbound: Vec<String>,
    pub dependants: Vec<String>,
}

/// A table that looks like one that was retired from this one, and belongs to another owner.
#[derive(Clone, Debug)]
pub struct OfAnother {
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
    /// The highest number of a row in `chain`. A sequence that was set wrong drops no partition.
    pub highest_row: Option<i64>,
    /// Of number keys: the partitions and rows where new rows come.
    pub chain: Option<Chain>,
    /// A row far beyond the chain, because of which nothing is created or retired.
    pub far_row: Option<FarRow>,
    /// The last number of the sequence, if it is far beyond the chain.
    pub far_sequence: Option<i64>,
    pub at: DateTime<Utc>,
    /// How far this host's clock is from the server's, when that is too far.
    pub clocks_apart: Option<String>,
    pub existing: Vec<Existing>,
    pub detached: Vec<Detached>,
    /// Foreign keys that name the partitioned table.
    pub inbound: Vec<String>,
    /// Tables with a mark and a guard of ours, but with another owner than the table: they are named, and stay.
    pub of_other_owners: Vec<OfAnother>,
    pub published: Vec<Published>,
    /// What the newest partition has, and the table itself has not.
    pub extras: Vec<Extra>,
    /// The contents of the default partition.
    pub default: InDefault,
    /// Names in the table's schema that are taken.
    pub taken: Vec<String>,
}

/// The highest of all rows, if it is far beyond all others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FarRow {
    /// As the server shows it.
    pub shown: String,
    /// The largest position for numbers that are larger still.
    pub position: i64,
}

/// The contents of the default partition.
#[derive(Clone, Debug, Default)]
pub struct InDefault {
    pub rows: Counted,
    pub null_rows: Counted,
    /// They stay: '-infinity', BC, zero values and the like, and what shares a period with these.
    pub odd_rows: Counted,
    /// A few of their keys.
    pub odd_keys: Vec<String>,
    pub strays: Vec<Stray>,
}

/// A count that ended somewhere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(into = "u64")]
pub struct Counted {
    pub rows: u64,
    /// There may be more.
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
pub struct Stray {
    pub position: i64,
    /// Counted up to one more than [`super::default::MOVED_AT_ONCE_ROWS`].
    pub rows: u64,
    /// Between any two of them lie [`super::default::MOVED_AT_ONCE_ROWS`] rows; at most [`super::default::CUTS`].
    pub cuts: Vec<i64>,
    /// So many rows have one key that there is nothing to cut.
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
    /// What follows ALTER TABLE … , or CREATE INDEX ON …; None: it is not copied.
    #[serde(skip)]
    pub copy: Option<Copied>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Copied {
    /// `ADD …`
    Constraint(String),
    /// `ALTER COLUMN …`
    Column(String),
    /// Whether it is unique, and `USING …`.
    Index(bool, String),
}

impl Copied {
    /// For another table.
    pub fn sql(&self, table: &str) -> String {
        match self {
            Self::Constraint(definition) => format!("ALTER TABLE {table} ADD {definition}"),
            Self::Column(change) => format!("ALTER TABLE {table} {change}"),
            Self::Index(is_unique, rest) => format!("CREATE {}INDEX ON {table} {rest}", if *is_unique { "UNIQUE " } else { "" }),
        }
    }
}
