//! What a token proves of whoever presents it, as policies see it.

use std::sync::Arc;

use palisade::authz::comparison;
use palisade::authz::decision::Decision;
use palisade::authz::facts::Facts;
use palisade::authz::identity::IdentitySource;
use palisade::authz::policy::Reference;
use palisade::authz::reason::Reason;
use palisade::authz::request::{Body, Connection, Headers, HttpRequest, Request};
use palisade::authz::token::dpop::Expected;
use palisade::authz::token::holder::hold;
use palisade::authz::token::issuer::Unbound;
use palisade::authz::token::presented::{Place, Presented, Role, Scheme, find};
use palisade::authz::token::verified::Rules;
use palisade::authz::token::{Believed, Tokens};
use palisade::authz::{Active, Settings, authorize};
use palisade::sessions::Sessions;
use serde_json::{Value, json};

use super::{Change, T0, rules, verified};
use crate::support;

pub const BOT: &str = "spiffe://example.org/ns/agents/sa/token-bot";
/// A self-signed certificate, and SHA-256 of its DER in base64url.
const CERTIFICATE: &str = "-----BEGIN%20CERTIFICATE-----%0AAAECAwQF%0A-----END%20CERTIFICATE-----%0A";
const DIGEST: &str = "F-iNsYev1iwW5d6_PmUnzQBrwBK8kLUagQzYDC1RH0M";

/// The client `bot` is the workload of these tests.
pub fn own_rules(unbound: Unbound) -> Rules {
    let mut rules = rules();
    for issuer in &mut rules.issuers {
        issuer.actors.insert("bot".into(), BOT.into());
        issuer.unbound = unbound;
    }
    rules
}

pub fn change(change: Value) -> Change {
    serde_json::from_value(change).unwrap()
}

pub fn tokens(all: &[(Role, Value)]) -> Tokens {
    let token = |(role, of): &(Role, Value)| {
        let token = Arc::new(verified(&change(of.clone())).unwrap());
        Believed { role: *role, scheme: Scheme::Bearer, token }
    };
    Tokens::Verified(all.iter().map(token).collect())
}

pub fn request(certificate: &'static str) -> Request<'static> {
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call",
        "params": {"name": "query_customers", "arguments": {"segment": "startup"}}});
    let body = body.to_string();
    let headers = [("content-type", "application/json".to_owned()), ("content-length", body.len().to_string())];
    let http = HttpRequest {
        method: "POST".into(),
        path: "/mcp".into(),
        host: "crm.example.org".into(),
        headers: Headers::new(headers, false),
        body: Body::Raw(body.into_bytes().into()),
    };
    Request {
        source_principal: BOT.into(),
        source_certificate: certificate.into(),
        destination_principal: "spiffe://example.org/ns/tools/sa/crm".into(),
        target_extension: None,
        connection: Connection::default(),
        http: Some(http),
    }
}

const USERS: &str = r#"[
    {"uid": {"type": "UserGroup", "id": "sellers"}, "attrs": {}, "parents": [{"type": "UserGroup", "id": "staff"}]},
    {"uid": {"type": "UserGroup", "id": "staff"}, "attrs": {}, "parents": []},
    {"uid": {"type": "UserGroup", "id": "idp/crm"}, "attrs": {}, "parents": [{"type": "UserGroup", "id": "sellers"}]},
    {"uid": {"type": "User", "id": "idp/alice"}, "attrs": {"issuer": "https://idp.example", "subject": "alice"},
     "parents": [{"type": "UserGroup", "id": "staff"}]}]"#;

/// A bundle with a permit for each of some conditions, beside one that always holds.
pub struct World {
    active: Active,
    references: [Reference; 2],
}

impl World {
    pub fn new<'c>(conditions: impl IntoIterator<Item = &'c str>) -> Self {
        Self::edited(conditions, str::to_owned)
    }

    /// The same with other targets.
    pub fn edited<'c>(conditions: impl IntoIterator<Item = &'c str>, edit: impl Fn(&str) -> String) -> Self {
        let mut files = support::default_files();
        let targets = edit(std::str::from_utf8(&files["targets.toml"]).unwrap());
        files.insert("targets.toml".into(), targets.into_bytes());
        let policy = |(at, condition): (usize, &str)| {
            format!(
                "@id(\"asked {at}\") @reason(\"r\") permit (principal == Agent::\"{BOT}\", \
                 action == Action::\"crm/query_customers\", resource) when {{ {condition} }};\n"
            )
        };
        let policies: String = conditions.into_iter().chain(["true"]).enumerate().map(policy).collect();
        files.insert("asked.cedar".into(), policies.into_bytes());
        files.insert("users.entities.json".into(), USERS.as_bytes().to_vec());
        let sources = support::sources(&files);
        let active = Active::Loaded(Box::new(support::load(&files).unwrap_or_else(|error| panic!("{error}"))));
        let references = [Reference::load(&sources).unwrap(), Reference::load_without_entities(&sources).unwrap()];
        Self { active, references }
    }

    /// As Palisade decides it, and as Cedar's own authorizer does.
    pub fn decide(&self, rules: Rules, certificate: &'static str, tokens: Tokens) -> Decision {
        self.decide_request(&Arc::new(rules), &request(certificate), tokens)
    }

    /// The same of any request.
    pub fn decide_request(&self, rules: &Arc<Rules>, request: &Request<'_>, tokens: Tokens) -> Decision {
        let settings = Settings { tokens: rules.clone(), ..support::settings() };
        let source = IdentitySource::SourcePrincipal;
        let facts = Facts { tokens, ..support::facts("2026-11-20T00:00:00Z") };
        assert_eq!(facts.now.as_second(), T0);
        let decision = authorize(&self.active, &settings, source, request, &facts);
        let bundle = support::loaded(&self.active);
        let asked = comparison::Asked { bundle, settings: &settings, source, request, facts: &facts };
        for reference in &self.references {
            assert_eq!(comparison::check(reference, &asked, &decision), Ok(()));
        }
        decision
    }

    /// Whether the condition at a place holds for these tokens.
    fn holds(&self, at: usize, tokens: Tokens) -> bool {
        let decision = self.decide(own_rules(Unbound::Deny), "", tokens);
        assert_eq!(decision.reason(), None);
        support::policies(&decision).contains(&format!("asked {at}"))
    }
}

fn check(cases: &[(&str, Value, bool)]) {
    let world = World::new(cases.iter().map(|(condition, ..)| *condition));
    for (at, (condition, claims, expected)) in cases.iter().enumerate() {
        let of = tokens(&[(Role::User, json!({ "claims": claims }))]);
        assert_eq!(world.holds(at, of), *expected, "{condition} with {claims}");
    }
}

#[test]
fn a_user_is_an_entity_with_groups_and_claims() {
    check(&[
        ("context has user && context.user == User::\"idp/alice\"", json!({}), true),
        (
            "context has user && context.user.issuer == \"https://idp.example\" && context.user.subject == \"alice\"",
            json!({}),
            true,
        ),
        ("context has user && context.user == User::\"partner/alice\"", json!({}), false),
        // Groups of the token, under the name of its issuer, and what they are in.
        ("context has user && context.user in UserGroup::\"idp/crm\"", json!({"groups": ["crm", "other"]}), true),
        ("context has user && context.user in UserGroup::\"idp/crm\"", json!({"groups": "crm"}), true),
        ("context has user && context.user in UserGroup::\"idp/crm\"", json!({"groups": ["CRM"]}), false),
        ("context has user && context.user in UserGroup::\"sellers\"", json!({"groups": ["crm"]}), true),
        // A token cannot name a group of the operator's, or of another issuer.
        (
            "context has user && context.user in UserGroup::\"sellers\"",
            json!({"groups": ["sellers", "../sellers"]}),
            false,
        ),
        (
            "context has user && context.user in UserGroup::\"partner/crm\"",
            json!({"groups": ["partner/crm", "crm"]}),
            false,
        ),
        // Groups of the bundle's entry.
        ("context has user && context.user in UserGroup::\"staff\"", json!({}), true),
        ("context has user && context.user in UserGroup::\"staff\"", json!({"sub": "bob"}), false),
        // Claims as tags.
        (
            "context has user && context.user.hasTag(\"dept\") && context.user.getTag(\"dept\").contains(\"7\")",
            json!({"dept": 7}),
            true,
        ),
        (
            "context has user && context.user.hasTag(\"roles\") && context.user.getTag(\"roles\").contains(\"b\")",
            json!({"roles": ["a", "b"]}),
            true,
        ),
        ("context has user && context.user.hasTag(\"nested\")", json!({"nested": {"a": 1}}), false),
        ("context has user && (context.user.hasTag(\"jti\") || context.user.hasTag(\"cnf\"))", json!({}), false),
        // The token of a client that acts for itself names no user.
        ("context has user || context has delegation", json!({"sub": "bot"}), false),
        ("context has session", json!({"sub": "bot"}), true),
    ]);
}

#[test]
fn delegation_scopes_and_session_are_what_the_token_says() {
    let actor = |next: Value| json!({"sub": BOT, "act": next});
    check(&[
        ("context has delegation && context.delegation.depth == 1 && context.delegation.unbroken", json!({}), true),
        (
            "context has delegation && context.delegation.actor == principal.spiffe_id",
            json!({"act": {"sub": BOT}}),
            true,
        ),
        // What stands behind the current actor is somebody's word: it breaks the chain, and grants nothing.
        (
            "context has delegation && context.delegation.depth == 2",
            json!({"act": actor(json!({"sub": "planner"}))}),
            true,
        ),
        (
            "context has delegation && context.delegation.unbroken",
            json!({"act": actor(json!({"sub": "planner"}))}),
            false,
        ),
        ("context has scopes && context.scopes.contains(\"crm:read\")", json!({"scope": "crm:read crm:write"}), true),
        ("context has scopes && context.scopes.contains(\"crm\")", json!({"scope": "crm:read"}), false),
        ("context has scopes && context.scopes.isEmpty()", json!({"scope": ""}), true),
        ("context has scopes", json!({}), false),
        (
            "context has session && context.session has acr && context.session.acr == \"mfa\"",
            json!({"acr": "mfa"}),
            true,
        ),
        ("context has session && context.session has acr", json!({}), false),
        ("context has session && context.session.amr.contains(\"otp\")", json!({"amr": ["pwd", "otp"]}), true),
        ("context has session && context.session.amr.isEmpty()", json!({}), true),
        ("context has session && context.session has id && context.session.id == \"s1\"", json!({"sid": "s1"}), true),
        (
            "context has session && context.session has auth_time && \
             context.now.durationSince(context.session.auth_time) <= duration(\"10m\")",
            json!({"auth_time": T0 - 600}),
            true,
        ),
        (
            "context has session && context.session has auth_time && \
             context.now.durationSince(context.session.auth_time) <= duration(\"10m\")",
            json!({"auth_time": T0 - 601}),
            false,
        ),
        ("context has session && context.session.expires == datetime(\"2026-11-20T00:10:00Z\")", json!({}), true),
        ("context has session && context.session.bound", json!({}), true),
        ("context has session && context.session.issuer == \"idp\"", json!({}), true),
        ("context has session && context.session.audiences.contains(\"https://crm.example/mcp\")", json!({}), true),
    ]);
}

/// Without tokens nothing of them is in the context, and what comes from the agent's own token stands where the user's is
/// missing.
#[test]
fn the_user_s_token_comes_before_the_agent_s_own() {
    let none = "context has user || context has delegation || context has scopes || context has session";
    let scope = |name: &str| format!("context has scopes && context.scopes.contains(\"{name}\")");
    let world = World::new([none, &scope("a"), &scope("b"), "context has user"]);
    assert!(!world.holds(0, Tokens::Absent));
    let user = (Role::User, json!({"claims": {"scope": "a"}}));
    let agent = (Role::Agent, json!({"claims": {"sub": "bot", "scope": "b"}}));
    let both = tokens(&[user, agent.clone()]);
    assert!(world.holds(1, both.clone()) && !world.holds(2, both.clone()) && world.holds(3, both));
    let own = tokens(&[agent]);
    assert!(world.holds(2, own.clone()) && !world.holds(3, own));
}

/// Who may stand where: a workload's token is no user's, a user's is no agent's own.
#[test]
fn a_token_counts_in_its_own_role_alone() {
    let world = World::new([]);
    let reason = |all: &[(Role, Value)]| world.decide(own_rules(Unbound::Accept), "", tokens(all)).reason();
    let svid = json!({"header": {"kid": "svid", "alg": "ES256", "typ": "JWT"}, "sign": "svid",
        "claims": {"iss": null, "sub": "spiffe://partner.example/ns/a/sa/b", "aud": "palisade", "client_id": null}});
    assert_eq!(reason(&[(Role::User, svid.clone())]), Some(Reason::TokenTypeRefused));
    assert_eq!(reason(&[(Role::Agent, svid)]), Some(Reason::TokenActorMismatch));
    let user = json!({});
    assert_eq!(reason(&[(Role::Agent, user.clone())]), Some(Reason::TokenTypeRefused));
    let own = json!({"claims": {"sub": "bot"}});
    assert_eq!(reason(&[(Role::User, user), (Role::Agent, own)]), None);
}

/// What names a workload, or says that it is about nobody, is no user: there would be no human behind the delegation.
#[test]
fn an_agent_s_own_token_is_no_user_s() {
    let world = World::new(["context has user || context has delegation"]);
    let has_user = |claims: Value, rules: Rules| {
        let decision = world.decide(rules, "", tokens(&[(Role::User, json!({ "claims": claims }))]));
        assert_eq!(decision.reason(), None);
        support::policies(&decision).contains(&"asked 0".to_owned())
    };
    let rules = || own_rules(Unbound::Accept);
    assert!(has_user(json!({}), rules()));
    assert!(!has_user(json!({"sub": BOT, "client_id": "bot"}), rules()), "a SPIFFE ID");
    assert!(!has_user(json!({"sub": "bot", "client_id": BOT}), rules()), "mapped to one");
    let with_user_claims = || {
        let mut rules = rules();
        rules.issuers.iter_mut().for_each(|issuer| issuer.user_claims = vec!["sid".into(), "auth_time".into()]);
        rules
    };
    assert!(!has_user(json!({"sub": "service-account-bot"}), with_user_claims()));
    assert!(has_user(json!({"sid": "s"}), with_user_claims()));
    let without_client = || {
        let mut rules = rules();
        rules.issuers.iter_mut().for_each(|issuer| issuer.required_claims.clear());
        rules
    };
    let token = super::verify(
        &super::token(&change(json!({"claims": {"client_id": null}}))),
        Role::User,
        &without_client(),
        &super::keyring(),
        T0,
    );
    let believed = Believed { role: Role::User, scheme: Scheme::Bearer, token: Arc::new(token.unwrap()) };
    let decision = world.decide(without_client(), "", Tokens::Verified(vec![believed]));
    assert!(!support::policies(&decision).contains(&"asked 0".to_owned()), "nobody says who may use it");
}

/// Behind a waypoint the certificate in the check is the waypoint's; the caller's is the one whose digest the header has.
#[test]
fn a_waypoint_s_certificate_binds_nothing() {
    const HASH: &str = "17e88db187afd62c16e5debf3e6527cd006bc012bc90b51a810cd80c2d511f43";
    let world = World::new([]);
    let settings = Settings { tokens: Arc::new(own_rules(Unbound::Deny)), ..support::settings() };
    let reason = |source, before: &str, hash: &str| {
        let mut request = request(CERTIFICATE);
        let mut http = request.http.take().unwrap();
        let xfcc = format!("{before}By=spiffe://example.org/ns/mesh/sa/waypoint;{hash}URI={BOT}");
        let fields: Vec<(String, String)> =
            http.headers.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        http.headers = Headers::new(fields.into_iter().chain([("x-forwarded-client-cert".to_owned(), xfcc)]), false);
        request.http = Some(http);
        let of = json!({"claims": {"client_id": "unmapped", "cnf": {"x5t#S256": DIGEST}}});
        let tokens = tokens(&[(Role::User, of)]);
        let facts = Facts { tokens, ..support::facts("2026-11-20T00:00:00Z") };
        authorize(&world.active, &settings, source, &request, &facts).reason()
    };
    let forwarded = |before: &str, hash: &str| reason(IdentitySource::Xfcc, before, hash);
    let good = format!("Hash={HASH};");
    assert_eq!(reason(IdentitySource::SourcePrincipal, "", ""), None);
    assert_eq!(forwarded("", &good), None);
    let mismatch = Some(Reason::TokenBindingMismatch);
    assert_eq!(forwarded("", ""), mismatch, "the waypoint's own");
    assert_eq!(forwarded(&format!("{good}URI={BOT},"), ""), mismatch, "what the peer sent");
    for wrong in
        [format!("Hash={};", &HASH[..62]), format!("Hash=\"{HASH} \";"), HASH.replacen("17", "18", 1), "Hash=;".into()]
    {
        let wrong = if wrong.starts_with("Hash") { wrong } else { format!("Hash={wrong};") };
        assert_eq!(forwarded("", &wrong), mismatch, "{wrong}");
    }
    assert_eq!(forwarded("", &format!("{good}{good}")), Some(Reason::IdentityMalformed));
    // Where the connection is the caller's, the header is what the caller sent.
    assert_eq!(reason(IdentitySource::SourcePrincipal, "", &good.replace('1', "2")), None);
}

/// A token is worth nothing to anybody but the workload that it was issued to.
#[test]
fn a_token_counts_for_its_own_workload_alone() {
    let with = |claims: Value| json!({ "claims": claims });
    let svid = |subject: &str| {
        json!({"header": {"kid": "svid", "alg": "ES256", "typ": "JWT"}, "sign": "svid",
            "claims": {"iss": null, "sub": subject, "aud": "palisade", "client_id": null, "jti": null}})
    };
    let other = "spiffe://example.org/ns/agents/sa/other";
    let (deny, accept) = (Unbound::Deny, Unbound::Accept);
    let bound = |digest: &str| json!({"client_id": "unmapped", "cnf": {"x5t#S256": digest}});
    let cases = [
        (with(json!({})), "", deny, None),
        (with(json!({"client_id": BOT})), "", deny, None),
        (with(json!({"act": {"sub": "bot"}})), "", deny, None),
        // Presented by somebody else.
        (with(json!({"client_id": other})), "", accept, Some(Reason::TokenActorMismatch)),
        (with(json!({"act": {"sub": other}})), "", accept, Some(Reason::TokenActorMismatch)),
        (with(json!({"act": {"sub": "unmapped"}})), "", accept, Some(Reason::TokenActorMismatch)),
        // The current actor alone counts, not those before it, and not the client.
        (with(json!({"act": {"sub": other, "act": {"sub": BOT}}})), "", accept, Some(Reason::TokenActorMismatch)),
        // Bound to nobody.
        (with(json!({"client_id": "unmapped"})), "", deny, Some(Reason::TokenUnbound)),
        (with(json!({"client_id": "unmapped"})), "", accept, None),
        // Bound to a certificate.
        (with(bound(DIGEST)), CERTIFICATE, deny, None),
        (with(bound(DIGEST)), "", accept, Some(Reason::TokenBindingMismatch)),
        (with(bound(DIGEST)), "no%20PEM", accept, Some(Reason::TokenBindingMismatch)),
        (with(bound(&"A".repeat(43))), CERTIFICATE, accept, Some(Reason::TokenBindingMismatch)),
        // Bound to a key.
        (with(json!({"cnf": {"jkt": "A".repeat(43)}})), "", accept, Some(Reason::TokenSchemeMismatch)),
        // A JWT-SVID is the workload's own.
        (svid("spiffe://partner.example/ns/a/sa/b"), "", accept, Some(Reason::TokenTypeRefused)),
        // An actor is known by its issuer as well.
        (with(json!({"act": {"sub": "bot", "iss": "https://idp.example"}})), "", deny, None),
        (
            with(json!({"act": {"sub": "bot", "iss": "https://partner.example"}})),
            "",
            accept,
            Some(Reason::TokenActorMismatch),
        ),
    ];
    let world = World::new([]);
    for (of, certificate, unbound, expected) in cases {
        let decision = world.decide(own_rules(unbound), certificate, tokens(&[(Role::User, of.clone())]));
        assert_eq!(decision.reason(), expected, "{of}");
        assert_eq!(decision.caller.map(|agent| agent.to_string()).as_deref(), Some(BOT), "who asks stays on record");
    }
}

#[test]
fn where_a_token_may_stand() {
    let places = [("authorization", Role::User), ("x-agent-token", Role::Agent)]
        .map(|(header, role)| Place { header: header.into(), role });
    let http = |path: &'static str, headers: &[(&'static str, &'static str)]| HttpRequest {
        path: path.into(),
        headers: Headers::new(headers.iter().copied(), false),
        ..HttpRequest::default()
    };
    let good = http("/mcp?a=1", &[("authorization", "bEARER a.b.c"), ("x-agent-token", "d.e.f")]);
    let presented = |role, scheme, text| Presented { role, scheme, text };
    assert_eq!(
        find(&good, &places),
        Ok(vec![presented(Role::User, Scheme::Bearer, "a.b.c"), presented(Role::Agent, Scheme::Bearer, "d.e.f")])
    );
    assert_eq!(find(&good, &[]), Ok(Vec::new()), "nothing is looked for unless configured");
    let dpop = http("/", &[("authorization", "DPoP a.b.c")]);
    assert_eq!(find(&dpop, &places), Ok(vec![presented(Role::User, Scheme::Dpop, "a.b.c")]));
    assert_eq!(find(&http("/", &[]), &places), Ok(Vec::new()));

    for (path, headers, reason) in [
        ("/", &[("authorization", "Basic YTpi")][..], Reason::TokenSchemeUnsupported),
        ("/", &[("authorization", "a.b.c")], Reason::TokenSchemeUnsupported),
        ("/", &[("authorization", "")], Reason::TokenSchemeUnsupported),
        ("/", &[("authorization", "Bearer")], Reason::TokenMalformed),
        ("/", &[("authorization", "Bearer ")], Reason::TokenMalformed),
        ("/", &[("x-agent-token", "")], Reason::TokenMalformed),
        ("/", &[("authorization", "Bearer a"), ("authorization", "Bearer b")], Reason::HeaderDuplicate),
        ("/", &[("x-agent-token", "a"), ("x-agent-token", "a")], Reason::HeaderDuplicate),
        ("/mcp?access_token=a.b.c", &[], Reason::TokenInQuery),
        ("/", &[("x-agent-token", "a"), ("x_agent_token", "b")], Reason::HeaderOverride),
        ("/", &[("x-agent_token", "b")], Reason::HeaderOverride),
        ("/mcp?a=1&ACCESS%5Ftoken=a.b.c", &[("authorization", "Bearer a")], Reason::TokenInQuery),
        ("/mcp?a=1;access_token", &[], Reason::TokenInQuery),
    ] {
        let refused = find(&http(path, headers), &places).unwrap_err();
        assert_eq!(refused.reason, reason, "{path} {headers:?}");
    }
    let twice = ["authorization", "x-agent-token"].map(|header| Place { header: header.into(), role: Role::User });
    assert_eq!(find(&good, &twice).unwrap_err().reason, Reason::HeaderDuplicate);
}

/// A service of somebody else has tokens of its own: they are no proof here, and no reason to refuse.
#[test]
fn a_target_s_own_tokens_are_left_alone() {
    let mut files = support::default_files();
    let targets = String::from_utf8(files["targets.toml"].clone()).unwrap();
    let targets = targets.replacen("tokens = \"verify\"", "tokens = \"ignore\"", 1);
    files.insert("targets.toml".into(), targets.into_bytes());
    let policy = format!(
        "@id(\"asked\") @reason(\"r\") permit (principal == Agent::\"{BOT}\", action == Action::\"crm/query_customers\", \
         resource) unless {{ context has user || context has session }};"
    );
    files.insert("asked.cedar".into(), policy.into_bytes());
    let active = Active::Loaded(Box::new(support::load(&files).unwrap()));
    let settings = Settings { tokens: Arc::new(own_rules(Unbound::Deny)), ..support::settings() };
    let refused = verified(&change(json!({"raw": "sk-of-somebody-else"}))).unwrap_err();
    for tokens in [Tokens::Absent, Tokens::Failed(refused), tokens(&[(Role::User, json!({}))])] {
        let request = request("");
        let facts = Facts { tokens, ..support::facts("2026-11-20T00:00:00Z") };
        let decision = authorize(&active, &settings, IdentitySource::SourcePrincipal, &request, &facts);
        assert_eq!((decision.reason(), decision.behalf), (None, None));
    }
}

/// What is not known to go on has ended, also where everything else is right.
#[test]
fn a_token_of_a_session_that_ended_is_refused() {
    let world = World::new([]);
    let of = tokens(&[(Role::User, json!({}))]);
    for (unknown_until, reason) in [(T0, Some(Reason::SessionEnded)), (T0 - 1, None)] {
        let held = Sessions::new(1, vec![Some(unknown_until)]).of(of.clone(), &own_rules(Unbound::Deny));
        assert_eq!(world.decide(own_rules(Unbound::Deny), "", held).reason(), reason);
    }
}

/// What the shell could not believe stays refused.
#[test]
fn a_failed_token_never_becomes_an_absent_one() {
    let refused = verified(&change(json!({"claims": {"exp": T0 - 5, "iat": T0 - 600}}))).unwrap_err();
    let decision = World::new([]).decide(own_rules(Unbound::Accept), "", Tokens::Failed(refused.clone()));
    assert_eq!(decision.reason(), Some(Reason::TokenExpired));
    assert!(decision.evaluations.is_empty(), "no policy was asked");
    let peer = palisade::authz::token::holder::Peer {
        agent: &palisade::authz::identity::spiffe::SpiffeId::parse(BOT).unwrap(),
        certificate: palisade::authz::token::holder::Certificate::Pem(""),
        expected: Expected { http: None, origins: &[], now: T0 },
    };
    assert_eq!(hold(&Tokens::Failed(refused.clone()), &Rules::default(), &peer).unwrap_err(), refused);
}
