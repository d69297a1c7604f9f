//! This system's own lists of users and groups: `/etc/passwd` and `/etc/group`. Accounts of a directory service (LDAP, SSSD) are not in them.

use std::fs::read_to_string;

/// Returns whether a group is known to have no member but root and this user, as the groups have that are made with each user. A group that is not in
/// the system's own lists may have any. In root's own group there may be accounts without a login besides (Fedora's `sync`).
pub fn has_only(group: u32, user: u32) -> bool {
    if (group, user) == (0, 0) {
        return true;
    }
    let (users, groups) = (read_to_string("/etc/passwd"), read_to_string("/etc/group"));
    users.is_ok_and(|users| groups.is_ok_and(|groups| is_alone(group, user, &users, &groups)))
}

/// Returns the name of a group, or its number.
pub fn group_name(group: u32) -> String {
    let groups = read_to_string("/etc/group").unwrap_or_default();
    named(&groups).find(|(_, id, _)| *id == group).map_or_else(|| group.to_string(), |(name, ..)| name.to_owned())
}

fn is_alone(group: u32, user: u32, users: &str, groups: &str) -> bool {
    let Some((_, _, members)) = named(groups).find(|(_, id, _)| *id == group) else { return false };
    let is_other = |id: u32| id != 0 && id != user;
    let by_login = users.lines().filter_map(login).any(|(_, id, of)| of == group && is_other(id));
    let mut listed = members.split(',').filter(|name| !name.is_empty());
    let has_listed =
        listed.any(|name| users.lines().filter_map(login).find(|(of, ..)| *of == name).is_none_or(|(_, id, _)| is_other(id)));
    !by_login && !has_listed
}

/// The groups, each with its number and its members.
fn named(groups: &str) -> impl Iterator<Item = (&str, u32, &str)> {
    groups.lines().filter_map(|line| {
        let mut fields = line.split(':');
        Some((fields.next()?, fields.nth(1)?.parse().ok()?, fields.next()?))
    })
}

/// The name, number and group of a user's line.
fn login(line: &str) -> Option<(&str, u32, u32)> {
    let mut fields = line.split(':');
    Some((fields.next()?, fields.nth(1)?.parse().ok()?, fields.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_private_that_has_no_other_member() {
        let users = "root:x:0:0:root:/root:/bin/sh\npgtend:x:998:998::/:/bin/false\nann:x:1000:1000::/home/ann:/bin/sh\nbob:x:1001:100::/:\n";
        let groups =
            "root:x:0:\nusers:x:100:\npgtend:x:998:root\nann:x:1000:\ndba:x:50:ann,bob\nmine:x:51:ann\nold:x:52:gone\nbroken\n";
        for (group, user, expected) in [
            (998, 998, true),
            (998, 1000, false),
            (1000, 1000, true),
            (0, 0, true),
            (0, 1000, true),
            (100, 1001, true),
            (100, 1000, false),
            (50, 1000, false),
            (51, 1000, true),
            // A member whom these lists do not have, and a group that they do not have.
            (52, 1000, false),
            (77, 1000, false),
        ] {
            assert_eq!(is_alone(group, user, users, groups), expected, "{group} {user}");
        }
        assert_eq!(named(groups).count(), 7);
    }
}
