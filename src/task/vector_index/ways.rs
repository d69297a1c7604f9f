//! Ways of searching with a filter: pgvector's settings of iterative scans, since 0.8. All searches of a database or a role share them, so that what one
//! of them may need stays: a scan is not made shorter, and rows that come in order go on coming so.

use anyhow::Result;
use serde::Serialize;
use sqlx::PgConnection;

use super::kind::Method;

/// pgvector's default for hnsw.max_scan_tuples, and more where that is not enough.
const MAX_SCAN_TUPLES: [u32; 2] = [20_000, 200_000];
/// The strict order is taken unless it reads more than this many times the pages of the relaxed one.
const CLEARLY_MORE: f64 = 2.0;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "scan")]
pub enum Way {
    /// As the database or the role is set today.
    Today,
    Strict {
        max_scan_tuples: Option<u32>,
    },
    Relaxed {
        max_scan_tuples: Option<u32>,
    },
}

/// What applications have today of these settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Present {
    /// None: off.
    order: Option<Order>,
    /// ivfflat has none.
    max_scan_tuples: Option<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Strict,
    Relaxed,
}

impl Present {
    /// Reads what the session has, which is what applications have after [`super::setting::as_applications`].
    pub async fn read(connection: &mut PgConnection, method: Method) -> Result<Self> {
        let (order, tuples): (Option<String>, Option<String>) =
            sqlx::query_as("SELECT current_setting($1, true), current_setting($2, true)")
                .bind(format!("{method}.iterative_scan"))
                .bind(format!("{method}.max_scan_tuples"))
                .fetch_one(connection)
                .await?;
        let order = match order.as_deref() {
            Some("strict_order") => Some(Order::Strict),
            Some("relaxed_order") => Some(Order::Relaxed),
            _ => None,
        };
        let max_scan_tuples = tuples.and_then(|tuples| tuples.parse().ok()).filter(|_| method == Method::Hnsw);
        Ok(Self { order, max_scan_tuples })
    }

    /// Returns the ways to try, those that read least first, in groups that read as many rows. An order that is set stays. ivfflat has no strict one.
    pub fn ways(self, method: Method) -> Vec<Vec<Way>> {
        if method == Method::Ivfflat {
            return if self.order.is_none() { vec![vec![Way::Relaxed { max_scan_tuples: None }]] } else { Vec::new() };
        }
        let present = self.max_scan_tuples.unwrap_or(MAX_SCAN_TUPLES[0]);
        // With an order, today's number was measured already.
        let is_new = |tuples: &u32| self.order.is_none() || *tuples > present;
        let mut numbers: Vec<u32> = MAX_SCAN_TUPLES.into_iter().map(|tuples| tuples.max(present)).filter(is_new).collect();
        numbers.dedup();
        let of = |tuples: u32| {
            let max_scan_tuples = Some(tuples);
            let both = [(Order::Strict, Way::Strict { max_scan_tuples }), (Order::Relaxed, Way::Relaxed { max_scan_tuples })];
            both.into_iter().filter(|(order, _)| self.order.is_none_or(|set| set == *order)).map(|(_, way)| way).collect()
        };
        numbers.into_iter().map(of).collect()
    }

    /// Returns what has to be set for the way, without what is there already. The error says why it is not set.
    pub fn missing(self, way: Way, method: Method) -> Result<Vec<(String, String)>, String> {
        if let (Some(Order::Strict), Way::Relaxed { .. }) = (self.order, way) {
            return Err(format!("{method}.iterative_scan = strict_order is set: pgtend does not change it to relaxed_order"));
        }
        let is_missing = |(name, value): &(String, String)| match name.ends_with("max_scan_tuples") {
            true => value.parse::<u32>().is_ok_and(|tuples| self.max_scan_tuples.is_none_or(|present| tuples > present)),
            // A relaxed order finds no less.
            false => self.order.is_none(),
        };
        Ok(way.settings(method).into_iter().filter(is_missing).collect())
    }

    /// Says what is not tried because others may need what is set, if that is so.
    pub fn kept(self, method: Method) -> Option<String> {
        self.order.map(|order| match order {
            Order::Strict => format!(
                "{method}.iterative_scan = strict_order is set and stays; relaxed_order may find more, where no search needs the order"
            ),
            Order::Relaxed => format!("{method}.iterative_scan = relaxed_order is set already"),
        })
    }
}

impl Way {
    /// Returns the settings as SQL has them.
    pub fn settings(self, method: Method) -> Vec<(String, String)> {
        let (order, tuples) = match self {
            Self::Today => return Vec::new(),
            Self::Strict { max_scan_tuples } => ("strict_order", max_scan_tuples),
            Self::Relaxed { max_scan_tuples } => ("relaxed_order", max_scan_tuples),
        };
        let mut settings = vec![(format!("{method}.iterative_scan"), order.to_owned())];
        settings.extend(tuples.map(|tuples| (format!("{method}.max_scan_tuples"), tuples.to_string())));
        settings
    }

    /// Returns a number that is higher for a way that reads more.
    pub fn reads(self) -> u32 {
        match self {
            Self::Today => 0,
            Self::Strict { max_scan_tuples } | Self::Relaxed { max_scan_tuples } => max_scan_tuples.unwrap_or(1),
        }
    }

    pub fn in_words(self, method: Method) -> String {
        let settings = self.settings(method);
        match settings.is_empty() {
            true => "as applications search today".to_owned(),
            false => settings.iter().map(|(name, value)| format!("{name} = {value}")).collect::<Vec<_>>().join(", "),
        }
    }

    /// Says what else changes for all searches, if something does.
    pub fn trap(self) -> Option<&'static str> {
        matches!(self, Self::Relaxed { .. }).then_some(
            "with relaxed_order the rows of every search come only nearly in the order of ORDER BY: where it matters, sort them in an outer query",
        )
    }
}

/// Returns the best of ways that are enough, each with the pages of a search: the one in strict order that reads least, unless a relaxed one reads clearly less. Pure.
pub fn preferred(ways: impl Iterator<Item = (Way, f64)>) -> Option<Way> {
    let mut least: [Option<(Way, f64)>; 2] = [None, None];
    for (way, pages) in ways {
        let known = &mut least[usize::from(matches!(way, Way::Relaxed { .. }))];
        if known.is_none_or(|(_, fewest)| pages < fewest) {
            *known = Some((way, pages));
        }
    }
    match least {
        [Some((_, strict)), Some((way, relaxed))] if strict > relaxed * CLEARLY_MORE => Some(way),
        [Some((way, _)), _] | [None, Some((way, _))] => Some(way),
        [None, None] => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STRICT: Way = Way::Strict { max_scan_tuples: Some(20_000) };
    const RELAXED: Way = Way::Relaxed { max_scan_tuples: Some(20_000) };

    #[test]
    fn what_is_set_for_others_is_neither_lowered_nor_relaxed() {
        let off = Present { order: None, max_scan_tuples: Some(20_000) };
        assert_eq!(off.ways(Method::Hnsw)[0], [STRICT, RELAXED]);
        assert_eq!(off.missing(STRICT, Method::Hnsw).unwrap(), [("hnsw.iterative_scan".to_owned(), "strict_order".to_owned())]);
        let far = Present { order: None, max_scan_tuples: Some(500_000) };
        let far_ways = far.ways(Method::Hnsw);
        assert!(far_ways.len() == 1 && far_ways[0].iter().all(|way| way.reads() == 500_000), "{far_ways:?}");
        assert_eq!(far.missing(far_ways[0][0], Method::Hnsw).unwrap().len(), 1);
        let strict = Present { order: Some(Order::Strict), max_scan_tuples: Some(20_000) };
        assert_eq!(strict.ways(Method::Hnsw), [[Way::Strict { max_scan_tuples: Some(200_000) }]]);
        assert!(strict.missing(RELAXED, Method::Hnsw).is_err() && strict.kept(Method::Hnsw).is_some());
        // What another job set is no reason to set it again.
        assert_eq!(strict.missing(STRICT, Method::Hnsw), Ok(Vec::new()));
        let relaxed = Present { order: Some(Order::Relaxed), max_scan_tuples: Some(200_000) };
        assert!(relaxed.ways(Method::Hnsw).is_empty());
        assert_eq!(relaxed.missing(STRICT, Method::Hnsw), Ok(Vec::new()));
        let lists = Present { order: Some(Order::Relaxed), max_scan_tuples: None };
        assert!(lists.ways(Method::Ivfflat).is_empty());
    }

    #[test]
    fn rows_stay_in_order_unless_that_reads_clearly_more() {
        let of = |strict: f64, relaxed: f64| preferred([(RELAXED, relaxed), (STRICT, strict)].into_iter());
        assert_eq!(of(1.9, 1.0), Some(STRICT));
        assert_eq!(of(2.1, 1.0), Some(RELAXED));
        assert_eq!(preferred([(RELAXED, 9.0)].into_iter()), Some(RELAXED));
        assert_eq!(preferred(std::iter::empty()), None);
    }
}
