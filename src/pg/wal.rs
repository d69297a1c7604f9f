//! Where a server is in its write-ahead log. A new timeline begins where a standby is promoted, or where a recovery to a point in time ends.

use anyhow::{Context as _, Result};
use sqlx::PgConnection;

/// A place in the history of a server: every later commit of it has a higher LSN, or another timeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    pub timeline: i64,
    /// `16/B374D848`
    pub lsn: String,
}

/// Says where the history of a server left an earlier timeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Branch {
    /// What was written there from this LSN on is not in its history.
    At(u64),
    /// That timeline is not in its history.
    Never,
    /// The role may not read `pg_wal/*.history`, or the file is gone.
    Unknown,
}

/// Returns where the server writes now. It is an error where the server does not say: a standby, and some hosted ones.
pub async fn position(connection: &mut PgConnection) -> Result<Position> {
    // pg_control_checkpoint() has the timeline of the last checkpoint, which is behind after a promotion.
    let (lsn, file): (String, String) = sqlx::query_as(
        "SELECT lsn::pg_catalog.text, pg_catalog.pg_walfile_name(lsn) FROM pg_catalog.pg_current_wal_insert_lsn() lsn",
    )
    .fetch_one(connection)
    .await?;
    let timeline = file.get(..8).and_then(|digits| i64::from_str_radix(digits, 16).ok());
    Ok(Position { timeline: timeline.with_context(|| format!("`{file}` is not the name of a WAL file"))?, lsn })
}

/// Returns the same within a transaction, which goes on where the server does not say.
pub async fn position_in_transaction(connection: &mut PgConnection) -> Result<Option<Position>> {
    super::execute(connection, "SAVEPOINT pgtend_position".to_owned()).await?;
    match position(connection).await {
        Ok(position) => {
            super::execute(connection, "RELEASE SAVEPOINT pgtend_position".to_owned()).await?;
            Ok(Some(position))
        }
        Err(error) => {
            tracing::debug!("the server does not say where it writes: {error:#}");
            let back = "ROLLBACK TO SAVEPOINT pgtend_position; RELEASE SAVEPOINT pgtend_position";
            super::execute(connection, back.to_owned()).await?;
            Ok(None)
        }
    }
}

/// Returns where this server, which is on `timeline`, left an earlier one. Not within a transaction: the server may refuse.
pub async fn branch(connection: &mut PgConnection, timeline: i64, earlier: i64) -> Branch {
    let file = format!("pg_wal/{timeline:08X}.history");
    let read = sqlx::query_scalar::<_, String>("SELECT pg_catalog.pg_read_file($1)").bind(file).fetch_one(connection).await;
    match read {
        Ok(history) => branch_in(&history, earlier),
        Err(error) => {
            tracing::debug!("cannot read the history of timeline {timeline}: {error}");
            Branch::Unknown
        }
    }
}

/// Reads the lines of a timeline's history, of its ancestors (readTimeLineHistory in timeline.c): `1<tab>0/3000000<tab>no recovery target specified`.
fn branch_in(history: &str, earlier: i64) -> Branch {
    let lines = history.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    for line in lines {
        let mut parts = line.split_whitespace();
        let (Some(timeline), Some(lsn)) =
            (parts.next().and_then(|text| text.parse::<i64>().ok()), parts.next().and_then(parse_lsn))
        else {
            return Branch::Unknown;
        };
        if timeline == earlier {
            return Branch::At(lsn);
        }
    }
    Branch::Never
}

/// `16/B374D848`
pub fn parse_lsn(text: &str) -> Option<u64> {
    let (high, low) = text.split_once('/')?;
    Some(u64::from(u32::from_str_radix(high, 16).ok()?) << 32 | u64::from(u32::from_str_radix(low, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_history_says_where_each_earlier_timeline_was_left() {
        let history = "1\t0/3000000\tno recovery target specified\n\n# later\n3\t1/A0\tbefore transaction 700\n";
        for (earlier, expected) in [(1, Branch::At(0x300_0000)), (3, Branch::At(0x1_0000_00A0)), (2, Branch::Never)] {
            assert_eq!(branch_in(history, earlier), expected, "{earlier}");
        }
        assert_eq!(branch_in("what is this", 1), Branch::Unknown);
    }
}
