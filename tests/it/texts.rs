//! A name may be SQL, or an escape sequence. What pgtend writes for people to run, or to read on a terminal, holds it as a name.

use serde_json::json;

use crate::audit::{audit, findings};
use crate::support::Scenario;
use crate::support::postgres::{Server, server};

/// `text` as a role's or a table's name in SQL.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('"', "\"\""))
}

/// A string of TOML, which takes no DEL as it is.
fn toml(text: &str) -> String {
    json!(text).to_string().replace('\u{7f}', "\\u007f")
}

fn role(server: &Server, name: &str) -> String {
    server.sql("postgres", &format!("CREATE ROLE {name} LOGIN"));
    name.to_owned()
}

fn is_superuser(server: &Server, role: &str) -> bool {
    server.sql("postgres", &format!("SELECT rolsuper FROM pg_roles WHERE rolname = '{role}'")) == "t"
}

#[test]
fn a_table_whose_name_is_sql_gains_nothing_by_the_fixes_of_an_audit() {
    for major in [14, 18] {
        let server = server(major);
        let database = server.new_database();
        let stranger = role(server, &format!("stranger_{database}"));
        let mut sql =
            "CREATE TABLE parent (id serial PRIMARY KEY, at timestamp DEFAULT now()); INSERT INTO parent DEFAULT VALUES; ANALYZE parent;
             SELECT setval('parent_id_seq', 2000000000);"
                .to_owned();
        for (number, end) in ["\n", "\r", "\u{85}\u{2028}\n"].into_iter().enumerate() {
            let name = quoted(&format!("x{number}{end}ALTER ROLE {stranger} SUPERUSER; --"));
            let view = quoted(&format!("v{number}{end}ALTER ROLE {stranger} SUPERUSER; --"));
            sql += &format!(
                "CREATE TABLE {name} (parent int REFERENCES parent ON DELETE CASCADE); CREATE VIEW {view} AS SELECT at FROM parent;"
            );
        }
        server.sql(&database, &sql);
        let audited = audit(&Scenario::with_database(server, &database));
        let mut commented = 0;
        for finding in findings(&audited) {
            let fix = &finding["fix"];
            if let Some(sql) = fix["sql"].as_str().or(fix["draft"].as_str()).map(|sql| sql.replace("<ZONE>", "'UTC'")) {
                // Some are for a person to complete; what psql makes of each counts here.
                let _ = server.psql(&database, &format!("\\set ON_ERROR_STOP off\n{sql}"));
                commented += usize::from(sql.contains("-- columns that refer") || sql.contains("-- in the way"));
            }
            assert!(!is_superuser(server, &stranger), "on {major}: {:#}", finding["fix"]);
        }
        assert!(commented >= 2, "names in comments: {audited:#}");
    }
}

#[test]
fn roles_and_statements_that_are_sql_gain_nothing_by_the_output_of_grants() {
    let server = server(15);
    let database = server.new_database();
    let stranger = role(server, &format!("stranger_{database}"));
    let owner = quoted(&format!("o{database}\nALTER ROLE {stranger} SUPERUSER; --"));
    server.sql(
        &database,
        &format!("CREATE ROLE {owner} SUPERUSER; CREATE TABLE scripts (content text); ALTER TABLE scripts OWNER TO {owner}"),
    );
    let scenario = Scenario::with_database(server, &database)
        .job("compress", "database = 'app'\n[compress]\ntable = 'public.scripts'\ncolumn = 'content'\nmethod = 'toast'\n")
        .job(
            "missing",
            &format!(
                "database = 'app'\n[reindex]\ntable = {}\n",
                toml(&quoted(&format!("x\nALTER ROLE {stranger} SUPERUSER; --")))
            ),
        )
        .sql_job("stats", "", &[&format!("ANALYZE scripts; -- a\rALTER ROLE {stranger} SUPERUSER"), "VACUUM"]);
    let sql = scenario.run(&["grants", "--role", &format!("tend_{database}")]).succeeded().stdout;
    server.psql("postgres", &sql).unwrap_or_else(|error| panic!("{error}\n{sql}"));
    assert!(!is_superuser(server, &stranger), "{sql}");
    assert!(sql.contains("owns \"public\".\"scripts\" and is a superuser"), "{sql}");
    server.sql(&database, &format!("DROP OWNED BY {owner}; DROP ROLE {owner}"));
}

/// Nothing that a terminal would obey.
fn is_text(text: &str) {
    let hidden: Vec<char> = text.chars().filter(|letter| letter.is_control() && !matches!(letter, '\n' | '\t')).collect();
    assert!(hidden.is_empty(), "{hidden:?} in {text:?}");
}

#[test]
fn a_name_with_escape_sequences_reaches_neither_stdout_nor_stderr() {
    let server = server(18);
    let database = server.new_database();
    let name = "red\u{1b}[31m\u{1b}]52;c;cm0=\u{7}\u{9b}2J\r\u{7f}";
    server.sql(
        &database,
        &format!(
            "CREATE TABLE {0} (parent int, at timestamp); INSERT INTO {0} SELECT 1, now() - interval '1 year';
             CREATE TABLE keyed (id int PRIMARY KEY); ALTER TABLE keyed RENAME id TO {0}",
            quoted(name)
        ),
    );
    let table = toml(&format!("public.{}", quoted(name)));
    let retention =
        |column: &str| format!("database = 'app'\n[retention]\ntable = {table}\ncolumn = '{column}'\nolder_than = '30d'\n");
    let scenario =
        Scenario::with_database(server, &database).ledger().job("keep", &retention("at")).job("fails", &retention("nosuch")).job(
            "logs",
            &format!(
                "database = 'app'\n[sql]\nstatements = [{}]\n",
                toml(&format!("DO $$ BEGIN RAISE EXCEPTION '{name}'; END $$"))
            ),
        );
    let mut said = String::new();
    for arguments in [
        &["audit", "--database", "app", "--fail-on", "never"][..],
        &["audit", "--database", "app", "--fail-on", "never", "--format", "markdown"],
        &["audit", "--database", "app", "--fail-on", "never", "--format", "html"],
        &["audit", "--database", "app", "--fail-on", "never", "--json"],
        &["run-job", "keep", "--dry-run"],
        &["run-job", "keep"],
        &["run-job", "keep", "--json"],
        &["run-job", "fails"],
        &["run-job", "logs"],
        &["--log-format", "json", "--log", "debug", "run-job", "logs"],
        &["grants"],
        &["check", "--connect"],
        &["runs"],
        &["runs", "show", "1"],
        &["runs", "--json"],
    ] {
        let output = scenario.run(arguments);
        is_text(&output.stdout);
        is_text(&output.stderr);
        said += &output.stdout;
        said += &output.stderr;
    }
    assert!(said.contains("red\\x1b[31m"), "the name is shown as text: {said}");
    let audited = audit(&scenario);
    assert!(
        findings(&audited).iter().any(|finding| finding["fix"].to_string().contains("red\\u001b[31m")),
        "JSON has it as it is"
    );
}

/// What is in quotes in a Rust source, roughly: enough to find SQL.
fn literals(source: &str) -> Vec<String> {
    let source: String = source.split("#[cfg(test)]\nmod tests {").next().unwrap().to_owned();
    let letters: Vec<char> = source.chars().collect();
    let (mut found, mut at) = (Vec::new(), 0);
    while at < letters.len() {
        match letters[at] {
            '/' if letters.get(at + 1) == Some(&'/') => {
                while letters.get(at).is_some_and(|letter| *letter != '\n') {
                    at += 1;
                }
            }
            // A character, not a lifetime.
            '\'' if letters.get(at + 2) == Some(&'\'') => at += 2,
            '\'' if letters.get(at + 1) == Some(&'\\') => at += 3,
            '"' => {
                let mut literal = String::new();
                at += 1;
                while let Some(letter) = letters.get(at).filter(|letter| **letter != '"') {
                    literal.push(*letter);
                    if *letter == '\\' {
                        at += 1;
                        literal.extend(letters.get(at));
                    }
                    at += 1;
                }
                found.push(literal);
            }
            _ => {}
        }
        at += 1;
    }
    found
}

fn sources(folder: &std::path::Path, found: &mut Vec<std::path::PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        match entry.path() {
            path if path.is_dir() => sources(&path, found),
            path => found.push(path),
        }
    }
}

#[test]
fn no_statement_of_ours_has_a_letter_that_an_encoding_may_lack() {
    assert_eq!(literals("let a = \"SELECT \\\"x\\\" …\"; // \"no\"\n let b = '\"'; f::<'a>(\"y\")"), ["SELECT \\\"x\\\" …", "y"]);
    let mut files = Vec::new();
    sources(&std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut files);
    let begins_as_sql = |text: &str| {
        let first: String = text.trim_start().chars().take_while(char::is_ascii_uppercase).collect();
        let words = "SELECT INSERT UPDATE DELETE WITH CREATE ALTER DROP COMMENT DO SET LOCK COPY GRANT REVOKE BEGIN DECLARE EXPLAIN TRUNCATE";
        // Followed by what SQL has, and not by the words of a sentence.
        first.len() > 1 && words.split(' ').any(|word| word == first) && text.contains('\n')
    };
    let mut looked_at = 0;
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        match file.extension().and_then(|end| end.to_str()) {
            Some("sql") => {
                looked_at += 1;
                assert!(text.is_ascii(), "{} has {:?}", file.display(), text.chars().find(|letter| !letter.is_ascii()));
            }
            Some("rs") => {
                for literal in literals(&text).iter().filter(|literal| begins_as_sql(literal)) {
                    looked_at += 1;
                    assert!(literal.is_ascii(), "{}: {literal}", file.display());
                }
            }
            _ => {}
        }
    }
    assert!(looked_at > 150, "{looked_at}");
}

#[test]
fn a_database_whose_name_is_sql_or_a_command_gains_nothing_by_its_grants() {
    let server = server(18);
    let folder = tempfile::tempdir().unwrap();
    let own = server.new_database();
    let stranger = role(server, &format!("stranger_{own}"));
    let pwned = folder.path().join("pwned");
    let scenario = Scenario::empty().config("[stores.local]\npath = 'store'\n");
    let mut names = Vec::new();
    let mut config = String::new();
    for (number, end) in [
        format!("' `touch {}`", pwned.display()),
        format!("' \\ALTER ROLE {stranger} SUPERUSER; --"),
        "\\b".to_owned(),
        "''".to_owned(),
        "\\'\"$x :y".to_owned(),
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("{own}{end}");
        server.sql("postgres", &format!("CREATE DATABASE {}", quoted(&name)));
        server.drop_with_test(&name.replace('"', "\"\""));
        config += &format!("[databases.d{number}]\nurl = '{}'\n", server.url(&name));
        names.push(name);
    }
    let scenario = scenario.config(&config);
    let scenario = (0..names.len()).fold(scenario, |scenario, number| {
        scenario.job(&format!("j{number}"), &format!("database = 'd{number}'\n[backup]\nstore = 'local'\n"))
    });
    let tend = format!("tend_{own}");
    let sql = scenario.run(&["grants", "--role", &tend]).succeeded().stdout;
    server.psql("postgres", &sql).unwrap_or_else(|error| panic!("{error}\n{sql}"));
    assert!(!pwned.exists());
    assert!(!is_superuser(server, &stranger));
    for name in names {
        let literal = name.replace('\'', "''");
        let may = format!(
            "SELECT d.datacl::text LIKE '%{tend}=%' FROM pg_database d WHERE datname = '{literal}' AND '{literal}' !~ 'never'"
        );
        assert_eq!(server.sql("postgres", &may), "t", "{name}\n{sql}");
    }
}

/// A name in a comment ends it, if it holds the end of a line.
#[test]
fn no_comment_in_a_fix_holds_a_name_as_it_is() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/task/audit");
    let mut files = vec![folder.join("prelude.sql")];
    files.extend(std::fs::read_dir(folder.join("checks")).unwrap().map(|entry| entry.unwrap().path()));
    files.retain(|file| file.extension().is_some_and(|end| end == "sql"));
    assert!(files.len() > 30, "{}", files.len());
    // What stands for a name, and what follows it: a constant of the check, or a text without ends of lines.
    let harmless =
        ["%s\\n', translate(", "%s', translate(", "%s is installed on the server\\nALTER EXTENSION %I UPDATE;', v.last,"];
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        for line in text.lines() {
            for (at, _) in line.match_indices("-- ") {
                let comment = &line[at..];
                let end = ["\\n", "'"].iter().filter_map(|end| comment.find(end)).min();
                let Some(end) = end.filter(|_| at > 0 && line[..at].ends_with(['\'', 'n'])) else { continue };
                let Some(name) = comment[..end].find('%') else { continue };
                assert!(
                    harmless.iter().any(|harmless| comment[name..].starts_with(harmless)),
                    "{}: a name stands in a comment: {comment}",
                    file.display()
                );
            }
        }
    }
}
