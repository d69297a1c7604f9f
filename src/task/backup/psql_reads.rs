//! Finds functions that psql misreads in a dump. It determines the end of an SQL function's body by counting the words BEGIN, CASE and END
//! outside parentheses (psqlscan.l), and takes a column, a function or a schema called `begin`, which PostgreSQL writes without quotes, for
//! another BEGIN. Then it takes everything after it for a part of the function, including COPY's rows, and exits with 0: seen with psql 16
//! and 18. pgtend's own restore counts only BEGIN ATOMIC.

use anyhow::Result;
use sqlx::postgres::PgConnection;

/// At most this many functions are checked.
const LOOKED_AT: i64 = 1000;

/// The names of misread functions, with the arguments' types.
pub async fn misread(connection: &mut PgConnection) -> Result<Vec<String>> {
    let candidates: Vec<(String, String)> =
        sqlx::query_as(include_str!("psql_reads.sql")).bind(LOOKED_AT).fetch_all(connection).await?;
    let misread = candidates.into_iter().filter(|(_, definition)| !ends_for_psql(definition));
    Ok(misread.map(|(name, _)| name).collect())
}

/// Whether a semicolon after `definition` ends it for psql.
fn ends_for_psql(definition: &str) -> bool {
    let text = definition.as_bytes();
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'$' || byte >= 0x80;
    let (mut at, mut parentheses, mut blocks) = (0, 0, 0);
    while at < text.len() {
        match text[at] {
            quote @ (b'\'' | b'"') => {
                let escapes =
                    quote == b'\'' && at > 0 && text[at - 1].eq_ignore_ascii_case(&b'e') && (at < 2 || !is_word(text[at - 2]));
                at += 1;
                while at < text.len() && text[at] != quote {
                    at += if escapes && text[at] == b'\\' { 2 } else { 1 };
                }
                at += 1;
            }
            b'$' => match dollar_quoted(&definition[at..]) {
                Some(length) => at += length,
                None => at += 1,
            },
            b'(' => (at, parentheses) = (at + 1, parentheses + 1),
            b')' => (at, parentheses) = (at + 1, parentheses - 1),
            byte if is_word(byte) => {
                let start = at;
                while at < text.len() && is_word(text[at]) {
                    at += 1;
                }
                let word = text[start..at].to_ascii_lowercase();
                match word.as_slice() {
                    _ if parentheses != 0 => {}
                    b"begin" => blocks += 1,
                    b"case" if blocks > 0 => blocks += 1,
                    b"end" if blocks > 0 => blocks -= 1,
                    _ => {}
                }
            }
            _ => at += 1,
        }
    }
    blocks == 0
}

/// The length of `$tag$ … $tag$` at the start of `text`.
fn dollar_quoted(text: &str) -> Option<usize> {
    let tag = &text[..=text[1..].find('$')? + 1];
    let is_tag = tag[1..tag.len() - 1].chars().all(|letter| letter.is_alphanumeric() || letter == '_');
    let end = is_tag.then(|| text[tag.len()..].find(tag)).flatten()?;
    Some(tag.len() + end + tag.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_called_begin_is_counted_as_psql_counts_it() {
        let header = "CREATE OR REPLACE FUNCTION public.f()\n RETURNS integer\n LANGUAGE sql\n";
        for (body, ends) in [
            ("BEGIN ATOMIC\n SELECT t.begin FROM t;\nEND", false),
            ("BEGIN ATOMIC\n SELECT t.\"end\" FROM t;\nEND", true),
            ("BEGIN ATOMIC\n SELECT CASE WHEN true THEN 1 ELSE 2 END;\nEND", true),
            ("BEGIN ATOMIC\n SELECT (t.begin) FROM t;\nEND", true),
            ("BEGIN ATOMIC\n SELECT 'begin', E'\\' begin', \"Begin\".x FROM \"Begin\";\nEND", true),
            ("RETURN begin.x()", false),
            ("AS $function$BEGIN; RETURN 1; $function$", true),
            ("AS $function$ $1 begin $function$ begin", false),
        ] {
            assert_eq!(ends_for_psql(&format!("{header}{body}")), ends, "{body}");
        }
        assert!(!ends_for_psql("CREATE OR REPLACE FUNCTION public.begin()\n RETURNS integer\n LANGUAGE plpgsql\nAS $x$ $x$"));
    }
}
