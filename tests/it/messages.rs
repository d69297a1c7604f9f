//! Messages to people: each service in its form, together in one, told once, and never at the expense of a job.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};
use rustix::process::Signal;
use serde_json::Value;

use crate::support::http::{Manners, Recorder};
use crate::support::json_schema::Validator;
use crate::support::postgres::{Server, server};
use crate::support::serve::{Serving, asked, becomes, reaches, sql_job, with_ledger};
use crate::support::smtp::Smtp;
use crate::support::tls::Certificates;
use crate::support::{Scenario, eventually, quoted};

/// It fails until the table `there` is.
const UNTIL_THERE: &str = "SELECT 1 / (SELECT count(*) FROM pg_class WHERE relname = 'there')";

/// A place for messages whose URL is in the environment.
fn place(name: &str, kind: &str, more: &str) -> String {
    format!("[notify.{name}]\nkind = \"{kind}\"\nurl_env = \"{}_URL\"\n{more}\n", name.to_uppercase())
}

/// A database with its ledger, and `[notify.ops]`, a program that gets JSON from `recorder`.
pub fn told_to(recorder: &Recorder, server: &Server, more: &str) -> (Scenario, String) {
    let (scenario, database) = with_ledger(server);
    (scenario.config(&place("ops", "webhook", more)).env("OPS_URL", &recorder.url("/ops/c0ffee")), database)
}

fn titles(recorder: &Recorder) -> Vec<String> {
    recorder.posted().iter().map(|body| body["title"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn each_service_gets_a_failure_in_its_form_and_hostile_text_stays_text() {
    let server = server(18);
    let recorder = Recorder::start(Manners::Answers);
    let (scenario, _) = with_ledger(server);
    let mut scenario = scenario.env("TOKEN", "42:c0ffee");
    for kind in ["slack", "discord", "teams", "webhook"] {
        scenario = scenario
            .config(&place(kind, kind, ""))
            .env(&format!("{}_URL", kind.to_uppercase()), &recorder.url(&format!("/{kind}")));
    }
    let scenario = scenario
        .config(&place("ntfy", "ntfy", "token_env = \"TOKEN\""))
        .env("NTFY_URL", &recorder.url("/alerts"))
        .config(&format!(
            "[notify.telegram]\nkind = \"telegram\"\ntoken_env = \"TOKEN\"\nchat = \"-100\"\nserver = {}\n",
            quoted(&recorder.url(""))
        ))
        .sql_job("broken", "", &["DO $$ BEGIN RAISE EXCEPTION '<!channel> @everyone [x](http://evil.example) </pre>'; END $$"]);
    let output = scenario.run(&["run-job", "broken", "--log", "trace"]).exited(1);
    assert!(!output.stderr.contains("c0ffee"), "{}", output.stderr);

    let asked = recorder.asked();
    let of = |target: &str| {
        let found: Vec<_> = asked.iter().filter(|asked| asked.target == target).collect();
        assert_eq!(found.len(), 1, "{target}: {asked:?}");
        assert_eq!(found[0].method, "POST");
        serde_json::from_slice::<Value>(&found[0].body).unwrap()
    };
    let slack = of("/slack");
    assert!(slack["text"].as_str().unwrap().contains("broken on app failed\n"), "{slack}");
    assert!(slack["text"].as_str().unwrap().contains("&lt;!channel&gt; @everyone"), "{slack}");
    let discord = of("/discord");
    assert_eq!(discord["allowed_mentions"]["parse"], serde_json::json!([]));
    assert!(discord["embeds"][0]["description"].as_str().unwrap().contains(r"\[x\]\(http\://evil.example\)"), "{discord}");
    let teams = of("/teams");
    assert_eq!(teams["attachments"][0]["content"]["body"][1]["type"], "RichTextBlock", "{teams}");
    let telegram = of("/bot42:c0ffee/sendMessage");
    assert_eq!(telegram["chat_id"], "-100");
    assert!(telegram["text"].as_str().unwrap().contains("&lt;/pre&gt;"), "{telegram}");
    let ntfy = of("/");
    assert_eq!((&ntfy["topic"], &ntfy["title"]), (&"alerts".into(), &"broken on app failed".into()));
    let of_ntfy = asked.iter().find(|asked| asked.target == "/").unwrap();
    assert!(of_ntfy.headers.contains("authorization: bearer 42:c0ffee"), "{}", of_ntfy.headers);
    let webhook = of("/webhook");
    assert_eq!((&webhook["severity"], &webhook["events"][0]["event"]), (&"bad".into(), &"failure".into()));
    assert_eq!(asked.len(), 6);
}

/// Jobs that fail at one tick, and a `serve` that knows all of them before it comes, however slow this machine is.
fn failing_at_one_tick(jobs: usize, recorder: &Recorder, server: &Server) -> (Scenario, Serving, String, DateTime<Utc>) {
    let known_in_time = [30, 120, 480].into_iter().find_map(|seconds| {
        let (mut scenario, database) = told_to(recorder, server, "");
        let tick = Utc::now() + TimeDelta::seconds(seconds);
        let schedule = format!("schedule = \"{}\"", tick.format("%-S %-M %-H %-d %-m *"));
        for number in 0..jobs {
            scenario = scenario.job(&format!("job{number}"), &sql_job(&schedule, &["SELECT 1/0"]));
        }
        let serving = Serving::ready(&scenario, "max_concurrent = 8");
        (Utc::now() < tick).then_some((scenario, serving, database, tick))
    });
    known_in_time.expect("serve knows its jobs within eight minutes")
}

/// Waits for a count that grows, for as long as it grows.
fn grows_to(wanted: u64, mut count: impl FnMut() -> u64) {
    let mut known = 0;
    while known < wanted {
        let mut now = known;
        eventually(&format!("{known} of {wanted} become more"), || {
            now = count();
            now > known
        });
        known = now;
    }
}

#[test]
fn two_hundred_jobs_that_fail_together_are_one_message() {
    let server = server(18);
    let recorder = Recorder::start(Manners::Answers);
    let (_scenario, _serving, database, tick) = failing_at_one_tick(200, &recorder, server);
    // All come together, however long this machine takes for them: something new has just come for as long as they are not all there.
    let something_new = "clock_timestamp() + interval '1 day'";
    server.sql(&database, &format!("INSERT INTO pgtend.messages (target, event, at) VALUES ('ops', '{{}}', {something_new})"));
    std::thread::sleep((tick - Utc::now()).to_std().unwrap_or_default());
    grows_to(200, || {
        server.sql(&database, &format!("UPDATE pgtend.messages SET at = {something_new}"));
        asked(server, &database, "SELECT count(*) FROM pgtend.messages WHERE event <> '{}'").parse().unwrap()
    });
    assert_eq!(titles(&recorder), [""; 0], "nothing is sent while new failures come");
    server.sql(
        &database,
        "WITH no_more AS (DELETE FROM pgtend.messages WHERE event = '{}')
         UPDATE pgtend.messages SET at = clock_timestamp() WHERE event <> '{}'",
    );
    grows_to(200, || asked(server, &database, "SELECT count(*) FROM pgtend.messages WHERE sent_at IS NOT NULL").parse().unwrap());
    assert_eq!(asked(server, &database, "SELECT count(*) FROM pgtend.runs WHERE outcome = 'failed'"), "200");
    let posted = recorder.posted();
    assert_eq!(titles(&recorder), ["200 runs failed"]);
    assert_eq!(posted[0]["events"].as_array().unwrap().len(), 200);
    assert_eq!(posted[0]["lines"].as_array().unwrap().len(), 11, "{}", posted[0]["lines"]);
    assert!(posted[0]["lines"][10].as_str().unwrap().starts_with("… and 190 more"), "{}", posted[0]["lines"]);
}

#[test]
fn processes_that_fail_together_tell_each_failure_once() {
    let server = server(18);
    let recorder = Recorder::start(Manners::Answers);
    let (mut scenario, database) = told_to(&recorder, server, "");
    for number in 0..6 {
        scenario = scenario.sql_job(&format!("job{number}"), "", &["SELECT 1/0"]);
    }
    let running: Vec<_> = (0..6).map(|number| scenario.start(&["run-job", &format!("job{number}")])).collect();
    for run in running {
        run.wait().exited(1);
    }
    let mut told: Vec<String> = recorder
        .posted()
        .iter()
        .flat_map(|body| body["events"].as_array().unwrap().clone())
        .map(|event| event["job"].as_str().unwrap().to_owned())
        .collect();
    told.sort();
    assert_eq!(told, ["job0", "job1", "job2", "job3", "job4", "job5"]);
    assert!(recorder.posted().len() < 6, "{:?}", titles(&recorder));
    assert_eq!(asked(server, &database, "SELECT count(*) FROM pgtend.messages WHERE sent_at IS NULL"), "0");
}

#[test]
fn late_and_well_again_are_told_once_even_after_a_restart() {
    let server = server(18);
    let recorder = Recorder::start(Manners::Answers);
    let (scenario, database) = told_to(&recorder, server, "on = [\"late\", \"recovery\"]");
    let scenario = scenario.job("work", &sql_job("schedule = \"* * * * * *\"\nlate_after = \"1s\"", &[UNTIL_THERE]));
    let mut serving = Serving::ready(&scenario, "");
    eventually("it is told that the job is late", || titles(&recorder) == ["work on app is late"]);
    serving.kill();
    let serving = serving.again(&scenario);
    serving.is_ready();
    serving.logs("late: no success");
    eventually("the restarted one knows", || serving.metric("pgtend_job_late{job=\"work\",database=\"app\"}") == Some(1.0));
    server.sql(&database, "CREATE TABLE there ()");
    eventually("it is told that the job is well", || titles(&recorder).len() > 1);
    reaches(server, &database, "SELECT count(*) FROM pgtend.runs WHERE outcome = 'succeeded'", 10);
    assert_eq!(titles(&recorder), ["work on app is late", "work on app is well again"]);
    assert_eq!(asked(server, &database, "SELECT count(*) FROM pgtend.told"), "0");
}

#[test]
fn a_message_that_did_not_arrive_is_a_warning_of_its_run_and_goes_with_the_next_one() {
    let server = server(18);
    let (away, there) = (Recorder::start(Manners::Says("404 Not Found", "no_team c0ffee")), Recorder::start(Manners::Answers));
    let (scenario, database) = told_to(&away, server, "");
    let scenario = scenario.sql_job("broken", "", &["SELECT 1/0"]);
    let output = scenario.run(&["run-job", "broken"]).exited(1);
    let said = "the message to `ops` was not delivered: HTTP 404 Not Found: no_team …";
    assert!(output.stderr.contains(said) && !output.stderr.contains("c0ffee"), "{}", output.stderr);
    assert_eq!(away.asked().len(), 1, "a refusal is not repeated");
    let row = asked(server, &database, "SELECT attempts, sent_at IS NULL, next_at > now(), error FROM pgtend.messages");
    assert_eq!(row, "1|t|t|HTTP 404 Not Found: no_team …");
    assert_eq!(asked(server, &database, "SELECT report -> 'warnings' ->> 0 FROM pgtend.runs"), said);
    scenario.run(&["runs", "show", "1"]).succeeded().prints(&[said]);

    let scenario = scenario.env("OPS_URL", &there.url("/"));
    // A minute later.
    server.sql(&database, "UPDATE pgtend.messages SET next_at = now()");
    scenario.run(&["run-job", "broken"]).exited(1);
    assert_eq!(titles(&there), ["2 runs failed"]);
    assert_eq!(asked(server, &database, "SELECT count(*) FROM pgtend.messages WHERE sent_at IS NOT NULL AND error IS NULL"), "2");
}

#[test]
fn a_busy_service_gets_the_message_after_the_pause_that_it_asks_for() {
    let server = server(18);
    let recorder = Recorder::start(Manners::IsBusyAtFirst);
    let (scenario, database) = told_to(&recorder, server, "");
    scenario.sql_job("broken", "", &["SELECT 1/0"]).run(&["run-job", "broken"]).exited(1);
    assert_eq!(recorder.asked().len(), 2);
    assert_eq!(asked(server, &database, "SELECT attempts, sent_at IS NOT NULL FROM pgtend.messages"), "1|t");
}

#[test]
fn a_service_that_hangs_fails_no_job_and_its_message_waits() {
    let server = server(18);
    let recorder = Recorder::start(Manners::Hangs);
    let (scenario, database) = told_to(&recorder, server, "on = [\"success\"]");
    let started = Instant::now();
    let output = scenario.sql_job("good", "", &["SELECT 1"]).run(&["run-job", "good"]).succeeded().prints(&["succeeded"]);
    assert!(started.elapsed() < Duration::from_secs(30), "{:?}", started.elapsed());
    assert!(!output.stderr.contains("c0ffee"), "{}", output.stderr);
    assert_eq!(asked(server, &database, "SELECT attempts, sent_at IS NULL FROM pgtend.messages"), "1|t");
    assert_eq!(asked(server, &database, "SELECT outcome FROM pgtend.runs"), "succeeded");
}

#[test]
fn a_place_is_told_of_its_events_alone_and_a_job_names_its_places() {
    let server = server(18);
    let recorder = Recorder::start(Manners::Answers);
    let (scenario, database) = with_ledger(server);
    let scenario = ["ops", "dba"].into_iter().fold(scenario, |scenario, name| {
        let on = if name == "ops" { "on = [\"failure\", \"recovery\"]" } else { "on = [\"success\"]" };
        let url = recorder.url(&format!("/{name}"));
        scenario.config(&place(name, "webhook", on)).env(&format!("{}_URL", name.to_uppercase()), &url)
    });
    let scenario = scenario.sql_job("all", "", &[UNTIL_THERE]).sql_job("for-dba", "notify = [\"dba\"]", &[UNTIL_THERE]).sql_job(
        "silent",
        "notify = []",
        &[UNTIL_THERE],
    );
    for job in ["all", "for-dba", "silent"] {
        scenario.run(&["run-job", job]).exited(1);
    }
    server.sql(&database, "CREATE TABLE there ()");
    for job in ["all", "for-dba", "silent", "all"] {
        scenario.run(&["run-job", job]).succeeded();
    }
    let told = |path: &str| {
        let posts = recorder.asked().into_iter().filter(|asked| asked.target == path);
        posts.map(|asked| serde_json::from_slice::<Value>(&asked.body).unwrap()["title"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(told("/ops"), ["all on app failed", "all on app is well again"]);
    assert_eq!(told("/dba"), ["all on app is well again", "for-dba on app is well again", "all on app succeeded"]);
}

#[test]
fn without_a_ledger_a_run_s_failures_are_one_message_too() {
    let server = server(18);
    let recorder = Recorder::start(Manners::Answers);
    let (one, other) = (server.new_database(), server.new_database());
    let scenario = Scenario::with_database(server, &one)
        .config(&format!("[databases.other]\nurl = {}\n", quoted(&server.url(&other))))
        .config(&place("ops", "webhook", ""))
        .env("OPS_URL", &recorder.url("/"))
        .job("broken", "databases = [\"app\", \"other\"]\n[sql]\nstatements = [\"SELECT 1/0\"]\n");
    scenario.run(&["run-job", "broken"]).exited(1);
    assert_eq!(titles(&recorder), ["2 runs failed"]);
}

#[test]
fn a_command_on_behalf_of_a_job_is_no_success_of_it() {
    let server = server(18);
    let recorder = Recorder::start(Manners::Answers);
    let (scenario, _) = told_to(&recorder, server, "on = [\"failure\", \"recovery\", \"success\"]");
    let scenario = scenario.backup_job("local", "keep = { last = 1 }\nverify = \"restore\"\nexpect = [\"SELECT false\"]");
    let failed = scenario.run(&["run-job", "nightly"]);
    assert_ne!(failed.code, Some(0), "{failed:?}");
    scenario.run(&["backups", "prune"]).succeeded();
    assert_eq!(titles(&recorder), ["nightly on app failed"]);
}

#[test]
fn a_test_message_says_what_the_service_answered_and_no_secret() {
    let (good, bad) = (
        Recorder::start(Manners::Says("200 OK", "ok")),
        Recorder::start(Manners::Says("403 Forbidden", "invalid_token c0ffee1")),
    );
    let scenario = Scenario::empty()
        .config(&place("ops", "slack", ""))
        .env("OPS_URL", &good.url("/T0/c0ffee1"))
        .config(&place("bad", "slack", ""))
        .env("BAD_URL", &bad.url("/T0/c0ffee1"))
        .config(&place("gone", "slack", ""))
        .env("GONE_URL", "http://127.0.0.1:1/T0/c0ffee1");
    scenario.run(&["notify", "test", "ops"]).succeeded().prints(&["sent to ops; it answered: HTTP 200 OK: ok"]);
    assert!(good.posted()[0]["text"].as_str().unwrap().contains("test message of pgtend"), "{:?}", good.posted());
    assert_eq!(scenario.json(&["notify", "test", "ops"])["answer"], "HTTP 200 OK: ok");
    for (name, said) in [("bad", "HTTP 403 Forbidden: invalid_token …"), ("gone", "the connection was refused")] {
        let output = scenario.run(&["notify", "test", name, "--log", "trace"]).exited(1).says(&[said]);
        assert!(!output.stderr.contains("c0ffee1") && !output.stdout.contains("c0ffee1"), "{output:?}");
    }
    assert_eq!(bad.asked().len(), 1);
    for (kind, answer) in
        [("slack", "invalid_payload"), ("discord", "<!doctype html><title>Sign in</title>"), ("teams", "delivery failed")]
    {
        let says_no = Recorder::start(Manners::Says("200 OK", answer));
        let scenario = Scenario::empty().config(&place("no", kind, "")).env("NO_URL", &says_no.url("/T0/c0ffee1"));
        let said = format!("it did not take the message: HTTP 200 OK: {answer}");
        scenario.run(&["notify", "test", "no"]).exited(1).says(&[&said]);
    }
    scenario.run(&["notify", "test", "obs"]).exited(78).says(&["has no [notify.obs]; did you mean `ops`?"]);
    let hook = Scenario::empty().config(&format!("[notify]\nwebhook_url = {}\n", quoted(&good.url("/hook"))));
    hook.run(&["notify", "test", "webhook"]).succeeded().prints(&["HTTP 200 OK"]);
}

#[test]
fn secrets_of_services_are_in_no_output_and_not_in_the_ledger() {
    let server = server(18);
    let (scenario, database) = with_ledger(server);
    let scenario = scenario
        .config(&place("ops", "slack", ""))
        .env("OPS_URL", "http://127.0.0.1:1/c0ffee")
        .config("[notify.bot]\nkind = \"telegram\"\ntoken_file = \"token\"\nchat = \"1\"\nserver = \"http://127.0.0.1:1\"\n")
        .config("[notify.post]\nkind = \"mail\"\nhost = \"127.0.0.1\"\nport = 1\nuser = \"u\"\npassword_file = \"token\"\nfrom = \"a@b.example\"\nto = [\"c@d.example\"]\n")
        .sql_job("broken", "", &["SELECT 1/0"]);
    std::fs::write(scenario.path("token"), "42:c0ffee\n").unwrap();
    for arguments in [
        &["check", "--connect"][..],
        &["run-job", "broken", "--log", "trace"],
        &["runs", "show", "1"],
        &["notify", "test", "bot", "--log", "trace"],
        &["notify", "test", "post", "--log", "trace"],
    ] {
        let output = scenario.run(arguments);
        assert!(!output.stdout.contains("c0ffee") && !output.stderr.contains("c0ffee"), "{output:?}");
    }
    let rows = server.sql(
        &database,
        "SELECT (SELECT string_agg(m::text, ' ') FROM pgtend.messages m), (SELECT string_agg(r::text, ' ') FROM pgtend.runs r)",
    );
    assert!(rows.contains("division by zero") && !rows.contains("c0ffee"), "{rows}");
}

/// `[notify.post]` with a login.
fn mail_of(smtp: &Smtp, more: &str) -> String {
    format!(
        "[notify.post]\nkind = \"mail\"\nhost = \"localhost\"\nport = {}\nuser = \"pgtend\"\npassword_env = \"PASSWORD\"\nfrom = \"pgtend <pgtend@example.com>\"\nto = [\"dba@example.com\", \"Ops <ops@example.com>\"]\n{more}\n",
        smtp.port
    )
}

#[test]
fn mail_goes_by_starttls_with_a_login_and_names_cannot_add_headers() {
    let certificates = Certificates::make();
    let smtp = Smtp::start(Some((&certificates.path("localhost.pem"), &certificates.path("localhost.key"))));
    let (scenario, _) = with_ledger(server(18));
    let scenario = scenario
        .config(&format!("[notify]\nca_file = {}\n", quoted(&certificates.path("ca.pem"))))
        .config(&mail_of(&smtp, ""))
        .env("PASSWORD", "c0ffee")
        .sql_job("broken", "", &["DO $$ BEGIN RAISE EXCEPTION E'x\\r\\nBcc: all@example.com\\r\\n.\\r\\nä'; END $$"]);
    scenario.run(&["run-job", "broken"]).exited(1);
    let mails = smtp.mails();
    let [mail] = mails.as_slice() else { panic!("{mails:?} {:?}", smtp.lines()) };
    assert!(mail.is_by_tls);
    assert_eq!(mail.login, Some(("pgtend".to_owned(), "c0ffee".to_owned())));
    assert_eq!(
        (mail.from.as_str(), &mail.to),
        ("pgtend@example.com", &vec!["dba@example.com".to_owned(), "ops@example.com".to_owned()])
    );
    let (headers, text) = mail.content.split_once("\n\n").unwrap();
    assert!(headers.contains("Subject: pgtend: broken on app failed"), "{headers}");
    assert!(headers.contains("Auto-Submitted: auto-generated") && headers.contains("Message-ID: <"), "{headers}");
    assert!(!headers.contains("Bcc") && !headers.contains("all@example.com"), "{headers}");
    assert!(text.contains("all@example.com"), "{text}");
    scenario.run(&["notify", "test", "post"]).succeeded().prints(&["sent to post; it answered: SMTP 250: 2.0.0 queued as 4711"]);
}

#[test]
fn a_mail_that_one_of_its_addresses_does_not_get_reaches_the_others_and_says_so() {
    let certificates = Certificates::make();
    let smtp = Smtp::start(Some((&certificates.path("localhost.pem"), &certificates.path("localhost.key"))));
    let scenario = |to: &str| {
        let config = mail_of(&smtp, "").replace("Ops <ops@example.com>", to);
        Scenario::empty()
            .config(&format!("[notify]\nca_file = {}\n", quoted(&certificates.path("ca.pem"))))
            .config(&config)
            .env("PASSWORD", "c0ffee")
    };
    let left = scenario("left <nobody@example.com>").run(&["notify", "test", "post"]).succeeded();
    left.prints(&["SMTP 250: 2.0.0 queued as 4711; not to nobody@example.com: ", "550"])
        .says(&["reached some of its addresses alone"]);
    let to: Vec<Vec<String>> = smtp.mails().into_iter().map(|mail| mail.to).collect();
    assert_eq!(to, [["dba@example.com"]]);
}

#[test]
fn a_mail_server_whose_certificate_is_not_trusted_gets_neither_mail_nor_password() {
    let certificates = Certificates::make();
    for (name, trusts, said) in [
        ("localhost", false, "signed by a CA that this host does not know"),
        ("elsewhere", true, "its certificate is for another name"),
    ] {
        let smtp = Smtp::start(Some((&certificates.path(&format!("{name}.pem")), &certificates.path(&format!("{name}.key")))));
        let mut scenario = Scenario::empty().config(&mail_of(&smtp, "")).env("PASSWORD", "c0ffee");
        if trusts {
            scenario = scenario.config(&format!("[notify]\nca_file = {}\n", quoted(&certificates.path("ca.pem"))));
        }
        scenario.run(&["notify", "test", "post"]).exited(1).says(&[said]);
        assert!(smtp.mails().is_empty());
        assert!(smtp.lines().iter().any(|line| line == "STARTTLS"), "{:?}", smtp.lines());
        assert!(!smtp.lines().iter().any(|line| line.starts_with("AUTH") || line.starts_with("MAIL")), "{:?}", smtp.lines());
    }
}

#[test]
fn a_mail_server_without_starttls_gets_no_mail_unless_it_is_on_this_host_and_that_was_said() {
    let smtp = Smtp::start(None);
    let plain = "[notify.post]\nkind = \"mail\"\nhost = \"localhost\"\nfrom = \"a@example.com\"\nto = [\"dba@example.com\"]\n";
    let scenario = Scenario::empty().config(&format!("{plain}port = {}\n", smtp.port));
    scenario.run(&["notify", "test", "post"]).exited(1).says(&["was not delivered"]);
    assert!(smtp.mails().is_empty() && !smtp.lines().iter().any(|line| line.starts_with("MAIL")), "{:?}", smtp.lines());
    scenario.config("tls = \"none\"\n").run(&["notify", "test", "post"]).succeeded().prints(&["SMTP 250"]);
    assert_eq!(smtp.mails().len(), 1);
    let refused = plain.replace("dba@", "nobody@");
    let scenario = Scenario::empty().config(&format!("{refused}port = {}\ntls = \"none\"\n", smtp.port));
    scenario.run(&["notify", "test", "post"]).exited(1).says(&["no such user here"]);
    let elsewhere = plain.replace("localhost", "mail.example.com");
    let scenario = Scenario::empty().config(&format!("{elsewhere}tls = \"none\"\n"));
    scenario.run(&["check"]).exited(78).says(&["tls = \"none\" to mail.example.com, which is not this host"]);
}

#[test]
fn the_digest_says_first_what_is_not_safe_and_serve_sends_it_at_its_time() {
    let server = server(18);
    let recorder = Recorder::start(Manners::Answers);
    let (scenario, database) = told_to(&recorder, server, "on = [\"digest\"]\ndigest = \"* * * * *\"");
    let scenario = scenario.backup_job("local", "");
    scenario.run(&["notify", "digest"]).succeeded().prints(&["digest: 1 of 1 database NOT safe", "app: none yet"]);
    scenario.run(&["run-job", "nightly"]).succeeded();
    // A job without a schedule renews nothing by itself.
    scenario.run(&["notify", "digest"]).succeeded().prints(&["NOT safe", "has no schedule"]);
    let scenario = scenario.job("nightly", "schedule = \"@yearly\"\ndatabase = \"app\"\n[backup]\nstore = \"local\"\n");
    let digest = scenario.json(&["notify", "digest"]);
    assert_eq!((&digest["title"], &digest["severity"]), (&"digest: the database is safe".into(), &"good".into()), "{digest}");
    assert!(digest["lines"][0].as_str().unwrap().contains("app: "), "{digest}");
    assert_eq!(digest["lines"][1], "the last 7 days: 1 run succeeded, 0 failed", "{digest}");
    let sent = scenario.json(&["notify", "digest", "ops"]);
    assert!(sent["name"] == "ops" && sent["answer"].as_str().unwrap().starts_with("HTTP 200 OK"), "{sent}");
    assert_eq!(titles(&recorder), ["digest: the database is safe"]);

    let one = Serving::ready(&scenario, "");
    let other = Serving::ready(&scenario, "");
    eventually("serve sends it", || recorder.posted().len() > 1);
    becomes(server, &database, "SELECT count(*) - count(DISTINCT tick) FROM pgtend.messages WHERE tick IS NOT NULL", "0");
    drop((one, other));
    let sent = asked(server, &database, "SELECT count(*) FROM pgtend.messages WHERE sent_at IS NOT NULL");
    assert_eq!(recorder.posted().len() - 1, sent.parse::<usize>().unwrap(), "each once: {:?}", titles(&recorder));
}

#[test]
fn mistakes_in_a_place_for_messages_are_named_with_what_to_write() {
    let schema = Scenario::empty().json(&["schema", "config"]);
    let validator = Validator::new(&schema);
    for (text, said, is_of_the_form) in [
        ("[notify.ops]\nkind = \"slack\"\n", "[notify.ops] has no `url_file`", true),
        ("[notify.ops]\nkind = \"slak\"\n", "unknown value `slak` of `kind`", true),
        ("[notify.ops]\nkind = \"slack\"\nurl = \"https://x/c0ffee\"\n", "url_file = \"/path\" or url_env = \"NAME\"", true),
        ("[notify.ops]\nkind = \"slack\"\nurl_file = \"url\"\nchat = \"1\"\n", "is of kind \"slack\", which has no `chat`", true),
        ("[notify.ops]\nkind = \"slack\"\nurl_file = \"bad\"\n", "the URL of [notify.ops]: not an HTTP URL", false),
        ("[notify.ops]\nkind = \"slack\"\nurl_env = \"NOBODY_HAS\"\n", "the environment has no variable `NOBODY_HAS`", false),
        ("[notify.ops]\nkind = \"slack\"\nurl_file = \"url\"\non = [\"failures\"]\n", "unknown value `failures` of `on`", true),
        ("[notify.ops]\nkind = \"slack\"\nurl_file = \"url\"\non = []\n", "`on` of [notify.ops] is empty", true),
        ("[notify.ops]\nkind = \"telegram\"\ntoken_file = \"url\"\n", "[notify.ops] has no `chat`", true),
        (
            "[notify.ops]\nkind = \"mail\"\nhost = \"localhost\"\nfrom = \"nobody\"\nto = [\"a@b.example\"]\n",
            "`nobody` is not a mail address",
            true,
        ),
        (
            "[notify.ops]\nkind = \"mail\"\nhost = \"h\"\nuser = \"u\"\nfrom = \"a@b.example\"\nto = [\"a@b.example\"]\n",
            "has a `user` and no password",
            true,
        ),
        ("[notify.ops]\nkind = \"slack\"\nurl_file = \"url\"\ndigest = \"weekly\"\n", "`weekly`", true),
        ("[notify]\nslack = \"https://x/c0ffee\"\n", "[notify.NAME], and below it kind = \"slack\"", true),
        ("notify = \"https://x/c0ffee\"\n", "write [notify.NAME]", true),
        (
            "[notify]\nwebhook_url_file = \"url\"\n[notify.webhook]\nkind = \"slack\"\nurl_file = \"url\"\n",
            "give [notify.webhook] another name",
            false,
        ),
    ] {
        let written: Value = serde_json::to_value(toml::from_str::<toml::Value>(text).unwrap()).unwrap();
        assert_eq!(validator.mistake(&written).is_some(), is_of_the_form, "the schema, of {text}");
        let scenario = Scenario::empty().config(text);
        std::fs::write(scenario.path("url"), "https://hooks.example.com/c0ffee").unwrap();
        std::fs::write(scenario.path("bad"), "hooks.example.com/c0ffee").unwrap();
        let output = scenario.run(&["check"]).exited(78).says(&[said]);
        assert!(!output.stderr.contains("c0ffee"), "{}", output.stderr);
    }
    let scenario = Scenario::empty()
        .config("[databases.app]\nurl = \"postgres://localhost/x\"\n[notify.ops]\nkind = \"slack\"\nurl_file = \"url\"\n")
        .job("named", "database = \"app\"\nnotify = [\"obs\"]\n[sql]\nstatements = [\"SELECT 1\"]\n");
    std::fs::write(scenario.path("url"), "https://hooks.example.com/c0ffee").unwrap();
    scenario.run(&["check"]).exited(78).says(&["the configuration has no place for messages `obs`", "did you mean `ops`?"]);
}

/// A job whose retry is far away, and that fails until the table `there` is.
fn with_a_late_retry(scenario: Scenario) -> Scenario {
    scenario.sql_job("nightly", "schedule = \"@yearly\"\nretries = 2\nretry_delay = \"10m\"", &[UNTIL_THERE])
}

#[test]
fn a_failure_whose_retry_is_broken_off_is_told_and_so_is_the_recovery() {
    let server = server(18);
    let recorder = Recorder::start(Manners::Answers);
    let (scenario, database) = told_to(&recorder, server, "");
    let scenario = with_a_late_retry(scenario);
    let running = scenario.start(&["run-job", "nightly"]);
    reaches(server, &database, "SELECT count(*) FROM pgtend.runs WHERE retry_at IS NOT NULL", 1);
    running.signal(Signal::TERM);
    running.wait();
    assert_eq!(titles(&recorder), ["nightly on app failed"]);
    server.sql(&database, "CREATE TABLE there ()");
    scenario.run(&["run-job", "nightly"]).succeeded();
    assert_eq!(titles(&recorder), ["nightly on app failed", "nightly on app is well again"]);
    // What was told is not told again when its attempt is overdue.
    server.sql(&database, "UPDATE pgtend.runs SET retry_at = now() - interval '1 hour' WHERE id = 1");
    scenario.run(&["run-job", "nightly"]).succeeded();
    assert_eq!(asked(server, &database, "SELECT retry_at IS NULL FROM pgtend.runs WHERE id = 1"), "t");
}

#[test]
fn a_failure_whose_process_died_before_its_retry_is_told_by_the_next_run() {
    let server = server(18);
    let recorder = Recorder::start(Manners::Answers);
    let (scenario, database) = told_to(&recorder, server, "");
    let scenario = with_a_late_retry(scenario);
    let running = scenario.start(&["run-job", "nightly"]);
    reaches(server, &database, "SELECT count(*) FROM pgtend.runs WHERE retry_at IS NOT NULL", 1);
    running.kill();
    assert_eq!(titles(&recorder), [""; 0]);
    server.sql(&database, "CREATE TABLE there ()");
    // The next night.
    server.sql(&database, "UPDATE pgtend.runs SET retry_at = now() - interval '1 hour'");
    scenario.run(&["notify", "digest"]).succeeded().prints(&["0 runs succeeded, 1 failed"]);
    scenario.run(&["run-job", "nightly"]).succeeded();
    let events: Vec<Value> = recorder.posted().iter().flat_map(|body| body["events"].as_array().unwrap().clone()).collect();
    let told: Vec<&str> = events.iter().map(|event| event["event"].as_str().unwrap()).collect();
    assert_eq!(told, ["failure", "recovery"], "{events:?}");
    assert!(events[0]["error"].as_str().unwrap().contains("division by zero"), "{events:?}");
}

#[test]
fn a_message_that_waits_is_sent_by_the_next_process_that_ends_even_if_that_has_nothing_to_tell() {
    let server = server(18);
    let (hangs, there) = (Recorder::start(Manners::Hangs), Recorder::start(Manners::Answers));
    let (scenario, database) = told_to(&hangs, server, "");
    let scenario = scenario.sql_job("broken", "", &["SELECT 1/0"]).sql_job("good", "", &["SELECT 1"]);
    scenario.run(&["run-job", "broken"]).exited(1).says(&["no answer until the process ended"]);
    let row = asked(server, &database, "SELECT error IS NOT NULL, sent_at IS NULL FROM pgtend.messages");
    assert_eq!(row, "t|t");
    let warnings = "SELECT report -> 'warnings' ->> 0 FROM pgtend.runs WHERE id = 1";
    assert!(asked(server, &database, warnings).contains("was not delivered"));

    let scenario = scenario.env("OPS_URL", &there.url("/"));
    scenario.run(&["run-job", "good"]).succeeded();
    assert_eq!(titles(&there), [""; 0], "it is not due");
    server.sql(&database, "UPDATE pgtend.messages SET next_at = now()");
    scenario.run(&["run-job", "good"]).succeeded();
    assert_eq!(titles(&there), ["broken on app failed"]);
    assert_eq!(asked(server, &database, warnings), "", "it was delivered");
}

#[test]
fn a_job_that_fails_each_minute_does_not_use_up_the_tries_of_another_failure() {
    let server = server(18);
    let (away, there) = (Recorder::start(Manners::Says("404 Not Found", "gone")), Recorder::start(Manners::Answers));
    let (scenario, database) = told_to(&away, server, "");
    let scenario = scenario.sql_job("nightly", "", &["SELECT 1/0"]).sql_job("minutely", "", &["SELECT 1/0"]);
    scenario.run(&["run-job", "nightly"]).exited(1);
    for _ in 0..4 {
        // A minute later.
        server.sql(
            &database,
            "UPDATE pgtend.messages SET next_at = next_at - interval '61 s' WHERE next_at < now() + interval '61 s'",
        );
        scenario.run(&["run-job", "minutely"]).exited(1);
    }
    let attempts = "SELECT attempts, next_at > now() + interval '61 s' FROM pgtend.messages WHERE event ->> 'job' = 'nightly'";
    assert_eq!(asked(server, &database, attempts), "2|t", "a row waits twice as long after each try");

    // Half a day and many tries later.
    server.sql(&database, "UPDATE pgtend.messages SET attempts = 40, at = now() - interval '12 hours', next_at = now()");
    let scenario = scenario.env("OPS_URL", &there.url("/"));
    scenario.run(&["run-job", "minutely"]).exited(1);
    assert_eq!(titles(&there), ["6 runs failed"]);
}

#[test]
fn a_message_is_given_up_after_a_day_and_that_is_said() {
    let server = server(18);
    let recorder = Recorder::start(Manners::Says("404 Not Found", "gone"));
    let (scenario, database) = told_to(&recorder, server, "");
    let scenario = scenario.sql_job("broken", "", &["SELECT 1/0"]).sql_job("good", "", &["SELECT 1"]);
    scenario.run(&["run-job", "broken"]).exited(1);
    // A day later, but nobody has tried: timers run once a week.
    server.sql(&database, "UPDATE pgtend.messages SET at = now() - interval '25 hours', next_at = now()");
    scenario.run(&["run-job", "good"]).succeeded();
    assert_eq!(asked(server, &database, "SELECT attempts FROM pgtend.messages"), "2");
    server.sql(&database, "UPDATE pgtend.messages SET attempts = 29, next_at = now()");
    let said = "the message to `ops` was given up after 29 tries: HTTP 404 Not Found: gone";
    scenario.run(&["run-job", "good"]).succeeded().says(&[said, "it said: broken on app failed"]);
    assert_eq!(asked(server, &database, "SELECT report -> 'warnings' FROM pgtend.runs WHERE id = 1"), format!("[\"{said}\"]"));
    let tried = recorder.asked().len();
    scenario.run(&["run-job", "good"]).succeeded();
    assert_eq!(recorder.asked().len(), tried, "not again");

    // A place that has another name now.
    server.sql(
        &database,
        "INSERT INTO pgtend.messages (target, at, event) SELECT 'old', now() - interval '8 days', event FROM pgtend.messages",
    );
    let output = scenario.run(&["run-job", "good"]).succeeded();
    assert!(
        output.stderr.contains("the message to `old` was given up") && output.stderr.contains("no [notify.old]"),
        "{output:?}"
    );
}

#[test]
fn a_process_that_told_nobody_says_so() {
    let server = server(18);
    let mut ledger = Server::start(16);
    let database = server.new_database();
    let recorder = Recorder::start(Manners::Fails);
    let scenario = Scenario::with_database(server, &database)
        .config(&format!("[databases.led]\nurl = {}\n[ledger]\ndatabase = \"led\"\n", quoted(&ledger.url("postgres"))))
        .config(&place("ops", "webhook", ""))
        .env("OPS_URL", &recorder.url("/"))
        .sql_job("nightly", "", &["SELECT 1"]);
    scenario.run(&["run-job", "nightly"]).succeeded();
    ledger.crash();
    let output = scenario.run(&["run-job", "nightly"]);
    assert_ne!(output.code, Some(0));
    assert!(output.stderr.contains("nobody was told") && output.stderr.contains("nightly on app failed"), "{}", output.stderr);
    ledger.start_again();
}

#[test]
fn what_nobody_was_told_is_told_by_the_next_run_that_reaches_the_ledger() {
    let server = server(18);
    let mut ledger = Server::start(16);
    let database = server.new_database();
    let (away, there) = (Recorder::start(Manners::Says("404 Not Found", "no_team")), Recorder::start(Manners::Answers));
    let scenario = Scenario::with_database(server, &database)
        .config(&format!("[databases.led]\nurl = {}\n[ledger]\ndatabase = \"led\"\n", quoted(&ledger.url("postgres"))))
        .config(&place("ops", "webhook", ""))
        .env("OPS_URL", &away.url("/"))
        .sql_job("nightly", "", &["SELECT 1"]);
    scenario.run(&["run-job", "nightly"]).succeeded();
    ledger.crash();
    for number in 1..=2 {
        let output = scenario.run(&["run-job", "nightly"]);
        assert_ne!(output.code, Some(0));
        let output = output.says(&["nobody was told", "the next run that reaches the ledger passes it on, from "]);
        assert_eq!(left_by(&scenario).len(), number, "{}", output.stderr);
    }
    let mode = std::fs::metadata(&left_by(&scenario)[0]).unwrap().permissions().mode();
    assert_eq!(mode & 0o077, 0, "{mode:o}");
    ledger.start_again();
    let scenario = scenario.env("OPS_URL", &there.url("/"));
    scenario.run(&["run-job", "nightly"]).succeeded();
    assert_eq!(left_by(&scenario), Vec::<PathBuf>::new());
    let told: Vec<String> =
        there.posted()[0]["events"].as_array().unwrap().iter().map(|event| event["event"].to_string()).collect();
    assert_eq!(told, ["\"failure\"", "\"failure\"", "\"recovery\""], "{}", there.posted()[0]);
    scenario.run(&["run-job", "nightly"]).succeeded();
    assert_eq!(there.posted().len(), 1, "it is told once: {:?}", titles(&there));
}

/// What processes left that told nobody.
fn left_by(scenario: &Scenario) -> Vec<PathBuf> {
    let configurations = std::fs::read_dir(scenario.path(".local/state/pgtend/untold")).unwrap();
    configurations
        .flat_map(|folder| std::fs::read_dir(folder.unwrap().path()).unwrap())
        .map(|file| file.unwrap().path())
        .collect()
}

#[test]
fn a_file_that_an_edit_broke_is_told_once_and_so_is_that_it_is_mended() {
    let server = server(18);
    let recorder = Recorder::start(Manners::Answers);
    let (scenario, _) = told_to(&recorder, server, "");
    let good = sql_job("schedule = \"@yearly\"", &["SELECT 1"]);
    let scenario = scenario.job("nightly", &good).job("other", &good);
    scenario.run(&["run-job", "nightly"]).succeeded();
    let scenario = scenario.job("nightly", &good.replace("schedule", "shedule"));
    scenario.run(&["run-job", "nightly"]).exited(78);
    scenario.run(&["run-job", "nightly"]).exited(78);
    scenario.run(&["run-job", "other"]).succeeded();
    assert_eq!(titles(&recorder), ["nightly cannot run"]);
    let told = &recorder.posted()[0]["events"][0];
    assert_eq!((&told["event"], &told["job"]), (&"failure".into(), &"nightly".into()));
    assert!(told["error"].as_str().unwrap().contains("`shedule`"), "{told}");

    let serving = Serving::ready(&scenario, "");
    let scenario = scenario.job("nightly", &good);
    serving.reload();
    eventually("serve tells that it is mended", || titles(&recorder).len() > 1);
    drop(serving);
    assert_eq!(titles(&recorder), ["nightly cannot run", "nightly can run again"]);
    scenario.run(&["run-job", "nightly"]).succeeded();
    assert_eq!(titles(&recorder).len(), 2);
}

#[test]
fn no_form_of_a_secret_that_a_service_repeats_is_shown() {
    let recorder = Recorder::start(Manners::Repeats);
    let smtp = Smtp::that_repeats();
    let scenario = Scenario::empty()
        .config(&place("teams", "teams", ""))
        .env("TEAMS_URL", &recorder.url("/workflows/abcdef?sig=ab%2Bcd%2FSECRETSIG%3D"))
        .config(&place("basic", "webhook", ""))
        .env("BASIC_URL", &recorder.url("/hook").replace("http://", "http://tokenuser@"))
        .config(&place("ntfy", "ntfy", ""))
        .env("NTFY_URL", &recorder.url("/k7Qx2"))
        .config(&format!(
            "[notify.bot]\nkind = \"telegram\"\ntoken_env = \"TOKEN\"\nchat = \"1\"\nserver = {}\n",
            quoted(&recorder.url(""))
        ))
        .env("TOKEN", "123456:AAtelegram")
        .config(&mail_of(&smtp, "tls = \"none\""))
        .env("PASSWORD", "hunter2");
    for (name, secrets) in [
        ("teams", &["SECRETSIG", "abcdef"][..]),
        ("basic", &["tokenuser", "dG9rZW51c2Vy"]),
        ("ntfy", &["k7Qx2"]),
        ("bot", &["AAtelegram"]),
        ("post", &["hunter2", "AHBndGVuZABodW50ZXIy"]),
    ] {
        let output = scenario.run(&["notify", "test", name, "--log", "trace"]).exited(1);
        for secret in secrets {
            assert!(!output.stderr.contains(secret) && !output.stdout.contains(secret), "{name}: {output:?}");
        }
        assert!(output.stderr.contains('…'), "it was repeated: {output:?}");
    }
}
