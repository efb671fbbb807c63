//! `palisade mesh lint`.

use std::fmt::Write as _;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use super::super::control::show::plain;
use super::super::{exit, print};
use crate::mesh::envoy::Version;
use crate::mesh::finding::{Report, Rule, Severity};
use crate::mesh::node::MAX_BYTES;
use crate::mesh::{Settings, concerns, lint};

/// Read configuration of Istio and Envoy, and tell what would let a call pass unchecked or misread
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Files are read together: manifests of workloads, Istio's resources and MeshConfig (by itself, in a ConfigMap, in values), Envoy's \
bootstraps and config dumps, as YAML or JSON. What Istio really made of them a dump of a running proxy shows:

  kubectl exec -n tools deploy/crm -c istio-proxy -- pilot-agent request GET config_dump | palisade mesh lint --config-dump -

A whole mesh at once, as it is now:

  kubectl get -A -o yaml deploy,sts,ds,svc,ns,cm,envoyfilters,authorizationpolicies,peerauthentications | palisade mesh lint -

Exit status: 0 if nothing is wrong, 17 if something is, 1 if a file cannot be read.")]
pub(super) struct Arguments {
    /// Files, or directories with *.yaml, *.yml and *.json in them or below; `-` is standard input
    #[arg(value_name = "FILES", required_unless_present_any = ["config_dump", "list"])]
    files: Vec<PathBuf>,
    /// What /config_dump of a running Envoy says; `-` is standard input
    #[arg(long, value_name = "FILE")]
    config_dump: Vec<PathBuf>,
    /// Findings that are meant: by their code, or as CODE=TEXT those alone in whose place or text TEXT is
    #[arg(long, value_name = "CODE[=TEXT]", value_parser = allowed)]
    allow: Vec<Allowed>,
    /// Warnings count as well
    #[arg(long)]
    strict: bool,
    /// The namespace of objects that name none, as with `kubectl apply -n`
    #[arg(short, long, value_name = "NAMESPACE", default_value = "default")]
    namespace: String,
    /// The version of Envoy, where the files do not say it
    #[arg(long, value_name = "VERSION")]
    envoy_version: Option<Version>,
    /// Most bytes of a body that Palisade takes: `[limits] body_bytes`
    #[arg(long, value_name = "BYTES", default_value_t = 65_536)]
    body_bytes: u64,
    /// One JSON object instead of text
    #[arg(long)]
    json: bool,
    /// List what is looked for, and why
    #[arg(long)]
    list: bool,
}

/// A finding that is meant.
#[derive(Clone, Debug)]
struct Allowed {
    rule: Rule,
    within: String,
}

fn allowed(text: &str) -> Result<Allowed, String> {
    let (code, within) = text.split_once('=').unwrap_or((text, ""));
    let rule = Rule::ALL.iter().find(|rule| rule.code() == code);
    let rule = rule.ok_or_else(|| format!("there is no finding `{code}`; `palisade mesh lint --list` has them all"))?;
    Ok(Allowed { rule: *rule, within: within.to_owned() })
}

/// Runs the command.
pub(super) fn run(arguments: &Arguments) -> Result<u8, String> {
    if arguments.list {
        return Ok(print(&list(), exit::OK));
    }
    // What files are called, and what is in them, somebody else wrote.
    let (report, counts) = look(arguments).map_err(|error| plain(&error))?;
    let text = if arguments.json { report.json() } else { report.text() };
    Ok(print(&text, if counts > 0 { exit::UNSAFE } else { exit::OK }))
}

/// What is found, and how much of that counts.
fn look(arguments: &Arguments) -> Result<(Report, usize), String> {
    let (mut files, mut skipped) = (Vec::new(), Vec::new());
    for path in &arguments.files {
        collect(path, &mut files, &mut skipped)?;
    }
    if files.is_empty() && arguments.config_dump.is_empty() {
        return Err(format!("nothing is of a kind that is read here: {}", skipped.join("; ")));
    }
    for path in &arguments.config_dump {
        files.push((path.display().to_string(), read(path)?));
    }
    let (body_bytes, envoy_version) = (arguments.body_bytes, arguments.envoy_version);
    let settings = Settings { body_bytes, envoy_version, namespace: arguments.namespace.clone() };
    let mut report = lint(&files, &settings)?;
    let is_meant = |allowed: &Allowed, rule: Rule, texts: [&str; 2]| {
        allowed.rule == rule && texts.iter().any(|text| text.contains(&allowed.within))
    };
    report.skipped.extend(skipped);
    let before = report.findings.len();
    report.findings.retain(|finding| {
        !arguments.allow.iter().any(|allowed| is_meant(allowed, finding.rule, [&finding.place, &finding.what]))
    });
    if before > report.findings.len() {
        report.skipped.push(format!("{} findings that --allow names", before - report.findings.len()));
    }
    let counts = report.count(Severity::Error) + if arguments.strict { report.count(Severity::Warning) } else { 0 };
    for finding in &mut report.findings {
        for text in [&mut finding.file, &mut finding.place, &mut finding.what] {
            *text = plain(text);
        }
    }
    report.skipped = report.skipped.iter().map(|skipped| plain(skipped)).collect();
    Ok((report, counts))
}

/// The files that a path names: itself, or what is in a directory and below, in the order of names. What is found there and of no
/// kind that is read is `skipped`.
fn collect(path: &Path, files: &mut Vec<(String, String)>, skipped: &mut Vec<String>) -> Result<(), String> {
    if !path.is_dir() {
        files.push((path.display().to_string(), read(path)?));
        return Ok(());
    }
    let before = files.len() + skipped.len();
    walk(path, files, skipped)?;
    if files.len() + skipped.len() == before {
        return Err(format!("{}: has no *.yaml, *.yml or *.json in it or below", path.display()));
    }
    Ok(())
}

fn walk(directory: &Path, files: &mut Vec<(String, String)>, skipped: &mut Vec<String>) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("{}: {error}", directory.display());
    let mut entries: Vec<_> =
        std::fs::read_dir(directory).map_err(failed)?.collect::<Result<_, _>>().map_err(failed)?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let (path, kind) = (entry.path(), entry.file_type().map_err(failed)?);
        let is_read = path.extension().is_some_and(|kind| kind == "yaml" || kind == "yml" || kind == "json");
        // A link to a file is read, as Kubernetes lays out what it mounts; and not a second time in the directory behind it, `..` and a time.
        if entry.file_name().as_encoded_bytes().starts_with(b"..") {
            continue;
        }
        if kind.is_dir() {
            walk(&path, files, skipped)?;
        } else if kind.is_symlink() && path.is_dir() {
            // It may lead back.
            skipped.push(format!("{}: a link to a directory", path.display()));
        } else if is_read && path.is_file() {
            let (name, text) = (path.display().to_string(), read(&path)?);
            if concerns(&text) {
                files.push((name, text))
            } else {
                skipped.push(format!("{name}: of no kind that is read here"))
            }
        }
    }
    Ok(())
}

fn read(path: &Path) -> Result<String, String> {
    let failed = |error: std::io::Error| format!("{}: {error}", path.display());
    let source: Box<dyn std::io::Read> = if path.as_os_str() == "-" {
        Box::new(std::io::stdin())
    } else {
        Box::new(std::fs::File::open(path).map_err(failed)?)
    };
    let mut text = String::new();
    source.take(MAX_BYTES as u64 + 1).read_to_string(&mut text).map_err(failed)?;
    if text.len() > MAX_BYTES {
        return Err(format!("{}: has more than {MAX_BYTES} bytes", path.display()));
    }
    Ok(text)
}

fn list() -> String {
    let mut text = String::new();
    for rule in Rule::ALL {
        let severity = if rule.severity() == Severity::Error { "error" } else { "warning" };
        let _ = writeln!(text, "{} ({severity})\n    {}\n    do: {}", rule.code(), rule.why(), rule.remedy());
    }
    text
}
