//! Measures a new index: on the table beside the old one, or on a copy of all vectors.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use sqlx::PgConnection;

use super::Worker;
use crate::live::indexes;
use crate::task::vector_index::candidates::{Candidate, Spec};
use crate::task::vector_index::curve::Curve;
use crate::task::vector_index::decide::{self, recall_in_words};
use crate::task::vector_index::effort::Effort;
use crate::task::vector_index::found::Found;
use crate::task::vector_index::kind::Method;
use crate::task::vector_index::measure::Sample;
use crate::task::vector_index::pairs::{self, ByIndex, Pairs, Rival, Side};
use crate::task::vector_index::race::Tuner;
use crate::task::vector_index::search::{Searcher, Stopped};
use crate::task::vector_index::{queries, setting};

/// The time for searches by a new index and by what is there in turns.
const TIME_FOR_PAIRS: Duration = Duration::from_secs(1);

/// The measurement of a new index.
pub(super) struct Measured {
    /// True if the target is reached.
    pub(super) reached: bool,
    /// At the lowest setting that reaches the target, or at the highest one.
    pub(super) found: Found,
    pub(super) at_todays_setting: Found,
    /// Searches in turns with those by what is there, where a clock has to tell.
    pub(super) pairs: Option<Pairs>,
    /// What was found at these and at other settings; empty where that was measured on a copy.
    pub(super) curve: Curve,
}

/// The end of an attempt to measure a new index.
pub(super) enum Measurement {
    Done(Measured),
    /// It cannot be measured, for this reason.
    Impossible(String),
}

impl Worker<'_> {
    /// Measures the new index on a connection that cannot see the old one: whether the target is reached, at the lowest setting, at today's
    /// setting.
    pub(super) async fn measure_new(&mut self, name: &str, is_beside: bool) -> Result<Measurement> {
        let mut connection = indexes::connect(self.run).await?;
        let phase = self.run.progress.phase("measure", None);
        phase.say("searches of the new index");
        let table = &self.part.table;
        self.new = sqlx::query_scalar(
            "SELECT i.indexrelid::bigint FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid
             WHERE i.indrelid = $1::bigint::oid AND x.relname = $2 AND i.indisvalid",
        )
        .bind(table.facts.oid)
        .bind(name)
        .fetch_optional(&mut connection)
        .await?;
        self.is_by_pgvector(&mut connection).await?;
        setting::load(&mut connection, self.extension).await?;
        setting::as_applications(&mut connection, self.job.role()).await?;
        let time = self.job.recall.time.0;
        let sample = queries::asked(&mut connection, self.job, self.run, &table.searched, table.vectors(), time * 2 / 3).await?;
        // Without an index nothing was asked before.
        self.part.sample.source = sample.source.clone();
        self.part.sample.is_asked = true;
        if !sample.is_enough() {
            return Ok(Measurement::Impossible(format!(
                "it cannot be measured: only {} exact searches finished in {}",
                sample.len(),
                self.job.recall.time
            )));
        }
        // The whole time is granted again: a build is not thrown away because the exact searches were slow.
        let deadline = Instant::now() + time;
        let old = table.index.as_ref().filter(|index| is_beside && index.is_valid).map(|index| index.oid);
        let first = self.search_new(&mut connection, name, None, &sample, deadline).await;
        let is_hidden = matches!(&first, Err(error) if matches!(error.downcast_ref(), Some(Stopped::OtherPlan(_))));
        let mut measured = match (first, old) {
            (Err(error), Some(old)) if matches!(error.downcast_ref(), Some(Stopped::OtherPlan(_))) => {
                if !self.part.table.facts.is_superuser {
                    return self.measure_on_a_copy().await;
                }
                self.search_new(&mut connection, name, Some(old), &sample, Instant::now() + time).await?
            }
            (measured, _) => measured?,
        };
        if is_beside && measured.reached {
            measured.pairs = self.in_turns(&mut connection, name, &measured.found, &sample, old.filter(|_| is_hidden)).await?;
        }
        phase.done(&recall_in_words(&measured.found));
        Ok(Measurement::Done(measured))
    }

    /// Searches by the new index and by what is there in turns. `hidden`: the old index, where the planner prefers it.
    async fn in_turns(
        &self,
        connection: &mut PgConnection,
        name: &str,
        found: &Found,
        sample: &Sample,
        hidden: Option<i64>,
    ) -> Result<Option<Pairs>> {
        let (table, method) = (&self.part.table, self.part.request.method);
        let Some(mut rival) = decide::rival(&self.part.current, &table.index_name, method) else { return Ok(None) };
        let new = ByIndex { name: name.to_owned(), method, setting: found.setting, hidden };
        let deadline = Instant::now() + self.job.recall.time.0;
        // The new index is hidden from searches by the old one only where the planner prefers it.
        for is_new_hidden in [false, true] {
            let index = match &mut rival {
                Rival::Exact => None,
                Rival::Index(index) => {
                    index.hidden = self.new.filter(|_| is_new_hidden);
                    Some(&*index)
                }
            };
            let new = Side { searched: &table.searched, index: Some(&new) };
            let present = Side { searched: &table.searched, index };
            let time = (TIME_FOR_PAIRS, deadline);
            let pairs = pairs::measure(connection, sample, self.job.recall.k, (new, present), time).await?;
            if pairs.is_some() || !table.facts.is_superuser || rival == Rival::Exact {
                return Ok(pairs);
            }
        }
        Ok(None)
    }

    /// Refuses an index by an operator class that is not pgvector's: its functions would run as the login that searches.
    async fn is_by_pgvector(&self, connection: &mut PgConnection) -> Result<()> {
        let is_foreign: bool = sqlx::query_scalar(
            "SELECT EXISTS (SELECT FROM pg_index i WHERE i.indexrelid = $1::bigint::oid AND NOT EXISTS (
                 SELECT FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid WHERE d.classid = 'pg_opclass'::regclass AND d.objid = i.indclass[0]
                    AND d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e' AND e.extname = 'vector'))",
        )
        .bind(self.new)
        .fetch_one(connection)
        .await?;
        anyhow::ensure!(!is_foreign, "the operator class of the new index of {} is not pgvector's", self.part.table.sql());
        Ok(())
    }

    async fn search_new(
        &self,
        connection: &mut PgConnection,
        name: &str,
        hidden: Option<i64>,
        sample: &Sample,
        deadline: Instant,
    ) -> Result<Measured> {
        let method = self.part.request.method;
        let built = self.report_values.built.or(self.found);
        let mut searcher = Searcher {
            connection,
            searched: &self.part.table.searched,
            sample,
            k: self.job.recall.k,
            method,
            hidden,
            is_hiding: false,
            index: name.to_owned(),
            deadline,
            effort: Effort::of(&self.part.table.searched, self.part.table.vectors()),
            spec: built.unwrap_or(Spec::known(method, None, None)),
            searches: 0,
            max_searches: u64::MAX,
            curve: Curve::default(),
        };
        let max_setting = match (method, built) {
            (_, Some(spec)) => spec.max_setting(),
            (Method::Ivfflat, None) => searcher.lists().await?.unwrap_or(32_768),
            (Method::Hnsw, None) => 1000,
        };
        let at_todays_setting = searcher.recall(self.part.setting.min(max_setting)).await?;
        let candidate = self.report_values.tuning.as_ref().and_then(|tuning| match method {
            Method::Ivfflat => tuning.best(),
            Method::Hnsw => tuning.hnsw.as_ref(),
        });
        let tuned = candidate.map(|candidate| candidate.found.setting);
        let start = tuned.unwrap_or(self.part.setting);
        let (reached, found) = searcher.least(self.job.recall.target, start, max_setting).await?;
        searcher.measure_the_curve(found.setting, max_setting).await?;
        searcher.show().await?;
        Ok(Measured { reached, found, at_todays_setting, pairs: None, curve: searcher.curve })
    }

    /// Measures the same build on a copy of all vectors, where the planner prefers the old index (it has more lists) and the role may not
    /// hide it.
    async fn measure_on_a_copy(&mut self) -> Result<Measurement> {
        let spec = self.report_values.built.or(self.found).context("an index was built, or found")?;
        let known = self.report_values.tuning.as_ref().filter(|tuning| tuning.share >= 1.0);
        let known = known.and_then(|tuning| match spec {
            Spec::Ivfflat { lists } => tuning.worst(lists).cloned(),
            Spec::Hnsw { .. } => tuning.hnsw.clone(),
        });
        let candidate = match known {
            Some(candidate) => candidate,
            None => {
                let lists = if let Spec::Ivfflat { lists } = spec { Some(lists) } else { None };
                let of_part = Tuner::of(self.run, self.job, &self.part, self.extension);
                let tuner = Tuner { lists, only: Some(spec), ..of_part };
                let tuning = tuner.tune(self.governor).await?;
                match tuning.candidates.into_iter().next() {
                    Some(candidate) if tuning.share >= 1.0 => candidate,
                    _ => {
                        let message = "the planner prefers the old index, and the table is too large to measure a copy of it: run the job as a superuser, or raise `sample` of `budget`";
                        return Ok(Measurement::Impossible(message.to_owned()));
                    }
                }
            }
        };
        self.report_values.is_proved_on_a_copy = true;
        self.report_values.warnings.push(
            "the planner preferred the old index, which only a superuser can hide: the same build was measured on a copy of all vectors, and the new index itself is measured once the old one is gone".to_owned(),
        );
        // None: the setting is higher than needed.
        let at_todays_setting = candidate.at_todays_setting.unwrap_or_else(|| candidate.found.clone());
        let Candidate { reached, found, pairs, .. } = candidate;
        Ok(Measurement::Done(Measured { reached, found, at_todays_setting, pairs, curve: Curve::default() }))
    }
}
