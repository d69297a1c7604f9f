//! What tells a database, or a schema that is backed up alone, from others that have had its name.

use std::collections::HashMap;

use anyhow::Result;
use serde::{Deserialize, Serialize};
use sqlx::postgres::PgConnection;

use crate::base::bounds;
use crate::pg;

/// The marks of a database at most: those in marks.sql, and the time of its file.
const MARKS_MOST: usize = 17;

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
        own != theirs || is_another_schema || are_known && !self.marks.iter().any(|mark| other.marks.contains(mark))
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
        let is_alike = others.iter().any(|other| other.oid == self.oid && oid(other) == oid(self));
        let alike = is_alike
            .then(|| format!("with the same OID ({}), which CREATE DATABASE can choose, and none of its marks", text(oid(self))));
        another.into_iter().chain(alike).collect::<Vec<_>>().join(", and ")
    }

    pub fn check(&self) -> Result<()> {
        anyhow::ensure!(self.marks.len() <= MARKS_MOST, "a database has {} marks", self.marks.len());
        self.marks.iter().try_for_each(|mark| bounds::catalog_name("a mark", mark))
    }
}

/// Returns the marks of the databases with these OIDs. They need no rights, but for the time of a file, which goes without saying where the role may not read it.
pub async fn marks(connection: &mut PgConnection, oids: &[i64]) -> Result<HashMap<i64, Vec<String>>> {
    let rows: Vec<(i64, Vec<String>)> =
        sqlx::query_as(include_str!("marks.sql")).bind(oids).fetch_all(&mut *connection).await.map_err(pg::in_its_own_words)?;
    let mut marks: HashMap<i64, Vec<String>> = rows.into_iter().collect();
    let files: Vec<(i64, String)> = match may_see_files(connection).await {
        true => sqlx::query_as(FILES).bind(oids).fetch_all(&mut *connection).await.unwrap_or_default(),
        false => Vec::new(),
    };
    for (oid, file) in files {
        marks.entry(oid).or_default().push(file);
    }
    Ok(marks)
}

/// Of databases in another tablespace, whose folder has the server's version in its name, the rows alone tell.
const FILES: &str =
    "SELECT oid, 'file ' OPERATOR(pg_catalog.||) pg_catalog.date_part('epoch', f.modification)::pg_catalog.int8::pg_catalog.text
     FROM pg_catalog.unnest($1::pg_catalog.int8[]) oid,
          pg_catalog.pg_stat_file(pg_catalog.format('base/%s/PG_VERSION', oid), true) f
     WHERE f.modification IS NOT NULL";

async fn may_see_files(connection: &mut PgConnection) -> bool {
    let may = "SELECT pg_catalog.has_function_privilege('pg_catalog.pg_stat_file(pg_catalog.text, pg_catalog.bool)', 'EXECUTE')";
    sqlx::query_scalar(may).fetch_one(connection).await.unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(oid: Option<i64>, marks: &[&str]) -> Stamp {
        Stamp { oid, marks: marks.iter().map(|mark| (*mark).to_owned()).collect(), schema_oid: None }
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
