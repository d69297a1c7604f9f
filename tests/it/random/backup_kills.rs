//! kill -9 at random moments of a backup (dump, upload, verification, prune), of a check, of a restore and of a prune by hand, in both
//! kinds of store. After the next run that succeeds nothing is left that nobody owns, and no intact set is lost.
//!
//! 6 kills; `make campaigns` makes 20 and `make kills` 200; PGTEND_TEST_SEED repeats some.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use proptest::prelude::RngExt as _;
use proptest::test_runner::TestRng;

use super::kills::{finish, seeded};
use crate::support::postgres::Server;
use crate::support::s3::S3Server;
use crate::support::{Scenario, eventually, times};

/// What `keep` of the job says.
const LAST: usize = 3;

const ROWS: &str = "90000";

/// On each of the two stores.
fn kills() -> u32 {
    std::env::var("PGTEND_TEST_KILLS").map_or_else(|_| times(10), |kills| kills.parse::<u32>().unwrap() / 2)
}

struct Campaign {
    /// Nobody else's: what is left on it is ours.
    server: Server,
    database: String,
    scenario: Scenario,
    s3: Option<S3Server>,
    /// The job has two stores, the folder and the bucket.
    has_both: bool,
    restore_into: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Action {
    Run,
    Verify,
    Restore,
    Prune,
}

/// Runs come more often: most phases are theirs.
const ACTIONS: [Action; 7] = [Action::Run, Action::Run, Action::Run, Action::Run, Action::Verify, Action::Restore, Action::Prune];

#[test]
fn killed_at_random_moments_nothing_is_left_or_lost_in_a_folder() {
    let server = Server::start(18);
    let database = database(&server);
    let scenario = Scenario::with_database(&server, &database);
    Campaign::new(server, database, scenario, None, false).goes_on();
}

#[test]
fn killed_at_random_moments_nothing_is_left_or_lost_in_a_bucket() {
    let (server, s3) = (Server::start(16), S3Server::start());
    let database = database(&server);
    // Parts of 5 MiB; and the ledger's lock in place of one in the store.
    let scenario = Scenario::with_database(&server, &database).s3(&s3).config("parts_in_flight = 1\nupload_memory = \"10MiB\"\n");
    Campaign::new(server, database, scenario.ledger(), Some(s3), false).goes_on();
}

#[test]
fn killed_at_random_moments_nothing_is_left_or_lost_in_a_bucket_of_google() {
    let (server, google) = (Server::start(15), S3Server::start_google());
    let database = database(&server);
    let scenario = Scenario::with_database(&server, &database).google_as("bucket", &google);
    let scenario = scenario.config("parts_in_flight = 1\nupload_memory = \"10MiB\"\n");
    Campaign::new(server, database, scenario.ledger(), Some(google), false).goes_on();
}

#[test]
fn killed_at_random_moments_nothing_is_left_or_lost_in_two_stores() {
    let (server, s3) = (Server::start(17), S3Server::start());
    let database = database(&server);
    let scenario = Scenario::with_database(&server, &database).s3(&s3).config("parts_in_flight = 1\nupload_memory = \"10MiB\"\n");
    Campaign::new(server, database, scenario.ledger(), Some(s3), true).goes_on();
}

/// Its dump has several parts.
fn database(server: &Server) -> String {
    let database = server.new_database();
    let body = "md5(i::text) || md5((i * 7)::text) || md5((i * 13)::text) || md5((i * 17)::text) || md5((i * 19)::text)";
    server.sql(
        &database,
        &format!("CREATE TABLE big AS SELECT i, {body} AS body FROM generate_series(1, {ROWS}) i; SELECT lo_from_bytea(0, 'x')"),
    );
    database
}

impl Campaign {
    fn new(server: Server, database: String, scenario: Scenario, s3: Option<S3Server>, has_both: bool) -> Self {
        let store = match (has_both, &s3) {
            (true, _) => "[\"local\", \"bucket\"]",
            (false, Some(_)) => "\"bucket\"",
            (false, None) => "\"local\"",
        };
        let keys = format!("verify = \"restore\"\nscratch = \"same\"\nlevel = 1\nkeep = {{ last = {LAST} }}");
        let scenario = scenario.job("nightly", &format!("database = \"app\"\n[backup]\nstore = {store}\n{keys}\n"));
        let restore_into = server.url("restored");
        Self { server, database, scenario, s3, has_both, restore_into }
    }

    /// Each with its name, its objects, and what all keys begin with.
    fn stores(&self) -> Vec<(&'static str, Vec<String>, &'static str)> {
        let but_its_id = |s3: &S3Server| s3.objects().into_iter().filter(|key| key != "test/.pgtend-store.json").collect();
        let bucket = self.s3.iter().map(|s3| ("bucket", but_its_id(s3), "test/"));
        let has_folder = self.has_both || self.s3.is_none();
        bucket.chain(has_folder.then(|| ("local", self.scenario.files("store"), ""))).collect()
    }

    fn goes_on(&self) {
        let mut random = seeded();
        for _ in 0..2 {
            self.finish(Action::Run);
        }
        let mut undisturbed = BTreeMap::new();
        for action in [Action::Run, Action::Verify, Action::Restore, Action::Prune] {
            let started = Instant::now();
            self.finish(action);
            undisturbed.insert(action, started.elapsed());
        }
        self.is_in_order("undisturbed");

        let (mut met, mut turns) = (BTreeMap::<String, u32>::new(), 0);
        while met.values().sum::<u32>() < kills() {
            turns += 1;
            assert!(turns <= 4 * kills(), "only {met:?} of {turns} kills met a run");
            let action = ACTIONS[random.random_range(0..ACTIONS.len())];
            let moment = moment(undisturbed[&action], &mut random);
            let before = self.intact_sets();
            if let Some(phase) = self.kill(action, moment) {
                *met.entry(format!("{action:?} {phase}")).or_default() += 1;
            }
            let when = format!("turn {turns}: {action:?} killed after {moment:?} of {:?}", undisturbed[&action]);
            println!("{when}");
            self.finish(action);
            self.finish(Action::Run);
            self.is_in_order(&when);
            self.nothing_is_lost(&before, &when);
        }
        println!("{met:#?}");
        for set in self.sets() {
            self.scenario.run(&["backups", "verify", &set]).succeeded();
        }
    }

    fn arguments(&self, action: Action) -> Vec<&str> {
        match action {
            Action::Run => vec!["run-job", "nightly"],
            Action::Verify => vec!["backups", "verify", "latest", "--restore-on", "app"],
            Action::Restore => vec!["backups", "restore", "latest", "--into", &self.restore_into, "--create"],
            Action::Prune => vec!["backups", "prune"],
        }
    }

    /// In which phase it was; None when it had ended before.
    fn kill(&self, action: Action, moment: Duration) -> Option<String> {
        let mut running = self.scenario.start(&self.arguments(action));
        std::thread::sleep(moment);
        let was_running = running.is_running();
        let said = running.killed().stderr;
        eventually("the server let go of it", || {
            let sessions =
                "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()";
            self.server.sql("postgres", sessions) == "0"
        });
        let phase = said.split("started phase=\"").last().filter(|_| said.contains("started phase"));
        was_running.then(|| phase.map_or("", |phase| phase.split('"').next().unwrap()).to_owned())
    }

    fn finish(&self, action: Action) {
        if action == Action::Restore {
            self.a_database_of_that_name_is_whole();
        }
        finish(&self.scenario, &self.arguments(action));
        if action == Action::Restore {
            assert!(self.a_database_of_that_name_is_whole(), "it is restored");
        }
    }

    /// Also after a kill: a half-made one has another name. Then it goes, so that the next restore can make one.
    fn a_database_of_that_name_is_whole(&self) -> bool {
        let is_there = self.server.sql("postgres", "SELECT count(*) FROM pg_database WHERE datname = 'restored'") == "1";
        if is_there {
            assert_eq!(self.server.sql("restored", "SELECT count(*) FROM big"), ROWS);
            self.server.sql("postgres", "DROP DATABASE restored");
        }
        is_there
    }

    /// Names and whether their bytes were read back, the oldest first. Of several copies, one counts.
    fn listed(&self) -> Vec<(String, bool)> {
        self.listed_by(&["backups", "list"])
    }

    fn sets_in(&self, store: &str) -> Vec<(String, bool)> {
        self.listed_by(&["backups", "list", "--store", store])
    }

    fn listed_by(&self, arguments: &[&str]) -> Vec<(String, bool)> {
        let listed = self.scenario.json(arguments);
        assert_eq!(listed["unrestorable"].as_array().map_or(0, Vec::len), 0, "{listed:#}");
        let mut sets: Vec<_> = listed["sets"]
            .as_array()
            .unwrap()
            .iter()
            .map(|set| (set["set"].as_str().unwrap().to_owned(), set["bytes"] == "intact"))
            .collect();
        sets.sort();
        sets
    }

    fn sets(&self) -> Vec<String> {
        self.listed().into_iter().map(|(name, _)| name).collect()
    }

    fn intact_sets(&self) -> Vec<String> {
        self.listed().into_iter().filter(|(_, intact)| *intact).map(|(name, _)| name).collect()
    }

    /// Nothing is left that nobody owns: no scratch or half-made database, no upload, no object without a set, no lock, no run
    /// without an end.
    #[track_caller]
    fn is_in_order(&self, when: &str) {
        let databases =
            "SELECT string_agg(datname, ', ') FROM pg_database WHERE datname NOT LIKE 'template%' AND datname <> 'postgres'";
        assert_eq!(self.server.sql("postgres", databases), self.database, "{when}: databases");
        if let Some(s3) = &self.s3 {
            assert_eq!(s3.unfinished_uploads(), [""; 0], "{when}: uploads");
        }
        for (store, objects, prefix) in self.stores() {
            let sets: BTreeSet<String> = self.sets_in(store).into_iter().map(|set| format!("{prefix}{}", set.0)).collect();
            for object in &objects {
                let (folder, file) = object.rsplit_once('/').unwrap_or(("", object));
                // A small object that was being written waits for a day: another process may be writing it.
                if store == "local" && file.starts_with('.') && file.ends_with(".partial") && !file.contains("dump.sql") {
                    continue;
                }
                let is_of_a_set = sets.contains(folder) && file != "deleting.json";
                assert!(is_of_a_set || self.is_no_leftover(store, object, file), "{when}: {object} is left of {objects:#?}");
            }
        }
        if self.s3.is_some() {
            // One that was killed between its row and its lock could be one that waits for it: serve calls it crashed by its age.
            let open = "SELECT count(*) FROM pgtend.runs WHERE finished_at IS NULL AND locked_at IS NOT NULL";
            assert_eq!(self.server.sql(&self.database, open), "0", "{when}: runs without an end");
        }
    }

    /// What a store in order has besides sets: a lock that somebody has let go of, and what stands at its root.
    fn is_no_leftover(&self, store: &str, object: &str, file: &str) -> bool {
        if file == "lock.json" {
            let s3 = self.s3.as_ref().filter(|_| store == "bucket");
            let path = s3.map_or_else(|| self.scenario.path(&format!("store/{object}")), |s3| s3.file_of(object));
            let lock: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
            return lock["released"] == true;
        }
        // A probe of conditional writes that was killed is deleted a day later, by another one.
        let object = object.trim_start_matches("test/");
        (file.starts_with(".pgtend") && object == file) || object.starts_with(".pgtend-probe/condition-")
    }

    /// Each set that was intact before is there, or so many newer intact ones are that `keep` could let it go.
    #[track_caller]
    fn nothing_is_lost(&self, before: &[String], when: &str) {
        let now = self.intact_sets();
        for set in before.iter().filter(|set| !now.contains(set)) {
            let newer = now.iter().filter(|other| *other > set).count();
            assert!(newer >= LAST, "{when}: {set} was intact and is gone; there are {now:?}");
        }
        assert!(now.len() >= LAST.min(before.len()), "{when}: {before:?} before, {now:?} now");
        for (store, ..) in self.stores() {
            let there = self.sets_in(store);
            let intact = there.iter().filter(|(_, intact)| *intact).count();
            assert!(intact >= LAST.min(before.len()), "{when}: in {store} there are {there:?}");
        }
    }
}

/// A little later than its end at most: then the kill may meet its last steps.
fn moment(undisturbed: Duration, random: &mut TestRng) -> Duration {
    undisturbed.mul_f64(random.random_range(0.0..1.02))
}
