//! Decides whether the target may be replaced, which set is restored, and which databases of earlier runs are dropped. Pure.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;

use super::keys::{Refresh, Sets};
use super::mark::What;
use super::state::{Candidate, Made, Place, Session, State};
use crate::base::fault::{Fault, Kind};
use crate::base::units::{self, Span};
use crate::task::backup::verdict::Bytes;

/// Databases by which everyone connects, or which new ones are copies of.
const OF_THE_SERVER: [&str; 3] = ["postgres", "template0", "template1"];

/// This many sessions of a longer list are named.
const NAMED: usize = 5;

/// Why nothing is done. Without a kind it is a failure that the next run may not have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub kind: Option<Kind>,
    pub message: String,
}

impl Refusal {
    fn new(kind: Option<Kind>, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
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

/// A database that is dropped, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ToDrop {
    pub name: String,
    #[serde(skip)]
    pub oid: i64,
    #[serde(skip)]
    pub what: What,
    pub why: String,
}

impl fmt::Display for ToDrop {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}: {}", self.name, self.why)
    }
}

/// What is decided about the databases of earlier runs.
#[derive(Clone, Debug, Default)]
pub struct Drops {
    pub drops: Vec<ToDrop>,
    /// Why others stay, where a person should know.
    pub notes: Vec<String>,
}

/// Returns why the target is not replaced. No key changes the first ones.
pub fn refusal(state: &State, keys: &Refresh) -> Option<Refusal> {
    of_the_target(state).or_else(|| keys.swap.then(|| of_sessions(state, keys)).flatten())
}

fn of_the_target(state: &State) -> Option<Refusal> {
    let State { target, .. } = state;
    let name = &target.database;
    let refused = |why: String| Some(Refusal::new(Some(Kind::Configuration), format!("{name} is not replaced: {why}")));
    if OF_THE_SERVER.contains(&name.as_str()) {
        return refused("it is a database of the server itself".to_owned());
    }
    if state.in_recovery {
        return refused("its server is a standby".to_owned());
    }
    if target.system_identifier.is_none() {
        return refused(
            "this role may not read the server's system identifier, so it cannot be told from the databases that are backed up: \
             GRANT EXECUTE ON FUNCTION pg_control_system() TO …"
                .to_owned(),
        );
    }
    let backed_up = state.sources.iter().map(|(job, place)| (place, format!("job `{job}` backs it up")));
    let taken_from = state.sets.iter().map(|set| (&set.from, format!("the set {} was taken from it", set.name)));
    let ledger = state.ledger.iter().map(|place| (place, "the ledger is in it".to_owned()));
    let all: Vec<(&Place, String)> = backed_up.chain(taken_from).chain(ledger).collect();
    if let Some((_, why)) = all.iter().find(|(place, _)| target.is(place) == Some(true)) {
        return refused(why.clone());
    }
    let (place, why) = all.iter().find(|(place, _)| target.is(place).is_none())?;
    refused(format!(
        "it cannot be told from the database {}, whose server's system identifier could not be read ({why}): GRANT EXECUTE ON FUNCTION \
         pg_control_system() TO the role that connects there",
        place.database
    ))
}

/// Hours of a restore would be for nothing.
fn of_sessions(state: &State, keys: &Refresh) -> Option<Refusal> {
    if !keys.terminate {
        return (!state.sessions.is_empty()).then(|| still_connected(&state.target.database, &state.sessions));
    }
    // A job of pgtend may have ended by then.
    let is_pgtend_there = state.sessions.iter().any(|session| session.is_of_pgtend);
    if is_pgtend_there { None } else { unreadable(&state.target.database, &state.sessions) }
}

/// The sentence about a target that is in use.
pub fn still_connected(target: &str, sessions: &[Session]) -> Refusal {
    let sessions: Vec<&Session> = sessions.iter().collect();
    let message = format!(
        "{target} is in use and is not replaced: {}. Stop what is connected, or set terminate = true",
        in_words(&sessions)
    );
    Refusal::new(Some(Kind::Deferred), message)
}

/// The sentence about sessions of which this role cannot see whether they are of another job of pgtend; None where there are none. Nobody is terminated then.
pub fn unreadable(target: &str, sessions: &[Session]) -> Option<Refusal> {
    let unreadable: Vec<&Session> = sessions.iter().filter(|session| !session.is_readable).collect();
    (!unreadable.is_empty()).then(|| {
        let message = format!(
            "{target} is in use and is not replaced: {}, and this role may not read what they run, which may be another job of pgtend: nobody is \
             terminated. Stop what is connected, or GRANT pg_read_all_stats TO the role of the refresh",
            in_words(&unreadable)
        );
        Refusal::new(Some(Kind::Deferred), message)
    })
}

/// "2 sessions in it, 7 (app, psql), 8 (app)"
fn in_words(sessions: &[&Session]) -> String {
    let named: Vec<String> = sessions.iter().take(NAMED).map(ToString::to_string).collect();
    let more = if sessions.len() > NAMED { format!(" and {} more", sessions.len() - NAMED) } else { String::new() };
    format!("{} in it, {}{more}", units::plural(sessions.len(), "session"), named.join(", "))
}

/// Returns the index of the set, and notes on newer ones that were passed over.
pub fn choose(state: &State, keys: &Refresh) -> Result<(usize, Vec<String>), Refusal> {
    let sets = &state.sets;
    let identities: BTreeSet<String> = sets.iter().filter_map(|set| set.series.as_ref()).map(ToString::to_string).collect();
    if identities.len() > 1 {
        let list = identities.into_iter().collect::<Vec<_>>().join(", ");
        let message = format!(
            "the sets of `{}` are of several servers or databases: {list}. Say which belong together (pgtend backups accept), or keep them apart",
            keys.from
        );
        return Err(Refusal::new(Some(Kind::Configuration), message));
    }
    let mut newest_first: Vec<usize> = (0..sets.len()).collect();
    newest_first.sort_by_key(|index| std::cmp::Reverse(sets[*index].taken_at));
    let mut passed = Vec::new();
    let mut chosen = None;
    for index in newest_first {
        match unfit(&sets[index], keys.sets) {
            None => {
                chosen = Some(index);
                break;
            }
            Some(why) => passed.push(format!("{} ({why})", sets[index].name)),
        }
    }
    let Some(chosen) = chosen else {
        let why = if passed.is_empty() { "there is none".to_owned() } else { passed.join("; ") };
        return Err(Refusal::new(None, format!("no set of `{}` can be restored: {why}", keys.from)));
    };
    let set = &sets[chosen];
    if let Some(most) = keys.max_age
        && state.clock - set.taken_at > TimeDelta::from_std(most.0).unwrap_or(TimeDelta::MAX)
    {
        let passed =
            if passed.is_empty() { String::new() } else { format!("; newer ones were passed over: {}", passed.join("; ")) };
        let message = format!(
            "the newest usable set, {}, is {} old, and max_age is {most}{passed}",
            set.name,
            units::age(set.taken_at, state.clock)
        );
        return Err(Refusal::new(None, message));
    }
    Ok((chosen, passed.into_iter().map(|set| format!("passed over: {set}")).collect()))
}

/// Returns why a set is passed over.
fn unfit(set: &Candidate, sets: Sets) -> Option<&'static str> {
    if set.is_from_the_future {
        return Some("it is dated in the future");
    }
    match (set.bytes, sets) {
        (Bytes::Damaged, _) => Some("its bytes are damaged"),
        (Bytes::Unknown, Sets::Proved) => Some("nobody has read it back; sets = \"complete\" takes it"),
        (Bytes::Intact, _) | (Bytes::Unknown, Sets::Complete) => None,
    }
}

/// Decides about the databases of earlier runs. A mark is believed by its database's owner: everyone may make a database of any name with any
/// comment who may make one at all. A copy without a run at work is a leftover: its lock was taken before. An old database goes when
/// its time is over by the server's clock, which is the time that the job said that kept it, and only while the present target came by a refresh: then what replaced it is there.
pub fn drops(made: &[Made], target_oid: Option<i64>, keys: &Refresh, clock: DateTime<Utc>) -> Drops {
    let was_refreshed = made.iter().any(|made| {
        made.is_believed && made.mark.what == What::Old && target_oid.is_some() && made.mark.replaced_by == target_oid
    });
    let mut decided = Drops::default();
    for Made { name, oid, mark, is_ours, is_believed, sessions, sessions_of_pgtend } in made {
        let keep = mark.keep_seconds.map_or(keys.keep_old, |seconds| Span(Duration::from_secs(seconds)));
        let is_due = clock - mark.at >= TimeDelta::from_std(keep.0).unwrap_or(TimeDelta::MAX);
        let of_run = mark.run.map_or_else(|| "a run".to_owned(), |run| format!("run {run}"));
        let (why, in_the_way) = match mark.what {
            What::Copy => (format!("{of_run} was making it, and is gone"), *sessions_of_pgtend),
            What::Failed if is_due => (format!("{of_run} kept it when it failed, longer ago than keep_old = {keep}"), 0),
            // A drill replaces nothing, and so knows no `keep_old` of the job that did.
            What::Old if is_due && keys.swap => (format!("it was replaced longer ago than keep_old = {keep}"), *sessions),
            What::Failed | What::Old => continue,
        };
        let stays = |because: &str| format!("{name} stays, although {why}: {because}");
        if !is_believed {
            let because = format!(
                "its mark is not believed, as its owner is not this role, nor a superuser{}",
                if mark.what == What::Old { ", nor the owner of the present one" } else { "" }
            );
            decided.notes.push(stays(&because));
        } else if !is_ours {
            decided.notes.push(stays("it belongs to another role"));
        } else if in_the_way > 0 {
            decided.notes.push(stays("someone is connected to it"));
        } else if mark.what == What::Old && !was_refreshed {
            decided.notes.push(stays("the present database of that name did not come by a refresh"));
        } else {
            decided.drops.push(ToDrop { name: name.clone(), oid: *oid, what: mark.what, why });
        }
    }
    // The one that says where the target came from goes last.
    let is_last = |oid: i64| made.iter().any(|made| made.oid == oid && made.mark.replaced_by == target_oid);
    decided.drops.sort_by_key(|drop| is_last(drop.oid));
    decided
}

#[cfg(test)]
#[path = "decide_tests.rs"]
mod tests;
