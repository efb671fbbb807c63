//! The HTTP+JSON binding: which operation a path and a method are, and what is said in path, query and body.

use std::borrow::Cow;

use super::operations::{Generation, OPERATIONS, Operation, Subject};
use super::parameters::Named;
use super::{Asked, MEDIA_TYPES, query, service};
use crate::authz::call::json::Json;
use crate::authz::call::{Place, Unreadable, json_rpc};
use crate::authz::reason::Reason;

/// What a path can be.
struct Route<'p> {
    generation: Generation,
    named: Named<'p>,
    operation: &'static Operation,
}

/// The generation of a path below the prefix of the binding, if it is a path of the binding at all.
#[must_use]
pub fn generation_at(path: &str) -> Option<Generation> {
    routes(path).next().map(|route| route.generation)
}

/// Everything that a path can be. `v1` before it is 0.3, and so nobody's tenant.
fn routes(path: &str) -> impl Iterator<Item = Route<'_>> {
    let path = path.strip_prefix('/').unwrap_or_default();
    let ways = match path.strip_prefix("v1/") {
        Some(path) => [Some((Generation::V0_3, None, path)), None],
        None => {
            let below = path.split_once('/').filter(|(tenant, _)| is_id(tenant));
            [Some((Generation::V1_0, None, path)), below.map(|(tenant, path)| (Generation::V1_0, Some(tenant), path))]
        }
    };
    ways.into_iter().flatten().flat_map(|(generation, tenant, path)| {
        OPERATIONS.iter().filter_map(move |operation| {
            let task = matched(operation.names(generation).path, path)?;
            Some(Route { generation, named: Named { by_path: true, tenant, task }, operation })
        })
    })
}

/// Whether a path is as `pattern` says, and its task.
fn matched<'p>(pattern: &str, path: &'p str) -> Option<Option<&'p str>> {
    let (mut wanted, mut segments) = (pattern.split('/'), path.split('/'));
    let mut task = None;
    loop {
        match (wanted.next(), segments.next()) {
            (None, None) => return Some(task),
            (Some("{webhook}"), Some(segment)) if is_id(segment) => {}
            (Some(wanted), Some(segment)) => match wanted.strip_prefix("{task}") {
                Some(verb) => task = Some(segment.strip_suffix(verb).filter(|id| is_id(id))?),
                None if wanted == segment => {}
                None => return None,
            },
            _ => return None,
        }
    }
}

/// An id or a tenant as it is, not encoded: others are decoded by one server and compared as they are by another. A colon
/// begins a verb.
fn is_id(segment: &str) -> bool {
    !segment.is_empty() && !segment.contains(['%', ':'])
}

/// Reads a request; `path` is as it was sent, without query and without the prefix of the binding.
///
/// # Errors
/// [`Unreadable`] for the first rule that it breaks.
pub fn read<'a>(place: &Place<'a, '_>, path: &'a str) -> Result<Asked<'a>, Unreadable> {
    let routes: Vec<_> = routes(path).collect();
    let named = routes.first().ok_or(Reason::PathUnexpected)?.named;
    // `/tasks/tasks`: a task, or the tasks of a tenant.
    if routes.iter().any(|route| route.named != named) {
        return Err(Reason::PathAmbiguous.into());
    }
    let method = &*place.http.method;
    let route = routes.iter().find(|route| route.operation.verbs.contains(&method));
    let Route { generation, operation, .. } = route.ok_or(Reason::MethodUnsupported)?;
    let own = if method == "GET" { operation.query } else { &[] };
    let known: Vec<_> = own.iter().copied().chain([TENANT, service::VERSION]).collect();
    let query = query::read(&place.http.path, &known)?;
    service::agree(service::version(place.http, &query)?, *generation)?;
    let Json::Object(mut params) = body(place, operation, *generation)? else {
        return Err(Unreadable::because(Reason::ProtocolParamsMalformed, "the body is no object"));
    };
    for (name, value) in query.into_iter().filter(|(name, _)| DECIDING.contains(name)) {
        match params.iter().find(|(member, _)| member == name) {
            None => params.push((Cow::Borrowed(name), Json::String(value))),
            Some((_, said)) if said.as_str() == Some(&*value) => {}
            Some(_) => {
                return Err(Unreadable::because(Reason::ProtocolParamsMalformed, "query and body disagree"));
            }
        }
    }
    Ok(Asked { operation, generation: *generation, params: Json::Object(params), named })
}

const TENANT: &str = "tenant";
/// Parameters of a query that say what the call is about.
const DECIDING: &[&str] = &["contextId", TENANT];

/// The body as the parameters of the operation; without one there are none.
fn body<'a>(place: &Place<'a, '_>, operation: &Operation, generation: Generation) -> Result<Json<'a>, Unreadable> {
    let none = Json::Object(Vec::new());
    if place.http.method != "POST" {
        return if place.body.is_some() { Err(Reason::BodyUnexpected.into()) } else { Ok(none) };
    }
    let is_optional = operation.subject == Subject::Task;
    if is_optional && place.body.is_none() {
        return Ok(none);
    }
    let json = json_rpc::body(place, MEDIA_TYPES)?;
    // Clients of 0.3 write `null` where they have nothing to say.
    if is_optional && json == Json::Null {
        return Ok(none);
    }
    match generation {
        Generation::V1_0 => Ok(json),
        Generation::V0_3 => {
            let looks_alike = |reason| Unreadable::because(reason, "two members of the body are the same field");
            operation.old.message.renamed(json).map_err(looks_alike)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(path: &str) -> Vec<(&'static str, Generation, Option<&str>, Option<&str>)> {
        let one = |route: Route<'_>| (route.operation.action, route.generation);
        routes(path)
            .map(|route| (route.named.tenant, route.named.task, one(route)))
            .map(|(tenant, task, (action, generation))| (action, generation, tenant, task))
            .collect()
    }

    #[test]
    fn paths_are_taken_in_one_way() {
        use Generation::{V0_3, V1_0};
        assert_eq!(all("/message:send"), [("SendMessage", V1_0, None, None)]);
        assert_eq!(all("/v1/message:send"), [("SendMessage", V0_3, None, None)]);
        assert_eq!(all("/acme/message:send"), [("SendMessage", V1_0, Some("acme"), None)]);
        assert_eq!(all("/tasks/7"), [("GetTask", V1_0, None, Some("7"))]);
        assert_eq!(all("/acme/tasks/7:cancel"), [("CancelTask", V1_0, Some("acme"), Some("7"))]);
        let webhook = "/v1/tasks/7/pushNotificationConfigs/1";
        let actions: Vec<_> = all(webhook).into_iter().map(|(action, ..)| action).collect();
        assert_eq!(actions, ["GetTaskPushNotificationConfig", "DeleteTaskPushNotificationConfig"]);
    }

    #[test]
    fn other_paths_are_none() {
        for path in [
            "",
            "/",
            "/tasks/",
            "//tasks",
            "/tasks/7:stop",
            "/tasks/:cancel",
            "/tasks/a:b",
            "/tasks/a:b:cancel",
            "/tasks/a%20b",
            "/a:b/tasks",
            "/%61/tasks",
            "/v1",
            "/v1/acme/tasks",
            "/acme/v1/tasks",
            "/v1/extendedAgentCard",
            "/card",
            "/tasks/7/pushNotificationConfigs/",
            "/tasks/7/pushNotificationConfigs/a:b",
            "/Tasks",
            "/message:SEND",
            "/a/b/tasks",
            "/tasks/7/pushNotificationConfigs/1/2",
        ] {
            assert_eq!(all(path), [], "{path}");
        }
    }

    #[test]
    fn of_two_ways_none_is_chosen() {
        assert_eq!(all("/tasks/tasks").len(), 2);
    }
}
