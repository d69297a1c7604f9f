//! Probes beside the run: they measure how long a commit takes on its server, and how many other sessions wait.
//!
//! A probe is a message in the WAL that no one reads: it needs no table, 96 bytes and one transaction number. There is one every
//! half second, only while a run works and others are active (tested: p99 of such probes does not follow an application's, but
//! median and p90 of 5 s do).

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Result;
use sqlx::{Executor as _, PgConnection};
use tokio::task::JoinHandle;

use super::load::{Spread, Window};
use crate::base::subtask;
use crate::pg;

const EVERY: Duration = Duration::from_millis(500);
/// The interval during a rest, which is short.
const EVERY_IN_REST: Duration = Duration::from_millis(100);
/// The disk still works on the last batch for this long.
const SETTLES_IN: Duration = Duration::from_millis(200);
/// Other sessions that were active within this time count as active.
const ACTIVE_FOR: Duration = Duration::from_secs(5);
/// This many rests are evaluated together: one alone has too few probes for a p90.
const RESTS_KEPT: usize = 3;

const PROBE: &str = "SELECT pg_logical_emit_message(true, 'pgtend', '')";

/// Dropping it stops the probes.
pub struct Prober {
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

impl Drop for Prober {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[derive(Default)]
struct Shared(Mutex<State>);

#[derive(Default)]
struct State {
    resting_since: Option<Instant>,
    work: Samples,
    rest: Samples,
    rests: Vec<Samples>,
    count: u64,
    why_not: Option<String>,
}

/// The samples: milliseconds of probes, and for each look how many other sessions were active and how many of them waited.
#[derive(Clone, Debug, Default)]
struct Samples {
    probes: Vec<f64>,
    active: i64,
    waiting: i64,
}

impl Samples {
    fn window<'a>(samples: impl IntoIterator<Item = &'a Self>) -> Window {
        let (mut probes, mut active, mut waiting) = (Vec::new(), 0, 0);
        for some in samples {
            probes.extend_from_slice(&some.probes);
            active += some.active;
            waiting += some.waiting;
        }
        let share = if active > 0 { waiting as f64 / active as f64 } else { 0.0 };
        Window { commits: Spread::of(&probes), waiting: share, others: active > 0 }
    }
}

impl Prober {
    pub fn start(settings: pg::Settings) -> Self {
        let shared = Arc::<Shared>::default();
        let task = subtask::spawn_in_span({
            let shared = Arc::clone(&shared);
            async move {
                if let Err(error) = probe(&settings, &shared).await {
                    let message = format!("the commits of other sessions could not be measured all the time: {error:#}");
                    shared.lock().why_not = Some(message);
                }
            }
        });
        Self { shared, task }
    }

    /// Tells it whether the run rests now.
    pub fn rest(&self, is_rest: bool) {
        self.shared.lock().resting_since = is_rest.then(Instant::now);
    }

    /// Returns the samples during work since the last call.
    pub fn take_work(&self) -> Window {
        Samples::window([&std::mem::take(&mut self.shared.lock().work)])
    }

    /// Returns the samples of this rest and the two before it; `None` when no other session was active.
    pub fn take_idle(&self) -> Option<Window> {
        let mut state = self.shared.lock();
        let rest = std::mem::take(&mut state.rest);
        if rest.active == 0 && rest.probes.is_empty() {
            return None;
        }
        state.rests.push(rest);
        let surplus = state.rests.len().saturating_sub(RESTS_KEPT);
        state.rests.drain(..surplus);
        Some(Samples::window(&state.rests))
    }

    pub fn count(&self) -> u64 {
        self.shared.lock().count
    }

    /// Returns why there are no samples, or not all.
    pub fn why_not(&self) -> Option<String> {
        self.shared.lock().why_not.clone()
    }
}

impl Shared {
    /// A thread that panicked while it held the lock left whole values behind.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_resting(&self) -> bool {
        self.lock().resting_since.is_some()
    }

    /// Adds samples of work, or of a rest after its first moments; samples in between belong to neither.
    fn add(&self, began: Instant, add: impl FnOnce(&mut Samples)) {
        let mut state = self.lock();
        match state.resting_since {
            None => add(&mut state.work),
            Some(since) if began >= since + SETTLES_IN => add(&mut state.rest),
            Some(_) => {}
        }
    }
}

async fn probe(settings: &pg::Settings, shared: &Shared) -> Result<()> {
    let mut connection = settings.connect().await?;
    pg::commit_durably(&mut connection).await?;
    let may_commit = may_commit(&mut connection).await?;
    let mut active_at: Option<Instant> = None;
    loop {
        let began = Instant::now();
        let (active, waiting): (i64, i64) = sqlx::query_as(include_str!("probe.sql")).fetch_one(&mut connection).await?;
        if active > 0 {
            active_at = Some(began);
        }
        shared.add(began, |samples| {
            samples.active += active;
            samples.waiting += waiting;
        });
        if may_commit && active_at.is_some_and(|at| at.elapsed() < ACTIVE_FOR) {
            let began = Instant::now();
            connection.execute(PROBE).await?;
            let took = began.elapsed().as_secs_f64() * 1000.0;
            shared.lock().count += 1;
            shared.add(began, |samples| samples.probes.push(took));
        }
        let every = if shared.is_resting() { EVERY_IN_REST } else { EVERY };
        let next = began + every;
        // A rest that begins meanwhile is short.
        while Instant::now() < next && !(shared.is_resting() && Instant::now() >= began + EVERY_IN_REST) {
            tokio::time::sleep(EVERY_IN_REST.min(next.saturating_duration_since(Instant::now()))).await;
        }
    }
}

/// A standby accepts no commits, and a role may lack the privilege on the function.
async fn may_commit(connection: &mut PgConnection) -> Result<bool> {
    let sql = "SELECT NOT pg_is_in_recovery() AND COALESCE((
                   SELECT bool_and(has_function_privilege(p.oid, 'EXECUTE')) FROM pg_proc p
                   WHERE p.proname = 'pg_logical_emit_message' AND p.pronamespace = 'pg_catalog'::regnamespace), false)";
    Ok(sqlx::query_scalar(sql).fetch_one(connection).await?)
}
