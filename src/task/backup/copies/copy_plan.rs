//! The plan of a copy, as people and machines read it.

use std::fmt;

use schemars::JsonSchema;
use serde::Serialize;

use crate::base::units;
use crate::members::decrypt::recipients_in_words;
use crate::task::backup::set::MANIFEST;

/// What a copy would do.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Plan {
    pub set: String,
    pub from: String,
    pub to: String,
    pub objects: Vec<Planned>,
    /// The set is complete there.
    pub is_there: bool,
    /// It is there for others, and this one takes its place.
    pub replaces: bool,
    /// It is encrypted on its way: the store that it goes to encrypts, or it is for others.
    pub encrypts: bool,
    /// For whom, then.
    pub recipients: Vec<String>,
    pub notes: Vec<String>,
}

#[derive(Debug, Serialize, JsonSchema)]
pub struct Planned {
    pub object: String,
    pub bytes: u64,
    /// An object of that length is there: its bytes are compared, and it is not sent if they are the same.
    pub is_there: bool,
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        writeln!(f, "copy {} from {} to {}", self.set, self.from, self.to)?;
        if self.is_there {
            return writeln!(f, "  nothing: {} has it", self.to);
        }
        for Planned { object, bytes, is_there } in &self.objects {
            let how = match (is_there, self.encrypts) {
                (true, _) => "is there: its bytes are compared, and it is not sent again if they are right",
                (false, true) => "is encrypted and sent",
                (false, false) => "is sent",
            };
            writeln!(f, "  {object} ({}) {how}", units::bytes(*bytes))?;
        }
        if self.encrypts {
            writeln!(f, "  encrypted to {}", recipients_in_words(&self.recipients))?;
        }
        if self.replaces {
            writeln!(
                f,
                "  that in {} is read and decoded first; the copy there, for others, gives way when all of this one was sent",
                self.from
            )?;
        }
        writeln!(f, "  {} comes last, and then all of it is read back", MANIFEST)?;
        self.notes.iter().try_for_each(|note| writeln!(f, "  note     {note}"))
    }
}
