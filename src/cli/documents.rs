//! Prints what is generated from the code: JSON Schema, shell completions, manual pages.

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::ValueEnum;
use serde_json::json;

use super::output::print;
use crate::base::toml_file::Document as _;
use crate::config;
use crate::run::job;

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Which {
    Config,
    Job,
}

/// Returns one schema, as a file for editors.
pub fn schema_text(which: Which) -> Result<String> {
    let schema = match which {
        Which::Config => schemars::schema_for!(config::Written),
        Which::Job => schemars::schema_for!(job::Written),
    };
    Ok(format!("{:#}\n", json!(schema)))
}

pub fn schema(which: Option<Which>) -> Result<ExitCode> {
    let config = &config::Written::known().schema;
    let job = &job::Written::known().schema;
    let schema = match which {
        Some(Which::Config) => config.clone(),
        Some(Which::Job) => job.clone(),
        None => json!({ "config": config, "job": job }),
    };
    print(&format!("{schema:#}\n"))?;
    Ok(ExitCode::SUCCESS)
}

pub fn completions(mut command: clap::Command, shell: clap_complete::Shell) -> Result<ExitCode> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, "pgtend", &mut script);
    print(&String::from_utf8(script)?)?;
    Ok(ExitCode::SUCCESS)
}

pub fn man(command: clap::Command, folder: Option<&Path>) -> Result<ExitCode> {
    match folder {
        Some(folder) => {
            std::fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
            clap_mangen::generate_to(command, folder).with_context(|| format!("cannot write to {}", folder.display()))?;
        }
        None => {
            let mut page = Vec::new();
            clap_mangen::Man::new(command).render(&mut page)?;
            print(&String::from_utf8(page)?)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
