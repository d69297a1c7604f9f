//! The few kinds of failure that code branches on, and the exit codes that they become.

use std::fmt;

/// The kind of a failure, where the caller must know the difference. Everything else is a plain `anyhow::Error` and exits with 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The files or the command ask for something that cannot be done: exit 78.
    Configuration,
    /// A server or a network does not answer: exit 69.
    Unreachable,
    /// Credentials or privileges are missing: exit 77.
    Permission,
    /// Another run or session is at work on it: exit 75.
    Busy,
    /// Something that must happen first has not: exit 75.
    Deferred,
    /// The request was sent, and no answer came: it is unknown whether it was executed, so it is not retried. Exit 1.
    Unknown,
    /// The job's timeout passed: exit 1.
    TimedOut,
    /// SIGTERM or SIGINT came: exit 143, as a shell reports a terminated program.
    Cancelled,
}

impl Kind {
    pub const ALL: [Self; 8] = [
        Self::Configuration,
        Self::Unreachable,
        Self::Permission,
        Self::Busy,
        Self::Deferred,
        Self::Unknown,
        Self::TimedOut,
        Self::Cancelled,
    ];

    /// Returns the name that metrics use.
    pub fn name(self) -> &'static str {
        match self {
            Self::Configuration => "configuration",
            Self::Unreachable => "unreachable",
            Self::Permission => "permission",
            Self::Busy => "busy",
            Self::Deferred => "not_now",
            Self::Unknown => "unknown",
            Self::TimedOut => "timed_out",
            Self::Cancelled => "cancelled",
        }
    }
}

/// An error with its kind. As an anyhow context, it also names what was being done.
#[derive(Debug)]
pub struct Fault {
    pub kind: Kind,
    pub message: String,
}

impl Fault {
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Fault {}

/// A context that marks an error after a request was sent, which may have been executed. A run with it is retried only if its job
/// sets `retries`, and never when it was cancelled.
#[derive(Debug)]
pub struct Sent {
    pub message: String,
}

impl fmt::Display for Sent {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// Returns the part of an error that others may read (webhooks, collectors of traces), without values of rows. A server puts
/// these into DETAIL ("Key (email)=(ada@example.com) already exists"), into the CONTEXT of a COPY, and into quotes when it cannot
/// read one as its type. A text does not show where a value ends, so everything after it is left out, except for the SQLSTATE.
pub fn without_values(text: &str) -> String {
    const VALUES_FOLLOW: [&str; 3] = ["; detail: ", "DETAIL:", "CONTEXT:"];
    let state = sql_state_in(text);
    let end = VALUES_FOLLOW.iter().filter_map(|words| text.find(words)).min();
    let (kept, is_cut) = (text[..end.unwrap_or(text.len())].trim_end(), end.is_some());
    // A syntax error may be that of a value: to_tsquery reads one ("no operand in tsquery: …").
    let is_data_exception = state.is_some_and(|state| state.starts_with("22") || state == "42601")
        || kept.contains("invalid input syntax")
        || kept.contains("out of range");
    let mut told = if is_data_exception { without_quoted(kept) } else { kept.to_owned() };
    if is_cut {
        told += "; values of rows are left out";
        if let Some(state) = state {
            told += &format!(" (SQLSTATE {state})");
        }
    }
    told
}

/// Returns the SQLSTATE at the end of a server's message.
fn sql_state_in(text: &str) -> Option<&str> {
    let (_, after) = text.rsplit_once("(SQLSTATE ")?;
    let (state, _) = after.split_once(')')?;
    (state.len() == 5 && state.bytes().all(|letter| letter.is_ascii_alphanumeric())).then_some(state)
}

/// Removes everything from the first quote to the last, in any language's quotes: a value may contain quotes itself.
fn without_quoted(text: &str) -> String {
    const QUOTES: [char; 6] = ['"', '»', '«', '“', '”', '„'];
    match (text.find(QUOTES), text.char_indices().rfind(|(_, letter)| QUOTES.contains(letter))) {
        (Some(first), Some((last, quote))) if first < last => {
            format!("{}\"…\"{}", &text[..first], &text[last + quote.len_utf8()..])
        }
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_read_has_no_values_of_rows() {
        let told = [
            (
                "statement 1 of 1 failed: INSERT …: duplicate key value violates unique constraint \"k\"; detail: Key (mail)=(ada; \
                 hint: x) already exists. (SQLSTATE 23505)",
                "statement 1 of 1 failed: INSERT …: duplicate key value violates unique constraint \"k\"; values of rows are left \
                 out (SQLSTATE 23505)",
            ),
            (
                "invalid input syntax for type integer: \"ada\" (SQLSTATE 22P02)",
                "invalid input syntax for type integer: \"…\" (SQLSTATE 22P02)",
            ),
            (
                "ungültige Eingabesyntax für Typ integer: »ada« (SQLSTATE 22P02)",
                "ungültige Eingabesyntax für Typ integer: \"…\" (SQLSTATE 22P02)",
            ),
            ("value \"ada\" is out of range for type integer", "value \"…\" is out of range for type integer"),
            ("no operand in tsquery: \"ada@example.com &\" (SQLSTATE 42601)", "no operand in tsquery: \"…\" (SQLSTATE 42601)"),
            ("division by zero (SQLSTATE 22012)", "division by zero (SQLSTATE 22012)"),
            (
                "psql exited with 3: ERROR:  invalid input syntax for type integer: \"ada\"\nCONTEXT:  COPY t, line 1, column i: \"ada\"",
                "psql exited with 3: ERROR:  invalid input syntax for type integer: \"…\"; values of rows are left out",
            ),
            ("pg_dump: error: x\npg_dump: DETAIL:  ada\nada", "pg_dump: error: x\npg_dump:; values of rows are left out"),
            (
                "relation \"reporting.gone\" does not exist (SQLSTATE 42P01)",
                "relation \"reporting.gone\" does not exist (SQLSTATE 42P01)",
            ),
            ("\"", "\""),
            ("out of range: \"", "out of range: \""),
        ];
        for (said, expected) in told {
            assert_eq!(without_values(said), expected);
        }
    }
}
