#!/usr/bin/env python3
"""Ten tables that `[vector_index]` may find, of 0 to 200,000 rows and of all types: nothing is swapped in that is slower and finds less.

Each is a database of its own on a PostgreSQL with pgvector (scripts/postgres), with an index and a setting as somebody left them, and a job that asks for a method, or for any. Before and after the run the
same 100 questions from outside are searched as an application would, by whatever the planner chooses: recall against an exact search, and the fastest of some rounds. The vectors are of this script's making, in
overlapping clusters, and each question is half of the way from one row to another. Prints Markdown and the targets; takes some three minutes on two processors. Needs `cargo build --release --bin pgtend`, or
`--pgtend`. Writes only below the temp folder, and removes it all.
"""

import argparse
import json
import math
import subprocess
import sys
from collections import namedtuple

from common import Failed, benchmark, print_targets, say
from vector_index import Bench as Server

K, TARGET, QUESTIONS, ROUNDS = 10, 0.95, 100, 9
# Slower and worse by less is what two measurements of the same index differ by.
SLOWER, WORSE = 1.15, 0.01

# `type` as SQL has it; `index`, of `v`, and `setting` as they are found; `job`: what the job says.
Table = namedtuple("Table", "title rows type dimensions index setting job")
TABLES = [
    Table("no rows, hnsw", 0, "vector", 64, "hnsw (v vector_cosine_ops)", "", 'method = "ivfflat"'),
    Table("one row, no index", 1, "vector", 64, "", "", 'method = "hnsw"'),
    Table("PSScript's size, hnsw", 717, "vector", 384, "hnsw (v vector_cosine_ops)", "", 'method = "ivfflat"\nexact_below = 0'),
    Table("no index", 3_000, "vector", 64, "", "", 'method = "auto"'),
    Table("halfvec, lists made empty", 5_000, "halfvec", 128, "empty", "", 'method = "auto"'),
    Table("bit, hnsw", 10_000, "bit", 256, "hnsw (v bit_hamming_ops)", "", 'metric = "hamming"\nmethod = "hnsw"\nm = 8'),
    Table("sparsevec, hnsw", 10_000, "sparsevec", 1_000, "hnsw (v sparsevec_cosine_ops)", "", 'method = "hnsw"\nm = 6\nef_construction = 16'),
    Table("tuned lists", 20_000, "vector", 128, "ivfflat (v vector_cosine_ops) WITH (lists = 200)", "ivfflat.probes = 8", 'method = "hnsw"\nm = 6\nef_construction = 16'),
    Table("dense hnsw", 20_000, "vector", 64, "hnsw (v vector_cosine_ops) WITH (m = 32, ef_construction = 200)", "", 'method = "ivfflat"\nlists = 20'),
    Table("large, lists", 200_000, "vector", 32, "ivfflat (v vector_cosine_ops) WITH (lists = 447)", "ivfflat.probes = 10", 'method = "auto"\nbudget = { time = "40s" }'),
]


def row_sql(table):
    """SQL of a value of row i, in one of 50 clusters, as text."""
    cluster = "floor(50 * power((i * 0.6180339887) % 1, 2))"
    number = f"sin({cluster} * d * 1.7) * 0.5 + (random() - 0.5) * 1.4"
    each = f"generate_series(1, {table.dimensions}) d"
    if table.type == "bit":
        return f"(SELECT string_agg(CASE WHEN {number} > 0 THEN '1' ELSE '0' END, '') FROM {each})"
    if table.type == "sparsevec":
        return f"(SELECT '{{' || string_agg(d || ':' || round(({number})::numeric, 4), ',') || '}}/{table.dimensions}' FROM {each} WHERE (d * 7 + {cluster}) % 41 < 1)"
    return f"(SELECT '[' || string_agg(round(({number})::numeric, 4)::text, ',') || ']' FROM {each})"


def operator(table):
    return "<~>" if table.type == "bit" else "<=>"


class Bench(Server):
    def fill(self, number, table):
        name = f"tables{number}"
        url = self.server.removesuffix("/postgres") + "/" + name
        self.sql(self.server, f"CREATE DATABASE {name}")
        column = f"{table.type}({table.dimensions})"
        empty = f"CREATE INDEX items_v_idx ON items USING ivfflat (v {table.type}_cosine_ops) WITH (lists = 100);" if table.index == "empty" else ""
        index = f"CREATE INDEX items_v_idx ON items USING {table.index};" if table.index and not empty else ""
        # Halfway from one row to another; bits and sparse values are taken from two rows, each in its half of the dimensions.
        half = table.dimensions // 2
        between = {
            "bit": f"(substring(a.v FROM 1 FOR {half}) || substring(b.v FROM {half + 1}))::bit({table.dimensions})",
            "sparsevec": f"(((a.v::vector) + (b.v::vector)))::{column}",
        }.get(table.type, "a.v + b.v")
        setting = f"ALTER DATABASE {name} SET {table.setting};" if table.setting else ""
        self.sql(
            url,
            f"""SET client_min_messages = error; SET maintenance_work_mem = '1GB'; CREATE EXTENSION vector; CREATE TABLE items (id int, v {column}); {empty}
            SELECT setseed(0.42); INSERT INTO items SELECT i, {row_sql(table)}::{column} FROM generate_series(1, {table.rows}) i; {index}
            CREATE TABLE questions AS SELECT a.id, {between} AS v FROM items a JOIN items b ON b.id = 1 + (a.id * 7919) % {max(table.rows, 1)} AND b.id <> a.id ORDER BY hashint4(a.id) LIMIT {QUESTIONS};
            VACUUM ANALYZE; SET enable_indexscan = off; CREATE TABLE truth AS SELECT q.id, (SELECT max(d) FROM (SELECT f.v {operator(table)} q.v AS d FROM items f ORDER BY 1 LIMIT {K}) n) AS farthest FROM questions q; {setting}""",
        )
        return url

    def searched(self, url, table):
        """Recall, and milliseconds of a search, as an application finds it. A row at the distance of the last neighbour is one."""
        search = f"SELECT f.v {operator(table)} q.v AS d FROM items f ORDER BY f.v {operator(table)} q.v LIMIT {K}"
        recall = self.sql(
            url,
            f"""SELECT '[1]'::vector \\g /dev/null
            SELECT coalesce(avg(hits), 1) FROM (SELECT (SELECT count(*) FROM ({search}) n WHERE n.d <= t.farthest + 1e-6) / least({K}, {max(table.rows, 1)})::float8 AS hits FROM questions q JOIN truth t USING (id)) each""",
        )
        best = math.inf
        for _ in range(ROUNDS):
            plan = self.sql(url, f"SELECT '[1]'::vector \\g /dev/null\nEXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) SELECT (SELECT count(*) FROM ({search}) n) FROM questions q")
            best = min(best, json.loads(plan[plan.index("[") :])[0]["Execution Time"] / QUESTIONS)
        return float(recall), best

    def job(self, number, url, table):
        folder = self.folder / f"tables{number}"
        (folder / "jobs").mkdir(parents=True)
        (folder / "config.toml").write_text(f"[databases.bench]\nurl = {json.dumps(url)}\n[tools]\nbin_dir = {json.dumps(str(self.bin))}\n")
        (folder / "jobs/tend.toml").write_text(
            f'database = "bench"\n[vector_index]\ntable = "items"\ncolumn = "v"\nmaintenance_work_mem = "1GiB"\nrecall = {{ target = {TARGET}, k = {K}, queries = 200 }}\napply_setting = "database"\n{table.job}\n'
        )
        done = subprocess.run([self.pgtend, "--config", folder / "config.toml", "--log", "error", "--json", "run-job", "tend"], stdout=subprocess.PIPE, text=True, env=self.environment)
        run = json.loads(done.stdout)["runs"][0]
        if not run.get("report"):
            return False, f"{run['outcome']}: {run['error']}"
        told = run["report"]["facts"]["tables"][0]
        did = "built and swapped in" if told["swapped"] else "built and dropped" if told["built"] else told["decision"]["do"]
        return bool(told["swapped"]), f"{run['outcome']}, {did}" + (f", {told['setting_applied'].split(';')[0]}" if told["setting_applied"] else "")

    def measure(self, number, table):
        say(f"{table.title}: {table.rows:,} rows ...")
        url = self.fill(number, table)
        before = self.searched(url, table)
        swapped, did = self.job(number, url, table)
        # Without a change, another measurement would only be another one.
        after = self.searched(url, table) if swapped or "ALTER" in did else before
        return before, after, did


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", choices=["16", "18"], default="18", help="major version; default 18")
    parser.add_argument("--most-rows", type=int, default=200_000, help="leave out larger tables: to try, not to measure")
    parser.add_argument("--strict", action="store_true", help="exit with 1 when a target is missed")
    parser.add_argument("--pgtend", help="another binary than target/release/pgtend")
    options = parser.parse_args()

    def work(bench):
        bench.start()
        print("| Table | rows | job | recall, ms before | recall, ms after | the run |\n|---|---:|---|---:|---:|---|", flush=True)
        worse = []
        for number, table in enumerate(TABLES):
            if table.rows > options.most_rows:
                continue
            before, after, did = bench.measure(number, table)
            cells = [f"{recall:.3f}, {ms:.2f}" for recall, ms in (before, after)]
            asked = table.job.replace("\n", ", ").replace('"', "")
            print(f"| {table.title} | {table.rows:,} | {asked} | {cells[0]} | {cells[1]} | {did[:160].replace('|', '/')} |", flush=True)
            if after[1] > SLOWER * before[1] and after[0] < before[0] - WORSE:
                worse.append(table.title)
        print()
        missed = print_targets([("nothing is swapped in that takes longer and finds less", not worse, ", ".join(worse) or "none of them")])
        return 1 if missed and options.strict else 0

    return benchmark(lambda folder: Bench(folder, options), work)


if __name__ == "__main__":
    sys.exit(main())
