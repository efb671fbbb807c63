//! The calls of control, one by one.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use uuid::Uuid;

use super::{Operation, author, by_id, words};
use crate::app::pipeline::Pipeline;
use crate::authz::control::{Command, check_grant, check_hold, stops_itself};
use crate::authz::reason::Reason;
use crate::authz::record::MAX_POLICIES;
use crate::authz::state::Author;
use crate::authz::state::grant::Grant;
use crate::authz::state::hold::{Hold, Subject, is_task};
use crate::control::{Asked, Events, Operate, Refusal};
use crate::proto;
use crate::state::NotInForce;
use crate::state::merging::Entry;

/// The longest that a hold with an end may last, in seconds: a hundred years.
const LONGEST: u64 = 100 * 366 * 86_400;

impl Operate for Pipeline {
    async fn place_hold(
        self: &Arc<Self>,
        asked: Asked<proto::PlaceHoldRequest>,
    ) -> Result<proto::PlaceHoldReply, Refusal> {
        let mut operation = self.operation(&asked);
        let hold = match new_hold(&operation, &asked.request) {
            Ok(hold) => Arc::new(hold),
            Err(wrong) => return Err(self.wrong(operation, wrong)),
        };
        let (settings, commands) = (self.parts.settings.clone(), [Command::Hold(hold.clone())]);
        let stops_itself = operation.controller.as_ref().is_some_and(|it| stops_itself(it, &hold));
        let check = |bundle: &_| match stops_itself {
            true => {
                Err("it would stop you as well, from releasing it too: let somebody place it whom it does not hold"
                    .into())
            }
            false => check_hold(bundle, &settings, &hold.subject),
        };
        operation = self.decide_control(operation, &commands, &hold.reason, check).await?;
        let placed = self.parts.state.place(hold.clone()).await;
        if let Err(NotInForce::Full(_)) = placed {
            return Err(self.fails(operation, Reason::StateFull));
        }
        let shared = self.tell_others(Entry::Hold(hold.clone())).await;
        match placed {
            Ok(()) => {
                self.done(operation).await;
                Ok(proto::PlaceHoldReply { hold: Some((&*hold).into()), shared })
            }
            Err(_not_kept) => {
                // On record as what it is: permitted, and in force.
                let decision_id = Some(self.done(operation).await);
                let message = match shared == Some(true) {
                    true => "it is in force at all who share the store, but could not be made durable here",
                    false => "it is in force here, but could not be made durable: it ends with this process",
                };
                let reason = Some(Reason::StateUnavailable.code());
                Err(Refusal { reason, decision_id, ..Refusal::new(tonic::Code::Unavailable, message) })
            }
        }
    }

    async fn release_holds(
        self: &Arc<Self>,
        asked: Asked<proto::ReleaseHoldsRequest>,
    ) -> Result<proto::ReleaseHoldsReply, Refusal> {
        let operation = self.operation(&asked);
        let proto::ReleaseHoldsRequest { hold: which, reason } = &asked.request;
        let reason = match words(reason) {
            Ok(reason) => reason,
            Err(wrong) => return Err(self.wrong(operation, wrong)),
        };
        let (holds, since) = (&operation.facts.state.holds, operation.facts.now);
        let found = match (holds.get(which), which.parse::<Subject>()) {
            (Some(hold), _) => vec![hold.clone()],
            (None, Ok(subject)) => by_id(holds.on(subject.about(), subject.id()).cloned(), |hold| &hold.id),
            (None, Err(_)) => Vec::new(),
        };
        if found.is_empty() {
            // Whether something is held is told to whoever could release it.
            let operation = match which.parse::<Subject>() {
                Ok(subject) => {
                    self.decide_control(operation, &[Command::Release(none(subject, since))], &reason, |_| Ok(()))
                        .await?
                }
                Err(_) => operation,
            };
            return Err(self.absent(operation, "there is no such hold"));
        }
        let commands: Vec<Command> = found.iter().cloned().map(Command::Release).collect();
        let operation = self.decide_control(operation, &commands, &reason, |_| Ok(())).await?;
        let ids: Vec<String> = found.iter().map(|hold| hold.id.clone()).collect();
        match self.parts.state.release(&ids).await {
            Ok(released) => {
                let shared = self.tell_others_of_ends(&ids).await;
                self.done(operation).await;
                let released = released.iter().map(|hold| (&**hold).into()).collect();
                Ok(proto::ReleaseHoldsReply { released, shared })
            }
            Err(_not_kept) => Err(self.fails(operation, Reason::StateUnavailable)),
        }
    }

    async fn issue_grant(
        self: &Arc<Self>,
        asked: Asked<proto::IssueGrantRequest>,
    ) -> Result<proto::IssueGrantReply, Refusal> {
        let mut operation = self.operation(&asked);
        let grant = match new_grant(&operation, &asked.request) {
            Ok(grant) => Arc::new(grant),
            Err(wrong) => return Err(self.wrong(operation, wrong)),
        };
        let (settings, commands) = (self.parts.settings.clone(), [Command::Grant(grant.clone())]);
        let check = |bundle: &_| check_grant(bundle, &settings, &grant);
        operation = self.decide_control(operation, &commands, &grant.reason, check).await?;
        match self.parts.state.grant(grant.clone()).await {
            Ok(()) => {
                let shared = self.tell_others(Entry::Grant(grant.clone())).await;
                self.done(operation).await;
                Ok(proto::IssueGrantReply { grant: Some(self.told(&grant)), shared })
            }
            Err(NotInForce::Full(_)) => Err(self.fails(operation, Reason::StateFull)),
            Err(NotInForce::NotKept(_)) => Err(self.fails(operation, Reason::StateUnavailable)),
        }
    }

    async fn revoke_grants(
        self: &Arc<Self>,
        asked: Asked<proto::RevokeGrantsRequest>,
    ) -> Result<proto::RevokeGrantsReply, Refusal> {
        let operation = self.operation(&asked);
        let proto::RevokeGrantsRequest { id, task, agent, reason } = &asked.request;
        // Whoever takes away what was granted need not say why.
        let reason = match if reason.is_empty() { Ok(String::new()) } else { words(reason) } {
            Ok(_) if id.is_empty() && task.is_empty() && agent.is_empty() => {
                return Err(self.wrong(operation, "which grants? by id, task or agent".into()));
            }
            Ok(reason) => reason,
            Err(wrong) => return Err(self.wrong(operation, wrong)),
        };
        let is = |wanted: &str, has: &str| wanted.is_empty() || wanted == has;
        let all = operation.facts.state.grants.iter();
        let meets = |grant: &&Arc<Grant>| {
            is(id, &grant.id) && is(task, grant.task.as_deref().unwrap_or_default()) && is(agent, &grant.agent)
        };
        let found = by_id(all.filter(meets).cloned(), |grant| &grant.id);
        if found.is_empty() {
            // Whether there are any is told to whoever may see them; an id is nothing that anybody guesses.
            let operation = match id.is_empty() {
                true => self.decide_control(operation, &[Command::Status], &reason, |_| Ok(())).await?,
                false => operation,
            };
            return Err(self.absent(operation, "there is no such grant: it has ended, or never was"));
        }
        let commands: Vec<Command> = found.iter().cloned().map(Command::Revoke).collect();
        let operation = self.decide_control(operation, &commands, &reason, |_| Ok(())).await?;
        self.end(operation, &found).await
    }

    async fn complete_task(
        self: &Arc<Self>,
        asked: Asked<proto::CompleteTaskRequest>,
    ) -> Result<proto::RevokeGrantsReply, Refusal> {
        let operation = self.operation(&asked);
        let task = asked.request.task;
        if !is_task(&task) {
            return Err(self.wrong(operation, "which task? a name of 1 to 256 visible ASCII characters".into()));
        }
        let commands = [Command::Complete(task.clone())];
        let mut operation = self.decide_control(operation, &commands, "", |_| Ok(())).await?;
        // As of now: one may have been issued meanwhile.
        let state = self.parts.state.current();
        let of_task = |grant: &&Arc<Grant>| grant.task.as_ref() == Some(&task);
        let found = by_id(state.grants.iter().filter(of_task).cloned(), |grant| &grant.id);
        if let Some(control) = &mut operation.pending.control {
            control.grants = found.iter().take(MAX_POLICIES).cloned().collect();
        }
        self.end(operation, &found).await
    }

    async fn get_status(self: &Arc<Self>, asked: Asked<proto::GetStatusRequest>) -> Result<proto::Status, Refusal> {
        let operation = self.operation(&asked);
        let operation = self.decide_control(operation, &[Command::Status], "", |_| Ok(())).await?;
        self.done(operation).await;
        Ok(self.status(&asked.request))
    }

    async fn watch(self: &Arc<Self>, asked: Asked<proto::WatchRequest>) -> Result<Events, Refusal> {
        let operation = self.operation(&asked);
        let operation = self.decide_control(operation, &[Command::Watch], "", |_| Ok(())).await?;
        self.done(operation).await;
        Ok(self.events(asked))
    }
}

impl Pipeline {
    /// Tells whoever shares of what is in force here; whether they have heard, if there is anybody.
    async fn tell_others(&self, entry: Entry) -> Option<bool> {
        match &self.parts.sharing {
            Some(sharing) => Some(sharing.put(&entry).await),
            None => None,
        }
    }

    /// The same of what ended.
    async fn tell_others_of_ends(&self, ids: &[String]) -> Option<bool> {
        match &self.parts.sharing {
            Some(sharing) => Some(sharing.remove(ids).await),
            None => None,
        }
    }

    /// Ends grants, and says which.
    async fn end(
        self: &Arc<Self>,
        operation: Operation,
        found: &[Arc<Grant>],
    ) -> Result<proto::RevokeGrantsReply, Refusal> {
        let told: Vec<proto::Grant> = found.iter().map(|grant| self.told(grant)).collect();
        let ids: Vec<String> = found.iter().map(|grant| grant.id.clone()).collect();
        let revoked = self.parts.state.revoke(&ids).await;
        let shared = self.tell_others_of_ends(&ids).await;
        match revoked {
            Ok(ended) => {
                self.done(operation).await;
                let is_ended = |grant: &proto::Grant| ended.iter().any(|it| it.id == grant.id);
                Ok(proto::RevokeGrantsReply { revoked: told.into_iter().filter(is_ended).collect(), shared })
            }
            Err(_not_kept) => {
                let decision_id = Some(self.done(operation).await);
                let message = match shared == Some(true) {
                    true => "they are revoked at all who share the store, but that could not be made durable here",
                    false => {
                        "they are revoked here, but that could not be made durable: they may be in force again after a restart"
                    }
                };
                let reason = Some(Reason::StateUnavailable.code());
                Err(Refusal { reason, decision_id, ..Refusal::new(tonic::Code::Unavailable, message) })
            }
        }
    }
}

fn until(since: Timestamp, seconds: u64) -> Result<Timestamp, String> {
    let length = i64::try_from(seconds).ok().filter(|_| seconds <= LONGEST).map(SignedDuration::from_secs);
    length.and_then(|length| since.checked_add(length).ok()).ok_or_else(|| format!("{seconds} seconds are too long"))
}

/// A hold that is not there.
fn none(subject: Subject, since: Timestamp) -> Arc<Hold> {
    Arc::new(Hold { id: String::new(), subject, reason: String::new(), author: Author::default(), since, until: None })
}

fn new_hold(operation: &Operation, request: &proto::PlaceHoldRequest) -> Result<Hold, String> {
    let proto::PlaceHoldRequest { subject, reason, seconds } = request;
    let since = operation.facts.now;
    Ok(Hold {
        id: Uuid::now_v7().to_string(),
        subject: subject.parse()?,
        reason: words(reason)?,
        author: operation.controller.as_ref().map(author).unwrap_or_default(),
        since,
        until: (*seconds > 0).then(|| until(since, *seconds)).transpose()?,
    })
}

fn new_grant(operation: &Operation, request: &proto::IssueGrantRequest) -> Result<Grant, String> {
    let proto::IssueGrantRequest { template, agent, resource, task, user, calls, seconds, reason } = request;
    let given = |text: &String| (!text.is_empty()).then(|| text.clone());
    if !task.is_empty() && !is_task(task) {
        return Err("a task is a name of 1 to 256 visible ASCII characters".into());
    }
    let since = operation.facts.now;
    let resource = given(resource).map(|text| {
        text.parse().map_err(|_| "the resource has to be an entity such as Tool::\"crm/get_customer\"".to_owned())
    });
    Ok(Grant {
        id: Uuid::now_v7().to_string(),
        template: template.as_str().into(),
        agent: agent.clone(),
        resource: resource.transpose()?,
        task: given(task),
        user: given(user),
        calls: *calls,
        until: until(since, *seconds)?,
        reason: words(reason)?,
        author: operation.controller.as_ref().map(author).unwrap_or_default(),
        since,
    })
}
