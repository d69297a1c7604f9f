//! What tells a database, or a schema that is backed up alone, from others that have had its name.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use anyhow::Result;
use serde::{Deserialize, Serialize};
use sqlx::postgres::PgConnection;

use crate::base::bounds;
use crate::pg;

/// The marks of a database that a set records at most: those of rows, and the time of its file.
const MARKS_MOST: usize = 17;
const ROWS_RECORDED: usize = MARKS_MOST - 1;

/// Rows about all databases that are asked about at once; some 4 MB.
const ROWS_READ: usize = 100_000;

const FILE: &str = "file ";

/// A database that is dropped and made anew has other marks, whoever makes it, and mostly another OID; since PostgreSQL 15, whoever may create databases can
/// choose that (`CREATE DATABASE ... OID = n`). One that is altered has some of its marks in common with what it was.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oid: Option<i64>,
    /// The numbers of the transactions that made the oldest rows of shared catalogs about it, which DROP DATABASE deletes; and `file N`, when its folder was made,
    /// in seconds since 1970. None in sets of earlier releases.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub marks: Vec<String>,
    /// Of the database as it is now, the numbers in younger rows: none is recorded, and a set may have recorded one that has become one of these, when numbers
    /// began anew.
    #[serde(skip)]
    pub younger: Arc<HashSet<String>>,
    /// The OID of the one schema that the sets are of, which nobody can choose. None for those of a whole database, and in sets of earlier releases.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema_oid: Option<i64>,
}

impl Stamp {
    /// Returns whether two are of different databases, as far as is known: what is not known says nothing.
    pub fn is_of_another(&self, other: &Self) -> bool {
        let Some((own, theirs)) = self.oid.zip(other.oid) else { return false };
        let are_known = !self.marks.is_empty() && !other.marks.is_empty();
        let is_another_schema = self.schema_oid.zip(other.schema_oid).is_some_and(|(own, theirs)| own != theirs);
        own != theirs || is_another_schema || are_known && !self.shares_a_mark(other)
    }

    fn shares_a_mark(&self, other: &Self) -> bool {
        let (ours, theirs) = ((&self.marks, &self.younger), (&other.marks, &other.younger));
        ours.0.iter().any(|mark| theirs.0.contains(mark) || theirs.1.contains(mark))
            || theirs.0.iter().any(|mark| ours.1.contains(mark))
    }

    /// Returns whether the folder of both databases was made in the same second, under the same OID. Numbers of transactions may be the same on two servers that
    /// one script has set up.
    pub fn has_the_folder_of(&self, other: &Self) -> bool {
        let has_it = self.marks.iter().any(|mark| mark.starts_with(FILE) && other.marks.contains(mark));
        has_it && self.oid.is_some() && other.oid.is_some() && !self.is_of_another(other)
    }

    /// What the sets are of: "database" or "schema".
    pub fn kind(&self) -> &'static str {
        self.schema_oid.map_or("database", |_| "schema")
    }

    /// "OID 5", or of a schema "schema OID 6": what tells it from others of its name. None in sets of the first release.
    pub fn oid_in_words(&self) -> Option<String> {
        let of_schema = self.schema_oid.map(|oid| format!("schema OID {oid}"));
        of_schema.or_else(|| self.oid.map(|oid| format!("OID {oid}")))
    }

    /// Returns whether one of the others has the same OID: then only marks tell, which ALTER DATABASE changes, too.
    pub fn is_told_by_marks(&self, others: &[&Self]) -> bool {
        others.iter().any(|other| other.oid == self.oid && (self.schema_oid.is_none() || other.schema_oid == self.schema_oid))
    }

    /// "with another OID (5; this one has 6)", where `others` are of other databases or schemas. At most `most` OIDs are named.
    pub fn difference(&self, others: &[&Self], most: usize) -> String {
        let oid = |stamp: &Self| self.schema_oid.map_or(stamp.oid, |_| stamp.schema_oid);
        let text = |oid: Option<i64>| oid.map_or("?".to_owned(), |oid| oid.to_string());
        let mut oids: Vec<i64> = others.iter().filter_map(|other| oid(other)).filter(|other| Some(*other) != oid(self)).collect();
        oids.sort_unstable_by(|a, b| b.cmp(a));
        oids.dedup();
        let more = if oids.len() > most { ", …" } else { "" };
        let named: Vec<String> = oids.iter().take(most).map(i64::to_string).collect();
        let another = (!named.is_empty())
            .then(|| format!("with another OID ({}{more}; this one has {})", named.join(", "), text(oid(self))));
        // A schema is in one database: where that is another one, its OID tells nothing.
        let alike = self
            .is_told_by_marks(others)
            .then(|| format!("with the same OID ({}), which CREATE DATABASE can choose, and none of its marks", text(oid(self))));
        another.into_iter().chain(alike).collect::<Vec<_>>().join(", and ")
    }

    pub fn check(&self) -> Result<()> {
        anyhow::ensure!(self.marks.len() <= MARKS_MOST, "a database has {} marks", self.marks.len());
        self.marks.iter().try_for_each(|mark| bounds::catalog_name("a mark", mark))
    }
}

/// The marks of a database as it is now.
#[derive(Clone, Debug, Default)]
pub struct Marks {
    pub recorded: Vec<String>,
    /// [`Stamp::younger`].
    pub younger: Arc<HashSet<String>>,
}

/// Returns the marks of the databases with these OIDs. They need no rights, but for the time of a file, which goes without saying where the role may not read it.
pub async fn marks(connection: &mut PgConnection, oids: &[i64]) -> Result<HashMap<i64, Marks>> {
    let most = (ROWS_READ / oids.len().max(1)).max(ROWS_RECORDED);
    let query = sqlx::query_as(include_str!("marks.sql")).bind(oids).bind(i64::try_from(most)?);
    let rows: Vec<(i64, Vec<String>)> = query.fetch_all(&mut *connection).await.map_err(pg::in_its_own_words)?;
    let mut marks: HashMap<i64, Marks> = rows.into_iter().map(|(oid, rows)| (oid, Marks::of(rows))).collect();
    if may_see_files(connection).await {
        for query in [FILES, FILES_ELSEWHERE] {
            let files: Vec<(i64, String)> =
                sqlx::query_as(query).bind(oids).fetch_all(&mut *connection).await.unwrap_or_default();
            files.into_iter().for_each(|(oid, file)| marks.entry(oid).or_default().recorded.push(file));
        }
    }
    Ok(marks)
}

impl Marks {
    /// `rows`: their numbers, the oldest first.
    fn of(mut rows: Vec<String>) -> Self {
        let younger = rows.split_off(rows.len().min(ROWS_RECORDED));
        Self { recorded: rows, younger: Arc::new(younger.into_iter().collect()) }
    }
}

/// Of databases in the default tablespace.
const FILES: &str =
    "SELECT oid, 'file ' OPERATOR(pg_catalog.||) pg_catalog.date_part('epoch', f.modification)::pg_catalog.int8::pg_catalog.text
     FROM pg_catalog.unnest($1::pg_catalog.int8[]) oid,
          pg_catalog.pg_stat_file(pg_catalog.format('base/%s/PG_VERSION', oid), true) f
     WHERE f.modification IS NOT NULL";

/// Of databases in other tablespaces, whose folders have the server's version in their names. Where the role may not read that, the rows alone tell.
const FILES_ELSEWHERE: &str =
    "SELECT d.oid::pg_catalog.int8, 'file ' OPERATOR(pg_catalog.||) pg_catalog.date_part('epoch', f.modification)::pg_catalog.int8::pg_catalog.text
     FROM pg_catalog.pg_control_system() c, pg_catalog.pg_database d,
          pg_catalog.pg_stat_file(pg_catalog.format('pg_tblspc/%s/PG_%s_%s/%s/PG_VERSION', d.dattablespace,
              pg_catalog.current_setting('server_version_num')::pg_catalog.int4 OPERATOR(pg_catalog./) 10000, c.catalog_version_no, d.oid), true) f
     WHERE d.oid::pg_catalog.int8 OPERATOR(pg_catalog.=) ANY ($1) AND f.modification IS NOT NULL";

async fn may_see_files(connection: &mut PgConnection) -> bool {
    let may = "SELECT pg_catalog.has_function_privilege('pg_catalog.pg_stat_file(pg_catalog.text, pg_catalog.bool)', 'EXECUTE')";
    sqlx::query_scalar(may).fetch_one(connection).await.unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(oid: Option<i64>, marks: &[&str]) -> Stamp {
        Stamp { oid, marks: marks.iter().map(|mark| (*mark).to_owned()).collect(), ..Stamp::default() }
    }

    #[test]
    fn a_database_with_a_chosen_oid_is_another_one_and_one_that_was_altered_is_not() {
        for (own, other, expected) in [
            (stamp(Some(5), &["700"]), stamp(Some(5), &["700"]), false),
            // GRANT wrote its row of pg_database again.
            (stamp(Some(5), &["700", "720"]), stamp(Some(5), &["700", "710"]), false),
            (stamp(Some(5), &["720", "file 9"]), stamp(Some(5), &["710", "file 9"]), false),
            (stamp(Some(5), &["900", "file 10"]), stamp(Some(5), &["700", "file 9"]), true),
            (stamp(Some(6), &["700"]), stamp(Some(5), &["700"]), true),
            // Sets of earlier releases.
            (stamp(Some(5), &["900"]), stamp(Some(5), &[]), false),
            (stamp(Some(5), &["900"]), stamp(None, &[]), false),
            (stamp(Some(6), &["900"]), stamp(Some(5), &[]), true),
        ] {
            assert_eq!(own.is_of_another(&other), expected, "{own:?} {other:?}");
            assert_eq!(other.is_of_another(&own), expected, "{other:?} {own:?}");
        }
    }

    #[test]
    fn a_mark_that_a_set_recorded_tells_also_where_sixteen_others_are_older_now() {
        let rows = |from: u32| (from..from + 20).map(|number| number.to_string()).collect();
        let Marks { recorded, younger } = Marks::of(rows(100));
        assert_eq!((recorded.len(), younger.len()), (16, 4));
        let now = Stamp { marks: recorded, younger, ..stamp(Some(5), &[]) };
        for (set, expected) in
            [(stamp(Some(5), &["119"]), false), (stamp(Some(5), &["99"]), true), (stamp(Some(6), &["119"]), true)]
        {
            assert_eq!(now.is_of_another(&set), expected, "{set:?}");
            assert_eq!(set.is_of_another(&now), expected, "{set:?}");
        }
        let written = serde_json::to_string(&now).unwrap();
        assert!(!written.contains("119"), "{written}");
    }

    #[test]
    fn two_databases_have_one_folder_only_by_the_time_it_was_made() {
        for (own, other, expected) in [
            (stamp(Some(5), &["700", "file 9"]), stamp(Some(5), &["710", "file 9"]), true),
            (stamp(Some(5), &["700", "file 9"]), stamp(Some(5), &["700", "file 8"]), false),
            (stamp(Some(5), &["700"]), stamp(Some(5), &["700"]), false),
            (stamp(Some(6), &["file 9"]), stamp(Some(5), &["file 9"]), false),
            (stamp(None, &["file 9"]), stamp(None, &["file 9"]), false),
        ] {
            assert_eq!(own.has_the_folder_of(&other), expected, "{own:?} {other:?}");
        }
    }

    #[test]
    fn a_schema_that_has_the_name_of_one_that_was_dropped_is_another_one() {
        let of = |schema_oid| Stamp { schema_oid, ..stamp(Some(5), &["700"]) };
        for (own, other, expected) in [(Some(8), Some(8), false), (Some(9), Some(8), true), (Some(9), None, false)] {
            assert_eq!(of(own).is_of_another(&of(other)), expected, "{own:?} {other:?}");
        }
        assert_eq!(of(Some(9)).difference(&[&of(Some(8))], 5), "with another OID (8; this one has 9)");
        for (stamp, kind, words) in [(of(Some(9)), "schema", "schema OID 9"), (of(None), "database", "OID 5")] {
            assert_eq!((stamp.kind(), stamp.oid_in_words().as_deref()), (kind, Some(words)));
        }
    }

    #[test]
    fn the_difference_names_oids_and_says_where_they_are_alike() {
        let (own, earlier, chosen) = (stamp(Some(6), &["9"]), stamp(Some(5), &["7"]), stamp(Some(6), &["8"]));
        assert_eq!(own.difference(&[&earlier, &earlier], 5), "with another OID (5; this one has 6)");
        assert_eq!(
            own.difference(&[&chosen], 5),
            "with the same OID (6), which CREATE DATABASE can choose, and none of its marks"
        );
    }
}
