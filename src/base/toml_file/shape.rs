//! Compares a document with what is known about its keys: unknown keys, keys in the wrong table, values of the wrong form, and keys that
//! are missing.

use std::ops::Range;

use serde_json::Value;
use toml::de::{DeTable, DeValue};

use super::known::{Form, Known, properties};
use super::near::did_you_mean;
use super::say;

/// The keys that lead to an entry of a document.
pub type Path = Vec<String>;

/// A mistake, and the entry that is left out because of it.
pub struct Mistake {
    pub path: Path,
    pub span: Range<usize>,
    pub message: String,
    pub hint: Option<String>,
}

/// What was found in a document.
#[derive(Default)]
pub struct Found {
    pub mistakes: Vec<Mistake>,
    /// Entries without a mistake of their own that cannot be read because of one.
    pub unusable: Vec<Path>,
    /// What is allowed, and probably not meant.
    pub notes: Vec<(Range<usize>, String)>,
}

/// Compares the document with the schema.
pub fn look(document: &DeTable<'_>, text: &str, known: &Known) -> Found {
    let mut look = Look { known, text, document, found: Found::default(), lacks: Vec::new() };
    look.table(document, 0..0, &known.schema, &Vec::new(), "");
    let Look { mut found, lacks, .. } = look;
    // A key that is missing may be one that stands elsewhere: then that mistake is told alone.
    let is_elsewhere = |key: &String| found.mistakes.iter().any(|mistake| mistake.path.last().is_some_and(|last| last == key));
    let told: Vec<Mistake> =
        lacks.into_iter().filter(|(_, keys)| !keys.iter().any(is_elsewhere)).map(|(mistake, _)| mistake).collect();
    found.mistakes.extend(told);
    found
}

struct Look<'l> {
    known: &'l Known,
    text: &'l str,
    document: &'l DeTable<'l>,
    found: Found,
    /// Tables that lack keys, and the keys.
    lacks: Vec<(Mistake, Vec<String>)>,
}

impl<'l> Look<'l> {
    fn mistake(&mut self, path: &Path, span: Range<usize>, message: String, hint: Option<String>) {
        self.found.mistakes.push(Mistake { path: path.clone(), span, message, hint });
    }

    /// `name` is what people call the table: `[backup]`, `keep`; "" above all tables.
    fn table(&mut self, table: &DeTable<'_>, header: Range<usize>, schema: &'l Value, path: &Path, name: &str) {
        let before = self.found.mistakes.len();
        let others = schema.get("additionalProperties");
        for (key, value) in table {
            let key_name = key.get_ref().to_string();
            let path: Path = path.iter().cloned().chain([key_name.clone()]).collect();
            let known = schema.get("properties").and_then(|keys| keys.get(&key_name));
            // A table with keys of its own and with named tables: what is no table is a key that it does not have.
            let has_both = properties(schema).next().is_some() && has_named_tables(schema);
            let is_key = has_both && !value.get_ref().is_table() && self.list_of_tables(value.get_ref()).is_none();
            let others = if is_key { Some(&Value::Bool(false)) } else { others };
            match (known, others) {
                (Some(schema), _) => self.value(value.get_ref(), value.span(), schema, &path, &inner_name(&key_name, &path)),
                (None, Some(schema)) if schema.is_object() => {
                    let name = match name.strip_suffix(']') {
                        Some(outer) => format!("{outer}.{key_name}]"),
                        None => format!("{}.{key_name}`", name.trim_end_matches('`')),
                    };
                    self.value(value.get_ref(), value.span(), schema, &path, &name);
                }
                (None, Some(Value::Bool(false))) => {
                    let place = if name.is_empty() { String::new() } else { format!(" in {name}") };
                    let hint = self.of_unknown_key(&key_name, value.get_ref(), schema, &path, name);
                    self.mistake(&path, key.span(), format!("unknown key `{key_name}`{place}"), Some(hint));
                }
                (None, _) => {}
            }
        }
        self.missing(table, header, schema, path, name, before);
    }

    /// A key that is missing may be one that has another name: then that mistake is told alone.
    fn missing(&mut self, table: &DeTable<'_>, header: Range<usize>, schema: &Value, path: &Path, name: &str, before: usize) {
        let required = schema.get("required").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        let missing: Vec<&str> = required.iter().filter_map(Value::as_str).filter(|key| !table.contains_key(*key)).collect();
        let has_mistakes = self.found.mistakes.len() > before;
        let is_lost = |mistake: &Mistake| mistake.path.len() == path.len() + 1 && mistake.path.starts_with(path);
        let is_required = |mistake: &Mistake| mistake.path.last().is_some_and(|key| required.iter().any(|known| known == key));
        if missing.is_empty() && self.found.mistakes[before..].iter().any(|mistake| is_lost(mistake) && is_required(mistake)) {
            self.found.unusable.push(path.clone());
        }
        if missing.is_empty() || path.is_empty() {
            return;
        }
        self.found.unusable.push(path.clone());
        if has_mistakes {
            return;
        }
        let example = |key: &str| {
            let schema = schema.get("properties").and_then(|keys| keys.get(key)).unwrap_or(&Value::Null);
            format!("{key} = {}{}", self.known.example(schema), say::others(self.known, schema))
        };
        let names: Vec<String> = missing.iter().map(|key| format!("`{key}`")).collect();
        let examples: Vec<String> = missing.iter().map(|key| example(key)).collect();
        let hint = format!("add {}", examples.join(", "));
        let message = format!("{name} has no {}", say::list(&names, "and no"));
        let mistake = Mistake { path: path.clone(), span: header, message, hint: Some(hint) };
        self.lacks.push((mistake, missing.iter().map(|key| (*key).to_owned()).collect()));
    }

    fn value(&mut self, value: &DeValue<'_>, span: Range<usize>, schema: &'l Value, path: &Path, name: &str) {
        let key = path.last().map(String::as_str).unwrap_or_default();
        let forms = self.known.forms(schema);
        match (value, &forms) {
            _ if forms.is_empty() => {}
            (DeValue::String(text), forms) => {
                let free = forms.iter().find_map(|form| if let Form::Text(schema) = form { Some(*schema) } else { None });
                let listed = forms.iter().find_map(|form| if let Form::OneOf(texts) = form { Some(texts) } else { None });
                if let Some(schema) = free {
                    self.found.notes.extend(say::about_a_month(key, text, schema).map(|note| (span, note)));
                } else if let Some(texts) = listed {
                    if !texts.contains(&&**text) {
                        let hint = say::of_unknown_value(self.known, key, text, texts, schema);
                        self.mistake(path, span, format!("unknown value `{text}` of `{key}`"), Some(hint));
                    }
                } else {
                    self.wrong_form(value, span, schema, path, name);
                }
            }
            (DeValue::Integer(number), forms) => {
                let is_negative = number.as_str().starts_with('-');
                let fits = |form: &Form<'_>| match form {
                    Form::Number => true,
                    Form::Whole { may_be_negative } => *may_be_negative || !is_negative,
                    _ => false,
                };
                if !forms.iter().any(fits) {
                    self.wrong_form(value, span, schema, path, name);
                }
            }
            (DeValue::Float(_), forms) if forms.iter().any(|form| matches!(form, Form::Number)) => {}
            (DeValue::Boolean(_), forms) if forms.iter().any(|form| matches!(form, Form::Flag)) => {}
            (DeValue::Datetime(_), forms) if forms.iter().any(is_date) => {}
            (DeValue::Table(table), forms) => {
                match forms.iter().find_map(|form| if let Form::Table(schema) = form { Some(*schema) } else { None }) {
                    Some(schema) => self.table(table, span, schema, path, name),
                    None => self.wrong_form(value, span, schema, path, name),
                }
            }
            (DeValue::Array(values), forms) => {
                match forms.iter().find_map(|form| if let Form::List(items) = form { Some(*items) } else { None }) {
                    Some(items) => {
                        for value in values {
                            self.value(value.get_ref(), value.span(), items, path, name);
                        }
                    }
                    None => self.wrong_form(value, span, schema, path, name),
                }
            }
            _ => self.wrong_form(value, span, schema, path, name),
        }
    }

    fn wrong_form(&mut self, value: &DeValue<'_>, span: Range<usize>, schema: &'l Value, path: &Path, name: &str) {
        let key = path.last().map(String::as_str).unwrap_or_default();
        if let Some(first) = self.list_of_tables(value) {
            let header = path.join(".");
            let message = format!("[[{header}]] is a list of tables, expected one table");
            self.mistake(path, first, message, Some(format!("write [{header}], once")));
            return;
        }
        // A table in place of a value may be one of another file, and a text in place of a list in a table a key that stands above it.
        if (value.is_table() || value.is_str() && path.len() > 1)
            && let Some(hint) = self.habit(key, &path[..path.len() - 1])
        {
            let found = if value.is_table() { format!("the table {name}") } else { say::found(key, value) };
            let message = format!("found {found}, expected {}", say::expected(self.known, &self.known.forms(schema)));
            self.mistake(path, span, message, Some(hint));
            return;
        }
        let forms = self.known.forms(schema);
        let siblings = self.siblings(path);
        let table = forms.iter().find_map(|form| if let Form::Table(table) = form { Some(*table) } else { None });
        let as_table = table.filter(|_| name.starts_with('[')).map(|table| self.as_table(table, name));
        let message = format!("found {}, expected {}", say::found(key, value), say::expected(self.known, &forms));
        let hint = as_table.unwrap_or_else(|| say::of_wrong_form(self.known, key, value, schema, &siblings));
        self.mistake(path, span, message, Some(hint));
    }

    /// Returns the place of the first header of `[[backup]]`, which is a list of one table.
    fn list_of_tables(&self, value: &DeValue<'_>) -> Option<Range<usize>> {
        let DeValue::Array(values) = value else { return None };
        let first = values.iter().next()?.span();
        self.text.get(first.clone())?.starts_with("[[").then_some(first)
    }

    /// Says how to write a table that has a header: with the keys that it needs, or else the first that has an example.
    fn as_table(&self, table: &'l Value, name: &str) -> String {
        let named = table.get("additionalProperties").filter(|named| named.is_object());
        let (name, table) = match named {
            Some(named) => (name.replace(']', ".NAME]"), self.known.resolved(named)),
            None => (name.to_owned(), table),
        };
        let required = table.get("required").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        let needed = properties(table).filter(|(key, _)| required.iter().any(|known| known == *key));
        let first = properties(table).filter(|(_, schema)| schema.get("examples").is_some()).take(1);
        let keys = if required.is_empty() { first.collect::<Vec<_>>() } else { needed.collect() };
        let keys: Vec<String> = keys.iter().map(|(key, schema)| format!("{key} = {}", self.known.example(schema))).collect();
        match keys.is_empty() {
            true => format!("write {name}, and its keys below it"),
            false => format!("write {name}, and below it {}", keys.join(", ")),
        }
    }

    /// The keys that may stand beside the entry.
    fn siblings(&self, path: &Path) -> Vec<&'l str> {
        let mut schema = &self.known.schema;
        for key in &path[..path.len().saturating_sub(1)] {
            let next = schema.get("properties").and_then(|keys| keys.get(key)).or_else(|| schema.get("additionalProperties"));
            schema = next.map_or(&Value::Null, |next| self.known.resolved(next));
        }
        properties(schema).map(|(key, _)| key.as_str()).collect()
    }

    /// Says what to write in place of a key that its table does not have.
    fn of_unknown_key(&self, key: &str, value: &DeValue<'_>, schema: &'l Value, path: &Path, name: &str) -> String {
        let outer = &path[..path.len() - 1];
        let keys: Vec<&str> = properties(schema).map(|(key, _)| key.as_str()).collect();
        let near = did_you_mean(key, keys.iter().copied());
        self.habit(key, outer)
            .or_else(|| self.belongs(key, outer, value))
            .or(near)
            .or_else(|| has_named_tables(schema).then(|| self.as_table(schema, name).replace("NAME", key)))
            .or_else(|| self.near_elsewhere(key, outer))
            .unwrap_or_else(|| say::some_keys(key, &keys, name, self.known.page))
    }

    fn habit(&self, key: &str, outer: &[String]) -> Option<String> {
        let is_of = |table: &str| {
            let wanted: Vec<&str> = table.split('.').filter(|part| !part.is_empty()).collect();
            table == "*"
                || wanted.len() == outer.len() && wanted.iter().zip(outer).all(|(wanted, key)| *wanted == "*" || wanted == key)
        };
        let habit = self.known.habits.iter().find(|habit| is_of(habit.table) && habit.keys.contains(&key))?;
        Some(habit.instead.replace("{key}", key))
    }

    /// Says in which table the key belongs.
    fn belongs(&self, key: &str, outer: &[String], value: &DeValue<'_>) -> Option<String> {
        let has = |schema: &Value| schema.get("properties").is_some_and(|keys| keys.get(key).is_some());
        let places: Vec<_> = self.known.places().into_iter().filter(|place| has(place.schema)).collect();
        let top = outer.first().map(String::as_str).unwrap_or_default();
        if places.iter().any(|place| place.top.is_empty()) && !outer.is_empty() {
            let table = if value.is_table() { format!("write it as a table of its own: [{key}]") } else { self.above() };
            return Some(format!("`{key}` belongs {table}"));
        }
        let alternatives = self.known.alternatives();
        let is_there = |place: &&super::known::Place<'_>| self.document.contains_key(place.top.as_str()) || place.top == top;
        let is_free = |place: &&super::known::Place<'_>| !alternatives.contains(&place.top.as_str());
        let near = places.iter().find(|place| place.top == top).or_else(|| places.iter().find(is_there));
        if let Some(place) = near.or_else(|| places.iter().find(is_free)) {
            return Some(format!("`{key}` belongs in {}", place.name));
        }
        let names: Vec<String> = places.iter().map(|place| place.name.clone()).collect();
        let is_some = (1..4).contains(&names.len());
        is_some.then(|| format!("it is a key of {}, which this file does not have", say::list(&names, "and")))
    }

    fn above(&self) -> String {
        let first = self.document.iter().filter(|(_, value)| value.get_ref().is_table()).min_by_key(|(key, _)| key.span().start);
        let first = first.map(|(key, _)| format!("above [{}]", key.get_ref()));
        format!("{}: at the top of the file, before its first table", first.unwrap_or_else(|| "above all tables".to_owned()))
    }

    fn near_elsewhere(&self, key: &str, outer: &[String]) -> Option<String> {
        let top = outer.first().map(String::as_str).unwrap_or_default();
        let is_here = |place: &super::known::Place<'_>| {
            place.top.is_empty() || place.top == top || self.document.contains_key(place.top.as_str())
        };
        let alternatives = self.known.alternatives();
        let places =
            self.known.places().into_iter().filter(|place| is_here(place) || !alternatives.contains(&place.top.as_str()));
        let mut near = places.filter_map(|place| {
            let hint = did_you_mean(key, properties(place.schema).map(|(key, _)| key.as_str()))?;
            let place =
                if place.name.is_empty() { format!("belongs {}", self.above()) } else { format!("belongs in {}", place.name) };
            Some(format!("{hint} It {place}"))
        });
        near.next()
    }
}

/// Returns whether it has tables of any name, as [notify.NAME] is one of [notify].
fn has_named_tables(schema: &Value) -> bool {
    schema.get("additionalProperties").is_some_and(Value::is_object)
}

fn inner_name(key: &str, path: &Path) -> String {
    if path.len() == 1 { format!("[{key}]") } else { format!("`{key}`") }
}

fn is_date(form: &Form<'_>) -> bool {
    matches!(form, Form::Text(schema) if schema.get("format").is_some_and(|format| format == "date"))
}
