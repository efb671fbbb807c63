//! `palisade check`: decide one recorded check offline, and explain; or check a bundle alone.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;

use super::offline::{self, Looked};
use super::{complain, exit, print, summary};
use crate::authz::decision::{Decision, Verdict};
use crate::authz::facts::Facts;
use crate::authz::identity::{IdentitySource, xfcc};
use crate::authz::limits::Limits;
use crate::authz::policy::cedar::id_of;
use crate::authz::policy::engine::Part;
use crate::authz::policy::needs::Needs;
use crate::authz::policy::parts::Parts;
use crate::authz::policy::{Bundle, PolicyInfo, Reference};
use crate::authz::request::Request;
use crate::authz::seal::Seal;
use crate::authz::{self, Active, Settings};
use crate::capture::Capture;
use crate::config::Config;
use crate::envoy::response;
use crate::store::loader::{Loader, Patience};

/// Check a bundle, or decide one recorded check offline and explain it
///
/// `palisade check --bundle DIR` says what is in the bundle, or which mistake would keep it from being loaded, in
/// which file and line. `palisade check REQUEST.json --bundle DIR` says how the bundle decides that request, and what
/// every policy has to do with it.
///
/// Exit codes: 0 permit, or a valid bundle; 10 denial; 11 unreadable request (also a denial); 12 permit, but the
/// request carries tokens that were not verified, so the server may deny it; 1 failure, also a bundle with a mistake; 2
/// wrong command line.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// A CheckRequest as JSON, as `serve --record` writes it; `-` reads standard input
    #[arg(value_name = "REQUEST.json")]
    request: Option<PathBuf>,
    /// The bundle directory
    #[arg(long, value_name = "DIR")]
    bundle: PathBuf,
    /// Take trust domains, limits, zone, the budget of the bundle and the rules of tokens from this configuration, and
    /// keys from the files that it names; without it the caller's trust domain is taken as configured, and no token
    /// looked for
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Take the identity from x-forwarded-client-cert, as a listener with identity = "xfcc" does; a capture of
    /// such a listener says so itself
    #[arg(long, requires = "request")]
    xfcc: bool,
    /// Decide as of this moment, e.g. 2026-03-04T10:15:00Z [default: the capture's, else now]
    #[arg(long, value_name = "TIME", requires = "request")]
    now: Option<Timestamp>,
    /// List every policy of the bundle, also where many are not asked for the same reason
    #[arg(long, requires = "request")]
    all: bool,
}

/// Most policies that are listed for one reason why they were not asked.
const MAX_OTHERS: usize = 20;

/// Runs the command.
#[must_use]
pub fn run(arguments: &Arguments) -> u8 {
    let checked = match &arguments.request {
        Some(request) => check(arguments, request),
        None => summarise(arguments).map(|text| (text, exit::OK)),
    };
    match checked {
        Ok((text, code)) => print(&text, code),
        Err(message) => {
            complain(&message);
            exit::FAILURE
        }
    }
}

fn check(arguments: &Arguments, request: &Path) -> Result<(String, u8), String> {
    let (captured, request) = read_request(request)?;
    let (bundle, reference) = load_bundle(arguments)?;
    let identity = if arguments.xfcc { IdentitySource::Xfcc } else { captured.identity.unwrap_or_default() };
    let (settings, zone) = settings(arguments, identity, &request)?;
    let active = Active::Loaded(Box::new(bundle));
    #[expect(clippy::disallowed_methods, reason = "a command decides as of now unless told otherwise")]
    let now = arguments.now.or(captured.time).map_or_else(|| Timestamp::try_from(std::time::SystemTime::now()), Ok);
    let now = now.map_err(|error| error.to_string())?;
    let Looked { tokens, note, unverified } = match &arguments.config {
        Some(config) if active.rests_on_tokens(&settings, identity, &request) => {
            offline::tokens(config, &settings, &request, now, captured.redacted)?
        }
        _ => Looked::default(),
    };
    let facts = Facts { zone, tokens, ..Facts::at(now) };

    let decision = authz::authorize(&active, &settings, identity, &request, &facts);
    let Active::Loaded(bundle) = &active else { return Err("no bundle".into()) };
    let mut text = String::new();
    if captured.redacted {
        text.push_str("note: values were taken out of this capture; with them it may decide otherwise\n");
    }
    text.extend(note.map(|note| format!("note: {note}\n")));
    describe(&mut text, &decision, bundle, &facts, unverified);
    let asked = Asked { settings: &settings, identity, request: &request, facts: &facts, all: arguments.all };
    explain_policies(&mut text, bundle, &reference, &asked)?;
    describe_answer(&mut text, &decision);
    let code = match decision.reason() {
        None if unverified => exit::UNVERIFIED,
        None => exit::OK,
        Some(reason) if reason.is_unreadable() => exit::UNREADABLE,
        Some(_) => exit::DENIAL,
    };
    Ok((text, code))
}

/// What a capture says beside the request.
struct Captured {
    redacted: bool,
    identity: Option<IdentitySource>,
    time: Option<Timestamp>,
}

fn read_request(path: &Path) -> Result<(Captured, Request<'static>), String> {
    let text =
        if path.as_os_str() == "-" { std::io::read_to_string(std::io::stdin()) } else { std::fs::read_to_string(path) };
    let at = |error: String| format!("{}: {error}", path.display());
    let capture = Capture::parse(&text.map_err(|error| at(format!("cannot be read: {error}")))?).map_err(at)?;
    let captured = Captured { redacted: capture.redacted, identity: capture.identity, time: capture.time };
    Ok((captured, capture.request().map_err(at)?))
}

fn load_bundle(arguments: &Arguments) -> Result<(Bundle, Reference), String> {
    let directory = arguments.bundle.as_path();
    let config = arguments.config.as_deref().map(Config::load).transpose().map_err(|error| error.to_string())?;
    let budget = config.as_ref().map(|config| config.bundle.max_unindexed_policies);
    let loader = budget.map_or_else(Loader::default, |budget| Loader::new(false, budget));
    let loaded = loader.load_with_reference(directory, Patience::START);
    let (bundle, reference) = loaded.map_err(|error| format!("bundle {}: {error}", directory.display()))?;
    let mut servers = config.iter().flat_map(|config| &config.tool_server);
    let path = arguments.config.as_deref().unwrap_or(directory);
    servers
        .try_for_each(|server| server.check_target(&bundle))
        .map_err(|error| format!("{}: {error}", path.display()))?;
    Ok((bundle, reference))
}

fn summarise(arguments: &Arguments) -> Result<String, String> {
    let (bundle, reference) = load_bundle(arguments)?;
    let config = arguments.config.as_deref().map(Config::load).transpose().map_err(|error| error.to_string())?;
    let trust_domains = config.as_ref().map(|config| config.identity.trust_domains.as_slice());
    Ok(summary::of(&bundle, &reference, trust_domains))
}

fn settings(
    arguments: &Arguments,
    identity: IdentitySource,
    request: &Request<'_>,
) -> Result<(Settings, jiff::tz::TimeZone), String> {
    if let Some(path) = &arguments.config {
        let config = Config::load(path).map_err(|error| error.to_string())?;
        let (zone, tokens) = (config.zone(), Arc::new(config.tokens()));
        return Ok((
            Settings {
                trust_domains: config.identity.trust_domains,
                limits: config.limits,
                tokens,
                seal: Seal::default(),
            },
            zone,
        ));
    }
    let peer = if identity == IdentitySource::Xfcc {
        let header =
            request.http.as_ref().and_then(|http| http.headers.single("x-forwarded-client-cert").ok().flatten());
        header.and_then(|header| xfcc::last_uri(header).ok().flatten()).unwrap_or_default()
    } else {
        request.source_principal.to_string()
    };
    let own = peer.strip_prefix("spiffe://").and_then(|rest| rest.split('/').next());
    let trust_domains = own.map(str::to_owned).into_iter().collect();
    Ok((
        Settings { trust_domains, limits: Limits::default(), tokens: Arc::default(), seal: Seal::default() },
        jiff::tz::TimeZone::UTC,
    ))
}

fn describe(text: &mut String, decision: &Decision, bundle: &Bundle, facts: &Facts, unverified: bool) {
    let verdict = match &decision.verdict {
        Verdict::Permit(_) => "PERMIT".to_owned(),
        Verdict::Denial(denial) => {
            let detail = denial.detail.as_ref().map_or_else(String::new, |detail| format!(": {detail}"));
            format!("DENIAL ({}){detail}", denial.reason)
        }
    };
    let caller = decision.caller.as_ref().map_or("not verified", |agent| agent.as_str());
    let target = decision
        .target
        .as_ref()
        .map_or_else(|| "none matched".to_owned(), |target| format!("{} ({})", target.name, target.protocol.as_str()));
    let local = facts.local();
    let but = if unverified { "; tokens not verified" } else { "" };
    let _ = writeln!(text, "verdict    {verdict}{but}");
    let _ = writeln!(text, "caller     {caller}");
    let _ = writeln!(text, "target     {target}");
    let _ = writeln!(
        text,
        "time       {} (local {:02}:{:02}, weekday {})",
        facts.now, local.hour, local.minute, local.weekday
    );
    let _ = writeln!(text, "bundle     {} ({} policies)", bundle.digest(), bundle.engine().len());
}

/// What a decision was made from, besides the bundle.
struct Asked<'a> {
    settings: &'a Settings,
    identity: IdentitySource,
    request: &'a Request<'a>,
    facts: &'a Facts,
    /// Whether every policy is listed.
    all: bool,
}

/// Every call with every policy's part in it, and what Cedar's own authorizer says over all policies.
fn explain_policies(
    text: &mut String,
    bundle: &Bundle,
    reference: &Reference,
    asked: &Asked<'_>,
) -> Result<(), String> {
    let Asked { settings, identity, request, facts, all } = *asked;
    let Ok((caller, server, reading)) = authz::read(bundle, settings, identity, request, facts) else {
        return Ok(());
    };
    let parts = Parts { request, reading: &reading, caller: &caller, server, facts, rules: &settings.tokens };
    for (at, call) in reading.calls.iter().enumerate() {
        let number = if reading.calls.len() > 1 { format!(" {}", at + 1) } else { String::new() };
        let queries = (bundle.query(&parts, call, None), bundle.query(&parts, call, Some(Needs::ALL)));
        let (Ok(query), Ok(for_reference)) = queries else {
            let _ = writeln!(text, "call{number:<7}Action::\"{}\"", call.action);
            continue;
        };
        let action = bundle.engine().action_uid(query.action()).map_or(&*call.action, id_of);
        let _ = writeln!(text, "call{number:<7}Action::\"{action}\"");
        let _ = writeln!(text, "resource   {}", query.resource().uid());
        describe_parts(text, &bundle.engine().explain(&query), all);
        let grantable: Vec<&str> = bundle.engine().grantables().map(|template| template.info.id.as_str()).collect();
        if !grantable.is_empty() {
            let _ =
                writeln!(text, "grants     none is known here; templates that one may link: {}", grantable.join(", "));
        }
        match reference.decide(bundle, &for_reference) {
            Ok(response) => {
                let reasons: Vec<String> =
                    response.diagnostics().reason().map(|id| AsRef::<str>::as_ref(id).to_owned()).collect();
                let _ = writeln!(
                    text,
                    "reference  Cedar's authorizer over all policies: {:?} [{}], {} errors",
                    response.decision(),
                    reasons.join(", "),
                    response.diagnostics().errors().count(),
                );
            }
            Err(error) => return Err(format!("Cedar's authorizer refuses the request: {error}")),
        }
    }
    Ok(())
}

/// The candidates, each with what led to it; then the others, of which there may be thousands.
fn describe_parts(text: &mut String, parts: &[(Arc<PolicyInfo>, Part)], all: bool) {
    let mut others: BTreeMap<&str, Vec<&PolicyInfo>> = BTreeMap::new();
    let mut candidates = Vec::new();
    for (policy, part) in parts {
        match part {
            Part::Candidate(why, outcome) => candidates.push((policy, why, outcome)),
            Part::OutOfScope(why) => others.entry(why).or_default().push(policy),
        }
    }
    let effect = |policy: &PolicyInfo| if policy.forbids { "forbid" } else { "permit" };
    let _ = writeln!(text, "candidates {} of {} policies", candidates.len(), parts.len());
    // What decides first; the others in the order of the bundle.
    candidates.sort_by_key(|(.., outcome)| **outcome == Ok(false));
    let decisive = candidates.iter().filter(|(.., outcome)| **outcome != Ok(false)).count();
    let listed = if all { candidates.len() } else { decisive + MAX_OTHERS };
    for (policy, why, outcome) in candidates.iter().take(listed) {
        let effect = effect(policy);
        let (mark, said) = match outcome {
            Ok(true) if policy.demands.is_some() && !policy.forbids => {
                ("=>", format!("permits a token that meets what it demands: {}", policy.reason))
            }
            Ok(true) => ("=>", format!("{effect}s{}: {}", within(policy), policy.reason)),
            Ok(false) => ("  ", format!("{effect}, its conditions do not hold")),
            Err(error) => ("!!", format!("{effect}, failed: {error}")),
        };
        let link = policy.template.as_ref().map_or_else(String::new, |template| format!(", a link of {template}"));
        let _ = writeln!(text, "  {mark} {:<34} {said}", policy.id);
        let _ = writeln!(text, "     {:<34} asked for {why}{link}", "");
    }
    if let Some(more) = candidates.len().checked_sub(listed).filter(|more| *more > 0) {
        let _ = writeln!(text, "     and {more} whose conditions do not hold; --all lists them");
    }
    for (why, policies) in others {
        let listed = if all || policies.len() <= MAX_OTHERS { policies.len() } else { 0 };
        for policy in policies.iter().take(listed) {
            let _ = writeln!(text, "   - {:<34} {}, for {why}", policy.id, effect(policy));
        }
        if listed == 0 {
            let _ = writeln!(text, "   - {} policies for {why}; --all lists them", policies.len());
        }
    }
}

/// Of which limits a permit takes, which are not counted here.
fn within(policy: &PolicyInfo) -> String {
    let names: Vec<&str> = policy.limits.iter().map(|limit| &*limit.name).collect();
    if names.is_empty() { String::new() } else { format!(", within {} (not counted here)", names.join(", ")) }
}

fn describe_answer(text: &mut String, decision: &Decision) {
    use envoy_types::pb::envoy::service::auth::v3::check_response::HttpResponse;
    let answer = response::build(decision, "00000000-0000-7000-8000-000000000000").message();
    let code = answer.status.as_ref().map_or(-1, |status| status.code);
    match answer.http_response {
        Some(HttpResponse::DeniedResponse(denied)) => {
            let status = denied.status.map_or(0, |status| status.code);
            let _ = writeln!(text, "answer     denied (gRPC status {code}), HTTP {status}: {}", denied.body);
        }
        _ => {
            let _ = writeln!(
                text,
                "answer     OK (gRPC status {code}), {} and {} set for the upstream",
                response::AGENT,
                response::DECISION_ID
            );
        }
    }
}
