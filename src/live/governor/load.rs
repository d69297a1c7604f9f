//! Decides how much a run may demand beside others; it is pure. Probes (small commits of our own) and the share of waiting
//! sessions show what others experience.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

/// Where a commit takes a millisecond, twice that goes unnoticed.
const SLACK_MS: f64 = 5.0;
/// Fewer probes than these prove nothing.
const MIN_PROBES: usize = 5;
/// The share of other sessions that may wait for WAL or a lock, beyond the share that waits without the run.
const MORE_WAITING: f64 = 0.25;
/// Below this part of what is allowed, the run may go faster again.
const WELL_WITHIN: f64 = 0.7;
const HARDLY_NOTICED: f64 = 0.4;

const SMALLEST_BATCH: Duration = Duration::from_micros(1250);
/// The longest rest after a batch that took longer than intended: a run makes at least four of them a second.
const LONGEST_REST: Duration = Duration::from_millis(250);

/// How long commits took, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    pub median: f64,
    pub p90: f64,
}

impl Spread {
    pub fn of(milliseconds: &[f64]) -> Option<Self> {
        if milliseconds.len() < MIN_PROBES {
            return None;
        }
        let mut sorted = milliseconds.to_vec();
        sorted.sort_by(f64::total_cmp);
        let at = |share: f64| sorted[((sorted.len() as f64 * share).ceil() as usize).clamp(1, sorted.len()) - 1];
        Some(Self { median: at(0.5), p90: at(0.9) })
    }
}

/// The observations of other sessions during some seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Window {
    /// `None` when there were too few probes, or none may be made.
    pub commits: Option<Spread>,
    /// The share of their active, or just active, sessions that wait for WAL or for a lock.
    pub waiting: f64,
    /// True when another session was active.
    pub others: bool,
}

/// How hard the run works.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Throttle {
    /// The factor for the time that a batch may take.
    pub batch: f64,
    /// The rest after a batch, as a multiple of its time.
    pub rest: f64,
}

impl Throttle {
    pub const FULL: Self = Self { batch: 1.0, rest: 0.25 };
    /// The start, when others are active and nothing is known yet. A batch's commit is part of its time, and no session waits
    /// longer for it than that: of the consequences of a wrong guess, a slow start is the lesser harm.
    pub const START: Self = Self { batch: 1.0 / 8.0, rest: 1.0 };
    /// Batches of a millisecond and less are mostly round trips; with this rest, a run works 3 % of the time.
    const SLOWEST: Self = Self { batch: 1.0 / 16.0, rest: 32.0 };

    /// Makes batches smaller first, so that a single commit of others waits less; then rests longer, so that fewer of them wait.
    fn slower(self, over: f64) -> Self {
        let by = if over > 4.0 { 4.0 } else { 2.0 };
        if self.batch > Self::SLOWEST.batch {
            return Self { batch: (self.batch / by).max(Self::SLOWEST.batch), ..self };
        }
        Self { rest: (self.rest.max(0.5) * by).min(Self::SLOWEST.rest), ..self }
    }

    /// Speeds up in smaller steps than it slowed down, unless others hardly notice the run.
    fn faster(self, part: f64) -> Self {
        let (shorter, larger) = if part < HARDLY_NOTICED { (2.0, 2.0) } else { (1.5, 1.25) };
        if self.rest > Self::FULL.rest {
            return Self { rest: (self.rest / shorter).max(Self::FULL.rest), ..self };
        }
        Self { batch: (self.batch * larger).min(1.0), ..self }
    }

    /// Returns the part of a batch's intended time that it may take. Below a millisecond it would be all round trips.
    pub fn of(self, batch_time: Duration) -> Duration {
        batch_time.mul_f64(self.batch).max(SMALLEST_BATCH.min(batch_time))
    }

    /// Returns the rest after a batch. A batch that took longer than intended (it waited for a processor, not for its own work)
    /// is no reason to stop: on a machine whose processors were all busy, batches of one block took 20 ms and more, and with
    /// rests of 32 times that a run would make two of them a second.
    pub fn rest_after(self, batch: Duration, target: Duration) -> Duration {
        batch.mul_f64(self.rest).min(target.mul_f64(self.rest).max(LONGEST_REST))
    }

    pub fn slower_of(self, other: Self) -> Self {
        Self { batch: self.batch.min(other.batch), rest: self.rest.max(other.rest) }
    }
}

/// How a long piece of work is done in steps, so that other sessions' commits get in between.
#[derive(Clone, Copy, Debug)]
pub struct Steps {
    throttle: Throttle,
    /// The time that a step may take.
    target: Duration,
}

impl Steps {
    pub fn new(throttle: Throttle, batch_time: Duration) -> Self {
        Self { throttle, target: throttle.of(batch_time) }
    }

    /// Returns the size of a step; `enough` is the size below which steps take hardly less time.
    pub fn size(self, enough: u64) -> u64 {
        let factor = self.throttle.batch / Throttle::START.batch;
        ((enough as f64 * factor) as u64).max(enough)
    }

    pub fn rest_after(self, step: Duration) -> Duration {
        self.throttle.rest_after(step, self.target)
    }
}

/// The reason for the present speed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Verdict {
    /// No other session is active.
    Alone,
    /// There is nothing to compare with.
    Unknown,
    /// The load is within the limit, and uses this part of it.
    Within(f64),
    /// The load is this many times the limit.
    Over(f64),
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Alone => f.write_str("no other session is active"),
            Self::Unknown => f.write_str("unknown how long commits of others take"),
            Self::Within(part) => write!(f, "commits take {:.0} % of the allowed time", part * 100.0),
            Self::Over(times) => write!(f, "commits take {times:.1} times the allowed time"),
        }
    }
}

/// Decides from a window of work, compared with the rests, how hard to work next.
pub fn decide(now: Throttle, window: &Window, idle: Option<&Window>, max_slowdown: f64) -> (Throttle, Verdict) {
    if !window.others {
        return (Throttle::FULL, Verdict::Alone);
    }
    let Some(idle) = idle else { return (now, Verdict::Unknown) };
    let may = |idle: f64| (idle * max_slowdown).max(idle + SLACK_MS);
    let of_commits =
        window.commits.zip(idle.commits).map(|(seen, idle)| (seen.median / may(idle.median)).max(seen.p90 / may(idle.p90)));
    let of_waiting = window.waiting / (idle.waiting + MORE_WAITING);
    // If no probe may be made, only the waiting sessions count.
    let part = of_commits.unwrap_or(0.0).max(of_waiting);
    if part > 1.0 {
        (now.slower(part), Verdict::Over(part))
    } else if part < WELL_WITHIN {
        (now.faster(part), Verdict::Within(part))
    } else {
        (now, Verdict::Within(part))
    }
}

/// Writes "41 % after 2 h; about 3 more runs of 2 h at this pace". Returns `None` when the progress allows no estimate.
pub fn pace_in_words(from: f64, share: f64, elapsed: Duration, run_for: Option<Duration>) -> Option<String> {
    let done = share - from;
    if !(0.0..1.0).contains(&share) || done <= 0.0 || elapsed.is_zero() {
        return None;
    }
    let left = elapsed.mul_f64(((1.0 - share) / done).min(1e6));
    let end = match run_for {
        Some(run_for) if left > run_for && !run_for.is_zero() => {
            let runs = (left.as_secs_f64() / run_for.as_secs_f64()).ceil() as u64;
            format!("about {runs} more runs of {}", roughly(run_for))
        }
        _ => format!("about {} more", roughly(left)),
    };
    Some(format!("{:.0} % after {}; {end} at this pace", share * 100.0, roughly(elapsed)))
}

/// Returns the span in its largest unit, which is enough for planning nights.
fn roughly(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    let hours = (seconds / 360.0).round() / 10.0;
    match seconds {
        ..60.0 => format!("{seconds:.0} s"),
        ..3600.0 => format!("{:.0} min", seconds / 60.0),
        // "1.5 h", "2 h"
        ..172_800.0 => format!("{hours} h"),
        _ => format!("{:.0} d", seconds / 86_400.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(median: f64, p90: f64, waiting: f64) -> Window {
        Window { commits: Some(Spread { median, p90 }), waiting, others: true }
    }

    #[test]
    fn a_run_goes_slower_above_what_is_allowed_and_faster_well_within() {
        let full = Throttle::FULL;
        let small = Throttle { batch: 1.0 / 16.0, rest: 0.25 };
        let slow = Throttle { batch: 1.0 / 16.0, rest: 8.0 };
        let idle = window(10.0, 20.0, 0.1);
        for (what, now, seen, expected) in [
            ("well within", full, window(11.0, 22.0, 0.1), full),
            ("the median is over twice", full, window(21.0, 22.0, 0.1), Throttle { batch: 0.5, ..full }),
            ("the p90 is over twice", full, window(11.0, 41.0, 0.1), Throttle { batch: 0.5, ..full }),
            ("far over", full, window(11.0, 400.0, 0.1), Throttle { batch: 0.25, ..full }),
            ("near what is allowed", Throttle { batch: 0.5, ..full }, window(16.0, 22.0, 0.1), Throttle { batch: 0.5, ..full }),
            ("no smaller batches", small, window(30.0, 30.0, 0.1), Throttle { rest: 1.0, ..small }),
            ("longer rests", slow, window(30.0, 30.0, 0.1), Throttle { rest: 16.0, ..slow }),
            ("the longest", Throttle { rest: 32.0, ..slow }, window(900.0, 900.0, 0.1), Throttle { rest: 32.0, ..slow }),
            ("shorter rests first", Throttle { rest: 6.0, ..slow }, window(10.0, 20.0, 0.1), Throttle { rest: 4.0, ..slow }),
            ("then larger batches", small, window(10.0, 20.0, 0.1), Throttle { batch: 1.25 / 16.0, ..small }),
            ("others hardly notice", small, window(4.0, 8.0, 0.1), Throttle { batch: 0.125, ..small }),
            ("others wait for WAL or locks", full, window(10.0, 20.0, 0.6), Throttle { batch: 0.5, ..full }),
        ] {
            assert_eq!(decide(now, &seen, Some(&idle), 2.0).0, expected, "{what}");
        }
    }

    #[test]
    fn fast_commits_may_take_five_milliseconds_more() {
        let idle = window(0.5, 1.0, 0.0);
        assert_eq!(decide(Throttle::FULL, &window(3.0, 5.9, 0.0), Some(&idle), 2.0).0, Throttle::FULL);
        assert!(matches!(decide(Throttle::FULL, &window(3.0, 6.5, 0.0), Some(&idle), 2.0).1, Verdict::Over(_)));
    }

    #[test]
    fn alone_it_goes_at_full_speed_and_without_knowledge_as_before() {
        let slow = Throttle { batch: 0.25, rest: 4.0 };
        let idle = window(1.0, 2.0, 0.0);
        let alone = Window { others: false, ..window(100.0, 100.0, 1.0) };
        assert_eq!(decide(slow, &alone, Some(&idle), 2.0), (Throttle::FULL, Verdict::Alone));
        assert_eq!(decide(slow, &window(100.0, 100.0, 0.0), None, 2.0), (slow, Verdict::Unknown));
        // No probes: what waits is seen all the same.
        let blind = Window { commits: None, waiting: 0.9, others: true };
        assert!(matches!(decide(slow, &blind, Some(&Window { commits: None, ..idle }), 2.0).1, Verdict::Over(_)));
    }

    #[test]
    fn however_it_starts_it_comes_back_to_full_speed_when_others_are_well() {
        let idle = window(5.0, 9.0, 0.0);
        let mut now = Throttle::SLOWEST;
        for _ in 0..40 {
            now = decide(now, &idle, Some(&idle), 2.0).0;
        }
        assert_eq!(now, Throttle::FULL);
    }

    #[test]
    fn at_its_slowest_a_run_goes_on_by_some_batches_a_second() {
        let ms = Duration::from_millis;
        let least = Throttle::SLOWEST;
        for (what, took, target, expected) in [
            ("as meant", Duration::from_micros(1250), Duration::from_micros(1250), ms(40)),
            ("it waited for a processor", ms(20), Duration::from_micros(1250), ms(250)),
            ("a little longer than meant", ms(2), Duration::from_micros(1250), ms(64)),
            ("an archive's, which is an upload", ms(300), ms(312), ms(9600)),
        ] {
            assert_eq!(least.rest_after(took, target), expected, "{what}");
        }
        assert_eq!(least.of(ms(20)), Duration::from_micros(1250));
        assert_eq!(least.of(ms(3)), Duration::from_micros(1250), "not a round trip's part");
        assert_eq!(Throttle::FULL.of(Duration::from_micros(500)), Duration::from_micros(500), "what was asked for");
    }

    #[test]
    fn a_spread_needs_some_probes() {
        assert_eq!(Spread::of(&[1.0, 2.0, 3.0, 4.0]), None);
        assert_eq!(Spread::of(&[5.0, 1.0, 4.0, 2.0, 3.0]), Some(Spread { median: 3.0, p90: 5.0 }));
        let ten: Vec<f64> = (1..=10).map(f64::from).collect();
        assert_eq!(Spread::of(&ten), Some(Spread { median: 5.0, p90: 9.0 }));
    }

    #[test]
    fn the_end_is_told_by_the_pace_so_far() {
        let hours = |hours: u64| Duration::from_secs(hours * 3600);
        let words = |from, share, elapsed, run_for| pace_in_words(from, share, elapsed, run_for).unwrap_or_default();
        assert_eq!(words(0.0, 0.41, hours(2), Some(hours(2))), "41 % after 2 h; about 2 more runs of 2 h at this pace");
        assert_eq!(words(0.4, 0.5, hours(1), Some(hours(2))), "50 % after 1 h; about 3 more runs of 2 h at this pace");
        assert_eq!(words(0.0, 0.5, hours(1), None), "50 % after 1 h; about 1 h more at this pace");
        assert_eq!(pace_in_words(0.3, 0.3, hours(1), None), None, "nothing is known yet");
        assert_eq!(pace_in_words(0.0, 1.0, hours(1), None), None, "it is through");
    }
}
