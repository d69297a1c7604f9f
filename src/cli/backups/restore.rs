//! `pgtend backups restore`.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::find::{Filter, Which, find, settings_of};
use crate::base::fault::{Fault, Kind};
use crate::base::units;
use crate::cli::global::Global;
use crate::cli::output::print;
use crate::cli::signals::or_cancelled;
use crate::pg;
use crate::pg::failure;
use crate::task::backup::choices::{Choices, OnError, Without};
use crate::task::backup::scratch::LocaleRefused;
use crate::task::backup::{new_database, scratch};

#[derive(Debug, Args)]
pub struct Arguments {
    /// DATABASE/JOB/TIME as listed, TIME alone, or `latest` (the newest that is not damaged, partial or dated in the future)
    set: String,
    #[command(flatten)]
    filter: Filter,
    #[command(flatten)]
    which: Which,
    /// Where to: a URL, or a database of the configuration. No password in a URL here: arguments are readable by
    /// every user of the host; use PGPASSWORD or ~/.pgpass
    #[arg(long, value_name = "URL")]
    into: String,
    /// Make the database; it gets its name only when the restore is complete
    #[arg(long)]
    create: bool,
    /// Make the roles that the target lacks, without login
    #[arg(long)]
    create_roles: bool,
    /// With --create: the new database's encoding, in place of the source's
    #[arg(long, requires = "create")]
    encoding: Option<String>,
    /// With --create: its locale, in place of the source's: of libc, or icu:NAME, builtin:NAME
    #[arg(long, requires = "create")]
    locale: Option<String>,
    /// At a statement that the target refuses: stop, and nothing is restored; or go on, with a list of all that failed
    /// at the end, and exit code 1
    #[arg(long, value_enum, default_value = "stop")]
    on_error: OnError,
    /// Leave out a CONSTRAINT, an INDEX or an EXTENSION, with what belongs to it; again for each. NAME as in the catalog;
    /// its schema or table may stand before it (public.t_idx). A foreign key is added NOT VALID
    #[arg(long, num_args = 2, value_names = ["KIND", "NAME"], action = clap::ArgAction::Append)]
    without: Vec<String>,
    /// Restore with this search_path (`public, extensions`) in the place of pg_dump's empty one, for functions that
    /// name things without their schema
    #[arg(long, value_name = "LIST")]
    search_path: Option<String>,
    /// Everything goes to the database's own tablespace
    #[arg(long)]
    no_tablespaces: bool,
    /// Everything belongs to the role that restores
    #[arg(long)]
    no_owner: bool,
    /// A role of the source is another one here, as owner and in grants; again for each
    #[arg(long, value_name = "OLD=NEW", value_parser = role_mapping)]
    role_map: Vec<(String, String)>,
}

fn role_mapping(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((old, new)) if !old.is_empty() && !new.is_empty() => Ok((old.to_owned(), new.to_owned())),
        _ => Err("it is not OLD=NEW".to_owned()),
    }
}

impl Arguments {
    fn choices(&self) -> Result<Choices> {
        let without = self.without.chunks(2).map(|pair| match pair {
            [kind, name] => match kind.parse() {
                Ok(kind) => Ok(Without { kind, name: name.clone() }),
                Err(reason) => Err(Fault::new(Kind::Configuration, format!("--without: {reason}")).into()),
            },
            _ => Err(anyhow::anyhow!("--without takes a kind and a name")),
        });
        Ok(Choices {
            on_error: self.on_error,
            without: without.collect::<Result<_>>()?,
            search_path: self.search_path.clone(),
            no_owner: self.no_owner,
            no_tablespaces: self.no_tablespaces,
            role_map: self.role_map.clone(),
            ..Choices::default()
        })
    }
}

pub async fn run(global: &Global, arguments: &Arguments, cancel: &CancellationToken) -> Result<ExitCode> {
    let Arguments { set: wanted, filter, which, into, create, create_roles, encoding, locale, .. } = arguments;
    let choices = arguments.choices()?;
    let (create, create_roles) = (*create, *create_roles);
    let config = global.load_config()?;
    let settings = settings_of(&config, into)?;
    if into.contains("://") && !pg::Settings::names_a_database(into) {
        let message = format!(
            "--into names no database: put its name behind the host, as in {}/NAME; by libpq's rules it would be `{}`",
            into.split_once('?').map_or(into.as_str(), |(url, _)| url).trim_end_matches('/'),
            settings.database()
        );
        return Err(Fault::new(Kind::Configuration, message).into());
    }
    let found = or_cancelled(cancel, find(&config, wanted, filter, &which.choice())).await?;
    let (set, manifest) = (&found.set, &found.set.manifest);
    let prepared = async {
        let mut connection = if create {
            scratch::maintenance_connection(&settings).await?
        } else {
            settings.connect().await.map_err(|error| match pg::sql_state(&error).as_deref() {
                Some("3D000") => error.context("--create makes a database that does not exist"),
                _ => error,
            })?
        };
        let like = new_database::like(&mut connection, set, &choices, encoding.as_deref(), locale.as_deref()).await?;
        let new_database = create.then_some(&like);
        let lacks = new_database::prepare_server(&mut connection, set, &choices, create_roles, new_database).await?;
        Ok((like, lacks))
    };
    let (like, lacks) = or_cancelled(cancel, prepared).await?;
    for note in &lacks.notes {
        tracing::warn!("{note}");
    }
    if let Some(tablespace) = &manifest.server.database.tablespace
        && create
        && like.tablespace.is_none()
        && !choices.no_tablespaces
    {
        tracing::warn!(
            "the source's own tablespace, {tablespace}, is not there for this role: the new database is in the server's default one"
        );
    }
    if !lacks.roles.is_empty() {
        tracing::warn!("made without login: {}", lacks.roles.join(", "));
    }

    let phase = global.progress().phase("restore", Some(manifest.dump.bytes));
    let restored = if create {
        let made = new_database::into_new_database(&found.store, set, &like, &settings, &choices, &phase, cancel).await;
        made.map_err(|error| with_another_locale(error, encoding.as_deref(), locale.as_deref()))?
    } else {
        new_database::into_empty_database(&found.store, set, &settings, &choices, &phase, cancel).await?
    };
    anyhow::ensure!(
        restored.problems.is_empty(),
        "{} was not restored, and {} is as it was before: {}",
        set.name,
        settings.display(),
        restored.problems.join("; ")
    );
    if let Some(refusal) = restored.refusal {
        return Err(anyhow::Error::from(refusal).context(format!(
            "{} was not restored, and {} is as it was before",
            set.name,
            settings.display()
        )));
    }
    for note in &restored.notes {
        tracing::warn!("{note}");
    }
    let failures = restored.failed_count as u64;
    phase.done(&format!("{} from {}", settings.display(), set.name));
    let (tables, rows) = (manifest.tables.len() as u64, manifest.rows());
    if global.json {
        print(&format!(
            "{:#}\n",
            json!({ "set": set.name.to_string(), "into": settings.display(), "tables": tables, "rows": rows, "notes": restored.notes, "not_carried": restored.not_carried, "failed": restored.failed, "failed_count": failures, "elapsed_seconds": phase.elapsed().as_secs_f64() })
        ))?;
    } else if failures > 0 {
        print(&format!(
            "{} is restored into {}, but for {}:\n",
            set.name,
            settings.display(),
            units::plural(failures, "statement")
        ))?;
        for (number, said) in restored.failed.iter().enumerate() {
            print(&format!("{}. {said}\n", number + 1))?;
        }
        if failures > restored.failed.len() as u64 {
            print(&format!("and {} more\n", units::count(failures - restored.failed.len() as u64)))?;
        }
    } else {
        print(&format!(
            "{} is restored into {}: {}, {}, each table counted\n",
            set.name,
            settings.display(),
            units::plural(tables, "table"),
            units::plural(rows, "row")
        ))?;
    }
    anyhow::ensure!(
        restored.not_carried.is_empty(),
        "{} is restored, but not all properties of the database: {}",
        settings.display(),
        restored.not_carried.join("; ")
    );
    Ok(if failures > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Says which option names another encoding or locale, where none was given, and that those given are what the server refused.
fn with_another_locale(error: anyhow::Error, encoding: Option<&str>, locale: Option<&str>) -> anyhow::Error {
    if error.downcast_ref::<LocaleRefused>().is_none() {
        return error;
    }
    let advice = match (encoding, locale) {
        (None, None) => "they are the source's, and others may be given: --locale C.UTF-8, or --encoding and --locale",
        (Some(_), None) => {
            "the locale is the source's, and does not go with --encoding: give one that does with --locale, such as --locale C"
        }
        (None, Some(_)) => {
            "the encoding is the source's: the server does not have that --locale, or not with this encoding (pg_collation lists them)"
        }
        (Some(_), Some(_)) => "the server does not have them, or not together (pg_collation lists locales)",
    };
    anyhow::anyhow!("{}; {advice}", failure::in_a_line(&error))
}
