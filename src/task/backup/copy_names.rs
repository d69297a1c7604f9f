//! The names of a database that is restored, before it has its own.

use sha2::{Digest as _, Sha256};

use super::choices::Choices;
use super::facts::DatabaseFacts;
use super::set::Set;

/// The start of the comment of a copy that is whole and still has its first name.
pub const WHOLE_COMMENT: &str = "made by pgtend, a whole copy of";

/// The end of that comment where statements had failed.
const WITH_FAILURES: &str = ", but for statements that failed";

/// The names that a restore of a set into a database goes through.
pub struct Names {
    /// The lock that every restore into that database takes.
    pub lock: String,
    pub filling: String,
    /// The prefix of copies that are being filled for the same database, of any set.
    pub filling_prefix: String,
    pub whole: String,
    /// The prefix of whole copies for the same database, of any set.
    pub whole_prefix: String,
    /// A copy that holds all of its dump except for statements that failed with `--on-error continue`.
    pub with_failures: String,
    /// The comment of a copy that is whole and could not be renamed even once; its end says whether statements failed.
    whole_comment: String,
}

impl Names {
    /// A copy that was made with other choices has another name: what one choice left out, the next restore would miss.
    pub fn of(name: &str, set: &Set, choices: &Choices, like: &DatabaseFacts) -> Self {
        let target = hex::encode(Sha256::digest(name));
        let made_of = format!("{}/{}/{choices:?}/{like:?}", set.name, set.manifest.dump.sha256);
        let source = hex::encode(Sha256::digest(made_of));
        let filling_prefix = format!("pgtend_restore_{}", &target[..12]);
        let whole_prefix = format!("pgtend_restored_{}_", &target[..12]);
        Self {
            lock: filling_prefix.clone(),
            filling: format!("{filling_prefix}_{}", &source[..12]),
            whole: format!("{whole_prefix}{}", &source[..12]),
            with_failures: format!("{whole_prefix}{}_with_failures", &source[..12]),
            filling_prefix,
            whole_prefix,
            whole_comment: format!("{WHOLE_COMMENT} {} for {name}", set.name),
        }
    }

    pub fn comment(&self, has_failures: bool) -> String {
        format!("{}{}", self.whole_comment, if has_failures { WITH_FAILURES } else { "" })
    }

    pub fn whole(&self, has_failures: bool) -> &str {
        if has_failures { &self.with_failures } else { &self.whole }
    }
}
