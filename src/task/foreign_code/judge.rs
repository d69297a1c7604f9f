//! Turns the code found into warnings, or into a refusal.

use anyhow::Result;

use super::found::ForeignCode;
use crate::base::fault::{Fault, Kind};

/// This many warnings are listed; the rest are only counted.
pub const NAMED: usize = 20;
/// This many statements are spelled out in a refusal.
const REVOKES_NAMED: usize = 5;

/// Turns the code found into sentences; an error where owners of tables are not trusted. Pure.
pub fn judge(mut found: Vec<ForeignCode>, trust_owners: bool) -> Result<Vec<String>> {
    // Concrete code comes first, as it says more. A role that `grants` created for several jobs always has rights that one of the owners
    // lacks, so the owner alone is not worth a warning there.
    found.sort_by_key(|code| (code.is_a_holder(), code.is_an_owner(), code.is_beside_the_tables()));
    found.retain(|code| !trust_owners || !code.is_an_owner() && !code.is_a_holder() || code.is_superuser);
    if trust_owners {
        // What the login has beside the tables is said once for each owner.
        let mut said: Vec<Option<String>> = Vec::new();
        found.retain(|code| {
            code.is_superuser
                || !code.is_beside_the_tables()
                || !said.contains(&code.owner) && {
                    said.push(code.owner.clone());
                    true
                }
        });
    }
    let (holders, found): (Vec<ForeignCode>, Vec<ForeignCode>) = found.into_iter().partition(ForeignCode::is_a_holder);
    let holders = without_owners(holders, &found);
    let mut lines = in_short(found.iter().map(ToString::to_string).collect());
    lines.extend(in_short(holders_in_words(&holders)));
    if trust_owners || lines.is_empty() {
        return Ok(lines);
    }
    let mut remedies = Vec::new();
    if let Some(first) = found.first() {
        let owner = first.owner();
        remedies.push(format!(
            "connect as a role without more rights than {owner}. That is {owner} itself (set `owner_url` of the \
             database for that; the run history is then still written by the login in `url`), or a non-superuser that is a member of {owner} alone \
             and has nothing else, in any database of the server"
        ));
    }
    if !holders.is_empty() {
        remedies.push(revokes(holders.iter().map(ForeignCode::revoke).collect()));
    }
    let message = format!("{}; trust_owners = false refuses that: {}", lines.join("; "), remedies.join("; and "));
    Err(Fault::new(Kind::Permission, message).into())
}

/// A role that is named as an owner already may put code there in any case.
fn without_owners(mut holders: Vec<ForeignCode>, found: &[ForeignCode]) -> Vec<ForeignCode> {
    holders.retain(|holder| !found.iter().any(|code| code.is_an_owner() && code.owner == holder.owner));
    holders
}

/// Returns one line for each role: its first privilege, and how many more there are.
fn holders_in_words(holders: &[ForeignCode]) -> Vec<String> {
    let mut of_roles: Vec<(&ForeignCode, usize)> = Vec::new();
    for holder in holders {
        match of_roles.iter_mut().find(|(first, _)| first.owner == holder.owner) {
            Some((_, more)) => *more += 1,
            None => of_roles.push((holder, 0)),
        }
    }
    let in_words = |(first, more): &(&ForeignCode, usize)| match more {
        0 => first.to_string(),
        more => format!("{first} (and {more} more such {})", if *more == 1 { "privilege" } else { "privileges" }),
    };
    of_roles.iter().map(in_words).collect()
}

/// Returns the statements that take privileges away, with a few spelled out.
pub fn revokes(statements: Vec<String>) -> String {
    let named = statements.iter().take(REVOKES_NAMED).cloned().collect::<Vec<_>>().join("; ");
    match statements.len().checked_sub(REVOKES_NAMED).filter(|more| *more > 0) {
        None => named,
        Some(more) => format!("{named}; and {more} more of the kind"),
    }
}

fn in_short(mut lines: Vec<String>) -> Vec<String> {
    if lines.len() > NAMED {
        let more = lines.len() - NAMED;
        lines.truncate(NAMED);
        lines.push(format!("and {more} more"));
    }
    lines
}
