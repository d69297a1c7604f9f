//! Decides which tables one session reads as a whole, by a COPY of the table itself, which runs no code of anybody. Slices need a query, and PostgreSQL plans
//! it: it computes what is constant in expressions of the table's indexes and statistics, with the rights of the login. So only tables are read in slices
//! that nobody with fewer rights can put such an expression on, and whose schema nobody with fewer rights can exchange.

use std::collections::HashMap;

use anyhow::Result;
use sqlx::postgres::PgConnection;

use super::tables::{self, Table};
use crate::base::units;
use crate::pg::{self, identifier};
use crate::task::backup::keys::Backup;
use crate::task::backup::patterns::Patterns;
use crate::task::backup::search_path::SearchPath;

/// This many tables are named in a plan.
const NAMED: usize = 5;

const SQL: &str = concat!("WITH RECURSIVE ", include_str!("../../rights.sql"), include_str!("whole.sql"));

#[derive(Debug, sqlx::FromRow)]
struct Found {
    oid: i64,
    /// Who has fewer rights than the login, and may act on the table; None is PUBLIC.
    role: Option<String>,
    /// "owns it" and the like; None: nobody.
    has: Option<String>,
    /// An index whose expressions call what is not PostgreSQL's own.
    computed: Option<String>,
}

/// Says how several sessions would read the large tables of a database; None where they would read all in slices, where nothing is for them, and where somebody
/// asks for a lock that keeps sizes from being read.
pub async fn before_a_dump(settings: &pg::Settings, backup: &Backup) -> Result<Option<String>> {
    let found_by_name = SearchPath::schemas_for(&Patterns::of(&backup.filters), settings).await?;
    let mut connection = settings.connect().await?;
    pg::set(&mut connection, "lock_timeout", "1s").await?;
    let mut tables = match tables::read(&mut connection, &backup.filters, &found_by_name, None).await {
        Err(error) if pg::sql_state(&error).as_deref() == Some("55P03") => return Ok(None),
        tables => tables?,
    };
    decide(&mut connection, &mut tables).await?;
    Ok(in_words(&tables))
}

/// Says for each table whether it is read as a whole, and why.
pub async fn decide(connection: &mut PgConnection, tables: &mut [Table]) -> Result<()> {
    let oids: Vec<i64> = tables.iter().map(|table| table.oid).collect();
    let found: Vec<Found> = sqlx::query_as(SQL).bind(&oids).fetch_all(&mut *connection).await.map_err(pg::in_its_own_words)?;
    let mut reasons: HashMap<i64, Option<String>> = found.iter().map(|found| (found.oid, found.reason())).collect();
    let can_refuse_views = pg::tables_alone(connection).is_some();
    for table in tables {
        table.whole = match reasons.remove(&table.oid) {
            // It is gone, or cannot be judged.
            None => Some("as nothing is known of it".to_owned()),
            Some(None) if !can_refuse_views => {
                Some("as the server cannot keep a session from views (14.13, 15.8, 16.4 and newer can)".to_owned())
            }
            Some(reason) => reason,
        };
    }
    Ok(())
}

impl Found {
    fn reason(&self) -> Option<String> {
        let role = self.role.as_deref().map_or_else(|| "everyone (PUBLIC)".to_owned(), identifier);
        let whose = self.has.as_ref().map(|has| format!("as {role} {has} and has fewer rights than the login"));
        whose.or_else(|| Some(format!("as {} calls functions that are not PostgreSQL's own", self.computed.as_ref()?)))
    }
}

/// Says how the tables are read; None where all are read in slices. Pure.
pub fn in_words(tables: &[Table]) -> Option<String> {
    let whole: Vec<String> =
        tables.iter().filter_map(|table| Some(format!("{} as a whole, {}", table.sql(), table.whole.as_ref()?))).collect();
    if whole.is_empty() {
        return None;
    }
    let more = match whole.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!("; {more} more as a whole"),
    };
    let in_slices = match tables.len() - whole.len() {
        0 => String::new(),
        count => format!("{} in slices; ", units::plural(count, "table")),
    };
    Some(format!("{in_slices}{}{more}", whole.iter().take(NAMED).cloned().collect::<Vec<_>>().join("; ")))
}
