//! What a schedule that is valid means, where that is probably not what its author meant.

/// Says that a day must match both fields.
pub fn both_days(text: &str, day: &str, weekday: &str) -> String {
    format!(
        "schedule `{text}`: a day must match both `{day}` and `{weekday}`, as in cron, where a day field that begins with `*` counts as \
         unrestricted; older versions of pgtend accepted either. Write `+{weekday}` if you mean both, or name the days (`1-31/2`) \
         if you mean either"
    )
}

/// Says that `0 2 * * * *` runs each hour: with one `*` too many, the minute is read as the second, and the hour as the minute. Minute 0 is left alone, as
/// `0 0 * * * *` is how schedulers with seconds write each hour; and so is each hour field but `*`, such as `*/1`.
pub fn each_hour(text: &str, second: &str, [minute, hour, day, month, weekday]: [&str; 5]) -> Option<String> {
    let hours = minute.split(',').map(|hour| hour.parse().ok().filter(|hour| *hour < 24)).collect::<Option<Vec<u16>>>()?;
    let minute_of_them: u16 = second.parse().ok()?;
    if hour != "*" || hours == [0] {
        return None;
    }
    let times: Vec<String> = hours.iter().map(|hour| format!("{hour:02}:{minute_of_them:02}")).collect();
    let has_all_days = [day, month, weekday].iter().all(|field| matches!(*field, "*" | "?"));
    let days = if has_all_days { "each day" } else { "on those days" };
    let as_it_is = match minute_of_them {
        0 => format!("{minute} {hour} {day} {month} {weekday}"),
        _ => format!("{second} {minute} */1 {day} {month} {weekday}"),
    };
    Some(format!(
        "schedule `{text}`: it has six fields, so that the first is the second: it runs each hour, at minute {minute}. For {} {days} write \
         `{second} {minute} {day} {month} {weekday}`; for each hour write `{as_it_is}`",
        times.join(" and ")
    ))
}

#[cfg(test)]
mod tests {
    use crate::base::schedule::read::read;

    fn notes(text: &str) -> Vec<String> {
        read(text).unwrap_or_else(|error| panic!("{error}")).notes
    }

    #[test]
    fn a_time_of_day_with_one_star_too_many_is_told_as_each_hour_until_it_says_what_it_means() {
        for (text, says, daily, hourly) in [
            ("0 2 * * * *", "at minute 2. For 02:00 each day", "0 2 * * *", "2 * * * *"),
            ("30 14 * * * *", "at minute 14. For 14:30 each day", "30 14 * * *", "30 14 */1 * * *"),
            ("0 6,18 * * * *", "at minute 6,18. For 06:00 and 18:00 each day", "0 6,18 * * *", "6,18 * * * *"),
            ("0 2 * * * mon", "at minute 2. For 02:00 on those days", "0 2 * * mon", "2 * * * mon"),
        ] {
            let said = notes(text).concat();
            assert!(said.contains(says) && said.contains(&format!("`{daily}`")), "{said}");
            assert!(said.ends_with(&format!("for each hour write `{hourly}`")), "{said}");
            assert!(notes(daily).is_empty() && notes(hourly).is_empty(), "{daily}, {hourly}");
        }
        for text in ["0 2 * * *", "0 0 * * * *", "0 30 2 * * *", "0 2 1 * * *", "0 30 * * * *", "*/10 2 * * * *", "0 */5 * * * *"]
        {
            assert!(notes(text).is_empty(), "{text}");
        }
    }

    #[test]
    fn what_changed_its_meaning_has_a_note_until_it_says_what_it_means() {
        for text in ["0 0 1-7 * */7", "0 0 */2 * 1", "0 0 0 */2 * 1", "0 0 */100,1-7 * MON"] {
            assert!(notes(text).iter().any(|note| note.contains("Write `+")), "{text}");
        }
        for text in ["0 0 1-7 * +*/7", "0 0 1 * mon", "0 0 */2 * *", "0 0 * * */2", "0 0 ? * 1", "@daily"] {
            assert!(notes(text).is_empty(), "{text}");
        }
    }
}
