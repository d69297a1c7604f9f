//! Second readers, for the targets to compare with: each as plain as can be, after PostgreSQL's own source, and without a line of
//! pgtend's. And `restore`, which is what they are compared with.

pub mod memory;
pub mod psql;
pub mod restore;
pub mod scan;
pub mod server;
