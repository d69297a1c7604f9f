//! Compressing gives way to all others on the host, but is not starved for ever.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use thread_priority::{
    NormalThreadSchedulePolicy, ThreadPriority, ThreadSchedulePolicy, set_thread_priority_and_policy, thread_native_id,
};

use crate::base::subtask::on_thread;

/// With SCHED_IDLE of Linux, any other thread that wakes up gets the processor at once. With a nice value of 19 alone, reads of titles waited
/// 4.6 ms at p99, not 2 (benches/compress.py).
const IDLE: ThreadSchedulePolicy = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Idle);
/// With the least niceness: a small share of the processors also on a busy host.
const NICE: ThreadSchedulePolicy = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Other);
/// The time without a processor after which a run is no longer idle but nice. With SCHED_IDLE alone a run of 3.4 s took 69 s beside
/// sessions that kept both processors busy.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often a thread that works is looked at.
const LOOK: Duration = Duration::from_millis(200);

/// The time in which a run has waited for a processor so far.
#[derive(Default)]
pub struct GiveWay {
    waited_milliseconds: AtomicU64,
}

impl GiveWay {
    /// Runs the work on a thread of its own that gets the processor only while no other thread wants it (docs/benchmarks.md has the
    /// readers' p99 beside it). On a busy host that may take long, so no lock is held meanwhile.
    ///
    /// A thread cannot leave SCHED_IDLE without a privilege. So when it waits too long, another thread, which is nice, begins the same work
    /// again, and the first one is told to give up as soon as it gets there: `work` should look at that flag now and then. This happens at most
    /// once in a run, as later work is nice from its start.
    pub fn run<T: Send + 'static>(&self, work: impl Fn(&AtomicBool) -> T + Send + Sync + 'static) -> T {
        let work = Arc::new(work);
        let started = Instant::now();
        let patience = self.patience();
        let thread = Thread::start(&work, if patience.is_some() { IDLE } else { NICE });
        let end = match thread.wait(patience) {
            Ok(end) => end,
            Err(starved) => {
                let nice = Thread::start(&work, NICE);
                starved.give_up.store(true, Ordering::Relaxed);
                nice.join()
            }
        };
        let (done, on_processor) = end.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        self.add(started.elapsed().saturating_sub(on_processor));
        done
    }

    /// Returns the time in which it has waited for a processor so far.
    pub fn waited(&self) -> Duration {
        Duration::from_millis(self.waited_milliseconds.load(Ordering::Relaxed))
    }

    /// Returns the time that it still waits with SCHED_IDLE, if any.
    fn patience(&self) -> Option<Duration> {
        PATIENCE.checked_sub(self.waited()).filter(|left| !left.is_zero())
    }

    fn add(&self, waited: Duration) {
        self.waited_milliseconds.fetch_add(waited.as_millis() as u64, Ordering::Relaxed);
    }
}

/// The result of the work and the time that it had a processor; or its panic.
type End<T> = std::thread::Result<(T, Duration)>;

/// A thread that works.
struct Thread<T> {
    handle: JoinHandle<(T, Duration)>,
    /// It is disconnected when the thread ends.
    ends: Receiver<()>,
    give_up: Arc<AtomicBool>,
    /// Its folder below /proc, once it has begun.
    folder: Arc<OnceLock<PathBuf>>,
    started: Instant,
}

impl<T: Send + 'static> Thread<T> {
    fn start(work: &Arc<impl Fn(&AtomicBool) -> T + Send + Sync + 'static>, policy: ThreadSchedulePolicy) -> Self {
        let (until_the_end, ends) = channel();
        let (give_up, folder) = (Arc::new(AtomicBool::new(false)), Arc::new(OnceLock::new()));
        let (work, told, place) = (work.clone(), give_up.clone(), folder.clone());
        let handle = std::thread::spawn(on_thread(move || {
            let _until_the_end = until_the_end;
            // If it is forbidden, the work is done anyway.
            let _ = set_thread_priority_and_policy(thread_native_id(), ThreadPriority::Min, policy);
            if let Ok(link) = std::fs::read_link("/proc/thread-self") {
                let _ = place.set(PathBuf::from("/proc").join(link));
            }
            let done = work(&told);
            (done, on_processor())
        }));
        Self { handle, ends, give_up, folder, started: Instant::now() }
    }

    /// Waits for its end, and returns the thread itself when it has waited for a processor for longer than `patience`. None: for ever.
    fn wait(self, patience: Option<Duration>) -> Result<End<T>, Self> {
        let Some(patience) = patience else { return Ok(self.join()) };
        while self.ends.recv_timeout(LOOK) == Err(RecvTimeoutError::Timeout) {
            if self.waited() > patience {
                return Err(self);
            }
        }
        Ok(self.join())
    }

    fn join(self) -> End<T> {
        self.handle.join()
    }

    /// Returns the time in which it has had no processor so far. Where the kernel does not tell the other time, all of it.
    fn waited(&self) -> Duration {
        let read = || {
            let schedstat = std::fs::read_to_string(self.folder.get()?.join("schedstat")).ok()?;
            schedstat.split_whitespace().next()?.parse().ok()
        };
        self.started.elapsed().saturating_sub(Duration::from_nanos(read().unwrap_or(0)))
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

    fn policy() -> ThreadSchedulePolicy {
        thread_priority::thread_schedule_policy().unwrap()
    }

    #[test]
    fn compressing_gives_way_and_nothing_else_does() {
        let before = policy();
        assert_eq!((GiveWay::default().run(|_| policy()), before == IDLE), (IDLE, false));
        assert_eq!(policy(), before);
    }

    #[test]
    fn after_ten_seconds_without_a_processor_it_is_nice_and_not_idle() {
        let give_way = GiveWay::default();
        // Time in which the thread does not run counts, and time in which it does, does not.
        give_way.run(|_| std::thread::sleep(Duration::from_millis(300)));
        assert!(give_way.waited() >= Duration::from_millis(200));
        assert_eq!(give_way.run(|_| policy()), IDLE);
        give_way.add(PATIENCE);
        assert_eq!(give_way.run(|_| policy()), NICE);
    }

    #[test]
    fn a_value_that_gets_no_processor_is_compressed_by_a_nice_thread_while_the_idle_one_still_waits() {
        let give_way = GiveWay::default();
        give_way.add(PATIENCE.saturating_sub(Duration::from_millis(100)));
        let starved = Arc::new(AtomicBool::new(false));
        let seen = starved.clone();
        // The idle thread waits as on a busy host, and goes on only when it was given up.
        let done = give_way.run(move |give_up| {
            let until = Instant::now() + Duration::from_secs(60);
            while policy() == IDLE && !give_up.load(Ordering::Relaxed) && Instant::now() < until {
                std::thread::sleep(Duration::from_millis(10));
            }
            seen.fetch_or(policy() == IDLE, Ordering::Relaxed);
            policy()
        });
        assert_eq!(done, NICE);
        let until = Instant::now() + Duration::from_secs(60);
        while !starved.load(Ordering::Relaxed) && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(10));
        }
        assert!(starved.load(Ordering::Relaxed), "the idle thread was told to give up");
        assert!(give_way.waited() >= PATIENCE);
    }

    #[test]
    fn a_thread_that_works_all_the_time_does_not_wait() {
        let works = Arc::new(|give_up: &AtomicBool| {
            let mut rounds = 0_u64;
            while !give_up.load(Ordering::Relaxed) {
                rounds += 1;
            }
            rounds
        });
        let thread = Thread::start(&works, NICE);
        // On a busy machine it waits as well, but never all the time.
        std::thread::sleep(Duration::from_secs(2));
        let (elapsed, waited) = (thread.started.elapsed(), thread.waited());
        thread.give_up.store(true, Ordering::Relaxed);
        assert!(thread.join().unwrap().0 > 0);
        assert!(waited + Duration::from_millis(1) < elapsed, "{waited:?} of {elapsed:?}");
    }
}
