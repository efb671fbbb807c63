//! What can be found, and what is.

use std::fmt::Write as _;

use serde::Serialize;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// A call can pass unchecked, or be decided as something else than what the server gets.
    Error,
    /// It is weaker than it could be, or denies what should pass.
    Warning,
}

macro_rules! rules {
    ($($name:ident, $severity:ident, $code:literal, $why:literal, $remedy:literal;)*) => {
        /// What is looked for.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Rule {
            $(#[doc = $why] $name,)*
        }

        impl Rule {
            /// Every rule.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// Its stable name.
            #[must_use]
            pub const fn code(self) -> &'static str {
                match self { $(Self::$name => $code,)* }
            }

            /// How bad it is.
            #[must_use]
            pub const fn severity(self) -> Severity {
                match self { $(Self::$name => Severity::$severity,)* }
            }

            /// What comes of it.
            #[must_use]
            pub const fn why(self) -> &'static str {
                match self { $(Self::$name => $why,)* }
            }

            /// What to do.
            #[must_use]
            pub const fn remedy(self) -> &'static str {
                match self { $(Self::$name => $remedy,)* }
            }
        }
    };
}

rules! {
    Unchecked, Error, "unchecked", "Palisade is not asked about these calls.", "Put envoy.filters.http.ext_authz before the router; in Istio an AuthorizationPolicy with action CUSTOM and rules [{}], in ambient mode at a waypoint, with targetRefs.";
    UncheckedConnection, Error, "unchecked-connection", "Palisade is not asked about these connections.", "Put envoy.filters.network.ext_authz first in the chain, or leave the chain out.";
    Unreadable, Error, "unreadable", "What this does cannot be seen here, so nobody knows what passes.", "Give a file that holds it: a config dump, or the configuration itself. A patch of which a dump shows that it is right is named by --allow.";
    FailOpen, Error, "fail-open", "While Palisade cannot be reached every call passes.", "failure_mode_allow: false; in Istio failOpen: false.";
    Conditional, Error, "conditional-check", "Only some of the calls are checked.", "Check every call, and let policies decide: rules [{}], no runtime fraction or key, no matcher around the filter.";
    Shadow, Error, "shadow-mode", "Palisade is asked, and its answer is ignored.", "Remove shadow_mode; Palisade's own [comparison] is for trying policies.";
    RouteDisabled, Error, "route-disabled", "Calls of this route pass unchecked.", "Remove the per-route configuration of the filter.";
    AnotherAuthorizer, Error, "another-authorizer", "Something else than Palisade over gRPC is asked.", "Use grpc_service with Palisade's cluster; in Istio envoyExtAuthzGrpc.";
    Reachable, Warning, "palisade-reachable", "Whoever may call through this proxy can ask Palisade itself: try policies out, and use limits up.", "Take the route out; in Istio remove palisade-ext-authz.local from the outbound routes by an EnvoyFilter.";
    ChangedAfter, Error, "changed-after-check", "What the server gets is not what was decided on.", "Change calls before ext_authz, or not at all.";
    ChosenByCaller, Error, "chosen-by-caller", "A header of the caller says where the call goes, or for which host it is: another one than was decided on.", "Name the cluster and the host in the route.";
    RouteCache, Error, "route-cache-cleared", "The call may go another way than the one that was decided on.", "Remove clear_route_cache.";
    PathRewritten, Warning, "path-rewritten", "Policies see another path, or another host, than the server.", "Rewrite before the check, or write policies for the call as it arrives.";
    PartialBody, Error, "partial-body", "The rest of a large body is never seen by Palisade, and reaches the server.", "allow_partial_message: false; in Istio allowPartialMessage: false.";
    TextBody, Error, "text-body", "Bytes that are no UTF-8 are replaced before Palisade sees them: it decides on another body than the server gets.", "pack_as_bytes: true; in Istio packAsBytes: true.";
    NoBody, Warning, "body-absent", "Palisade cannot read calls whose body it does not get, and denies them.", "with_request_body with max_request_bytes, pack_as_bytes: true and no partial messages.";
    BodyLimit, Warning, "body-limit", "Bodies between Palisade's limit and this one are denied by Palisade.", "max_request_bytes at most `[limits] body_bytes` of Palisade (65536).";
    HeadersWithheld, Error, "headers-withheld", "Palisade does not see all the headers that the server gets.", "Remove allowed_headers and disallowed_headers.";
    HeadersJoined, Warning, "headers-joined", "A header that is sent twice reaches Palisade as one value with a comma in it.", "encode_raw_headers: true; in Istio by an EnvoyFilter.";
    NoCertificate, Warning, "certificate-withheld", "Tokens that are bound to a certificate are refused, and a certificate with two SPIFFE IDs goes unnoticed.", "include_peer_certificate: true; in Istio by an EnvoyFilter.";
    Mutations, Warning, "mutations-unchecked", "Envoy passes on changes of headers that it cannot carry.", "validate_mutations: true; in Istio by an EnvoyFilter.";
    StatusOnError, Warning, "status-on-error", "When Palisade cannot be reached callers are told that they may not, instead of later.", "status_on_error: { code: ServiceUnavailable }; in Istio statusOnError: \"503\".";
    Timeout, Error, "timeout", "While Palisade hangs every call does, for so long: Istio waits ten minutes unless it is told otherwise.", "A timeout of 0.25s: longer than Palisade's own deadline (150 ms), and no longer than a caller waits.";
    TimeoutShort, Warning, "timeout-short", "Envoy gives up before Palisade's own deadline (150 ms): its denial, with a decision id, comes too late.", "A timeout of 0.25s.";
    PermissiveMtls, Error, "permissive-mtls", "Calls arrive without a certificate, so that nobody knows who calls; what Palisade does not see can be read on the way.", "mTLS alone: PeerAuthentication STRICT for the whole mesh, and no exceptions by port; require_client_certificate: true.";
    AnyPeer, Error, "any-peer", "Certificates of callers are not verified: anybody can be anybody.", "trusted_ca, or a validation context from SDS, and no ACCEPT_UNTRUSTED.";
    AnySan, Warning, "any-san", "A certificate without a SPIFFE ID is taken, and its DNS name or subject stands where Palisade expects one.", "match_typed_subject_alt_names with san_type URI and the prefix of each trust domain.";
    ForwardedIdentity, Error, "forwarded-identity", "The caller itself says who it is, in x-forwarded-client-cert.", "SANITIZE, or SANITIZE_SET; APPEND_FORWARD where the last element alone is believed.";
    AppendedIdentity, Warning, "appended-identity", "Elements of x-forwarded-client-cert before the last one are what the caller sent; servers may believe them.", "SANITIZE_SET; in Istio proxyHeaders.forwardedClientCert.";
    IdentityFormat, Warning, "identity-format", "Palisade reads x-forwarded-client-cert as Envoy has always written it; another form is denied.", "Leave set_current_client_cert_details.format as it is, and forward_client_cert_matcher out.";
    WaypointIdentity, Warning, "waypoint-identity", "A waypoint does not say who calls, so that Palisade denies every call.", "Annotate the Gateway: ambient.istio.io/xfcc-include-client-identity: \"true\", and set identity = \"xfcc\" in Palisade's listener.";
    Underscores, Error, "header-underscores", "A header with underscores is another one to Palisade, and the same to many a server: x_forwarded_client_cert.", "headers_with_underscores_action: REJECT_REQUEST.";
    PathNotNormal, Error, "path-not-normalized", "Routes are chosen by a path that has other spellings: /a/../b.", "normalize_path: true; in Istio pathNormalization MERGE_SLASHES or DECODE_AND_MERGE_SLASHES.";
    PathSpellings, Warning, "path-spellings", "Paths with // or %2F reach Palisade, which denies what has two spellings.", "merge_slashes: true and path_with_escaped_slashes_action: REJECT_REQUEST; in Istio pathNormalization DECODE_AND_MERGE_SLASHES.";
    Ambiguous, Error, "ambiguous-length", "A body can have two lengths, and hide a second request.", "Leave allow_chunked_length and similar switches out.";
    Upgrade, Warning, "upgrade", "An upgraded connection (WebSocket, CONNECT) is checked by its first headers alone. Palisade denies it.", "Leave upgrade_configs out.";
    Unbounded, Warning, "stream-unbounded", "A stream that was permitted once never ends: a new policy, or a hold, does not reach it.", "max_stream_duration: 600s.";
    OldEnvoy, Error, "envoy-version", "This version of Envoy has known holes, or gets no fixes any more.", "Update Envoy, or Istio, which carries it.";
    UnknownEnvoy, Warning, "envoy-version-unknown", "Which version of Envoy runs is not said here.", "Give a config dump of the running proxy, or --envoy-version.";
    NotCaptured, Error, "not-captured", "Traffic of this workload does not go through its proxy, so that nobody is asked.", "Let the proxy be injected and capture everything: a namespace with istio-injection: enabled or in ambient mode, no hostNetwork, no inject: \"false\", interceptionMode REDIRECT or TPROXY.";
    ExcludedPort, Error, "excluded-port", "Traffic of these ports or addresses goes around the proxy.", "Remove the annotation, or the value of istiod's global.proxy; what must stay outside is named by --allow.";
    ProxyUser, Error, "proxy-user", "A container with the proxy's user or group, that may change the network, or that shares the processes of others, goes around the proxy.", "Run it as another user and group, without NET_ADMIN and NET_RAW, not privileged, without hostPID and shareProcessNamespace.";
    OutboundOpen, Warning, "outbound-open", "Agents can call hosts that nobody registered.", "outboundTrafficPolicy.mode: REGISTRY_ONLY, and NetworkPolicies that let agents out through gateways alone.";
    Provider, Error, "provider", "The policy names a provider that is not there, or one that a longer name hides: Istio denies every call, or asks another one.", "Name the extension provider as meshConfig does, and give it a name that begins no other's.";
    DryRun, Warning, "dry-run", "istio.io/dry-run does nothing for CUSTOM: calls are decided all the same.", "Remove the annotation.";
    Selected, Error, "selector-ignored", "At a waypoint a policy without targetRefs is ignored, whether it has a selector or not.", "targetRefs with the Service, the Gateway or the GatewayClass.";
    Passthrough, Error, "passthrough", "TLS that this gateway does not end: calls in it are not seen.", "tls.mode: MUTUAL or ISTIO_MUTUAL.";
    NoClientCertificate, Warning, "no-client-certificate", "Callers from outside need no certificate: Palisade knows nobody there, and denies them.", "tls.mode: MUTUAL, with the partner's authorities.";
}

/// Something that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Which.
    pub rule: Rule,
    /// In which file.
    pub file: String,
    /// On which line, from 1; 0 if that is not known.
    pub line: usize,
    /// Where within: names of listeners, resources, filters.
    pub place: String,
    /// What stands there.
    pub what: String,
}

/// Everything that was found, and what was looked at.
#[derive(Debug, Default)]
pub struct Report {
    /// In the order of files and lines.
    pub findings: Vec<Finding>,
    /// How many of each kind of thing were looked at.
    pub checked: Vec<(&'static str, usize)>,
    /// What was not looked at, and why.
    pub skipped: Vec<String>,
}

/// Where findings are made: in one file.
#[derive(Debug)]
pub struct Finder<'f> {
    /// The file.
    pub file: &'f str,
    /// What there is so far.
    pub report: &'f mut Report,
}

impl Finder<'_> {
    /// Adds a finding.
    pub fn add(&mut self, rule: Rule, line: usize, place: &str, what: impl Into<String>) {
        let (file, place, what) = (self.file.to_owned(), place.to_owned(), what.into());
        self.report.findings.push(Finding { rule, file, line, place, what });
    }

    /// Counts something that was looked at.
    pub fn count(&mut self, kind: &'static str) {
        let checked = &mut self.report.checked;
        match checked.iter_mut().find(|(known, _)| *known == kind) {
            Some((_, count)) => *count += 1,
            None => checked.push((kind, 1)),
        }
    }

    /// Says what was not looked at.
    pub fn skip(&mut self, what: impl Into<String>) {
        let what = what.into();
        if !self.report.skipped.contains(&what) {
            self.report.skipped.push(what);
        }
    }
}

impl Report {
    /// How many there are of that severity.
    #[must_use]
    pub fn count(&self, severity: Severity) -> usize {
        self.findings.iter().filter(|finding| finding.rule.severity() == severity).count()
    }

    /// For people: each finding with what comes of it, each remedy once, and a last line that says what was looked at.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        let mut explained: Vec<Rule> = Vec::new();
        for Finding { rule, file, line, place, what } in &self.findings {
            let severity = if rule.severity() == Severity::Error { "error" } else { "warning" };
            let at = if *line == 0 { file.clone() } else { format!("{file}:{line}") };
            let _ = writeln!(text, "{severity}[{}] {at}: {place}: {what}", rule.code());
            if !explained.contains(rule) {
                let _ = writeln!(text, "    {}\n    do: {}", rule.why(), rule.remedy());
                explained.push(*rule);
            }
        }
        for skipped in &self.skipped {
            let _ = writeln!(text, "not looked at: {skipped}");
        }
        let checked: Vec<String> = self.checked.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
        let (errors, warnings) = (self.count(Severity::Error), self.count(Severity::Warning));
        let _ = writeln!(text, "{errors} errors, {warnings} warnings; looked at: {}", checked.join(", "));
        text
    }

    /// For machines: one JSON object.
    #[must_use]
    pub fn json(&self) -> String {
        let findings: Vec<_> = self
            .findings
            .iter()
            .map(|Finding { rule, file, line, place, what }| {
                serde_json::json!({
                    "code": rule.code(), "severity": rule.severity(), "file": file, "line": (*line > 0).then_some(line),
                    "place": place, "what": what, "why": rule.why(), "remedy": rule.remedy(),
                })
            })
            .collect();
        let checked: serde_json::Map<_, _> =
            self.checked.iter().map(|(kind, count)| ((*kind).to_owned(), (*count).into())).collect();
        serde_json::json!({ "findings": findings, "checked": checked, "notLookedAt": self.skipped }).to_string() + "\n"
    }
}
