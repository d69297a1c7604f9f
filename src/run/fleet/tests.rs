use super::*;

const SERVERS: &str = "
[databases.shop]
url = \"postgres://me@db1/shop\"
[databases.elsewhere]
url = \"postgres://me@db2/tenant_9\"
[servers.main]
url = \"postgres://me@db1/postgres\"
exclude = [\"postgres\", \"*_test\"]
[servers.old]
url = \"postgres://me@db3\"
databases = \"tenant_*\"
";

fn job(name: &str, named: &[&str], patterns: &[&str]) -> Job {
    let named: Vec<String> = named.iter().map(|name| (*name).to_owned()).collect();
    let patterns = patterns.iter().map(|text| crate::base::pattern::Pattern::new(text)).collect();
    let chosen = Chosen::by(&named, patterns, Vec::new());
    Job { databases: named, chosen, ..Job::for_tests(name, crate::task::sql::Sql::default().into()) }
}

fn found(lists: &[(&str, &[&str])]) -> Found {
    let mut found = Found::default();
    for (server, names) in lists {
        found.add(Asked::Server((*server).to_owned()), names.iter().map(|name| (*name).to_owned()).collect());
    }
    found
}

#[test]
fn patterns_stand_for_entries_and_for_what_servers_have_and_each_database_counts_once() {
    let config = Config::for_tests(SERVERS);
    let found = found(&[
        ("main", &["postgres", "shop", "shop_test", "tenant_1", "tenant_2", "a/b @\n"]),
        ("old", &["postgres", "tenant_1", "other"]),
        ("unknown", &["tenant_5"]),
    ]);
    let cases: [(&[&str], &[&str], &[&str]); 6] = [
        (&[], &["*"], &["elsewhere", "main.a.2Fb.20.40.0A", "main.tenant_1", "main.tenant_2", "old.tenant_1", "shop"]),
        (&[], &["tenant_*"], &["elsewhere", "main.tenant_1", "main.tenant_2", "old.tenant_1"]),
        (&[], &["main.*"], &["main.a.2Fb.20.40.0A", "main.tenant_1", "main.tenant_2", "shop"]),
        (&[], &["tenant_?", "sho?"], &["elsewhere", "main.tenant_1", "main.tenant_2", "old.tenant_1", "shop"]),
        (&["shop"], &["old.*", "s*"], &["old.tenant_1", "shop"]),
        (&[], &["nothing*"], &[]),
    ];
    for (named, patterns, expected) in cases {
        let jobs = found.given_to(&[job("nightly", named, patterns)], &config);
        assert_eq!(jobs[0].databases, expected, "{patterns:?}");
    }
    assert_eq!(found.with_entries(&config), [("main.shop".to_owned(), "shop".to_owned())]);
    assert_eq!((found.count("main", &config), found.count("old", &config)), (4, 1));
}

#[test]
fn a_database_is_chosen_by_the_names_that_the_configuration_gives_it_where_a_pattern_has_a_dot() {
    let config = Config::for_tests(&format!("{SERVERS}[databases.\"app.eu\"]\nurl = \"postgres://me@db4/app\"\n"));
    let found = found(&[("main", &["old.x", "old", "shop", "é"]), ("old", &["tenant_1"])]);
    for (pattern, expected) in [
        ("old.*", &["old.tenant_1"][..]),
        ("o*.*", &["old.tenant_1"]),
        ("old*", &["main.old", "main.old.2Ex"]),
        ("*.2Ex", &[]),
        ("main.old.2E*", &["main.old.2Ex"]),
        // The end of a spelt byte is no name.
        ("*.A9", &[]),
        ("main.shop", &["shop"]),
        ("app.*", &["app.eu"]),
        ("*.eu", &["app.eu"]),
        ("?ain.sho?", &["shop"]),
    ] {
        assert_eq!(found.given_to(&[job("nightly", &[], &[pattern])], &config)[0].databases, expected, "{pattern}");
    }
    let nightly = job("nightly", &[], &["*"]);
    for (name, expected) in [
        ("main.shop", false),
        ("main.nobody", true),
        ("main.a_test", false),
        ("main.postgres", false),
        ("old.other", false),
        ("old.tenant_3", true),
        ("nowhere.x", false),
        ("shop", true),
        ("none", false),
    ] {
        assert_eq!(nightly.would_run_on(name, &config), expected, "{name}");
        assert!(!nightly.runs_on(name), "nobody has found it");
    }
}

#[test]
fn a_job_without_patterns_keeps_its_databases_and_one_that_was_given_some_takes_the_new_ones() {
    let config = Config::for_tests(SERVERS);
    let plain = Job::for_tests("plain", crate::task::sql::Sql::default().into());
    let first = found(&[("main", &["tenant_1", "tenant_2"])]).given_to(&[plain, job("nightly", &[], &["main.*"])], &config);
    assert_eq!(first[0].databases, ["app"]);
    let second = found(&[("main", &["tenant_2", "tenant_3"])]).given_to(&first, &config);
    assert_eq!(second[1].databases, ["main.tenant_2", "main.tenant_3", "shop"]);
    assert_eq!(Found::default().given_to(&second, &config)[1].databases, ["shop"], "nothing is known of any server");
}

#[test]
fn a_pattern_that_names_another_server_needs_no_answer_of_this_one() {
    for (patterns, of_main, of_old) in [
        (&["old.*"][..], false, true),
        (&["tenant_*"], true, true),
        (&["old.*", "main.shop?"], true, true),
        (&["*.x", "older.*"], true, true),
        (&["older.*"], false, false),
        (&["?ld.*"], false, true),
        (&["ol*"], true, true),
    ] {
        let chosen = job("nightly", &[], patterns).chosen.unwrap();
        assert_eq!((chosen.may_be_of("main"), chosen.may_be_of("old")), (of_main, of_old), "{patterns:?}");
    }
}

#[test]
fn a_found_name_leads_to_its_own_database_on_its_server() {
    let config = Config::for_tests(SERVERS);
    let database = config.database("main.a.2Fb.20.40.0A").unwrap();
    let settings = database.settings().unwrap();
    assert_eq!((settings.server().as_str(), settings.database()), ("db1:5432", "a/b @\n"));
    assert_eq!((database.max_concurrent, database.group.as_deref()), (Some(2), Some("server main")));
    assert_eq!(config.database("shop").unwrap().settings().unwrap().database(), "shop");
    for none in ["nobody.x", "main", "main.", "main.a/b"] {
        assert!(config.database(none).is_none(), "{none}");
    }
    // Which database is asked, where the URL names none.
    assert_eq!(config.servers["old"].login.settings().unwrap().database(), "postgres");
}

/// A job with `schemas` on these databases.
fn schemas_job(named: &[&str], patterns: &[&str], schemas: &[&str]) -> Job {
    let of = |texts: &[&str]| texts.iter().map(|text| crate::base::pattern::Pattern::new(text)).collect();
    let named: Vec<String> = named.iter().map(|name| (*name).to_owned()).collect();
    let chosen = Chosen::by(&named, of(patterns), of(schemas));
    Job { databases: Vec::new(), chosen, ..Job::for_tests("tenants", crate::task::sql::Sql::default().into()) }
}

#[test]
fn a_job_with_schemas_gets_those_of_each_of_its_databases() {
    let config = Config::for_tests(SERVERS);
    let mut found = found(&[("main", &["shop", "tenant_1", "tenant_2"])]);
    for (database, schemas) in
        [("shop", &["public", "a/b", "t_1"][..]), ("main.tenant_1", &["t_1", "t_2"]), ("main.gone", &["t_9"])]
    {
        found.add(Asked::Database(database.to_owned()), schemas.iter().map(|name| (*name).to_owned()).collect());
    }
    let cases: [[&[&str]; 5]; 5] = [
        [&["shop"], &[], &["*"], &["shop"], &["shop:a.2Fb", "shop:public", "shop:t_1"]],
        [&["shop"], &[], &["t_?"], &["shop"], &["shop:t_1"]],
        [
            &["shop"],
            &["main.*"],
            &["t_*"],
            &["main.tenant_1", "main.tenant_2", "shop"],
            &["main.tenant_1:t_1", "main.tenant_1:t_2", "shop:t_1"],
        ],
        [&["shop"], &[], &["t_9", "public"], &["shop"], &["shop:public", "shop:t_9"]],
        [&["elsewhere"], &[], &["*"], &["elsewhere"], &[]],
    ];
    for [named, patterns, schemas, asked, expected] in cases {
        let jobs = [schemas_job(named, patterns, schemas)];
        assert_eq!(found.with_schemas(&jobs, &config).iter().collect::<Vec<_>>(), asked, "{schemas:?}");
        assert_eq!(found.given_to(&jobs, &config)[0].databases, expected, "{schemas:?}");
        assert_eq!(jobs[0].has_runs_for(), "schema");
    }
    assert!(found.with_schemas(&[job("nightly", &[], &["*"])], &config).is_empty(), "nobody asks for schemas");
    assert!(found.names(&config).contains(&"shop:a.2Fb".to_owned()));
    let described = Job { description: Some("{schema} of {database}".to_owned()), ..schemas_job(&["shop"], &[], &["*"]) };
    assert_eq!(described.description_for("main.a.2Fb:x.2Ay").as_deref(), Some("x*y of a/b"));
    assert_eq!(described.description_for("shop:*").as_deref(), Some("* of shop"));
}

#[test]
fn a_store_keeps_the_name_of_a_found_database_as_it_is() {
    for own in ["tenant_7", "a/b", "..", "x y", "€€€€€€€€€€€€€€€€€€€€€"] {
        let name = servers::name_of("main", own);
        assert_eq!(crate::store::key::encode(&name), name);
    }
}

#[test]
fn ten_thousand_databases_of_three_jobs_are_given_in_no_time() {
    let config = Config::for_tests(SERVERS);
    let names: Vec<String> = (0..10_000).map(|number| format!("tenant_{number}")).collect();
    let mut found = Found::default();
    found.add(Asked::Server("main".to_owned()), names);
    let jobs = ["a", "b", "c"].map(|name| job(name, &[], &["tenant_*"]));
    // This thread's own time: other work on the machine does not count.
    let spent_seconds = || rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime).tv_sec;
    let start = spent_seconds();
    let given = found.given_to(&jobs, &config);
    assert!(spent_seconds() - start < 3, "{} s", spent_seconds() - start);
    assert!(given.iter().all(|job| job.databases.len() == 10_001));
}
