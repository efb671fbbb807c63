//! The pure core: from a request and facts to a decision.
//!
//! No async, no I/O, no clock, no randomness, no logging, no environment: [`authorize`] is a function of
//! its arguments, so any decision can be replayed. The way of a request:
//!
//! ```text
//! Request ─▶ identity ─▶ target ─▶ call ─▶ policy (query, candidates, Cedar) ─▶ Decision
//! ```
//!
//! Each stage can only refuse or hand on; nothing but satisfied policies makes a [`decision::Permit`].

pub mod call;
pub mod comparison;
pub mod decision;
pub mod digest;
pub mod facts;
pub mod hex;
pub mod identity;
pub mod limits;
pub mod plain;
pub mod policy;
pub mod reason;
pub mod record;
pub mod request;
pub mod seal;
pub mod step_up;
pub mod target;
pub mod token;

use std::borrow::Cow;
use std::sync::Arc;

use call::http::canonical_path;
use call::{Call, ProtocolFacts, Reading, Resource};
use decision::{Decision, Denial, Evaluation, Permit, Verdict};
use facts::Facts;
use identity::spiffe::SpiffeId;
use identity::{Caller, Identity, IdentitySource};
use limits::Limits;
use plain::{MAX_NAME_BYTES, bounded};
use policy::demands::{Demands, Shown};
use policy::engine::{Answer, PolicyInfo};
use policy::parts::Parts;
use policy::server::Server;
use policy::{Bundle, Evaluated, Satisfied};
use reason::Reason;
use request::Request;
use seal::Seal;
use step_up::Bound;
use target::{Target, TokenUse};
use token::dpop::{self, Asked};
use token::holder::{Certificate, Peer};
use token::{Proved, Rules, Tokens};

/// The bundle in force. Before the first one is loaded there is still one: it denies.
#[derive(Debug, Default)]
pub enum Active {
    /// Nothing has been loaded.
    #[default]
    Missing,
    /// A validated bundle.
    Loaded(Box<Bundle>),
}

impl Active {
    /// The digest of the bundle; empty while there is none.
    #[must_use]
    pub fn digest(&self) -> &str {
        match self {
            Self::Missing => "",
            Self::Loaded(bundle) => bundle.digest(),
        }
    }
}

/// What is configured about deciding.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Trust domains whose workloads may be callers.
    pub trust_domains: Vec<String>,
    /// Bounds on what is read.
    pub limits: Limits,
    /// Which tokens are looked for, and believed.
    pub tokens: Arc<Rules>,
    /// Seals what clients are given to keep.
    pub seal: Seal,
}

/// Decides one check that arrived at a listener with this identity source.
pub fn authorize(
    active: &Active,
    settings: &Settings,
    source: IdentitySource,
    request: &Request<'_>,
    facts: &Facts,
) -> Decision {
    let Active::Loaded(bundle) = active else { return Decision::deny(Reason::BundleMissing) };
    let mut known = Decision::deny(Reason::InternalError);
    match read_known(bundle, settings, source, request, facts, &mut known) {
        Err(denial) => Decision { verdict: Verdict::Denial(denial), ..known },
        Ok((caller, server, reading)) => {
            let parts = Parts { request, reading: &reading, caller: &caller, server, facts, rules: &settings.tokens };
            let state = known.target.as_deref().map(|target| bound(settings, target, &caller.agent, facts));
            let (verdict, evaluations) = decide_all(bundle, &parts, state.as_ref());
            Decision { verdict, evaluations, reply: reading.reply, ..known }
        }
    }
}

/// What a request has to be before policies can be asked about it.
pub type Read<'a> = (Caller, &'a Server, Reading<'a>);

/// The stages before the policies. What is learnt on the way stays in `known`, also if a stage refuses.
fn read_known<'a>(
    bundle: &'a Bundle,
    settings: &Settings,
    source: IdentitySource,
    request: &'a Request<'a>,
    facts: &Facts,
    known: &mut Decision,
) -> Result<Read<'a>, Denial> {
    // The target is looked up first so that even a denial for identity is written in its protocol's words.
    let found = bundle.find_target(request);
    known.target = found.ok().flatten().map(|(target, _)| target.clone());
    let agent = match identity::identify(request, source, &settings.trust_domains) {
        Identity::Verified(agent) => agent,
        Identity::Absent => return Err(Reason::IdentityAbsent.into()),
        Identity::Failed { reason, detail } => return Err(Denial { detail: Some(detail), ..reason.into() }),
    };
    known.caller = Some(agent.clone());
    let certificate = match source {
        IdentitySource::SourcePrincipal => Certificate::Pem(&request.source_certificate),
        // The connection's is the waypoint's, whoever calls.
        IdentitySource::Xfcc => {
            let header = request.http.as_ref().map(|http| http.headers.single("x-forwarded-client-cert"));
            Certificate::Forwarded(header.and_then(Result::ok).flatten())
        }
    };
    let origins = known.target.as_deref().map_or(&[][..], |target| &target.origins);
    let now = facts.now.as_second();
    let peer = Peer { agent: &agent, certificate, asked: Asked { http: request.http.as_ref(), origins, now } };
    let proved = prove(known.target.as_deref(), settings, &facts.tokens, &peer);
    let wants_nonce = match &proved {
        Ok(proved) => proved.possession.is_some_and(|proof| proof.nonce_is_old),
        Err(denial) => dpop::is_for_a_nonce(denial.reason),
    };
    known.nonce = wants_nonce.then(|| settings.tokens.proofs.fresh_nonce(now)).flatten();
    let proved = proved.inspect_err(|_| known.refused = facts.tokens.are_for(&settings.tokens))?;
    known.possession = proved.possession;
    known.behalf = proved.user.as_ref().and_then(|user| user.behalf(&settings.tokens));
    let caller = Caller { agent, proved };
    let (target, server) = found?.ok_or(Reason::TargetUnknown)?;
    let reading = call::read(request, target, &settings.limits).map_err(|unreadable| {
        known.reply = unreadable.reply;
        Denial { detail: unreadable.detail.map(Cow::into_owned), ..unreadable.reason.into() }
    })?;
    let bound = bound(settings, target, &caller.agent, facts);
    if reading.calls.iter().any(|call| bound.is_misused(call)) {
        known.reply = reading.reply;
        return Err(Reason::RequestStateInvalid.into());
    }
    Ok((caller, server, reading))
}

fn bound<'a>(settings: &'a Settings, target: &'a Target, agent: &'a SpiffeId, facts: &Facts) -> Bound<'a> {
    Bound { seal: &settings.seal, agent, target, now: facts.now.as_second() }
}

/// What the tokens of a request prove, by the rules of its target.
fn prove(target: Option<&Target>, settings: &Settings, tokens: &Tokens, peer: &Peer<'_>) -> Result<Proved, Denial> {
    let Some(target) = target else { return Ok(token::hold(tokens, &settings.tokens, peer)?) };
    if target.tokens == TokenUse::Ignore {
        return Ok(Proved::default());
    }
    let proved = token::hold(tokens, &settings.tokens, peer)?;
    proved.is_for(&target.audiences)?;
    if target.tokens == TokenUse::Require && proved.speaks().is_none() {
        // Whoever has no token yet learns from the metadata where to get one (RFC 9728).
        let path = peer.asked.http.and_then(|http| canonical_path(&http.path).ok());
        if !path.is_some_and(|path| target.has_metadata_at(&path)) {
            return Err(Reason::TokenAbsent.into());
        }
    }
    Ok(proved)
}

/// Decides every call of the request. The first denial denies all.
fn decide_all(bundle: &Bundle, parts: &Parts<'_>, state: Option<&Bound<'_>>) -> (Verdict, Vec<Evaluation>) {
    let mut evidence = Vec::with_capacity(1);
    let mut evaluations = Vec::with_capacity(1);
    for call in &parts.reading.calls {
        let (outcome, evaluation) = decide_one(bundle, parts, call);
        evaluations.push(evaluation);
        match outcome {
            Ok(satisfied) => evidence.push(satisfied),
            Err(mut denial) => {
                if denial.reason == Reason::StepUpRequired {
                    denial.state = state.and_then(|state| state.state_for(call));
                }
                return (Verdict::Denial(denial), evaluations);
            }
        }
    }
    let verdict = match Permit::new(evidence) {
        Some(permit) => Verdict::Permit(permit),
        // A reading always has a call; one without would have no evidence.
        None => Verdict::Denial(Reason::InternalError.into()),
    };
    (verdict, evaluations)
}

fn decide_one(bundle: &Bundle, parts: &Parts<'_>, call: &Call<'_>) -> (Result<Satisfied, Denial>, Evaluation) {
    let mut evaluation = describe(call);
    let query = match bundle.query(parts, call, None) {
        Ok(query) => query,
        Err(refused) => {
            return (Err(Denial { detail: refused.detail, ..refused.reason.into() }), evaluation);
        }
    };
    evaluation.resource = Some(query.resource().uid().clone());
    let answer = bundle.engine().decide(&query);
    evaluation.evaluated = Evaluated::of(bundle.engine().clone(), query);
    let outcome = match answer {
        Answer::Permitted(satisfied) => hold_to_demands(satisfied, &shown(parts), &mut evaluation),
        Answer::Forbidden { forbids, permits, failures } => {
            let message = forbids.iter().find_map(|policy| policy.message.as_deref().map(str::to_owned));
            let demands = if failures.is_empty() { lifting(&forbids, &permits, &shown(parts)) } else { None };
            evaluation.policies = forbids;
            evaluation.failures = failures;
            Err(Denial {
                message,
                ..demands.map_or(Reason::PolicyForbids.into(), |demands| challenged(&shown(parts), demands))
            })
        }
        Answer::Failed(failures) => {
            evaluation.failures = failures;
            Err(Reason::PolicyError.into())
        }
        Answer::NotPermitted => Err(Reason::NoPolicyPermits.into()),
        Answer::Broken => Err(Reason::InternalError.into()),
    };
    (outcome, evaluation)
}

/// What the caller's token shows to policies that demand something of it.
fn shown<'p>(parts: &Parts<'p>) -> Shown<'p> {
    Shown { claims: parts.caller.proved.says(), now: parts.facts.now.as_second() }
}

/// Lets those permits count alone whose demands are met. Without any, the first one says what would do.
fn hold_to_demands(satisfied: Satisfied, shown: &Shown<'_>, evaluation: &mut Evaluation) -> Result<Satisfied, Denial> {
    let (kept, demanding) = satisfied.keep(|policy| unmet(policy, shown).is_none());
    let first = demanding.iter().find_map(|policy| unmet(policy, shown));
    evaluation.demanding = demanding;
    let Some(satisfied) = kept else { return Err(challenged(shown, first.unwrap_or_default())) };
    evaluation.policies = satisfied.permits().to_vec();
    Ok(satisfied)
}

/// What would lift forbids, where each of them says what, and it is not met: all of that, and what the permits demand that they
/// overrule, for nobody should log in anew only to be refused again.
fn lifting(forbids: &[Arc<PolicyInfo>], permits: &[Arc<PolicyInfo>], shown: &Shown<'_>) -> Option<Demands> {
    let lifted = forbids.iter().try_fold(Demands::default(), |all, policy| all.and(&unmet(policy, shown)?))?;
    let least = permits.iter().map(|policy| unmet(policy, shown).unwrap_or_default()).min_by_key(Demands::is_any)?;
    lifted.and(&least)
}

/// What of a policy's demands is not met, if anything is not.
fn unmet(policy: &PolicyInfo, shown: &Shown<'_>) -> Option<Demands> {
    policy.demands.as_ref().map(|demands| demands.unmet(shown)).filter(Demands::is_any)
}

/// The denial of a caller that has to come back with another token.
fn challenged(shown: &Shown<'_>, demands: Demands) -> Denial {
    let reason = if shown.claims.is_none() {
        Reason::TokenAbsent
    } else if demands.is_login() {
        Reason::StepUpRequired
    } else {
        Reason::ScopeInsufficient
    };
    Denial { demands: Some(Box::new(demands)), ..reason.into() }
}

fn describe(call: &Call<'_>) -> Evaluation {
    Evaluation {
        action: bounded(&call.action, MAX_NAME_BYTES),
        resource: None,
        method: call.method.as_deref().map(|method| bounded(method, MAX_NAME_BYTES)),
        tool: match &call.resource {
            Resource::Tool(name) => Some(bounded(name, MAX_NAME_BYTES)),
            Resource::Server | Resource::Endpoint(_) => None,
        },
        protocol_version: match &call.facts {
            ProtocolFacts::Mcp { protocol_version, .. } => protocol_version.clone(),
            ProtocolFacts::None | ProtocolFacts::A2a { .. } => None,
        },
        id: call.id.clone(),
        policies: Vec::new(),
        demanding: Vec::new(),
        failures: Vec::new(),
        evaluated: Evaluated::default(),
    }
}

/// A request read up to the questions it puts, for explanations.
///
/// # Errors
/// The denial that [`authorize`] gives before any policy is asked.
pub fn read<'a>(
    bundle: &'a Bundle,
    settings: &Settings,
    source: IdentitySource,
    request: &'a Request<'a>,
    facts: &Facts,
) -> Result<Read<'a>, Denial> {
    read_known(bundle, settings, source, request, facts, &mut Decision::deny(Reason::InternalError))
}
