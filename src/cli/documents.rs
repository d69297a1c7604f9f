//! Prints JSON Schemas: of files, and of what commands print.

use std::process::ExitCode;

use anyhow::Result;
use clap::ValueEnum;
use serde_json::{Value, json};

use super::output::print;
use super::outputs;
use crate::base::fault::{Fault, Kind};
use crate::base::toml_file::{Document as _, did_you_mean};
use crate::config;
use crate::run::job;

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Which {
    Config,
    Job,
    Output,
}

/// The schemas of files, for editors: each with its name.
pub fn schemas_of_files() -> [(&'static str, String); 2] {
    let text = |schema: &Value| format!("{schema:#}\n");
    [("config.json", text(&config::Written::known().schema)), ("job.json", text(&job::Written::known().schema))]
}

pub fn schema(which: Option<Which>, command: &[String]) -> Result<ExitCode> {
    let config = &config::Written::known().schema;
    let job = &job::Written::known().schema;
    let schema = match which {
        Some(Which::Output) => schema_of_output(&command.join(" "))?,
        _ if !command.is_empty() => {
            let message = format!("`pgtend schema` takes one word, and a command only after `output`: {}", command.join(" "));
            return Err(Fault::new(Kind::Configuration, message).into());
        }
        Some(Which::Config) => config.clone(),
        Some(Which::Job) => job.clone(),
        None => json!({ "config": config, "job": job }),
    };
    print(&format!("{schema:#}\n"))?;
    Ok(ExitCode::SUCCESS)
}

fn schema_of_output(command: &str) -> Result<Value> {
    outputs::schema(command).ok_or_else(|| {
        let names = outputs::commands().filter(|name| !name.is_empty());
        let hint = did_you_mean(command, names.clone())
            .unwrap_or_else(|| format!("these print JSON: {}", names.collect::<Vec<_>>().join(", ")));
        Fault::new(Kind::Configuration, format!("no command `{command}` prints JSON; {hint}")).into()
    })
}
