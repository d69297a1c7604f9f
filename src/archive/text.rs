//! The text of an archive object before the rows and after them, which psql reads.

use anyhow::Result;
use bytes::Bytes;

use super::manifest::Manifest;
use crate::pg;

pub(super) const TAIL: &[u8] = b"\\.\n";

/// The preamble of manifests without a `preamble`.
const FIRST_PREAMBLE: &str =
    "-- pgtend archive\nSET client_encoding = 'UTF8';\nSET datestyle = 'ISO';\nSET intervalstyle = 'postgres';\n";

/// Returns the text before the rows, so that psql alone can put them back.
pub fn head(manifest: &Manifest) -> String {
    format!(
        "{}COPY {} {} FROM stdin;\n",
        manifest.preamble.as_deref().unwrap_or(FIRST_PREAMBLE),
        pg::qualified(&manifest.schema, &manifest.table),
        column_list(&manifest.columns)
    )
}

pub(super) fn column_list(columns: &[String]) -> String {
    format!("({})", columns.iter().map(|column| pg::identifier(column)).collect::<Vec<_>>().join(", "))
}

/// Removes the text before the rows and after them from a stream.
#[derive(Default)]
pub struct RowsOnly {
    head: Bytes,
    seen: usize,
    /// The last bytes, which may be the tail.
    held: Vec<u8>,
}

impl RowsOnly {
    pub fn of(manifest: &Manifest) -> Self {
        Self { head: head(manifest).into(), ..Self::default() }
    }

    pub fn feed(&mut self, mut bytes: &[u8]) -> std::io::Result<Bytes> {
        let of_head = (self.head.len() - self.seen).min(bytes.len());
        if bytes[..of_head] != self.head[self.seen..self.seen + of_head] {
            return Err(std::io::Error::other("it does not begin like an archive of this table"));
        }
        self.seen += of_head;
        bytes = &bytes[of_head..];
        self.held.extend_from_slice(bytes);
        let ready = self.held.len().saturating_sub(TAIL.len());
        Ok(self.held.drain(..ready).collect::<Vec<u8>>().into())
    }

    pub fn check(&self) -> Result<()> {
        anyhow::ensure!(self.seen == self.head.len() && self.held == TAIL, "its end is missing");
        Ok(())
    }
}
