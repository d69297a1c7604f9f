//! `[compress]`: the keys of a job, as written and resolved.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use toml::Spanned;

use crate::base::units::Size;
use crate::config::checker::Checker;

/// The audit uses the same size: below it, TOAST's pglz does well enough.
const LARGER_THAN: Size = Size(10_000);

/// PL/pgSQL reads about 4 MB a second: a third of a second for one of these (docs/benchmarks.md).
const SMALLER_THAN: Size = Size(1_000_000);

/// A view over PL/pgSQL makes every reader slower and every ORM meet what a view is not: for less than this share of the table it is not worth that.
const MINIMUM_GAIN: f64 = 0.3;

/// PostgreSQL does not toast values below this, and so does not compress them.
const MIN_TOAST_BYTES: u64 = 2_000;

/// The size limit of a field.
pub(super) const MAX_VALUE_BYTES: u64 = 1 << 30;

/// Reading a value of this size through the view takes 15 s; compressing it takes three times its size in memory, and twice that on a busy host (`GiveWay`).
const MAX_GZIP_BYTES: u64 = 64_000_000;

/// `[compress]`, resolved.
#[derive(Clone, Debug)]
pub struct Compress {
    pub table: String,
    pub column: String,
    pub larger_than: Size,
    pub smaller_than: Size,
    pub method: Method,
    pub compression: Option<Toast>,
    /// The share of the table's total size that has to be saved for compression to begin.
    pub minimum_gain: f64,
    /// Values may have a dictionary in common.
    pub dictionary: bool,
    pub vacuum: bool,
}

/// `[compress]` as written.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Written {
    /// The table as in SQL: `public.scripts`, `"Odd Name"`. The view that takes its place has this name.
    #[schemars(example = &"public.scripts")]
    pub table: String,
    /// The column with the large values: text or varchar; with method = "toast" also bytea, jsonb, json, xml or an array.
    #[schemars(example = &"content")]
    pub column: String,
    /// "gzip": in a companion column, behind a view; "toast": by PostgreSQL itself.
    pub method: Method,
    /// Values above this, in bytes of text; of jsonb, json, xml and arrays, in bytes as they are stored; at least 2 kB; default "10KB".
    #[schemars(with = "Option<Size>", example = &"10KB")]
    pub larger_than: Option<Spanned<Size>>,
    /// gzip: values above this stay as they are, because reading them through the view would take long; at most 64 MB; default "1MB".
    #[schemars(with = "Option<Size>", example = &"1MB")]
    pub smaller_than: Option<Spanned<Size>>,
    /// toast: "pglz" or "lz4"; by default the smaller of the two.
    #[schemars(with = "Option<Toast>")]
    pub compression: Option<Spanned<Toast>>,
    /// Compression begins only if it saves at least this share of the table with its TOAST table and indexes; default 0.3 for gzip, 0 for toast.
    #[schemars(with = "Option<f64>", range(min = 0), extend("exclusiveMaximum" = 1), example = 0.3)]
    pub minimum_gain: Option<Spanned<f64>>,
    /// gzip: learn a dictionary of the column, in a function beside the table without which values cannot be read; default false.
    #[schemars(with = "Option<bool>")]
    pub dictionary: Option<Spanned<bool>>,
    /// Run VACUUM (not FULL) between batches, so that the space can be reused at once; default true.
    pub vacuum: Option<bool>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    Gzip,
    Toast,
}

/// TOAST's own compression methods.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Toast {
    Pglz,
    Lz4,
}

impl fmt::Display for Toast {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Self::Pglz => "pglz",
            Self::Lz4 => "lz4",
        })
    }
}

pub fn resolve(written: Written, checker: &mut Checker<'_>) -> Option<Compress> {
    let mut good = true;
    let larger_than = written.larger_than.as_ref().map_or(LARGER_THAN, |size| *size.get_ref());
    let default = SMALLER_THAN.0.max(larger_than.0.saturating_mul(10)).min(MAX_GZIP_BYTES);
    let smaller_than = written.smaller_than.as_ref().map_or(default, |size| size.get_ref().0);
    if let Some(size) = written.larger_than.as_ref().filter(|size| size.get_ref().0 < MIN_TOAST_BYTES) {
        checker.problem(
            size,
            "`larger_than` is below 2 kB",
            "PostgreSQL keeps such values in the row; start with \"10KB\"".to_owned(),
        );
        good = false;
    }
    if let Some(size) = written.smaller_than.as_ref().filter(|size| size.get_ref().0 <= larger_than.0) {
        checker.problem(
            size,
            "`smaller_than` leaves no value between it and `larger_than`",
            "write a size above `larger_than`".to_owned(),
        );
        good = false;
    }
    if let Some(size) = written.smaller_than.as_ref().filter(|size| size.get_ref().0 > MAX_GZIP_BYTES) {
        let hint = "at most \"64MB\", which takes about 15 s to read through the view".to_owned();
        checker.problem(size, "`smaller_than` is too large", hint);
        good = false;
    }
    if let (Method::Gzip, None, Some(size)) = (written.method, &written.smaller_than, &written.larger_than)
        && size.get_ref().0 >= MAX_GZIP_BYTES
    {
        checker.problem(size, "`larger_than` is too large", "with method = \"gzip\", write less than \"64MB\"".to_owned());
        good = false;
    }
    if let (Method::Toast, Some(size)) = (written.method, &written.smaller_than) {
        checker.problem(size, "`smaller_than` has no meaning for method = \"toast\"", "leave it out".to_owned());
        good = false;
    }
    if let (Method::Gzip, Some(compression)) = (written.method, &written.compression) {
        checker.problem(compression, "`compression` has no meaning for method = \"gzip\"", "leave it out".to_owned());
        good = false;
    }
    if let (Method::Toast, Some(dictionary)) = (written.method, &written.dictionary) {
        checker.problem(dictionary, "`dictionary` has no meaning for method = \"toast\"", "leave it out".to_owned());
        good = false;
    }
    if let Some(share) = written.minimum_gain.as_ref().filter(|share| !(0.0..1.0).contains(share.get_ref())) {
        checker.problem(
            share,
            format!("`minimum_gain = {}` is out of range", share.get_ref()),
            "a share from 0 to below 1: 0.3 is 30 %".to_owned(),
        );
        good = false;
    }
    let minimum_gain = if written.method == Method::Gzip { MINIMUM_GAIN } else { 0.0 };
    good.then_some(Compress {
        table: written.table,
        column: written.column,
        larger_than,
        smaller_than: Size(if written.method == Method::Gzip { smaller_than } else { MAX_VALUE_BYTES }),
        method: written.method,
        compression: written.compression.map(Spanned::into_inner),
        minimum_gain: written.minimum_gain.map_or(minimum_gain, Spanned::into_inner),
        dictionary: written.dictionary.is_some_and(Spanned::into_inner),
        vacuum: written.vacuum.unwrap_or(true),
    })
}
