//! The labels that most series have.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::gauge::Gauge;

pub type Seconds = Gauge<f64, AtomicU64>;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct JobLabels {
    pub job: String,
    pub database: String,
}

pub fn labels(job: &str, database: &str) -> JobLabels {
    JobLabels { job: job.to_owned(), database: database.to_owned() }
}
