//! What tasks ask about the other jobs of the configuration.

/// A job, as the tasks of others see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Other {
    pub name: String,
    pub databases: Vec<String>,
    pub enabled: bool,
    pub does: Does,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Does {
    /// Sets of dumps in this store of the configuration.
    Backup { store: String },
    /// Old partitions of the table go.
    Partition { table: String },
    /// Old rows of the table go.
    Retention { table: String },
    /// Values of the column are compressed.
    Compress { table: String, column: String },
    /// Nothing that a task asks about.
    Else,
}

impl Other {
    pub fn runs_on(&self, database: &str) -> bool {
        self.databases.iter().any(|name| name == database)
    }
}
