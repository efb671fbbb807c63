//! Control, as configured: where holds and grants are asked for, and who the users of this machine are there.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::check::{fits_a_unix_socket, octal_mode};
use super::{Config, Mistake, mistake};
use crate::authz::identity::spiffe::SpiffeId;

/// The numbers that the system gives to users of other namespaces who have none in ours, and to none at all.
const NOBODY: [u32; 2] = [65_534, u32::MAX];

/// Where control is asked for. Nowhere unless something is named.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Control {
    /// Path of a Unix socket.
    pub unix: Option<PathBuf>,
    /// Its permissions, in octal.
    pub unix_mode_octal: Option<String>,
    /// Which SPIFFE IDs the users of this machine have there, by number.
    pub unix_users: BTreeMap<String, String>,
    /// TCP address, for mTLS.
    pub tcp: Option<SocketAddr>,
    /// Our own X509-SVID there, and the intermediate certificates behind it.
    pub certificate_file: Option<PathBuf>,
    /// Its key.
    pub key_file: Option<PathBuf>,
    /// The authorities of who may ask there.
    pub ca_file: Option<PathBuf>,
}

impl Control {
    /// The permissions of its Unix socket.
    ///
    /// # Errors
    /// If they are no octal number.
    pub fn mode(&self) -> Result<u32, String> {
        octal_mode(self.unix_mode_octal.as_deref().unwrap_or("0600"))
    }

    /// The SPIFFE IDs of users, by number.
    ///
    /// # Errors
    /// Which entry is none.
    pub fn users(&self) -> Result<BTreeMap<u32, String>, String> {
        let user = |(user, id): (&String, &String)| {
            // One spelling: `00` would be a second name of root.
            let number = user.parse().ok().filter(|number: &u32| number.to_string() == *user);
            let number =
                number.ok_or_else(|| format!("`unix_users`: `{user}` is no number of a user, as `id -u` says it"))?;
            if NOBODY.contains(&number) {
                return Err(format!("`unix_users`: {user} is whoever has no number here (user_namespaces(7))"));
            }
            SpiffeId::parse(id).map_err(|error| format!("`unix_users`: `{id}` is no SPIFFE ID: {error}"))?;
            Ok((number, id.clone()))
        };
        self.unix_users.iter().map(user).collect()
    }

    /// The files of mTLS, with their keys in the configuration.
    fn files(&self) -> [(&'static str, Option<&Path>); 3] {
        [
            ("certificate_file", self.certificate_file.as_deref()),
            ("key_file", self.key_file.as_deref()),
            ("ca_file", self.ca_file.as_deref()),
        ]
    }

    /// Relative paths become relative to a folder.
    pub(super) fn rebase(&mut self, base: &Path) {
        for path in [&mut self.unix, &mut self.certificate_file, &mut self.key_file, &mut self.ca_file] {
            *path = path.as_ref().map(|path| base.join(path));
        }
    }

    /// The first file that is not there, with its key.
    pub(super) fn missing_file(&self) -> Option<(&'static str, &Path)> {
        self.files().into_iter().find_map(|(key, file)| file.filter(|file| !file.is_file()).map(|file| (key, file)))
    }
}

impl Config {
    pub(super) fn check_control(&self) -> Result<(), Mistake> {
        let control = &self.control;
        let wrong = |key: &str, message: String| Err(mistake(&[&format!("control.{key}"), "control"], message));
        control.mode().or_else(|message| wrong("unix_mode_octal", message).map(|()| 0))?;
        let users = control.users().or_else(|message| wrong("unix_users", message).map(|()| BTreeMap::new()))?;
        match &control.unix {
            None if control.unix_mode_octal.is_some() => {
                return wrong("unix_mode_octal", "`control.unix_mode_octal` needs `unix`".into());
            }
            None if !users.is_empty() => return wrong("unix_users", "`control.unix_users` needs `unix`".into()),
            Some(_) if users.is_empty() => {
                return wrong("unix", "`control.unix` needs `unix_users`: whoever asks would be refused".into());
            }
            Some(path) => fits_a_unix_socket("control.unix", path).or_else(|message| wrong("unix", message))?,
            None => {}
        }
        let of_nobody = |id: &&String| {
            let domain = SpiffeId::parse(id).map(|id| id.trust_domain().to_owned()).unwrap_or_default();
            !self.identity.trust_domains.contains(&domain)
        };
        if let Some(id) = users.values().find(of_nobody) {
            let message = format!("`unix_users`: `{id}` is of none of `trust_domains` in `[identity]`");
            return wrong("unix_users", message);
        }
        for (key, file) in control.files() {
            match (control.tcp, file) {
                (Some(_), None) => return wrong("tcp", format!("`control.tcp` needs `{key}`: it is for mTLS alone")),
                (None, Some(_)) => return wrong(key, format!("`control.{key}` needs `tcp`")),
                _ => {}
            }
        }
        let socket = control.unix.as_ref().map(|_| "unix").or_else(|| control.tcp.map(|_| "tcp"));
        if let (Some(socket), None) = (socket, &self.state.journal) {
            return wrong(socket, "[control] needs `journal` in [state]: what is held has to outlive a restart".into());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: &str = "state.journal = \"s\"\n[[listener]]\ntcp = \"127.0.0.1:9191\"\n[identity]\ntrust_domains = [\"example.org\"]\n[control]\n";
    const USERS: &str =
        "unix_users = { \"0\" = \"spiffe://example.org/operators/root\", \"1000\" = \"spiffe://example.org/x\" }\n";
    const UNIX: &str = "unix = \"control.sock\"\n";
    const TCP: &str = "tcp = \"127.0.0.1:9194\"\n";
    const FILES: &str = "certificate_file = \"svid.pem\"\nkey_file = \"key.pem\"\nca_file = \"ca.pem\"\n";

    fn parse(parts: &[&str]) -> Result<Config, String> {
        let text = [&[BASE], parts].concat().concat();
        Config::parse("p.toml", &text, Path::new("/etc/palisade")).map_err(|error| error.to_string())
    }

    #[test]
    fn it_listens_where_it_is_told_and_nowhere_else() {
        assert_eq!(parse(&[]).unwrap().control, Control::default(), "without a word nothing listens");
        let control = parse(&[UNIX, USERS, TCP, FILES]).unwrap().control;
        assert_eq!(control.unix.as_deref(), Some(Path::new("/etc/palisade/control.sock")));
        assert_eq!(control.mode(), Ok(0o600));
        let users = control.users().unwrap();
        assert_eq!(users.keys().copied().collect::<Vec<_>>(), [0, 1000]);
        assert_eq!(users[&0], "spiffe://example.org/operators/root");
        assert_eq!(control.tcp, Some(([127, 0, 0, 1], 9194).into()));
        for (file, name) in control.files().into_iter().zip(["svid.pem", "key.pem", "ca.pem"]) {
            assert_eq!(file.1, Some(&*Path::new("/etc/palisade").join(name)));
        }
        assert_eq!(control.missing_file(), Some(("certificate_file", Path::new("/etc/palisade/svid.pem"))));
        assert!(parse(&[UNIX, USERS]).is_ok() && parse(&[TCP, FILES]).is_ok());
    }

    #[test]
    fn what_would_not_work_is_told_with_its_line() {
        let user = |user: &str, id: &str| format!("unix_users = {{ {user} = \"{id}\" }}\n");
        let id = "spiffe://example.org/a";
        let long = format!("unix = \"{}\"\n", "x".repeat(100));
        for (parts, message) in [
            (&[UNIX][..], "7: `control.unix` needs `unix_users`: whoever asks would be refused"),
            (&[USERS], "7: `control.unix_users` needs `unix`"),
            (&["unix_mode_octal = \"0600\"\n"], "7: `control.unix_mode_octal` needs `unix`"),
            (&[UNIX, USERS, "unix_mode_octal = \"0999\"\n"], "9: `unix_mode_octal`: `0999` is no octal permission"),
            (&[&long, USERS], "7: `control.unix`: a Unix socket's path has at most 107 bytes"),
            (&[UNIX, &user("root", id)], "8: `unix_users`: `root` is no number of a user, as `id -u` says it"),
            (&[UNIX, &user("00", id)], "8: `unix_users`: `00` is no number"),
            (&[UNIX, &user("\"+1\"", id)], "8: `unix_users`: `+1` is no number"),
            (&[UNIX, &user("\"-1\"", id)], "8: `unix_users`: `-1` is no number"),
            (&[UNIX, &user("4294967296", id)], "8: `unix_users`: `4294967296` is no number"),
            (&[UNIX, &user("65534", id)], "8: `unix_users`: 65534 is whoever has no number here"),
            (&[UNIX, &user("4294967295", id)], "8: `unix_users`: 4294967295 is whoever has no number here"),
            (&[UNIX, &user("0", "root")], "8: `unix_users`: `root` is no SPIFFE ID: the scheme is not exactly"),
            (
                &[UNIX, &user("0", "spiffe://other.org/a")],
                "8: `unix_users`: `spiffe://other.org/a` is of none of `trust_domains` in `[identity]`",
            ),
            (&[TCP], "7: `control.tcp` needs `certificate_file`: it is for mTLS alone"),
            (&[TCP, "certificate_file = \"a\"\nca_file = \"c\"\n"], "7: `control.tcp` needs `key_file`"),
            (&[FILES], "7: `control.certificate_file` needs `tcp`"),
            (&["ca_file = \"c\"\n"], "7: `control.ca_file` needs `tcp`"),
            (&["tcp = \"9194\"\n", FILES], "7: `control.tcp`: no address and port"),
            (&["tcp = \"127.0.0.1:9191\"\n", FILES], "7: `control.tcp`: a listener has the address"),
            (&["tcp = \"127.0.0.1:9192\"\n", FILES], "7: `control.tcp`: a listener has the address"),
        ] {
            let error = parse(parts).unwrap_err();
            assert!(error.starts_with(&format!("p.toml:{message}")), "{error} / {message}");
        }
        let listener = "[[listener]]\nunix = \"control.sock\"\n";
        let error = parse(&[UNIX, USERS, listener]).unwrap_err();
        assert_eq!(error, "p.toml:7: `control.unix`: a listener has this path already");
        let text = [BASE, UNIX, USERS].concat().replace("state.journal = \"s\"", "");
        let error = Config::parse("p.toml", &text, Path::new("/")).map_err(|error| error.to_string()).unwrap_err();
        assert_eq!(error, "p.toml:7: [control] needs `journal` in [state]: what is held has to outlive a restart");
    }
}
