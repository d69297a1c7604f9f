//! How many sessions CONNECTION LIMIT of the role and of the database leave for a run.

use std::time::Duration;

use anyhow::Result;
use sqlx::{PgConnection, Row as _};

use crate::config::sessions::Limit;

/// A session that this program has closed is counted until its backend has ended: some milliseconds, more on a busy server.
const LOOKS: u32 = 10;
const BETWEEN_LOOKS: Duration = Duration::from_millis(100);

/// Returns how many more sessions the login may open in this database beside those of others, by the narrower of both limits. None without a limit:
/// a superuser has none. `own`: so many that are open may be this run's own, for its lock and the ledger.
pub async fn left(connection: &mut PgConnection, own: u32) -> Result<Option<Limit>> {
    let mut looks = 1;
    let row = loop {
        let row = sqlx::query(LEFT).bind(i64::from(own)).fetch_optional(&mut *connection).await?;
        let Some(row) = row else { return Ok(None) };
        let may_be_closed: bool = row.try_get("may_be_closed")?;
        if looks == LOOKS || !may_be_closed {
            break row;
        }
        looks += 1;
        tokio::time::sleep(BETWEEN_LOOKS).await;
    };
    let (most, used, whose): (i32, i64, String) = (row.try_get("most")?, row.try_get("used")?, row.try_get("whose")?);
    let left = (i64::from(most) - used).max(0) as u32;
    let by = match used {
        0 => format!("CONNECTION LIMIT {most} of {whose}"),
        used => format!("CONNECTION LIMIT {most} of {whose}, of which {used} are in use,"),
    };
    Ok(Some(Limit { most: left, by }))
}

/// `InitPostgres` and `CheckMyDatabase` (utils/init) hold both limits against all but superusers: of the login, whatever role its settings SET.
const LEFT: &str = "
    SELECT l.most, l.used, l.whose, a.named_like_us > $1 AS may_be_closed
    FROM pg_catalog.pg_roles r, pg_catalog.pg_database d, LATERAL (
        SELECT pg_catalog.count(*) FILTER (WHERE a.usesysid = r.oid) AS of_role,
               pg_catalog.count(*) FILTER (WHERE a.datid = d.oid AND a.usesysid IS NOT NULL) AS of_database,
               pg_catalog.count(*) FILTER (WHERE a.usesysid = r.oid AND a.datid = d.oid
                                            AND a.application_name = pg_catalog.current_setting('application_name')) AS named_like_us
        FROM pg_catalog.pg_stat_activity a WHERE a.pid <> pg_catalog.pg_backend_pid()
    ) a, LATERAL (
        VALUES (r.rolconnlimit, a.of_role - least($1, a.named_like_us), 'the role'),
               (d.datconnlimit, a.of_database - least($1, a.named_like_us), 'the database')
    ) l (most, used, whose)
    WHERE r.rolname = session_user AND NOT r.rolsuper AND d.datname = pg_catalog.current_database() AND l.most >= 0
    ORDER BY l.most - l.used LIMIT 1";
