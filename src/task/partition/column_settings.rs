//! Statistics settings of columns, which LIKE does not copy: targets, and options such as `n_distinct`.

use anyhow::Result;
use sqlx::PgConnection;

use crate::pg::{identifier, literal};

/// The settings of one column.
#[derive(sqlx::FromRow)]
pub struct ColumnSetting {
    pub column: String,
    pub target: Option<i32>,
    /// `n_distinct=…`.
    pub options: Vec<String>,
}

impl ColumnSetting {
    /// Returns what follows ALTER TABLE ….
    pub fn changes(&self) -> Vec<String> {
        let column = identifier(&self.column);
        let target = self.target.map(|target| format!("ALTER COLUMN {column} SET STATISTICS {target}"));
        let mut changes: Vec<String> = target.into_iter().collect();
        for (name, value) in self.options.iter().filter_map(|option| option.split_once('=')) {
            changes.push(format!("ALTER COLUMN {column} SET ({} = {})", identifier(name), literal(value)));
        }
        changes
    }

    pub fn statements(&self, table: &str) -> Vec<String> {
        self.changes().into_iter().map(|change| format!("ALTER TABLE {table} {change}")).collect()
    }

    /// Returns statements that reset the settings.
    pub fn reset(&self, table: &str) -> Vec<String> {
        let column = identifier(&self.column);
        let options = self.options.iter().filter_map(|option| option.split_once('='));
        let options: Vec<String> = options.map(|(name, _)| identifier(name)).collect();
        let target = self.target.map(|_| format!("ALTER TABLE {table} ALTER COLUMN {column} SET STATISTICS -1"));
        let mut statements: Vec<String> = target.into_iter().collect();
        if !options.is_empty() {
            statements.push(format!("ALTER TABLE {table} ALTER COLUMN {column} RESET ({})", options.join(", ")));
        }
        statements
    }
}

/// Reads the settings of the columns that have any.
pub async fn read(connection: &mut PgConnection, table: i64) -> Result<Vec<ColumnSetting>> {
    // No target is -1 before 17, and NULL since.
    Ok(sqlx::query_as(
        "SELECT attname::text AS column, nullif(attstattarget::int, -1) AS target, coalesce(attoptions, '{}') AS options FROM pg_attribute
         WHERE attrelid = $1::bigint::oid AND attnum > 0 AND NOT attisdropped AND (nullif(attstattarget::int, -1) IS NOT NULL OR attoptions IS NOT NULL) ORDER BY attnum",
    )
    .bind(table)
    .fetch_all(connection)
    .await?)
}

/// Reads only the targets: options of a partitioned table's columns apply to the whole table, and its n_distinct is not that of a
/// partition.
pub async fn targets(connection: &mut PgConnection, table: i64) -> Result<Vec<ColumnSetting>> {
    let mut settings = read(connection, table).await?;
    settings.iter_mut().for_each(|setting| setting.options.clear());
    Ok(settings)
}
