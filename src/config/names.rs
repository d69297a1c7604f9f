//! Names and patterns as files have them: one text, or a list of texts.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde::de::{Deserializer, SeqAccess, Visitor};
use toml::Spanned;

/// A pattern such as "tenant_*", or a list of names and patterns.
#[derive(Debug)]
pub enum Names {
    One(String),
    Several(Vec<Spanned<String>>),
}

impl Names {
    /// Returns the texts without their places.
    pub fn texts(&self) -> Vec<&str> {
        match self {
            Self::One(text) => vec![text],
            Self::Several(texts) => texts.iter().map(|text| text.get_ref().as_str()).collect(),
        }
    }
}

impl<'de> Deserialize<'de> for Names {
    /// Not as an untagged enum, which would lose the places of the list's texts.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneOrSeveral;
        impl<'de> Visitor<'de> for OneOrSeveral {
            type Value = Names;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a pattern such as \"tenant_*\", or a list of names and patterns")
            }

            fn visit_str<E>(self, text: &str) -> Result<Names, E> {
                Ok(Names::One(text.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Names, A::Error> {
                let mut texts = Vec::new();
                while let Some(text) = list.next_element()? {
                    texts.push(text);
                }
                Ok(Names::Several(texts))
            }
        }
        deserializer.deserialize_any(OneOrSeveral)
    }
}

impl JsonSchema for Names {
    fn schema_name() -> Cow<'static, str> {
        "Names".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "anyOf": [
                { "type": "array", "items": { "type": "string" }, "minItems": 1, "uniqueItems": true, "examples": [["tenant_*", "shop"]] },
                { "type": "string", "pattern": "[*?]" },
            ],
            "examples": [["app", "other"]],
        })
    }
}
