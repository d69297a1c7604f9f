//! Interprets an error: its kind, its message on one line, and its exit code.

use std::process::ExitCode;

use sqlx::postgres::PgDatabaseError;

use crate::base::fault::{Fault, Kind};
use crate::base::toml_file::Problems;

/// Returns the kind of an error, wherever in its chain it is.
pub fn kind_of(error: &anyhow::Error) -> Option<Kind> {
    if let Some(fault) = error.downcast_ref::<Fault>() {
        return Some(fault.kind);
    }
    if error.downcast_ref::<Problems>().is_some() {
        return Some(Kind::Configuration);
    }
    error.chain().find_map(|cause| {
        cause
            .downcast_ref::<Fault>()
            .map(|fault| fault.kind)
            .or_else(|| cause.downcast_ref::<sqlx::Error>().and_then(kind_of_sqlx))
            .or_else(|| cause.downcast_ref::<ServerMessage>().and_then(|said| said.kind))
    })
}

/// Writes an error and its causes on one line, without repetitions: sqlx repeats a server's message, with a line of the server's
/// source, and as its own cause.
pub fn in_a_line(error: &anyhow::Error) -> String {
    let mut line = String::new();
    for cause in error.chain() {
        let said = match cause.downcast_ref::<sqlx::Error>() {
            Some(error) => words_of(error),
            None => without_numbers(&cause.to_string()),
        };
        if !line.contains(&said) {
            line += if line.is_empty() { "" } else { ": " };
            line += &said;
        }
        if matches!(cause.downcast_ref::<sqlx::Error>(), Some(sqlx::Error::Database(_))) {
            break;
        }
    }
    line
}

/// Removes the number that Rust adds to what the system says: "(os error 2)".
fn without_numbers(text: &str) -> String {
    let mut parts = text.split(" (os error ");
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        match part.trim_start_matches(|letter: char| letter.is_ascii_digit()).strip_prefix(')') {
            Some(rest) => plain += rest,
            None => plain = plain + " (os error " + part,
        }
    }
    plain
}

/// The SQLSTATE of our own statements where another session has changed something that a transaction goes by: nothing was done, and the next run may do it. No server
/// has this class.
pub const MOVED: &str = "PT001";

pub fn exit_code(error: &anyhow::Error) -> ExitCode {
    ExitCode::from(code(error))
}

/// Returns the number of the exit code.
pub fn code(error: &anyhow::Error) -> u8 {
    match kind_of(error) {
        Some(Kind::Configuration) => 78,
        Some(Kind::Unreachable) => 69,
        Some(Kind::Permission) => 77,
        Some(Kind::Busy | Kind::Deferred) => 75,
        Some(Kind::Cancelled) => 143,
        Some(Kind::TimedOut | Kind::Unknown) | None => 1,
    }
}

/// Returns the SQLSTATE of a server's refusal, if there is one.
pub fn sql_state(error: &anyhow::Error) -> Option<String> {
    error.chain().find_map(|cause| match (cause.downcast_ref::<sqlx::Error>(), cause.downcast_ref::<ServerMessage>()) {
        (Some(sqlx::Error::Database(said)), _) => said.code().map(std::borrow::Cow::into_owned),
        (_, Some(said)) => said.sql_state.clone(),
        _ => None,
    })
}

/// Returns the constraint that a server's refusal names, if it names one.
pub fn constraint(error: &anyhow::Error) -> Option<String> {
    error.chain().find_map(|cause| match (cause.downcast_ref::<sqlx::Error>(), cause.downcast_ref::<ServerMessage>()) {
        (Some(sqlx::Error::Database(said)), _) => said.constraint().map(str::to_owned),
        (_, Some(said)) => said.constraint.clone(),
        _ => None,
    })
}

/// What a server's refusal says in fields of its own.
#[derive(Clone, Debug)]
pub struct Fields {
    pub sql_state: String,
    /// Without detail and hint.
    pub message: String,
    /// The function of the server's source that reported it.
    pub routine: Option<String>,
    pub table: Option<String>,
    pub constraint: Option<String>,
}

impl Fields {
    fn of(error: &sqlx::Error) -> Option<Self> {
        let sqlx::Error::Database(said) = error else { return None };
        let said = said.try_downcast_ref::<PgDatabaseError>()?;
        let owned = |text: Option<&str>| text.map(str::to_owned);
        Some(Self {
            sql_state: said.code().to_owned(),
            message: said.message().to_owned(),
            routine: owned(said.routine()),
            table: owned(said.table()),
            constraint: owned(said.constraint()),
        })
    }
}

/// Returns the fields of a server's refusal, if it is one.
pub fn fields(error: &anyhow::Error) -> Option<Fields> {
    error.chain().find_map(|cause| match (cause.downcast_ref::<sqlx::Error>(), cause.downcast_ref::<ServerMessage>()) {
        (Some(error), _) => Fields::of(error),
        (_, Some(said)) => said.fields.clone(),
        _ => None,
    })
}

/// Returns an error with the server's message and its kind.
pub fn in_its_own_words(error: sqlx::Error) -> anyhow::Error {
    match &error {
        sqlx::Error::Database(said) => {
            let sql_state = said.code().map(std::borrow::Cow::into_owned);
            let constraint = said.constraint().map(str::to_owned);
            let fields = Fields::of(&error);
            ServerMessage { words: words_of(&error), sql_state, constraint, fields, kind: kind_of_sqlx(&error) }.into()
        }
        _ => error.into(),
    }
}

/// A server's refusal with its own message.
#[derive(Debug, thiserror::Error)]
#[error("{words}")]
pub struct ServerMessage {
    words: String,
    sql_state: Option<String>,
    constraint: Option<String>,
    fields: Option<Fields>,
    pub kind: Option<Kind>,
}

/// Returns the server's message and its details, without the line of its source that sqlx adds.
pub fn words_of(error: &sqlx::Error) -> String {
    let said = match error {
        sqlx::Error::Database(said) => said,
        sqlx::Error::Io(error) => return format!("the connection failed: {}", without_numbers(&error.to_string())),
        _ => return error.to_string(),
    };
    let mut text = said.message().to_owned();
    if let Some(said) = said.try_downcast_ref::<PgDatabaseError>() {
        for (what, more) in [("detail", said.detail()), ("hint", said.hint())] {
            if let Some(more) = more {
                text += &format!("; {what}: {more}");
            }
        }
        if kind_of_sqlx(error).is_none() {
            text += &format!(" (SQLSTATE {})", said.code());
        }
    }
    text
}

/// Returns the kind of a failure by its SQLSTATE class (PostgreSQL manual, appendix A) or by its transport.
pub fn kind_of_sqlx(error: &sqlx::Error) -> Option<Kind> {
    match error {
        sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::PoolTimedOut => Some(Kind::Unreachable),
        sqlx::Error::Database(error) => match error.code()?.as_ref() {
            "42501" | "28000" | "28P01" => Some(Kind::Permission),
            "3D000" => Some(Kind::Configuration),
            MOVED => Some(Kind::Deferred),
            "57P01" | "57P02" | "57P03" | "53300" => Some(Kind::Unreachable),
            // 08P01 is a statement with other parameters than it is given: the connection works.
            code if code.starts_with("08") && code != "08P01" => Some(Kind::Unreachable),
            _ => None,
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;

    #[test]
    fn a_kind_is_found_under_and_over_other_contexts() {
        let under = anyhow::Error::new(Fault::new(Kind::Busy, "busy")).context("run").context("job");
        assert_eq!(kind_of(&under), Some(Kind::Busy));
        let over =
            Err::<(), _>(std::io::Error::other("x")).context(Fault::new(Kind::Permission, "no")).context("job").unwrap_err();
        assert_eq!(kind_of(&over), Some(Kind::Permission));
        assert_eq!(kind_of(&anyhow::anyhow!("plain")), None);
    }

    #[test]
    fn a_line_has_what_the_system_says_once_and_without_its_number() {
        let refused = || std::io::Error::from_raw_os_error(111);
        let line = |error: anyhow::Error| in_a_line(&error);
        let store = anyhow::Error::new(std::io::Error::from_raw_os_error(2)).context("cannot write in /proc/store");
        assert_eq!(line(store), "cannot write in /proc/store: No such file or directory");
        let server = anyhow::Error::new(sqlx::Error::Io(refused())).context("database `app`");
        assert_eq!(line(server), "database `app`: the connection failed: Connection refused");
        assert_eq!(without_numbers("a (os error 2), b (os error x) c"), "a, b (os error x) c");
    }
}
