//! The state of a partitioned table.

use chrono::{DateTime, Utc};
use chrono_tz::Tz;

use super::super::calendar::Calendar;
use super::super::key::{Bound, Key};
use super::super::mark::Mark;
use super::default::InDefault;
use super::surroundings::{Extra, Published};
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
    pub is_pending: bool,
    pub mark: Option<Mark>,
    /// Foreign keys that name this very partition.
    pub inbound: Vec<String>,
    /// Rows of other tables that refer to its rows through the table itself; looked for where it would go.
    pub referred_to: Vec<String>,
    /// Views and the like that name this very partition; looked for where it would go.
    pub dependants: Vec<String>,
}

/// A table with a mark of ours that is no partition any more.
#[derive(Clone, Debug)]
pub struct Detached {
    pub table: TableName,
    pub mark: Mark,
    pub inbound: Vec<String>,
    pub dependants: Vec<String>,
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
    /// Of number keys. A sequence that was set wrong makes partitions, and drops none.
    pub highest_row: Option<i64>,
    pub at: DateTime<Utc>,
    /// How far this host's clock is from the server's, when that is too far.
    pub clocks_apart: Option<String>,
    pub existing: Vec<Existing>,
    pub detached: Vec<Detached>,
    /// Foreign keys that name the partitioned table.
    pub inbound: Vec<String>,
    pub published: Vec<Published>,
    /// What the newest partition has, and the table itself has not.
    pub extras: Vec<Extra>,
    /// The contents of the default partition.
    pub default: InDefault,
    /// Names in the table's schema that are taken.
    pub taken: Vec<String>,
}
