//! What commands print with `--json`: each document is a type, which its command prints and of which a JSON Schema is made for whoever reads it.
//!
//! A field may be added in any release; none is removed or gets another meaning without an entry in CHANGELOG.md.

pub(super) mod before_runs;
pub(super) mod common;
pub(super) mod parts_of_sets;
pub(super) mod runs;
pub(super) mod sets;

use common::{Described, Failure};
use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema};
use serde_json::Value;

use crate::ledger::Row;

/// A command, and the schema of what it prints.
type Output = (&'static str, fn() -> Schema);

/// The commands that print JSON, as they are written on a command line, each with what it prints. The first is `pgtend` alone.
const OUTPUTS: [Output; 35] = [
    ("", of::<before_runs::Standing>),
    ("init", of::<before_runs::Init>),
    ("check", of::<before_runs::Check>),
    ("doctor", of::<before_runs::Doctor>),
    ("jobs", of::<runs::Jobs>),
    ("run-job", of::<runs::Ended>),
    ("runs", of::<runs::Runs>),
    ("runs --follow", of::<Row>),
    ("runs show", of::<runs::Shown>),
    ("logs", of::<runs::Logs>),
    ("partition convert", of::<runs::Ended>),
    ("compress install", of::<runs::Ended>),
    ("compress undo", of::<runs::Ended>),
    ("backups list", of::<sets::List>),
    ("backups show", of::<sets::Show>),
    ("backups verify", of::<sets::Verify>),
    ("backups adopt", of::<sets::Adopt>),
    ("backups diff", of::<parts_of_sets::Diff>),
    ("backups certificate", of::<sets::Certificate>),
    ("backups fetch", of::<parts_of_sets::Fetch>),
    ("backups restore", of::<parts_of_sets::Restore>),
    ("backups copy", of::<sets::Copy>),
    ("backups prune", of::<sets::Prune>),
    ("backups hold", of::<sets::Held>),
    ("backups release", of::<sets::Released>),
    ("backups accept", of::<sets::Accept>),
    ("backups require", of::<sets::Require>),
    ("archives list", of::<runs::Archives>),
    ("archives restore", of::<runs::PutBack>),
    ("audit", of::<runs::Audit>),
    ("audit explain", of::<runs::Explain>),
    ("notify test", of::<runs::Sent>),
    ("notify digest", of::<runs::Digest>),
    ("schema", of::<Described>),
    ("error", of::<Failure>),
];

/// Returns the JSON Schema of what a command prints with `--json`, and "error" for what each prints that fails.
pub fn schema(command: &str) -> Option<Value> {
    let (_, schema) = OUTPUTS.iter().find(|(name, _)| *name == command)?;
    Some(schema().to_value())
}

/// Returns the commands that print JSON, and "error".
pub fn commands() -> impl Iterator<Item = &'static str> + Clone {
    OUTPUTS.iter().map(|(name, _)| *name)
}

fn of<T: JsonSchema>() -> Schema {
    // What is written may be null and is there all the same.
    SchemaSettings::draft2020_12().for_serialize().into_generator().into_root_schema_for::<T>()
}
