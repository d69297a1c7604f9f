//! Looks whether rows of a batch are in a table. A record says that they went back; a server that was set back to an earlier state knows
//! nothing of that, and its numbers of transactions are given out a second time.

use anyhow::{Context as _, Result};
use sqlx::{PgConnection, Row as _};
use tokio::sync::oneshot;

use super::batch::BatchName;
use super::filter::Filter;
use super::manifest::Manifest;
use super::primary_key::same_key;
use super::restored::{Here, Place, Record, Restored};
use super::text::RowsOnly;
use crate::base::fault::{Fault, Kind};
use crate::base::progress::Progress;
use crate::base::units;
use crate::members::decode::decode_object;
use crate::pg::copy_text::unescaped;
use crate::pg::{self, identifier, literal};
use crate::store::Store;

/// The first rows of the object, at most this many, are looked for: rows of a batch come back together.
const MAX_ROWS: usize = 1_000;

/// Only rows within the first 16 MiB of the object are looked for.
const MAX_BYTES: usize = 16 << 20;

/// A function of PostgreSQL takes at most 100 arguments (FUNC_MAX_ARGS).
const MAX_COLUMNS: usize = 90;

/// A row's values, by column; `None` is NULL.
type Values = Vec<Option<String>>;

/// Looks in the table for rows that came back before the server was started: it may have been set back since. Those of which some left again are
/// compared one by one in any case. It is an error if none of them is found.
pub(super) async fn look_at_what_is_back(
    store: &Store,
    batch: &(BatchName, Manifest),
    connection: &mut PgConnection,
    record: &Record,
    here: &Here,
) -> Result<()> {
    let whole = record.whole(here);
    let said: Vec<&Restored> = whole.map_or_else(|| record.at(here).collect(), |whole| vec![whole]);
    for restored in said {
        if restored.never_left || restored.left_again > 0 || restored.rows == 0 || !restored.is_before_the_start(here) {
            continue;
        }
        let went = format!(
            "{} of {} went back into {} on {}, and the server was restarted since",
            units::plural(restored.rows as usize, "row"),
            batch.0,
            here.place.name,
            restored.at.format("%Y-%m-%d %H:%M UTC")
        );
        let said = match is_any_there(store, batch, connection, (&here.place, &restored.filter)).await {
            Ok(true) => continue,
            Ok(false) => anyhow::anyhow!(
                "none of them was found there: they were deleted, or the server was set back to a state before that"
            ),
            Err(error) => error.context("whether they are still there is not known: look for them in the table"),
        };
        return Err(said.context(Fault::new(Kind::Busy, format!("{went}: use --again if they are to be put back"))));
    }
    Ok(())
}

/// Returns whether any of the batch's first rows is in the table, of those with this filter: by the primary key, or by all values in a table without
/// one. Reads only.
pub(super) async fn is_any_there(
    store: &Store,
    (name, manifest): &(BatchName, Manifest),
    connection: &mut PgConnection,
    (place, filter): (&Place, &Filter),
) -> Result<bool> {
    let rows: Vec<Values> = first_lines(store, name, manifest).await?.iter().filter_map(|line| values(line)).collect();
    anyhow::ensure!(!rows.is_empty(), "none of the first rows of {name} can be compared with those of {}", place.name);
    let condition = match same_key(connection, place, &manifest.columns).await? {
        Some(key) => by_key((&key.columns, &key.sql), &rows, manifest, place, filter)?,
        None => by_values(&rows, manifest, place, filter),
    };
    let is_there = pg::query(condition).fetch_one(connection).await.map_err(pg::in_its_own_words);
    Ok(is_there.with_context(|| format!("cannot look for rows of {name} in {}", place.name))?.try_get(0)?)
}

/// The literals take the type of the column, as an array has one type. The columns of the filter are those of the table in the inner query.
fn by_key(
    (key, same_key): (&[String], &str),
    rows: &[Values],
    manifest: &Manifest,
    place: &Place,
    filter: &Filter,
) -> Result<String> {
    let array = |column: &String| {
        let at =
            manifest.columns.iter().position(|one| one == column).with_context(|| format!("the batch has no column {column}"))?;
        let values =
            rows.iter().map(|row| row.get(at).and_then(Option::as_ref).map_or("NULL".to_owned(), |value| literal(value)));
        let values = values.collect::<Vec<_>>().join(", ");
        anyhow::Ok(format!("pg_catalog.unnest(ARRAY[{values}, (SELECT {} FROM {} LIMIT 0)])", identifier(column), place.name))
    };
    let arrays = key.iter().map(array).collect::<Result<Vec<_>>>()?.join(", ");
    let names = key.iter().map(|column| identifier(column)).collect::<Vec<_>>().join(", ");
    let filter = filter.sql();
    Ok(format!("SELECT EXISTS (SELECT FROM ROWS FROM ({arrays}) AS aside ({names}) WHERE EXISTS ({same_key} AND {filter}))"))
}

/// Compares texts, as types without equality (json, point) have no other. NULL and an empty text count as equal.
fn by_values(rows: &[Values], manifest: &Manifest, place: &Place, filter: &Filter) -> String {
    let columns = &manifest.columns[..manifest.columns.len().min(MAX_COLUMNS)];
    let text = |row: &Values| {
        let values: Vec<&str> = row.iter().take(columns.len()).map(|value| value.as_deref().unwrap_or_default()).collect();
        literal(&values.join("\u{1}"))
    };
    let texts = rows.iter().map(text).collect::<Vec<_>>().join(", ");
    let pattern = literal(&vec!["%s"; columns.len()].join("\u{1}"));
    let names = columns.iter().map(|column| format!(", {}", identifier(column))).collect::<String>();
    format!(
        "SELECT EXISTS (SELECT FROM {} WHERE pg_catalog.format({pattern}{names}) OPERATOR(pg_catalog.=) ANY (ARRAY[{texts}]) AND {})",
        place.name,
        filter.sql()
    )
}

/// Reads the first rows of an object, and no more of it than they need.
async fn first_lines(store: &Store, name: &BatchName, manifest: &Manifest) -> Result<Vec<Vec<u8>>> {
    struct Reading {
        rows_only: RowsOnly,
        bytes: Vec<u8>,
        rows: usize,
        enough: Option<oneshot::Sender<Vec<u8>>>,
    }
    let location = store.location(&name.object(&manifest.exported));
    let reader = store.read(&name.object(&manifest.exported)).await?.with_context(|| format!("{location} is gone"))?;
    let (enough, has_enough) = oneshot::channel();
    let reading = Reading { rows_only: RowsOnly::of(manifest), bytes: Vec::new(), rows: 0, enough: Some(enough) };
    let feed = |reading: &mut Reading, bytes: &[u8]| {
        let rows = reading.rows_only.feed(bytes)?;
        reading.rows += memchr::memchr_iter(b'\n', &rows).count();
        reading.bytes.extend_from_slice(&rows);
        if reading.rows >= MAX_ROWS || reading.bytes.len() >= MAX_BYTES {
            if let Some(enough) = reading.enough.take() {
                let _ = enough.send(std::mem::take(&mut reading.bytes));
            }
            return Err(std::io::Error::other("there are enough rows"));
        }
        Ok(())
    };
    let phase = Progress::logged().phase("look", None);
    let decoding = decode_object(reader, manifest.exported.coding(store), &phase, None, reading, feed, |_| ());
    let bytes = tokio::select! {
        biased;
        Ok(bytes) = has_enough => bytes,
        decoded = decoding => {
            let decoded = decoded?;
            decoded.members.map_err(|error| anyhow::anyhow!("{location} cannot be decoded: {error}"))?;
            decoded.state.bytes
        }
    };
    let whole = bytes.split_inclusive(|byte| *byte == b'\n').filter_map(|line| line.strip_suffix(b"\n"));
    Ok(whole.take(MAX_ROWS).map(<[u8]>::to_vec).collect())
}

/// Reads a line of COPY's text; `None` where it is not UTF-8.
fn values(line: &[u8]) -> Option<Values> {
    // What is unescaped in UTF-8 is UTF-8: an escape is ASCII, and stands for ASCII or for the character behind it.
    let value = |text: &str| (text != "\\N").then(|| String::from_utf8_lossy(&unescaped(text.as_bytes())).into_owned());
    Some(std::str::from_utf8(line).ok()?.split('\t').map(value).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_copy_is_read_as_the_server_wrote_it() {
        let read = values("1\t\\N\t\ta\\tb\\nc\\\\d\t\\\\N".as_bytes()).unwrap();
        let expected = [Some("1"), None, Some(""), Some("a\tb\nc\\d"), Some("\\N")].map(|value| value.map(str::to_owned));
        assert_eq!(read, expected);
        assert!(values(b"\xe9").is_none());
    }
}
