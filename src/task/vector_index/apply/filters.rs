//! Searches with the job's filters, once the index is as it shall be: what they find, and the settings by which they find enough.

use anyhow::{Context as _, Result};

use super::Worker;
use super::swap::applied;
use crate::ledger::report::Failure;
use crate::live::indexes;
use crate::pg;
use crate::task::vector_index::kind::Method;
use crate::task::vector_index::plan::Part;
use crate::task::vector_index::verdict::{Verdict, way_of_all};
use crate::task::vector_index::ways::Present;
use crate::task::vector_index::{filtered, partial, queries, setting};

impl Worker<'_> {
    pub(super) async fn work_with_filters(&mut self) -> Result<Option<Failure>> {
        let failure = self.work().await?;
        if failure.is_none() && self.part.table.by_bits {
            return self.install_function().await;
        }
        if failure.is_some() || self.job.filters.all.is_empty() {
            return Ok(failure);
        }
        self.measure_filters().await?;
        self.measure_partial_indexes().await?;
        let method = self.part.request.method;
        let target = self.job.recall.target;
        let missed: Vec<String> =
            self.report_values.filtered.iter().filter_map(|verdict| verdict.failure(method, target)).collect();
        if !missed.is_empty() {
            return Ok(Some((None, missed.join("; "))));
        }
        self.set_the_way(method).await
    }

    /// Measures them again only if the index or its setting is another one than in the plan.
    async fn measure_filters(&mut self) -> Result<()> {
        let is_changed =
            self.report_values.swapped || self.report_values.built.is_some() || self.report_values.setting_applied.is_some();
        if !is_changed {
            self.report_values.filtered = self.part.filtered.clone();
            return Ok(());
        }
        let mut connection = self.run.or_cancelled(indexes::connect(self.run)).await?;
        let table = &self.part.table;
        let phase = self.run.progress.phase("measure", None);
        phase.say("searches with filters");
        setting::load(&mut connection, self.extension).await?;
        let set = self.report_values.after.as_ref().filter(|_| self.report_values.setting_applied.is_some());
        let setting = set.map_or(self.part.setting, |after| after.setting.max(self.part.request.others_setting));
        let work = async {
            let sample =
                queries::asked(&mut connection, self.job, self.run, &table.searched, table.vectors(), self.job.recall.time.0 / 2)
                    .await?;
            let at = (self.part.request.method, setting);
            let has_iterative_scan = self.part.has_iterative_scan;
            let filtered = filtered::measure(&mut connection, self.job, &table.searched, &sample, at, has_iterative_scan).await?;
            Ok((filtered, sample))
        };
        (self.report_values.filtered, self.part.sample) = self.run.or_cancelled(work).await?;
        phase.done("");
        Ok(())
    }

    /// Measures, for filters whose searches miss the target, what partial indexes would give.
    async fn measure_partial_indexes(&mut self) -> Result<()> {
        if !self.report_values.filtered.iter().any(Verdict::misses_today) {
            return Ok(());
        }
        let phase = self.run.progress.phase("measure", None);
        phase.say("partial indexes, on a copy");
        let mut connection = self.run.or_cancelled(indexes::connect(self.run)).await?;
        self.run.or_cancelled(setting::load(&mut connection, self.extension)).await?;
        let Part { table, sample, request, .. } = &self.part;
        for (filter, verdict) in self.job.filters.all.iter().zip(&mut self.report_values.filtered) {
            if !verdict.misses_today() {
                continue;
            }
            let measured = partial::measure(&mut connection, self.job, table, sample, (filter, request.method), self.extension);
            match self.run.or_cancelled(measured).await? {
                Ok(partial) => verdict.partial = Some(partial),
                Err(why) => verdict.partial_unmeasured = Some(why),
            }
        }
        phase.done("");
        Ok(())
    }

    /// Sets the way of searching that all filters need, or says that applications have to set it.
    async fn set_the_way(&mut self, method: Method) -> Result<Option<Failure>> {
        let Some(way) = way_of_all(&self.report_values.filtered, self.job.recall.target) else {
            self.report_values.summary += &self.in_words(method);
            return Ok(None);
        };
        let Some(place) = &self.job.apply_setting else {
            let today: Vec<String> =
                self.report_values.filtered.iter().flat_map(|verdict| verdict.lines(method, self.job.recall.target)).collect();
            return Ok(Some((
                None,
                format!(
                    "searches with a filter miss the target of {}, and reach it with {}: set it in the application, or set apply_setting = \"database\" in the job ({})",
                    self.job.recall.target,
                    way.in_words(method),
                    today.join("; ")
                ),
            )));
        };
        let whose = self.whose(place);
        let mut connection = self.run.or_cancelled(indexes::connect(self.run)).await?;
        setting::load(&mut connection, self.extension).await?;
        setting::as_applications(&mut connection, self.job.role()).await?;
        // Another job may have set them since they were measured.
        let missing = match Present::read(&mut connection, method).await?.missing(way, method) {
            Ok(missing) => missing,
            Err(why) => return Ok(Some((None, format!("searches with a filter need {}: {why}", way.in_words(method))))),
        };
        let statements: Vec<String> = missing.iter().map(|(name, value)| format!("ALTER {whose} SET {name} = {value}")).collect();
        if statements.is_empty() {
            self.report_values.summary += &self.in_words(method);
            return Ok(None);
        }
        for sql in &statements {
            pg::execute_counting(&mut connection, sql.clone())
                .await
                .map_err(pg::in_its_own_words)
                .with_context(|| sql.clone())?;
        }
        let said = applied(statements.join("; "));
        self.report_values.summary += &format!("; {said}{}", self.in_words(method));
        self.report_values.way_applied = Some(said);
        self.report_values.warnings.extend(way.trap().map(str::to_owned));
        Ok(None)
    }

    fn in_words(&self, method: Method) -> String {
        self.report_values
            .filtered
            .iter()
            .flat_map(|verdict| verdict.lines(method, self.job.recall.target))
            .map(|line| format!("; {}", line.trim()))
            .collect()
    }
}
