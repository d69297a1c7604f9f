//! A dictionary: what many values of a column have in common. The window of each deflate stream begins with it.
//!
//! It is text of the table, and the source of a function can be read by everybody who may connect, and stands in dumps of the schema. So
//! the server keeps it masked, in a function that returns it to those who have its key. Each compressed value has the key, and only
//! readers of the table have these.

use anyhow::Result;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256, Sha512};
use sqlx::PgConnection;

use crate::pg::{self, literal, qualified};

/// The first bytes of the dictionary's SHA-256.
pub type Key = [u8; 16];

/// The names of the functions begin with it.
pub const PREFIX: &str = "pgtend_dictionary_";
/// The bytes that one SHA-512 masks.
const BLOCK: usize = 64;
/// zlib looks back 32 KiB less 262 bytes (MAX_DIST in deflate.h).
const MAX_BYTES: usize = (32_768 - 262) / BLOCK * BLOCK;
const MIN_BYTES: usize = 1_024;

/// Of the source of its function: more than twice what the longest dictionary has.
const SOURCE_BYTES_MOST: i32 = 100_000;
/// A random start: no two dictionaries are the same, so that each belongs to one table, and nobody guesses a key from what tables may
/// have in common.
const SALT_BYTES: usize = 16;
/// Room for the header of zstd's own format, which is left out.
const HEADER_BYTES: usize = 1_024;

pub struct Dictionary {
    bytes: Vec<u8>,
    key: Key,
}

impl Dictionary {
    /// Learns what these values have in common; None if that is little, or the values are too few.
    pub fn learn(values: &[&[u8]]) -> Option<Self> {
        let trained = zstd::dict::from_samples(values, MAX_BYTES + HEADER_BYTES).ok()?;
        let length = (trained.len() + SALT_BYTES).min(MAX_BYTES) / BLOCK * BLOCK;
        if length < MIN_BYTES {
            return None;
        }
        // What is most common stands at the end.
        let common = &trained[trained.len() - (length - SALT_BYTES)..];
        Some(Self::of([uuid::Uuid::new_v4().as_bytes(), common].concat()))
    }

    fn of(bytes: Vec<u8>) -> Self {
        let mut key = Key::default();
        key.copy_from_slice(&Sha256::digest(&bytes)[..size_of::<Key>()]);
        Self { bytes, key }
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub fn key(&self) -> Key {
        self.key
    }

    /// Returns the statements that create its function; an error, if there is one of that name.
    pub fn create(&self, schema: &str) -> Vec<String> {
        let name = name(&self.key);
        let masked = STANDARD.encode(masked(&self.bytes, &self.key));
        create(schema, &name, &source(&masked, self.bytes.len() / BLOCK))
    }
}

/// Returns the name of the function of the dictionary with this key; inflate.sql makes the same.
pub fn name(key: &Key) -> String {
    format!("{PREFIX}{}", hex::encode(&Sha256::digest(key)[..8]))
}

/// Reads a dictionary from the source of its function, which is not called: it may be anybody's. None if it is another one, or none.
pub async fn read(connection: &mut PgConnection, key: &Key) -> Result<Option<Dictionary>> {
    // A longer one is no dictionary's, and of any length.
    let sql = "SELECT prosrc FROM pg_catalog.pg_proc WHERE proname OPERATOR(pg_catalog.=) $1 AND pg_catalog.octet_length(prosrc) OPERATOR(pg_catalog.<=) $2";
    let sources: Vec<String> = sqlx::query_scalar(sql)
        .bind(name(key))
        .bind(SOURCE_BYTES_MOST)
        .fetch_all(connection)
        .await
        .map_err(pg::in_its_own_words)?;
    Ok(sources.iter().find_map(|source| read_source(source, key)))
}

/// Returns the statements that create in `schema` those of these dictionaries that stand in another schema: the table was moved. Only functions of its
/// owner count: anybody may make one of that name. Without names (the mark was lost), all dictionaries of the owner follow. An error names one that is
/// nowhere: the values that name it could not be read afterwards.
pub async fn follow(connection: &mut PgConnection, schema: &str, owner: &str, names: &[String]) -> Result<Vec<String>> {
    let found: Vec<(String, String, bool)> = sqlx::query_as(
        "SELECT DISTINCT ON (p.proname) p.proname::text, p.prosrc, n.nspname = $2
         FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace JOIN pg_catalog.pg_roles r ON r.oid = p.proowner
         WHERE (p.proname = ANY ($1::text[]) OR $1::text[] = '{}' AND pg_catalog.starts_with(p.proname::text, $4)) AND r.rolname = $3
           AND p.proargtypes = '17'::pg_catalog.oidvector AND NOT pg_catalog.starts_with(n.nspname::text, 'pg_')
         ORDER BY p.proname, n.nspname = $2 DESC, n.nspname",
    )
    .bind(names)
    .bind(schema)
    .bind(owner)
    .bind(PREFIX)
    .fetch_all(connection)
    .await
    .map_err(pg::in_its_own_words)?;
    if let Some(missing) = names.iter().find(|name| !found.iter().any(|(found, ..)| found == *name)) {
        anyhow::bail!(
            "there is no function {missing}(bytea) of role {owner} in any schema: values that name this dictionary cannot be read without it"
        );
    }
    let elsewhere = found.iter().filter(|(.., is_here)| !is_here);
    let statements: Option<Vec<_>> = elsewhere.map(|(name, found, _)| Some(create(schema, name, &again(found)?))).collect();
    let statements =
        statements.ok_or_else(|| anyhow::anyhow!("a function named {PREFIX}… of role {owner} is no dictionary of pgtend"))?;
    Ok(statements.into_iter().flatten().collect())
}

/// Writes a source anew from what another one masks: it may be anybody's.
fn again(found: &str) -> Option<String> {
    let masked = STANDARD.decode(masked_in(found)?).ok()?;
    Some(source(&STANDARD.encode(&masked), masked.len() / BLOCK))
}

fn create(schema: &str, name: &str, source: &str) -> Vec<String> {
    let function = format!("{}(bytea)", qualified(schema, name));
    let comment = "What compressed values have in common (pgtend compress). Without it those that name it cannot be read.";
    vec![
        format!(
            "CREATE FUNCTION {}(key bytea) RETURNS bytea
             LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE COST 10000 SET search_path = pg_catalog, pg_temp AS {}",
            qualified(schema, name),
            literal(source)
        ),
        format!("GRANT EXECUTE ON FUNCTION {function} TO PUBLIC"),
        format!("COMMENT ON FUNCTION {function} IS {}", literal(comment)),
    ]
}

/// Returns the source of the function of a dictionary with so many blocks. The server has no XOR for bytea, but for bits.
fn source(masked: &str, blocks: usize) -> String {
    format!(
        "
DECLARE
    masked CONSTANT varbit := ('x' || encode(decode('{masked}', 'base64'), 'hex'))::varbit;
BEGIN
    RETURN substring(varbit_send(masked # ('x' || encode((
        SELECT string_agg(sha512(key || int4send(i)), decode('', 'hex') ORDER BY i) FROM generate_series(1, {blocks}) i), 'hex'))::varbit) FROM 5);
END
"
    )
}

fn read_source(source: &str, key: &Key) -> Option<Dictionary> {
    let bytes = masked(&STANDARD.decode(masked_in(source)?).ok()?, key);
    Some(Dictionary::of(bytes)).filter(|dictionary| dictionary.key == *key)
}

fn masked_in(source: &str) -> Option<&str> {
    source.split_once("decode('")?.1.split_once('\'').map(|(masked, _)| masked)
}

/// Masks bytes, and takes the mask off: with SHA-512 of the key and the number of each block.
fn masked(bytes: &[u8], key: &Key) -> Vec<u8> {
    let blocks = bytes.chunks(BLOCK).zip(1_u32..);
    blocks
        .flat_map(|(block, number)| {
            let mask = Sha512::digest([&key[..], &number.to_be_bytes()].concat());
            block.iter().zip(mask).map(|(byte, mask)| byte ^ mask).collect::<Vec<_>>()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn learned() -> Dictionary {
        let values: Vec<String> = (0..60)
            .map(|value| (0..60).map(|line| format!("Get-ChildItem -Path {} | Sort-Object Name\n", value * line % 71)).collect())
            .collect();
        Dictionary::learn(&values.iter().map(String::as_bytes).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn the_source_of_its_function_gives_it_to_those_who_have_the_key_and_shows_no_text() {
        let dictionary = learned();
        assert!(
            dictionary.bytes.len().is_multiple_of(BLOCK) && dictionary.bytes.len() <= MAX_BYTES,
            "{}",
            dictionary.bytes.len()
        );
        assert!(String::from_utf8_lossy(&dictionary.bytes).contains("Sort-Object Name"));
        let create = dictionary.create("s").concat();
        assert!(!create.contains("Sort-Object") && !create.contains(&hex::encode(dictionary.key)));
        let source = create.split_once(" AS E'").unwrap().1.replace("''", "'");
        assert_eq!(read_source(&source, &dictionary.key).unwrap().bytes, dictionary.bytes);
        assert!(read_source(&source, &[7; 16]).is_none(), "another key");
        assert_eq!(again(&source).unwrap().trim_end(), source.split("\nEND\n").next().unwrap().to_owned() + "\nEND");
        assert!(read_source("BEGIN RETURN NULL; END", &dictionary.key).is_none());
    }

    #[test]
    fn no_two_dictionaries_are_the_same_and_few_values_make_none() {
        assert_ne!(name(&learned().key), name(&learned().key));
        assert!(Dictionary::learn(&[b"x", b"y"]).is_none());
    }
}
