//! Decides what to do with the values of a table, and says why: pure.

use std::fmt;

use serde::Serialize;

use super::keys::Toast;
use crate::base::units;

/// A smaller saving than this share is worth neither a write of every value nor slower reads.
const MIN_SAVING: f64 = 0.10;

/// The form that values are to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    Gzip,
    Toast(Toast),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Gzip => f.write_str("gzip"),
            Self::Toast(compression) => write!(f, "{compression}"),
        }
    }
}

/// The request of the job.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    pub target: Target,
    /// The share of the table's size that has to be saved.
    pub minimum_gain: f64,
    /// The table with its TOAST table and indexes.
    pub table_bytes: u64,
    /// The view is installed, or a run was stopped midway: whether it is worth it was decided then. From now on each value is
    /// looked at by itself. Otherwise the values that gzip does not make smaller, which stay, would decide for all new ones.
    pub is_begun: bool,
}

/// The measurements of the same values in every form.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Measured {
    #[serde(rename = "bodies")]
    pub values: u64,
    pub raw_bytes: u64,
    /// The bytes of their present form.
    pub stored_bytes: u64,
    pub read_milliseconds: f64,
    /// The time to search all of them for a text, as `ILIKE '%…%'` does; 0 where that was not measured.
    pub search_milliseconds: f64,
    pub pglz: Option<Form>,
    /// None where this build of the server has no lz4, or where it could not be tried.
    pub lz4: Option<Form>,
    pub gzip: Option<Form>,
}

impl Measured {
    /// Returns the measurements of a form, or None where it could not be tried.
    pub fn form(&self, target: Target) -> Option<Form> {
        match target {
            Target::Gzip => self.gzip,
            Target::Toast(Toast::Pglz) => self.pglz,
            Target::Toast(Toast::Lz4) => self.lz4,
        }
    }
}

#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Form {
    pub bytes: u64,
    pub write_milliseconds: f64,
    /// The time to read all values, one after another.
    pub read_milliseconds: f64,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", tag = "do")]
pub enum Verdict {
    Gzip { saved_share: f64, reason: String },
    Toast { compression: Toast, saved_share: f64, reason: String },
    Nothing { reason: String },
}

impl Verdict {
    pub fn saved_share(&self) -> Option<f64> {
        match self {
            Self::Gzip { saved_share, .. } | Self::Toast { saved_share, .. } => Some(*saved_share),
            Self::Nothing { .. } => None,
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Gzip { reason, .. } => write!(f, "gzip: {reason}"),
            Self::Toast { compression, reason, .. } => write!(f, "{compression}: {reason}"),
            Self::Nothing { reason } => write!(f, "do nothing: {reason}"),
        }
    }
}

/// Decides by the bytes that are stored now, never by those of the raw text, which PostgreSQL has compressed already.
pub fn decide(request: Request, candidates: &Candidates, measured: &Measured) -> Verdict {
    let nothing = |reason: String| Verdict::Nothing { reason };
    let go = |saved_share: f64, reason: String| match request.target {
        Target::Gzip => Verdict::Gzip { saved_share, reason },
        Target::Toast(compression) => Verdict::Toast { compression, saved_share, reason },
    };
    if measured.values == 0 {
        return match (candidates.exact, request.is_begun) {
            (true, _) => nothing(why_none(request.target, candidates)),
            (false, true) => go(0.0, "decided per value; a sample of the table had none".to_owned()),
            (false, false) if candidates.above > 0 => nothing(format!(
                "all values of that size in a sample of the table are {} already; the next run samples other rows",
                request.target
            )),
            (false, false) => nothing(
                "a sample of the table had no uncompressed value of that size; the next run samples other rows".to_owned(),
            ),
        };
    }
    let form = measured.form(request.target);
    let Some(form) = form else {
        return nothing(match request.target {
            Target::Toast(Toast::Lz4) => "this build of PostgreSQL has no lz4".to_owned(),
            target => format!("{target} could not be measured"),
        });
    };
    let stored = measured.stored_bytes as f64;
    let share = (stored - form.bytes as f64) / stored.max(1.0);
    let (now, then) = (units::bytes(measured.stored_bytes), units::bytes(form.bytes));
    let reason = format!("{now} as stored now would become {then} ({:.0} %)", 100.0 * form.bytes as f64 / stored.max(1.0));
    if request.is_begun {
        let per_value = if share >= MIN_SAVING { "" } else { "decided per value; of those measured, " };
        return go(share.max(0.0), format!("{per_value}{reason}"));
    }
    if share < MIN_SAVING {
        return nothing(format!("{} saves too little: {reason}", request.target));
    }
    let gain = candidates.stored_bytes as f64 * share / request.table_bytes.max(1) as f64;
    if gain < request.minimum_gain {
        return nothing(format!(
            "{} saves too little of the whole table: {:.1} % of {} with its TOAST table and indexes, below minimum_gain = {}; of the values alone, \
             {reason}. Leave the table as it is, or set a lower `minimum_gain` if that is worth it",
            request.target,
            100.0 * gain,
            units::bytes(request.table_bytes),
            request.minimum_gain
        ));
    }
    go(share, reason)
}

/// Says why a table that was read completely has no value to compress.
fn why_none(target: Target, candidates: &Candidates) -> String {
    match target {
        Target::Toast(_) if candidates.above > 0 => {
            format!("all {} values above larger_than are {target} already", units::count(candidates.above))
        }
        Target::Toast(_) => "no value is above larger_than".to_owned(),
        Target::Gzip => "no value has that size, or all of them are compressed already".to_owned(),
    }
}

/// The values that a run would take, counted in a sample of blocks.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Candidates {
    pub rows: u64,
    pub raw_bytes: u64,
    pub stored_bytes: u64,
    /// Values above `larger_than`, also those that have the form already.
    pub above: u64,
    /// The bytes of all values as text, of any size and form.
    pub all_bytes: u64,
    /// Values above `smaller_than`.
    pub too_large: u64,
    /// The whole table was read, not a sample.
    pub exact: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(bytes: u64) -> Option<Form> {
        Some(Form { bytes, ..Form::default() })
    }

    fn measured(stored: u64, pglz: u64, lz4: Option<Form>, gzip: u64) -> Measured {
        Measured {
            values: 10,
            raw_bytes: 1000,
            stored_bytes: stored,
            pglz: form(pglz),
            lz4,
            gzip: form(gzip),
            ..Measured::default()
        }
    }

    fn first(target: Target) -> Request {
        Request { target, minimum_gain: 0.0, table_bytes: 0, is_begun: false }
    }

    const GZIP: Target = Target::Gzip;
    const PGLZ: Target = Target::Toast(Toast::Pglz);
    const LZ4: Target = Target::Toast(Toast::Lz4);

    #[test]
    fn what_is_done_follows_from_what_is_stored_now() {
        let whole = Candidates { exact: true, ..Candidates::default() };
        for (target, measured, expected, why) in [
            (GZIP, measured(254, 254, form(288), 179), "gzip: ", "the research's scripts"),
            (GZIP, measured(190, 254, None, 179), "do nothing: gzip saves too little", "6 % are not worth it"),
            (GZIP, measured(170, 170, None, 179), "do nothing: ", "never bigger"),
            (PGLZ, measured(254, 254, form(288), 179), "do nothing: pglz saves too little", "it is pglz already"),
            (PGLZ, measured(288, 254, form(288), 179), "pglz: ", "lz4 is the larger one"),
            (PGLZ, measured(1000, 254, form(288), 179), "pglz: ", "stored as they are"),
            (LZ4, measured(1000, 254, form(288), 179), "lz4: ", "as asked for"),
            (LZ4, measured(254, 254, form(288), 179), "do nothing: lz4 saves too little", "bigger"),
            (LZ4, measured(1000, 254, None, 179), "do nothing: this build", "not in this build"),
            (GZIP, Measured::default(), "do nothing: no value", "nothing there"),
        ] {
            let verdict = decide(first(target), &whole, &measured);
            assert!(verdict.to_string().starts_with(expected), "{why}: {verdict}");
        }
    }

    #[test]
    fn what_was_begun_goes_on_value_by_value_and_a_sample_never_says_that_there_is_none() {
        let (whole, part) = (Candidates { exact: true, ..Candidates::default() }, Candidates::default());
        let (not_worth, none) = (measured(190, 190, None, 179), Measured::default());
        for target in [GZIP, PGLZ] {
            let first = first(target);
            let begun = Request { is_begun: true, minimum_gain: 0.9, ..first };
            assert_eq!(decide(first, &part, &not_worth).saved_share(), None);
            assert!(decide(begun, &part, &not_worth).saved_share().is_some());
            assert!(decide(begun, &whole, &not_worth).saved_share().is_some());
            assert!(decide(begun, &part, &none).saved_share().is_some());
            assert_eq!(decide(begun, &whole, &none).saved_share(), None, "all were looked at, and none is left");
            assert!(decide(first, &part, &none).to_string().contains("a sample"));
        }
    }

    #[test]
    fn what_is_saved_counts_against_the_whole_table() {
        let whole = Candidates { exact: true, stored_bytes: 254_000, ..Candidates::default() };
        let measured = measured(254, 254, form(288), 179);
        for (table_bytes, minimum_gain, expected) in [
            (254_000, 0.29, "gzip: "),
            (254_000, 0.3, "do nothing: gzip saves too little of the whole table: 29.5 %"),
            (508_000, 0.1, "gzip: "),
        ] {
            let verdict = decide(Request { minimum_gain, table_bytes, ..first(GZIP) }, &whole, &measured);
            assert!(verdict.to_string().starts_with(expected), "{table_bytes} {minimum_gain}: {verdict}");
        }
    }

    #[test]
    fn values_that_have_the_form_already_are_counted_and_named() {
        let pglz = Candidates { exact: true, above: 988, ..Candidates::default() };
        let verdict = decide(first(PGLZ), &pglz, &Measured::default());
        assert_eq!(verdict.to_string(), "do nothing: all 988 values above larger_than are pglz already");
        let none = Candidates { exact: true, ..Candidates::default() };
        assert_eq!(decide(first(PGLZ), &none, &Measured::default()).to_string(), "do nothing: no value is above larger_than");
        let part = Candidates { above: 988, ..Candidates::default() };
        assert!(decide(first(PGLZ), &part, &Measured::default()).to_string().contains("a sample of the table are pglz already"));
    }
}
