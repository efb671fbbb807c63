//! Where records go: the log, or lines; and spans that are made of them on the way.

use std::io;
use std::path::Path;
use std::sync::Arc;

use super::StartError;
use crate::audit::entries::Entries;
use crate::audit::lines::Lines;
use crate::audit::log::disk::Disk;
use crate::audit::log::{Log, Progress};
use crate::audit::{Sink, Writer};
use crate::config::Config;
use crate::telemetry::spans::Spans;

/// What records are written to, and how it stands if it is the log.
pub(super) struct Place {
    sink: Box<dyn Sink>,
    pub(super) log: Option<Arc<Progress>>,
}

impl Place {
    /// Opens what is configured.
    pub(super) fn open(config: &Config, disk: &Disk) -> Result<Self, StartError> {
        let record = &config.record;
        if let Some(directory) = &config.audit.directory {
            let log = Log::open_on(&config.audit, directory, disk.clone())?;
            let progress = log.progress();
            return Ok(Self { sink: Box::new(Entries::into(log, record.permits)), log: Some(progress) });
        }
        let path = record.path.as_deref().unwrap_or(Path::new("-"));
        let lines = if record.dangerous_none { Lines::nowhere() } else { Lines::open(path, record.permits) };
        let lines = lines.map_err(|error| StartError::Record(path.to_path_buf(), error))?;
        Ok(Self { sink: Box::new(lines), log: None })
    }

    /// What writes records, and makes spans of them.
    pub(super) fn start(self, config: &Config, spans: Option<Spans>) -> io::Result<Writer> {
        if config.record.dangerous_none {
            tracing::warn!("no record is kept of any decision");
        }
        Writer::start(&config.record, self.sink, move |record| {
            if let Some(spans) = &spans {
                spans.observe(record);
            }
        })
    }
}
