"""What the benchmarks share: where pgtend is, an environment of their own, a folder that is gone afterwards whatever happened."""

import math
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent


class Failed(Exception):
    pass


def say(text):
    print(f"bench: {text}", file=sys.stderr, flush=True)


def clean_environment():
    """Without the operator's own connection, credentials and pgtend settings."""
    ours = ("PGTEND_POSTGRES_CACHE",)
    return {name: value for name, value in os.environ.items() if name in ours or not name.startswith(("PG", "AWS_", "OTEL_"))}


def postgres_18_with_pgvector(listed):
    """The folder of its programs, of what `scripts/postgres list` prints."""
    found = [line.split() for line in listed.splitlines()]
    folder = next((Path(folder) for major, folder, vector in found if major == "18" and vector == "yes"), None)
    if folder is None:
        raise Failed("no PostgreSQL 18 with pgvector: scripts/postgres list")
    return folder


def release(program):
    """What `cargo build --release` made."""
    return built(program, debug=False)


def built(program, debug):
    """What cargo made, for release or for debugging."""
    path = Path(os.environ.get("CARGO_TARGET_DIR", HERE / "target")) / ("debug" if debug else "release") / program
    if not path.exists():
        profile = "" if debug else "--release "
        raise Failed(f"no {path}: cargo build {profile}{'--example' if 'examples' in path.parts else '--bin'} {path.name}")
    return path


def benchmark(make, work):
    """Calls work(make(folder)), closes what was made, and removes the folder. Returns an exit code: of work, or of a failure."""

    def stop(*_):
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)
    # Sockets have short paths; root's servers run as nobody, who has to get in.
    folder = Path(tempfile.mkdtemp(prefix="pgtend-bench-", dir="/tmp" if os.geteuid() == 0 else None))
    folder.chmod(0o755)
    bench = None
    try:
        bench = make(folder)
        return work(bench)
    except Failed as failure:
        say(failure)
        return 1
    except KeyboardInterrupt:
        say("interrupted")
        return 130
    finally:
        # Cleaning up is not to be interrupted halfway.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        try:
            if bench:
                bench.close()
        except Failed as failure:
            say(failure)
        shutil.rmtree(folder, ignore_errors=True)


def end(process, ask=None):
    (ask or process.terminate)()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def find_facts(report):
    """The facts of the one database, wherever the output has them."""
    if isinstance(report, dict):
        if "elapsed_seconds" in report and "batches" in report:
            return report
        report = list(report.values())
    for value in report if isinstance(report, list) else []:
        if (found := find_facts(value)) is not None:
            return found
    return None


def at_most(measured, limit, unit="×", digits=2):
    """Whether a target is met, and the figures: for print_targets."""
    return measured <= limit, f"{measured:.{digits}f}{unit} (at most {limit:.3g}{unit})"


def print_targets(targets):
    """Prints each target (what, whether it is met, the figures), and returns how many are missed."""
    missed = 0
    for what, met, figures in targets:
        missed += not met
        print(f"- {'PASS' if met else 'FAIL'} {what}: {figures}", flush=True)
    return missed


def percentile(values, share):
    """The nearest rank."""
    return sorted(values)[math.ceil(share * len(values)) - 1]
