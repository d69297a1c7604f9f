//! `pgtend backups restore` of parts of a set: `--table`, `--schema`, `--as`, `--merge`.

use std::time::Duration;

use anyhow::Result;
use clap::Args;
use tokio_util::sync::CancellationToken;

use super::find::Found;
use crate::base::fault::{Fault, Kind};
use crate::base::progress::{Phase, Progress};
use crate::base::terminal::say;
use crate::base::units;
use crate::cli::global::Global;
use crate::cli::output::{print, print_json};
use crate::cli::outputs::parts_of_sets as printed;
use crate::cli::signals::or_cancelled;
use crate::cli::trusts::Trusts;
use crate::config::Config;
use crate::pg;
use crate::pg::table::Checked;
use crate::task::backup::choices::{Choices, OnError};
use crate::task::backup::parts::commit::NotKnown;
use crate::task::backup::parts::merge::{self, Merged, Mode};
use crate::task::backup::parts::names::{self, Name};
use crate::task::backup::parts::plan;
use crate::task::backup::parts::planned::Plan;
use crate::task::backup::parts::put::{self, Put};
use crate::task::backup::parts::{self, definitions, only_rows, sequences, under_lock};
use crate::task::backup::restore::Restored;
use crate::task::backup::{gains, new_database};
use crate::task::foreign_code;

#[derive(Debug, Default, Args)]
pub struct Part {
    /// Only this table with what it needs, into a database in use; as `backups show` names it or as in SQL, `*` and `?` outside of quotes stand for
    /// letters; may be repeated
    #[arg(long, value_name = "SCHEMA.TABLE", conflicts_with = "create")]
    table: Vec<String>,
    /// Only this schema; may be repeated
    #[arg(long, value_name = "SCHEMA", conflicts_with_all = ["create", "merge"])]
    schema: Vec<String>,
    /// Only the rows, into tables that are there and empty
    #[arg(long, conflicts_with_all = ["beside", "merge"])]
    data_only: bool,
    /// Restore the one table under this name, beside the living one: rows, columns, checks, keys and indexes
    #[arg(long = "as", id = "beside", value_name = "SCHEMA.TABLE", requires = "table", conflicts_with_all = ["schema", "merge"])]
    beside: Option<String>,
    /// Put rows of the one table back into the living one
    #[arg(long, value_enum, requires = "table")]
    merge: Option<Mode>,
    /// With --merge: only rows for which this SQL condition is true
    #[arg(long = "where", id = "condition", value_name = "CONDITION", requires = "merge")]
    condition: Option<String>,
    /// Of a part: print what would be done; change nothing
    #[arg(long)]
    pub(super) dry_run: bool,
    /// Agree to --merge replace, which writes over rows
    #[arg(long)]
    yes: bool,
}

impl Part {
    /// Returns whether a part is meant; an error where options mean one and none is named, or where they mean another restore.
    pub(super) fn mean_a_part(&self, on_error: OnError) -> Result<bool> {
        let is_part = !self.table.is_empty() || !self.schema.is_empty();
        if is_part && on_error == OnError::Continue {
            let message = "--on-error continue is for whole sets: among objects that live, what follows a statement that failed would change others than \
                           the part's own, so that a restore puts back all of a part or nothing. Leave it out; --without leaves out an index or a constraint";
            return Err(Fault::new(Kind::Configuration, message).into());
        }
        if !is_part && (self.data_only || self.dry_run || self.yes) {
            let message = "--data-only, --dry-run and --yes are for parts of a set: name them with --table or --schema";
            return Err(Fault::new(Kind::Configuration, message).into());
        }
        Ok(is_part)
    }

    fn asked(&self) -> Result<plan::Asked> {
        let beside = match &self.beside {
            Some(text) => Some(names::new_name(text).ok_or_else(|| {
                Fault::new(Kind::Configuration, format!("--as {text}: write the name of a table as in SQL, SCHEMA.TABLE"))
            })?),
            None => None,
        };
        Ok(plan::Asked { tables: self.table.clone(), schemas: self.schema.clone(), data_only: self.data_only, beside })
    }
}

/// The target of a part.
pub(super) struct Target<'a> {
    pub(super) config: &'a Config,
    /// As it was written.
    pub(super) into: &'a str,
    pub(super) settings: &'a pg::Settings,
    pub(super) choices: &'a Choices,
    pub(super) create_roles: bool,
}

/// Restores all of the part, or nothing.
pub(super) async fn restore(
    global: &Global,
    arguments: &Part,
    target: &Target<'_>,
    found: &Found,
    progress: &Progress,
    cancel: &CancellationToken,
) -> Result<()> {
    let phase = progress.phase("restore", None);
    if found.set.is_adopted() {
        let trusted = async {
            let mut connection = target.settings.connect().await?;
            gains::refuse_adopted(&mut connection, &found.set, target.choices.trust_owners).await
        };
        or_cancelled(cancel, trusted).await?;
    }
    match arguments.merge {
        Some(mode) => merged(global, arguments, mode, target, found, &phase, cancel).await,
        None => restored(global, arguments, target, found, &phase, cancel).await,
    }
}

/// Tables with what they need, or only their rows.
async fn restored(
    global: &Global,
    arguments: &Part,
    target: &Target<'_>,
    found: &Found,
    phase: &Phase,
    cancel: &CancellationToken,
) -> Result<()> {
    let (set, settings) = (&found.set, target.settings);
    let asked = arguments.asked()?;
    let planning = async {
        parts::prove(&found.store, set, phase).await?;
        let definitions = definitions::read(&found.store, set, phase).await?;
        let mut connection = settings.connect().await?;
        let mut plan = plan::plan(&mut connection, set, &definitions, &asked, target.choices).await?;
        if !asked.data_only {
            let warnings = check_what_it_uses(global, target, found, &plan).await?;
            plan.notes.extend(warnings);
        }
        gains::refuse(&mut connection, &plan.part.manifest.server, target.choices).await?;
        if !(arguments.dry_run && target.create_roles) {
            let lacks =
                new_database::prepare_server(&mut connection, &plan.part, target.choices, target.create_roles, None).await?;
            lacks.notes.iter().for_each(|note| tracing::warn!("{note}"));
        }
        let mut jobs_kept_out = None;
        if asked.data_only {
            let checked = warn_of_code(global, target, found, plan.tables().keys()).await?;
            if !arguments.dry_run {
                jobs_kept_out = Some(under_lock::keep_jobs_out(settings, &checked).await?);
            }
            plan.before.extend(under_lock::statements(&checked, &plan.shapes));
            only_rows::refuse_filled(&mut connection, &plan).await?;
        }
        Ok((plan, jobs_kept_out))
    };
    let (plan, jobs_kept_out) =
        or_cancelled(cancel, planning).await.map_err(|error| error.context(unchanged(found, settings)))?;
    if arguments.dry_run {
        return print(&format!("{plan}nothing was changed: this is a dry run\n"));
    }
    say(plan.to_string().trim_end());
    let put = put::put(&found.store, set, &plan, (settings, target.choices), phase, cancel).await;
    drop(jobs_kept_out);
    let Put { restored, moved, read_bytes } = put.map_err(|error| unless_not_known(error, unchanged(found, settings)))?;
    if let Some(refusal) = restored.refusal {
        let unchanged = unchanged(found, settings) + &sequences::but_for(&moved);
        return Err(anyhow::Error::from(refusal).context(unchanged));
    }
    restored.notes.iter().chain(&plan.notes).for_each(|note| tracing::warn!("{note}"));
    phase.done(&format!("{} from {}", settings.display(), set.name));
    let read_bytes = plan.read_bytes + read_bytes;
    print_restored(global, found, settings, &plan, &restored, (read_bytes, phase.elapsed()))
}

/// The error in these words, except where nobody knows.
fn unless_not_known(error: anyhow::Error, words: String) -> anyhow::Error {
    if error.is::<NotKnown>() { error } else { error.context(words) }
}

fn unchanged(found: &Found, settings: &pg::Settings) -> String {
    format!("no part of {} was restored, and {} is unchanged", found.set.name, settings.display())
}

/// Living functions, types and tables that the part uses, and their schemas, hold code that runs with the rights of this login.
async fn check_what_it_uses(global: &Global, target: &Target<'_>, found: &Found, plan: &Plan) -> Result<Vec<String>> {
    let trust_owners = Trusts::read(global, target.config).owners_of(&found.set.name.job);
    let used: Vec<foreign_code::Used> = plan
        .uses
        .objects
        .iter()
        .map(|object| foreign_code::Used {
            class: object.class.name(),
            schema: &object.name.schema,
            name: &object.name.name,
            is_referred: plan.uses.referred.contains(&object.name),
        })
        .collect();
    let schemas: Vec<&str> = plan.schemas.iter().map(|schema| schema.name.as_str()).collect();
    let mut warnings = foreign_code::check_part(target.settings, &used, &schemas, trust_owners).await?;
    warnings.extend(foreign_code::check_restore_beside_others(target.settings, trust_owners).await?);
    Ok(warnings)
}

/// Triggers, CHECKs and generated columns of the living tables run with the rights of this login. Returns the tables as they are now.
async fn warn_of_code(
    global: &Global,
    target: &Target<'_>,
    found: &Found,
    tables: impl Iterator<Item = &Name>,
) -> Result<Vec<Checked>> {
    let trust_owners = Trusts::read(global, target.config).owners_of(&found.set.name.job);
    let mut checked = Vec::new();
    for table in tables {
        let (warnings, of_table) = foreign_code::check_inserts(target.settings, &table.sql(), false, trust_owners).await?;
        warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
        checked.extend(of_table);
    }
    Ok(checked)
}

fn print_restored(
    global: &Global,
    found: &Found,
    settings: &pg::Settings,
    plan: &Plan,
    restored: &Restored,
    (read_bytes, elapsed): (u64, Duration),
) -> Result<()> {
    let (name, into) = (found.set.name.to_string(), settings.display());
    let tables = plan.tables();
    let rows: u64 = tables.values().sum();
    if global.json {
        let of_tables =
            tables.iter().map(|(table, rows)| printed::TableRows { schema: &table.schema, name: &table.name, rows: *rows });
        return print_json(&printed::Restore::Parts(printed::Parts {
            set: &name,
            store: &found.store_name,
            into: &into,
            tables: of_tables.collect(),
            rows,
            notes: restored.notes.iter().chain(&plan.notes).collect(),
            read_bytes,
            elapsed_seconds: elapsed.as_secs_f64(),
        }));
    }
    for (table, rows) in &tables {
        print(&format!("{table}: {}\n", units::plural(*rows, "row")))?;
    }
    let read = format!("{} read of {}", units::bytes(read_bytes), units::bytes(found.set.manifest.dump.bytes));
    if tables.is_empty() {
        return print(&format!("of {name}, restored into {into}: {} ({read})\n", plan.made.join(", ")));
    }
    print(&format!(
        "of {name}, {} with {} restored into {into}, each table counted ({read})\n",
        units::plural(tables.len(), "table"),
        units::plural(rows, "row")
    ))
}

/// Rows of one table, put back into the living one.
async fn merged(
    global: &Global,
    arguments: &Part,
    mode: Mode,
    target: &Target<'_>,
    found: &Found,
    phase: &Phase,
    cancel: &CancellationToken,
) -> Result<()> {
    let [table] = &arguments.table[..] else {
        let message = "--merge takes one --table at a time: those that others refer to first";
        return Err(Fault::new(Kind::Configuration, message).into());
    };
    // Its triggers and checks run in this session.
    let of_owner = target.config.database(target.into).map(|database| database.owner_settings()).transpose()?;
    let settings = of_owner.as_ref().unwrap_or(target.settings);
    let asked = merge::Asked {
        table: table.clone(),
        condition: arguments.condition.clone(),
        mode,
        trust_owners: Trusts::read(global, target.config).owners_of(&found.set.name.job),
    };
    let planning = async {
        parts::prove(&found.store, &found.set, phase).await?;
        let definitions = definitions::read(&found.store, &found.set, phase).await?;
        merge::plan(settings, &found.set, &definitions, &asked).await
    };
    let plan = or_cancelled(cancel, planning).await?;
    plan.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    if arguments.dry_run {
        let seen = or_cancelled(cancel, merge::look(&found.store, &found.set, &plan, settings, phase)).await?;
        if !global.json {
            print(&plan.to_string())?;
        }
        return print_merged(global, found, settings, &seen, (phase.elapsed(), true));
    }
    if mode == Mode::Replace && !arguments.yes {
        let message = format!("{plan}--merge replace writes over rows: if this is intended, add --yes");
        return Err(Fault::new(Kind::Configuration, message).into());
    }
    say(plan.to_string().trim_end());
    let merged = merge::merge(&found.store, &found.set, &plan, settings, phase, cancel).await;
    let merged = merged.map_err(|error| {
        unless_not_known(error, format!("no rows of {} were put back into {}", found.set.name, settings.display()))
    })?;
    phase.done(&format!("{} from {}", settings.display(), found.set.name));
    print_merged(global, found, settings, &merged, (phase.elapsed(), false))
}

fn print_merged(
    global: &Global,
    found: &Found,
    settings: &pg::Settings,
    merged: &Merged,
    (elapsed, is_dry_run): (Duration, bool),
) -> Result<()> {
    merged.notes.iter().for_each(|note| tracing::warn!("{note}"));
    let Merged { table, rows, chosen, inserted, replaced, notes, read_bytes } = merged;
    let (name, into) = (found.set.name.to_string(), settings.display());
    if global.json {
        return print_json(&printed::Restore::Merged(printed::Merged {
            set: &name,
            store: &found.store_name,
            into: &into,
            table,
            dry_run: is_dry_run,
            rows: *rows,
            chosen: *chosen,
            inserted: *inserted,
            replaced: *replaced,
            left: merged.left(),
            notes,
            read_bytes: *read_bytes,
            elapsed_seconds: elapsed.as_secs_f64(),
        }));
    }
    let (would, end) = if is_dry_run { ("would be ", "nothing was changed: this is a dry run\n") } else { ("", "") };
    print(&format!(
        "{table}: {} {would}inserted, {} replaced, {} left as they are; {} of the {} of the set in question ({} read of {})\n{end}",
        units::count(*inserted),
        units::count(*replaced),
        units::count(merged.left()),
        units::count(*chosen),
        units::plural(*rows, "row"),
        units::bytes(*read_bytes),
        units::bytes(found.set.manifest.dump.bytes)
    ))
}
