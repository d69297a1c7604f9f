//! The owner of a schema renames it, and makes another of its name, while a command makes the view or the statistics in it again: by that name it makes none of its own.

use crate::strangers_overloads::{BACK, CONVERT, Docs, INSTALL, PARTITION};
use crate::support::scripts::Client;
use crate::support::{Output, Running, Scenario, eventually};

/// A view of ALICE over a table on which she has no privilege; whatever the login makes, she may read.
const VIEW: &str = "GRANT CREATE ON DATABASE DATABASE TO ALICE; ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO ALICE;
    SET ROLE ALICE; CREATE VIEW ALICE.v AS SELECT d.id, a.rolname, a.rolpassword FROM app.docs d, pg_catalog.pg_authid a; RESET ROLE";
const SWAP: &str = "SET ROLE ALICE; ALTER SCHEMA ALICE RENAME TO ALICE_2; CREATE SCHEMA ALICE";
const SWAP_BACK: &str = "DROP SCHEMA ALICE; ALTER SCHEMA ALICE_2 RENAME TO ALICE";
const UNDO: [&str; 3] = ["compress", "undo", "c"];

/// A lock that a command waits for while it has others is waited for half as long as this.
fn with_long_waits(major: u32, sql: &str) -> Docs {
    let docs = Docs::with(major, "");
    docs.server.sql("postgres", &format!("ALTER DATABASE {} SET deadlock_timeout = '20s'", docs.database));
    docs.sql(&sql.replace("DATABASE DATABASE", &format!("DATABASE {}", docs.database)));
    docs
}

fn waits(docs: &Docs, running: &mut Running) {
    eventually("it waits", || {
        let waits =
            "SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid) WHERE NOT granted AND datname = current_database()";
        !running.is_running() || docs.sql(waits) != "0"
    });
}

/// Runs a command, and swaps alice's schema while it waits for a reader of the table.
fn swapped_while_it_waits(docs: &Docs, command: &[&str]) -> Output {
    let mut reader = Client::of(docs.server, &docs.database);
    reader.ask("BEGIN; SELECT count(*) FROM app.docs");
    let scenario = docs.scenario();
    let mut running = scenario.start(command);
    waits(docs, &mut running);
    reader.ask(&format!("{}; COMMIT", SWAP.replace("ALICE", &docs.alice)));
    running.wait()
}

/// The views named v, each with its owner.
fn views(docs: &Docs) -> String {
    docs.sql("SELECT string_agg(format('%s.v of %s', schemaname, viewowner), ', ' ORDER BY 1) FROM pg_views WHERE viewname = 'v'")
}

fn oid_of_view(docs: &Docs) -> String {
    docs.sql("SELECT 'ALICE.v'::regclass::oid")
}

#[test]
fn a_view_is_not_made_in_a_new_schema_that_gets_the_name_of_its_own_while_the_lock_is_awaited() {
    for major in [14, 18] {
        let docs = with_long_waits(major, VIEW);
        let oid = oid_of_view(&docs);
        for command in [&INSTALL[..], &UNDO, &CONVERT, &BACK] {
            let failed = swapped_while_it_waits(&docs, command);
            if command[0] == "compress" {
                failed.exited(75).says(&[&format!("view {}.v", docs.alice), "another session", "run the command again"]);
            } else {
                failed.exited_with_one_of(&[1, 75]).says(&["changed", "run the command again"]);
            }
            assert_eq!(views(&docs), format!("{0}_2.v of {0}", docs.alice), "{command:?}");
            docs.sql(SWAP_BACK);
            docs.succeeds(command);
            assert_eq!((views(&docs), oid_of_view(&docs)), (format!("{0}.v of {0}", docs.alice), oid.clone()), "{command:?}");
        }
    }
}

#[test]
fn statistics_are_not_made_in_a_new_schema_that_gets_the_name_of_their_own() {
    for major in [14, 18] {
        let docs = with_long_waits(
            major,
            "GRANT CREATE ON DATABASE DATABASE TO ALICE; CREATE STATISTICS ALICE.s ON id, at FROM app.docs",
        );
        for command in [&CONVERT[..], &BACK] {
            swapped_while_it_waits(&docs, command)
                .exited(75)
                .says(&[&format!("statistics {}.s", docs.alice), "run the command again"]);
            docs.sql(SWAP_BACK);
            docs.succeeds(command);
        }
    }
}

/// The swap waits for a table that it refers to, behind the locks under which it has looked at everything.
const KEY: &str =
    "CREATE TABLE app.kinds (id int PRIMARY KEY); ALTER TABLE app.docs ADD kind int REFERENCES app.kinds; ANALYZE app.docs";

#[test]
fn a_superuser_holds_the_schema_of_a_view_until_the_view_is_made() {
    for major in [14, 18] {
        let docs = with_long_waits(major, &format!("{KEY}; {VIEW}"));
        let oid = oid_of_view(&docs);
        let mut writer = Client::of(docs.server, &docs.database);
        writer.ask("BEGIN; LOCK TABLE app.kinds IN ROW EXCLUSIVE MODE");
        let scenario = docs.scenario();
        let mut running = scenario.start(&CONVERT);
        waits(&docs, &mut running);
        let mut alice = Client::of(docs.server, &docs.database);
        alice.ask(&format!("SET ROLE {0}; SET lock_timeout = '300ms'; ALTER SCHEMA {0} RENAME TO {0}_2", docs.alice));
        assert_eq!(alice.state(), "55P03");
        writer.ask("COMMIT");
        running.wait().succeeded();
        assert_eq!((views(&docs), oid_of_view(&docs)), (format!("{0}.v of {0}", docs.alice), oid));
    }
}

#[test]
fn a_login_that_cannot_hold_a_schema_finds_out_at_the_end_and_leaves_no_view_of_its_own() {
    for major in [14, 18] {
        let docs = with_long_waits(major, KEY);
        let app = docs.alice.replacen("alice", "app", 1);
        docs.sql(&format!(
            "GRANT CREATE ON DATABASE {database} TO ALICE; CREATE ROLE {app} LOGIN; GRANT USAGE, CREATE ON SCHEMA app, ALICE TO {app}; GRANT CREATE ON DATABASE {database} TO {app};
             ALTER TABLE app.docs OWNER TO {app}; ALTER TABLE app.kinds OWNER TO {app}; ALTER DEFAULT PRIVILEGES FOR ROLE {app} GRANT SELECT ON TABLES TO ALICE;
             SET ROLE {app}; CREATE VIEW ALICE.v AS SELECT id, body FROM app.docs",
            database = docs.database
        ));
        let mut writer = Client::of(docs.server, &docs.database);
        writer.ask("BEGIN; LOCK TABLE app.kinds IN ROW EXCLUSIVE MODE");
        let scenario = Scenario::with_url(docs.server, &docs.server.url_as(&app, &docs.database)).job("p", PARTITION);
        let mut running = scenario.start(&CONVERT);
        waits(&docs, &mut running);
        docs.sql(&format!("{SWAP}; GRANT USAGE, CREATE ON SCHEMA ALICE TO {app}"));
        writer.ask("COMMIT");
        running.wait().exited(75).says(&[
            &format!("view {}.v is not what it was any more", docs.alice),
            "run the command again",
            "was not converted",
        ]);
        assert_eq!(views(&docs), format!("{}_2.v of {app}", docs.alice));
        assert_eq!(docs.sql("SELECT relkind FROM pg_class WHERE oid = 'app.docs'::regclass"), "r");
    }
}
