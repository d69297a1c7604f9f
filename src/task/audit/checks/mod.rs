//! The checks of an audit. A check is an entry in `table.rs`, `peers.rs`, `server.rs` or `access.rs` and a query beside it: docs/audit.md is tested against them.
//!
//! A query selects from the views of `prelude.sql` and returns one row for each finding: `object`, `identity` (what the finding keeps from
//! one audit to the next: names, no sizes), `issue`, `evidence`, and `fix` (SQL), `job` (a task's table) or both. `lock` and `level`
//! override those of the check. Where a person has to decide, there is no `fix` but `decide` (words) and, if it helps, `draft` (SQL with `<HOLES>`, which the
//! server refuses as it stands). `convention`, `sharing`, `siblings` and `differ` say what siblings in the schema share. `unknown` says why this object cannot be judged. `trial` is an index that hypopg tries. `probe` is a query into the table itself, and names
//! no other one than `reads` (quoted), whose oid is `reads_oid`, and `also_reads`: without a row there is no finding.

use super::document::Level;

/// A query beside the tables of checks. It stands above them, so that they have it.
macro_rules! catalog {
    ($id:literal) => {
        Query::Catalog(include_str!(concat!("", $id, ".sql")))
    };
}

mod access;
mod blind;
mod peers;
mod server;
mod table;

pub use blind::cannot_show;
pub use table::CHECKS;

const ONLINE: &str = "SHARE UPDATE EXCLUSIVE: reads and writes go on";
const MOMENT: &str = "ACCESS EXCLUSIVE, for a moment";
const REWRITE: &str = "ACCESS EXCLUSIVE while the table is rewritten";
const NONE: &str = "none";

#[derive(Clone, Copy, Debug)]
pub struct Check {
    pub id: &'static str,
    pub level: Level,
    pub title: &'static str,
    pub categories: &'static [&'static str],
    /// The consequence of leaving it as it is.
    pub why: &'static str,
    /// The remedy in words; each finding has its own statements.
    pub fix: &'static str,
    /// The lock that the fix takes, and for how long.
    pub lock: &'static str,
    pub query: Query,
}

#[derive(Clone, Copy, Debug)]
pub enum Query {
    Catalog(&'static str),
    /// The same; the word STATEMENTS stands for the view pg_stat_statements.
    Statements(&'static str),
    /// Loads `schema_file` and compares it.
    Drift,
    /// Compares the sets in the stores and the runs in the ledger.
    Backup,
    /// Compares pg_stat_statements with the last audit.
    TopQueries,
    /// Compares versions with the list of known ones.
    Versions(Of),
}

/// Whose versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Of {
    Server,
    /// Those with a known vulnerability.
    Extensions,
    /// Those that are older than the server's packages.
    Packages,
}

pub fn find(id: &str) -> Option<&'static Check> {
    CHECKS.iter().find(|check| check.id == id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_unique_and_plain() {
        for (index, check) in CHECKS.iter().enumerate() {
            assert!(check.id.bytes().all(|b| b.is_ascii_lowercase() || b == b'-'), "{}", check.id);

            assert!(CHECKS[..index].iter().all(|other| other.id != check.id), "{} stands twice", check.id);
        }
    }

    #[test]
    fn the_documentation_lists_every_check_as_it_is() {
        let documented: Vec<&str> =
            include_str!("../../../../docs/audit.md").lines().filter(|line| line.starts_with("| `")).collect();
        assert_eq!(documented.len(), CHECKS.len());
        for (line, check) in documented.iter().zip(CHECKS) {
            let row = format!("| `{}` | {} | {} | ", check.id, check.level, check.title);
            assert!(line.starts_with(&row), "{line}\nis not\n{row}");
        }
    }
}
