//! The objects and roles that a statement of pg_dump names.

use super::choices::Object;
use super::tokens::Statement;

/// An object that `--without` can leave out.
pub struct Named {
    pub object: Object,
    pub schema: Option<String>,
    /// The table of an index or a constraint, or the domain of a constraint.
    pub table: Option<String>,
    pub name: String,
}

/// The objects of kinds that can be left out that a statement creates, alters or comments on.
pub fn named_objects(statement: &Statement) -> Vec<Named> {
    let one = |object: Object, schema: Option<String>, table: Option<String>, name: Option<String>| {
        name.map(|name| Named { object, schema, table, name }).into_iter().collect::<Vec<_>>()
    };
    let at = |words: &[&str]| statement.find(words).map(|index| index + words.len());
    let extension = [
        &["CREATE", "EXTENSION", "IF", "NOT", "EXISTS"][..],
        &["CREATE", "EXTENSION"],
        &["COMMENT", "ON", "EXTENSION"],
        &["ALTER", "EXTENSION"],
    ];
    if let Some(words) = extension.iter().find(|words| statement.says(0, words)) {
        return one(Object::Extension, None, None, statement.name(words.len()));
    }
    if statement.says(0, &["CREATE", "INDEX"]) || statement.says(0, &["CREATE", "UNIQUE", "INDEX"]) {
        let name = at(&["INDEX"]).and_then(|index| statement.name(index));
        let table = at(&["ON", "ONLY"]).or(at(&["ON"])).and_then(|index| statement.qualified(index));
        let (schema, table) = table.map_or((None, None), |(schema, table, _)| (schema, Some(table)));
        return one(Object::Index, schema, table, name);
    }
    if statement.says(0, &["ALTER", "INDEX"]) {
        let Some((schema, name, _)) = statement.qualified(2) else { return Vec::new() };
        let mut named = one(Object::Index, schema.clone(), None, Some(name.clone()));
        // The index of a key carries the constraint's name.
        named.extend(one(Object::Constraint, schema, None, Some(name)));
        if let Some((schema, name, _)) = at(&["ATTACH", "PARTITION"]).and_then(|index| statement.qualified(index)) {
            named.extend(one(Object::Index, schema.clone(), None, Some(name.clone())));
            named.extend(one(Object::Constraint, schema, None, Some(name)));
        }
        return named;
    }
    if statement.says(0, &["COMMENT", "ON", "INDEX"]) {
        let found = statement.qualified(3);
        return found.map_or(Vec::new(), |(schema, name, _)| one(Object::Index, schema, None, Some(name)));
    }
    if statement.says(0, &["COMMENT", "ON", "CONSTRAINT"]) {
        let table = at(&["ON", "DOMAIN"])
            .or(statement.find_last(&["ON"]).map(|index| index + 1))
            .and_then(|index| statement.qualified(index));
        let (schema, table) = table.map_or((None, None), |(schema, table, _)| (schema, Some(table)));
        return one(Object::Constraint, schema, table, statement.name(3));
    }
    if statement.says(0, &["ALTER", "DOMAIN"]) {
        let Some((schema, domain, after)) = statement.qualified(2) else { return Vec::new() };
        let name = statement.says(after, &["ADD", "CONSTRAINT"]).then(|| statement.name(after + 2)).flatten();
        return one(Object::Constraint, schema, Some(domain), name);
    }
    if statement.says(0, &["ALTER", "TABLE"]) {
        let table = at(&["TABLE", "ONLY"]).or(at(&["TABLE"])).and_then(|index| statement.qualified(index));
        let (schema, table) = table.map_or((None, None), |(schema, table, _)| (schema, Some(table)));
        if let Some(index) = at(&["ADD", "CONSTRAINT"]) {
            return one(Object::Constraint, schema, table, statement.name(index));
        }
        let index = at(&["CLUSTER", "ON"]).or(at(&["REPLICA", "IDENTITY", "USING", "INDEX"]));
        let name = index.and_then(|index| statement.name(index));
        let mut named = one(Object::Index, schema.clone(), table.clone(), name.clone());
        named.extend(one(Object::Constraint, schema, table, name));
        return named;
    }
    Vec::new()
}

/// The roles that a statement names; PUBLIC does not count.
pub fn role_names(text: &str) -> Vec<String> {
    let statement = Statement::of(text);
    let positions = role_positions(&statement).into_iter();
    let names = positions.filter(|index| statement.raw(&statement.tokens[*index]) != "PUBLIC");
    names.filter_map(|index| statement.name(index)).collect()
}

/// The positions where a statement of pg_dump names roles.
pub fn role_positions(statement: &Statement) -> Vec<usize> {
    let after = |found: Option<usize>, words: usize| found.map(|index| index + words);
    let mut positions = Vec::new();
    let list = |from: Option<usize>, positions: &mut Vec<usize>| {
        let Some(mut index) = from else { return };
        while statement.name(index).is_some() {
            positions.push(index);
            if !statement.is_symbol(index + 1, b',') {
                break;
            }
            index += 2;
        }
    };
    let grants = statement.says(0, &["GRANT"]) || statement.find(&["GRANT"]).is_some();
    let revokes = statement.says(0, &["REVOKE"]) || statement.find(&["REVOKE"]).is_some();
    if statement.says(0, &["ALTER", "DEFAULT", "PRIVILEGES"]) {
        list(after(statement.find(&["FOR", "ROLE"]), 2), &mut positions);
    }
    if statement.says(0, &["SET", "SESSION", "AUTHORIZATION"]) {
        positions.push(3);
    } else if statement.says(0, &["CREATE", "POLICY"]) {
        list(after(statement.find(&["TO"]), 1), &mut positions);
    } else if statement.find(&["USER", "MAPPING", "FOR"]).is_some() {
        list(after(statement.find(&["USER", "MAPPING", "FOR"]), 3), &mut positions);
    } else if statement.says(0, &["GRANT"])
        || statement.says(0, &["REVOKE"])
        || statement.says(0, &["ALTER", "DEFAULT", "PRIVILEGES"])
    {
        if grants {
            list(after(statement.find_last(&["TO"]), 1), &mut positions);
        } else if revokes {
            list(after(statement.find_last(&["FROM"]), 1), &mut positions);
        }
        list(after(statement.find(&["GRANTED", "BY"]), 2), &mut positions);
    } else if statement.says(0, &["ALTER"]) {
        list(after(statement.find_last(&["OWNER", "TO"]), 2), &mut positions);
    }
    positions.retain(|index| *index < statement.tokens.len());
    positions
}

/// The position where `ALTER … OWNER TO role` names the role.
pub fn owners_position(statement: &Statement) -> Option<usize> {
    let last = statement.tokens.len().checked_sub(1)?;
    let is_last = last >= 2 && statement.find_last(&["OWNER", "TO"]) == Some(last - 2);
    (statement.says(0, &["ALTER"]) && is_last).then_some(last)
}
