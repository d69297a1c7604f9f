#!/usr/bin/env python3
"""What the audit finds: precision and recall of each check on planted faults, and what it says of public schemas.

Starts a PostgreSQL 18 of its own (scripts/postgres). For each case of audit_cases.sql it makes a database with the fault and one with its healthy twin, audits both, and
prints a Markdown table: how many of the planted faults were found, and how many of the findings were planted (about two minutes).
`--corpus` loads public schemas instead (audit_corpus.py), and prints findings, groups and time of each. `--tables N` makes a database of N tables and times its checks. Needs `cargo build --release --bin pgtend`.
"""

import argparse
import json
import subprocess
import sys
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from audit_corpus import CORPUS, schema
from beside import text
from common import HERE, Failed, at_most, benchmark, built, clean_environment, end, postgres_18_with_pgvector, print_targets, say

LEVELS = ("critical", "high", "medium", "low")
SECONDS = 15  # for a schema of up to 5,000 tables
SECONDS_20_000 = 60


@dataclass
class Database:
    """A database to plant: SQL, and what may be found in it."""

    sql: str = ""
    undo: str = ""
    session: str = ""
    analyze: bool = True
    planted: set = field(default_factory=set)
    also: set = field(default_factory=set)


@dataclass
class Case:
    check: str
    keys: str = ""
    fault: Database = field(default_factory=Database)
    twin: Database = field(default_factory=Database)


def cases(path):
    """Reads the cases from their marks."""
    found, database, part = [], None, "sql"
    for line in path.read_text().splitlines(keepends=True):
        if not line.startswith("--!"):
            if database:
                setattr(database, part, getattr(database, part) + line)
            continue
        word, _, rest = line[3:].strip().partition(" ")
        if word == "healthy":
            case = Case(check="a healthy database", twin=Database(sql="SELECT 1;\n"))
            database, part = case.fault, "sql"
            found.append(case)
        elif word.endswith(":"):
            case = Case(check=word[:-1])
            database, part = case.fault, "sql"
            database.planted = {f"{case.check}:{name.strip()}" for name in rest.split("|")}
            found.append(case)
        elif word == "twin":
            database, part = case.twin, "sql"
        elif word == "undo":
            part = "undo"
        elif word == "keys":
            case.keys += rest + "\n"
        elif word == "unanalyzed":
            database.analyze = False
        elif word == "session":
            database.session = rest
        elif word == "also":
            database.also.add(rest)
        else:
            raise Failed(f"{path.name}: what is {line.strip()}?")
    return found


class Bench:
    def __init__(self, folder, options):
        self.folder, self.options = folder, options
        self.environment = clean_environment() | {"XDG_STATE_HOME": str(folder / "state")}
        self.pgtend = built("pgtend", options.debug)
        self.started = False

    def start(self):
        self.postgres("install", "--wheel-only")
        self.bin = postgres_18_with_pgvector(self.postgres("list"))
        self.started = True
        self.server = self.postgres("start", self.folder / "server", "18").strip()
        self.sql("postgres", "CREATE ROLE app LOGIN; CREATE ROLE reader;")
        # What some faults need; each is off by itself.
        for setting in ("max_prepared_transactions = 5", "archive_mode = on", "archive_command = 'true'"):
            self.sql("postgres", f"ALTER SYSTEM SET {setting}")
        self.restart()

    def restart(self):
        self.postgres("stop", self.folder / "server")
        self.server = self.postgres("start", self.folder / "server", "18").strip()

    def close(self):
        if self.started:
            self.postgres("destroy", self.folder / "server")

    def postgres(self, *arguments):
        return self.call(HERE / "scripts/postgres", *arguments)

    def call(self, *command, stdin=None):
        done = subprocess.run(command, input=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=self.environment)
        if done.returncode != 0:
            raise Failed(f"{Path(command[0]).name} {' '.join(map(str, command[1:3]))} failed with {done.returncode}: {done.stderr[-2000:]}")
        return done.stdout

    def url(self, database):
        return self.server.removesuffix("/postgres") + f"/{database}"

    def sql(self, database, script, stop=True):
        return self.call(self.bin / "psql", "-X", "-q", "-A", "-t", "-v", f"ON_ERROR_STOP={int(stop)}", "-d", self.url(database), "-f", "-", stdin=script)

    def make(self, name):
        self.sql("postgres", f"DROP DATABASE IF EXISTS {name} WITH (FORCE);\nCREATE DATABASE {name} TEMPLATE template0 ENCODING 'UTF8';")

    def audit(self, name, keys=""):
        """The audit of a database by an [audit] job with these keys, and how long it took."""
        jobs = self.folder / "jobs"
        jobs.mkdir(exist_ok=True)
        (self.folder / "config.toml").write_text(f"[databases.{name}]\nurl = {text(self.url(name))}\n")
        (jobs / "audit.toml").write_text(f'database = "{name}"\n[audit]\n{keys}')
        started = time.perf_counter()
        said = self.call(self.pgtend, "--config", self.folder / "config.toml", "--json", "audit", "--database", name, "--fail-on", "never")
        return json.loads(said), time.perf_counter() - started

    # ---- planted faults -----------------------------------------------------------------------------------------------

    def look(self, case, database):
        """Makes the database, and returns what was found in it and which checks failed or did not know."""
        name = "planted"
        self.make(name)
        session = None
        try:
            if database.session:
                session = subprocess.Popen([self.bin / "psql", "-X", "-q", "-d", self.url(name)], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env=self.environment | {"PGAPPNAME": "web 7"})
                session.stdin.write(database.session + "\n")
                session.stdin.flush()
            self.sql(name, "SET client_min_messages = error;\n" + database.sql + "\nRESET ALL;\n" + ("ANALYZE;" if database.analyze else ""))
            said, _ = self.audit(name, case.keys)
        finally:
            if session:
                end(session)
            if database.undo:
                self.sql(name, database.undo, stop=False)
        return {finding["key"]: finding for finding in said["audit"]["findings"]}, said["audit"]["checks"]


@dataclass
class Score:
    planted: int = 0
    found: int = 0
    false: list = field(default_factory=list)
    missed: list = field(default_factory=list)


def planted(bench):
    """The score of each check: what was found of what was planted, and what was found besides, in all databases."""
    scores, failed = defaultdict(Score), []
    listed = cases(Path(__file__).with_name("audit_cases.sql"))
    for case in [case for case in listed if not bench.options.only or case.check in bench.options.only]:
        say(case.check)
        for database in (case.fault, case.twin):
            found, checks = bench.look(case, database)
            failed += [f"{outcome['check']}: {outcome['reasons']}" for outcome in checks if outcome["state"] == "failed"]
            if database.planted:
                score = scores[case.check]
                score.planted += len(database.planted)
                score.found += len(database.planted & found.keys())
                score.missed += sorted(database.planted - found.keys())
            for key in found.keys() - database.planted - database.also:
                where = f"{case.check}{'' if database is case.fault else ', the twin'}"
                scores[found[key]["check"]].false.append(f"{key} (in {where})")
    return scores, failed


def in_percent(part, whole):
    return f"{100 * part / whole:.0f} %" if whole else "–"


def show_planted(scores):
    print("| Check | Planted | Found | Recall | Found besides | Precision |\n|---|---:|---:|---:|---:|---:|")
    for check, score in sorted(scores.items()):
        print(f"| `{check}` | {score.planted} | {score.found} | {in_percent(score.found, score.planted)} | {len(score.false)} | {in_percent(score.found, score.found + len(score.false))} |")
    total = Score(sum(s.planted for s in scores.values()), sum(s.found for s in scores.values()))
    besides = [line for score in scores.values() for line in score.false]
    print(f"| all | {total.planted} | {total.found} | {in_percent(total.found, total.planted)} | {len(besides)} | {in_percent(total.found, total.found + len(besides))} |\n")
    for line in sorted(line for score in scores.values() for line in score.missed):
        print(f"- not found: {line}")
    for line in sorted(besides):
        print(f"- found besides: {line}")


def run_planted(bench):
    scores, failed = planted(bench)
    show_planted(scores)
    planted_, found = sum(s.planted for s in scores.values()), sum(s.found for s in scores.values())
    besides = sum(len(s.false) for s in scores.values())
    return [
        ("every planted fault is found", found == planted_, f"{found} of {planted_}"),
        ("nothing else is found", besides == 0, f"{besides} findings"),
        ("no check fails", not failed, "; ".join(failed) or "none"),
    ]


# ---- public schemas ---------------------------------------------------------------------------------------------------


def run_corpus(bench):
    """Loads each schema, audits it, and prints findings and groups; and for each check how many it found, and its time."""
    rows, by_check, seconds = [], defaultdict(Counter), Counter()
    for source in CORPUS:
        script = schema(source, bench.options.clones or bench.folder / "clones")
        if script is None:
            say(f"{source.name} is left out: its repository cannot be had")
            continue
        bench.make("public_schema")
        # A few statements of each need roles, extensions or procedures that are not here.
        bench.sql("public_schema", "SET client_min_messages = fatal;\n" + script, stop=False)
        bench.sql("public_schema", "ANALYZE;")
        tables = int(bench.sql("public_schema", "SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace WHERE relkind IN ('r', 'p') AND nspname !~ '^(pg_|information_schema)'"))
        said, took = bench.audit("public_schema", 'profile = "strict"\n' if bench.options.strict_profile else "")
        counts, groups = Counter(finding["level"] for finding in said["audit"]["findings"]), len(said["groups"])
        rows.append((source, tables, counts, groups, took))
        say(f"{source.name}: {tables} tables, {sum(counts.values())} findings, {groups} groups, {took:.1f} s")
        for outcome in said["audit"]["checks"]:
            seconds[outcome["check"]] += outcome["elapsed_seconds"]
        for finding in said["audit"]["findings"]:
            by_check[finding["check"]][finding["level"]] += 1
            if bench.options.list and finding["level"] != "low":
                print(f"{source.name}: {finding['level']} {finding['key']}: {finding['issue']}")
    print("| Schema | Tables | Critical | High | Medium | Low | Groups | s |\n|---|---:|---:|---:|---:|---:|---:|---:|")
    for source, tables, counts, groups, took in rows:
        print(f"| [{source.name}](https://github.com/{source.repository}) | {tables} | {' | '.join(str(counts[level]) for level in LEVELS)} | {groups} | {took:.1f} |")
    print("\n| Check | Critical | High | Medium | Low | s |\n|---|---:|---:|---:|---:|---:|")
    for check, counts in sorted(by_check.items(), key=lambda entry: -sum(entry[1].values())):
        print(f"| `{check}` | {' | '.join(str(counts[level]) for level in LEVELS)} | {seconds[check]:.2f} |")
    print()
    groups = [groups for _, _, _, groups, _ in rows]
    return [
        ("schemas that could be loaded", len(rows) >= 10, f"{len(rows)} (at least 10)"),
        ("groups of a schema, in the mean", *at_most(sum(groups) / max(len(groups), 1), 25, "", 1)),
        ("the slowest audit", *at_most(max((took for *_, took in rows), default=0), SECONDS, " s", 1)),
    ]


# ---- very many tables -------------------------------------------------------------------------------------------------

# Ten columns, a key and a reference, three indexes; a tenth is in pairs of partitions. The rows are where an application has them: in few tables.
TABLES = """
DO $$ BEGIN
    FOR i IN 1..{tables} LOOP
        EXECUTE format('CREATE TABLE t%1$s (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, other_id bigint REFERENCES t%2$s, name varchar(200), body text, file_hash text, total numeric, is_public bool, properties jsonb, created_at timestamptz, updated_at timestamptz)', i, greatest(1, i - 1));
        EXECUTE format('CREATE INDEX ON t%s (name)', i);
        EXECUTE format('CREATE INDEX ON t%s (created_at)', i);
        IF i % 50 = 0 THEN EXECUTE format('INSERT INTO t%s (name, body, is_public) SELECT ''n'' || g, repeat(''x'', 300), g %% 20 = 0 FROM generate_series(1, 2000) g', i); END IF;
        IF i % 100 = 0 THEN COMMIT; END IF;
    END LOOP;
    FOR i IN 1..{parted} LOOP
        EXECUTE format('CREATE TABLE p%s (id bigint, at timestamptz NOT NULL, PRIMARY KEY (id, at)) PARTITION BY RANGE (at)', i);
        EXECUTE format('CREATE TABLE p%1$s_1 PARTITION OF p%1$s FOR VALUES FROM (''2026-01-01'') TO (''2027-01-01'')', i);
        EXECUTE format('CREATE TABLE p%1$s_2 PARTITION OF p%1$s FOR VALUES FROM (''2027-01-01'') TO (''2028-01-01'')', i);
        IF i % 50 = 0 THEN COMMIT; END IF;
    END LOOP;
END $$;
ANALYZE;
"""


def run_tables(bench):
    """Audits a database of so many tables; prints the checks that take longest."""
    tables = bench.options.tables
    parted = tables // 30
    say(f"making {tables} tables")
    bench.make("large_schema")
    bench.sql("large_schema", TABLES.format(tables=tables - 3 * parted, parted=parted))
    took, said = min((bench.audit("large_schema")[::-1] for _ in range(3)), key=lambda run: run[0])
    checks = sorted(said["audit"]["checks"], key=lambda outcome: -outcome["elapsed_seconds"])
    print(f"{tables} tables: {took:.1f} s, the best of three\n\n| Check | s | |\n|---|---:|---|")
    for outcome in checks[:12]:
        print(f"| `{outcome['check']}` | {outcome['elapsed_seconds']:.2f} | {'; '.join(outcome.get('reasons', []))[:120]} |")
    late = [outcome["check"] for outcome in checks if any("did not suffice" in reason or "takes longer" in reason for reason in outcome.get("reasons", []))]
    failed = [outcome["check"] for outcome in checks if outcome["state"] == "failed"]
    return [
        (f"an audit of {tables} tables", *at_most(took, SECONDS if tables <= 5000 else SECONDS_20_000 * max(1, tables / 20000), " s", 1)),
        ("every check has time enough", not late, ", ".join(late) or "all"),
        ("no check fails", not failed, ", ".join(failed) or "none"),
    ]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", metavar="CHECK", help="only the cases of this check; may be repeated")
    parser.add_argument("--corpus", action="store_true", help="public schemas, from GitHub")
    parser.add_argument("--tables", type=int, metavar="N", help="a database of so many tables: how long an audit takes")
    parser.add_argument("--clones", type=Path, metavar="FOLDER", help="with --corpus: keep the clones here, and use those that are there (OWNER+NAME)")
    parser.add_argument("--strict-profile", action="store_true", help='with --corpus: profile = "strict"')
    parser.add_argument("--list", action="store_true", help="with --corpus: print each finding above low, to be judged")
    parser.add_argument("--strict", action="store_true", help="exit with 1 when a target is missed")
    parser.add_argument("--debug", action="store_true", help="the debug build: findings are the same, times are not")
    options = parser.parse_args()

    def work(bench):
        bench.start()
        run = run_corpus if options.corpus else run_tables if options.tables else run_planted
        missed = print_targets(run(bench))
        return 1 if missed and options.strict else 0

    return benchmark(lambda folder: Bench(folder, options), work)


if __name__ == "__main__":
    sys.exit(main())
