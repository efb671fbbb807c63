//! Records as JSON lines: the protobuf JSON mapping of `palisade.v1.DecisionRecord` and `Gap`.

use std::sync::Arc;

use jiff::Timestamp;

use crate::authz::decision::{Denial, Evaluation, Verdict};
use crate::authz::digest::sha256;
use crate::authz::hex;
use crate::authz::identity::spiffe::SpiffeId;
use crate::authz::plain::{MAX_NAME_BYTES, bounded};
use crate::authz::policy::PolicyInfo;
use crate::authz::record::{Control, MAX_POLICIES, Record};
use crate::authz::token::Believed;
use crate::authz::token::presented::Role;
use crate::authz::token::verified::Behalf;
use crate::proto;

/// Appends one record as a line; `false` if it has no JSON form, and nothing was appended.
#[must_use]
pub fn line(lines: &mut Vec<u8>, record: Record) -> bool {
    append(lines, &message(record))
}

/// Appends a gap as a line.
pub fn gap(lines: &mut Vec<u8>, lost_records: u64) {
    #[expect(clippy::disallowed_methods, reason = "a gap has no decision whose moment it could bear")]
    let now = Timestamp::try_from(std::time::SystemTime::now()).unwrap_or_default();
    // A time and a number have a JSON form.
    let _appended = append(lines, &proto::Gap { time: Some(now.into()), lost_records });
}

fn append(lines: &mut Vec<u8>, line: &impl serde::Serialize) -> bool {
    let start = lines.len();
    let written = serde_json::to_writer(&mut *lines, line).is_ok();
    if written {
        lines.push(b'\n');
    } else {
        // Never half a line.
        lines.truncate(start);
    }
    written
}

fn message(record: Record) -> proto::DecisionRecord {
    let decision = record.decision;
    let (verdict, reason, detail, hold) = match decision.verdict {
        Verdict::Permit(_) => (proto::Verdict::Permit, String::new(), String::new(), String::new()),
        Verdict::Denial(Denial { reason, detail, hold, .. }) => (
            proto::Verdict::Denial,
            reason.code().to_owned(),
            detail.unwrap_or_default(),
            hold.map(String::from).unwrap_or_default(),
        ),
    };
    let target = decision.target.as_deref();
    proto::DecisionRecord {
        decision_id: record.decision_id,
        time: Some(record.time.into()),
        verdict: verdict.into(),
        reason,
        detail,
        caller: decision.caller.map(|agent| caller(&agent, decision.behalf.as_deref(), &decision.tokens)),
        target: target.map_or_else(String::new, |target| target.name.to_string()),
        protocol: target.map_or_else(String::new, |target| target.protocol.as_str().to_owned()),
        calls: decision.evaluations.into_iter().map(call).collect(),
        request: Some(proto::RequestRecord {
            id: record.request.id,
            method: record.request.method,
            host: record.request.host,
            path: record.request.path,
            body_bytes: record.request.body_bytes,
            body_sha256: record.request.body_sha256.as_ref().map_or_else(String::new, |digest| hex::encode(digest)),
            destination: record.request.destination.map(|it| it.to_string()).unwrap_or_default(),
            sni: record.request.sni,
        }),
        bundle: record.bundle.to_string(),
        trace_id: hex::encode(&record.trace.trace_id),
        span_id: hex::encode(&record.trace.span_id),
        duration_micros: record.duration_micros,
        hold,
        task: decision.task.unwrap_or_default(),
        control: record.control.map(|control| *control).map(control),
    }
}

fn control(Control { holds, grants, reason }: Control) -> proto::ControlRecord {
    proto::ControlRecord {
        holds: holds.iter().map(|hold| (&**hold).into()).collect(),
        grants: grants.iter().map(|grant| (&**grant).into()).collect(),
        reason,
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
    let id = token.claims.id.as_deref().unwrap_or_default();
    let is_whole = (1..=MAX_NAME_BYTES).contains(&id.len());
    let bound_by = token.bound_by().filter(|_| *role != Role::Chain);
    proto::Token {
        role: role.as_str().to_owned(),
        issuer: token.issuer.to_string(),
        id: bounded(id, MAX_NAME_BYTES),
        sha256: if is_whole { String::new() } else { hex::encode(&token.signed) },
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

fn call(evaluation: Evaluation) -> proto::CallRecord {
    proto::CallRecord {
        resource: evaluation.resource_text(),
        action: evaluation.action,
        method: evaluation.method.unwrap_or_default(),
        tool: evaluation.tool.unwrap_or_default(),
        session_sha256: evaluation.session.map_or_else(String::new, |id| hex::encode(&sha256(id.as_bytes()))),
        trace_id: evaluation.trace.map_or_else(String::new, |trace| hex::encode(&trace.trace_id)),
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
            .take(MAX_POLICIES)
            .map(|(policy, why)| proto::CandidateRecord { id: policy.id.clone(), why })
            .collect(),
    }
}
