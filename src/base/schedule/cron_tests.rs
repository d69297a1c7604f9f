//! Compares with cronsim (PyPI), which follows the rules of Debian's cron, around every clock change of 2026 in ten zones.

use chrono::{DateTime, Utc};

use super::{Schedule, Zone};

/// Written by tests/cron/ticks.py.
const TICKS: &str = include_str!("../../../tests/cron/cronsim.ticks");

#[test]
fn ticks_around_clock_changes_are_those_of_cronsim_in_ten_zones() {
    let (mut lines, mut zones, mut wrong) = (0, std::collections::BTreeSet::new(), Vec::new());
    for line in TICKS.lines() {
        let fields: Vec<&str> = line.split('|').collect();
        let [expression, zone, start, end, expected] = fields[..] else { panic!("{line}") };
        let instant = |minutes: &str| DateTime::<Utc>::from_timestamp(minutes.parse::<i64>().unwrap() * 60, 0).unwrap();
        let expected: Vec<_> = expected.split_whitespace().map(instant).collect();
        let schedule = Schedule::try_from(expression.to_owned()).unwrap();
        let tz = Zone::try_from(zone.to_owned()).unwrap().0;
        let (mut at, end) = (instant(start), instant(end));
        let mut ticks = Vec::new();
        while let Some(tick) = schedule.next_after(at, tz).map(|tick| tick.with_timezone(&Utc)).filter(|tick| *tick <= end) {
            ticks.push(tick);
            at = tick;
        }
        // cronsim steps by whole hours, and here clocks change by half an hour: it leaves ticks out, and shifts some. Debian's
        // cron checks wall-clock time each minute.
        let is_known = zone == "Australia/Lord_Howe" && ["*/30 2 * * *", "0 */2 * * *", "20 */3 * * *"].contains(&expression);
        if ticks != expected && !is_known {
            wrong.push(format!("{expression} in {zone} from {}: {ticks:?}, cronsim: {expected:?}", instant(start)));
        }
        lines += 1;
        zones.insert(zone);
    }
    assert!(wrong.is_empty(), "{} of {lines}:\n{}", wrong.len(), wrong.join("\n"));
    assert!(lines > 500 && zones.len() == 10, "{lines}, {zones:?}");
}
