//! Checks of the server and of what runs on it at this moment, in the order of the reports.

use super::super::document::Level::{High, Low, Medium};
use super::{Check, NONE, Query};

pub const SERVER: &[Check] = &[
    Check {
        id: "archiving-fails",
        level: High,
        title: "WAL is not archived",
        categories: &["operations", "capacity"],
        why: "Segments that cannot be archived stay until the disk is full and the server stops; and nothing can be recovered to a moment after the last one.",
        fix: "Find out from the server's log what archive_command says, and mend it.",
        lock: NONE,
        query: catalog!("archiving-fails"),
    },
    Check {
        id: "standby-behind",
        level: Medium,
        title: "A standby is far behind",
        categories: &["operations"],
        why: "Queries there see the past, and after a failover what it has not received is lost.",
        fix: "End what holds it back: a query that conflicts, a pause of the replay, a slow disk or network.",
        lock: NONE,
        query: catalog!("standby-behind"),
    },
    Check {
        id: "slot-inactive",
        level: Medium,
        title: "A replication slot has no consumer",
        categories: &["operations", "capacity"],
        why: "It keeps WAL and, of a logical one, old rows of the catalogs, more each hour. Most such slots were forgotten.",
        fix: "Start its consumer, or drop the slot.",
        lock: "none; the consumer of this slot has to be set up again",
        query: catalog!("slot-inactive"),
    },
    Check {
        id: "transaction-long",
        level: Medium,
        title: "A transaction runs for hours",
        categories: &["operations"],
        why: "VACUUM can remove nothing that was deleted since it began, and whoever waits for its locks waits as long.",
        fix: "Cancel it, or let it end; cut the work into smaller transactions. statement_timeout keeps it from happening again.",
        lock: NONE,
        query: catalog!("transaction-long"),
    },
    Check {
        id: "ssl-off",
        level: Medium,
        title: "Connections from other machines are not encrypted",
        categories: &["security"],
        why: "Whoever is on the way reads rows and passwords, and can change statements.",
        fix: "Give the server a certificate and turn ssl on; let pg_hba.conf refuse what is not encrypted (hostssl).",
        lock: NONE,
        query: catalog!("ssl-off"),
    },
    Check {
        id: "password-encryption",
        level: Low,
        title: "New passwords are stored as MD5",
        categories: &["security"],
        why: "Each password that is set from now on is one more that can be used without knowing it.",
        fix: "Set password_encryption = 'scram-sha-256'; it has been the default since 14.",
        lock: NONE,
        query: catalog!("password-encryption"),
    },
];
