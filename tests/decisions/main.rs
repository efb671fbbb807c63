//! Decisions, without a server: what is asked, what the policies say, and what goes over the wire.
//! `tests/README.md` says which kind of test belongs where.

#![expect(clippy::string_slice, reason = "a test that panics has found something")]

#[cfg(test)]
mod a2a;
#[cfg(test)]
mod bodies;
#[cfg(test)]
mod bundles;
#[cfg(test)]
mod cases;
#[cfg(test)]
mod check;
#[cfg(test)]
mod comparison;
#[cfg(test)]
mod documents;
#[cfg(test)]
mod engine;
#[cfg(test)]
mod entities;
#[cfg(test)]
mod generated;
#[cfg(test)]
mod laws;
#[cfg(test)]
mod matrix;
#[cfg(test)]
mod mesh;
#[cfg(test)]
mod moving;
#[cfg(test)]
mod policies;
#[cfg(test)]
mod records;
#[cfg(test)]
mod redaction;
#[cfg(test)]
mod support;
#[cfg(test)]
mod tidy;
#[cfg(test)]
mod tokens;
#[cfg(test)]
mod tools;
#[cfg(test)]
mod wire;
