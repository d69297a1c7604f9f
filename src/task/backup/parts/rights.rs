//! The rights of what a part makes. A dump's grants start from PostgreSQL's own default; what ALTER DEFAULT PRIVILEGES of the target gives at CREATE,
//! nobody granted on these objects.

use super::statements::{self, Statements};
use super::subject::{Class, Object};
use crate::pg::literal;

/// Puts a query that takes such rights away after all that makes objects, and before the first grant: pg_dump writes grants after them.
pub fn start_from_the_default<'a>(before: &mut Statements, after: &mut Statements, made: impl Iterator<Item = &'a Object>) {
    let rows: Vec<String> = made.filter_map(row).collect();
    if rows.is_empty() {
        return;
    }
    let query = include_str!("rights.sql").replace("VALUES MADE", &format!("VALUES {}", rows.join(", ")));
    let grants = |(text, _): &(Vec<u8>, _)| text.starts_with(b"GRANT ") || text.starts_with(b"REVOKE ");
    let (list, at) = match (before.iter().position(grants), after.iter().position(grants)) {
        (Some(at), _) => (before, at),
        (None, Some(at)) => (after, at),
        (None, None) => {
            let at = after.len();
            (after, at)
        }
    };
    list.insert(at, statements::ours(&query));
}

fn row(Object { class, name }: &Object) -> Option<String> {
    let class = match class {
        Class::Schema => "schema",
        Class::Relation => "relation",
        Class::Type => "type",
        Class::Routine => "routine",
        // Nobody grants anything on these.
        Class::Operator | Class::Statistics | Class::Other => return None,
    };
    Some(format!("('{class}', {}, {})", literal(&name.schema), literal(&name.name)))
}
