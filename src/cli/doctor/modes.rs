//! Which bits of a file's mode give too much away, and the command that takes them.
//!
//! A group may read a secret that is root's, or another user's who shares it with pgtend: 0640 of root and a group of pgtend's, as packages and Kubernetes
//! do it. libpq has the same rule for keys: 0640 of root, 0600 of one's own. What belongs to pgtend's own user needs no group, but the user's private one
//! does no harm: with it, a umask of 002 is usual. Whoever may write decides what pgtend does, so there only the private group counts.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use rustix::fs::StatVfsMountFlags;
use rustix::process::{getegid, geteuid, getgroups};

use crate::base::accounts;
use crate::base::shell::word;

/// What a file is for, as far as it matters who may read and write it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// pgtend relies on what it says.
    Relied,
    Secret,
    /// A key of a client certificate, which libpq itself refuses where others may read it.
    Key,
    /// libpq's password file, which nothing reads that others may read.
    Passwords,
    /// A folder of dumps. Its group may be that of a tool that takes them elsewhere.
    Dumps {
        are_encrypted: bool,
    },
    /// A folder that has one of the others in it, or below.
    Above,
}

/// Who may do what, and who pgtend is.
#[derive(Clone, Debug)]
pub struct Access {
    pub mode: u32,
    pub owner: u32,
    /// The group's name.
    pub group: String,
    /// No other account is in the group than its owner and root.
    pub group_is_owners: bool,
    /// The same for pgtend's user.
    pub group_is_mine: bool,
    /// pgtend's user is in the group.
    pub is_in_group: bool,
    /// The user who runs pgtend.
    pub me: u32,
}

const STICKY: u32 = 0o1000;

impl Access {
    /// Reads it of a file or folder; links are followed. Nobody writes where the file system is mounted for reading alone, as Kubernetes mounts ConfigMaps
    /// and Secrets.
    pub fn of(path: &Path) -> Option<Self> {
        let found = path.metadata().ok()?;
        let (me, owner, gid) = (geteuid().as_raw(), found.uid(), found.gid());
        let is_read_only = rustix::fs::statvfs(path).is_ok_and(|at| at.f_flag.contains(StatVfsMountFlags::RDONLY));
        let is_in = |groups: Vec<rustix::process::Gid>| groups.iter().any(|group| group.as_raw() == gid);
        Some(Self {
            mode: found.mode() & if is_read_only { 0o7555 } else { 0o7777 },
            owner,
            group: accounts::group_name(gid),
            group_is_owners: accounts::has_only(gid, owner),
            group_is_mine: accounts::has_only(gid, me),
            is_in_group: getegid().as_raw() == gid || getgroups().is_ok_and(is_in),
            me,
        })
    }

    /// Returns the bits that others or a group have too many. Pure, as the rest.
    pub fn too_much(&self, used: Use) -> u32 {
        let is_private = self.group_is_owners || self.group_is_mine;
        let is_shared = self.owner == 0 || self.owner != self.me;
        let lists = self.mode & 0o005 == 0o005;
        let wrong = match used {
            Use::Above if self.mode & STICKY != 0 => 0,
            Use::Relied | Use::Above => 0o022,
            Use::Secret | Use::Key | Use::Passwords => 0o066,
            Use::Dumps { are_encrypted: false } if lists => 0o027,
            Use::Dumps { .. } => 0o022,
        };
        let excused = match used {
            Use::Passwords => 0,
            Use::Key if self.owner == 0 => 0o040,
            Use::Key => 0,
            Use::Dumps { .. } if is_shared => 0o070,
            _ if is_private => 0o070,
            Use::Secret if is_shared => 0o040,
            Use::Secret | Use::Relied | Use::Dumps { .. } | Use::Above => 0,
        };
        self.mode & wrong & !excused
    }

    /// Says who may do what by these bits, or nothing of none.
    pub fn in_words(&self, too_much: u32) -> Option<String> {
        let of_group = format!("its group {}", self.group);
        let may = [("others", too_much), (of_group.as_str(), too_much >> 3)].into_iter().filter_map(|(who, bits)| {
            let does = match (bits & 0o4 != 0, bits & 0o2 != 0) {
                (true, true) => "read and write it",
                (true, false) => "read it",
                (false, true) => "write to it",
                (false, false) => return None,
            };
            Some(format!("{who} may {does}"))
        });
        let may: Vec<String> = may.collect();
        (!may.is_empty()).then(|| may.join(", and "))
    }

    /// Returns the command that takes these bits away.
    pub fn remedy(&self, used: Use, too_much: u32, path: &str) -> String {
        let path = word(path);
        if matches!(used, Use::Relied | Use::Above) {
            let parts = [(0o002, "o-w"), (0o020, "g-w")].into_iter().filter(|(bit, _)| too_much & bit != 0);
            return format!("chmod {} {path}", parts.map(|(_, part)| part).collect::<Vec<_>>().join(","));
        }
        let is_read_as_others = self.me != 0 && self.owner != self.me && !self.is_in_group;
        if is_read_as_others {
            return format!("give it to a group of pgtend's user, then chmod 640 {path}");
        }
        let needless = if self.group_is_owners { 0o070 } else { 0 };
        format!("chmod {:o} {path}", self.mode & 0o770 & !too_much & !needless)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT: u32 = 0;
    const PGTEND: u32 = 998;

    /// A file of an owner, with a group that is private to this user; None: a group of several accounts.
    fn access(mode: u32, owner: u32, of_group: Option<u32>, me: u32) -> Access {
        let is_of = |user| of_group == Some(user);
        Access {
            mode,
            owner,
            group: "staff".to_owned(),
            group_is_owners: is_of(owner),
            group_is_mine: is_of(me),
            is_in_group: is_of(me),
            me,
        }
    }

    #[test]
    fn usual_modes_are_no_finding_and_others_have_an_exact_command() {
        let dumps = Use::Dumps { are_encrypted: false };
        let sealed = Use::Dumps { are_encrypted: true };
        for (used, mode, owner, of_group, me, expected) in [
            (Use::Relied, 0o644, ROOT, Some(ROOT), PGTEND, ""),
            (Use::Relied, 0o664, PGTEND, Some(PGTEND), PGTEND, ""),
            (Use::Relied, 0o664, ROOT, Some(PGTEND), PGTEND, ""),
            (Use::Relied, 0o664, ROOT, None, PGTEND, "chmod g-w"),
            (Use::Relied, 0o664, PGTEND, None, PGTEND, "chmod g-w"),
            (Use::Relied, 0o666, PGTEND, Some(PGTEND), PGTEND, "chmod o-w"),
            (Use::Relied, 0o666, PGTEND, None, PGTEND, "chmod o-w,g-w"),
            (Use::Relied, 0o1777, ROOT, Some(ROOT), PGTEND, "chmod o-w"),
            (Use::Above, 0o1777, ROOT, Some(ROOT), PGTEND, ""),
            (Use::Above, 0o777, ROOT, Some(ROOT), PGTEND, "chmod o-w"),
            (Use::Above, 0o2775, ROOT, None, ROOT, "chmod g-w"),
            // As packages, systemd and Kubernetes have it.
            (Use::Secret, 0o640, ROOT, Some(PGTEND), PGTEND, ""),
            (Use::Secret, 0o640, ROOT, Some(PGTEND), ROOT, ""),
            (Use::Secret, 0o440, ROOT, None, PGTEND, ""),
            (Use::Secret, 0o600, PGTEND, None, PGTEND, ""),
            (Use::Secret, 0o640, PGTEND, Some(PGTEND), PGTEND, ""),
            (Use::Secret, 0o640, PGTEND, Some(PGTEND), ROOT, ""),
            (Use::Secret, 0o640, PGTEND, None, PGTEND, "chmod 600"),
            (Use::Secret, 0o644, PGTEND, Some(PGTEND), PGTEND, "chmod 600"),
            (Use::Secret, 0o644, ROOT, Some(ROOT), ROOT, "chmod 600"),
            (Use::Secret, 0o644, ROOT, Some(PGTEND), PGTEND, "chmod 640"),
            (Use::Secret, 0o644, ROOT, Some(ROOT), PGTEND, "give it to a group of pgtend's user, then chmod 640"),
            (Use::Secret, 0o660, ROOT, None, ROOT, "chmod 640"),
            (Use::Secret, 0o602, PGTEND, None, PGTEND, "chmod 600"),
            (Use::Key, 0o640, ROOT, Some(PGTEND), PGTEND, ""),
            (Use::Key, 0o640, PGTEND, Some(PGTEND), PGTEND, "chmod 600"),
            (Use::Passwords, 0o600, PGTEND, None, PGTEND, ""),
            (Use::Passwords, 0o640, ROOT, Some(ROOT), ROOT, "chmod 600"),
            (dumps, 0o700, PGTEND, None, PGTEND, ""),
            (dumps, 0o750, PGTEND, None, PGTEND, ""),
            (dumps, 0o2770, ROOT, None, PGTEND, ""),
            (dumps, 0o755, PGTEND, Some(PGTEND), PGTEND, "chmod 700"),
            (dumps, 0o755, PGTEND, None, PGTEND, "chmod 750"),
            (dumps, 0o770, PGTEND, None, PGTEND, "chmod 750"),
            (sealed, 0o755, PGTEND, Some(PGTEND), PGTEND, ""),
            (sealed, 0o777, PGTEND, Some(PGTEND), PGTEND, "chmod 700"),
        ] {
            let access = access(mode, owner, of_group, me);
            let too_much = access.too_much(used);
            let remedy = access.in_words(too_much).map(|_| access.remedy(used, too_much, "/f"));
            let expected = if expected.is_empty() { None } else { Some(format!("{expected} /f")) };
            assert_eq!(remedy, expected, "{used:?} {mode:o} of {owner}, group {of_group:?}, for {me}");
        }
    }

    #[test]
    fn it_is_said_who_may_do_what() {
        let access = access(0o666, PGTEND, None, PGTEND);
        assert_eq!(access.in_words(0o042).unwrap(), "others may write to it, and its group staff may read it");
        assert_eq!(access.in_words(0o006).unwrap(), "others may read and write it");
        assert_eq!(access.in_words(0), None);
    }
}
