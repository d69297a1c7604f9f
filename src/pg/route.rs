//! The way into a server that was taken, and the facts that connections found.

use sqlx::postgres::PgSslMode;

/// A way into a server: the number of a host, and the TLS mode.
#[derive(Clone, Copy, Debug)]
pub struct Route {
    pub host: usize,
    pub mode: PgSslMode,
}

/// The facts that connections found. A run stays with the host that it began on: its locks are there.
#[derive(Debug, Default)]
pub struct Observed {
    pub route: Option<Route>,
    /// Databases behind a pooler that gives each connection one session.
    pub pooled: Vec<String>,
    /// True when something in between refuses options (others drop them).
    pub refuses_options: bool,
    /// True when the role may set lc_messages, and nothing in between drops options.
    pub may_set_messages: bool,
    /// The role of ALTER ROLE … SET role, when the configuration names none.
    pub stored_role: Option<String>,
}
