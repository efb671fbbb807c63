//! A record as the bytes that are kept: redacted, canonical, and never larger than an entry of a log.
//!
//! They are the encoding of `palisade.v1.DecisionRecord`, written without making one: of every decision there is one, and of its
//! texts no copies.

use std::sync::Arc;

use prost::Message as _;

use super::commitment::{Form, Redaction, Said};
use super::fit;
use super::wire::Message;
use crate::authz::decision::{Denial, Evaluation, Verdict};
use crate::authz::digest::sha256;
use crate::authz::identity::spiffe::SpiffeId;
use crate::authz::intent::Intent;
use crate::authz::plain::{MAX_NAME_BYTES, bounded};
use crate::authz::policy::PolicyInfo;
use crate::authz::record::{Control, MAX_POLICIES, Record, RequestSummary};
use crate::authz::state::grant::Grant;
use crate::authz::state::hold::Hold;
use crate::authz::target::Protocol;
use crate::authz::token::Believed;
use crate::authz::token::presented::Role;
use crate::authz::token::verified::Behalf;
use crate::proto;

/// Appends a record, with nothing in it that must not be kept: at most [`fit::MAX_BYTES`] bytes, whatever was asked.
pub fn encode(record: &Record, redaction: &Redaction, bytes: &mut Vec<u8>) {
    let start = bytes.len();
    Writing { record, redaction, is_compact: is_compact(record, redaction) }.all(&mut Message::on(bytes));
    if bytes.len() - start > fit::MAX_BYTES {
        let whole = bytes.get(start..).unwrap_or_default();
        // What was written here is a message.
        let mut message = proto::DecisionRecord::decode(whole).unwrap_or_default();
        fit::fit(&mut message);
        bytes.truncate(start);
        bytes.extend_from_slice(&message.encode_to_vec());
    }
}

/// The same as a message.
#[must_use]
pub fn message(record: &Record, redaction: &Redaction) -> proto::DecisionRecord {
    let mut bytes = Vec::new();
    encode(record, redaction, &mut bytes);
    // What was written here is a message.
    proto::DecisionRecord::decode(bytes.as_slice()).unwrap_or_default()
}

fn is_compact(record: &Record, redaction: &Redaction) -> bool {
    redaction.permits == Form::Compact && matches!(record.decision.verdict, Verdict::Permit(_))
}

/// A record that is being written: as the comments of record.proto say, field by field.
struct Writing<'r> {
    record: &'r Record,
    redaction: &'r Redaction,
    is_compact: bool,
}

impl Writing<'_> {
    fn all(&self, to: &mut Message<'_>) {
        let Record { decision_id, time, decision, request, bundle, trace, duration_micros, control: asked } =
            self.record;
        let (verdict, denial) = match &decision.verdict {
            Verdict::Permit(_) => (proto::Verdict::Permit, None),
            Verdict::Denial(denial) => (proto::Verdict::Denial, Some(denial)),
        };
        let target = decision.target.as_deref();
        to.text(1, decision_id);
        to.time(2, *time);
        to.number(3, number(verdict.into()));
        if let Some(Denial { reason, detail, .. }) = denial {
            to.text(4, reason.code());
            to.text(5, detail.as_deref().unwrap_or_default());
        }
        if let Some(agent) = &decision.caller {
            to.message(6, |to| self.caller(to, agent, decision.behalf.as_deref(), &decision.tokens));
        }
        to.text(7, target.map_or("", |target| &target.name));
        to.text(8, target.map_or("", |target| target.protocol.as_str()));
        for evaluation in &decision.evaluations {
            to.message(9, |to| self.call(to, evaluation));
        }
        to.message(10, |to| self.request(to, request));
        to.text(11, &bundle.digest);
        to.hex(12, &trace.trace_id);
        if !self.is_compact {
            to.hex(13, &trace.span_id);
        }
        to.number(14, *duration_micros);
        to.text(15, denial.and_then(|denial| denial.hold.as_deref()).unwrap_or_default());
        to.text(16, decision.task.as_deref().unwrap_or_default());
        if let Some(asked) = asked {
            to.message(17, |to| control(to, asked));
        }
        to.text(18, bundle.version.as_deref().unwrap_or_default());
        to.number(19, number(proto::Mode::Enforced.into()));
        to.number(20, u64::from(self.is_compact));
    }

    fn caller(&self, to: &mut Message<'_>, agent: &SpiffeId, behalf: Option<&Behalf>, tokens: &[Believed]) {
        to.text(1, agent.as_str());
        if let Some(Behalf { user, actors, proved, session }) = behalf {
            to.text(2, user);
            actors.iter().for_each(|actor| to.item(3, actor));
            to.text(4, session.as_deref().unwrap_or_default());
            proved.iter().for_each(|agent| to.item(5, agent));
        }
        for token in tokens {
            to.message(6, |to| self.token(to, token));
        }
    }

    fn token(&self, to: &mut Message<'_>, Believed { role, token, .. }: &Believed) {
        let id = token.claims.id.as_deref().filter(|id| !id.is_empty());
        to.text(1, role.as_str());
        if !self.is_compact {
            to.text(2, &token.issuer);
        }
        if let Some(id) = id {
            to.hex(3, &sha256(id.as_bytes()));
        }
        to.hex(4, &token.signed);
        if self.is_compact {
            return;
        }
        token.bound_by().filter(|_| *role != Role::Chain).for_each(|by| to.item(5, by));
        to.text(6, &bounded(&token.claims.subject, MAX_NAME_BYTES));
        to.text(7, &bounded(token.claims.session.as_deref().unwrap_or_default(), MAX_NAME_BYTES));
    }

    fn call(&self, to: &mut Message<'_>, evaluation: &Evaluation) {
        let resource = evaluation.whole_resource();
        to.text(1, &evaluation.action);
        to.text(2, &evaluation.shown(&resource));
        to.text(3, evaluation.method.as_deref().unwrap_or_default());
        to.text(4, evaluation.tool.as_deref().unwrap_or_default());
        self.policies(to, 5, &evaluation.policies);
        for failure in evaluation.failures.iter().take(MAX_POLICIES) {
            to.message(6, |to| {
                to.text(1, &failure.policy.id);
                to.text(2, failure.error);
            });
        }
        if !self.is_compact {
            to.number(7, evaluation.evaluated.len() as u64);
            for (policy, why) in evaluation.evaluated.iter().take(MAX_POLICIES) {
                to.message(8, |to| {
                    to.text(1, &policy.id);
                    to.text(2, &why);
                });
            }
            self.policies(to, 9, &evaluation.demanding);
        }
        if let Some(session) = &evaluation.session {
            to.hex(10, &sha256(session.as_bytes()));
        }
        if let Some(trace) = &evaluation.trace {
            to.hex(11, &trace.trace_id);
        }
        for (limit, units) in &evaluation.taken {
            to.message(12, |to| {
                to.text(1, limit);
                to.number(2, *units);
            });
        }
        if let Some(intent) = self.intent(evaluation, &resource) {
            to.hex(13, &intent);
        }
        for argument in evaluation.intent.iter().flat_map(|intent| intent.arguments()) {
            to.message(14, |to| {
                to.text(1, &argument.pointer);
                match &argument.value {
                    Some(value) => to.text(3, value),
                    None => to.hex(2, &self.redaction.argument(&argument.digest)),
                }
            });
        }
    }

    /// A commitment to what a call would do; none for a call of control, of which all is on record.
    fn intent(&self, evaluation: &Evaluation, resource: &str) -> Option<[u8; 32]> {
        let target = self.record.decision.target.as_deref()?;
        let has_body = matches!(target.protocol, Protocol::Http | Protocol::Grpc | Protocol::A2a);
        let intent = evaluation.intent.as_deref();
        let said = Said {
            target: &target.name,
            action: &evaluation.action,
            resource,
            method: evaluation.method.as_deref().unwrap_or_default(),
            tool: evaluation.tool.as_deref().unwrap_or_default(),
            named: intent.and_then(Intent::named_digest),
            arguments: intent.and_then(Intent::arguments_digest),
            body: self.record.request.body_sha256.filter(|_| has_body),
        };
        Some(self.redaction.intent(&said))
    }

    fn policies(&self, to: &mut Message<'_>, field: u32, all: &[Arc<PolicyInfo>]) {
        for policy in all.iter().take(MAX_POLICIES) {
            to.message(field, |to| {
                to.text(1, &policy.id);
                if !self.is_compact {
                    to.text(2, &policy.reason);
                    to.text(3, policy.control.as_deref().unwrap_or_default());
                    to.text(4, policy.template.as_deref().unwrap_or_default());
                }
                if let Some(grant) = &policy.grant {
                    to.message(5, |to| {
                        to.text(1, &grant.author.agent);
                        to.text(2, grant.author.user.as_deref().unwrap_or_default());
                        to.text(3, grant.task.as_deref().unwrap_or_default());
                        to.text(4, grant.user.as_deref().unwrap_or_default());
                    });
                }
            });
        }
    }

    fn request(&self, to: &mut Message<'_>, request: &RequestSummary) {
        to.text(1, &request.id);
        if self.is_compact {
            return;
        }
        to.text(2, &request.method);
        to.text(3, &request.host);
        to.text(4, &request.path);
        to.number(5, request.body_bytes);
        if let Some(digest) = &request.body_sha256 {
            to.hex(6, &self.redaction.body(digest));
        }
        if let Some(destination) = &request.destination {
            to.text(7, &destination.to_string());
        }
        to.text(8, &request.sni);
    }
}

fn control(to: &mut Message<'_>, Control { holds, grants, reason }: &Control) {
    holds.iter().for_each(|it| to.message(1, |to| hold(to, it)));
    grants.iter().for_each(|it| to.message(2, |to| grant(to, it)));
    to.text(3, reason);
}

fn hold(to: &mut Message<'_>, hold: &Hold) {
    to.text(1, &hold.id);
    to.text(2, &hold.subject.to_string());
    to.text(3, &hold.reason);
    to.text(4, &hold.author.agent);
    to.text(5, hold.author.user.as_deref().unwrap_or_default());
    to.time(6, hold.since);
    if let Some(until) = hold.until {
        to.time(7, until);
    }
}

fn grant(to: &mut Message<'_>, grant: &Grant) {
    to.text(1, &grant.id);
    to.text(2, &grant.template);
    to.text(3, &grant.agent);
    to.text(4, &grant.resource.as_ref().map(ToString::to_string).unwrap_or_default());
    to.text(5, grant.task.as_deref().unwrap_or_default());
    to.text(6, grant.user.as_deref().unwrap_or_default());
    if let Some(calls) = grant.calls {
        to.required_number(7, calls);
    }
    to.time(8, grant.until);
    to.text(9, &grant.reason);
    to.text(10, &grant.author.agent);
    to.text(11, grant.author.user.as_deref().unwrap_or_default());
    to.time(12, grant.since);
}

/// A member of an enumeration, none of which is negative.
fn number(member: i32) -> u64 {
    u64::try_from(member).unwrap_or_default()
}
