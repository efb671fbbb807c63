//! Why the store did not do what was asked, in words that hold nothing of what was sent.

use std::sync::Arc;

use redis::{ErrorKind, RedisError, ServerErrorKind};

/// Why the store did not do what was asked. Whether it did after all is not known of one that is out of reach.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Lost {
    /// It does not answer, or not in time, or it is not ready: it is asked again.
    #[error("the shared store is out of reach: {0}")]
    OutOfReach(Arc<str>),
    /// It answers and will not, or may not be used as it is set up: somebody has to change something.
    #[error("the shared store cannot be used: {0}")]
    Refused(Arc<str>),
    /// It holds as much as it may.
    #[error("the shared store is full: at most {0}")]
    Full(Arc<str>),
    /// What was to be shared is longer than may be, or its id is none.
    #[error("not to be shared: {0}")]
    Unfit(&'static str),
    /// It has it, and too few of its replicas have.
    #[error("of {wanted} replicas of the shared store {had} have it")]
    TooFewReplicas {
        /// How many have it.
        had: u32,
        /// How many have to.
        wanted: u32,
    },
}

impl Lost {
    pub(super) fn out_of_reach(why: &str) -> Self {
        Self::OutOfReach(why.into())
    }

    pub(super) fn refused(why: impl Into<Arc<str>>) -> Self {
        Self::Refused(why.into())
    }

    /// An answer that no script of ours gives.
    pub(super) fn strange() -> Self {
        Self::refused("its answer is none that was expected")
    }

    /// Whether it may only have been slow.
    pub(super) fn is_late(&self) -> bool {
        matches!(self, Self::OutOfReach(why) if &**why == LATE)
    }
}

/// What is told of an answer that did not come in time.
pub(super) const LATE: &str = "it does not answer in time";

/// Codes of servers that pass without anybody's doing.
const PASSING: &[&str] =
    &["LOADING", "READONLY", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "BUSY", "NOREPLICAS", "OOM", "MISCONF"];

impl From<RedisError> for Lost {
    /// Of a server's error its code alone is told, for its text may quote what it was sent.
    fn from(error: RedisError) -> Self {
        if error.is_timeout() {
            return Self::out_of_reach(LATE);
        }
        let code = error.code().unwrap_or_default();
        match error.kind() {
            ErrorKind::AuthenticationFailed => Self::refused("wrong user or password"),
            ErrorKind::InvalidClientConfig => Self::refused("certificates or key cannot be used"),
            ErrorKind::RESP3NotSupported => Self::refused("it is older than version 6"),
            ErrorKind::Server(_) | ErrorKind::Extension if is_forbidden(&error) => {
                Self::refused("its user may not do what Palisade needs (NOPERM)")
            }
            ErrorKind::Server(_) | ErrorKind::Extension if PASSING.contains(&code) => Self::out_of_reach(code),
            ErrorKind::Server(_) | ErrorKind::Extension if matches!(code, "WRONGPASS" | "NOAUTH") => {
                Self::refused("wrong user or password")
            }
            ErrorKind::Server(ServerErrorKind::ResponseError) | ErrorKind::Extension => {
                Self::refused(format!("it answers with an error ({code})"))
            }
            ErrorKind::Server(_) => Self::out_of_reach(code),
            ErrorKind::Io => by_transport(&error),
            kind => Self::OutOfReach(format!("{kind:?}").into()),
        }
    }
}

/// Whether the user may not do something, which servers say in another way of a script.
fn is_forbidden(error: &RedisError) -> bool {
    let in_scripts = ["The user executing the script can't", "ACL failure in script"];
    let is_said = |text: &str| in_scripts.iter().any(|start| text.starts_with(start));
    error.code() == Some("NOPERM") || error.detail().is_some_and(is_said)
}

/// A certificate that is not believed stays so; a connection that ends does not.
fn by_transport(error: &RedisError) -> Lost {
    let text = error.to_string();
    if text.contains("certificate") || text.contains("CertificateRequired") {
        Lost::refused(text)
    } else {
        Lost::OutOfReach(text.into())
    }
}
