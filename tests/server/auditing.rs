//! `palisade audit`, over logs that Palisade wrote and somebody changed.

mod asked;
mod attacked;
mod commands;
mod edited;
mod hostile;
mod rewritten;
mod served;
mod written;
