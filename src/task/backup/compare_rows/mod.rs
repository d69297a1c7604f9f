//! Compares the rows of a restored copy with those of the dump: not only how many there are, but each value, as text. Each table is read back by COPY under
//! the settings that the dump was written under, and the sum of its rows (`row_sum`) is compared with that of the lines that went in. COPY brings the count
//! along. Where the text may rightly be another one, a table is only counted, and named with the reason (`readable`).

mod read;
mod readable;

use std::collections::HashMap;

use anyhow::Result;
use sqlx::postgres::PgConnection;

pub use self::read::Readers;
use self::readable::ToRead;
use super::counts::{self, Counts, Group};
use super::how_proved::Hashed;
use super::manifest::Manifest;
use super::row_sum::{RowSum, RowsHash};
use super::row_sums::RowSums;
use crate::base::units;

/// At most so many tables are named that were only counted.
const NAMED_MOST: usize = 100;

/// What was found.
#[derive(Debug, Default)]
pub struct Compared {
    pub counts: Counts,
    /// Tables with as many rows as in the manifest that are not the rows of the dump, in words.
    pub differ: Vec<String>,
    pub hashed: Hashed,
}

/// Returns why no table of the set can be compared by its values; None: some can.
pub fn why_not(manifest: &Manifest) -> Option<&'static str> {
    match (&manifest.adopted, manifest.has_our_row_text()) {
        (Some(_), _) => Some("the dump was adopted, and it is not known under which settings its rows were written"),
        (None, false) => Some(
            "it is not known under which settings its rows were written: another release made the set, or pg_dump ran through a pooler that drops settings",
        ),
        (None, true) => None,
    }
}

/// Compares all tables. `sums` are those of the dump as it went in; `main` is the session that restored it.
pub async fn compare(main: &mut PgConnection, manifest: &Manifest, sums: &RowSums, readers: Readers<'_>) -> Result<Compared> {
    let (groups, counts) = counts::groups(main, &manifest.tables).await?;
    let mut compared = Compared { counts, ..Compared::default() };
    let target = readable::target(main, &groups, manifest).await?;
    let (mut to_read, mut to_count) = (Vec::new(), Vec::new());
    for group in &groups {
        match target.to_read(group, sums) {
            // Of no rows, the count says all.
            _ if group.expected == 0 => to_count.push((group, None)),
            Ok(reading) => to_read.push(reading),
            Err(why) => to_count.push((group, Some(why))),
        }
    }
    let counted: Vec<&Group> = to_count.iter().map(|(group, _)| *group).collect();
    let rows = counts::count(main, &counted).await?;
    for ((group, why), rows) in to_count.into_iter().zip(rows) {
        compared.counts.judge(group, rows);
        match why {
            Some(why) => leave_out(&mut compared.hashed, group, &why),
            None => add(&mut compared.hashed, group),
        }
    }
    let found = read::read(main, manifest.text_encoding(), readers, &to_read).await?;
    let of_manifest = hashes(manifest);
    for (reading, found) in to_read.iter().zip(found) {
        compared.counts.judge(reading.group, found.rows);
        compared.differ.extend(difference(reading, found, &of_manifest));
        add(&mut compared.hashed, reading.group);
    }
    Ok(compared)
}

/// Notes that a group was compared by its values.
fn add(hashed: &mut Hashed, group: &Group) {
    hashed.tables += group.tables.len() as u64;
    hashed.rows += group.expected;
}

fn leave_out(hashed: &mut Hashed, group: &Group, why: &str) {
    if hashed.only_counted.len() < NAMED_MOST {
        hashed.only_counted.push(format!("{}: {why}", group.name));
    }
}

/// The sums by the manifest, of all entries of a table; None where one has none.
fn hashes(manifest: &Manifest) -> HashMap<(&str, &str), Option<RowsHash>> {
    let mut hashes: HashMap<(&str, &str), Option<RowsHash>> = HashMap::new();
    for table in &manifest.tables {
        let of_table = hashes.entry((&table.schema, &table.name)).or_insert_with(|| Some(RowsHash::default()));
        *of_table = of_table.zip(table.rows_hash).map(|(one, other)| one.plus(other));
    }
    hashes
}

/// Says how the rows differ where there are as many as there should be. Pure.
fn difference(reading: &ToRead<'_>, found: RowSum, of_manifest: &HashMap<(&str, &str), Option<RowsHash>>) -> Option<String> {
    let ToRead { group, expected, .. } = reading;
    let rows = units::plural(found.rows, "row");
    let of_tables =
        group.tables.iter().map(|(schema, name)| of_manifest.get(&(schema.as_str(), name.as_str())).copied().flatten());
    let written = of_tables.reduce(|one, other| Some(one?.plus(other?))).flatten();
    if let Some(written) = written.filter(|written| *written != expected.hash) {
        return Some(format!(
            "{}: the rows in the dump are not those that were hashed when the server sent them (hash {} in place of {written}), although its bytes are as \
             they were stored: look at the memory of the host that made the set",
            group.name, expected.hash
        ));
    }
    (found.rows == expected.rows && found.hash != expected.hash).then(|| {
        format!(
            "{} has {rows} here and in the set, with other values: their hash is {} here and {} in the set",
            group.name, found.hash, expected.hash
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::backup::manifest::ROW_TEXT;
    use crate::task::backup::manifest::tests::manifest;

    fn sum(rows: &[&str]) -> RowSum {
        let mut sum = RowSum::default();
        rows.iter().for_each(|row| sum.add_row(row.as_bytes()));
        sum
    }

    #[test]
    fn rows_are_compared_with_the_dump_and_the_dump_with_its_manifest() {
        let group =
            Group { name: "public.a".into(), expected: 1, tables: vec![("public".into(), "a".into())], ..Group::default() };
        let expected = sum(&["1"]);
        let reading = ToRead { group: &group, expected, parts: Vec::new() };
        for (of_manifest, found, says) in [
            (None, sum(&["1"]), None),
            (Some(expected.hash), sum(&["1"]), None),
            (None, sum(&["2"]), Some("public.a has 1 row here and in the set, with other values")),
            (Some(expected.hash), sum(&["2"]), Some("with other values")),
            // The counts say that.
            (None, sum(&["1", "1"]), None),
            (Some(sum(&["2"]).hash), sum(&["1"]), Some("look at the memory of the host that made the set")),
        ] {
            let hashes = HashMap::from([(("public", "a"), of_manifest)]);
            let said = difference(&reading, found, &hashes);
            match says {
                None => assert_eq!(said, None),
                Some(says) => assert!(said.as_ref().is_some_and(|said| said.contains(says)), "{said:?}"),
            }
        }
    }

    #[test]
    fn a_table_of_several_entries_has_the_sum_of_all() {
        let mut manifest = manifest();
        manifest.tables.push(manifest.tables[0].clone());
        assert_eq!(hashes(&manifest)[&("public", "a")], None);
        let hash = sum(&["1"]).hash;
        manifest.tables[0].rows_hash = Some(hash);
        assert_eq!(hashes(&manifest)[&("public", "a")], None, "of one entry it is not known");
        manifest.tables[2].rows_hash = Some(hash);
        assert_eq!(hashes(&manifest)[&("public", "a")], Some(hash.plus(hash)));
    }

    #[test]
    fn rows_are_compared_only_where_it_is_known_how_they_were_written() {
        let mut manifest = manifest();
        assert!(why_not(&manifest).is_some_and(|why| why.contains("another release made the set")));
        manifest.row_text = Some(ROW_TEXT);
        assert_eq!(why_not(&manifest), None);
        manifest.row_text = Some(ROW_TEXT + 1);
        assert!(why_not(&manifest).is_some());
    }
}
