//! How safe all that was looked at is. Pure.

use super::database::OfDatabase;
use super::fleets::Fleet;
use super::safety::Safety;
use super::say::Standing;

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
    use super::*;

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
