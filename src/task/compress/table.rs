//! The table of a job: where its values are, whether a view stands in its place, and which key identifies its rows.

use anyhow::Result;
use serde::Serialize;
use sqlx::PgConnection;

use super::names::CONSTRAINT;
use super::value::ValueType;
use crate::pg::table::{Attached, Checked};
use crate::pg::{self, identifier, literal, qualified};
use crate::work::RunContext;

/// The longest name in bytes; PostgreSQL cuts off longer ones.
const NAME_BYTES: usize = 63;

#[derive(Debug, Serialize)]
pub struct Table {
    pub oid: i64,
    pub schema: String,
    /// The name of the table that holds the rows.
    pub name: String,
    #[serde(skip)]
    pub owner: String,
    #[serde(skip)]
    pub version_num: i32,
    /// The encoding of compressed text, as convert_to takes it: the database's, unless the table was restored into a database with
    /// another encoding.
    #[serde(skip)]
    pub encoding: String,
    /// The database's encoding in that case.
    #[serde(skip)]
    pub other_encoding: Option<String>,
    #[serde(skip)]
    pub columns: Vec<Column>,
    #[serde(skip)]
    pub text_column: Column,
    pub key: Option<Key>,
    /// The view in the table's place, once it is installed.
    pub view: Option<View>,
    pub rows: u64,
    pub blocks: u64,
    pub bytes: u64,
    pub toast_bytes: u64,
    #[serde(skip)]
    pub has_row_security: bool,
    /// The job lets values have a dictionary in common.
    #[serde(skip)]
    pub may_have_dictionaries: bool,
    /// The hash of the definition at the time of the plan, which holds for this definition only.
    #[serde(skip)]
    pub definition: String,
    /// The code that the run found on the table; None before the run says so.
    #[serde(skip)]
    pub code: Option<Attached>,
}

#[derive(Clone, Debug, sqlx::FromRow)]
pub struct Column {
    pub name: String,
    /// The type with its length, as in SQL.
    pub data_type: String,
    pub is_not_null: bool,
    pub is_generated: bool,
    /// "a": GENERATED ALWAYS AS IDENTITY; "d": BY DEFAULT; empty: none.
    pub identity: String,
    pub default: Option<String>,
    /// The quoted collation, where it is not the type's.
    pub collation: Option<String>,
    /// The value of pg_attribute.attstorage.
    pub storage: String,
    /// "p" pglz, "l" lz4, empty: default_toast_compression.
    pub compression: String,
}

/// A unique index that orders the rows.
#[derive(Clone, Debug, Serialize, sqlx::FromRow)]
pub struct Key {
    pub index: String,
    pub columns: Vec<String>,
    #[serde(skip)]
    pub types: Vec<String>,
}

#[derive(Clone, Debug, Serialize)]
pub struct View {
    #[serde(skip)]
    pub oid: i64,
    pub name: String,
    /// The column was NOT NULL before.
    pub not_null: bool,
    #[serde(skip)]
    pub not_null_name: Option<String>,
    /// The constraint is validated, all triggers exist, no undo has begun, and if there are policies, those of the reader apply.
    pub is_whole: bool,
    /// The view was dropped, and the table behind it exists.
    pub is_lost: bool,
    /// The doubts that a person accepted by the installation.
    pub accepted: Vec<String>,
    /// The names of the functions with its dictionaries, the newest last; some may be gone, or were never created.
    #[serde(skip)]
    pub dictionaries: Vec<String>,
}

/// The comment that `install` writes on its constraint, as JSON.
#[derive(Debug, Serialize, serde::Deserialize)]
pub struct Mark {
    pub pgtend: u32,
    pub column: String,
    pub not_null: bool,
    /// The name of the NOT NULL constraint; it has none before PostgreSQL 18.
    pub not_null_name: Option<String>,
    /// The encoding of the database. A dump may have been restored into a database with another encoding, with the same compressed
    /// bytes.
    pub encoding: Option<String>,
    #[serde(default)]
    pub accepted: Vec<String>,
    #[serde(default)]
    pub dictionaries: Vec<String>,
}

impl Mark {
    /// Returns the statement that writes it.
    pub fn on(&self, table: &str) -> Result<String> {
        Ok(format!("COMMENT ON CONSTRAINT {CONSTRAINT} ON {table} IS {}", literal(&serde_json::to_string(self)?)))
    }
}

impl Table {
    pub fn sql(&self) -> String {
        qualified(&self.schema, &self.name)
    }

    /// Returns the table as it was found.
    pub fn checked(&self) -> Checked {
        Checked { code: self.code.clone(), ..Checked::named(self.sql(), self.oid) }
    }

    /// Notes the code that the run found on the table: batches work with no other.
    pub fn with_code_of(self, run: &RunContext<'_>) -> Self {
        Self { code: self.checked().as_in(run.checked()).code, ..self }
    }

    /// Returns the name that the application uses.
    pub fn public_name(&self) -> &str {
        self.view.as_ref().map_or(&self.name, |view| &view.name)
    }

    /// Returns the names of the functions with its dictionaries.
    pub fn dictionaries(&self) -> &[String] {
        self.view.as_ref().map(|view| view.dictionaries.as_slice()).unwrap_or_default()
    }

    pub fn view_sql(&self) -> String {
        qualified(&self.schema, self.public_name())
    }

    /// Returns the quoted name of the column with the compressed form.
    pub fn gz(&self) -> String {
        identifier(&companion(&self.text_column.name, "_gz"))
    }

    /// Returns the quoted name of the column with the SHA-256 of the text.
    pub fn hash(&self) -> String {
        identifier(&companion(&self.text_column.name, "_sha256"))
    }

    /// Returns the quoted name of the column with the text.
    pub fn content(&self) -> String {
        identifier(&self.text_column.name)
    }

    pub fn function(&self, what: &str) -> String {
        qualified(&self.schema, &companion(self.public_name(), &format!("_pgtend_{what}")))
    }

    /// Returns the type of the column's values.
    pub fn value_type(&self) -> ValueType {
        ValueType::of(&self.text_column.data_type).unwrap_or(ValueType::Text)
    }

    /// Returns an expression for the size by which values are chosen.
    pub fn size(&self) -> String {
        self.value_type().size(&self.content())
    }

    /// Returns an expression for the same value, which PostgreSQL has to compress anew.
    pub fn anew(&self, value: &str) -> String {
        self.value_type().anew(value, &self.text_column.data_type)
    }

    /// Returns an expression for bytes that differ wherever two values of the column differ.
    pub fn bytes_of_value(&self, value: &str) -> String {
        self.value_type().bytes(value, &self.encoding)
    }

    /// Returns an expression for the bytes of a text expression as they are stored.
    pub fn bytes_of(&self, text: &str) -> String {
        format!("pg_catalog.convert_to({text}, {})", pg::literal(&self.encoding))
    }

    /// Returns the columns that the application sees.
    pub fn visible(&self) -> impl Iterator<Item = &Column> {
        let hidden = [companion(&self.text_column.name, "_gz"), companion(&self.text_column.name, "_sha256")];
        let is_installed = self.view.is_some();
        self.columns.iter().filter(move |column| !is_installed || !hidden.contains(&column.name))
    }

    /// Returns an expression whose value changes whenever a column other than the compressed one does. Columns with times, like `updated_at`, do
    /// not count.
    pub fn fingerprint(&self, alias: &str) -> String {
        let others: Vec<String> = self
            .visible()
            .filter(|column| column.name != self.text_column.name && !is_time(&column.data_type))
            .map(|column| format!("{alias}.{}", identifier(&column.name)))
            .collect();
        format!("pg_catalog.encode(pg_catalog.sha256({}), 'hex')", self.bytes_of(&format!("ROW({})::text", others.join(", "))))
    }
}

fn is_time(data_type: &str) -> bool {
    !data_type.ends_with(']') && (data_type.starts_with("timestamp") || data_type == "date")
}

/// Returns `name` with an ending, cut to the longest length of a name.
pub fn companion(name: &str, ending: &str) -> String {
    let mut end = name.len().min(NAME_BYTES - ending.len());
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{ending}", &name[..end])
}

/// Sets a session up so that keys and expressions read the same for every role.
pub async fn prepare(connection: &mut PgConnection) -> Result<()> {
    for (name, value) in [
        ("DateStyle", "ISO, YMD"),
        ("IntervalStyle", "postgres"),
        ("TimeZone", "UTC"),
        ("extra_float_digits", "3"),
        ("bytea_output", "hex"),
        ("standard_conforming_strings", "on"),
        // It takes fragments as well as documents.
        ("xmloption", "content"),
        ("default_transaction_isolation", "read committed"),
        // Rows that a policy hides raise an error; otherwise they would be left out.
        ("row_security", "off"),
        // The processors are left to the application.
        ("max_parallel_workers_per_gather", "0"),
    ] {
        pg::set(connection, name, value).await?;
    }
    Ok(())
}

/// Tells whether the connection may keep the table's triggers from firing. A row that is compressed, or becomes text again, is the
/// same row to the application: no time of change moves, no audit gets an entry, and no trigger derives values from a missing text.
/// It needs a privilege of the role. A trigger that is enabled for replicas only was meant to fire in that mode, so that the mode is
/// not used then.
pub async fn silences_triggers(connection: &mut PgConnection, table: &Table) -> Result<bool> {
    let may = if table.version_num >= 150_000 {
        "has_parameter_privilege('session_replication_role', 'SET')"
    } else {
        "(SELECT rolsuper FROM pg_roles WHERE rolname = current_user)"
    };
    let sql = format!(
        "SELECT ({may} AND NOT EXISTS (SELECT FROM pg_trigger WHERE tgrelid = {}::oid AND tgenabled = 'R'))::text",
        table.oid
    );
    Ok(pg::fetch_text(connection, sql).await?.as_deref() == Some("true"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_an_ending_are_no_longer_than_postgres_allows_and_end_in_whole_characters() {
        assert_eq!(companion("content", "_gz"), "content_gz");
        let long = "ü".repeat(31);
        assert_eq!(companion(&long, "_sha256").len(), 63);
        assert!(companion(&long, "_sha256").ends_with("ü_sha256"));
    }
}
