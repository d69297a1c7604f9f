//! Prices a compression: what is saved of the whole table, and what readers pay for it. Pure.

use serde::Serialize;

use super::decide::{Candidates, Form, Measured};
use super::readers::{self, Readers};
use crate::base::units;

/// The rows of a list that an application shows at once.
const PAGE_ROWS: f64 = 20.0;
/// A search that gets slower by less than this is worth no remark.
const NOTICED_SECONDS: f64 = 1.0;
/// Nor is a statement.
const NOTICED_MILLISECONDS: f64 = 100.0;

#[derive(Debug, Default, Serialize)]
pub struct Price {
    /// The table with its TOAST table and indexes.
    pub table_bytes: u64,
    pub saved_share_of_table: f64,
    /// What readers pay; None for forms that PostgreSQL decodes itself, and where it could not be measured.
    pub readers: Option<ReadersPay>,
    /// Why it is not recommended.
    pub against: Vec<String>,
}

#[derive(Clone, Debug, Serialize)]
pub struct ReadersPay {
    /// The time of a search over all values (`ILIKE '%…%'`).
    pub search_seconds_now: f64,
    pub search_seconds_then: f64,
    /// The time to read a page of rows with the column.
    pub page_milliseconds_now: f64,
    pub page_milliseconds_then: f64,
}

/// `form` is the new one, and `saved_bytes` what it saves.
pub fn price(
    table_bytes: u64,
    candidates: &Candidates,
    measured: &Measured,
    gzip: Option<Form>,
    saved_bytes: u64,
    readers: &Readers,
) -> Price {
    let pay = gzip.filter(|form| form.read_milliseconds > 0.0).map(|form| readers_pay(candidates, measured, form));
    let against = pay.as_ref().map(|pay| why_not(pay, readers)).unwrap_or_default();
    Price { table_bytes, saved_share_of_table: saved_bytes as f64 / table_bytes.max(1) as f64, readers: pay, against }
}

fn readers_pay(candidates: &Candidates, measured: &Measured, form: Form) -> ReadersPay {
    let raw = measured.raw_bytes.max(1) as f64;
    let values = measured.values.max(1) as f64;
    // A search looks at small values, too, and these stay as they are.
    let search_now = measured.search_milliseconds * candidates.all_bytes.max(candidates.raw_bytes) as f64 / raw;
    let more = (form.read_milliseconds - measured.read_milliseconds).max(0.0);
    ReadersPay {
        search_seconds_now: search_now / 1000.0,
        search_seconds_then: (search_now + more * candidates.raw_bytes as f64 / raw) / 1000.0,
        page_milliseconds_now: PAGE_ROWS * measured.read_milliseconds / values,
        page_milliseconds_then: PAGE_ROWS * (measured.read_milliseconds + more) / values,
    }
}

fn why_not(pay: &ReadersPay, readers: &Readers) -> Vec<String> {
    let mut against = Vec::new();
    let more = pay.search_seconds_then - pay.search_seconds_now;
    if let Some(first) = readers.searches.first().filter(|_| more > NOTICED_SECONDS) {
        against.push(format!(
            "{} search the column, and a search over all values would take {:.1} s in place of {:.1} s: {}",
            units::plural(readers::calls(&readers.searches), "call"),
            pay.search_seconds_then,
            pay.search_seconds_now,
            first.shown()
        ));
    }
    let of_one = (pay.page_milliseconds_then - pay.page_milliseconds_now) / PAGE_ROWS;
    let slowest = readers.reads.iter().max_by(|one, other| one.rows_per_call.total_cmp(&other.rows_per_call));
    if let Some(list) = slowest.filter(|list| list.rows_per_call * of_one > NOTICED_MILLISECONDS) {
        against.push(format!(
            "{} of a statement that returns {:.0} rows with the column would take {:.0} ms more each, unless it leaves the column out: {}",
            units::plural(list.calls, "call"),
            list.rows_per_call,
            list.rows_per_call * of_one,
            list.shown()
        ));
    }
    against
}

impl Price {
    /// Says it in lines.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = vec![format!(
            "of the whole table (with its TOAST table and indexes, {}): {:.0} % less",
            units::bytes(self.table_bytes),
            100.0 * self.saved_share_of_table
        )];
        if let Some(pay) = &self.readers {
            lines.push(format!(
                "a search over all values (ILIKE '%…%'): about {} now, {} then; to_tsvector and every other expression over all values: {} more",
                seconds(pay.search_seconds_now),
                seconds(pay.search_seconds_then),
                seconds(pay.search_seconds_then - pay.search_seconds_now)
            ));
            lines.push(format!(
                "a list of {PAGE_ROWS} rows with the column: {:.1} ms now, {:.1} ms then",
                pay.page_milliseconds_now, pay.page_milliseconds_then
            ));
        }
        lines
    }
}

fn seconds(seconds: f64) -> String {
    match seconds {
        seconds if seconds < 1.0 => format!("{:.0} ms", seconds * 1000.0),
        seconds => format!("{seconds:.1} s"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::readers::Reader;
    use super::*;

    fn reader(rows_per_call: f64) -> Reader {
        Reader { query: "SELECT content FROM scripts".to_owned(), calls: 7, rows_per_call, milliseconds_per_call: 1.0 }
    }

    #[test]
    fn a_search_pays_for_every_value_that_is_decoded_and_what_applications_do_decides() {
        // Ten values of 20 kB were measured; the table has a thousand of them, and as much text again in small values.
        let candidates = Candidates { rows: 1000, raw_bytes: 20_000_000, all_bytes: 40_000_000, ..Candidates::default() };
        let measured =
            Measured { values: 10, raw_bytes: 200_000, read_milliseconds: 1.0, search_milliseconds: 2.0, ..Measured::default() };
        let form = Form { read_milliseconds: 61.0, ..Form::default() };
        let of = |readers: &Readers| price(100_000_000, &candidates, &measured, Some(form), 15_000_000, readers);
        let unknown = of(&Readers::default());
        let pay = unknown.readers.clone().unwrap();
        assert_eq!((pay.search_seconds_now, pay.search_seconds_then), (0.4, 6.4));
        assert_eq!((pay.page_milliseconds_now.round(), pay.page_milliseconds_then.round()), (2.0, 122.0));
        assert_eq!(unknown.saved_share_of_table, 0.15);
        assert!(
            unknown.against.is_empty() && unknown.lines()[1].contains("about 400 ms now, 6.4 s then"),
            "{:?}",
            unknown.lines()
        );
        let searched = Readers { is_known: true, searches: vec![reader(1.0)], reads: Vec::new() };
        assert!(of(&searched).against[0].starts_with("7 calls search the column"), "{:?}", of(&searched).against);
        let listed = Readers { is_known: true, searches: Vec::new(), reads: vec![reader(1.0), reader(50.0)] };
        assert!(
            of(&listed).against[0].contains("returns 50 rows with the column would take 300 ms more"),
            "{:?}",
            of(&listed).against
        );
        let one = Readers { is_known: true, searches: Vec::new(), reads: vec![reader(1.0)] };
        assert!(of(&one).against.is_empty());
    }
}
