//! Which tables of a copy can be compared by the text of their rows, and why the others cannot.
//!
//! The text of a value must be the same when it was read in and written out again, on this server and under these settings. That is known of the types
//! in `readable.sql`. It is not so of names of objects and roles (regclass, aclitem), which depend on what else is there, of money, which the server's
//! lc_monetary formats, and of xml, which loses an empty first line each time. Of types that are not listed nothing is known.

use std::collections::HashMap;

use anyhow::Result;
use sqlx::postgres::PgConnection;

use crate::pg::{self, identifier};
use crate::task::backup::counts::Group;
use crate::task::backup::manifest::Manifest;
use crate::task::backup::row_sum::RowSum;
use crate::task::backup::row_sums::RowSums;
use crate::task::backup::wide::tables::in_slices;

/// The copy, as far as its rows' text is concerned.
pub struct Target {
    relations: HashMap<i64, Facts>,
    /// Why no text is the same there.
    encoding: Option<String>,
}

#[derive(Debug, sqlx::FromRow)]
struct Facts {
    oid: i64,
    /// Of the heap; None where another access method has it.
    pages: Option<i64>,
    /// Heap and TOAST.
    bytes: i64,
    /// A column whose text may be another one for the same value, with its type.
    doubtful: Option<String>,
}

/// Tables to be read back together.
pub struct ToRead<'a> {
    pub group: &'a Group,
    /// The sum of the rows that went in.
    pub expected: RowSum,
    pub parts: Vec<Part>,
}

/// What one COPY reads.
pub struct Part {
    pub query: String,
    /// About so many bytes.
    pub bytes: u64,
}

/// Asks the catalogs about the relations of the groups.
pub async fn target(connection: &mut PgConnection, groups: &[Group], manifest: &Manifest) -> Result<Target> {
    let oids: Vec<i64> = groups.iter().flat_map(|group| &group.relations).map(|relation| relation.oid).collect();
    let source_major = manifest.server.version_num as u32 / 10_000;
    let is_another_major = pg::Server::of(connection).await?.major() != source_major;
    let ctype: String =
        sqlx::query_scalar("SELECT datctype::pg_catalog.text FROM pg_catalog.pg_database WHERE datname OPERATOR(pg_catalog.=) pg_catalog.current_database()")
            .fetch_one(&mut *connection)
            .await?;
    let facts: Vec<Facts> = sqlx::query_as(include_str!("readable.sql"))
        .bind(&oids)
        .bind(is_another_major)
        .bind(ctype != manifest.server.database.ctype)
        .fetch_all(&mut *connection)
        .await
        .map_err(pg::in_its_own_words)?;
    let encoding: String =
        sqlx::query_scalar("SELECT pg_catalog.getdatabaseencoding()::pg_catalog.text").fetch_one(connection).await?;
    let of_dump = manifest.text_encoding();
    let encoding = (!keeps_text(of_dump, &encoding))
        .then(|| format!("its text was converted from {of_dump} to {encoding}, and may come back as other characters"));
    Ok(Target { relations: facts.into_iter().map(|facts| (facts.oid, facts)).collect(), encoding })
}

impl Target {
    /// What is read of a group, or why it is only counted. Pure.
    pub fn to_read<'g>(&self, group: &'g Group, sums: &RowSums) -> Result<ToRead<'g>, String> {
        if group.of_extension {
            return Err("an extension made it, and may have rows of its own there".to_owned());
        }
        if let Some(why) = &self.encoding {
            return Err(why.clone());
        }
        let (mut expected, mut columns) = (RowSum::default(), None);
        for table in &group.tables {
            let of_table = sums.of(table).ok_or("the rows were not summed up, as the dump has too many tables")?;
            expected.add(of_table.sum);
            let of_table = of_table.columns.ok_or("its rows are in the dump with columns in several orders")?;
            if *columns.get_or_insert_with(|| of_table.clone()) != of_table {
                return Err("its partitions are in the dump with columns in several orders".to_owned());
            }
        }
        let columns: Vec<String> = columns.iter().flatten().map(|column| identifier(column)).collect();
        let mut parts = Vec::new();
        for relation in &group.relations {
            let Facts { pages, bytes, doubtful, .. } =
                self.relations.get(&relation.oid).ok_or("its columns could not be looked at")?;
            if let Some(column) = doubtful {
                return Err(format!("{column}, whose text may be another one for the same value"));
            }
            let bytes = (*bytes).max(0) as u64;
            let columns = columns.join(", ");
            let queries = match pages {
                Some(pages) => in_slices(&relation.sql, &columns, (*pages).max(0) as u64, bytes),
                None => vec![format!("SELECT {columns} FROM ONLY {}", relation.sql)],
            };
            let each = bytes / queries.len().max(1) as u64;
            parts.extend(queries.into_iter().map(|query| Part { query, bytes: each }));
        }
        Ok(ToRead { group, expected, parts })
    }
}

/// Returns whether text that is read into a database of this encoding and written again is the same text. Between UTF-8 and a character set of one byte, each
/// character has one counterpart; in the larger ones of East Asia, several may have the same.
fn keeps_text(of_dump: &str, of_database: &str) -> bool {
    let is_of_one_byte = ["LATIN", "WIN", "ISO_8859_", "KOI8"].iter().any(|start| of_database.starts_with(start));
    of_dump == of_database || of_dump == "UTF8" && (is_of_one_byte || of_database == "SQL_ASCII") || of_database == "UTF8"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::backup::counts::Relation;

    fn facts(oid: i64, doubtful: Option<&str>) -> Facts {
        Facts { oid, pages: Some(1), bytes: 8192, doubtful: doubtful.map(str::to_owned) }
    }

    fn group(tables: &[&str], oid: i64) -> Group {
        let tables = tables.iter().map(|name| ("s".to_owned(), (*name).to_owned())).collect();
        Group { tables, relations: vec![Relation { oid, sql: "\"s\".\"t\"".to_owned() }], ..Group::default() }
    }

    #[test]
    fn a_table_is_read_back_by_the_columns_of_its_dump_unless_something_speaks_against_it() {
        let sums = RowSums::default();
        for (name, columns) in [("a", "(\"x y\", z)"), ("b", "(\"x y\", z)"), ("c", "(z, \"x y\")")] {
            sums.begin(&("s".to_owned(), name.to_owned()), format!("COPY s.{name} {columns} FROM stdin").as_bytes());
            sums.feed(b"1\t2\n\\.\n");
            sums.end();
        }
        let relations = [facts(1, None), facts(2, Some("column p is of type money"))];
        let target = Target { relations: relations.into_iter().map(|facts| (facts.oid, facts)).collect(), encoding: None };
        let of_two = group(&["a", "b"], 1);
        let reading = target.to_read(&of_two, &sums).unwrap_or_else(|why| panic!("{why}"));
        assert_eq!(reading.expected.rows, 2);
        assert_eq!(
            reading.parts[0].query,
            "SELECT \"x y\", \"z\" FROM ONLY \"s\".\"t\" WHERE ctid OPERATOR(pg_catalog.>=) '(0,0)'::pg_catalog.tid"
        );
        for (group, says) in [
            (group(&["a", "c"], 1), "several orders"),
            (group(&["a"], 2), "type money"),
            (group(&["a"], 3), "could not be looked at"),
            (group(&["missing"], 1), "too many tables"),
            (Group { of_extension: true, ..group(&["a"], 1) }, "an extension made it"),
        ] {
            let why = target.to_read(&group, &sums).err().unwrap();
            assert!(why.contains(says), "{why}");
        }
    }

    #[test]
    fn text_stays_where_each_character_has_one_counterpart() {
        for (of_dump, of_database, expected) in [
            ("UTF8", "UTF8", true),
            ("UTF8", "LATIN1", true),
            ("UTF8", "WIN1252", true),
            ("UTF8", "SQL_ASCII", true),
            ("SQL_ASCII", "SQL_ASCII", true),
            ("UTF8", "EUC_JP", false),
            ("UTF8", "MULE_INTERNAL", false),
            ("MULE_INTERNAL", "MULE_INTERNAL", true),
            ("SQL_ASCII", "LATIN1", false),
        ] {
            assert_eq!(keeps_text(of_dump, of_database), expected, "{of_dump} into {of_database}");
        }
    }
}
