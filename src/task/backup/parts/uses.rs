//! What a part uses of the objects that live in the target. Pure.

use std::collections::BTreeSet;

use super::definitions::Item;
use super::names::Name;
use super::statements::Statements;
use super::subject::{self, Class, Mention, Object, Role};
use super::target::Existing;
use crate::task::backup::choices::Choices;
use crate::task::backup::own_bytes;
use crate::task::backup::tokens::Statement;

/// Living objects that the statements of a part name: their code may run with the rights of the restore.
#[derive(Debug, Default)]
pub struct Uses {
    pub objects: BTreeSet<Object>,
    /// Those tables of them that only foreign keys name, whose rows are looked up.
    pub referred: BTreeSet<Name>,
}

/// `items`: those whose statements run; `made`: what the part makes.
pub fn uses(items: &[&Item], made: &BTreeSet<Object>, existing: &Existing) -> Uses {
    let names = |keys: bool| -> BTreeSet<&Mention> {
        let of = items.iter().filter(|item| matches!(item.subject.role, Role::ForeignKey { .. }) == keys);
        of.flat_map(|item| &item.names).collect()
    };
    let (names, of_keys) = (names(false), names(true));
    let is_named = |object: &Object, names: &BTreeSet<&Mention>| {
        Mention::of(&object.name).iter().any(|mention| mention.may_be(object.class) && names.contains(mention))
    };
    let living = || existing.objects().filter(|object| !made.contains(object));
    let objects = living().filter(|object| is_named(object, &names) || is_named(object, &of_keys)).cloned().collect();
    let referred = living().filter(|object| object.class == Class::Relation && !is_named(object, &names));
    Uses { objects, referred: referred.map(|object| object.name.clone()).collect() }
}

/// The names of schemas that the statements and the search_path of a person have, perhaps with others.
pub fn schemas<'a>(statements: impl Iterator<Item = &'a Statements>, choices: &Choices) -> BTreeSet<String> {
    let of_path = choices.search_path.as_deref().unwrap_or_default();
    let of_path = Statement::of(of_path);
    let mut schemas: BTreeSet<String> = (0..of_path.tokens.len()).filter_map(|at| of_path.name(at)).collect();
    for (statement, _) in statements.flatten() {
        schemas.extend(subject::schemas(&Statement::whole(&own_bytes::text(statement.clone()))));
    }
    schemas
}

/// Notes about living objects, and schemas, that belong to another role than in the set: somebody may have made them since.
pub fn other_owners(items: &[Item], uses: &Uses, existing: &Existing, choices: &Choices) -> Vec<String> {
    if choices.no_owner {
        return Vec::new();
    }
    let of_set = |object: &Object| -> BTreeSet<String> {
        let texts = items.iter().filter(|item| item.subject.object() == *object).flat_map(Item::texts);
        let owners = texts.filter_map(|text| subject::owner(&Statement::of(&text)));
        owners.map(|owner| choices.role(&owner).to_owned()).collect()
    };
    let schemas = existing.objects().filter(|object| object.class == Class::Schema);
    let differs = |object: &Object| {
        let of_set = of_set(object);
        let others: Vec<&str> = existing.owners(object).filter(|owner| !of_set.contains(*owner)).collect();
        let in_set: Vec<&str> = of_set.iter().map(String::as_str).collect();
        (!others.is_empty() && !in_set.is_empty())
            .then(|| format!("{object} belongs to {} here, and to {} in the set", others.join(", "), in_set.join(", ")))
    };
    uses.objects.iter().chain(schemas).filter_map(differs).collect()
}
