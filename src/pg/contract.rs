//! The settings that every session of ours gets before its first statement, whatever a database, a role or the server has as a
//! default: those by which another owner's code could run as us, and those that change what data or statements mean.
//!
//! They travel in the startup packet (`options`; client tools: PGOPTIONS), where they override ALTER DATABASE, ALTER ROLE and
//! ALTER ROLE IN DATABASE, and RESET ALL returns to them (tested on 14 to 18). A setting that some role may not set on some
//! supported version would be FATAL there: it follows by SET. SET and SHOW are utility statements: no schema, function or
//! operator of a user can replace them.
//!
//! This file depends on nothing else: a test compares its tables with a server's pg_settings.

/// Functions and operators come from pg_catalog alone. pg_temp is named so that it comes last: unnamed, it is searched first, and
/// a temporary table called pg_class wins.
pub const SEARCH_PATH: &str = "pg_catalog, pg_temp";

/// The purpose of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Our own statements, and client tools.
    Own,
    /// A dump's statements, run as by psql: the server decides where tables, rows and temporary files go.
    Restore,
    /// Rows that are deleted or put back: triggers and conditions find names as in the application.
    Rows,
    /// The user's own SQL (`[sql]`), which finds names and places as it would without pgtend.
    Application,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Reach {
    /// Every session has it.
    All,
    /// All sessions have it but those of the user's own SQL.
    ButSql,
    /// All sessions have it but those that find names as in the application.
    Restores,
    /// Our own sessions and client tools have it.
    Own,
}
use Reach::{All, ButSql, Own, Restores};

/// The settings that any role may change on PostgreSQL 14 and newer: name, value, sessions, and reason.
const PINNED: &[(&str, &str, Reach, &str)] = &[
    ("search_path", SEARCH_PATH, Restores, "an owner's function or operator would run as us"),
    ("local_preload_libraries", "", All, "a library that does not exist keeps everyone out"),
    ("row_security", "off", Own, "a policy's functions would run as us, and hide rows: an error instead"),
    ("default_transaction_read_only", "off", All, "nothing could be written"),
    ("default_transaction_isolation", "read committed", All, "statements must see what was committed while they waited"),
    ("default_transaction_deferrable", "off", All, "a transaction would wait before its first statement"),
    ("statement_timeout", "0", All, "pg_dump and long builds would be cut off; a task sets its own"),
    ("lock_timeout", "0", All, "a task sets its own"),
    ("idle_in_transaction_session_timeout", "0", All, "an archive's upload would be cut off"),
    ("idle_session_timeout", "0", All, "a lock waits for hours while pg_dump works"),
    ("exit_on_error", "off", All, "the first lock that is refused would end the session"),
    ("DateStyle", "ISO, MDY", All, "how times read in archives, keys and bounds"),
    ("IntervalStyle", "postgres", All, "how intervals read in dumps and archives"),
    ("TimeZone", "UTC", All, "how times read in archives, keys and bounds"),
    ("timezone_abbreviations", "Default", All, "what the abbreviation of a zone means"),
    ("extra_float_digits", "3", All, "numbers must be read back as they were"),
    ("bytea_output", "hex", All, "how bytes read in archives"),
    ("xmlbinary", "base64", All, "how bytes read in XML"),
    ("xmloption", "content", All, "what is valid XML"),
    ("standard_conforming_strings", "on", All, "what a backslash in a literal means"),
    ("array_nulls", "on", All, "what NULL in an array's text means"),
    ("transform_null_equals", "off", All, "what `= NULL` means"),
    ("gin_fuzzy_search_limit", "0", All, "an index search would leave rows out"),
    ("quote_all_identifiers", "off", All, "how definitions read"),
    ("check_function_bodies", "on", All, "a function of ours must be checked when it is made"),
    ("client_min_messages", "notice", All, "warnings must reach the report"),
    ("default_tablespace", "", Own, "what we build goes where its table is"),
    ("temp_tablespaces", "", Own, "sorts would go to a disk that someone else chose"),
    ("default_table_access_method", "heap", Own, "a partition is made as PostgreSQL makes it"),
    ("default_toast_compression", "pglz", Own, "how large text is stored; a task that changes it says so"),
    (
        "constraint_exclusion",
        "partition",
        All,
        "with on, the planner computes the constants in CHECKs of any table: code of its owner",
    ),
    (
        "jit",
        "off",
        Own,
        "the estimates of queries on catalogs are far too high: where the server has LLVM, compiling one takes a second or more",
    ),
    ("plan_cache_mode", "auto", Own, "plans"),
    ("enable_async_append", "on", Own, "plans"),
    ("enable_bitmapscan", "on", Own, "plans"),
    ("enable_gathermerge", "on", Own, "plans"),
    ("enable_hashagg", "on", Own, "plans"),
    ("enable_hashjoin", "on", Own, "plans"),
    ("enable_incremental_sort", "on", Own, "plans"),
    ("enable_indexonlyscan", "on", Own, "plans"),
    ("enable_indexscan", "on", Own, "plans"),
    ("enable_material", "on", Own, "plans"),
    ("enable_memoize", "on", Own, "plans"),
    ("enable_mergejoin", "on", Own, "plans"),
    ("enable_nestloop", "on", Own, "plans"),
    ("enable_parallel_append", "on", Own, "plans"),
    ("enable_parallel_hash", "on", Own, "plans"),
    ("enable_partition_pruning", "on", Own, "plans"),
    ("enable_partitionwise_aggregate", "off", Own, "plans"),
    ("enable_partitionwise_join", "off", Own, "plans"),
    ("enable_seqscan", "on", Own, "plans"),
    ("enable_sort", "on", Own, "plans"),
    ("enable_tidscan", "on", Own, "plans"),
];

/// The right that a role needs to set it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Right {
    None,
    Messages,
    ReplicationRole,
    EventTriggers,
}

/// A setting that follows by SET: name, value, sessions, from and before which `server_version_num`, the right it needs, and the
/// reason.
struct BySet(
    &'static str,
    &'static str,
    Reach,
    std::ops::Range<u32>,
    Right,
    #[allow(dead_code, reason = "for people")] &'static str,
);

const ALL_VERSIONS: std::ops::Range<u32> = 0..u32::MAX;

const BY_SET: &[BySet] = &[
    // Otherwise a lock stays for two hours (tcp_keepalive_time) when our host disappears unnoticed.
    BySet(
        "tcp_keepalives_idle",
        "20",
        All,
        ALL_VERSIONS,
        Right::None,
        "the server notices within a minute that our host is gone",
    ),
    BySet("tcp_keepalives_interval", "10", All, ALL_VERSIONS, Right::None, "the same"),
    BySet("tcp_keepalives_count", "3", All, ALL_VERSIONS, Right::None, "the same"),
    BySet("tcp_user_timeout", "50000", All, ALL_VERSIONS, Right::None, "the same"),
    BySet("transaction_timeout", "0", All, 170_000..u32::MAX, Right::None, "a long transaction would be cut off"),
    BySet("lc_messages", "C", All, ALL_VERSIONS, Right::Messages, "messages are read by code"),
    BySet(
        "session_replication_role",
        "origin",
        All,
        ALL_VERSIONS,
        Right::ReplicationRole,
        "triggers that keep data whole must fire",
    ),
    BySet(
        EVENT_TRIGGERS,
        "off",
        ButSql,
        170_000..u32::MAX,
        Right::EventTriggers,
        "their functions would run as us at each DDL of ours",
    ),
    BySet("createrole_self_grant", "", All, 160_000..u32::MAX, Right::None, "a new role would be granted to us"),
    BySet("icu_validation_level", "warning", All, 160_000..u32::MAX, Right::None, "a restore would refuse a locale"),
    BySet("force_parallel_mode", "off", Own, 0..160_000, Right::None, "plans"),
    BySet("debug_parallel_query", "off", Own, 160_000..u32::MAX, Right::None, "plans"),
    BySet("enable_presorted_aggregate", "on", Own, 160_000..u32::MAX, Right::None, "plans"),
    BySet("enable_group_by_reordering", "on", Own, 170_000..u32::MAX, Right::None, "plans"),
    BySet("enable_distinct_reordering", "on", Own, 180_000..u32::MAX, Right::None, "plans"),
    BySet("enable_self_join_elimination", "on", Own, 180_000..u32::MAX, Right::None, "plans"),
    // It came with the minor versions 14.13, 15.8 and 16.4.
    BySet(RELATION_KINDS, "", Own, 140_013..150_000, Right::None, "views could not be read"),
    BySet(RELATION_KINDS, "", Own, 150_008..160_000, Right::None, "views could not be read"),
    BySet(RELATION_KINDS, "", Own, 160_004..u32::MAX, Right::None, "views could not be read"),
];

/// The kinds of users' relations that a session may not read.
const RELATION_KINDS: &str = "restrict_nonsystem_relation_kind";

/// Returns the statement after which a session can read tables, but no view and no foreign table of a user, as pg_dump has it since CVE-2024-7348;
/// None where the server does not know the setting.
pub fn tables_alone(version_num: u32) -> Option<String> {
    let knows = BY_SET.iter().any(|BySet(name, _, _, versions, ..)| *name == RELATION_KINDS && versions.contains(&version_num));
    knows.then(|| set(RELATION_KINDS, "view, foreign-table"))
}

/// PostgreSQL 17 and newer have it; only a superuser may set it, or a role with SET on it.
pub const EVENT_TRIGGERS: &str = "event_triggers";

/// Returns the statement for a session that became a superuser's by SET ROLE, so that its rights were not those of the login.
pub fn as_a_superuser(purpose: Purpose, version_num: u32) -> String {
    let of_superusers = BY_SET.iter().filter(|BySet(_, _, reach, versions, right, _)| {
        *right == Right::EventTriggers && reaches(*reach, purpose) && versions.contains(&version_num)
    });
    of_superusers.map(|BySet(name, value, ..)| set(name, value)).collect::<Vec<_>>().join("; ")
}

/// This is sent by itself, and may fail: servers on systems without such a check (not Linux, macOS, BSD) refuse the value. With
/// it, a killed process's statement ends with the process; otherwise the next run would meet it.
pub const CONNECTION_CHECK: &str = "SET client_connection_check_interval = '2s'";

/// The settings that the role of a session may change.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rights {
    pub messages: bool,
    pub replication_role: bool,
    pub event_triggers: bool,
}

fn reaches(reach: Reach, purpose: Purpose) -> bool {
    match purpose {
        Purpose::Own => true,
        Purpose::Restore => reach <= Restores,
        Purpose::Rows => reach <= ButSql,
        Purpose::Application => reach == All,
    }
}

/// Returns the settings of the startup packet. With `read_only_as_it_is`, default_transaction_read_only is left out: a URL that
/// asks for a read-write or read-only server means the server's own setting.
pub fn startup(purpose: Purpose, read_only_as_it_is: bool) -> impl Iterator<Item = (&'static str, &'static str)> {
    PINNED
        .iter()
        .filter(move |(name, _, reach, _)| {
            reaches(*reach, purpose) && !(read_only_as_it_is && *name == "default_transaction_read_only")
        })
        .map(|(name, value, _, _)| (*name, *value))
}

/// Returns the statements that follow. With `all`, they include those of the startup packet, which a pooler dropped.
pub fn statements(purpose: Purpose, read_only_as_it_is: bool, all: bool, version_num: u32, rights: Rights) -> String {
    let dropped = startup(purpose, read_only_as_it_is).filter(|_| all);
    let later = BY_SET.iter().filter(|BySet(_, _, reach, versions, right, _)| {
        let may = match right {
            Right::None => true,
            Right::Messages => rights.messages,
            Right::ReplicationRole => rights.replication_role,
            Right::EventTriggers => rights.event_triggers,
        };
        may && reaches(*reach, purpose) && versions.contains(&version_num)
    });
    let sets = dropped.chain(later.map(|BySet(name, value, ..)| (*name, *value)));
    sets.map(|(name, value)| set(name, value)).collect::<Vec<_>>().join("; ")
}

fn set(name: &str, value: &str) -> String {
    // A list of names is not a string: as one it would be a single name with a comma.
    let value = if name == "search_path" { value.to_owned() } else { format!("'{value}'") };
    format!("SET {name} = {value}")
}

/// The settings by which the server writes a value as text. A dump's rows are written under them, and a restored copy's rows are read back under them.
const AS_TEXT: [&str; 5] = ["DateStyle", "IntervalStyle", "TimeZone", "extra_float_digits", "bytea_output"];

/// Returns the statements that set what decides about the text of values, for a session that has other values meanwhile.
pub fn text_settings() -> String {
    let sets = PINNED.iter().filter(|(name, ..)| AS_TEXT.contains(name)).map(|(name, value, ..)| set(name, value));
    sets.collect::<Vec<_>>().join("; ")
}

/// Restores [`SEARCH_PATH`] after another owner's code has run in the session.
pub const SET_SEARCH_PATH: &str = "SET search_path = pg_catalog, pg_temp";
