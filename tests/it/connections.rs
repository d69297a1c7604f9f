//! Connections as they are: addresses, hosts, passwords, certificates, poolers; the same for our sessions and for
//! client tools.

use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use crate::support::pooler::Pooler;
use crate::support::postgres::{Different, Server, server};
use crate::support::serve::free_port;
use crate::support::tls::{PASSWORD, TlsServer};
use crate::support::{Scenario, quoted};

/// A job whose one statement fails unless this is so.
fn asserting(scenario: Scenario, condition: &str) -> Scenario {
    scenario.sql_job("asserts", "", &[&format!("DO $$ BEGIN ASSERT {condition}, 'not so'; END $$")])
}

/// A folder of client tools that write their libpq variables down before they run.
fn recording_tools(scenario: &Scenario, server: &Server) -> String {
    let folder = scenario.path("tools");
    std::fs::create_dir(&folder).unwrap();
    for tool in ["pg_dump", "pg_dumpall", "psql"] {
        let script = format!(
            "#!/bin/sh\n[ \"$1\" = --version ] || env | grep '^PG' >>'{}'\nexec '{}' \"$@\"\n",
            scenario.path("variables").display(),
            server.bin_dir.join(tool).display()
        );
        std::fs::write(folder.join(tool), script).unwrap();
        std::fs::set_permissions(folder.join(tool), std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    folder.display().to_string()
}

/// A scenario for a URL, with tools that record.
fn recorded(server: &Server, url: &str) -> Scenario {
    let scenario = Scenario::empty();
    let tools = recording_tools(&scenario, server);
    scenario
        .config(&format!("[databases.app]\nurl = {}\n[tools]\nbin_dir = {}\n", quoted(url), quoted(&tools)))
        .config("[stores.local]\npath = \"store\"\n")
        .backup_job("local", "")
}

fn variables(scenario: &Scenario) -> String {
    std::fs::read_to_string(scenario.path("variables")).unwrap()
}

#[test]
fn an_ipv6_address_is_connected_to_by_us_and_by_pg_dump() {
    let port = free_port();
    let settings = vec!["listen_addresses=::1".to_owned()];
    let server = Server::start_different(18, Different { settings, port: Some(port), ..Different::default() });
    let database = server.new_database();
    server.sql(&database, "CREATE TABLE t AS SELECT 1 AS x");
    for url in [
        format!("postgres://postgres@[::1]:{port}/{database}"),
        format!("postgres://postgres@/{database}?host=::1&port={port}"),
        format!("postgres://postgres@localhost:{port}/{database}?hostaddr=::1"),
    ] {
        let scenario = asserting(recorded(&server, &url), "inet_server_addr() = '::1'");
        scenario.run(&["run-job", "asserts"]).succeeded();
        scenario.run(&["run-job", "nightly"]).succeeded();
        scenario.run(&["check", "--connect"]).succeeded().prints(&["connection of the client tools", "connects (no TLS)"]);
        let variables = variables(&scenario);
        assert!(variables.contains("PGHOST=::1\n") || variables.contains("PGHOSTADDR=::1\n"), "{variables}");
    }
}

#[test]
fn a_character_of_a_password_that_must_be_encoded_is_a_mistake_that_check_names() {
    for (url, says) in [
        ("postgres://u:hunter2#x@db.example/app", "%23"),
        ("postgres://u:x@hunter2@db.example/app", "%40"),
        ("postgres://u:12/hunter2@db.example/app", "%2F"),
        ("postgres://u:12?hunter2@db.example/app", "%3F"),
        ("postgres://u:hunter2%@db.example/app", "%25"),
    ] {
        let scenario = Scenario::empty().config("[databases.app]\nurl_env = \"APP_URL\"\n").env("APP_URL", url);
        let output = scenario.run(&["check"]).exited(78).says(&[says, "database `app`"]);
        assert!(!output.stderr.contains("hunter2") && !output.stderr.contains("db.example"), "{}", output.stderr);
    }
}

#[test]
fn a_password_of_every_character_works_when_it_is_encoded() {
    let tls = TlsServer::start();
    let encoded = percent_encoding::utf8_percent_encode(PASSWORD, percent_encoding::NON_ALPHANUMERIC).to_string();
    let database = tls.server.new_database();
    let url = tls.url(&format!("by_password:{encoded}"), "127.0.0.1", &database, "sslmode=require");
    let scenario = asserting(recorded(&tls.server, &url), "current_user = 'by_password'");
    scenario.run(&["run-job", "asserts"]).succeeded();
    scenario.run(&["run-job", "nightly"]).succeeded();

    // The same by a file, of which the database's name is a part.
    let url = tls.url("by_password", "127.0.0.1", &database, "sslmode=require");
    let scenario = asserting(recorded(&tls.server, &url), "current_user = 'by_password'");
    let escaped = PASSWORD.replace('\\', "\\\\").replace(':', "\\:");
    let line = format!("127.0.0.1:{}:{database}:by_password:{escaped}\n", tls.port);
    for (file, scenario) in [(".pgpass", scenario), ("elsewhere", asserting(recorded(&tls.server, &url), "true"))] {
        let path = scenario.path(file);
        std::fs::write(&path, &line).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        let scenario = scenario.env("PGPASSFILE", &path.display().to_string());
        scenario.run(&["run-job", "asserts"]).succeeded();
        scenario.run(&["run-job", "nightly"]).succeeded();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        scenario.run(&["run-job", "asserts"]).exited(77).says(&["chmod 600", "password authentication failed"]);
    }
}

#[test]
fn an_unknown_parameter_is_named_by_check_and_its_value_is_nowhere() {
    for (parameter, says) in [
        ("sslpassword=hunter2", "`sslpassword` is not supported"),
        ("sslmod=hunter2", "did you mean `sslmode`"),
        ("apikey=hunter2", "no parameter `apikey`"),
        ("sslmode=hunter2", "verify-full"),
        ("pgbouncer=true", "transaction mode"),
    ] {
        let scenario =
            Scenario::with_url(server(18), &format!("postgres://u@localhost/app?{parameter}")).sql_job("x", "", &["SELECT 1"]);
        for arguments in [&["check"][..], &["check", "--connect"], &["run-job", "x", "--log", "trace"], &["jobs", "--json"]] {
            let output = scenario.run(arguments).exited(78).says(&[says]);
            assert!(!output.stderr.contains("hunter2") && !output.stdout.contains("hunter2"), "{output:?}");
        }
    }
    // What is given by hand.
    let scenario = Scenario::with_database(server(18), "postgres");
    let into = "postgres://u@localhost/app?apikey=hunter2";
    let output = scenario.run(&["backups", "restore", "latest", "--into", into]).exited(78).says(&["`apikey`"]);
    assert!(!output.stderr.contains("hunter2"), "{}", output.stderr);
}

#[test]
fn the_url_of_an_application_works_as_it_is() {
    let server = server(18);
    let database = server.new_database();
    for parameters in [
        "schema=public&connection_limit=5&pool_timeout=0&socket_timeout=10&statement_cache_size=0&pgbouncer=false",
        "channel_binding=prefer&options=-c%20geqo%3Doff",
    ] {
        let url = format!("{}?{parameters}", server.url(&database));
        let scenario = asserting(recorded(server, &url), "true");
        let output = scenario.run(&["run-job", "asserts"]).succeeded();
        assert!(!output.stderr.contains("WARN") && !output.stderr.contains("parameter"), "{}", output.stderr);
        scenario.run(&["run-job", "nightly"]).succeeded();
    }
    let url = format!("{}?options=-c%20geqo%3Doff", server.url(&database));
    asserting(recorded(server, &url), "current_setting('geqo') = 'off'").run(&["run-job", "asserts"]).succeeded();
}

fn encoded_socket(server: &Server) -> String {
    percent_encoding::utf8_percent_encode(&server.socket().display().to_string(), percent_encoding::NON_ALPHANUMERIC).to_string()
}

#[test]
fn of_several_hosts_the_one_that_is_asked_for_is_taken_by_us_and_by_pg_dump() {
    let mut read_only = Server::start_with(18, &["default_transaction_read_only=on"]);
    let writable = Server::start_with(18, &[]);
    for server in [&read_only, &writable] {
        server.sql("postgres", "SET default_transaction_read_only = off; CREATE DATABASE app");
        server.sql("app", "SET default_transaction_read_only = off; CREATE TABLE t (x int)");
    }
    let (first, second) = (encoded_socket(&read_only), encoded_socket(&writable));
    let url = |attributes: &str| {
        format!("postgres://postgres@127.0.0.1:1,{first}:5432,{second}:5432/app?target_session_attrs={attributes}")
    };
    for (attributes, port) in [
        ("any", &read_only),
        ("read-write", &writable),
        ("read-only", &read_only),
        ("primary", &read_only),
        ("prefer-standby", &read_only),
    ] {
        let here = port.path("data").display().to_string();
        let scenario = asserting(recorded(&writable, &url(attributes)), &format!("current_setting('data_directory') = '{here}'"));
        scenario.run(&["run-job", "asserts"]).succeeded();
        let output = scenario.run(&["check", "--connect"]);
        assert!(output.stdout.contains(&port.socket().display().to_string()), "{attributes}: {}", output.stdout);
        let variables = variables(&scenario);
        assert!(variables.contains(&format!("PGHOST={}\n", port.socket().display())), "{attributes}: {variables}");
    }
    // The ledger, too, and the backup of the right one.
    let scenario = recorded(&writable, &url("read-write")).ledger();
    scenario.run(&["run-job", "nightly"]).succeeded();
    assert_eq!(writable.sql("app", "SELECT count(*) FROM pgtend.runs WHERE outcome = 'succeeded'"), "1");

    let scenario = asserting(recorded(&writable, &url("standby")), "true");
    scenario.run(&["run-job", "asserts"]).exited(69).says(&[
        "no host accepts connections",
        "127.0.0.1:1: ",
        "target_session_attrs asks for standby",
    ]);

    // A first host that is away is passed by.
    read_only.crash();
    let scenario = asserting(recorded(&writable, &url("any")), "true");
    scenario.run(&["run-job", "asserts"]).succeeded();
}

#[test]
fn a_service_and_variables_say_the_same_to_us_and_to_pg_dump() {
    let server = server(18);
    let database = server.new_database();
    server.sql("postgres", "DO $$ BEGIN CREATE ROLE served LOGIN SUPERUSER; EXCEPTION WHEN duplicate_object THEN END $$");
    let scenario = Scenario::empty();
    let tools = recording_tools(&scenario, server);
    let service =
        format!("[elsewhere]\nhost=nowhere\n[mine]\nhost={}\nuser=served\ndbname={database}\n", server.socket().display());
    std::fs::write(scenario.path("services"), service).unwrap();
    let services = scenario.path("services").display().to_string();
    let scenario = scenario
        .config(&format!(
            "[databases.app]\n[databases.named]\nurl = 'postgres:///?service=mine'\n[tools]\nbin_dir = {}\n",
            quoted(&tools)
        ))
        .config("[stores.local]\npath = \"store\"\n")
        .backup_job("local", "")
        .env("PGSERVICEFILE", &services);
    let scenario = asserting(scenario, "current_user = 'served'");
    scenario.run(&["check"]).succeeded();
    scenario.run(&["check", "--connect"]).prints(&["database named: connection of the client tools"]);
    let scenario = scenario.env("PGSERVICE", "mine").env("PGUSER", "nobody");
    scenario.run(&["run-job", "asserts"]).succeeded();
    scenario.run(&["run-job", "nightly"]).succeeded();
    let variables = variables(&scenario);
    assert!(variables.contains("PGUSER=served\n") && !variables.contains("PGSERVICE"), "{variables}");
    scenario.env("PGSERVICE", "none").run(&["run-job", "asserts"]).exited(78).says(&["a service `none`"]);
}

#[test]
fn without_a_user_it_is_the_one_of_the_operating_system() {
    let server = server(18);
    let name = String::from_utf8(Command::new("id").arg("-un").output().unwrap().stdout).unwrap().trim().to_owned();
    server.sql(
        "postgres",
        &format!("DO $$ BEGIN CREATE ROLE \"{name}\" LOGIN SUPERUSER; EXCEPTION WHEN duplicate_object THEN END $$"),
    );
    let database = server.new_database();
    let url = format!("postgres://{}/{database}", encoded_socket(server));
    // USER and LOGNAME are nothing to libpq.
    let scenario =
        asserting(recorded(server, &url), &format!("current_user = '{name}'")).env("USER", "somebody").env("LOGNAME", "somebody");
    scenario.run(&["run-job", "asserts"]).succeeded();
    scenario.run(&["run-job", "nightly"]).succeeded();
}

/// A socket that answers as a stranger's would: it only counts who comes.
fn counting_socket(port: u16) -> (std::path::PathBuf, impl Fn() -> usize) {
    let socket = std::path::PathBuf::from(format!("/tmp/.s.PGSQL.{port}"));
    let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    listener.set_nonblocking(true).unwrap();
    std::fs::set_permissions(&socket, std::fs::Permissions::from_mode(0o777)).unwrap();
    (socket, move || std::iter::from_fn(|| listener.accept().ok()).count())
}

#[test]
fn a_socket_of_a_stranger_in_tmp_gets_no_password() {
    let port = free_port();
    let (socket, came) = counting_socket(port);
    let scenario = Scenario::empty()
        .config(&format!("[databases.app]\nurl = \"postgres://pgtend@/app?port={port}&connect_timeout=1\"\n"))
        .env("PGPASSWORD", "hunter2");
    let check = |run: &str| scenario.in_mount_namespace(&format!("mount -t tmpfs none /run && {run} $pgtend check --connect"));
    // The server of Debian's packages is down: as for libpq there, only its own folder counts.
    let output = check("mkdir /run/postgresql &&").exited(69).prints(&["/var/run/postgresql", "/tmp was not tried", "host=/tmp"]);
    assert!(!output.stdout.contains("hunter2"), "{output:?}");
    assert_eq!(came(), 0);
    // Where that folder does not exist, a socket counts by its owner.
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(&socket, Some(1), None).unwrap();
        check("").exited(78).prints(&[&socket.display().to_string(), "belongs to", "host=/tmp"]);
        assert_eq!(came(), 0);
        std::os::unix::fs::chown(&socket, Some(0), None).unwrap();
    }
    check("").exited(69);
    assert!(came() > 0, "our own is tried");
    std::fs::remove_file(&socket).unwrap();
}

fn client_certificate(scenario: &Scenario, tls: &TlsServer, names: [&str; 3]) {
    let folder = scenario.path(".postgresql");
    std::fs::create_dir(&folder).unwrap();
    for (from, to) in ["ca.crt", "client.crt", "client.key"].into_iter().zip(names) {
        std::fs::copy(tls.file(from), folder.join(to)).unwrap();
    }
}

#[test]
fn a_client_certificate_and_verify_full_work_for_us_and_for_pg_dump() {
    let tls = TlsServer::start();
    let database = tls.server.new_database();
    tls.server.sql(&database, "CREATE TABLE t AS SELECT 1 AS x");
    let proof = "(SELECT ssl AND client_dn IS NOT NULL FROM pg_stat_ssl WHERE pid = pg_backend_pid())";
    let works = |scenario: Scenario| {
        let scenario = asserting(scenario, proof);
        scenario.run(&["run-job", "asserts"]).succeeded();
        scenario.run(&["run-job", "nightly"]).succeeded();
        scenario.run(&["check", "--connect"]).succeeded().prints(&["connects (TLSv1.3)"]);
    };
    works(recorded(&tls.server, &tls.verified_url(&database)));

    // By variables, and by the files that libpq looks for in the home folder.
    let plain = tls.url("by_certificate", "localhost", &database, "sslmode=verify-full");
    let path = |name: &str| tls.file(name).display().to_string();
    works(
        recorded(&tls.server, &plain)
            .env("PGSSLROOTCERT", &path("ca.crt"))
            .env("PGSSLCERT", &path("client.crt"))
            .env("PGSSLKEY", &path("client.key")),
    );
    let scenario = recorded(&tls.server, &plain);
    client_certificate(&scenario, &tls, ["root.crt", "postgresql.crt", "postgresql.key"]);
    works(scenario);

    // The system's certificates: for tools of every version.
    let system = tls.url("postgres", "localhost", &database, "sslrootcert=system");
    for url in [system, tls.url("postgres", "localhost", &database, "sslmode=verify-full")] {
        let scenario = recorded(&tls.server, &url).env("SSL_CERT_FILE", &path("ca.crt"));
        scenario.run(&["run-job", "nightly"]).succeeded();
        scenario.run(&["check", "--connect"]).succeeded().prints(&["connects (TLSv1.3)"]);
        let scenario = recorded(&tls.server, &url);
        scenario.run(&["check", "--connect"]).exited(78).prints(&["sslrootcert must name", "certificate verify failed"]);
    }
}

#[test]
fn what_tls_refuses_is_said_of_both_with_what_to_do() {
    let tls = TlsServer::start();
    let path = |name: &str| tls.file(name).display().to_string();
    let (ca, other) = (path("ca.crt"), path("other_ca.crt"));
    for (url, ours, theirs) in [
        (
            tls.url("postgres", "localhost", "postgres", &format!("sslmode=verify-full&sslrootcert={other}")),
            "sslrootcert must name",
            "certificate verify failed",
        ),
        (
            tls.url("postgres", "[::1]", "postgres", &format!("sslmode=verify-full&sslrootcert={ca}")),
            "it is not for the host",
            "does not match host name",
        ),
        (
            tls.url("by_certificate", "localhost", "postgres", &format!("sslmode=verify-full&sslrootcert={ca}")),
            "client certificate",
            "client certificate",
        ),
    ] {
        let scenario = Scenario::with_url(&tls.server, &url);
        let output =
            scenario.run(&["check", "--connect"]).prints(&[ours, theirs, "database app: connection of the client tools"]);
        assert!(matches!(output.code, Some(77 | 78)), "{output:?}");
    }
    // Names and authority are not looked at by less than verify-ca.
    let url = tls.url("postgres", "[::1]", "postgres", "sslmode=require");
    Scenario::with_url(&tls.server, &url).run(&["check", "--connect"]).succeeded();
    // With a file of certificates, libpq verifies with `require`, too: so do we.
    let url = tls.url("postgres", "localhost", "postgres", &format!("sslmode=require&sslrootcert={other}"));
    Scenario::with_url(&tls.server, &url)
        .run(&["check", "--connect"])
        .exited(78)
        .prints(&["sslrootcert must name", "certificate verify failed"]);
    // A server that takes no plain connections: "allow" comes to TLS, and "disable" does not.
    let url = tls.url("postgres", "localhost", "postgres", "sslmode=allow");
    Scenario::with_url(&tls.server, &url).run(&["check", "--connect"]).succeeded().prints(&["connects (TLSv1.3)"]);
    let url = tls.url("postgres", "localhost", "postgres", "sslmode=disable");
    Scenario::with_url(&tls.server, &url).run(&["check", "--connect"]).exited(77).prints(&["pg_hba.conf"]);
    // On a socket there is no TLS, whatever is asked for.
    let url = format!("postgres://postgres@{}:{}/postgres?sslmode=require", encoded_socket(&tls.server), tls.port);
    Scenario::with_url(&tls.server, &url).run(&["check", "--connect"]).succeeded();
}

/// One job of each kind, on a table that has something for each.
fn jobs_of_every_kind(scenario: Scenario) -> Scenario {
    let job = |task: &str| format!("database = \"app\"\n{task}\n");
    scenario
        .backup_job("local", "verify = \"restore\"")
        .job("retention", &job("[retention]\ntable = \"public.t\"\ncolumn = \"at\"\nolder_than = \"90d\""))
        .job("partition", &job("[partition]\ntable = \"public.p\"\ncolumn = \"at\"\nevery = \"month\"\npremake = 1"))
        .job(
            "compress",
            &job("[compress]\ntable = \"public.t\"\ncolumn = \"content\"\nlarger_than = \"10KB\"\nmethod = \"toast\""),
        )
        .job("reindex", &job("[reindex]\ntable = \"public.t\""))
        .job("vector", &job("[vector_index]\ntable = \"public.v\"\ncolumn = \"v\"\nmethod = \"hnsw\"\nmetric = \"cosine\""))
        .job("audit", &job("[audit]\nstore = \"local\"\nfail_on = \"never\""))
        .job("sql", &job("[sql]\nstatements = [\"ANALYZE public.t\"]"))
}

const KINDS: [&str; 8] = ["nightly", "retention", "partition", "compress", "reindex", "vector", "audit", "sql"];

fn tables(server: &Server) -> String {
    let database = server.trusted_database();
    server.sql(
        &database,
        "CREATE EXTENSION vector;
         CREATE TABLE t (id int PRIMARY KEY, at timestamptz NOT NULL DEFAULT now(), content text);
         INSERT INTO t VALUES (1, now() - interval '1 year', repeat('x', 20000));
         CREATE TABLE p (at timestamptz NOT NULL) PARTITION BY RANGE (at);
         CREATE TABLE v (id int PRIMARY KEY, v vector(3)); INSERT INTO v SELECT g, '[1,2,3]' FROM generate_series(1, 100) g",
    );
    database
}

#[test]
fn a_pooler_in_transaction_mode_is_refused_by_every_run_before_anything_is_set() {
    let server = server(18);
    let database = tables(server);
    // The last is as bad as it gets: nothing is refused, and there is one server process for all.
    for (ignored, pool_size) in [
        ("", 20),
        ("ignore_startup_parameters = extra_float_digits,options", 20),
        ("ignore_startup_parameters = extra_float_digits,options", 1),
    ] {
        let pooler = Pooler::start(server, "transaction", pool_size, ignored);
        let scenario = jobs_of_every_kind(Scenario::with_url(server, &pooler.url(&database)));
        // The session that others get is as it was.
        let state = || {
            pooler.psql(&database, "SELECT current_setting('search_path'), current_setting('statement_timeout'), current_setting('lc_messages'), (SELECT count(*) FROM pg_prepared_statements), (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND database = (SELECT oid FROM pg_database WHERE datname = current_database()))")
        };
        let before = state();
        for kind in KINDS {
            for arguments in [&["run-job", kind][..], &["run-job", kind, "--dry-run"]] {
                scenario.run(arguments).exited(78).says(&["pooler in transaction mode", "pool_mode = session"]);
            }
        }
        scenario.run(&["check", "--connect"]).exited(78).prints(&["pooler in transaction mode"]);
        assert_eq!(state(), before, "{ignored} {pool_size}");

        // The ledger behind it, the target not.
        let scenario = Scenario::with_database(server, &database)
            .config(&format!("[databases.pooled]\nurl = {}\n[ledger]\ndatabase = \"pooled\"\n", quoted(&pooler.url(&database))))
            .sql_job("sql", "", &["SELECT 1"]);
        let said = scenario.run(&["run-job", "sql"]).exited(69);
        said.says(&["ledger", "it is behind a transaction pooler", "pooler in transaction mode"]);
        assert_eq!(state(), before);
    }
    assert_eq!(server.sql(&database, "SELECT count(*) FROM pg_namespace WHERE nspname = 'pgtend'"), "0");
}

#[test]
fn a_pooler_in_transaction_mode_is_found_while_others_are_at_work_on_it() {
    let server = server(18);
    let database = tables(server);
    for (options, pool_size) in [("server_round_robin = 1", 2), ("server_round_robin = 1", 5), ("", 2), ("", 5)] {
        let pooler = Pooler::start(server, "transaction", pool_size, options);
        let mut others = pooler.pgbench(&database, 4);
        let scenario = Scenario::with_url(server, &pooler.url(&database)).sql_job("sql", "", &["SELECT 1"]);
        for _ in 0..5 {
            scenario.run(&["run-job", "sql"]).exited(78).says(&["pooler in transaction mode"]);
        }
        others.kill().unwrap();
        others.wait().unwrap();
    }
}

#[test]
fn a_pooler_in_session_mode_is_a_server_like_any_other() {
    let server = server(18);
    for (ignored, pool_size) in [("", 20), ("ignore_startup_parameters = extra_float_digits,options", 20)] {
        let database = tables(server);
        let pooler = Pooler::start(server, "session", pool_size, ignored);
        let scenario = jobs_of_every_kind(Scenario::with_url(server, &pooler.url(&database))).ledger();
        for kind in KINDS {
            scenario.run(&["run-job", kind, "--yes"]).succeeded();
        }
        scenario.run(&["check", "--connect"]).succeeded();
        assert_eq!(server.sql(&database, "SELECT count(*) FROM t"), "0");
    }
    // A pool that is too small for a run is not taken for one in transaction mode.
    let database = tables(server);
    let pooler = Pooler::start(server, "session", 1, "query_wait_timeout = 8");
    let scenario = Scenario::with_url(server, &pooler.url(&database)).sql_job("sql", "", &["SELECT 1"]);
    let output = scenario.run(&["run-job", "sql"]);
    assert!(!output.stderr.contains("transaction mode") && output.code != Some(78), "{output:?}");
    scenario.run(&["grants"]).succeeded();
}

#[test]
fn on_a_standby_a_restore_for_verification_is_refused_before_anything_is_dumped() {
    let primary = Server::start_with(18, &[]);
    primary.sql("postgres", "CREATE DATABASE app");
    let standby = primary.standby();
    standby.catches_up(&primary);
    let scenario = Scenario::with_database(&standby, "app").backup_job("local", "verify = \"restore\"");
    for arguments in [&["run-job", "nightly"][..], &["run-job", "nightly", "--dry-run"]] {
        scenario.run(arguments).exited(78).says(&["needs `scratch`", "standby"]);
    }
    scenario.run(&["check", "--connect"]).exited(78).prints(&["needs `scratch`"]);
    assert_eq!(scenario.files("store"), Vec::<String>::new());

    let more = format!("[databases.beside]\nurl = {}\n", quoted(&primary.url("postgres")));
    let scenario = scenario.config(&more).backup_job("local", "verify = \"restore\"\nscratch = \"beside\"");
    scenario.run(&["check", "--connect"]).succeeded();
    scenario.run(&["run-job", "nightly"]).succeeded();
    // A scratch server that is a standby, too.
    let scenario = scenario.config(&format!("[databases.same]\nurl = {}\n", quoted(&standby.url("postgres"))));
    let scenario = scenario.backup_job("local", "verify = \"restore\"\nscratch = \"same\"");
    scenario.run(&["run-job", "nightly"]).exited(78).says(&["was made and its bytes are intact", "is a standby"]);
}

#[test]
fn sessions_whose_messages_are_read_speak_english_where_the_role_may_choose() {
    for major in [14, 15, 18] {
        let server = server(major);
        let database = server.new_database();
        let (superuser, plain, granted) =
            (format!("{database}_super"), format!("{database}_plain"), format!("{database}_granted"));
        for (role, kind) in [(&superuser, "SUPERUSER"), (&plain, "NOSUPERUSER"), (&granted, "NOSUPERUSER")] {
            server.sql("postgres", &format!("CREATE ROLE {role} LOGIN {kind}; ALTER ROLE {role} SET lc_messages = 'C.UTF-8'"));
        }
        if major >= 15 {
            server.sql("postgres", &format!("GRANT SET ON PARAMETER lc_messages TO {granted}"));
        }
        for (role, is) in [(&superuser, "C"), (&plain, "C.UTF-8"), (&granted, if major >= 15 { "C" } else { "C.UTF-8" })] {
            let scenario =
                asserting(recorded(server, &server.url_as(role, &database)), &format!("current_setting('lc_messages') = '{is}'"));
            scenario.run(&["run-job", "asserts"]).succeeded();
            scenario.run(&["run-job", "nightly"]).succeeded();
            assert_eq!(variables(&scenario).contains(" -c lc_messages=C "), is == "C", "{role} on {major}");
        }
        let log = server.logged();
        assert!(!log.contains("permission denied to set parameter \"lc_messages\""), "{log}");
    }
}
