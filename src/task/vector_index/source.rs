//! What the queries of a measurement are, in the words of every plan and report.

use serde::Serialize;

use crate::base::units;

/// What the queries of a sample are.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", tag = "are")]
pub enum Source {
    /// Rows as they are.
    #[default]
    Rows,
    /// Rows that are moved away. The distances are those to the k-th neighbour, of rows and of queries, where they were measured.
    Disturbed {
        strength: f64,
        #[serde(skip_serializing_if = "Option::is_none")]
        distances: Option<(f64, f64)>,
    },
    /// Questions of the application: so many, of which so many are different.
    Log { from: String, asked: usize, different: usize },
}

impl Source {
    pub fn in_words(&self) -> String {
        match self {
            Self::Log { from, asked, different } if different < asked => format!(
                "measured with {} of {from}, each counted as often as it was asked ({} in all)",
                units::plural(*different, "different question"),
                units::count(*asked as u64)
            ),
            Self::Log { from, .. } => format!("measured with questions of {from}"),
            Self::Rows => "measured with rows of the table as queries; questions from outside find less".to_owned(),
            Self::Disturbed { distances: None, .. } => {
                "measured with rows of the table as queries; questions from outside find less, also than these, which were moved away \
                 from their places ([vector_index.queries] names the application's questions)"
                    .to_owned()
            }
            Self::Disturbed { distances: Some((near, far)), .. } => format!(
                "measured with rows of the table as queries; questions from outside find less, also than these, which were moved until \
                 their neighbours were {far:.3} away instead of {near:.3} ([vector_index.queries] names the application's questions)"
            ),
        }
    }
}
