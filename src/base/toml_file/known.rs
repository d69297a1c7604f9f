//! What is known about the keys of a kind of file, from its JSON Schema: which table has which keys, their forms, and examples.

use schemars::JsonSchema;
use serde_json::{Map, Value, json};

/// The keys of a kind of file, and what people write in their place.
pub struct Known {
    /// The JSON Schema, without `null`, which TOML does not have.
    pub schema: Value,
    /// Keys of other programs, and of other files of ours.
    pub habits: &'static [Habit],
    /// Values of other programs: the key, the value, and ours.
    pub words: &'static [(&'static str, &'static str, &'static str)],
    /// Where all keys are described.
    pub page: &'static str,
}

/// Keys that people know from elsewhere, and what to write here.
pub struct Habit {
    /// The table that they are written in: "" above all tables, `databases.*` for each of the databases, "*" in any table.
    pub table: &'static str,
    pub keys: &'static [&'static str],
    pub instead: &'static str,
}

/// A form that a value may have.
pub enum Form<'s> {
    /// One of these texts.
    OneOf(Vec<&'s str>),
    Text(&'s Value),
    Whole {
        may_be_negative: bool,
    },
    Number,
    Flag,
    Table(&'s Value),
    List(&'s Value),
}

/// A table of the schema: its name for people, the first key of its path, and its schema.
pub struct Place<'s> {
    pub name: String,
    pub top: String,
    pub schema: &'s Value,
}

impl Known {
    pub fn of<T: JsonSchema>(
        habits: &'static [Habit],
        words: &'static [(&'static str, &'static str, &'static str)],
        page: &'static str,
    ) -> Self {
        let mut schema = json!(schemars::schema_for!(T));
        drop_nulls(&mut schema);
        Self { schema, habits, words, page }
    }

    /// Follows references.
    pub fn resolved<'s>(&'s self, mut schema: &'s Value) -> &'s Value {
        // A reference to a reference is rare; one to itself is none of ours.
        for _ in 0..8 {
            let name = schema.get("$ref").and_then(Value::as_str).and_then(|path| path.rsplit('/').next());
            match name.and_then(|name| self.schema.get("$defs")?.get(name)) {
                Some(target) => schema = target,
                None => break,
            }
        }
        schema
    }

    /// Returns the forms of a value, those of one text together.
    pub fn forms<'s>(&'s self, schema: &'s Value) -> Vec<Form<'s>> {
        let (mut forms, mut texts) = (Vec::new(), Vec::new());
        self.add_forms(schema, &mut forms, &mut texts);
        if !texts.is_empty() {
            forms.insert(0, Form::OneOf(texts));
        }
        forms
    }

    fn add_forms<'s>(&'s self, schema: &'s Value, forms: &mut Vec<Form<'s>>, texts: &mut Vec<&'s str>) {
        let schema = self.resolved(schema);
        if let Some(several) = schema.get("anyOf").or_else(|| schema.get("oneOf")).and_then(Value::as_array)
            && schema.get("type").is_none()
        {
            several.iter().for_each(|one| self.add_forms(one, forms, texts));
            return;
        }
        let listed = schema.get("enum").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        let known: Vec<&str> = schema.get("const").into_iter().chain(listed).filter_map(Value::as_str).collect();
        if !known.is_empty() {
            texts.extend(known);
            return;
        }
        match schema.get("type").and_then(Value::as_str) {
            Some("string") => forms.push(Form::Text(schema)),
            Some("integer") => forms.push(Form::Whole { may_be_negative: schema.get("minimum").is_none() }),
            Some("number") => forms.push(Form::Number),
            Some("boolean") => forms.push(Form::Flag),
            Some("object") => forms.push(Form::Table(schema)),
            Some("array") => forms.push(Form::List(schema.get("items").unwrap_or(&Value::Null))),
            _ => {}
        }
    }

    /// Returns an example of a key's value as TOML; a made-up one where the schema has none.
    pub fn example(&self, schema: &Value) -> String {
        let resolved = self.resolved(schema);
        let given = [schema, resolved].into_iter().find_map(|schema| schema.get("examples")?.get(0));
        if let Some(example) = given {
            let is_date = [schema, resolved].iter().any(|schema| schema.get("format").is_some_and(|format| format == "date"));
            return if is_date { toml(example).replace('"', "") } else { toml(example) };
        }
        match self.forms(schema).first() {
            Some(Form::OneOf(texts)) => format!("{:?}", texts.first().copied().unwrap_or_default()),
            Some(Form::Text(_)) | None => "\"…\"".to_owned(),
            Some(Form::Whole { .. }) => "3".to_owned(),
            Some(Form::Number) => "0.5".to_owned(),
            Some(Form::Flag) => "true".to_owned(),
            Some(Form::Table(_)) => "{ … }".to_owned(),
            Some(Form::List(items)) => format!("[{}]", self.example(items)),
        }
    }

    /// Returns every table of the file, that above all tables first.
    pub fn places(&self) -> Vec<Place<'_>> {
        let mut places = vec![Place { name: String::new(), top: String::new(), schema: &self.schema }];
        for (key, schema) in properties(&self.schema) {
            for form in self.forms(schema) {
                let Form::Table(table) = form else { continue };
                let named = table.get("additionalProperties").filter(|named| named.is_object());
                if named.is_none() || properties(table).next().is_some() {
                    self.add_place(format!("[{key}]"), key, table, &mut places);
                }
                if let Some(named) = named {
                    self.add_place(format!("[{key}.NAME]"), key, self.resolved(named), &mut places);
                }
            }
        }
        places
    }

    fn add_place<'s>(&'s self, name: String, top: &str, table: &'s Value, places: &mut Vec<Place<'s>>) {
        self.add_inner(&name, top, table, places);
        places.push(Place { name, top: top.to_owned(), schema: table });
    }

    fn add_inner<'s>(&'s self, outer: &str, top: &str, table: &'s Value, places: &mut Vec<Place<'s>>) {
        for (key, schema) in properties(table) {
            for form in self.forms(schema) {
                if let Form::Table(inner) = form {
                    places.push(Place { name: format!("`{key}` of {outer}"), top: top.to_owned(), schema: inner });
                }
            }
        }
    }

    /// Returns the tables of which a file has one.
    pub fn alternatives(&self) -> Vec<&str> {
        let one_of = self.schema.get("oneOf").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        one_of.iter().filter_map(|one| one.get("required")?.get(0)?.as_str()).collect()
    }
}

pub fn properties(schema: &Value) -> impl Iterator<Item = (&String, &Value)> {
    schema.get("properties").and_then(Value::as_object).into_iter().flatten()
}

/// Writes a value of JSON as TOML in one line.
fn toml(value: &Value) -> String {
    match value {
        Value::Object(keys) if keys.is_empty() => "{}".to_owned(),
        Value::Object(keys) => {
            let is_bare = |key: &str| key.chars().all(|letter| letter.is_ascii_alphanumeric() || "-_".contains(letter));
            let key = |key: &str| if is_bare(key) { key.to_owned() } else { format!("{key:?}") };
            let keys: Vec<String> = keys.iter().map(|(name, value)| format!("{} = {}", key(name), toml(value))).collect();
            format!("{{ {} }}", keys.join(", "))
        }
        Value::Array(values) => format!("[{}]", values.iter().map(toml).collect::<Vec<_>>().join(", ")),
        value => value.to_string(),
    }
}

/// Takes `null` out of a schema.
fn drop_nulls(schema: &mut Value) {
    let null = json!({ "type": "null" });
    match schema {
        Value::Array(values) => values.iter_mut().for_each(drop_nulls),
        Value::Object(keys) => {
            keys.retain(|key, value| !(key == "default" && value.is_null()));
            for list in ["anyOf", "enum"] {
                if let Some(Value::Array(values)) = keys.get_mut(list) {
                    values.retain(|value| *value != null && !value.is_null());
                }
            }
            if let Some(Value::Array(types)) = keys.get_mut("type") {
                types.retain(|kind| kind != "null");
                if let [only] = types.as_slice() {
                    let only = only.clone();
                    keys.insert("type".to_owned(), only);
                }
            }
            take_in_the_only_one(keys);
            keys.values_mut().for_each(drop_nulls);
        }
        _ => {}
    }
}

/// `anyOf` with one schema is that schema.
fn take_in_the_only_one(keys: &mut Map<String, Value>) {
    let is_one = keys.get("anyOf").and_then(Value::as_array).is_some_and(|values| values.len() == 1);
    if !is_one {
        return;
    }
    if let Some(Value::Array(values)) = keys.remove("anyOf") {
        for (key, value) in
            values.into_iter().filter_map(|one| if let Value::Object(one) = one { Some(one) } else { None }).flatten()
        {
            keys.entry(key).or_insert(value);
        }
    }
}
