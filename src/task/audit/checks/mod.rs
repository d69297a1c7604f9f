//! All checks, in the order of the reports. A check is an entry here and a query in `checks/`: docs/audit.md is tested against it.
//!
//! A query selects from the views of `prelude.sql` and returns one row for each finding: `object`, `identity` (what the finding keeps from
//! one audit to the next: names, no sizes), `issue`, `evidence`, and `fix` (SQL), `job` (a task's table) or both. `lock` and `level`
//! override those of the check. `unknown` says why this object cannot be judged. `probe` is a query into the table itself, and names
//! no other one than `reads` (quoted), whose oid is `reads_oid`: without a row there is no finding.

use super::document::Level::{self, Critical, High, Low, Medium};

#[derive(Debug)]
pub struct Check {
    pub id: &'static str,
    pub level: Level,
    pub title: &'static str,
    pub categories: &'static [&'static str],
    /// The consequence of leaving it as it is.
    pub why: &'static str,
    /// The remedy in words; each finding has its own statements.
    pub fix: &'static str,
    /// The lock that the fix takes, and for how long.
    pub lock: &'static str,
    pub query: Query,
}

#[derive(Debug)]
pub enum Query {
    Catalog(&'static str),
    /// The same; the word STATEMENTS stands for the view pg_stat_statements.
    Statements(&'static str),
    /// Loads `schema_file` and compares it.
    Drift,
    /// Compares the sets in the stores and the runs in the ledger.
    Backup,
    /// Compares pg_stat_statements with the last audit.
    TopQueries,
}

pub fn find(id: &str) -> Option<&'static Check> {
    CHECKS.iter().find(|check| check.id == id)
}

macro_rules! catalog {
    ($id:literal) => {
        Query::Catalog(include_str!(concat!("", $id, ".sql")))
    };
}

const ONLINE: &str = "SHARE UPDATE EXCLUSIVE: reads and writes go on";
const MOMENT: &str = "ACCESS EXCLUSIVE, for a moment";
const REWRITE: &str = "ACCESS EXCLUSIVE while the table is rewritten";
const NONE: &str = "none";

pub static CHECKS: &[Check] = &[
    Check {
        id: "no-verified-backup",
        level: Critical,
        title: "No recent verified backup",
        categories: &["operations"],
        why: "A backup that was never restored or read back may be useless. A lost disk, a wrong DELETE or a bad migration costs all data since the last good set.",
        fix: "Run the backup job, find out why it fails, and let it verify its sets.",
        lock: "ACCESS SHARE while pg_dump reads",
        query: Query::Backup,
    },
    Check {
        id: "wraparound",
        level: High,
        title: "Transaction or multixact age beyond autovacuum's limit",
        categories: &["operations", "capacity"],
        why: "Something keeps VACUUM from freezing old rows. At two billion transactions the server refuses every write until hours of manual vacuuming.",
        fix: "End the old transactions, prepared transactions and slots that hold it back, then VACUUM (FREEZE).",
        lock: ONLINE,
        query: catalog!("wraparound"),
    },
    Check {
        id: "sequence-near-end",
        level: High,
        title: "A sequence is nearly exhausted",
        categories: &["capacity"],
        why: "After the last number every INSERT fails, all at once and without warning.",
        fix: "Change the column and the sequence to bigint.",
        lock: REWRITE,
        query: catalog!("sequence-near-end"),
    },
    Check {
        id: "partition-runway",
        level: High,
        title: "Partitions run out soon",
        categories: &["capacity", "partitions"],
        why: "Rows beyond the last partition are rejected, or go to the default partition, from which they are hard to move.",
        fix: "Create partitions ahead of time with a [partition] job.",
        lock: "ACCESS EXCLUSIVE on the table, and SHARE ROW EXCLUSIVE on the tables that it references, for a moment; the job needs only SHARE UPDATE EXCLUSIVE on the table",
        query: catalog!("partition-runway"),
    },
    Check {
        id: "connection-saturation",
        level: High,
        title: "Connections are nearly used up",
        categories: &["capacity"],
        why: "The next deployment, retry storm or cron job gets \"too many clients\", and so does whoever investigates.",
        fix: "Pool connections; raise max_connections at the next restart.",
        lock: "none; takes effect at a restart",
        query: catalog!("connection-saturation"),
    },
    Check {
        id: "pool-sizes",
        level: Low,
        title: "A connection pool is larger than its load",
        categories: &["capacity"],
        why: "Each idle session costs memory and snapshot time, and uses up a connection that others may need.",
        fix: "Shrink the pool, or let the server end idle sessions.",
        lock: NONE,
        query: catalog!("pool-sizes"),
    },
    Check {
        id: "slot-holds-wal",
        level: High,
        title: "A replication slot holds WAL",
        categories: &["operations", "capacity"],
        why: "WAL that a slot waits for is never removed: a forgotten slot fills the disk, and the server stops.",
        fix: "Restart its consumer, or drop the slot.",
        lock: NONE,
        query: catalog!("slot-holds-wal"),
    },
    Check {
        id: "prepared-transaction-old",
        level: High,
        title: "A prepared transaction was left open",
        categories: &["operations"],
        why: "It has no session to terminate: its locks, and the old rows that VACUUM must keep for it, survive every restart. Index builds and lock requests wait for it for ever, and in the end the server refuses writes.",
        fix: "Ask the transaction manager that prepared it whether it was committed, then COMMIT PREPARED or ROLLBACK PREPARED.",
        lock: "none; releases those that the transaction holds",
        query: catalog!("prepared-transaction-old"),
    },
    Check {
        id: "extension-cve",
        level: Critical,
        title: "An extension with a known vulnerability",
        categories: &["security"],
        why: "Whoever may run SQL may be able to read or write the server's memory.",
        fix: "Install the newer package, then ALTER EXTENSION … UPDATE.",
        lock: "ACCESS EXCLUSIVE on what the extension's update touches, for a moment",
        query: catalog!("extension-cve"),
    },
    Check {
        id: "superuser-application",
        level: High,
        title: "An application connects as a superuser",
        categories: &["security"],
        why: "One SQL injection reads and writes every database, and runs programs on the host.",
        fix: "Give the application its own role with only the privileges that it needs.",
        lock: NONE,
        query: catalog!("superuser-application"),
    },
    Check {
        id: "security-definer-search-path",
        level: High,
        title: "A SECURITY DEFINER function without search_path",
        categories: &["security"],
        why: "A caller who can create an object whose name the function uses without a schema runs code with the owner's rights.",
        fix: "Set a search_path for the function.",
        lock: "none on tables",
        query: catalog!("security-definer-search-path"),
    },
    Check {
        id: "public-can-write",
        level: High,
        title: "Everybody may write to a table",
        categories: &["security"],
        why: "Any role that can connect can change the data, including a read-only reporting role.",
        fix: "REVOKE it from PUBLIC, and GRANT it to the roles that need it.",
        lock: "SHARE ROW EXCLUSIVE at most, for a moment",
        query: catalog!("public-can-write"),
    },
    Check {
        id: "password-not-scram",
        level: High,
        title: "A password is not stored as SCRAM",
        categories: &["security"],
        why: "An MD5 hash is enough to log in without the password, and billions of guesses a second can be tried against it.",
        fix: "Set password_encryption = 'scram-sha-256' and set each such password again.",
        lock: NONE,
        query: catalog!("password-not-scram"),
    },
    Check {
        id: "schema-drift",
        level: High,
        title: "The database differs from its schema file",
        categories: &["schema"],
        why: "The next migration fails, or a server built from the file lacks what the application needs.",
        fix: "Apply the missing changes, or add them to the file.",
        lock: "depends on the statement",
        query: Query::Drift,
    },
    Check {
        id: "vector-unindexed",
        level: High,
        title: "A vector column without an index",
        categories: &["performance"],
        why: "Every nearest-neighbour search reads all vectors; its time grows with the table.",
        fix: "Build an hnsw or ivfflat index, manually or with a [vector_index] job that measures its recall.",
        lock: ONLINE,
        query: catalog!("vector-unindexed"),
    },
    Check {
        id: "ivfflat-lists",
        level: Medium,
        title: "An ivfflat index whose lists do not suit the table",
        categories: &["performance"],
        why: "Too many lists lower the recall at usual probes; too few make each search read most of the table.",
        fix: "Set lists for the table's current size and rebuild, or let a [vector_index] job find the best number.",
        lock: "SHARE UPDATE EXCLUSIVE or, once the session has used vectors, ACCESS EXCLUSIVE for a moment; the rebuild lets reads and writes go on",
        query: catalog!("ivfflat-lists"),
    },
    Check {
        id: "fk-unindexed",
        level: High,
        title: "A foreign key without an index",
        categories: &["performance", "integrity"],
        why: "DELETE of a referenced row, and joins from it, read the whole referencing table; with cascades, once for each row.",
        fix: "Index the key's columns. A partial index does not help.",
        lock: ONLINE,
        query: catalog!("fk-unindexed"),
    },
    Check {
        id: "lookup-unindexed",
        level: High,
        title: "A lookup column without an index",
        categories: &["performance"],
        why: "Looking for a duplicate before each INSERT reads the whole table.",
        fix: "Index it; where values must be unique, as UNIQUE.",
        lock: ONLINE,
        query: catalog!("lookup-unindexed"),
    },
    Check {
        id: "invalid-index",
        level: High,
        title: "An invalid index",
        categories: &["performance", "integrity"],
        why: "No query uses it, writes maintain it all the same, and a unique one does not enforce uniqueness.",
        fix: "Rebuild it, or drop it if a rebuild left it behind.",
        lock: ONLINE,
        query: catalog!("invalid-index"),
    },
    Check {
        id: "detach-pending",
        level: High,
        title: "A partition was detached half-way",
        categories: &["partitions", "integrity"],
        why: "Its rows are no longer visible through the table, inserts into its range fail, and no other partition can be detached.",
        fix: "FINALIZE the detach; attach the partition again if it should stay.",
        lock: "ACCESS EXCLUSIVE on the partition, SHARE UPDATE EXCLUSIVE on the table, for a moment",
        query: catalog!("detach-pending"),
    },
    Check {
        id: "default-partition-rows",
        level: Medium,
        title: "Rows in a default partition",
        categories: &["partitions"],
        why: "They are never retired with their period, and they prevent creating partitions for their range.",
        fix: "Create partitions for them and move them with a [partition] job.",
        lock: "ACCESS EXCLUSIVE on the table for at most a second at a time, by the job",
        query: catalog!("default-partition-rows"),
    },
    Check {
        id: "append-only-unbounded",
        level: Medium,
        title: "A log grows without end",
        categories: &["capacity"],
        why: "Backups, VACUUM and every query without an index take longer each month, until the disk is full.",
        fix: "Let a [retention] or [partition] job remove old rows, archiving those that are needed.",
        lock: "short locks, taken by the job",
        query: catalog!("append-only-unbounded"),
    },
    Check {
        id: "no-primary-key",
        level: Medium,
        title: "A table without a primary key",
        categories: &["integrity"],
        why: "No row can be identified: duplicates stay, logical replication of changes fails, and tools fall back to whole-table scans.",
        fix: "Declare the unique columns as primary key, or add an identity column.",
        lock: REWRITE,
        query: catalog!("no-primary-key"),
    },
    Check {
        id: "fk-no-on-delete",
        level: Medium,
        title: "A foreign key without ON DELETE",
        categories: &["integrity"],
        why: "NO ACTION is the default rather than a decision: deleting a referenced row fails in the application, at the worst time.",
        fix: "Choose CASCADE, SET NULL or RESTRICT (today's behaviour).",
        lock: "SHARE ROW EXCLUSIVE on both tables for a moment, SHARE UPDATE EXCLUSIVE while rows are checked, ACCESS EXCLUSIVE on both for a moment",
        query: catalog!("fk-no-on-delete"),
    },
    Check {
        id: "one-to-one-not-unique",
        level: Medium,
        title: "A 1:1 relation that is not UNIQUE",
        categories: &["integrity"],
        why: "Two concurrent requests create a second row, and code that expects one picks either.",
        fix: "Make it UNIQUE.",
        lock: ONLINE,
        query: catalog!("one-to-one-not-unique"),
    },
    Check {
        id: "constraint-not-validated",
        level: Medium,
        title: "A constraint that was never validated",
        categories: &["integrity"],
        why: "Old rows may violate it; the planner does not use it; and a dump may fail to restore because the constraint is checked there.",
        fix: "Correct the rows that violate it, then VALIDATE it. That runs the functions of a CHECK with the rights of whoever runs it: run it as the owner.",
        lock: ONLINE,
        query: catalog!("constraint-not-validated"),
    },
    Check {
        id: "updated-at-no-trigger",
        level: Medium,
        title: "No trigger maintains updated_at",
        categories: &["integrity"],
        why: "A manual change, a migration or a second application leaves it as it was: caches, syncs and incremental loads miss the row.",
        fix: "Let a trigger set it.",
        lock: "SHARE ROW EXCLUSIVE, for a moment",
        query: catalog!("updated-at-no-trigger"),
    },
    Check {
        id: "soft-delete-half-applied",
        level: Medium,
        title: "Soft deletion is half applied",
        categories: &["integrity", "schema"],
        why: "Rows that belong to a deleted row are still shown, counted and searched.",
        fix: "Add the same mark to the table and set it together with its parent's, or delete the rows.",
        lock: MOMENT,
        query: catalog!("soft-delete-half-applied"),
    },
    Check {
        id: "large-text-uncompressed",
        level: Medium,
        title: "Large text is stored uncompressed",
        categories: &["capacity", "performance"],
        why: "The text takes three to five times the disk, backup and cache space that it needs where TOAST must not compress it; less where only gzip would save space.",
        fix: "Allow TOAST to compress it; rewrite rows in batches with a [compress] job, whose dry run estimates the saving.",
        lock: "ACCESS EXCLUSIVE for a moment; then row locks while rows are written",
        query: catalog!("large-text-uncompressed"),
    },
    Check {
        id: "varchar-near-limit",
        level: Medium,
        title: "Text is nearly as long as its column allows",
        categories: &["capacity"],
        why: "A longer value is an error for the user who types it.",
        fix: "Change it to text, with a CHECK where a limit is intended. No row is rewritten.",
        lock: MOMENT,
        query: catalog!("varchar-near-limit"),
    },
    Check {
        id: "table-bloat",
        level: Medium,
        title: "A table is mostly empty space",
        categories: &["capacity", "performance"],
        why: "Scans, backups and the cache pay for space that holds nothing.",
        fix: "VACUUM FULL in a quiet hour, or pg_repack without the lock.",
        lock: REWRITE,
        query: catalog!("table-bloat"),
    },
    Check {
        id: "autovacuum-behind",
        level: Medium,
        title: "Autovacuum does not keep up",
        categories: &["operations", "performance"],
        why: "Dead rows slow every scan and index, and the table grows.",
        fix: "VACUUM now; let autovacuum start earlier, and end whatever holds it back.",
        lock: ONLINE,
        query: catalog!("autovacuum-behind"),
    },
    Check {
        id: "duplicate-index",
        level: Medium,
        title: "Two identical indexes",
        categories: &["performance"],
        why: "Every INSERT and most UPDATEs maintain both.",
        fix: "Drop one of them.",
        lock: "SHARE UPDATE EXCLUSIVE: reads and writes go on",
        query: catalog!("duplicate-index"),
    },
    Check {
        id: "overlapping-index",
        level: Low,
        title: "An index that is a prefix of another",
        categories: &["performance"],
        why: "Every write maintains both, and the longer one serves the same queries as the shorter.",
        fix: "Drop the shorter.",
        lock: ONLINE,
        query: catalog!("overlapping-index"),
    },
    Check {
        id: "unused-index",
        level: Low,
        title: "An unused index",
        categories: &["performance"],
        why: "Every write maintains it, it keeps updates from being HOT, and it takes cache and disk.",
        fix: "Drop it, after checking for queries that run once a year.",
        lock: ONLINE,
        query: catalog!("unused-index"),
    },
    Check {
        id: "partial-index-candidate",
        level: Low,
        title: "A partial index would speed up frequent statements",
        categories: &["performance"],
        why: "Statements that look for few rows by IS NULL or IS NOT NULL read many.",
        fix: "Create a partial index with that condition; it holds only those rows.",
        lock: ONLINE,
        query: Query::Statements(include_str!("partial-index-candidate.sql")),
    },
    Check {
        id: "top-queries",
        level: Medium,
        title: "A frequent statement became slower",
        categories: &["performance"],
        why: "A statement that takes twice as long as at the last audit takes four times as long at the next.",
        fix: "Run EXPLAIN (ANALYZE, BUFFERS); look for new data, a missing index, or outdated statistics.",
        lock: NONE,
        query: Query::TopQueries,
    },
    Check {
        id: "timestamp-without-zone",
        level: Low,
        title: "A timestamp without time zone",
        categories: &["schema"],
        why: "Its meaning changes with the client's time zone and twice a year.",
        fix: "Change it to timestamptz.",
        lock: REWRITE,
        query: catalog!("timestamp-without-zone"),
    },
    Check {
        id: "timestamp-names-mixed",
        level: Low,
        title: "Time columns are named in two styles",
        categories: &["schema"],
        why: "createdAt here, created_at there: every query and every mapping has to know which one applies.",
        fix: "Rename, together with the application.",
        lock: MOMENT,
        query: catalog!("timestamp-names-mixed"),
    },
    Check {
        id: "identifier-needs-quoting",
        level: Low,
        title: "A name that must be quoted",
        categories: &["schema"],
        why: "Every query, script and tool must quote it, and some forget.",
        fix: "Rename, together with the application.",
        lock: MOMENT,
        query: catalog!("identifier-needs-quoting"),
    },
    Check {
        id: "comments-missing",
        level: Low,
        title: "Tables and columns without comments",
        categories: &["schema"],
        why: "The next person has to guess what a column means, and may guess wrong.",
        fix: "Describe them in the database, where every tool shows it.",
        lock: "SHARE UPDATE EXCLUSIVE, for a moment",
        query: catalog!("comments-missing"),
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_unique_and_plain() {
        for (index, check) in CHECKS.iter().enumerate() {
            assert!(check.id.bytes().all(|b| b.is_ascii_lowercase() || b == b'-'), "{}", check.id);

            assert!(CHECKS[..index].iter().all(|other| other.id != check.id), "{} stands twice", check.id);
        }
    }

    #[test]
    fn the_documentation_lists_every_check_as_it_is() {
        let documented: Vec<&str> =
            include_str!("../../../../docs/audit.md").lines().filter(|line| line.starts_with("| `")).collect();
        assert_eq!(documented.len(), CHECKS.len());
        for (line, check) in documented.iter().zip(CHECKS) {
            let row = format!("| `{}` | {} | {} | ", check.id, check.level, check.title);
            assert!(line.starts_with(&row), "{line}\nis not\n{row}");
        }
    }
}
