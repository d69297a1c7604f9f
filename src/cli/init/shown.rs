//! What `init` says: what it found, what it writes, what is left to do.

use std::path::Path;

use anyhow::Result;

use super::decide::LeftOut;
use super::facts::{Contents, Server, ShownDatabase};
use super::names::remark;
use super::write::NewFile;
use crate::base::units;
use crate::cli::global::Global;
use crate::cli::output::{print, print_json, table};
use crate::cli::outputs::before_runs as printed;
use crate::pg::failure;

#[derive(Debug, Default)]
pub struct Shown {
    /// What was looked at.
    about: String,
    pub databases: Vec<ShownDatabase>,
    /// Other programs that do some of this already.
    pub runs_already: Vec<String>,
    pub left_out: Vec<LeftOut>,
    /// Databases that could not be looked at.
    not_seen: Vec<String>,
    /// What has to be done before the first run.
    pub to_do: Vec<String>,
    /// Lines for a configuration that is there.
    pub to_add: Option<String>,
    pub next: Vec<String>,
}

/// Names what pg_cron and pg_partman do in a database.
pub fn runs_in(name: &str, contents: &Contents) -> Vec<String> {
    let mut runs = match &contents.cron {
        None => vec![format!("pg_cron in {name}, whose jobs this role may not read")],
        Some(jobs) => jobs.iter().map(|job| format!("pg_cron in {name}: {}: {}", job.schedule, remark(&job.command))).collect(),
    };
    match &contents.partman {
        None => runs.push(format!("pg_partman in {name}, whose table part_config this role may not read")),
        Some(parents) if !parents.is_empty() => runs.push(format!("pg_partman in {name}: partitions of {}", parents.join(", "))),
        Some(_) => {}
    }
    runs
}

impl Shown {
    pub fn of(server: &Server) -> Self {
        let archiving = server.archiving.as_ref().map(|tool| {
            format!("the server archives its WAL with {tool}: point-in-time recovery is its work, and these dumps are beside it")
        });
        Self {
            about: format!("PostgreSQL {} at {}", server.version, server.place),
            runs_already: archiving.into_iter().collect(),
            ..Self::default()
        }
    }

    pub fn of_configuration(path: &Path) -> Self {
        Self { about: format!("{} is there and stays as it is", path.display()), ..Self::default() }
    }

    /// Says which databases of the server have no part in what is written, where all of them were meant.
    pub fn left_out_of(&mut self, server: &Server) {
        for (name, why) in &server.left_out {
            self.left_out.push(LeftOut { what: format!("database {name}"), why: (*why).to_owned() });
            self.to_do.push(format!(
                "no job backs up database {name}: {why}. Where it matters, change that, and run `pgtend init` again"
            ));
        }
    }

    /// Keeps in mind that a database could not be looked at.
    pub fn not_seen(&mut self, name: &str, error: &anyhow::Error) {
        let why = format!("it could not be looked at: {}", failure::in_a_line(error));
        self.left_out.push(LeftOut { what: format!("jobs for tables of {name}"), why });
        self.not_seen.push(name.to_owned());
    }

    /// Says what was found, and what would be written.
    pub fn say_before(&self, global: &Global, files: &[NewFile], is_dry_run: bool) -> Result<()> {
        if global.json {
            return Ok(());
        }
        print(&format!("{}\n", remark(&self.about)))?;
        let row = |database: &ShownDatabase| {
            let size = database.size_bytes.map(units::bytes).unwrap_or_default();
            vec![String::new(), remark(&database.name), size, remark(&database.extensions.join(", "))]
        };
        print(&rows(self.databases.iter().map(row)))?;
        self.section("Runs there already:", self.runs_already.iter().cloned())?;
        if is_dry_run {
            for file in files {
                print(&format!(
                    "\n==> {} <==\n{}",
                    file.path.display(),
                    if is_a_schema(file) { "(for editors; see `pgtend schema`)\n" } else { &file.text }
                ))?;
            }
        } else if !files.is_empty() {
            print("\nFiles:\n")?;
            let row = |file: &NewFile| vec![String::new(), remark(&file.path.display().to_string()), remark(&file.about)];
            print(&rows(files.iter().map(row)))?;
        }
        self.section("Left out:", self.left_out.iter().map(|left| format!("{}: {}", left.what, left.why)))
    }

    /// Says what was done, and what comes next.
    pub fn say_after(&self, global: &Global, files: &[NewFile], is_written: bool) -> Result<()> {
        if global.json {
            return print_json(&self.as_json(files, is_written));
        }
        let said = match (is_written, files.is_empty()) {
            (_, true) if !self.not_seen.is_empty() => {
                format!("There is nothing to write; {} could not be looked at.", remark(&self.not_seen.join(", ")))
            }
            (_, true) => "There is nothing to write: every job that fits is there.".to_owned(),
            (true, false) => "All of these files are written.".to_owned(),
            (false, false) => "Nothing was written (--dry-run).".to_owned(),
        };
        print(&format!("\n{said}\n"))?;
        if let Some(lines) = &self.to_add {
            print(&format!("\nThe configuration does not have this database:\n{lines}"))?;
        }
        self.section("Before the first run:", self.to_do.iter().cloned())?;
        self.section("Next:", self.next.iter().cloned())
    }

    fn as_json<'a>(&'a self, files: &'a [NewFile], is_written: bool) -> printed::Init<'a> {
        let file =
            |file: &'a NewFile| printed::NewFile { path: file.path.display().to_string(), about: &file.about, text: &file.text };
        printed::Init {
            about: &self.about,
            databases: &self.databases,
            runs_already: &self.runs_already,
            written: is_written,
            files: files.iter().map(file).collect(),
            left_out: &self.left_out,
            to_add: self.to_add.as_deref(),
            to_do: &self.to_do,
            next: &self.next,
        }
    }

    fn section(&self, heading: &str, lines: impl Iterator<Item = String>) -> Result<()> {
        let lines: String = lines.map(|line| format!("  {}\n", remark(&line))).collect();
        if lines.is_empty() { Ok(()) } else { print(&format!("\n{heading}\n{lines}")) }
    }
}

fn is_a_schema(file: &NewFile) -> bool {
    file.path.extension().is_some_and(|extension| extension == "json")
}

/// Rows of a table without headings.
fn rows(rows: impl Iterator<Item = Vec<String>>) -> String {
    let rows: Vec<Vec<String>> = rows.collect();
    let headings = vec![""; rows.first().map_or(0, Vec::len)];
    if rows.is_empty() { String::new() } else { table(&headings, rows.into_iter()).trim_start_matches('\n').to_owned() }
}
