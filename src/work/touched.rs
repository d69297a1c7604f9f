//! The operations of a task on the rows of a table: they determine whose triggers, rules and functions run.

/// The operations of a task on the rows of its table.
#[derive(Clone, Copy, Debug)]
pub struct Touched<'a> {
    pub table: &'a str,
    /// Events of triggers that fire, as in pg_trigger.tgtype.
    pub triggers: i32,
    /// Events of rules, as in pg_rewrite.ev_type.
    pub rules: &'static [&'static str],
    /// True if rows are written, so that CHECKs and generated columns are evaluated.
    pub writes: bool,
    /// True if triggers are disabled by session_replication_role, where the role may set it.
    pub silences_triggers: bool,
    /// True if sessions for rows do it ([`crate::pg::Purpose::Rows`]), in which triggers and conditions find names as in the application.
    pub finds_names: bool,
    /// An extension whose operators and types statements name with their schema.
    pub extension: Option<&'static str>,
}

/// Events of triggers, as in pg_trigger.tgtype.
pub const INSERT: i32 = 4;
pub const DELETE: i32 = 8;
pub const UPDATE: i32 = 16;

impl<'a> Touched<'a> {
    pub fn new(table: &'a str, triggers: i32, rules: &'static [&'static str], writes: bool) -> Self {
        Self { table, triggers, rules, writes, silences_triggers: false, finds_names: false, extension: None }
    }
}
