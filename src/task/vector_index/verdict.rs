//! What a filter's searches find, what they need, and the words for it: pure.

use serde::Serialize;

use super::found::Found;
use super::kind::Method;
use super::partial::Partial;
use super::ways::{self, Way};
use crate::base::units;

/// How an application makes the planner search exactly.
const EXACTLY: &str = "ORDER BY (… <=> $1) + 0 makes the planner use it";

/// What searches with one filter find.
#[derive(Clone, Debug, Serialize)]
pub struct Filtered {
    pub filter: String,
    #[serde(flatten)]
    pub way: Way,
    #[serde(flatten)]
    pub found: Found,
    /// Searches that got fewer rows than there are, up to k.
    pub short: usize,
    /// Milliseconds of a search, the median.
    pub ms: f64,
    /// Pages of a search, the median: ways are compared by it, because they are timed at different moments.
    pub pages: f64,
    /// The scans that the planner chose, the commonest first.
    pub scans: Vec<String>,
}

/// What a filter needs.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Verdict {
    pub filter: String,
    /// The reason why it could not be measured: then nothing else is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unmeasured: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub today: Option<Filtered>,
    /// The other ways that were measured.
    pub others: Vec<Filtered>,
    /// An exact search without the vector index, through indexes of the filter's columns where there are any.
    pub exact_ms: f64,
    pub exact_scan: Option<String>,
    /// The way that reaches the target; None: today's does.
    pub best: Option<Way>,
    pub reached: bool,
    /// What was not tried because others may need what is set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kept: Option<String>,
    /// A partial index for the commonest value, where today's way misses the target.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub partial: Option<Partial>,
    /// Why it was not measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub partial_unmeasured: Option<String>,
}

impl Filtered {
    fn in_words(&self, method: Method) -> String {
        format!(
            "{}: {}, {} of {} searches short of rows, {:.2} ms{}",
            self.way.in_words(method),
            super::decide::recall_in_words(&self.found),
            self.short,
            self.found.queries,
            self.ms,
            self.scans.first().map(|scan| format!(" by {scan}")).unwrap_or_default()
        )
    }
}

/// Returns the best way by which all filters reach the target: all searches of a database share it. None: today's is enough for all. Pure.
pub fn way_of_all(verdicts: &[Verdict], target: f64) -> Option<Way> {
    let needing: Vec<&Verdict> = verdicts.iter().filter(|verdict| verdict.best.is_some()).collect();
    let pages_of = |way: Way| -> Option<f64> {
        let reaches = |verdict: &&Verdict| {
            verdict.others.iter().find(|one| one.way == way && one.found.reaches(target)).map(|one| one.pages)
        };
        needing.iter().map(reaches).sum()
    };
    let ways = needing.iter().flat_map(|verdict| verdict.others.iter().map(|one| one.way));
    let shared = ways::preferred(ways.filter_map(|way| Some((way, pages_of(way)?))));
    // Without one that was measured with all, the one that reads most.
    shared.or_else(|| needing.iter().filter_map(|verdict| verdict.best).max_by_key(|way| way.reads()))
}

impl Verdict {
    /// Lines for a plan or a report.
    pub fn lines(&self, method: Method, target: f64) -> Vec<String> {
        if let Some(unmeasured) = self.unmeasured_in_words() {
            return vec![unmeasured];
        }
        let today = self.today.as_ref().map(|today| today.in_words(method)).unwrap_or_default();
        let mut lines = vec![format!("with {}: {today}", self.filter)];
        lines.extend(self.others.iter().map(|other| format!("  {}", other.in_words(method))));
        if !self.others.is_empty() {
            let by = self.exact_scan.as_ref().map(|scan| format!(" by {scan}")).unwrap_or_default();
            lines.push(format!("  an exact search of the rows that it leaves takes {:.2} ms{by}", self.exact_ms));
        }
        if self.misses_today() {
            lines.push(format!("  {}", self.partial_in_words(method)));
            lines.extend(self.fastest(method, target).map(|fastest| format!("  the fastest that reaches {target}: {fastest}")));
        }
        lines
    }

    /// Returns whether applications' searches miss the target as they are.
    pub fn misses_today(&self) -> bool {
        self.unmeasured.is_none() && (self.best.is_some() || !self.reached)
    }

    fn partial_in_words(&self, method: Method) -> String {
        let Some(Partial { condition, values, rows, build_seconds, found, .. }) = &self.partial else {
            let why = self.partial_unmeasured.as_deref().unwrap_or("runs measure it, dry runs do not");
            return format!("a partial {method} index or a partition for each frequent value: not measured ({why})");
        };
        let ms = found.cost.map(|cost| format!(", {:.2} ms", cost.ms)).unwrap_or_default();
        format!(
            "a partial {method} index WHERE {condition}, or a partition of these rows, the commonest of {}: {} at {} = {}{ms} ({}, built in {build_seconds:.1} s; on a copy of the rows, other values are not measured)",
            units::plural(*values, "value"),
            super::decide::recall_in_words(found),
            method.setting(),
            found.setting,
            units::plural(*rows, "row"),
        )
    }

    /// Says which of the ways that reach the target takes the least time, of those that were measured.
    fn fastest(&self, method: Method, target: f64) -> Option<String> {
        let ways = self.others.iter().filter(|way| way.found.reaches(target)).map(|way| (way.ms, way.way.in_words(method)));
        let exact = (self.exact_ms > 0.0).then(|| (self.exact_ms, format!("an exact search ({EXACTLY})")));
        let partial = self.partial.as_ref().and_then(|partial| {
            Some((partial.ms()?, format!("a partial index or a partition for each value ({})", partial.condition)))
        });
        let all = ways.chain(exact).chain(partial);
        all.min_by(|(one, _), (other, _)| one.total_cmp(other)).map(|(ms, way)| format!("{way}, {ms:.2} ms"))
    }

    fn unmeasured_in_words(&self) -> Option<String> {
        self.unmeasured.as_ref().map(|why| format!("filter {} could not be measured: {why}", self.filter))
    }

    /// Says what is missing, and what helps, where no way reaches the target or nothing was measured.
    pub fn failure(&self, method: Method, target: f64) -> Option<String> {
        if self.unmeasured.is_some() || self.reached {
            return self.unmeasured_in_words();
        }
        let today = self.today.as_ref().map(|today| today.in_words(method)).unwrap_or_default();
        let kept = self.kept.as_ref().map(|kept| format!(". {kept}")).unwrap_or_default();
        let best = self.others.iter().max_by(|one, other| one.found.lower.total_cmp(&other.found.lower));
        let best = best.map(|best| format!("; at best {}", best.in_words(method))).unwrap_or_default();
        Some(format!("searches with {} miss the target of {target}: {today}{best}. {}{kept}", self.filter, self.advice(method)))
    }

    /// What a person can do: without the vector index, or with one for each value.
    fn advice(&self, method: Method) -> String {
        let exact = match &self.exact_scan {
            Some(scan) if !scan.contains("Seq Scan") => {
                format!("An exact search by {scan} takes {:.2} ms: {EXACTLY}", self.exact_ms)
            }
            _ => format!("An index on the filter's columns lets searches for few rows be exact (now {:.2} ms)", self.exact_ms),
        };
        let older = if self.others.is_empty() && self.kept.is_none() {
            "; pgvector 0.8 has iterative scans: ALTER EXTENSION vector UPDATE"
        } else {
            ""
        };
        format!("{exact}; {}{older}", self.partial_in_words(method))
    }
}
