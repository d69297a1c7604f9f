//! The new index takes the old one's name, applications get their setting, and what was measured is noted down.

use anyhow::{Context as _, Result};

use super::{Failure, Worker};
use crate::fault::Kind;
use crate::pg::{self, identifier, literal, qualified};
use crate::task::partition::session::{Attempt, Session};
use crate::task::vector_index::ApplySetting;
use crate::task::vector_index::decide::recall_in_words;
use crate::task::vector_index::measure;
use crate::task::vector_index::names::Built;
use crate::task::vector_index::search::{self, Found};
use crate::task::vector_index::state;
use crate::units;

impl Worker<'_> {
    pub(super) async fn swap(&mut self, found: Found) -> Result<Option<Failure>> {
        // More is never worse: first, where the new index needs more; afterwards, where less is enough.
        if found.setting > self.part.setting {
            self.apply_setting(found.setting).await?;
        }
        let table = &self.part.table;
        let (new, old_name) = (table.new_name(), table.old_name());
        let schema = table.facts.schema.clone();
        let (name, old) = (table.index_name.clone(), table.index.clone());
        let mut session =
            self.run.or_cancelled(Session::open(&self.run.settings, self.limits.lock_timeout.0, self.limits.max_wait.0)).await?;
        let mut statements = Vec::new();
        if let Some(old) = &old {
            statements.push(format!("ALTER INDEX {} RENAME TO {}", old.sql(), identifier(&old_name)));
        }
        statements.push(format!("ALTER INDEX {} RENAME TO {}", qualified(&schema, &new), identifier(&name)));
        let comment = self.built(&found, true).beside(old.as_ref().and_then(|old| old.comment.as_deref()));
        statements.push(format!("COMMENT ON INDEX {} IS {}", qualified(&schema, &name), literal(&comment)));
        let is = |name: &str, oid: i64| format!("to_regclass({})::oid::bigint = {oid}", literal(&qualified(&schema, name)));
        let new_oid = self.new.context("the new index was measured")?;
        let mut expected = vec![
            is(&name, new_oid),
            format!("(SELECT indisvalid FROM pg_catalog.pg_index WHERE indexrelid = {new_oid}::bigint::oid)"),
        ];
        expected.extend(old.as_ref().map(|old| is(&old_name, old.oid)));
        // Behind our locks: names are somebody else's to change, too.
        statements.push(format!(
            "DO $guard$ BEGIN IF ({}) IS NOT TRUE THEN RAISE EXCEPTION 'somebody else changed the indexes meanwhile'; END IF; END $guard$",
            expected.join(" AND ")
        ));
        let oids: Vec<i64> = [Some(self.part.table.facts.oid), old.as_ref().map(|old| old.oid)].into_iter().flatten().collect();
        if let Attempt::Locked(who) = self.run.or_cancelled(session.transaction(&statements, &oids)).await? {
            let message =
                format!("the new index is built, and its name could not be changed: {who}; the next run goes on from there");
            return Ok(Some((Some(Kind::NotNow), message)));
        }
        self.told.swapped = true;
        if old.is_some()
            && let Some(who) = self.drop_index(&schema, &old_name).await?
        {
            self.told.warnings.push(format!("the old index could not be dropped, and the next run does that: {who}"));
        }
        self.finish(found).await
    }

    /// The setting, where it is to be set; whether the application's own query uses the index; and the words for it.
    pub(super) async fn finish(&mut self, found: Found) -> Result<Option<Failure>> {
        let mut connection = self.run.or_cancelled(state::connect(&self.run.settings)).await?;
        let table = &self.part.table;
        let method = self.part.wanted.method;
        let name = table.index_name.clone();
        let built = self.told.built.map_or_else(|| "built by a run that was stopped".to_owned(), |spec| spec.to_string());
        let before = self.part.today.index.as_ref().and_then(|index| index.now.as_ref());
        let before = before
            .map_or(String::new(), |now| format!("; before: {} at {}{}", recall_in_words(now), now.setting, cost_in_words(now)));
        self.told.summary = format!(
            "{name} is {built}: {} at {} = {}{}{before}",
            recall_in_words(&found),
            method.setting(),
            found.setting,
            cost_in_words(&found)
        );
        let failure = self.settle(&found).await?;
        // As the application asks, with what it is told to search with.
        let setting = if self.told.setting_applied.is_some() { found.setting } else { self.part.setting };
        let table = &self.part.table;
        let sample = measure::sample(&mut connection, &table.searched, 1, table.vectors()).await?;
        state::setting(&mut connection, method, None, self.extension).await?;
        pg::set(&mut connection, method.setting(), &setting.to_string()).await?;
        if let Some(vector) = sample.vector() {
            self.told.planners_choice =
                search::applications_plan(&mut connection, &table.searched, vector, self.job.recall.k).await?;
        }
        if let Some(choice) = self.told.planners_choice.as_ref().filter(|choice| **choice != name) {
            self.told.warnings.push(format!(
                "the planner answers ORDER BY {} LIMIT {} at {} = {setting} with {choice}, not with {name}",
                table.order_by(),
                self.job.recall.k,
                method.setting()
            ));
        }
        Ok(failure)
    }

    /// Applications search with the setting from now on, or the run says that they do not.
    async fn settle(&mut self, found: &Found) -> Result<Option<Failure>> {
        let (name, target) = (self.part.wanted.method.setting(), self.job.recall.target);
        if self.job.apply_setting.is_some() {
            self.apply_setting(found.setting).await?;
            return Ok(None);
        }
        if found.setting == self.part.setting {
            return Ok(None);
        }
        let advice = format!("{name} = {} is enough for {target}", found.setting);
        let at_todays = self.told.after_at_todays_setting.as_ref().filter(|at_todays| at_todays.recall < target);
        let Some(at_todays) = at_todays else {
            self.told.warnings.push(format!("{advice}, and applications search with {}", self.part.setting));
            return Ok(None);
        };
        let message = format!(
            "{}; but applications search with {name} = {}, where {}: {advice}. Set it in the application and say so in the job, or say apply_setting = \"database\"",
            self.told.summary,
            self.part.setting,
            recall_in_words(at_todays),
        );
        Ok(Some((None, message)))
    }

    /// Only the setting is not as it should be.
    pub(super) async fn set(&mut self, setting: u32, reasons: &str) -> Result<Option<Failure>> {
        let index = self.part.today.index.as_ref();
        self.told.after_at_todays_setting = index.and_then(|index| index.now.clone());
        let least =
            index.and_then(|index| index.least.as_ref()).map(|(_, least)| least.clone()).filter(|least| least.setting == setting);
        let least = least.context("the setting was measured")?;
        self.told.summary = format!("{}: {reasons}", self.part.table.index_name);
        self.told.after = Some(least.clone());
        self.settle(&least).await
    }

    async fn apply_setting(&mut self, setting: u32) -> Result<()> {
        let Some(place) = &self.job.apply_setting else { return Ok(()) };
        let name = self.part.wanted.method.setting();
        let mut connection = self.run.or_cancelled(state::connect(&self.run.settings)).await?;
        // Known to the server once pgvector is loaded, and set by whoever may.
        self.run.or_cancelled(state::setting(&mut connection, self.part.wanted.method, None, self.extension)).await?;
        let database = identifier(self.run.settings.database());
        let whose = match place {
            ApplySetting::Database => format!("DATABASE {database}"),
            ApplySetting::Role(role) => format!("ROLE {} IN DATABASE {database}", identifier(role)),
        };
        let sql = format!("ALTER {whose} SET {name} = {setting}");
        pg::execute_counting(&mut connection, sql.clone()).await.map_err(pg::in_its_own_words).with_context(|| sql.clone())?;
        self.told.setting_applied = Some(format!("{sql}; sessions that are connected keep theirs"));
        Ok(())
    }

    fn built(&self, found: &Found, now: bool) -> Built {
        let before = self.part.table.index.as_ref().and_then(state::Found::built);
        Built {
            built_at: if now { Some(self.run.now) } else { before.as_ref().and_then(|before| before.built_at) },
            measured_at: self.run.now,
            rows: match before.filter(|_| !now) {
                Some(before) => before.rows,
                None => self.part.table.vectors() as u64,
            },
            setting: found.setting,
            recall: (found.recall * 10_000.0).round() / 10_000.0,
            tuned: self.told.tuning.is_some() || self.part.today.index.as_ref().is_some_and(|index| index.tuned),
        }
    }

    /// That other numbers of lists were tried, and the present one stays: else every run would try again.
    pub(super) async fn note_tuning(&mut self) -> Result<()> {
        let least = self.part.today.index.as_ref().and_then(|index| index.least.clone());
        let (Some(_), Some(index), Some((_, least))) = (&self.told.tuning, self.part.table.index.clone(), least) else {
            return Ok(());
        };
        self.comment(&index.schema, &index.name, index.comment.as_deref(), &least, false).await
    }

    pub(super) async fn comment(
        &mut self,
        schema: &str,
        name: &str,
        before: Option<&str>,
        found: &Found,
        now: bool,
    ) -> Result<()> {
        let comment = self.built(found, now).beside(before);
        let mut session =
            self.run.or_cancelled(Session::open(&self.run.settings, self.limits.lock_timeout.0, self.limits.max_wait.0)).await?;
        let statement = format!("COMMENT ON INDEX {} IS {}", qualified(schema, name), literal(&comment));
        if let Attempt::Locked(who) =
            self.run.or_cancelled(session.transaction(&[statement], &[self.part.table.facts.oid])).await?
        {
            self.told.warnings.push(format!("what was measured could not be noted down in the index's comment: {who}"));
        }
        Ok(())
    }
}

fn cost_in_words(found: &Found) -> String {
    found.cost.map_or(String::new(), |cost| format!(", {:.2} ms and {} pages a search", cost.ms, units::count(cost.pages as u64)))
}
