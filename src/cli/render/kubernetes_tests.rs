use super::*;

fn cron_job<'a>(job: &'a str, database: &'a str, only_database: bool) -> CronJob<'a> {
    CronJob {
        job,
        database,
        only_database,
        has_patterns: false,
        schedule: "0 2 * * *",
        timezone: "UTC",
        timeout_seconds: Some(7200),
        description: None,
        enabled: true,
        catch_up_within_seconds: 3600,
        may_run_again: true,
    }
}

const OPTIONS: Options = Options { image: "pgtend", namespace: None };

#[test]
fn a_cron_job_has_what_the_job_says() {
    let job = CronJob { description: Some("it's: nightly"), ..cron_job("backup-nightly", "psscript", true) };
    let yaml = kubernetes(&[job], &Options { image: "registry/pgtend:1", namespace: Some("db") }).unwrap();
    for line in [
        "  name: pgtend-backup-nightly",
        "  namespace: \"db\"",
        "    pgtend/database: \"psscript\"",
        "    pgtend/description: \"it's: nightly\"",
        "  schedule: \"0 2 * * *\"",
        "  timeZone: \"UTC\"",
        "  suspend: false",
        "  concurrencyPolicy: Forbid",
        "  startingDeadlineSeconds: 3600",
        "      activeDeadlineSeconds: 7290",
        "          terminationGracePeriodSeconds: 90",
        "              image: \"registry/pgtend:1\"",
        "              args: [run-job, \"backup-nightly\", --scheduled, \"--database=psscript\"]",
    ] {
        assert!(yaml.lines().any(|found| found == line), "{line}\n{yaml}");
    }
    let job = CronJob { enabled: false, timeout_seconds: None, catch_up_within_seconds: 0, ..cron_job("j", "d", true) };
    let yaml = kubernetes(&[job], &OPTIONS).unwrap();
    assert!(yaml.contains("  suspend: true\n") && yaml.contains("  startingDeadlineSeconds: 60\n"));
    assert!(!yaml.contains("activeDeadlineSeconds") && !yaml.contains("namespace"));
}

#[test]
fn names_are_labels_and_differ() {
    let long = "x".repeat(80);
    let jobs = [
        ("backup", "a", true),
        ("Backup", "a", true),
        ("backup.", "a", true),
        ("backup-a", "b", true),
        ("backup-a-0a1b2c3d", "b", true),
        ("a", "b-c", false),
        ("a-b", "c", false),
        ("a-b", "C", false),
        ("ünï", "d", true),
        ("-", "\"'$(HOME) : ü\n", false),
        (&long, "a", true),
        (&long, "b", false),
        (&long, "c", false),
    ];
    let names: Vec<String> = jobs.iter().map(|(job, database, only)| name(&cron_job(job, database, *only))).collect();
    for (place, name) in names.iter().enumerate() {
        assert!(name.len() <= 52 && !name.ends_with('-'), "{name}");
        assert!(name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-'), "{name}");
        assert!(!names[..place].contains(name), "{name} twice");
    }
    assert_eq!(names[0], "pgtend-backup");
    assert_eq!(names[5], "pgtend-a-b-c-bb0d9276", "stable over releases");
}

/// The longest job name that fits with the prefix has 45 characters.
#[test]
fn the_longest_plain_name() {
    let job = "x".repeat(45);
    assert_eq!(name(&cron_job(&job, "d", true)), format!("pgtend-{job}"));
    assert_eq!(name(&cron_job(&format!("{job}x"), "d", true)).len(), 52);
}

#[test]
fn one_job_twice_is_refused() {
    let error = kubernetes(&[cron_job("j", "d", true), cron_job("j", "d", true)], &OPTIONS).unwrap_err();
    assert_eq!(error, "jobs j and j would both become CronJob pgtend-j: rename one of them");
}

#[test]
fn schedules_mean_the_same_in_kubernetes() {
    for (schedule, expected) in [
        ("0 2 * * *", "0 2 * * *"),
        ("00 0 2 * * *", "0 2 * * *"),
        ("@weekly", "0 0 * * 0"),
        ("*/15 9-17 * jan,jul mon-fri", "*/15 9-17 * 1,7 1-5"),
        ("5/10 * * * *", ""),
        ("5-59/10 * * * *", "5-55/10 * * * *"),
        ("0 0 * * 5-7", "0 0 * * 0,5,6"),
        ("30 2 1 * mon", "30 2 1 * 1"),
        ("0 0 1-31 * mon", "0 0 1-31 * 1"),
        // cron requires both; Kubernetes takes either.
        ("0 0 */2 * mon", ""),
        ("0 0 */1 * mon", "0 0 * * 1"),
        ("30 0 2 * * *", ""),
        ("0 0 1-7 * +mon", ""),
        ("0 0 L * *", ""),
    ] {
        assert_eq!(five_fields(schedule).unwrap_or_default(), expected, "{schedule}");
    }
    let job = CronJob { schedule: "30 0 2 * * *", ..cron_job("j", "d", true) };
    assert!(kubernetes(&[job], &OPTIONS).unwrap_err().starts_with("job j: `30 0 2 * * *`"));
}

#[test]
fn any_name_is_a_scalar_and_no_variable() {
    assert_eq!(quote("a\"b\\c: #ü\n\u{2028}\u{7f}"), r#""a\"b\\c: #ü\u000a\u2028\u007f""#);
    assert_eq!(argument("--database=$(HOME)"), "\"--database=$$(HOME)\"");
}

#[test]
fn what_may_not_run_twice_has_no_second_pod() {
    let options = Options { image: "pgtend", namespace: None };
    let once = CronJob { may_run_again: false, ..cron_job("pay", "app", true) };
    assert!(kubernetes(&[once], &options).unwrap().contains("      backoffLimit: 0\n"));
    assert!(kubernetes(&[cron_job("backup", "app", true)], &options).unwrap().contains("      backoffLimit: 1\n"));
}
