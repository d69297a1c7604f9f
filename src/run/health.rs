//! How a job stands on a database, by its runs that have ended. A run under way says nothing yet: the one before it still counts. Pure.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// Its last run that proves something did not succeed.
    Failed,
    /// It has no success for its last tick.
    Late,
    Well,
    /// It has no success yet, and neither failed nor is late.
    Waiting,
}

impl Health {
    pub fn of(has_failed: bool, is_late: bool, has_succeeded: bool) -> Self {
        match (has_failed, is_late, has_succeeded) {
            (true, ..) => Self::Failed,
            (false, true, _) => Self::Late,
            (false, false, true) => Self::Well,
            (false, false, false) => Self::Waiting,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_failed_or_is_late_is_not_well_however_often_it_succeeded_before() {
        for (has_failed, is_late, has_succeeded, expected) in [
            (true, false, true, Health::Failed),
            (true, true, true, Health::Failed),
            (true, false, false, Health::Failed),
            (false, true, true, Health::Late),
            (false, true, false, Health::Late),
            (false, false, true, Health::Well),
            (false, false, false, Health::Waiting),
        ] {
            assert_eq!(Health::of(has_failed, is_late, has_succeeded), expected);
        }
    }
}
