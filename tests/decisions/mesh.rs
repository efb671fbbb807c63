//! `palisade mesh lint`: what is right is left alone, and each thing that is wrong is found, by its own code. A configuration in which
//! nothing is to be found is broken in one place, and exactly that has to be told.

mod coverage;
mod envoy;
mod gateways;
mod istio;
mod patches;
mod pods;
mod ways;

use std::collections::BTreeSet;
use std::process::Command;

use palisade::mesh::finding::{Report, Rule};
use palisade::mesh::{Settings, lint};

use crate::support;

/// The clean mesh.
const ISTIO: &str = include_str!("mesh/istio.yaml");

fn settings() -> Settings {
    Settings { body_bytes: 65_536, envoy_version: Some("1.40.0".parse().unwrap()), namespace: "tools".into() }
}

fn look(text: &str) -> Result<Report, String> {
    lint(&[("mesh.yaml".into(), text.into())], &settings())
}

fn codes(report: &Report) -> BTreeSet<&'static str> {
    report.findings.iter().map(|finding| finding.rule.code()).collect()
}

/// A bootstrap of `envoy/`, filled in.
fn bootstrap(name: &str) -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/envoy/").to_owned() + name;
    let mut text = std::fs::read_to_string(&path).unwrap();
    while let Some(start) = text.find("${") {
        let end = start + text[start..].find('}').unwrap();
        let name = text[start + 2..end].to_owned();
        let value = if name == "UPGRADES" {
            "[]"
        } else if name.ends_with("PORT") {
            "1234"
        } else {
            "/x"
        };
        text = text.replace(&format!("${{{name}}}"), value);
    }
    text
}

/// What is replaced, by what, and what is found then.
type Break = (&'static str, &'static str, &'static [&'static str]);

/// Breaks `clean` in each way. To `all` goes what was found, to `wrong` what was to be found and was not, or the other way round.
fn broken(clean: &str, breaks: &[Break], all: &mut BTreeSet<&'static str>, wrong: &mut String) {
    let report = look(clean).unwrap();
    assert_eq!(report.findings, [], "what is clean");
    for (old, new, expected) in breaks {
        assert!(clean.contains(old), "nothing to replace: {old}");
        match look(&clean.replacen(old, new, 1)) {
            Err(error) => *wrong += &format!("{old} -> {new}: {error}\n"),
            Ok(report) => {
                let found = codes(&report);
                // Each finding leads somewhere.
                let is_told = report.findings.iter().all(|finding| finding.line > 0 && !finding.what.is_empty());
                if found != expected.iter().copied().collect() || !is_told {
                    *wrong += &format!("{old} -> {new}: expected {expected:?}\n{}\n", report.text());
                }
                all.extend(found);
            }
        }
    }
}

#[test]
fn what_is_wrong_is_found_by_its_name() {
    let (mut found, mut wrong) = (BTreeSet::new(), String::new());
    for (clean, breaks) in [
        (&*bootstrap("tools.yaml"), envoy::BREAKS),
        (&*bootstrap("tools.yaml"), ways::ENUMERATIONS),
        (&*bootstrap("tools.yaml"), ways::CHANGES),
        (&*bootstrap("connections.yaml"), envoy::CONNECTIONS),
        (ISTIO, istio::BREAKS),
    ] {
        broken(clean, breaks, &mut found, &mut wrong);
    }
    assert!(wrong.is_empty(), "{wrong}");
    // Told without a file's doing: no version is known.
    let report = lint(&[("x".into(), bootstrap("tools.yaml"))], &Settings { envoy_version: None, ..settings() });
    found.extend(codes(&report.unwrap()));
    let all: BTreeSet<_> = Rule::ALL.iter().map(|rule| rule.code()).collect();
    assert_eq!(found, all, "each code is found once at least");
}

#[test]
fn the_bootstraps_are_clean() {
    for name in ["tools.yaml", "connections.yaml", "agents.yaml", "spire.yaml", "spire-agent.yaml"] {
        let report = look(&bootstrap(name)).unwrap();
        assert_eq!(report.findings, [], "{name}");
        assert!(!report.checked.is_empty(), "{name}: nothing was looked at");
    }
}

#[test]
fn what_cannot_be_read_is_an_error_and_never_clean() {
    for (text, why) in [
        ("", "holds nothing"),
        ("# only a comment\n", "holds nothing"),
        ("a: [", "line"),
        ("just text", "is neither"),
        ("- list", "is neither"),
        ("{\"configs\": []}", "is neither"),
        ("apiVersion: v1\nkind: ConfigMap\nmetadata: { name: istio }\ndata: { mesh: \"a: [\" }\n", "ConfigMap"),
        ("apiVersion: v1\nkind: ConfigMap\ndata: { mesh: \"a: 1\\n---\\nb: 2\" }\n", "expected one document"),
        // One reader takes one part of it, another one the other.
        ("apiVersion: v1\nkind: Pod\nconfigs: [{ \"@type\": x/ListenersConfigDump }]\n", "line 1: is both"),
        ("apiVersion: v1\nkind: Pod\nstatic_resources: {}\n", "line 1: is both"),
        ("apiVersion: v1\nkind: Secret\nmetadata: { name: a }\n", "nothing that is looked at"),
    ] {
        let error = look(text).unwrap_err();
        assert!(error.contains("mesh.yaml") && error.contains(why), "{text:?}: {error}");
    }
    // A dump without listeners, or a listener whose filters are elsewhere.
    for text in [
        r#"{"configs": [{"@type": "x/envoy.admin.v3.ListenersConfigDump"}]}"#,
        r#"{"configs": [{"@type": "x/envoy.admin.v3.ListenersConfigDump", "static_listeners": [{"listener": {"name": "a", "filter_chains": [{"filters": [{"name": "f", "config_discovery": {}}]}]}}]}]}"#,
    ] {
        assert!(codes(&look(text).unwrap()).contains("unreadable"), "{text}");
    }
}

#[test]
fn the_command_shows_what_files_say_as_mere_text() {
    let directory = tempfile::tempdir().unwrap();
    let run = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        let output = Command::new(env!("CARGO_BIN_EXE_palisade")).args(["mesh", "lint"]).arg(&path).output().unwrap();
        let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert!(!text.contains('\u{1b}') && text.contains("\\u{1b}"), "{text}");
        output.status.code()
    };
    assert_eq!(run("twice", "{\"\\u001b[2J\": 1, \"\\u001b[2J\": 2}"), Some(1));
    assert_eq!(run("\u{1b}[2J-unknown", "a: 1"), Some(1));
    let open = bootstrap("tools.yaml").replacen("failure_mode_allow: false", "failure_mode_allow: true", 1);
    assert_eq!(run("\u{1b}[2J.yaml", &open), Some(17));
    assert_eq!(run("one-secret-\u{1b}", "apiVersion: v1\nkind: Secret\n"), Some(1));
}

/// As Kubernetes lays out a ConfigMap that it mounts, too: each file once.
#[test]
fn a_directory_is_read_with_all_below_it() {
    let directory = tempfile::tempdir().unwrap();
    let at = |path: &str| directory.path().join(path);
    std::fs::create_dir_all(at("below/..2026_11_23")).unwrap();
    std::fs::create_dir(at("none")).unwrap();
    let open = bootstrap("tools.yaml").replacen("failure_mode_allow: false", "failure_mode_allow: true", 1);
    std::fs::write(at("below/..2026_11_23/tools.yaml"), open).unwrap();
    std::fs::write(at("chart.yaml"), "name: x\n").unwrap();
    std::os::unix::fs::symlink("..2026_11_23/tools.yaml", at("below/tools.yaml")).unwrap();
    std::os::unix::fs::symlink("..", at("below/back")).unwrap();
    let run = |path: &str| {
        let output =
            Command::new(env!("CARGO_BIN_EXE_palisade")).args(["mesh", "lint"]).arg(at(path)).output().unwrap();
        (output.status.code(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
    };
    let (status, text) = run("");
    assert!(status == Some(17) && text.contains("error[fail-open]") && text.contains("looked at: 1 Envoys"), "{text}");
    assert!(text.contains("chart.yaml: of no kind") && text.contains("below/back: a link to a directory"), "{text}");
    assert_eq!(run("none").0, Some(1));
    std::fs::remove_dir_all(at("below")).unwrap();
    let (status, text) = run("");
    assert!(status == Some(1) && text.contains("of a kind that is read"), "{text}");
    std::fs::write(at("half.yaml"), "kind: {").unwrap();
    assert_eq!(run("").0, Some(1), "what cannot be read is not passed over");
}

#[test]
fn a_version_that_is_given_counts_where_no_file_is_of_envoy() {
    let look = |version: Option<&str>, text: &str| {
        let settings = Settings { envoy_version: version.map(|version| version.parse().unwrap()), ..settings() };
        codes(&lint(&[("mesh.yaml".into(), text.into())], &settings).unwrap())
    };
    assert_eq!(look(Some("1.30.0"), ISTIO), BTreeSet::from(["envoy-version"]));
    assert_eq!(look(None, ISTIO), BTreeSet::new(), "nobody asked");
    assert_eq!(look(Some("1.30.0"), &bootstrap("tools.yaml")), BTreeSet::from(["envoy-version"]));
}

#[test]
fn each_listener_of_a_sidecar_that_callers_can_reach_is_read() {
    let bare = |name: &str, port: u16, more: &str| {
        format!(
            r#"{{"name": "{name}", "address": {{"socket_address": {{"port_value": {port}}}}}, {more} "filter_chains": [{{"filters": [{{"name": "tcp", "typed_config": {{"@type": "x/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy", "cluster": "server"}}}}]}}]}}"#
        )
    };
    let nowhere = bare("virtualInbound", 15006, r#""traffic_direction": "INBOUND","#)
        .replace("\"server\"", "\"BlackHoleCluster\"");
    let look = |listeners: &str| {
        let text = format!(
            r#"{{"configs": [{{"@type": "x/BootstrapConfigDump", "bootstrap": {{"node": {{"id": "sidecar~10.0.0.1~a.b~c"}}}}}}, {{"@type": "x/ClustersConfigDump", "static_clusters": [{{"cluster": {{"name": "BlackHoleCluster"}}}}]}}, {{"@type": "x/ListenersConfigDump", "dynamic_listeners": [{{"active_state": {{"listener": {nowhere}}}}}, {listeners}]}}]}}"#
        );
        codes(&look(&text).unwrap())
    };
    let unchecked = BTreeSet::from(["permissive-mtls", "unchecked-connection"]);
    let active = |listener: &str| format!(r#"{{"active_state": {{"listener": {listener}}}}}"#);
    let outbound = r#""traffic_direction": "OUTBOUND","#;
    assert_eq!(look(&active(&bare("out", 80, outbound))), BTreeSet::new());
    // Health and metrics, and what only the proxy itself can reach.
    assert_eq!(look(&active(&bare("metrics", 15090, "").replace("\"server\"", "\"agent\""))), BTreeSet::new());
    assert_eq!(look(&active(&bare("metrics", 15090, ""))), unchecked);
    assert_eq!(look(&active(&bare("inner", 0, r#""internal_listener": {},"#))), BTreeSet::new());
    assert_eq!(look(&active(&bare("patched", 8080, ""))), unchecked);
    assert_eq!(look(&active(&bare("patched", 8080, r#""traffic_direction": "UNSPECIFIED","#))), unchecked);
    // What is warming replaces what is active, and is read as well.
    let (good, bad) = (bare("in", 8080, outbound), bare("in", 8080, ""));
    let both = |active: &str, warming: &str| {
        look(&format!(r#"{{"active_state": {{"listener": {active}}}, "warming_state": {{"listener": {warming}}}}}"#))
    };
    assert_eq!(both(&good, &bad), unchecked);
    assert_eq!(both(&bad, &good), unchecked);
}

/// Every YAML file of folders of `istio/`, values of charts included.
fn shipped(folders: &[&str]) -> Vec<(String, String)> {
    let mut files = Vec::new();
    for folder in folders {
        let path = support::repository().join("istio").join(folder);
        let mut names: Vec<_> = std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()).collect();
        names.sort();
        let names = names.into_iter().filter(|name| name.extension().is_some_and(|ending| ending == "yaml"));
        files.extend(names.map(|name| (name.display().to_string(), support::read(&name))));
    }
    files
}

#[test]
fn what_is_shipped_for_istio_is_clean() {
    for (folders, meant) in [
        (&["mesh", "sidecar", "sidecar/unix"][..], &[][..]),
        (&["mesh", "sidecar", "sidecar/loopback"], &[]),
        (&["mesh", "egress-gateway"], &[]),
        (&["mesh", "ingress-gateway"], &[]),
        // A waypoint has no certificate of the caller: mTLS ends before.
        (&["mesh", "waypoint"], &["certificate-withheld"]),
    ] {
        let files = shipped(folders);
        let report = lint(&files, &settings()).unwrap();
        assert_eq!(codes(&report), meant.iter().copied().collect(), "{folders:?}:\n{}", report.text());
        assert!(report.checked.iter().any(|(kind, _)| *kind == "CUSTOM policies"), "{folders:?}");
    }
}

/// What Istio's own code makes of it: `tests/deploy/fixtures`.
#[test]
fn what_istio_makes_of_it_has_no_error() {
    let istios = ["appended-identity", "upgrade"];
    for (name, node, expected) in [
        ("sidecar-unix", None, &istios[..]),
        ("sidecar-loopback", None, &istios),
        ("waypoint", None, &["upgrade"]),
        ("egress-gateway", Some("router"), &["upgrade"]),
        ("ingress-gateway", Some("router"), &["upgrade"]),
    ] {
        let text = support::read(&support::repository().join(format!("tests/deploy/fixtures/istio/{name}.json")));
        let bootstrap = node.map(|node| {
            format!(
                r#"{{"@type": "x/BootstrapConfigDump", "bootstrap": {{"node": {{"id": "{node}~10.0.0.1~a.b~c"}}}}}},"#
            )
        });
        // A gateway says what it is in its bootstrap alone: without it nothing is clean.
        if bootstrap.is_some() {
            assert!(codes(&look(&text).unwrap()).contains("unreadable"), "{name}");
        }
        let list = "\"configs\": [";
        assert!(text.contains(list));
        let text = text.replacen(list, &format!("{list}{}", bootstrap.unwrap_or_default()), 1);
        let report = look(&text).unwrap();
        assert_eq!(codes(&report), expected.iter().copied().collect(), "{name}:\n{}", report.text());
        assert!(report.checked.iter().any(|(kind, _)| *kind == "ext_authz filters"), "{name}");

        for (old, new, code) in [
            ("\"pack_as_bytes\": true", "\"pack_as_bytes\": false", "text-body"),
            ("\"encode_raw_headers\": true", "\"encode_raw_headers\": false", "headers-joined"),
            ("\"any\": true", "\"header\": {\"name\": \"x\"}", "conditional-check"),
            (
                "envoy.extensions.filters.http.ext_authz.v3.ExtAuthz\"",
                "envoy.extensions.filters.http.cors.v3.Cors\"",
                "unchecked",
            ),
            ("\"REJECT_REQUEST\"", "\"ALLOW\"", "header-underscores"),
        ] {
            assert!(text.contains(old), "{name}: nothing to replace: {old}");
            let found = codes(&look(&text.replace(old, new)).unwrap());
            assert!(found.contains(code), "{name}: {old} -> {new}: {found:?}");
        }
    }
}
