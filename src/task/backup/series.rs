//! Tells which sets belong together. A folder `DATABASE/JOB/` is named after a configuration, and configurations are copied: staging with
//! production's, a new server in the old one's place; and a database is dropped, and another one gets its name. So a series consists of the sets of one database
//! on one server, and sets of another are not counted, pruned or swept until a person says that both are one (`series.json`).

use std::collections::HashSet;

use anyhow::Result;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::facts::ServerFacts;
use super::set::Set;
use super::stamp::Stamp;
use crate::base::bounds::{self, Bounded};
use crate::pg::wal::parse_lsn;
use crate::store::Store;
use crate::store::key::folder;
use crate::task::backup::identity::Identity;

pub(super) const SERIES: &str = "series.json";

/// `series.json`: the decisions of a person about the identities in a folder.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Series {
    pub accepted: Vec<Accepted>,
    /// Those whose names are enough: each database that has the name continues the series.
    pub by_name: Vec<Identity>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Accepted {
    /// The identity of the sets.
    pub identity: Identity,
    /// The series that they belong to from then on. If it has the same identity, sets that are ahead in the log are accepted, and those of databases that had
    /// this name before.
    pub into: Identity,
    pub at: DateTime<Utc>,
    /// The sets that existed then. Later ones of a server that still runs are its own.
    pub sets: Vec<String>,
}

impl Series {
    /// Where it is in a store.
    pub(super) fn key(database: &str, job: &str) -> String {
        format!("{}{SERIES}", folder(database, job))
    }

    /// Reads the file; one that cannot be read accepts nothing, and the second value says why.
    pub async fn read(store: &Store, database: &str, job: &str) -> Result<(Self, Option<String>)> {
        let key = Self::key(database, job);
        let Some(read) = store.get_json::<Self>(&key).await? else { return Ok((Self::default(), None)) };
        let why_not = match read {
            Ok((series, signature)) if signature.is_ours() => return Ok((series, None)),
            Ok((_, signature)) => format!("{}: {}", store.location(&key), signature.in_words()),
            Err(error) => format!("{error:#}"),
        };
        Ok((Self::default(), Some(format!("{why_not}; nothing counts as accepted"))))
    }

    /// Changes the file as it is now in the store, and returns it. One that cannot be read is replaced, with a warning.
    pub async fn change(store: &Store, database: &str, job: &str, mut change: impl FnMut(&mut Self)) -> Result<Self> {
        let key = Self::key(database, job);
        let changed = store.change_json(&key, |there| {
            let mut series = match there {
                None => Self::default(),
                Some(Ok((series, signature))) if signature.is_ours() => series,
                Some(Ok((_, signature))) => {
                    tracing::warn!("{}: {}; a new one is written", store.location(&key), signature.in_words());
                    Self::default()
                }
                Some(Err(error)) => {
                    tracing::warn!("{error:#}; a new one is written");
                    Self::default()
                }
            };
            change(&mut series);
            Ok(series)
        });
        changed.await
    }

    /// The identity whose series a set is of: its own, or the one that it was accepted into.
    pub fn identity_of(&self, set: &Set) -> Option<Identity> {
        let (own, name) = (set.identity(), set.name.to_string());
        let is_of_it = |accepted: &&Accepted| own.as_ref().is_none_or(|own| accepted.identity == *own);
        let accepted = self.accepted.iter().rev().filter(is_of_it).find(|accepted| accepted.sets.contains(&name));
        match accepted {
            // What was accepted before OIDs were compared says nothing of them.
            Some(Accepted { into, .. }) if into.stamp.oid.is_some() || own.as_ref() != Some(into) => Some(into.clone()),
            _ => own,
        }
    }

    /// Takes this in. What was accepted before stays, but for what it says again, and for sets that are not `there` any more.
    pub fn accept(&mut self, accepted: Accepted, there: &HashSet<String>) {
        self.accepted.retain(|earlier| {
            let is_same = (&earlier.identity, &earlier.into) == (&accepted.identity, &accepted.into);
            !is_same || earlier.sets.iter().any(|set| there.contains(set) && !accepted.sets.contains(set))
        });
        self.accepted.push(accepted);
    }

    fn accepted_ahead(&self, own: &Identity, name: &str) -> bool {
        let ahead = |accepted: &&Accepted| accepted.identity == *own && accepted.into == *own;
        self.accepted.iter().filter(ahead).any(|accepted| accepted.sets.iter().any(|set| set == name))
    }

    /// Returns whether a set belongs to the series of `own`. One whose server is unknown may be of another server with the same names: it does only where its
    /// database's folder is this one's. Where the own identifier cannot be read, only names count.
    pub fn unites(&self, own: Option<&Identity>, set: &Set) -> bool {
        match (own, self.identity_of(set)) {
            (None, _) => true,
            (Some(own), None) => self.by_name.contains(own) || own.stamp.has_the_folder_of(&set.manifest.server.database.stamp()),
            (Some(own), Some(theirs)) => *own == theirs && !self.tells_apart(own, &theirs.stamp),
        }
    }

    fn tells_apart(&self, own: &Identity, stamp: &Stamp) -> bool {
        own.stamp.is_of_another(stamp) && !self.by_name.contains(own)
    }

    /// The sets of databases that had the name of `own` on its server before: these were dropped or renamed, or altered so that nothing tells that they are the same.
    pub fn of_earlier_ones<'s>(&self, own: &Identity, sets: &'s [Set]) -> impl Iterator<Item = &'s Set> {
        let is_of_that_name = move |set: &&Set| self.identity_of(set).as_ref() == Some(own);
        sets.iter().filter(is_of_that_name).filter(move |set| !self.unites(Some(own), set))
    }

    /// The sets that do not say of which server they are, and may not be of this one.
    pub fn of_unknown_servers<'s>(&self, own: &Identity, sets: &'s [Set]) -> impl Iterator<Item = &'s Set> {
        sets.iter().filter(move |set| self.identity_of(set).is_none() && !self.unites(Some(own), set))
    }

    /// Splits sets of one identity, the oldest first, by the databases that had the name one after another: those of the newest set come first. Where a person said
    /// that two are one, they are.
    pub fn by_database<'s>(&self, mut sets: Vec<&'s Set>) -> Vec<Vec<&'s Set>> {
        let mut databases = Vec::new();
        while let Some(newest) = sets.last() {
            let stamp = self.stamp_of(newest);
            let (of_it, others) = sets.into_iter().partition(|set| !stamp.is_of_another(&self.stamp_of(set)));
            databases.push(of_it);
            sets = others;
        }
        databases
    }

    fn stamp_of(&self, set: &Set) -> Stamp {
        let own = set.identity();
        let accepted = self.identity_of(set).filter(|theirs| own.as_ref().is_none_or(|own| own == theirs));
        accepted.map_or_else(|| set.manifest.server.database.stamp(), |theirs| theirs.stamp)
    }

    /// How sure it is that a set is of the server's database. Unlike [`Series::unites`], it takes nothing for granted.
    pub fn belongs(&self, server: &ServerFacts, set: &Set) -> Belongs {
        let theirs = self.identity_of(set);
        let name = theirs.as_ref().map_or(&set.manifest.server.database.name, |theirs| &theirs.database);
        match (Identity::of(server), &theirs) {
            (Some(own), Some(theirs)) if own == *theirs && self.tells_apart(&own, &theirs.stamp) => Belongs::OfAnEarlierOne,
            (Some(own), Some(theirs)) if own == *theirs => Belongs::Surely,
            (Some(_), Some(_)) => Belongs::Not,
            (None, _) if server.database.name == *name => Belongs::ByName { unknown: "this database's server" },
            (Some(own), None) if own.database == *name => Belongs::ByName { unknown: "the set's server" },
            _ => Belongs::Not,
        }
    }

    /// A set of the series that is ahead of the server's current position, or of a later set of its identity: the server was set back in time, or there are two
    /// of them. The later set says so for as long as nobody accepts it, also when the server has written as much log again. What is not of the series is counted
    /// and deleted by nothing.
    pub fn ahead_of<'s>(
        &self,
        server: &ServerFacts,
        sets: impl Iterator<Item = &'s Set>,
        now: DateTime<Utc>,
    ) -> Option<Ahead<'s>> {
        let own = Identity::of(server)?;
        let taken: Vec<Taken<'s>> = sets.filter(|set| set.identity().as_ref() == Some(&own)).map(Taken::of).collect();
        let present = Position::of(server);
        let is_open = |taken: &&Taken<'s>| !self.accepted_ahead(&own, &taken.set.name.to_string());
        let open = || taken.iter().filter(|taken| self.unites(Some(&own), taken.set)).filter(is_open);
        if let Some(ahead) = open().find(|ahead| present.is_behind(ahead.position)) {
            return Some(Ahead { set: ahead.set, later: None });
        }
        let later = |ahead: &Taken<'s>| {
            taken
                .iter()
                .find(|later| later.shows_a_way_back_from(ahead) && !later.set.is_from_the_future(now))
                .map(|later| later.set)
        };
        open().find_map(|ahead| Some(Ahead { set: ahead.set, later: Some(later(ahead)?) }))
    }
}

impl Bounded for Series {
    fn check(&self) -> Result<()> {
        self.accepted.iter().try_for_each(|accepted| {
            bounds::time("at", accepted.at)?;
            [&accepted.identity, &accepted.into].into_iter().try_for_each(|identity| identity.stamp.check())
        })
    }
}

/// How sure it is that a set is of a database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Belongs {
    Surely,
    /// The names of the databases are the same; which server one of the two is of is not known.
    ByName {
        unknown: &'static str,
    },
    /// Of a database that had the same name on the same server, and was dropped or renamed since.
    OfAnEarlierOne,
    Not,
}

/// A set from a later point of a server's log than a later set, or than the server is at now (None).
#[derive(Clone, Copy, Debug)]
pub struct Ahead<'s> {
    pub set: &'s Set,
    pub later: Option<&'s Set>,
}

/// A set, and where its server was when it was taken.
struct Taken<'s> {
    set: &'s Set,
    position: Position,
}

impl<'s> Taken<'s> {
    fn of(set: &'s Set) -> Self {
        Self { set, position: Position::of(&set.manifest.server) }
    }

    /// Both clocks, this host's and the server's, must say that it is the later one: either may have been wrong once.
    fn shows_a_way_back_from(&self, earlier: &Self) -> bool {
        let (server, before) = (&self.set.manifest.server, &earlier.set.manifest.server);
        let is_later = self.set.name.taken_at > earlier.set.name.taken_at
            && server.clock.zip(before.clock).is_none_or(|(clock, before)| clock > before);
        // A standby's timeline is that of its last restart point, and lags behind.
        let position = if server.in_recovery { Position { timeline: None, ..self.position } } else { self.position };
        is_later && position.is_behind(earlier.position)
    }
}

/// A position in a server's write-ahead log.
#[derive(Clone, Copy, Debug)]
struct Position {
    timeline: Option<i64>,
    lsn: Option<u64>,
}

impl Position {
    fn of(server: &ServerFacts) -> Self {
        Self { timeline: server.timeline, lsn: server.lsn.as_deref().and_then(parse_lsn) }
    }

    /// Timelines and log positions only grow, even across a failover.
    fn is_behind(self, other: Self) -> bool {
        let timeline = self.timeline.zip(other.timeline).is_some_and(|(own, other)| own < other);
        let lsn = self.lsn.zip(other.lsn).is_some_and(|(own, other)| own < other);
        timeline || lsn
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(text: &str) -> Identity {
        text.parse().unwrap()
    }

    fn set_of(identifier: Option<&str>, time: &str) -> Set {
        let mut manifest = crate::task::backup::manifest::tests::manifest();
        manifest.server.system_identifier = identifier.map(str::to_owned);
        let name = format!("app/nightly/{time}").parse().unwrap();
        Set { name, manifest, verification: Default::default(), holds: vec![], listed: Default::default() }
    }

    #[test]
    fn another_servers_sets_are_of_the_series_only_when_somebody_said_so_of_them() {
        let (own, other) = (identity("7/app"), identity("8/app"));
        let (ours, theirs) = (set_of(Some("7"), "2026-01-01T02-00-00Z"), set_of(Some("8"), "2026-01-02T02-00-00Z"));
        let later = set_of(Some("8"), "2026-01-03T02-00-00Z");
        let mut series = Series::default();
        assert!(series.unites(Some(&own), &ours));
        assert!(
            !series.unites(Some(&own), &set_of(None, "2026-01-01T02-00-00Z")),
            "its server is unknown, and may be another one"
        );
        assert!(series.unites(None, &theirs), "a server that does not say who it is");
        assert!(!series.unites(Some(&own), &theirs));
        assert!(!series.unites(Some(&identity("7/app2")), &ours), "another database of the same server");
        let sets = vec![theirs.name.to_string()];
        series.accepted.push(Accepted { identity: other.clone(), into: own.clone(), at: Utc::now(), sets });
        assert!(series.unites(Some(&own), &theirs));
        assert!(!series.unites(Some(&own), &later), "the old server goes on, and that one is its own");
        assert!(!series.unites(Some(&other), &ours), "the old one does not get the new one's");
        assert!(!series.unites(Some(&identity("9/app")), &theirs), "a third one gets nothing");
    }

    #[test]
    fn where_a_server_is_unknown_a_set_belongs_by_its_database_s_name_at_most() {
        let manifest = crate::task::backup::manifest::tests::manifest();
        let time = "2026-01-01T02-00-00Z";
        let server = |identifier: Option<&str>, database: &str| {
            let mut server = manifest.server.clone();
            server.system_identifier = identifier.map(str::to_owned);
            database.clone_into(&mut server.database.name);
            server
        };
        let name = manifest.server.database.name.as_str();
        let belongs = |own: Option<&str>, of: &str, theirs: Option<&str>| {
            Series::default().belongs(&server(own, of), &set_of(theirs, time))
        };
        assert_eq!(belongs(Some("7"), name, Some("7")), Belongs::Surely);
        assert_eq!(belongs(Some("7"), name, Some("8")), Belongs::Not);
        for (own, theirs) in [(None, None), (None, Some("7")), (Some("7"), None)] {
            assert!(matches!(belongs(own, name, theirs), Belongs::ByName { .. }), "{own:?} {theirs:?}");
            assert_eq!(belongs(own, "other", theirs), Belongs::Not, "{own:?} {theirs:?}");
        }
    }

    #[test]
    fn a_set_of_a_database_that_was_dropped_or_renamed_is_not_of_the_one_that_has_its_name_now() {
        let mut set = set_of(Some("7"), "2026-01-01T02-00-00Z");
        let mut server = set.manifest.server.clone();
        for (theirs, own, expected) in [
            (None, Some(5), Belongs::Surely),
            (Some(5), None, Belongs::Surely),
            (Some(5), Some(5), Belongs::Surely),
            (Some(5), Some(6), Belongs::OfAnEarlierOne),
        ] {
            (set.manifest.server.database.oid, server.database.oid) = (theirs, own);
            assert_eq!(Series::default().belongs(&server, &set), expected, "{theirs:?} {own:?}");
        }
        // A person says that they are of one database: of the one that is there now.
        (set.manifest.server.database.oid, server.database.oid) = (Some(5), Some(6));
        let (own, name) = (Identity::of(&server).unwrap(), set.name.to_string());
        let accepted = |oid| Accepted {
            identity: own.clone(),
            into: Identity { stamp: Stamp { oid, ..Stamp::default() }, ..own.clone() },
            at: Utc::now(),
            sets: vec![name.clone()],
        };
        let series = |oid| Series { accepted: vec![accepted(oid)], ..Series::default() };
        for (of, expected) in [(Some(6), true), (Some(7), false), (None, false)] {
            assert_eq!(series(of).unites(Some(&own), &set), expected, "{of:?}");
            assert_eq!(series(of).belongs(&server, &set) == Belongs::Surely, expected, "{of:?}");
            assert_eq!(series(of).of_earlier_ones(&own, std::slice::from_ref(&set)).count(), usize::from(!expected), "{of:?}");
        }
        assert!(Series { by_name: vec![own.clone()], ..Series::default() }.unites(Some(&own), &set), "the name is enough");
        let mut unknown = set.clone();
        unknown.manifest.server.system_identifier = None;
        assert!(!Series::default().unites(Some(&own), &unknown) && series(Some(6)).unites(Some(&own), &unknown));
        unknown.manifest.server.database.oid = None;
        let sets = std::slice::from_ref(&unknown);
        assert!(!Series::default().unites(Some(&own), &unknown), "it may be of another server");
        assert_eq!(Series::default().of_unknown_servers(&own, sets).count(), 1);
        assert_eq!(Series::default().of_earlier_ones(&own, sets).count(), 0);
        let by_name = Series { by_name: vec![own.clone()], ..Series::default() };
        assert!(by_name.unites(Some(&own), &unknown) && by_name.of_unknown_servers(&own, sets).count() == 0);
        // A person has accepted the sets of another server, where OIDs are others.
        set.manifest.server.system_identifier = Some("8".to_owned());
        let (identity, into) = (identity("8/app"), identity("7/app"));
        let accepted = Accepted { identity, into, at: Utc::now(), sets: vec![set.name.to_string()] };
        assert_eq!(Series { accepted: vec![accepted], ..Series::default() }.belongs(&server, &set), Belongs::Surely);
    }

    #[test]
    fn accepting_oneself_unites_nothing() {
        let (own, other) = (identity("7/app"), identity("8/app"));
        let ours = set_of(Some("7"), "2026-01-01T02-00-00Z");
        let sets = vec![ours.name.to_string()];
        let series = Series {
            accepted: vec![Accepted { identity: own.clone(), into: own.clone(), at: Utc::now(), sets }],
            ..Series::default()
        };
        assert!(!series.unites(Some(&other), &ours));
        assert!(series.accepted_ahead(&own, &ours.name.to_string()));
    }

    #[test]
    fn going_back_on_the_log_or_in_timelines_is_seen() {
        let at = |timeline, lsn: &str| Position { timeline: Some(timeline), lsn: parse_lsn(lsn) };
        for (now, earlier, behind) in [
            (at(1, "0/5000"), at(1, "0/4000"), false),
            (at(1, "0/5000"), at(1, "0/5000"), false),
            (at(1, "0/5000"), at(1, "1/0"), true),
            (at(1, "2/0"), at(2, "1/0"), true),
            (at(2, "0/4000"), at(1, "0/5000"), true),
            (at(2, "0/6000"), at(1, "0/5000"), false),
        ] {
            assert_eq!(now.is_behind(earlier), behind, "{now:?} {earlier:?}");
        }
        let unknown = Position { timeline: None, lsn: None };
        assert!(!unknown.is_behind(at(9, "9/0")), "what is not known is no doubt");
    }

    #[test]
    fn a_set_that_is_ahead_of_a_later_one_keeps_the_doubt_until_it_is_accepted() {
        let at = |time: &str, lsn: &str, clock: &str| {
            let mut set = set_of(Some("7"), time);
            (set.manifest.server.lsn, set.manifest.server.timeline) = (Some(lsn.to_owned()), Some(1));
            set.manifest.server.clock = Some(clock.parse().unwrap());
            set.manifest.server.database.oid = Some(5);
            set.manifest.started_at = set.name.taken_at;
            set
        };
        let first = at("2026-01-01T02-00-00Z", "0/3000000", "2026-01-01T02:00:00Z");
        let behind = at("2026-01-02T02-00-00Z", "0/2000000", "2026-01-02T02:00:00Z");
        let (mut standby, mut other) = (behind.clone(), behind.clone());
        (standby.manifest.server.in_recovery, standby.manifest.server.timeline) = (true, Some(0));
        other.manifest.server.system_identifier = Some("8".to_owned());
        standby.manifest.server.lsn = Some("0/4000000".to_owned());
        // The server has gone on since.
        let now = at("2026-01-09T02-00-00Z", "0/9000000", "2026-01-09T02:00:00Z");
        let doubt = |series: &Series, sets: &[Set]| {
            series
                .ahead_of(&now.manifest.server, sets.iter(), now.name.taken_at)
                .map(|ahead| (ahead.set.name.clone(), ahead.later.is_some()))
        };
        let none = Series::default();
        assert_eq!(doubt(&none, &[first.clone(), behind.clone()]), Some((first.name.clone(), true)));
        assert_eq!(doubt(&none, &[first.clone(), now.clone()]), None);
        assert_eq!(doubt(&none, &[first.clone(), other]), None, "another server's log");
        assert_eq!(doubt(&none, &[first.clone(), standby]), None, "the timeline of a standby lags behind");
        // One of the clocks was wrong: nobody knows which of the two was first.
        let wrong = at("2026-01-02T02-00-00Z", "0/2000000", "2025-12-31T02:00:00Z");
        assert_eq!(doubt(&none, &[first.clone(), wrong]), None);
        // What a database left that had the name before is of no series, and nothing here counts or deletes it.
        let mut before = first.clone();
        before.manifest.server.database.oid = Some(4);
        assert_eq!(doubt(&none, &[before, behind.clone()]), None);
        let later = at("2026-01-20T02-00-00Z", "0/2000000", "2026-01-20T02:00:00Z");
        assert_eq!(doubt(&none, &[first.clone(), later]), None, "from the future");
        let own = Identity::of(&now.manifest.server).unwrap();
        let accepted =
            |set: &Set| Accepted { identity: own.clone(), into: own.clone(), at: Utc::now(), sets: vec![set.name.to_string()] };
        let series = |set: &Set| Series { accepted: vec![accepted(set)], ..Series::default() };
        assert_eq!(doubt(&series(&first), &[first.clone(), behind.clone()]), None);
        assert!(doubt(&series(&behind), &[first, behind.clone()]).is_some(), "the one that is ahead has to be accepted");
    }
}
