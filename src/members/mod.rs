//! The format of dumps and archives: one ordinary gzip or zstd file of independent members, and the proofs of its bytes.

pub mod blocks;
pub mod compress;
pub mod decode;
pub mod index;
