#!/usr/bin/env python3
"""What pgtend would take on a machine that is not here: 16 processors, 1 TB, a bucket at 1 GB/s. No measurement: arithmetic from stated assumptions.

Every assumption is an option. Rates are of one processor, in MB of the plain dump for each second; what more processors lose to one another is `--efficiency`.
"""

import argparse

ASSUMPTIONS = [
    # name, default, unit, what it is
    ("cores", 16, "", "processors, which the server and pgtend share"),
    ("terabytes", 1.0, "TB", "the plain dump"),
    ("bucket", 1000, "MB/s", "what the bucket takes and gives"),
    ("disk", 2000, "MB/s", "what the server's disks read and write"),
    ("efficiency", 0.8, "", "share of each further processor that is not lost"),
    ("ratio", 0.31, "", "object against plain dump"),
    ("heap", 0.9, "", "tables on disk against plain dump"),
    ("copy_out", 230, "MB/s", "COPY … TO of one session (pg_dump > /dev/null of the table above)"),
    ("gzip", 110, "MB/s", "gzip level 4, hashing and the scan of one thread"),
    ("zstd", 200, "MB/s", "zstd level 1, the same"),
    ("inflate", 500, "MB/s", "decoding, hashing and the scan of one thread"),
    ("copy_in", 60, "MB/s", "COPY … FROM of one session, with its WAL"),
    ("index", 90, "MB/s", "B-tree builds of one session, for the MB of the dump that they index"),
    ("largest", 0.3, "", "share of all index builds that is one index, which one process and two workers build"),
    ("gzip_6", 24, "MB/s", "pg_dump \\| gzip -6, which uses one processor for gzip on any machine"),
]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default, unit, what in ASSUMPTIONS:
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(default), default=default, help=f"{what} (default {default} {unit})".replace(" )", ")").replace("\\", ""))
    given = parser.parse_args()

    print("| Assumption | |")
    print("|---|---:|")
    for name, _, unit, what in ASSUMPTIONS:
        print(f"| {what} | {getattr(given, name):g} {unit} |".replace("  |", " |"))
    print()
    print("| What | takes | bound by |")
    print("|---|---:|---|")
    for what, stages in works(given):
        seconds, bound = max((seconds, name) for name, seconds in stages.items())
        print(f"| {what} | {in_words(seconds)} | {bound} |")


def in_words(seconds):
    if seconds < 100:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 3 * 3600 else f"{seconds / 3600:.1f} h"


def works(given):
    """Each work, and for each of its stages the seconds that this one alone would take. Stages overlap: the longest counts."""
    plain = given.terabytes * 1e6
    # The first processor counts whole.
    cores = 1 + (given.cores - 1) * given.efficiency
    object_ = plain * given.ratio / given.bucket
    heap = plain * given.heap / given.disk
    shared = lambda *rates: plain * sum(1 / rate for rate in rates) / cores
    yield "`pg_dump \\| gzip -6`", {"gzip, on one processor": plain / given.gzip_6}
    yield "dump, gzip", {"processors": shared(given.copy_out, given.gzip), "bucket": object_, "disks": heap}
    yield "dump, zstd 1", {"processors": shared(given.copy_out, given.zstd), "bucket": object_, "disks": heap}
    data = max(shared(given.inflate, given.copy_in), object_, heap)
    alone = plain * given.largest / given.index / (1 + 2 * given.efficiency)
    builds = max(shared(given.index), alone)
    # Indexes of a table may begin when its rows are in; here they come after all rows.
    yield "restore, rows", {"processors": shared(given.inflate, given.copy_in), "bucket": object_, "disks": heap}
    yield "restore, indexes", {"processors": shared(given.index), "the largest index": alone}
    yield "restore, both", {"rows, then indexes": data + builds}
    yield "a table of 50 MB out of it", {"bucket, COPY": 50 * given.ratio / given.bucket + 50 / given.copy_in}


if __name__ == "__main__":
    main()
