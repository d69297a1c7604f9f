//! Doubts about whose the sets and leftovers are, and warnings of a plan.

use chrono::{DateTime, Utc};

use super::facts::ServerFacts;
use super::identity::Identity;
use super::keys::{Backup, InStore, Verify};
use super::series::{Ahead, Series};
use super::set::{Listing, Set};
use super::stamp::Stamp;
use super::state::State;
use super::verdict::Bytes;
use super::{latest, sweep};
use crate::base::{shell, units};
use crate::pg;
use crate::pg::client_tools::replaced_relations_fixed_in;
use crate::work::RunContext;

/// Databases that a warning names.
const OIDS_NAMED: usize = 5;

/// Returns why no set and no leftover may go this time: each of these is a doubt about whose they are, or about the time. `host_clock` is this
/// host's when the server's was read. Pure.
pub fn doubts(server: &ServerFacts, host_clock: DateTime<Utc>, series: &Series, listing: &Listing) -> Vec<String> {
    let mut doubts: Vec<String> = listing.doubt().into_iter().collect();
    doubts.extend(may_be_of_earlier_ones(server, listing));
    if let Some(clock) = server.clock {
        let apart = (clock - host_clock).abs();
        if apart > pg::clock::APART {
            let apart = units::duration(apart.to_std().unwrap_or_default());
            doubts.push(format!("the clocks of this host and of the database server differ by {apart}: correct them"));
        }
    }
    if let (Some(Ahead { set, later }), Some(identity)) =
        (series.ahead_of(server, listing.sets.iter(), host_clock), Identity::of(server))
    {
        let position = |server: &ServerFacts| {
            let timeline = server.timeline.map_or("?".to_owned(), |timeline| timeline.to_string());
            format!("timeline {timeline}, {}", server.lsn.as_deref().unwrap_or("?"))
        };
        let than = match later {
            None => format!("the server is at now ({}): one of the two", position(server)),
            Some(later) => {
                format!("{}, which is younger ({}): one of their servers", later.name, position(&later.manifest.server))
            }
        };
        doubts.push(format!(
            "{} was taken from a later point of the same write-ahead log ({}) than {than} is a copy of \
             the other, or was restored to an earlier state; if this server continues the series, confirm it: \
             pgtend backups accept --identity {} --database {} --job {}",
            set.name,
            position(&set.manifest.server),
            shell::word(&identity.to_string()),
            shell::word(&set.name.database),
            shell::word(&set.name.job),
        ));
    }
    doubts
}

/// Without system identifiers, only stamps tell whether the sets of a name are of one database; between servers, they say nothing.
fn may_be_of_earlier_ones(server: &ServerFacts, listing: &Listing) -> Option<String> {
    let own = Some(server.database.stamp()).filter(|_| server.system_identifier.is_none())?;
    let stamp = |set: &Set| set.manifest.server.database.stamp();
    let other = listing.sets.iter().rev().find(|set| own.is_of_another(&stamp(set)))?;
    Some(format!(
        "{} is of a {} {}, so it may be of another one that had this name, and this role may not read the server's \
         system identifier, which would tell: GRANT EXECUTE ON FUNCTION pg_catalog.pg_control_system() TO the role",
        other.name,
        own.kind(),
        own.difference(&[&stamp(other)], OIDS_NAMED)
    ))
}

/// Returns a warning about sets of databases that had this one's name on its server before. They stay until a person decides: whoever may create databases can
/// give one the name of another that was dropped, and its sets would push out that one's. Pure.
pub fn of_earlier_ones(series: &Series, own: Option<&Identity>, sets: &[Set]) -> Option<String> {
    let own = own?;
    let sets: Vec<&Set> = series.of_earlier_ones(own, sets).collect();
    let newest = sets.last()?;
    let stamps: Vec<Stamp> = sets.iter().map(|set| set.manifest.server.database.stamp()).collect();
    let stamps: Vec<&Stamp> = stamps.iter().collect();
    let (kind, difference) = (own.stamp.kind(), own.stamp.difference(&stamps, OIDS_NAMED));
    let was = match own.stamp.is_told_by_marks(&stamps) {
        true => {
            "it may have been dropped or renamed, or altered so that nothing here tells that it is the same (docs/explanation/sets-and-servers.md)"
        }
        false => "it was dropped or renamed",
    };
    let several = match series.by_database(sets.clone()).len() {
        0 | 1 => String::new(),
        databases => format!(
            " ({databases} {kind}s had this name before: it takes the sets of the last one, and says how to take those of others)"
        ),
    };
    Some(format!(
        "{} here, the newest of them {}, {} of a {kind} that had this name before, {difference}: {was}. \
         They are neither counted nor deleted. If this one was restored from it, has replaced it or is the same, confirm that, and `keep` counts them with this one's: \
         pgtend backups accept --identity {} --database {} --job {}{several}, with --by-name if it is made anew again and again. If nobody needs them, delete their folders",
        units::plural(sets.len(), "set"),
        newest.name,
        if sets.len() == 1 { "is" } else { "are" },
        shell::word(&own.to_string()),
        shell::word(&newest.name.database),
        shell::word(&newest.name.job),
    ))
}

/// Returns a warning about sets that do not say of which server they are, where this one does: its role may read the identifier, and that of their runs might
/// not. They may be another server's, with the same names. Pure.
pub fn of_unknown_servers(series: &Series, own: Option<&Identity>, sets: &[Set]) -> Option<String> {
    let own = own?;
    let sets: Vec<&Set> = series.of_unknown_servers(own, sets).collect();
    let newest = sets.last()?;
    Some(format!(
        "{} here, the newest of them {}, {} by a role that may not read the system identifier (pg_control_system), which does not say of which server \
         it is. They are neither counted nor deleted. If they are of this one, confirm that, and `keep` counts them with its own: \
         pgtend backups accept --identity {} --of {} --database {} --job {}, or with --by-name instead of --of for all of that name",
        units::plural(sets.len(), "set"),
        newest.name,
        if sets.len() == 1 { "was taken" } else { "were taken" },
        shell::word(&own.to_string()),
        shell::word(&newest.name.to_string()),
        shell::word(&newest.name.database),
        shell::word(&newest.name.job),
    ))
}

/// Returns what a person should know before or beside the dump. Pure.
pub fn warnings(
    state: &State,
    sweep: &sweep::Plan,
    identity: Option<&Identity>,
    previous: Option<&Set>,
    backup: &Backup,
    run: &RunContext<'_>,
) -> Vec<String> {
    let mut warnings = of_sets(&state.main.listing, run.now);
    warnings.extend(of_other_identities(state, identity, run));
    warnings.extend(of_earlier_ones(&state.main.series, identity, &state.main.listing.sets));
    warnings.extend(of_unknown_servers(&state.main.series, identity, &state.main.listing.sets));
    for left in sweep.left.iter().filter(|left| left.for_ever) {
        warnings.push(format!("{} has objects but no manifest and is left alone: {}", left.name, left.reason));
    }
    for other in &state.others {
        let of_other = of_sets(&other.listing, run.now).into_iter().chain(too_little_space(previous, other.free_bytes));
        warnings.extend(of_other.map(|warning| format!("in {}: {warning}", other.kept.store)));
    }
    if let Some(trouble) = &state.scratch_trouble {
        warnings.push(format!("cannot check the server for scratch databases of earlier runs: {trouble}"));
    }
    warnings.extend(too_little_space(previous, state.main.free_bytes));
    warnings.extend(nothing_read_back(backup, &state.main.kept, &state.main.listing));
    warnings.extend(of_the_server(state, backup));
    warnings
}

/// Warnings about sets that cannot be restored, whose owner is in doubt, or whose date is wrong.
fn of_sets(listing: &Listing, now: DateTime<Utc>) -> Vec<String> {
    let unreadable = listing.unreadable.iter().map(|(name, reason)| format!("set {name} cannot be restored: {reason}"));
    let mut warnings: Vec<String> = unreadable.collect();
    warnings.extend(listing.not_ours_in_words());
    for set in &listing.sets {
        let doubted = set.holds.iter().filter(|hold| hold.is_doubted());
        warnings.extend(doubted.map(|hold| format!("set {}: {}", set.name, hold.reason)));
    }
    for set in listing.sets.iter().filter(|set| set.is_from_the_future(now)) {
        warnings.push(format!(
            "set {} is dated in the future: a clock was wrong when it was made, or is wrong now; it fills no place of `keep` and is never the latest",
            set.name
        ));
    }
    warnings.extend(written_too_early(listing));
    warnings
}

/// A warning about sets that open no gate, as their store's clock does not agree with those that made them.
fn written_too_early(listing: &Listing) -> Option<String> {
    let mut early = listing.sets.iter().rev().filter_map(|set| Some((set, set.written_before_it_began()?)));
    let (newest, written_at) = early.next()?;
    let began_at = newest.name.taken_at.max(newest.manifest.started_at);
    Some(format!(
        "{} began after the time of the manifest by the store's clock, the newest of them {} {} after it: the store's clock is behind, or that of the host \
         which made it was ahead. It counts for no `backups require`, no `--unless-within` and no `require_backup_within`: correct the clock",
        units::plural(early.count() + 1, "set"),
        newest.name,
        units::age(written_at, began_at)
    ))
}

/// Warnings about sets of other databases or servers among those of this one, or that nothing tells them apart.
fn of_other_identities(state: &State, identity: Option<&Identity>, run: &RunContext<'_>) -> Vec<String> {
    let sets = &state.main.listing.sets;
    let Some(own) = identity else {
        let has_one = sets.iter().any(|set| set.identity().is_some());
        let warning = "this role may not read the server's system identifier: sets are told apart by their names alone; GRANT EXECUTE ON FUNCTION pg_control_system() TO the role";
        return has_one.then(|| warning.to_owned()).into_iter().collect();
    };
    let others = latest::identities(sets, |set| state.main.series.identity_of(set));
    let several = |other: &Identity| {
        let theirs = sets.iter().filter(|set| set.identity().as_ref() == Some(other)).collect();
        match state.main.series.by_database(theirs).len() {
            0 | 1 => String::new(),
            databases => format!(
                " (of the {databases} databases that had that name one after another, it takes the sets of the last one, and says how to take those of others)"
            ),
        }
    };
    let warning = |other: &Identity| {
        let whose = match other.system_identifier == own.system_identifier {
            true => "another database of this server",
            false => "another server",
        };
        format!(
            "there are sets of {whose} here ({other}; this one is {own}): they are neither counted nor deleted; \
             if this one has replaced that one, confirm it: \
             pgtend backups accept --identity {} --database {} --job {}{}",
            shell::word(&other.to_string()),
            run.database,
            run.job.name,
            several(other)
        )
    };
    others.iter().filter(|other| *other != own).map(warning).collect()
}

fn too_little_space(previous: Option<&Set>, free_bytes: Option<u64>) -> Option<String> {
    let (last, free) = previous.zip(free_bytes).filter(|(last, free)| *free < last.manifest.dump.bytes)?;
    Some(format!("the store has {} free, and the last dump had {}", units::bytes(free), units::bytes(last.manifest.dump.bytes)))
}

fn nothing_read_back(backup: &Backup, kept: &InStore, listing: &Listing) -> Option<String> {
    let deletes = kept.keep.is_some() && backup.verify == Verify::None;
    let has_intact = listing.sets.iter().any(|set| set.verification.verdict() == Bytes::Intact);
    (deletes && !has_intact).then(|| {
        "no set has been read back, so `keep` deletes none: run `pgtend backups verify latest`, or `pgtend backups prune`"
            .to_owned()
    })
}

/// Warnings about what the role may not read, and what this server cannot do.
fn of_the_server(state: &State, backup: &Backup) -> Vec<String> {
    let server = &state.server;
    let mut warnings = Vec::new();
    if !server.unreadable.is_empty() {
        warnings.push(format!("this role may not read these objects, so the set lacks them: {}", server.unreadable.join("; ")));
    }
    warnings.extend(
        [&state.main]
            .into_iter()
            .chain(&state.others)
            .find_map(|found| found.encrypted_to.as_ref().filter(|_| !found.seals))
            .and_then(|_| server.database.readable_values()),
    );
    warnings.extend(state.readiness.notes.iter().cloned());
    warnings.extend(reads_replaced_relations(state));
    if backup.sessions > 1 && server.database.has_no_way_to_utf8() {
        let encoding = &server.database.encoding;
        warnings
            .push(format!("`sessions` has no effect: pg_dump alone dumps a database in {encoding}, which has no way to UTF-8"));
    }
    if server.in_recovery {
        warnings.push(
            "the server is a standby: it may cancel the dump (max_standby_streaming_delay), and unlogged tables are not included"
                .to_owned(),
        );
    }
    warnings
}

/// The fix of CVE-2024-7348 needs both.
fn reads_replaced_relations(state: &State) -> Option<String> {
    let (major, minor) = (state.server.version_num / 10_000, state.server.version_num % 10_000);
    let of_tools = state.tools.needs_update_to().map(|version| (state.tools.version.clone(), version));
    let of_server = replaced_relations_fixed_in(major as u32, minor as u32);
    let of_server = of_server.map(|version| (format!("the server's PostgreSQL {}", state.server.version), version));
    let (what, update) = of_tools.or(of_server)?;
    Some(format!(
        "{what} lets an owner who puts a view in the place of a table during the dump run code with the rights of this login (CVE-2024-7348): update to {update} or newer"
    ))
}
