//! How an index shows that pgtend made it: by its name, and by the last line of its comment.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

pub const NEW: &str = "_pgtend_new_";
pub const OLD: &str = "_pgtend_old_";
/// Hexadecimal digits.
const HASH: usize = 8;

/// A name that is not used elsewhere by accident: an index with it may be dropped. The hash covers the table, the column and the index.
///
/// `column`: schema, table, column.
pub fn beside(column: [&str; 3], index: &str, suffix: &str) -> String {
    let [schema, table, column] = column;
    let hash = hash(&[schema, table, column, index]);
    format!("{}{suffix}{hash}", cut(index, 63 - suffix.len() - hash.len()))
}

/// Whether a name looks like one made by [`beside`].
pub fn is_beside(name: &str) -> bool {
    let hex = |hash: &str| hash.len() == HASH && hash.bytes().all(|byte| byte.is_ascii_hexdigit());
    [NEW, OLD].iter().any(|suffix| name.rsplit_once(suffix).is_some_and(|(_, hash)| hex(hash)))
}

fn hash(words: &[&str]) -> String {
    let hash = Sha256::digest(words.join("\0").as_bytes());
    hash.iter().take(HASH / 2).map(|byte| format!("{byte:02x}")).collect()
}

/// The name of a new index where there is none. A truncated name gets a hash, so that two long names stay different.
pub fn default_name(table: &str, column: &str) -> String {
    let name = format!("{table}_{column}");
    if name.len() + "_idx".len() <= 63 {
        return format!("{name}_idx");
    }
    format!("{}_{}_idx", cut(&name, 63 - HASH - "__idx".len()), hash(&[&name]))
}

fn cut(name: &str, most: usize) -> &str {
    let mut end = name.len().min(most);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    &name[..end]
}

/// `idx` of `idx_ccnew`, `idx_ccnew1`, `idx_ccold`.
pub fn base_of_reindex(name: &str) -> Option<&str> {
    let name = name.trim_end_matches(|c: char| c.is_ascii_digit());
    name.strip_suffix("_ccnew").or(name.strip_suffix("_ccold"))
}

/// REINDEX cuts a long name to make room for its suffix.
pub fn is_cut(base: &str, name: &str) -> bool {
    base == name || name.len() + "_ccnew".len() > 63 && base.len() >= 50 && name.starts_with(base)
}

/// The record that pgtend keeps in the index's comment, below any text that was there before.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Built {
    /// When pgtend built it; none: it only measured it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub built_at: Option<DateTime<Utc>>,
    pub measured_at: DateTime<Utc>,
    pub rows: u64,
    pub setting: u32,
    pub recall: f64,
    /// Whether other numbers of lists were tried.
    pub tuned: bool,
    /// The parameters that an hnsw index was built with: ALTER INDEX changes only the catalog's numbers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub graph: Option<Graph>,
}

/// Parameters of hnsw.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Graph {
    pub m: u32,
    pub ef_construction: u32,
}

impl Built {
    const MARK: &'static str = "pgtend: ";

    pub fn read(comment: &str) -> Option<Self> {
        serde_json::from_str(comment.lines().last()?.strip_prefix(Self::MARK)?).ok()
    }

    /// The comment with this as its last line.
    pub fn beside(&self, comment: Option<&str>) -> String {
        let others: Vec<&str> = comment.unwrap_or_default().lines().filter(|line| !line.starts_with(Self::MARK)).collect();
        let ours = format!("{}{}", Self::MARK, serde_json::to_string(self).unwrap_or_default());
        if others.is_empty() { ours } else { format!("{}\n{ours}", others.join("\n")) }
    }
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

    #[test]
    fn somebody_elses_comment_stays_above_ours() {
        let graph = Some(Graph { m: 16, ef_construction: 64 });
        let built =
            Built { built_at: None, measured_at: DateTime::UNIX_EPOCH, rows: 5, setting: 3, recall: 0.96, tuned: true, graph };
        let comment = built.beside(Some("for the search\npage"));
        assert!(comment.starts_with("for the search\npage\npgtend: {"), "{comment}");
        assert_eq!(Built::read(&comment), Some(built.clone()));
        assert_eq!(built.beside(Some(&comment)), comment);
        assert_eq!(Built::read("just words"), None);
        let earlier = r#"pgtend: {"measured_at":"1970-01-01T00:00:00Z","rows":5,"setting":3,"recall":0.96,"tuned":true}"#;
        assert_eq!(Built::read(earlier), Some(Built { graph: None, ..built }));
    }
}
