//! The time and the number of searches that the search for parameters may take.

use std::time::{Duration, Instant};

/// The time in builds of the index where the job sets none, but no less than the next constant.
const BUILDS: u32 = 3;
pub const MIN_SEARCH_TIME: Duration = Duration::from_secs(60);

/// What the search for parameters may take, and has taken.
pub struct Budget {
    pub started: Instant,
    pub given: Option<Duration>,
    /// True if both methods share the given time: half of it is for hnsw and half for lists.
    pub is_compared: bool,
    /// The time that hnsw took.
    pub graphs: Duration,
    pub copy: Duration,
    pub share: f64,
    /// The duration of the first build on the copy.
    pub first_build: Option<Duration>,
    pub searches: u64,
    pub max_searches: u64,
    /// Time spent resting for other sessions, between candidates.
    pub rested: Duration,
    /// The duration of the last candidate.
    pub last_candidate: Option<Duration>,
}

impl Budget {
    pub fn new(given: Option<Duration>, max_searches: u64, is_compared: bool) -> Self {
        Self {
            started: Instant::now(),
            given,
            is_compared,
            graphs: Duration::ZERO,
            copy: Duration::ZERO,
            share: 1.0,
            first_build: None,
            searches: 0,
            max_searches,
            rested: Duration::ZERO,
            last_candidate: None,
        }
    }

    /// Returns the time that the job sets, or else the time of a few builds of the index: they read the whole table, as the copy did. It is unknown
    /// until the first build is done.
    pub fn time(&self) -> Duration {
        let given = self.given.map(|time| if self.is_compared { time / 2 } else { time });
        given.unwrap_or_else(|| match self.first_build {
            Some(build) => (build.div_f64(self.share.max(1e-6)).max(self.copy) * BUILDS).max(MIN_SEARCH_TIME),
            None => Duration::from_secs(24 * 3600),
        })
    }

    /// Returns the time of both methods.
    pub fn total(&self) -> Duration {
        let graphs = match (self.is_compared, self.given) {
            (true, Some(given)) => given / 2,
            (true, None) => self.graphs,
            (false, _) => Duration::ZERO,
        };
        self.time() + graphs
    }

    pub fn deadline(&self) -> Instant {
        self.started + self.time() + self.rested + self.graphs
    }
}
