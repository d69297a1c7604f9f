//! Searches with the job's filters, once the index is as it shall be: what they find, and the settings by which they find enough.

use anyhow::{Context as _, Result};

use super::Worker;
use super::swap::applied;
use crate::ledger::report::Failure;
use crate::live::indexes;
use crate::pg;
use crate::task::vector_index::filtered::{self, Verdict, Way};
use crate::task::vector_index::kind::Method;
use crate::task::vector_index::queries;

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
        let set = self.report_values.after.as_ref().filter(|_| self.report_values.setting_applied.is_some());
        let setting = set.map_or(self.part.setting, |after| after.setting.max(self.part.request.others_setting));
        let work = async {
            let sample =
                queries::asked(&mut connection, self.job, self.run, &table.searched, table.vectors(), self.job.recall.time.0 / 2)
                    .await?;
            let at = (self.part.request.method, setting);
            filtered::measure(&mut connection, self.job, &table.searched, &sample, at, self.part.has_iterative_scan).await
        };
        self.report_values.filtered = self.run.or_cancelled(work).await?;
        phase.done("");
        Ok(())
    }

    /// Sets the way of searching that all filters need, or says that applications have to set it.
    async fn set_the_way(&mut self, method: Method) -> Result<Option<Failure>> {
        let Some(way) = way_of_all(&self.report_values.filtered, self.job.recall.target) else {
            self.report_values.summary += &self.in_words(method);
            return Ok(None);
        };
        let settings = way.settings(method);
        let Some(place) = &self.job.apply_setting else {
            let today: Vec<String> = self.report_values.filtered.iter().flat_map(|verdict| verdict.lines(method)).collect();
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
        crate::task::vector_index::setting::load(&mut connection, self.extension).await?;
        let statements: Vec<String> =
            settings.iter().map(|(name, value)| format!("ALTER {whose} SET {name} = {value}")).collect();
        for sql in &statements {
            pg::execute_counting(&mut connection, sql.clone())
                .await
                .map_err(pg::in_its_own_words)
                .with_context(|| sql.clone())?;
        }
        let said = applied(statements.join("; "));
        self.report_values.summary += &format!("; {said}{}", self.in_words(method));
        self.report_values.way_applied = Some(said);
        Ok(None)
    }

    fn in_words(&self, method: Method) -> String {
        self.report_values
            .filtered
            .iter()
            .flat_map(|verdict| verdict.lines(method))
            .map(|line| format!("; {}", line.trim()))
            .collect()
    }
}

/// Returns the fastest way by which all filters reach the target: all searches of a database share it. None: today's is enough for all.
fn way_of_all(verdicts: &[Verdict], target: f64) -> Option<Way> {
    let needing: Vec<&Verdict> = verdicts.iter().filter(|verdict| verdict.best.is_some()).collect();
    let ms_of = |way: Way| -> Option<f64> {
        let reaches =
            |verdict: &&Verdict| verdict.others.iter().find(|one| one.way == way && one.found.reaches(target)).map(|one| one.ms);
        needing.iter().map(reaches).sum()
    };
    let ways = needing.iter().flat_map(|verdict| verdict.others.iter().map(|one| one.way));
    let shared = ways.filter_map(|way| Some((way, ms_of(way)?))).min_by(|one, other| one.1.total_cmp(&other.1));
    // Without one that was measured with all, the one that reads most.
    shared.map(|(way, _)| way).or_else(|| needing.iter().filter_map(|verdict| verdict.best).max_by_key(|way| way.reads()))
}
