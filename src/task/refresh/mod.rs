//! `[refresh]`: the newest proved set of a backup job is restored beside a database, changed by the user's SQL, checked, and takes its name; the
//! replaced one is kept for a time. Without the swap it is a drill.
//!
//! A refresh never replaces a database that is backed up. Nobody but the role that restores (with its members) and superusers can connect to the copy
//! before the swap, which is one transaction: a killed run leaves the old database or the new one under the name, and a copy with a mark, which the
//! next run drops.

mod after;
mod apply;
mod beside;
mod copies;
mod copy;
mod decide;
pub mod document;
mod entry;
mod keys;
mod mark;
mod plan;
mod rights;
mod said;
mod source;
mod state;
mod swap;
mod sweep;

use anyhow::{Context as _, Result};
pub use keys::{Refresh, Written, resolve};
pub use plan::Plan;
use sqlx::postgres::PgConnection;

use self::copies::Listed;
use self::plan::{ChosenSet, WorkOn};
use crate::base::fault::{Fault, Kind};
use crate::base::units;
use crate::ledger::report::Report;
use crate::pg;
use crate::task::backup::choices::Choices;
use crate::task::backup::facts::{DatabaseFacts, ServerFacts};
use crate::task::backup::set::Set;
use crate::task::backup::{expect, gains, new_database, shown};
use crate::task::{foreign_code, sql};
use crate::work::{RunContext, Work};

impl Work for Refresh {
    type Plan = Plan;

    async fn plan(&self, run: &RunContext<'_>) -> Result<Plan> {
        let statements = self.statements()?;
        let source = source::source(self, run.others)?;
        let mut server = run.lasting_settings().connect().await?;
        let (facts, own_pid) = beside::target(run, &mut server).await?;
        let listed = copies::list(run.config, &source).await?;
        let state = state::read(run, &mut server, &facts, own_pid, &listed).await?;
        let decide::Drops { drops, notes } = decide::drops(&state.made, state.target.oid, self, state.clock);
        let mut plan = Plan {
            target: run.settings.display(),
            database: run.settings.database().to_owned(),
            server_version: facts.version.clone(),
            source: source.shown(&source.stores.join(",")),
            set: None,
            after: statements.iter().map(|statement| shown::shown(statement)).collect(),
            expect: self.expect.clone(),
            swap: self.swap,
            keep_old: self.keep_old,
            terminate: self.terminate,
            wait: self.wait,
            who_connects: state::who_connects(&mut server).await?,
            drops,
            stays: notes,
            notes: listed.notes.clone(),
            foreign_code: Vec::new(),
            refusal: decide::refusal(&state, self),
            statements,
            work: None,
        };
        match decide::choose(&state, self) {
            Ok((index, notes)) => {
                let Listed { mut sets, .. } = listed;
                let copies = sets.swap_remove(index);
                plan.notes.extend(notes);
                plan.notes.extend(large_objects(&copies.first.set));
                // A dry run of what is refused shows the set all the same.
                plan.set = Some(ChosenSet::of(&copies.first, state.clock));
                if plan.refusal.is_none() {
                    let (copies, notes) = copies.that_open().await?;
                    let first = copies.first().context("no copy is left")?;
                    plan.notes.extend(notes);
                    plan.set = Some(ChosenSet::of(first, state.clock));
                    plan.source = source.shown(&first.store_name);
                    plan.foreign_code = self.can_restore(run, &mut server, &first.set, &facts).await?;
                    plan.work = Some(WorkOn { copies, target: facts.database });
                }
            }
            Err(refusal) => plan.refusal = plan.refusal.take().or(Some(refusal)),
        }
        Ok(plan)
    }

    fn refusal(&self, _run: &RunContext<'_>, plan: &Plan) -> Option<anyhow::Error> {
        plan.refusal.clone().map(anyhow::Error::from)
    }

    async fn apply(&self, run: &RunContext<'_>, plan: Plan) -> Result<Report> {
        match self.refusal(run, &plan) {
            Some(refusal) => Err(refusal),
            None => apply::apply(self, run, plan).await,
        }
    }
}

/// What no statement masks that names tables.
fn large_objects(set: &Set) -> Option<String> {
    let count = set.manifest.large_objects;
    (count > 0).then(|| {
        format!(
            "the set has {}, which come as they are: `after` must change them (lo_put, lo_unlink), or what is in them is not masked",
            units::plural(count, "large object")
        )
    })
}

impl Refresh {
    /// The commands of `after` and `after_file`, in order. The file is read by each run, as it may be a secret that changes.
    fn statements(&self) -> Result<Vec<String>> {
        let mut texts = self.after.clone();
        if let Some(file) = &self.after_file {
            let read = std::fs::read_to_string(file);
            let refused = |why: String| Fault::new(Kind::Configuration, format!("after_file {}: {why}", file.display()));
            let text = read.map_err(|error| refused(error.to_string()))?;
            if let Some((message, hint)) = sql::refusal(&text) {
                return Err(refused(format!("{message}: {hint}")).into());
            }
            if sql::commands(&text).is_empty() {
                return Err(refused("it holds no statement, so that nothing would be masked".to_owned()).into());
            }
            texts.push(text);
        }
        Ok(texts.iter().flat_map(|text| sql::commands(text)).map(|(command, _)| command).collect())
    }

    /// How the dump is restored. Tablespaces are the source's server's, and another one has its own.
    fn choices(&self) -> Choices {
        let role_map = self.role_map.iter().map(|(old, new)| (old.clone(), new.clone())).collect();
        Choices { no_owner: self.no_owner, no_tablespaces: true, role_map, for_refresh: true, ..Choices::default() }
    }

    /// Fails where the set cannot be restored on that server, as far as that is known before. Returns warnings of code that the restore, and the
    /// statements after it, run.
    async fn can_restore(
        &self,
        run: &RunContext<'_>,
        server: &mut PgConnection,
        set: &Set,
        facts: &ServerFacts,
    ) -> Result<Vec<String>> {
        let choices = self.choices();
        gains::refuse(server, &set.manifest.server, &choices).await.context("`no_owner` and `role_map` are refused here")?;
        let roles: Vec<String> = set.manifest.server.roles.iter().chain([&set.manifest.server.database.owner]).cloned().collect();
        let trusts = run.job.limits.trust_owners;
        let warnings = foreign_code::check_restore_of_a_set(&run.lasting_settings(), &roles, trusts).await?;
        rights::ensure(server, run.settings.database(), self).await?;
        if self.create_roles {
            let like = copy::like(self, set, &facts.database, facts.database.owner.clone());
            let lacks = new_database::lacks_of(server, set, &choices, Some(&like)).await?;
            rights::ensure_creates_roles(server, &lacks.roles).await?;
        } else {
            self.prepare_server(server, set, &facts.database).await?;
        }
        Ok(warnings)
    }

    /// Refuses a server that lacks what the dump needs, and creates the roles that it lacks where that was asked for. Returns notes.
    async fn prepare_server(&self, server: &mut PgConnection, set: &Set, target: &DatabaseFacts) -> Result<Vec<String>> {
        let like = copy::like(self, set, target, target.owner.clone());
        let prepared = new_database::prepare_server(server, set, &self.choices(), self.create_roles, Some(&like)).await;
        let lacks = prepared.context("the set cannot be restored there (keys of [refresh]: create_roles, role_map, no_owner)")?;
        let created = (!lacks.roles.is_empty()).then(|| format!("created without LOGIN: {}", lacks.roles.join(", ")));
        Ok(lacks.notes.into_iter().chain(created).collect())
    }

    /// The search_path of the user's SQL. Nothing is found in the session's own temporary schema before it.
    fn search_path(&self, set: &Set) -> String {
        let path = self.search_path.as_deref().unwrap_or_else(|| expect::search_path(&set.manifest)).trim();
        if path.is_empty() { pg::SEARCH_PATH.to_owned() } else { format!("{path}, pg_temp") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::units::Span;
    use crate::task::refresh::keys::Sets;

    /// All by default.
    pub fn keys() -> Refresh {
        let span = |seconds| Span(std::time::Duration::from_secs(seconds));
        Refresh {
            from: "nightly".into(),
            from_database: None,
            store: None,
            sets: Sets::Proved,
            max_age: None,
            after: Vec::new(),
            after_file: None,
            expect: Vec::new(),
            search_path: None,
            swap: true,
            keep_old: span(7 * 86_400),
            keep_failed: false,
            wait: span(60),
            terminate: false,
            create_roles: false,
            no_owner: false,
            role_map: Default::default(),
            encoding: None,
            locale: None,
            sessions: None,
        }
    }
}
