//! What is asked before a deployment, and the answer: which set counts, and in a sentence what does not. Pure.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use schemars::JsonSchema;
use serde::Serialize;

use crate::base::terminal;
use crate::base::units::{self, Span};
use crate::task::backup::manifest::Filters;
pub use crate::task::backup::restore_check::Measured;
use crate::task::backup::whose::{Another, Whose};

pub(super) const DAMAGED: &str = "its bytes are damaged";
pub(super) const IN_THE_FUTURE: &str = "it is dated in the future: a clock was wrong when it was made, or is now";

/// At most this many sets that do not count are named in a sentence.
const NAMED: usize = 5;

/// What is asked.
pub struct Question<'a> {
    /// The database's name in the configuration.
    pub database: &'a str,
    /// Only sets of this job; None: of every job.
    pub job: Option<&'a str>,
    /// Only sets in this store; None: in any. What other stores know of their copies counts all the same.
    pub store: Option<&'a str>,
    /// The stores of each job that is known.
    pub stores_of: BTreeMap<String, Vec<String>>,
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
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
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
    /// Who refused to restore it, when and why: for its data where it does not count for that, else the last restore, where that failed.
    #[serde(skip)]
    pub refused_by: Option<String>,
    /// It was a set, and cannot be read: nobody knows what it was worth.
    #[serde(skip)]
    pub is_unreadable: bool,
    /// The other database that it is of, where it is.
    #[serde(skip)]
    pub of_another: Option<Another>,
    /// How long its last restore took.
    #[serde(skip)]
    pub measured: Option<Measured>,
}

/// A store that may know more of a set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct NotAsked {
    pub store: String,
    pub reason: String,
}

/// Objects that are not encrypted, beside a set that is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InTheClear {
    pub store: String,
    pub set: String,
    pub objects: Vec<&'static str>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    pub is_met: bool,
    /// The newest set that counts, whenever it began.
    pub newest: Option<Seen>,
    /// The stores with a copy of it that counts.
    pub stores_of_newest: Vec<String>,
    /// The last restore of any set that counts.
    pub measured: Option<Measured>,
    /// Newer sets, which do not count; the newest first.
    pub passed_over: Vec<Seen>,
    /// The stores that may have another copy of the set that counts, and could not be asked what that was refused for.
    pub not_asked: Vec<NotAsked>,
    /// The stores that could not be read, or not all of them: they may have a newer set.
    pub unread: Vec<NotAsked>,
    /// What stands in the clear beside encrypted sets.
    pub in_the_clear: Vec<InTheClear>,
    /// The latest of the clocks that were asked: a clock that is behind makes no set younger.
    pub now: DateTime<Utc>,
    /// How far that is ahead of this host's clock, if by more than clocks differ.
    pub ahead: Option<Span>,
}

/// Pure.
pub(super) fn decide(mut seen: Vec<Seen>, within: Span, now: DateTime<Utc>) -> Answer {
    seen.sort_by(|a, b| (b.began_at, &b.set).cmp(&(a.began_at, &a.set)));
    let at = seen.iter().position(|seen| seen.why_not.is_none());
    let newest = at.map(|at| seen[at].clone());
    let counting = || seen.iter().filter(|seen| seen.why_not.is_none());
    let copies = counting().filter(|seen| newest.as_ref().is_some_and(|newest| newest.set == seen.set));
    let stores_of_newest = copies.map(|seen| seen.store.clone()).collect();
    let measured = counting().filter_map(|seen| seen.measured).max_by_key(|measured| measured.at);
    seen.truncate(at.unwrap_or(seen.len()));
    let within = TimeDelta::from_std(within.0).unwrap_or(TimeDelta::MAX);
    let is_met = newest.as_ref().is_some_and(|newest| now - newest.began_at <= within);
    Answer {
        is_met,
        newest,
        stores_of_newest,
        measured,
        passed_over: seen,
        not_asked: Vec::new(),
        unread: Vec::new(),
        in_the_clear: Vec::new(),
        now,
        ahead: None,
    }
}

impl Seen {
    /// Returns whether it does not count because something is wrong with it or with a clock: a person should know.
    pub fn is_lost(&self) -> bool {
        self.is_unreadable
            || self.refused_by.is_some()
            || self.why_not.as_deref().is_some_and(|why| [DAMAGED, IN_THE_FUTURE].contains(&why))
    }
}

impl Answer {
    /// Says what there is.
    pub fn in_words(&self, question: &Question<'_>) -> String {
        let Question { database, within, restored, .. } = question;
        let newest = self.newest.as_ref().map(|newest| {
            let ago = units::age(newest.began_at, self.now);
            let restored = newest.restored_at.map(|at| format!(", restored on {}", at.format("%Y-%m-%d %H:%MZ")));
            let failed = newest.refused_by.as_deref().map(terminal::in_one_line);
            let failed = failed.map(|by| format!("; the last restore of it failed, by {by}")).unwrap_or_default();
            format!("{} in {}, which began {ago} ago (intact{}{failed})", newest.set, newest.store, restored.unwrap_or_default())
        });
        let that_counts = if *restored { "that counts and was restored" } else { "that counts" };
        let mut said = match (self.is_met, newest) {
            (true, Some(newest)) => {
                return format!(
                    "{newest}, is a backup of `{database}` {that_counts}, within {within}{}{}",
                    self.unreadable_in_words(),
                    self.not_asked_in_words()
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

    fn not_asked_in_words(&self) -> String {
        let said = self.not_asked.iter().map(|NotAsked { store, reason }| {
            let reason = terminal::in_one_line(reason);
            format!("; whether a copy of it in {store} was refused for its data is not known: {reason}")
        });
        said.collect()
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
            refused_by: None,
            is_unreadable: false,
            of_another: None,
            measured: None,
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
        let (stores_of, without_vector_indexes) = (BTreeMap::new(), Vec::new());
        Question {
            database: "app",
            job: None,
            store: None,
            stores_of,
            filters,
            whose,
            within: hour(),
            restored,
            without_vector_indexes,
        }
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
    fn the_copies_of_the_newest_that_count_are_named_with_the_last_measured_restore() {
        let copy = |store: &str, minutes_ago, why_not| Seen { store: store.to_owned(), ..seen(minutes_ago, why_not) };
        let measured = |seconds, minutes_ago| Some(Measured { seconds, at: now() - TimeDelta::minutes(minutes_ago) });
        let older = Seen { measured: measured(60.0, 90), ..copy("local", 100, None) };
        let damaged = Seen { measured: measured(1.0, 5), ..copy("third", 10, Some("its bytes are damaged")) };
        let answer = decide(vec![copy("local", 10, None), damaged, older, copy("offsite", 10, None)], hour(), now());
        assert_eq!(answer.stores_of_newest, ["local", "offsite"]);
        assert_eq!(answer.measured, measured(60.0, 90));
    }

    #[test]
    fn the_sentence_names_what_is_there_and_why_it_does_not_do() {
        let answer = decide(vec![seen(200, None), seen(10, Some("its bytes are damaged")), seen(300, None)], hour(), now());
        assert_eq!(
            answer.in_words(&question(false)),
            "no backup of `app` that counts began within 1h; the newest is app/nightly/200 in local, which began 3 h 20 min ago \
             (intact); these do not count: app/nightly/10 in local (its bytes are damaged)"
        );
        let mut met = decide(vec![seen(10, None)], hour(), now());
        met.not_asked = vec![NotAsked { store: "two".to_owned(), reason: "no\nfolder".to_owned() }];
        let said = met.in_words(&question(false));
        let not_asked = "within 1h; whether a copy of it in two was refused for its data is not known: no";
        assert!(said.contains(not_asked) && !said.contains('\n'), "{said}");
        let none = decide((0..7).map(|number| seen(number, Some("no"))).collect(), hour(), now());
        let said = none.in_words(&question(true));
        assert!(said.starts_with("there is no backup of `app` that counts and was restored; these"), "{said}");
        assert!(said.ends_with("; and 2 more"), "{said}");
    }
}
