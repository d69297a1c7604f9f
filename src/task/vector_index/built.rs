//! The last line of an index's comment, in which pgtend records how the index was built and measured.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::candidates::Spec;

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
    /// True if other numbers of lists were tried.
    pub tuned: bool,
    /// The parameters that an hnsw index was built with: ALTER INDEX changes only the catalog's numbers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub graph: Option<Graph>,
    /// True if it is searched by pgtend's function, which has a setting of its own: this one is no need of others.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_by_function: bool,
    /// A build that was slower and found less, and was dropped again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub declined: Option<Declined>,
}

/// A build that is not repeated before the table has grown.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Declined {
    pub spec: Spec,
    pub rows: u64,
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

    /// Returns the comment with this as its last line.
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
    fn another_comment_stays_above_ours() {
        let graph = Some(Graph { m: 16, ef_construction: 64 });
        let built = Built {
            built_at: None,
            measured_at: DateTime::UNIX_EPOCH,
            rows: 5,
            setting: 3,
            recall: 0.96,
            tuned: true,
            graph,
            is_by_function: false,
            declined: None,
        };
        let comment = built.beside(Some("for the search\npage"));
        assert!(comment.starts_with("for the search\npage\npgtend: {"), "{comment}");
        assert_eq!(Built::read(&comment), Some(built.clone()));
        assert_eq!(built.beside(Some(&comment)), comment);
        assert_eq!(Built::read("just words"), None);
        let earlier = r#"pgtend: {"measured_at":"1970-01-01T00:00:00Z","rows":5,"setting":3,"recall":0.96,"tuned":true}"#;
        assert_eq!(Built::read(earlier), Some(Built { graph: None, ..built }));
    }
}
