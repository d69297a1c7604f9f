//! What the source of each check cannot show: an answer of "ok" holds without it.

/// Returns what the check's source cannot show.
pub fn cannot_show(id: &str) -> Option<&'static str> {
    SPOTS.iter().find(|(of, _)| *of == id).map(|(_, spot)| *spot)
}

static SPOTS: &[(&str, &str)] = &[
    ("no-verified-backup", "Backups that other programs make."),
    ("wraparound", "What holds back VACUUM at this moment: pg_stat_activity, pg_prepared_xacts and pg_replication_slots say it."),
    (
        "sequence-near-end",
        "Keys that no sequence fills, numbers that an application takes by itself, and a sequence of bigint that somebody set near its end.",
    ),
    (
        "partition-runway",
        "Tables that are partitioned by a number, a list or several columns, and those whose partitions inherit.",
    ),
    ("connection-saturation", "Other moments: it counts the sessions of now, and those behind a pooler as one."),
    ("pool-sizes", "Other moments, and clients of a pooler."),
    ("slot-holds-wal", "Slots of other servers, and how much disk is left."),
    ("prepared-transaction-old", "Transactions that were prepared in other databases of the server."),
    (
        "extension-cve",
        "Vulnerabilities that became known after the day of the list of versions, those of extensions that are not in it, and whether a server process still runs the library of an older version.",
    ),
    ("superuser-application", "Applications that are not connected at this moment, or call themselves psql."),
    (
        "security-definer-search-path",
        "Names that a function builds into dynamic SQL, and those that its search_path leaves open all the same.",
    ),
    ("public-can-write", "Rights through a role of which everybody is a member, and through views and functions."),
    ("password-not-scram", "Passwords that are weak or shared, and logins without a password (pg_hba.conf)."),
    ("schema-drift", "Rows, and whatever differs in parts of the schema that are not compared."),
    ("vector-unindexed", "Whether anything searches the column, and vectors in columns of other types."),
    ("ivfflat-lists", "The recall that queries have: a [vector_index] job measures it."),
    (
        "fk-unindexed",
        "Whether a referenced row is ever deleted. Of a key of several columns, an index that one of them leads is enough, however many rows share its value.",
    ),
    ("lookup-unindexed", "Columns with other names, and whether anything looks a value up: it knows the column by its name."),
    ("invalid-index", "Indexes that are valid and wrong: amcheck finds those."),
    ("detach-pending", "Nothing that is known: the catalog says it."),
    ("default-partition-rows", "Default partitions of partitions."),
    ("append-only-unbounded", "What was before the statistics were reset, and a [retention] of another program."),
    ("no-primary-key", "Tables without rows."),
    ("fk-no-on-delete", "What the application does before it deletes a row."),
    (
        "one-to-one-not-unique",
        "A relation of which a second row exists already, and that of tables below 100 rows or never analyzed (these are unknown).",
    ),
    ("constraint-not-validated", "Whether a row breaks the constraint."),
    (
        "updated-at-no-trigger",
        "What the application sets by itself, columns with other names, and what a trigger's function does with the name.",
    ),
    ("soft-delete-half-applied", "Marks with other names, and queries that forget to look at them."),
    ("large-text-uncompressed", "Values beyond the first 200 rows that it reads."),
    (
        "varchar-near-limit",
        "Values that ANALYZE did not sample. ANALYZE keeps none above 1,024 bytes: where the limit allows such values, or there are no statistics, a sample of the table is read.",
    ),
    (
        "table-bloat",
        "The true amount: it is an estimate from average widths, which ANALYZE does not know of values stored out of line.",
    ),
    ("autovacuum-behind", "Dead rows that were lost with the statistics, by a crash or a reset."),
    ("duplicate-index", "Expressions that are equal but written differently."),
    ("overlapping-index", "Queries for which the smaller index is faster."),
    ("unused-index", "Use on replicas and before the statistics began, and work that comes once a year."),
    (
        "partial-index-candidate",
        "Which value a statement compares with, ranges, conditions on several columns together, partitioned tables, and statements that pg_stat_statements has forgotten. Without hypopg, whether the planner would use the index.",
    ),
    ("top-queries", "Statements beyond the first 20, and those that pg_stat_statements has forgotten."),
    ("timestamp-without-zone", "In which zone the values were written."),
    ("timestamp-names-mixed", "Columns of other types."),
    ("identifier-needs-quoting", "Names of other objects than tables and columns."),
    ("comments-missing", "Whether a comment is right."),
    ("durability-off", "What the file system and the disks do with what the server made durable."),
    ("trigger-disabled", "Since when it is disabled, and which rows came in meanwhile."),
    ("replication-role-replica", "Sessions that set session_replication_role by themselves."),
    ("fk-orphans", "Rows beyond the sample of 5,000: the statement in the evidence asks all."),
    (
        "collation-version",
        "Whether an index is wrong in fact (amcheck finds that), collations of the C library before its version was recorded, and other databases.",
    ),
    ("row-security-off", "Who is meant to see which rows."),
    ("row-security-by-view", "What functions of their owners (SECURITY DEFINER) show."),
    ("row-security-not-forced", "Whether the application connects as the owner when it is not connected at this moment."),
    ("row-security-no-policy", "Who is meant to see which rows."),
    ("hba-trust", "What a firewall lets through, and files whose lines the role may not read (pg_hba_file_rules)."),
    ("public-can-create", "Rights through a role of which everybody is a member."),
    ("key-near-end", "Values that ANALYZE did not sample, and columns that were never analyzed."),
    ("xmin-held", "Other moments, and what held it back before."),
    ("idle-in-transaction", "Other moments."),
    ("unlogged-rows", "Whether somebody can do without these rows."),
    ("fk-type-mismatch", "References that are no foreign keys."),
    ("fk-duplicate", "Keys of which one has more columns than the other."),
    (
        "index-function-search-path",
        "Names that a function builds into dynamic SQL, operators of extensions, and what the functions that it calls use.",
    ),
    ("checksums-off", "Checksums of the file system."),
    ("index-mostly-null", "Values that ANALYZE did not sample, and queries that look for these few."),
    ("type-discouraged", "Clients that depend on the type."),
    ("extension-outdated", "Packages that are not installed on the server."),
    ("archiving-fails", "Whether what archive_command took is there, and archives that a receiver keeps (pg_receivewal)."),
    (
        "standby-behind",
        "Standbys that are not connected, other moments, and from the primary how late one is that replays nothing.",
    ),
    ("slot-inactive", "Before 17, since when it has no consumer: the audit before this one says whether it had none then, too."),
    ("transaction-long", "Other moments, and transactions in other databases of the server (xmin-held sees those)."),
    (
        "ssl-off",
        "What a tunnel or a service mesh encrypts, addresses of sessions that the role may not see, and sessions of other moments.",
    ),
    (
        "password-encryption",
        "What clients set for their sessions, and passwords that they hash by themselves (psql's \\password).",
    ),
    ("sequential-scans", "Which statements read it, and scans on replicas and before the statistics began."),
    ("btree-on-array", "Use on replicas and before the statistics began."),
    ("index-bloat", "The true amount: it is an estimate from average widths. Indexes other than btree, and below 32 MiB."),
    ("statistics-missing", "Statistics that are outdated: the server does not count the changes of a partitioned table."),
    (
        "server-outdated",
        "What came out after the day of the list of versions, and what a distributor has mended in an older minor release.",
    ),
    ("policy-always-true", "Conditions that are always true and written otherwise, and what SECURITY DEFINER functions change."),
    ("fk-partly-null", "Rows beyond the sample of 20,000: the statement in the evidence asks all."),
];

#[cfg(test)]
mod tests {
    use super::super::CHECKS;
    use super::*;

    #[test]
    fn every_check_says_what_its_source_cannot_show() {
        let silent: Vec<&str> = CHECKS.iter().map(|check| check.id).filter(|id| cannot_show(id).is_none()).collect();
        assert!(silent.is_empty(), "checks/blind.rs has nothing of {silent:?}");
        let unknown: Vec<&str> = SPOTS.iter().map(|(id, _)| *id).filter(|id| super::super::find(id).is_none()).collect();
        assert!(unknown.is_empty(), "{unknown:?}");
    }
}
