//! Says why a server refused a dump, and which option helps.

use super::advice::advice;
use super::said::{Said, is_of_the_environment};
use super::server_context::line_of_block;
use super::shown;
use crate::base::fault::{Fault, Kind};
use crate::pg::failure;

pub use super::said::Doing;

const INSUFFICIENT_PRIVILEGE: &str = "42501";

/// The reason why a server refused a dump. It is about this server, now; never about the set.
#[derive(Clone, Debug, Default)]
pub struct Refusal {
    /// A function was running: code of the dump, or what it calls. What it is refused for, such code may say itself.
    pub ran_its_code: bool,
    pub kind: Option<Kind>,
    /// The SQLSTATE of the first error.
    pub sql_state: Option<String>,
    /// The message, with what to do.
    pub message: String,
    /// The same in our own words and names of objects alone: the server's words may show rows. None where nobody has said it so.
    pub in_store: Option<String>,
}

impl Refusal {
    /// Returns whether the server, its disk, its memory or the connection caused it: the same dump may succeed another time.
    pub fn is_of_the_environment(&self) -> bool {
        match &self.sql_state {
            Some(code) => is_of_the_environment(code),
            None => self.kind == Some(Kind::Unreachable),
        }
    }

    /// Returns whether a restore that had begun was refused for what the set holds, and not for rights, space or a connection. In doubt it was: a function of
    /// the dump that is itself too large or too deep for the server, or says so, fails each time, and looks like a full disk or a server that stops. The
    /// next restore that succeeds ends the doubt.
    pub fn is_of_the_data(&self) -> bool {
        match self.is_of_the_environment() {
            true => self.ran_its_code,
            false => self.kind.is_none(),
        }
    }

    /// Returns what whoever may read a store that encrypts is told: nothing of what the server said but the SQLSTATE.
    pub fn without_rows(&self) -> String {
        let state = self.sql_state.as_ref().map(|state| format!(" (SQLSTATE {state})")).unwrap_or_default();
        let words = || format!("it was refused{state}; what the server said is in the report of the host that tried it");
        self.in_store.clone().unwrap_or_else(words)
    }
}

impl From<Refusal> for anyhow::Error {
    fn from(refusal: Refusal) -> Self {
        match refusal.kind {
            Some(kind) => Fault::new(kind, refusal.message).into(),
            None => Self::msg(refusal.message),
        }
    }
}

/// Builds a refusal from an error of the server or of the connection to it.
pub fn of(error: &sqlx::Error, doing: Doing<'_>) -> Refusal {
    match Said::of(error) {
        Some(said) => of_said(&said, doing),
        None => Refusal { kind: failure::kind_of_sqlx(error), message: of_connection(error, doing), ..Refusal::default() },
    }
}

/// Of a session that ended without a word of the server, sqlx says how many bytes it expected.
fn of_connection(error: &sqlx::Error, doing: Doing<'_>) -> String {
    use std::io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    let ends = [BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof];
    let why = match error {
        sqlx::Error::Io(error) if ends.contains(&error.kind()) => {
            "the server ended the session without a word: somebody has terminated it (pg_terminate_backend), the server was stopped or has crashed, or a \
             proxy or the network has closed the connection. The server's log says which; when the cause is gone, restore again"
                .to_owned()
        }
        error => error.to_string(),
    };
    format!("the connection to the target failed at {}: {why}", doing.entry)
}

/// Builds a refusal from the server's words. Pure.
pub fn of_said(said: &Said, doing: Doing<'_>) -> Refusal {
    let mut message = said.message.clone();
    let context = said.context.as_deref().map(|context| line_of_block(context, doing.rows_before));
    for (what, more) in [("detail", &said.detail), ("hint", &said.hint), ("context", &context)] {
        if let Some(more) = more {
            message += &format!("; {what}: {}", more.lines().take(3).collect::<Vec<_>>().join(" / "));
        }
    }
    let advice = advice(said, doing);
    let message = shown::said_of(doing.statement, &message);
    let statement = if doing.statement.is_empty() { String::new() } else { format!(": {}", shown::shown(doing.statement)) };
    let place = format!("at {}{statement}", doing.entry);
    Refusal {
        in_store: Some(of_code(said, doing)),
        ran_its_code: said.ran_code(),
        kind: kind(&said.code, doing.choices.by_superuser),
        sql_state: Some(said.code.clone()),
        message: format!("{message} (SQLSTATE {}), {place}\n{advice}", said.code).trim_end().to_owned(),
    }
}

/// The refusal by its SQLSTATE, the entry and the constraint.
fn of_code(said: &Said, doing: Doing<'_>) -> String {
    let Said { code, constraint, .. } = said;
    let said = Said { code: code.clone(), constraint: constraint.clone(), ..Said::default() };
    let constraint = constraint.as_ref().map(|name| format!(", constraint {name}")).unwrap_or_default();
    format!("SQLSTATE {code}, at {}{constraint}\n{}", doing.entry, advice(&said, doing)).trim_end().to_owned()
}

/// A superuser lacks no right: what is refused to one for rights is refused to code of the dump, which runs as the owner of a table.
fn kind(code: &str, by_superuser: bool) -> Option<Kind> {
    match code {
        INSUFFICIENT_PRIVILEGE if by_superuser => None,
        INSUFFICIENT_PRIVILEGE => Some(Kind::Permission),
        "53300" => Some(Kind::Unreachable),
        code if code.starts_with("28") => Some(Kind::Permission),
        code if code.starts_with("57P") => Some(Kind::Unreachable),
        code if code.starts_with("08") && code != "08P01" => Some(Kind::Unreachable),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::shell;
    use crate::task::backup::choices::Choices;
    use crate::task::backup::script::Entry;

    fn refusal(code: &str, context: Option<&str>, entry: (&str, &str), statement: &str) -> Refusal {
        let said =
            Said { code: code.to_owned(), message: "FEHLER".to_owned(), context: context.map(str::to_owned), ..Said::default() };
        let entry =
            Entry { kind: entry.0.to_owned(), name: entry.1.to_owned(), schema: Some("public".to_owned()), is_ours: false };
        let choices = Choices::default();
        of_said(
            &said,
            Doing {
                entry: &entry,
                statement,
                in_transaction: true,
                choices: &choices,
                search_path: "public",
                holds_all: true,
                rows_before: 0,
            },
        )
    }

    #[test]
    fn a_session_that_ended_without_a_word_is_told_in_words_of_ours() {
        let entry = Entry { kind: "TABLE DATA".to_owned(), name: "t".to_owned(), schema: Some("s".to_owned()), is_ours: false };
        let choices = Choices::default();
        let doing = Doing {
            entry: &entry,
            statement: "",
            in_transaction: false,
            choices: &choices,
            search_path: "public",
            holds_all: true,
            rows_before: 0,
        };
        let ended = sqlx::Error::Io(std::io::Error::new(
            std::io::ErrorKind::UnexpectedEof,
            "expected to read 5 bytes, got 0 bytes at EOF",
        ));
        let refusal = of(&ended, doing);
        assert!(refusal.is_of_the_environment() && !refusal.message.contains("5 bytes"), "{}", refusal.message);
        assert!(
            refusal.message.contains(
                "failed at TABLE DATA t in schema s: the server ended the session without a word: somebody has terminated it"
            ),
            "{}",
            refusal.message
        );
    }

    #[test]
    fn names_in_what_people_are_told_to_run_are_words_for_a_shell_and_names_in_sql() {
        let hostile = "ix'; id>/tmp/pwned; '";
        let told = refusal("23505", None, ("INDEX", hostile), "CREATE INDEX …").message;
        assert!(told.contains(&format!("--without INDEX {}.", shell::word(hostile))), "{told}");
        let context = "SQL function \"x SET search_path = a; ALTER ROLE pat SUPERUSER; --\" during inlining";
        let told = refusal("42883", Some(context), ("INDEX", "i"), "CREATE INDEX i").message;
        assert!(!told.contains("ALTER FUNCTION x") && told.contains("ALTER FUNCTION … SET search_path"), "{told}");
        let said = Said {
            code: "42883".to_owned(),
            context: Some("PL/pgSQL function public.g(integer) line 1".to_owned()),
            ..Said::default()
        };
        let entry = Entry { kind: "INDEX".to_owned(), name: "i".to_owned(), schema: None, is_ours: false };
        let choices = Choices::default();
        let search_path = "\"x'; id>/tmp/pwned; echo '\", public";
        let doing = Doing {
            entry: &entry,
            statement: "CREATE INDEX i",
            in_transaction: true,
            choices: &choices,
            search_path,
            holds_all: true,
            rows_before: 0,
        };
        let told = of_said(&said, doing).message;
        assert!(told.contains(&format!("--search-path {}.", shell::word(search_path))), "{told}");
    }

    #[test]
    fn a_restore_for_a_proof_has_no_options_and_is_told_of_none() {
        let choices = Choices::for_scratch();
        for (code, kind, name, statement, says) in [
            ("42501", "EXTENSION", "vector", "CREATE EXTENSION IF NOT EXISTS vector", "only a superuser can create an extension"),
            ("P0001", "EXTENSION", "pg_cron", "CREATE EXTENSION IF NOT EXISTS pg_cron", "cron.database_name"),
            ("58P01", "EXTENSION", "postgis", "CREATE EXTENSION IF NOT EXISTS postgis", "Install the extension's package"),
            ("42501", "TABLE", "t", "ALTER TABLE public.t OWNER TO x", "pgtend grants"),
            ("42704", "TABLE", "t", "ALTER TABLE public.t OWNER TO gone", "CREATE ROLE"),
            ("23514", "TABLE DATA", "t", "COPY public.t (i) FROM stdin", "source's rows"),
            ("42601", "FUNCTION", "f()", "CREATE FUNCTION f()", "SQLSTATE 42601"),
            ("23503", "FK CONSTRAINT", "c c_p_fkey", "ALTER TABLE …", "source's rows"),
            ("42883", "INDEX", "i", "CREATE INDEX i", "verify by checksum"),
        ] {
            let context = (code == "42883").then(|| "PL/pgSQL function public.slug(text) line 1 at RETURN".to_owned());
            let said = Said {
                code: code.to_owned(),
                message: "x".to_owned(),
                context,
                constraint: (code == "23514").then(|| "odd".to_owned()),
                ..Said::default()
            };
            let entry = Entry { kind: kind.to_owned(), name: name.to_owned(), schema: Some("public".to_owned()), is_ours: false };
            let message = of_said(
                &said,
                Doing {
                    entry: &entry,
                    statement,
                    in_transaction: false,
                    choices: &choices,
                    search_path: "public",
                    holds_all: true,
                    rows_before: 0,
                },
            )
            .message;
            assert!(message.contains(says), "{message}");
            let other = name != "pg_cron" && message.contains("cron");
            assert!(!other, "{message}");
            for option in ["--without", "--on-error", "--no-owner", "--create", "--role-map", "--search-path"] {
                assert!(!message.contains(option), "{message}");
            }
        }
    }

    #[test]
    fn a_store_that_encrypts_is_told_nothing_that_the_server_said() {
        let entry = Entry { kind: "TABLE DATA".to_owned(), name: "t".to_owned(), schema: None, is_ours: false };
        let choices = Choices::for_scratch();
        let doing = Doing {
            entry: &entry,
            statement: "COPY t FROM stdin -- SECRET",
            in_transaction: false,
            choices: &choices,
            search_path: "public",
            holds_all: true,
            rows_before: 0,
        };
        let secret = || Some("PL/pgSQL function SECRET(text) line 1: SECRET".to_owned());
        for code in ["23514", "23505", "42883", "42501", "53200", "P0001", "54000"] {
            let (detail, hint, context) = (secret(), secret(), secret());
            let constraint = Some("odd".to_owned());
            let said = Said { code: code.to_owned(), message: "SECRET".to_owned(), detail, hint, context, constraint };
            let told = of_said(&said, doing).without_rows();
            let expected = format!("SQLSTATE {code}, at TABLE DATA t");
            assert!(told.starts_with(&expected) && told.contains("constraint odd") && !told.contains("SECRET"), "{told}");
        }
        let of_others = Refusal { sql_state: Some("XX000".into()), message: "SECRET".into(), ..Refusal::default() };
        let told = of_others.without_rows();
        assert!(told.contains("(SQLSTATE XX000)") && !told.contains("SECRET"), "{told}");
    }

    #[test]
    fn what_a_superuser_may_not_is_of_the_data_and_no_right_that_anyone_could_give() {
        let entry = Entry { kind: "INDEX".to_owned(), name: "i".to_owned(), schema: None, is_ours: false };
        let of = |code: &str, choices: &Choices| {
            let said = Said { code: code.to_owned(), message: "x".to_owned(), ..Said::default() };
            let statement = "CREATE INDEX i";
            of_said(
                &said,
                Doing {
                    entry: &entry,
                    statement,
                    in_transaction: false,
                    choices,
                    search_path: "public",
                    holds_all: true,
                    rows_before: 0,
                },
            )
        };
        for choices in [Choices::for_scratch(), Choices::default()] {
            assert!(!of("42501", &choices).is_of_the_data(), "another role might");
            let choices = Choices { by_superuser: true, ..choices };
            let refused = of("42501", &choices);
            assert!(refused.is_of_the_data() && refused.kind.is_none());
            let told = refused.message;
            assert!(told.contains("No right of the restoring role is missing"), "{told}");
            assert!(!told.contains("pgtend grants") && !told.contains("needs a superuser"), "{told}");
            for code in ["28P01", "53300", "54000"] {
                assert!(!of(code, &choices).is_of_the_data(), "{code}");
            }
        }
    }

    #[test]
    fn what_a_function_of_the_dump_says_of_the_environment_is_of_the_data() {
        let by_function = "PL/pgSQL function public.f(integer) line 1 at RAISE\nCOPY t, line 1, column a: \"1\"";
        for code in ["53100", "53300", "54000", "54001", "57014", "57P01", "08006", "40P01"] {
            let of = |context| refusal(code, context, ("INDEX", "i"), "CREATE INDEX i");
            let rows = "COPY t, line 1, column a: \"PL/pgSQL function f() line 1\"";
            for context in [None, Some(rows), Some("parallel worker")] {
                assert!(!of(context).is_of_the_data() && of(context).is_of_the_environment(), "{code}, {context:?}");
            }
            for context in [
                by_function,
                "PL/Python function \"f\"",
                "SQL function \"f\" statement 1",
                "fonction PL/pgSQL f(integer), ligne 1",
            ] {
                assert!(of(Some(context)).is_of_the_data() && of(Some(context)).is_of_the_environment(), "{code}, {context}");
            }
        }
        assert!(!refusal("42501", Some(by_function), ("INDEX", "i"), "CREATE INDEX i").is_of_the_data(), "another role might");
    }

    #[test]
    fn the_code_says_the_kind_in_every_language() {
        for (code, kind, environment) in [
            ("53100", None, true),
            ("53300", Some(Kind::Unreachable), true),
            ("57P01", Some(Kind::Unreachable), true),
            ("57014", None, true),
            ("58030", None, true),
            ("08006", Some(Kind::Unreachable), true),
            ("08P01", None, false),
            ("40P01", None, true),
            ("54000", None, true),
            ("25006", None, true),
            ("42501", Some(Kind::Permission), false),
            ("28P01", Some(Kind::Permission), false),
            ("42P01", None, false),
            ("23503", None, false),
        ] {
            let refusal = refusal(code, None, ("TABLE", "t"), "CREATE TABLE t ()");
            assert_eq!((refusal.kind, refusal.is_of_the_environment()), (kind, environment), "{code}");
            assert!(refusal.message.contains(&format!("(SQLSTATE {code}), at TABLE t in schema public: CREATE TABLE t ()")));
        }
    }

    #[test]
    fn each_refusal_names_the_option_that_gets_past_it() {
        let plpgsql = "PL/pgSQL function public.slug(text) line 1 at RETURN\nCOPY p, line 1: \"Ä\"";
        let german = "PL/pgSQL-Funktion public.slug(text) Zeile 1 bei RETURN";
        for (code, context, entry, statement, says) in [
            ("42883", Some(plpgsql), ("TABLE DATA", "p"), "COPY public.p (name) FROM stdin", "--search-path public"),
            (
                "42883",
                Some(german),
                ("INDEX", "p_idx"),
                "CREATE INDEX p_idx …",
                "ALTER FUNCTION public.slug(text) SET search_path",
            ),
            ("42883", None, ("INDEX", "p_idx"), "CREATE INDEX p_idx …", "--without INDEX p_idx"),
            ("23503", None, ("FK CONSTRAINT", "c c_p_fkey"), "ALTER TABLE …", "--without CONSTRAINT c_p_fkey"),
            ("P0001", None, ("EXTENSION", "pg_cron"), "CREATE EXTENSION IF NOT EXISTS pg_cron", "--without EXTENSION pg_cron"),
            ("58P01", None, ("EXTENSION", "x"), "CREATE EXTENSION IF NOT EXISTS x", "--without EXTENSION x"),
            ("22023", None, ("TABLE", "t"), "SET default_tablespace = fast", "--no-tablespaces"),
            ("42704", None, ("TABLE", "t"), "ALTER TABLE public.t OWNER TO gone", "--role-map"),
            ("42704", None, ("ACL", "TABLE t"), "GRANT ALL ON TABLE public.t TO gone", "--create-roles"),
            ("42501", None, ("TABLE", "t"), "ALTER TABLE public.t OWNER TO x", "--no-owner"),
            (
                "42501",
                None,
                ("EXTENSION", "x"),
                "CREATE EXTENSION x",
                "only a superuser can create an extension that is not trusted. Or leave it out: --without EXTENSION x",
            ),
            ("53200", None, ("TABLE", "t"), "CREATE TABLE t", "--create"),
            ("54000", None, ("INDEX", "v"), "CREATE INDEX v", "--without INDEX v"),
            ("42601", None, ("FUNCTION", "f()"), "CREATE FUNCTION f()", "--on-error continue"),
        ] {
            let refusal = refusal(code, context, entry, statement);
            assert!(refusal.message.contains(says), "{code}: {}", refusal.message);
        }
    }
}
