//! Checks of how tables are read and written: their indexes, statistics, policies and keys, in the order of the reports.

use super::super::document::Level::{Low, Medium};
use super::{Check, MOMENT, ONLINE, Query};

pub const ACCESS: &[Check] = &[
    Check {
        id: "sequential-scans",
        level: Medium,
        title: "A large table is read whole, again and again",
        categories: &["performance"],
        why: "Each such statement reads all of it from the disk or the cache, pushes out what others need, and takes longer with every row.",
        fix: "Find the statements, and index what they filter or join by.",
        lock: ONLINE,
        query: catalog!("sequential-scans"),
    },
    Check {
        id: "btree-on-array",
        level: Medium,
        title: "A btree index of arrays or documents",
        categories: &["performance"],
        why: "Every write maintains it, and no search for an element, a key or a word can use it.",
        fix: "Replace it by a gin index, or drop it.",
        lock: ONLINE,
        query: catalog!("btree-on-array"),
    },
    Check {
        id: "index-bloat",
        level: Medium,
        title: "An index is mostly empty space",
        categories: &["performance"],
        why: "Scans and the cache hold empty pages, and backups of the files copy them.",
        fix: "REINDEX CONCURRENTLY, or let a [reindex] job do it when it is due.",
        lock: ONLINE,
        query: catalog!("index-bloat"),
    },
    Check {
        id: "statistics-missing",
        level: Medium,
        title: "A partitioned table was never analyzed",
        categories: &["performance"],
        why: "The planner guesses how many rows a query over several partitions has, and chooses joins that take hours.",
        fix: "ANALYZE it, and again when its contents have changed: a [sql] job does it.",
        lock: ONLINE,
        query: catalog!("statistics-missing"),
    },
    Check {
        id: "policy-always-true",
        level: Medium,
        title: "A policy lets everybody change all rows",
        categories: &["security"],
        why: "Row security looks like a protection between users and is none: permissive policies add up, and one that is always true is enough.",
        fix: "Give the policy a condition, or name the roles that it is for.",
        lock: MOMENT,
        query: catalog!("policy-always-true"),
    },
    Check {
        id: "fk-partly-null",
        level: Low,
        title: "Rows that a foreign key does not check",
        categories: &["integrity"],
        why: "With one column of the key NULL the others may hold anything: joins lose such rows, and nothing says so.",
        fix: "Complete the rows or set all of their columns to NULL, and declare the key MATCH FULL.",
        lock: "SHARE ROW EXCLUSIVE on both tables, for a moment",
        query: catalog!("fk-partly-null"),
    },
];
