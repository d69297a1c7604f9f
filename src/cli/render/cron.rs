//! Reads a schedule's fields as numbers, as `pgtend serve` does, to write them in another scheduler's syntax.

use crate::base::schedule::Schedule;

/// The times at which a schedule ticks. Numbers ascend; Sunday is 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fields {
    pub seconds: Vec<u16>,
    pub minutes: Vec<u16>,
    pub hours: Vec<u16>,
    /// `None` stands for `*`. If both days and weekdays are given, a tick needs one of them, or both with `day_and_weekday`.
    pub days: Option<Vec<u16>>,
    pub months: Vec<u16>,
    pub weekdays: Option<Vec<u16>>,
    /// True when a day field begins with `*`, or the weekdays with `+`.
    pub day_and_weekday: bool,
}

/// Consecutive or evenly spaced numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    One(u16),
    Range { first: u16, last: u16 },
    Step { first: u16, last: u16, step: u16 },
}

/// Returns the fields of a five-field, six-field or `@daily` schedule, or the reason why numbers cannot express it.
pub fn fields(schedule: &str) -> Result<Fields, String> {
    let schedule = Schedule::try_from(schedule.to_owned())?;
    let pattern = &schedule.cron().pattern;
    if pattern.days.has_modifiers() || pattern.days_of_week.has_modifiers() {
        return Err("only pgtend itself knows L, W and # (`pgtend serve`)".to_owned());
    }
    let day_and_weekday = pattern.matches_dom_and_dow();
    let (days, weekdays) = (pattern.days.values(), pattern.days_of_week.values());
    // Where both must match, a field that has all values limits nothing.
    let is_no_limit = |is_star: bool, values: &[u16], all: usize| is_star || (day_and_weekday && values.len() == all);
    Ok(Fields {
        seconds: pattern.seconds.values(),
        minutes: pattern.minutes.values(),
        hours: pattern.hours.values(),
        days: (!is_no_limit(pattern.is_dom_wildcard(), &days, 31)).then_some(days),
        months: pattern.months.values(),
        weekdays: (!is_no_limit(pattern.is_dow_wildcard(), &weekdays, 7)).then_some(weekdays),
        day_and_weekday,
    })
}

/// Writes numbers as few parts that are easy to read: `0, 15, 30, 45` is a step, `1, 2, 3, 7` a range and a number.
pub fn parts(numbers: &[u16]) -> Vec<Part> {
    if let [first, second, .., last] = *numbers
        && second - first > 1
        && numbers.windows(2).all(|pair| pair[1] - pair[0] == second - first)
    {
        return vec![Part::Step { first, last, step: second - first }];
    }
    numbers
        .chunk_by(|a, b| a + 1 == *b)
        .flat_map(|run| match *run {
            [first, _, .., last] if run.len() > 2 => vec![Part::Range { first, last }],
            _ => run.iter().copied().map(Part::One).collect(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_numbers_whatever_way_they_are_written() {
        let daily = fields("@daily").unwrap();
        assert_eq!(daily, fields("0 0 * * *").unwrap());
        assert_eq!(daily, fields("0 0 0 * * ?").unwrap());
        assert_eq!((daily.days, daily.weekdays), (None, None));
        assert_eq!(fields("0 0 * jan,JUN-aug sun").unwrap(), fields("0 0 * 1,6,7,8 7").unwrap());
        assert_eq!(fields("0 0 1 * mon").unwrap().days, Some(vec![1]));
        assert!(fields("0 0 1-7 * +mon").unwrap().day_and_weekday);
        assert_eq!(fields("0 0 */10 * 1").unwrap().days, Some(vec![1, 11, 21, 31]));
        assert!(fields("0 0 */10 * 1").unwrap().day_and_weekday, "as cron has it");
        assert_eq!(fields("0 0 */1 * 1").unwrap().days, None, "and every day says nothing");
    }

    #[test]
    fn what_numbers_cannot_say_is_refused() {
        for schedule in ["0 0 L * *", "0 0 15W * *", "0 0 LW * *", "0 0 * * 5#2", "0 0 * * 5L"] {
            assert!(fields(schedule).unwrap_err().contains("L, W and #"), "{schedule}");
        }
        assert!(fields("nonsense").is_err());
    }

    #[test]
    fn numbers_become_few_parts() {
        assert_eq!(parts(&[5]), [Part::One(5)]);
        assert_eq!(parts(&[5, 35]), [5, 35].map(Part::One));
        assert_eq!(parts(&[5, 6]), [Part::One(5), Part::One(6)]);
        assert_eq!(parts(&[0, 15, 30, 45]), [Part::Step { first: 0, last: 45, step: 15 }]);
        assert_eq!(parts(&[1, 2, 3, 7]), [Part::Range { first: 1, last: 3 }, Part::One(7)]);
        assert_eq!(parts(&[1, 3, 4, 8]), [1, 3, 4, 8].map(Part::One));
    }
}
