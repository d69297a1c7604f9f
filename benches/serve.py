#!/usr/bin/env python3
"""What `pgtend serve` costs while nothing is due: processor time and memory with 1,000 scheduled jobs.

Starts a PostgreSQL 18 of its own (scripts/postgres) and a `serve` on it, waits until it has settled, and reads /proc. Prints the
figures beside their targets. Needs `cargo build --release --bin pgtend`. Writes only below the temp folder, and removes it all.
"""

import argparse
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

from common import HERE, Failed, at_most, benchmark, clean_environment, print_targets, release, say

MIB = 1 << 20
READY_WITHIN = 60


class Bench:
    def __init__(self, folder, options):
        self.folder, self.options = folder, options
        self.environment = clean_environment()
        self.pgtend = Path(options.pgtend) if options.pgtend else release("pgtend")
        self.serve = None

    def start(self):
        self.postgres("install", "--wheel-only")
        url = self.postgres("start", self.folder / "server", "18").strip()
        port = free_port()
        text = json.dumps  # a JSON string is a TOML string
        (self.folder / "config.toml").write_text(
            f"[databases.bench]\nurl = {text(url)}\n[ledger]\ndatabase = \"bench\"\n[serve]\nlisten = \"127.0.0.1:{port}\"\n"
        )
        (self.folder / "jobs").mkdir()
        for number in range(self.options.jobs):
            # Spread over the nights of a month; none is due within the next hours.
            hour = (time.gmtime().tm_hour + 12) % 24
            schedule = f"{number % 60} {hour} {number % 28 + 1} * *"
            (self.folder / f"jobs/job-{number:04}.toml").write_text(
                f"schedule = {text(schedule)}\ndatabase = \"bench\"\n[sql]\nstatements = [\"SELECT 1\"]\n"
            )
        command = [self.pgtend, "--config", self.folder / "config.toml", "serve"]
        self.log = self.folder / "log"
        with open(self.log, "wb") as log:
            started = time.perf_counter()
            self.serve = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.environment)
        self.wait_until_ready(f"http://127.0.0.1:{port}/readyz")
        return time.perf_counter() - started

    def wait_until_ready(self, url):
        # No proxy from the environment: this is a conversation with this machine.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        deadline = time.monotonic() + READY_WITHIN
        while time.monotonic() < deadline and self.serve.poll() is None:
            try:
                with opener.open(url, timeout=5) as answer:
                    if answer.status == 200:
                        return
            except (OSError, urllib.error.HTTPError):
                time.sleep(0.02)
        raise Failed(f"serve did not become ready in {READY_WITHIN} s:\n{self.log.read_text()[-2000:]}")

    def measure(self):
        """Share of one processor, and resident bytes at the end."""
        time.sleep(self.options.settle)
        before, started = self.cpu_seconds(), time.perf_counter()
        time.sleep(self.options.seconds)
        used, wall = self.cpu_seconds() - before, time.perf_counter() - started
        return used / wall, self.resident_bytes()

    def cpu_seconds(self):
        stat = Path(f"/proc/{self.serve.pid}/stat").read_text()
        fields = stat[stat.rindex(")") + 2 :].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def resident_bytes(self):
        for line in Path(f"/proc/{self.serve.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        raise Failed("serve has no memory any more")

    def close(self):
        if self.serve and self.serve.poll() is None:
            self.serve.terminate()
            try:
                self.serve.wait(20)
            except subprocess.TimeoutExpired:
                self.serve.kill()
                self.serve.wait()
        self.postgres("destroy", self.folder / "server")

    def postgres(self, *arguments):
        command = [HERE / "scripts/postgres", *arguments]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=self.environment)
        if done.returncode != 0:
            raise Failed(f"postgres {' '.join(map(str, arguments))} failed with {done.returncode}")
        return done.stdout


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def targets(cpu, resident):
    yield "processor time while idle", *at_most(cpu * 100, 1, " %")
    yield "resident memory", *at_most(resident / MIB, 64, " MiB")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=1000, help="scheduled jobs (default 1000)")
    parser.add_argument("--seconds", type=float, default=20, help="how long to look (default 20)")
    parser.add_argument("--settle", type=float, default=10, help="how long to wait before (default 10)")
    parser.add_argument("--pgtend", help="another binary than target/release/pgtend")
    parser.add_argument("--strict", action="store_true", help="exit with 1 when a target is missed")
    options = parser.parse_args()

    def work(bench):
        ready = bench.start()
        say(f"ready after {ready:.2f} s; measuring ...")
        cpu, resident = bench.measure()
        print(f"`pgtend serve` with {options.jobs:,} scheduled jobs, none of them due for {options.seconds:g} s; ready after {ready:.2f} s\n")
        return 1 if print_targets(targets(cpu, resident)) and options.strict else 0

    return benchmark(lambda folder: Bench(folder, options), work)


if __name__ == "__main__":
    sys.exit(main())
