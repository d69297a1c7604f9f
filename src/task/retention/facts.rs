//! Properties of a table, and which of them prevent a run from deleting anything.

use anyhow::{Context as _, Result};
use sqlx::PgConnection;

use super::keys::Retention;
use crate::base::fault::{Fault, Kind};
use crate::pg::{identifier, qualified};

#[derive(Clone, Debug, sqlx::FromRow)]
pub struct Facts {
    pub oid: i64,
    pub schema: String,
    pub name: String,
    pub kind: String,
    pub rows: f64,
    pub blocks: i64,
    pub bytes: i64,
    /// The type under all domains.
    pub column_type: Option<String>,
    pub index: Option<String>,
    can_select: bool,
    can_delete: bool,
    can_update: bool,
    row_security: bool,
    /// For display.
    pub triggers: Vec<String>,
    /// Triggers and rules that fire when rows are deleted, and not when the table is dropped.
    pub on_delete: Vec<String>,
    unpublishable: bool,
    /// Publications with `publish = delete` for the table or for one above or below it.
    pub publications: Vec<String>,
}

impl Facts {
    pub async fn read(connection: &mut PgConnection, oid: i64, column: &str) -> Result<Self> {
        sqlx::query_as(include_str!("facts.sql"))
            .bind(oid)
            .bind(column)
            .fetch_optional(connection)
            .await?
            .context("the table was dropped just now")
    }

    /// Returns whether queries of this role see only some of the rows.
    pub fn hides_rows(&self) -> bool {
        self.row_security
    }

    pub fn sql(&self) -> String {
        qualified(&self.schema, &self.name)
    }

    pub fn refuse(&self, retention: &Retention) -> Result<()> {
        self.refuse_table()?;
        if self.column_type.is_none() {
            return Err(refused(format!("{} has no column {}", self.sql(), identifier(&retention.column))));
        }
        Ok(())
    }

    /// Refuses in case of doubt, so that nothing is deleted.
    pub fn refuse_table(&self) -> Result<()> {
        let table = self.sql();
        if !matches!(self.kind.as_str(), "r" | "p") {
            return Err(refused(format!("{table} is not a table")));
        }
        let missing: Vec<&str> = [("SELECT", self.can_select), ("DELETE", self.can_delete), ("UPDATE", self.can_update)]
            .into_iter()
            .filter_map(|(privilege, has)| (!has).then_some(privilege))
            .collect();
        if !missing.is_empty() {
            let message = format!(
                "the role lacks the {0} privilege on {table} (rows are locked before they are deleted): GRANT {0} ON {table} TO the role",
                missing.join(", ")
            );
            return Err(Fault::new(Kind::Permission, message).into());
        }
        if self.row_security {
            let message = format!(
                "row security hides rows of {table} from the role, so that some old rows would stay: connect as the table's owner or as a role with BYPASSRLS"
            );
            return Err(Fault::new(Kind::Permission, message).into());
        }
        if self.unpublishable {
            return Err(refused(format!(
                "{table} publishes its deletes and has no replica identity, so that PostgreSQL refuses to delete: ALTER TABLE {table} REPLICA IDENTITY …"
            )));
        }
        Ok(())
    }
}

pub fn refused(message: String) -> anyhow::Error {
    Fault::new(Kind::Configuration, message).into()
}
