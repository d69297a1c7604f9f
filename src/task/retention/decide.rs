//! Decides how the rows of a table are found: pure.

use anyhow::Result;

use super::facts::refused;
use super::keys::Method;

/// Above this share of the table, one walk over its blocks is cheaper than as many steps through the index: with 2 M rows of which 1.1 M
/// go, 1.0 s against 2.9 s (`make bench`).
const LARGE_SHARE: f64 = 0.10;

/// Chooses how the rows are found, and says why.
pub fn choose_method(wanted: Method, index: Option<&str>, rows: u64, rows_to_go: u64) -> Result<(Method, String)> {
    let share = if rows == 0 { 0.0 } else { rows_to_go as f64 / rows as f64 };
    let percent = format!("about {:.0} % of the rows go", share.min(1.0) * 100.0);
    Ok(match (wanted, index) {
        (Method::Index, None) => {
            return Err(refused(
                "method = \"index\", but no index begins with the column: create one, or remove `method`".to_owned(),
            ));
        }
        (Method::Blocks, _) => (Method::Blocks, "as configured".to_owned()),
        (Method::Index, Some(index)) => (Method::Index, format!("as configured, by {index}")),
        (Method::Auto, None) => (Method::Blocks, "no index begins with the column".to_owned()),
        (Method::Auto, Some(_)) if share >= LARGE_SHARE => {
            (Method::Blocks, format!("{percent}: one walk over the table is cheaper"))
        }
        (Method::Auto, Some(index)) => (Method::Index, format!("{percent}: by {index}")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_share_goes_through_the_index_and_a_large_one_by_blocks() {
        let method = |wanted, index, rows, go| choose_method(wanted, index, rows, go).map(|(method, _)| method).ok();
        assert_eq!(method(Method::Auto, Some("i"), 1000, 10), Some(Method::Index));
        assert_eq!(method(Method::Auto, Some("i"), 1000, 500), Some(Method::Blocks));
        assert_eq!(method(Method::Auto, None, 1000, 10), Some(Method::Blocks));
        assert_eq!(method(Method::Index, Some("i"), 1000, 900), Some(Method::Index));
        assert_eq!(method(Method::Index, None, 1000, 10), None);
        assert_eq!(method(Method::Auto, Some("i"), 0, 0), Some(Method::Index), "never analyzed");
    }
}
