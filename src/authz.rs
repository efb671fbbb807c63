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
pub mod control;
pub mod decision;
pub mod digest;
pub mod facts;
pub mod held;
pub mod hex;
pub mod identity;
pub mod intent;
pub mod limits;
pub mod metering;
pub mod percent;
pub mod plain;
pub mod policy;
pub mod protobuf;
pub mod reason;
pub mod record;
pub mod request;
pub mod seal;
pub mod secret;
pub mod state;
pub mod step_up;
pub mod target;
pub mod token;
pub mod traceparent;
mod verdict;

use std::borrow::Cow;
use std::sync::Arc;

use call::http::canonical_path;
use call::json_rpc::Reply;
use call::{Reading, Unreadable};
use decision::{Decision, Denial, Verdict};
use facts::Facts;
use held::Held;
use identity::{Caller, Identity, IdentitySource};
use limits::Limits;
use policy::Bundle;
use policy::parts::Parts;
use policy::server::Server;
use reason::{Challenge, Reason};
use request::{HttpRequest, OWN_HEADERS, Request};
use seal::Seal;
use step_up::Sealer;
use target::{ChainUse, Protocol, Target, TokenUse};
use token::challenge;
use token::dpop::Expected;
use token::holder::{Certificate, Peer};
use token::{Proved, Rules, Tokens};
use verdict::decide_all;

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

    /// What the target of a request speaks; `None` if it is for none, or that cannot be said.
    #[must_use]
    pub fn protocol_of(&self, request: &Request<'_>) -> Option<Protocol> {
        let Self::Loaded(bundle) = self else { return None };
        bundle.find_target(request).ok().flatten().map(|(target, _)| target.protocol)
    }

    /// Whether a decision can rest on the tokens of a request, so that they have to be verified: not without a caller, without a
    /// bundle, or where they are the target's business alone.
    #[must_use]
    pub fn rests_on_tokens(&self, settings: &Settings, source: IdentitySource, request: &Request<'_>) -> bool {
        let Self::Loaded(bundle) = self else { return false };
        matches!(identity::identify(request, source, &settings.trust_domains), Identity::Verified(_))
            && !bundle.ignores_tokens(request)
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
    let verdict = match read_known(bundle, settings, source, request, facts, &mut known) {
        Err(denial) => Verdict::Denial(denial),
        Ok(((caller, server, reading), sealer)) => {
            let parts = Parts { request, reading: &reading, caller: &caller, server, facts, rules: &settings.tokens };
            let (verdict, evaluations) = decide_all(bundle, &parts, &sealer);
            known.body_sha256 = reading.body.digest_if_asked();
            (known.evaluations, known.reply) = (evaluations, reading.reply);
            let passes = known.target.as_deref().is_some_and(|target| target.chain == ChainUse::Pass);
            let has_chains = settings.tokens.chain_headers().next().is_some();
            known.withheld = (!passes && has_chains).then(|| settings.tokens.clone());
            verdict
        }
    };
    if let Verdict::Denial(denial) = &verdict {
        let (challenge, target) = (denial.reason.wire().challenge, known.target.as_deref());
        known.schemes = challenge::schemes(challenge, request.http.as_ref(), target, &settings.tokens);
    }
    Decision { verdict, ..known }
}

/// What a request has to be before policies can be asked about it.
pub type Read<'a> = (Caller, &'a Server, Reading<'a>);

/// The stages before the policies. What is learnt on the way stays in `known`, also if a stage refuses.
fn read_known<'a>(
    bundle: &'a Bundle,
    settings: &'a Settings,
    source: IdentitySource,
    request: &'a Request<'a>,
    facts: &Facts,
    known: &mut Decision,
) -> Result<(Read<'a>, Sealer<'a>), Denial> {
    // The target is looked up first so that even a denial for identity is written in its protocol's words.
    let found = bundle.find_target(request);
    known.target = found.ok().flatten().map(|(target, _)| target.clone());
    known.reply = known.target.as_deref().map(|target| call::reply(target, request.http.as_ref())).unwrap_or_default();
    let held = Held::of(&facts.state.holds, facts.now);
    if let Some(held) = held {
        held.everything(bundle.digest())?;
        held.called(known.target.as_deref().map(|target| &*target.name), &request.destination_principal)?;
    }
    if facts.state.doubt.holds {
        return Err(Reason::StateUnavailable.into());
    }
    let agent = match identity::identify(request, source, &settings.trust_domains) {
        Identity::Verified(agent) => agent,
        Identity::Absent => return Err(Reason::IdentityAbsent.into()),
        Identity::Failed { reason, detail } => return Err(Denial { detail: Some(detail), ..reason.into() }),
    };
    known.caller = Some(agent.clone());
    if let Some(held) = held {
        held.agent(&agent)?;
        held.tokens(&facts.tokens, &settings.tokens)?;
    }
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
    let peer = Peer { agent: &agent, certificate, expected: Expected { http: request.http.as_ref(), origins, now } };
    let proved = prove(known.target.as_deref(), settings, &facts.tokens, &peer);
    let wants_nonce = match &proved {
        Ok(proved) => proved.possession.is_some_and(|proof| proof.nonce_is_old),
        Err(denial) => denial.reason.wire().challenge == Challenge::NONCE,
    };
    known.nonce = wants_nonce.then(|| settings.tokens.proofs.fresh_nonce(now)).flatten();
    let proved = proved?;
    known.possession = proved.possession;
    known.behalf = proved.user.as_ref().and_then(|user| user.behalf(&settings.tokens));
    let caller = Caller { agent, proved };
    let (target, server) = found?.ok_or(Reason::TargetUnknown)?;
    if request.http.as_ref().is_some_and(|http| mimics_withheld(http, &settings.tokens)) {
        return Err(Reason::HeaderOverride.into());
    }
    let reading =
        call::read(request, target, &settings.limits, &|tool| server.mirrors(tool)).map_err(|unreadable| {
            let Unreadable { reason, detail, reply, requested } = unreadable;
            if reply != Reply::None {
                known.reply = reply;
            }
            Denial { detail: detail.map(Cow::into_owned), requested, ..reason.into() }
        })?;
    known.task = reading.task.map(str::to_owned);
    if let Some(held) = held {
        let calls = reading.calls.iter();
        calls.clone().try_for_each(|call| held.call(&target.name, call, reading.task)).inspect_err(|_| {
            known.reply = reading.reply.clone();
        })?;
    }
    let sealer = Sealer { seal: &settings.seal, agent: caller.agent.clone(), target, now };
    if reading.calls.iter().any(|call| sealer.is_misused(call)) {
        known.reply = reading.reply;
        return Err(Reason::RequestStateInvalid.into());
    }
    Ok(((caller, server, reading), sealer))
}

/// Whether a header is, but for `_`, one that ends at the proxy: some servers take one for the other, and the proxy does not. This
/// holds whatever the target's protocol is, and whether it has its tokens looked at or not.
fn mimics_withheld(http: &HttpRequest<'_>, rules: &Rules) -> bool {
    http.headers.with_underscores().any(|name| {
        let name = name.replace('_', "-");
        name.starts_with(OWN_HEADERS) || rules.chain_headers().any(|header| header == name)
    })
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
        let path = peer.expected.http.and_then(|http| canonical_path(&http.path).ok());
        if !path.is_some_and(|path| target.has_metadata_at(path)) {
            return Err(Reason::TokenAbsent.into());
        }
    }
    Ok(proved)
}

/// A request read up to the questions it puts, for explanations.
///
/// # Errors
/// The denial that [`authorize`] gives before any policy is asked.
pub fn read<'a>(
    bundle: &'a Bundle,
    settings: &'a Settings,
    source: IdentitySource,
    request: &'a Request<'a>,
    facts: &Facts,
) -> Result<Read<'a>, Denial> {
    let read = read_known(bundle, settings, source, request, facts, &mut Decision::deny(Reason::InternalError));
    read.map(|(read, _)| read)
}
