//! A commit whose answer did not come: the server may have committed, and nobody knows.

/// Context of an error after which it is not known whether the part was restored.
#[derive(Debug, thiserror::Error)]
#[error("it is not known whether {0}: the server did not answer the commit; look at {1}")]
pub struct NotKnown(pub String, pub String);

/// The server's own refusal of a commit (integrity, a trigger) means that it rolled back. Its shutdown and a lost connection do not say.
pub fn is_refused(sql_state: Option<&str>) -> bool {
    sql_state.is_some_and(|code| !["08", "57", "58", "XX"].iter().any(|class| code.starts_with(class)))
}
