//! Starts pg_dump, and judges its end.

use anyhow::Result;

use super::keys::Backup;
use super::patterns::Patterns;
use super::plan::Plan;
use super::search_path::SearchPath;
use super::why;
use crate::base::child::{Child, Ended};
use crate::pg;

/// What one pg_dump writes.
#[derive(Debug, Default)]
pub struct Share<'a> {
    /// `pre-data` and the like; empty: all.
    pub sections: &'a [&'a str],
    /// An exported snapshot; None: its own.
    pub snapshot: Option<&'a str>,
    /// Tables whose rows others write, as in SQL.
    pub without_rows: &'a [String],
}

pub async fn start(settings: &pg::Settings, plan: &Plan, backup: &Backup, share: &Share<'_>) -> Result<Child> {
    let mut command = plan.tools.command("pg_dump");
    // A store that takes no bytes for a minute does not end the session.
    let mut more = vec![("tcp_user_timeout", "0")];
    let search_path;
    if Patterns::of(&backup.filters).need_a_search_path() {
        // pg_dump goes by it in the query for these tables alone, and qualifies all names there (expand_table_name_patterns, since CVE-2018-1058).
        search_path = SearchPath::of_login(settings).await?.shown;
        more.push(("search_path", &search_path));
    }
    settings.apply_with(&more, &mut command);
    let database = &plan.server.database;
    let encoding = if database.has_no_way_to_utf8() { database.encoding.as_str() } else { "UTF8" };
    // A pattern without a match is a mistake, not a reason to dump without it.
    command.args(["--format=plain", "--no-password", "--strict-names"]).arg(format!("--encoding={encoding}"));
    command.arg(format!("--lock-wait-timeout={}", backup.lock_wait_timeout.0.as_millis()));
    for (option, patterns) in [
        ("--schema", &backup.filters.schemas[..]),
        ("--exclude-table", &backup.filters.exclude_tables),
        ("--exclude-table-data", &backup.filters.exclude_table_data),
        // A name in quotes is a pattern that only this table matches.
        ("--exclude-table-data", share.without_rows),
    ] {
        for pattern in patterns {
            command.arg(format!("{option}={pattern}"));
        }
    }
    command.args(share.sections.iter().map(|section| format!("--section={section}")));
    command.args(share.snapshot.map(|snapshot| format!("--snapshot={snapshot}")));
    Child::spawn(command)
}

/// Checks a dump by exit status, stderr and last line: a dump that failed unnoticed is a common cause of data loss.
pub async fn check(ended: &Ended, is_complete: bool, settings: &pg::Settings, plan: &Plan, backup: &Backup) -> Result<()> {
    if !ended.status.success() || ended.stderr.contains("pg_dump: error:") {
        return Err(why::explain(&ended.status.to_string(), &ended.stderr, settings, plan, backup).await);
    }
    anyhow::ensure!(is_complete, "pg_dump ended well, but the last line of a complete dump is missing");
    Ok(())
}
