//! A record as the message that is kept: redacted, and never larger than an entry of a log.

use std::sync::Arc;

use super::commitment::{Form, Redaction, Said};
use super::fit;
use crate::authz::decision::{Denial, Evaluation, Verdict};
use crate::authz::digest::sha256;
use crate::authz::hex;
use crate::authz::identity::spiffe::SpiffeId;
use crate::authz::intent::{Argument, Intent};
use crate::authz::plain::{MAX_NAME_BYTES, bounded};
use crate::authz::policy::PolicyInfo;
use crate::authz::record::{Control, MAX_POLICIES, Record};
use crate::authz::target::Protocol;
use crate::authz::token::Believed;
use crate::authz::token::presented::Role;
use crate::authz::token::verified::Behalf;
use crate::proto;

/// The message of a record, with nothing in it that must not be kept: of at most [`fit::MAX_BYTES`] bytes, encoded, whatever was
/// asked.
#[must_use]
pub fn message(record: &Record, redaction: &Redaction) -> proto::DecisionRecord {
    let (decision, request) = (&record.decision, &record.request);
    let is_compact = redaction.permits == Form::Compact && matches!(decision.verdict, Verdict::Permit(_));
    let (verdict, reason, detail, hold) = match &decision.verdict {
        Verdict::Permit(_) => (proto::Verdict::Permit, String::new(), String::new(), String::new()),
        Verdict::Denial(Denial { reason, detail, hold, .. }) => (
            proto::Verdict::Denial,
            reason.code().to_owned(),
            detail.clone().unwrap_or_default(),
            hold.as_deref().unwrap_or_default().to_owned(),
        ),
    };
    let target = decision.target.as_deref();
    let has_body = target.is_some_and(|it| matches!(it.protocol, Protocol::Http | Protocol::Grpc | Protocol::A2a));
    let about = About {
        target: target.map(|target| &*target.name),
        body: request.body_sha256.filter(|_| has_body),
        redaction,
        is_compact,
    };
    let mut message = proto::DecisionRecord {
        decision_id: record.decision_id.clone(),
        time: Some(record.time.into()),
        verdict: verdict.into(),
        reason,
        detail,
        caller: decision.caller.as_ref().map(|agent| caller(agent, decision.behalf.as_deref(), &decision.tokens)),
        target: target.map_or_else(String::new, |target| target.name.to_string()),
        protocol: target.map_or_else(String::new, |target| target.protocol.as_str().to_owned()),
        calls: decision.evaluations.iter().map(|evaluation| call(evaluation, &about)).collect(),
        request: Some(proto::RequestRecord {
            id: request.id.clone(),
            method: request.method.clone(),
            host: request.host.clone(),
            path: request.path.clone(),
            body_bytes: request.body_bytes,
            body_hmac_sha256: request.body_sha256.as_ref().map(|it| redaction.body(it)).unwrap_or_default(),
            destination: request.destination.map(|it| it.to_string()).unwrap_or_default(),
            sni: request.sni.clone(),
        }),
        bundle: record.bundle.digest.to_string(),
        bundle_version: record.bundle.version.as_deref().unwrap_or_default().to_owned(),
        mode: proto::Mode::Enforced.into(),
        trace_id: hex::encode(&record.trace.trace_id),
        span_id: hex::encode(&record.trace.span_id),
        duration_micros: record.duration_micros,
        hold,
        task: decision.task.clone().unwrap_or_default(),
        control: record.control.as_deref().map(control),
        compact: is_compact,
        shortened: 0,
    };
    if is_compact {
        fit::compact(&mut message);
    }
    fit::fit(&mut message);
    message
}

/// What a call's record is made with.
struct About<'a> {
    target: Option<&'a str>,
    /// The digest of the body, where that is what the calls say.
    body: Option<[u8; 32]>,
    redaction: &'a Redaction,
    is_compact: bool,
}

fn control(Control { holds, grants, reason }: &Control) -> proto::ControlRecord {
    proto::ControlRecord {
        holds: holds.iter().map(|hold| (&**hold).into()).collect(),
        grants: grants.iter().map(|grant| (&**grant).into()).collect(),
        reason: reason.clone(),
    }
}

fn caller(agent: &SpiffeId, behalf: Option<&Behalf>, tokens: &[Believed]) -> proto::Caller {
    let none = Behalf { user: String::new(), actors: Vec::new(), proved: Vec::new(), session: None };
    let Behalf { user, actors, proved, session } = behalf.unwrap_or(&none);
    proto::Caller {
        spiffe_id: agent.as_str().to_owned(),
        user: user.clone(),
        actors: actors.clone(),
        proved: proved.clone(),
        session: session.clone().unwrap_or_default(),
        tokens: tokens.iter().map(token).collect(),
    }
}

fn token(Believed { role, token, .. }: &Believed) -> proto::Token {
    let id = token.claims.id.as_deref().filter(|id| !id.is_empty());
    let is_usual = id.is_some_and(|id| id.len() <= MAX_NAME_BYTES);
    let bound_by = token.bound_by().filter(|_| *role != Role::Chain);
    proto::Token {
        role: role.as_str().to_owned(),
        issuer: token.issuer.to_string(),
        id_sha256: id.map(|id| hex::encode(&sha256(id.as_bytes()))).unwrap_or_default(),
        sha256: if is_usual { String::new() } else { hex::encode(&token.signed) },
        bound_by: bound_by.map(str::to_owned).collect(),
        subject: bounded(&token.claims.subject, MAX_NAME_BYTES),
        session: token.claims.session.as_deref().map(|session| bounded(session, MAX_NAME_BYTES)).unwrap_or_default(),
    }
}

fn policies(all: &[Arc<PolicyInfo>]) -> Vec<proto::PolicyRecord> {
    let record = |policy: &Arc<PolicyInfo>| proto::PolicyRecord {
        id: policy.id.clone(),
        template: policy.template.as_deref().unwrap_or_default().to_owned(),
        reason: policy.reason.to_string(),
        control: policy.control.as_deref().unwrap_or_default().to_owned(),
        grant: policy.grant.as_deref().map(|grant| proto::GrantUse {
            author: grant.author.agent.clone(),
            author_user: grant.author.user.clone().unwrap_or_default(),
            task: grant.task.clone().unwrap_or_default(),
            user: grant.user.clone().unwrap_or_default(),
        }),
    };
    all.iter().take(MAX_POLICIES).map(record).collect()
}

fn argument(argument: &Argument, redaction: &Redaction) -> proto::ArgumentRecord {
    let Argument { pointer, digest, value } = argument;
    proto::ArgumentRecord {
        pointer: pointer.to_string(),
        hmac_sha256: if value.is_some() { String::new() } else { redaction.argument(digest) },
        value: value.as_deref().unwrap_or_default().to_owned(),
    }
}

/// A commitment to what a call would do; none for a call of control, of which all is on record.
fn intent(evaluation: &Evaluation, about: &About<'_>) -> Option<String> {
    let intent = evaluation.intent.as_deref();
    let said = Said {
        target: about.target?,
        action: &evaluation.action,
        resource: &evaluation.whole_resource(),
        method: evaluation.method.as_deref().unwrap_or_default(),
        tool: evaluation.tool.as_deref().unwrap_or_default(),
        named: intent.and_then(Intent::named_digest),
        arguments: intent.and_then(Intent::arguments_digest),
        body: about.body,
    };
    Some(about.redaction.intent(&said))
}

fn call(evaluation: &Evaluation, about: &About<'_>) -> proto::CallRecord {
    let arguments = evaluation.intent.iter().flat_map(|intent| intent.arguments());
    // Why each was one is put into words here, which takes longer than all the rest.
    let listed = if about.is_compact { 0 } else { MAX_POLICIES };
    proto::CallRecord {
        intent_sha256: intent(evaluation, about).unwrap_or_default(),
        arguments: arguments.map(|it| argument(it, about.redaction)).collect(),
        resource: evaluation.resource_text(),
        action: evaluation.action.clone(),
        method: evaluation.method.clone().unwrap_or_default(),
        tool: evaluation.tool.clone().unwrap_or_default(),
        session_sha256: evaluation.session.as_ref().map_or_else(String::new, |id| hex::encode(&sha256(id.as_bytes()))),
        trace_id: evaluation.trace.as_ref().map_or_else(String::new, |trace| hex::encode(&trace.trace_id)),
        policies: policies(&evaluation.policies),
        demanding: policies(&evaluation.demanding),
        limits: evaluation
            .taken
            .iter()
            .map(|(limit, units)| proto::LimitUse { limit: limit.to_string(), units: *units })
            .collect(),
        errors: evaluation
            .failures
            .iter()
            .take(MAX_POLICIES)
            .map(|failure| proto::PolicyError { id: failure.policy.id.clone(), error: failure.error.to_owned() })
            .collect(),
        candidates: u32::try_from(evaluation.evaluated.len()).unwrap_or(u32::MAX),
        evaluated: evaluation
            .evaluated
            .iter()
            .take(listed)
            .map(|(policy, why)| proto::CandidateRecord { id: policy.id.clone(), why })
            .collect(),
    }
}
