//! Gives the old index's name to the new one, applies the setting for applications, and records the measurement.

use anyhow::{Context as _, Result};
use sqlx::PgConnection;

use super::Worker;
use super::measured::{Measured, Measurement};
use crate::base::fault::Kind;
use crate::base::units;
use crate::ledger::report::Failure;
use crate::live::indexes;
use crate::live::session::{Attempt, Session};
use crate::pg::{self, identifier, literal, qualified};
use crate::task::vector_index::built::{Built, Graph};
use crate::task::vector_index::candidates::Spec;
use crate::task::vector_index::decide::{Refusal, recall_in_words};
use crate::task::vector_index::found::Found;
use crate::task::vector_index::keys::ApplySetting;
use crate::task::vector_index::kind::{Method, Quantize};
use crate::task::vector_index::search::{self, Stopped};
use crate::task::vector_index::{left, measure, setting, state};

impl Worker<'_> {
    pub(super) async fn swap(&mut self, found: Found) -> Result<Option<Failure>> {
        let table = &self.part.table;
        let (new, old_name) = (table.new_name(), table.old_name());
        let schema = table.facts.schema.clone();
        let (name, old) = (table.index_name.clone(), table.index.clone());
        let mut session = self.session().await?;
        let set = self.setting_sql(&mut session.connection, found.setting).await?;
        if let Some(reason) = self.report_values.not_set.clone().filter(|_| found.setting > self.part.setting) {
            return self.decline(Refusal { reason, is_worse: false }).await;
        }
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
        // The check runs under our locks: other sessions can change names, too.
        statements.push(format!(
            "DO $guard$ BEGIN IF ({}) IS NOT TRUE THEN RAISE EXCEPTION 'another session changed the indexes in the meantime'; END IF; END $guard$",
            expected.join(" AND ")
        ));
        // A higher setting is never worse. A lower one, where it is enough, is set once the old index is gone.
        let set = set.filter(|_| found.setting > self.part.setting);
        statements.extend(set.clone());
        let oids: Vec<i64> = [Some(self.part.table.facts.oid), old.as_ref().map(|old| old.oid)].into_iter().flatten().collect();
        if let Attempt::Locked(who) = self.run.or_cancelled(session.transaction(&statements, &oids)).await? {
            let message =
                format!("the new index is built, but it could not be renamed: {who}; the next run continues from there");
            return Ok(Some((Some(Kind::Deferred), message)));
        }
        self.report_values.swapped = true;
        self.report_values.setting_applied = set.map(|sql| self.applied_for(sql, found.setting));
        if old.is_some()
            && let Some(who) = self.drop_index(&schema, &old_name).await?
        {
            self.report_values.warnings.push(format!("the old index could not be dropped, the next run will: {who}"));
        } else if self.report_values.is_proved_on_a_copy {
            return self.measure_swapped(found, &comment).await;
        }
        self.finish(found).await
    }

    /// Measures the index itself, once nothing is in its way, if it was only proved on a copy: k-means starts at random.
    async fn measure_swapped(&mut self, on_the_copy: Found, comment: &str) -> Result<Option<Failure>> {
        let name = self.part.table.index_name.clone();
        let measured = match self.run.or_cancelled(self.measure_new(&name, false)).await {
            Err(error) if error.downcast_ref::<Stopped>().is_some() => Measurement::Impossible(error.to_string()),
            measured => measured?,
        };
        let Measured { reached, found, at_todays_setting, curve, .. } = match measured {
            Measurement::Done(measured) => measured,
            Measurement::Impossible(why) => {
                self.report_values.warnings.push(format!("{name} was not measured after the swap: {why}"));
                return self.finish(on_the_copy).await;
            }
        };
        (self.report_values.after, self.report_values.after_at_todays_setting) = (Some(found.clone()), Some(at_todays_setting));
        self.report_values.curve = curve;
        let schema = self.part.table.facts.schema.clone();
        self.comment(&schema, &name, Some(comment), &found, true).await?;
        let missed = (!reached).then(|| {
            let (recall, target) = (recall_in_words(&found), self.job.recall.target);
            (None, format!("{name} reached {target} on a copy, but not on the table after the old index was dropped: {recall}"))
        });
        Ok(self.finish(found).await?.or(missed))
    }

    /// Applies the setting where the job says so, checks whether the application's own query uses the index, and writes the summary.
    pub(super) async fn finish(&mut self, found: Found) -> Result<Option<Failure>> {
        let mut connection = self.run.or_cancelled(indexes::connect(self.run)).await?;
        let table = &self.part.table;
        let method = self.part.request.method;
        let name = table.index_name.clone();
        let built =
            self.report_values.built.map_or_else(|| "built by a run that was stopped".to_owned(), |spec| spec.to_string());
        let before = self.part.current.index.as_ref().and_then(|index| index.now.as_ref());
        let before = before
            .map_or(String::new(), |now| format!("; before: {} at {}{}", recall_in_words(now), now.setting, cost_in_words(now)));
        // The measurement at the setting that applications use.
        let theirs =
            self.report_values.after_at_todays_setting.as_ref().filter(|_| !self.part.request.sets_the_setting).unwrap_or(&found);
        self.report_values.summary = format!(
            "{name} is {built}: {} at {} = {}{}{before}",
            recall_in_words(theirs),
            method.setting(),
            theirs.setting,
            cost_in_words(theirs)
        );
        if self.job.quantize == Some(Quantize::Halfvec) {
            self.report_values.summary += &format!("; applications search with ORDER BY {}", self.part.table.order_by());
        }
        let failure = self.finish_swap(&found).await?;
        // The check uses the application's query and its setting.
        let is_set = self.report_values.setting_applied.is_some() || self.part.table.by_bits;
        let setting = if is_set { found.setting.max(self.part.request.others_setting) } else { self.part.setting };
        let table = &self.part.table;
        let sample = measure::sample(&mut connection, &table.searched, &[], 1, table.vectors()).await?;
        setting::current(&mut connection, method, None, self.extension).await?;
        pg::set(&mut connection, method.setting(), &setting.to_string()).await?;
        if let Some(vector) = sample.vector() {
            let rows = table.asked_of_the_index(self.job.recall.k, setting);
            self.report_values.planners_choice =
                search::applications_plan(&mut connection, &table.searched, vector, rows).await?;
        }
        if let Some(choice) = self.report_values.planners_choice.as_ref().filter(|choice| **choice != name) {
            self.report_values.warnings.push(format!(
                "the planner uses {choice} instead of {name} for ORDER BY {} LIMIT {} at {} = {setting}",
                table.order_by(),
                self.job.recall.k,
                method.setting()
            ));
        }
        Ok(failure)
    }

    /// Makes applications search with the setting from now on, or the run reports that they do not.
    async fn finish_swap(&mut self, found: &Found) -> Result<Option<Failure>> {
        let (name, target) = (self.part.request.method.setting(), self.job.recall.target);
        if self.job.apply_setting.is_some() {
            self.apply_setting(found.setting).await?;
            if let Some(reason) = self.report_values.not_set.take() {
                if found.setting > self.part.setting {
                    return Ok(Some((None, format!("{}; {reason}", self.report_values.summary))));
                }
                self.report_values.warnings.push(reason);
            }
            self.report_values.summary +=
                &self.report_values.setting_applied.as_ref().map(|applied| format!("; {applied}")).unwrap_or_default();
            let others = &self.part.others;
            if self.report_values.setting_applied.is_none() && others.kept > found.setting {
                self.report_values.summary += &format!("; {}", others.in_words(name).join("; "));
            }
            return Ok(None);
        }
        if found.setting == self.part.setting || self.part.table.by_bits {
            return Ok(None);
        }
        let advice = format!("{name} = {} is enough for {target}", found.setting);
        let at_todays = self.report_values.after_at_todays_setting.as_ref().filter(|at_todays| !at_todays.reaches(target));
        let Some(at_todays) = at_todays else {
            self.report_values.warnings.push(format!("{advice}, and applications search with {}", self.part.setting));
            return Ok(None);
        };
        let message = format!(
            "{}; but applications search with {name} = {}, where {}: {advice}. Set it in the application and in the job, or set apply_setting = \"database\"",
            self.report_values.summary,
            self.part.setting,
            recall_in_words(at_todays),
        );
        Ok(Some((None, message)))
    }

    /// Changes only the setting.
    pub(super) async fn set(&mut self, reasons: &str) -> Result<Option<Failure>> {
        let index = self.part.current.index.as_ref();
        self.report_values.after_at_todays_setting = index.and_then(|index| index.now.clone());
        let least = index.and_then(|index| index.least.as_ref()).map(|(_, least)| least.clone());
        let least = least.context("the setting was measured")?;
        self.report_values.summary = format!("{}: {reasons}", self.part.table.index_name);
        self.report_values.after = Some(least.clone());
        self.finish_swap(&least).await
    }

    async fn apply_setting(&mut self, setting: u32) -> Result<()> {
        let mut connection = self.run.or_cancelled(indexes::connect(self.run)).await?;
        let Some(sql) = self.setting_sql(&mut connection, setting).await? else { return Ok(()) };
        pg::execute_counting(&mut connection, sql.clone()).await.map_err(pg::in_its_own_words).with_context(|| sql.clone())?;
        self.report_values.setting_applied = Some(self.applied_for(sql, setting));
        Ok(())
    }

    /// Returns SQL that makes this the setting, or a higher one that other indexes need; None also where the planner would leave one of these, and
    /// `not_set` says so. The server knows the setting once pgvector is loaded, and a role with the privilege sets it.
    async fn setting_sql(&mut self, connection: &mut PgConnection, setting: u32) -> Result<Option<String>> {
        let Some(place) = &self.job.apply_setting else { return Ok(None) };
        let method = self.part.request.method;
        let statement = async {
            setting::load(connection, self.extension).await?;
            let but = [self.new, self.old_oid()];
            let oid = self.part.table.facts.oid;
            let role = self.job.role();
            let others = setting::of_others(connection, (method, role), oid, but, self.extension).await?;
            let value = setting.max(others.setting);
            let today = setting::current(connection, method, role, self.extension).await?;
            let left = left::find(connection, method, (today, value), self.job.recall.k, oid, but).await?;
            let whose = self.whose(place);
            // It stays, wherever it is set.
            let is_kept = others.kept >= value;
            let not_set = (!left.is_empty()).then(|| left::in_words(&left, method, value));
            let sql = format!("ALTER {whose} SET {} = {value}", method.setting());
            Ok((others, (!is_kept && not_set.is_none()).then_some(sql), not_set))
        };
        let (others, sql, not_set) = self.run.or_cancelled(statement).await?;
        (self.part.others, self.report_values.not_set) = (others, not_set);
        Ok(sql)
    }

    /// Returns for whom settings are, as ALTER has it.
    pub(super) fn whose(&self, place: &ApplySetting) -> String {
        let database = identifier(self.run.settings.database());
        match place {
            ApplySetting::Database => format!("DATABASE {database}"),
            ApplySetting::Role(role) => format!("ROLE {} IN DATABASE {database}", identifier(role)),
        }
    }

    /// Says what was set, and for whose sake it is more than this index needs.
    fn applied_for(&self, sql: String, needed: u32) -> String {
        let others = &self.part.others;
        match others.setting > needed {
            true => format!("{} ({} needs it)", applied(sql), others.whose),
            false => applied(sql),
        }
    }

    fn old_oid(&self) -> Option<i64> {
        self.part.table.index.as_ref().map(|index| index.oid)
    }

    async fn session(&self) -> Result<Session> {
        self.run.or_cancelled(Session::open(self.run, self.limits.lock_timeout.0, self.limits.max_wait.0)).await
    }

    pub(super) fn built(&self, found: &Found, now: bool) -> Built {
        let before = self.part.table.index.as_ref().and_then(state::Found::built);
        Built {
            built_at: if now { Some(self.run.now) } else { before.as_ref().and_then(|before| before.built_at) },
            measured_at: self.run.now,
            rows: match before.clone().filter(|_| !now) {
                Some(before) => before.rows,
                None => self.part.table.vectors() as u64,
            },
            setting: found.setting,
            recall: (found.recall * 10_000.0).round() / 10_000.0,
            tuned: self.report_values.tuning.is_some() || self.part.current.index.as_ref().is_some_and(|index| index.tuned),
            graph: match (self.report_values.built.or(self.found), &self.part.current.index) {
                (Some(Spec::Hnsw { m, ef_construction }), _) if now => Some(Graph { m, ef_construction }),
                (_, Some(index)) if !now && index.method == Some(Method::Hnsw) => {
                    Some(Graph { m: index.m, ef_construction: index.ef_construction })
                }
                _ => None,
            },
            is_by_function: self.part.table.by_bits,
            declined: self.report_values.declined.or(before.filter(|_| !now).and_then(|before| before.declined)),
        }
    }

    /// Records that other numbers of lists were tried and the present one stays: otherwise every run would try again. It also records the
    /// value that the index needs of the shared setting.
    pub(super) async fn note(&mut self) -> Result<()> {
        let least = self.part.current.index.as_ref().and_then(|index| index.least.clone());
        let (Some(index), Some((_, least))) = (self.part.table.index.clone(), least) else { return Ok(()) };
        let is_known = index.built().is_some_and(|built| built.setting == least.setting);
        if self.report_values.tuning.is_none() && (is_known || self.job.apply_setting.is_none()) {
            return Ok(());
        }
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
        let mut session = self.session().await?;
        let statement = format!("COMMENT ON INDEX {} IS {}", qualified(schema, name), literal(&comment));
        if let Attempt::Locked(who) =
            self.run.or_cancelled(session.transaction(&[statement], &[self.part.table.facts.oid])).await?
        {
            self.report_values.warnings.push(format!("the measurement could not be recorded in the index's comment: {who}"));
        }
        Ok(())
    }
}

pub(super) fn applied(sql: String) -> String {
    format!("{sql}; connected sessions keep their value")
}

fn cost_in_words(found: &Found) -> String {
    found.cost.map_or(String::new(), |cost| format!(", {:.2} ms and {} pages a search", cost.ms, units::count(cost.pages as u64)))
}
