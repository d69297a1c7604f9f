//! The context that deleting works in.

use super::keys::Retention;
use super::plan::{Part, Plan};
use crate::archive::Archive;
use crate::base::progress::Phase;
use crate::work::RunContext;

pub struct Work<'a> {
    pub retention: &'a Retention,
    pub plan: &'a Plan,
    pub part: &'a Part,
    pub archive: Option<&'a Archive>,
    pub run: &'a RunContext<'a>,
    pub phase: &'a Phase,
}
