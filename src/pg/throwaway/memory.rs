//! How much memory a throwaway server takes: less than PostgreSQL would by itself where little is free, on this host or within the limit of a control group
//! (a container's, or `MemoryMax=` of a unit). A server that took more would be killed, or pgtend with it.

use std::fs;
use std::path::{Path, PathBuf};

const MIB: u64 = 1 << 20;

/// PostgreSQL's default.
const SHARED_BUFFERS_MOST: u64 = 128 * MIB;
const SHARED_BUFFERS_LEAST: u64 = 16 * MIB;

/// An ivfflat index over 11,000 vectors of 1,536 dimensions needs 65 MB; an hnsw index that does not fit is built slowly.
const BUILD_MOST: u64 = 512 * MIB;
const BUILD_LEAST: u64 = 32 * MIB;

/// What the server's settings say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    pub shared_buffers_bytes: u64,
    /// For one index.
    pub build_bytes: u64,
}

impl Memory {
    /// Half of what is free at most; the rest is for rows, sorts, and pgtend itself. `free`: in bytes, None where it is unknown. Pure.
    pub fn within(free: Option<u64>) -> Self {
        let free = free.unwrap_or(u64::MAX);
        Self {
            shared_buffers_bytes: (free / 8).clamp(SHARED_BUFFERS_LEAST, SHARED_BUFFERS_MOST),
            build_bytes: (free / 8 * 3).clamp(BUILD_LEAST, BUILD_MOST),
        }
    }

    pub fn is_less_than_usual(self) -> bool {
        self != Self::within(None)
    }

    /// Lines of `postgresql.conf`. The sessions of a restore raise `maintenance_work_mem` to their shares of `pgtend.build_memory`.
    pub fn settings(self) -> String {
        let (buffers, build) = (self.shared_buffers_bytes >> 10, self.build_bytes >> 10);
        let least = BUILD_LEAST >> 10;
        format!("shared_buffers = {buffers}kB\nmaintenance_work_mem = {least}kB\npgtend.build_memory = '{build}kB'\n")
    }
}

/// Returns what is free now, in bytes; None on other systems than Linux.
pub fn free_bytes() -> Option<u64> {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let of_host = number_after(&read("/proc/meminfo"), "MemAvailable:").map(|kilobytes| kilobytes << 10);
    let of_groups = free_in_groups(Path::new("/sys/fs/cgroup"), &read("/proc/self/cgroup"));
    of_host.into_iter().chain(of_groups).min()
}

/// The least that is free in one of the control groups of a process, of version 2 or 1. `groups`: its /proc/PID/cgroup. In a container, the paths there may be
/// those of the host, which are not mounted: then the limit is that of the mounted root.
fn free_in_groups(mounted: &Path, groups: &str) -> Option<u64> {
    let groups = groups.lines().filter_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        Some((fields.next()?, fields.next()?.trim_start_matches('/')))
    });
    let folders = groups.flat_map(|(controllers, path)| -> Vec<(PathBuf, &Version)> {
        let below =
            |root: PathBuf, version| Path::new(path).ancestors().map(|folder| (root.join(folder), version)).collect::<Vec<_>>();
        match controllers {
            "" => [below(mounted.to_owned(), &TWO), below(mounted.join("unified"), &TWO)].concat(),
            _ if controllers.split(',').any(|controller| controller == "memory") => below(mounted.join("memory"), &ONE),
            _ => Vec::new(),
        }
    });
    folders.filter_map(|(folder, version)| version.free(&folder)).min()
}

/// The names of files and of their fields.
struct Version {
    limit: &'static str,
    used: &'static str,
    /// In `memory.stat`: of files, and of files without a disk, which stay.
    cached: &'static str,
    shared: &'static str,
}

const TWO: Version = Version { limit: "memory.max", used: "memory.current", cached: "file ", shared: "shmem " };
const ONE: Version =
    Version { limit: "memory.limit_in_bytes", used: "memory.usage_in_bytes", cached: "total_cache ", shared: "total_shmem " };

impl Version {
    /// What the group has left: its cached files give way. None without a limit.
    fn free(&self, folder: &Path) -> Option<u64> {
        let read = |name: &str| fs::read_to_string(folder.join(name)).ok();
        let number = |name: &str| read(name)?.trim().parse::<u64>().ok();
        let limit = number(self.limit)?;
        let said = read("memory.stat").unwrap_or_default();
        let of = |field: &str| number_after(&said, field).unwrap_or(0);
        let cached = of(self.cached).saturating_sub(of(self.shared));
        let used = number(self.used).unwrap_or(0).saturating_sub(cached);
        Some(limit.saturating_sub(used))
    }
}

/// The number on the line that begins with `name`.
fn number_after(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_takes_half_of_what_is_free_and_no_more_than_usual() {
        let of = |free: Option<u64>| {
            let Memory { shared_buffers_bytes, build_bytes } = Memory::within(free.map(|megabytes| megabytes * MIB));
            (shared_buffers_bytes / MIB, build_bytes / MIB)
        };
        assert_eq!(of(None), (128, 512));
        assert_eq!(of(Some(64 << 10)), (128, 512));
        assert_eq!(of(Some(1024)), (128, 384));
        assert_eq!(of(Some(512)), (64, 192));
        assert_eq!(of(Some(256)), (32, 96));
        assert_eq!(of(Some(0)), (16, 32));
        assert!(!Memory::within(Some(8 << 30)).is_less_than_usual() && Memory::within(Some(512 * MIB)).is_less_than_usual());
        let settings = Memory::within(Some(512 * MIB)).settings();
        assert!(
            settings.contains("maintenance_work_mem = 32768kB") && settings.contains("build_memory = '196608kB'"),
            "{settings}"
        );
    }

    /// Files of control groups.
    fn groups(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    #[test]
    fn the_narrowest_group_of_version_2_counts_and_files_in_memory_give_way() {
        let root = groups(&[
            ("a/memory.max", "1000000000\n"),
            ("a/memory.current", "700000000\n"),
            ("a/memory.stat", "anon 100000000\nfile 500000000\nkernel 1\nshmem 50000000\nfile_mapped 7\n"),
            ("a/b/memory.max", "max\n"),
            ("a/b/memory.current", "5\n"),
        ]);
        assert_eq!(free_in_groups(root.path(), "0::/a/b\n"), Some(750_000_000));
        assert_eq!(free_in_groups(root.path(), "0::/a/b/../c\n"), Some(750_000_000));
        assert_eq!(free_in_groups(root.path(), "0::/elsewhere\n"), None);
        // In a container of its own, the root is the group.
        let root = groups(&[("memory.max", "600000000\n"), ("memory.current", "100000000\n")]);
        assert_eq!(free_in_groups(root.path(), "0::/\n"), Some(500_000_000));
        assert_eq!(free_in_groups(root.path(), "0::/../../kubepods/x\n"), Some(500_000_000));
    }

    #[test]
    fn groups_of_version_1_count_too() {
        let root = groups(&[
            ("memory/memory.limit_in_bytes", "9223372036854771712\n"),
            ("memory/memory.usage_in_bytes", "9000000000\n"),
            ("memory/docker/x/memory.limit_in_bytes", "400000000\n"),
            ("memory/docker/x/memory.usage_in_bytes", "300000000\n"),
            ("memory/docker/x/memory.stat", "cache 1\ntotal_cache 200000000\ntotal_shmem 0\n"),
            ("cpu/docker/x/cpu.shares", "1\n"),
        ]);
        let of_process = "4:memory:/docker/x\n3:cpuset:/\n1:cpu,cpuacct:/docker/x\n0::/\n";
        assert_eq!(free_in_groups(root.path(), of_process), Some(300_000_000));
        assert!(free_in_groups(root.path(), "4:memory:/docker/unseen\n").is_some_and(|free| free > 1 << 60));
        assert_eq!(free_in_groups(root.path(), ""), None);
    }
}
