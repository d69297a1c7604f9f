//! How many queries a measurement asks: by what each of them has to read, and never by a clock, which a busy minute would let decide how sure a recall is
//! and which setting is enough. Pure. Milliseconds are those of the machine of docs/benchmarks.md; another one takes longer or less, and asks the same.

use std::time::Duration;

use super::measure::ENOUGH;
use super::spec::Spec;
use super::target::SearchTarget;

/// To read a value and compare it: 100,000 of 128 dimensions (520 bytes) took 25 ms, 15,000 of 1,536 in the lists of an index 21.7 ms.
const US_OF_A_VALUE: f64 = 0.15;
const US_OF_A_BYTE: f64 = 0.000_2;
/// To fetch a value that is stored out of line: 1,200 of 1,024 dimensions took 33 ms.
const US_OUT_OF_LINE: f64 = 25.0;
/// Values of more bytes are stored out of line.
const IN_LINE: u64 = 2_000;

/// What a page of an ivfflat index's centres counts beside one of its lists, whose rows are sorted, too. In 44 sweeps of docs/benchmarks.md (24 to 4,217
/// lists, 128 and 1,536 dimensions) the time of a search was the same for each page so counted, to a quarter.
const PAGE_OF_CENTRES: f64 = 0.25;
/// Bytes of a page that hold rows.
const PAGE: u64 = 8_168;

/// Exact searches beyond [`ENOUGH`] may take so long together; searches with an index, at one setting.
const EXACT_SEARCHES: Duration = Duration::from_secs(4);
const SEARCHES: Duration = Duration::from_secs(1);
/// A table is small where an exact search takes no longer: all of its measurement takes some ten seconds at most.
const SMALL_MS: f64 = 10.0;
const SEARCHES_OF_A_SMALL_TABLE: Duration = Duration::from_millis(400);

/// What searches of a table have to read.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Rows with a vector.
    pub vectors: f64,
    /// Bytes of a value in the table, and in the index.
    pub value_bytes: u64,
    pub index_bytes: u64,
    /// True if what an index on bits finds is ordered by the vectors.
    pub reranks: bool,
}

impl Effort {
    /// Returns what searches of a table or a copy have to read. `vectors`: its number of rows with a vector.
    pub fn of(searched: &SearchTarget, vectors: f64) -> Self {
        let SearchTarget { value_bytes, index_bytes, reranks, .. } = searched;
        Self { vectors, value_bytes: *value_bytes, index_bytes: *index_bytes, reranks: reranks.is_some() }
    }

    /// Returns the expected milliseconds of an exact search.
    pub fn exact_ms(self) -> f64 {
        self.vectors * us_in_table(self.value_bytes) / 1000.0
    }

    /// Returns the number of queries whose true neighbours are found, of `wanted`, where exact searches may take `time`.
    pub fn exact_searches(self, wanted: usize, time: Duration) -> usize {
        within((time / 3).min(EXACT_SEARCHES), self.exact_ms(), wanted)
    }

    /// Returns the number of queries, of `wanted`, that are searched with an index at this setting.
    pub fn searches(self, spec: Spec, setting: u32, k: u32, wanted: usize) -> usize {
        let time = if self.exact_ms() <= SMALL_MS { SEARCHES_OF_A_SMALL_TABLE } else { SEARCHES };
        within(time, self.search_ms(spec, setting, k), wanted)
    }

    /// Returns what a search that reads so many pages counts beside others by the same method. Of a graph, each page is one comparison.
    pub fn work(self, spec: Spec, pages: f64) -> f64 {
        let Spec::Ivfflat { lists } = spec else { return pages };
        let centres = f64::from(lists) / (PAGE / self.index_bytes.clamp(1, PAGE)) as f64;
        pages - (1.0 - PAGE_OF_CENTRES) * centres.min(pages)
    }

    fn search_ms(self, spec: Spec, setting: u32, k: u32) -> f64 {
        let compared = match spec {
            Spec::Ivfflat { lists } => {
                let lists = f64::from(lists.max(1));
                lists + self.vectors * (f64::from(setting) / lists).min(1.0)
            }
            // Each row that is expanded has 2 m neighbours in the lowest level.
            Spec::Hnsw { m, .. } => (f64::from(setting) * 2.0 * f64::from(m)).min(self.vectors),
        };
        let fetched = if self.reranks { setting } else { k + 1 };
        (compared * us_in_line(self.index_bytes) + f64::from(fetched) * us_in_table(self.value_bytes)) / 1000.0
    }
}

fn us_in_line(bytes: u64) -> f64 {
    US_OF_A_VALUE + US_OF_A_BYTE * bytes as f64
}

fn us_in_table(bytes: u64) -> f64 {
    us_in_line(bytes) + if bytes > IN_LINE { US_OUT_OF_LINE } else { 0.0 }
}

fn within(time: Duration, each_ms: f64, wanted: usize) -> usize {
    let affordable = (time.as_secs_f64() * 1000.0 / each_ms.max(1e-6)) as usize;
    affordable.max(ENOUGH).min(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn effort(vectors: f64, dimensions: u64) -> Effort {
        let bytes = 8 + 4 * dimensions;
        Effort { vectors, value_bytes: bytes, index_bytes: bytes, reranks: false }
    }

    #[test]
    fn it_is_what_was_measured() {
        assert!((effort(100_000.0, 128).exact_ms() - 25.0).abs() < 2.0, "{}", effort(100_000.0, 128).exact_ms());
        assert!((effort(1_200.0, 1_024).exact_ms() - 33.0).abs() < 3.0, "{}", effort(1_200.0, 1_024).exact_ms());
        let lists = effort(20_000.0, 1_536).search_ms(Spec::Ivfflat { lists: 100 }, 75, 10);
        assert!((lists - 21.7).abs() < 1.0, "{lists}");
    }

    #[test]
    fn lists_compare_by_the_pages_that_they_read_as_they_do_by_the_clock() {
        // Lists, pages and milliseconds of docs/benchmarks.md: the best of the sweep by the clock is the best by work, or as good.
        let of = |dimensions: u64, sweep: &[(u32, f64, f64)]| {
            let work = |lists: u32, pages: f64| effort(1.0, dimensions).work(Spec::Ivfflat { lists }, pages);
            let best = sweep.iter().min_by(|a, b| work(a.0, a.1).total_cmp(&work(b.0, b.1))).unwrap();
            let fastest = sweep.iter().map(|one| one.2).fold(f64::MAX, f64::min);
            (best.0, best.2 / fastest)
        };
        let small = [
            (316, 149.0, 0.49),
            (422, 128.0, 0.39),
            (562, 128.0, 0.29),
            (750, 132.0, 0.27),
            (1000, 153.0, 0.27),
            (1778, 203.0, 0.32),
        ];
        let large = [
            (42, 736.0, 0.59),
            (100, 754.0, 0.54),
            (178, 794.0, 0.53),
            (316, 987.0, 0.63),
            (1000, 1524.0, 0.67),
            (1778, 2263.0, 0.85),
        ];
        assert_eq!(of(128, &small), (750, 1.0));
        assert!(of(1536, &large).1 < 1.05, "{:?}", of(1536, &large));
        let graph = Spec::Hnsw { m: 16, ef_construction: 64 };
        assert!((effort(1.0, 128).work(graph, 300.0) - 300.0).abs() < 1e-9);
    }

    #[test]
    fn a_small_table_is_measured_within_ten_seconds_and_a_large_one_by_enough_queries() {
        let hnsw = Spec::Hnsw { m: 16, ef_construction: 64 };
        for (vectors, dimensions) in [(717.0, 384), (1_200.0, 1_024), (2_000.0, 384), (8_000.0, 32), (30_000.0, 128)] {
            let effort = effort(vectors, dimensions);
            let exact = effort.exact_searches(1_000, Duration::from_secs(80));
            let mut ms = effort.exact_ms() * exact as f64;
            // The setting of today, then doubled from the lowest to the highest and bisected: no more steps than these.
            for setting in [40, 40, 80, 160, 320, 640, 480, 560, 600] {
                ms += effort.search_ms(hnsw, setting, 10) * effort.searches(hnsw, setting, 10, exact) as f64;
            }
            assert!(exact >= ENOUGH && ms < 10_000.0, "{vectors} × {dimensions}: {exact} queries, {ms:.0} ms");
        }
        assert_eq!(effort(1e6, 768).exact_searches(1_000, Duration::from_secs(80)), ENOUGH);
        assert_eq!(effort(3_000.0, 16).exact_searches(1_000, Duration::from_secs(80)), 1_000);
        assert_eq!(effort(3_000.0, 16).searches(Spec::Ivfflat { lists: 30 }, 3, 10, 60), 60);
    }
}
