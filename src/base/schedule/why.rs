//! Why a text is no schedule: which field is wrong, what it may be, and what to write.

use super::field::Field;
use crate::base::units::plural;

pub const FORMS: &str = "write five cron fields like \"0 2 * * *\", six with seconds, or @daily";

/// Says why a text does not have the five or six fields of cron.
pub fn not_five(fields: &[&str]) -> String {
    let order = "minute, hour, day of the month, month, day of the week";
    match fields {
        [] => format!("it is empty; {FORMS}"),
        [time] if time_of_day(time).is_some() => {
            let (hour, minute) = time_of_day(time).unwrap_or_default();
            format!("a time of day is written in cron's fields ({order}): write \"{minute} {hour} * * *\"")
        }
        fields if fields.iter().any(|field| is_a_word(field)) => {
            format!("it is not in cron's form, which has five fields: {order}; \"0 2 * * *\" is every day at 02:00")
        }
        [fields @ .., last] if fields.len() == 6 && (*last == "*" || last.parse::<u16>().is_ok_and(|year| year > 1900)) => {
            format!("it has 7 fields, and a year is not possible; leave it out: \"{}\"", fields.join(" "))
        }
        fields => format!("it has {}, and cron has five: {order}, as in \"0 2 * * *\"", plural(fields.len(), "field")),
    }
}

/// Says why a field is wrong, if it is.
pub fn not_a_field(field: &str, kind: &Field) -> Option<String> {
    field.trim_start_matches('+').split(',').find_map(|part| not_a_part(part, kind))
}

/// Checks `5`, `1-5`, `*/15`, `mon`. What only days have (`L`, `15W`, `5#2`) is left to the parser.
fn not_a_part(part: &str, kind: &Field) -> Option<String> {
    let (range, step) = part.split_once('/').map_or((part, None), |(range, step)| (range, Some(step)));
    let name = kind.name_for_people();
    if step.is_some_and(|step| !step.parse::<u16>().is_ok_and(|step| step > 0)) {
        return Some(format!("the step after `/` in `{part}` ({name}) is a whole number from 1 on, as in `*/15`"));
    }
    if range.is_empty() {
        return Some(format!("`{part}` ({name}) has no value before the `/`; write `*{part}`"));
    }
    if matches!(range, "*" | "?") {
        return None;
    }
    range.split('-').find_map(|value| not_a_value(value, kind))
}

fn not_a_value(value: &str, kind: &Field) -> Option<String> {
    let name = kind.name_for_people();
    let last = if kind.name == "weekday" { 7 } else { kind.last };
    if let Some(number) = kind.value(value) {
        let is_right = (kind.first..=last).contains(&number);
        return (!is_right).then(|| format!("the {name} is {} to {last}{}, and `{value}` is not", kind.first, kind.names_too()));
    }
    if value.chars().all(|letter| letter.is_ascii_digit()) && !value.is_empty() {
        return Some(format!("the {name} is {} to {last}, and `{value}` is not", kind.first));
    }
    let is_special = matches!(kind.name, "day" | "weekday") && value.contains(['l', 'w', '#']) && !is_a_word(value);
    if is_special {
        return None;
    }
    if value == "h" {
        return Some(format!("`H` is of Jenkins; write the {name} itself, and jitter = \"10m\" to spread jobs"));
    }
    let known = kind.names.iter().find(|known| value.len() > 3 && value.starts_with(**known));
    let cure = match (known, kind.names) {
        (Some(known), _) => format!("write `{known}`"),
        (None, [first, .., last_name]) => format!("write {} to {last}, or {first} to {last_name}", kind.first),
        (None, _) => format!("write {} to {last}, or `*` for every one", kind.first),
    };
    Some(format!("`{value}` is no {name}; {cure}"))
}

/// Reads `02:00`, `2:30:00` and `2am`.
fn time_of_day(text: &str) -> Option<(u16, u16)> {
    let (text, later) = match (text.strip_suffix("am"), text.strip_suffix("pm")) {
        (Some(text), _) => (text, 0),
        (_, Some(text)) => (text, 12),
        _ if text.contains(':') => (text, 0),
        _ => return None,
    };
    let mut parts = text.split(':');
    let hour: u16 = parts.next()?.parse().ok()?;
    let minute: u16 = parts.next().map_or(Some(0), |minute| minute.parse().ok())?;
    let hour = if later > 0 && hour == 12 { 12 } else { hour + later };
    (hour < 24 && minute < 60).then_some((hour, minute))
}

/// Returns whether it is a word of a sentence.
fn is_a_word(text: &str) -> bool {
    text.len() > 3 && text.chars().all(char::is_alphabetic) || matches!(text, "at" | "on" | "am" | "pm")
}
