//! Vectors in clusters, as from a language model, which a test knows itself: small whole numbers, so that they are short as text.

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::Stdio;

use super::postgres::Server;

/// One after the other; row i has id i + 1.
pub struct Vectors {
    pub dimensions: usize,
    pub values: Vec<f32>,
}

impl Vectors {
    /// Clusters are of uneven size, and overlap at their edges.
    pub fn new(rows: usize, dimensions: usize, clusters: usize) -> Self {
        let mut random = Random(rows as u64 ^ 0x9e37_79b9_7f4a_7c15);
        let centres: Vec<f32> = (0..clusters * dimensions).map(|_| (random.next() % 41) as f32 - 20.0).collect();
        let mut values = Vec::with_capacity(rows * dimensions);
        for _ in 0..rows {
            let share = (random.next() % 10_000) as f64 / 10_000.0;
            let centre = ((share * share) * clusters as f64) as usize * dimensions;
            for place in 0..dimensions {
                values.push(centres[centre + place] + (random.next() % 49) as f32 - 24.0);
            }
        }
        Self { dimensions, values }
    }

    pub fn rows(&self) -> usize {
        self.values.len() / self.dimensions
    }

    fn row(&self, row: usize) -> &[f32] {
        &self.values[row * self.dimensions..(row + 1) * self.dimensions]
    }

    /// Into `items (id, embedding)`.
    pub fn load(&self, server: &Server, database: &str) {
        let mut psql = server.tool("psql", database);
        let mut psql = psql.args(["-Xq", "-c", "COPY items (id, embedding) FROM STDIN"]).stdin(Stdio::piped()).spawn().unwrap();
        let words: Vec<String> = (-64..=64).map(|number: i32| number.to_string()).collect();
        let mut stdin = psql.stdin.take().unwrap();
        let mut text = String::new();
        for row in 0..self.rows() {
            let _ = write!(text, "{}\t[", row + 1);
            for (place, value) in self.row(row).iter().enumerate() {
                if place > 0 {
                    text.push(',');
                }
                text.push_str(&words[(*value as i32 + 64) as usize]);
            }
            text.push_str("]\n");
            if text.len() > 1 << 20 {
                stdin.write_all(text.as_bytes()).unwrap();
                text.clear();
            }
        }
        stdin.write_all(text.as_bytes()).unwrap();
        drop(stdin);
        assert!(psql.wait().unwrap().success());
    }

    pub fn cosine_distance(&self, one: usize, other: usize) -> f64 {
        let product = |one: usize, other: usize| f64::from(dot(self.row(one), self.row(other)));
        1.0 - product(one, other) / (product(one, one) * product(other, other)).sqrt()
    }

    /// Distances from each of `queries` to its k nearest others, by looking at all.
    pub fn nearest(&self, queries: &[usize], k: usize) -> Vec<Vec<f64>> {
        let norms: Vec<f32> = (0..self.rows()).map(|row| dot(self.row(row), self.row(row)).sqrt()).collect();
        std::thread::scope(|scope| {
            let parts: Vec<_> =
                queries.chunks(queries.len().div_ceil(2)).map(|part| scope.spawn(|| self.nearest_of(part, &norms, k))).collect();
            parts.into_iter().flat_map(|part| part.join().unwrap()).collect()
        })
    }

    fn nearest_of(&self, queries: &[usize], norms: &[f32], k: usize) -> Vec<Vec<f64>> {
        queries
            .iter()
            .map(|query| {
                let mut nearest: Vec<f64> = Vec::new();
                for row in (0..self.rows()).filter(|row| row != query) {
                    let distance = 1.0 - f64::from(dot(self.row(*query), self.row(row)) / (norms[*query] * norms[row]));
                    if nearest.len() < k || distance < nearest[k - 1] {
                        nearest.insert(nearest.partition_point(|near| *near <= distance), distance);
                        nearest.truncate(k);
                    }
                }
                nearest
            })
            .collect()
    }
}

/// Whole numbers below 2^24: exact in single precision. Tests are built without optimization: no iterators here.
fn dot(one: &[f32], other: &[f32]) -> f32 {
    let (mut sum, mut place) = (0.0, 0);
    while place + 4 <= one.len() {
        sum += one[place] * other[place]
            + one[place + 1] * other[place + 1]
            + one[place + 2] * other[place + 2]
            + one[place + 3] * other[place + 3];
        place += 4;
    }
    while place < one.len() {
        sum += one[place] * other[place];
        place += 1;
    }
    sum
}

struct Random(u64);

impl Random {
    /// xorshift64*
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33
    }
}
