//! The pages about one thing, and the answer to "is it safe?".

use std::sync::Arc;

use chrono::TimeDelta;
use serde_json::{Map, Value, json};

use super::*;
use crate::base::story::{Line, Step, Story};
use crate::ledger::report::{Outcome, Report};
use crate::ledger::{Brief, MaybeOutcome, Row};
use crate::run::standing::{Backup, Lost, OfDatabase, Unasked};
use crate::task::backup::gate::Measured;
use crate::task::backup::manifest::tests::manifest;
use crate::task::backup::set::{AsListed, Set};
use crate::task::backup::set_name::SetName;
use crate::task::backup::verdict::Verification;
use crate::web::page::job::{LastReport, SetMade};
use crate::web::page::set::SetSeen;
use crate::web::safety::Read;
use crate::web::status::tests::{job, now, status, well};
use crate::web::timeline;

/// It would run, leave its attribute, leave its place in the text, or turn the text around, if it were taken for anything but text.
const HOSTILE: &str = "<script>alert(1)</script>\"zz\"'q'&\u{202e}\u{1b}[31m";

fn is_text(page: &str) {
    for forbidden in ["<script", "\"zz\"", "\u{202e}", "\u{1b}", " onclick", " src=", "url(", "href=\"http", "href=\"javascript"]
    {
        assert!(!page.contains(forbidden), "{forbidden:?} in {page}");
    }
    assert!(page.contains("&lt;script&gt;"), "{page}");
}

fn frame() -> Frame {
    Frame { has_actions: true, ..Frame::of(&status(vec![])) }
}

fn backup(stores: &[&str]) -> Backup {
    Backup {
        set: "app/nightly/2026-11-23T02-00-00Z".to_owned(),
        store: "local".to_owned(),
        began_at: now() - TimeDelta::hours(19),
        restored_at: Some(now() - TimeDelta::hours(18)),
        refused_by: None,
        stores: stores.iter().map(|store| (*store).to_owned()).collect(),
        measured: Some(Measured { seconds: 245.0, at: now() - TimeDelta::hours(18) }),
    }
}

fn found(name: &str, backup: Result<Option<Backup>, String>) -> OfDatabase {
    OfDatabase::for_tests(name, backup)
}

fn database(name: &str, backup: Result<Option<Backup>, String>) -> DatabaseStatus {
    of(found(name, backup))
}

fn of(found: OfDatabase) -> DatabaseStatus {
    DatabaseStatus {
        name: found.name.clone(),
        read: Some(Arc::new(Read { at: now(), asked: std::time::Instant::now(), found, late: Vec::new() })),
        late: Vec::new(),
        unasked: None,
    }
}

fn with_safety(safety: &[DatabaseStatus], filter: &Filter) -> String {
    let status = status(vec![well("nightly")]);
    let choice = Choice::of(&status.jobs, filter);
    render(&Overview { status: &status, safety, has_stores: true, timeline: &Timeline::default(), filter, choice: &choice })
}

#[test]
fn the_first_answer_is_whether_each_database_is_safe_the_worst_first() {
    let late = DatabaseStatus { late: vec!["nightly".to_owned()], ..database("late", Ok(Some(backup(&["local"])))) };
    let why = "its bytes are damaged".to_owned();
    let lost = Lost { set: "x/y/z".to_owned(), store: Some("local".to_owned()), why, refused_by: None };
    let damaged = OfDatabase { lost: Some(lost), ..found("damaged", Ok(Some(backup(&["local"])))) };
    let disabled = OfDatabase { idle: Some("is disabled"), ..found("idle", Ok(Some(backup(&["local"])))) };
    let unasked = Unasked { since: Some(now() - TimeDelta::minutes(4)), why: "the connection was refused".to_owned() };
    let safety = [
        database("well", Ok(Some(backup(&["local", "offsite"])))),
        late,
        of(damaged),
        of(disabled),
        database("gone", Err("cannot connect".to_owned())),
        database("none", Ok(None)),
        DatabaseStatus { name: "new".to_owned(), read: None, late: Vec::new(), unasked: None },
        DatabaseStatus { unasked: Some(unasked.clone()), ..database("half", Ok(Some(backup(&["local"])))) },
        DatabaseStatus { unasked: Some(unasked), ..database("bare", Ok(None)) },
    ];
    let page = with_safety(&safety, &Filter::default());
    for text in [
        "2 databases are not safe",
        "1 of 9 databases are safe",
        "4 min 5 s",
        "measured 18 h ago",
        "restored on 2026-11-23",
        "local, offsite",
        "its job nightly is late",
        "a newer one, x/y/z in local, does not count: its bytes are damaged",
        "its job nightly is disabled",
        "nobody knows: cannot connect",
        "there is no backup that counts; job nightly makes one",
        "being asked",
        "the ledger was not asked since 2026-11-23",
        "may know of a newer backup that is lost and of a late job: the connection was refused",
        "/set?name=app%2Fnightly%2F2026-11-23T02-00-00Z",
    ] {
        assert!(page.contains(text), "`{text}` is not in {page}");
    }
    let place = |name: &str| page.find(&format!("<b>{name}</b>")).unwrap();
    assert!(place("none") < place("late") && place("damaged") < place("gone") && place("new") < place("well"));
    assert!(place("late") < place("half") && place("half") < place("new"), "it is unknown");
    assert!(place("well") < page.find("id=\"jobs\"").unwrap(), "it comes before the jobs");
    assert!(!page.contains("http-equiv=\"refresh\""), "nobody asked for that");
    let live = with_safety(&safety, &Filter { live: "on".to_owned(), ..Filter::default() });
    assert!(live.contains("content=\"5\"") && live.contains("Stop reloading"), "while a database is asked, it soon comes again");
}

#[test]
fn the_headline_says_what_is_at_risk_or_not_known_before_that_jobs_are_healthy() {
    let status = status(vec![well("nightly")]);
    let none = || database("none", Ok(None));
    let late = || DatabaseStatus { late: vec!["nightly".to_owned()], ..database("late", Ok(Some(backup(&["local"])))) };
    let unread = || DatabaseStatus { read: None, ..database("new", Ok(None)) };
    let silent = || database("gone", Err("cannot connect".to_owned()));
    for (safety, mood, headline) in [
        (vec![database("well", Ok(Some(backup(&["local"]))))], "good", "The job is healthy"),
        (vec![late()], "warn", "1 database is at risk"),
        (vec![unread()], "idle", "The stores are being asked whether the backups are there"),
        (vec![unread(), late()], "warn", "1 database is at risk"),
        (vec![silent(), silent()], "warn", "2 databases are not known to be safe"),
        (vec![none(), late(), silent()], "bad", "1 database is not safe, 1 is at risk, 1 is not known to be safe"),
    ] {
        let verdict = super::verdict(&status, &safety);
        assert_eq!((verdict.mood, verdict.headline.as_str()), (mood, headline));
    }
    let uncovered = Status { uncovered: vec!["main.tenant_1".to_owned()], ..crate::web::status::tests::status(Vec::new()) };
    assert_eq!(super::verdict(&uncovered, &[]).headline, "1 database is not safe");
    let page = render(&Overview {
        status: &uncovered,
        safety: &[],
        has_stores: true,
        timeline: &Timeline::default(),
        filter: &Filter::default(),
        choice: &Choice::of(&[], &Filter::default()),
    });
    assert!(page.contains("<b>main.tenant_1</b>"), "it is named without any job with patterns: {page}");
}

#[test]
fn of_many_databases_those_in_trouble_are_shown_and_a_search_finds_the_others() {
    let mut safety: Vec<DatabaseStatus> =
        (0..500).map(|number| database(&format!("tenant_{number}"), Ok(Some(backup(&["local"]))))).collect();
    safety[400] = database("tenant_400", Ok(None));
    let page = with_safety(&safety, &Filter::default());
    assert!(page.contains("<b>tenant_400</b>") && page.contains("480 databases more (480 safe)"), "{page}");
    assert!(page.len() < 100_000, "{}", page.len());
    let page = with_safety(&safety, &Filter { q: "TENANT_33".to_owned(), ..Filter::default() });
    assert!(page.contains("<b>tenant_333</b>") && !page.contains("<b>tenant_400</b>"), "{page}");
    assert!(!page.contains("http-equiv=\"refresh\""), "a search is not taken away while one reads");
}

#[test]
fn a_timeline_says_in_words_and_shapes_what_ran_and_what_will() {
    let jobs = [job("nightly", "app", &[Outcome::Failed]), well("stats")];
    let began =
        |job: &str, slot, outcome, runs| crate::ledger::Began { job: job.to_owned(), slot, outcome: MaybeOutcome(outcome), runs };
    let began = [
        began("nightly", 3, Some(Outcome::Succeeded), 4),
        began("nightly", 3, Some(Outcome::TimedOut), 1),
        began("nobody", 3, Some(Outcome::Failed), 1),
        began("nightly", 99, Some(Outcome::Failed), 1),
        began("stats", 47, None, 1),
    ];
    let timeline = timeline::of(&[], &jobs, &[], &began, now());
    let status = status(jobs.to_vec());
    let choice = Choice::of(&status.jobs, &Filter::default());
    let page = render(&Overview {
        status: &status,
        safety: &[],
        has_stores: true,
        timeline: &timeline,
        filter: &Filter::default(),
        choice: &choice,
    });
    for text in [
        "nightly: last 24 hours 4 succeeded, 1 failed; next 24 hours in the half-hours of 00:05",
        "stats: last 24 hours 1 running;",
        "M35 11v-9",
        "M35 15v9m",
        "M475 2v22",
    ] {
        assert!(page.contains(text), "`{text}` is not in {page}");
    }
    assert!(page.find("nightly: last").unwrap() < page.find("stats: last").unwrap(), "the one in trouble is first");
}

#[test]
fn hundreds_of_jobs_share_a_few_lanes() {
    let jobs: Vec<JobStatus> = (0..300).map(|number| well(&format!("job_{number}"))).collect();
    let timeline = timeline::of(&[], &jobs, &[], &[], now());
    assert_eq!(timeline.lanes.len(), 12);
    assert!(timeline.lanes[11].is_others && timeline.lanes[11].planned.contains(&6));
    let fleet: Vec<JobStatus> = (0..300).map(|number| well(&format!("nightly@tenant_{number}"))).collect();
    assert_eq!(timeline::of(&[], &fleet, &[], &[], now()).lanes.len(), 1);
}

fn story(text: &str) -> Story {
    let step = Step {
        phase: text.to_owned(),
        after_seconds: 0.5,
        elapsed_seconds: Some(64.0),
        bytes: 2_000_000,
        said: Some(text.to_owned()),
    };
    let lines = vec![Line { at: now(), level: "WARN".to_owned(), text: format!("logged {text}") }];
    let steps = vec![step, Step { elapsed_seconds: None, ..Step::default() }];
    Story { asked_by: Some(text.to_owned()), plan: Some(format!("Would do {text}")), steps, lines }
}

fn row(text: &str) -> Row {
    let facts: Map<String, Value> =
        json!({ text: text, "set": text, "nested": { text: [text] }, "dump_bytes": 1_500_000, "names": [text] })
            .as_object()
            .cloned()
            .unwrap_or_default();
    Row {
        id: 7,
        job: text.to_owned(),
        database: text.to_owned(),
        task: text.to_owned(),
        trigger: "retry".to_owned(),
        scheduled_for: Some(now()),
        attempt: 2,
        retry_of: Some(5),
        started_at: now() - TimeDelta::minutes(5),
        heartbeat_at: now(),
        progress: None,
        finished_at: Some(now()),
        outcome: MaybeOutcome(Some(Outcome::Failed)),
        report: Some(Report { summary: text.to_owned(), facts, warnings: vec![text.to_owned()], story: story(text) }),
        error: Some(text.to_owned()),
        stderr: Some(text.to_owned()),
        retry_at: Some(now() + TimeDelta::minutes(1)),
        host: text.to_owned(),
        pid: 812,
        version: text.to_owned(),
    }
}

#[test]
fn a_run_has_a_page_with_all_that_the_ledger_keeps() {
    let first = Row { id: 5, retry_of: None, attempt: 1, ..row("first") };
    let page = run::render(&frame(), &row("said"), &[first, row("said")]);
    for text in [
        "5 min 0 s",
        "1 warning",
        "Output of its tools",
        "21:05:40 WARN logged said",
        "Would do said",
        "1.5 MB",
        "href=\"/runs/5\"",
        "attempt 2",
        "pgtend runs show 7",
        "The next attempt is due",
        "asked for on a page by said",
    ] {
        assert!(page.contains(text), "`{text}` is not in {page}");
    }
    let running = Row { outcome: MaybeOutcome(None), finished_at: None, report: None, error: None, stderr: None, ..row("said") };
    assert!(run::render(&frame(), &running, &[]).contains(">not finished<"));
}

#[test]
fn hostile_names_are_text_on_every_page() {
    let hostile = HOSTILE;
    let made = SetMade { run: 1, at: now(), set: hostile.to_owned(), bytes: None, verified: Some(hostile.to_owned()) };
    let mut of_it = job(hostile, hostile, &[Outcome::Failed, Outcome::Succeeded]);
    of_it.description = Some(hostile.to_owned());
    let safety = DatabaseStatus { late: vec![hostile.to_owned()], ..database(hostile, Err(hostile.to_owned())) };
    let curve = json!({ "tables": [{ "table": hostile, "index": hostile, "before": { "recall": 0.8, "setting": 10, "cost": { "ms": 1.0 } },
        "after": { "recall": 0.97, "setting": 40, "cost": { "ms": 0.5 } } }] });
    let last = LastReport { run: 1, facts: curve.as_object().cloned().unwrap_or_default(), until: Some(now()) };
    let batch = Batch {
        store: hostile.to_owned(),
        name: hostile.to_owned(),
        table: Some(hostile.to_owned()),
        rows: 1,
        bytes: 1,
        at: now(),
        why: hostile.to_owned(),
    };
    let brief = Brief {
        id: 1,
        job: hostile.to_owned(),
        database: hostile.to_owned(),
        task: hostile.to_owned(),
        trigger: hostile.to_owned(),
        scheduled_for: None,
        attempt: 1,
        retry_of: None,
        started_at: now(),
        heartbeat_at: now(),
        progress: None,
        finished_at: None,
        outcome: MaybeOutcome(None),
        summary: Some(hostile.to_owned()),
        error: None,
        retry_at: None,
        host: hostile.to_owned(),
        pid: 1,
        version: hostile.to_owned(),
    };
    let asked = runs::Filter { job: hostile.to_owned(), ..runs::Filter::default() };
    let filter = Filter { q: hostile.to_owned(), group: hostile.to_owned(), ..Filter::default() };
    for page in [
        run::render(&frame(), &row(hostile), &[row(hostile), row(hostile)]),
        job::render(&frame(), &of_it, &last, true, None),
        job::database(&frame(), hostile, Some(&safety), &[made], &[of_it.clone()], 3),
        set::render(&frame(), &hostile_set()),
        archive(&frame(), hostile, hostile, &[batch], &[hostile.to_owned()]),
        runs::render(&frame(), &asked, &[brief]),
        sorry(&frame(), hostile, hostile),
        with_safety(std::slice::from_ref(&safety), &Filter::default()),
        with_safety(&[], &filter),
    ] {
        is_text(&page);
    }
}

fn set_of(database: &str, at: &str) -> Set {
    let name = SetName::new(database, "nightly", at.parse().unwrap());
    Set { name, manifest: manifest(), verification: Verification::default(), holds: Vec::new(), listed: AsListed::default() }
}

fn hostile_set() -> SetSeen {
    let mut set = set_of(HOSTILE, "2026-11-23T02:00:00Z");
    set.manifest.warnings = vec![HOSTILE.to_owned()];
    for table in &mut set.manifest.tables {
        (table.schema, table.name) = (HOSTILE.to_owned(), HOSTILE.to_owned());
    }
    let before = set_of(HOSTILE, "2026-11-22T02:00:00Z");
    SetSeen {
        name: set.name.clone(),
        copies: vec![(HOSTILE.to_owned(), set)],
        before: Some(before),
        unread: vec![(HOSTILE.to_owned(), HOSTILE.to_owned())],
    }
}

#[test]
fn a_set_has_a_page_with_its_tables_what_changed_and_the_command_that_restores_it() {
    let set = set_of("my app", "2026-11-23T02:00:00Z");
    let mut before = set_of("my app", "2026-11-22T02:00:00Z");
    before.manifest.tables.pop();
    let copies = vec![("local".to_owned(), set.clone()), ("offsite".to_owned(), set.clone())];
    let seen = SetSeen {
        name: set.name.clone(),
        copies,
        before: Some(before),
        unread: vec![("third".to_owned(), "is away".to_owned())],
    };
    let page = set::render(&frame(), &seen);
    let gone = set.manifest.tables.last().unwrap();
    for text in [
        "pgtend backups restore 'my%20app/nightly/2026-11-23T02-00-00Z' --store local --into postgres://localhost/",
        "_restored --create",
        "<th scope=\"row\">offsite</th>",
        "href=\"/set?name=my%2520app%2Fnightly%2F2026-11-22T02-00-00Z\"",
        "<td>new</td>",
        "Store third could not be read: is away",
        &format!("{}.{}", gone.schema, gone.name),
    ] {
        assert!(page.contains(text), "`{text}` is not in {page}");
    }
    let none = SetSeen { copies: Vec::new(), before: None, ..seen };
    assert!(set::render(&frame(), &none).contains("it may have been pruned"));
}

#[test]
fn partitions_ahead_are_a_bar_and_an_index_before_and_after_a_drawing() {
    let facts = json!({ "tables": [{ "table": "public.e", "index": "e_idx", "before": { "recall": 0.8123, "setting": 10, "cost": { "ms": 2.0 } },
        "after": { "recall": 0.97, "setting": 40, "cost": { "ms": 0.5 } } }] });
    let last = LastReport { run: 1, facts: facts.as_object().cloned().unwrap(), until: Some(now() + TimeDelta::days(92)) };
    let page = job::render(&frame(), &well("ahead"), &last, false, None);
    for text in ["width:80%", "92 d", "covered until", "81.23 %", "0.50", "before: 81.23 % in 2.00 ms; after: 97.00 % in 0.50 ms"]
    {
        assert!(page.contains(text), "`{text}` is not in {page}");
    }
    // Another program may have written anything into the ledger.
    for odd in [
        json!({ "tables": 7 }),
        json!({ "tables": [{ "before": { "recall": 7e300 } }] }),
        json!({ "tables": [{ "after": { "recall": 1, "cost": { "ms": -1 } }, "before": { "recall": 0, "cost": { "ms": 0 } } }] }),
    ] {
        let last = LastReport { run: 1, facts: odd.as_object().cloned().unwrap(), until: Some(now() - TimeDelta::days(1)) };
        let page = job::render(&frame(), &well("odd"), &last, false, None);
        assert!(!page.contains("NaN") && page.contains("no partition covers new rows"), "{page}");
    }
}
