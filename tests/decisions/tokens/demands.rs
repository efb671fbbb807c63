//! What policies demand of a token beside their conditions, what targets do, and how a caller learns of it.

use std::sync::Arc;

use palisade::authz::comparison::{self, Asked, Difference, Part};
use palisade::authz::decision::{Decision, Verdict};
use palisade::authz::facts::Facts;
use palisade::authz::identity::IdentitySource;
use palisade::authz::policy::Reference;
use palisade::authz::reason::Reason;
use palisade::authz::request::{Body, Request};
use palisade::authz::seal::Seal;
use palisade::authz::token::Tokens;
use palisade::authz::token::dpop::ALGORITHMS;
use palisade::authz::token::issuer::Unbound;
use palisade::authz::token::presented::Role;
use palisade::authz::token::verified::Rules;
use palisade::authz::{Active, Settings, authorize};
use palisade::envoy::response;
use serde_json::{Value, json};

use super::T0;
use super::caller::{BOT, own_rules, request, tokens};
use crate::support;

const METADATA: &str = "https://crm.example.org/.well-known/oauth-protected-resource/mcp";

/// The default bundle with more policies for the bot, and more about the target `crm`.
pub struct World {
    active: Active,
    reference: Reference,
}

/// The facts of the moment of all tests here, with these tokens.
pub fn facts(tokens: Tokens) -> Facts {
    Facts { tokens, ..support::facts("2026-11-20T00:00:00Z") }
}

impl World {
    /// `(BOT)` is the scope of the bot's calls; `target` stands for what the target says of tokens.
    pub fn new(policies: &[&str], target: &str) -> Self {
        Self::edited(policies, |targets| targets.replacen("tokens = \"verify\"", target, 1))
    }

    /// The same with other targets.
    pub fn edited(policies: &[&str], edit: impl Fn(&str) -> String) -> Self {
        let mut files = support::default_files();
        let scope =
            |policy: &&str| policy.replace("(BOT)", &format!("(principal == Agent::\"{BOT}\", action, resource)"));
        if !policies.is_empty() {
            files.insert("asked.cedar".into(), policies.iter().map(scope).collect::<String>().into_bytes());
        }
        let targets = edit(std::str::from_utf8(&files["targets.toml"]).unwrap());
        files.insert("targets.toml".into(), targets.into_bytes());
        let active = Active::Loaded(Box::new(support::load(&files).unwrap_or_else(|error| panic!("{error}"))));
        Self { active, reference: Reference::load(&support::sources(&files)).unwrap() }
    }

    fn ask(&self, request: &Request<'_>, tokens: Tokens) -> Decision {
        self.ask_as(BOT, request, tokens)
    }

    /// For the client `bot` at this workload.
    fn ask_as(&self, agent: &str, request: &Request<'_>, tokens: Tokens) -> Decision {
        let mut rules = own_rules(Unbound::Deny);
        rules.issuers.iter_mut().for_each(|issuer| drop(issuer.actors.insert("bot".into(), agent.into())));
        self.decide(rules, request, facts(tokens))
    }

    pub fn decide(&self, rules: Rules, request: &Request<'_>, facts: Facts) -> Decision {
        let settings = Settings { tokens: Arc::new(rules), seal: Seal::new(&[1; 32]), ..support::settings() };
        let decision = authorize(&self.active, &settings, IdentitySource::SourcePrincipal, request, &facts);
        assert_eq!(self.compare(&settings, request, &facts, &decision), Ok(()));
        decision
    }

    fn compare(
        &self,
        settings: &Settings,
        request: &Request,
        facts: &Facts,
        made: &Decision,
    ) -> Result<(), Difference> {
        let (bundle, source) = (support::loaded(&self.active), IdentitySource::SourcePrincipal);
        comparison::check(&self.reference, &Asked { bundle, settings, source, request, facts }, made)
    }

    fn of_user(&self, claims: &Value) -> Decision {
        self.ask(&request(""), tokens(&[(Role::User, json!({ "claims": claims }))]))
    }

    /// The part in which a decision differs from the right one for a user's token with these claims.
    #[track_caller]
    fn differs(&self, decision: &Decision, claims: &Value) -> Part {
        let settings = Settings { tokens: Arc::new(own_rules(Unbound::Deny)), ..support::settings() };
        let facts = facts(tokens(&[(Role::User, json!({ "claims": claims }))]));
        self.compare(&settings, &request(""), &facts, decision).unwrap_err().part
    }

    /// The code (`permit` for a permit) with the challenge, for a user's token with these claims.
    pub fn says(&self, claims: Value) -> (&'static str, String) {
        self.answer(&request(""), tokens(&[(Role::User, json!({ "claims": claims }))]))
    }

    pub fn answer(&self, request: &Request<'_>, tokens: Tokens) -> (&'static str, String) {
        let decision = self.ask(request, tokens);
        let challenge = challenge(&decision);
        (decision.reason().map_or("permit", Reason::code), challenge)
    }
}

/// `www-authenticate` without its `error_description` and the list of `algs`, joined if there are several; empty where there is none.
pub fn challenge(decision: &Decision) -> String {
    use envoy_types::pb::envoy::service::auth::v3::check_response::HttpResponse;
    let answer = response::build(decision, "id").message();
    let Some(HttpResponse::DeniedResponse(denied)) = answer.http_response else { return String::new() };
    let headers: Vec<_> = denied.headers.into_iter().filter_map(|option| option.header).collect();
    let said = headers.into_iter().filter(|header| header.key == "www-authenticate").map(|header| {
        let value = header.value.replace(&format!("algs=\"{ALGORITHMS}\""), "algs");
        match value.split_once(", error_description=\"") {
            Some((before, rest)) => before.to_owned() + rest.split_once('"').unwrap().1,
            None => value,
        }
    });
    said.collect::<Vec<_>>().join(", ")
}

fn at_metadata(method: &str, path: &str) -> Request<'static> {
    let mut request = request("");
    let http = request.http.as_mut().unwrap();
    (http.method, http.path, http.body) = (method.to_owned().into(), path.to_owned().into(), Body::Absent);
    http.headers = palisade::authz::request::Headers::new([("host", "crm.example.org")], false);
    request
}

/// A condition that never holds at the moment of these tests.
const NEVER: &str = "context.now < datetime(\"2020-01-01\")";

const STEP_UP: &str = "@id(\"p\") @reason(\"r\") @step_up(\"urn:mfa urn:hwk max_age=300\") permit (BOT);";

#[test]
fn a_permit_that_demands_a_login_counts_only_with_it() {
    let world = World::new(&[STEP_UP], "");
    let met = json!({"acr": "urn:hwk", "auth_time": T0 - 300});
    assert_eq!(world.says(met.clone()), ("permit", String::new()));
    let wanted = "Bearer error=\"insufficient_user_authentication\", acr_values=\"urn:mfa urn:hwk\", max_age=\"300\"";
    for claims in [
        json!({"acr": null, "auth_time": T0}),
        json!({"acr": "urn:pwd", "auth_time": T0}),
        json!({"acr": "urn:mfa", "auth_time": T0 - 301}),
        json!({"acr": "urn:mfa", "auth_time": null}),
    ] {
        assert_eq!(world.says(claims.clone()), ("step_up_required", wanted.to_owned()), "{claims}");
    }
    // Another permit that demands nothing suffices.
    let other = World::new(&[STEP_UP, "@id(\"q\") @reason(\"r\") permit (BOT);"], "");
    let decision = other.ask(&request(""), tokens(&[(Role::User, json!({"claims": {"acr": null}}))]));
    assert_eq!(support::policies(&decision), ["q"]);
    assert_eq!(decision.evaluations[0].demanding.iter().map(|policy| &*policy.id).collect::<Vec<_>>(), ["p"]);
    // And its condition has to hold as ever.
    let unmet = STEP_UP.replace(';', " when { context.now < datetime(\"2020-01-01\") };");
    assert_eq!(World::new(&[&unmet], "").says(met), ("no_policy_permits", String::new()));
}

#[test]
fn a_permit_that_demands_scopes_names_all_of_them() {
    let world = World::new(&["@id(\"p\") @reason(\"r\") @scopes(\"crm:read crm:export\") permit (BOT);"], "");
    assert_eq!(world.says(json!({"scope": "crm:export x crm:read"})).0, "permit");
    let wanted = "Bearer error=\"insufficient_scope\", scope=\"crm:read crm:export\"";
    for scope in [json!(null), json!(""), json!("crm:read"), json!("CRM:READ crm:export")] {
        assert_eq!(world.says(json!({"scope": scope})), ("scope_insufficient", wanted.to_owned()));
    }
    // With a login missing as well, one challenge says both.
    let both = World::new(&["@id(\"p\") @reason(\"r\") @step_up(\"mfa\") @scopes(\"a\") permit (BOT);"], "");
    let wanted = "Bearer error=\"insufficient_user_authentication\", acr_values=\"mfa\", scope=\"a\"";
    assert_eq!(both.says(json!({"acr": null, "scope": "b"})), ("step_up_required", wanted.to_owned()));
    // Without a token there is nothing to be wrong with it, and nobody learns what login opens what.
    assert_eq!(both.answer(&request(""), Tokens::Absent), ("token_absent", "Bearer scope=\"a\"".to_owned()));
    // Of several permits the first one tells.
    let two = World::new(
        &[
            "@id(\"p\") @reason(\"r\") @scopes(\"a b\") permit (BOT);",
            "@id(\"q\") @reason(\"r\") @scopes(\"c\") permit (BOT);",
        ],
        "",
    );
    assert_eq!(two.says(json!({"scope": "a"})).1, "Bearer error=\"insufficient_scope\", scope=\"a b\"");
    assert_eq!(two.says(json!({"scope": "c"})).0, "permit");
}

#[test]
fn a_forbid_says_how_to_be_rid_of_it() {
    let permit = "@id(\"p\") @reason(\"r\") @scopes(\"a\") permit (BOT);";
    let forbid = "@id(\"f\") @reason(\"r\") @step_up(\"mfa\") forbid (BOT) \
                  unless { context has session && context.session has acr && context.session.acr == \"mfa\" };";
    let world = World::new(&[permit, forbid], "");
    assert_eq!(world.says(json!({"acr": "mfa", "scope": "a"})).0, "permit");
    let wanted = "Bearer error=\"insufficient_user_authentication\", acr_values=\"mfa\"";
    assert_eq!(world.says(json!({"acr": "pwd", "scope": "a"})), ("step_up_required", wanted.to_owned()));
    // What the permit behind it demands is told as well, or the next answer would be no again.
    assert_eq!(world.says(json!({"acr": "pwd", "scope": "b"})).1, format!("{wanted}, scope=\"a\""));
    assert_eq!(world.says(json!({"acr": "mfa", "scope": "b"})).0, "scope_insufficient");

    // Two logins that are not one: nobody is sent to and fro between them.
    let hwk = "@id(\"h\") @reason(\"r\") @step_up(\"hwk\") permit (BOT);";
    assert_eq!(World::new(&[hwk, forbid], "").says(json!({"acr": "pwd"})).0, "policy_forbids");

    let plain = "@id(\"g\") @reason(\"r\") forbid (BOT);";
    let refused = ("policy_forbids", String::new());
    // No login helps where another forbid stands, where nothing permits, or where it is demanded and there.
    assert_eq!(World::new(&[permit, forbid, plain], "").says(json!({"acr": "pwd", "scope": "a"})), refused);
    assert_eq!(World::new(&[forbid], "").says(json!({"acr": "pwd"})), refused);
    let always = "@id(\"f\") @reason(\"r\") @step_up(\"mfa\") forbid (BOT);";
    assert_eq!(World::new(&[permit, always], "").says(json!({"acr": "mfa", "scope": "a"})), refused);
}

/// What policies demand is held against the token once more, by Cedar's own copy of them: whoever forgets it is found out.
#[test]
fn a_difference_in_what_is_demanded_is_seen() {
    let weaker = |decision: &Decision| {
        let mut decision = decision.clone();
        let Verdict::Denial(denial) = &mut decision.verdict else { panic!("{decision:?}") };
        denial.demands.as_mut().unwrap().acr_values.clear();
        decision
    };
    let scoped = "@id(\"q\") @reason(\"r\") @scopes(\"a\") permit (BOT);";
    let (strong, weak) = (json!({"acr": "urn:mfa", "auth_time": T0, "scope": "a"}), json!({"acr": null}));
    let scope_alone = json!({"scope": "a"});

    let permits = World::new(&[STEP_UP, scoped], "");
    let permit = permits.of_user(&strong);
    assert_eq!(permit.reason(), None);
    assert_eq!(permits.differs(&permit, &weak), Part::Decision, "permitted though no demand is met");
    assert_eq!(permits.differs(&permit, &scope_alone), Part::Policies, "one counted though it does not");
    let mut silent = permits.of_user(&scope_alone);
    silent.evaluations[0].demanding.clear();
    assert_eq!(permits.differs(&silent, &scope_alone), Part::Demands);
    let challenged = permits.of_user(&weak);
    assert_eq!(permits.differs(&challenged, &strong), Part::Decision, "asked for what is there");
    assert_eq!(permits.differs(&weaker(&challenged), &weak), Part::Demands, "asked for too little");

    let always = "@id(\"f\") @reason(\"r\") @step_up(\"urn:mfa\") forbid (BOT);";
    let forbids = World::new(&[scoped, always], "");
    let challenged = forbids.of_user(&weak);
    assert_eq!(forbids.differs(&challenged, &strong), Part::Decision, "no login is rid of it");
    assert_eq!(forbids.differs(&weaker(&challenged), &weak), Part::Decision, "too little");
    let plain = World::new(&[scoped, always, "@id(\"g\") @reason(\"r\") forbid (BOT);"], "");
    assert_eq!(plain.differs(&challenged, &weak), Part::Decision, "no login is rid of the other one");
}

/// A client looks for a challenge in status and headers, whatever else a target does with denials.
#[test]
fn a_challenge_is_no_answer_in_the_protocol() {
    for profile in ["json_rpc_200", "tool_error_200"] {
        let mut files = support::default_files();
        let targets = String::from_utf8(files["targets.toml"].clone()).unwrap();
        let targets = targets.replace("denial = \"http_403\"", &format!("denial = \"{profile}\""));
        files.insert("targets.toml".into(), targets.into_bytes());
        let policy = STEP_UP.replace("(BOT)", &format!("(principal == Agent::\"{BOT}\", action, resource)"));
        files.insert("asked.cedar".into(), policy.into_bytes());
        let active = Active::Loaded(Box::new(support::load(&files).unwrap()));
        let settings = Settings { tokens: Arc::new(own_rules(Unbound::Deny)), ..support::settings() };
        let (request, tokens) = (request(""), tokens(&[(Role::User, json!({}))]));
        let facts = Facts { tokens, ..support::facts("2026-11-20T00:00:00Z") };
        let decision = authorize(&active, &settings, IdentitySource::SourcePrincipal, &request, &facts);
        let Some((status, body)) =
            support::denied(&response::build(&decision, "id").message()).map(|(s, b)| (s, b.to_owned()))
        else {
            panic!("{decision:?}")
        };
        assert!(status == 401 && body.contains("\"id\":1") && body.contains("step_up_required"), "{status} {body}");
    }
}

const STEP_UP_URL: &str = "https://login.example.org/again?from=crm";

/// A call of the revision that has multi-round-trip requests, by a client with these capabilities.
fn with_rounds(capabilities: &Value, arguments: &Value, state: Option<&str>) -> Request<'static> {
    let meta = json!({"io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": capabilities});
    let mut params = json!({"name": "query_customers", "arguments": arguments, "_meta": meta});
    if let Some(state) = state {
        params["inputResponses"] = json!({state: {"action": "accept"}});
    }
    let body = json!({"jsonrpc": "2.0", "id": "r-7", "method": "tools/call", "params": params}).to_string();
    let mut request = request("");
    let http = request.http.as_mut().unwrap();
    let headers = [
        ("content-type", "application/json".to_owned()),
        ("content-length", body.len().to_string()),
        ("mcp-protocol-version", "2026-07-28".into()),
        ("mcp-method", "tools/call".into()),
        ("mcp-name", "query_customers".into()),
    ];
    http.headers = palisade::authz::request::Headers::new(headers, false);
    http.body = Body::Raw(body.into_bytes().into());
    request
}

#[test]
fn a_client_that_opens_urls_is_asked_inside_the_protocol() {
    let step_up = STEP_UP.replace("permit", "@scopes(\"a&b\") permit");
    let world = World::new(&[&step_up], &format!("step_up_url = \"{STEP_UP_URL}\""));
    let (able, arguments) =
        (json!({"elicitation": {"url": {}, "form": {}}}), json!({"segment": "startup", "limit": 3}));
    let weak = || tokens(&[(Role::User, json!({}))]);
    let strong = || tokens(&[(Role::User, json!({"claims": {"acr": "urn:mfa", "auth_time": T0, "scope": "a&b"}}))]);
    let decision = world.ask(&with_rounds(&able, &arguments, None), weak());
    assert_eq!(decision.reason(), Some(Reason::StepUpRequired));
    let answer = response::build(&decision, "id-1").message();
    assert_ne!(answer.status.as_ref().unwrap().code, 0, "Envoy must not let it through");
    let (status, body) = support::denied(&answer).unwrap();
    let body: Value = serde_json::from_str(body).unwrap();
    assert_eq!((status, challenge(&decision)), (200, String::new()));
    let state = body["result"]["inputRequests"].as_object().unwrap().keys().next().unwrap().clone();
    let url = format!("{STEP_UP_URL}&decision_id=id-1&acr_values=urn%3Amfa%20urn%3Ahwk&max_age=300&scope=a%26b");
    let request = json!({"method": "elicitation/create", "params":
        {"mode": "url", "message": "a fresher or stronger login is needed", "url": url}});
    let expected = json!({"jsonrpc": "2.0", "id": "r-7", "result":
        {"resultType": "input_required", "inputRequests": {state.clone(): request}}});
    assert_eq!(body, expected);

    // It comes back with the state and a new token; in whichever order the arguments are written.
    let again =
        |arguments: &Value, state: &str, tokens| world.answer(&with_rounds(&able, arguments, Some(state)), tokens).0;
    assert_eq!(again(&arguments, &state, strong()), "permit");
    assert_eq!(again(&json!({"limit": 3, "segment": "startup"}), &state, strong()), "permit");
    // The state permits nothing by itself.
    assert_eq!(again(&arguments, &state, weak()), "step_up_required");
    assert_eq!(again(&arguments, &state, Tokens::Absent), "token_absent");
    // It is for this call alone, as long as it is whole. Those of others are the target's business.
    assert_eq!(again(&json!({"segment": "startup", "limit": 4}), &state, strong()), "request_state_invalid");
    assert_eq!(again(&arguments, &state[..state.len() - 1], strong()), "request_state_invalid");
    // What another instance sealed is passed over: no state permits anything.
    assert_eq!(again(&arguments, "palisade.v1.", strong()), "permit");
    assert_eq!(again(&arguments, "palisade.v1.AAAAAAAA.1.AAAA", weak()), "step_up_required");
    assert_eq!(again(&arguments, "somebody else's", strong()), "permit");
    assert_eq!(again(&arguments, "", strong()), "permit");
    // Another caller's.
    let other = "spiffe://example.org/ns/agents/sa/other-bot";
    let mut stolen = with_rounds(&able, &arguments, Some(&state));
    stolen.source_principal = other.into();
    assert_eq!(world.ask_as(other, &stolen, strong()).reason(), Some(Reason::RequestStateInvalid));
    // Too late.
    let mut late = facts(strong());
    late.now += jiff::SignedDuration::from_secs(600);
    let back = with_rounds(&able, &arguments, Some(&state));
    assert_eq!(world.decide(own_rules(Unbound::Deny), &back, late.clone()).reason(), Some(Reason::RequestStateInvalid));
    late.now -= jiff::SignedDuration::from_secs(1);
    assert_ne!(world.decide(own_rules(Unbound::Deny), &back, late).reason(), Some(Reason::RequestStateInvalid));

    // Who cannot be asked gets the challenge: no capability, another one, none for URLs, one that is no object.
    for unable in [
        json!({}),
        json!({"elicitation": {}}),
        json!({"elicitation": {"form": {}}}),
        json!({"elicitation": {"url": true}}),
        json!({"url": {}}),
    ] {
        let decision = world.ask(&with_rounds(&unable, &arguments, None), weak());
        assert!(challenge(&decision).starts_with("Bearer error=\"insufficient_user_authentication\""), "{unable}");
    }
    assert!(challenge(&world.ask(&self::request(""), weak())).starts_with("Bearer"), "an older revision");
    let without = World::new(&[&step_up], "");
    assert!(challenge(&without.ask(&with_rounds(&able, &arguments, None), weak())).starts_with("Bearer"));
    // Scopes alone are the client's own to get, without its user.
    let scopes = World::new(
        &["@id(\"p\") @reason(\"r\") @scopes(\"a\") permit (BOT);"],
        &format!("step_up_url = \"{STEP_UP_URL}\""),
    );
    let decision = scopes.ask(&with_rounds(&able, &arguments, None), weak());
    assert!(challenge(&decision).starts_with("Bearer error=\"insufficient_scope\""));
}

#[test]
fn answers_that_are_ambiguous_are_unreadable() {
    let world = World::new(&[], "");
    for responses in ["1", "null", "[]", "\"palisade.v1.\"", "{\"palisade.v1.a\": {}, \"palisade.v1.b\": {}}"] {
        let mut request = with_rounds(&json!({}), &json!({}), Some("x"));
        let http = request.http.as_mut().unwrap();
        let body = String::from_utf8(http.body.bytes().unwrap().to_vec()).unwrap();
        let body = body.replace("{\"x\":{\"action\":\"accept\"}}", responses);
        assert!(body.contains(responses), "{body}");
        let length =
            |name: &str, value: &str| if name == "content-length" { body.len().to_string() } else { value.to_owned() };
        let headers: Vec<(String, String)> =
            http.headers.iter().map(|(name, value)| (name.to_owned(), length(name, value))).collect();
        http.headers = palisade::authz::request::Headers::new(headers, false);
        http.body = Body::Raw(body.into_bytes().into());
        assert_eq!(world.answer(&request, Tokens::Absent).0, "protocol_params_malformed", "{responses}");
    }
}

#[test]
fn a_target_asks_for_a_token_and_says_where_to_get_one() {
    let permit = "@id(\"p\") @reason(\"r\") permit (BOT);";
    let world = World::new(&[permit], &format!("tokens = \"require\"\nresource_metadata = \"{METADATA}\""));
    let bearer = format!("Bearer resource_metadata=\"{METADATA}\"");
    assert_eq!(world.answer(&request(""), Tokens::Absent), ("token_absent", bearer));
    assert_eq!(world.says(json!({})).0, "permit");
    let own = tokens(&[(Role::Agent, json!({"claims": {"sub": "bot", "act": null}}))]);
    assert_eq!(world.answer(&request(""), own).0, "permit");

    // The metadata itself is there without one, as an endpoint of the target that policies decide about.
    let path = "/.well-known/oauth-protected-resource/mcp";
    for method in ["GET", "HEAD", "OPTIONS"] {
        let decision = world.ask(&at_metadata(method, path), Tokens::Absent);
        assert_eq!(decision.reason(), None, "{method}");
        assert_eq!(decision.evaluations[0].action, method);
        assert_eq!(decision.evaluations[0].resource_text(), format!("Endpoint::\"crm{path}\""));
    }
    for (method, path, code) in [
        ("POST", path, "method_unsupported"),
        ("DELETE", path, "method_unsupported"),
        ("GET", "/.well-known/oauth-protected-resource", "target_unknown"),
        ("GET", "/.well-known/oauth-protected-resource/mcp/", "target_unknown"),
        ("GET", "/.well-known/oauth-protected-resource/mcp/x", "target_unknown"),
        ("GET", "/.well-known/oauth-protected-resource/../../mcp", "path_ambiguous"),
        ("GET", "/mcp", "token_absent"),
    ] {
        assert_eq!(world.answer(&at_metadata(method, path), Tokens::Absent).0, code, "{method} {path}");
    }
    let mut with_body = at_metadata("GET", path);
    with_body.http.as_mut().unwrap().body = Body::Raw(b"{}".to_vec().into());
    assert_eq!(world.answer(&with_body, Tokens::Absent).0, "body_unexpected");
    // A token that is bad is bad here as well.
    let bad = Tokens::Failed(super::verified(&serde_json::from_value(json!({"raw": "x"})).unwrap()).unwrap_err());
    assert_eq!(world.answer(&at_metadata("GET", path), bad).0, "token_malformed");
    // Without a policy nothing is reachable.
    let unpermitted = World::new(&[], &format!("tokens = \"require\"\nresource_metadata = \"{METADATA}\""));
    for method in ["GET", "HEAD", "OPTIONS"] {
        assert_eq!(unpermitted.answer(&at_metadata(method, path), Tokens::Absent).0, "no_policy_permits", "{method}");
    }
}

/// A denial that asks for a login is a denial: no demand ever permits what a condition does not.
#[test]
fn demands_only_take_away() {
    let demands = ["", "@step_up(\"mfa\")", "@scopes(\"a\")", "@step_up(\"mfa max_age=60\") @scopes(\"a b\")"];
    let conditions = ["true", NEVER, "context has session && context.session has acr"];
    let claims =
        [json!({}), json!({"acr": "mfa", "auth_time": T0, "scope": "a b"}), json!({"acr": "mfa", "scope": "a"})];
    let mut worlds = Vec::new();
    for on in conditions {
        for forbidden in ["false", "true"] {
            for permit in demands {
                worlds.extend(demands.map(|forbid| (on, forbidden == "true", permit, forbid)));
            }
        }
    }
    // Each world is an agent of its own in one bundle.
    let agent = |at: usize| format!("spiffe://example.org/ns/agents/sa/bot-{at}");
    let policy = |at: usize, id: &str, demand: &str, effect: &str, on: &str| {
        let scope = format!("principal == Agent::\"{}\", action, resource", agent(at));
        format!("@id(\"{id}{at}\") @reason(\"r\") {demand} {effect} ({scope}) when {{ {on} }};\n")
    };
    let written = worlds.iter().enumerate().map(|(at, (on, is_forbidden, permit, forbid))| {
        let forbidden = if *is_forbidden { on } else { NEVER };
        policy(at, "p", permit, "permit", on) + &policy(at, "f", forbid, "forbid", forbidden)
    });
    let written: Vec<String> = written.collect();
    let world = World::new(&written.iter().map(String::as_str).collect::<Vec<_>>(), "");
    let mut permitted = 0;
    for (at, (on, is_forbidden, permit, forbid)) in worlds.iter().enumerate() {
        for claims in &claims {
            let mut request = request("");
            request.source_principal = agent(at).into();
            let decision = world.ask_as(&agent(at), &request, tokens(&[(Role::User, json!({ "claims": claims }))]));
            let holds = match *on {
                NEVER => false,
                "true" => true,
                _ => claims.get("acr").is_some(),
            };
            let is_permit = matches!(decision.verdict, Verdict::Permit(_));
            permitted += usize::from(is_permit);
            assert!(!is_permit || holds && !is_forbidden, "{on} {is_forbidden} {permit} {forbid} {claims}");
            if permit.is_empty() && !is_forbidden {
                assert_eq!(is_permit, holds, "{on} {permit} {forbid} {claims}");
            }
        }
    }
    assert!(permitted > 40, "{permitted}");
}
