//! A transparency log, as data: hashes, proofs, tiles and signed checkpoints. Nothing here reads or writes a file.
//!
//! What is here follows RFC 6962 (section 2.1: the Merkle tree) and the C2SP specifications tlog-tiles, tlog-checkpoint,
//! signed-note and tlog-proof. What is not: cosignatures and witnesses, pruning, any kind of signature but Ed25519.

pub mod checkpoint;
pub mod merkle;
pub mod note;
pub mod proof;
pub mod tile;
