//! Which rows of the statements' answers are kept: pure.
//!
//! A command answers with its rows whether they are kept or not: those before a ROLLBACK, in the same text or in an earlier one, are not.
//! All commands of one text are one transaction, unless they end it themselves, and a ROLLBACK among them takes back what came before it even
//! without a BEGIN (PostgreSQL: implicit transaction blocks).

use std::fmt;

use super::text::{self, Ends};
use crate::base::units;

/// Rows that are kept, and rows that are not, up to now.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    kept: u64,
    rolled_back: u64,
    /// Made by PREPARE TRANSACTION, and not ended since.
    prepared: Vec<Prepared>,
    /// Of the transaction that is open: what came since it began, and since each savepoint, the first of these without a name.
    open: Vec<(String, u64)>,
    /// It was begun by a BEGIN, and outlives its text.
    is_explicit: bool,
    has_rollback: bool,
}

/// A transaction that waits, without a session, for whoever ends it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prepared {
    pub name: String,
    pub rows: u64,
}

impl fmt::Display for Prepared {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let (name, rows) = (self.name.replace('\'', "''"), units::plural(self.rows as usize, "row"));
        write!(
            f,
            "prepared transaction '{name}' holds {rows}: neither kept nor rolled back until COMMIT PREPARED or ROLLBACK PREPARED"
        )
    }
}

impl Tally {
    /// In a transaction that goes on over all texts.
    pub fn of_one_transaction() -> Self {
        Self { is_explicit: true, ..Self::default() }
    }

    /// Of one text: what its commands answered, one number for each that is not empty.
    pub fn add(&mut self, statement: &str, rows: &[u64]) {
        let commands = text::ends(statement);
        if commands.len() != rows.len() {
            // What is written is not what ran (rules): nothing is known of its order.
            self.count(rows.iter().sum());
            if commands.contains(&Ends::Rollback { chain: false }) {
                self.roll_back(false);
            }
            commands.into_iter().filter(|command| matches!(command, Ends::Prepare(_))).for_each(|command| self.command(command));
        } else {
            for (command, rows) in commands.into_iter().zip(rows) {
                self.count(*rows);
                self.command(command);
            }
        }
        if !self.is_explicit {
            self.commit(false);
        }
    }

    /// Counts the commands of a failed text that were answered. A transaction that they left open is rolled back.
    pub fn add_failed(&mut self, statement: &str, rows: &[u64]) {
        for (command, rows) in text::ends(statement).into_iter().zip(rows) {
            self.count(*rows);
            self.command(command);
        }
        self.open.clear();
    }

    pub fn prepared(&self) -> &[Prepared] {
        &self.prepared
    }

    /// Rows of the transaction that is open count as kept: whoever asks knows that there is none, or commits it.
    pub fn kept(&self) -> u64 {
        self.kept + self.open.iter().map(|(_, rows)| rows).sum::<u64>()
    }

    /// Without those of the transaction that is open.
    pub fn committed(&self) -> u64 {
        self.kept
    }

    pub fn rolled_back(&self) -> u64 {
        self.rolled_back
    }

    /// Something was rolled back, with rows or without.
    pub fn has_rollback(&self) -> bool {
        self.has_rollback
    }

    fn command(&mut self, command: Ends) {
        match command {
            Ends::Nothing => {}
            Ends::Begin => self.is_explicit = true,
            Ends::Commit { chain } => self.commit(chain),
            Ends::Rollback { chain } => self.roll_back(chain),
            Ends::Prepare(name) => {
                let rows = self.open.drain(..).map(|(_, rows)| rows).sum();
                self.prepared.push(Prepared { name, rows });
                self.is_explicit = false;
            }
            // Those of others have rows that nobody counted.
            Ends::CommitPrepared(name) => self.kept += self.take_prepared(&name).map_or(0, |prepared| prepared.rows),
            Ends::RollbackPrepared(name) => {
                if let Some(prepared) = self.take_prepared(&name) {
                    self.rolled_back += prepared.rows;
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

    fn commit(&mut self, chain: bool) {
        self.kept += self.open.drain(..).map(|(_, rows)| rows).sum::<u64>();
        self.is_explicit = chain;
    }

    fn roll_back(&mut self, chain: bool) {
        self.rolled_back += self.open.drain(..).map(|(_, rows)| rows).sum::<u64>();
        self.has_rollback = true;
        self.is_explicit = chain;
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
                "prepared transaction 'it''s' holds 2 rows: neither kept nor rolled back until COMMIT PREPARED or ROLLBACK PREPARED"
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
}
