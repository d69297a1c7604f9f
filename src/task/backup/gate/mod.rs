//! Whether a database has a backup that is recent enough: for deployments, which must not begin without one, and for runs that are not needed then.
//! Only what the stores hold answers, and a doubt is never a yes.

mod answer;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use anyhow::{Context as _, Result};
use chrono::{DateTime, Utc};
use futures_util::future::join_all;

use super::copies::known::why_unknown;
use super::copies::several::{ensure_answers, within_time};
use super::copies::together::Together;
use super::keys::{Backup, Verify};
use super::often::Often;
use super::restore_check::{CLOCKS_DIFFER, last_failed};
use super::series::{SERIES, Series};
use super::set::{self, Listing, Set};
use super::set_name::SetName;
use super::verdict::Bytes;
use super::whose::{Another, Theirs, Whose};
use crate::base::shell;
use crate::base::units::{self, Span};
use crate::config::Config;
use crate::pg::failure;
use crate::store::{Listed, Store, key};

pub use answer::{Answer, InTheClear, Measured, NotAsked, Question, Seen};
use answer::{DAMAGED, IN_THE_FUTURE, decide};

/// All stores, each with its name, or with the reason why it could not be opened.
pub type Stores = Vec<(String, Result<Store>)>;

/// Looks into the stores. One set that counts is an answer, whatever cannot be read besides; without one, what cannot be read is an error.
pub async fn ask(config: &Config, stores: Stores, question: &Question<'_>) -> Result<Answer> {
    let host_clock = Utc::now();
    let theirs = Theirs::of(config, question.database, &question.whose).await?;
    Looked::at(theirs, host_clock, stores, question, Bounds::default()).await.answer(question)
}

/// Asks for a job whether it has made a set of this database within that time that is as proved as the run that would make another. Of several
/// stores, each must have one: a run would write to all of them.
pub async fn ask_for_job(config: &Config, backup: &Backup, job: &str, database: &str, within: Span) -> Result<Answer> {
    let names: Vec<String> = backup.stores().map(|kept| kept.store.clone()).collect();
    let mut stores = Stores::new();
    for name in &names {
        stores.push((name.clone(), Ok(Store::named(config, name).await?)));
    }
    let restored = backup.verify == Verify::Restore && backup.how_often.restore == Often::Always;
    let filters = backup.filters.clone();
    let whose = Whose::Own { by_name: false };
    let without_vector_indexes = if backup.vector_indexes { Vec::new() } else { vec![job.to_owned()] };
    let stores_of = BTreeMap::from([(job.to_owned(), names.clone())]);
    let mut question =
        Question { database, job: Some(job), store: None, stores_of, filters, whose, within, restored, without_vector_indexes };
    let host_clock = Utc::now();
    let theirs = Theirs::of(config, database, &question.whose).await?;
    let mut looked = Looked::at(theirs, host_clock, stores, &question, Bounds::default()).await;
    let answer = looked.answer(&question)?;
    if !answer.is_met || names.len() == 1 {
        return Ok(answer);
    }
    // One of them was restored; a copy that is encrypted for others need not have been.
    question.restored = false;
    for store in &names {
        question.store = Some(store);
        let of_store = looked.answer(&question)?;
        if !of_store.is_met {
            return Ok(of_store);
        }
    }
    Ok(answer)
}

/// How much is read, and for how long.
#[derive(Debug)]
pub struct Bounds {
    /// No store is waited for longer than this.
    pub patience: Option<Duration>,
    /// So many of the newest sets of each job are read.
    pub sets_of_a_job: usize,
    /// What stores, by their names, have just listed in the folder of the database. The others are asked for it.
    pub listed: HashMap<String, Listed>,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { patience: None, sets_of_a_job: usize::MAX, listed: HashMap::new() }
    }
}

/// What the stores hold, and what time it is.
pub struct Looked {
    host_clock: DateTime<Utc>,
    /// The latest of the clocks that were asked.
    now: DateTime<Utc>,
    pub theirs: Theirs,
    stores: Vec<(String, Result<InStore>)>,
}

struct InStore {
    store: Store,
    listing: Listing,
    /// By job.
    series: BTreeMap<String, Series>,
}

impl Looked {
    /// Reads all stores side by side. `host_clock`: when the database was asked.
    pub async fn at(
        theirs: Theirs,
        host_clock: DateTime<Utc>,
        stores: Stores,
        question: &Question<'_>,
        Bounds { patience, sets_of_a_job, mut listed }: Bounds,
    ) -> Self {
        let (are_several, mut looking) = (stores.len() > 1, Vec::new());
        for (name, store) in stores {
            let listed = listed.remove(&name);
            let look = async move {
                let store = store?;
                if are_several && listed.is_none() {
                    ensure_answers(&store).await?;
                }
                look(store, question, listed, sets_of_a_job).await
            };
            looking.push(async move {
                let found = match patience {
                    Some(patience) => within_time(patience, look).await,
                    None => look.await,
                };
                let found = found.with_context(|| format!("store `{name}` cannot be read"));
                (name, found)
            });
        }
        let stores = join_all(looking).await;
        let of_server = match &theirs {
            Theirs::Own { server, .. } => server.clock,
            Theirs::Named { .. } | Theirs::Unasked => None,
        };
        let of_stores = stores.iter().filter_map(|(_, found)| found.as_ref().ok()?.listing.newest_object_at);
        let now = of_stores.chain(of_server).fold(host_clock, DateTime::max);
        Self { host_clock, now, theirs, stores }
    }

    /// Answers by the sets in one store, or in any. Fails where there is none, and a store could not be read.
    fn answer(&mut self, question: &Question<'_>) -> Result<Answer> {
        let answer = self.as_read(question);
        let is_asked = |name: &str| question.store.is_none_or(|only| only == name);
        if !answer.is_met
            && let Some(doubt) = self.stores.iter_mut().filter(|(name, _)| is_asked(name)).find_map(doubt)
        {
            return Err(doubt);
        }
        Ok(answer)
    }

    /// Answers by the sets that could be read, and names the stores that could not. What other stores say of copies of a set holds for it, too.
    pub fn as_read(&self, question: &Question<'_>) -> Answer {
        let is_asked = |name: &str| question.store.is_none_or(|only| only == name);
        let mut seen = Vec::new();
        {
            let found = || self.stores.iter().filter_map(|(name, found)| Some((name.as_str(), found.as_ref().ok()?)));
            let together = Together::of(found().map(|(name, found)| (name, &found.listing)));
            let none = Series::default();
            for (name, InStore { listing, series, .. }) in found().filter(|(name, _)| is_asked(name)) {
                let why_not = |set: &Set| {
                    let series = series.get(&set.name.job).unwrap_or(&none);
                    let of_another = self.theirs.another(series, set);
                    self.theirs
                        .why_not(series, set)
                        .map(|said| WhyNot { of_another, ..said.into() })
                        .or_else(|| why_not((name, set), question, &together, self.host_clock))
                };
                seen.extend(seen_in(listing, name, &why_not, self.host_clock));
            }
        }
        let mut answer = decide(seen, question.within, self.now);
        answer.not_asked = answer.newest.as_ref().map(|newest| self.not_asked(newest, question)).unwrap_or_default();
        let ahead = Some(self.now - self.host_clock).filter(|ahead| *ahead > CLOCKS_DIFFER);
        answer.ahead = ahead.map(|ahead| Span(Duration::from_secs(ahead.num_seconds().unsigned_abs())));
        let unread = self.stores.iter().filter(|(name, _)| is_asked(name)).filter_map(|(name, found)| {
            let reason = match found {
                Ok(found) => format!("store `{name}`: {}", found.listing.doubt()?),
                Err(error) => failure::in_a_line(error),
            };
            Some(NotAsked { store: name.clone(), reason })
        });
        answer.unread = unread.collect();
        answer.in_the_clear = self.in_the_clear();
        answer
    }

    fn in_the_clear(&self) -> Vec<InTheClear> {
        let found = self.stores.iter().filter_map(|(name, found)| Some((name, found.as_ref().ok()?)));
        let sets = found.flat_map(|(store, found)| found.listing.sets.iter().map(move |set| (store, set)));
        let with_some = sets.filter(|(_, set)| !set.listed.in_the_clear.is_empty());
        let exposed = |(store, set): (&String, &Set)| InTheClear {
            store: store.clone(),
            set: set.name.to_string(),
            objects: set.listed.in_the_clear.clone(),
        };
        with_some.map(exposed).collect()
    }

    /// The stores of the set's job that may have a copy of it, and of which that is not known; where the job is not, all such stores.
    fn not_asked(&self, newest: &Seen, question: &Question<'_>) -> Vec<NotAsked> {
        let Ok(set) = newest.set.parse::<SetName>() else { return Vec::new() };
        let stores_of_job = question.stores_of.get(&set.job);
        let may_have_it = |name: &String| stores_of_job.is_none_or(|stores| stores.contains(name));
        let others = self.stores.iter().filter(|(name, _)| *name != newest.store && may_have_it(name));
        let not_asked = others.filter_map(|(name, found)| {
            let reason = match found {
                Ok(found) => why_unknown(&found.store, &found.listing, &set)?,
                Err(error) => failure::in_a_line(error),
            };
            Some(NotAsked { store: name.clone(), reason })
        });
        not_asked.collect()
    }
}

/// The reason why a store may hold more than was seen.
fn doubt((name, found): &mut (String, Result<InStore>)) -> Option<anyhow::Error> {
    match found {
        Ok(found) => Some(anyhow::anyhow!("store `{name}`: {}", found.listing.doubt()?)),
        Err(error) => Some(std::mem::replace(error, anyhow::anyhow!("store `{name}` cannot be read"))),
    }
}

async fn look(store: Store, question: &Question<'_>, listed: Option<Listed>, sets_of_a_job: usize) -> Result<InStore> {
    let listed = match (listed, question.job) {
        (Some(listed), _) => listed,
        (None, Some(job)) => store.list_readable(&key::folder(question.database, job)).await?,
        (None, None) => store.list_readable(&key::folder_of(question.database)).await?,
    };
    // What was not read may be one.
    let is_whole = listed.unread.is_empty();
    let files: BTreeSet<String> =
        listed.objects.iter().map(|object| &object.key).filter(|key| key.ends_with(SERIES)).cloned().collect();
    let has_series = |job: &str| !is_whole || files.contains(&Series::key(question.database, job));
    let listing = set::read_newest(&store, listed, sets_of_a_job).await;
    let mut all_series: BTreeMap<String, Series> = BTreeMap::new();
    for set in &listing.sets {
        let job = &set.name.job;
        if has_series(job) && !all_series.contains_key(job) {
            let (series, trouble) = Series::read(&store, question.database, job).await?;
            trouble.into_iter().for_each(|trouble| tracing::warn!("{trouble}"));
            all_series.insert(job.clone(), series);
        }
    }
    Ok(InStore { store, listing, series: all_series })
}

/// All sets of the listing, those that cannot be read included. Pure.
fn seen_in(listing: &Listing, store: &str, why_not: &dyn Fn(&Set) -> Option<WhyNot>, now: DateTime<Utc>) -> Vec<Seen> {
    let without_time = |name: &SetName, why_not: String| Seen {
        set: name.to_string(),
        store: store.to_owned(),
        began_at: name.taken_at,
        restored_at: None,
        why_not: Some(why_not),
        refused_by: None,
        is_unreadable: false,
        of_another: None,
        measured: None,
    };
    let unreadable = listing
        .unreadable
        .iter()
        .map(|(name, why)| Seen { is_unreadable: true, ..without_time(name, format!("it cannot be read: {why}")) });
    let adopted =
        listing.adopted.iter().map(|set| without_time(&set.name, "it was adopted: nobody knows when it was dumped".to_owned()));
    let not_ours = listing.not_ours.iter().map(|(set, signature)| without_time(&set.name, signature.in_words().to_owned()));
    let sets = listing.sets.iter().map(|set| {
        let why_not = why_not(set);
        let of_another = why_not.as_ref().and_then(|why_not| why_not.of_another.clone());
        let refused_by = match &why_not {
            Some(why_not) => why_not.refused_by.clone(),
            None => refused_last_by(set),
        };
        Seen {
            set: set.name.to_string(),
            store: store.to_owned(),
            began_at: set.manifest.started_at,
            restored_at: set.verification.without_dated_ahead(now).restored_at(),
            why_not: why_not.map(|why_not| why_not.said),
            refused_by,
            is_unreadable: false,
            of_another,
            measured: set.verification.restore_time(now),
        }
    });
    sets.chain(adopted).chain(unreadable).chain(not_ours).collect()
}

/// Says who refused the last restore of a set, when and why; nothing where that went well.
pub fn refused_last_by(set: &Set) -> Option<String> {
    let check = last_failed(&set.verification.restores)?;
    let at = check.checked_at.format("%Y-%m-%d %H:%MZ");
    let why = check.refusal.as_deref().and_then(|refusal| refusal.lines().next()).unwrap_or_default();
    Some(format!("{} on {at}: {why}", check.server))
}

/// The reason why a set does not count.
struct WhyNot {
    said: String,
    /// Who refused it for its data, when and why, where that is the reason.
    refused_by: Option<String>,
    of_another: Option<Another>,
}

impl From<String> for WhyNot {
    fn from(said: String) -> Self {
        Self { said, refused_by: None, of_another: None }
    }
}

/// Says why a set of the right server does not count; nothing of one that does. Pure.
fn why_not((store, set): (&str, &Set), question: &Question<'_>, together: &Together<'_>, now: DateTime<Utc>) -> Option<WhyNot> {
    let name = &set.name;
    if set.is_from_the_future(now) {
        return Some(IN_THE_FUTURE.to_owned().into());
    }
    if let Some(written_at) = together.written_before_it_began(set) {
        return Some(written_too_early(set, written_at).into());
    }
    let (filters, verification) = (&set.manifest.filters, set.verification.without_dated_ahead(now));
    let refused = together.refused_for_its_data(set, now).map(|refused| {
        let (check, copy) = (refused.check, refused.as_the_copy(store));
        let (server, at) = (&check.server, check.checked_at.format("%Y-%m-%d %H:%MZ"));
        let why = refused.words_beside(set);
        WhyNot {
            said: format!("{server} refused it{copy} when it was last restored, on {at}: {why}"),
            refused_by: Some(format!("{server}{copy} on {at}: {why}")),
            of_another: None,
        }
    });
    let problem = refused.or_else(|| set.listed.globals_problem.clone().map(WhyNot::from));
    let word = shell::word(&name.to_string());
    let restore = |why: &str| format!("{why}: `pgtend backups verify {word} --restore-on DATABASE`");
    let said = match problem {
        _ if *filters != question.filters && question.filters.are_none() => {
            "it holds a part of the database: its job has filters".to_owned()
        }
        _ if *filters != question.filters => "it was made with other filters than its job has now".to_owned(),
        _ if verification.verdict() == Bytes::Damaged => DAMAGED.to_owned(),
        _ if verification.verdict() == Bytes::Unknown => {
            format!("nobody has read it back since it was made: `pgtend backups verify {word}`")
        }
        Some(problem) => return Some(problem),
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
    };
    Some(said.into())
}

/// Of a set that began after its manifest was written.
fn written_too_early(set: &Set, written_at: DateTime<Utc>) -> String {
    let began_at = set.name.taken_at.max(set.manifest.started_at);
    let second = |at: DateTime<Utc>| at.format("%Y-%m-%d %H:%M:%SZ");
    format!(
        "it is dated in the future by its store's clock: it began on {}, and its manifest was written on {}, {} before. Either the clock of the host that \
         made it was ahead then, or the store's is behind: correct it, and make another set",
        second(began_at),
        second(written_at),
        units::age(written_at, began_at)
    )
}
