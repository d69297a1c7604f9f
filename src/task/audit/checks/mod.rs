//! All checks, in the order of the reports. A check is a line here and a query in `checks/`: docs/audit.md is tested against it.
//!
//! A query selects from what `prelude.sql` offers, one row for each finding: `object`, `identity` (what the finding keeps from one audit to
//! the next: names, no sizes), `issue`, `evidence`, and `fix` (SQL), `job` (a task's table) or both. `lock` and `level` stand in where they
//! differ from the check's. `unknown` says why this object cannot be judged. `probe` is a query into the table itself: no row, no finding.

use super::document::Level::{self, Critical, High, Low, Medium};

#[derive(Debug)]
pub struct Check {
    pub id: &'static str,
    pub level: Level,
    pub title: &'static str,
    pub categories: &'static [&'static str],
    /// What it does to those who leave it as it is.
    pub why: &'static str,
    /// What to do, in words; each finding has its own statements.
    pub fix: &'static str,
    /// What the fix holds, and for how long.
    pub lock: &'static str,
    pub query: Query,
}

#[derive(Debug)]
pub enum Query {
    Catalog(&'static str),
    /// The same, with `pg_stat_statements` in the place of the word STATEMENTS.
    Statements(&'static str),
    /// `schema_file`, loaded and compared.
    Drift,
    /// Sets in the stores, runs in the ledger.
    Backup,
    /// pg_stat_statements against the last audit.
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
const REWRITE: &str = "ACCESS EXCLUSIVE while the table is written anew";
const NONE: &str = "none";

pub static CHECKS: &[Check] = &[
    Check {
        id: "no-verified-backup",
        level: Critical,
        title: "No recent verified backup",
        categories: &["operations"],
        why: "What was never restored or read back is a hope. A lost disk, a wrong DELETE or a bad migration costs all data since the last good set.",
        fix: "Run the backup job, look at why it fails, and let it verify its sets.",
        lock: "ACCESS SHARE while pg_dump reads",
        query: Query::Backup,
    },
    Check {
        id: "wraparound",
        level: High,
        title: "Transaction or multixact age beyond autovacuum's limit",
        categories: &["operations", "capacity"],
        why: "Something keeps VACUUM from freezing old rows. At two thousand million transactions the server refuses every write, until somebody vacuums by hand for hours.",
        fix: "End old transactions, prepared transactions and slots that hold it up, then VACUUM (FREEZE).",
        lock: ONLINE,
        query: catalog!("wraparound"),
    },
    Check {
        id: "sequence-near-end",
        level: High,
        title: "A sequence nears its end",
        categories: &["capacity"],
        why: "When the last number is given out every INSERT fails, all at once and without warning.",
        fix: "Make column and sequence bigint.",
        lock: REWRITE,
        query: catalog!("sequence-near-end"),
    },
    Check {
        id: "partition-runway",
        level: High,
        title: "Partitions end soon",
        categories: &["capacity", "partitions"],
        why: "Rows beyond the last partition are refused, or go to the default partition, from where they are hard to move.",
        fix: "Make partitions ahead, by a [partition] job.",
        lock: "ACCESS EXCLUSIVE on the table, and SHARE ROW EXCLUSIVE on those that it refers to, for a moment; of the table, the job needs SHARE UPDATE EXCLUSIVE only",
        query: catalog!("partition-runway"),
    },
    Check {
        id: "connection-saturation",
        level: High,
        title: "Connections are nearly used up",
        categories: &["capacity"],
        why: "The next deployment, retry storm or cron job gets \"too many clients\", and so does who wants to find out why.",
        fix: "Pool connections; raise max_connections at the next restart.",
        lock: "none; takes effect at a restart",
        query: catalog!("connection-saturation"),
    },
    Check {
        id: "pool-sizes",
        level: Low,
        title: "A connection pool is larger than its load",
        categories: &["capacity"],
        why: "Each idle session costs memory and snapshot time, and takes a connection from those who need one.",
        fix: "Make the pool smaller, or let the server end idle sessions.",
        lock: NONE,
        query: catalog!("pool-sizes"),
    },
    Check {
        id: "slot-holds-wal",
        level: High,
        title: "A replication slot holds WAL",
        categories: &["operations", "capacity"],
        why: "WAL that a slot waits for is never removed: a forgotten slot fills the disk, and the server stops.",
        fix: "Bring its reader back, or drop the slot.",
        lock: NONE,
        query: catalog!("slot-holds-wal"),
    },
    Check {
        id: "prepared-transaction-old",
        level: High,
        title: "A prepared transaction that nobody ended",
        categories: &["operations"],
        why: "It has no session that could be ended: its locks, and the old rows that VACUUM must keep for it, stay over every restart. Builds of indexes and locks wait for it for ever, and at last the server refuses writes.",
        fix: "Ask the transaction manager that prepared it how it was decided, then COMMIT PREPARED or ROLLBACK PREPARED.",
        lock: "none; ends those that the transaction holds",
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
        title: "An application works as a superuser",
        categories: &["security"],
        why: "One SQL injection reads and writes every database, and runs programs on the host.",
        fix: "Give the application a role of its own with the privileges that it needs.",
        lock: NONE,
        query: catalog!("superuser-application"),
    },
    Check {
        id: "security-definer-search-path",
        level: High,
        title: "A SECURITY DEFINER function without search_path",
        categories: &["security"],
        why: "A caller who can create an object that the function names by itself runs his code with the owner's rights.",
        fix: "Fix the function's search_path.",
        lock: "none on tables",
        query: catalog!("security-definer-search-path"),
    },
    Check {
        id: "public-can-write",
        level: High,
        title: "Everybody may write to a table",
        categories: &["security"],
        why: "Any role that can connect changes the data, the read-only one of reports as well.",
        fix: "REVOKE it from PUBLIC, and GRANT it to who needs it.",
        lock: "SHARE ROW EXCLUSIVE at most, for a moment",
        query: catalog!("public-can-write"),
    },
    Check {
        id: "password-not-scram",
        level: High,
        title: "A password is not stored as SCRAM",
        categories: &["security"],
        why: "An MD5 hash is as good as the password for logging in, and is guessed by the thousand million a second.",
        fix: "Set password_encryption = 'scram-sha-256' and every such password anew.",
        lock: NONE,
        query: catalog!("password-not-scram"),
    },
    Check {
        id: "schema-drift",
        level: High,
        title: "The database is not what its schema file says",
        categories: &["schema"],
        why: "The next migration fails, or a server built from the file lacks what the application needs.",
        fix: "Apply what is missing, or write it into the file.",
        lock: "as the statement needs",
        query: Query::Drift,
    },
    Check {
        id: "vector-unindexed",
        level: High,
        title: "A vector column without an index",
        categories: &["performance"],
        why: "Every nearest-neighbour search reads all vectors; its time grows with the table.",
        fix: "Build an hnsw or ivfflat index, by hand or by a [vector_index] job that measures its recall.",
        lock: ONLINE,
        query: catalog!("vector-unindexed"),
    },
    Check {
        id: "ivfflat-lists",
        level: Medium,
        title: "An ivfflat index with lists unfit for the table",
        categories: &["performance"],
        why: "Too many lists find too little at usual probes; too few make each search read most of the table.",
        fix: "Set lists to what the table has now and rebuild, or let a [vector_index] job find the best.",
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
        why: "No query uses it, writes maintain it all the same, and where it was to be unique nothing is.",
        fix: "Rebuild it, or drop what a rebuild left.",
        lock: ONLINE,
        query: catalog!("invalid-index"),
    },
    Check {
        id: "detach-pending",
        level: High,
        title: "A partition was detached half-way",
        categories: &["partitions", "integrity"],
        why: "Its rows are not seen through the table any more, inserts into its range fail, and no other partition can be detached.",
        fix: "FINALIZE the detach; attach the partition again if it was to stay.",
        lock: "ACCESS EXCLUSIVE on the partition, SHARE UPDATE EXCLUSIVE on the table, for a moment",
        query: catalog!("detach-pending"),
    },
    Check {
        id: "default-partition-rows",
        level: Medium,
        title: "Rows in a default partition",
        categories: &["partitions"],
        why: "They are never retired with their period, and keep partitions for them from being made.",
        fix: "Make partitions for them and move them, by a [partition] job.",
        lock: "ACCESS EXCLUSIVE on the table for at most a second at a time, by the job",
        query: catalog!("default-partition-rows"),
    },
    Check {
        id: "append-only-unbounded",
        level: Medium,
        title: "A log grows without end",
        categories: &["capacity"],
        why: "Backups, VACUUM and every query without an index take longer each month, until the disk is full.",
        fix: "Let a [retention] or [partition] job take old rows out, archived where they are needed.",
        lock: "short ones, by the job",
        query: catalog!("append-only-unbounded"),
    },
    Check {
        id: "no-primary-key",
        level: Medium,
        title: "A table without a primary key",
        categories: &["integrity"],
        why: "No row can be named: duplicates stay, logical replication of changes fails, tools fall back to whole-table scans.",
        fix: "Declare the unique columns as primary key, or add a number.",
        lock: REWRITE,
        query: catalog!("no-primary-key"),
    },
    Check {
        id: "fk-no-on-delete",
        level: Medium,
        title: "A foreign key says nothing about DELETE",
        categories: &["integrity"],
        why: "NO ACTION is what nobody decided: deleting a user or a script fails in the application, at the time when it must not.",
        fix: "Decide: CASCADE, SET NULL, or RESTRICT, which is what happens today.",
        lock: "SHARE ROW EXCLUSIVE on both tables for a moment, SHARE UPDATE EXCLUSIVE while rows are checked, ACCESS EXCLUSIVE on both for a moment",
        query: catalog!("fk-no-on-delete"),
    },
    Check {
        id: "one-to-one-not-unique",
        level: Medium,
        title: "A 1:1 relation that is not UNIQUE",
        categories: &["integrity"],
        why: "Two requests at once make a second row, and code that expects one takes either.",
        fix: "Make it UNIQUE.",
        lock: ONLINE,
        query: catalog!("one-to-one-not-unique"),
    },
    Check {
        id: "constraint-not-validated",
        level: Medium,
        title: "A constraint that was never validated",
        categories: &["integrity"],
        why: "Old rows may break it; the planner does not use it; a dump of it may not restore once it is validated there.",
        fix: "VALIDATE it, after correcting what breaks it. That runs the functions of a CHECK with the rights of whoever runs it: run it as the owner.",
        lock: ONLINE,
        query: catalog!("constraint-not-validated"),
    },
    Check {
        id: "updated-at-no-trigger",
        level: Medium,
        title: "updated_at is kept by nobody",
        categories: &["integrity"],
        why: "A change by hand, by a migration or by a second application leaves it as it was: caches, syncs and increments miss the row.",
        fix: "Let a trigger set it.",
        lock: "SHARE ROW EXCLUSIVE, for a moment",
        query: catalog!("updated-at-no-trigger"),
    },
    Check {
        id: "soft-delete-half-applied",
        level: Medium,
        title: "Soft deletion is half applied",
        categories: &["integrity", "schema"],
        why: "What hangs on a deleted row is still shown, counted and searched.",
        fix: "Give the table the same mark and set it with its parent's, or delete for real.",
        lock: MOMENT,
        query: catalog!("soft-delete-half-applied"),
    },
    Check {
        id: "large-text-uncompressed",
        level: Medium,
        title: "Large text is stored uncompressed",
        categories: &["capacity", "performance"],
        why: "Three to five times the disk, backups and cache that the text needs, where TOAST may not compress it; less, where only gzip would win.",
        fix: "Let TOAST compress it where it may not; write rows anew in batches by a [compress] job, whose dry run says what it wins.",
        lock: "ACCESS EXCLUSIVE for a moment; then rows are locked as they are written",
        query: catalog!("large-text-uncompressed"),
    },
    Check {
        id: "varchar-near-limit",
        level: Medium,
        title: "Text is nearly as long as its column allows",
        categories: &["capacity"],
        why: "A longer value is an error for the user who types it.",
        fix: "Make it text, with a CHECK where a limit is meant. No row is rewritten.",
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
        fix: "VACUUM now; let autovacuum come earlier, and end what holds it up.",
        lock: ONLINE,
        query: catalog!("autovacuum-behind"),
    },
    Check {
        id: "duplicate-index",
        level: Medium,
        title: "Two indexes that are the same",
        categories: &["performance"],
        why: "Every INSERT and most UPDATEs maintain both.",
        fix: "Drop one.",
        lock: "SHARE UPDATE EXCLUSIVE: reads and writes go on",
        query: catalog!("duplicate-index"),
    },
    Check {
        id: "overlapping-index",
        level: Low,
        title: "An index that is the beginning of another",
        categories: &["performance"],
        why: "Every write maintains both, and the longer one does what the shorter does.",
        fix: "Drop the shorter.",
        lock: ONLINE,
        query: catalog!("overlapping-index"),
    },
    Check {
        id: "unused-index",
        level: Low,
        title: "An index that nobody uses",
        categories: &["performance"],
        why: "Every write maintains it, it keeps updates from being HOT, and it takes cache and disk.",
        fix: "Drop it, after a look at what runs once a year.",
        lock: ONLINE,
        query: catalog!("unused-index"),
    },
    Check {
        id: "partial-index-candidate",
        level: Low,
        title: "A partial index would serve frequent statements",
        categories: &["performance"],
        why: "Statements that look for few rows by IS NULL or IS NOT NULL read many.",
        fix: "Build an index with that condition; it holds only those rows.",
        lock: ONLINE,
        query: Query::Statements(include_str!("partial-index-candidate.sql")),
    },
    Check {
        id: "top-queries",
        level: Medium,
        title: "A frequent statement became slower",
        categories: &["performance"],
        why: "A statement that takes twice as long as at the last audit takes four times as long at the next.",
        fix: "EXPLAIN (ANALYZE, BUFFERS) it: new data, a lost index, old statistics.",
        lock: NONE,
        query: Query::TopQueries,
    },
    Check {
        id: "timestamp-without-zone",
        level: Low,
        title: "A timestamp without time zone",
        categories: &["schema"],
        why: "Its meaning changes with the client's time zone and twice a year.",
        fix: "Make it timestamptz.",
        lock: REWRITE,
        query: catalog!("timestamp-without-zone"),
    },
    Check {
        id: "timestamp-names-mixed",
        level: Low,
        title: "Names of times are written in two ways",
        categories: &["schema"],
        why: "createdAt here, created_at there: every query and every mapping has to know which.",
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
        why: "Who comes next has to guess what a column means, and guesses wrong.",
        fix: "Say it in the database, where every tool shows it.",
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
