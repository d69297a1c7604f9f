//! Names of what stands in the database.

/// Endings of their names.
pub const FUNCTIONS: [&str; 6] = ["huffman", "inflate", "gunzip", "own", "write", "guard"];

/// Last of all triggers of a row, by their names: nobody sets the text after them.
pub const GUARDS: [&str; 2] = ["zz_pgtend_one_form", "zz_pgtend_unseen_text"];

pub const WRITE: &str = "pgtend_write";

/// Holds while a table is made plain again ([`super::undo`]).
pub const PLAIN: &str = "pgtend_plain";

/// Says that a table has companion columns, and holds that each body has one form.
pub const CONSTRAINT: &str = "pgtend_one_form";
