//! Whether a database has a backup that is recent enough: for deployments, which must not begin without one, and for runs that are not needed then.
//! Only what the stores hold answers, and a doubt is never a yes.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result};
use chrono::{DateTime, TimeDelta, Utc};
use futures_util::future::join_all;
use serde::Serialize;

use super::copies::several::ensure_answers;
use super::copies::together::Together;
use super::keys::{Backup, Verify};
use super::manifest::Filters;
use super::often::Often;
use super::restore_check::{CLOCKS_DIFFER, RestoreCheck, last_failed};
use super::series::Series;
use super::set::{self, Listing, Set};
use super::set_name::SetName;
use super::verdict::Bytes;
use super::whose::{Theirs, Whose};
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
    /// The last restore of it, where that failed for something else than its data.
    #[serde(skip)]
    pub failed: Option<String>,
    /// It was a set, and cannot be read: nobody knows what it was worth.
    #[serde(skip)]
    pub is_unreadable: bool,
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
    Looked::at(config, stores, question).await?.answer(question, None)
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
    let mut looked = Looked::at(config, &stores, &question).await?;
    let answer = looked.answer(&question, None)?;
    if !answer.is_met || stores.len() == 1 {
        return Ok(answer);
    }
    // One of them was restored; a copy that is encrypted for others need not have been.
    let question = Question { restored: false, ..question };
    for (store, _) in &stores {
        let of_store = looked.answer(&question, Some(store))?;
        if !of_store.is_met {
            return Ok(of_store);
        }
    }
    Ok(answer)
}

/// What the stores hold, and what time it is.
struct Looked<'a> {
    host_clock: DateTime<Utc>,
    /// The latest of the clocks that were asked.
    now: DateTime<Utc>,
    theirs: Theirs,
    stores: Vec<(&'a str, Result<InStore>)>,
}

struct InStore {
    listing: Listing,
    /// By job.
    series: BTreeMap<String, Series>,
}

impl<'a> Looked<'a> {
    async fn at(config: &Config, stores: &'a [(String, Store)], question: &Question<'_>) -> Result<Self> {
        let host_clock = Utc::now();
        let theirs = Theirs::of(config, question.database, &question.whose).await?;
        let (are_several, mut looking) = (stores.len() > 1, Vec::new());
        for (name, store) in stores {
            let look = async move {
                if are_several {
                    ensure_answers(store).await?;
                }
                look(store, question).await
            };
            looking.push(async move { look.await.with_context(|| format!("store `{name}` cannot be read")) });
        }
        let names = stores.iter().map(|(name, _)| name.as_str());
        let stores: Vec<_> = names.zip(join_all(looking).await).collect();
        let of_server = match &theirs {
            Theirs::Own { server, .. } => server.clock,
            Theirs::Named { .. } => None,
        };
        let of_stores = stores.iter().filter_map(|(_, found)| found.as_ref().ok()?.listing.newest_object_at);
        let now = of_stores.chain(of_server).fold(host_clock, DateTime::max);
        Ok(Self { host_clock, now, theirs, stores })
    }

    /// Answers by the sets in one store, or in any. What other stores say of copies of a set holds for it, too.
    fn answer(&mut self, question: &Question<'_>, only: Option<&str>) -> Result<Answer> {
        let is_asked = |name: &str| only.is_none_or(|only| only == name);
        let mut seen = Vec::new();
        {
            let found = || self.stores.iter().filter_map(|(name, found)| Some((*name, found.as_ref().ok()?)));
            let together = Together::of(found().map(|(_, found)| &found.listing));
            let none = Series::default();
            for (name, InStore { listing, series }) in found().filter(|(name, _)| is_asked(name)) {
                let why_not = |set: &Set| {
                    let series = series.get(&set.name.job).unwrap_or(&none);
                    self.theirs.why_not(series, set).or_else(|| why_not(set, question, &together, self.host_clock))
                };
                seen.extend(seen_in(listing, name, &why_not, self.host_clock));
            }
        }
        let mut answer = decide(seen, question.within, self.now);
        let ahead = Some(self.now - self.host_clock).filter(|ahead| *ahead > CLOCKS_DIFFER);
        answer.ahead = ahead.map(|ahead| Span(Duration::from_secs(ahead.num_seconds().unsigned_abs())));
        if !answer.is_met
            && let Some(doubt) = self.stores.iter_mut().filter(|(name, _)| is_asked(name)).find_map(doubt)
        {
            return Err(doubt);
        }
        Ok(answer)
    }
}

/// The reason why a store may hold more than was seen.
fn doubt((name, found): &mut (&str, Result<InStore>)) -> Option<anyhow::Error> {
    match found {
        Ok(found) => Some(anyhow::anyhow!("store `{name}`: {}", found.listing.doubt()?)),
        Err(error) => Some(std::mem::replace(error, anyhow::anyhow!("store `{name}` cannot be read"))),
    }
}

async fn look(store: &Store, question: &Question<'_>) -> Result<InStore> {
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
    Ok(InStore { listing, series: all_series })
}

/// All sets of the listing, those that cannot be read included. Pure.
fn seen_in(listing: &Listing, store: &str, why_not: &dyn Fn(&Set) -> Option<String>, now: DateTime<Utc>) -> Vec<Seen> {
    let without_time = |name: &SetName, why_not: String| Seen {
        set: name.to_string(),
        store: store.to_owned(),
        began_at: name.taken_at,
        restored_at: None,
        why_not: Some(why_not),
        failed: None,
        is_unreadable: false,
    };
    let unreadable = listing
        .unreadable
        .iter()
        .map(|(name, why)| Seen { is_unreadable: true, ..without_time(name, format!("it cannot be read: {why}")) });
    let adopted =
        listing.adopted.iter().map(|set| without_time(&set.name, "it was adopted: nobody knows when it was dumped".to_owned()));
    let not_ours = listing.not_ours.iter().map(|(set, signature)| without_time(&set.name, signature.in_words().to_owned()));
    let sets = listing.sets.iter().map(|set| Seen {
        set: set.name.to_string(),
        store: store.to_owned(),
        began_at: set.manifest.started_at,
        restored_at: set.verification.without_dated_ahead(now).restored_at(),
        why_not: why_not(set),
        failed: last_failed(&set.verification.restores).map(failed_in_words),
        is_unreadable: false,
    });
    sets.chain(adopted).chain(unreadable).chain(not_ours).collect()
}

fn failed_in_words(check: &RestoreCheck) -> String {
    let at = check.checked_at.format("%Y-%m-%d %H:%MZ");
    let why = check.refusal.as_deref().and_then(|refusal| refusal.lines().next()).unwrap_or_default();
    format!("; the last restore of it failed, by {} on {at}: {why}", check.server)
}

/// Says why a set of the right server does not count; nothing of one that does. Pure.
fn why_not(set: &Set, question: &Question<'_>, together: &Together<'_>, now: DateTime<Utc>) -> Option<String> {
    let name = &set.name;
    if set.is_from_the_future(now) {
        return Some("it is dated in the future: a clock was wrong when it was made, or is now".to_owned());
    }
    if let Some(written_at) = together.written_before_it_began(set) {
        return Some(written_too_early(set, written_at));
    }
    let (filters, verification) = (&set.manifest.filters, set.verification.without_dated_ahead(now));
    let refused = together.refused_for_its_data(set, now).map(|check| {
        let (server, at) = (&check.server, check.checked_at.format("%Y-%m-%d %H:%MZ"));
        let copy = check.copy_in.as_ref().map(|store| format!(" as the copy in {store}")).unwrap_or_default();
        format!("{server} refused it{copy} when it was last restored, on {at}: {}", check.refusal.as_deref().unwrap_or_default())
    });
    let problem = refused.or_else(|| set.listed.globals_problem.clone());
    let restore = |why: &str| format!("{why}: `pgtend backups verify {name} --restore-on DATABASE`");
    Some(match problem {
        _ if *filters != question.filters && question.filters.are_none() => {
            "it holds a part of the database: its job has filters".to_owned()
        }
        _ if *filters != question.filters => "it was made with other filters than its job has now".to_owned(),
        _ if verification.verdict() == Bytes::Damaged => "its bytes are damaged".to_owned(),
        _ if verification.verdict() == Bytes::Unknown => {
            format!("nobody has read it back since it was made: `pgtend backups verify {name}`")
        }
        Some(problem) => problem,
        None if question.restored && !verification.was_restored() && set.verification.was_restored() => {
            restore("its restore is dated in the future: a clock was wrong when it was restored, or is now")
        }
        None if question.restored && !verification.was_restored() => restore("no server has restored it"),
        None if question.restored
            && !verification.was_restored_with_indexes()
            && !question.without_vector_indexes.contains(&name.job) =>
        {
            restore("it was restored without its vector indexes, and its job wants them")
        }
        None => return None,
    })
}

/// Of a set that began after its manifest was written.
fn written_too_early(set: &Set, written_at: DateTime<Utc>) -> String {
    let began_at = set.name.taken_at.max(set.manifest.started_at);
    let second = |at: DateTime<Utc>| at.format("%Y-%m-%d %H:%M:%SZ");
    format!(
        "it is dated in the future by its store's clock: it began on {}, and its manifest was written on {}, {} before. Either the clock of the host          that made it was ahead then, or the store's is behind: correct it, and make another set",
        second(began_at),
        second(written_at),
        units::age(written_at, began_at)
    )
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
            let failed = newest.failed.as_deref().map(terminal::in_one_line).unwrap_or_default();
            format!("{} in {}, which began {ago} ago (intact{}{failed})", newest.set, newest.store, restored.unwrap_or_default())
        });
        let that_counts = if *restored { "that counts and was restored" } else { "that counts" };
        let mut said = match (self.is_met, newest) {
            (true, Some(newest)) => {
                return format!(
                    "{newest}, is a backup of `{database}` {that_counts}, within {within}{}",
                    self.unreadable_in_words()
                );
            }
            (_, Some(newest)) => {
                format!("no backup of `{database}` {that_counts} began within {within}; the newest is {newest}")
            }
            (_, None) => format!("there is no backup of `{database}` {that_counts}"),
        };
        if !self.passed_over.is_empty() {
            said += &format!("; these do not count: {}", named(self.passed_over.iter()));
        }
        if let Some(ahead) = self.ahead {
            said +=
                &format!("; ages are by the clock of the database's server or of a store, which is {ahead} ahead of this host's");
        }
        said
    }

    /// Newer sets that were lost: a person should know, also where an older one is new enough.
    fn unreadable_in_words(&self) -> String {
        let mut unreadable = self.passed_over.iter().filter(|seen| seen.is_unreadable).peekable();
        if unreadable.peek().is_none() { String::new() } else { format!("; newer ones are lost: {}", named(unreadable)) }
    }
}

/// The first of them, each with the reason.
fn named<'a>(sets: impl Iterator<Item = &'a Seen>) -> String {
    let mut named: Vec<String> = sets
        .map(|seen| format!("{} in {} ({})", seen.set, seen.store, terminal::in_one_line(seen.why_not.as_deref().unwrap_or(""))))
        .collect();
    let more = named.len().saturating_sub(NAMED);
    named.truncate(NAMED);
    let more = if more > 0 { format!("; and {more} more") } else { String::new() };
    named.join("; ") + &more
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
            failed: None,
            is_unreadable: false,
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
