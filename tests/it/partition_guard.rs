//! A detached partition until its end: nobody changes it unseen, and it goes only when its archive is what it was. On 15, 16 and 18.

use crate::partition::{first_is_over, old_logs, partitions_of};
use crate::support::Scenario;
use crate::support::postgres::{SOME_MAJORS, Server, server};

fn kept() -> String {
    first_is_over() + "\narchive = \"local\""
}

fn over() -> String {
    kept() + "\ngrace = \"0s\""
}

/// `logs` whose rows refer to users, each partition to one of its own; and the detached partition.
fn detached(server: &Server, more: &str) -> (String, Scenario, String) {
    let database = old_logs(server, 5);
    server.sql(
        &database,
        "CREATE TABLE users (id int PRIMARY KEY); INSERT INTO users SELECT g FROM generate_series(1, 600) g;
         ALTER TABLE logs ADD COLUMN user_id int; UPDATE logs SET user_id = id;
         ALTER TABLE logs ADD CONSTRAINT of_user FOREIGN KEY (user_id) REFERENCES users",
    );
    let scenario = Scenario::logs(server, &database, more);
    scenario.tend().succeeded().prints(&["detached 1 partition"]);
    let table =
        server.sql(&database, "SELECT objoid::regclass FROM pg_description WHERE description LIKE 'Retired from%' LIMIT 1");
    (database, scenario, table)
}

#[test]
fn a_detached_partition_takes_no_changes_and_says_the_way_back() {
    for major in SOME_MAJORS {
        let server = server(major);
        let (database, scenario, table) = detached(server, &first_is_over());
        let mut said = String::new();
        for replica in ["", "SET session_replication_role = replica; "] {
            for change in [
                format!("INSERT INTO {table} SELECT * FROM {table} LIMIT 1"),
                format!("UPDATE {table} SET body = 'new'"),
                format!("DELETE FROM {table}"),
                format!("TRUNCATE {table}"),
            ] {
                said = server.psql(&database, &format!("{replica}{change}")).unwrap_err();
                assert!(said.contains("was retired from public.logs by pgtend and takes no changes"), "{said}");
            }
        }
        // Only the detached table refers to it.
        server.sql(&database, "DELETE FROM users WHERE id = 1; INSERT INTO users VALUES (1)");

        let way_back = said.split("to bring it back: ").nth(1).unwrap().split("; and set a longer").next().unwrap();
        server.sql(&database, way_back);
        assert_eq!(server.sql(&database, "SELECT count(*) FROM logs"), "600", "on {major}");
        let error = server.psql(&database, "DELETE FROM users WHERE id = 1").unwrap_err();
        assert!(error.contains("violates foreign key"), "ATTACH made it again: {error}");
        let scenario = scenario.partitions("public.logs", "at", "every = \"month\"\nretain = \"900d\"");
        scenario.tend().succeeded();
        let left = "SELECT count(*) FROM pg_proc WHERE proname LIKE 'pgtend%'";
        assert_eq!(server.sql(&database, left), "0");
        assert_eq!(server.sql(&database, "SELECT count(*) FROM pg_description WHERE description LIKE 'Retired%'"), "0");
        server.sql(&database, &format!("UPDATE {table} SET body = 'new'"));
    }
}

#[test]
fn attached_again_with_its_guard_the_next_run_takes_it_off() {
    let server = server(18);
    let (database, scenario, table) = detached(server, &first_is_over());
    let bounds =
        server.sql(&database, &format!("SELECT substring(obj_description('{table}'::regclass) FROM 'FOR VALUES [^\"]*')"));
    server.sql(&database, &format!("ALTER TABLE logs ATTACH PARTITION {table} {bounds}"));
    scenario.partitions("public.logs", "at", "every = \"month\"\nretain = \"900d\"").tend().succeeded();
    server.sql(&database, &format!("UPDATE {table} SET body = 'new'"));
    assert_eq!(server.sql(&database, "SELECT count(*) FROM pg_proc WHERE proname LIKE 'pgtend%'"), "0");
}

#[test]
fn a_change_past_the_guard_is_archived_again_and_has_a_grace_of_its_own() {
    for major in SOME_MAJORS {
        let server = server(major);
        let (database, scenario, table) = detached(server, &kept());
        // As many rows, and other ones.
        server.sql(
            &database,
            &format!("ALTER TABLE {table} DISABLE TRIGGER pgtend_retired; UPDATE {table} SET body = 'changed' WHERE id = 1"),
        );
        let scenario = scenario.partitions("public.logs", "at", &over());
        scenario.tend().succeeded().says(&["was written to after it was archived"]);
        assert_eq!(server.sql(&database, &format!("SELECT count(*) FROM {table}")), "100", "not dropped unseen");
        let error = server.psql(&database, &format!("DELETE FROM {table}")).unwrap_err();
        assert!(error.contains("takes no changes"), "guarded again: {error}");
        scenario.tend().succeeded().prints(&["dropped 1 partition"]);
        server.sql(&database, "CREATE TABLE back (LIKE logs)");
        scenario.run(&["archives", "restore", "--into", "public.back"]).succeeded().prints(&["100 rows put back from 1 "]);
        assert_eq!(server.sql(&database, "SELECT count(*), count(*) FILTER (WHERE body = 'changed') FROM back"), "100|1");
        let listed = scenario.json(&["archives", "list"]);
        assert_eq!(listed["batches"].as_array().unwrap().len(), 1, "the first one counts no more: {listed:#}");
    }
}

#[test]
fn what_was_changed_back_is_dropped_and_rows_that_cancel_each_other_out_are_seen() {
    let server = server(18);
    let (database, scenario, table) = detached(server, &kept());
    server.sql(
        &database,
        &format!(
            "ALTER TABLE {table} DISABLE TRIGGER pgtend_retired; UPDATE {table} SET body = 'x' WHERE id = 1; UPDATE {table} SET body = 'old' WHERE id = 1"
        ),
    );
    let dropping = scenario.partitions("public.logs", "at", &over());
    dropping.tend().succeeded().prints(&["dropped 1 partition"]);

    // Two equal rows in the place of two other equal rows: with xor the sum would be the same.
    let database = server.new_database();
    server.sql(
        &database,
        "CREATE TABLE logs (at timestamptz NOT NULL, body text) PARTITION BY RANGE (at);
         CREATE TABLE logs_old PARTITION OF logs FOR VALUES FROM ('2001-01-01Z') TO ('2001-02-01Z');
         INSERT INTO logs SELECT '2001-01-05Z', 'a' FROM generate_series(1, 2)",
    );
    let scenario = Scenario::logs(server, &database, &kept());
    scenario.tend().succeeded().prints(&["archived 1 partition"]);
    server.sql(&database, "ALTER TABLE logs_old DISABLE TRIGGER pgtend_retired; UPDATE logs_old SET body = 'b'");
    let dropping = scenario.partitions("public.logs", "at", &over());
    dropping.tend().succeeded().says(&["was written to after it was archived"]);
    assert_eq!(server.sql(&database, "SELECT count(*) FROM logs_old WHERE body = 'b'"), "2");
}

/// The guard fires per statement: neither for a subscription's rows nor through another root.
#[test]
fn a_guard_that_is_there_and_a_count_that_is_right_do_not_stand_for_the_rows() {
    let server = server(18);
    for by_another_root in [false, true] {
        let (database, scenario, table) = detached(server, &kept());
        let bounds =
            server.sql(&database, &format!("SELECT substring(obj_description('{table}'::regclass) FROM 'FOR VALUES [^\"]*')"));
        server.sql(
            &database,
            &match by_another_root {
                true => format!(
                    "CREATE TABLE other (LIKE logs INCLUDING ALL) PARTITION BY RANGE (at); ALTER TABLE other ATTACH PARTITION {table} {bounds};
                     UPDATE other SET body = 'changed'; ALTER TABLE other DETACH PARTITION {table}"
                ),
                false => format!(
                    "ALTER TABLE {table} DISABLE TRIGGER pgtend_retired; UPDATE {table} SET body = 'changed'; ALTER TABLE {table} ENABLE ALWAYS TRIGGER pgtend_retired"
                ),
            },
        );
        let dropping = scenario.partitions("public.logs", "at", &over());
        dropping.tend().succeeded().says(&["was written to after it was archived"]);
        assert_eq!(server.sql(&database, &format!("SELECT count(*) FROM {table} WHERE body = 'changed'")), "100");
    }
}

#[test]
fn a_partition_that_was_attached_again_and_changed_has_one_batch_that_counts() {
    let server = server(18);
    let (database, scenario, table) = detached(server, &kept());
    let bounds =
        server.sql(&database, &format!("SELECT substring(obj_description('{table}'::regclass) FROM 'FOR VALUES [^\"]*')"));
    server.sql(&database, &format!("ALTER TABLE logs ATTACH PARTITION {table} {bounds}; UPDATE logs SET body = 'changed' WHERE tableoid = '{table}'::regclass"));
    scenario.tend().succeeded().prints(&["detached 1 partition"]);
    let dropping = scenario.partitions("public.logs", "at", &over());
    dropping.tend().succeeded().says(&["was written to after it was archived"]);
    dropping.tend().succeeded().prints(&["dropped 1 partition"]);
    server.sql(&database, "CREATE TABLE back (LIKE logs)");
    dropping.run(&["archives", "restore", "--into", "public.back"]).succeeded().prints(&["100 rows put back from 1 "]);
    assert_eq!(server.sql(&database, "SELECT count(*) FILTER (WHERE body = 'changed') FROM back"), "100");
}

/// What was archived when it was detached is in the table again.
#[test]
fn a_partition_that_was_attached_again_and_stays_is_not_put_back_a_second_time() {
    let server = server(18);
    for with_archive in [true, false] {
        let (database, scenario, table) = detached(server, &kept());
        assert_eq!(scenario.json(&["archives", "list"])["batches"].as_array().unwrap().len(), 1);
        let bounds =
            server.sql(&database, &format!("SELECT substring(obj_description('{table}'::regclass) FROM 'FOR VALUES [^\"]*')"));
        server.sql(&database, &format!("ALTER TABLE logs ATTACH PARTITION {table} {bounds}"));
        let keys = if with_archive { "\narchive = \"local\"" } else { "" };
        let kept = scenario.partitions("public.logs", "at", &format!("every = \"month\"\nretain = \"900d\"{keys}"));
        let said = kept.tend().succeeded();
        if !with_archive {
            said.says(&["the job no longer has an `archive`", "would insert its rows a second time"]);
            continue;
        }
        let rows = "SELECT count(*), count(DISTINCT id) FROM logs";
        assert_eq!(server.sql(&database, rows), "600|600");
        kept.run(&["archives", "restore"]).succeeded();
        assert_eq!(server.sql(&database, rows), "600|600", "what is there does not come once more");
        // It retires after all, with an archive of its own.
        let dropping = kept.partitions("public.logs", "at", &over());
        dropping.tend().succeeded().prints(&["dropped"]);
        server.sql(&database, &format!("CREATE TABLE {table} PARTITION OF logs {bounds}"));
        dropping.run(&["archives", "restore"]).succeeded().prints(&["100 rows put back from 1 "]);
        assert_eq!(server.sql(&database, rows), "600|600");
    }
}

#[test]
fn without_an_archive_a_table_whose_guard_was_taken_off_stays() {
    let server = server(16);
    let (database, scenario, table) = detached(server, &first_is_over());
    server.sql(&database, &format!("DROP TRIGGER pgtend_retired ON {table}"));
    let scenario = scenario.partitions("public.logs", "at", &(first_is_over() + "\ngrace = \"0s\""));
    scenario.tend().exited(1).says(&["its trigger pgtend_retired was removed"]);
    assert_eq!(server.sql(&database, &format!("SELECT count(*) FROM {table}")), "100");
}

#[test]
fn a_drop_reads_every_byte_of_its_archive_first() {
    for major in SOME_MAJORS {
        let server = server(major);
        for damage in ["a byte", "its end", "all of it"] {
            let (database, scenario, table) = detached(server, &kept());
            let object = scenario.files("store").into_iter().find(|file| file.ends_with(".sql.gz")).unwrap();
            let path = scenario.path(&format!("store/{object}"));
            let mut bytes = std::fs::read(&path).unwrap();
            match damage {
                "a byte" => {
                    let middle = bytes.len() / 2;
                    bytes[middle] ^= 1;
                    std::fs::write(&path, &bytes).unwrap();
                }
                "its end" => std::fs::write(&path, &bytes[..bytes.len() - 1]).unwrap(),
                _ => std::fs::remove_file(&path).unwrap(),
            }
            let dropping = scenario.partitions("public.logs", "at", &over());
            dropping.tend().succeeded().prints(&["archived 1 partition, dropped 1 partition"]);
            assert!(!partitions_of(server, &database, "logs").contains(&table));
            server.sql(&database, "CREATE TABLE back (LIKE logs)");
            dropping.run(&["archives", "restore", "--into", "public.back"]).succeeded().prints(&["100 rows put back"]);
            assert_eq!(server.sql(&database, "SELECT count(*), count(DISTINCT id) FROM back"), "100|100", "{damage} on {major}");
        }
    }
}

/// The configuration has both stores, and a restore looks into both.
#[test]
fn a_job_that_names_another_store_in_the_grace_has_its_rows_back_once() {
    for major in SOME_MAJORS {
        let server = server(major);
        let (database, scenario, _) = detached(server, &kept());
        let scenario = scenario.config("[stores.second]\npath = \"second\"\n");
        let elsewhere = first_is_over() + "\narchive = \"second\"\ngrace = \"0s\"";
        let dropping = scenario.partitions("public.logs", "at", &elsewhere);
        dropping.tend().succeeded().prints(&["archived 1 partition, dropped 1 partition"]);
        assert_eq!(server.sql(&database, "SELECT count(*) FROM logs"), "500");
        let listed = dropping.json(&["archives", "list"]);
        let stores: Vec<_> = listed["batches"].as_array().unwrap().iter().map(|batch| &batch["store"]).collect();
        assert_eq!(stores, ["second"], "{listed:#}");
        server.sql(&database, "CREATE TABLE back (LIKE logs)");
        dropping.run(&["archives", "restore", "--into", "public.back"]).succeeded().prints(&["100 rows put back from 1 "]);
        assert_eq!(server.sql(&database, "SELECT count(*), count(DISTINCT id) FROM back"), "100|100", "on {major}");
        // The one in the former store is there for who asks for it.
        let first = dropping.json(&["archives", "list", "--store", "local"]);
        assert_eq!(first["batches"].as_array().unwrap().len(), 1, "{first:#}");
    }
}

#[test]
fn a_detached_partition_that_is_attached_again_after_the_job_named_another_store_is_back() {
    let server = server(18);
    let (database, scenario, table) = detached(server, &kept());
    let said = server.psql(&database, &format!("DELETE FROM {table}")).unwrap_err();
    let way_back = said.split("to bring it back: ").nth(1).unwrap().split("; and set a longer").next().unwrap();
    server.sql(&database, way_back);
    let elsewhere = "every = \"month\"\nretain = \"900d\"\narchive = \"second\"";
    let scenario = scenario.config("[stores.second]\npath = \"second\"\n").partitions("public.logs", "at", elsewhere);
    scenario.tend().succeeded();
    scenario.run(&["archives", "restore"]).succeeded().prints(&["already back"]);
    assert_eq!(server.sql(&database, "SELECT count(*) FROM logs"), "600");
}

#[test]
fn a_column_that_came_in_the_grace_is_archived_too() {
    let server = server(18);
    let (database, scenario, table) = detached(server, &kept());
    server.sql(&database, &format!("ALTER TABLE {table} ADD COLUMN note text DEFAULT 'n', DISABLE TRIGGER pgtend_retired"));
    let dropping = scenario.partitions("public.logs", "at", &over());
    dropping.tend().succeeded().says(&["was written to after it was archived"]);
    dropping.tend().succeeded().prints(&["dropped 1 partition"]);
}

/// Its archive says the name and the number that the table had then.
#[test]
fn a_table_that_is_renamed_in_the_grace_has_its_rows_archived_once() {
    let server = server(18);
    for takes_the_name in ["", "CREATE VIEW logs AS SELECT * FROM journal", "CREATE TABLE logs (LIKE journal)"] {
        let (database, scenario, table) = detached(server, &kept());
        server.sql(&database, &format!("ALTER TABLE logs RENAME TO journal; {takes_the_name}"));
        let scenario = scenario.partitions("public.journal", "at", &over());
        scenario.tend().succeeded().prints(&["dropped 1 partition"]);
        assert_eq!(server.sql(&database, &format!("SELECT to_regclass('{table}') IS NULL")), "t", "{takes_the_name}");
        let listed = scenario.json(&["archives", "list"]);
        assert_eq!(listed["batches"].as_array().unwrap().len(), 1, "{takes_the_name}: {listed:#}");
        server.sql(&database, "CREATE TABLE back (LIKE journal)");
        scenario.run(&["archives", "restore", "--into", "public.back"]).succeeded().prints(&["100 rows put back from 1 "]);
    }
}

#[test]
fn a_mark_that_names_the_archive_of_another_table_of_its_database_stands_for_nothing() {
    let server = server(18);
    let (database, scenario, table) = detached(server, &first_is_over());
    server.sql(&database, "CREATE TABLE others AS SELECT g id, now() - interval '90 d' AS at FROM generate_series(1, 100) g; CREATE INDEX ON others (at)");
    let retention =
        "database = 'app'\n[retention]\ntable = 'public.others'\ncolumn = 'at'\nolder_than = '10d'\narchive = 'local'\n";
    let scenario = scenario.job("others", retention);
    scenario.run(&["run-job", "others", "--yes"]).succeeded();
    let batches = |scenario: &Scenario| scenario.json(&["archives", "list"])["batches"].as_array().unwrap().clone();
    let key = format!("{}.sql.gz", batches(&scenario)[0]["batch"].as_str().unwrap());
    server.sql(
        &database,
        &format!(
            "DO $$ BEGIN EXECUTE format('COMMENT ON TABLE {table} IS %L', regexp_replace(obj_description('{table}'::regclass), '}}$',
               ',\"archive\":{{\"key\":\"{key}\",\"rows\":100,\"contents\":\"x\"}}}}')); END $$"
        ),
    );
    let scenario = scenario.partitions("public.logs", "at", &over());
    scenario.tend().succeeded().says(&["does not count"]).prints(&["dropped 1 partition"]);
    assert_eq!(batches(&scenario).len(), 2, "the rows of each are archived, and neither stands for the other");
    scenario.run(&["archives", "restore", "--job", "others"]).succeeded().prints(&["100 rows put back"]);
}

/// Whoever owns a table may write any mark on it, so that those of another owner than the parent's count for nothing.
#[test]
fn a_detached_table_whose_parent_has_another_owner_is_named_and_stays() {
    for major in SOME_MAJORS {
        let server = server(major);
        let (database, scenario, table) = detached(server, &first_is_over());
        let owner = format!("{database}_owner");
        server.sql(
            &database,
            &format!("CREATE ROLE {owner}; GRANT ALL ON SCHEMA public TO {owner}; ALTER TABLE logs OWNER TO {owner}"),
        );
        let scenario = scenario.partitions("public.logs", "at", &(first_is_over() + "\ngrace = \"0s\""));
        let run = scenario.json(&["run-job", "tend"]);
        let warnings = run["runs"][0]["report"]["warnings"].to_string();
        assert!(warnings.contains(&format!("public.{table} was retired from public.logs but is kept")), "{run:#}");
        assert_eq!(server.sql(&database, &format!("SELECT count(*) FROM {table}")), "100", "on {major}");
        let way_out = warnings.split("ALTER TABLE ").nth(1).unwrap().split(" OWNER TO ").collect::<Vec<_>>();
        let new_owner = way_out[1].split([' ', ';', ',', '"', '\\']).next().unwrap();
        server.sql(&database, &format!("ALTER TABLE {} OWNER TO {new_owner}", way_out[0].replace("\\\"", "\"")));
        scenario.tend().succeeded().prints(&["dropped 1 partition"]);
        server.sql(&database, &format!("DROP TABLE logs; DROP OWNED BY {owner}; DROP ROLE {owner}"));
    }
}

#[test]
fn a_detached_table_that_was_moved_to_another_schema_takes_its_function_along_when_it_goes() {
    let server = server(18);
    let functions = "SELECT count(*) FROM pg_proc WHERE proname LIKE 'pgtend%'";
    for comes_back in [false, true] {
        let (database, scenario, table) = detached(server, &first_is_over());
        server.sql(&database, &format!("CREATE SCHEMA attic; ALTER TABLE {table} SET SCHEMA attic"));
        let bounds = server
            .sql(&database, &format!("SELECT substring(obj_description('attic.{table}'::regclass) FROM 'FOR VALUES [^\"]*')"));
        assert_eq!(server.sql(&database, functions), "1");
        if comes_back {
            server.sql(&database, &format!("ALTER TABLE logs ATTACH PARTITION attic.{table} {bounds}"));
            scenario.partitions("public.logs", "at", "every = \"month\"\nretain = \"900d\"").tend().succeeded();
            server.sql(&database, &format!("UPDATE attic.{table} SET body = 'new'"));
        } else {
            let dropping = scenario.partitions("public.logs", "at", &(first_is_over() + "\ngrace = \"0s\""));
            dropping.tend().succeeded().prints(&["dropped 1 partition"]);
        }
        assert_eq!(server.sql(&database, functions), "0");
    }
}

#[test]
fn rows_go_to_the_store_that_the_job_names_when_its_partition_is_dropped() {
    let server = server(18);
    let (_, scenario, _) = detached(server, &kept());
    let other = scenario.path("other");
    std::fs::create_dir(&other).unwrap();
    let scenario = scenario.config(&format!("[stores.other]\npath = {:?}\n", other.to_str().unwrap()));
    let in_grace = scenario.partitions("public.logs", "at", &(first_is_over() + "\narchive = \"other\""));
    in_grace.tend().succeeded().prints(&["archived 1 partition"]);
    let batches = |scenario: &Scenario| scenario.files("other").into_iter().filter(|file| file.ends_with(".sql.gz")).count();
    assert_eq!(batches(&in_grace), 1, "it has its archive there before its grace is over");
    in_grace.tend().succeeded().prints(&["nothing to do"]);
    let dropping = in_grace.partitions("public.logs", "at", &(first_is_over() + "\narchive = \"other\"\ngrace = \"0s\""));
    dropping.tend().succeeded().prints(&["dropped 1 partition"]);
    assert_eq!(batches(&dropping), 1);
}

/// `logs` of a role that is no superuser, as it logs in; and the role.
fn owned(server: &Server) -> (String, String) {
    let database = old_logs(server, 5);
    let role = format!("owner_{database}_{}", std::process::id());
    server.sql(
        &database,
        &format!(
            "CREATE ROLE {role} LOGIN; GRANT CREATE ON SCHEMA public TO {role}; ALTER TABLE logs OWNER TO {role};
             GRANT EXECUTE ON FUNCTION pg_control_system() TO {role};
             DO $$ DECLARE p regclass; BEGIN
               FOR p IN SELECT inhrelid FROM pg_inherits WHERE inhparent = 'logs'::regclass LOOP
                 EXECUTE 'ALTER TABLE ' || p || ' OWNER TO {role}';
               END LOOP;
             END $$"
        ),
    );
    (database, role)
}

fn is_gone(server: &Server, database: &str, role: &str) {
    server.sql(database, &format!("DROP OWNED BY {role} CASCADE; DROP ROLE {role}"));
}

#[test]
fn a_partition_whose_rows_a_policy_hides_from_its_owner_stays_attached() {
    let server = server(18);
    let (database, role) = owned(server);
    let first = partitions_of(server, &database, "logs").remove(0);
    server.sql(&database, &format!("ALTER TABLE {first} ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY"));
    let scenario = Scenario::with_url(server, &server.url_as(&role, &database)).partitions("public.logs", "at", &over());
    for _ in 0..2 {
        scenario.tend().exited(1).says(&["row-level security policy", &first, "stays attached"]);
        assert!(partitions_of(server, &database, "logs").contains(&first));
    }
    server.sql(&database, &format!("ALTER TABLE {first} NO FORCE ROW LEVEL SECURITY"));
    scenario.tend().succeeded().prints(&["dropped 1 partition"]);
    is_gone(server, &database, &role);
}

#[test]
fn a_table_that_cannot_be_archived_is_named_and_holds_up_no_other() {
    let server = server(18);
    let (database, role) = owned(server);
    let both = partitions_of(server, &database, "logs").drain(..2).collect::<Vec<_>>();
    let today = chrono::Utc::now().date_naive();
    let first_that_stays = chrono::Datelike::with_day(&today, 1).unwrap() - chrono::Months::new(2);
    let keys = format!("every = \"month\"\nretain = \"{}d\"", (today - first_that_stays).num_days() + 1);
    let url = server.url_as(&role, &database);
    let scenario = Scenario::with_url(server, &url).partitions("public.logs", "at", &keys);
    scenario.tend().succeeded().prints(&["detached 2 partitions"]);
    server.sql(&database, &format!("ALTER TABLE {} ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY", both[0]));
    let scenario = scenario.partitions("public.logs", "at", &format!("{keys}\narchive = \"local\"\ngrace = \"0s\""));
    let said = scenario.tend().exited(1).says(&["row-level security policy", &both[0]]);
    assert!(!said.stderr.contains("protocol error"), "{}", said.stderr);
    let there = |table: &str| server.sql(&database, &format!("SELECT to_regclass('{table}') IS NOT NULL"));
    assert_eq!([there(&both[0]), there(&both[1])], ["t", "f"], "{}", said.stderr);
    server.sql(&database, &format!("ALTER TABLE {} DISABLE ROW LEVEL SECURITY", both[0]));
    scenario.tend().succeeded();
    assert_eq!(there(&both[0]), "f");
    let listed = scenario.json(&["archives", "list"]);
    assert_eq!(listed["batches"].as_array().unwrap().len(), 2, "{listed:#}");
    is_gone(server, &database, &role);
}

#[test]
fn rows_of_a_dropped_partition_want_a_partition_or_another_table() {
    let server = server(18);
    let database = old_logs(server, 5);
    let scenario = Scenario::logs(server, &database, &over());
    scenario.tend().succeeded().prints(&["dropped 1 partition"]);
    scenario.run(&["archives", "restore"]).exited(1).says(&[
        "1 batch not put back",
        "no partition of relation",
        "rows from",
        "create the partition",
        "--into TABLE",
    ]);
    server.sql(&database, "CREATE TABLE back (LIKE logs)");
    scenario.run(&["archives", "restore", "--into", "public.back"]).succeeded().prints(&["100 rows put back from 1 "]);
    server.sql(&database, "CREATE TABLE logs_rest PARTITION OF logs DEFAULT");
    scenario.run(&["archives", "restore"]).succeeded().prints(&["100 rows put back from 1 "]);
}
