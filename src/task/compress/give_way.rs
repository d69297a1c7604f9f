//! Compressing gives way to all others on the host, but is not starved for ever.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use thread_priority::{
    NormalThreadSchedulePolicy, ThreadPriority, ThreadSchedulePolicy, set_thread_priority_and_policy, thread_native_id,
};

const IDLE: ThreadSchedulePolicy = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Idle);
/// With the least niceness: a small share of the processors also on a busy host.
const NICE: ThreadSchedulePolicy = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Other);
/// The time without progress after which a run is no longer idle but nice. With SCHED_IDLE alone a run of 3.4 s took 69 s beside
/// sessions that kept both processors busy.
const PATIENCE: Duration = Duration::from_secs(10);

/// The time in which a run has waited for a processor so far.
#[derive(Default)]
pub struct GiveWay {
    waited_milliseconds: AtomicU64,
}

impl GiveWay {
    /// Runs the work on a thread of its own that gets the processor only while no other thread wants it (docs/benchmarks.md has the
    /// readers' p99 beside it). On a busy host that may take long, so no lock is held meanwhile.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let policy = self.policy();
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                // With SCHED_IDLE of Linux, any other thread that wakes up gets this processor at once. With a nice value of 19 alone,
                // reads of titles waited 4.6 ms at p99, not 2 (benches/compress.py). If it is forbidden, the work is done anyway.
                let _ = set_thread_priority_and_policy(thread_native_id(), ThreadPriority::Min, policy);
                let started = Instant::now();
                let done = work();
                self.add(started.elapsed().saturating_sub(on_processor()));
                done
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Returns the time in which it has waited for a processor so far.
    pub fn waited(&self) -> Duration {
        Duration::from_millis(self.waited_milliseconds.load(Ordering::Relaxed))
    }

    /// A thread cannot leave SCHED_IDLE without a privilege, but the next one need not enter it.
    fn policy(&self) -> ThreadSchedulePolicy {
        if self.waited() < PATIENCE { IDLE } else { NICE }
    }

    fn add(&self, waited: Duration) {
        self.waited_milliseconds.fetch_add(waited.as_millis() as u64, Ordering::Relaxed);
    }
}

/// Returns the time that this thread has had a processor.
fn on_processor() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.max(0) as u64, time.tv_nsec.max(0) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compressing_gives_way_and_nothing_else_does() {
        let policy = || thread_priority::thread_schedule_policy().unwrap();
        let before = policy();
        assert_eq!((GiveWay::default().run(policy), before == IDLE), (IDLE, false));
        assert_eq!(policy(), before);
    }

    #[test]
    fn after_ten_seconds_without_a_processor_it_is_nice_and_not_idle() {
        let give_way = GiveWay::default();
        let policy = || thread_priority::thread_schedule_policy().unwrap();
        // Time in which the thread does not run counts, and time in which it does, does not.
        give_way.run(|| std::thread::sleep(Duration::from_millis(300)));
        assert!(give_way.waited() >= Duration::from_millis(200));
        assert_eq!(give_way.run(policy), IDLE);
        give_way.add(PATIENCE);
        assert_eq!(give_way.run(policy), NICE);
    }
}
