//! Rows that come back from an archive: once, those that are asked for, in the letters and names that they had.

use serde_json::Value;

use crate::retention::{logs, scenario};
use crate::support::postgres::{SOME_MAJORS, Server, server};
use crate::support::{Scenario, quoted};

pub const ALL: &str = "SELECT count(*), sum(hashtext(l::text)::bigint) FROM logs l";

pub fn batches(scenario: &Scenario) -> Vec<Value> {
    scenario.json(&["archives", "list"])["batches"].as_array().unwrap().clone()
}

#[test]
fn rows_come_back_once_and_are_not_archived_a_second_time_unless_they_were_changed() {
    for major in SOME_MAJORS {
        let server = server(major);
        let database = logs(server, 1000);
        let before = server.sql(&database, ALL);
        let scenario = scenario(server, &database, "archive = 'local'");
        scenario.run(&["run-job", "old-logs"]).succeeded();
        let planned = scenario.json(&["archives", "restore", "--dry-run"]);
        assert_eq!((&planned["dry_run"], &planned["batches"][0]["outcome"]), (&true.into(), &"put_back".into()), "{planned:#}");
        scenario.run(&["archives", "restore"]).succeeded().prints(&["760 rows put back from 1 archive object"]);
        for dry_run in [&[][..], &["--dry-run"]] {
            let again = scenario.json(&[&["archives", "restore"], dry_run].concat());
            assert_eq!((&again["rows"], &again["batches"][0]["outcome"]), (&0.into(), &"already_back".into()), "{again:#}");
        }
        for _ in 0..2 {
            scenario.run(&["archives", "restore"]).succeeded().prints(&["0 rows put back", "1 batch already back"]);
            assert_eq!(server.sql(&database, ALL), before, "on {major}");
        }
        // They are as old as they were, and leave again: the archive has them.
        let run = scenario.json(&["run-job", "old-logs"]);
        assert_eq!(run["runs"][0]["report"]["facts"]["rows_deleted"], 760, "{run:#}");
        assert_eq!(server.sql(&database, "SELECT count(*) FROM logs"), "241");
        assert_eq!(batches(&scenario).len(), 1, "archived once");
        assert!(!scenario.files("store").iter().any(|file| file.ends_with(".pending.json")));
        // What left again may come back again.
        scenario.run(&["archives", "restore"]).succeeded().prints(&["760 rows put back"]);
        assert_eq!(server.sql(&database, ALL), before);

        server.sql(&database, "UPDATE logs SET status = 'changed' WHERE id = 7");
        scenario.run(&["run-job", "old-logs"]).succeeded();
        let listed = batches(&scenario);
        assert_eq!((listed.len(), &listed[1]["manifest"]["rows"]), (2, &Value::from(1)), "{listed:#?}");
        // The changed row is in a batch of its own, and wins over what it was.
        let back = scenario.json(&["archives", "restore"]);
        assert_eq!((&back["rows"], back["batches"].as_array().unwrap().len()), (&760.into(), 2), "{back:#}");
        assert!(back["batches"].as_array().unwrap().iter().all(|batch| batch["table"] == "\"public\".\"logs\""), "{back:#}");
        assert_eq!(server.sql(&database, "SELECT count(*), count(*) FILTER (WHERE status = 'changed') FROM logs"), "1001|1");
    }
}

#[test]
fn of_a_table_without_a_key_rows_come_back_once_all_the_same() {
    let server = server(18);
    let database = logs(server, 1000);
    server.sql(&database, "ALTER TABLE logs DROP CONSTRAINT logs_pkey");
    let before = server.sql(&database, ALL);
    let scenario = scenario(server, &database, "archive = 'local'");
    for round in 0..3 {
        scenario.run(&["run-job", "old-logs"]).succeeded();
        scenario.run(&["archives", "restore"]).succeeded().prints(&["760 rows put back from 1 "]);
        scenario.run(&["archives", "restore"]).succeeded().prints(&["0 rows put back"]);
        assert_eq!(server.sql(&database, ALL), before, "round {round}");
    }
}

#[test]
fn a_restore_that_is_killed_puts_nothing_back_twice() {
    let server = server(18);
    let database = logs(server, 60_000);
    let before = server.sql(&database, ALL);
    let scenario = scenario(server, &database, "archive = 'local'");
    scenario.run(&["run-job", "old-logs", "--yes"]).succeeded();
    server.sql(&database, "ALTER TABLE logs DROP CONSTRAINT logs_pkey");
    for moment in 0..8 {
        let running = scenario.start(&["archives", "restore"]);
        std::thread::sleep(std::time::Duration::from_millis(30 + moment * 40));
        running.kill();
        let backends = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pgtend' AND datname = current_database()";
        crate::support::eventually("the server let go of it", || server.sql(&database, backends) == "0");
    }
    scenario.run(&["archives", "restore"]).succeeded();
    assert_eq!(server.sql(&database, ALL), before);
}

#[test]
fn only_the_rows_that_are_asked_for_come_back_and_the_rest_later() {
    for major in SOME_MAJORS {
        let server = server(major);
        let database = logs(server, 1000);
        server.sql(&database, "CREATE TABLE other (LIKE logs INCLUDING ALL); INSERT INTO other (created_at, status) SELECT now() - interval '40 days', 'other' FROM generate_series(1, 5)");
        let before = server.sql(&database, ALL);
        let scenario = scenario(server, &database, "archive = 'local'").job(
            "others",
            "database = 'app'\n[retention]\ntable = 'public.other'\ncolumn = 'created_at'\nolder_than = '10d'\narchive = 'local'\n",
        );
        scenario.run(&["run-job", "old-logs"]).succeeded();
        scenario.run(&["run-job", "others", "--yes"]).succeeded();
        let time =
            server.sql(&database, "SELECT (now() - interval '21 days')::date || '..' || (now() - interval '20 days')::date");
        scenario
            .run(&["archives", "restore", "--table", "public.logs", "--key", "id=7,8", "--dry-run"])
            .succeeded()
            .prints(&["those with id = 7, 8"]);
        scenario
            .run(&["archives", "restore", "--table", "public.logs", "--key", "id=7,8"])
            .succeeded()
            .prints(&["2 rows put back"]);
        scenario
            .run(&["archives", "restore", "--table", "public.logs", "--key", "id=7,8"])
            .succeeded()
            .prints(&["0 rows put back"]);
        assert_eq!(server.sql(&database, "SELECT count(*) FROM logs WHERE id IN (7, 8)"), "2");
        scenario.run(&["archives", "restore", "--table", "logs", "--time", &time]).succeeded().prints(&["24 rows put back"]);
        scenario
            .run(&["archives", "restore", "--table", "logs", "--time", &time, "--key", "status=ok"])
            .succeeded()
            .prints(&["0 rows put back"]);
        assert_eq!(server.sql(&database, "SELECT count(*) FROM other"), "0");
        // All that is not there yet.
        scenario.run(&["archives", "restore"]).succeeded().prints(&["739 rows put back from 2 "]);
        assert_eq!(server.sql(&database, ALL), before, "on {major}");
        assert_eq!(server.sql(&database, "SELECT count(*) FROM other"), "5");
        for (arguments, says) in [
            (["--key", "id"], "write COLUMN=VALUE"),
            (["--key", "nosuch=1"], "has no column nosuch"),
            (["--time", "yesterday"], "write FROM..TO"),
        ] {
            scenario.run(&[&["archives", "restore"][..], &arguments[..]].concat()).exited(78).says(&[says]);
        }
    }
}

#[test]
fn a_batch_whose_rows_are_there_keeps_no_other_from_coming_back() {
    let server = server(16);
    let database = logs(server, 1000);
    let before = server.sql(&database, ALL);
    let first = scenario(server, &database, "archive = 'local'\nwhere = \"status = 'ok'\"").ledger();
    first.run(&["run-job", "old-logs"]).succeeded();
    let second = scenario_in(first, "archive = 'local'");
    second.run(&["run-job", "old-logs"]).succeeded();
    // By stock tools: nobody recorded that.
    let object = second.files("store").into_iter().find(|file| file.ends_with(".sql.gz")).unwrap();
    let text = std::process::Command::new("gunzip").arg("-c").arg(second.path("store").join(object)).output().unwrap();
    server.sql(&database, &String::from_utf8(text.stdout).unwrap());
    second.run(&["archives", "restore"]).exited(1).prints(&["380 rows put back from 1 "]).says(&[
        "1 batch not put back",
        "duplicate key",
        "--key COLUMN=VALUE",
        "--into TABLE",
    ]);
    assert_eq!(server.sql(&database, ALL), before);
    let row = second.runs(&[]).pop().unwrap();
    assert_eq!((&row["task"], &row["outcome"]), (&"archives restore".into(), &"failed".into()), "{row:#}");
    assert!(row["error"].as_str().unwrap().contains("1 batch not put back"), "{row:#}");
}

pub fn scenario_in(scenario: Scenario, more: &str) -> Scenario {
    scenario.job(
        "old-logs",
        &format!("database = 'app'\n[retention]\ntable = 'public.logs'\ncolumn = 'created_at'\nolder_than = '10d'\n{more}\n"),
    )
}

#[test]
fn rows_of_databases_in_other_encodings_leave_and_come_back_byte_for_byte() {
    for major in SOME_MAJORS {
        let server = server(major);
        for encoding in ["LATIN1", "SQL_ASCII"] {
            let database = format!("enc_{}_{}", encoding.to_lowercase(), server.new_database());
            server.sql(
                "postgres",
                &format!("CREATE DATABASE {database} ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0"),
            );
            server.sql(
                &database,
                "SET client_encoding = 'SQL_ASCII';
                 CREATE TABLE logs (id int PRIMARY KEY, created_at timestamptz, x text);
                 INSERT INTO logs SELECT g, now() - g * interval '1 day', E'caf\\xe9 ' || g FROM generate_series(1, 50) g;
                 CREATE TABLE parts (id int, at timestamptz, x text) PARTITION BY RANGE (at);
                 CREATE TABLE parts_old PARTITION OF parts FOR VALUES FROM ('2001-01-01') TO ('2001-02-01');
                 INSERT INTO parts VALUES (1, '2001-01-05', E'\\xe9\\xff')",
            );
            let scenario = scenario(server, &database, "archive = 'local'").partitions(
                "public.parts",
                "at",
                "every = \"month\"\nretain = \"90d\"\ngrace = \"0s\"\narchive = \"local\"",
            );
            let bytes = "SELECT md5(string_agg(textsend(x)::text, ',' ORDER BY id)) FROM logs";
            let before = server.sql(&database, bytes);
            scenario.run(&["run-job", "old-logs"]).succeeded();
            assert_eq!(server.sql(&database, "SELECT count(*) FROM logs"), "9", "{encoding} on {major}");
            scenario.run(&["archives", "restore"]).succeeded().prints(&["41 rows put back"]);
            assert_eq!(server.sql(&database, bytes), before, "{encoding} on {major}");
            scenario.tend().succeeded().prints(&["archived 1 partition, dropped 1 partition"]);
            server.sql(&database, "CREATE TABLE back (LIKE parts)");
            scenario.run(&["archives", "restore", "--job", "tend", "--into", "public.back"]).succeeded();
            assert_eq!(server.sql(&database, "SELECT textsend(x) FROM back"), "\\xe9ff");
            // By stock tools, too.
            server.sql(&database, "DELETE FROM logs WHERE id > 9");
            let object = scenario.files("store/app/old-logs").into_iter().find(|file| file.ends_with(".sql.gz")).unwrap();
            let unzip = format!(
                "gunzip -c {} | {} -Xq -v ON_ERROR_STOP=1 -o /dev/null",
                quoted(&scenario.path("store/app/old-logs").join(object).display().to_string()),
                server.bin_dir.join("psql").display()
            );
            let mut psql = server.tool("psql", &database);
            let environment: Vec<_> = psql.get_envs().map(|(name, value)| (name.to_owned(), value.unwrap().to_owned())).collect();
            psql = std::process::Command::new("sh");
            assert!(psql.args(["-c", &unzip]).envs(environment).status().unwrap().success());
            assert_eq!(server.sql(&database, bytes), before, "{encoding} on {major}, by psql");
        }
    }
}

#[test]
fn names_in_rows_are_read_as_they_were_written() {
    let server = server(18);
    let database = server.new_database();
    server.sql(
        &database,
        &format!(
            "CREATE SCHEMA app; CREATE TABLE app.users (id int);
             CREATE TABLE app.logs (id int PRIMARY KEY, created_at timestamptz, of regclass);
             INSERT INTO app.logs SELECT g, now() - g * interval '1 day', 'app.users' FROM generate_series(1, 50) g;
             ALTER ROLE postgres IN DATABASE {database} SET search_path = 'app'"
        ),
    );
    let scenario = Scenario::with_database(server, &database).job(
        "old",
        "database = 'app'\n[retention]\ntable = 'app.logs'\ncolumn = 'created_at'\nolder_than = '10d'\narchive = 'local'\n",
    );
    scenario.run(&["run-job", "old"]).succeeded();
    let object = scenario.files("store").into_iter().find(|file| file.ends_with(".sql.gz")).unwrap();
    let text = std::process::Command::new("gunzip").arg("-c").arg(scenario.path("store").join(&object)).output().unwrap();
    let text = String::from_utf8(text.stdout).unwrap();
    // These servers may be built without XML.
    assert!(text.contains("SET xmloption = content;"), "{text}");
    // Under another search_path than the application's.
    server.sql("postgres", &format!("ALTER ROLE postgres IN DATABASE {database} RESET search_path"));
    server.sql(&database, &text);
    let rows = "SELECT count(*), count(DISTINCT of), min(of::text) FROM app.logs";
    assert_eq!(server.sql(&database, rows), "50|1|app.users");
    server.sql(&database, "DELETE FROM app.logs WHERE id > 9");
    server.sql("postgres", &format!("ALTER ROLE postgres IN DATABASE {database} SET search_path = 'app'"));
    scenario.run(&["archives", "restore"]).succeeded().prints(&["41 rows put back"]);
    assert_eq!(server.sql(&database, "SELECT count(DISTINCT of) FROM app.logs"), "1");
}

#[test]
fn a_ledger_in_another_encoding_takes_the_end_of_every_run() {
    for (major, encoding) in [(15, "LATIN1"), (18, "LATIN1"), (18, "WIN1251"), (18, "SQL_ASCII")] {
        let server = server(major);
        let ledger = format!("led_{}_{}", encoding.to_lowercase(), server.new_database());
        server.sql(
            "postgres",
            &format!("CREATE DATABASE {ledger} ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0"),
        );
        let database = server.new_database();
        let scenario = Scenario::with_database(server, &database)
            .config(&format!("[databases.history]\nurl = {}\n[ledger]\ndatabase = \"history\"\n", quoted(&server.url(&ledger))))
            .sql_job("good", "", &["DO $$ BEGIN RAISE NOTICE 'caf\u{e9} \u{2026} \u{416} \u{1f600}'; END $$"])
            .sql_job("bad", "", &["DO $$ BEGIN RAISE EXCEPTION 'caf\u{e9} \u{2026} \u{416} \u{1f600}'; END $$"]);
        scenario.run(&["run-job", "good"]).succeeded();
        scenario.run(&["run-job", "bad"]).exited(1);
        let outcomes = "SELECT string_agg(outcome, ' ' ORDER BY id) FROM pgtend.runs";
        assert_eq!(server.sql(&ledger, outcomes), "succeeded failed", "{encoding} on {major}");
        let error = scenario.runs(&[])[1]["error"].as_str().unwrap().to_owned();
        assert!(error.contains("caf"), "{error}");
    }
}

/// A physical copy has all the numbers of its original.
#[test]
fn rows_that_came_back_on_a_physical_copy_are_not_taken_for_back_on_its_original() {
    let server = Server::start(18);
    let database = logs(&server, 1000);
    let copy = server.standby();
    copy.catches_up(&server);
    copy.promote();
    let scenario = scenario(&server, &database, "archive = 'local'").config(&also("staging", &copy, &database));
    scenario.run(&["run-job", "old-logs"]).succeeded();
    copy.sql(&database, "DELETE FROM logs WHERE created_at < now() - interval '10 days'");
    scenario.run(&["archives", "restore", "--to", "staging"]).succeeded().prints(&["760 rows put back"]);
    scenario.run(&["archives", "restore"]).succeeded().prints(&["760 rows put back from 1 "]);
    assert_eq!([&server, &copy].map(|server| server.sql(&database, "SELECT count(*) FROM logs")), ["1001", "1001"]);
}

#[test]
fn a_database_with_another_name_in_the_configuration_gets_its_rows_once() {
    let mut server = Server::start(18);
    let database = logs(&server, 1000);
    server.sql(&database, "ALTER TABLE logs DROP CONSTRAINT logs_pkey");
    let before = server.sql(&database, ALL);
    let scenario = scenario(&server, &database, "archive = 'local'").config(&also("shop", &server, &database));
    scenario.run(&["run-job", "old-logs"]).succeeded();
    scenario.run(&["archives", "restore"]).succeeded().prints(&["760 rows put back"]);
    scenario.run(&["archives", "restore", "--to", "shop"]).succeeded().prints(&["0 rows put back", "1 batch already back"]);
    assert_eq!(server.sql(&database, ALL), before);
    // From here on it might be a copy that was made in between.
    server.crash();
    server.start_again();
    for more in [&["--dry-run"][..], &[]] {
        let arguments = [&["archives", "restore", "--to", "shop"], more].concat();
        scenario.run(&arguments).exited(75).says(&["under another name, or a physical copy", "--again"]);
    }
    scenario.run(&["archives", "restore"]).succeeded().prints(&["1 batch already back"]);
    assert_eq!(server.sql(&database, ALL), before);
}

pub fn also(name: &str, server: &Server, database: &str) -> String {
    format!("[databases.{name}]\nurl = {}\n", quoted(&server.url(database)))
}

#[test]
fn letters_that_utf8_does_not_have_leave_and_come_back_byte_for_byte() {
    for (major, encoding, bytes) in [(18, "WIN1252", "\\x81"), (15, "EUC_JP", "\\xf5\\xa1"), (18, "EUC_KR", "\\xfe\\xfe")] {
        let server = server(major);
        let database = format!("gap_{}_{}", encoding.to_lowercase(), server.new_database());
        server.sql(
            "postgres",
            &format!("CREATE DATABASE {database} ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0"),
        );
        server.sql(
            &database,
            &format!(
                "SET client_encoding = '{encoding}';
                 CREATE TABLE logs (id int PRIMARY KEY, created_at timestamptz, x text);
                 INSERT INTO logs SELECT g, now() - g * interval '1 day', E'a{bytes}b' || g FROM generate_series(1, 50) g;
                 CREATE FUNCTION told() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE WARNING '%', old.x; RETURN old; END $$;
                 CREATE TRIGGER told BEFORE DELETE ON logs FOR EACH ROW EXECUTE FUNCTION told();
                 CREATE TABLE parts (id int, at timestamptz, x text) PARTITION BY RANGE (at);
                 CREATE TABLE parts_old PARTITION OF parts FOR VALUES FROM ('2001-01-01') TO ('2001-02-01');
                 INSERT INTO parts VALUES (1, '2001-01-05', E'a{bytes}b')"
            ),
        );
        let scenario = scenario(server, &database, "archive = 'local'").partitions(
            "public.parts",
            "at",
            "every = \"month\"\nretain = \"90d\"\ngrace = \"0s\"\narchive = \"local\"",
        );
        let sum = "SET client_encoding = 'SQL_ASCII'; SELECT md5(string_agg(textsend(x)::text, ',' ORDER BY id)) FROM logs";
        let before = server.sql(&database, sum);
        scenario.run(&["run-job", "old-logs"]).succeeded();
        assert_eq!(server.sql(&database, "SELECT count(*) FROM logs"), "9", "{encoding}");
        let listed = batches(&scenario);
        assert_eq!(
            (&listed[0]["manifest"]["encoding"], &listed[0]["manifest"]["format"]),
            (&encoding.into(), &3.into()),
            "{listed:#?}"
        );
        scenario.run(&["archives", "restore", "--key", "id=20"]).succeeded().prints(&["1 row put back"]);
        scenario.run(&["archives", "restore"]).succeeded().prints(&["40 rows put back"]);
        assert_eq!(server.sql(&database, sum), before, "{encoding}");
        scenario.tend().succeeded().prints(&["archived 1 partition, dropped 1 partition"]);
        server.sql(&database, "CREATE TABLE back (LIKE parts)");
        scenario.run(&["archives", "restore", "--job", "tend", "--into", "public.back"]).succeeded();
        let same = format!("SET client_encoding = '{encoding}'; SELECT x = E'a{bytes}b' FROM back");
        assert_eq!(server.sql(&database, &same), "t", "{encoding}");
    }
}
