//! Control over its sockets: who asks, what reaches whoever decides, and that nobody takes all places.

mod bounds;
mod commands;
mod fake;
mod identity;
mod pki;
mod tls;
