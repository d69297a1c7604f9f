//! The files that `init` writes, as text: pure.

use chrono::NaiveTime;

use super::decide::{Does, Proposal};
use super::names::{key, quoted, remark};
use super::propose::ALL;
use crate::base::shell::word;
use crate::base::units;

/// What the person chose.
#[derive(Clone, Debug)]
pub struct Choices {
    /// The store's name in the configuration.
    pub store: String,
    /// When backups begin.
    pub at: NaiveTime,
    pub timezone: chrono_tz::Tz,
}

/// An entry of `[databases]`.
#[derive(Clone, Debug)]
pub struct DatabaseEntry {
    /// The name in the configuration.
    pub name: String,
    /// The line that says where it is.
    pub connection: String,
    /// The name on the server, where it is another one, with size and extensions.
    pub remark: String,
}

/// An entry of `[servers]`.
#[derive(Clone, Debug)]
pub struct ServerEntry {
    pub name: String,
    /// The line that says where it is.
    pub connection: String,
    /// A database that gets no jobs.
    pub exclude: Option<String>,
}

/// The only store of a new configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NewStore {
    Dir(String),
    S3 { bucket: String, prefix: String, region: Option<String>, endpoint: Option<String> },
}

impl NewStore {
    pub fn name(&self) -> &'static str {
        match self {
            Self::Dir(_) => "local",
            Self::S3 { .. } => "s3",
        }
    }
}

/// Everything that a new config.toml says.
pub struct NewConfig<'a> {
    pub schema: String,
    pub server: String,
    pub of_server: Option<&'a ServerEntry>,
    pub databases: &'a [DatabaseEntry],
    pub store: &'a NewStore,
    pub bin_dir: Option<&'a str>,
    /// The database of the ledger, or why there is none.
    pub ledger: Result<&'a str, &'a str>,
}

impl NewConfig<'_> {
    pub fn text(&self) -> String {
        let mut text = format!(
            "#:schema {}\n# Written by `pgtend init`, for {}.\n# `pgtend check` finds mistakes in this file and in the jobs.\n\n\
             # No password belongs in here: pgtend reads ~/.pgpass, PGPASSWORD and service files as psql does. In place of `url`, an entry may have\n\
             # url_env = \"VARIABLE\" or url_file = \"/run/secrets/url\".\n",
            self.schema,
            remark(&self.server)
        );
        if let Some(server) = self.of_server {
            text += &server.text();
        }
        for entry in self.databases {
            text += &entry.text();
        }
        text += &self.store_text();
        if let Some(bin_dir) = self.bin_dir {
            text += &format!(
                "\n[tools]\nbin_dir = {}    # pg_dump, pg_dumpall and psql are looked for here first\n",
                quoted(bin_dir)
            );
        }
        text += "\n# Every run is recorded here before it acts: in the schema `pgtend` of that database, made at first use.\n";
        text += &match self.ledger {
            Ok(database) => format!("[ledger]\ndatabase = {}\n", quoted(database)),
            Err(why) => format!("# {}\n# [ledger]\n# database = \"NAME\"\n", remark(why)),
        };
        text += "\n[serve]\n# Status page, metrics and health checks of `pgtend serve`. For other hosts, add a token: token_file = \"/run/secrets/token\"\n\
                 listen = \"127.0.0.1:9187\"\n";
        text += "\n# [notify]\n# webhook_url_file = \"/run/secrets/webhook\"    # gets JSON by POST when a job fails, recovers or is late\n# [notify.ops]\n# kind = \"slack\"                              # or discord, teams, telegram, ntfy, mail: docs/howto/messages.md\n# url_file = \"/run/secrets/slack-url\"\n";
        text
    }

    fn store_text(&self) -> String {
        let mut text = "\n".to_owned();
        match self.store {
            NewStore::Dir(path) => {
                text += "# Dumps hold all data. A folder on the database's own disk does not survive that disk: use another one, or a second store.\n";
                text += &format!("[stores.local]\npath = {}\n", quoted(path));
            }
            NewStore::S3 { bucket, prefix, region, endpoint } => {
                text += "# Credentials come by the AWS default chain: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile, the machine's role.\n";
                text += &format!("[stores.s3]\nbucket = {}\n", quoted(bucket));
                let optional = [
                    ("prefix", Some(prefix).filter(|prefix| !prefix.is_empty())),
                    ("region", region.as_ref()),
                    ("endpoint", endpoint.as_ref()),
                ];
                for (key, value) in optional.into_iter().filter_map(|(key, value)| Some((key, value?))) {
                    text += &format!("{key} = {}\n", quoted(value));
                }
            }
        }
        text + "# encrypt_to = [\"age1…\"]    # public keys: nobody else who reads the store reads the data\n"
    }
}

impl ServerEntry {
    fn text(&self) -> String {
        let mut text = format!(
            "\n# Its databases are found, also those that appear later: docs/howto/fleet.md\n[servers.{}]\n{}\ndatabases = \"*\"       # which of them: \"tenant_*\", or a list\n",
            key(&self.name),
            self.connection
        );
        text += &match &self.exclude {
            Some(excluded) => format!("exclude = [{}]    # it has nothing of its own\n", quoted(excluded)),
            None => "# exclude = [\"*_test\"]\n".to_owned(),
        };
        text + "max_concurrent = 2    # so many runs work on the server at once\n"
    }
}

impl DatabaseEntry {
    pub fn text(&self) -> String {
        format!("\n# {}\n[databases.{}]\n{}\n", remark(&self.remark), key(&self.name), self.connection)
    }
}

/// Returns a job's file. `schema` is the path of the JSON Schema, as the editor sees it from this file.
pub fn job(proposal: &Proposal, choices: &Choices, schema: &str) -> String {
    let Proposal { does, name, databases, why } = proposal;
    let mut text = format!("#:schema {schema}\n# {}\n", remark(&format!("{why}.")));
    for line in advice(does, name) {
        text += &format!("# {}\n", remark(&line));
    }
    let is_of_all = databases.iter().any(|name| name == ALL);
    let described = if is_of_all { format!("{{database}}: {}", description(does)) } else { description(does) };
    text += &format!("description = {}\n", quoted(&described));
    if !does.is_enabled() {
        text += "enabled = false\n";
    }
    text += &format!(
        "schedule = {}    # minute, hour, day of the month, month, day of the week\n",
        quoted(&schedule(does, choices.at))
    );
    text += &format!("timezone = {}\n", quoted(choices.timezone.name()));
    text += &match databases.as_slice() {
        [all] if is_of_all => format!(
            "databases = {}            # all that servers and entries have; \"tenant_*\" some of them\njitter = \"2h\"              # each begins at a moment of its own in these\nlate_after = \"8h\"\n",
            quoted(all)
        ),
        [one] => format!("database = {}\n", quoted(one)),
        several => format!("databases = [{}]\n", several.iter().map(|name| quoted(name)).collect::<Vec<_>>().join(", ")),
    };
    text += &format!("timeout = {}\n\n[{}]\n", quoted(timeout(does)), does.kind());
    text + &keys(does, choices)
}

/// Says how to put a job to work that changes the database.
fn advice(does: &Does, name: &str) -> Vec<String> {
    let plan = match does {
        Does::Backup { .. } => {
            return vec![format!("By hand: pgtend run-job {}; with --dry-run it says what it would do", word(name))];
        }
        Does::Audit => return vec!["It writes nothing to the database. By hand: pgtend audit --database NAME".to_owned()],
        Does::Compress { .. } => {
            return vec![
                format!("What it saves, and what readers pay for it: pgtend compress install {} --dry-run", word(name)),
                "Then, if it is worth it: the same without --dry-run, and remove the line `enabled = false`.".to_owned(),
            ];
        }
        _ => format!("What it would do now: pgtend run-job {} --dry-run", word(name)),
    };
    vec![plan, "If that is right, remove the line `enabled = false`.".to_owned()]
}

fn description(does: &Does) -> String {
    match does {
        Does::Backup { restores: true } => "Nightly backup, restored and counted".to_owned(),
        Does::Backup { restores: false } => "Nightly backup, read back".to_owned(),
        Does::Audit => "Audit of schema, indexes, capacity and security".to_owned(),
        Does::Retention { table, .. } => format!("90 days of {table}"),
        Does::Partition { table, .. } => format!("Partitions of {table} ahead of their rows"),
        Does::VectorIndex { table, column, .. } => format!("The vector index of {table}, {column}, measured"),
        Does::Compress { table, column } => format!("Large values of {table}, {column}, compressed"),
    }
}

fn schedule(does: &Does, at: NaiveTime) -> String {
    use chrono::{TimeDelta, Timelike as _};
    let (minutes_later, days) = match does {
        Does::Backup { .. } => (0, "* * *"),
        Does::Retention { .. } => (90, "* * *"),
        Does::Partition { .. } => (135, "* * *"),
        Does::VectorIndex { .. } => (120, "* * 0"),
        Does::Compress { .. } => (165, "* * 0"),
        Does::Audit => (240, "1 * *"),
    };
    // It begins again at midnight.
    let at = at + TimeDelta::minutes(minutes_later);
    format!("{} {} {days}", at.minute(), at.hour())
}

fn timeout(does: &Does) -> &'static str {
    match does {
        Does::Backup { .. } | Does::VectorIndex { .. } => "6h",
        Does::Retention { .. } | Does::Compress { .. } => "2h",
        Does::Audit | Does::Partition { .. } => "30m",
    }
}

/// The keys of the task's table.
fn keys(does: &Does, choices: &Choices) -> String {
    let store = quoted(&choices.store);
    match does {
        Does::Backup { restores } => {
            let verify = match restores {
                true => {
                    "verify = \"restore\"     # each set is restored and every row counted before it is called good; \"checksum\" only reads it back"
                }
                false => "verify = \"checksum\"    # each set is read back; \"restore\" also restores it and counts every row",
            };
            format!("store = {store}\nkeep = {{ last = 3, daily = 7, weekly = 4, monthly = 12 }}\n{verify}\n")
        }
        Does::Audit => {
            format!(
                "store = {store}            # reports as HTML, Markdown and JSON; the next audit is compared with the last\nfail_on = \"never\"          # or \"critical\", \"high\": the run fails when it finds something as bad, and you are told\n"
            )
        }
        Does::Retention { table, column } => {
            format!(
                "table = {}\ncolumn = {}\nolder_than = \"90d\"\narchive = {store}    # rows are written there and read back before they are deleted\n",
                quoted(table),
                quoted(column)
            )
        }
        Does::Partition { table, column, every } => {
            format!(
                "table = {}\ncolumn = {}\nevery = \"{every}\"\npremake = 3\n# retain = \"730d\"        # older partitions are detached, then dropped; without it, all stay\n# archive = {store}    # their rows are written there and read back first\n",
                quoted(table),
                quoted(column)
            )
        }
        Does::VectorIndex { table, column, metric } => {
            let metric = match metric {
                Some(metric) => format!("metric = \"{metric}\"          # as the index has it\n"),
                None => "metric = \"cosine\"        # or \"l2\", \"inner_product\": the one of the application's searches\n"
                    .to_owned(),
            };
            format!("table = {}\ncolumn = {}\n{metric}recall = {{ target = 0.95, k = 10 }}\n", quoted(table), quoted(column))
        }
        Does::Compress { table, column } => {
            format!(
                "table = {}\ncolumn = {}\nmethod = \"gzip\"          # behind a view of the table's name that shows text; or \"toast\": by PostgreSQL itself\n",
                quoted(table),
                quoted(column)
            )
        }
    }
}

/// Says in a line what a file is for.
pub fn in_words(proposal: &Proposal, choices: &Choices) -> String {
    let databases = match proposal.databases.as_slice() {
        [all] if all == ALL => "all databases".to_owned(),
        [one] => one.clone(),
        several if several.len() <= 4 => several.join(", "),
        several => units::plural(several.len(), "database"),
    };
    let (at, zone) = (choices.at.format("%H:%M"), choices.timezone.name());
    match &proposal.does {
        Does::Backup { restores: true } => format!("every day at {at} {zone}: a backup of {databases}, restored and counted"),
        Does::Backup { restores: false } => format!("every day at {at} {zone}: a backup of {databases}, read back"),
        Does::Audit => format!("every month: an audit of {databases}"),
        _ => format!("not enabled yet: {} ({databases})", description(&proposal.does)),
    }
}
