//! Copies that cannot be used: their store does not answer, their deletion was interrupted, their bytes rot while nobody looks.

use std::net::TcpListener;

use hyper::Method;
use serde_json::Value;

use crate::backup_faults::always;
use crate::copies::{in_store, listed, run, small_database, two_folders};
use crate::copies_used::damage;
use crate::encryption::age_key;
use crate::support::postgres::server;
use crate::support::s3::{Fault, S3Server};
use crate::support::{Running, Scenario, quoted};

/// A bucket `silent` of a server that accepts connections, and never answers.
fn with_silent_store(scenario: Scenario) -> (Scenario, TcpListener) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let store = format!("[stores.silent]\nbucket = \"b\"\nregion = \"us-east-1\"\nendpoint = {}\n", quoted(&endpoint));
    let scenario = scenario.config(&store).env("AWS_ACCESS_KEY_ID", "a").env("AWS_SECRET_ACCESS_KEY", "s");
    (scenario, listener)
}

#[test]
fn a_store_that_accepts_and_never_answers_hides_the_sets_of_no_other() {
    let server = server(18);
    let database = small_database(server);
    let scenario = two_folders(server, &database, "");
    run(&scenario).succeeded();
    let set = listed(&scenario)[0].0.clone();
    let (scenario, _listener) = with_silent_store(scenario);
    let scenario = scenario.job("elsewhere", "database = \"app\"\n[backup]\nstore = \"silent\"\n");
    let into = server.url(&format!("{database}_restored"));
    let commands: [&[&str]; 6] = [
        &["backups", "list"],
        &["backups", "list", "--json"],
        &["backups", "require", "--database", "app", "--within", "1h"],
        &["backups", "show", "latest", "--job", "nightly"],
        &["backups", "restore", "latest", "--job", "nightly", "--create", "--into", &into],
        &["check", "--connect"],
    ];
    let started: Vec<Running> = commands.iter().map(|arguments| scenario.start(arguments)).collect();
    let mut ended = started.into_iter().map(Running::wait);
    let mut next = || ended.next().unwrap();
    let silence = "it has not answered for 20.0 s";
    next().exited(69).prints(&[&set, "local, offsite"]).says(&["store `silent` cannot be read", silence]);
    let json: Value = serde_json::from_str(&next().exited(69).stdout).unwrap();
    assert_eq!((&json["sets"][0]["set"], &json["unread_stores"][0]["store"]), (&set.into(), &"silent".into()), "{json:#}");
    next().succeeded().prints(&["is a backup of `app` that counts"]);
    next().succeeded().says(&["store `silent` cannot be read, and is none of the job's", silence]);
    next().succeeded();
    let checked = next().exited(69);
    assert!(checked.stdout.contains("store silent") && checked.stdout.contains("has not"), "{}", checked.stdout);
    assert_eq!(server.sql(&format!("{database}_restored"), "SELECT count(*) FROM t"), "2000");
}

#[test]
fn a_restore_of_a_job_needs_no_other_stores_than_those_of_the_job() {
    let server = server(18);
    let s3 = S3Server::start();
    let scenario = Scenario::with_database(server, &small_database(server))
        .s3(&s3)
        .job("nightly", "database = \"app\"\n[backup]\nstore = \"local\"\n")
        .job("weekly", "database = \"app\"\n[backup]\nstore = \"bucket\"\n");
    run(&scenario).succeeded();
    s3.break_with(always(Method::GET, "", Fault::InternalError));
    scenario.run(&["backups", "show", "latest"]).exited(69).says(&["store `bucket` cannot be read; --job NAME"]);
    scenario.run(&["backups", "show", "latest", "--job", "nightly"]).succeeded().says(&["is none of the job's"]);
    scenario.run(&["backups", "show", "latest", "--job", "weekly"]).exited(69).says(&["store `bucket` cannot be read"]);
}

/// Leaves the folder of a set as a prune that was killed in the midst of it does.
fn interrupt_its_deletion(scenario: &Scenario, folder: &str) {
    let marker = std::fs::read(scenario.path(&format!("{folder}/run.json"))).unwrap();
    let marker: Value = serde_json::from_slice(&marker).unwrap();
    let deleting = serde_json::json!({
        "process": marker["process"], "identity": marker["identity"], "reasons": ["no rule keeps it"], "started_at": marker["started_at"],
    });
    std::fs::write(scenario.path(&format!("{folder}/deleting.json")), format!("{deleting:#}")).unwrap();
    std::fs::remove_file(scenario.path(&format!("{folder}/dump.sql.gz"))).unwrap();
}

#[test]
fn a_copy_into_the_rest_of_a_deleted_set_is_a_set_like_any_other() {
    let server = server(18);
    let scenario = two_folders(server, &small_database(server), "");
    run(&scenario).succeeded();
    let set = listed(&scenario)[0].0.clone();
    interrupt_its_deletion(&scenario, &format!("offsite/{set}"));
    assert_eq!(in_store(&scenario, "offsite"), []);
    let copy = ["backups", "copy", &set, "--to", "offsite"];
    scenario.run(&copy).succeeded().prints(&["is copied from local to offsite"]);
    assert!(!scenario.path(&format!("offsite/{set}/deleting.json")).exists());
    assert_eq!(in_store(&scenario, "offsite"), [(set.clone(), "intact".to_owned())]);
    // If its dump is lost now, nobody takes the rest for that of a deletion.
    std::fs::remove_file(scenario.path(&format!("offsite/{set}/dump.sql.gz"))).unwrap();
    run(&scenario).succeeded();
    assert!(scenario.path(&format!("offsite/{set}/manifest.json")).exists());
    scenario.run(&["backups", "list"]).succeeded().says(&["its dump.sql.gz is gone"]);
}

#[test]
fn no_copy_is_made_while_another_host_may_be_deleting_the_set() {
    let server = server(18);
    let scenario = two_folders(server, &small_database(server), "");
    run(&scenario).succeeded();
    let set = listed(&scenario)[0].0.clone();
    interrupt_its_deletion(&scenario, &format!("offsite/{set}"));
    let marker = scenario.path(&format!("offsite/{set}/deleting.json"));
    let elsewhere = std::fs::read_to_string(&marker).unwrap().replace("\"host\": \"", "\"host\": \"another-");
    std::fs::write(&marker, elsewhere).unwrap();
    scenario.run(&["backups", "copy", &set, "--to", "offsite"]).exited(75).says(&["may be being deleted from offsite"]);
    assert!(marker.exists() && !scenario.path(&format!("offsite/{set}/dump.sql.gz")).exists());
}

#[test]
fn a_copy_that_was_damaged_before_its_proof_is_mended_as_the_message_says() {
    let server = server(18);
    let database = small_database(server);
    let s3 = S3Server::start();
    let scenario = Scenario::with_database(server, &database)
        .s3(&s3)
        .job("nightly", "database = \"app\"\n[backup]\nstore = [\"local\", \"bucket\"]\n");
    s3.break_with(always(Method::GET, "dump.sql.gz", Fault::FlippedBit(700)));
    let failed =
        run(&scenario).says(&["the copy in bucket is not good", "No run replaces a copy that is there. This reads it again"]);
    assert_ne!(failed.code, Some(0));
    assert!(!failed.stderr.contains("The next run copies it there"), "{}", failed.stderr);
    s3.heal();
    let set = in_store(&scenario, "local")[0].0.clone();
    assert_eq!(in_store(&scenario, "bucket"), [(set.clone(), "damaged".to_owned())]);
    run(&scenario).succeeded();
    assert_eq!(in_store(&scenario, "bucket")[0].1, "damaged", "no run replaces it");
    scenario.run(&["backups", "copy", &set, "--to", "bucket"]).succeeded().prints(&["intact"]);
    assert_eq!(in_store(&scenario, "bucket")[0].1, "intact");
}

#[test]
fn a_restore_that_falls_back_records_what_was_damaged_and_prune_keeps_the_good_copy() {
    let server = server(18);
    let database = small_database(server);
    let scenario = two_folders(server, &database, "keep = { last = 1 }");
    run(&scenario).succeeded();
    let set = listed(&scenario)[0].0.clone();
    for (number, (damaged, good)) in [("store", "offsite"), ("offsite", "store")].into_iter().enumerate() {
        let name = |folder: &str| if folder == "store" { "local" } else { folder }.to_owned();
        damage(&scenario.path(&format!("{damaged}/{set}/dump.sql.gz")));
        let into = server.url(&format!("{database}_{number}"));
        let command: Vec<&str> = match number {
            0 => vec!["backups", "restore", &set, "--create", "--into", &into],
            _ => vec!["backups", "fetch", &set, "--table", "t", "--output", "rows.sql"],
        };
        // The nearest of two intact ones is taken first.
        let scenario_of = |stores: &str| format!("database = \"app\"\n[backup]\nstore = {stores}\nkeep = {{ last = 1 }}\n");
        let stores = format!("[{:?}, {:?}]", name(damaged), name(good));
        std::fs::write(scenario.path("jobs/nightly.toml"), scenario_of(&stores)).unwrap();
        scenario.run(&command).succeeded().says(&[
            &format!("the copy in {} cannot be used", name(damaged)),
            &format!("reading the copy in {} again", name(damaged)),
            "damaged",
            &format!("pgtend backups copy {set} --to {}", name(damaged)),
        ]);
        assert_eq!(in_store(&scenario, &name(damaged)), [(set.clone(), "damaged".to_owned())]);
        assert_eq!(in_store(&scenario, &name(good)), [(set.clone(), "intact".to_owned())]);
        scenario.run(&["backups", "verify", &set]).exited(1).says(&["was found damaged before"]);
        scenario.run(&["backups", "prune"]).succeeded();
        assert_eq!(in_store(&scenario, &name(good)), [(set.clone(), "intact".to_owned())], "the good copy stays");
        let require = ["backups", "require", "--database", "app", "--within", "1h", "--store", &name(damaged)];
        scenario.run(&require).exited(75).says(&["its bytes are damaged"]);
        scenario.run(&["backups", "copy", &set, "--to", &name(damaged)]).succeeded();
    }
}

/// Encrypted, and with rules of its own: what it has stays while it is away, and then it gets what it lacks, three sets at a time.
#[test]
fn a_store_that_was_gone_for_a_week_loses_nothing_and_gets_what_its_rules_keep() {
    let server = server(18);
    let database = small_database(server);
    let scenario = Scenario::with_database(server, &database);
    let key = age_key(&scenario, "key");
    let keys = format!("encrypt_to = [\"{key}\"]\nidentity_file = \"key\"\n");
    let job =
        "database = \"app\"\n[backup]\nstore = [\"local\", \"offsite\"]\nkeep = { last = 4 }\nkeep_in.offsite = { last = 6 }\n";
    let scenario = scenario.config(&keys).config(&format!("[stores.offsite]\npath = \"offsite\"\n{keys}")).job("nightly", job);
    let names = |store: &str| in_store(&scenario, store).into_iter().map(|(name, _)| name).collect::<Vec<_>>();
    for _ in 0..2 {
        run(&scenario).succeeded();
    }
    let before = names("offsite");
    std::fs::rename(scenario.path("offsite"), scenario.path("away")).unwrap();
    for night in 1..=7 {
        run(&scenario).exited(69).says(&["is in local, and not in offsite"]);
        assert_eq!(
            names("local").len(),
            std::cmp::min(night + 2, 6),
            "the store that is there keeps what the other one would keep"
        );
    }
    std::fs::rename(scenario.path("away"), scenario.path("offsite")).unwrap();
    assert_eq!(names("offsite"), before, "nothing of it went meanwhile");
    run(&scenario).succeeded().prints(&["copied 3 sets that offsite lacked"]);
    let (local, offsite) = (names("local"), names("offsite"));
    assert!(local[2..].iter().all(|set| offsite.contains(set)), "{local:?}, {offsite:?}");
    assert!(
        local.len() == 6 && !local[..2].iter().any(|set| offsite.contains(set)),
        "what is for the next run stays: {local:?}, {offsite:?}"
    );
    assert_eq!(offsite.len(), 6, "{offsite:?}");
    run(&scenario).succeeded().prints(&["copied 1 set that offsite lacked"]);
    let (rest, offsite) = (names("local"), names("offsite"));
    assert!(rest.iter().chain(&local[1..2]).all(|set| offsite.contains(set)), "{rest:?}, {offsite:?}");
    assert_eq!((rest.len(), offsite.len()), (4, 6), "{rest:?}, {offsite:?}");
    for set in names("offsite") {
        scenario.run(&["backups", "verify", &set, "--store", "offsite"]).succeeded().prints(&["2,000 rows"]);
    }
    scenario.run(&["backups", "list"]).succeeded();
}
