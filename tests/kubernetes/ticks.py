"""Schedules as jobs, and the rendered timers' next times compared with croniter's.

    ticks.py jobs FOLDER       writes config.toml and jobs/*.toml
    ticks.py compare FOLDER    compares what is in units/*.timer
"""

import datetime
import os
import pathlib
import re
import subprocess
import sys
import zoneinfo

from croniter import croniter

SCHEDULES = """
* * * * *
*/5 * * * *
*/7 * * * *
0 2 * * *
30 3 * * *
59 23 * * *
0 0 * * *
@hourly
@daily
@weekly
@monthly
@yearly
@annually
0 */4 * * *
0 1-20/3 * * *
15,45 * * * *
0,1,2,3,30 6 * * *
10-20 4 * * *
5-59/10 8-18 * * *
0 9-17 * * mon-fri
0 9-17/2 * * MON-FRI
0 0 * * sun
0 0 * * 0
0 0 * * 7
0 0 * * 5-7
0 0 * * sat,sun
0 0 * * tue,thu,sat
0 0 * * 1,2,3,5
0 22 * * 1-5
0 0 * * 0-6
0 0 1 * *
0 0 1,15 * *
0 0 31 * *
0 0 29 2 *
0 0 28-31 * *
0 0 */10 * *
0 6 1-7 * *
0 0 1 1,4,7,10 *
0 0 1 */3 *
0 0 1 jan,jul *
0 0 15 mar-may *
0 12 25 DEC *
30 2 1 * mon
0 0 13 * fri
0 0 1,15 * tue-thu
0 0 */2 * mon
0 5 10-12 6 sun,wed
0 0 29 2 mon
* * 1 * 1
15 0 2 * * *
*/10 * * * * *
0,30 */15 9 * * mon
5-8 0 0 1 * *
1 2 3 4 5 6
0 0 2 ? * *
""".split("\n")[1:-1]

ZONES = ["UTC", "Europe/Berlin", "America/New_York", "Asia/Kathmandu"]
# Away from clock changes: there cron and systemd differ, and what systemd does is pinned below.
STARTS = [datetime.datetime(*start, tzinfo=datetime.timezone.utc) for start in [
    (2026, 1, 1, 0, 0, 0), (2026, 4, 30, 23, 59, 58), (2026, 6, 14, 12, 0, 1), (2027, 12, 31, 23, 59, 59), (2028, 2, 27, 6, 30, 0),
]]
TICKS = 4
# Zone, start, schedule, what systemd says in UTC: a time that a clock change leaves out is left out that day (`pgtend serve` runs at
# 03:00), one that comes twice is used once.
CLOCK_CHANGES = [
    ("Europe/Berlin", "2027-03-27 12:00:00", "*-*-* 02:30:00", ["2027-03-29 00:30:00"]),
    ("Europe/Berlin", "2027-10-30 12:00:00", "*-*-* 02:30:00", ["2027-10-31 00:30:00", "2027-11-01 01:30:00"]),
]


def main():
    command, folder = sys.argv[1], pathlib.Path(sys.argv[2])
    if command == "jobs":
        write_jobs(folder)
    else:
        compare(folder)


def write_jobs(folder):
    (folder / "jobs").mkdir()
    (folder / "config.toml").write_text('[databases.d]\nurl = "postgres://u@h/d"\n[stores.s]\npath = "store"\n')
    for name, (schedule, zone) in cases().items():
        (folder / "jobs" / f"{name}.toml").write_text(
            f'schedule = "{schedule}"\ntimezone = "{zone}"\ndatabase = "d"\n[backup]\nstore = "s"\n'
        )


def cases():
    return {f"case-{n:02}": (schedule, ZONES[n % len(ZONES)]) for n, schedule in enumerate(SCHEDULES)}


def compare(folder):
    passed, failed = 0, 0
    for name, (schedule, zone) in cases().items():
        text = (folder / "units" / f"pgtend-run-job@{name}.timer").read_text()
        expressions = re.findall(r"^OnCalendar=(.*)$", text, re.MULTILINE)
        for start in STARTS:
            wanted, found = by_croniter(schedule, zone, start), by_systemd(expressions, start)
            if wanted == found:
                passed += 1
            else:
                failed += 1
                print(f"`{schedule}` in {zone} after {start}: {expressions}\n  cron    {wanted}\n  systemd {found}", file=sys.stderr)
    for zone, start, expression, wanted in CLOCK_CHANGES:
        found = by_systemd([f"{expression} {zone}"], datetime.datetime.fromisoformat(start + "+00:00"))[: len(wanted)]
        if found == wanted:
            passed += 1
        else:
            failed += 1
            print(f"{expression} {zone} after {start}: {found}, not {wanted}", file=sys.stderr)
    print(f"{len(SCHEDULES)} schedules from {len(STARTS)} times, {TICKS} ticks each")
    print(f"{passed} passed, {failed} failed")
    sys.exit(1 if failed or not passed else 0)


def day_fields(fields):
    """Day of the month and day of the week; seconds may stand before the five fields."""
    words = fields.split()[-5:]
    return [words[2], words[4]] if len(words) == 5 else []


def by_croniter(schedule, zone, start):
    fields = schedule.replace("?", "*")
    ticks = croniter(fields, start.astimezone(zoneinfo.ZoneInfo(zone)), second_at_beginning=True, max_years_between_matches=12,
                     # A day field that starts with `*` is unrestricted in cron(8) (DOM_STAR, DOW_STAR): both must match.
                     day_or=not any(field.startswith("*") for field in day_fields(fields)))
    return [show(ticks.get_next(datetime.datetime)) for _ in range(TICKS)]


def by_systemd(expressions, start):
    """The first ticks of a timer with all of these: one that several name is one."""
    ticks = set()
    for expression in expressions:
        command = ["systemd-analyze", "calendar", f"--iterations={TICKS}", f"--base-time={start:%Y-%m-%d %H:%M:%S} UTC", expression]
        environment = {**os.environ, "TZ": "UTC", "LC_ALL": "C"}
        output = subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout
        ticks.update(re.findall(r"(?:Next elapse|Iter\. #\d+): \w{3} (\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) UTC", output))
    return sorted(ticks)[:TICKS]


def show(time):
    return time.astimezone(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M:%S")


if __name__ == "__main__":
    main()
