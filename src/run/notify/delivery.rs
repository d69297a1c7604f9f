//! Sends what waits, in the ledger or in this process, and keeps account of it: what did not arrive, when it is tried again, and what is given up.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use chrono::{TimeDelta, Utc};
use futures_util::future::join_all;
use tokio_util::sync::CancellationToken;

use super::event::Event;
use super::message::Message;
use super::request::{self, NotSent};
use super::service;
use super::together::of_events;
use crate::config::notify::{On, Target};
use crate::ledger::{GivenUp, Ledger, Waiting};

/// What comes together is one message: it is sent when nothing new has come for a while, or when the first has waited this long.
const PATIENCE: Duration = Duration::from_secs(60);
/// The ledger has this long for each question.
const LEDGER_TIMEOUT: Duration = Duration::from_secs(3);
/// The pause before the second try; it doubles for each further one, up to an hour.
const FIRST_PAUSE: Duration = Duration::from_secs(60);
const LONGEST_PAUSE: Duration = Duration::from_secs(3600);
/// A digest that arrives later than this says when it was made.
const DIGEST_FRESH: TimeDelta = TimeDelta::minutes(10);

pub struct Delivery {
    pub targets: Vec<Target>,
    pub client: reqwest::Client,
    pub ca_file: Option<PathBuf>,
    pub ledger: Option<Arc<Ledger>>,
    /// Cancelled when the process waits no longer: what is under way counts as not sent.
    pub giving_up: CancellationToken,
}

/// A message of a place: what it says, and the rows of the ledger that it is made of, each with the number of this attempt. Without rows, it waits in
/// this process alone.
pub struct Batch {
    pub target: String,
    pub events: Vec<Event>,
    pub rows: Vec<(i64, i32)>,
}

impl Batch {
    /// Returns the runs that it is about, of those whose number of attempts is meant.
    fn runs(&self, is_meant: impl Fn(i32) -> bool) -> Vec<i64> {
        let with_rows = self.events.iter().zip(&self.rows);
        with_rows.filter(|(_, (_, attempts))| is_meant(*attempts)).filter_map(|(event, _)| event.run).collect()
    }
}

impl Delivery {
    /// Sends what waits in the ledger and is due. New events wait until none has come for `quiet`.
    pub async fn deliver(&self, quiet: Duration) {
        let Some(ledger) = &self.ledger else { return };
        let names: Vec<&str> = self.targets.iter().map(|target| target.name.as_str()).collect();
        for given_up in asked(ledger.give_up_messages(&names)).await.unwrap_or_default() {
            say_given_up(ledger, given_up).await;
        }
        let Some(taken) = asked(ledger.take_messages(&names, quiet, PATIENCE)).await else { return };
        join_all(batches(taken).iter().map(|batch| self.send(batch))).await;
    }

    /// Sends a message, with a few tries. Returns why it has not arrived, if so.
    pub async fn send(&self, batch: &Batch) -> Option<String> {
        let target = self.targets.iter().find(|target| target.name == batch.target)?;
        let message = match batch.events.as_slice() {
            [event @ Event { digest: Some(digest), .. }] => dated(digest, event),
            events => of_events(events),
        };
        let ca_file = self.ca_file.as_deref();
        let sending = request::deliver(|| service::send(&self.client, ca_file, &target.service, &message, &batch.events));
        let sent = tokio::select! {
            sent = sending => sent,
            () = self.giving_up.cancelled() => {
                Err(NotSent { why: "no answer until the process ended".to_owned(), may_pass: true, not_before: None })
            }
        };
        match sent {
            Ok(answer) => {
                tracing::debug!("message to `{}`: {answer}", target.name);
                self.arrived(batch).await;
                None
            }
            Err(not_sent) => {
                self.failed(batch, &not_sent).await;
                Some(not_sent.why)
            }
        }
    }

    async fn arrived(&self, batch: &Batch) {
        let Some(ledger) = self.ledger.as_ref().filter(|_| !batch.rows.is_empty()) else { return };
        let ids: Vec<i64> = batch.rows.iter().map(|(id, _)| *id).collect();
        asked(ledger.messages_sent(&ids)).await;
        let warned = batch.runs(|attempts| attempts > 1);
        if !warned.is_empty() {
            asked(ledger.set_warning(&warned, &beginning(&batch.target), None)).await;
        }
    }

    /// Says that a message has not arrived: in the log, in the ledger, and as a warning of the runs that it is about.
    async fn failed(&self, batch: &Batch, not_sent: &NotSent) {
        let warning = format!("{}not delivered: {}", beginning(&batch.target), not_sent.why);
        let Some(ledger) = self.ledger.as_ref().filter(|_| !batch.rows.is_empty()) else {
            return tracing::warn!("{warning}");
        };
        tracing::warn!("{warning}; it waits in the ledger for the next try");
        let asked_for = not_sent.not_before.unwrap_or_default();
        let pause = |attempts: i32| pause_after(attempts).max(asked_for).as_secs_f64();
        let pauses: Vec<(i64, f64)> = batch.rows.iter().map(|(id, attempts)| (*id, pause(*attempts))).collect();
        asked(ledger.messages_failed(&pauses, &not_sent.why)).await;
        let runs = batch.runs(|attempts| attempts <= 1);
        if !runs.is_empty() {
            asked(ledger.set_warning(&runs, &beginning(&batch.target), Some(&warning))).await;
        }
    }
}

/// How the warnings about messages to a place begin: a run has one for each place.
fn beginning(target: &str) -> String {
    format!("the message to `{target}` was ")
}

async fn say_given_up(ledger: &Ledger, given_up: GivenUp) {
    let GivenUp { target, event, attempts, error } = given_up;
    let event: Event = serde_json::from_value(event.0).unwrap_or_default();
    let why = error.unwrap_or_else(|| format!("the configuration has no [notify.{target}]"));
    let warning = format!("{}given up after {attempts} tries: {why}", beginning(&target));
    let what = event.digest.as_ref().map_or_else(|| event.in_words(), |digest| digest.title.clone());
    tracing::error!("{warning}; it said: {what}");
    if let Some(run) = event.run {
        asked(ledger.set_warning(&[run], &beginning(&target), Some(&warning))).await;
    }
}

/// A digest that comes late would read as that of now.
fn dated(digest: &Message, event: &Event) -> Message {
    let mut dated = digest.clone();
    if let Some(at) = event.finished_at.filter(|at| Utc::now() - at > DIGEST_FRESH) {
        dated.lines.insert(0, format!("as of {}, and delivered late", at.format("%Y-%m-%d %H:%M UTC")));
    }
    dated
}

/// Makes one batch for each place, and one for each digest.
fn batches(taken: Vec<Waiting>) -> Vec<Batch> {
    let mut batches: Vec<Batch> = Vec::new();
    for Waiting { id, target, event, attempts } in taken {
        // A row that another program wrote must not hold up the others.
        let event: Event = serde_json::from_value(event.0).unwrap_or_default();
        let is_digest = event.on() == On::Digest;
        let of_target = |batch: &&mut Batch| batch.target == target && batch.events.iter().all(|event| event.on() != On::Digest);
        match batches.iter_mut().find(of_target).filter(|_| !is_digest) {
            Some(batch) => {
                batch.events.push(event);
                batch.rows.push((id, attempts));
            }
            None => batches.push(Batch { target, events: vec![event], rows: vec![(id, attempts)] }),
        }
    }
    batches
}

fn pause_after(attempts: i32) -> Duration {
    let doublings = u32::try_from(attempts.saturating_sub(1)).unwrap_or_default().min(10);
    FIRST_PAUSE.saturating_mul(1 << doublings).min(LONGEST_PAUSE)
}

/// Waits a short time for the ledger: telling holds nobody up, and what fails here is only said.
pub async fn asked<T>(asking: impl Future<Output = Result<T>>) -> Option<T> {
    let answered = tokio::time::timeout(LEDGER_TIMEOUT, asking).await;
    let answered = answered.unwrap_or_else(|_| Err(anyhow::anyhow!("the ledger did not answer in time")));
    answered.inspect_err(|error| tracing::warn!("messages: {error:#}")).ok()
}

#[cfg(test)]
mod tests {
    use sqlx::types::Json;

    use super::*;
    use crate::ledger::report::Outcome;

    #[test]
    fn each_place_gets_one_message_and_each_digest_is_one() {
        let waiting = |id, target: &str, event: &Event| Waiting {
            id,
            target: target.to_owned(),
            event: Json(serde_json::to_value(event).unwrap()),
            attempts: 1,
        };
        let failed = Event { outcome: Some(Outcome::Failed), ..Event::default() };
        let digest = Event::of_digest(Message::default());
        let taken = vec![
            waiting(1, "ops", &failed),
            waiting(2, "dba", &failed),
            waiting(3, "ops", &digest),
            waiting(4, "ops", &failed),
            Waiting { event: Json(serde_json::json!(7)), ..waiting(5, "dba", &failed) },
        ];
        let ids = |batch: Batch| (batch.target, batch.rows.into_iter().map(|(id, _)| id).collect());
        let made: Vec<(String, Vec<i64>)> = batches(taken).into_iter().map(ids).collect();
        let expected = [("ops", vec![1, 4]), ("dba", vec![2, 5]), ("ops", vec![3])];
        assert_eq!(made, expected.map(|(target, ids)| (target.to_owned(), ids)));
    }

    #[test]
    fn pauses_double_up_to_an_hour() {
        let pauses = [0, 1, 2, 3, 7, 30, i32::MAX].map(|attempts| pause_after(attempts).as_secs());
        assert_eq!(pauses, [60, 60, 120, 240, 3600, 3600, 3600]);
    }

    #[test]
    fn a_digest_that_comes_late_says_of_when_it_is() {
        let digest = Message { lines: vec!["✅ app".to_owned()], ..Message::default() };
        let made_at = |at: &str| Event { finished_at: Some(at.parse().unwrap()), ..Event::default() };
        let late = dated(&digest, &made_at("2026-11-30T08:00:00Z"));
        assert_eq!(late.lines, ["as of 2026-11-30 08:00 UTC, and delivered late", "✅ app"]);
        assert_eq!(dated(&digest, &Event::of_digest(digest.clone())), digest);
    }
}
