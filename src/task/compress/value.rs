//! The types of values that can be compressed, and how SQL measures, compares and rewrites a value of each.

use crate::pg::literal;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValueType {
    /// text and varchar
    Text,
    Bytea,
    Jsonb,
    Json,
    Xml,
    Array,
}

impl ValueType {
    /// Recognizes a type as format_type writes it, or returns None.
    pub fn of(data_type: &str) -> Option<Self> {
        let is_varchar =
            data_type == "character varying" || data_type.starts_with("character varying(") && data_type.ends_with(')');
        match data_type {
            _ if data_type.ends_with("[]") => Some(Self::Array),
            "text" => Some(Self::Text),
            "bytea" => Some(Self::Bytea),
            "jsonb" => Some(Self::Jsonb),
            "json" => Some(Self::Json),
            "xml" => Some(Self::Xml),
            _ => is_varchar.then_some(Self::Text),
        }
    }

    /// Returns SQL for the size by which values are chosen, which reads no value: the length of text and bytea is in the pointer to it. That of
    /// other types would have to be computed from each value, so theirs is the size as it is stored.
    pub fn size(self, value: &str) -> String {
        match self {
            Self::Text | Self::Bytea => format!("octet_length({value})"),
            _ => format!("pg_column_size({value})"),
        }
    }

    /// Returns SQL for bytes that differ wherever two values differ.
    pub fn bytes(self, value: &str, encoding: &str) -> String {
        match self {
            Self::Bytea => value.to_owned(),
            Self::Text => format!("pg_catalog.convert_to({value}, {})", literal(encoding)),
            _ => format!("pg_catalog.convert_to(({value})::text, {})", literal(encoding)),
        }
    }

    /// Returns SQL for the same value that PostgreSQL has to compress anew: it keeps the form of a value that comes from a row as it is.
    pub fn anew(self, value: &str, data_type: &str) -> String {
        match self {
            Self::Text => format!("{value} || ''"),
            Self::Bytea => format!("{value} OPERATOR(pg_catalog.||) ''::bytea"),
            // An empty path leads to the whole document, decompressed.
            Self::Jsonb => format!("{value} OPERATOR(pg_catalog.#>) '{{}}'::text[]"),
            Self::Json | Self::Xml => format!("({value}::text || '')::{data_type}"),
            // With an empty array, the result is the other one, decompressed, with its bounds.
            Self::Array => format!("{value} OPERATOR(pg_catalog.||) '{{}}'::{data_type}"),
        }
    }

    /// Returns SQL that reads a whole value and returns a number.
    pub fn read(self, value: &str, data_type: &str) -> String {
        match self {
            Self::Text | Self::Bytea => format!("octet_length({})", self.anew(value, data_type)),
            _ => format!("octet_length(({value})::text)"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_is_recognized_as_format_type_writes_it() {
        for (data_type, expected) in [
            ("text", Some(ValueType::Text)),
            ("character varying", Some(ValueType::Text)),
            ("character varying(10)", Some(ValueType::Text)),
            ("text[]", Some(ValueType::Array)),
            ("character varying(10)[]", Some(ValueType::Array)),
            ("jsonb", Some(ValueType::Jsonb)),
            ("bytea", Some(ValueType::Bytea)),
            ("public.jsonb", None),
            ("character(10)", None),
            ("integer", None),
        ] {
            assert_eq!(ValueType::of(data_type), expected, "{data_type}");
        }
    }
}
