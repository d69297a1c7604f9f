//! What a query of a table runs: pure.

use super::found::ForeignCode;

/// Roles whose code a query of a table may run, None for PUBLIC, each with the kind of what names them.
#[derive(Debug, Default)]
pub struct Queried {
    /// At the table itself, and below it: the planner computes what is constant there.
    at_table: Vec<Role>,
    /// Also around it: at the other end of foreign keys, and above it.
    all: Vec<Role>,
}

type Role = (String, Option<String>);

impl Queried {
    pub fn of(found: &[ForeignCode]) -> Self {
        let role = |code: &ForeignCode| (code.kind.clone(), code.owner.clone());
        // Functions of event triggers run when a session begins or changes an object, whatever it queries.
        let found: Vec<&ForeignCode> = found.iter().filter(|code| code.kind != "event trigger").collect();
        Self {
            at_table: found.iter().filter(|code| code.is_queried).map(|code| role(code)).collect(),
            all: found.iter().map(|code| role(code)).collect(),
        }
    }

    /// Returns whether a query of this table may run nobody's code but that of roles whose code a query of `other` runs anyway. Who may only give a name another
    /// meaning, as the owner of a schema, counts where the same can be done to `other`.
    pub fn is_within(&self, other: &Self) -> bool {
        let runs =
            |(kind, owner): &Role| other.at_table.iter().any(|(known, of)| of == owner && (known == kind || !only_names(known)));
        self.all.iter().all(runs)
    }
}

/// Returns whether such a role has no code that a query runs while names mean what they do.
fn only_names(kind: &str) -> bool {
    matches!(kind, "schema" | "CREATE" | "extension" | "operators" | "TRIGGER" | "REFERENCES")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_runs_no_more_than_another_where_all_of_its_roles_have_code_at_the_others_table() {
        let code = |kind: &str, owner: &str, is_queried: bool| ForeignCode {
            kind: kind.to_owned(),
            name: None,
            table: "t".to_owned(),
            function: None,
            owner: Some(owner.to_owned()),
            runs_as: "postgres".to_owned(),
            is_superuser: true,
            is_superuser_itself: true,
            gains: "rights".to_owned(),
            is_queried,
        };
        for (known, asked, expected) in [
            (vec![], vec![], true),
            (vec![], vec![code("index", "mallory", true)], false),
            (vec![code("table", "alice", true)], vec![code("index", "alice", true)], true),
            (vec![code("CHECK", "mallory", true)], vec![code("table", "mallory", true)], true),
            // At the other end of a foreign key.
            (vec![code("table", "mallory", false)], vec![code("index", "mallory", true)], false),
            // They may create beside the table, or rename its schema.
            (vec![code("CREATE", "mallory", true)], vec![code("index", "mallory", true)], false),
            (vec![code("schema", "mallory", true)], vec![code("table", "mallory", true)], false),
            (vec![code("CREATE", "mallory", true)], vec![code("CREATE", "mallory", true)], true),
            (vec![code("schema", "mallory", true)], vec![code("schema", "mallory", true)], true),
            (vec![code("CREATE", "mallory", true)], vec![code("schema", "mallory", true)], false),
            (vec![code("table", "alice", true)], vec![code("schema", "alice", false)], true),
            (vec![code("table", "alice", true)], vec![code("table", "alice", true), code("table", "mallory", false)], false),
            (vec![code("event trigger", "mallory", true)], vec![code("index", "mallory", true)], false),
            (vec![], vec![code("event trigger", "mallory", true)], true),
        ] {
            assert_eq!(Queried::of(&asked).is_within(&Queried::of(&known)), expected, "{known:?} {asked:?}");
        }
    }
}
