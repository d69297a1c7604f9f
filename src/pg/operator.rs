//! Operators that the catalog names, where statements of ours compare values by them.

use serde::Deserialize;

/// An operator with its schema, and the types of its sides.
#[derive(Clone, Debug, Deserialize)]
pub struct Operator {
    /// `OPERATOR(ext.=)`
    pub name: String,
    /// With its schema, quoted.
    pub left: String,
    /// The same.
    pub right: String,
}

impl Operator {
    /// Returns the comparison as SQL. A cast brings each side to the type that the operator takes: without it, PostgreSQL prefers another operator of
    /// that name and schema which fits the values better (a domain over citext), whoever created it, and it would run with our rights.
    /// PostgreSQL's own queries for foreign keys do the same (generate_operator_clause in ruleutils.c).
    pub fn of(&self, left: &str, right: &str) -> String {
        format!("{left}::{} {} {right}::{}", self.left, self.name, self.right)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_have_the_operators_types() {
        let operator = r#"{"name": "OPERATOR(ext.=)", "left": "ext.citext", "right": "pg_catalog._text"}"#;
        let operator: Operator = serde_json::from_str(operator).unwrap();
        assert_eq!(operator.of("a.\"x\"", "b.y"), "a.\"x\"::ext.citext OPERATOR(ext.=) b.y::pg_catalog._text");
    }
}
