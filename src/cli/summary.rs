//! What `palisade check` says about a bundle alone: that it would be taken, and what is in it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use crate::authz::policy::{Bundle, Reference};

/// Most names that are listed in one line.
const MAX_NAMES: usize = 10;
/// More policies than that about one principal or resource are told.
const CROWD: usize = 100;

/// A valid bundle in a few lines. Of `trust_domains`, those of the configuration, policies should name no others.
#[must_use]
pub fn of(bundle: &Bundle, reference: &Reference, trust_domains: Option<&[String]>) -> String {
    let mut text = String::new();
    let forbids = bundle.engine().infos().filter(|policy| policy.forbids).count();
    let policies = bundle.engine().len();
    let mut protocols: BTreeMap<&str, usize> = BTreeMap::new();
    for target in bundle.targets() {
        *protocols.entry(target.protocol.as_str()).or_default() += 1;
    }
    let by_protocol: Vec<String> = protocols.iter().map(|(protocol, count)| format!("{count} {protocol}")).collect();
    let servers = bundle.targets().iter().filter_map(|target| bundle.server(&target.name));
    let tools: usize = servers.map(|server| server.tools.len()).sum();
    let _ = writeln!(text, "bundle     {}", bundle.digest());
    if let Some(version) = bundle.version() {
        let _ = writeln!(text, "version    {version}");
    }
    let _ = writeln!(text, "policies   {policies} ({} permit, {forbids} forbid)", policies - forbids);
    let unindexed = bundle.engine().unindexed();
    let _ = writeln!(text, "unindexed  {}", unindexed.len());
    for (policy, actions) in unindexed.iter().take(MAX_NAMES) {
        let of = bundle.engine().actions();
        let _ = writeln!(text, "           {}: evaluated for every call of {actions} of {of} actions", policy.id);
    }
    if unindexed.len() > MAX_NAMES {
        let _ = writeln!(text, "           and {} more", unindexed.len() - MAX_NAMES);
    }
    if let Some((action, policies)) = bundle.engine().heaviest_action().filter(|(_, all)| !all.is_empty()) {
        let _ = writeln!(text, "           at most {} for one call, of {action}", policies.len());
    }
    if let Some((name, count)) = bundle.engine().most_looked_up().filter(|(_, count)| *count > CROWD) {
        let what = "a call about it may evaluate them all";
        let _ = writeln!(text, "crowded    {count} policies of an action name one {name}: {what}");
    }
    let templates = bundle.unlinked_templates();
    if !templates.is_empty() {
        let templates: BTreeSet<String> = templates.iter().cloned().collect();
        let says = "a template does nothing until a *.links.json links it";
        let _ = writeln!(text, "unlinked   {} ({says})", names(&templates));
    }
    let grantable: BTreeSet<String> = bundle.engine().grantables().map(|it| it.info.id.clone()).collect();
    if !grantable.is_empty() {
        let _ = writeln!(text, "grants     of {}", names(&grantable));
    }
    let limits: BTreeSet<String> = bundle.limits().iter().map(|limit| limit.name.to_string()).collect();
    if !limits.is_empty() {
        let _ = writeln!(text, "limits     {}", names(&limits));
    }
    let unused: BTreeSet<String> = bundle.unused_limits().map(|limit| limit.name.to_string()).collect();
    if !unused.is_empty() {
        let _ = writeln!(text, "unused     {} (a limit does nothing until a permit names it: @limit)", names(&unused));
    }
    let priceless = bundle.limits().iter().filter_map(|limit| Some((limit, limit.cost.as_ref()?)));
    for (limit, cost) in priceless.filter(|(_, cost)| !bundle.has_argument(cost)).take(MAX_NAMES) {
        let says = format!("no registered tool has the argument {}: each call costs {}", cost.argument, cost.default);
        let _ = writeln!(text, "cost       of {}: {says}", limit.name);
    }
    let _ = writeln!(text, "targets    {} ({})", bundle.targets().len(), by_protocol.join(", "));
    let _ = writeln!(text, "tools      {tools}");
    let _ = writeln!(text, "agents     {} listed", bundle.store().listed_agents());
    // Nothing in a bundle says whether these exist: a reader may see that one is misspelled.
    let _ = writeln!(text, "named      trust domains: {}", names(&reference.named("TrustDomain")));
    let _ = writeln!(text, "           namespaces: {}", names(&reference.named("Namespace")));
    let _ = writeln!(text, "           agents: {}", names(&reference.named("Agent")));
    text += &trust_domains.map(|known| foreign(bundle, reference, known)).unwrap_or_default();
    text.push_str("the bundle is valid\n");
    text
}

/// What is named of trust domains that are none of these, a line each.
fn foreign(bundle: &Bundle, reference: &Reference, known: &[String]) -> String {
    let domain = |name: &str| {
        let name = name.strip_prefix("spiffe://").unwrap_or(name);
        name.split('/').next().unwrap_or_default().to_owned()
    };
    let unknown = |domain: &String| !known.contains(domain);
    let named = ["TrustDomain", "Namespace", "Agent"].into_iter().flat_map(|kind| reference.named(kind));
    let callers: BTreeSet<String> = named.map(|name| domain(&name)).filter(unknown).collect();
    let places = bundle.targets().iter().filter_map(|target| target.matches.destination_principal.as_deref());
    let places: BTreeSet<String> = places.map(domain).filter(unknown).collect();
    let mut text = String::new();
    if !callers.is_empty() {
        let says = "`identity.trust_domains` does not list: no caller is theirs";
        let _ = writeln!(text, "foreign    policies name agents of {}, which {says}", names(&callers));
    }
    if !places.is_empty() {
        let says = "`identity.trust_domains` does not list: is that the name of your mesh?";
        let _ = writeln!(text, "foreign    targets are workloads of {}, which {says}", names(&places));
    }
    text
}

fn names(all: &BTreeSet<String>) -> String {
    let mut text = all.iter().take(MAX_NAMES).map(String::as_str).collect::<Vec<_>>().join(", ");
    match all.len() {
        0 => text.push_str("none"),
        count if count > MAX_NAMES => {
            let _ = write!(text, " and {} more", count - MAX_NAMES);
        }
        _ => {}
    }
    text
}
