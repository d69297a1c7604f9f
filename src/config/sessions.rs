//! How many sessions a backup opens on its database's server at once, and how many of them `max_sessions` leaves for the rows of large tables.

use super::Config;

/// A dump by one pg_dump: the run's lock, pg_dump, the session that looks for others who wait behind the dump, and the one that finds out why, if it
/// fails.
const ALONE: u32 = 4;

/// A dump by several sessions has these beside them: the four of [`ALONE`], the second pg_dump, and the session that keeps all tables locked.
const BESIDE_THE_SESSIONS: u32 = 6;

/// A ledger on the same server: the run's lock there, and a query.
const OF_THE_LEDGER: u32 = 2;

/// The sessions that read the rows of large tables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sessions {
    /// 1: pg_dump reads them.
    pub count: usize,
    /// How a limit has decided it; None where there is none, and where the job asks for one.
    pub why: Option<String>,
}

/// How many sessions a run may have at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limit {
    pub most: u32,
    /// What sets it: `max_sessions = 10`.
    pub by: String,
}

impl Limit {
    fn of_the_configuration(most: u32) -> Self {
        Self { most, by: format!("max_sessions = {most}") }
    }
}

/// Returns as many as the job asks for, or as the limit leaves. Pure.
pub fn within(asked: usize, limit: Option<Limit>, ledger_is_there: bool) -> Sessions {
    let Some(Limit { most, by }) = limit.filter(|_| asked > 1) else { return Sessions { count: asked, why: None } };
    let beside = BESIDE_THE_SESSIONS + of_the_ledger(ledger_is_there);
    let left = most.saturating_sub(beside) as usize;
    let what = if ledger_is_there { "locks, pg_dump and the ledger" } else { "locks and pg_dump" };
    let others = format!("beside the {beside} that the run needs for {what}");
    let (count, why) = match left {
        left if left >= asked => (asked, format!("{by} has room for them {others}")),
        2.. => (left, format!("the job has sessions = {asked}; {by} leaves {left} {others}")),
        _ => (1, format!("pg_dump alone reads all rows, as {by} leaves too few for several sessions {others}")),
    };
    Sessions { count, why: Some(why) }
}

/// The fewest with which a backup is possible. Pure.
pub fn least(ledger_is_there: bool) -> u32 {
    ALONE + of_the_ledger(ledger_is_there)
}

fn of_the_ledger(is_there: bool) -> u32 {
    if is_there { OF_THE_LEDGER } else { 0 }
}

impl Config {
    /// Returns how many sessions of a job with `sessions = asked` read rows of this database, whose server allows the run `of_the_server`.
    pub fn sessions_for(&self, database: &str, asked: usize, of_the_server: Option<Limit>) -> Sessions {
        let max_sessions = self.place(database).and_then(|database| database.max_sessions);
        let has_ledger = self.has_ledger_on_the_server_of(database);
        // A limit of the server is worth a word only where it decides.
        let of_the_server = of_the_server.filter(|limit| within(asked, Some(limit.clone()), has_ledger).count < asked);
        let limits = max_sessions.map(Limit::of_the_configuration).into_iter().chain(of_the_server);
        within(asked, limits.min_by_key(|limit| limit.most), has_ledger)
    }

    /// Returns how many sessions a run has there besides that of its task: its lock, and those of the ledger.
    pub fn own_sessions(&self, database: &str) -> u32 {
        1 + of_the_ledger(self.has_ledger_on_the_server_of(database))
    }

    /// Returns whether the ledger is on the server of that database, as far as their hosts and ports tell.
    pub fn has_ledger_on_the_server_of(&self, database: &str) -> bool {
        let server = |name: &str| Some(self.place(name)?.settings().ok()?.server());
        self.ledger.as_ref().and_then(|ledger| server(&ledger.database)).is_some_and(|ledger| server(database) == Some(ledger))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_are_what_the_job_asks_for_or_what_is_left_of_the_most() {
        for (asked, most, ledger_is_there, count) in [
            (4, None, false, 4),
            (1, Some(4), false, 1),
            (4, Some(20), false, 4),
            (4, Some(10), false, 4),
            (4, Some(9), false, 3),
            (4, Some(8), false, 2),
            (4, Some(7), false, 1),
            (4, Some(4), false, 1),
            (4, Some(10), true, 2),
            (4, Some(9), true, 1),
            (16, Some(12), false, 6),
        ] {
            let chosen = within(asked, most.map(Limit::of_the_configuration), ledger_is_there);
            assert_eq!(chosen.count, count, "{asked} {most:?} {ledger_is_there}");
            assert_eq!(chosen.why.is_some(), most.is_some() && asked > 1);
            let others = if count > 1 { BESIDE_THE_SESSIONS } else { ALONE - 1 } + of_the_ledger(ledger_is_there);
            assert!(most.is_none_or(|most| count as u32 + others <= most), "{asked} {most:?} {ledger_is_there}");
        }
        assert_eq!((least(false), least(true)), (4, 6));
    }

    #[test]
    fn the_reason_has_the_numbers() {
        let why = |most| within(4, Some(Limit::of_the_configuration(most)), true).why.unwrap();
        let others = "beside the 8 that the run needs for locks, pg_dump and the ledger";
        assert_eq!(why(12), format!("max_sessions = 12 has room for them {others}"));
        assert_eq!(why(11), format!("the job has sessions = 4; max_sessions = 11 leaves 3 {others}"));
        assert_eq!(
            why(9),
            format!("pg_dump alone reads all rows, as max_sessions = 9 leaves too few for several sessions {others}")
        );
    }
}
