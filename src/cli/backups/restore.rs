//! `pgtend backups restore`.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use clap::Args;
use tokio_util::sync::CancellationToken;

use super::find::{Filter, Found, Which, settings_of};
use super::nearness::{judge, on_the_first_good, that_open};
use super::restore_part;
use super::thaw::{Thawing, find_readable};
use crate::base::fault::{Fault, Kind};
use crate::base::progress::Progress;
use crate::base::units;
use crate::cli::global::Global;
use crate::cli::output::{print, print_json};
use crate::cli::outputs::parts_of_sets as printed;
use crate::cli::signals::or_cancelled;
use crate::ledger::Ledger;
use crate::ledger::report::Report;
use crate::pg;
use crate::pg::failure;
use crate::run::runner::claim::{self, Subject};
use crate::task::backup::choices::{Choices, OnError, RowCheck, Without};
use crate::task::backup::facts::DatabaseFacts;
use crate::task::backup::new_database::NewDatabase;
use crate::task::backup::read_back::Differs;
use crate::task::backup::restore::Restored;
use crate::task::backup::scratch::LocaleRefused;
use crate::task::backup::sessions::{SESSIONS_MOST, restore_sessions};
use crate::task::backup::set::Set;
use crate::task::backup::{existing_database, gains, guard, new_database, scratch};

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  pgtend backups restore latest --into postgres:///app_copy --create   into a new database
  pgtend backups restore latest --database app --into postgres:///app --table public.users
  pgtend backups restore 2026-11-23T02-00-00Z --into postgres:///copy --create --check-rows")]
pub struct Arguments {
    /// DATABASE/JOB/TIME as listed, TIME alone, or `latest` (the newest that is not damaged, partial or dated in the future)
    set: String,
    #[command(flatten)]
    filter: Filter,
    #[command(flatten)]
    which: Which,
    /// The target: a URL, or a configured database. Put no password into the URL, since every user of this host can read
    /// arguments; use PGPASSWORD or ~/.pgpass
    #[arg(long, value_name = "URL")]
    into: String,
    /// Create the database; it gets its name only when the restore is complete
    #[arg(long)]
    create: bool,
    /// With --create: the sessions that restore, 1 to 16; by default one for each processor of this host, at most 4. One transaction into
    /// an existing database, --on-error continue and --without are of one session
    #[arg(long, value_name = "N", requires = "create", value_parser = clap::value_parser!(u8).range(1..=SESSIONS_MOST as i64))]
    sessions: Option<u8>,
    /// Read all rows back when they are in, and compare their hash with that of the set: not only the number of rows, but each value
    #[arg(long)]
    check_rows: bool,
    /// Create the roles that the target lacks, without LOGIN
    #[arg(long)]
    create_roles: bool,
    /// With --create: the encoding of the new database, in place of the source's
    #[arg(long, requires = "create")]
    encoding: Option<String>,
    /// With --create: its locale, in place of the source's: a libc locale, icu:NAME or builtin:NAME
    #[arg(long, requires = "create")]
    locale: Option<String>,
    /// When the target refuses a statement: `stop`, so that nothing is restored, or go on, list all that failed at the end, and
    /// exit with 1
    #[arg(long, value_enum, default_value = "stop")]
    on_error: OnError,
    /// Leave out a CONSTRAINT, an INDEX or an EXTENSION, and what belongs to it; may be repeated. Write NAME as in the catalog;
    /// its schema or table may precede it (public.t_idx). A foreign key is added NOT VALID
    #[arg(long, num_args = 2, value_names = ["KIND", "NAME"], action = clap::ArgAction::Append)]
    without: Vec<String>,
    /// Restore with this search_path (`public, extensions`) instead of pg_dump's empty one, for functions that name objects
    /// without their schema
    #[arg(long, value_name = "LIST")]
    search_path: Option<String>,
    /// Put everything into the database's default tablespace
    #[arg(long)]
    no_tablespaces: bool,
    /// Make the restoring role the owner of everything. For a role with the rights of a superuser this needs --trust-owners
    #[arg(long)]
    no_owner: bool,
    /// Replace a role of the source by another one, as owner and in grants; may be repeated. For NEW with the rights of a superuser
    /// this needs --trust-owners
    #[arg(long, value_name = "OLD=NEW", value_parser = role_mapping)]
    role_map: Vec<(String, String)>,
    /// Let a role with the rights of a superuser become the owner of what other roles wrote: their SECURITY DEFINER functions,
    /// views and rules then run with those rights, for everyone who may use them. Let such a role restore an adopted set, whose
    /// code then runs with its rights
    #[arg(long)]
    trust_owners: bool,
    #[command(flatten)]
    thawing: Thawing,
    #[command(flatten)]
    part: restore_part::Part,
}

fn role_mapping(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((old, new)) if !old.is_empty() && !new.is_empty() => Ok((old.to_owned(), new.to_owned())),
        _ => Err("write OLD=NEW".to_owned()),
    }
}

impl Arguments {
    fn choices(&self) -> Result<Choices> {
        let without = self.without.chunks(2).map(|pair| match pair {
            [kind, name] => match kind.parse() {
                Ok(kind) => Ok(Without { kind, name: name.clone() }),
                Err(reason) => Err(Fault::new(Kind::Configuration, format!("--without: {reason}")).into()),
            },
            _ => Err(anyhow::anyhow!("--without needs a kind and a name")),
        });
        Ok(Choices {
            on_error: self.on_error,
            rows: if self.check_rows { RowCheck::Hash } else { RowCheck::Count },
            without: without.collect::<Result<_>>()?,
            search_path: self.search_path.clone(),
            no_owner: self.no_owner,
            no_tablespaces: self.no_tablespaces,
            role_map: self.role_map.clone(),
            trust_owners: self.trust_owners,
            ..Choices::default()
        })
    }
}

pub async fn run(global: &Global, arguments: &Arguments, cancel: &CancellationToken) -> Result<ExitCode> {
    let Arguments { set: wanted, filter, which, into, .. } = arguments;
    let choices = arguments.choices()?;
    let config = global.load_config()?;
    let settings = settings_of(&config, into)?;
    if into.contains("://") && !pg::Settings::names_a_database(into) {
        let message = format!(
            "--into names no database: add it after the host, as in {}/NAME; by libpq's rules it would be `{}`",
            into.split_once('?').map_or(into.as_str(), |(url, _)| url).trim_end_matches('/'),
            settings.database()
        );
        return Err(Fault::new(Kind::Configuration, message).into());
    }
    // A dry run starts nothing.
    let none = Thawing::default();
    let thawing = if arguments.part.dry_run { &none } else { &arguments.thawing };
    let choice = which.choice();
    let finding = find_readable(global, &config, wanted, filter, (&choice, thawing));
    let copies = or_cancelled(cancel, finding).await?;
    let copies = or_cancelled(cancel, that_open(copies)).await?;
    let Some(name) = copies.first().map(|found| found.set.name.clone()) else { anyhow::bail!("there is no copy") };
    let progress = global.progress();
    let is_part = arguments.part.mean_a_part(arguments.on_error)?;
    if is_part && arguments.check_rows {
        let message = "--check-rows is for whole sets: rows that are put into living tables may rightly become other ones (triggers, --merge). Leave it out; the rows \
                       of a part are counted";
        return Err(Fault::new(Kind::Configuration, message).into());
    }
    let target = restore_part::Target {
        config: &config,
        into,
        settings: &settings,
        choices: &choices,
        create_roles: arguments.create_roles,
    };
    if arguments.part.dry_run {
        let showing = on_the_first_good(&copies, async |found| {
            restore_part::restore(global, &arguments.part, &target, found, &progress, cancel).await
        });
        return showing.await.map(|_| ExitCode::SUCCESS);
    }
    // The store may be all that is left: neither a ledger that is away nor one that cannot be read about is a reason not to restore.
    let ledger = Ledger::new(&config).unwrap_or_else(|error| {
        tracing::warn!("this is not in the ledger: {}", failure::in_a_line(&error));
        None
    });
    let subject = Subject { job: &name.job, database: &name.database, command: "backups restore", asked_by: None };
    let lock = guard::readers_lock(&name.database, &name.job);
    let reading = claim::share(ledger.map(Arc::new).as_ref(), &subject, &lock, &progress).await;
    let restoring = on_the_first_good(&copies, async |found| match is_part {
        true => restore_part::restore(global, &arguments.part, &target, found, &progress, cancel).await.map(|()| 0),
        false => restore(global, arguments, &choices, &settings, found, &progress, cancel).await,
    });
    let result = restoring.await;
    let report = Report { summary: format!("{name} into {}", settings.display()), ..Report::default() };
    let incomplete = result.as_ref().ok().filter(|used| used.done > 0).map(|used| {
        anyhow::anyhow!("{name} is restored into {}, except for {}", settings.display(), units::plural(used.done, "statement"))
    });
    let error = result.as_ref().err().or(incomplete.as_ref());
    reading.end(error.map_or(Ok(&report), Err)).await;
    let used = result?;
    judge(&used.passed_over, &progress, cancel).await;
    Ok(if used.done > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Returns how many statements failed: with `--on-error continue` the others are restored.
async fn restore(
    global: &Global,
    arguments: &Arguments,
    choices: &Choices,
    settings: &pg::Settings,
    found: &Found,
    progress: &Progress,
    cancel: &CancellationToken,
) -> Result<u64> {
    let Arguments { encoding, locale, .. } = arguments;
    let set = &found.set;
    let like = or_cancelled(cancel, prepare(arguments, choices, settings, set)).await?;
    let phase = progress.phase("restore", Some(set.manifest.dump.bytes));
    let restored = if arguments.create {
        let needs_order = choices.on_error == OnError::Continue || !choices.without.is_empty();
        if needs_order && arguments.sessions.is_some_and(|sessions| sessions > 1) {
            tracing::warn!("--sessions has no effect: with --on-error continue, and with --without, one session restores");
        }
        let sessions = restore_sessions(arguments.sessions.map(usize::from), &set.manifest);
        let new = NewDatabase { settings, like: &like, choices, sessions };
        let made = new_database::into_new_database(&found.store, set, &new, &phase, cancel).await;
        made.map_err(|error| with_another_locale(error, encoding.as_deref(), locale.as_deref()))?
    } else {
        existing_database::into_empty_database(&found.store, set, settings, choices, &phase, cancel).await?
    };
    let unchanged = || format!("{} was not restored, and {} is unchanged", set.name, settings.display());
    let problems = restored.problems.join("; ");
    anyhow::ensure!(restored.problems.is_empty(), Differs(format!("{}: {problems}", unchanged())));
    if let Some(refusal) = restored.refusal {
        return Err(anyhow::Error::from(refusal).context(unchanged()));
    }
    for note in &restored.notes {
        tracing::warn!("{note}");
    }
    for table in restored.hashed.iter().flat_map(|hashed| &hashed.only_counted) {
        tracing::warn!("only counted, and not hashed: {table}");
    }
    phase.done(&format!("{} from {}", settings.display(), set.name));
    print_restored(global, settings, found, &restored, phase.elapsed())?;
    anyhow::ensure!(
        restored.not_carried.is_empty(),
        "{} is restored, but not all properties of the database: {}",
        settings.display(),
        restored.not_carried.join("; ")
    );
    Ok(restored.failed_count as u64)
}

/// Checks that the server can take the set, and makes the roles that it lacks where that was asked for. Returns the properties of the database
/// to be made.
async fn prepare(arguments: &Arguments, choices: &Choices, settings: &pg::Settings, set: &Set) -> Result<DatabaseFacts> {
    let Arguments { create, create_roles, encoding, locale, .. } = arguments;
    let mut connection = if *create {
        scratch::maintenance_connection(settings).await?
    } else {
        settings.connect().await.map_err(|error| match pg::sql_state(&error).as_deref() {
            Some("3D000") => error.context("add --create to create the database"),
            _ => error,
        })?
    };
    gains::refuse_adopted(&mut connection, set, choices.trust_owners).await?;
    gains::refuse(&mut connection, &set.manifest.server, choices).await?;
    let like = new_database::like(&mut connection, set, choices, encoding.as_deref(), locale.as_deref()).await?;
    let lacks = new_database::prepare_server(&mut connection, set, choices, *create_roles, create.then_some(&like)).await?;
    for note in &lacks.notes {
        tracing::warn!("{note}");
    }
    if let Some(tablespace) = &set.manifest.server.database.tablespace
        && *create
        && like.tablespace.is_none()
        && !choices.no_tablespaces
    {
        tracing::warn!(
            "the source's tablespace {tablespace} does not exist here, or this role may not use it: the new database is in the server's default tablespace"
        );
    }
    if !lacks.roles.is_empty() {
        tracing::warn!("created without LOGIN: {}", lacks.roles.join(", "));
    }
    Ok(like)
}

fn print_restored(global: &Global, settings: &pg::Settings, found: &Found, restored: &Restored, elapsed: Duration) -> Result<()> {
    let set = &found.set;
    let (tables, rows) = (set.manifest.table_count() as u64, set.manifest.rows());
    let (name, into, failures) = (&set.name, settings.display(), restored.failed_count as u64);
    if global.json {
        return print_json(&printed::Restore::Whole(printed::Whole {
            set: name.to_string(),
            store: &found.store_name,
            into: &into,
            tables,
            rows,
            rows_hashed: restored.hashed.as_ref(),
            sessions: restored.sessions,
            rows_seconds: restored.seconds.map(|(rows, _)| rows),
            after_rows_seconds: restored.seconds.map(|(_, after)| after),
            notes: &restored.notes,
            not_carried: &restored.not_carried,
            failed: &restored.failed,
            failed_count: failures,
            elapsed_seconds: elapsed.as_secs_f64(),
        }));
    }
    if failures == 0 {
        let hashed = restored.hashed.as_ref().map(|hashed| format!("; {}", hashed.in_words(tables))).unwrap_or_default();
        let (tables, rows) = (units::plural(tables, "table"), units::plural(rows, "row"));
        return print(&format!(
            "{name} is restored into {into}: {tables}, {rows}, each table counted{hashed}{}\n",
            how(restored)
        ));
    }
    print(&format!("{name} is restored into {into}, except for {}:\n", units::plural(failures, "statement")))?;
    for (number, said) in restored.failed.iter().enumerate() {
        print(&format!("{}. {said}\n", number + 1))?;
    }
    if failures > restored.failed.len() as u64 {
        print(&format!("and {} more\n", units::count(failures - restored.failed.len() as u64)))?;
    }
    Ok(())
}

/// Says how several sessions restored; nothing of one.
fn how(restored: &Restored) -> String {
    let Some(sessions) = restored.sessions.filter(|sessions| *sessions > 1) else { return String::new() };
    let words = |seconds: f64| units::duration(Duration::from_secs_f64(seconds));
    let times = restored.seconds.map(|(rows, after)| format!(": rows in {}, the rest in {}", words(rows), words(after)));
    format!("; by {sessions} sessions{}", times.unwrap_or_default())
}

/// Adds advice: which option names another encoding or locale, or that the server refused the given ones.
fn with_another_locale(error: anyhow::Error, encoding: Option<&str>, locale: Option<&str>) -> anyhow::Error {
    if error.downcast_ref::<LocaleRefused>().is_none() {
        return error;
    }
    let advice = match (encoding, locale) {
        (None, None) => "they are the source's; choose others: --locale C.UTF-8, or --encoding and --locale",
        (Some(_), None) => "the locale is the source's, and does not fit --encoding: choose one that does, such as --locale C",
        (None, Some(_)) => {
            "the encoding is the source's: the server lacks that --locale, or lacks it for this encoding (pg_collation lists locales)"
        }
        (Some(_), Some(_)) => "the server lacks one of them, or their combination (pg_collation lists locales)",
    };
    anyhow::anyhow!("{}; {advice}", failure::in_a_line(&error))
}
