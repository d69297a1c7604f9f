//! `notify` sends a test message to a place of the configuration, or the digest now.

use std::process::ExitCode;

use anyhow::Result;
use clap::Subcommand;
use serde::Serialize;

use super::digest;
use super::global::Global;
use super::output::{print, print_json};
use super::outputs::runs::{Digest, Sent};
use crate::base::fault::{Fault, Kind};
use crate::base::toml_file::did_you_mean;
use crate::config::Config;
use crate::run::notify;

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Send a test message, and print what the service answered
    #[command(
        after_help = "Examples:\n  pgtend notify test ops          the place [notify.ops]\n  pgtend notify test webhook      the receiver of `webhook_url`"
    )]
    Test {
        /// The place: NAME of [notify.NAME]
        name: String,
    },
    /// Print the digest as it is now, or send it
    #[command(
        after_help = "Examples:\n  pgtend notify digest            print it\n  pgtend notify digest ops        send it to [notify.ops]: for a timer, where no `serve` runs"
    )]
    Digest {
        /// Send it to this place: NAME of [notify.NAME]
        name: Option<String>,
    },
}

pub async fn run(global: &Global, command: &Command) -> Result<ExitCode> {
    let config = global.load_config()?;
    match command {
        Command::Test { name } => {
            ensure_known(&config, name)?;
            let answer = notify::test(&config, name).await?;
            show(global, &Sent { name, answer: &answer }, &sent(name, &answer))
        }
        Command::Digest { name: Some(name) } => {
            ensure_known(&config, name)?;
            let answer = notify::send_now(&config, name, &digest::now(global).await?).await?;
            show(global, &Digest::Sent(Sent { name, answer: &answer }), &sent(name, &answer))
        }
        Command::Digest { name: None } => {
            let message = digest::now(global).await?;
            show(global, &Digest::Now(&message), &message.text())
        }
    }
}

fn show(global: &Global, document: &impl Serialize, words: &str) -> Result<ExitCode> {
    match global.json {
        true => print_json(document)?,
        false => print(&format!("{words}\n"))?,
    }
    Ok(ExitCode::SUCCESS)
}

fn sent(name: &str, answer: &str) -> String {
    format!("sent to {name}; it answered: {answer}")
}

fn ensure_known(config: &Config, name: &str) -> Result<()> {
    if config.notify.has(name) {
        return Ok(());
    }
    let known: Vec<&str> = config.notify.names().collect();
    let hint = did_you_mean(name, known.iter().copied()).unwrap_or_else(|| match known.is_empty() {
        true => "add [notify.NAME] with kind = \"slack\" and url_file = \"/path\"".to_owned(),
        false => format!("there are: {}", known.join(", ")),
    });
    Err(Fault::new(Kind::Configuration, format!("{} has no [notify.{name}]; {hint}", config.path.display())).into())
}
