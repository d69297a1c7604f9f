//! Says why a server refused a dump, and which option helps. The SQLSTATE and the step decide; never a message's words, which are in the
//! server's own language.

use sqlx::postgres::PgDatabaseError;

use super::choices::{Choices, OnError};
use super::script::Entry;
use super::server_context::{called, line_of_block};
use super::shown;
use crate::base::fault::{Fault, Kind};
use crate::base::shell;
use crate::pg::{failure, form};

/// Advice for a set that is restored only for verification.
const SCRATCH_WAYS: &str = "Or verify the sets on another server with a role that may (`scratch` of the job), or by reading them: verify = \"checksum\".";

/// The reason why a server refused a dump. It is about this server, now; never about the set.
#[derive(Clone, Debug)]
pub struct Refusal {
    pub kind: Option<Kind>,
    /// The SQLSTATE of the first error.
    pub sql_state: Option<String>,
    /// The message, with what to do.
    pub message: String,
}

impl Refusal {
    /// Returns whether the server, its disk, its memory or the connection caused it: the same dump may succeed another time.
    pub fn is_of_the_environment(&self) -> bool {
        match &self.sql_state {
            Some(code) => is_of_the_environment(code),
            None => self.kind == Some(Kind::Unreachable),
        }
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

/// The step during which a server refused.
#[derive(Clone, Copy, Debug)]
pub struct Doing<'a> {
    pub entry: &'a Entry,
    /// Empty for our own statements.
    pub statement: &'a str,
    pub in_transaction: bool,
    pub choices: &'a Choices,
    /// The source's search_path, for names without a schema.
    pub search_path: &'a str,
    /// Rows of the block before those that the server was given as one COPY.
    pub rows_before: u64,
}

/// A server's refusal in its own words.
#[derive(Clone, Debug, Default)]
pub struct Said {
    pub code: String,
    pub message: String,
    pub detail: Option<String>,
    pub hint: Option<String>,
    /// `PL/pgSQL function public.slug(text) line 1 at RETURN`, the innermost call first.
    pub context: Option<String>,
    pub constraint: Option<String>,
}

impl Said {
    fn of(error: &sqlx::Error) -> Option<Self> {
        let sqlx::Error::Database(error) = error else { return None };
        let said = error.try_downcast_ref::<PgDatabaseError>()?;
        let owned = |text: Option<&str>| text.map(str::to_owned);
        Some(Self {
            code: said.code().to_owned(),
            message: said.message().to_owned(),
            detail: owned(said.detail()),
            hint: owned(said.hint()),
            context: owned(said.r#where()),
            constraint: owned(said.constraint()),
        })
    }
}

/// Builds a refusal from an error of the server or of the connection to it.
pub fn of(error: &sqlx::Error, doing: Doing<'_>) -> Refusal {
    match Said::of(error) {
        Some(said) => of_said(&said, doing),
        None => Refusal {
            kind: failure::kind_of_sqlx(error),
            sql_state: None,
            message: format!("the connection to the target failed at {}: {error}", doing.entry),
        },
    }
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
        kind: kind(&said.code),
        sql_state: Some(said.code.clone()),
        message: format!("{message} (SQLSTATE {}), {place}\n{advice}", said.code).trim_end().to_owned(),
    }
}

/// Returns whether the SQLSTATE is about the environment: 08 connection, 25006 read-only, 40 rolled back by the server, 53 resources, 54
/// limits of its settings, 57 an operator, 58 its system (PostgreSQL manual, appendix A).
fn is_of_the_environment(code: &str) -> bool {
    code == "25006" || (["08", "40", "53", "54", "57", "58"].iter().any(|class| code.starts_with(class)) && code != "08P01")
}

fn kind(code: &str) -> Option<Kind> {
    match code {
        "42501" => Some(Kind::Permission),
        "53300" => Some(Kind::Unreachable),
        code if code.starts_with("28") => Some(Kind::Permission),
        code if code.starts_with("57P") => Some(Kind::Unreachable),
        code if code.starts_with("08") && code != "08P01" => Some(Kind::Unreachable),
        _ => None,
    }
}

/// The advice, a sentence or two. The options are those of `backups restore`; a set restored for verification had no options, so another
/// server or another verification helps there.
fn advice(said: &Said, doing: Doing<'_>) -> String {
    let Doing { entry, statement, in_transaction, choices, search_path, .. } = doing;
    let code = said.code.as_str();
    let for_scratch = choices.for_scratch;
    let names_a_role = statement.contains(" OWNER TO ")
        || [
            "GRANT ",
            "REVOKE ",
            "CREATE POLICY ",
            "ALTER DEFAULT PRIVILEGES ",
            "CREATE USER MAPPING ",
            "SET SESSION AUTHORIZATION ",
        ]
        .iter()
        .any(|start| statement.starts_with(start));
    let mut advice = if statement.starts_with("CREATE EXTENSION") && !(is_of_the_environment(code) && code != "58P01") {
        about_extension(code, &entry.name, for_scratch)
    } else {
        match code {
            "53100" => "The target's disk is full: free space on its host, or restore to another server.".to_owned(),
            "53200" if in_transaction => {
                "The target is short of memory or of entries in its lock table: a restore into an existing database is one transaction that locks every table. Restore with --create, which needs none, or raise max_locks_per_transaction and restart.".to_owned()
            }
            "53200" if choices.in_own_server => {
                "The server of its own is short of memory: raise `memory` of [verify] if it is set, or free some on this host.".to_owned()
            }
            "53200" | "53000" | "53400" => "The target is short of memory or reached one of its limits.".to_owned(),
            "54000" | "54001" => {
                "A setting of the target is too small for this (maintenance_work_mem, max_stack_depth): raise it for the role that restores.".to_owned()
            }
            "57014" => "It was cancelled on the target, by a person or by a timeout: try again.".to_owned(),
            "25006" => "The target is read-only: it is a standby, or its storage is read-only.".to_owned(),
            code if is_of_the_environment(code) => "The cause is the target's state, not the dump: try again.".to_owned(),
            "42501" if for_scratch => {
                format!("The restoring role may not do that: `pgtend check --connect` names the missing privileges, and `pgtend grants` prints the SQL for them. {SCRATCH_WAYS}")
            }
            "42501" if names_a_role && statement.contains(" OWNER TO ") => {
                "Restore as a superuser or a member of every role that owns something, or make the restoring role the owner of everything: --no-owner; or name another role: --role-map OLD=NEW.".to_owned()
            }
            "42501" => {
                "A restore needs a superuser, or a member of every role that owns something; --no-owner helps where only the owners are the problem, --on-error continue skips what the role may not create.".to_owned()
            }
            code if code.starts_with("28") => "The login of the restoring role was refused.".to_owned(),
            "42704" | "0LP01" if names_a_role && for_scratch => {
                "A role is missing on the server for scratch databases: globals.sql.gz of the set creates it; CREATE ROLE … NOLOGIN is enough.".to_owned()
            }
            "42704" | "0LP01" if names_a_role => {
                "A role is missing on the target: --create-roles creates it without login, --role-map OLD=NEW maps it to another one; --no-owner needs no owners.".to_owned()
            }
            "22023" | "42704" if statement.starts_with("SET default_tablespace") => {
                "A tablespace is missing on the target: create it, or restore into the database's own with --no-tablespaces.".to_owned()
            }
            "23503" => "The source's rows violate this foreign key; the set is not damaged.".to_owned(),
            "42883" | "42P01" | "42704" | "42703" | "3F000" if said.context.as_deref().is_some_and(|context| called(context).is_some()) => {
                let function = said.context.as_deref().and_then(called).unwrap_or_default();
                let now = match (for_scratch, choices.search_path.is_some()) {
                    (true, _) => "Until then, verify by checksum.".to_owned(),
                    (false, true) => {
                        "PostgreSQL 17 and newer build indexes and refresh materialized views under their own search_path.".to_owned()
                    }
                    (false, false) => format!("This set restores with --search-path {}.", shell::word(search_path)),
                };
                // Their owners chose these names, and people run what they are told here.
                let cure = match form::is_function(function) && form::is_identifier_list(search_path) {
                    true => format!("ALTER FUNCTION {function} SET search_path = {search_path}"),
                    false => "ALTER FUNCTION … SET search_path = …".to_owned(),
                };
                format!(
                    "The function {function} uses names without a schema, and a dump is restored with an empty search_path. Fix it in the source: {cure}. {now}"
                )
            }
            "23505" | "23514" | "23P01" | "23502" => "The source's rows violate this constraint; the set is not damaged.".to_owned(),
            _ => String::new(),
        }
    };
    if for_scratch {
        return advice;
    }
    if !is_of_the_environment(code) || code.starts_with("54") {
        advice += &leave_out(said, entry);
    }
    if !statement.is_empty() && !is_of_the_environment(code) && choices.on_error == OnError::Stop {
        advice += " --on-error continue restores everything else.";
    }
    advice.trim().to_owned()
}

fn about_extension(code: &str, name: &str, for_scratch: bool) -> String {
    let why = match code {
        "42501" => "The restoring role may not create it: only a superuser can create an extension that is not trusted.",
        // It raises an exception outside cron.database_name.
        _ if name == "pg_cron" => "pg_cron can be only in the one database of a server that cron.database_name names.",
        _ => "Install the extension's package of that version on the target's host.",
    };
    match for_scratch {
        true => format!("{why} {SCRATCH_WAYS}"),
        false => format!("{why} Or leave it out: --without EXTENSION {}.", shell::word(name)),
    }
}

/// The option that leaves out the failed object.
fn leave_out(said: &Said, entry: &Entry) -> String {
    // An entry of a constraint is named by its table and its name.
    let last = entry.name.rsplit(' ').next().unwrap_or_default();
    match entry.kind.as_str() {
        "INDEX" => format!(" Without it: --without INDEX {}.", shell::word(&entry.name)),
        "FK CONSTRAINT" => format!(
            " --without CONSTRAINT {} makes it NOT VALID: it is enforced for new rows only.",
            shell::word(said.constraint.as_deref().unwrap_or(last))
        ),
        "CONSTRAINT" | "CHECK CONSTRAINT" => {
            format!(" Without it: --without CONSTRAINT {}.", shell::word(said.constraint.as_deref().unwrap_or(last)))
        }
        _ => match &said.constraint {
            Some(constraint) => format!(" Without it: --without CONSTRAINT {}.", shell::word(constraint)),
            None => String::new(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(code: &str, context: Option<&str>, entry: (&str, &str), statement: &str) -> Refusal {
        let said =
            Said { code: code.to_owned(), message: "FEHLER".to_owned(), context: context.map(str::to_owned), ..Said::default() };
        let entry =
            Entry { kind: entry.0.to_owned(), name: entry.1.to_owned(), schema: Some("public".to_owned()), is_ours: false };
        let choices = Choices::default();
        of_said(
            &said,
            Doing { entry: &entry, statement, in_transaction: true, choices: &choices, search_path: "public", rows_before: 0 },
        )
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
