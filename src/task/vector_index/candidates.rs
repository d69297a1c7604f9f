//! The candidates that the search for lists built and measured, and the best of them: pure.

use std::collections::BTreeSet;

use serde::Serialize;

use super::found::{Found, WORTH_IT};
pub use super::spec::Spec;
use crate::task::vector_index::pairs::Pairs;

/// An index that was built on a copy and searched.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Candidate {
    #[serde(flatten)]
    pub spec: Spec,
    pub build_seconds: f64,
    pub reached: bool,
    pub found: Found,
    /// Measured at the setting that applications use today.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at_todays_setting: Option<Found>,
    /// ivfflat: at the lowest setting that finds as much as hnsw does at its lowest one, which is above the target; false: none does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at_recall_of_hnsw: Option<(bool, Found)>,
    /// Searches in turns with those by what is there, where a clock has to tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pairs: Option<Pairs>,
}

impl Candidate {
    /// Returns the number of lists; 0 when it has none.
    pub fn lists(&self) -> u32 {
        if let Spec::Ivfflat { lists } = self.spec { lists } else { 0 }
    }

    /// Milliseconds of a search, where it reached the target.
    pub fn ms(&self) -> Option<f64> {
        self.found.cost.filter(|_| self.reached).map(|cost| cost.ms)
    }

    /// What a search reads, where it reached the target: candidates of one method are compared by it, because they are timed at different moments.
    pub fn work(&self) -> Option<f64> {
        self.found.cost.filter(|_| self.reached).map(|cost| cost.work)
    }
}

/// The result of the search for lists.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Tuning {
    /// The candidates of ivfflat.
    pub candidates: Vec<Candidate>,
    /// The candidates of hnsw.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub graphs: Vec<Candidate>,
    /// The best of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hnsw: Option<Candidate>,
    /// The reason why there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hnsw_ended: Option<String>,
    /// Searches by the best graph (new) and by the best lists (present) in turns, at as much recall.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub in_turns: Option<Pairs>,
    pub copied_rows: u64,
    /// The copied share of all vectors; below 1, lists are scaled up.
    pub share: f64,
    pub budget_seconds: f64,
    pub seconds: f64,
    pub searches: u64,
    /// The reason why the search ended.
    pub ended: String,
}

impl Tuning {
    /// Returns the one that reaches the target and reads least. k-means starts at random, and some builds are lucky (57 lists: 1 probe, then 2): a number
    /// counts as its worst build.
    pub fn best(&self) -> Option<&Candidate> {
        let worst = self.lists().into_iter().filter_map(|lists| self.worst(lists)).filter(|one| one.reached);
        worst.min_by(|a, b| work_of(a).total_cmp(&work_of(b)))
    }

    /// Returns the numbers of lists that were tried, each once.
    pub fn lists(&self) -> BTreeSet<u32> {
        self.candidates.iter().map(Candidate::lists).collect()
    }

    /// Returns the worst of the builds with that number: one that misses the target, or else the one that reads most.
    pub fn worst(&self, lists: u32) -> Option<&Candidate> {
        self.builds(lists).max_by(|a, b| work_of(a).total_cmp(&work_of(b)))
    }

    pub fn builds(&self, lists: u32) -> impl Iterator<Item = &Candidate> {
        self.candidates.iter().filter(move |candidate| candidate.lists() == lists)
    }

    /// Returns the number for all vectors: the best number grows with the square root of the number of vectors, as centres and members are read
    /// alike.
    pub fn scaled(&self, lists: u32) -> u32 {
        ((f64::from(lists) / self.share.clamp(1e-6, 1.0).sqrt()).round() as u32).clamp(1, 32_768)
    }
}

/// A candidate that misses the target comes last.
fn work_of(candidate: &Candidate) -> f64 {
    candidate.work().unwrap_or(f64::MAX)
}

/// Returns the best of graphs, those that are built most quickly first: a denser one, whose build and inserts take longer, has to save enough of what a
/// search reads, which no busy machine changes.
pub fn best_graph(graphs: &[Candidate]) -> Option<&Candidate> {
    let mut best: Option<&Candidate> = None;
    for graph in graphs {
        let is_better = match (best.map(|best| (best, best.work())), graph.work()) {
            (None, _) => true,
            (Some((_, Some(of_best))), Some(work)) => work < of_best * WORTH_IT,
            (Some((_, Some(_))), None) => false,
            (Some((_, None)), Some(_)) => true,
            (Some((best, None)), None) => graph.found.recall > best.found.recall,
        };
        if is_better {
            best = Some(graph);
        }
    }
    best
}
