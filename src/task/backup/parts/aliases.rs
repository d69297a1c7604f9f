//! Names before a dot that a statement itself defines: `old` and `new` of triggers and rules, tables and their aliases in policies, rules and views. They are
//! no names of schemas. Pure.

use std::collections::BTreeSet;

use crate::task::backup::tokens::{Kind, Statement};

/// What stands before the name of a table.
const BEFORE_A_TABLE: [&str; 7] = ["FROM", "JOIN", "INTO", "UPDATE", "ON", "ONLY", "TO"];
/// What stands before the name of an object, and before no column.
const BEFORE_AN_OBJECT: [&str; 7] = ["FROM", "JOIN", "INTO", "UPDATE", "ONLY", "COLLATE", "AS"];
/// The statements that define such names, by the word that follows CREATE.
const DEFINING: [&str; 7] = ["TRIGGER", "CONSTRAINT", "RULE", "POLICY", "VIEW", "MATERIALIZED", "RECURSIVE"];

/// The names that a statement defines.
pub struct Aliases(BTreeSet<String>);

impl Aliases {
    pub fn of(statement: &Statement) -> Self {
        let kind_at = if statement.says(0, &["CREATE", "OR", "REPLACE"]) { 3 } else { 1 };
        let mut defined = BTreeSet::new();
        if !statement.says(0, &["CREATE"]) || !DEFINING.iter().any(|word| statement.says(kind_at, &[word])) {
            return Self(defined);
        }
        if ["TRIGGER", "CONSTRAINT", "RULE"].iter().any(|word| statement.says(kind_at, &[word])) {
            defined.extend(["old".to_owned(), "new".to_owned()]);
        }
        for at in 1..statement.tokens.len() {
            let is_after_a_word = follows(statement, at, &BEFORE_A_TABLE);
            let is_in_a_list = statement.is_symbol(at - 1, b',') || statement.is_symbol(at - 1, b'(');
            if let Some((Some(_), table, end)) = statement.qualified(at).filter(|_| is_after_a_word || is_in_a_list)
                && !statement.is_symbol(end, b'(')
            {
                let at = if statement.says(end, &["AS"]) { end + 1 } else { end };
                defined.extend(statement.name(at).filter(|_| !statement.is_symbol(at + 1, b'.')));
                if is_after_a_word {
                    defined.insert(table);
                }
            }
        }
        Self(defined)
    }

    /// Returns whether the name before the dot at `at` is one of these, before a column. A function or a type has a schema there.
    pub fn has(&self, statement: &Statement, at: usize) -> bool {
        let is_object = at > 0 && (statement.is_symbol(at - 1, b':') || follows(statement, at, &BEFORE_AN_OBJECT))
            || at > 1 && statement.says(at - 2, &["OPERATOR"]);
        let is_call = statement.tokens.get(at + 2).is_some_and(|token| matches!(token.kind, Kind::Word | Kind::Quoted))
            && statement.is_symbol(at + 3, b'(');
        !is_object && !is_call && statement.name(at).is_some_and(|name| self.0.contains(&name))
    }
}

/// Returns whether one of the words stands before `at`, and, if it is FROM, is a query's.
fn follows(statement: &Statement, at: usize, words: &[&str]) -> bool {
    words.iter().any(|word| statement.says(at - 1, &[word]))
        && (!statement.says(at - 1, &["FROM"]) || is_of_a_query(statement, at - 1))
}

/// Returns whether the FROM at `at` is that of SELECT or DELETE, and not of IS DISTINCT FROM, or of a function (EXTRACT).
fn is_of_a_query(statement: &Statement, at: usize) -> bool {
    let is_distinct =
        at > 1 && statement.says(at - 1, &["DISTINCT"]) && (statement.says(at - 2, &["IS"]) || statement.says(at - 2, &["NOT"]));
    let depth = statement.tokens[at].depth;
    let before = (0..at).rev().take_while(|before| statement.tokens[*before].depth >= depth);
    let mut same = before.filter(|before| statement.tokens[*before].depth == depth);
    !is_distinct && same.any(|before| statement.says(before, &["SELECT"]) || statement.says(before, &["DELETE"]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::backup::parts::subject::mentions;

    #[test]
    fn names_that_a_statement_defines_are_no_schemas() {
        for (text, expected) in [
            (
                "CREATE TRIGGER g BEFORE UPDATE ON hr.log FOR EACH ROW WHEN ((old.status IS DISTINCT FROM new.status) AND (EXTRACT(year FROM new.at) > 1)) EXECUTE FUNCTION new.guard()",
                &["new.guard"][..],
            ),
            ("CREATE RULE r AS ON UPDATE TO hr.log DO INSTEAD INSERT INTO new.copy (a) VALUES (new.a)", &["new.copy"]),
            (
                "CREATE POLICY p ON hr.pay USING ((EXISTS ( SELECT 1 FROM (app.people p JOIN app.teams t ON ((t.id = p.team))) WHERE (p.id = pay.person) AND (p.x = (t.y)::p.dom))))",
                &["app.people", "app.teams", "p.dom"],
            ),
            (
                "CREATE VIEW s.v AS SELECT items.id, i.f(items.id) FROM shop.items, shop.i i WHERE (i.a OPERATOR(i.=) items.b)",
                &["i.=", "i.f", "shop.i", "shop.items"],
            ),
            ("CREATE TABLE s.t (new f.x, CHECK ((h.f(a) AND new.f(a))))", &["f.x", "h.f", "new.f"]),
        ] {
            let found: Vec<String> =
                mentions(&Statement::whole(text)).into_iter().map(|mention| mention.name.to_string()).collect();
            assert_eq!(found, expected, "{text}");
        }
    }
}
