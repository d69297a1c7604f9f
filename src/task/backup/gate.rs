//! Whether a database has a backup that is recent enough: for deployments, which must not begin without one, and for runs that are not needed then.
//! Only what the stores hold answers, and a doubt is never a yes.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;
use chrono::{DateTime, TimeDelta, Utc};
use futures_util::future::join_all;
use serde::Serialize;

use super::copies::several::ensure_answers;
use super::facts::ServerFacts;
use super::keys::{Backup, Verify};
use super::manifest::Filters;
use super::newest;
use super::often::Often;
use super::series::{Belongs, Series};
use super::set::{self, Listing, Set};
use super::set_name::SetName;
use super::verdict::Bytes;
use crate::base::terminal;
use crate::base::units::{self, Span};
use crate::config::Config;
use crate::store::{Store, key};

/// At most this many sets that do not count are named in a sentence.
const NAMED: usize = 5;

/// What is asked.
pub struct Question<'a> {
    /// The database's name in the configuration.
    pub database: &'a str,
    /// Only sets of this job; None: of every job.
    pub job: Option<&'a str>,
    /// Only sets that leave out exactly this: nothing, unless a job asks about its own.
    pub filters: Filters,
    pub whose: Whose,
    /// How long ago a set may have begun.
    pub within: Span,
    /// Whether a server must have restored it.
    pub restored: bool,
    /// The jobs whose proofs build no vector indexes (`vector_indexes = false`): of their sets, a restore without them is enough.
    pub without_vector_indexes: Vec<String>,
}

/// The server whose sets count.
pub enum Whose {
    /// The database's own, which is asked who it is. `by_name`: where that or a set's server is unknown, the database's name is enough.
    Own { by_name: bool },
    /// The one that a person names, as SYSTEM_IDENTIFIER/DATABASE or by the first part alone.
    Named(String),
}

/// A set, and whether it counts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Seen {
    pub set: String,
    pub store: String,
    /// The moment before its dump took its snapshot: what was committed before is in it. Of a set that cannot be read, the time in its name.
    pub began_at: DateTime<Utc>,
    /// When a server last restored it.
    pub restored_at: Option<DateTime<Utc>>,
    /// The reason why it does not count.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why_not: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub is_met: bool,
    /// The newest set that counts, whenever it began.
    pub newest: Option<Seen>,
    /// Newer sets, which do not count; the newest first.
    pub passed_over: Vec<Seen>,
    /// The latest of the clocks that were asked: a clock that is behind makes no set younger.
    pub now: DateTime<Utc>,
    /// How far that is ahead of this host's clock, if by more than clocks differ.
    pub ahead: Option<Span>,
}

/// Looks into the stores. One set that counts is an answer, whatever cannot be read besides; without one, what cannot be read is an error.
pub async fn ask(config: &Config, stores: &[(String, Store)], question: &Question<'_>) -> Result<Answer> {
    let host_clock = Utc::now();
    let mut now = host_clock;
    let theirs = match &question.whose {
        Whose::Named(identity) => Theirs::Named(identity),
        Whose::Own { by_name } => {
            let server = newest::server_of(config, question.database).await?;
            now = now.max(server.clock.unwrap_or(now));
            Theirs::Own { server: Box::new(server), by_name: *by_name }
        }
    };
    let (mut seen, mut doubts) = (Vec::new(), Vec::new());
    let (are_several, theirs) = (stores.len() > 1, &theirs);
    let mut looking = Vec::new();
    for (name, store) in stores {
        looking.push(async move {
            if are_several {
                ensure_answers(store).await?;
            }
            look(name, store, question, theirs).await
        });
    }
    for ((name, _), looked) in stores.iter().zip(join_all(looking).await) {
        match looked {
            Ok(found) => {
                seen.extend(found.seen);
                doubts.extend(found.doubt.map(|doubt| anyhow::anyhow!("store `{name}`: {doubt}")));
                now = now.max(found.newest_object_at.unwrap_or(now));
            }
            Err(error) => doubts.push(error.context(format!("store `{name}` cannot be read"))),
        }
    }
    let mut answer = decide(seen, question.within, now);
    let ahead = Some(now - host_clock).filter(|ahead| *ahead > set::CLOCKS_DIFFER);
    answer.ahead = ahead.map(|ahead| Span(Duration::from_secs(ahead.num_seconds().unsigned_abs())));
    if !answer.is_met
        && let Some(doubt) = doubts.into_iter().next()
    {
        return Err(doubt);
    }
    Ok(answer)
}

/// Asks for a job whether it has made a set of this database within that time that is as proved as the run that would make another. Of several
/// stores, each must have one: a run would write to all of them.
pub async fn ask_for_job(config: &Config, backup: &Backup, job: &str, database: &str, within: Span) -> Result<Answer> {
    let mut stores = Vec::new();
    for kept in backup.stores() {
        stores.push((kept.store.clone(), Store::named(config, &kept.store).await?));
    }
    let restored = backup.verify == Verify::Restore && backup.how_often.restore == Often::Always;
    let filters = backup.filters.clone();
    let whose = Whose::Own { by_name: false };
    let without_vector_indexes = if backup.vector_indexes { Vec::new() } else { vec![job.to_owned()] };
    let question = Question { database, job: Some(job), filters, whose, within, restored, without_vector_indexes };
    let answer = ask(config, &stores, &question).await?;
    if !answer.is_met || stores.len() == 1 {
        return Ok(answer);
    }
    // One of them was restored; a copy that is encrypted for others need not have been.
    let question = Question { restored: false, ..question };
    for store in &stores {
        let of_store = ask(config, std::slice::from_ref(store), &question).await?;
        if !of_store.is_met {
            return Ok(of_store);
        }
    }
    Ok(answer)
}

/// What a store holds.
struct Found {
    seen: Vec<Seen>,
    /// The reason why there may be more.
    doubt: Option<String>,
    newest_object_at: Option<DateTime<Utc>>,
}

enum Theirs<'a> {
    Own { server: Box<ServerFacts>, by_name: bool },
    Named(&'a str),
}

impl Theirs<'_> {
    /// Says why a set is not theirs, or may not be.
    fn why_not(&self, series: &Series, set: &Set) -> Option<String> {
        let belongs = match self {
            Self::Own { server, .. } => series.belongs(server, set),
            Self::Named(named) if series.identity_of(set).is_some_and(|identity| identity.is_meant_by(named)) => Belongs::Surely,
            Self::Named(_) => Belongs::Not,
        };
        match (belongs, self, set.identity()) {
            (Belongs::Surely, ..) | (Belongs::ByName { .. }, Self::Own { by_name: true, .. }, _) => None,
            (Belongs::ByName { unknown }, ..) => Some(format!(
                "{unknown} is not known, so it may be of another one: GRANT EXECUTE ON FUNCTION pg_catalog.pg_control_system() to the roles of both, or \
                 trust the database's name: --by-name"
            )),
            (Belongs::Not, _, Some(identity)) => Some(format!("it is of another server or database, {identity}")),
            (Belongs::Not, Self::Named(_), None) => Some("its manifest does not say of which server it is".to_owned()),
            (Belongs::Not, _, None) => Some(format!("it is of another database, {}", set.manifest.server.database.name)),
        }
    }
}

async fn look(store_name: &str, store: &Store, question: &Question<'_>, theirs: &Theirs<'_>) -> Result<Found> {
    let folder = match question.job {
        Some(job) => key::folder(question.database, job),
        None => format!("{}/", key::encode(question.database)),
    };
    let listing = set::list(store, &folder).await?;
    let mut all_series: BTreeMap<String, Series> = BTreeMap::new();
    for set in &listing.sets {
        let job = &set.name.job;
        if !all_series.contains_key(job) {
            let (series, trouble) = Series::read(store, question.database, job).await?;
            trouble.into_iter().for_each(|trouble| tracing::warn!("{trouble}"));
            all_series.insert(job.clone(), series);
        }
    }
    let (doubt, newest_object_at) = (listing.doubt(), listing.newest_object_at);
    let none = Series::default();
    let why_not_theirs = |set: &Set| theirs.why_not(all_series.get(&set.name.job).unwrap_or(&none), set);
    Ok(Found { seen: seen_in(&listing, store_name, question, &why_not_theirs, Utc::now()), doubt, newest_object_at })
}

/// All sets of the listing, those that cannot be read included. Pure.
fn seen_in(
    listing: &Listing,
    store: &str,
    question: &Question<'_>,
    why_not_theirs: &dyn Fn(&Set) -> Option<String>,
    now: DateTime<Utc>,
) -> Vec<Seen> {
    let without_time = |name: &SetName, why_not: String| Seen {
        set: name.to_string(),
        store: store.to_owned(),
        began_at: name.taken_at,
        restored_at: None,
        why_not: Some(why_not),
    };
    let unreadable = listing.unreadable.iter().map(|(name, why)| without_time(name, format!("it cannot be read: {why}")));
    let adopted =
        listing.adopted.iter().map(|set| without_time(&set.name, "it was adopted: nobody knows when it was dumped".to_owned()));
    let not_ours = listing.not_ours.iter().map(|(set, signature)| without_time(&set.name, signature.in_words().to_owned()));
    let sets = listing.sets.iter().map(|set| Seen {
        set: set.name.to_string(),
        store: store.to_owned(),
        began_at: set.manifest.started_at,
        restored_at: set.verification.restored_at(),
        why_not: why_not_theirs(set).or_else(|| why_not(set, question, now)),
    });
    sets.chain(adopted).chain(unreadable).chain(not_ours).collect()
}

/// Says why a set of the right server does not count; nothing of one that does. Pure.
fn why_not(set: &Set, question: &Question<'_>, now: DateTime<Utc>) -> Option<String> {
    let name = &set.name;
    let (filters, verification) = (&set.manifest.filters, &set.verification);
    let refused = verification.refused_for_its_data().map(|check| {
        let (server, at) = (&check.server, check.checked_at.format("%Y-%m-%d %H:%MZ"));
        format!("{server} refused it when it was last restored, on {at}: {}", check.refusal.as_deref().unwrap_or_default())
    });
    let problem = refused.or_else(|| set.listed.globals_problem.clone());
    Some(match problem {
        _ if set.is_from_the_future(now) => "it is dated in the future: a clock was wrong when it was made, or is now".to_owned(),
        _ if *filters != question.filters && question.filters.are_none() => {
            "it holds a part of the database: its job has filters".to_owned()
        }
        _ if *filters != question.filters => "it was made with other filters than its job has now".to_owned(),
        _ if verification.verdict() == Bytes::Damaged => "its bytes are damaged".to_owned(),
        _ if verification.verdict() == Bytes::Unknown => {
            format!("nobody has read it back since it was made: `pgtend backups verify {name}`")
        }
        Some(problem) => problem,
        None if question.restored && is_without_indexes(set, question) => format!(
            "it was restored without its vector indexes, and its job wants them: `pgtend backups verify {name} --restore-on DATABASE`"
        ),
        None if question.restored && !verification.was_restored() => {
            format!("no server has restored it: `pgtend backups verify {name} --restore-on DATABASE`")
        }
        None => return None,
    })
}

/// Returns whether it was restored, and only without vector indexes that its job wants.
fn is_without_indexes(set: &Set, question: &Question<'_>) -> bool {
    let verification = &set.verification;
    let are_wanted = !question.without_vector_indexes.contains(&set.name.job);
    are_wanted && verification.was_restored() && !verification.was_restored_with_indexes()
}

/// Pure.
fn decide(mut seen: Vec<Seen>, within: Span, now: DateTime<Utc>) -> Answer {
    seen.sort_by(|a, b| (b.began_at, &b.set).cmp(&(a.began_at, &a.set)));
    let at = seen.iter().position(|seen| seen.why_not.is_none());
    let newest = at.map(|at| seen[at].clone());
    seen.truncate(at.unwrap_or(seen.len()));
    let within = TimeDelta::from_std(within.0).unwrap_or(TimeDelta::MAX);
    let is_met = newest.as_ref().is_some_and(|newest| now - newest.began_at <= within);
    Answer { is_met, newest, passed_over: seen, now, ahead: None }
}

impl Answer {
    /// Says what there is.
    pub fn in_words(&self, question: &Question<'_>) -> String {
        let Question { database, within, restored, .. } = question;
        let newest = self.newest.as_ref().map(|newest| {
            let ago = units::age(newest.began_at, self.now);
            let restored = newest.restored_at.map(|at| format!(", restored on {}", at.format("%Y-%m-%d %H:%MZ")));
            format!("{} in {}, which began {ago} ago (intact{})", newest.set, newest.store, restored.unwrap_or_default())
        });
        let that_counts = if *restored { "that counts and was restored" } else { "that counts" };
        let mut said = match (self.is_met, newest) {
            (true, Some(newest)) => return format!("{newest}, is a backup of `{database}` {that_counts}, within {within}"),
            (_, Some(newest)) => {
                format!("no backup of `{database}` {that_counts} began within {within}; the newest is {newest}")
            }
            (_, None) => format!("there is no backup of `{database}` {that_counts}"),
        };
        if !self.passed_over.is_empty() {
            let named = self.passed_over.iter().take(NAMED);
            let named = named.map(|seen| {
                format!("{} in {} ({})", seen.set, seen.store, terminal::in_one_line(seen.why_not.as_deref().unwrap_or("")))
            });
            let more = self.passed_over.len().saturating_sub(NAMED);
            let more = if more > 0 { format!("; and {more} more") } else { String::new() };
            said += &format!("; these do not count: {}{more}", named.collect::<Vec<_>>().join("; "));
        }
        if let Some(ahead) = self.ahead {
            said +=
                &format!("; ages are by the clock of the database's server or of a store, which is {ahead} ahead of this host's");
        }
        said
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(minutes_ago: i64, why_not: Option<&str>) -> Seen {
        Seen {
            set: format!("app/nightly/{minutes_ago}"),
            store: "local".to_owned(),
            began_at: now() - TimeDelta::minutes(minutes_ago),
            restored_at: None,
            why_not: why_not.map(str::to_owned),
        }
    }

    fn now() -> DateTime<Utc> {
        "2026-11-29T12:00:00Z".parse().unwrap()
    }

    fn hour() -> Span {
        "1h".to_owned().try_into().unwrap()
    }

    fn question(restored: bool) -> Question<'static> {
        let filters = Filters::default();
        let whose = Whose::Own { by_name: false };
        Question { database: "app", job: None, filters, whose, within: hour(), restored, without_vector_indexes: Vec::new() }
    }

    #[test]
    fn only_a_set_that_counts_and_began_in_time_is_an_answer() {
        for (sets, expected) in [
            (vec![], false),
            (vec![seen(60, None)], true),
            (vec![seen(61, None)], false),
            (vec![seen(10, Some("damaged")), seen(50, None)], true),
            (vec![seen(70, None), seen(10, Some("damaged"))], false),
            // Its clock was ahead by less than clocks differ.
            (vec![seen(-4, None)], true),
        ] {
            let answer = decide(sets.clone(), hour(), now());
            assert_eq!(answer.is_met, expected, "{sets:?}");
        }
    }

    #[test]
    fn the_sentence_names_what_is_there_and_why_it_does_not_do() {
        let answer = decide(vec![seen(200, None), seen(10, Some("its bytes are damaged")), seen(300, None)], hour(), now());
        assert_eq!(
            answer.in_words(&question(false)),
            "no backup of `app` that counts began within 1h; the newest is app/nightly/200 in local, which began 3 h 20 min ago \
             (intact); these do not count: app/nightly/10 in local (its bytes are damaged)"
        );
        let none = decide((0..7).map(|number| seen(number, Some("no"))).collect(), hour(), now());
        let said = none.in_words(&question(true));
        assert!(said.starts_with("there is no backup of `app` that counts and was restored; these"), "{said}");
        assert!(said.ends_with("; and 2 more"), "{said}");
    }
}
