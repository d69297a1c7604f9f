//! The facts that tasks may ask about other configured jobs.

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
    /// It puts sets of dumps into these configured stores, the first of which is the nearest.
    Backup { stores: Vec<String> },
    /// It retires old partitions of the table.
    Partition { table: String },
    /// It deletes old rows of the table.
    Retention { table: String },
    /// It compresses values of the column.
    Compress { table: String, column: String },
    /// It does nothing that a task asks about.
    Else,
}

impl Other {
    pub fn runs_on(&self, database: &str) -> bool {
        self.databases.iter().any(|name| name == database)
    }
}
