//! Where one stands, as text for a terminal.

use chrono::{DateTime, Utc};

use crate::base::terminal;
use crate::base::units;
use crate::cli::output::table;
use crate::run::notify::untold;
use crate::run::standing::{Backup, Configured, Standing, Step, fleets};

/// More lines of a kind than this are counted only.
const LISTED: usize = 20;
/// Of a job that cannot run, it is said on so few databases how it stands.
const STANDS: usize = 3;

impl Standing {
    pub fn in_words(&self, now: DateTime<Utc>) -> String {
        let mut text = match self.configured {
            Configured::No => format!("There is no configuration: no {}, and none in /etc/pgtend.\n", self.file),
            Configured::WithMistakes(count) => format!("{} and its jobs have {}.\n", self.file, units::plural(count, "mistake")),
            Configured::Yes { stores, jobs } => format!(
                "{}: {}{}, {}, {}\n",
                self.file,
                if self.servers == 0 { String::new() } else { units::plural(self.servers, "server") + ", " },
                units::plural(self.databases.len(), "database"),
                units::plural(stores, "store"),
                units::plural(jobs, "job")
            ),
        };
        if !self.databases.is_empty() {
            let rows = self.databases.iter().map(|database| {
                vec![
                    line(&database.name),
                    line(&self.backup_in_words(database, now)),
                    database.backup.as_ref().map_or_else(|_| String::new(), set_of),
                ]
            });
            text += &format!("\n{}", table(&["DATABASE", "LAST PROVED BACKUP", "SET"], rows));
        }
        let of_servers = fleets::of_servers(self.uncovered_in_words(now), &self.left_out, &self.gone);
        let many: Vec<String> = self.fleets.iter().map(|fleet| fleet.line(now)).chain(of_servers).collect();
        text += &section("On many databases:", many.into_iter());
        let skipped = self.broken.iter().map(|job| {
            let own = self.stands.iter().filter(|(of, _)| of == job).map(|(_, said)| said.as_str()).take(STANDS);
            [job.as_str()].into_iter().chain(own).collect::<Vec<_>>().join(": ")
        });
        text += &section("Skipped, with mistakes in their files:", skipped);
        text += &section("Late:", self.late.iter().map(|late| late.in_words(now)));
        text += &section("Failed last:", self.failed.iter().map(|failed| failed.in_words(now)));
        let untold = self.untold.iter().map(|untold| format!("{}: {}", untold::about(untold), untold::in_words(untold)));
        text += &section("Messages that nobody got:", untold);
        text += &section("Without an answer:", self.unread.iter().map(|unread| unread.why.clone()));
        let Step { command, why } = self.next();
        text + &format!("\nNext: {command}    # {why}\n")
    }
}

fn set_of(backup: &Option<Backup>) -> String {
    backup.as_ref().map_or_else(String::new, |backup| format!("{} in {}", backup.set, backup.store))
}

fn section(heading: &str, lines: impl ExactSizeIterator<Item = String>) -> String {
    let count = lines.len();
    if count == 0 {
        return String::new();
    }
    let more =
        count.checked_sub(LISTED).filter(|more| *more > 0).map(|more| format!("  … and {more} more\n")).unwrap_or_default();
    let listed: String = lines.take(LISTED).map(|text| format!("  {}\n", line(&text))).collect();
    format!("\n{heading}\n{listed}{more}")
}

fn line(text: &str) -> String {
    terminal::in_one_line(text).into_owned()
}
