//! What a person accepts: whose sets are taken, that none is lost by it that may be the last with what others lack, and when a doubt ends.

use serde_json::Value;

use crate::backup_series::copied_configuration;
use crate::support::Scenario;
use crate::support::postgres::{Server, server};

fn identity_of(scenario: &Scenario, set: &str) -> String {
    let list = scenario.json(&["backups", "list"]);
    let set = list["sets"].as_array().unwrap().iter().find(|listed| listed["set"] == set).cloned().unwrap_or(Value::Null);
    set["identity"].as_str().unwrap().to_owned()
}

/// Two tables, and rows enough that half of them are a loss.
fn fill(server: &Server, database: &str) {
    server.sql(database, "CREATE TABLE good AS SELECT i, md5(i::text) AS body FROM generate_series(1, 5000) i");
    server.sql(database, "CREATE TABLE small AS SELECT 1 AS i");
}

#[test]
fn a_set_of_before_a_database_was_made_anew_is_held_when_it_is_accepted_and_the_new_one_lacks_something() {
    let server = Server::start(18);
    server.sql("postgres", "CREATE DATABASE shop");
    fill(&server, "shop");
    let scenario = Scenario::with_database(&server, "shop").backup_job("local", "keep = { last = 2 }");
    scenario.run(&["run-job", "nightly"]).succeeded();
    let good = scenario.sets().remove(0);
    server.sql("postgres", "DROP DATABASE shop");
    server.sql("postgres", "CREATE DATABASE shop");
    server.sql("shop", "CREATE TABLE small (i int)");
    scenario.run(&["run-job", "nightly"]).succeeded().says(&["1 set here, the newest of them", &good]);
    let new = scenario.sets().pop().unwrap();
    let accept = ["backups", "accept", "--identity", &identity_of(&scenario, &good)];
    let said = format!("{good} is held for 30 days or until `pgtend backups accept '{new}'`");
    scenario.run(&accept).succeeded().prints(&[
        "now belong to the series of the present one",
        "lacks 1 table",
        "public.good",
        &said,
    ]);
    for _ in 0..3 {
        scenario.run(&["run-job", "nightly"]).succeeded();
    }
    assert!(scenario.sets().contains(&good), "{:?}", scenario.sets());
    // Saying it again holds nothing anew once a person has let it go.
    scenario.run(&["backups", "accept", &new]).succeeded().prints(&[&good, "no longer held"]);
    let again = scenario.json(&accept);
    assert_eq!(again["series"][0]["held"], serde_json::json!([]), "{again:#}");
    scenario.run(&["run-job", "nightly"]).succeeded();
    assert!(!scenario.sets().contains(&good), "{:?}", scenario.sets());
}

#[test]
fn a_set_of_an_old_server_is_held_when_it_is_accepted_by_one_that_lacks_something() {
    for accepts_first in [false, true] {
        let (old, new) = (server(18), server(16));
        let database = old.empty_database();
        fill(old, &database);
        let first = Scenario::with_database(old, &database).backup_job("local", "keep = { last = 1 }");
        first.run(&["run-job", "nightly"]).succeeded();
        let good = first.sets().remove(0);
        let identity = identity_of(&first, &good);
        new.sql("postgres", &format!("CREATE DATABASE {database}"));
        new.drop_with_test(&database);
        new.sql(&database, "CREATE TABLE good AS SELECT i, md5(i::text) AS body FROM generate_series(1, 500) i");
        let second = copied_configuration(&first, new, &database);
        let accept = ["backups", "accept", "--identity", &identity];
        if accepts_first {
            let accepted = second.json(&accept);
            assert_eq!(
                accepted["series"][0]["held"],
                serde_json::json!([]),
                "there is nothing to compare with yet: {accepted:#}"
            );
            second
                .run(&["run-job", "nightly"])
                .succeeded()
                .says(&["lacks 1 table that the last one had: public.small", "is held"]);
        } else {
            second.run(&["run-job", "nightly"]).succeeded().says(&["sets of another server here"]);
            let now = first.sets().pop().unwrap();
            let accepted = second.json(&accept);
            let held = &accepted["series"][0]["held"][0];
            assert_eq!((held["set"].as_str(), held["because_of"].as_str()), (Some(&*good), Some(&*now)), "{accepted:#}");
            assert!(held["lost"].as_str().unwrap().contains("public.small"), "{accepted:#}");
        }
        for _ in 0..2 {
            second.run(&["run-job", "nightly"]).succeeded();
        }
        assert!(first.sets().contains(&good), "{accepts_first}: {:?}", first.sets());
    }
}

/// Puts the server's data aside, or back, as a snapshot of its disk.
fn snapshot(server: &mut Server, from: &str, to: &str) {
    server.crash();
    let script = "rm -rf \"$2\" && cp -a \"$1\" \"$2\"";
    let copied = std::process::Command::new("sh").args(["-c", script, "sh"]).arg(server.path(from)).arg(server.path(to)).status();
    assert!(copied.unwrap().success());
    server.start_again();
}

#[test]
fn a_server_that_was_set_back_deletes_nothing_until_it_is_accepted_however_far_it_goes_on() {
    let mut server = Server::start(18);
    snapshot(&mut server, "data", "aside");
    server.sql("postgres", "CREATE DATABASE shop");
    fill(&server, "shop");
    server.sql("shop", "SELECT pg_switch_wal()");
    let scenario = Scenario::with_database(&server, "shop").backup_job("local", "keep = { last = 1 }");
    scenario.run(&["run-job", "nightly"]).succeeded();
    let lost = scenario.sets().remove(0);
    snapshot(&mut server, "aside", "data");
    server.sql("postgres", "CREATE DATABASE shop");
    fill(&server, "shop");
    let doubt = ["nothing in the store is swept or pruned", "later point of the same write-ahead log", &lost];
    scenario.run(&["run-job", "nightly"]).succeeded().says(&doubt);
    for _ in 0..2 {
        server.sql("postgres", "CREATE TABLE t AS SELECT 1 AS i; SELECT pg_switch_wal()");
        server.sql("postgres", "DROP TABLE t");
        scenario.run(&["run-job", "nightly"]).succeeded().says(&doubt);
    }
    scenario.run(&["backups", "prune"]).exited(75).says(&["later point of the same write-ahead log", &lost]);
    assert_eq!(scenario.sets().len(), 4);
    scenario.run(&["backups", "accept", "--identity", &identity_of(&scenario, &lost)]).succeeded();
    for _ in 0..2 {
        let run = scenario.run(&["run-job", "nightly"]).succeeded();
        assert!(!run.stderr.contains("write-ahead log"), "{}", run.stderr);
        let sets = scenario.sets();
        assert_eq!(sets.iter().filter(|set| **set != lost).count(), 1, "all goes on as before: {sets:?}");
    }
}

#[test]
fn to_accept_a_server_that_was_set_back_says_nothing_of_a_database_that_had_the_name_before() {
    let mut server = Server::start(18);
    let make = |server: &Server| {
        server.sql("postgres", "DROP DATABASE IF EXISTS shop WITH (FORCE)");
        server.sql("postgres", "CREATE DATABASE shop");
        fill(server, "shop");
    };
    make(&server);
    let scenario = Scenario::with_database(&server, "shop").backup_job("local", "keep = { last = 2 }");
    for _ in 0..2 {
        scenario.run(&["run-job", "nightly"]).succeeded();
    }
    let earlier = scenario.sets();
    make(&server);
    snapshot(&mut server, "data", "aside");
    server.sql("shop", "SELECT pg_switch_wal()");
    scenario.run(&["run-job", "nightly"]).succeeded();
    snapshot(&mut server, "aside", "data");
    scenario.run(&["run-job", "nightly"]).succeeded().says(&["later point of the same write-ahead log", "2 sets here"]);
    let accept = ["backups", "accept", "--identity", &identity_of(&scenario, &earlier[0])];
    scenario.run(&accept).succeeded().prints(&["accepted 2 sets", "2 sets of another database", "stay as they are", "--of"]);
    for _ in 0..3 {
        scenario.run(&["run-job", "nightly"]).succeeded();
    }
    let now = scenario.sets();
    assert!(now.len() == 4 && earlier.iter().all(|set| now.contains(set)), "{earlier:?} {now:?}");
}

#[test]
fn an_accept_that_cannot_read_a_store_changes_none() {
    let server = server(18);
    let database = server.new_database();
    let scenario = Scenario::with_database(server, &database).config("[stores.off]\npath = \"off\"\n");
    let scenario = scenario.job("nightly", "database = \"app\"\n[backup]\nstore = [\"local\", \"off\"]\n");
    scenario.run(&["run-job", "nightly"]).succeeded();
    let set = scenario.sets().remove(0);
    let identity = identity_of(&scenario, &set);
    std::fs::rename(scenario.path("off"), scenario.path("away")).unwrap();
    std::fs::write(scenario.path("off"), "no folder").unwrap();
    let accept = ["backups", "accept", "--identity", &identity];
    scenario.run(&accept).exited_with_one_of(&[69, 74, 78]).says(&["store `off`"]);
    let written = |store: &str| scenario.path(&format!("{store}/app/nightly/series.json")).exists();
    assert!(!written("store"), "nothing was accepted, and nothing is written");
    std::fs::remove_file(scenario.path("off")).unwrap();
    std::fs::rename(scenario.path("away"), scenario.path("off")).unwrap();
    scenario.run(&accept).succeeded().prints(&["app/nightly in local", "app/nightly in off"]);
    assert!(written("store") && written("off"));
    // What could be written is said, also where another store then refuses.
    for store in ["store", "off"] {
        std::fs::remove_file(scenario.path(&format!("{store}/app/nightly/series.json"))).unwrap();
    }
    std::fs::create_dir_all(scenario.path("off/app/nightly/series.json/in the way")).unwrap();
    let failed = scenario.run(&accept);
    assert!(failed.code != Some(0) && failed.stderr.contains("store `off`"), "{}", failed.stderr);
    assert_eq!(failed.stdout.contains("app/nightly in local"), written("store"), "{}", failed.stdout);
    assert!(!failed.stdout.contains("app/nightly in off"), "{}", failed.stdout);
}

#[test]
fn a_system_identifier_alone_unites_and_restores_nothing_where_several_databases_have_it() {
    let server = server(18);
    let (customers, app) = (server.empty_database(), server.empty_database());
    for database in [&customers, &app] {
        server.sql(database, "CREATE TABLE t AS SELECT 1 AS i");
    }
    let job = |scenario: Scenario| scenario.backup_job("local", "keep = { last = 1 }");
    let first = job(Scenario::with_database(server, &customers));
    first.run(&["run-job", "nightly"]).succeeded();
    let of_customers = first.sets().remove(0);
    let second = copied_configuration(&first, server, &app);
    second.run(&["run-job", "nightly"]).succeeded().says(&["sets of another database of this server"]);
    let identity = identity_of(&first, &of_customers);
    let (system, _) = identity.split_once('/').unwrap();
    let names = [format!("{system}/{customers}"), format!("{system}/{app}")];
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    second.run(&["backups", "accept", "--identity", system]).exited(78).says(&names);
    second.run(&["backups", "verify", "latest", "--from", system]).exited(78).says(&names);
    second.run(&["run-job", "nightly"]).succeeded();
    assert!(first.sets().contains(&of_customers), "{:?}", first.sets());
    second.run(&["backups", "accept", "--identity", &identity]).succeeded().prints(&["1 set of", "now belong to the series of"]);
}

#[test]
fn sets_whose_server_is_not_known_stay_until_a_person_says_whose_they_are() {
    let (production, staging) = (Server::start(18), Server::start(18));
    // One script has set both up: they gave out the same numbers.
    for server in [&production, &staging] {
        server.sql("template1", "REVOKE EXECUTE ON FUNCTION pg_control_system() FROM PUBLIC");
        server.sql("postgres", "CREATE ROLE tender LOGIN IN ROLE pg_read_all_data");
        server.sql("postgres", "CREATE DATABASE shop");
        fill(server, "shop");
    }
    staging.sql("shop", "GRANT EXECUTE ON FUNCTION pg_control_system() TO tender");
    let job = "database = \"app\"\n[backup]\nstore = \"local\"\nkeep = { last = 1 }\n";
    let first = Scenario::with_url(&production, &production.url_as("tender", "shop")).job("nightly", job);
    for _ in 0..2 {
        first.run(&["run-job", "nightly"]).succeeded();
    }
    let good = first.sets();
    assert_eq!(good.len(), 1, "where no server is known, names count");
    let second = copied_configuration(&first, &staging, "shop");
    let said = [&good[0], "which does not say of which server", "neither counted nor deleted", &format!("--of {}", good[0])];
    for _ in 0..3 {
        second.run(&["run-job", "nightly"]).succeeded().says(&said);
    }
    second.run(&["backups", "prune"]).succeeded().says(&said);
    let sets = first.sets();
    assert!(sets.contains(&good[0]) && sets.len() == 2, "{sets:?}");
    // What a person accepts for another reason does not take it.
    let own = identity_of(&first, &sets[1]);
    second.run(&["backups", "accept", "--identity", &own]).succeeded().prints(&["1 set whose server is not recorded", "--of"]);
    second.run(&["run-job", "nightly"]).succeeded();
    assert!(first.sets().contains(&good[0]));
    second.run(&["backups", "accept", "--identity", &own, "--of", &good[0]]).succeeded().prints(&["1 set", "now belong"]);
    let run = second.run(&["run-job", "nightly"]).succeeded();
    assert!(!run.stderr.contains("of which server"), "{}", run.stderr);
    assert_eq!(first.sets().len(), 1, "{:?}", first.sets());
}

#[test]
fn a_database_in_a_tablespace_that_was_altered_is_the_same() {
    let server = Server::start(18);
    let folder = server.path("space");
    std::fs::create_dir(&folder).unwrap();
    std::os::unix::fs::chown(&folder, Some(owner_of(&server)), None).unwrap();
    server.sql("postgres", &format!("CREATE TABLESPACE space LOCATION '{}'", folder.display()));
    server.sql("postgres", "CREATE DATABASE shop TABLESPACE space");
    let scenario = Scenario::with_database(&server, "shop").backup_job("local", "keep = { last = 1 }");
    scenario.run(&["run-job", "nightly"]).succeeded();
    // The only row about it in shared catalogs is another one by now.
    server.sql("postgres", "ALTER DATABASE shop CONNECTION LIMIT 50");
    let run = scenario.run(&["run-job", "nightly"]).succeeded();
    assert!(!run.stderr.contains("had this name before"), "{}", run.stderr);
    assert_eq!(scenario.sets().len(), 1);
    // Where nothing is left that tells, nothing is claimed either.
    server.sql("postgres", "SELECT pg_sleep(1.1)");
    server.sql("postgres", "ALTER DATABASE shop SET TABLESPACE pg_default");
    let run = scenario.run(&["run-job", "nightly"]).succeeded().says(&["it may have been dropped or renamed", "or altered"]);
    assert!(!run.stderr.contains("it was dropped or renamed"), "{}", run.stderr);
    assert_eq!(scenario.sets().len(), 2);
}

fn owner_of(server: &Server) -> u32 {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata(server.path("data")).unwrap().uid()
}

#[test]
fn a_database_is_the_same_when_two_thousand_million_transactions_have_gone_by() {
    let mut server = Server::start(18);
    server.sql("postgres", "CREATE ROLE owner LOGIN; CREATE ROLE tender LOGIN IN ROLE pg_read_all_data");
    server.sql("postgres", "CREATE DATABASE shop OWNER owner");
    let tables = |server: &Server, from: u32| {
        for number in from..from + 20 {
            server.psql("shop", &format!("SET ROLE owner; CREATE TABLE public.t{number} (i int)")).unwrap();
        }
    };
    server.sql("shop", "GRANT CREATE ON SCHEMA public TO owner");
    tables(&server, 0);
    let scenario = Scenario::with_url(&server, &server.url_as("tender", "shop")).backup_job("local", "keep = { last = 1 }");
    scenario.run(&["run-job", "nightly"]).succeeded();
    goes_on_to(&mut server, 1_200_000_000);
    tables(&server, 100);
    scenario.run(&["run-job", "nightly"]).succeeded();
    goes_on_to(&mut server, 2_300_000_000);
    let run = scenario.run(&["run-job", "nightly"]).succeeded();
    assert!(!run.stderr.contains("had this name before"), "{}", run.stderr);
    assert_eq!(scenario.sets().len(), 1, "{:?}", scenario.sets());
    // The first numbers are given out again: the oldest rows look young, and are still there.
    goes_on_to(&mut server, 3_500_000_000);
    tables(&server, 200);
    scenario.run(&["run-job", "nightly"]).succeeded();
    goes_on_to(&mut server, 100_000);
    let run = scenario.run(&["run-job", "nightly"]).succeeded();
    assert!(!run.stderr.contains("had this name before"), "{}", run.stderr);
    assert_eq!(scenario.sets().len(), 1, "{:?}", scenario.sets());
}

/// Freezes all rows, and gives out that number as the next one.
fn goes_on_to(server: &mut Server, transaction: u64) {
    server.sql("postgres", "ALTER DATABASE template0 ALLOW_CONNECTIONS true");
    for database in server.sql("postgres", "SELECT datname FROM pg_database").lines() {
        server.sql(database, "VACUUM FREEZE");
    }
    server.sql("postgres", "CHECKPOINT");
    server.crash();
    let data = server.path("data");
    let reset = server.bin_dir.join("pg_resetwal");
    let segment = data.join(format!("pg_xact/{:04X}", transaction / 1_048_576));
    let script = "head -c 262144 /dev/zero >\"$1\" && rm -f \"$2/postmaster.pid\" && \"$3\" -f -x \"$4\" -D \"$2\"";
    let mut command = std::process::Command::new("setpriv");
    let owner = owner_of(server).to_string();
    match rustix::process::geteuid().is_root() {
        true => command.args(["--reuid", &owner, "--clear-groups", "sh"]),
        false => {
            command = std::process::Command::new("sh");
            &mut command
        }
    };
    command.args(["-c", script, "sh"]).arg(segment).arg(data).arg(reset).arg(transaction.to_string());
    assert!(command.status().unwrap().success());
    server.start_again();
}
