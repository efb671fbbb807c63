//! Control: who may place and release holds, issue and revoke grants, and see them. Each such call is decided by the same policies
//! as any other, about actions of its own.
//!
//! Whoever controls is an agent like others: known by its certificate, with tokens if it has any, and stopped by a hold on it. Holds
//! on everything and on bundles stop no control call, or nobody could release them.

use std::sync::Arc;

use super::decision::{Decision, Denial, Evaluation, Permit, Verdict};
use super::facts::Facts;
use super::held::Held;
use super::identity::{self, Caller, Identity, IdentitySource};
use super::plain::{MAX_NAME_BYTES, bounded};
use super::policy::Bundle;
use super::policy::cedar::{EntityUID, id_of};
use super::policy::declared::ActionKind;
use super::policy::demands::Shown;
use super::policy::parts::Names;
use super::policy::prices::Spending;
use super::reason::Reason;
use super::request::Request;
use super::state::grant::Grant;
use super::state::hold::{About, Hold, Holds, Subject};
use super::token::dpop::Expected;
use super::token::holder::{Certificate, Peer};
use super::token::{self, challenge};
use super::{Active, Settings, verdict};

/// The group of all control actions.
pub const GROUP: &str = "control";

/// What can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Place a hold.
    Hold,
    /// Release one.
    Release,
    /// Issue a grant.
    Grant,
    /// Revoke one.
    Revoke,
    /// Say that a task is done, which ends its grants.
    Complete,
    /// See holds and grants.
    Status,
    /// See them change.
    Watch,
}

impl Action {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Hold, Self::Release, Self::Grant, Self::Revoke, Self::Complete, Self::Status, Self::Watch];

    /// The id of the Cedar action.
    #[must_use]
    pub const fn id(self) -> &'static str {
        match self {
            Self::Hold => "control:hold",
            Self::Release => "control:release",
            Self::Grant => "control:grant",
            Self::Revoke => "control:revoke",
            Self::Complete => "control:complete",
            Self::Status => "control:status",
            Self::Watch => "control:watch",
        }
    }

    /// The one with this id.
    #[must_use]
    pub fn named(id: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|action| action.id() == id)
    }

    /// What its context holds.
    #[must_use]
    pub const fn kind(self) -> ActionKind {
        match self {
            Self::Hold | Self::Release => ActionKind::Hold,
            Self::Grant | Self::Revoke => ActionKind::Grant,
            Self::Complete | Self::Status | Self::Watch => ActionKind::Control,
        }
    }

    /// The types of its resource.
    pub fn resources(self) -> impl Iterator<Item = &'static str> {
        let types: Vec<&str> = match self {
            Self::Hold | Self::Release => About::ALL.into_iter().map(About::entity_type).collect(),
            Self::Grant | Self::Revoke => vec!["Template"],
            Self::Complete => vec!["Task"],
            Self::Status | Self::Watch => vec!["Mesh"],
        };
        types.into_iter()
    }
}

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Place this hold.
    Hold(Arc<Hold>),
    /// Release this one.
    Release(Arc<Hold>),
    /// Issue this grant.
    Grant(Arc<Grant>),
    /// Revoke this one.
    Revoke(Arc<Grant>),
    /// Say that a task is done.
    Complete(String),
    /// See holds and grants.
    Status,
    /// See them change.
    Watch,
}

impl Command {
    /// Whether more is allowed once it is done.
    #[must_use]
    pub const fn allows_more(&self) -> bool {
        matches!(self, Self::Release(_) | Self::Grant(_))
    }

    /// The action.
    #[must_use]
    pub const fn action(&self) -> Action {
        match self {
            Self::Hold(_) => Action::Hold,
            Self::Release(_) => Action::Release,
            Self::Grant(_) => Action::Grant,
            Self::Revoke(_) => Action::Revoke,
            Self::Complete(_) => Action::Complete,
            Self::Status => Action::Status,
            Self::Watch => Action::Watch,
        }
    }

    /// The hold that it is about.
    #[must_use]
    pub const fn hold(&self) -> Option<&Arc<Hold>> {
        match self {
            Self::Hold(hold) | Self::Release(hold) => Some(hold),
            _ => None,
        }
    }

    /// The grant that it is about.
    #[must_use]
    pub const fn grant(&self) -> Option<&Arc<Grant>> {
        match self {
            Self::Grant(grant) | Self::Revoke(grant) => Some(grant),
            _ => None,
        }
    }
}

/// Who asks for control.
#[derive(Clone, Debug)]
pub struct Controller {
    /// The workload, and what its tokens prove.
    pub caller: Caller,
    /// The user for whom it asks, as `<issuer>/<subject>`.
    pub user: Option<String>,
}

/// Who asks, by certificate and tokens.
///
/// # Errors
/// Why it is nobody who could control anything.
pub fn controller(settings: &Settings, request: &Request<'_>, facts: &Facts) -> Result<Controller, Denial> {
    let agent = match identity::identify(request, IdentitySource::SourcePrincipal, &settings.trust_domains) {
        Identity::Verified(agent) => agent,
        Identity::Absent => return Err(Reason::IdentityAbsent.into()),
        Identity::Failed { reason, detail } => return Err(Denial { detail: Some(detail), ..reason.into() }),
    };
    if let Some(held) = Held::of(&facts.state.holds, facts.now) {
        held.agent(&agent)?;
        held.tokens(&facts.tokens, &settings.tokens)?;
    }
    let certificate = Certificate::Pem(&request.source_certificate);
    let expected = Expected { http: request.http.as_ref(), origins: &[], now: facts.now.as_second() };
    let proved = token::hold(&facts.tokens, &settings.tokens, &Peer { agent: &agent, certificate, expected })?;
    let user = proved.user.as_ref().and_then(|user| user.user(&settings.tokens));
    Ok(Controller { caller: Caller { agent, proved }, user })
}

/// Decides whether who asks may do what it asks for.
pub fn authorize(
    active: &Active,
    settings: &Settings,
    controller: &Controller,
    command: &Command,
    facts: &Facts,
) -> Decision {
    let Active::Loaded(bundle) = active else { return Decision::deny(Reason::BundleMissing) };
    let mut known = Decision::deny(Reason::InternalError);
    let caller = &controller.caller;
    known.caller = Some(caller.agent.clone());
    known.behalf = caller.proved.user.as_ref().and_then(|user| user.behalf(&settings.tokens));
    let mut evaluation = Evaluation::about(bounded(command.action().id(), MAX_NAME_BYTES));
    let asked = bundle.control_query(controller, command, facts, &settings.tokens).map_err(Denial::from);
    let shown = Shown { claims: caller.proved.says(), now: facts.now.as_second() };
    let agent = caller.agent.as_str();
    let names = || Names { agent, user: controller.user.clone(), server: "", tool: None, task: None };
    let spending = || Spending { names: names(), arguments: None };
    let satisfied = asked.and_then(|query| verdict::ask(bundle, query, &shown, spending, &mut evaluation));
    let verdict = match satisfied.map(|satisfied| Permit::new(vec![satisfied])) {
        Ok(Some(permit)) => Verdict::Permit(permit),
        Ok(None) => Verdict::Denial(Reason::InternalError.into()),
        Err(denial) => Verdict::Denial(denial),
    };
    known.evaluations = vec![evaluation];
    if let Verdict::Denial(denial) = &verdict {
        known.schemes = challenge::schemes(denial.reason.wire().challenge, None, None, &settings.tokens);
    }
    Decision { verdict, ..known }
}

/// Whether a hold could ever stop anything here.
///
/// # Errors
/// Why not, for people.
pub fn check_hold(bundle: &Bundle, settings: &Settings, subject: &Subject) -> Result<(), String> {
    let (about, id) = (subject.about(), subject.id());
    let is_ours = |domain: &str| {
        if settings.trust_domains.iter().any(|known| known == domain) {
            return Ok(());
        }
        Err(format!("`{domain}` is no trust domain of the configuration"))
    };
    let is_issuer = || {
        let issuers = &settings.tokens.issuers;
        if id.starts_with("sha256:") || id.starts_with("spiffe://") || issuers.iter().any(|it| is_of(id, &it.name)) {
            return Ok(());
        }
        let names: Vec<&str> = issuers.iter().map(|issuer| issuer.name.as_str()).collect();
        Err(format!("`{id}` begins with the name of no issuer of the configuration ({})", names.join(", ")))
    };
    let is_target = |name: &str| {
        if bundle.server(name).is_some() { Ok(()) } else { Err(format!("there is no target `{name}`")) }
    };
    match about {
        About::Everything | About::Bundle | About::Task => Ok(()),
        About::TrustDomain => is_ours(id),
        About::Namespace => is_ours(id.split('/').next().unwrap_or_default()),
        About::Agent => {
            let agent = identity::spiffe::SpiffeId::parse(id).map_err(|error| error.to_string())?;
            let is_called = bundle.targets().iter().any(|it| it.matches.destination_principal.as_deref() == Some(id));
            if is_called { Ok(()) } else { is_ours(agent.trust_domain()) }
        }
        About::User | About::Session | About::Token => is_issuer(),
        About::Server => is_target(id),
        About::Tool => {
            let (server, tool) = id.split_once('/').unwrap_or((id, ""));
            is_target(server)?;
            let known = bundle.server(server);
            if known.is_some_and(|it| it.unregistered.is_none() && !it.tools.is_empty() && !it.tools.contains_key(tool))
            {
                return Err(format!("`{server}` has no tool `{tool}`; `server:{server}` stops all of them"));
            }
            Ok(())
        }
    }
}

/// Whether a hold would stop whoever places it from releasing it again.
#[must_use]
pub fn stops_itself(controller: &Controller, hold: &Arc<Hold>) -> bool {
    let mut alone = Holds::default();
    alone.insert(hold.clone());
    Held::of(&alone, hold.since).is_some_and(|held| {
        held.agent(&controller.caller.agent).is_err()
            || controller.user.as_deref().is_some_and(|user| held.has(About::User, user))
    })
}

fn is_of(id: &str, issuer: &str) -> bool {
    id.strip_prefix(issuer).is_some_and(|rest| rest.starts_with('/'))
}

/// Whether a grant says what the bundle allows grants to say, about what there is.
///
/// # Errors
/// Why not, for people.
pub fn check_grant(bundle: &Bundle, settings: &Settings, grant: &Grant) -> Result<(), String> {
    let grantable = bundle.engine().grantable(&grant.template).ok_or_else(|| {
        let all: Vec<&str> = bundle.engine().grantables().map(|template| template.info.id.as_str()).collect();
        let there_are = if all.is_empty() { "none is".into() } else { format!("these are: {}", all.join(", ")) };
        format!("`{}` is no template with `@grant`; {there_are}", grant.template)
    })?;
    let agent = identity::spiffe::SpiffeId::parse(&grant.agent).map_err(|error| format!("agent: {error}"))?;
    check_hold(bundle, settings, &Subject::new(About::TrustDomain, agent.trust_domain())?)?;
    if let Some(resource) = &grant.resource {
        bundle.can_be(resource).map_err(|why| format!("resource {}: {why}", name_of(resource)))?;
    }
    if let Some(user) = &grant.user {
        check_hold(bundle, settings, &Subject::new(About::User, user)?)?;
    }
    grantable.admits(grant)
}

fn name_of(uid: &EntityUID) -> String {
    format!("`{}::\"{}\"`", uid.entity_type(), bounded(id_of(uid), MAX_NAME_BYTES))
}
