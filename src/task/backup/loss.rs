//! Compares a dump with the one before it. If it has lost something, the set before it is held, since it may be the last that has it.

use std::collections::BTreeSet;

use anyhow::Result;
use chrono::{DateTime, TimeDelta, Utc};

use super::manifest::Manifest;
use super::markers::{self, Hold, LOSS_HOLD};
use super::sealed;
use super::set::Set;
use crate::base::units;
use crate::store::Store;

/// A dump that shrank to less than this share of the last one is missing something.
const SHRUNK: f64 = 0.5;

/// The time to notice a loss.
const HELD_FOR: TimeDelta = TimeDelta::days(30);

const TABLES_NAMED: usize = 10;

/// The reason of a hold where nobody shall read names of tables.
pub const HIDDEN: &str = "the dump after it lacks something; the report of that run says what";

/// A sentence about what `now` lacks of `before`; None when nothing is missing. Partitions come and go while their tree exists, and so do
/// tables that pgtend itself has dropped (`schema.name`). A change of the job's filters is no excuse: the set before it is the last one
/// that has what they leave out. Pure.
pub fn lost(before: &Manifest, now: &Manifest, dropped_by_us: &BTreeSet<String>) -> Option<String> {
    let name = |schema: &str, table: &str| format!("{schema}.{table}");
    let is_there: BTreeSet<String> = now.tables.iter().map(|table| name(&table.schema, &table.name)).collect();
    let trees: BTreeSet<(&str, &str)> =
        now.server.partitions.iter().map(|partition| (partition.root_schema.as_str(), partition.root_name.as_str())).collect();
    let may_go: BTreeSet<String> = before
        .server
        .partitions
        .iter()
        .filter(|partition| trees.contains(&(partition.root_schema.as_str(), partition.root_name.as_str())))
        .map(|partition| name(&partition.schema, &partition.name))
        .collect();
    let gone: BTreeSet<String> = before
        .tables
        .iter()
        .map(|table| name(&table.schema, &table.name))
        .filter(|table| !is_there.contains(table) && !may_go.contains(table) && !dropped_by_us.contains(table))
        .collect();
    let mut said = Vec::new();
    if !gone.is_empty() {
        let named = gone.iter().take(TABLES_NAMED).map(String::as_str).collect::<Vec<_>>().join(", ");
        let more = gone.len().saturating_sub(TABLES_NAMED);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        said.push(format!("the dump lacks {} that the last one had: {named}{more}", units::plural(gone.len(), "table")));
    }
    let is_same = before.dump.compression == now.dump.compression;
    let size = |manifest: &Manifest| if is_same { manifest.dump.bytes } else { manifest.dump.uncompressed_bytes };
    let (bytes, last) = (size(now), size(before));
    if (bytes as f64) < last as f64 * SHRUNK {
        said.push(format!(
            "the dump shrank to {} from {} last time: is anything missing?",
            units::bytes(bytes),
            units::bytes(last)
        ));
    }
    (!said.is_empty()).then(|| said.join("; "))
}

/// Holds the set before the loss, in addition to a person's hold. A hold that lasts longer stays.
pub async fn hold(store: &Store, before: &Set, lost_in: &str, reason: &str, now: DateTime<Utc>) -> Result<()> {
    let reason = match sealed::hides_names(store, &before.manifest) {
        true => HIDDEN,
        false => &format!("after it, {reason}"),
    };
    let hold = Hold { until: now + HELD_FOR, reason: reason.to_owned(), because_of: Some(lost_in.to_owned()), for_copy: false };
    if before.holds.iter().any(|earlier| earlier.because_of.is_some() && earlier.until >= hold.until) {
        return Ok(());
    }
    markers::write(store, &before.name, LOSS_HOLD, &hold).await
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
        let partition = |name: &str| Partition {
            schema: "public".into(),
            name: name.into(),
            root_schema: "public".into(),
            root_name: "r".into(),
        };
        let mut partitioned = manifest();
        partitioned.server.partitions = vec![partition("a"), partition("b")];
        assert!(lost(&partitioned, &without, &none).is_some(), "the whole tree is gone");
        without.server.partitions = vec![partition("b")];
        assert_eq!(lost(&partitioned, &without, &none), None, "its time was over");

        let mut half = manifest();
        half.dump.bytes = 499;
        assert!(lost(&before, &half, &none).unwrap().contains("shrank to"));
        half.filters.schemas.push("public".into());
        assert!(lost(&before, &half, &none).is_some(), "also when a filter asks for less");
        half.dump.compression = crate::members::compress::Compression::Zstd;
        assert_eq!(lost(&before, &half, &none), None, "zstd is smaller; uncompressed it is the same");
        half.dump.uncompressed_bytes = 2000;
        assert!(lost(&before, &half, &none).is_some());
    }
}
