//! Puts a set back into PostgreSQL, through psql: into a new database that gets its name only when all is proved,
//! or into an existing empty one inside a single transaction. Either is whole or not there at all, and the proof
//! comes first: SHA-256, members, trailer, and every table's count.

use std::collections::HashSet;
use std::fs::File;
use std::io::Write as _;

use anyhow::{Context as _, Result};

use super::facts;
use super::manifest::Manifest;
use super::read_back;
use super::scan::TableData;
use super::set::Set;
use super::stream::without_unknown_settings;
use crate::child::Child;
use crate::client_tools::Tools;
use crate::fault::{Fault, Kind};
use crate::pg::{self, literal};
use crate::progress::Phase;
use crate::store::Store;

/// Counted in one DO block, so that no statement grows without bound.
const TABLES_PER_BLOCK: usize = 200;

/// Index builds of the restore's own session. An ivfflat index over 11,000 vectors of 1,536 dimensions refuses the
/// server's default of 64 MB ("memory required is 65 MB"); a larger setting stays.
const BUILD_MEMORY: &str = "SELECT set_config('maintenance_work_mem', '512MB', false) FROM pg_settings WHERE name = 'maintenance_work_mem' AND setting::bigint < 524288;\n";

/// How a restore ended: what was seen of the set's bytes, and whether this server took them. The one says nothing of the other.
#[derive(Debug, Default)]
pub struct Restored {
    /// Where the bytes differ from the manifest, by this one read; empty when they do not.
    pub problems: Vec<String>,
    /// Why this server did not take them; None when all is restored.
    pub refusal: Option<Refusal>,
    /// Worth saying of a restore that is complete.
    pub notes: Vec<String>,
    /// Properties of the database that the new one does not have, and why. All else of it is there.
    pub not_carried: Vec<String>,
}

impl Restored {
    pub fn is_complete(&self) -> bool {
        self.problems.is_empty() && self.refusal.is_none()
    }
}

/// Why a server did not take a dump. It speaks of this server, now; never of the set.
#[derive(Clone, Debug)]
pub struct Refusal {
    pub kind: Option<Kind>,
    /// Of the first error.
    pub sql_state: Option<String>,
    /// With what to do.
    pub message: String,
}

impl From<Refusal> for anyhow::Error {
    fn from(refusal: Refusal) -> Self {
        match refusal.kind {
            Some(kind) => Fault::new(kind, refusal.message).into(),
            None => Self::msg(refusal.message),
        }
    }
}

/// Where the dump goes.
pub struct Target<'a> {
    pub settings: &'a pg::Settings,
    pub tools: &'a Tools,
    /// All in one transaction, committed after the proof. The database must be empty.
    pub in_transaction: bool,
}

/// Streams the set's dump into psql. An error is the store's, or this host's.
pub async fn stream_into(store: &Store, set: &Set, target: &Target<'_>, phase: &Phase) -> Result<Restored> {
    let mut connection = target.settings.connect().await?;
    let known_settings = facts::setting_names(&mut connection).await?;
    drop(connection);

    let mut psql = start_psql(target)?;
    // Its output is what SELECT set_config says; nobody reads it, so it must not fill the pipe.
    let stdin = psql.take_stdin()?;
    let mut sink = stdin.try_clone().context("cannot duplicate psql's input")?;
    let begin = if target.in_transaction { "BEGIN;\n" } else { "" };
    sink.write_all(format!("{BUILD_MEMORY}{begin}").as_bytes()).context("psql does not take its input")?;
    let mut head = Some(known_settings);
    let read = read_back::read_dump(store, set, phase, move |bytes| write_dump(&mut sink, &mut head, bytes)).await?;
    if !read.problems.is_empty() {
        return Ok(Restored { problems: read.problems, ..Restored::default() });
    }
    let finished = match read.sink_error {
        None => finish_psql(stdin, set, target.in_transaction).await,
        Some(error) => {
            drop(stdin);
            Err(error)
        }
    };
    let ended = psql.wait().await?;
    if ended.status.success() && finished.is_ok() {
        return Ok(Restored::default());
    }
    let said = if ended.stderr.is_empty() { format!("psql ended with {}", ended.status) } else { ended.stderr };
    Ok(Restored { refusal: Some(classify(&said)), ..Restored::default() })
}

fn classify(said: &str) -> Refusal {
    let first =
        said.lines().find(|line| line.contains("ERROR") || line.contains("FATAL") || line.contains("error:")).unwrap_or(said);
    let refusal = |kind: Option<Kind>, message: String| Refusal { kind, sql_state: None, message };
    if said.contains("No space left on device") || said.contains("could not extend file") {
        return refusal(None, format!("the target's disk is full: {first}"));
    }
    if said.contains("invalid command \\restrict") {
        let message = "this psql is older than the dump's pg_dump: it does not know \\restrict; install the newest minor release of the client tools";
        return refusal(None, message.to_owned());
    }
    if said.contains("max_locks_per_transaction") {
        return refusal(None, format!("too many tables for one transaction: restore with --create, which needs none ({first})"));
    }
    if ["out of memory", "out of shared memory", "could not resize shared memory", "memory required is"]
        .iter()
        .any(|text| said.contains(text))
    {
        return refusal(None, format!("the target is short of memory: {first}"));
    }
    if let Some(kind) = pg::kind_of_message(said) {
        let hint = if kind == Kind::Permission {
            "; a restore needs a superuser, or a member of every role that owns something"
        } else {
            ""
        };
        return refusal(Some(kind), format!("psql: {first}{hint}"));
    }
    refusal(None, format!("it does not restore: {}", said.lines().take(12).collect::<Vec<_>>().join("\n")))
}

fn start_psql(target: &Target<'_>) -> Result<Child> {
    let mut command = target.tools.command("psql");
    target.settings.apply_to(&mut command);
    // No psqlrc; stop at the first error; nothing asked, nothing printed.
    command.args(["-X", "-q", "-w", "-v", "ON_ERROR_STOP=1", "-o", "/dev/null", "-f", "-"]);
    Child::spawn(command)
}

/// The head of the dump comes in the first piece: pieces are of 256 KiB, heads of 1.
fn write_dump(sink: &mut File, known_settings: &mut Option<HashSet<String>>, bytes: &[u8]) -> std::io::Result<()> {
    match known_settings.take() {
        Some(known) => sink.write_all(&without_unknown_settings(bytes, &known)),
        None => sink.write_all(bytes),
    }
}

/// After the last byte is proved: counts every table in psql's own session, commits, and ends it.
async fn finish_psql(mut stdin: File, set: &Set, in_transaction: bool) -> std::io::Result<()> {
    let mut script = count_checks(&set.manifest);
    if in_transaction {
        script += "COMMIT;\n";
    }
    let written = tokio::task::spawn_blocking(move || stdin.write_all(script.as_bytes())).await;
    written.map_err(std::io::Error::other)?
}

/// SQL that fails with a list of all tables whose rows are not those of the manifest. A table that an extension
/// made may have more: rows that CREATE EXTENSION put there.
pub(super) fn count_checks(manifest: &Manifest) -> String {
    let mut script = String::new();
    for tables in manifest.tables.chunks(TABLES_PER_BLOCK) {
        let checks: String = tables.iter().map(count_check).collect();
        let body = format!(
            "DECLARE n bigint; problems text[] := '{{}}'; BEGIN {checks} IF problems <> '{{}}' THEN RAISE EXCEPTION '%', array_to_string(problems, '; '); END IF; END"
        );
        script += &format!("DO {};\n", literal(&body));
    }
    script
}

fn count_check(table: &TableData) -> String {
    let qualified = pg::qualified(&table.schema, &table.name);
    let rows = table.rows;
    format!(
        "SELECT count(*) INTO n FROM ONLY {qualified}; \
         IF n <> {rows} AND NOT (n > {rows} AND EXISTS (SELECT FROM pg_depend WHERE classid = 'pg_class'::regclass AND objid = {name}::regclass AND deptype = 'e')) \
         THEN problems := problems || format('%s has %s rows and the manifest says {rows}', {name}, n); END IF; ",
        name = literal(&qualified),
    )
}
