//! What is in force, told as it is and as it changes.

use std::sync::Arc;

use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc;

use super::by_id;
use crate::app::pipeline::{Pipeline, now};
use crate::app::sharing::Sharing;
use crate::authz::state::grant::Grant;
use crate::authz::state::hold::Hold;
use crate::control::{Asked, Events, Refusal};
use crate::proto;
use crate::shared::StoreState;
use crate::state::News;

/// Most holds, and most grants, that one answer lists.
const LISTED: usize = 1_000;
/// Events that wait for a slow reader: then it is told the whole state anew.
const WAITING: usize = 64;

impl Pipeline {
    /// A grant, with what is left of it.
    pub(super) fn told(&self, grant: &Grant) -> proto::Grant {
        proto::Grant { calls_left: self.parts.state.calls_left(grant), ..grant.into() }
    }

    /// What is in force, of an agent or a task alone if one is named: the oldest first.
    pub(super) fn status(&self, of: &proto::GetStatusRequest) -> proto::Status {
        let state = self.parts.state.current();
        let (agent, task) = (of.agent.as_str(), of.task.as_str());
        let is = |wanted: &str, has: Option<&str>| wanted.is_empty() || has == Some(wanted);
        let now = now();
        let of_hold = |hold: &&Arc<Hold>| {
            let subject = |kind: &str, name: &str| name.is_empty() || subject_is(hold, kind, name);
            let is_asked = (agent.is_empty() && task.is_empty()) || (subject("agent", agent) && subject("task", task));
            is_asked && hold.holds(now)
        };
        let of_grant = |grant: &&Arc<Grant>| is(agent, Some(&grant.agent)) && is(task, grant.task.as_deref());
        let holds = by_id(state.holds.iter().filter(of_hold).cloned(), |hold| &hold.id);
        let grants = by_id(state.grants.iter().filter(of_grant).cloned(), |grant| &grant.id);
        proto::Status {
            cut: holds.len() > LISTED || grants.len() > LISTED,
            holds_total: holds.len() as u64,
            grants_total: grants.len() as u64,
            holds: holds.iter().take(LISTED).map(|hold| (&**hold).into()).collect(),
            grants: grants.iter().take(LISTED).map(|grant| self.told(grant)).collect(),
            bundle: self.parts.store.snapshot().digest.to_string(),
            store: self.standing().into(),
            complaints: self.complaints(),
        }
    }

    /// How it stands with the shared store.
    fn standing(&self) -> proto::StoreState {
        match self.parts.sharing.as_deref().map(Sharing::standing) {
            None => proto::StoreState::NotShared,
            Some(StoreState::InTouch) => proto::StoreState::InTouch,
            Some(_) => proto::StoreState::Lost,
        }
    }

    /// What is in force, and then each change, as long as somebody listens who may.
    pub(super) fn events(self: &Arc<Self>, asked: Asked<proto::WatchRequest>) -> Events {
        // From before the state is told, so that nothing falls in between.
        let (mut news, me) = (self.parts.state.watch(), self.clone());
        let (sender, events) = mpsc::channel(WAITING);
        tokio::spawn(async move {
            let mut next = Some(me.whole());
            loop {
                if let Some(event) = next.take()
                    && sender.send(Ok(event)).await.is_err()
                {
                    return;
                }
                let changed = tokio::select! { changed = news.recv() => changed, () = sender.closed() => return };
                if matches!(changed, Ok(News::Held(_)) | Err(RecvError::Lagged(_)))
                    && let Some(refusal) = me.stopped(&asked)
                {
                    let _gone_anyway = sender.send(Err(refusal)).await;
                    return;
                }
                next = match changed {
                    Ok(news) => Some(me.event(&news)),
                    Err(RecvError::Lagged(_)) => Some(me.whole()),
                    Err(RecvError::Closed) => return,
                };
            }
        });
        events
    }

    /// Whether whoever watches is held now.
    fn stopped(self: &Arc<Self>, asked: &Asked<proto::WatchRequest>) -> Option<Refusal> {
        let operation = self.operation(asked);
        operation.controller.is_none().then(|| self.refused(operation))
    }

    fn whole(&self) -> proto::Event {
        of(proto::event::Event::Status(self.status(&proto::GetStatusRequest::default())))
    }

    fn event(&self, news: &News) -> proto::Event {
        use proto::event::Event;
        of(match news {
            News::Held(hold) => Event::Held((&**hold).into()),
            News::Released(hold) => Event::Released((&**hold).into()),
            News::Granted(grant) => Event::Granted(self.told(grant)),
            News::Ended(grant) => Event::Ended(self.told(grant)),
            News::Store => Event::Store(self.standing().into()),
        })
    }
}

fn subject_is(hold: &Hold, kind: &str, name: &str) -> bool {
    hold.subject.about().as_str() == kind && hold.subject.id() == name
}

const fn of(event: proto::event::Event) -> proto::Event {
    proto::Event { event: Some(event) }
}
