//! Finds out what a statement's text alone can tell, before any server reads it.

use super::constant;
use crate::task::backup::lex::{Event, Lexer};
use crate::task::backup::tokens::{Kind, Statement, Token};

/// Returns why a text cannot be run, and what to do; None if it can.
pub fn refusal(text: &str) -> Option<(String, String)> {
    let mut refusal = None;
    let is_whole = each_command(text, |command| match command {
        Command::OfPsql => {
            let hint = "write SQL: backslash commands are read by psql, and pgtend sends the text to the server as it is";
            refusal.get_or_insert((r"a command of psql (`\…`)".to_owned(), hint.to_owned()));
        }
        Command::Sql(statement) if statement.says(0, &["COPY"]) => {
            if statement.find(&["FROM", "STDIN"]).is_some() {
                let hint = "write the rows as INSERT, or COPY … FROM a file or PROGRAM of the server";
                refusal.get_or_insert((
                    "`COPY … FROM STDIN` waits for rows from the client, and pgtend sends none".to_owned(),
                    hint.to_owned(),
                ));
            } else if statement.find(&["TO", "STDOUT"]).is_some() {
                let hint = "COPY … TO a file or PROGRAM of the server, or `psql` in a job of another scheduler";
                refusal.get_or_insert((
                    "`COPY … TO STDOUT` sends rows to the client, and pgtend reads none".to_owned(),
                    hint.to_owned(),
                ));
            }
        }
        Command::Sql(statement) if statement.says(0, &["LISTEN"]) => {
            let hint = "leave it out: its session ends with the run";
            refusal.get_or_insert(("`LISTEN` waits for notifications, and pgtend reads none".to_owned(), hint.to_owned()));
        }
        Command::Sql(_) => {}
    });
    if !is_whole {
        let hint = "it may have been cut off: end the comment with */, and strings and names with their quotes";
        refusal.get_or_insert(("a text that ends within a comment, a string or a quoted name".to_owned(), hint.to_owned()));
    }
    refusal
}

/// The effect of a command on the transaction that it runs in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ends {
    Nothing,
    Begin,
    Commit {
        chain: bool,
    },
    /// The transaction leaves its session and waits under this name until another command ends it.
    Prepare(String),
    CommitPrepared(String),
    RollbackPrepared(String),
    Rollback {
        chain: bool,
    },
    Savepoint(String),
    Release(String),
    RollbackTo(String),
}

impl Ends {
    /// Tells whether the transaction that the command ran in is over.
    pub fn is_end(&self) -> bool {
        matches!(self, Self::Commit { .. } | Self::Rollback { .. } | Self::Prepare(_))
    }
}

/// Tells whether one of its commands ends the transaction that it runs in.
pub fn ends_transaction(text: &str) -> bool {
    ends(text).iter().any(Ends::is_end)
}

/// Returns the effect of each command that is not empty, in order.
pub fn ends(text: &str) -> Vec<Ends> {
    commands(text).into_iter().map(|(_, ends)| ends).collect()
}

/// Returns the text and the effect of each command that is not empty, in order.
pub fn commands(text: &str) -> Vec<(String, Ends)> {
    let mut all = Vec::new();
    let _ = each_command(text, |command| {
        if let Command::Sql(statement) = command
            && !statement.tokens.is_empty()
        {
            all.push((statement.text.trim().to_owned(), ends_of(statement)));
        }
    });
    all
}

/// Recognizes a single command that commits while it runs, if no transaction is open: its failure may leave a part of its work.
pub fn commits_within(text: &str) -> bool {
    let (mut count, mut commits) = (0, false);
    let _ = each_command(text, |command| {
        let Command::Sql(statement) = command else { return };
        if statement.tokens.is_empty() {
            return;
        }
        count += 1;
        let is_one_of = |words: &[&str]| words.iter().any(|word| statement.says(0, &[word]));
        let says_commit =
            |token: &Token| token.kind == Kind::String && statement.raw(token).to_ascii_uppercase().contains("COMMIT");
        commits = is_one_of(&["CALL", "VACUUM", "REINDEX", "CLUSTER"])
            || is_one_of(&["CREATE", "DROP", "ALTER"]) && statement.find(&["CONCURRENTLY"]).is_some()
            || is_one_of(&["DO"]) && statement.tokens.iter().any(says_commit);
    });
    count == 1 && commits
}

fn ends_of(statement: &Statement<'_>) -> Ends {
    let says = |words: &[&str]| statement.says(0, words);
    // AND CHAIN, and not AND NO CHAIN.
    let chain = statement.find(&["AND", "CHAIN"]).is_some();
    // ROLLBACK [WORK | TRANSACTION] TO [SAVEPOINT] name
    let name_after = |index: usize| {
        let index = if statement.says(index, &["SAVEPOINT"]) && statement.name(index + 1).is_some() { index + 1 } else { index };
        statement.name(index).unwrap_or_default()
    };
    // PREPARE TRANSACTION 'name' and the two that end it: each has its name third.
    let transaction = || constant::value_at(statement, 2).unwrap_or_default();
    if says(&["ROLLBACK", "PREPARED"]) {
        Ends::RollbackPrepared(transaction())
    } else if says(&["COMMIT", "PREPARED"]) {
        Ends::CommitPrepared(transaction())
    } else if says(&["ROLLBACK"]) || says(&["ABORT"]) {
        match statement.find(&["TO"]) {
            Some(to) => Ends::RollbackTo(name_after(to + 1)),
            None => Ends::Rollback { chain },
        }
    } else if says(&["COMMIT"]) || says(&["END"]) {
        Ends::Commit { chain }
    } else if says(&["PREPARE", "TRANSACTION"]) {
        Ends::Prepare(transaction())
    } else if says(&["BEGIN"]) || says(&["START", "TRANSACTION"]) {
        Ends::Begin
    } else if says(&["SAVEPOINT"]) {
        Ends::Savepoint(name_after(1))
    } else if says(&["RELEASE"]) {
        Ends::Release(name_after(1))
    } else {
        Ends::Nothing
    }
}

/// Tells how a text begins transactions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Starts {
    /// It is nothing but BEGIN, START TRANSACTION and SET: no query.
    pub only: bool,
    /// It has a BEGIN or START TRANSACTION.
    pub transaction: bool,
}

pub fn starts(text: &str) -> Starts {
    let mut starts = Starts { only: true, transaction: false };
    each_command(text, |command| match command {
        Command::Sql(statement) if statement.tokens.is_empty() => {}
        Command::Sql(statement) if statement.says(0, &["BEGIN"]) || statement.says(0, &["START"]) => starts.transaction = true,
        Command::Sql(statement) if statement.says(0, &["SET"]) => {}
        _ => starts.only = false,
    });
    starts
}

enum Command<'a> {
    Sql(&'a Statement<'a>),
    OfPsql,
}

/// Returns false for a text that ends within a comment, a string or a quoted name: its last command is none.
fn each_command(text: &str, mut look: impl FnMut(Command<'_>)) -> bool {
    let mut lexer = Lexer::keeping_statements();
    // The last command, or a comment in the last line, has no end otherwise.
    let text = format!("{text}\n;");
    let mut rest = text.as_bytes();
    while !rest.is_empty() {
        let (used, event) = lexer.step(rest);
        rest = &rest[used..];
        match event {
            Event::Statement => {
                let bytes = lexer.take_statement();
                let sql = String::from_utf8_lossy(&bytes);
                let statement = Statement::of(&sql);
                if statement.tokens.iter().any(|token| token.kind == Kind::Symbol(b'\\')) {
                    look(Command::OfPsql);
                }
                look(Command::Sql(&statement));
            }
            Event::Command => look(Command::OfPsql),
            Event::None | Event::Comment | Event::CopyBegins | Event::CopyEnds => {}
        }
    }
    lexer.is_between_statements()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_only_psql_can_do_is_refused_and_what_looks_like_it_is_not() {
        for text in [
            "COPY t FROM STDIN",
            "copy public.t (a, b) from stdin with (format csv)",
            "SELECT 1; /* x */ COPY t\nFROM -- here\n STDIN;\n1\n\\.\n",
            "COPY (SELECT 1) TO STDOUT",
            "\\i other.sql",
            "SELECT 1 \\gexec",
            "SELECT 1;\n\\echo done",
            "SELECT 1; /* later\nUPDATE users SET email = NULL",
            "SELECT 1; UPDATE users SET email = 'nobody",
            "SELECT 1; TRUNCATE \"sess",
            "SELECT 1; DO $x$ BEGIN",
        ] {
            assert!(refusal(text).is_some(), "{text}");
        }
        for text in [
            "COPY t FROM '/srv/rows.csv'",
            "COPY t TO PROGRAM 'cat > x'",
            "SELECT 'COPY t FROM STDIN', E'a\\\\b', '\\d'",
            "-- don't COPY t FROM STDIN\nSELECT 1",
            "DO $$ BEGIN RAISE NOTICE '\\d'; END $$",
            "INSERT INTO copy SELECT a FROM stdin",
            "SELECT 1 /* \\d */",
        ] {
            assert_eq!(refusal(text), None, "{text}");
        }
    }

    #[test]
    fn what_begins_a_transaction_and_does_nothing_else_is_known() {
        let starts = |text| (starts(text).only, starts(text).transaction);
        assert_eq!(starts("BEGIN"), (true, true));
        assert_eq!(starts("start transaction; SET TRANSACTION READ ONLY;"), (true, true));
        assert_eq!(starts("SET work_mem = '1GB'"), (true, false));
        assert_eq!(starts("BEGIN; SELECT 1"), (false, true));
        assert_eq!(starts("SELECT 1"), (false, false));
    }

    #[test]
    fn the_ends_of_a_transaction_are_known_by_their_words() {
        for text in
            ["COMMIT", "insert into t values (1); commit;", "END", "ROLLBACK", "rollback and chain", "PREPARE TRANSACTION 'x'"]
        {
            assert!(ends_transaction(text), "{text}");
        }
        for text in [
            "ROLLBACK TO SAVEPOINT s",
            "ROLLBACK TO s",
            "SELECT CASE WHEN true THEN 1 END",
            "DO $$ BEGIN COMMIT; END $$",
            "SELECT 'COMMIT'; -- COMMIT",
            "PREPARE p AS SELECT 1",
            "COMMIT PREPARED 'x'",
            "ROLLBACK PREPARED 'x'",
        ] {
            assert!(!ends_transaction(text), "{text}");
        }
    }

    #[test]
    fn a_prepared_transaction_is_known_by_its_name_however_it_is_quoted() {
        for (text, name) in [
            ("'x'", "x"),
            ("'it''s'", "it's"),
            (r"E'\x78'", "x"),
            (r"U&'\0078'", "x"),
            ("U&'!0078' UESCAPE '!'", "x"),
            ("$$x$$", "x"),
        ] {
            assert_eq!(ends(&format!("PREPARE TRANSACTION {text}")), [Ends::Prepare(name.to_owned())], "{text}");
            assert_eq!(ends(&format!("commit prepared {text}")), [Ends::CommitPrepared(name.to_owned())], "{text}");
        }
    }

    #[test]
    fn commands_that_commit_while_they_run_are_known() {
        for text in [
            "CALL p()",
            "VACUUM t",
            "create index concurrently i on t (a)",
            "REINDEX TABLE t",
            "DO $$ BEGIN COMMIT; END $$",
            "ALTER TABLE t DETACH PARTITION p CONCURRENTLY;",
        ] {
            assert!(commits_within(text), "{text}");
        }
        for text in ["DO $$ BEGIN END $$", "SELECT 1; CALL p()", "REFRESH MATERIALIZED VIEW CONCURRENTLY m", "SELECT 'CALL'"] {
            assert!(!commits_within(text), "{text}");
        }
    }
}
