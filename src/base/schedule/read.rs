//! Reads a schedule's text by the rules of Vixie cron (cron(8), and cronie's entry.c, which has the same).
//!
//! croner parses the fields. This file first checks what croner reads otherwise than cron, or reports in unhelpful words.

use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};

use super::field::{DAY, Field, HOUR, MINUTE, MONTH, SECOND, WEEKDAY};
use super::meant;
use super::why::{self, FORMS};

/// A schedule that was read.
pub struct Read {
    pub cron: Cron,
    /// True when both hour and minute are given: such a tick keeps its time of day when clocks change.
    pub is_fixed_time: bool,
    /// What it means where that is probably not meant.
    pub notes: Vec<String>,
}

/// Reads the text, or returns the reason why it is not a schedule.
pub fn read(text: &str) -> Result<Read, String> {
    let wrong = |reason: String| format!("`{text}` is not a schedule: {reason}");
    let lower = text.trim().to_lowercase();
    let pattern = match nickname(&lower) {
        Some(known) => known.map_err(wrong)?.to_owned(),
        None => lower.clone(),
    };
    let fields: Vec<&str> = pattern.split_whitespace().collect();
    // A day and no weekday: croner accepts it, and searches thirty centuries for such a day, for seconds.
    if fields.last() == Some(&"+") {
        return Err(wrong("no weekday comes after the `+`; write it like \"0 0 1-7 * +mon\"".to_owned()));
    }
    let (seconds, rest) = match fields.as_slice() {
        [minute, hour, day, month, weekday] => (None, [*minute, *hour, *day, *month, *weekday]),
        [second, minute, hour, day, month, weekday] => (Some(*second), [*minute, *hour, *day, *month, *weekday]),
        fields => return Err(wrong(why::not_five(fields))),
    };
    let [minute, hour, day, month, weekday] = rest;
    let known = [(minute, &MINUTE), (hour, &HOUR), (day, &DAY), (month, &MONTH), (weekday, &WEEKDAY)];
    for (field, kind) in seconds.iter().map(|second| (*second, &SECOND)).chain(known) {
        // Found with fuzz/: croner accepts it, and searches thirty centuries for a time that it allows, for seconds.
        if field.trim_start_matches('+').split(',').all(str::is_empty) {
            return Err(wrong(format!("the field of the {} has no value: `{field}`", kind.name)));
        }
        field.split(',').try_for_each(|part| looked_at(part, kind)).map_err(wrong)?;
    }

    // The first character of a field sets DOM_STAR and DOW_STAR: `*/7` is as unrestricted as `*`, and then the day must match
    // both fields. croner does that for a plain `*` only.
    let begins_with_star = |field: &str| field.starts_with(['*', '?']);
    let is_star = |field: &str| matches!(field, "*" | "?");
    let is_both = (begins_with_star(day) || begins_with_star(weekday)) && !is_star(day) && !is_star(weekday);
    let parser = CronParser::builder().seconds(Seconds::Optional).year(Year::Disallowed).dom_and_dow(is_both).build();
    let all = seconds.iter().map(|second| (*second, &SECOND)).chain(known);
    let why = || all.clone().find_map(|(field, kind)| why::not_a_field(field, kind)).unwrap_or_else(|| FORMS.to_owned());
    let cron = parser.parse(&pattern).map_err(|_| wrong(why()))?;
    let of_days = (is_both && !weekday.starts_with('+')).then(|| meant::both_days(text, day, weekday));
    let of_hours = seconds.and_then(|second| meant::each_hour(text, second, rest));
    let notes = of_days.into_iter().chain(of_hours).collect();
    // This mirrors MIN_STAR and HR_STAR; of the nicknames only @hourly is like that.
    let is_fixed_time = !minute.starts_with('*') && !hour.starts_with('*');
    Ok(Read { cron, is_fixed_time, notes })
}

/// Returns what a nickname stands for, or why it is invalid; `None` when the text does not look like one.
fn nickname(text: &str) -> Option<Result<&'static str, String>> {
    let name = text.strip_prefix('@')?;
    Some(match name {
        "yearly" | "annually" => Ok("0 0 1 1 *"),
        "monthly" => Ok("0 0 1 * *"),
        "weekly" => Ok("0 0 * * sun"),
        "daily" | "midnight" => Ok("0 0 * * *"),
        "hourly" => Ok("0 * * * *"),
        "reboot" => {
            Err("a restart of the host is not a time. To run a job then, call `pgtend run-job NAME` from a systemd unit \
                         (WantedBy=multi-user.target); `catch_up` runs what was missed while the host was off"
                .to_owned())
        }
        _ => Err("the nicknames are @hourly, @daily (@midnight), @weekly, @monthly and @yearly (@annually)".to_owned()),
    })
}

/// Checks one part of a field's list: `5`, `1-5`, `*/15`, `fri-mon`.
fn looked_at(part: &str, field: &Field) -> Result<(), String> {
    let (range, step) = match part.split_once('/') {
        Some((range, step)) => (range, step.parse::<u16>().ok()),
        None => (part, None),
    };
    let count = field.last - field.first + 1;
    let is_day = matches!(field.name, "day" | "weekday");
    // For days this is the known way to write one day that counts as unrestricted: `*/100,1-7`.
    if let Some(step) = step.filter(|step| range == "*" && *step > count && !is_day) {
        let cure = match field.name {
            "minute" if step % 60 == 0 && step <= 24 * 60 => {
                format!("for every {} hours write `0 */{} * * *`", step / 60, step / 60)
            }
            _ => format!("`{}` means the same", field.first),
        };
        return Err(format!(
            "`{part}` comes once in {} {}s, at {}: a step counts inside its field; {cure}",
            count, field.name, field.first
        ));
    }
    let Some((from, to)) = range.trim_start_matches('+').split_once('-') else { return Ok(()) };
    let (Some(from_value), Some(to_value)) = (field.value(from), field.value(to)) else { return Ok(()) };
    // Sunday is 0 and 7.
    let to_value = if field.name == "weekday" && to_value == 0 && from_value > 0 { 7 } else { to_value };
    if from_value <= to_value {
        return Ok(());
    }
    let around: Vec<u16> =
        (from_value..=field.last).chain(field.first..=to_value).step_by(step.unwrap_or(1).max(1).into()).collect();
    Err(format!("ranges must ascend: write `{}`", field.list(&around, !from.starts_with(|c: char| c.is_ascii_digit()))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(text: &str) -> String {
        read(text).err().unwrap_or_else(|| panic!("{text} was read"))
    }

    #[test]
    fn nicknames_are_those_of_cron_and_reboot_is_answered_by_name() {
        for text in ["@midnight", "@Daily", "@annually", "@hourly", " @weekly "] {
            assert!(read(text).is_ok(), "{text}");
        }
        assert!(read("@midnight").unwrap_or_else(|error| panic!("{error}")).is_fixed_time);
        assert!(!read("@hourly").unwrap_or_else(|error| panic!("{error}")).is_fixed_time);
        assert!(reason("@reboot").contains("a restart of the host is not a time"), "{}", reason("@reboot"));
        assert!(reason("@every 5m").contains("@daily (@midnight)"));
    }

    #[test]
    fn ranges_that_go_backwards_are_told_with_what_to_write() {
        for (text, cure) in [
            ("0 22-4 * * *", "write `22-23,0-4`"),
            ("0 22-4/2 * * *", "write `22,0,2,4`"),
            ("0 0 * * fri-mon", "write `fri,sat,sun,mon`"),
            ("0 0 * * 5-1", "write `5-6,0-1`"),
            ("0 0 * nov-feb *", "write `nov,dec,jan,feb`"),
            ("50-10 * * * *", "write `50-59,0-10`"),
            ("0 0 28-3 * *", "write `28-31,1-3`"),
        ] {
            assert!(reason(text).contains(cure), "{}", reason(text));
            let written = cure.trim_start_matches("write `").trim_end_matches('`');
            let backwards = text.split_whitespace().find(|field| field.contains('-')).unwrap_or_default();
            assert!(read(&text.replace(backwards, written)).is_ok(), "{written} is a schedule");
        }
        for text in
            ["0 0 * * sat-sun", "0 0 * * fri-sun", "0 0 * * 5-7", "0 0 * * sun-thu", "0 9-17 * * mon-fri", "0 0 * * +mon-fri"]
        {
            assert!(read(text).is_ok(), "{text}");
        }
    }

    #[test]
    fn a_step_beyond_its_field_is_a_mistake_but_in_the_days() {
        assert!(reason("*/90 * * * *").contains("comes once in 60 minutes, at 0"), "{}", reason("*/90 * * * *"));
        assert!(reason("*/120 * * * *").contains("`0 */2 * * *`"), "{}", reason("*/120 * * * *"));
        assert!(reason("0 */36 * * *").contains("24 hours"));
        assert!(reason("*/90 0 0 * * *").contains("60 seconds"));
        for text in ["*/60 * * * *", "0 */24 * * *", "0 0 */100,1-7 * mon", "0 0 1-7 * */7", "10-50/90 * * * *"] {
            assert!(read(text).is_ok(), "{text}");
        }
    }

    #[test]
    fn a_field_of_commas_alone_is_a_mistake_and_no_search_of_thirty_centuries() {
        for (text, named) in [(" , 2 * * *", "minute"), ("0 2 , * *", "day"), ("0 2 * ,, *", "month"), ("0 2 * * +,", "weekday")]
        {
            let Err(reason) = read(text) else { panic!("{text} was read") };
            assert!(reason.contains(&format!("the field of the {named} has no value")), "{text}: {reason}");
        }
        assert!(read("1,,2 2 1, * *").is_ok(), "it was read before, and still is");
    }

    #[test]
    fn the_wrong_field_is_named_with_what_it_may_be() {
        for (text, expected) in [
            ("0 25 * * *", "the hour is 0 to 23, and `25` is not"),
            ("60 2 * * *", "the minute is 0 to 59, and `60` is not"),
            ("0 2 0 * *", "the day of the month is 1 to 31, and `0` is not"),
            ("0 2 * 13 *", "the month is 1 to 12 (or jan to dec), and `13` is not"),
            ("0 2 * * 8", "the day of the week is 0 to 7 (or sun to sat), and `8` is not"),
            ("0 2-24 * * *", "the hour is 0 to 23, and `24` is not"),
            ("99999999 2 * * *", "the minute is 0 to 59, and `99999999` is not"),
            ("0 2 * * monday", "`monday` is no day of the week; write `mon`"),
            ("0 2 * january *", "`january` is no month; write `jan`"),
            ("0 2 * * mo", "`mo` is no day of the week; write 0 to 7, or sun to sat"),
            ("H 2 * * *", "`H` is of Jenkins; write the minute itself"),
            ("x 2 * * *", "`x` is no minute; write 0 to 59, or `*` for every one"),
            ("*/0 2 * * *", "the step after `/` in `*/0` (minute)"),
            ("/5 2 * * *", "has no value before the `/`; write `*/5`"),
            ("02:00", "write \"0 2 * * *\""),
            ("2:30pm", "write \"30 14 * * *\""),
            ("every day at 2", "it is not in cron's form, which has five fields"),
            ("daily", "it is not in cron's form"),
            ("0 0 2 * * * 2026", "a year is not possible; leave it out: \"0 0 2 * * *\""),
            ("0 2 * *", "it has 4 fields, and cron has five: minute, hour"),
            ("5", "it has 1 field, and cron has five"),
            ("", "it is empty"),
        ] {
            let said = read(text).err().unwrap_or_else(|| panic!("{text} was read"));
            assert!(said.contains(expected) && said.contains("is not a schedule"), "{text}: {said}");
            assert!(!["Component", "CronPattern", "attern"].iter().any(|word| said.contains(word)), "{said}");
        }
    }
}
