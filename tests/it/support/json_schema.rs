//! Validates values against the JSON Schemas that `pgtend schema` prints: the words of JSON Schema 2020-12 that they use, and no other.

use pgtend::cli::outputs;
use regex_lite::Regex;
use serde_json::Value;

/// Words that say nothing about validity.
const NOTES: [&str; 9] = ["$schema", "$defs", "title", "description", "default", "examples", "format", "$id", "deprecated"];

pub struct Validator<'s> {
    root: &'s Value,
    /// A key that the schema does not name is a mistake, too.
    is_strict: bool,
}

/// Compares what a command printed with its schema: every key is described, and every key that is always there is there.
#[track_caller]
pub fn is_as_described(arguments: &[&str], printed: &Value) {
    let Some(command) = command_of(arguments) else { return };
    is_as_output(command, printed);
}

#[track_caller]
pub fn is_as_output(command: &str, printed: &Value) {
    let schema = outputs::schema(command).unwrap_or_else(|| panic!("`{command}` has no schema"));
    if let Some(mistake) = Validator::strict(&schema).mistake(printed) {
        panic!("`pgtend {command} --json` is not as `pgtend schema output {command}` has it: {mistake}\n{printed:#}");
    }
}

/// The command that begins so; None where it prints no JSON of its own.
fn command_of(arguments: &[&str]) -> Option<&'static str> {
    let words = arguments.iter().take_while(|word| !word.starts_with('-')).copied().collect::<Vec<_>>();
    let known = |length: usize| outputs::commands().find(|name| !name.is_empty() && *name == words[..length].join(" "));
    let is_alone = words.is_empty() && arguments.iter().all(|word| *word == "--json");
    (1..=words.len()).rev().find_map(known).or(is_alone.then_some(""))
}

impl<'s> Validator<'s> {
    pub fn new(root: &'s Value) -> Self {
        Self { root, is_strict: false }
    }

    /// For what pgtend itself writes: every key has to be described.
    pub fn strict(root: &'s Value) -> Self {
        Self { root, is_strict: true }
    }

    /// Returns the first reason why the value is not valid, with its place.
    pub fn mistake(&self, value: &Value) -> Option<String> {
        self.at(value, self.root, "").err()
    }

    fn at(&self, value: &Value, schema: &Value, place: &str) -> Result<(), String> {
        let Some(words) = schema.as_object() else {
            return if *schema == Value::Bool(false) { Err(format!("{place}: nothing is allowed here")) } else { Ok(()) };
        };
        if let Some(known) = words.get("properties").and_then(Value::as_object).filter(|_| self.is_strict) {
            let unknown = value.as_object().into_iter().flatten().find(|(key, _)| !known.contains_key(*key));
            if let Some((key, _)) = unknown {
                return Err(format!("{place}: the key `{key}` is not described"));
            }
        }
        for (word, wanted) in words {
            let is_right = match word.as_str() {
                note if NOTES.contains(&note) => true,
                "$ref" => {
                    let target = self.root.pointer(wanted.as_str().unwrap().trim_start_matches('#')).unwrap();
                    self.at(value, target, place)?;
                    true
                }
                "anyOf" => list(wanted).iter().any(|one| self.at(value, one, place).is_ok()),
                "allOf" => list(wanted).iter().all(|one| self.at(value, one, place).is_ok()),
                "oneOf" => list(wanted).iter().filter(|one| self.at(value, one, place).is_ok()).count() == 1,
                "not" => self.at(value, wanted, place).is_err(),
                "const" => same(value, wanted),
                "enum" => list(wanted).contains(value),
                "type" => match wanted.as_array() {
                    Some(kinds) => kinds.iter().any(|kind| is_of(value, kind.as_str().unwrap())),
                    None => is_of(value, wanted.as_str().unwrap()),
                },
                "minimum" => value.as_f64().is_none_or(|number| number >= wanted.as_f64().unwrap()),
                "maximum" => value.as_f64().is_none_or(|number| number <= wanted.as_f64().unwrap()),
                "exclusiveMinimum" => value.as_f64().is_none_or(|number| number > wanted.as_f64().unwrap()),
                "exclusiveMaximum" => value.as_f64().is_none_or(|number| number < wanted.as_f64().unwrap()),
                "pattern" => value.as_str().is_none_or(|text| Regex::new(wanted.as_str().unwrap()).unwrap().is_match(text)),
                "minLength" => value.as_str().is_none_or(|text| text.chars().count() as u64 >= wanted.as_u64().unwrap()),
                "maxItems" => value.as_array().is_none_or(|values| values.len() as u64 <= wanted.as_u64().unwrap()),
                "prefixItems" => {
                    for (index, (item, wanted)) in value.as_array().into_iter().flatten().zip(list(wanted)).enumerate() {
                        self.at(item, wanted, &format!("{place}/{index}"))?;
                    }
                    true
                }
                "minItems" => value.as_array().is_none_or(|values| values.len() as u64 >= wanted.as_u64().unwrap()),
                "uniqueItems" => value
                    .as_array()
                    .is_none_or(|values| values.iter().enumerate().all(|(index, value)| !values[..index].contains(value))),
                "required" => {
                    value.as_object().is_none_or(|keys| list(wanted).iter().all(|key| keys.contains_key(key.as_str().unwrap())))
                }
                "dependentRequired" => value.as_object().is_none_or(|keys| {
                    let needs = wanted.as_object().unwrap().iter().filter(|(key, _)| keys.contains_key(*key));
                    needs.flat_map(|(_, needed)| list(needed)).all(|key| keys.contains_key(key.as_str().unwrap()))
                }),
                "items" => {
                    for (index, item) in value.as_array().into_iter().flatten().enumerate() {
                        self.at(item, wanted, &format!("{place}/{index}"))?;
                    }
                    true
                }
                "properties" => {
                    for (key, schema) in wanted.as_object().unwrap() {
                        if let Some(value) = value.get(key) {
                            self.at(value, schema, &format!("{place}/{key}"))?;
                        }
                    }
                    true
                }
                "additionalProperties" => {
                    let known = schema.get("properties").and_then(Value::as_object);
                    let others = value.as_object().into_iter().flatten();
                    for (key, value) in others.filter(|(key, _)| known.is_none_or(|known| !known.contains_key(*key))) {
                        self.at(value, wanted, &format!("{place}/{key}"))?;
                    }
                    true
                }
                other => panic!("the validator of the tests does not know `{other}`"),
            };
            if !is_right {
                return Err(format!("{place}: {value} is against `{word}`: {wanted}"));
            }
        }
        Ok(())
    }
}

fn list(value: &Value) -> &Vec<Value> {
    value.as_array().unwrap()
}

fn same(one: &Value, other: &Value) -> bool {
    one == other || one.as_f64().is_some_and(|number| other.as_f64() == Some(number))
}

fn is_of(value: &Value, kind: &str) -> bool {
    match kind {
        "null" => value.is_null(),
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "number" => value.is_number(),
        "integer" => value.as_i64().is_some() || value.as_u64().is_some(),
        other => panic!("no type `{other}`"),
    }
}
