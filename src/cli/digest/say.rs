//! The digest in words: pure. A person reads it in twenty seconds: what is not safe comes first, then what changed, then the rest.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use chrono::{DateTime, Utc};

use crate::base::units;
use crate::run::notify::message::{Message, Severity};
use crate::run::standing::fleets::Fleet;
use crate::run::standing::{OfDatabase, Safety, Standing};

/// More lines of a kind than this are counted only.
const UNSAFE_LISTED: usize = 10;
const ATTENTION_LISTED: usize = 5;
const SAFE_LISTED: usize = 12;

/// A change of a size or of a restore's duration by less is none.
const CHANGE: f64 = 0.2;

#[derive(Debug, Default)]
pub struct Facts {
    pub standing: Standing,
    /// By the database's name.
    pub weeks: HashMap<String, Week>,
    /// How many runs of the last seven days succeeded, and how many a person should look at; `None` without a ledger.
    pub ended: Option<(i64, i64)>,
    /// Databases whose last audit has critical findings, or high ones.
    pub findings: Vec<(String, u64, u64)>,
}

/// The newest proof of a database, and the one of a week ago.
#[derive(Clone, Copy, Debug, Default)]
pub struct Week {
    pub proved_at: Option<DateTime<Utc>>,
    pub dump_bytes: Option<u64>,
    pub dump_bytes_before: Option<u64>,
    pub restore_seconds: Option<f64>,
    pub restore_seconds_before: Option<f64>,
}

pub fn message(facts: &Facts, now: DateTime<Utc>) -> Message {
    let standing = &facts.standing;
    let is_safe = |database: &&OfDatabase| standing.safety(database) == Safety::Safe;
    let (safe, not_safe): (Vec<&OfDatabase>, Vec<_>) = standing.databases.iter().partition(is_safe);
    let unknown = not_safe.iter().filter(|database| standing.safety(database) == Safety::Unknown).count();
    let (found, found_not_safe) = found(standing);
    let of_servers = standing.uncovered.len() + standing.left_out.len();
    let count_not_safe = not_safe.len() + found_not_safe + of_servers;
    let all = standing.databases.len() + found + of_servers;
    let counted = match standing.fleets.iter().any(|fleet| fleet.is_backup && fleet.is_of_schemas) {
        true => format!("{} databases and schemas", units::count(all as u64)),
        false => units::plural(all, "database"),
    };
    let title = match (all, count_not_safe) {
        (0, _) => "digest: no database is backed up".to_owned(),
        (1, 0) => "digest: the database is safe".to_owned(),
        (_, 0) => format!("digest: all {counted} are safe"),
        (_, count) if count == unknown => format!("digest: {count} of {counted} not known to be safe"),
        (_, count) => format!("digest: {count} of {counted} NOT safe"),
    };
    let attention = attention(standing, now);
    let (fleets_not_well, fleets): (Vec<&Fleet>, Vec<_>) =
        standing.fleets.iter().filter(|fleet| fleet.is_backup).partition(|fleet| fleet.not_well() > 0 || fleet.databases == 0);
    let severity = match (count_not_safe == 0 && all > 0, attention.is_empty() && fleets_not_well.is_empty()) {
        (false, _) => Severity::Bad,
        (true, false) => Severity::Warning,
        (true, true) => Severity::Good,
    };
    // Another job may have backed up what one has not.
    let sign = if found_not_safe > 0 { "🔴" } else { "⚠️" };
    let fleets_not_well = fleets_not_well.into_iter().map(|fleet| format!("{sign} {}", fleet.line(now)));
    let not_safe = not_safe.iter().map(|database| format!("🔴 {}: {}", database.name, standing.backup_in_words(database, now)));
    let of_servers = standing.of_servers(now).into_iter().map(|said| format!("🔴 {said}"));
    let mut lines = listed(of_servers.chain(fleets_not_well).chain(not_safe), UNSAFE_LISTED, "that are not safe");
    lines.extend(listed(attention.into_iter().map(|text| format!("⚠️ {text}")), ATTENTION_LISTED, "to look at"));
    let findings = facts
        .findings
        .iter()
        .map(|(database, critical, high)| format!("⚠️ audit of {database}: {critical} critical, {high} high"));
    lines.extend(listed(findings, ATTENTION_LISTED, "with findings"));
    let mut safe: Vec<(bool, String)> = safe.into_iter().map(|database| line_of(facts, database, now)).collect();
    safe.sort_by_key(|(has_changed, _)| !has_changed);
    let fleets = fleets.into_iter().map(|fleet| format!("✅ {}", fleet.line(now)));
    lines.extend(listed(fleets.chain(safe.into_iter().map(|(_, line)| line)), SAFE_LISTED, "that are safe"));
    if let Some((succeeded, failed)) = facts.ended {
        let plural = |count: i64| units::plural(count.unsigned_abs(), "run");
        lines.push(format!("the last 7 days: {} succeeded, {failed} failed", plural(succeeded)));
    }
    Message::new(&title, severity, lines)
}

/// Counts the databases that backup jobs with patterns found, and those of them that are not safe. Several jobs with the same patterns have the same
/// databases, of which the best of these jobs counts.
fn found(standing: &Standing) -> (usize, usize) {
    let mut by_patterns: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for fleet in standing.fleets.iter().filter(|fleet| fleet.is_backup) {
        let counts = (fleet.databases, fleet.not_well());
        let known = by_patterns.entry(fleet.patterns.as_str()).or_insert(counts);
        known.1 = known.1.min(counts.1);
    }
    by_patterns.values().fold((0, 0), |(all, not_safe), (databases, not_well)| (all + databases, not_safe + not_well))
}

/// What a person should look at besides backups.
fn attention(standing: &Standing, now: DateTime<Utc>) -> Vec<String> {
    let broken = standing.broken.iter().map(|job| {
        let own = standing.stands.iter().find(|(of, _)| of == job).map_or(String::new(), |(_, said)| format!("; {said}"));
        format!("job {job} is skipped: there are mistakes in its file{own}")
    });
    let others = standing.attention(now).into_iter().filter(|(about, _)| !about.starts_with("backup of "));
    broken.chain(others.map(|(_, text)| text)).collect()
}

/// A line of a safe database, and whether its size or its restore changed much.
fn line_of(facts: &Facts, database: &OfDatabase, now: DateTime<Utc>) -> (bool, String) {
    let week = facts.weeks.get(&database.name).copied().unwrap_or_default();
    let mut line = format!("✅ {}: {}", database.name, facts.standing.backup_in_words(database, now));
    let mut has_changed = false;
    if let Some(bytes) = week.dump_bytes {
        let change = change(week.dump_bytes_before.map(|before| before as f64), bytes as f64);
        has_changed |= change.is_some();
        line += &format!("; {}{}", units::bytes(bytes), change.unwrap_or_default());
    }
    if let Some(seconds) = week.restore_seconds {
        let change = change(week.restore_seconds_before, seconds);
        has_changed |= change.is_some();
        let took = units::duration(Duration::from_secs_f64(seconds.clamp(0.0, 1e9)));
        line += &format!("; a restore took {took}{}", change.unwrap_or_default());
    }
    (has_changed, line)
}

/// " (+35 % in a week)", for a change that matters.
fn change(before: Option<f64>, now: f64) -> Option<String> {
    let before = before.filter(|before| *before > 0.0)?;
    let change = now / before - 1.0;
    (change.abs() >= CHANGE).then(|| format!(" ({:+.0} % in a week)", change * 100.0))
}

fn listed(lines: impl Iterator<Item = String>, most: usize, which: &str) -> Vec<String> {
    let all: Vec<String> = lines.collect();
    let more = all.len().saturating_sub(most);
    let rest = (more > 0).then(|| format!("… and {more} more {which}"));
    all.into_iter().take(most).chain(rest).collect()
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;
    use crate::run::standing::{Backup, Configured, Failed, Late, Unasked, Unread};

    fn at() -> DateTime<Utc> {
        "2026-11-30T08:00:00Z".parse().unwrap()
    }

    fn database(name: &str, hours: i64) -> OfDatabase {
        let began_at = at() - TimeDelta::hours(hours);
        let backup = Backup {
            set: "s".to_owned(),
            store: "local".to_owned(),
            began_at,
            restored_at: Some(began_at),
            refused_by: None,
            stores: vec!["local".to_owned()],
            measured: None,
        };
        OfDatabase::for_tests(name, Ok(Some(backup)))
    }

    fn facts(databases: Vec<OfDatabase>) -> Facts {
        let configured = Configured::Yes { stores: 1, jobs: 1 };
        let standing = Standing { configured, databases, has_ledger: true, is_scheduled: true, ..Standing::default() };
        Facts { standing, ended: Some((84, 2)), ..Facts::default() }
    }

    #[test]
    fn what_is_not_safe_comes_first() {
        let none = OfDatabase { backup: Ok(None), ..database("orders", 0) };
        let said = message(&facts(vec![database("app", 3), none, database("crm", 4)]), at());
        assert_eq!((said.title.as_str(), said.severity), ("digest: 1 of 3 databases NOT safe", Severity::Bad));
        assert_eq!(said.lines[0], "🔴 orders: none yet");
        assert!(said.lines[1].starts_with("✅ app: 3 h 0 min ago, restored on 2026-11-30"), "{:?}", said.lines);
        assert_eq!(said.lines.last().unwrap(), "the last 7 days: 84 runs succeeded, 2 failed");
    }

    #[test]
    fn a_backup_that_nobody_renews_is_not_safe() {
        let late = Late {
            job: "nightly".to_owned(),
            database: "app".to_owned(),
            tick: at(),
            last_success_at: None,
            is_by_sets: false,
            is_broken: false,
        };
        let mut of_late = facts(vec![database("app", 90)]);
        of_late.standing.late = vec![late];
        assert_eq!(message(&of_late, at()).title, "digest: 1 of 1 database NOT safe");
        let idle = OfDatabase { idle: Some("is disabled"), ..database("app", 3) };
        let lost = OfDatabase { unsure: Some("no server".to_owned()), ..database("app", 3) };
        let mut refused = database("app", 3);
        if let Ok(Some(backup)) = &mut refused.backup {
            backup.refused_by = Some("db:5432 on 2026-11-29: no".to_owned());
        }
        let unasked = Unasked { since: None, why: "it did not answer in 5 s".to_owned() };
        let unasked = OfDatabase { unasked: Some(unasked), ..database("app", 3) };
        for database in [idle, lost, refused, unasked, OfDatabase { job: None, ..database("app", 3) }] {
            assert_eq!(message(&facts(vec![database]), at()).severity, Severity::Bad);
        }
        assert_eq!(message(&facts(Vec::new()), at()).severity, Severity::Bad, "nothing is backed up");
        assert_eq!(message(&facts(vec![database("app", 3)]), at()).severity, Severity::Good);
    }

    #[test]
    fn an_old_backup_beside_a_store_that_was_not_read_is_not_known_to_be_safe() {
        let unread = OfDatabase { unread: vec!["offsite".to_owned()], ..database("app", 480) };
        let said = message(&facts(vec![unread, database("crm", 3)]), at());
        assert_eq!((said.title.as_str(), said.severity), ("digest: 1 of 2 databases not known to be safe", Severity::Bad));
        let line = "🔴 app: 20 d 0 h ago, restored on 2026-11-10; offsite was not read, and may have a newer one";
        assert_eq!(said.lines[0], line);
        let missing = OfDatabase { missing_in: vec!["offsite".to_owned()], ..database("app", 3) };
        assert_eq!(message(&facts(vec![missing]), at()).title, "digest: 1 of 1 database NOT safe");
    }

    #[test]
    fn databases_that_patterns_found_are_counted_and_one_without_a_backup_is_no_safe_one() {
        let fleet = |job: &str, well, failed| Fleet {
            job: job.to_owned(),
            patterns: "tenant_*".to_owned(),
            is_backup: job != "look",
            databases: well + failed,
            well,
            failed,
            ..Fleet::default()
        };
        let mut facts = facts(vec![database("app", 3)]);
        facts.standing.fleets = vec![fleet("nightly", 199, 1), fleet("look", 200, 0)];
        let said = message(&facts, at());
        assert_eq!((said.title.as_str(), said.severity), ("digest: 1 of 201 databases NOT safe", Severity::Bad));
        assert_eq!(said.lines[0], "🔴 nightly on tenant_*: 199 of 200 well, 1 failed");
        assert_eq!(said.lines.iter().filter(|line| line.contains("1 failed")).count(), 1, "it is said once: {:?}", said.lines);
        facts.standing.fleets = vec![fleet("nightly", 199, 1), fleet("hourly", 200, 0)];
        assert_eq!(message(&facts, at()).title, "digest: all 201 databases are safe");
        facts.standing.databases.clear();
        facts.standing.fleets = vec![fleet("nightly", 200, 0)];
        let said = message(&facts, at());
        assert_eq!((said.title.as_str(), said.severity), ("digest: all 200 databases are safe", Severity::Good));
    }

    #[test]
    fn no_value_of_a_row_is_told() {
        let said = "refused: duplicate key; detail: Key (mail)=(ada@example.com) already exists (SQLSTATE 23505)".to_owned();
        let mut refused = database("app", 3);
        if let Ok(Some(backup)) = &mut refused.backup {
            backup.refused_by = Some(said.clone());
        }
        let unknown = OfDatabase { backup: Err(said.clone()), ..database("crm", 3) };
        let mut facts = facts(vec![refused, unknown, OfDatabase { unsure: Some(said.clone()), ..database("orders", 3) }]);
        facts.standing.failed = vec![Failed {
            run: 7,
            job: "sql".to_owned(),
            database: "app".to_owned(),
            at: at(),
            outcome: "failed".to_owned(),
            error: said.clone(),
        }];
        let example = Some(format!("main.tenant_1: {said}"));
        facts.standing.fleets = vec![Fleet { is_backup: true, databases: 1, in_doubt: 1, example, ..Fleet::default() }];
        facts.standing.unread = vec![Unread { what: "ledger".to_owned(), why: said }];
        facts.standing = facts.standing.without_values();
        let told = message(&facts, at()).lines.join("\n");
        assert!(!told.contains("ada"), "{told}");
        assert_eq!(told.matches("values of rows are left out (SQLSTATE 23505)").count(), 6, "{told}");
    }

    #[test]
    fn what_changed_much_is_said_and_comes_before_what_did_not() {
        let mut facts = facts(vec![database("app", 3), database("crm", 3)]);
        let week = |bytes, before, seconds, seconds_before| Week {
            proved_at: Some(at()),
            dump_bytes: Some(bytes),
            dump_bytes_before: Some(before),
            restore_seconds: Some(seconds),
            restore_seconds_before: Some(seconds_before),
        };
        facts.weeks.insert("app".to_owned(), week(1_000_000, 1_100_000, 60.0, 55.0));
        facts.weeks.insert("crm".to_owned(), week(1_000_000, 2_000_000, 240.0, 60.0));
        let said = message(&facts, at());
        assert!(said.lines[0].contains("crm") && said.lines[0].contains("1.0 MB (-50 % in a week)"), "{:?}", said.lines);
        assert!(
            said.lines[0].contains("a restore took 4 min 0 s") && said.lines[0].contains("(+300 % in a week)"),
            "{:?}",
            said.lines
        );
        assert!(said.lines[1].contains("app") && !said.lines[1].contains('%'), "{:?}", said.lines);
    }

    #[test]
    fn two_hundred_databases_are_read_in_twenty_seconds() {
        let databases = (0..200).map(|number| database(&format!("tenant{number}"), 3)).collect();
        let said = message(&facts(databases), at());
        assert_eq!(said.title, "digest: all 200 databases are safe");
        assert!(said.lines.len() <= 15, "{:?}", said.lines);
        assert!(said.lines.iter().any(|line| line == "… and 188 more that are safe"), "{:?}", said.lines);
    }
}
