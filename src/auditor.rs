//! Reading a log of records without trusting who keeps it: what is verified, and what is found in it.
//!
//! Nothing here knows how a log is written: files are read as the C2SP specification tlog-tiles has them, from a directory or a
//! server, and all that is believed is the verifier key. Whatever is served, memory is bounded and an error has a name.

mod bundle;
mod collect;
pub mod entry;
mod epoch;
pub mod files;
pub mod finding;
mod list;
pub mod prove;
pub mod read;
pub mod related;
pub mod select;
pub mod source;
mod tree;
pub mod verify;
pub mod web;
