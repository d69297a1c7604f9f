//! The tables whose rows several sessions read, and the slices in which they do.

use anyhow::Result;
use sqlx::postgres::PgConnection;

use crate::pg::{identifier, qualified};
use crate::task::backup::manifest::Filters;
use crate::task::backup::patterns::Patterns;
use crate::task::backup::sessions::scaled;

/// A table with more bytes than this, in heap and TOAST, is read by several sessions. A smaller one is not worth a statement of its own.
const LARGE_BYTES: u64 = 8 << 20;

/// At most so many tables, the largest: pg_dump gets an option for each, and each session locks each.
const TABLES_MOST: i64 = 500;

/// What one COPY of the server reads, about.
const SLICE_BYTES: u64 = 32 << 20;

#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct Table {
    pub oid: i64,
    pub schema: String,
    pub name: String,
    pub columns: Vec<String>,
    /// Schema and name as pg_dump writes them, with quotes only where SQL needs them.
    pub shown: String,
    /// The columns in the same way, with commas.
    pub shown_columns: String,
    /// Of the heap.
    pub pages: i64,
    /// Heap and TOAST.
    pub bytes: i64,
    /// Why one session reads it as a whole; None: in slices.
    #[sqlx(skip)]
    pub whole: Option<String>,
}

/// What one COPY statement of the server reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// The table itself.
    Whole,
    /// By this query of a range of its pages.
    Slice(String),
}

/// Which tables several sessions may read, the largest first. `found_by_name`: the schemas that a filter's pattern without a schema means;
/// `among`: only of these, by their oids.
pub async fn read(
    connection: &mut PgConnection,
    filters: &Filters,
    found_by_name: &[String],
    among: Option<&[i64]>,
) -> Result<Vec<Table>> {
    let Patterns { schemas, without, without_rows } = Patterns::of(filters);
    let query = sqlx::query_as(concat!(include_str!("../calling.sql"), include_str!("tables.sql")))
        .bind(schemas)
        .bind(without.schemas)
        .bind(without.names)
        .bind(without_rows.schemas)
        .bind(without_rows.names)
        .bind(found_by_name)
        .bind(among)
        .bind(scaled(LARGE_BYTES) as i64)
        .bind(TABLES_MOST);
    Ok(query.fetch_all(connection).await?)
}

impl Table {
    pub fn sql(&self) -> String {
        qualified(&self.schema, &self.name)
    }

    /// The parts that together have each row once, in the order of the heap.
    pub fn parts(&self) -> Vec<Part> {
        if self.whole.is_some() {
            return vec![Part::Whole];
        }
        let queries = in_slices(&self.sql(), &self.column_list(), self.pages.max(0) as u64, self.bytes.max(0) as u64);
        queries.into_iter().map(Part::Slice).collect()
    }

    /// What stands before rows in the dump, as pg_dump writes it.
    pub fn head(&self) -> String {
        let on_a_line = |name: &str| name.replace(['\n', '\r'], " ");
        format!(
            "--\n-- Data for Name: {}; Type: TABLE DATA; Schema: {}; Owner: -\n--\n\nCOPY {} ({}) FROM stdin;\n",
            on_a_line(&self.name),
            on_a_line(&self.schema),
            self.shown,
            self.shown_columns
        )
    }

    pub fn column_list(&self) -> String {
        self.columns.iter().map(|column| identifier(column)).collect::<Vec<_>>().join(", ")
    }
}

/// Queries of ranges of pages that together read each row of a table once. Names are as in SQL; `bytes`: of heap and TOAST.
pub fn in_slices(table: &str, columns: &str, pages: u64, bytes: u64) -> Vec<String> {
    let query = |(from, to): (u64, Option<u64>)| {
        let to = to.map(|to| format!(" AND ctid OPERATOR(pg_catalog.<) '({to},0)'::pg_catalog.tid")).unwrap_or_default();
        format!("SELECT {columns} FROM ONLY {table} WHERE ctid OPERATOR(pg_catalog.>=) '({from},0)'::pg_catalog.tid{to}")
    };
    slices(pages, bytes).into_iter().map(query).collect()
}

/// Ranges of pages of about as many bytes, TOAST included; the last has no end, as the table may have grown.
fn slices(pages: u64, bytes: u64) -> Vec<(u64, Option<u64>)> {
    let count = bytes.div_ceil(scaled(SLICE_BYTES)).clamp(1, pages.max(1));
    let step = pages.div_ceil(count).max(1);
    let starts: Vec<u64> = (0..count).map(|number| number * step).filter(|start| *start < pages.max(1)).collect();
    let ends = starts.iter().skip(1).map(|end| Some(*end)).chain([None]);
    starts.iter().copied().zip(ends).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_cover_all_pages_once_and_the_last_is_open() {
        for (pages, bytes) in
            [(0, 0), (1, 1 << 40), (1000, 8_192_000), (5000, 5000 << 13), (7, 7 << 30), (131_072, 1 << 30), (131_071, 40 << 30)]
        {
            let slices = slices(pages, bytes);
            assert_eq!(slices[0].0, 0);
            assert!(slices.windows(2).all(|pair| pair[0].1 == Some(pair[1].0) && pair[0].0 < pair[1].0), "{slices:?}");
            assert_eq!(slices.last().unwrap().1, None);
            assert!(slices.len() as u64 <= pages.max(1));
        }
        assert_eq!(slices(131_072, 1 << 30).len(), 32);
        assert_eq!(slices(10, 320 << 20).len(), 10, "a page stands for 32 MB of TOAST");
    }

    #[test]
    fn names_stay_on_their_line_and_in_their_quotes() {
        let mut table = Table {
            oid: 1,
            schema: "s".into(),
            name: "a\nDROP \"x".into(),
            columns: vec!["b".into(), "c\"".into()],
            shown: "s.\"a\nDROP \"\"x\"".into(),
            shown_columns: "b, \"c\"\"\"".into(),
            pages: 10,
            bytes: 81_920,
            whole: None,
        };
        let head = table.head();
        assert!(head.starts_with("--\n-- Data for Name: a DROP \"x; Type: TABLE DATA; Schema: s; Owner: -\n--\n\nCOPY s.\"a\nDROP \"\"x\" (b, \"c\"\"\") FROM stdin;\n"), "{head}");
        assert_eq!(
            table.parts(),
            [Part::Slice(
                "SELECT \"b\", \"c\"\"\" FROM ONLY \"s\".\"a\nDROP \"\"x\" WHERE ctid OPERATOR(pg_catalog.>=) '(0,0)'::pg_catalog.tid"
                    .to_owned()
            )]
        );
        table.whole = Some("its owner is another one".to_owned());
        assert_eq!(table.parts(), [Part::Whole]);
    }
}
