//! What a restored copy was asked, as it is recorded beside the set: a certificate says no more than this.

use anyhow::Result;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::base::bounds::{self, Bounded};
use crate::base::units;

/// More queries than anyone writes; each is recorded up to this many letters.
const QUERIES_MOST: usize = 100;
const QUERY_LETTERS_MOST: usize = 1000;

/// How a restore was proved, besides the count of every table. Sets that earlier releases restored have no such record.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HowProved {
    pub pgtend_version: String,
    /// Beside a set whose manifest is sealed, numbers of tables, rows and indexes are not told: they are 0.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub is_sealed: bool,
    /// The tables that were counted in the copy, and their rows.
    pub tables: u64,
    pub rows: u64,
    /// What of them was hashed, too, and is as in the dump; None: nothing was, as by earlier releases.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hashed: Option<Hashed>,
    /// How many queries of `expect` were true there.
    pub expect_count: u64,
    /// Their texts; beside an encrypted set none, as they may name values.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub expect: Vec<String>,
    /// What amcheck has read without a finding.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub amcheck: Option<Amchecked>,
    /// The parts of the dump that a restore in that place does not test.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_tried: Vec<String>,
}

/// What of a copy was compared by its values.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Hashed {
    /// Tables whose rows were hashed in the copy, and are those of the dump.
    pub tables: u64,
    pub rows: u64,
    /// The other tables, each with the reason why its rows were only counted; the first 100.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub only_counted: Vec<String>,
}

impl Hashed {
    /// Says how the rows of a copy of so many tables were compared.
    pub fn in_words(&self, tables: u64) -> String {
        let all = units::plural(tables, "table");
        match self.tables {
            0 if tables > 0 => format!("rows of {all} counted, and not hashed"),
            hashed if hashed >= tables => format!("rows of {all} counted and hashed"),
            hashed => format!("rows of {all} counted, and those of {} hashed", units::count(hashed)),
        }
    }

    /// The same without what it says of single tables.
    pub fn without_columns(self) -> Self {
        Self { only_counted: Vec::new(), ..self }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Amchecked {
    pub tables: u64,
    pub indexes: u64,
}

impl HowProved {
    /// The same without what it tells of the database: beside a sealed set anyone may read it.
    pub fn sealed(self) -> Self {
        Self {
            is_sealed: true,
            tables: 0,
            rows: 0,
            hashed: self.hashed.filter(|hashed| hashed.tables > 0).map(|_| Hashed::default()),
            amcheck: self.amcheck.map(|_| Amchecked::default()),
            expect: Vec::new(),
            ..self
        }
    }

    /// Returns whether the values of rows were compared, and not only their number.
    pub fn has_hashed(&self) -> bool {
        self.hashed.as_ref().is_some_and(|hashed| self.is_sealed || hashed.tables > 0)
    }

    /// Of a restore without a refusal, which has counted these tables and rows, and in whose copy all of `expect` is true.
    pub fn of((tables, rows): (u64, u64), expect: &[String], is_encrypted: bool) -> Self {
        let texts = expect.iter().take(QUERIES_MOST).filter(|_| !is_encrypted);
        Self {
            pgtend_version: env!("CARGO_PKG_VERSION").to_owned(),
            tables,
            rows,
            expect_count: expect.len() as u64,
            expect: texts.map(|text| text.trim().chars().take(QUERY_LETTERS_MOST).collect()).collect(),
            ..Self::default()
        }
    }
}

impl Bounded for HowProved {
    fn check(&self) -> Result<()> {
        let amcheck = self.amcheck.unwrap_or_default();
        let (hashed_tables, hashed_rows) = self.hashed.as_ref().map_or((0, 0), |hashed| (hashed.tables, hashed.rows));
        for (what, count) in [
            ("how.tables", self.tables),
            ("how.rows", self.rows),
            ("how.hashed.tables", hashed_tables),
            ("how.hashed.rows", hashed_rows),
            ("how.expect_count", self.expect_count),
            ("how.amcheck.tables", amcheck.tables),
            ("how.amcheck.indexes", amcheck.indexes),
        ] {
            bounds::count(what, count)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_says_of_how_many_tables_rows_were_hashed() {
        for (tables, expected) in [
            (0, "rows of 2 tables counted, and not hashed"),
            (1, "rows of 2 tables counted, and those of 1 hashed"),
            (2, "rows of 2 tables counted and hashed"),
        ] {
            assert_eq!(Hashed { tables, ..Hashed::default() }.in_words(2), expected);
        }
    }
}
