//! The regular expression of schedules in the JSON Schema: it refuses values beyond a field, and no schedule that is read.

use super::field::{MONTHS, NICKNAMES, WEEKDAYS};

/// Returns it in the syntax of ECMA 262, which has no flag for both cases.
pub fn of_schedules() -> String {
    let number = |values: &str| format!("0*({values})");
    let below_60 = list(&number(r"[0-5]?\d"));
    let hour = list(&number(r"1?\d|2[0-3]"));
    let day = list(&format!("(({})[wW]?|[lL][wW]?)", number(r"[1-9]|[12]\d|3[01]")));
    let month = list(&format!("({}|{})", number("[1-9]|1[0-2]"), names(&MONTHS)));
    let weekday = list(&format!("(({}|{})([lL]|#([1-5]|[lL]))?|[lL])", number("[0-7]"), names(&WEEKDAYS)));
    format!(r"^\s*(@({})|({below_60}\s+)?{below_60}\s+{hour}\s+{day}\s+{month}\s+{weekday})\s*$", names(&NICKNAMES))
}

/// A list of values, of ranges of them, and of steps.
fn list(value: &str) -> String {
    let part = format!(r"(({value}(-{value})?|[*?])(/0*[1-9]\d*)?)?");
    format!(r"\+?{part}(,{part})*")
}

fn names(names: &[&str]) -> String {
    let in_any_case =
        |name: &&str| -> String { name.chars().map(|letter| format!("[{letter}{}]", letter.to_ascii_uppercase())).collect() };
    format!("({})", names.iter().map(in_any_case).collect::<Vec<_>>().join("|"))
}
