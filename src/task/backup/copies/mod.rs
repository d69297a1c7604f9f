//! Sets in several stores. A run writes one dump to all stores of its job at once (`fan_out`, `patience`, `target`); what a store lacks is copied later,
//! object by object (`copy`, `pass`, `place`), also for other recipients (`anew`) in the place of a copy for others (`replace`), by a person or by the next run (`lacks`, `mend`), and no other store deletes it before (`needs`). Each store has its own manifest, verdicts and rules; a hold is
//! of all copies (`holds`), and so is what one of them was refused for (`together`, `known`, `proof`, `doubts`).

mod anew;
pub mod copy;
pub mod copy_plan;
pub mod doubts;
pub mod fan_out;
pub mod holds;
pub mod known;
pub mod lacks;
pub mod mend;
pub mod needs;
mod pass;
mod patience;
pub mod place;
pub mod proof;
mod replace;
pub mod several;
pub mod target;
pub mod together;
