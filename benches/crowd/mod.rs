//! Bundles with many policies: some that apply to one call, and others about other agents, groups and tools.

use std::fmt::Write as _;
use std::path::Path;

use palisade::authz::policy::source::SourceFile;
use palisade::store::files;

/// How many policies apply to a `crm/query_customers` of the support bot.
pub const MATCHING: usize = 20;
/// How many of the others share a file, and a group.
const IN_ONE_FILE: usize = 500;

/// The schema, targets and tools of the repository's own bundle, with [`MATCHING`] policies and `others` more.
pub fn bundle(others: usize) -> Vec<SourceFile> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("cedar");
    let mut sources = files::read(&directory).expect("the default bundle");
    sources.retain(|file| !file.name.ends_with(".cedar"));
    sources.push(SourceFile { name: "matching.cedar".into(), bytes: matching().into_bytes() });
    let mut text = String::new();
    for number in 0..others {
        other(&mut text, number);
        if number % IN_ONE_FILE == IN_ONE_FILE - 1 || number == others - 1 {
            let name = format!("others/{:04}.cedar", number / IN_ONE_FILE);
            sources.push(SourceFile { name, bytes: std::mem::take(&mut text).into_bytes() });
        }
    }
    let groups: Vec<String> = (0..=others / 10)
        .map(|group| {
            format!(r#"{{"uid": {{"type": "AgentGroup", "id": "group-{group}"}}, "attrs": {{}}, "parents": []}}"#)
        })
        .collect();
    let bytes = format!("[{}]", groups.join(",\n")).into_bytes();
    sources.push(SourceFile { name: "groups.entities.json".into(), bytes });
    sources
}

/// The same with `others` links of two templates instead.
pub fn linked(others: usize) -> Vec<SourceFile> {
    let mut sources = bundle(0);
    let templates = r#"
        @id("reads") @reason("was granted")
        permit (principal == ?principal, action == Action::"crm/get_customer", resource == ?resource)
        when { context.local.hour >= 8 && context.local.hour < 18 };
        @id("banned") @reason("was banned")
        forbid (principal == ?principal, action, resource);
    "#;
    sources.push(SourceFile { name: "templates.cedar".into(), bytes: templates.into() });
    let links: Vec<String> = (0..others)
        .map(|number| {
            let agent = format!(r#"{{"type": "Agent", "id": "spiffe://example.org/ns/agents/sa/worker-{number}"}}"#);
            let (template, resource) = match number % 2 {
                0 => ("reads", r#", "?resource": {"type": "Tool", "id": "crm/get_customer"}"#),
                _ => ("banned", ""),
            };
            format!(r#"{{"templateId": "{template}", "newId": "link-{number}", "values": {{"?principal": {agent}{resource}}}}}"#)
        })
        .collect();
    let bytes = format!("[{}]", links.join(",\n")).into_bytes();
    sources.push(SourceFile { name: "grants.links.json".into(), bytes });
    sources
}

/// Permits and forbids of the usual kinds; each has to be evaluated, and the permits are satisfied.
fn matching() -> String {
    let mut text = String::new();
    for number in 0..MATCHING {
        let (effect, scope, condition) = match number % 4 {
            0 => (
                "permit",
                r#"principal == Agent::"spiffe://example.org/ns/agents/sa/support-bot", action == Action::"crm/query_customers", resource"#,
                "context.input has limit && context.input.limit <= 100",
            ),
            1 => (
                "forbid",
                r#"principal in Namespace::"example.org/agents", action in Action::"tools/call", resource"#,
                r#"resource has classification && resource.classification == "restricted""#,
            ),
            2 => (
                "forbid",
                r#"principal, action == Action::"crm/query_customers", resource in Server::"crm""#,
                "context.input has limit && context.input.limit > 1000",
            ),
            _ => (
                "forbid",
                r#"principal in TrustDomain::"example.org", action in Action::"tools/call", resource == Tool::"crm/query_customers""#,
                r#"principal.hasTag("suspended") && principal.getTag("suspended") == "yes""#,
            ),
        };
        let _ = writeln!(text, "@id(\"m{number}\") @reason(\"applies\") {effect} ({scope}) when {{ {condition} }};");
    }
    text
}

/// One of many: about an agent, a group or a tool that has nothing to do with the call that is measured.
fn other(text: &mut String, number: usize) {
    let agent = format!("Agent::\"spiffe://example.org/ns/agents/sa/worker-{}\"", number / 4);
    let (effect, principal, action, condition) = match number % 4 {
        0 => (
            "permit",
            format!("principal == {agent}"),
            "crm/query_customers",
            "context.input has limit && context.input.limit <= 50",
        ),
        1 => (
            "permit",
            format!("principal == {agent}"),
            "crm/get_customer",
            "context.local.hour >= 8 && context.local.hour < 18",
        ),
        2 => (
            "forbid",
            format!("principal in AgentGroup::\"group-{}\"", number / 10),
            "tools/call",
            r#"resource has classification && resource.classification == "restricted""#,
        ),
        _ => (
            "forbid",
            format!("principal == {agent}"),
            "tools/call",
            "resource has destructive && resource.destructive",
        ),
    };
    let action =
        if action == "tools/call" { format!("in Action::\"{action}\"") } else { format!("== Action::\"{action}\"") };
    let _ = write!(
        text,
        "@id(\"other-{number}\")\n@reason(\"Number {number} of the others\")\n{effect} ({principal}, action {action}, resource)\nwhen {{ {condition} }};\n\n"
    );
}
