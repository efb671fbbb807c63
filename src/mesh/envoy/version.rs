//! Which Envoy runs, and which holes it is known to have.

use std::str::FromStr;

use crate::mesh::Settings;
use crate::mesh::finding::{Finder, Rule};
use crate::mesh::node::Node;

/// Major, minor and patch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u32, pub u32, pub u32);

impl FromStr for Version {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // `1.38.4-dev` comes before 1.38.4, and may lack what that has; it is taken at its number's word.
        let number = text.trim_start_matches('v').split(['-', '+']).next().unwrap_or_default();
        let parts: Vec<Option<u32>> = number.split('.').map(|part| part.parse().ok()).collect();
        match parts.as_slice() {
            [Some(major), Some(minor), Some(patch)] => Ok(Self(*major, *minor, *patch)),
            _ => Err(format!("`{text}` is no version: expected something like 1.40.0")),
        }
    }
}

impl std::fmt::Display for Version {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}.{}.{}", self.0, self.1, self.2)
    }
}

/// An advisory that matters where Palisade is asked: what it is, and the first patch of each series that has the fix; later series
/// have it from the start.
struct Advisory {
    id: &'static str,
    what: &'static str,
    fixed: &'static [(u32, u32)],
}

/// As of October 2026. The oldest series that still gets fixes is the first one of the first advisory.
const ADVISORIES: &[Advisory] = &[
    Advisory {
        id: "CVE-2026-73547 (GHSA-87ph-jqwm-pg6r)",
        what: "a CONNECT without a path ends Envoy when ext_authz is asked",
        fixed: &[(37, 6), (38, 4), (39, 1)],
    },
    Advisory {
        id: "CVE-2026-47778",
        what: "a NUL byte in a certificate's SAN cuts the name that Palisade is told",
        fixed: &[(37, 5), (38, 3), (39, 0)],
    },
    Advisory {
        id: "CVE-2026-47205 (GHSA-mvh9-767w-x47j)",
        what: "ext_authz with another service per route uses memory that it has freed",
        fixed: &[(37, 5), (38, 3), (39, 0)],
    },
    Advisory {
        id: "CVE-2026-26308 (GHSA-ghc4-35x6-crw5)",
        what: "RBAC reads a header that is sent twice as one value",
        fixed: &[(37, 1), (38, 0)],
    },
];

impl Advisory {
    fn concerns(&self, Version(major, minor, patch): Version) -> bool {
        let newest = self.fixed.iter().map(|(series, _)| *series).max().unwrap_or(0);
        let first = self.fixed.iter().find(|(series, _)| *series == minor);
        major == 1 && first.map_or(minor < newest, |(_, first)| patch < *first)
    }
}

/// Checks the version that the dump names, or the one that was given.
pub fn check(node: &Node, settings: &Settings, finder: &mut Finder<'_>) {
    let build = node.at("user_agent_build_version.version");
    let number = |name: &str| build.get(name).number().and_then(|number| u32::try_from(number).ok());
    // Protobuf's JSON leaves out what is 0.
    let told = number("major_number")
        .map(|major| Version(major, number("minor_number").unwrap_or(0), number("patch").unwrap_or(0)));
    let Some(version) = told.or(settings.envoy_version) else {
        finder.add(Rule::UnknownEnvoy, node.line, "version", "no version");
        return;
    };
    let oldest = ADVISORIES.iter().flat_map(|advisory| advisory.fixed).map(|(series, _)| *series).min().unwrap_or(0);
    if version.0 == 1 && version.1 < oldest {
        let what = format!("Envoy {version}: its series gets no fixes any more; the oldest that does is 1.{oldest}");
        finder.add(Rule::OldEnvoy, node.line, "version", what);
    }
    for advisory in ADVISORIES.iter().filter(|advisory| advisory.concerns(version)) {
        let what = format!("Envoy {version}: {}: {}", advisory.id, advisory.what);
        finder.add(Rule::OldEnvoy, node.line, "version", what);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_old_by_their_series() {
        let holes = |text: &str| {
            let version = text.parse().unwrap();
            ADVISORIES.iter().filter(|advisory| advisory.concerns(version)).count()
        };
        for (version, count) in [
            ("1.37.0", 4),
            ("1.37.5", 1),
            ("1.37.6", 0),
            ("v1.38.3-dev", 1),
            ("1.39.0", 1),
            ("1.39.1", 0),
            ("1.40.0", 0),
            ("1.20.9", 4),
            ("2.0.0", 0),
        ] {
            assert_eq!(holes(version), count, "{version}");
        }
        for text in ["", "1", "1.2", "1.2.x", "latest", "1.2.3.4"] {
            assert!(text.parse::<Version>().is_err(), "{text}");
        }
    }
}
