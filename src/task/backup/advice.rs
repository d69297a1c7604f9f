//! Says which option, setting or statement gets a restore past a refusal. The SQLSTATE and the step decide; never a message's words, which
//! are in the server's own language.

use super::choices::{Choices, OnError};
use super::said::{Doing, Said, is_of_the_environment};
use super::script::Entry;
use super::server_context::called;
use crate::base::shell;
use crate::pg::form;

/// Advice for a set that is restored only for verification.
const SCRATCH_WAYS: &str = "Or verify the sets on another server with a role that may (`scratch` of the job), or by reading them: verify = \"checksum\".";

/// The advice, a sentence or two. The options are those of `backups restore`; a set restored for verification had no options, so another
/// server or another verification helps there. Pure.
pub fn advice(said: &Said, doing: Doing<'_>) -> String {
    let Doing { entry, statement, choices, .. } = doing;
    let code = said.code.as_str();
    let is_of_the_environment = is_of_the_environment(code);
    let mut advice = match code {
        // 58P01 is a file that is missing: here, the extension's.
        "58P01" if creates_an_extension(statement) => about_extension(code, &entry.name, choices),
        code if is_of_the_environment => about_environment(code, doing).to_owned(),
        code if creates_an_extension(statement) => about_extension(code, &entry.name, choices),
        code => about_dump(code, said, doing),
    };
    // No key of [refresh] leaves anything out.
    if choices.for_scratch || choices.for_refresh {
        return advice;
    }
    if !is_of_the_environment || code.starts_with("54") {
        advice += &leave_out(said, entry);
    }
    // A part is restored as a whole, or not.
    if !statement.is_empty() && !is_of_the_environment && choices.on_error == OnError::Stop && choices.of_part.is_none() {
        advice += " --on-error continue restores everything else.";
    }
    advice.trim().to_owned()
}

fn creates_an_extension(statement: &str) -> bool {
    statement.starts_with("CREATE EXTENSION")
}

/// What to do about the target's disk, memory, limits and state.
fn about_environment(code: &str, doing: Doing<'_>) -> &'static str {
    match code {
        "53100" => "The target's disk is full: free space on its host, or restore to another server.",
        "53200" if doing.in_transaction => {
            "The target is short of memory or of entries in its lock table: a restore into an existing database is one transaction that locks every table. Restore with --create, which needs none, or raise max_locks_per_transaction and restart."
        }
        "53200" if doing.choices.in_own_server => {
            "The server of its own is short of memory: raise `memory` of [verify] if it is set, or free some on this host."
        }
        "53200" | "53000" | "53400" => "The target is short of memory or reached one of its limits.",
        "54000" | "54001" => {
            "A setting of the target is too small for this (maintenance_work_mem, max_stack_depth): raise it for the role that restores."
        }
        "57014" => "It was cancelled on the target, by a person or by a timeout: try again.",
        "25006" => "The target is read-only: it is a standby, or its storage is read-only.",
        _ => "The cause is the target's state, not the dump: try again.",
    }
}

/// What to do about privileges, roles, tablespaces, names and rows that the dump needs.
fn about_dump(code: &str, said: &Said, doing: Doing<'_>) -> String {
    let statement = doing.statement;
    let names_a_role = names_a_role(statement);
    let advice = match code {
        "42501" => return about_privilege(statement, doing.choices),
        code if code.starts_with("28") => "The login of the restoring role was refused.",
        "42704" | "0LP01" if names_a_role && doing.choices.for_scratch => {
            "A role is missing on the server for scratch databases: globals.sql.gz of the set creates it; CREATE ROLE … NOLOGIN is enough."
        }
        "42704" | "0LP01" if names_a_role && doing.choices.for_refresh => {
            "A role is missing on the target: the key create_roles creates it without login, role_map maps it to another one; no_owner needs no owners."
        }
        "42704" | "0LP01" if names_a_role => {
            "A role is missing on the target: --create-roles creates it without login, --role-map OLD=NEW maps it to another one; --no-owner needs no owners."
        }
        "22023" | "42704" if statement.starts_with("SET default_tablespace") => {
            "A tablespace is missing on the target: create it, or restore into the database's own with --no-tablespaces."
        }
        "23503" => "The source's rows violate this foreign key; the set is not damaged.",
        "42883" | "42P01" | "42704" | "42703" | "3F000" => {
            let function = said.context.as_deref().and_then(called);
            return match function {
                Some(function) => about_names(function, doing),
                None if doing.holds_all => String::new(),
                None => about_the_rest(doing.choices),
            };
        }
        // A catalog's index, of which no constraint is told.
        "23505" if said.constraint.is_none() => "Another session has just made an object of that name: run the restore again.",
        "23505" | "23514" | "23P01" | "23502" => "The source's rows violate this constraint; the set is not damaged.",
        _ => "",
    };
    advice.to_owned()
}

fn names_a_role(statement: &str) -> bool {
    const STARTS: [&str; 6] = [
        "GRANT ",
        "REVOKE ",
        "CREATE POLICY ",
        "ALTER DEFAULT PRIVILEGES ",
        "CREATE USER MAPPING ",
        "SET SESSION AUTHORIZATION ",
    ];
    statement.contains(" OWNER TO ") || STARTS.iter().any(|start| statement.starts_with(start))
}

fn about_privilege(statement: &str, choices: &Choices) -> String {
    if choices.by_superuser {
        return "No right of the restoring role is missing, as it was done by a superuser: code of the dump, such as a function of an index, of a CHECK or of a \
                materialized view, runs as the owner of its table, who has that right in the source and gets it later in the dump, or never. Fix it in the \
                source, so that the function needs no right that the dump grants after it; stock tools cannot restore it either."
            .to_owned();
    }
    if choices.for_scratch {
        return format!(
            "The restoring role may not do that: `pgtend check --connect` names the missing privileges, and `pgtend grants` prints the SQL for them. {SCRATCH_WAYS}"
        );
    }
    let advice = match statement.contains(" OWNER TO ") {
        _ if choices.for_refresh => {
            "A refresh needs a superuser, or a member of every role that owns something; the keys no_owner and role_map help where only the owners are the problem."
        }
        true => {
            "Restore as a superuser or a member of every role that owns something, or make the restoring role the owner of everything: --no-owner; or name another role: --role-map OLD=NEW."
        }
        false if choices.of_part.is_some() => {
            "The restoring role may not do that; --no-owner helps where only the owners are the problem."
        }
        false => {
            "A restore needs a superuser, or a member of every role that owns something; --no-owner helps where only the owners are the problem, --on-error continue skips what the role may not create."
        }
    };
    advice.to_owned()
}

/// What to do about a function that finds a name only by the search_path of the source.
fn about_names(function: &str, doing: Doing<'_>) -> String {
    let Doing { choices, search_path, .. } = doing;
    let now = match (choices.for_scratch, choices.search_path.is_some()) {
        (true, _) => "Until then, verify by checksum.".to_owned(),
        (false, true) => {
            "PostgreSQL 17 and newer build indexes and refresh materialized views under their own search_path.".to_owned()
        }
        (false, false) if choices.for_refresh => String::new(),
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

/// What to do about a name of a schema, a table or an extension that the job's filters left out.
fn about_the_rest(choices: &Choices) -> String {
    let way = match (choices.for_scratch, choices.for_refresh) {
        (true, _) => {
            " No restore proves it by itself: back up the whole database as well, by a job without filters, and verify these sets by checksum."
        }
        (false, true) => "",
        (false, false) => {
            " Restore a set of the whole database; or put this one into a database that has the rest: --schema NAME or --table NAME, with --into."
        }
    };
    format!("This set holds a part of its database, and this refers to what is not in that part.{way}")
}

fn about_extension(code: &str, name: &str, choices: &Choices) -> String {
    let why = match code {
        "42501" => "The restoring role may not create it: only a superuser can create an extension that is not trusted.",
        // It raises an exception outside cron.database_name.
        _ if name == "pg_cron" => "pg_cron can be only in the one database of a server that cron.database_name names.",
        _ => "Install the extension's package of that version on the target's host.",
    };
    match choices.for_scratch {
        true => format!("{why} {SCRATCH_WAYS}"),
        false if choices.for_refresh => why.to_owned(),
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
