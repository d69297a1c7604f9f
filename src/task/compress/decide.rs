//! What to do with the bodies of a table, and why: pure.

use std::fmt;

use serde::Serialize;

use super::{Method, Toast};
use crate::units;

/// Less than this is not worth a write of every body, nor a slower read.
const WORTH: f64 = 0.10;

/// Of the same bodies, each in every form.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Measured {
    pub bodies: u64,
    pub raw_bytes: u64,
    /// As they are stored now.
    pub stored_bytes: u64,
    pub read_milliseconds: f64,
    pub pglz: Option<Form>,
    /// None: this build of the server has none, or it could not be tried.
    pub lz4: Option<Form>,
    pub gzip: Option<Form>,
}

#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Form {
    pub bytes: u64,
    pub write_milliseconds: f64,
    /// Of all bodies, one after another.
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

/// Against what is stored now, never against the raw text: that is compressed by PostgreSQL already.
pub fn decide(method: Method, wanted: Option<Toast>, measured: &Measured) -> Verdict {
    let nothing = |reason: String| Verdict::Nothing { reason };
    if measured.bodies == 0 {
        return nothing("no body is of that size, or all of them are compressed".to_owned());
    }
    let stored = measured.stored_bytes as f64;
    let reason = |bytes: u64| {
        let (now, then) = (units::bytes(measured.stored_bytes), units::bytes(bytes));
        format!("{now} as stored now become {then} ({:.0} %)", 100.0 * bytes as f64 / stored.max(1.0))
    };
    let share = |bytes: u64| (stored - bytes as f64) / stored.max(1.0);
    match method {
        Method::Gzip => match measured.gzip {
            Some(form) if share(form.bytes) >= WORTH => {
                Verdict::Gzip { saved_share: share(form.bytes), reason: reason(form.bytes) }
            }
            Some(form) => nothing(format!("nothing to win by gzip: {}", reason(form.bytes))),
            None => nothing("gzip could not be measured".to_owned()),
        },
        Method::Toast => {
            let forms = [(Toast::Pglz, measured.pglz), (Toast::Lz4, measured.lz4)];
            let best = forms
                .into_iter()
                .filter(|(compression, _)| wanted.is_none_or(|wanted| wanted == *compression))
                .filter_map(|(compression, form)| form.map(|form| (compression, form)))
                .min_by_key(|(_, form)| form.bytes);
            match best {
                Some((compression, form)) if share(form.bytes) >= WORTH => {
                    Verdict::Toast { compression, saved_share: share(form.bytes), reason: reason(form.bytes) }
                }
                Some((compression, form)) => nothing(format!("nothing to win by {compression}: {}", reason(form.bytes))),
                None => nothing(match wanted {
                    Some(Toast::Lz4) => "this build of PostgreSQL has no lz4".to_owned(),
                    _ => "it could not be measured".to_owned(),
                }),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(bytes: u64) -> Option<Form> {
        Some(Form { bytes, ..Form::default() })
    }

    #[test]
    fn what_is_done_follows_from_what_is_stored_now() {
        let measured = |stored, pglz, lz4, gzip| Measured {
            bodies: 10,
            raw_bytes: 1000,
            stored_bytes: stored,
            pglz: form(pglz),
            lz4,
            gzip: form(gzip),
            ..Measured::default()
        };
        for (method, wanted, measured, expected, why) in [
            (Method::Gzip, None, measured(254, 254, form(288), 179), "gzip: ", "the research's scripts"),
            (Method::Gzip, None, measured(190, 254, None, 179), "do nothing: nothing to win by gzip", "6 % are not worth it"),
            (Method::Gzip, None, measured(170, 170, None, 179), "do nothing: ", "never bigger"),
            (Method::Toast, None, measured(254, 254, form(288), 179), "do nothing: nothing to win by pglz", "it is pglz already"),
            (Method::Toast, None, measured(288, 254, form(288), 179), "pglz: ", "lz4 is the larger one"),
            (Method::Toast, None, measured(1000, 254, form(288), 179), "pglz: ", "stored as they are"),
            (Method::Toast, Some(Toast::Lz4), measured(1000, 254, form(288), 179), "lz4: ", "as asked for"),
            (Method::Toast, Some(Toast::Lz4), measured(254, 254, form(288), 179), "do nothing: nothing to win by lz4", "bigger"),
            (Method::Toast, Some(Toast::Lz4), measured(1000, 254, None, 179), "do nothing: this build", "not in this build"),
            (Method::Gzip, None, Measured::default(), "do nothing: no body", "nothing there"),
        ] {
            let verdict = decide(method, wanted, &measured);
            assert!(verdict.to_string().starts_with(expected), "{why}: {verdict}");
        }
    }
}
