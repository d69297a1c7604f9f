//! What a statement of a dump is about, and which other objects it names. In a dump every name of an object that is not PostgreSQL's own has its
//! schema, so that names say what depends on what: too many of them do no harm. Pure.

use std::collections::BTreeSet;
use std::fmt;

use super::aliases::Aliases;
use super::names::Name;
use crate::task::backup::tokens::{Kind, Statement};

/// The object that a statement makes, or is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// Of an index, a key, a trigger and the like: its table.
    pub of: Name,
    /// An object of its own name that the statement makes beside: an index, the index of a key, the sequence of an identity column.
    pub makes: Option<Object>,
    pub role: Role,
    /// Of the object whose name is `of`.
    pub class: Class,
}

/// An object: each class has names of its own.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Object {
    pub class: Class,
    pub name: Name,
}

impl Object {
    pub fn relation(name: &Name) -> Self {
        Self { class: Class::Relation, name: name.clone() }
    }

    pub fn schema(name: &str) -> Self {
        Self { class: Class::Schema, name: Name::of_schema(name) }
    }
}

/// Like `function shop.slug`, or `shop.items` of a table.
impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let kind = match self.class {
            Class::Schema | Class::Relation => return self.name.fmt(f),
            Class::Type => "type",
            Class::Routine => "function",
            Class::Operator => "operator",
            Class::Statistics => "statistics",
            Class::Other => "collation or text search",
        };
        write!(f, "{kind} {}", self.name)
    }
}

/// A name that a statement mentions; of which class it is, the statement does not always say.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mention {
    pub name: Name,
    /// True if parentheses follow it as in a call.
    is_call: bool,
}

impl Mention {
    /// Both ways to mention that name.
    pub fn of(name: &Name) -> [Self; 2] {
        [false, true].map(|is_call| Self { name: name.clone(), is_call })
    }

    /// Returns whether an object of that class may be meant.
    pub fn may_be(&self, class: Class) -> bool {
        !self.is_call || matches!(class, Class::Routine | Class::Type)
    }
}

/// Objects of different classes may have one name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    Schema,
    /// Tables, views, sequences, indexes.
    Relation,
    Type,
    Routine,
    /// Operators with their classes and families.
    Operator,
    Statistics,
    /// Collations, and what belongs to text search.
    Other,
}

impl Class {
    /// The class of that [`Class::name`].
    pub fn named(name: &str) -> Self {
        match name {
            "schema" => Self::Schema,
            "relation" => Self::Relation,
            "type" => Self::Type,
            "routine" => Self::Routine,
            "operator" => Self::Operator,
            "statistics" => Self::Statistics,
            _ => Self::Other,
        }
    }

    /// As `existing.sql` names it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Schema => "schema",
            Self::Relation => "relation",
            Self::Type => "type",
            Self::Routine => "routine",
            Self::Operator => "operator",
            Self::Statistics => "statistics",
            Self::Other => "other",
        }
    }

    /// By the word that follows CREATE, ALTER or ON.
    fn of_kind(kind: &str) -> Self {
        match kind {
            "SCHEMA" => Self::Schema,
            "TYPE" | "DOMAIN" => Self::Type,
            "FUNCTION" | "PROCEDURE" | "AGGREGATE" | "ROUTINE" => Self::Routine,
            "OPERATOR" => Self::Operator,
            "STATISTICS" => Self::Statistics,
            "COLLATION" | "TEXT" => Self::Other,
            _ => Self::Relation,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// CREATE of a schema, a type, a function and the like.
    Object,
    Table,
    View,
    Sequence,
    /// An owner, a comment, grants, and other properties.
    About,
    Default,
    Identity,
    Index,
    /// A constraint that is no foreign key.
    Key,
    ForeignKey {
        to: Name,
    },
    Statistics,
    Trigger,
    Rule,
    Policy,
    RowSecurity,
    Attach {
        partition: Name,
    },
    Publication,
    /// `setval` of a sequence.
    Value,
    /// REFRESH MATERIALIZED VIEW.
    Refresh,
}

impl Role {
    /// Returns whether the statement makes the object whose name it has.
    pub fn makes_it(&self) -> bool {
        matches!(self, Self::Object | Self::Table | Self::View | Self::Sequence)
    }
}

/// Kinds of objects that are no part of tables and their needs, by the word that follows CREATE or ALTER, or COMMENT ON.
const OTHERS: [&str; 15] = [
    "ACCESS",
    "CAST",
    "DATABASE",
    "DEFAULT",
    "EVENT",
    "EXTENSION",
    "LANGUAGE",
    "LARGE",
    "PROCEDURAL",
    "SERVER",
    "SUBSCRIPTION",
    "TRANSFORM",
    "TRUSTED",
    "USER",
    "CONVERSION",
];

impl Subject {
    pub fn object(&self) -> Object {
        Object { class: self.class, name: self.of.clone() }
    }

    /// None for what belongs to no object of a schema, or to several.
    pub fn of(statement: &Statement) -> Option<Self> {
        let says = |at: usize, words: &[&str]| statement.says(at, words);
        let kind_at = match () {
            () if says(0, &["CREATE", "OR", "REPLACE"]) => 3,
            () if says(0, &["COMMENT", "ON"]) => 2,
            () if says(0, &["SECURITY", "LABEL"]) => 5,
            () if says(0, &["GRANT"]) || says(0, &["REVOKE"]) => statement.find(&["ON"])? + 1,
            () => 1,
        };
        if OTHERS.iter().any(|word| says(kind_at, &[word]))
            || says(kind_at, &["FOREIGN", "DATA"])
            || says(kind_at, &["FOREIGN", "SERVER"])
        {
            return None;
        }
        if says(kind_at, &["SCHEMA"]) {
            let role = if says(0, &["CREATE"]) { Role::Object } else { Role::About };
            let of = Name::of_schema(&statement.name(kind_at + 1)?);
            return are_no_others(statement, kind_at).then_some(Self { of, makes: None, role, class: Class::Schema });
        }
        if says(0, &["SELECT"]) {
            let of = value(statement)?.0;
            return Some(Self { of, makes: None, role: Role::Value, class: Class::Relation });
        }
        if !are_no_others(statement, kind_at) {
            return None;
        }
        let (at, of) = first_name(statement)?;
        let class = match Class::of_kind(&statement.raw(statement.tokens.get(kind_at)?).to_ascii_uppercase()) {
            // Of a constraint.
            _ if at > 0 && says(at - 1, &["DOMAIN"]) => Class::Type,
            class => class,
        };
        if !is_in_its_place(statement, kind_at, at) {
            return None;
        }
        let one = |role: Role| Some(Self { of: of.clone(), makes: None, role, class });
        let beside = |role: Role, name: Option<String>| {
            let makes = name.map(|name| Object::relation(&Name::new(of.schema.clone(), name)));
            Some(Self { of: of.clone(), makes, role, class: Class::Relation })
        };
        match () {
            () if says(0, &["ALTER", "PUBLICATION"]) => one(Role::Publication),
            () if says(0, &["REFRESH"]) => one(Role::Refresh),
            () if says(0, &["ALTER", "TABLE"]) => altered(statement, at, of),
            () if !says(0, &["CREATE"]) => one(Role::About),
            () if says(kind_at, &["INDEX"]) => beside(Role::Index, statement.name(kind_at + 1)),
            () if says(kind_at, &["UNIQUE", "INDEX"]) => beside(Role::Index, statement.name(kind_at + 2)),
            () if says(kind_at, &["STATISTICS"]) => {
                let from = statement.find_last(&["FROM"])? + 1;
                let (schema, table, _) = statement.qualified(from)?;
                Some(Self {
                    of: Name::new(schema?, table),
                    makes: Some(Object { class: Class::Statistics, name: of.clone() }),
                    role: Role::Statistics,
                    class: Class::Relation,
                })
            }
            () if says(kind_at, &["TRIGGER"]) || says(kind_at, &["CONSTRAINT", "TRIGGER"]) => one(Role::Trigger),
            () if says(kind_at, &["RULE"]) => one(Role::Rule),
            () if says(kind_at, &["POLICY"]) => one(Role::Policy),
            () if says(kind_at, &["SEQUENCE"]) => one(Role::Sequence),
            () if says(kind_at, &["TABLE"]) || says(kind_at, &["UNLOGGED", "TABLE"]) || says(kind_at, &["FOREIGN", "TABLE"]) => {
                one(Role::Table)
            }
            () if ["VIEW", "MATERIALIZED", "RECURSIVE"].iter().any(|word| says(kind_at, &[word])) => one(Role::View),
            () => one(Role::Object),
        }
    }
}

/// What may stand between CREATE, ALTER or ON and the name of an object.
const KINDS: [&[&str]; 26] = [
    &["TABLE"],
    &["TABLE", "ONLY"],
    &["UNLOGGED", "TABLE"],
    &["FOREIGN", "TABLE"],
    &["FOREIGN", "TABLE", "ONLY"],
    &["VIEW"],
    &["MATERIALIZED", "VIEW"],
    &["RECURSIVE", "VIEW"],
    &["SEQUENCE"],
    &["UNLOGGED", "SEQUENCE"],
    &["INDEX"],
    &["COLUMN"],
    &["TYPE"],
    &["DOMAIN"],
    &["FUNCTION"],
    &["PROCEDURE"],
    &["AGGREGATE"],
    &["ROUTINE"],
    &["OPERATOR"],
    &["OPERATOR", "CLASS"],
    &["OPERATOR", "FAMILY"],
    &["COLLATION"],
    &["STATISTICS"],
    &["TEXT", "SEARCH", "CONFIGURATION"],
    &["TEXT", "SEARCH", "DICTIONARY"],
    &["TEXT", "SEARCH", "TEMPLATE"],
];

/// Returns whether the name at `at` is that of the object, and not one that follows an object without a schema.
fn is_in_its_place(statement: &Statement, kind_at: usize, at: usize) -> bool {
    let is_after = |word: &str| at > 0 && statement.says(at - 1, &[word]);
    let is_kind = |words: &[&str]| statement.spells(kind_at, words);
    match () {
        () if statement.says(0, &["ALTER", "PUBLICATION"]) => true,
        () if is_kind(&["RULE"]) && statement.says(0, &["CREATE"]) => is_after("TO"),
        () if ["CONSTRAINT", "TRIGGER", "POLICY", "RULE"].iter().any(|kind| is_kind(&[kind])) => {
            is_after("ON") || is_after("DOMAIN")
        }
        () if statement.says(0, &["CREATE"]) && (is_kind(&["INDEX"]) || is_kind(&["UNIQUE", "INDEX"])) => {
            is_after("ON") || is_after("ONLY")
        }
        () => KINDS.iter().any(|words| is_kind(words) && at == kind_at + words.len()),
    }
}

/// Returns whether a GRANT or REVOKE is about one object, as pg_dump writes it.
fn are_no_others(statement: &Statement, kind_at: usize) -> bool {
    if !statement.says(0, &["GRANT"]) && !statement.says(0, &["REVOKE"]) {
        return true;
    }
    let end = statement.find_last(&["TO"]).or(statement.find_last(&["FROM"])).unwrap_or(statement.tokens.len());
    (kind_at..end).all(|at| statement.tokens[at].depth > 0 || !statement.is_symbol(at, b','))
}

/// ALTER TABLE, whose table is `of`, at `at`.
fn altered(statement: &Statement, at: usize, of: Name) -> Option<Subject> {
    let then = at + 3;
    let says = |at: usize, words: &[&str]| statement.says(at, words);
    let (makes, role) = match () {
        () if says(then, &["ADD", "CONSTRAINT"]) => match statement.find(&["FOREIGN", "KEY"]) {
            Some(_) => {
                let (schema, name, _) = statement.qualified(statement.find(&["REFERENCES"])? + 1)?;
                (None, Role::ForeignKey { to: Name::new(schema?, name) })
            }
            None => {
                let has_index = ["PRIMARY", "UNIQUE", "EXCLUDE"].iter().any(|word| says(then + 3, &[word]));
                let name = statement.name(then + 2).filter(|_| has_index);
                (name.map(|name| Object::relation(&Name::new(of.schema.clone(), name))), Role::Key)
            }
        },
        () if says(then, &["ATTACH", "PARTITION"]) => {
            let (schema, name, _) = statement.qualified(then + 2)?;
            (None, Role::Attach { partition: Name::new(schema?, name) })
        }
        () if says(then, &["ENABLE", "ROW"]) || says(then, &["FORCE", "ROW"]) => (None, Role::RowSecurity),
        () if says(then, &["ALTER", "COLUMN"]) && says(then + 3, &["SET", "DEFAULT"]) => (None, Role::Default),
        () if says(then, &["ALTER", "COLUMN"]) && says(then + 3, &["ADD", "GENERATED"]) => {
            let name = (then..statement.tokens.len()).find(|at| says(*at, &["SEQUENCE", "NAME"]));
            let (schema, name, _) = statement.qualified(name? + 2)?;
            (Some(Object::relation(&Name::new(schema?, name))), Role::Identity)
        }
        () => (None, Role::About),
    };
    Some(Subject { of, makes, role, class: Class::Relation })
}

/// The sequence, the value and whether it was given out, of `SELECT pg_catalog.setval('s.q', 42, true)`.
pub fn value(statement: &Statement) -> Option<(Name, i64, bool)> {
    if !statement.says(1, &["pg_catalog"]) || !statement.says(3, &["setval"]) {
        return None;
    }
    let name = name_in_string(statement, 5)?;
    let is_negative = statement.is_symbol(7, b'-');
    let at = 7 + usize::from(is_negative);
    let number: i64 =
        format!("{}{}", if is_negative { "-" } else { "" }, statement.raw(statement.tokens.get(at)?)).parse().ok()?;
    Some((name, number, statement.says(at + 2, &["true"])))
}

/// The first name with a schema that is in no parentheses, and where it is.
fn first_name(statement: &Statement) -> Option<(usize, Name)> {
    (0..statement.tokens.len()).filter(|at| statement.tokens[*at].depth == 0).find_map(|at| Some((at, name_at(statement, at)?)))
}

/// All names with a schema that a statement has besides that of its object; `statement`: [`Statement::whole`].
pub fn mentions(statement: &Statement) -> BTreeSet<Mention> {
    let own = first_name(statement).map(|(at, _)| at);
    let aliases = Aliases::of(statement);
    let of = |at: usize| {
        let name = name_at(statement, at).filter(|_| !aliases.has(statement, at)).or_else(|| of_registered(statement, at))?;
        let names_columns = at > 0 && ["REFERENCES", "INTO"].iter().any(|word| statement.says(at - 1, &[word]));
        let is_call = statement.is_symbol(at + 3, b'(') && statement.name(at + 2).is_some() && !names_columns;
        Some(Mention { name, is_call })
    };
    let is_of_the_user = |mention: &Mention| !["pg_catalog", "information_schema"].contains(&mention.name.schema.as_str());
    (0..statement.tokens.len()).filter(|at| Some(*at) != own).filter_map(of).filter(is_of_the_user).collect()
}

/// All names of schemas in a statement, perhaps with others.
pub fn schemas(statement: &Statement) -> BTreeSet<String> {
    let name = |at: usize| name_at(statement, at).or_else(|| of_registered(statement, at));
    (0..statement.tokens.len()).filter_map(name).map(|name| name.schema).collect()
}

/// The role of `ALTER … OWNER TO role`.
pub fn owner(statement: &Statement) -> Option<String> {
    let at = statement.tokens.len().checked_sub(3)?;
    if statement.says(0, &["ALTER"]) && statement.says(at, &["OWNER", "TO"]) { statement.name(at + 2) } else { None }
}

/// `schema.name`, or `schema.<>` of an operator.
fn name_at(statement: &Statement, at: usize) -> Option<Name> {
    let schema = statement.name(at)?;
    if !statement.is_symbol(at + 1, b'.') || at > 0 && statement.is_symbol(at - 1, b'.') {
        return None;
    }
    if let Some(name) = statement.name(at + 2) {
        return Some(Name { schema, name });
    }
    let is_of_an_operator = |symbol: u8| b"+-*/<>=~!@#%^&|`?".contains(&symbol);
    let symbols = statement.tokens[at + 2..].iter().map_while(|token| match token.kind {
        Kind::Symbol(symbol) if is_of_an_operator(symbol) => Some(char::from(symbol)),
        _ => None,
    });
    let name: String = symbols.collect();
    (!name.is_empty()).then_some(Name { schema, name })
}

/// `'schema.name'::regclass` and the like.
fn of_registered(statement: &Statement, at: usize) -> Option<Name> {
    let is_cast = statement.is_symbol(at + 1, b':') && statement.is_symbol(at + 2, b':');
    let is_registered = statement.name(at + 3).is_some_and(|name| name.starts_with("reg"));
    if is_cast && is_registered { name_in_string(statement, at) } else { None }
}

fn name_in_string(statement: &Statement, at: usize) -> Option<Name> {
    let token = statement.tokens.get(at).filter(|token| token.kind == Kind::String)?;
    let raw = statement.raw(token);
    let escapes = raw.starts_with(['e', 'E']);
    let text = raw.trim_start_matches(['e', 'E']).strip_prefix('\'')?.strip_suffix('\'')?.replace("''", "'");
    let text = if escapes { text.replace("\\\\", "\\") } else { text };
    let (schema, name, _) = Statement::of(&text).qualified(0)?;
    Some(Name { schema: schema?, name })
}

#[cfg(test)]
#[path = "subject_tests.rs"]
mod tests;
