//! What a person reads of an audit: conventions, order, what they must decide, and what the audit could not see.

use serde_json::Value;

use crate::audit::{audit, findings, keys, state};
use crate::support::Scenario;
use crate::support::postgres::{MAJORS, server};

fn finding<'a>(audit: &'a Value, key: &str) -> &'a Value {
    let found = audit["findings"].as_array().unwrap().iter().find(|finding| finding["key"] == key);
    found.unwrap_or_else(|| panic!("no {key} in {:#?}", keys(audit)))
}

fn of_check(audit: &Value, check: &str) -> Vec<Value> {
    findings(audit).into_iter().filter(|finding| finding["check"] == check).collect()
}

/// Eleven tables that refer to users, one of them with an action of its own, and one large table.
const ALIKE: &str = "CREATE TABLE users (id int PRIMARY KEY);
    INSERT INTO users SELECT generate_series(1, 5000);
    DO $$ BEGIN FOR i IN 1..11 LOOP
        EXECUTE format('CREATE TABLE part_%s (id int PRIMARY KEY, user_id int REFERENCES users %s, made timestamp)', i, CASE i WHEN 7 THEN 'ON DELETE CASCADE' ELSE '' END);
        EXECUTE format('INSERT INTO part_%s SELECT i, i, now() FROM generate_series(1, %s) i', i, CASE i WHEN 3 THEN 5000 ELSE 2000 END);
    END LOOP; END $$;
    ANALYZE";

#[test]
fn what_nearly_all_objects_share_is_one_line_and_low_and_the_profile_decides() {
    let server = server(18);
    let database = server.new_database();
    server.sql(&database, ALIKE);
    let scenario = Scenario::with_database(server, &database);
    let all = scenario.json(&["audit", "--database", "app", "--fail-on", "never"]);
    let said = "10 of 11 foreign keys of schema public have no ON DELETE action; these differ: public.part_7 part_7_user_id_fkey (CASCADE)";
    let group = |all: &Value, check: &str| -> Vec<Value> {
        all["groups"].as_array().unwrap().iter().filter(|group| group["check"] == check).cloned().collect()
    };
    let groups = group(&all, "fk-no-on-delete");
    assert_eq!(groups.len(), 1, "{all:#}");
    assert_eq!(
        (&groups[0]["level"], &groups[0]["findings"], &groups[0]["convention"]),
        (&"low".into(), &10.into(), &said.into())
    );
    assert_eq!(
        group(&all, "timestamp-without-zone")[0]["convention"],
        "11 of 11 tables of schema public have times without a zone"
    );
    // The keys are those of before: waivers name them.
    let key = "fk-no-on-delete:public.part_1 part_1_user_id_fkey";
    assert_eq!(finding(&all["audit"], key)["convention"], said);
    // The largest table comes first, and has its size.
    let unindexed = of_check(&all["audit"], "fk-unindexed");
    assert_eq!((unindexed.len(), &unindexed[0]["object"]), (11, &"public.part_3".into()));
    assert_eq!(unindexed[0]["weight"]["rows"], 5000);

    let strict = scenario.job("quarterly", "database = 'app'\n[audit]\nprofile = 'strict'\n");
    let now = audit(&strict);
    assert_eq!(finding(&now, key)["level"], "medium");
    assert_eq!(finding(&now, key)["convention"], Value::Null);
}

#[test]
fn small_tables_never_outrank_large_ones() {
    let server = server(18);
    let database = server.new_database();
    server.sql(
        &database,
        "CREATE TABLE small (x int); INSERT INTO small SELECT generate_series(1, 50);
         CREATE TABLE large (x int); INSERT INTO large SELECT generate_series(1, 20000);
         CREATE TABLE larger (x int); INSERT INTO larger SELECT generate_series(1, 40000); ANALYZE",
    );
    let now = audit(&Scenario::with_database(server, &database));
    let ranked: Vec<(Value, Value)> =
        findings(&now).into_iter().map(|finding| (finding["object"].clone(), finding["level"].clone())).collect();
    let expected = [("public.larger", "medium"), ("public.large", "medium"), ("public.small", "low")];
    assert_eq!(ranked, expected.map(|(object, level)| (object.into(), level.into())));
}

#[test]
fn a_check_can_be_turned_off_or_made_low_and_a_wrong_name_is_found() {
    let server = server(18);
    let database = server.new_database();
    server.sql(&database, ALIKE);
    let job = |keys: &str| format!("database = 'app'\n[audit]\nstore = 'local'\nfail_on = 'never'\n{keys}\n");
    let scenario = Scenario::with_database(server, &database).job("quarterly", &job(""));
    scenario.run(&["run-job", "quarterly"]).succeeded();
    let scenario = scenario.job("quarterly", &job("checks = { 'timestamp-without-zone' = 'off', 'fk-unindexed' = 'low' }"));
    let now = audit(&scenario);
    assert_eq!(now["turned_off"], serde_json::json!(["timestamp-without-zone"]));
    assert!(of_check(&now, "timestamp-without-zone").is_empty());
    assert!(of_check(&now, "fk-unindexed").iter().all(|finding| finding["level"] == "low"), "{now:#}");
    // It is not called resolved: nobody looked.
    assert_eq!((now["resolved"].as_array().unwrap().len(), now["not_seen"].as_array().unwrap().len()), (0, 11), "{now:#}");
    let asked = scenario.json(&["audit", "--database", "app", "--check", "timestamp-without-zone", "--fail-on", "never"]);
    assert_eq!(state(&asked["audit"], "timestamp-without-zone"), "findings", "it runs when it is asked for");
    let wrong = scenario.job("quarterly", &job("checks = { 'fk-unindxed' = 'off' }\nprofile = 'lax'"));
    wrong.run(&["check"]).exited(78).says(&[
        "there is no check `fk-unindxed`",
        "did you mean `fk-unindexed`?",
        "unknown value `lax`",
    ]);
}

#[test]
fn not_null_columns_that_are_unique_become_the_primary_key() {
    for major in MAJORS {
        let server = server(major);
        let database = server.new_database();
        server.sql(
            &database,
            "CREATE TABLE plain (code text NOT NULL, CONSTRAINT plain_code UNIQUE (code));
             CREATE TABLE target (code text NOT NULL UNIQUE, n int NOT NULL);
             CREATE TABLE refers (id int PRIMARY KEY, code text REFERENCES target (code) ON DELETE CASCADE); CREATE INDEX ON refers (code);
             CREATE TABLE \"In dex\" (a int NOT NULL, b int NOT NULL); CREATE UNIQUE INDEX ON \"In dex\" (a, b);
             CREATE TABLE parted (a int NOT NULL, UNIQUE (a)) PARTITION BY RANGE (a); CREATE TABLE parted_1 PARTITION OF parted FOR VALUES FROM (0) TO (9999);
             CREATE TABLE nullable (code text UNIQUE);
             INSERT INTO plain SELECT generate_series(1, 1000); INSERT INTO target SELECT i, i FROM generate_series(1, 1000) i; INSERT INTO \"In dex\" SELECT i, i FROM generate_series(1, 1000) i;
             INSERT INTO parted SELECT generate_series(1, 1000); INSERT INTO nullable SELECT generate_series(1, 1000); ANALYZE",
        );
        let scenario = Scenario::with_database(server, &database);
        let found = of_check(&audit(&scenario), "no-primary-key");
        assert_eq!(found.len(), 5, "on {major}: {found:#?}");
        for finding in &found {
            match finding["fix"]["sql"].as_str() {
                Some(sql) => drop(server.psql(&database, sql).unwrap_or_else(|error| panic!("on {major}: {error}\n{sql}"))),
                None => assert_eq!(finding["object"], "public.nullable", "{finding:#}"),
            }
            let is_open = finding["fix"]["decide"].is_string();
            assert_eq!(is_open, finding["object"] == "public.nullable", "{finding:#}");
        }
        let columns = "SELECT string_agg(conrelid::regclass || ' ' || pg_get_constraintdef(oid), ', ' ORDER BY conrelid::regclass::text) FROM pg_constraint WHERE contype = 'p' AND conrelid::regclass::text IN ('plain', 'target', '\"In dex\"', 'parted')";
        assert_eq!(
            server.sql(&database, columns),
            "\"In dex\" PRIMARY KEY (a, b), parted PRIMARY KEY (a), plain PRIMARY KEY (code), target PRIMARY KEY (code)"
        );
        let now = audit(&scenario);
        assert_eq!(of_check(&now, "no-primary-key").len(), 1, "on {major}");
        assert_eq!(of_check(&now, "duplicate-index"), Vec::<Value>::new(), "no second index stays, on {major}");
    }
}

#[test]
fn what_a_framework_owns_is_never_renamed_and_its_own_tables_are_left_alone() {
    let server = server(18);
    for (owner, table) in [
        (
            "Prisma",
            "_prisma_migrations (id varchar(36) PRIMARY KEY, \"Checksum\" text, started_at timestamp, updated_at timestamptz)",
        ),
        ("Sequelize", "\"SequelizeMeta\" (name varchar(255))"),
        ("Django", "django_migrations (id int, applied timestamp)"),
        ("Flyway", "flyway_schema_history (installed_rank int, installed_on timestamp)"),
        ("Rails", "ar_internal_metadata (key text, updated_at timestamp)"),
    ] {
        let database = server.new_database();
        let own = table.split(' ').next().unwrap();
        server.sql(
            &database,
            &format!(
                "CREATE TABLE {table}; INSERT INTO {own} DEFAULT VALUES;
                 CREATE TABLE \"Users\" (id int PRIMARY KEY, \"createdAt\" timestamptz, updated_at timestamptz, seen_at timestamptz);
                 INSERT INTO \"Users\" VALUES (1); ANALYZE"
            )
            .replace("INSERT INTO _prisma_migrations DEFAULT VALUES", "INSERT INTO _prisma_migrations VALUES ('1')"),
        );
        let now = audit(&Scenario::with_database(server, &database));
        let renamed: Vec<Value> =
            findings(&now).into_iter().filter(|finding| finding["fix"]["sql"].to_string().contains("RENAME")).collect();
        assert!(renamed.is_empty(), "{owner}: {renamed:#?}");
        let decide = finding(&now, "identifier-needs-quoting:public.\"Users\"")["fix"]["decide"].as_str().unwrap();
        assert!(decide.contains(owner), "{decide}");
        assert!(!keys(&now).iter().any(|key| key.contains(own)), "{owner}: {:#?}", keys(&now));
    }
}

#[test]
fn text_that_analyze_does_not_keep_is_looked_for_in_the_table() {
    for major in MAJORS {
        let server = server(major);
        let database = server.new_database();
        server.sql(
            &database,
            "CREATE TABLE pages (id int PRIMARY KEY, url varchar(2048), note varchar(2048), code varchar(300), title varchar(100));
             INSERT INTO pages SELECT i, CASE i WHEN 77 THEN rpad('https://', 2039, 'x') ELSE 'https://' || i END, 'short ' || i, rpad('', 290, md5(i::text)), 'a title ' || i FROM generate_series(1, 3000) i;
             CREATE TABLE fresh (id int PRIMARY KEY, word varchar(20)) WITH (autovacuum_enabled = off);
             INSERT INTO fresh SELECT i, left(repeat('x', 1 + i % 20), 20) FROM generate_series(1, 500) i; ANALYZE pages",
        );
        let now = audit(&Scenario::with_database(server, &database));
        let found: Vec<String> =
            of_check(&now, "varchar-near-limit").iter().map(|finding| finding["key"].as_str().unwrap().to_owned()).collect();
        assert!(found.contains(&"varchar-near-limit:public.pages.url".to_owned()), "on {major}: {found:?}");
        let url = finding(&now, "varchar-near-limit:public.pages.url");
        assert!(url["evidence"]["measured"].as_str().unwrap().contains("has 2039 characters"), "{url:#}");
        assert!(
            found.contains(&"varchar-near-limit:public.fresh.word".to_owned()),
            "it has no statistics, on {major}: {found:?}"
        );
        assert_eq!(found.len(), 2, "on {major}: {found:?}");
    }
}

#[test]
fn a_table_that_was_never_analyzed_is_unknown_and_not_ok() {
    let server = server(18);
    let database = server.new_database();
    server.sql(
        &database,
        "CREATE TABLE users (id int PRIMARY KEY); CREATE TABLE profiles (id int PRIMARY KEY, user_id int NOT NULL REFERENCES users ON DELETE CASCADE) WITH (autovacuum_enabled = off);
         CREATE INDEX ON profiles (user_id); INSERT INTO users SELECT generate_series(1, 500); INSERT INTO profiles SELECT i, i FROM generate_series(1, 500) i; ANALYZE users",
    );
    let scenario = Scenario::with_database(server, &database);
    assert_eq!(state(&audit(&scenario), "one-to-one-not-unique"), "unknown");
    server.sql(&database, "ANALYZE profiles");
    assert_eq!(state(&audit(&scenario), "one-to-one-not-unique"), "findings");
}

#[test]
fn the_first_screen_has_ten_lines_and_markdown_stays_below_five_hundred() {
    let server = server(18);
    let database = server.new_database();
    server.sql(
        &database,
        "DO $$ BEGIN FOR i IN 1..300 LOOP
             EXECUTE format('CREATE TABLE \"Thing %s\" (x int, \"Part\" int, at timestamp, updated_at timestamptz)', i);
             EXECUTE format('INSERT INTO \"Thing %s\" SELECT i FROM generate_series(1, 3) i', i);
         END LOOP; END $$; ANALYZE",
    );
    let scenario = Scenario::with_database(server, &database);
    let report =
        |format: &str| scenario.run(&["audit", "--database", "app", "--fail-on", "never", "--format", format]).succeeded().stdout;
    assert!(keys(&audit(&scenario)).len() > 1000);
    let table = report("table");
    let screen: Vec<&str> = table.lines().take_while(|line| !line.is_empty()).collect();
    assert!(screen.len() <= 10 && screen[0].starts_with("app: "), "{screen:#?}");
    let markdown = report("markdown");
    assert!(markdown.lines().count() < 500, "{}", markdown.lines().count());
    let one =
        scenario.run(&["audit", "--database", "app", "--fail-on", "never", "--format", "markdown", "--check", "no-primary-key"]);
    assert_eq!(one.succeeded().stdout.matches("**Key**").count(), 300, "one check has no limit");
    let html = report("html");
    assert!(html.contains("<details") && !html.contains("<script"), "groups are folded");
    // Each object of the index leads to its findings, and each of these to the others of its object.
    let (_, index) = html.split_once("id=\"objects\"").unwrap();
    let (_, of_one) = index.split_once("public.&quot;Thing 7&quot;").unwrap();
    let links: Vec<&str> =
        of_one.split_once("</tr>").unwrap().0.split("href=\"#").skip(1).map(|link| link.split_once('"').unwrap().0).collect();
    assert!(links.len() > 2, "{links:?}");
    for link in &links {
        let (_, article) = html.split_once(&format!("<article id=\"{link}\"")).unwrap_or_else(|| panic!("no {link}"));
        let article = article.split_once("</article>").unwrap().0;
        let others = links.iter().filter(|other| *other != link && article.contains(&format!("href=\"#{other}\""))).count();
        assert_eq!(others, links.len() - 1, "of {link}: {article}");
    }
}
