//! What a task does to the rows of a table, which says whose code it sets off.

/// What a task does to the rows of its table.
#[derive(Clone, Copy, Debug)]
pub struct Touched<'a> {
    pub table: &'a str,
    /// Events of triggers that fire, as in pg_trigger.tgtype.
    pub triggers: i32,
    /// Events of rules, as in pg_rewrite.ev_type.
    pub rules: &'static [&'static str],
    /// Rows are written: CHECKs are tried, generated columns computed.
    pub writes: bool,
    /// By session_replication_role, where the role may.
    pub silences_triggers: bool,
}

/// Events of triggers, as in pg_trigger.tgtype.
pub const INSERT: i32 = 4;
pub const DELETE: i32 = 8;
pub const UPDATE: i32 = 16;

impl<'a> Touched<'a> {
    pub fn new(table: &'a str, triggers: i32, rules: &'static [&'static str], writes: bool) -> Self {
        Self { table, triggers, rules, writes, silences_triggers: false }
    }
}
