//! The sockets at which control is asked for.

use std::io;
use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::app::listen::{SocketFile, bind_tcp, bind_unix};
use crate::app::pipeline::Pipeline;
use crate::app::{ControlPorts, StartError};
use crate::config::control::Control;
use crate::control::tls::Tls;
use crate::control::{Doorway, Files, Serving};

/// Bound sockets; none where none is configured.
#[derive(Default)]
pub(in crate::app) struct Doors {
    doorways: Vec<Doorway>,
    file: Option<SocketFile>,
    /// Where they are.
    pub(in crate::app) ports: ControlPorts,
}

impl Doors {
    /// Binds what is configured.
    ///
    /// # Errors
    /// [`StartError::Listen`], [`StartError::Control`]
    pub(in crate::app) fn bind(config: &Control) -> Result<Self, StartError> {
        let (mut doors, wrong) = (Self::default(), StartError::Control);
        if let Some(path) = &config.unix {
            let failed = |error| StartError::Listen(path.display().to_string(), error);
            let (users, mode) = (config.users().map_err(wrong)?, config.mode().map_err(wrong)?);
            let (listener, file) = bind_unix(path, mode).map_err(failed)?;
            doors.doorways.push(Doorway::Unix(listener, users));
            (doors.file, doors.ports.unix) = (Some(file), Some(path.clone()));
        }
        if let (Some(address), Some(certificate), Some(key), Some(ca)) =
            (config.tcp, &config.certificate_file, &config.key_file, &config.ca_file)
        {
            let files = Files { certificate: certificate.clone(), key: key.clone(), ca: ca.clone() };
            let tls = Arc::new(Tls::load(files).map_err(wrong)?);
            let listener = bind_tcp(address)?;
            doors.ports.tcp = listener.local_addr().ok();
            doors.doorways.push(Doorway::Tcp(listener, tls));
        }
        Ok(doors)
    }

    /// The futures that serve them, within the runtime that will drive them.
    ///
    /// # Errors
    /// If the runtime does not take a socket.
    pub(in crate::app) fn serve(
        self,
        pipeline: &Arc<Pipeline>,
        stopped: watch::Receiver<bool>,
    ) -> io::Result<JoinSet<()>> {
        let turned_away = pipeline.metrics().moving.control_turned_away.clone();
        let serving = Serving { operate: pipeline.clone(), stopped, turned_away };
        let mut all = JoinSet::new();
        for doorway in self.doorways {
            all.spawn(serving.serve(doorway)?);
        }
        if let Some(file) = self.file {
            // The socket's file goes with those that listen.
            let _kept = all.spawn(async move {
                std::future::pending::<()>().await;
                drop(file);
            });
        }
        Ok(all)
    }
}
