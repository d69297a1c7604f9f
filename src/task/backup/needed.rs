//! A set that no rule of its own store keeps, and that stays for another store. `copies::needs` finds them, and `rules` keep them.

use super::set_name::SetName;

/// A set that is kept for another store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Needed {
    pub set: SetName,
    /// The store that needs it.
    pub store: String,
    pub why: Why,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    /// That store, or a part of it, could not be read.
    Unread,
    /// It has nothing of that name, or the rest of a set: runs copy it there.
    Lacking,
    /// What has that name there is not known to be a good copy, for this reason. No run replaces it.
    NotGood(String),
    /// What speaks against the data of the set could not be recorded beside the copy there.
    Untold,
}

impl Needed {
    /// The reason why it stays.
    pub fn in_words(&self) -> String {
        let Self { store, why, .. } = self;
        match why {
            Why::Unread => format!("{store} keeps it by its rules, and could not be read: it is not known to be there"),
            Why::Lacking => format!("{store} keeps it by its rules, and lacks it: it is to be copied there first"),
            Why::NotGood(why) => format!("{store} keeps it by its rules, and is not known to have a good copy: {why}"),
            Why::Untold => format!("what speaks against its data could not be recorded beside the copy in {store}"),
        }
    }
}
