//! The format of dumps and archives: one ordinary gzip or zstd file of independent members, encrypted where the store says so, and the proofs
//! of its bytes.

pub mod blocks;
pub mod compress;
pub mod decode;
pub mod decrypt;
pub mod encrypt;
pub mod encryption;
pub mod index;
pub mod opened;
pub mod sealed;
