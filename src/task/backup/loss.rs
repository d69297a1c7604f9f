//! What a dump has lost against the one before it. Then the one before it is held, since it may be the last that has it.

use std::collections::BTreeSet;

use anyhow::Result;
use chrono::{DateTime, TimeDelta, Utc};

use super::manifest::Manifest;
use super::markers::{self, HOLD, Hold};
use super::set::Set;
use crate::store::Store;
use crate::units;

/// A dump that shrank to less than this share of the last one has lost something.
const SHRUNK: f64 = 0.5;

/// How long somebody has to notice.
const HELD_FOR: TimeDelta = TimeDelta::days(30);

const TABLES_NAMED: usize = 10;

/// Pure: what `now` lacks of what `before` had, as a sentence; None when nothing. Partitions come and go, and so do the tables
/// that pgtend itself has dropped (`schema.name`).
pub fn lost(before: &Manifest, now: &Manifest, dropped_by_us: &BTreeSet<String>) -> Option<String> {
    if before.filters != now.filters {
        return None;
    }
    let name = |schema: &str, table: &str| format!("{schema}.{table}");
    let is_there: BTreeSet<String> = now.tables.iter().map(|table| name(&table.schema, &table.name)).collect();
    let was_partition: BTreeSet<String> =
        before.server.partitions.iter().map(|partition| name(&partition.schema, &partition.name)).collect();
    let gone: BTreeSet<String> = before
        .tables
        .iter()
        .map(|table| name(&table.schema, &table.name))
        .filter(|table| !is_there.contains(table) && !was_partition.contains(table) && !dropped_by_us.contains(table))
        .collect();
    let mut said = Vec::new();
    if !gone.is_empty() {
        let named = gone.iter().take(TABLES_NAMED).map(String::as_str).collect::<Vec<_>>().join(", ");
        let more = gone.len().saturating_sub(TABLES_NAMED);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        said.push(format!("the dump lacks {} that the last one had: {named}{more}", units::plural(gone.len(), "table")));
    }
    let (bytes, last) = (now.dump.bytes, before.dump.bytes);
    if before.dump.compression == now.dump.compression && (bytes as f64) < last as f64 * SHRUNK {
        said.push(format!(
            "the dump shrank to {} from {} last time: is anything missing?",
            units::bytes(bytes),
            units::bytes(last)
        ));
    }
    (!said.is_empty()).then(|| said.join("; "))
}

/// Holds the set before the loss. A hold that lasts longer stays.
pub async fn hold(store: &Store, before: &Set, lost_in: &str, reason: &str, now: DateTime<Utc>) -> Result<()> {
    let until = now + HELD_FOR;
    if before.hold.as_ref().is_some_and(|hold| hold.until >= until) {
        return Ok(());
    }
    let hold = Hold { until, reason: format!("after it, {reason}"), because_of: Some(lost_in.to_owned()) };
    markers::write(store, &before.name, HOLD, &hold).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::backup::facts::Partition;
    use crate::task::backup::manifest::tests::manifest;

    #[test]
    fn tables_that_went_and_halves_are_losses_and_partitions_are_not() {
        let before = manifest();
        let none = BTreeSet::new();
        assert_eq!(lost(&before, &manifest(), &none), None);

        let mut without = manifest();
        without.tables.remove(0);
        assert!(lost(&before, &without, &none).unwrap().contains("lacks 1 table that the last one had: public.a"));
        assert_eq!(lost(&before, &without, &BTreeSet::from(["public.a".to_owned()])), None, "we dropped it");
        let mut partitioned = manifest();
        partitioned.server.partitions.push(Partition {
            schema: "public".into(),
            name: "a".into(),
            root_schema: "public".into(),
            root_name: "r".into(),
        });
        assert_eq!(lost(&partitioned, &without, &none), None, "its time was over");

        let mut half = manifest();
        half.dump.bytes = 499;
        assert!(lost(&before, &half, &none).unwrap().contains("shrank to"));
        half.filters.schemas.push("public".into());
        assert_eq!(lost(&before, &half, &none), None, "somebody asked for less");
    }
}
