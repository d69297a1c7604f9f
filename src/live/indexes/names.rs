//! How an index shows by its name that pgtend made it, beside an index in use, or that REINDEX did.

use sha2::{Digest as _, Sha256};

pub const NEW: &str = "_pgtend_new_";
pub const OLD: &str = "_pgtend_old_";
/// Hexadecimal digits.
const HASH: usize = 8;

/// Returns a name that is not used elsewhere by accident: an index with it may be dropped. The hash covers the table, the column and the index.
///
/// `column`: schema, table, column.
pub fn beside(column: [&str; 3], index: &str, suffix: &str) -> String {
    let [schema, table, column] = column;
    let hash = hash(&[schema, table, column, index]);
    format!("{}{suffix}{hash}", cut(index, 63 - suffix.len() - hash.len()))
}

/// Returns whether a name looks like one made by [`beside`].
pub fn is_beside(name: &str) -> bool {
    let hex = |hash: &str| hash.len() == HASH && hash.bytes().all(|byte| byte.is_ascii_hexdigit());
    [NEW, OLD].iter().any(|suffix| name.rsplit_once(suffix).is_some_and(|(_, hash)| hex(hash)))
}

fn hash(words: &[&str]) -> String {
    let hash = Sha256::digest(words.join("\0").as_bytes());
    hex::encode(&hash[..HASH / 2])
}

/// Returns the name of a new index where there is none. A truncated name gets a hash, so that two long names stay different.
pub fn default_name(table: &str, column: &str) -> String {
    let name = format!("{table}_{column}");
    if name.len() + "_idx".len() <= 63 {
        return format!("{name}_idx");
    }
    format!("{}_{}_idx", cut(&name, 63 - HASH - "__idx".len()), hash(&[&name]))
}

/// Returns the name, or its beginning with a hash where it is too long.
pub fn fitting(name: &str) -> String {
    match name.len() {
        0..=63 => name.to_owned(),
        _ => format!("{}_{}", cut(name, 63 - HASH - "_".len()), hash(&[name])),
    }
}

fn cut(name: &str, max_bytes: usize) -> &str {
    let mut end = name.len().min(max_bytes);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    &name[..end]
}

/// Returns `idx` of `idx_ccnew`, `idx_ccnew1`, `idx_ccold`.
pub fn base_of_reindex(name: &str) -> Option<&str> {
    let name = name.trim_end_matches(|c: char| c.is_ascii_digit());
    name.strip_suffix("_ccnew").or(name.strip_suffix("_ccold"))
}

/// REINDEX cuts a long name to make room for its suffix.
pub fn is_cut(base: &str, name: &str) -> bool {
    base == name || name.len() + "_ccnew".len() > 63 && base.len() >= 50 && name.starts_with(base)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_and_stay_apart() {
        assert_eq!(default_name("items", "embedding"), "items_embedding_idx");
        let (one, two) = (format!("{}1", "ä".repeat(31)), format!("{}2", "ä".repeat(31)));
        let (first, second) = (default_name(&one, "c"), default_name(&two, "c"));
        assert!(first.len() <= 63 && second.len() <= 63 && first != second, "{first} {second}");
        assert_eq!(fitting("pgtend_search_items"), "pgtend_search_items");
        assert!(fitting(&one.repeat(2)).len() <= 63 && fitting(&one.repeat(2)) != fitting(&two.repeat(2)));
        let names = [("t", "c", one.as_str()), ("t", "c", &two), ("t", "d", &one), ("u", "c", &one), ("t", "c", "idx")]
            .map(|(table, column, index)| beside(["public", table, column], index, NEW));
        assert!(names.iter().all(|name| name.len() <= 63 && is_beside(name)), "{names:?}");
        assert_eq!(names.iter().collect::<std::collections::BTreeSet<_>>().len(), names.len());
        assert!(!is_beside("idx_pgtend_new") && !is_beside("idx_pgtend_old_1") && !is_beside("idx"));
    }

    #[test]
    fn leftovers_of_reindex_are_known_by_their_name() {
        assert_eq!(base_of_reindex("idx_ccnew"), Some("idx"));
        assert_eq!(base_of_reindex("idx_ccold12"), Some("idx"));
        assert_eq!(base_of_reindex("idx2"), None);
        let long = "i".repeat(63);
        assert!(is_cut(&long[..57], &long) && !is_cut("i", &long) && is_cut("idx", "idx") && !is_cut("id", "idx"));
    }
}
