//! Says of a CHECK what it makes of a row whose text is in the companion column, NULL in its own. Pure.
//!
//! The answer comes from the expression as the catalog has it (`pg_constraint.conbin`), and not from a query: that would read the table and run the functions
//! of the CHECK as the login, by names that others can give another meaning. A function that is STRICT returns NULL for NULL without being called, and a CHECK
//! refuses only what is FALSE.

use std::collections::HashSet;

/// Deeper expressions are not judged.
const MOST_LEVELS: usize = 200;

/// What a CHECK does to a row that it let in with its text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    LetsIn,
    Refuses,
    /// It depends on other columns, or on a function.
    CannotTell,
}

/// The functions and operators of an expression that are strict, by their oids.
#[derive(Debug, Default)]
pub struct Strict {
    pub functions: HashSet<i64>,
    pub operators: HashSet<i64>,
}

/// Judges the tree of a CHECK. `column`: the attribute number of the text.
pub fn judge(tree: &str, column: i16, strict: &Strict) -> Verdict {
    let Some(Value::Node(node)) = parse(tree) else { return Verdict::CannotTell };
    match (Reader { column: column.to_string(), strict }).effect(&node) {
        Effect::False => Verdict::Refuses,
        Effect::Unknown => Verdict::CannotTell,
        Effect::Same | Effect::Null | Effect::Harmless | Effect::True => Verdict::LetsIn,
    }
}

/// The value of an expression once the text is NULL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Effect {
    /// As before: it does not read the column.
    Same,
    Null,
    /// Not FALSE unless it was, and not TRUE unless it was. AND, OR and NOT of such values are of that kind, too: each of them is as before or NULL.
    Harmless,
    True,
    False,
    Unknown,
}

struct Reader<'a> {
    column: String,
    strict: &'a Strict,
}

impl Reader<'_> {
    fn effect(&self, node: &Node) -> Effect {
        if !self.reads_the_column(node) {
            return Effect::Same;
        }
        let of_argument = || node.node("arg").map_or(Effect::Unknown, |argument| self.effect(argument));
        match node.name.as_str() {
            "VAR" if node.word("varattno") == Some(&self.column) => Effect::Null,
            "OPEXPR" if is_in(&self.strict.operators, node.word("opno")) => self.strict_call(node),
            "FUNCEXPR" if is_in(&self.strict.functions, node.word("funcid")) => self.strict_call(node),
            // `body IN (…)`: an OR or AND of comparisons.
            "SCALARARRAYOPEXPR" if is_in(&self.strict.operators, node.word("opno")) => match self.arguments(node).as_slice() {
                [Effect::Null, Effect::Same] => Effect::Harmless,
                _ => Effect::Unknown,
            },
            "RELABELTYPE" | "COLLATEEXPR" | "COERCEVIAIO" => match of_argument() {
                Effect::Null => Effect::Null,
                _ => Effect::Unknown,
            },
            "BOOLEXPR" => self.combined(node),
            // IS NULL is 0.
            "NULLTEST" => match (of_argument(), node.word("nulltesttype").map(String::as_str)) {
                (Effect::Null, Some("0")) => Effect::True,
                (Effect::Null, Some("1")) => Effect::False,
                _ => Effect::Unknown,
            },
            // IS TRUE, IS NOT TRUE, IS FALSE, IS NOT FALSE, IS UNKNOWN, IS NOT UNKNOWN.
            "BOOLEANTEST" => match (of_argument(), node.word("booltesttype").map(String::as_str)) {
                (Effect::Null, Some("0" | "2" | "5")) => Effect::False,
                (Effect::Null, Some("1" | "3" | "4")) => Effect::True,
                _ => Effect::Unknown,
            },
            _ => Effect::Unknown,
        }
    }

    fn strict_call(&self, node: &Node) -> Effect {
        if self.arguments(node).contains(&Effect::Null) { Effect::Null } else { Effect::Unknown }
    }

    fn arguments(&self, node: &Node) -> Vec<Effect> {
        node.nodes("args").iter().map(|argument| self.effect(argument)).collect()
    }

    fn combined(&self, node: &Node) -> Effect {
        let mut effects = self.arguments(node);
        let (decides, neutral) = match node.word("boolop").map(String::as_str) {
            Some("and") => (Effect::False, Effect::True),
            Some("or") => (Effect::True, Effect::False),
            Some("not") => {
                return match effects.as_slice() {
                    [Effect::True] => Effect::False,
                    [Effect::False] => Effect::True,
                    [other] => *other,
                    _ => Effect::Unknown,
                };
            }
            _ => return Effect::Unknown,
        };
        if effects.contains(&decides) {
            return decides;
        }
        let all = effects.len();
        effects.retain(|effect| *effect != neutral);
        let is_changed = effects.len() < all;
        match () {
            () if effects.contains(&Effect::Unknown) => Effect::Unknown,
            () if effects.is_empty() => neutral,
            () if effects.iter().all(|effect| *effect == Effect::Null) => Effect::Null,
            // A part that is certain now may have been what decided before.
            () if is_changed => Effect::Unknown,
            () => Effect::Harmless,
        }
    }

    /// Also true of the whole row, which is attribute 0.
    fn reads_the_column(&self, node: &Node) -> bool {
        let is_it = node.name == "VAR" && node.word("varattno").is_none_or(|number| *number == self.column || number == "0");
        is_it || node.fields.iter().any(|(_, value)| self.is_read_in(value))
    }

    fn is_read_in(&self, value: &Value) -> bool {
        match value {
            Value::Word(_) => false,
            Value::Node(node) => self.reads_the_column(node),
            Value::List(values) => values.iter().any(|value| self.is_read_in(value)),
        }
    }
}

fn is_in(oids: &HashSet<i64>, oid: Option<&String>) -> bool {
    oid.and_then(|oid| oid.parse().ok()).is_some_and(|oid: i64| oids.contains(&oid))
}

/// A node of an expression as PostgreSQL writes it: `{NAME :field value …}`.
#[derive(Debug)]
struct Node {
    name: String,
    fields: Vec<(String, Value)>,
}

#[derive(Debug)]
enum Value {
    Word(String),
    Node(Node),
    List(Vec<Value>),
}

impl Node {
    fn value(&self, field: &str) -> Option<&Value> {
        self.fields.iter().find(|(name, _)| name == field).map(|(_, value)| value)
    }

    fn word(&self, field: &str) -> Option<&String> {
        match self.value(field)? {
            Value::Word(word) => Some(word),
            _ => None,
        }
    }

    fn node(&self, field: &str) -> Option<&Node> {
        match self.value(field)? {
            Value::Node(node) => Some(node),
            _ => None,
        }
    }

    fn nodes(&self, field: &str) -> Vec<&Node> {
        let Some(Value::List(values)) = self.value(field) else { return Vec::new() };
        values.iter().filter_map(|value| if let Value::Node(node) = value { Some(node) } else { None }).collect()
    }
}

/// Reads a tree; None if it is not one, or too deep.
fn parse(text: &str) -> Option<Value> {
    let spaced = text.replace('{', " { ").replace('}', " } ").replace('(', " ( ").replace(')', " ) ");
    let mut words = spaced.split_ascii_whitespace().peekable();
    let value = value(&mut words, 0)?;
    words.next().is_none().then_some(value)
}

type Words<'a> = std::iter::Peekable<std::str::SplitAsciiWhitespace<'a>>;

fn value(words: &mut Words, level: usize) -> Option<Value> {
    if level > MOST_LEVELS {
        return None;
    }
    match words.next()? {
        "{" => {
            let mut node = Node { name: words.next()?.to_owned(), fields: Vec::new() };
            loop {
                match words.next()? {
                    "}" => return Some(Value::Node(node)),
                    word => {
                        // What has no colon are the bytes of a constant, which follow their number.
                        if let Some(field) = word.strip_prefix(':') {
                            node.fields.push((field.to_owned(), value(words, level + 1)?));
                        }
                    }
                }
            }
        }
        "(" => {
            let mut list = Vec::new();
            while *words.peek()? != ")" {
                list.push(value(words, level + 1)?);
            }
            words.next();
            Some(Value::List(list))
        }
        "}" | ")" => None,
        word => Some(Value::Word(word.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BODY: &str = "{VAR :varno 1 :varattno 2 :vartype 25}";
    const OTHER: &str = "{VAR :varno 1 :varattno 3 :vartype 25}";
    const EMPTY: &str =
        "{CONST :consttype 25 :constlen -1 :constbyval false :constisnull false :location 9 :constvalue 4 [ 16 0 0 0 ]}";

    fn is_null(of: &str, test: u8) -> String {
        format!("{{NULLTEST :arg {of} :nulltesttype {test} :argisrow false :location 1}}")
    }

    fn bool(operator: &str, arguments: &[&str]) -> String {
        format!("{{BOOLEXPR :boolop {operator} :args ({}) :location 1}}", arguments.join(" "))
    }

    /// `body <> ''`, by an operator that is strict if its oid is 531.
    fn differs(operator: i64, from: &str) -> String {
        format!("{{OPEXPR :opno {operator} :opfuncid 157 :args ({from} {EMPTY}) :location 1}}")
    }

    #[test]
    fn a_check_is_judged_by_its_tree() {
        let strict = Strict { functions: [1317].into(), operators: [531, 521].into() };
        let (has, lacks) = (is_null(BODY, 1), is_null(BODY, 0));
        let (is_full, other_is_full) = (differs(531, BODY), differs(531, OTHER));
        let length = format!("{{OPEXPR :opno 521 :args ({{FUNCEXPR :funcid 1317 :args ({BODY}) :location 1}} {EMPTY})}}");
        let unknown = format!("{{FUNCEXPR :funcid 99999 :args ({BODY}) :location 1}}");
        let of_other = format!("{{FUNCEXPR :funcid 99999 :args ({OTHER}) :location 1}}");
        let one_of =
            |of: &str| format!("{{SCALARARRAYOPEXPR :opno 531 :useOr true :args ({of} {{ARRAYEXPR :elements ({EMPTY})}})}}");
        let row = "{VAR :varno 1 :varattno 0 :vartype 16400}";
        for (tree, expected) in [
            (is_full.clone(), Verdict::LetsIn),
            (length.clone(), Verdict::LetsIn),
            (bool("and", &[&length, &other_is_full]), Verdict::LetsIn),
            (bool("or", &[&is_full, &of_other]), Verdict::LetsIn),
            (bool("not", &[&bool("or", &[&is_full, &of_other])]), Verdict::LetsIn),
            (one_of(BODY), Verdict::LetsIn),
            (lacks.clone(), Verdict::LetsIn),
            (bool("or", &[&lacks, &unknown]), Verdict::LetsIn),
            (of_other.clone(), Verdict::LetsIn),
            (has.clone(), Verdict::Refuses),
            (bool("not", &[&lacks]), Verdict::Refuses),
            (bool("and", &[&has, &unknown]), Verdict::Refuses),
            (format!("{{BOOLEANTEST :arg {is_full} :booltesttype 0 :location 1}}"), Verdict::Refuses),
            (unknown.clone(), Verdict::CannotTell),
            (differs(4711, BODY), Verdict::CannotTell),
            (bool("or", &[&has, &other_is_full]), Verdict::CannotTell),
            (bool("and", &[&lacks, &other_is_full]), Verdict::CannotTell),
            (one_of(OTHER).replace(EMPTY, BODY), Verdict::CannotTell),
            (is_null(row, 1), Verdict::CannotTell),
            (format!("{{COALESCE :args ({BODY} {EMPTY})}}"), Verdict::CannotTell),
            ("no tree".to_owned(), Verdict::CannotTell),
        ] {
            assert_eq!(judge(&tree, 2, &strict), expected, "{tree}");
        }
        let deep = format!("{}{BODY}{}", "{BOOLEXPR :boolop not :args (".repeat(5000), ")}".repeat(5000));
        assert_eq!(judge(&deep, 2, &strict), Verdict::CannotTell);
    }
}
