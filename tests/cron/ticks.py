#!/usr/bin/env python3
"""Writes cronsim.ticks: what cronsim (PyPI, the rules of Debian's cron) says around every clock change of 2026 in ten zones.

    pip install cronsim tzdata && tests/cron/ticks.py > tests/cron/cronsim.ticks

A line: expression|zone|start|end|ticks, times in minutes since 1970. src/base/schedule/cron_tests.rs compares them with ours.
"""

from datetime import datetime, timedelta, timezone
from zoneinfo import ZoneInfo

from cronsim import CronSim

ZONES = [
    "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Africa/Cairo", "America/Havana",
    "Asia/Beirut", "Pacific/Chatham", "America/Santiago", "Antarctica/Troll", "Africa/Casablanca",
]
EXPRESSIONS = [
    "0 0 * * *", "30 0 * * *", "0 1 * * *", "30 1 * * *", "0 2 * * *", "30 2 * * *", "15,45 2 * * *", "30 2,3 * * *", "0 3 * * *",
    "0 0,12 * * *", "59 23 * * *", "5 0-4 * * *", "0 1-23/2 * * *", "30 23,0,1,2 * * *", "45 2 * * sun",
    "0 * * * *", "*/15 * * * *", "*/30 2 * * *", "0 */2 * * *", "20 */3 * * *", "*/20 1-3 * * *",
    "0 2 1-7 * */7", "0 2 */2 * sun", "0 2 */2 * */2", "30 1 1 * sun", "0 0 */100,1-7,22-31 * SUN",
]
AROUND = timedelta(hours=40)


def changes(zone, year):
    at, end = datetime(year, 1, 1, tzinfo=timezone.utc), datetime(year + 1, 1, 1, tzinfo=timezone.utc)
    before = at.astimezone(zone).utcoffset()
    while at < end:
        at += timedelta(hours=1)
        now = at.astimezone(zone).utcoffset()
        if now != before:
            yield at
        before = now


def minutes(at):
    return int(at.timestamp()) // 60


for name in ZONES:
    zone = ZoneInfo(name)
    for change in changes(zone, 2026):
        start, end = change - AROUND, change + AROUND
        for expression in EXPRESSIONS:
            ticks = []
            for tick in CronSim(expression, start.astimezone(zone)):
                if tick.timestamp() > end.timestamp():
                    break
                # Two that the gap moves to the same minute are one.
                if not ticks or ticks[-1] != minutes(tick):
                    ticks.append(minutes(tick))
            print("|".join([expression, name, str(minutes(start)), str(minutes(end)), " ".join(map(str, ticks))]))
