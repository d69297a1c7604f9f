//! Indexes that take hours to build, which a proof may leave out (`vector_indexes = false`). Pure.

use super::tokens::Statement;

/// Access methods of pgvector.
const METHODS: [&str; 2] = ["hnsw", "ivfflat"];

/// What a report says of them.
pub const NOT_BUILT: &str = "the build of vector indexes (vector_indexes = false)";

/// Returns the statement that makes such an index over no row; None for any other statement. So its definition is proved, and statements about it (comments,
/// partitions of a partitioned index) find it.
pub fn over_no_row(statement: &Statement) -> Option<String> {
    let method = statement.find(&["USING"]).and_then(|at| statement.name(at + 1))?;
    let is_one = statement.says(0, &["CREATE", "INDEX"]) && METHODS.contains(&method.as_str());
    let condition = if statement.find(&["WHERE"]).is_some() { "AND" } else { "WHERE" };
    is_one.then(|| format!("{} {condition} false", statement.text))
}
