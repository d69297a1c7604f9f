//! How many sessions restore a dump.

use super::manifest::Manifest;

/// A restore of a smaller dump has nothing for several sessions.
const SMALL_BYTES: u64 = 8 << 20;

/// The most sessions that may be asked for, in a job and for a restore.
pub const SESSIONS_MOST: usize = 16;

/// The most sessions by default.
const BY_DEFAULT: usize = 4;

/// How many sessions restore this dump, beside the main one: as many as `asked`; by default one for each processor of this host, at most four, and only one
/// for a small dump. With one, the main session does all.
pub fn restore_sessions(asked: Option<usize>, manifest: &Manifest) -> usize {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    match asked {
        Some(asked) => asked.clamp(1, SESSIONS_MOST),
        None if manifest.dump.uncompressed_bytes < scaled(SMALL_BYTES) => 1,
        None => processors.min(BY_DEFAULT),
    }
}

/// The size or time that a debug build uses in place of this one: PGTEND_TEST_SMALLER=64 lets a test have tables of kilobytes where a real
/// database has some of megabytes. In a release build it is the value itself.
pub fn scaled(value: u64) -> u64 {
    let smaller = || std::env::var("PGTEND_TEST_SMALLER").ok()?.parse().ok();
    value / if cfg!(debug_assertions) { smaller().unwrap_or(1) } else { 1 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::backup::manifest::tests::manifest;

    #[test]
    fn a_small_dump_is_restored_by_one_session_unless_more_are_asked_for() {
        let mut manifest = manifest();
        manifest.dump.uncompressed_bytes = SMALL_BYTES - 1;
        assert_eq!([None, Some(1), Some(3), Some(99)].map(|asked| restore_sessions(asked, &manifest)), [1, 1, 3, SESSIONS_MOST]);
        manifest.dump.uncompressed_bytes = SMALL_BYTES;
        assert!((1..=BY_DEFAULT).contains(&restore_sessions(None, &manifest)));
        assert_eq!(restore_sessions(Some(1), &manifest), 1);
    }
}
