//! What was decided. A [`Permit`] can only be made from the evidence of satisfied policies, and the wire
//! answer "OK" only from a [`Permit`].

use std::borrow::Cow;
use std::sync::Arc;

use super::call::json_rpc::Reply;
use super::identity::spiffe::SpiffeId;
use super::intent::Intent;
use super::metering::Take;
use super::plain::{MAX_NAME_BYTES, bounded, parameters};
use super::policy::cedar::{EntityUID, id_of, text_of, uid};
use super::policy::demands::Demands;
use super::policy::{Evaluated, Failure, PolicyInfo, Satisfied};
use super::reason::Reason;
use super::state::grant::Grant;
use super::target::Target;
use super::token::dpop::Proven;
use super::token::presented::Scheme;
use super::token::verified::Behalf;
use super::token::{Believed, Rules};
use super::traceparent::TraceParent;

/// The outcome of one check, with what is known for record, span and answer.
#[must_use]
#[derive(Clone, Debug)]
pub struct Decision {
    /// Permit or denial.
    pub verdict: Verdict,
    /// The workload that asks, where it could be verified.
    pub caller: Option<SpiffeId>,
    /// For whom it asks, where a token proves that.
    pub behalf: Option<Arc<Behalf>>,
    /// The tokens that came with the request, if each of them is right in itself: for the record.
    pub tokens: Vec<Believed>,
    /// The target, where one matched.
    pub target: Option<Arc<Target>>,
    /// The task that the request says it is for.
    pub task: Option<String>,
    /// SHA-256 of the body, if a policy read it.
    pub body_sha256: Option<[u8; 32]>,
    /// One entry per call that reached the policies.
    pub evaluations: Vec<Evaluation>,
    /// How the answer is addressed.
    pub reply: Reply,
    /// The proof that it rests on, which has to be used up.
    pub possession: Option<Proven>,
    /// What the caller is to put into its next proof.
    pub nonce: Option<String>,
    /// The rules whose headers with tokens of the agents before the caller end at the proxy; `None` if the target gets them.
    pub withheld: Option<Arc<Rules>>,
    /// The schemes of the challenge for another token, where there is one.
    pub schemes: &'static [Scheme],
}

/// Permit or denial.
#[derive(Clone, Debug)]
pub enum Verdict {
    /// Every call is permitted by policies.
    Permit(Permit),
    /// At least one is not, or nothing could be decided.
    Denial(Denial),
}

/// The right to pass, with the policies that earned it.
#[derive(Clone, Debug)]
pub struct Permit {
    evidence: Vec<Satisfied>,
}

impl Permit {
    /// A permit for calls that each have their evidence; `None` without any.
    #[must_use]
    pub fn new(evidence: Vec<Satisfied>) -> Option<Self> {
        (!evidence.is_empty()).then_some(Self { evidence })
    }

    /// The policies that were satisfied, call by call.
    pub fn policies(&self) -> impl Iterator<Item = &Arc<PolicyInfo>> {
        self.evidence.iter().flat_map(Satisfied::permits)
    }
}

/// A refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denial {
    /// Why, for everybody.
    pub reason: Reason,
    /// `@message` of the forbid that decided, for the caller.
    pub message: Option<String>,
    /// More, for the operator: names places, never values.
    pub detail: Option<String>,
    /// What of the demands of policies is not met, where meeting it would do.
    pub demands: Option<Box<Demands>>,
    /// The id of the hold that stopped it.
    pub hold: Option<Box<str>>,
    /// In how many seconds it may pass, where that is known.
    pub retry_after: Option<u32>,
    /// With what a client comes back that is asked for a login inside the protocol.
    pub state: Option<Box<str>>,
    /// The protocol's revision that the client asked for, if it is one that nobody knows here.
    pub requested: Option<Box<str>>,
}

impl From<Reason> for Denial {
    fn from(reason: Reason) -> Self {
        Self {
            reason,
            message: None,
            detail: None,
            demands: None,
            hold: None,
            retry_after: None,
            state: None,
            requested: None,
        }
    }
}

/// What the policies said about one call.
#[derive(Clone, Debug)]
pub struct Evaluation {
    /// Cedar action id.
    pub action: String,
    /// Cedar resource; absent where the query could not be put. Written out only after the answer has left.
    pub resource: Option<EntityUID>,
    /// The protocol's own method.
    pub method: Option<String>,
    /// The tool's name at its server.
    pub tool: Option<String>,
    /// The protocol version, where it was stated.
    pub protocol_version: Option<String>,
    /// The protocol's session, where it was stated: for its digest, and for nobody's eyes.
    pub session: Option<String>,
    /// The span that the client says it is in, in the message itself.
    pub trace: Option<TraceParent>,
    /// The JSON-RPC id, as JSON text.
    pub id: Option<String>,
    /// What it would do beyond what is said here: for the record.
    pub intent: Option<Box<Intent>>,
    /// The policies that decided: satisfied forbids, else satisfied permits.
    pub policies: Vec<Arc<PolicyInfo>>,
    /// Permits that were satisfied but for what they demand of the caller's token.
    pub demanding: Vec<Arc<PolicyInfo>>,
    /// What the permits take, of which one has to be had; empty if one of them takes nothing.
    pub prices: Vec<Price>,
    /// What was taken of limits for it to pass: names and units.
    pub taken: Vec<(Arc<str>, u64)>,
    /// Policies that failed.
    pub failures: Vec<Failure>,
    /// The policies that were evaluated.
    pub evaluated: Evaluated,
}

/// What a permit takes for it to count: a call of a grant, units of limits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Price {
    /// The permit.
    pub policy: Arc<PolicyInfo>,
    /// Grants of one of which a call is taken, in this order; empty for a permit that is none's.
    pub grants: Vec<Arc<Grant>>,
    /// What is taken of limits: all of it.
    pub takes: Vec<Take>,
}

impl Evaluation {
    /// Of an action, of which nothing more is known.
    #[must_use]
    pub fn about(action: String) -> Self {
        Self {
            action,
            resource: None,
            method: None,
            tool: None,
            protocol_version: None,
            session: None,
            trace: None,
            id: None,
            intent: None,
            policies: Vec::new(),
            demanding: Vec::new(),
            prices: Vec::new(),
            taken: Vec::new(),
            failures: Vec::new(),
            evaluated: Evaluated::default(),
        }
    }

    /// The resource as `Type::"id"`, whole; empty where there is none.
    #[must_use]
    pub fn whole_resource(&self) -> String {
        self.resource.as_ref().map(text_of).unwrap_or_default()
    }

    /// The same as it may be shown: bounded, an endpoint without what may be parameters of its path.
    #[must_use]
    pub fn resource_text(&self) -> String {
        self.shown(&self.whole_resource()).into_owned()
    }

    /// What of the whole resource may be shown.
    #[must_use]
    pub fn shown<'w>(&self, whole: &'w str) -> Cow<'w, str> {
        let Some(resource) = &self.resource else { return Cow::default() };
        let id = id_of(resource);
        let plain = parameters(id).and_then(|sign| id.get(..sign.start));
        let shown = plain.map_or(Cow::Borrowed(whole), |plain| text_of(&uid(resource.entity_type(), plain)).into());
        if shown.len() <= MAX_NAME_BYTES { shown } else { bounded(&shown, MAX_NAME_BYTES).into() }
    }
}

impl Decision {
    /// A denial of which nothing more is known.
    pub fn deny(reason: Reason) -> Self {
        Self {
            verdict: Verdict::Denial(reason.into()),
            caller: None,
            behalf: None,
            tokens: Vec::new(),
            target: None,
            task: None,
            body_sha256: None,
            evaluations: Vec::new(),
            reply: Reply::None,
            possession: None,
            nonce: None,
            withheld: None,
            schemes: &[Scheme::Bearer],
        }
    }

    /// The same call, denied for `reason` after all: what was known of it stays.
    pub fn overruled(self, reason: Reason) -> Self {
        Self { verdict: Verdict::Denial(reason.into()), ..self }
    }

    /// The reason of a denial.
    #[must_use]
    pub const fn reason(&self) -> Option<Reason> {
        match &self.verdict {
            Verdict::Permit(_) => None,
            Verdict::Denial(denial) => Some(denial.reason),
        }
    }
}
