//! What a proof in a server of its own covers: owners, grants, what only a superuser restores, memory, amcheck.

use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::support::postgres::{server, server_dir};
use crate::support::quoted;
use crate::throwaway::{entries, facts, place, scenario};

/// A function of the dump's that would do what only a superuser can, wherever such a one ran it.
fn hostile(returns: &str, evidence: &std::path::Path) -> String {
    format!(
        "RETURNS {returns} LANGUAGE plpgsql AS $$
         BEGIN
             IF current_database() = 'pgtend_proof' THEN COPY (SELECT 1) TO PROGRAM 'touch {}'; END IF;
         END $$",
        evidence.display()
    )
}

#[test]
fn what_only_a_superuser_may_make_is_restored_without_running_code_as_one() {
    for major in [14, 18] {
        let server = server(major);
        let database = server.new_database();
        let (scenario, place) = scenario(server, &database, "");
        std::fs::set_permissions(place.path(), std::fs::Permissions::from_mode(0o1777)).unwrap();
        let evidence = place.path().join("evidence");
        let (owner, reader) = (format!("{database}_owner"), format!("{database}_reader"));
        let on_login = if major >= 17 { "CREATE EVENT TRIGGER on_login ON login EXECUTE FUNCTION app.on_ddl();" } else { "" };
        let of_a_schema = match major >= 15 {
            true => {
                "CREATE PUBLICATION of_a_schema FOR TABLES IN SCHEMA app; CREATE PUBLICATION filtered FOR TABLE app.t (id) WHERE (id > 5);"
            }
            false => "",
        };
        server.sql(
            &database,
            &format!(
                "CREATE ROLE {owner}; CREATE ROLE {reader}; CREATE SCHEMA app AUTHORIZATION {owner};
                 GRANT CREATE, USAGE ON SCHEMA app TO {reader};
                 SET ROLE {owner};
                 CREATE TABLE app.t (id int PRIMARY KEY, body text); INSERT INTO app.t SELECT i, 'x' FROM generate_series(1, 100) i;
                 CREATE FUNCTION app.f(a int, b numeric(10,2)) RETURNS int LANGUAGE sql AS 'SELECT a';
                 CREATE FUNCTION app.cmp(a int, b int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT btint4cmp(a, b)';
                 CREATE OPERATOR app.@@ (FUNCTION = app.cmp, LEFTARG = int, RIGHTARG = int);
                 GRANT SELECT ON app.t TO {reader} WITH GRANT OPTION;
                 SET ROLE {reader}; GRANT SELECT ON app.t TO PUBLIC; RESET ROLE;
                 ALTER DEFAULT PRIVILEGES FOR ROLE {owner} IN SCHEMA app GRANT SELECT ON TABLES TO {reader};
                 CREATE OPERATOR FAMILY app.family USING btree; COMMENT ON OPERATOR FAMILY app.family USING btree IS 'ours';
                 CREATE OPERATOR CLASS app.backwards FOR TYPE int USING btree AS
                     OPERATOR 1 <, OPERATOR 2 <=, OPERATOR 3 =, OPERATOR 4 >=, OPERATOR 5 >, FUNCTION 1 app.cmp(int, int);
                 ALTER OPERATOR CLASS app.backwards USING btree OWNER TO {owner};
                 CREATE INDEX ON app.t (id app.backwards);
                 CREATE FOREIGN DATA WRAPPER plain OPTIONS (a 'b'); GRANT USAGE ON FOREIGN DATA WRAPPER plain TO {owner};
                 CREATE SERVER elsewhere FOREIGN DATA WRAPPER plain; CREATE USER MAPPING FOR {reader} SERVER elsewhere;
                 CREATE PUBLICATION everything FOR ALL TABLES; COMMENT ON PUBLICATION everything IS 'ours';
                 CREATE PUBLICATION one FOR TABLE app.t; {of_a_schema} COMMENT ON PUBLICATION one IS 'ours';
                 CREATE FUNCTION app.on_ddl() {};
                 CREATE EVENT TRIGGER first ON ddl_command_end EXECUTE FUNCTION app.on_ddl();
                 CREATE EVENT TRIGGER second ON ddl_command_start EXECUTE FUNCTION app.on_ddl();
                 ALTER EVENT TRIGGER first ENABLE ALWAYS; COMMENT ON EVENT TRIGGER second IS 'ours'; {on_login}",
                hostile("event_trigger", &evidence)
            ),
        );
        let run = scenario.json(&["run-job", "nightly"]);
        let by_superuser = &facts(&run)["by_superuser"];
        // Two tables and functions are the least of them; the exact numbers of owners and grants are pg_dump's.
        assert!(by_superuser["owners"].as_u64().unwrap() >= 8, "{run:#}");
        assert!(by_superuser["grants"].as_u64().unwrap() >= 4, "{run:#}");
        let expected = [
            ("default privileges", 1),
            ("operator classes", 1),
            ("operator families", 2),
            ("foreign-data wrappers", 1),
            // That for all tables: the role that restores makes the others.
            ("publications", 1),
            ("event triggers", if major >= 17 { 3 } else { 2 }),
        ];
        for (what, count) in expected {
            // pg_dump writes the family of a class as well.
            assert_eq!(by_superuser[what], count, "{what} on {major}: {run:#}");
        }
        assert!(!facts(&run)["not_tried"].to_string().contains("grantors"), "{run:#}");
        assert!(!evidence.exists(), "no event trigger ran as a superuser on {major}");
        assert_eq!(entries(&place), Vec::<PathBuf>::new());
    }
}

#[test]
fn a_grant_that_no_restore_can_make_is_a_refusal_of_the_proof() {
    let server = server(18);
    let database = server.new_database();
    let (owner, reader) = (format!("{database}_owner"), format!("{database}_reader"));
    server.sql(
        &database,
        &format!(
            "CREATE ROLE {owner}; CREATE ROLE {reader}; CREATE SCHEMA app AUTHORIZATION {owner}; GRANT USAGE ON SCHEMA app TO {reader};
             SET ROLE {owner}; CREATE TABLE app.t AS SELECT 1 AS i; GRANT SELECT ON app.t TO {reader} WITH GRANT OPTION;
             SET ROLE {reader}; GRANT SELECT ON app.t TO PUBLIC; RESET ROLE; REVOKE USAGE ON SCHEMA app FROM {reader};"
        ),
    );
    let (scenario, place) = scenario(server, &database, "");
    scenario.run(&["run-job", "nightly"]).exited(77).says(&[
        "was made and its bytes are intact, but the verification by restore failed",
        "as a superuser: permission denied for schema app",
        "GRANT SELECT ON TABLE app.t TO PUBLIC",
    ]);
    assert_eq!(entries(&place), Vec::<PathBuf>::new());
}

/// PostgreSQL records no dependencies on the superuser that initdb made, whom another server may not have.
#[test]
fn what_belongs_to_the_sources_first_superuser_is_given_to_a_role_of_that_name() {
    let server = server(18);
    let database = server.new_database();
    let owner = format!("{database}_owner");
    server.sql(
        &database,
        &format!(
            "CREATE ROLE {owner}; ALTER SCHEMA public OWNER TO {owner}; SET ROLE {owner}; CREATE TABLE t AS SELECT 1 AS i; RESET ROLE;
             CREATE COLLATION ours (locale = 'C'); CREATE STATISTICS of_t ON (i + 1) FROM t; GRANT SELECT ON t TO {owner} WITH GRANT OPTION;
             GRANT SELECT ON t TO postgres;"
        ),
    );
    let (scenario, place) = scenario(server, &database, "");
    let run = scenario.json(&["run-job", "nightly"]);
    assert!(facts(&run)["by_superuser"]["owners"].as_u64().unwrap() >= 4, "{run:#}");
    assert_eq!(entries(&place), Vec::<PathBuf>::new());
}

#[test]
fn a_restore_that_takes_more_memory_than_it_may_is_refused() {
    let server = server(18);
    let database = server.new_database();
    server.sql(
        &database,
        "CREATE FUNCTION hungry(i int) RETURNS boolean LANGUAGE plpgsql SET search_path = pg_catalog AS $$
         BEGIN
             IF current_database() = 'pgtend_proof' THEN RETURN length(repeat('x', 1000000000)) > 0; END IF;
             RETURN true;
         END $$;
         CREATE TABLE t (i int); INSERT INTO t SELECT generate_series(1, 1000); CREATE INDEX ON t (i);",
    );
    let (scenario, place) = scenario(server, &database, "");
    let config = std::fs::read_to_string(scenario.path("config.toml")).unwrap();
    let with = |memory: &str| {
        let config = config.replace("[verify]\n", &format!("[verify]\nmemory = \"{memory}\"\n"));
        std::fs::write(scenario.path("config.toml"), config).unwrap();
    };
    with("100MB");
    scenario.run(&["check"]).exited(78).says(&["`memory` of", "1GiB or more"]);
    with("1GiB");
    scenario.run(&["run-job", "nightly"]).succeeded();
    server.sql(&database, "ALTER TABLE t ADD CHECK (hungry(i))");
    scenario.run(&["run-job", "nightly"]).exited(1).says(&[
        "was made and its bytes are intact, but the verification by restore failed",
        "out of memory",
        "raise `memory` of [verify]",
    ]);
    assert_eq!(entries(&place), Vec::<PathBuf>::new());
}

/// A comparison that is another one while amcheck looks.
const FICKLE: &str =
    "CREATE FUNCTION fickle(a int, b int) RETURNS int IMMUTABLE LANGUAGE plpgsql SET search_path = pg_catalog AS $$
    BEGIN
        IF current_query() LIKE '%bt_index_check%' THEN RETURN btint4cmp(b, a); END IF;
        RETURN btint4cmp(a, b);
    END $$;
    CREATE OPERATOR CLASS fickle FOR TYPE int USING btree AS
        OPERATOR 1 <, OPERATOR 2 <=, OPERATOR 3 =, OPERATOR 4 >=, OPERATOR 5 >, FUNCTION 1 fickle(int, int);
    CREATE INDEX fickle_idx ON app.t (id fickle);";

#[test]
fn amcheck_reads_heaps_and_indexes_of_the_copy_and_what_it_finds_fails_the_proof() {
    for (major, is_there) in [(14, false), (17, true)] {
        let server = server(major);
        let database = server.new_database();
        server.sql(
            &database,
            "CREATE SCHEMA app; CREATE TABLE app.t (id int PRIMARY KEY, body text);
             INSERT INTO app.t SELECT i, repeat(md5(i::text), 200) FROM generate_series(1, 200) i;
             CREATE INDEX on_body ON app.t (lower(left(body, 10))); CREATE MATERIALIZED VIEW app.m AS SELECT count(*) FROM app.t;",
        );
        // The dump may have the extension, too.
        if is_there {
            server.sql(&database, "CREATE SCHEMA tools; CREATE EXTENSION amcheck WITH SCHEMA tools");
        }
        let (scenario, place) =
            scenario(server, &database, "checks = [\"amcheck\"]\nexpect = [\"SELECT count(*) = 200 FROM app.t\"]");
        let run = scenario.json(&["run-job", "nightly"]);
        assert_eq!(facts(&run)["amcheck"], serde_json::json!({ "tables": 2, "indexes": 2 }), "{run:#}");
        server.sql(&database, FICKLE);
        let output = scenario.run(&["run-job", "nightly"]).exited(1).says(&[
            "was made and its bytes are intact, but the check of the restored copy failed: amcheck finds damage",
            "app.fickle_idx: ",
        ]);
        assert!(!output.stderr.contains("on_body"), "{output:?}");
        assert_eq!(scenario.json(&["backups", "list"])["sets"][1]["restored"], false);
        assert_eq!(entries(&place), Vec::<PathBuf>::new());
    }
}

#[test]
fn amcheck_that_is_not_installed_or_has_no_server_of_its_own_is_said() {
    let server = server(18);
    let database = server.new_database();
    server.sql(&database, "CREATE TABLE t AS SELECT 1 AS i");
    let (scenario, _place) = scenario(server, &database, "checks = [\"amcheck\"]");
    let folder = place();
    std::fs::create_dir_all(folder.path().join("bin")).unwrap();
    std::fs::create_dir_all(folder.path().join("share/extension")).unwrap();
    for program in ["initdb", "postgres"] {
        symlink(server_dir(18).join(program), folder.path().join("bin").join(program)).unwrap();
    }
    let config = std::fs::read_to_string(scenario.path("config.toml")).unwrap();
    let programs = |folder: &std::path::Path| format!("server_bin_dir = {}", quoted(&folder.display().to_string()));
    let config = config.replace(&programs(&server_dir(18)), &programs(&folder.path().join("bin")));
    std::fs::write(scenario.path("config.toml"), config).unwrap();
    // Debian's programs have their extensions elsewhere.
    let hidden = "[ ! -d /usr/share/postgresql ] || mount -t tmpfs none /usr/share/postgresql; exec $pgtend";
    let missing = "the extension amcheck is not installed for the PostgreSQL 18";
    scenario.in_mount_namespace(&format!("{hidden} check --connect")).exited(78).prints(&[missing]);
    let job = "database = \"app\"\n[backup]\nstore = \"local\"\nchecks = [\"amcheck\"]\n";
    let scenario = scenario.job("nightly", &format!("{job}verify = \"restore\"\n"));
    let output = scenario.in_mount_namespace(&format!("{hidden} run-job nightly --json")).succeeded();
    let run: Value = serde_json::from_str(&output.stdout).unwrap();
    let warnings = run["runs"][0]["report"]["warnings"].to_string();
    assert!(warnings.contains("was not done: pgtend creates that extension only in a server of its own"), "{run:#}");
    for more in ["verify = \"checksum\"\n", "verify = \"restore\"\nscratch = \"same\"\n"] {
        std::fs::write(scenario.path("jobs/nightly.toml"), format!("{job}{more}")).unwrap();
        scenario.run(&["check"]).exited(78).says(&["`checks` without a server of its own", "scratch = \"throwaway\""]);
    }
}

const VECTORS: &str = "CREATE EXTENSION vector; CREATE TABLE e (id int PRIMARY KEY, v vector(32));
    INSERT INTO e SELECT i, (SELECT array_agg(sin(i * n)) FROM generate_series(1, 32) n)::vector FROM generate_series(1, 2000) i;
    CREATE INDEX e_hnsw ON e USING hnsw (v vector_cosine_ops) WITH (m = 8, ef_construction = 32); COMMENT ON INDEX e_hnsw IS 'ours';
    CREATE INDEX e_ivfflat ON e USING ivfflat (v vector_l2_ops) WITH (lists = 10) WHERE id > 5;
    CREATE TABLE p (LIKE e) PARTITION BY RANGE (id); CREATE TABLE p_1 PARTITION OF p FOR VALUES FROM (1) TO (3000);
    INSERT INTO p SELECT * FROM e; CREATE INDEX p_hnsw ON p USING hnsw (v vector_l2_ops) WHERE id > 5";

#[test]
fn vector_indexes_are_defined_and_not_built_in_a_proof_that_leaves_them_out() {
    let server = server(18);
    let database = server.new_database();
    server.sql(&database, VECTORS);
    let (mut scenario, _place) = scenario(server, &database, "");
    let sizes = |compares: &str| {
        let indexes = ["e_hnsw", "e_ivfflat", "p_1_v_idx"].map(|name| format!("pg_relation_size('{name}') {compares} 200000"));
        let attached = "(SELECT count(*) = 1 FROM pg_inherits WHERE inhparent = 'p_hnsw'::regclass)";
        format!("expect = [\"SELECT {} AND obj_description('e_hnsw'::regclass) = 'ours' AND {attached}\"]", indexes.join(" AND "))
    };
    for scratch in ["throwaway", "same"] {
        let job = |verify: &str, expect: &str| format!("verify = {verify}\nscratch = \"{scratch}\"\n{expect}");
        let without = "{ restore = \"always\", vector_indexes = false }";
        scenario = scenario.backup_job("local", &job(without, &sizes("<")));
        scenario
            .run(&["run-job", "nightly", "--dry-run"])
            .succeeded()
            .prints(&["every table counted and its rows hashed, vector indexes not built"]);
        let run = scenario.json(&["run-job", "nightly"]);
        let not_tried = facts(&run)["not_tried"].to_string();
        assert!(not_tried.contains("the build of vector indexes (vector_indexes = false)"), "{run:#}");
        assert_eq!(run["runs"][0]["report"]["warnings"].as_array().map(Vec::len), Some(0), "{run:#}");
        assert!(run["runs"][0]["report"]["summary"].as_str().unwrap().ends_with(", without vector indexes"), "{run:#}");
        scenario.run(&["backups", "list"]).succeeded().prints(&[", without vector indexes"]);
        scenario = scenario.backup_job("local", &job("{ restore = \"always\" }", &sizes(">")));
        let run = scenario.json(&["run-job", "nightly"]);
        assert!(!facts(&run)["not_tried"].to_string().contains("vector"), "{run:#}");
    }
    let useless = scenario.backup_job("local", "verify = { vector_indexes = false }");
    useless.run(&["check"]).exited(78).says(&["`vector_indexes` of `verify` without `restore`"]);
}

/// A control group with a limit for its memory, as of a container.
struct Group(PathBuf);

impl Group {
    /// None where no such group can be made.
    fn with_limit(bytes: u64) -> Option<Self> {
        [("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")].iter().find_map(|(root, limit)| {
            let group = Self(Path::new(root).join(format!("pgtend-test-{}", std::process::id())));
            std::fs::create_dir(&group.0).ok()?;
            std::fs::write(group.0.join(limit), bytes.to_string()).ok()?;
            Some(group)
        })
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.0);
    }
}

#[test]
fn a_server_in_a_container_takes_less_memory_where_the_container_has_little() {
    let Some(group) = Group::with_limit(800 << 20) else { return };
    let server = server(18);
    let database = server.new_database();
    server.sql(&database, "CREATE TABLE t AS SELECT generate_series(1, 1000) AS i; CREATE INDEX ON t (i)");
    let less = "pg_size_bytes(current_setting('maintenance_work_mem')) BETWEEN 30000000 AND 320000000 AND pg_size_bytes(current_setting('shared_buffers')) < 110000000";
    let (scenario, _place) = scenario(server, &database, &format!("expect = [\"SELECT {less}\"]"));
    let usual = scenario.run(&["run-job", "nightly"]);
    let inner = scenario.command(&["run-job", "nightly"]);
    let mut command = std::process::Command::new("sh");
    command
        .args(["-c", "echo $$ >\"$0\" && exec \"$@\""])
        .arg(group.0.join("cgroup.procs"))
        .arg(inner.get_program())
        .args(inner.get_args());
    command.current_dir(scenario.path(""));
    for (name, value) in inner.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    let ran = command.output().unwrap();
    let said = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success() && said.contains("little memory is free"), "{said}");
    if !usual.stderr.contains("little memory is free") {
        usual.exited(1).says(&["these queries of `expect` are not true there"]);
    }
}
