//! `pgtend render systemd` prints a timer for each scheduled job, for hosts that run jobs one by one instead of `pgtend serve`.
//!
//! A timer starts the service of its own name: `pgtend-run-job@JOB.service`.

use super::cron::{self, Fields, Part};

pub struct Timer<'a> {
    pub job: &'a str,
    pub schedule: &'a str,
    pub timezone: &'a str,
    pub jitter_seconds: Option<u64>,
    pub description: Option<&'a str>,
    pub enabled: bool,
    /// True when one run catches up missed ticks.
    pub catch_up: bool,
}

/// Returns file names and their contents.
pub fn systemd(jobs: &[Timer]) -> Result<Vec<(String, String)>, String> {
    jobs.iter().map(|timer| Ok((file_name(timer.job)?, unit(timer)?))).collect()
}

/// Keeps the name as it is: the service uses `%i`, so that people can type pgtend-run-job@backup-nightly. systemd-escape would
/// make `backup\x2dnightly` of it.
fn file_name(job: &str) -> Result<String, String> {
    if !job.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c)) {
        return Err(format!("job {job}: systemd units need ASCII names: rename the job"));
    }
    Ok(format!("pgtend-run-job@{job}.timer"))
}

fn unit(timer: &Timer) -> Result<String, String> {
    let fields = cron::fields(timer.schedule)
        .map_err(|reason| format!("job {}: `{}` cannot become a systemd timer: {reason}", timer.job, timer.schedule))?;
    let mut unit = String::from("[Unit]\n");
    let description = timer.description.map(|text| format!(": {text}")).unwrap_or_default();
    unit += &format!("Description={}\n", one_line(&format!("pgtend job {}{description}", timer.job)));
    if !timer.enabled {
        unit += "# The job has `enabled = false`: this condition never holds, and the timer does not start.\nConditionPathExists=!/\n";
    }
    unit += &format!("\n[Timer]\n# schedule = {:?}\n", timer.schedule);
    for expression in on_calendar(&fields, timer.timezone) {
        unit += &format!("OnCalendar={expression}\n");
    }
    // Persistent: a tick that was due while the host was off runs after the boot.
    unit += &format!("Persistent={}\nAccuracySec=1s\n", timer.catch_up);
    if let Some(seconds) = timer.jitter_seconds.filter(|seconds| *seconds > 0) {
        // The delay is fixed: a job keeps its place, so that runs are as far apart as the schedule says.
        unit += &format!("RandomizedDelaySec={seconds}s\nFixedRandomDelay=true\n");
    }
    unit += "\n[Install]\nWantedBy=timers.target\n";
    Ok(unit)
}

/// Returns one expression, or two where a day of the month or a weekday suffices: systemd requires both, cron either.
pub fn on_calendar(fields: &Fields, timezone: &str) -> Vec<String> {
    let expression = |days: &Option<Vec<u16>>, weekdays: &Option<Vec<u16>>| {
        let weekdays = weekdays.as_ref().filter(|days| days.len() < 7).map(|days| format!("{} ", weekday_names(days)));
        let days = days.as_ref().map_or("*".to_owned(), |days| numbers(days, 1, 31));
        let time = [numbers(&fields.hours, 0, 23), numbers(&fields.minutes, 0, 59), numbers(&fields.seconds, 0, 59)].join(":");
        let months = numbers(&fields.months, 1, 12);
        format!("{}*-{months}-{days} {time} {timezone}", weekdays.unwrap_or_default())
    };
    if fields.days.is_some() && fields.weekdays.is_some() && !fields.day_and_weekday {
        vec![expression(&fields.days, &None), expression(&None, &fields.weekdays)]
    } else {
        vec![expression(&fields.days, &fields.weekdays)]
    }
}

fn numbers(numbers: &[u16], min: u16, max: u16) -> String {
    if numbers.len() == usize::from(max - min) + 1 {
        return "*".to_owned();
    }
    let part = |part| match part {
        Part::One(number) => format!("{number:02}"),
        Part::Range { first, last } => format!("{first:02}..{last:02}"),
        Part::Step { first, last, step } if last + step > max => format!("{first:02}/{step}"),
        Part::Step { first, last, step } => format!("{first:02}..{last:02}/{step}"),
    };
    cron::parts(numbers).into_iter().map(part).collect::<Vec<_>>().join(",")
}

/// systemd's weeks begin on Monday, and its ranges only ascend.
fn weekday_names(days: &[u16]) -> String {
    const NAMES: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
    let mut from_monday: Vec<u16> = days.iter().map(|day| (day + 6) % 7).collect();
    from_monday.sort_unstable();
    let name = |day: u16| NAMES[usize::from(day)].to_owned();
    let part = |run: &[u16]| match *run {
        [first, _, .., last] => format!("{}..{}", name(first), name(last)),
        _ => run.iter().map(|day| name(*day)).collect::<Vec<_>>().join(","),
    };
    from_monday.chunk_by(|a, b| a + 1 == *b).map(part).collect::<Vec<_>>().join(",")
}

/// Returns a value on one line, in which systemd finds no specifier and no continuation.
fn one_line(text: &str) -> String {
    let text: String = text.chars().map(|c| if c.is_control() || c == '\\' { ' ' } else { c }).collect();
    text.replace('%', "%%").trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expressions(schedule: &str) -> Vec<String> {
        on_calendar(&cron::fields(schedule).unwrap(), "UTC")
    }

    #[test]
    fn schedules_become_calendar_expressions() {
        for (schedule, expected) in [
            ("0 2 * * *", "*-*-* 02:00:00 UTC"),
            ("@hourly", "*-*-* *:00:00 UTC"),
            ("@yearly", "*-01-01 00:00:00 UTC"),
            ("*/15 9-17 * * mon-fri", "Mon..Fri *-*-* 09..17:00/15:00 UTC"),
            ("0 0 * * 5-7", "Fri..Sun *-*-* 00:00:00 UTC"),
            ("0 0 * * sun,tue", "Tue,Sun *-*-* 00:00:00 UTC"),
            ("30 5 4 1,6-8 * *", "*-*-01,06..08 04:05:30 UTC"),
            ("0 0 1-7 * +mon", "Mon *-*-01..07 00:00:00 UTC"),
            ("0 0 1-7 * */7", "Sun *-*-01..07 00:00:00 UTC"),
            ("0 0 */100,1-7 * mon", "Mon *-*-01..07 00:00:00 UTC"),
            ("0 0 */2 * 1", "Mon *-*-01/2 00:00:00 UTC"),
            ("0 0 * * */2", "Tue,Thu,Sat,Sun *-*-* 00:00:00 UTC"),
            ("@midnight", "*-*-* 00:00:00 UTC"),
            ("0 1-20/3 * * *", "*-*-* 01..19/3:00:00 UTC"),
        ] {
            assert_eq!(expressions(schedule), [expected], "{schedule}");
        }
    }

    #[test]
    fn a_day_or_a_weekday_are_two_expressions() {
        assert_eq!(expressions("30 2 1 * mon"), ["*-*-01 02:30:00 UTC", "Mon *-*-* 02:30:00 UTC"]);
        assert_eq!(expressions("0 0 1 * 0-6"), ["*-*-01 00:00:00 UTC", "*-*-* 00:00:00 UTC"]);
    }

    #[test]
    fn a_timer_is_whole() {
        let timer = Timer {
            job: "backup-nightly",
            schedule: "0 2 * * *",
            timezone: "Europe/Berlin",
            jitter_seconds: Some(300),
            description: Some("100 %\nsure\\"),
            enabled: true,
            catch_up: true,
        };
        let units = systemd(&[timer]).unwrap();
        assert_eq!(units[0].0, "pgtend-run-job@backup-nightly.timer");
        assert_eq!(
            units[0].1,
            "[Unit]\nDescription=pgtend job backup-nightly: 100 %% sure\n\n\
             [Timer]\n# schedule = \"0 2 * * *\"\nOnCalendar=*-*-* 02:00:00 Europe/Berlin\nPersistent=true\nAccuracySec=1s\n\
             RandomizedDelaySec=300s\nFixedRandomDelay=true\n\n[Install]\nWantedBy=timers.target\n"
        );
        assert!(file_name("über").unwrap_err().starts_with("job über: "));
    }

    #[test]
    fn a_disabled_job_has_a_timer_that_does_not_start_and_an_impossible_one_is_named() {
        let timer = |schedule, enabled| Timer {
            job: "j",
            schedule,
            timezone: "UTC",
            jitter_seconds: None,
            description: None,
            enabled,
            catch_up: false,
        };
        let unit = &systemd(&[timer("@daily", false)]).unwrap()[0].1;
        assert!(unit.contains("ConditionPathExists=!/\n") && unit.contains("Persistent=false\n"), "{unit}");
        assert!(systemd(&[timer("0 0 L * *", true)]).unwrap_err().starts_with("job j: `0 0 L * *`"));
    }
}
