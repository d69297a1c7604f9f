//! How safe a database is: one verdict, which the status page, the digest, `doctor` and the counts of jobs with patterns share. Pure.

use super::database::OfDatabase;
use super::fleets::Fleet;
use super::say::Standing;

/// The worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Safety {
    /// It has no backup that counts.
    Unsafe,
    /// It has one, and something is wrong.
    AtRisk,
    /// Nothing answers; or there is a backup that counts, and a store or the ledger was not asked, which may know of something newer.
    Unknown,
    /// It is being asked for the first time.
    Unread,
    Safe,
}

impl OfDatabase {
    /// `is_late`: a job that backs it up has no success for its last tick.
    pub fn safety(&self, is_late: bool) -> Safety {
        let is_renewed = self.job.is_some() && self.idle.is_none() && !is_late;
        match &self.backup {
            Err(_) => Safety::Unknown,
            Ok(None) => Safety::Unsafe,
            Ok(Some(_)) if self.is_in_doubt() || !self.missing_in.is_empty() || !is_renewed => Safety::AtRisk,
            Ok(Some(_)) if self.unasked.is_some() || !self.unread.is_empty() => Safety::Unknown,
            Ok(Some(_)) => Safety::Safe,
        }
    }
}

impl Standing {
    pub fn safety(&self, database: &OfDatabase) -> Safety {
        let is_late = |of: &&str| self.late.iter().any(|late| late.database == database.name && late.job == **of);
        database.safety(database.job.as_deref().filter(is_late).is_some())
    }

    /// Returns whether every database that was looked at or counted is safe.
    pub fn are_all_safe(&self) -> bool {
        let backups = || self.fleets.iter().filter(|fleet| fleet.is_backup);
        self.databases.iter().all(|database| self.safety(database) == Safety::Safe)
            && backups().map(Fleet::not_well).sum::<usize>() + self.uncovered.len() + self.left_out.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use chrono::Utc;

    use super::*;
    use crate::run::standing::{Backup, Lost, Unasked};

    #[test]
    fn only_a_backup_that_counts_that_nothing_speaks_against_and_that_is_renewed_is_safe() {
        let backup = Backup {
            set: "app/nightly/x".to_owned(),
            store: "local".to_owned(),
            began_at: Utc::now(),
            restored_at: None,
            refused_by: None,
            stores: vec!["local".to_owned()],
            measured: None,
        };
        let of = |backup| OfDatabase::for_tests("app", backup);
        let good = || of(Ok(Some(backup.clone())));
        let lost = Lost { set: "app/nightly/y".to_owned(), store: None, why: "it is gone".to_owned(), refused_by: None };
        let refused = Backup { refused_by: Some("db:5432: no".to_owned()), ..backup.clone() };
        let (unread, unasked) = (vec!["offsite".to_owned()], Unasked { since: None, why: "no".to_owned() });
        for (database, is_late, expected) in [
            (good(), false, Safety::Safe),
            (of(Ok(None)), false, Safety::Unsafe),
            (OfDatabase { unread: unread.clone(), ..of(Ok(None)) }, false, Safety::Unsafe),
            (of(Err("no".to_owned())), false, Safety::Unknown),
            (good(), true, Safety::AtRisk),
            (OfDatabase { lost: Some(lost.clone()), ..good() }, false, Safety::AtRisk),
            (of(Ok(Some(refused))), false, Safety::AtRisk),
            (OfDatabase { unsure: Some("no server".to_owned()), ..good() }, false, Safety::AtRisk),
            (OfDatabase { job: None, ..good() }, false, Safety::AtRisk),
            (OfDatabase { idle: Some("is disabled"), ..good() }, false, Safety::AtRisk),
            (OfDatabase { missing_in: unread.clone(), ..good() }, false, Safety::AtRisk),
            (OfDatabase { unread: unread.clone(), ..good() }, false, Safety::Unknown),
            (OfDatabase { unasked: Some(unasked), ..good() }, false, Safety::Unknown),
            // What is known to be wrong comes before what is not known.
            (OfDatabase { unread, lost: Some(lost), ..good() }, false, Safety::AtRisk),
        ] {
            assert_eq!(database.safety(is_late), expected, "{database:?}");
        }
    }

    #[test]
    fn not_all_are_safe_while_one_of_a_fleet_waits_for_its_first_backup() {
        let fleet = |waiting, is_backup| Fleet { is_backup, databases: 3, well: 3 - waiting, waiting, ..Fleet::default() };
        let with = |fleet| Standing { fleets: vec![fleet], ..Standing::default() };
        assert!(with(fleet(0, true)).are_all_safe());
        assert!(!with(fleet(1, true)).are_all_safe());
        assert!(with(fleet(1, false)).are_all_safe(), "it backs up nothing");
        assert!(!Standing { uncovered: vec!["main.a".to_owned()], ..Standing::default() }.are_all_safe());
    }
}
