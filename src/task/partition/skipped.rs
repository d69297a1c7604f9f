//! Tables that a run leaves as they are while it works on the others, such as those of many tenants below one root.

use anyhow::Result;
use serde::Serialize;

use super::calendar::Every;
use super::runway::Runway;
use crate::base::fault::{Fault, Kind};
use crate::live::governor;
use crate::live::session::Session;
use crate::pg::failure;
use crate::pg::table::TableName;

/// A table for which nothing could be done, and why.
#[derive(Debug, Serialize)]
pub struct SkippedTable {
    pub table: TableName,
    #[serde(skip)]
    pub kind: Option<Kind>,
    pub reason: String,
    /// True if new rows have, or will soon have, no partition.
    #[serde(skip)]
    pub has_no_runway: bool,
}

impl SkippedTable {
    /// Returns the error itself if it concerns the server or the whole run: other tables would fail as well.
    pub fn of(table: TableName, error: anyhow::Error) -> Result<Self> {
        match failure::kind_of(&error) {
            Some(Kind::Unreachable | Kind::Cancelled | Kind::TimedOut) => Err(error),
            kind => Ok(Self { table, kind, reason: failure::in_a_line(&error), has_no_runway: false }),
        }
    }

    /// Marks the table as one without a runway. This is a failure, whatever blocked its partitions: a lock that ends by itself does not
    /// bring back the rows that were refused in the meantime.
    pub fn without_runway(mut self, runway: &Runway, every: Every) -> Self {
        self.kind = self.kind.filter(|kind| !ends_by_itself(*kind));
        self.reason = format!("{}: {}; {}; {}", self.table, runway.in_words(), Runway::short_in_words(every), self.reason);
        self.has_no_runway = true;
        self
    }

    /// Returns the failure of a run that has no other table.
    pub fn error(&self) -> anyhow::Error {
        error(self.kind, self.in_words())
    }

    /// Returns the failure of a run that could do nothing for any of its tables.
    pub fn all(left: &[Self]) -> anyhow::Error {
        let (first, others): (Vec<&Self>, Vec<&Self>) = left.iter().partition(|left| left.has_no_runway);
        let reasons = first.into_iter().chain(others).map(Self::in_words).collect::<Vec<_>>().join("; ");
        error(worst(left.iter().map(|left| left.kind)).flatten(), reasons)
    }

    pub fn in_words(&self) -> String {
        match self.reason.contains(&self.table.to_string()) {
            true => self.reason.clone(),
            false => format!("{}: {}", self.table, self.reason),
        }
    }
}

pub fn error(kind: Option<Kind>, message: String) -> anyhow::Error {
    match kind {
        Some(kind) => Fault::new(kind, message).into(),
        None => anyhow::Error::msg(message),
    }
}

/// Returns the worst of several failures: one that does not end by itself before one that does.
pub fn worst(kinds: impl Iterator<Item = Option<Kind>> + Clone) -> Option<Option<Kind>> {
    let unnamed = kinds.clone().find(Option::is_none);
    let lasts = |kind: &Option<Kind>| !kind.is_some_and(ends_by_itself);
    unnamed.or_else(|| kinds.clone().find(lasts)).or_else(|| kinds.clone().next())
}

fn ends_by_itself(kind: Kind) -> bool {
    matches!(kind, Kind::Busy | Kind::Deferred)
}

/// Adds the holders of the lock to an error from reading a table, if a lock caused it.
pub async fn with_lock_holders(session: &mut Session, table: &TableName, error: anyhow::Error) -> anyhow::Error {
    if !governor::is_lock_trouble(&error) {
        return error;
    }
    let held = async {
        let oids: Vec<i64> = sqlx::query_scalar(
            "SELECT $1::bigint UNION ALL SELECT inhrelid::bigint FROM pg_inherits WHERE inhparent = $1::bigint::oid",
        )
        .bind(table.oid)
        .fetch_all(&mut session.connection)
        .await?;
        session.holders(&oids).await
    };
    match held.await {
        Ok(holders) if !holders.is_empty() => error.context(Fault::new(Kind::Busy, format!("{table} is locked: {holders}"))),
        _ => error.context(Fault::new(Kind::Busy, format!("{table} is locked"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_several_failures_the_one_counts_that_does_not_end_by_itself() {
        let (busy, permission) = (Some(Kind::Busy), Some(Kind::Permission));
        for (kinds, counts) in [
            (vec![], None),
            (vec![busy, Some(Kind::Deferred)], Some(busy)),
            (vec![busy, permission], Some(permission)),
            (vec![permission, busy, None], Some(None)),
        ] {
            assert_eq!(worst(kinds.iter().copied()), counts, "{kinds:?}");
        }
    }
}
