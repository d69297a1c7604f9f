//! Compares the rows of each table in two sets. Pure.

use std::collections::{BTreeMap, HashMap};

use super::manifest::Manifest;
use crate::base::units;

/// A table with fewer rows than this may halve from one set to the next without a warning.
const FEW_ROWS: u64 = 100;

const TABLES_NAMED: usize = 10;

/// A table, or all partitions of one, that has another number of rows in one set than in another. None: the set has no such table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// `schema.name`, as in the manifest.
    pub table: String,
    pub before: Option<u64>,
    pub now: Option<u64>,
}

impl Change {
    pub fn in_a_word(&self) -> &'static str {
        match (self.before, self.now) {
            (None, _) => "new",
            (_, None) => "gone",
            (Some(_), Some(0)) => "emptied",
            (Some(before), Some(now)) if now < before.div_ceil(2) => "halved",
            (Some(before), Some(now)) if now < before => "fewer rows",
            _ => "more rows",
        }
    }
}

/// Lists the tables that differ, by name. Partitions count for the table at the top of their tree: they come and go.
pub fn changes(before: &Manifest, now: &Manifest) -> Vec<Change> {
    let (before, now) = (rows(before), rows(now));
    let mut tables: Vec<&String> = before.keys().chain(now.keys()).collect();
    tables.sort();
    tables.dedup();
    let both = tables.into_iter().map(|table| Change {
        table: table.clone(),
        before: before.get(table).copied(),
        now: now.get(table).copied(),
    });
    both.filter(|change| change.before != change.now).collect()
}

/// A sentence about tables that lost all rows or more than half of them since the set before; None if there is no such table. A table that is gone is
/// a loss (`loss.rs`).
pub fn shrunk(before: &Manifest, now: &Manifest) -> Option<String> {
    let lost_most = |change: &Change| match change.in_a_word() {
        "emptied" => true,
        "halved" => change.before.is_some_and(|rows| rows >= FEW_ROWS),
        _ => false,
    };
    let mut said: Vec<String> = Vec::new();
    let mut more = 0;
    for change in changes(before, now).into_iter().filter(lost_most) {
        if said.len() == TABLES_NAMED {
            more += 1;
            continue;
        }
        let (before, now) = (change.before.unwrap_or(0), change.now.unwrap_or(0));
        let has = if now == 0 { "is empty".to_owned() } else { format!("has {}", units::plural(now, "row")) };
        said.push(format!("{} {has}, and had {} in the set before", change.table, units::plural(before, "row")));
    }
    let more = if more > 0 { format!("; and {} more", units::plural(more, "table")) } else { String::new() };
    (!said.is_empty()).then(|| said.join("; ") + &more)
}

fn rows(manifest: &Manifest) -> BTreeMap<String, u64> {
    let name = |schema: &str, table: &str| format!("{schema}.{table}");
    let partitions = manifest.server.partitions.iter();
    let roots: HashMap<String, String> = partitions
        .map(|partition| (name(&partition.schema, &partition.name), name(&partition.root_schema, &partition.root_name)))
        .collect();
    let mut rows: BTreeMap<String, u64> = BTreeMap::new();
    for table in &manifest.tables {
        let own = name(&table.schema, &table.name);
        let counted = rows.entry(roots.get(&own).cloned().unwrap_or(own)).or_default();
        *counted = counted.saturating_add(table.rows);
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::backup::facts::Partition;
    use crate::task::backup::manifest::tests::manifest;

    /// A set with these tables and rows.
    fn set(tables: &[(&str, u64)]) -> Manifest {
        let mut made = manifest();
        let like = made.tables[0].clone();
        made.tables = tables
            .iter()
            .map(|(name, rows)| {
                let mut table = like.clone();
                table.name = (*name).to_owned();
                table.rows = *rows;
                table
            })
            .collect();
        made
    }

    #[test]
    fn every_table_that_differs_has_a_word() {
        let before = set(&[("emptied", 5), ("fewer", 10), ("gone", 1), ("half", 10), ("less", 10), ("more", 1), ("same", 7)]);
        let now = set(&[("emptied", 0), ("fewer", 9), ("half", 5), ("less", 4), ("more", 2), ("new", 0), ("same", 7)]);
        let words: Vec<(String, &str)> =
            changes(&before, &now).into_iter().map(|change| (change.table.clone(), change.in_a_word())).collect();
        let expected = [
            ("public.emptied", "emptied"),
            ("public.fewer", "fewer rows"),
            ("public.gone", "gone"),
            ("public.half", "fewer rows"),
            ("public.less", "halved"),
            ("public.more", "more rows"),
            ("public.new", "new"),
        ];
        assert_eq!(words, expected.map(|(table, word)| (table.to_owned(), word)));
    }

    #[test]
    fn a_table_that_lost_most_rows_is_named_and_a_small_one_only_when_it_is_empty() {
        let said = shrunk(&set(&[("a", 1000), ("b", 3), ("c", 99), ("d", 8)]), &set(&[("a", 499), ("b", 0), ("c", 1), ("d", 7)]));
        assert_eq!(
            said.unwrap(),
            "public.a has 499 rows, and had 1,000 rows in the set before; public.b is empty, and had 3 rows in the set before"
        );
        assert_eq!(shrunk(&set(&[("a", 1000)]), &set(&[("a", 500)])), None);
        assert_eq!(shrunk(&set(&[("a", 1000)]), &set(&[])), None, "a loss");
    }

    #[test]
    fn partitions_count_together() {
        let partition = |name: &str| Partition {
            schema: "public".into(),
            name: name.into(),
            root_schema: "public".into(),
            root_name: "logs".into(),
        };
        let mut before = set(&[("logs_1", 500), ("logs_2", 500)]);
        before.server.partitions = vec![partition("logs_1"), partition("logs_2")];
        let mut now = set(&[("logs_2", 490), ("logs_3", 490)]);
        now.server.partitions = vec![partition("logs_2"), partition("logs_3")];
        assert_eq!(changes(&before, &now), [Change { table: "public.logs".to_owned(), before: Some(1000), now: Some(980) }]);
        assert_eq!(shrunk(&before, &now), None);
    }
}
