//! Tests of the whole server: the real application on port 0 or a Unix socket, asked by a real gRPC client,
//! by HTTP/2 where a client has to misbehave, and as the real process where the process matters.
//!
//! Nothing here waits for time to pass: every wait is for an event (an answer, a metric, a line, a file)
//! and has a deadline.

#[cfg(test)]
mod answers;
#[cfg(test)]
mod auditing;
#[cfg(test)]
mod bundles;
#[cfg(test)]
mod commands;
#[cfg(test)]
mod comparison;
#[cfg(test)]
mod control;
#[cfg(test)]
mod crowd;
#[cfg(test)]
mod draining;
#[cfg(test)]
mod durability;
#[cfg(test)]
mod growth;
#[cfg(test)]
mod hostile;
#[cfg(test)]
mod logouts;
#[cfg(test)]
mod moving;
#[cfg(test)]
mod overload;
#[cfg(test)]
mod panics;
#[cfg(test)]
mod proofs;
#[cfg(test)]
mod readiness;
#[cfg(test)]
mod records;
#[cfg(test)]
mod secrets;
#[cfg(test)]
mod shared;
#[cfg(test)]
mod shared_secret;
#[cfg(test)]
mod sharing;
#[cfg(test)]
mod spans;
#[cfg(test)]
mod support;
#[cfg(test)]
mod tokens;
#[cfg(test)]
mod tools;
