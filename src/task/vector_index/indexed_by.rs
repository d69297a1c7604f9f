//! What an index is on: the column itself, or a cast of it. Every other index of the column is left alone, by its name, and nothing is built beside it.

use anyhow::Result;
use sqlx::PgConnection;

use super::keys::VectorIndex;
use super::kind::{Method, Metric, Quantize, ValueType};
use super::state::{Facts, Found, refused};
use crate::pg::{identifier, qualified};

/// The key by which an index can answer the job's searches: the column itself, or the column in half precision, or with a number of dimensions.
pub struct IndexedBy {
    /// The column is cast to this type.
    pub cast: Option<ValueType>,
    /// The type of the values in the index.
    pub value: ValueType,
    pub dimensions: u32,
    /// True if it is on the signs of the column's values.
    pub is_bits: bool,
    pub column: Column,
    /// That of the index, which may be coarser than the job's.
    pub metric: Metric,
}

/// The column as an index may have it.
pub struct Column {
    attnum: i16,
    name: String,
    /// pgvector's schema, where the types of casts are.
    extension: String,
    /// True if the job asks for an index on bits: without that, pgtend does not know how one is searched.
    knows_bits: bool,
}

/// What an index is on.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Key {
    Column,
    Cast(ValueType, u32),
    Bits(u32),
}

impl Column {
    /// Returns what the index is on, if it is known. The operator class has to be pgvector's own, and the catalog has to say that the index depends on
    /// this column.
    fn key_of(&self, index: &Found) -> Option<Key> {
        if !index.is_by_pgvector || !index.depends_on(self.attnum) {
            return None;
        }
        if index.is_on_column(self.attnum) {
            return Some(Key::Column);
        }
        let expression = index.expression.as_deref()?;
        if let Some(dimensions) = bits_of(expression, &self.name, &self.extension).filter(|_| self.knows_bits) {
            return Some(Key::Bits(dimensions));
        }
        cast_of(expression, &self.name, &self.extension).map(|(value, dimensions)| Key::Cast(value, dimensions))
    }

    fn cast_of(&self, index: &Found) -> Option<(ValueType, u32)> {
        match self.key_of(index)? {
            Key::Cast(value, dimensions) => Some((value, dimensions)),
            _ => None,
        }
    }
}

/// Reads `(embedding)::public.vector(8)` as pg_get_expr writes it: a cast of this very column to a type of pgvector. Pure.
fn cast_of(expression: &str, column: &str, extension: &str) -> Option<(ValueType, u32)> {
    let rest = expression.strip_prefix('(')?;
    let to = rest[name_length(rest, column)?..].strip_prefix(")::")?;
    let to = to[name_length(to, extension)?..].strip_prefix('.')?.strip_suffix(')')?;
    let (name, dimensions) = to.split_once('(')?;
    Some((ValueType::of(name.trim_matches('"'))?, dimensions.parse().ok()?))
}

/// Reads `(public.binary_quantize(embedding))::bit(64)` in the same way. Pure.
fn bits_of(expression: &str, column: &str, extension: &str) -> Option<u32> {
    let call = expression.strip_prefix('(')?;
    let of = call[name_length(call, extension)?..].strip_prefix(".binary_quantize(")?;
    of[name_length(of, column)?..].strip_prefix("))::bit(")?.strip_suffix(')')?.parse().ok()
}

/// Returns the length of the name where the text begins with it: as the server quotes it, where it has to. Pure.
fn name_length(text: &str, name: &str) -> Option<usize> {
    let quoted = identifier(name);
    if text.starts_with(&quoted) {
        return Some(quoted.len());
    }
    // What the server writes without quotes has no other letters.
    let is_plain = name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
    let end = text.find(|letter: char| !(letter.is_ascii_alphanumeric() || letter == '_' || letter == '$'))?;
    (is_plain && &text[..end] == name).then_some(end)
}

impl IndexedBy {
    /// Chooses the key of the index that the job names. Otherwise half precision where the vector exceeds the limit for an index, or where the
    /// existing index has it; and the only cast of a column without a number of dimensions.
    pub fn choose(
        facts: &Facts,
        found: &[Found],
        job: &VectorIndex,
        extension: &str,
        (value, dimensions): (ValueType, Option<u32>),
        is_partition: bool,
    ) -> Result<Self> {
        let attnum = facts.attnum.unwrap_or_default();
        let column = || Column {
            attnum,
            name: job.column.clone(),
            extension: extension.to_owned(),
            knows_bits: job.quantize == Some(Quantize::Bit),
        };
        let by = |cast: Option<ValueType>, dimensions: u32| Self {
            cast,
            value: cast.unwrap_or(value),
            dimensions,
            is_bits: false,
            column: column(),
            metric: job.metric,
        };
        if let Some(quantize) = job.quantize {
            let dimensions = quantized(facts, job, quantize, (value, dimensions))?;
            return Ok(match quantize {
                Quantize::Halfvec => by(Some(ValueType::Halfvec), dimensions),
                Quantize::Bit => Self { value: ValueType::Bit, is_bits: true, metric: Metric::Hamming, ..by(None, dimensions) },
            });
        }
        let named = found.iter().find(|index| !is_partition && Some(&index.name) == job.index.as_ref());
        let key = named.and_then(|index| Some((index, column().cast_of(index)?)));
        if let Some((index, (cast, dimensions))) = key
            && by(Some(cast), dimensions).is_of(index)
        {
            return Ok(by(Some(cast), dimensions));
        }
        let Some(dimensions) = dimensions else { return Self::only_cast(facts, found, job, value, by) };
        let (as_it_is, in_half) = (by(None, dimensions), by(Some(ValueType::Halfvec), dimensions));
        let is_halfvec = value == ValueType::Vector
            && (dimensions > ValueType::Vector.max_dimensions()
                || found.iter().any(|index| in_half.is_of(index)) && !found.iter().any(|index| as_it_is.is_of(index)));
        Ok(if is_halfvec { in_half } else { as_it_is })
    }

    /// A column without a number of dimensions may hold vectors of several models: each index is on a cast of those of one.
    fn only_cast(
        facts: &Facts,
        found: &[Found],
        job: &VectorIndex,
        value: ValueType,
        by: impl Fn(Option<ValueType>, u32) -> Self,
    ) -> Result<Self> {
        let (table, column) = (qualified(&facts.schema, &facts.name), identifier(&job.column));
        let without = format!("{table}.{column} is {} without a number of dimensions", value.name());
        let casts: Vec<(&str, Self)> = found
            .iter()
            .filter_map(|index| {
                let (cast, dimensions) = by(None, 0).column.cast_of(index)?;
                let key = by(Some(cast), dimensions);
                key.is_of(index).then_some((index.name.as_str(), key))
            })
            .collect();
        let names: Vec<&str> = casts.iter().map(|(name, _)| *name).collect();
        let names = names.join(", ");
        match casts.len() {
            1 => Ok(casts.into_iter().map(|(_, key)| key).next().unwrap_or_else(|| by(None, 0))),
            0 => Err(refused(format!(
                "{without} and cannot be indexed: ALTER TABLE {table} ALTER {column} TYPE {}(N)",
                value.name()
            ))),
            _ => Err(refused(format!(
                "{without}, and has several indexes on casts of it: {names}; choose one with `index = \"NAME\"`"
            ))),
        }
    }

    /// Returns whether the index has this key and an operator class for the metric.
    pub fn is_of(&self, index: &Found) -> bool {
        let key = match (self.is_bits, self.cast) {
            (true, _) => Key::Bits(self.dimensions),
            (false, Some(cast)) => Key::Cast(cast, self.dimensions),
            (false, None) => Key::Column,
        };
        let class = Method::of(&index.method).and_then(|method| self.value.operator_class(method, self.metric));
        self.column.key_of(index) == Some(key) && class.as_ref() == Some(&index.operator_class)
    }
}

/// Returns the dimensions of a column whose vectors can be made smaller so.
fn quantized(facts: &Facts, job: &VectorIndex, quantize: Quantize, (value, dimensions): (ValueType, Option<u32>)) -> Result<u32> {
    let column = format!("{}.{}", qualified(&facts.schema, &facts.name), identifier(&job.column));
    let is_fit = value == ValueType::Vector || value == ValueType::Halfvec && quantize == Quantize::Bit;
    match dimensions.filter(|_| is_fit) {
        Some(dimensions) => Ok(dimensions),
        None if is_fit => Err(refused(format!("`quantize` is for a column with a number of dimensions, and {column} has none"))),
        None => Err(refused(format!("{column} is of type {}, and `quantize` is for columns of type vector", value.name()))),
    }
}

/// Returns the other indexes that depend on the column and that pgtend does not tend: on binary_quantize(…), on subvector(…), of other extensions. Each
/// with what it is on.
pub async fn others(
    connection: &mut PgConnection,
    facts: &Facts,
    found: &[Found],
    column: &Column,
) -> Result<Vec<(String, String)>> {
    let all: Vec<(i64, String, String)> = sqlx::query_as(
        "SELECT x.oid::bigint, x.relname::text, format('%s (%s)', am.amname, pg_get_indexdef(x.oid, 1, false))
         FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid JOIN pg_am am ON am.oid = x.relam
         WHERE i.indrelid = $1::bigint::oid AND am.amname NOT IN ('btree', 'hash', 'gist', 'spgist', 'gin', 'brin')
           AND EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = x.oid AND d.refclassid = 'pg_class'::regclass
                       AND d.refobjid = i.indrelid AND d.refobjsubid = $2) ORDER BY 2",
    )
    .bind(facts.oid)
    .bind(i32::from(column_number(facts)))
    .fetch_all(connection)
    .await?;
    let is_known = |oid: i64| found.iter().any(|index| index.oid == oid && column.key_of(index).is_some());
    Ok(all.into_iter().filter(|(oid, ..)| !is_known(*oid)).map(|(_, name, on)| (name, on)).collect())
}

fn column_number(facts: &Facts) -> i16 {
    facts.attnum.unwrap_or_default()
}

/// Refuses to build a second index beside one whose searches pgtend cannot make: they may be reranked, or of a part of each vector.
pub fn refuse_beside_others(facts: &Facts, job: &VectorIndex, has_index: bool, others: &[(String, String)]) -> Result<()> {
    let is_named = |name: &str| job.index.as_deref() == Some(name);
    let [(name, on), ..] = others else { return Ok(()) };
    let table = qualified(&facts.schema, &facts.name);
    if let Some((name, on)) = others.iter().find(|(name, _)| is_named(name)) {
        let is_bits = on.contains("binary_quantize");
        let bits = if is_bits { " (`quantize = \"bit\"` does, where the index is by bit_hamming_ops)" } else { "" };
        return Err(refused(format!(
            "{name} of {table} is {on}: its searches are reranked or of a part of each vector, and pgtend can neither measure nor tend it{bits}; REINDEX INDEX CONCURRENTLY rebuilds it"
        )));
    }
    if has_index || job.index.is_some() {
        return Ok(());
    }
    Err(refused(format!(
        "{table} has no index on {} itself, but {name}, which is {on} and answers searches of its own kind: none is built beside it; \
         if another one is wanted, give it a name with `index = \"NAME\"`",
        identifier(&job.column)
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cast_is_of_this_very_column_and_to_pgvectors_own_type() {
        let of = |expression: &str, column: &str| cast_of(expression, column, "public");
        assert_eq!(of("(embedding)::public.vector(8)", "embedding"), Some((ValueType::Vector, 8)));
        assert_eq!(of("(\"my col\")::public.halfvec(3000)", "my col"), Some((ValueType::Halfvec, 3000)));
        assert_eq!(of("(\"select\")::public.vector(8)", "select"), Some((ValueType::Vector, 8)));
        assert_eq!(cast_of("(e)::\"My Ext\".vector(8)", "e", "My Ext"), Some((ValueType::Vector, 8)));
        for (expression, column) in [
            ("(\"my col\")::public.vector(8)", "mycol"),
            ("(mycol)::public.vector(8)", "my col"),
            ("(mycol)::public.vector(8)", "my"),
            ("(\"Mycol\")::public.vector(8)", "mycol"),
            ("(\"\"\"a\"\"\")::public.vector(8)", "a"),
            ("(embedding)::other.vector(8)", "embedding"),
            ("(embedding)::public.vector(8)", "\"embedding\""),
            ("((embedding)::public.vector)::public.vector(8)", "embedding"),
            ("(public.binary_quantize(embedding))::bit(8)", "embedding"),
        ] {
            assert_eq!(of(expression, column), None, "{expression} {column}");
        }
        let bits = |expression: &str| bits_of(expression, "my col", "public");
        assert_eq!(bits("(public.binary_quantize(\"my col\"))::bit(64)"), Some(64));
        assert_eq!(bits("(public.binary_quantize(mycol))::bit(64)"), None);
        assert_eq!(bits("(other.binary_quantize(\"my col\"))::bit(64)"), None);
    }
}
