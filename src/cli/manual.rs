//! Manual pages: what clap knows of a command, its examples, and the files and variables of every command.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::Command;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

use super::output::print;

const EXAMPLES: &str = "Examples:\n";

const FILES: [(&str, &str); 7] = [
    ("config.toml", "the configuration, where pgtend is called; --config names another one"),
    ("/etc/pgtend/config.toml", "the configuration, where there is none of the first kind"),
    ("jobs/NAME.toml", "the job NAME, in a folder beside the configuration; --jobs names another folder"),
    ("~/.pgpass", "passwords, as psql reads them"),
    ("~/.pg_service.conf", "services, as psql reads them"),
    ("~/.postgresql/", "certificates and keys for connections, as psql reads them"),
    ("~/.aws/", "profiles with credentials for S3"),
];

const ENVIRONMENT: [(&str, &str); 10] = [
    ("PGTEND_CONFIG", "as --config"),
    ("PGTEND_JOBS", "as --jobs"),
    ("PGTEND_LOG", "as --log"),
    ("PGTEND_LOG_FORMAT", "as --log-format"),
    ("NO_COLOR", "with any value: no colours"),
    (
        "PGHOST, PGPORT, PGUSER, PGDATABASE, PGPASSWORD, PGPASSFILE, PGSERVICE, PGSERVICEFILE, PGSSLMODE, …",
        "as for psql: what a URL does not say",
    ),
    ("AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_PROFILE, AWS_REGION, …", "credentials for S3, by the chain of the AWS SDK"),
    ("AZURE_STORAGE_ACCOUNT_KEY, GOOGLE_APPLICATION_CREDENTIALS, …", "credentials for Azure and Google"),
    ("OTEL_EXPORTER_OTLP_ENDPOINT", "where traces go"),
    ("TMPDIR", "temporary files"),
];

/// Prints the page of `pgtend`, or writes that of each command to a folder.
pub fn pages(mut command: Command, folder: Option<&Path>) -> Result<ExitCode> {
    command.build();
    match folder {
        Some(folder) => {
            std::fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
            write_all(&command, folder)?;
        }
        None => {
            let mut text = Vec::new();
            page(&command, &mut text)?;
            print(&String::from_utf8(text)?)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn write_all(command: &Command, folder: &Path) -> Result<()> {
    for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
        write_all(sub, folder)?;
    }
    let path = folder.join(Man::new(command.clone()).get_filename());
    let write = || -> Result<()> {
        let mut file = File::create(&path)?;
        page(command, &mut file)?;
        Ok(file.flush()?)
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

fn page(command: &Command, out: &mut dyn Write) -> Result<()> {
    let man = Man::new(command.clone());
    man.render_title(out)?;
    man.render_name_section(out)?;
    man.render_synopsis_section(out)?;
    man.render_description_section(out)?;
    man.render_options_section(out)?;
    if command.has_subcommands() {
        man.render_subcommands_section(out)?;
    }
    let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    let (examples, notes) = examples_and_notes(&help);
    let mut roff = Roff::default();
    if !examples.is_empty() {
        roff.control("SH", ["EXAMPLES"]);
        roff.control("nf", []);
        for line in examples.lines() {
            roff.text([roman(line.trim_start())]);
        }
        roff.control("fi", []);
    }
    list(&mut roff, "FILES", &FILES);
    list(&mut roff, "ENVIRONMENT", &ENVIRONMENT);
    if !notes.is_empty() {
        roff.control("SH", ["NOTES"]);
        for line in notes.lines() {
            roff.text([roman(line)]);
        }
    }
    roff.to_writer(out)?;
    if command.get_version().is_some() {
        man.render_version_section(out)?;
    }
    Ok(())
}

/// Takes the text below a command's options apart: the lines of its examples, and what else is said there.
pub fn examples_and_notes(help: &str) -> (&str, &str) {
    match help.split_once(EXAMPLES) {
        Some((_, after)) => after.split_once("\n\n").unwrap_or((after, "")),
        None => ("", help),
    }
}

fn list(roff: &mut Roff, heading: &str, entries: &[(&str, &str)]) {
    roff.control("SH", [heading]);
    for (name, said) in entries {
        roff.control("TP", []);
        roff.text([bold(*name)]);
        roff.text([roman(*said)]);
    }
}
