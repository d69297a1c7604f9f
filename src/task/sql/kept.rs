//! Decides which rows of the statements' answers are kept, and up to which point everything is committed: pure.
//!
//! A command answers with its rows whether they are kept or not: those before a ROLLBACK, in the same text or in an earlier one, are not.
//! All commands of one text are one transaction, unless they end it themselves, and a ROLLBACK among them takes back what came before it even
//! without a BEGIN (PostgreSQL: implicit transaction blocks).

use std::fmt;

use super::text::{self, Ends};
use crate::base::units;

/// Counts rows that are kept and rows that are not, up to now.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    kept: u64,
    rolled_back: u64,
    /// The transactions that PREPARE TRANSACTION made and that were not ended since.
    prepared: Vec<Prepared>,
    /// The names of PREPARE TRANSACTION commands outside of a transaction: the server answers with a warning and prepares nothing.
    empty_prepares: Vec<String>,
    /// The rows of the open transaction since it began and since each of its savepoints; the first of these has no name.
    open: Vec<(String, u64)>,
    /// A BEGIN began the transaction, so that it goes on after its text.
    is_explicit: bool,
    /// The open transaction has commands other than those that begin and end transactions.
    has_work: bool,
    has_rollback: bool,
    last_commit: Option<Commit>,
    /// The number of texts that were counted, which is the index of the current one.
    texts: usize,
}

/// The last commit of a run: everything up to it stays, except for what was rolled back or prepared before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Commit {
    /// The index of the text in the list.
    pub text: usize,
    /// The index of the COMMIT among the commands of its text; None where all of the text is committed.
    pub command: Option<usize>,
    /// All rows that are committed.
    pub rows: u64,
    /// Something before it was rolled back or is prepared.
    pub has_exceptions: bool,
}

/// A transaction that waits, without a session, for the command that ends it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prepared {
    pub name: String,
    /// None where the server's answers did not arrive.
    pub rows: Option<u64>,
}

impl fmt::Display for Prepared {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let name = quoted(&self.name);
        write!(f, "prepared transaction {name} ")?;
        match self.rows {
            Some(rows) => write!(f, "holds {}", units::plural(rows as usize, "row"))?,
            None => f.write_str("is left behind")?,
        }
        write!(f, ": neither committed nor rolled back until COMMIT PREPARED {name} or ROLLBACK PREPARED {name}")
    }
}

/// Returns the name as a string constant.
pub fn quoted(name: &str) -> String {
    format!("'{}'", name.replace('\'', "''"))
}

impl Tally {
    /// Starts in a transaction that goes on over all texts.
    pub fn of_one_transaction() -> Self {
        Self { is_explicit: true, ..Self::default() }
    }

    /// Counts one text by the answers of its commands: one number for each command that is not empty.
    pub fn add(&mut self, statement: &str, rows: &[u64]) {
        let commands = text::ends(statement);
        let last = commands.len().saturating_sub(1);
        if commands.len() == rows.len() {
            let is_alone = commands.len() == 1;
            for (at, (command, rows)) in commands.into_iter().zip(rows).enumerate() {
                self.count(*rows);
                self.command(command, (at < last).then_some(at), is_alone);
            }
        } else {
            // The commands that ran are not those that are written (rules), so that their order is not known.
            self.count(rows.iter().sum());
            if commands.iter().any(|command| matches!(command, Ends::Rollback { .. })) {
                self.roll_back(false);
            }
            commands.into_iter().for_each(|command| self.command(command, None, false));
        }
        if !self.is_explicit {
            self.commit(false, None);
        }
        self.texts += 1;
    }

    /// Counts the commands of a failed text that were answered. A transaction that they left open is rolled back.
    pub fn add_failed(&mut self, statement: &str, rows: &[u64]) {
        for (at, (command, rows)) in text::ends(statement).into_iter().zip(rows).enumerate() {
            self.count(*rows);
            self.command(command, Some(at), false);
        }
        self.open.clear();
    }

    pub fn prepared(&self) -> &[Prepared] {
        &self.prepared
    }

    pub fn empty_prepares(&self) -> &[String] {
        &self.empty_prepares
    }

    pub fn last_commit(&self) -> Option<Commit> {
        self.last_commit
    }

    /// Returns the kept rows. Those of an open transaction count: the caller knows that there is none, or commits it.
    pub fn kept(&self) -> u64 {
        self.kept + self.open.iter().map(|(_, rows)| rows).sum::<u64>()
    }

    pub fn rolled_back(&self) -> u64 {
        self.rolled_back
    }

    /// Tells whether something was rolled back, with rows or without.
    pub fn has_rollback(&self) -> bool {
        self.has_rollback
    }

    /// `at` is the command's index in its text, None for the last one.
    fn command(&mut self, command: Ends, at: Option<usize>, is_alone: bool) {
        match command {
            Ends::Nothing => self.has_work = true,
            Ends::Begin => self.is_explicit = true,
            Ends::Commit { chain } => self.commit(chain, at),
            Ends::Rollback { chain } => self.roll_back(chain),
            // Tried on 14 and 18: with other commands in its text it prepares what these did, even without a BEGIN.
            Ends::Prepare(name) if is_alone && !self.is_explicit => self.empty_prepares.push(name),
            Ends::Prepare(name) => {
                let rows = self.open.drain(..).map(|(_, rows)| rows).sum();
                self.prepared.push(Prepared { name, rows: Some(rows) });
                (self.is_explicit, self.has_work) = (false, false);
            }
            // The rows of one that another session prepared were never counted.
            Ends::CommitPrepared(name) => {
                self.kept += self.take_prepared(&name).and_then(|prepared| prepared.rows).unwrap_or(0);
                self.has_work = true;
            }
            Ends::RollbackPrepared(name) => {
                if let Some(prepared) = self.take_prepared(&name) {
                    self.rolled_back += prepared.rows.unwrap_or(0);
                    self.has_rollback = true;
                }
            }
            Ends::Savepoint(name) => self.open.push((name, 0)),
            Ends::Release(name) => {
                if let Some(at) = self.open.iter().rposition(|(open, _)| *open == name).filter(|at| *at > 0) {
                    let rows: u64 = self.open.drain(at..).map(|(_, rows)| rows).sum();
                    self.count(rows);
                }
            }
            Ends::RollbackTo(name) => {
                if let Some(at) = self.open.iter().rposition(|(open, _)| *open == name) {
                    self.rolled_back += self.open.drain(at..).map(|(_, rows)| rows).sum::<u64>();
                    self.has_rollback = true;
                    // The savepoint itself stays.
                    self.open.push((name, 0));
                }
            }
        }
    }

    fn take_prepared(&mut self, name: &str) -> Option<Prepared> {
        let at = self.prepared.iter().position(|prepared| prepared.name == name)?;
        Some(self.prepared.remove(at))
    }

    fn count(&mut self, rows: u64) {
        match self.open.last_mut() {
            Some((_, open)) => *open += rows,
            None => self.open.push((String::new(), rows)),
        }
    }

    fn commit(&mut self, chain: bool, at: Option<usize>) {
        self.kept += self.open.drain(..).map(|(_, rows)| rows).sum::<u64>();
        if self.has_work {
            let has_exceptions = self.has_rollback || !self.prepared.is_empty();
            self.last_commit = Some(Commit { text: self.texts, command: at, rows: self.kept, has_exceptions });
        }
        (self.is_explicit, self.has_work) = (chain, false);
    }

    fn roll_back(&mut self, chain: bool) {
        self.rolled_back += self.open.drain(..).map(|(_, rows)| rows).sum::<u64>();
        self.has_rollback = true;
        (self.is_explicit, self.has_work) = (chain, false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_before_a_rollback_are_not_kept_and_those_after_it_are() {
        for (what, texts, kept, rolled_back) in [
            ("plain", &[("INSERT", &[1][..])][..], 1, 0),
            ("in one text", &[("INSERT; ROLLBACK", &[1, 0])], 0, 1),
            ("and on", &[("INSERT; ROLLBACK; INSERT;", &[1, 0, 5])], 5, 1),
            ("committed before", &[("INSERT; COMMIT; INSERT; ROLLBACK", &[1, 0, 5, 0])], 1, 5),
            ("over texts", &[("INSERT", &[2]), ("BEGIN", &[0]), ("INSERT", &[1]), ("ABORT", &[0]), ("INSERT", &[4])], 6, 1),
            ("committed over texts", &[("BEGIN; INSERT", &[0, 1]), ("INSERT; END", &[1, 0])], 2, 0),
            ("chained", &[("BEGIN; INSERT; ROLLBACK AND CHAIN; INSERT", &[0, 1, 0, 2]), ("ROLLBACK", &[0])], 0, 3),
            ("a text of its own", &[("BEGIN; INSERT; COMMIT AND NO CHAIN", &[0, 1, 0]), ("ROLLBACK", &[0])], 1, 0),
            (
                "to a savepoint",
                &[("BEGIN; INSERT; SAVEPOINT a; INSERT; ROLLBACK TO a; INSERT; COMMIT", &[0, 1, 0, 2, 0, 4, 0])],
                5,
                2,
            ),
            ("a released one", &[("BEGIN; SAVEPOINT a; INSERT; RELEASE a; ROLLBACK", &[0, 0, 2, 0, 0])], 0, 2),
            ("a prepared one", &[("BEGIN; INSERT; PREPARE TRANSACTION 'x'", &[0, 2, 0]), ("INSERT", &[1])], 1, 0),
            (
                "a prepared one that is committed",
                &[("BEGIN; INSERT; PREPARE TRANSACTION 'x'", &[0, 2, 0]), ("COMMIT PREPARED 'x'", &[0])],
                2,
                0,
            ),
            (
                "a prepared one that is rolled back",
                &[("BEGIN; INSERT; PREPARE TRANSACTION 'x'", &[0, 2, 0]), ("ROLLBACK PREPARED 'x'", &[0])],
                0,
                2,
            ),
            ("that of another session", &[("INSERT", &[1]), ("COMMIT PREPARED 'y'", &[0])], 1, 0),
            ("more answers than commands", &[("INSERT; ROLLBACK", &[1, 1, 0])], 0, 2),
        ] {
            let mut tally = Tally::default();
            texts.iter().for_each(|(text, rows)| tally.add(text, rows));
            assert_eq!((tally.kept(), tally.rolled_back()), (kept, rolled_back), "{what}");
            assert_eq!(tally.has_rollback(), rolled_back > 0 || what == "a text of its own", "{what}");
        }
    }

    #[test]
    fn a_prepared_transaction_is_said_by_its_name_until_it_is_ended() {
        let mut tally = Tally::default();
        tally.add("BEGIN; INSERT; PREPARE TRANSACTION 'it''s'", &[0, 2, 0]);
        let said: Vec<String> = tally.prepared().iter().map(ToString::to_string).collect();
        assert_eq!(
            said,
            [
                "prepared transaction 'it''s' holds 2 rows: neither committed nor rolled back until COMMIT PREPARED 'it''s' or ROLLBACK PREPARED 'it''s'"
            ]
        );
        tally.add("COMMIT PREPARED 'it''s'", &[0]);
        assert_eq!((tally.prepared(), tally.kept()), (&[][..], 2));
    }

    #[test]
    fn a_text_that_failed_has_kept_what_it_committed_before() {
        for (what, texts, failed, rows, kept) in [
            ("committed", &[][..], "INSERT; COMMIT; INSERT; INSERT", &[1, 0, 5][..], 1),
            ("rolled back before", &[], "INSERT; ROLLBACK; INSERT; COMMIT; INSERT", &[1, 0, 3, 0], 3),
            ("nothing", &[], "INSERT; INSERT", &[1], 0),
            ("an earlier text", &["BEGIN; INSERT"], "COMMIT; INSERT", &[0], 7),
        ] {
            let mut tally = Tally::default();
            texts.iter().for_each(|text| tally.add(text, &[0, 7]));
            tally.add_failed(failed, rows);
            assert_eq!(tally.kept(), kept, "{what}");
        }
    }

    #[test]
    fn a_transaction_is_prepared_without_a_begin_where_its_text_has_other_commands() {
        for (texts, prepared, empty_prepares) in [
            (&[("PREPARE TRANSACTION 'x'", &[0][..])][..], &[][..], &["x"][..]),
            (&[("INSERT; PREPARE TRANSACTION 'x'; INSERT", &[2, 0, 1])], &[("x", 2)], &[]),
            (&[("BEGIN; INSERT", &[0, 3]), ("PREPARE TRANSACTION 'x'", &[0])], &[("x", 3)], &[]),
        ] {
            let mut tally = Tally::default();
            texts.iter().for_each(|(text, rows)| tally.add(text, rows));
            let named: Vec<(&str, u64)> = tally.prepared().iter().map(|one| (one.name.as_str(), one.rows.unwrap())).collect();
            assert_eq!((named.as_slice(), tally.empty_prepares().len()), (prepared, empty_prepares.len()), "{texts:?}");
        }
    }

    #[test]
    fn the_last_commit_is_the_one_that_had_something_to_commit() {
        let commit = |text, command, rows, has_exceptions| Some(Commit { text, command, rows, has_exceptions });
        for (texts, failed, last) in [
            (&[][..], ("INSERT; INSERT", &[1][..]), None),
            (&["INSERT; INSERT"], ("INSERT", &[]), commit(0, None, 2, false)),
            (&["BEGIN; INSERT; COMMIT; BEGIN; INSERT"], ("INSERT", &[]), commit(0, Some(2), 1, false)),
            (&["INSERT", "BEGIN; INSERT; ROLLBACK"], ("INSERT", &[]), commit(0, None, 1, false)),
            (&["INSERT; ROLLBACK", "INSERT"], ("INSERT", &[]), commit(1, None, 1, true)),
            (&["INSERT; ROLLBACK; COMMIT"], ("INSERT", &[]), None),
            (&[], ("INSERT; COMMIT; INSERT; PREPARE TRANSACTION 'x'; SELECT", &[4, 0, 5, 0]), commit(0, Some(1), 4, false)),
            (&["INSERT; PREPARE TRANSACTION 'x'", "COMMIT PREPARED 'x'"], ("INSERT", &[]), commit(1, None, 1, false)),
        ] {
            let mut tally = Tally::default();
            for text in texts {
                let rows: Vec<u64> = text.split(';').map(|command| u64::from(command.trim() == "INSERT")).collect();
                tally.add(text, &rows);
            }
            tally.add_failed(failed.0, failed.1);
            assert_eq!(tally.last_commit(), last, "{texts:?}, {failed:?}");
        }
    }
}
