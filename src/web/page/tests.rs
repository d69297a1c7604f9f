use chrono::TimeDelta;

use super::*;
use crate::base::progress::PhaseState as Progress;
use crate::ledger::report::Outcome;
use crate::ledger::{Gone, LeftOut};
use crate::web::status::tests::{job, now, status, well};
use crate::web::status::{AuditCounts, AuditFinding, AuditStatus};

fn render(status: &Status) -> String {
    with_filter(status, &[], &Filter::default())
}

fn with_filter(status: &Status, safety: &[DatabaseStatus], filter: &Filter) -> String {
    let (choice, timeline) = (Choice::of(&status.jobs, filter), Timeline::default());
    super::render(&Overview { status, safety, has_stores: true, timeline: &timeline, filter, choice: &choice })
}

fn verdict(status: &Status) -> Verdict<'_> {
    super::verdict(status, &[])
}

#[test]
fn a_hostile_job_name_is_text() {
    let hostile = "<script>alert('\"zz\"')</script>";
    let mut job = job(hostile, hostile, &[Outcome::Succeeded, Outcome::Failed]);
    for text in [&mut job.description, &mut job.schedule, &mut job.schedule_in_words, &mut job.runway] {
        *text = Some(hostile.to_owned());
    }
    job.audit = Some(AuditStatus {
        at: status(vec![]).now,
        previous: None,
        counts: AuditCounts { critical: 1, ..AuditCounts::default() },
        findings: vec![AuditFinding {
            key: hostile.to_owned(),
            level: "critical".to_owned(),
            title: hostile.to_owned(),
            object: hostile.to_owned(),
            change: Some("new".to_owned()),
        }],
        report: Some(hostile.to_owned()),
    });
    let failure = job.history.last_mut().unwrap();
    failure.error = Some(hostile.to_owned());
    failure.stderr = Some(hostile.to_owned());
    failure.warnings = vec![hostile.to_owned()];
    job.running = Some(RunStatus {
        progress: Some(Progress {
            phase: hostile.to_owned(),
            done_bytes: 1,
            total_bytes: None,
            detail: Some(hostile.to_owned()),
        }),
        ..failure.clone()
    });
    let failures = vec![failure.clone()];
    let errors = Some(hostile.to_owned());
    let status = Status {
        failures,
        ledger_error: errors.clone(),
        configuration_error: errors,
        broken: vec![crate::web::status::BrokenStatus {
            job: hostile.to_owned(),
            file: hostile.to_owned(),
            reasons: vec![hostile.to_owned()],
            stands: vec![hostile.to_owned()],
        }],
        host: hostile.to_owned(),
        ..status(vec![job])
    };
    let page = render(&status);
    assert!(!page.contains("<script"), "{page}");
    // In an attribute a quote would suffice.
    assert!(!page.contains("\"zz\""), "{page}");
}

#[test]
fn a_job_that_is_left_out_is_the_headline_and_says_why() {
    let reasons = vec!["jobs/bad.toml:1:1: unknown key `schedul`".to_owned()];
    let stands = vec!["it is late on app".to_owned(); 7];
    let broken =
        vec![crate::web::status::BrokenStatus { job: "bad".to_owned(), file: "jobs/bad.toml".to_owned(), reasons, stands }];
    let page = render(&Status { broken, ..status(vec![well("a")]) });
    for text in [
        "1 job is skipped",
        "the other jobs go on",
        "unknown key `schedul`",
        "pgtend check",
        "it is late on app",
        "and on 2 more databases",
    ] {
        assert!(page.contains(text), "`{text}` is not in {page}");
    }
}

#[test]
fn the_headline_says_that_all_is_well() {
    assert_eq!(headline_of(vec![well("a"), well("b")]), "All 2 jobs are healthy");
    assert_eq!(headline_of(vec![well("a")]), "The job is healthy");
}

#[test]
fn the_headline_counts_what_failed_crashed_timed_out_or_is_late() {
    let late = JobStatus { late: true, ..well("late") };
    let ended = |name, outcome| job(name, "app", &[Outcome::Succeeded, outcome]);
    let jobs = vec![well("a"), late, ended("b", Outcome::Failed), ended("c", Outcome::Crashed), ended("d", Outcome::TimedOut)];
    assert_eq!(headline_of(jobs), "4 jobs need attention");
    assert_eq!(headline_of(vec![well("a"), ended("b", Outcome::Failed)]), "1 job needs attention");
    let spread = ["x", "y"].map(|database| job("a", database, &[Outcome::Failed]));
    assert_eq!(headline_of(spread.into()), "1 job needs attention on 2 databases");
}

#[test]
fn a_failure_stands_until_a_success() {
    use Outcome::{Cancelled, Failed, Skipped, Succeeded};
    assert_eq!(headline_of(vec![job("a", "app", &[Failed, Skipped, Cancelled])]), "1 job needs attention");
    assert_eq!(headline_of(vec![job("a", "app", &[Failed, Skipped, Succeeded])]), "The job is healthy");
    assert_eq!(headline_of(vec![job("a", "app", &[Succeeded, Cancelled])]), "The job is healthy");
}

#[test]
fn a_disabled_job_needs_no_attention() {
    let off = JobStatus { enabled: false, late: true, ..job("off", "app", &[Outcome::Failed]) };
    assert_eq!(headline_of(vec![well("a"), well("b"), off.clone()]), "All 2 jobs are healthy");
    assert_eq!(headline_of(vec![off]), "Every job is disabled");
}

#[test]
fn without_a_ledger_nothing_is_called_well() {
    let unread = Status { ledger_error: Some("disk I/O error".to_owned()), ..status(vec![job("a", "app", &[])]) };
    assert_eq!(verdict(&unread).headline, "The state of the jobs is unknown");
    assert!(!render(&unread).contains("Nothing has run yet"));
    let crowd = (0..9).map(|index| job("a", &index.to_string(), &[])).collect();
    assert!(!render(&Status { jobs: crowd, ..unread }).contains(" well"));
}

#[test]
fn an_empty_page_says_what_to_do_next() {
    assert_eq!(headline_of(vec![]), "No jobs yet");
    assert!(render(&status(vec![])).contains("pgtend check --connect"));
    let new = status(vec![job("nightly", "app", &[])]);
    assert_eq!(verdict(&new).headline, "1 job waits for the first run");
    assert!(render(&new).contains("pgtend run-job nightly --dry-run"));
}

#[test]
fn those_in_trouble_come_first() {
    let late = JobStatus { late: true, ..well("late") };
    let page = render(&status(vec![well("well"), late, job("broken", "app", &[Outcome::Failed])]));
    let table = &page[page.find("<tbody>").unwrap()..];
    let place = |name: &str| table.find(&format!("<b>{name}</b>")).unwrap();
    assert!(place("broken") < place("late") && place("late") < place("well"));
}

#[test]
fn a_line_needs_no_two_different_values() {
    let line = |values: &[f64]| drawing::sparkline("Size", values, &|value| value.to_string()).into_string();
    assert!(line(&[]).contains('–'));
    assert!(!line(&[5.0]).contains("svg"));
    for values in [[0.0, 0.0], [5.0, 5.0], [0.0, 5.0], [1e-9, 1e18]] {
        let line = line(&values);
        assert!(line.contains("polyline") && !line.contains("NaN") && !line.contains("inf"), "{line}");
    }
}

#[test]
fn progress_beyond_its_estimate_is_a_full_bar() {
    let mut job = well("a");
    for (done_bytes, total_bytes, wanted) in
        [(150, Some(100), "value=\"100\""), (0, Some(0), "<progress aria"), (7, None, "<progress aria")]
    {
        let progress = Some(Progress { phase: "dump".to_owned(), done_bytes, total_bytes, detail: None });
        job.running = Some(RunStatus { progress, finished_at: None, outcome: None, ..job.history[0].clone() });
        assert!(render(&status(vec![job.clone()])).contains(wanted));
    }
}

#[test]
fn thousands_of_databases_are_one_line_and_a_small_page() {
    let mut jobs: Vec<_> = (0..2500).map(|index| job("tenants", &format!("tenant_{index}"), &[Outcome::Succeeded; 30])).collect();
    jobs[1234] = job("tenants", "broken", &[Outcome::Failed]);
    // This thread's own time: other work on the machine does not count.
    let spent_seconds = || rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime).tv_sec;
    let start = spent_seconds();
    let page = render(&status(jobs));
    assert!(page.len() < 200_000, "{} bytes", page.len());
    assert!(spent_seconds() - start < 5);
    assert!(page.contains("2,499 of 2,500 databases well"));
    assert!(page.find(">broken<").unwrap() < page.find("class=\"fold\"").unwrap());
    let different = (0..2500).map(|index| job(&format!("job_{index}"), "app", &[Outcome::Succeeded; 30])).collect();
    let page = render(&status(different));
    assert!(
        page.len() < 1_000_000 && page.contains("page 1 of 42") && page.contains("rel=\"next\" href=\"/?page=2#jobs\""),
        "{} bytes",
        page.len()
    );
}

#[test]
fn a_job_with_patterns_is_one_line_and_its_trouble_is_counted_whole() {
    let fleet = |failed: usize, late: usize| FleetStatus {
        job: "nightly".to_owned(),
        patterns: "<i>tenant_*".to_owned(),
        task: "backup",
        description: None,
        enabled: true,
        schedule: Some("0 2 * * *".to_owned()),
        schedule_in_words: Some("At 02:00".to_owned()),
        timezone: "UTC".to_owned(),
        next_run_at: None,
        databases: 10_000,
        has_runs_for: "database",
        well: 10_000 - failed - late,
        failed,
        late,
        waiting: 0,
        unknown: None,
        without_proof: 0,
        by_ledger: 0,
        by_stores: None,
        not_well: Vec::new(),
        stores_asked_at: None,
        oldest_success_at: Some(now() - TimeDelta::days(2)),
        oldest_success_on: Some("main.tenant_1".to_owned()),
    };
    let gone = vec![Gone { database: "main.tenant_9".to_owned(), gone_at: now() - TimeDelta::days(1) }];
    let healthy = Status { fleets: vec![fleet(0, 0)], gone, ..status(Vec::new()) };
    assert_eq!(verdict(&healthy).headline, "The job is healthy");
    let page = render(&healthy);
    for text in ["1 job on 10,000 databases", "10,000 well", "2 d ago", "main.tenant_1", "main.tenant_9", "&lt;i&gt;tenant_*"] {
        assert!(page.contains(text), "`{text}` is not in {page}");
    }
    assert!(!page.contains("<i>tenant") && !page.contains("No jobs yet"), "{page}");
    // The runs went well, and the stores do not have what they made.
    let by_stores = Some("9,997 of 10,000 well, 3 without a backup that counts".to_owned());
    let stores_asked_at = Some(now() - TimeDelta::minutes(3));
    let judged = FleetStatus { without_proof: 3, by_stores, stores_asked_at, ..fleet(0, 0) };
    let doubtful = Status { fleets: vec![judged], ..status(Vec::new()) };
    assert_eq!(verdict(&doubtful).headline, "3 databases are not safe");
    for text in ["by the stores: 9,997 of 10,000 well, 3 without a backup that counts", "stores asked"] {
        assert!(render(&doubtful).contains(text), "{text}");
    }
    // Those of two jobs with the same patterns are the same; those of others are others. What no store could say is not known.
    let of = |patterns: &str, without_proof, by_ledger| {
        let by_stores = Some(String::new());
        FleetStatus { patterns: patterns.to_owned(), without_proof, by_ledger, by_stores, ..fleet(0, 0) }
    };
    let headline = |fleets| verdict(&Status { fleets, ..status(Vec::new()) }).headline.clone();
    assert_eq!(headline(vec![of("eu_*", 3, 0), of("eu_*", 2, 0), of("us_*", 4, 0)]), "7 databases are not safe");
    assert_eq!(headline(vec![of("eu_*", 3, 1), of("us_*", 4, 4)]), "2 databases are not safe, 5 are not known to be safe");
    let (why, since) = ("it takes no connections".to_owned(), now());
    let closed = LeftOut { database: "main.tenant_8".to_owned(), why, since };
    let left_out = Status { fleets: vec![fleet(0, 0)], left_out: vec![closed], ..status(Vec::new()) };
    assert_eq!(verdict(&left_out).headline, "1 database is not safe");
    assert!(render(&left_out).contains("<b>main.tenant_8</b> (it takes no connections)"));
    // One of the databases in trouble is named; the headline counts all.
    let broken = job("nightly", "main.tenant_7", &[Outcome::Failed]);
    let troubled = Status { fleets: vec![fleet(70, 2)], ..status(vec![broken]) };
    assert_eq!(verdict(&troubled).headline, "1 job needs attention on 72 databases");
    let page = render(&troubled);
    assert!(
        page.contains("9,928 well") && page.contains("70 failed") && page.contains("2 late") && page.contains("and 71 more"),
        "{page}"
    );
}

#[test]
fn a_server_that_does_not_answer_and_a_job_without_databases_are_not_green_and_neither_is_what_nobody_asked_yet() {
    let fleet = |databases, unknown: Option<&str>| FleetStatus {
        job: "fleet".to_owned(),
        patterns: "main.*".to_owned(),
        task: "backup",
        description: None,
        enabled: true,
        schedule: None,
        schedule_in_words: None,
        timezone: "UTC".to_owned(),
        next_run_at: None,
        databases,
        has_runs_for: "database",
        well: databases,
        failed: 0,
        late: 0,
        waiting: 0,
        unknown: unknown.map(str::to_owned),
        without_proof: 0,
        by_ledger: 0,
        by_stores: None,
        not_well: Vec::new(),
        stores_asked_at: None,
        oldest_success_at: None,
        oldest_success_on: None,
    };
    let why = "server `main` does not answer since 2026-11-23 20:00 UTC, and nothing is known of its databases: no";
    let of = |fleets| Status { fleets, ..status(vec![well("nightly")]) };
    let silent = |fleets| Status { silent: vec![why.to_owned()], ..of(fleets) };
    let asking = Status { is_asking: true, ..of(vec![fleet(3, None)]) };
    for (status, mood, headline) in [
        (of(vec![fleet(3, None)]), "good", "All 2 jobs are healthy"),
        (of(vec![fleet(0, None)]), "warn", "Job fleet has no database to run on"),
        (silent(vec![fleet(0, Some(why))]), "bad", "Job fleet has no database to run on"),
        (silent(vec![fleet(3, None)]), "warn", "Server `main` does not answer"),
        (asking, "idle", "The stores are being asked whether the backups are there"),
        (of(vec![FleetStatus { well: 1, late: 2, ..fleet(3, None) }]), "bad", "1 job needs attention on 2 databases"),
    ] {
        let said = verdict(&status);
        assert_eq!((said.mood, said.headline.as_str()), (mood, headline));
    }
    let page = render(&silent(vec![fleet(0, Some(why))]));
    assert!(page.contains("<h2>Without an answer</h2>") && !page.contains("nothing matches"), "{page}");
    assert!(render(&of(vec![fleet(0, None)])).contains("nothing matches main.*"));
}

#[test]
fn the_page_loads_nothing_and_runs_nothing() {
    let page = render(&status(vec![job("a", "app", &[Outcome::Failed; 30])]));
    for forbidden in ["<script", " src=", "url(", "@import", "href=\"http", " onclick"] {
        assert!(!page.contains(forbidden), "{forbidden}");
    }
}

#[test]
fn a_failure_that_is_over_says_so_and_a_long_stderr_keeps_its_end() {
    let job = job("a", "app", &[Outcome::Failed, Outcome::Succeeded]);
    let stderr = (0..100).map(|line| format!("line {line}\n")).collect();
    let failure = RunStatus { stderr: Some(stderr), ..job.history[0].clone() };
    let page = render(&Status { failures: vec![failure], ..status(vec![job]) });
    assert!(page.contains("succeeded again"));
    assert!(page.contains("80 lines before") && page.contains("line 99") && !page.contains("line 79\n"));
    assert!(page.contains("pgtend runs show 1<") && page.contains("href=\"/runs/1\""));
}

fn headline_of(jobs: Vec<JobStatus>) -> String {
    verdict(&status(jobs)).headline
}

#[test]
fn the_last_audit_is_on_the_page_with_what_is_new() {
    let mut audited = well("audit-quarterly");
    assert!(!render(&status(vec![audited.clone()])).contains("Audits"));
    let finding = |level: &str, object: &str, change: &str| AuditFinding {
        key: format!("no-primary-key:{object}"),
        level: level.to_owned(),
        title: "A table without a primary key".to_owned(),
        object: object.to_owned(),
        change: Some(change.to_owned()),
    };
    audited.audit = Some(AuditStatus {
        at: status(vec![]).now - TimeDelta::days(3),
        previous: Some(status(vec![]).now - TimeDelta::days(90)),
        counts: AuditCounts { high: 1, medium: 1, new: 1, resolved: 2, unknown: 3, ..AuditCounts::default() },
        findings: vec![finding("high", "public.a", "new"), finding("medium", "public.b", "unchanged")],
        report: Some("/var/lib/pgtend/store/app/audit/x.html".to_owned()),
    });
    let page = render(&status(vec![audited]));
    for text in ["Audits", "1 high", "1 medium", "1 new, 2 resolved since", "3 checks unknown", "public.a", "3 d ago", "x.html"] {
        assert!(page.contains(text), "`{text}` is not in {page}");
    }
    assert_eq!(page.matches("<span class=\"tag\">new</span>").count(), 1);
}
