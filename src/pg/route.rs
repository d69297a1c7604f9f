//! Which way into a server was taken, and what connections showed of it.

use sqlx::postgres::PgSslMode;

/// One way into a server: the number of a host, and how it is asked for TLS.
#[derive(Clone, Copy, Debug)]
pub struct Way {
    pub host: usize,
    pub mode: PgSslMode,
}

/// What connections showed. A run stays with the host that it began on: its locks are there.
#[derive(Debug, Default)]
pub struct Seen {
    pub way: Option<Way>,
    /// Databases that are reached through a pooler which gives a session for the whole connection.
    pub pooled: Vec<String>,
    /// What is in between refuses options (others drop them).
    pub refuses_options: bool,
    /// The role may set lc_messages, and nothing in between drops options.
    pub may_set_messages: bool,
    /// What ALTER ROLE … SET role says, where the configuration names none.
    pub stored_role: Option<String>,
}
