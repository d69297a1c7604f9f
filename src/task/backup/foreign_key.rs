//! A foreign key as pg_dump writes it, and the rows that violate it.

use super::tokens::Statement;
use crate::base::units;

/// `ALTER TABLE ONLY public.c ADD CONSTRAINT c_p_fkey FOREIGN KEY (p) REFERENCES public.p(id) …`, names as SQL has them.
#[derive(Debug, PartialEq)]
pub struct ForeignKey {
    pub name: String,
    /// The table as the statement names it, with its ONLY.
    table: String,
    columns: Vec<String>,
    referenced: String,
    referenced_columns: Vec<String>,
}

impl ForeignKey {
    pub fn of(text: &str) -> Option<Self> {
        if !text.starts_with("ALTER TABLE ") {
            return None;
        }
        let statement = Statement::of(text);
        let key = statement.find(&["FOREIGN", "KEY"])?;
        let name = statement.find(&["ADD", "CONSTRAINT"])?;
        let references = statement.find(&["REFERENCES"])?;
        let raw =
            |from: usize, to: usize| statement.text.get(statement.tokens.get(from)?.at.start..statement.tokens.get(to)?.at.end);
        let (columns, _) = list(&statement, key + 2)?;
        let (_, _, after) = statement.qualified(references + 1)?;
        let (referenced_columns, _) = list(&statement, after)?;
        (columns.len() == referenced_columns.len()).then_some(())?;
        Some(Self {
            name: statement.name(name + 2)?,
            table: raw(2, name - 1)?.to_owned(),
            columns,
            referenced: raw(references + 1, after - 1)?.to_owned(),
            referenced_columns,
        })
    }

    pub fn count_query(&self) -> String {
        format!("SELECT pg_catalog.count(*) {}", self.broken())
    }

    /// The rows that violate it, and how to find them.
    pub fn in_words(&self, rows: Option<u64>) -> String {
        let rows = rows.map_or_else(|| "rows".to_owned(), |rows| units::plural(rows, "row"));
        format!(
            "{rows} of {} reference no row of {}; in the source: SELECT c.* {};",
            self.table.trim_start_matches("ONLY "),
            self.referenced,
            self.broken()
        )
    }

    fn broken(&self) -> String {
        let set: Vec<String> = self.columns.iter().map(|column| format!("c.{column} IS NOT NULL")).collect();
        let equal: Vec<String> =
            self.columns.iter().zip(&self.referenced_columns).map(|(own, other)| format!("p.{other} = c.{own}")).collect();
        format!(
            "FROM {} c WHERE {} AND NOT EXISTS (SELECT FROM {} p WHERE {})",
            self.table,
            set.join(" AND "),
            self.referenced,
            equal.join(" AND ")
        )
    }
}

/// `(a, "b c")`, as SQL has the names, and the index after it.
fn list(statement: &Statement, open: usize) -> Option<(Vec<String>, usize)> {
    statement.is_symbol(open, b'(').then_some(())?;
    let mut names = Vec::new();
    let mut index = open + 1;
    while !statement.is_symbol(index, b')') {
        let token = statement.tokens.get(index)?;
        if !statement.is_symbol(index, b',') {
            names.push(statement.raw(token).to_owned());
        }
        index += 1;
    }
    Some((names, index + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rows_that_break_a_key_are_found_by_a_query() {
        let key = ForeignKey::of(
            "ALTER TABLE ONLY public.c\n    ADD CONSTRAINT \"C fk\" FOREIGN KEY (a, \"b c\") REFERENCES s.\"P\"(x, y) ON DELETE CASCADE",
        )
        .unwrap();
        assert_eq!(key.name, "C fk");
        assert_eq!(
            key.count_query(),
            "SELECT pg_catalog.count(*) FROM ONLY public.c c WHERE c.a IS NOT NULL AND c.\"b c\" IS NOT NULL AND NOT EXISTS (SELECT FROM s.\"P\" p WHERE p.x = c.a AND p.y = c.\"b c\")"
        );
        assert!(
            key.in_words(Some(1))
                .starts_with("1 row of public.c reference no row of s.\"P\"; in the source: SELECT c.* FROM ONLY public.c c")
        );
        assert_eq!(ForeignKey::of("ALTER TABLE ONLY public.c ADD CONSTRAINT k CHECK ((a > 0))"), None);
    }
}
