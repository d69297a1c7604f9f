//! What nearly all objects of a kind in a schema share is its convention: it was decided once, and is one line. Pure.

use super::context::Row;
use super::document::Level;

/// Fewer objects than this make no convention.
const LEAST: i64 = 5;

/// Marks rows whose objects follow a convention, with the sentence that says it, and makes them low. The others break their siblings'
/// convention, or there is none: they stay as they are.
pub fn mark(rows: &mut [Row]) {
    for row in rows {
        let Some(what) = row.convention.take() else { continue };
        let (sharing, siblings) = (row.sharing.unwrap_or_default(), row.siblings.unwrap_or_default());
        if !is_convention(sharing, siblings) {
            continue;
        }
        let others = row.differ.take().map(|differ| format!("; these differ: {differ}")).unwrap_or_default();
        row.convention = Some(format!("{sharing} of {siblings} {what}{others}"));
        row.level = Some(Level::Low);
    }
}

/// Two thirds.
fn is_convention(sharing: i64, siblings: i64) -> bool {
    sharing >= LEAST && 3 * sharing >= 2 * siblings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_two_thirds_share_is_a_convention_and_what_few_do_breaks_one() {
        for (sharing, siblings, expected) in
            [(39, 41, true), (2, 41, false), (5, 5, true), (4, 4, false), (10, 15, true), (10, 16, false), (0, 0, false)]
        {
            assert_eq!(is_convention(sharing, siblings), expected, "{sharing} of {siblings}");
        }
    }

    #[test]
    fn a_convention_is_low_and_says_which_objects_differ() {
        let row = |sharing: i64, differ: Option<&str>| Row {
            convention: Some("foreign keys have no ON DELETE action".to_owned()),
            sharing: Some(sharing),
            siblings: Some(41),
            differ: differ.map(str::to_owned),
            ..Row::default()
        };
        let mut rows = [row(39, Some("a_fkey (CASCADE)")), row(41, None), row(2, None), Row::default()];
        mark(&mut rows);
        let said: Vec<Option<&str>> = rows.iter().map(|row| row.convention.as_deref()).collect();
        let first = "39 of 41 foreign keys have no ON DELETE action; these differ: a_fkey (CASCADE)";
        assert_eq!(said, [Some(first), Some("41 of 41 foreign keys have no ON DELETE action"), None, None]);
        let levels: Vec<Option<Level>> = rows.iter().map(|row| row.level).collect();
        assert_eq!(levels, [Some(Level::Low), Some(Level::Low), None, None]);
    }
}
