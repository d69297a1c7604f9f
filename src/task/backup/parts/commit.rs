//! A commit whose answer did not come: the server may have committed, and nobody knows.

/// Context of an error after which it is not known whether the part was restored.
#[derive(Debug, thiserror::Error)]
#[error("it is not known whether {0}: the server did not answer the commit; look at {1}")]
pub struct NotKnown(pub String, pub String);

/// The server's own refusal of a commit (integrity, a trigger, a statement that was cancelled: 57014) means that it rolled back. Its shutdown and a lost connection do not say.
pub fn is_refused(sql_state: Option<&str>) -> bool {
    sql_state.is_some_and(|code| code == "57014" || !["08", "57", "58", "XX"].iter().any(|class| code.starts_with(class)))
}

#[cfg(test)]
mod tests {
    use super::is_refused;

    #[test]
    fn a_cancelled_commit_is_refused_and_a_lost_connection_is_not_known() {
        for (code, refused) in [("23503", true), ("P0001", true), ("57014", true), ("57P01", false), ("08006", false)] {
            assert_eq!(is_refused(Some(code)), refused, "{code}");
        }
        assert!(!is_refused(None));
    }
}
