//! Chooses the dictionary with which a run compresses: the present one, a new one where that makes values clearly smaller, or none.

use std::time::{Duration, Instant};

use anyhow::Result;
use sqlx::{PgConnection, Row as _};

use super::dictionary::{self, Dictionary, Key};
use super::pack::{self, Packed};
use super::table::Table;
use super::walk::Walk;
use super::{decoder, install};
use crate::live::governor;
use crate::pg::{self, identifier};

/// The number of blocks in which values to learn from are looked for; in a larger table these are a sample.
const BLOCKS: f64 = 4_000.0;
/// The bytes of the values to learn from; zstd advises a hundred times the dictionary's.
const BYTES: i64 = 4 << 20;
/// Of a longer value, the start is read.
const VALUE_BYTES: i64 = 128 << 10;
/// With fewer values, nothing is learned that says much about others.
const MIN_VALUES: usize = 32;
/// One value of so many is not learned from: by these a new dictionary is measured.
const TESTED: usize = 4;
/// A new dictionary has to leave at most this share of what values take without it.
const MAX_SHARE: f64 = 0.9;
/// What a dictionary takes in the catalog.
const DICTIONARY_BYTES: f64 = 50_000.0;
/// The number of dictionaries, the newest first, that are looked for in the values.
const LOOKED_FOR: usize = 3;

/// What a run compresses with.
#[derive(Default)]
pub struct Choice {
    pub dictionary: Option<Dictionary>,
    /// It has no function yet: the first batch that names it creates it.
    pub is_new: bool,
    /// What a person should know.
    pub remark: Option<String>,
}

/// Chooses by a sample of the values. `condition`: it is true for those that the run takes; `all_bytes`: of the text of all of them.
pub async fn choose(walk: &Walk<'_>, condition: &str, connection: &mut PgConnection, all_bytes: u64) -> Result<Choice> {
    let table = walk.table;
    // Also without a dictionary: those of earlier releases call functions of whoever owns them.
    let decoder = decoder::bring_up_to_date(connection, table).await?;
    if !may_share(table) {
        return Ok(Choice::default());
    }
    if !decoder.reads_dictionaries {
        let remark = format!(
            "values of {} are compressed without a dictionary: its functions are of an earlier release, and only its owner may replace \
             them (pgtend compress install {})",
            table.view_sql(),
            walk.run.job.name
        );
        return Ok(Choice { remark: Some(remark), ..Choice::default() });
    }
    let present = present(connection, table).await?;
    if !decoder.may_create {
        return Ok(Choice { dictionary: present, ..Choice::default() });
    }
    let values = values(walk, condition, connection).await?;
    // It takes a second, once: with SCHED_IDLE, as values are compressed, it would take minutes on a busy host.
    let new = tokio::task::block_in_place(|| learn(&values, present.as_ref(), all_bytes))?;
    let Some(new) = new else { return Ok(Choice { dictionary: present, ..Choice::default() }) };
    match note(connection, table, &dictionary::name(&new.key())).await {
        Ok(()) => Ok(Choice { dictionary: Some(new), is_new: true, remark: None }),
        Err(error) if governor::is_lock_trouble(&error) => {
            let remark = format!("no new dictionary for {}, which is locked: the next run learns one", table.sql());
            Ok(Choice { dictionary: present, is_new: false, remark: Some(remark) })
        }
        Err(error) => Err(error),
    }
}

/// Returns whether values may have a dictionary in common. It shows those who may read one row text of others: with row security there is none.
fn may_share(table: &Table) -> bool {
    table.may_have_dictionaries && !table.has_row_security
}

/// Returns the newest dictionary that a value names. Values alone have its key.
async fn present(connection: &mut PgConnection, table: &Table) -> Result<Option<Dictionary>> {
    for name in table.dictionaries().iter().rev().take(LOOKED_FOR) {
        let Some(key) = key_in_values(connection, table, name).await? else { continue };
        let found = dictionary::read(connection, &key).await?;
        anyhow::ensure!(
            found.is_some(),
            "values of {} cannot be read: their dictionary, the function {}(bytea), is missing or was changed; restore it from a dump of this \
             database",
            table.view_sql(),
            pg::qualified(&table.schema, name)
        );
        return Ok(found);
    }
    Ok(None)
}

/// Looks for a value that names this dictionary, in those with the highest keys first: they are usually the newest.
async fn key_in_values(connection: &mut PgConnection, table: &Table, name: &str) -> Result<Option<Key>> {
    let Some(key) = &table.key else { return Ok(None) };
    let order: Vec<String> = key.columns.iter().map(|column| format!("t.{} DESC", identifier(column))).collect();
    let sql = format!(
        "SELECT key FROM (
             SELECT substring(t.{gz} FROM octet_length(t.{gz}) - 19 FOR 16) AS key FROM ONLY {stored} t
             WHERE t.{gz} IS NOT NULL AND octet_length(t.{gz}) > 20 AND substring(t.{gz} FROM 1 FOR 1) = decode('01', 'hex')
             ORDER BY {order}) named
         WHERE $1 = '{prefix}' || left(encode(sha256(key), 'hex'), 16) LIMIT 1",
        gz = table.gz(),
        stored = table.sql(),
        order = order.join(", "),
        prefix = dictionary::PREFIX,
    );
    match pg::query(sql).bind(name).fetch_optional(connection).await.map_err(pg::in_its_own_words) {
        Ok(row) => Ok(row.map(|row| row.try_get::<Vec<u8>, _>(0)).transpose()?.and_then(|key| key.try_into().ok())),
        // It would take longer than a statement may: a new one is learned.
        Err(error) if pg::sql_state(&error).as_deref() == Some("57014") => Ok(None),
        Err(error) => Err(error),
    }
}

/// Reads some of the values that the run would take.
async fn values(walk: &Walk<'_>, condition: &str, connection: &mut PgConnection) -> Result<Vec<Vec<u8>>> {
    let table = walk.table;
    let content = table.content();
    let sql = format!(
        "WITH picked AS (
             SELECT ctid, sum(least(octet_length({content}), {VALUE_BYTES})) OVER (ORDER BY hashtextextended(ctid::text, {seed})) AS bytes
             FROM ONLY {stored} TABLESAMPLE SYSTEM ({percent}) REPEATABLE ({seed}) WHERE {condition})
         SELECT substring({text} FROM 1 FOR {VALUE_BYTES}) FROM ONLY {stored} t
         WHERE ctid = ANY (ARRAY(SELECT ctid FROM picked WHERE bytes <= {BYTES})) AND {content} IS NOT NULL",
        seed = walk.run.now.timestamp(),
        stored = table.sql(),
        percent = (100.0 * BLOCKS / table.blocks.max(1) as f64).min(100.0),
        text = table.bytes_of(&content),
    );
    let rows = pg::query(sql).fetch_all(connection).await.map_err(pg::in_its_own_words)?;
    Ok(rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?)
}

/// Learns from some of the values, and measures with the others. None where nothing is gained by it that is worth a dictionary.
fn learn(values: &[Vec<u8>], present: Option<&Dictionary>, all_bytes: u64) -> Result<Option<Dictionary>> {
    if values.len() < MIN_VALUES {
        return Ok(None);
    }
    let (mut learned_from, mut tested) = (Vec::new(), Vec::new());
    for (number, value) in values.iter().enumerate() {
        let part = if number.is_multiple_of(TESTED) { &mut tested } else { &mut learned_from };
        part.push(value.as_slice());
    }
    let raw: usize = tested.iter().map(|value| value.len()).sum();
    let now = bytes_of(&pack_all(&tested, present)?);
    if !is_worth_it(now, 0, raw as u64, all_bytes) {
        return Ok(None);
    }
    let Some(new) = Dictionary::learn(&learned_from) else { return Ok(None) };
    let then = bytes_of(&pack_all(&tested, Some(&new))?);
    Ok(is_worth_it(now, then, raw as u64, all_bytes).then_some(new))
}

/// Values as a run would pack them.
pub struct Priced {
    pub packed: Vec<Packed>,
    pub dictionaries: Vec<Dictionary>,
    /// Without the time to learn.
    pub elapsed: Duration,
}

/// Packs a sample as a run would pack all values, each with a dictionary that was learned from others than it.
pub fn price(table: &Table, values: &[&[u8]], all_bytes: u64) -> Result<Priced> {
    if may_share(table) { with_dictionaries(values, all_bytes) } else { without(values) }
}

fn without(values: &[&[u8]]) -> Result<Priced> {
    let started = Instant::now();
    Ok(Priced { packed: pack_all(values, None)?, dictionaries: Vec::new(), elapsed: started.elapsed() })
}

fn with_dictionaries(values: &[&[u8]], all_bytes: u64) -> Result<Priced> {
    let plain = without(values)?;
    let raw: usize = values.iter().map(|value| value.len()).sum();
    let now = bytes_of(&plain.packed);
    if values.len() < MIN_VALUES || !is_worth_it(now, 0, raw as u64, all_bytes) {
        return Ok(plain);
    }
    let half = |rest: usize| values.iter().skip(rest).step_by(2).copied().collect::<Vec<_>>();
    let (Some(of_even), Some(of_odd)) = (Dictionary::learn(&half(0)), Dictionary::learn(&half(1))) else { return Ok(plain) };
    let dictionaries = vec![of_odd, of_even];
    let started = Instant::now();
    let packed = values.iter().zip(dictionaries.iter().cycle()).map(|(value, dictionary)| pack::pack(value, Some(dictionary)));
    let packed = packed.collect::<Result<Vec<_>>>()?;
    let with = Priced { packed, dictionaries, elapsed: started.elapsed() };
    Ok(if is_worth_it(now, bytes_of(&with.packed), raw as u64, all_bytes) { with } else { plain })
}

/// Decides whether a dictionary by which values of `raw` bytes take `then` and not `now` is worth what it takes itself, for all values: pure.
fn is_worth_it(now: u64, then: u64, raw: u64, all_bytes: u64) -> bool {
    let saved = now.saturating_sub(then) as f64 / raw.max(1) as f64 * all_bytes as f64;
    then as f64 <= now as f64 * MAX_SHARE && saved > DICTIONARY_BYTES
}

fn pack_all(values: &[&[u8]], dictionary: Option<&Dictionary>) -> Result<Vec<Packed>> {
    values.iter().map(|value| pack::pack(value, dictionary)).collect()
}

fn bytes_of(packed: &[Packed]) -> u64 {
    packed.iter().map(|packed| packed.gz.len() as u64).sum()
}

/// Writes into the table's mark that a dictionary belongs to it, so that an undo can drop it. It comes before the dictionary: a name without
/// a function does no harm.
async fn note(connection: &mut PgConnection, table: &Table, name: &str) -> Result<()> {
    let mark = install::mark_with(table, name);
    let statements =
        ["BEGIN".to_owned(), format!("SET LOCAL ROLE {}", identifier(&table.owner)), mark.on(&table.sql())?, "COMMIT".to_owned()];
    decoder::all_or_nothing(connection, statements.to_vec()).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dictionary_has_to_save_a_tenth_and_more_than_it_takes() {
        for (now, then, raw, all_bytes, expected) in [
            (400, 260, 1_000, 10_000_000, true),
            (400, 360, 1_000, 10_000_000, true),
            (400, 361, 1_000, 10_000_000, false),
            (400, 260, 1_000, 300_000, false),
            (400, 260, 1_000, 400_000, true),
            (400, 500, 1_000, 10_000_000, false),
            (0, 0, 0, 0, false),
        ] {
            assert_eq!(is_worth_it(now, then, raw, all_bytes), expected, "{now} {then} {raw} {all_bytes}");
        }
    }

    fn scripts(noun: &str, count: usize) -> Vec<Vec<u8>> {
        let line = |value: usize, line: usize| {
            format!(
                "    Write-Verbose \"{noun} {} was changed by {}\" -ErrorAction Stop\n",
                value * 7_919 % 9_973,
                line * value % 991
            )
        };
        (0..count).map(|value| (0..30).map(|number| line(value, number)).collect::<String>().into_bytes()).collect()
    }

    #[test]
    fn a_new_dictionary_is_learned_when_values_have_become_others_and_not_when_they_are_as_before() {
        let all = 100_000_000;
        let first = learn(&scripts("Service", 80), None, all).unwrap().unwrap();
        assert!(learn(&scripts("Service", 80), Some(&first), all).unwrap().is_none(), "as before");
        assert!(learn(&scripts("Service", 31), None, all).unwrap().is_none(), "too few");
        assert!(learn(&scripts("Service", 80), None, 100_000).unwrap().is_none(), "not worth it");
        let others: Vec<Vec<u8>> =
            scripts("Service", 80).iter().map(|value| value.iter().map(|byte| byte ^ 0x15).collect()).collect();
        assert!(learn(&others, Some(&first), all).unwrap().is_some(), "others");
    }

    #[test]
    fn a_sample_is_priced_with_dictionaries_that_did_not_see_the_value() {
        let values = scripts("Process", 60);
        let values: Vec<&[u8]> = values.iter().map(Vec::as_slice).collect();
        let priced = with_dictionaries(&values, 100_000_000).unwrap();
        let plain = with_dictionaries(&values, 1_000).unwrap();
        assert_eq!((priced.dictionaries.len(), plain.dictionaries.len()), (2, 0));
        assert!(bytes_of(&priced.packed) * 10 < bytes_of(&plain.packed) * 9);
        assert_eq!(pack::key_of(&priced.packed[0].gz), Some(priced.dictionaries[0].key()));
    }
}
