//! `pgtend backups restore`.

use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::Args;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::{Filter, Which, find, or_cancelled, settings_of, tools_for};
use crate::cli::Global;
use crate::cli::output::print;
use crate::task::backup::{new_database, scratch};
use crate::units;

#[derive(Debug, Args)]
pub struct Arguments {
    /// DATABASE/JOB/TIME as listed, TIME alone, or `latest` (the newest that is not damaged, partial or from after now)
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
}

pub async fn run(global: &Global, arguments: &Arguments, cancel: &CancellationToken) -> Result<ExitCode> {
    let Arguments { set: wanted, filter, which, into, create, create_roles, encoding, locale } = arguments;
    let (create, create_roles) = (*create, *create_roles);
    let config = global.load_config()?;
    let settings = settings_of(&config, into)?;
    let found = or_cancelled(cancel, find(&config, wanted, filter, &which.choice())).await?;
    let (set, manifest) = (&found.set, &found.set.manifest);
    let like = manifest.server.database.clone().with_locale(encoding.as_deref(), locale.as_deref());
    let prepared = async {
        let mut connection = if create {
            scratch::maintenance_connection(&settings).await?
        } else {
            settings.connect().await.context("--create makes a database that does not exist")?
        };
        let tools = tools_for(&config, &mut connection).await?;
        let lacks = new_database::prepare_server(&mut connection, set, create_roles, create.then_some(&like)).await?;
        Ok((tools, lacks))
    };
    let (tools, lacks) = or_cancelled(cancel, prepared).await?;
    for note in &lacks.notes {
        tracing::warn!("{note}");
    }
    if !lacks.roles.is_empty() {
        tracing::warn!("made without login: {}", lacks.roles.join(", "));
    }

    let phase = global.progress().phase("restore", Some(manifest.dump.bytes));
    let restored = if create {
        new_database::into_new_database(&found.store, set, &like, &settings, &tools, &phase, cancel).await?
    } else {
        // psql is killed with its group, and the transaction rolls back.
        or_cancelled(cancel, new_database::into_empty_database(&found.store, set, &settings, &tools, &phase)).await?
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
    phase.done(&format!("{} from {}", settings.display(), set.name));
    let (tables, rows) = (manifest.tables.len() as u64, manifest.rows());
    if global.json {
        print(&format!(
            "{:#}\n",
            json!({ "set": set.name.to_string(), "into": settings.display(), "tables": tables, "rows": rows, "elapsed_seconds": phase.elapsed().as_secs_f64() })
        ))?;
    } else {
        print(&format!(
            "{} is restored into {}: {} tables, {} rows, each table counted\n",
            set.name,
            settings.display(),
            units::count(tables),
            units::count(rows)
        ))?;
    }
    anyhow::ensure!(
        restored.not_carried.is_empty(),
        "{} is restored, but not all properties of the database: {}",
        settings.display(),
        restored.not_carried.join("; ")
    );
    Ok(ExitCode::SUCCESS)
}
