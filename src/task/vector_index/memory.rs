//! The memory that a build needs, determined before it: pgvector itself checks in stages, the last of them after minutes.

use serde::Serialize;

use super::candidates::Spec;
use super::state::Table;
use crate::base::units;
use crate::pg;

#[derive(Clone, Debug, Serialize)]
pub struct Memory {
    pub needed_bytes: u64,
    pub maintenance_work_mem_bytes: u64,
    pub parallel_workers: u32,
    /// Free memory of the server's machine, if it is this one.
    pub free_bytes: Option<u64>,
    pub shared_bytes: Option<u64>,
    pub notes: Vec<String>,
    /// The reason why the build would fail.
    pub refusal: Option<String>,
}

pub struct BuildSettings {
    pub maintenance_work_mem: Option<u64>,
    pub parallel_workers: Option<u32>,
}

/// Returns the memory in bytes that the build of an index needs. ivfflat: k-means over a sample of 50 rows a list; pgvector 0.8, ivfkmeans.c. hnsw:
/// the graph; when it no longer fits, the build continues on disk, five times slower.
pub fn needed(spec: Spec, rows: f64, heap_blocks: i64, value_bytes: u64, dimensions: u32) -> u64 {
    match spec {
        Spec::Ivfflat { lists } => {
            let lists = f64::from(lists);
            let samples = (50.0 * lists).max(10_000.0).min(heap_blocks.max(1) as f64 * 291.0);
            let sampled = samples.min(rows);
            let value = value_bytes as f64;
            ((samples + 2.0 * lists) * value + 4.0 * lists * f64::from(dimensions) + 4.0 * sampled * lists + 4.0 * lists * lists)
                as u64
        }
        Spec::Hnsw { m, .. } => (rows * (value_bytes as f64 + 200.0 + 32.0 * f64::from(m))) as u64,
    }
}

pub fn check(table: &Table, spec: Spec, given: &BuildSettings, settings: &pg::Settings) -> Memory {
    let needed_bytes = needed(spec, table.vectors(), table.facts.pages, table.value_bytes(), table.dimensions);
    let maintenance_work_mem_bytes = given.maintenance_work_mem.unwrap_or(table.facts.maintenance_work_mem as u64);
    let is_local = settings.is_on_a_socket();
    let mut memory = Memory {
        needed_bytes,
        maintenance_work_mem_bytes,
        parallel_workers: given.parallel_workers.unwrap_or(table.facts.parallel_workers.max(0) as u32),
        free_bytes: free(settings),
        shared_bytes: (is_local && table.facts.shared_memory == "posix").then(shared_memory).flatten(),
        notes: Vec::new(),
        refusal: None,
    };
    judge(&mut memory, spec);
    memory
}

fn judge(memory: &mut Memory, spec: Spec) {
    let (needed, allowed) = (memory.needed_bytes, memory.maintenance_work_mem_bytes);
    // The server counts in whole MB, and so does the advice.
    let enough = format!("maintenance_work_mem = \"{}MiB\"", (needed / 1_048_576 + 1) * 11 / 10 + 1);
    if needed > allowed {
        let short =
            format!("the build needs about {}, and maintenance_work_mem is {}", units::bytes(needed), units::bytes(allowed));
        match spec {
            Spec::Ivfflat { .. } => memory.refusal = Some(format!("{short}: set {enough} in the job")),
            Spec::Hnsw { .. } => memory
                .notes
                .push(format!("{short}: the build will take several times as long; set {enough} in the job to avoid that")),
        }
    }
    if let (Spec::Hnsw { .. }, 1.., Some(shared)) = (spec, memory.parallel_workers, memory.shared_bytes)
        && shared < allowed
    {
        memory.parallel_workers = 0;
        memory.notes.push(format!(
            "/dev/shm has {} free and a parallel build allocates maintenance_work_mem there at once: the build will use one process",
            units::bytes(shared)
        ));
    }
    match memory.free_bytes {
        Some(free) if free < needed.min(allowed) => {
            memory.refusal = Some(format!(
                "the build needs about {}, and the machine has {} left",
                units::bytes(needed.min(allowed)),
                units::bytes(free)
            ));
        }
        Some(_) => {}
        None => memory.notes.push("the server is on another machine: how much memory it has left is unknown".to_owned()),
    }
}

/// Returns whether a build failed because /dev/shm is full: the server names the segment, in whatever language its messages are.
pub fn is_short_of_shared_memory(error: &anyhow::Error) -> bool {
    pg::sql_state(error).as_deref() == Some("53100") && format!("{error:#}").contains("/PostgreSQL.")
}

/// Returns free memory of the server's machine, if it is this one.
pub fn free(settings: &pg::Settings) -> Option<u64> {
    settings.is_on_a_socket().then(free_memory).flatten()
}

/// Returns MemAvailable in bytes.
fn free_memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok().map(|kilobytes| kilobytes * 1024)
}

fn shared_memory() -> Option<u64> {
    let found = rustix::fs::statvfs("/dev/shm").ok()?;
    Some(found.f_bavail * found.f_frsize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_what_pgvector_asks_for() {
        // "memory required is 222 MB": 100,000 × 128, 7,143 pages, 1,000 lists, pgvector 0.8.5.
        let needed_mb = needed(Spec::Ivfflat { lists: 1000 }, 100_000.0, 7143, 520, 128) as f64 / 1_048_576.0;
        assert!((215.0..235.0).contains(&needed_mb), "{needed_mb}");
        let hnsw = needed(Spec::Hnsw { m: 16, ef_construction: 64 }, 1e6, 1, 6152, 1536) as f64;
        assert!((6.5e9..7.2e9).contains(&hnsw), "{hnsw}");
    }

    #[test]
    fn too_little_is_refused_for_ivfflat_told_for_hnsw_and_shared_memory_makes_it_one_process() {
        let memory = |needed_bytes, shared_bytes, free_bytes| Memory {
            needed_bytes,
            maintenance_work_mem_bytes: 64 << 20,
            parallel_workers: 2,
            free_bytes,
            shared_bytes,
            notes: Vec::new(),
            refusal: None,
        };
        let (ivfflat, hnsw) = (Spec::Ivfflat { lists: 10 }, Spec::Hnsw { m: 16, ef_construction: 64 });
        let judged = |mut memory: Memory, spec| {
            judge(&mut memory, spec);
            memory
        };
        let short = judged(memory(100 << 20, None, Some(1 << 40)), ivfflat);
        assert!(short.refusal.is_some_and(|why| why.contains("maintenance_work_mem = \"112MiB\"")));
        let slow = judged(memory(100 << 20, Some(1 << 40), Some(1 << 40)), hnsw);
        assert!(slow.refusal.is_none() && slow.parallel_workers == 2 && slow.notes[0].contains("several times"));
        let small = judged(memory(10 << 20, Some(1 << 20), Some(1 << 40)), hnsw);
        assert_eq!(small.parallel_workers, 0);
        assert!(judged(memory(10 << 20, None, Some(1 << 20)), hnsw).refusal.is_some());
        assert!(judged(memory(10 << 20, None, None), hnsw).notes[0].contains("unknown"));
    }
}
