//! The names of pgtend's objects in the database.

use crate::pg::views;

/// The endings of the functions' names, and their arguments.
pub const FUNCTIONS: [(&str, &str); 3] = [("gunzip", "bytea, bytea, text"), ("write", ""), ("guard", "")];

/// Those that an earlier release had besides, and called by their names.
pub const FORMER_FUNCTIONS: [(&str, &str); 3] = [("huffman", "int[]"), ("inflate", "bytea"), ("own", "xid")];

/// Their names make these the last triggers of a row, so that no other trigger sets the text after them.
pub const GUARDS: [&str; 2] = ["zz_pgtend_one_form", "zz_pgtend_unseen_text"];

/// The trigger on the view.
pub const WRITE: &str = views::WRITE;

/// The constraint that keeps new compressed forms out while a table becomes plain again ([`super::undo`]).
pub const PLAIN: &str = "pgtend_plain";

/// The constraint that marks a table with companion columns, and by which each value has one form.
pub const CONSTRAINT: &str = views::ONE_FORM;
