//! The fields of cron, with their values and names.

/// Each field except the days: its name, its values, and what a larger step comes to.
pub const SECOND: Field = Field { name: "second", first: 0, last: 59, names: &[] };
pub const MINUTE: Field = Field { name: "minute", first: 0, last: 59, names: &[] };
pub const HOUR: Field = Field { name: "hour", first: 0, last: 23, names: &[] };
pub const DAY: Field = Field { name: "day", first: 1, last: 31, names: &[] };
pub const MONTH: Field = Field { name: "month", first: 1, last: 12, names: &MONTHS };
pub const WEEKDAY: Field = Field { name: "weekday", first: 0, last: 6, names: &WEEKDAYS };

pub const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
pub const WEEKDAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
pub const NICKNAMES: [&str; 7] = ["hourly", "daily", "midnight", "weekly", "monthly", "yearly", "annually"];

pub struct Field {
    pub name: &'static str,
    pub first: u16,
    pub last: u16,
    /// The names of its values, from `first` on.
    pub names: &'static [&'static str],
}

impl Field {
    pub fn value(&self, text: &str) -> Option<u16> {
        let by_name = self.names.iter().position(|name| *name == text).map(|index| index as u16 + self.first);
        by_name.or_else(|| text.parse().ok())
    }

    /// Writes values as the field does: by names, or as ranges of numbers.
    pub fn list(&self, values: &[u16], by_name: bool) -> String {
        let name = |value: u16| self.names.get(usize::from(value - self.first)).map(|name| (*name).to_owned());
        if by_name {
            return values.iter().filter_map(|value| name(*value)).collect::<Vec<_>>().join(",");
        }
        let runs = values.chunk_by(|a, b| a + 1 == *b).map(|run| match run {
            [first, .., last] => format!("{first}-{last}"),
            _ => run.iter().map(u16::to_string).collect(),
        });
        runs.collect::<Vec<_>>().join(",")
    }

    pub fn name_for_people(&self) -> &'static str {
        match self.name {
            "day" => "day of the month",
            "weekday" => "day of the week",
            name => name,
        }
    }

    pub fn names_too(&self) -> String {
        match self.names {
            [first, .., last] => format!(" (or {first} to {last})"),
            _ => String::new(),
        }
    }
}
