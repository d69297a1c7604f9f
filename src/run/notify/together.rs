//! Makes one message of all events that wait for a place: pure.

use super::event::Event;
use super::message::{Message, Severity};
use crate::base::units;
use crate::config::notify::On;

/// So many events have a line; of the others, the number is told.
const LISTED: usize = 10;

/// Makes one message of events, of which there is at least one. What is worst comes first.
pub fn of_events(events: &[Event]) -> Message {
    let mut sorted: Vec<&Event> = events.iter().collect();
    sorted.sort_by_key(|event| (order(event.on()), event.run));
    let Some(first) = sorted.first() else { return Message::default() };
    let severity = sorted.iter().map(|event| severity(event.on())).max().unwrap_or_default();
    if let [only] = sorted.as_slice() {
        let run = only.run.map(|run| format!("pgtend runs show {run}, on {}", only.host));
        let said = Some(only.said.clone()).filter(|said| !said.is_empty());
        return Message::new(&only.title(), severity, said.into_iter().chain(run));
    }
    let counts = [On::Failure, On::Late, On::Recovery, On::Success].map(|on| {
        let of_it: Vec<&&Event> = sorted.iter().filter(|event| event.on() == on).collect();
        (!of_it.is_empty()).then(|| count_in_words(on, of_it.len()))
    });
    let title = counts.into_iter().flatten().collect::<Vec<_>>().join(", ");
    let more = sorted.len().saturating_sub(LISTED);
    let listed = sorted.iter().take(LISTED).map(|event| event.in_words());
    let rest = (more > 0).then(|| format!("… and {more} more: pgtend runs, on {}", first.host));
    Message::new(&title, severity, listed.chain(rest))
}

fn count_in_words(on: On, number: usize) -> String {
    match on {
        On::Failure => format!("{} failed", units::plural(number, "run")),
        On::Late => format!("{} late", units::plural(number, "job")),
        On::Recovery => format!("{} well again", units::plural(number, "job")),
        On::Success | On::Digest => format!("{} succeeded", units::plural(number, "run")),
    }
}

fn order(on: On) -> u8 {
    match on {
        On::Failure => 0,
        On::Late => 1,
        On::Recovery => 2,
        On::Success | On::Digest => 3,
    }
}

fn severity(on: On) -> Severity {
    match on {
        On::Failure => Severity::Bad,
        On::Late => Severity::Warning,
        On::Recovery | On::Success | On::Digest => Severity::Good,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::report::Outcome;

    fn failed(number: i64) -> Event {
        Event {
            job: format!("job{number}"),
            database: "app".to_owned(),
            outcome: Some(Outcome::Failed),
            said: "no connection".to_owned(),
            run: Some(number),
            host: "db1".to_owned(),
            ..Event::default()
        }
    }

    #[test]
    fn one_event_is_told_with_its_error_and_the_command_that_shows_more() {
        let message = of_events(&[failed(7)]);
        assert_eq!(message.title, "job7 on app failed");
        assert_eq!(message.severity, Severity::Bad);
        assert_eq!(message.lines, ["no connection", "pgtend runs show 7, on db1"]);
    }

    #[test]
    fn two_hundred_failures_are_one_short_message_that_counts_them() {
        let events: Vec<Event> = (1..=200).map(failed).collect();
        let message = of_events(&events);
        assert_eq!(message.title, "200 runs failed");
        assert_eq!(message.lines.len(), LISTED + 1);
        assert_eq!(message.lines[0], "job1 on app failed: no connection");
        assert_eq!(message.lines[LISTED], "… and 190 more: pgtend runs, on db1");
    }

    #[test]
    fn the_worst_comes_first() {
        let well = Event { outcome: Some(Outcome::Succeeded), is_recovery: true, said: "1 row".to_owned(), ..failed(1) };
        let late = Event { outcome: None, run: None, ..failed(2) };
        let success = Event { outcome: Some(Outcome::Succeeded), ..failed(3) };
        let message = of_events(&[success, well, late, failed(9)]);
        assert_eq!(message.title, "1 run failed, 1 job late, 1 job well again, 1 run succeeded");
        assert_eq!(message.severity, Severity::Bad);
        let first_words: Vec<&str> = message.lines.iter().map(|line| line.split(':').next().unwrap()).collect();
        assert_eq!(
            first_words,
            ["job9 on app failed", "job2 on app is late", "job1 on app is well again", "job3 on app succeeded"]
        );
    }

    #[test]
    fn no_line_is_long_or_breaks() {
        let event = Event { job: "a\nb".to_owned(), said: "x\r\ny\u{1b}[31m".repeat(500), ..failed(1) };
        let message = of_events(&[event]);
        for line in message.lines.iter().chain([&message.title]) {
            assert!(line.chars().count() <= 300 && !line.chars().any(char::is_control), "{line}");
        }
    }
}
