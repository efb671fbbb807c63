//! The closed list of why a call was denied, and the one table from a reason to the wire.
//!
//! Every denial in Palisade carries a [`Reason`]. What the caller learns about it (a stable code, an
//! HTTP status, a gRPC status, a JSON-RPC code and one sentence) is decided here and nowhere else, so
//! that a new reason cannot be added without deciding all of them.

/// Who has to act on a denial. It decides the HTTP class: a fault of ours is never a 403, because a
/// caller would take that for a verdict, and never a gRPC error, because Envoy may let those pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Blame {
    /// The request itself is wrong: unreadable, unidentified or ambiguous.
    Caller,
    /// The request was understood and the policies refuse it.
    Policy,
    /// Palisade could not do its work; the same call may pass later.
    Us,
}

/// What the table says about one reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wire {
    /// Stable snake_case code, in answers, records, spans and metric labels.
    pub code: &'static str,
    /// Who has to act.
    pub blame: Blame,
    /// HTTP status of the denial.
    pub http: u16,
    /// `google.rpc.Code` of the check response; never 0, which Envoy reads as "allow".
    pub grpc: u32,
    /// JSON-RPC 2.0 error code for the protocols that carry one.
    pub json_rpc: i64,
    /// One sentence for the caller: names no policy, no attribute and no value.
    pub title: &'static str,
    /// Whether another token, or another proof, would do.
    pub challenge: Challenge,
}

/// What a challenge says of a denial, in `WWW-Authenticate`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Challenge {
    /// There is none.
    None,
    /// A token is needed. There is no error: nothing is wrong with what is not there, or in a scheme that is not ours (RFC 6750,
    /// section 3.1).
    Needed,
    /// The error of the token, in the scheme by which it was presented (RFC 6750, section 3.1; RFC 9470, section 3).
    Token(&'static str),
    /// The error of the proof, or of presenting a token with or without one: in the scheme `DPoP` (RFC 9449, section 7.1).
    Proof(&'static str),
}

impl Challenge {
    /// A proof has to have a nonce that counts (RFC 9449, section 9).
    pub const NONCE: Self = Self::Proof("use_dpop_nonce");
    const TOKEN: Self = Self::Token("invalid_token");
    const LOGIN: Self = Self::Token("insufficient_user_authentication");
    const SCOPE: Self = Self::Token("insufficient_scope");
    const PROOF: Self = Self::Proof("invalid_dpop_proof");
    /// The token, or how it is presented, is wrong, and not the proof.
    const DPOP_TOKEN: Self = Self::Proof("invalid_token");

    /// What a row says that names none: that a 401 is about the token (RFC 9110, section 15.5.2: each has a challenge).
    const fn usual(http: u16) -> Self {
        if http == 401 { Self::TOKEN } else { Self::None }
    }
}

/// JSON-RPC code of a denial by policy. It lies outside the range that JSON-RPC 2.0 and MCP reserve
/// (-32768 to -32000), so it collides with no SDK's own meaning.
pub const DENIED: i64 = 403_001;
const PARSE_ERROR: i64 = -32_700;
const INVALID_REQUEST: i64 = -32_600;
const METHOD_NOT_FOUND: i64 = -32_601;
const INVALID_PARAMS: i64 = -32_602;
const INTERNAL_ERROR: i64 = -32_603;
/// MCP 2026-07-28, "HeaderMismatch".
const MCP_HEADER_MISMATCH: i64 = -32_020;
/// A2A 1.0, section 5.4, "VersionNotSupportedError".
const A2A_UNSUPPORTED_VERSION: i64 = -32_009;
/// MCP 2026-07-28, "UnsupportedProtocolVersion".
const MCP_UNSUPPORTED_VERSION: i64 = -32_022;

const PERMISSION_DENIED: u32 = 7;
const UNAUTHENTICATED: u32 = 16;
const RESOURCE_EXHAUSTED: u32 = 8;
const UNAVAILABLE: u32 = 14;

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident: $code:literal, $blame:ident, $http:literal, $grpc:expr, $rpc:expr, $title:literal
        $(, $challenge:ident)?;)*) => {
        /// Why a call was denied. The list is closed: see `docs/why-denied.md` for each.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Reason { $($(#[$doc])* $name,)* }

        impl Reason {
            /// Every reason, in the order of the table.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The row of the table for this reason.
            #[must_use]
            pub const fn wire(self) -> Wire {
                match self {
                    $(Self::$name => Wire {
                        code: $code, blame: Blame::$blame, http: $http, grpc: $grpc, json_rpc: $rpc, title: $title,
                        challenge: reasons!(@challenge $http $(, $challenge)?),
                    },)*
                }
            }
        }
    };
    (@challenge $http:literal) => { Challenge::usual($http) };
    (@challenge $http:literal, $challenge:ident) => { Challenge::$challenge };
}

reasons! {
    // --- the check itself -------------------------------------------------------------------------
    /// The check message is no `CheckRequest`.
    CheckUndecodable: "check_undecodable", Caller, 400, PERMISSION_DENIED, INVALID_REQUEST, "the request could not be read";
    /// The check message is larger than the configured limit.
    CheckTooLarge: "check_too_large", Caller, 413, PERMISSION_DENIED, INVALID_REQUEST, "the request is too large";
    /// The check lacks its attributes, so nothing is known about the call.
    CheckIncomplete: "check_incomplete", Caller, 403, PERMISSION_DENIED, INVALID_REQUEST, "the request could not be read";
    /// A check without an HTTP request (a TCP filter) for a target that is not opaque.
    CheckNotHttp: "check_not_http", Caller, 403, PERMISSION_DENIED, INVALID_REQUEST, "the request could not be read";

    // --- headers, host, path ----------------------------------------------------------------------
    /// More headers, or more bytes of headers, than the configured limits.
    HeadersTooLarge: "headers_too_large", Caller, 431, PERMISSION_DENIED, INVALID_REQUEST, "the request headers are too large";
    /// A header that decides something is there more than once.
    HeaderDuplicate: "header_duplicate", Caller, 400, PERMISSION_DENIED, INVALID_REQUEST, "a header is ambiguous";
    /// A header that decides something holds bytes that it may not hold.
    HeaderMalformed: "header_malformed", Caller, 400, PERMISSION_DENIED, INVALID_REQUEST, "a header is malformed";
    /// A header that some servers let override the method or the path, or take for one that was set or decides.
    HeaderOverride: "header_override", Caller, 400, PERMISSION_DENIED, INVALID_REQUEST, "a header is ambiguous";
    /// Headers of which one cancels another: `connection` naming a header that a later hop would drop, or a
    /// length beside a transfer coding.
    HeaderConflict: "header_conflict", Caller, 400, PERMISSION_DENIED, INVALID_REQUEST, "a header is ambiguous";
    /// The HTTP method is none that this target's protocol knows.
    MethodUnsupported: "method_unsupported", Caller, 403, PERMISSION_DENIED, INVALID_REQUEST, "the method is not supported here";
    /// A protocol upgrade or CONNECT: what follows would pass unseen.
    UpgradeRefused: "upgrade_refused", Caller, 403, PERMISSION_DENIED, INVALID_REQUEST, "protocol upgrades are not allowed here";
    /// The authority is no plain host name or address with an optional port.
    HostMalformed: "host_malformed", Caller, 400, PERMISSION_DENIED, INVALID_REQUEST, "the host is malformed";
    /// The name in the TLS handshake (SNI), where it counts, is no host name.
    SniMalformed: "sni_malformed", Caller, 400, PERMISSION_DENIED, INVALID_REQUEST, "the server name is malformed";
    /// The path can be read in two ways (dot segments, encoded separators, empty segments and so on).
    PathAmbiguous: "path_ambiguous", Caller, 400, PERMISSION_DENIED, INVALID_REQUEST, "the path is ambiguous";
    /// A message for a target that takes its messages at another path.
    PathUnexpected: "path_unexpected", Caller, 403, PERMISSION_DENIED, INVALID_REQUEST, "messages are not taken at this path";
    /// The path is longer than the configured limit.
    PathTooLong: "path_too_long", Caller, 414, PERMISSION_DENIED, INVALID_REQUEST, "the path is too long";

    // --- identity ---------------------------------------------------------------------------------
    /// No peer identity at all: no mTLS, or a certificate without any name.
    IdentityAbsent: "identity_absent", Caller, 403, PERMISSION_DENIED, DENIED, "the caller has no workload identity";
    /// There is a peer name, but it is no SPIFFE ID.
    IdentityMalformed: "identity_malformed", Caller, 403, PERMISSION_DENIED, DENIED, "the caller's workload identity is not valid";
    /// A valid SPIFFE ID of a trust domain that is not configured.
    IdentityUntrustedDomain: "identity_untrusted_domain", Caller, 403, PERMISSION_DENIED, DENIED, "the caller's trust domain is not accepted";

    // --- target -----------------------------------------------------------------------------------
    /// No configured target matches the destination of the call.
    TargetUnknown: "target_unknown", Caller, 403, PERMISSION_DENIED, DENIED, "the destination is not known";

    // --- body -------------------------------------------------------------------------------------
    /// The content type is not one that the target's protocol uses.
    ContentTypeUnsupported: "content_type_unsupported", Caller, 415, PERMISSION_DENIED, INVALID_REQUEST, "the content type is not supported";
    /// The body is compressed, so it cannot be inspected.
    ContentEncodingRefused: "content_encoding_refused", Caller, 415, PERMISSION_DENIED, INVALID_REQUEST, "the content encoding is not supported";
    /// A body was expected and none arrived.
    BodyMissing: "body_missing", Caller, 400, PERMISSION_DENIED, INVALID_REQUEST, "the body is missing";
    /// A body arrived where none may be.
    BodyUnexpected: "body_unexpected", Caller, 400, PERMISSION_DENIED, INVALID_REQUEST, "a body is not expected";
    /// Only a part of the body was handed to Palisade.
    BodyTruncated: "body_truncated", Caller, 413, PERMISSION_DENIED, INVALID_REQUEST, "the body could not be read in full";
    /// The body is longer than the configured limit.
    BodyTooLarge: "body_too_large", Caller, 413, PERMISSION_DENIED, INVALID_REQUEST, "the body is too large";
    /// Envoy sent the body as text and bytes may have been replaced (`pack_as_bytes` is off).
    BodyNotRaw: "body_not_raw", Caller, 400, PERMISSION_DENIED, INVALID_REQUEST, "the body could not be read exactly";

    // --- JSON and JSON-RPC ------------------------------------------------------------------------
    /// The body is no JSON text of RFC 8259.
    JsonMalformed: "json_malformed", Caller, 400, PERMISSION_DENIED, PARSE_ERROR, "the body is not valid JSON";
    /// JSON behind a byte order mark, which some parsers skip.
    JsonBom: "json_bom", Caller, 400, PERMISSION_DENIED, PARSE_ERROR, "the body begins with a byte order mark";
    /// JSON that is not UTF-8 throughout: other encodings, overlong forms.
    JsonEncoding: "json_encoding", Caller, 400, PERMISSION_DENIED, PARSE_ERROR, "the body is not UTF-8";
    /// Half of a character in a JSON string, which parsers drop, replace or keep.
    JsonSurrogate: "json_surrogate", Caller, 400, PERMISSION_DENIED, PARSE_ERROR, "the body holds half of a character";
    /// Something follows the JSON text.
    JsonTrailingData: "json_trailing_data", Caller, 400, PERMISSION_DENIED, PARSE_ERROR, "the body is not one JSON text";
    /// JSON nested deeper than the configured limit.
    JsonTooDeep: "json_too_deep", Caller, 400, PERMISSION_DENIED, PARSE_ERROR, "the body is nested too deeply";
    /// JSON with more values than the configured limit.
    JsonTooManyValues: "json_too_many_values", Caller, 400, PERMISSION_DENIED, PARSE_ERROR, "the body holds too many values";
    /// A JSON object names one member twice.
    JsonDuplicateKey: "json_duplicate_key", Caller, 400, PERMISSION_DENIED, PARSE_ERROR, "the body is ambiguous JSON";
    /// A member name that some parsers take for another one (case, look-alike letters, control characters, the prototype of
    /// a JavaScript object).
    JsonKeyLookalike: "json_key_lookalike", Caller, 400, PERMISSION_DENIED, PARSE_ERROR, "the body is ambiguous JSON";
    /// A number larger than what every parser reads as it is written.
    JsonNumberRange: "json_number_range", Caller, 400, PERMISSION_DENIED, PARSE_ERROR, "the body holds a number out of range";
    /// A number that parsers with floating point and those without read as two: with digits that get lost, too close to zero,
    /// or `-0`.
    JsonNumberForm: "json_number_form", Caller, 400, PERMISSION_DENIED, PARSE_ERROR, "the body holds a number of no exact form";
    /// Valid JSON, but no JSON-RPC 2.0 message.
    JsonRpcMalformed: "json_rpc_malformed", Caller, 400, PERMISSION_DENIED, INVALID_REQUEST, "the body is not a valid JSON-RPC message";
    /// A JSON-RPC batch where the target (or the MCP revision) does not allow one.
    BatchRefused: "batch_refused", Caller, 400, PERMISSION_DENIED, INVALID_REQUEST, "batches are not allowed here";

    // --- MCP, A2A, gRPC ---------------------------------------------------------------------------
    /// `MCP-Protocol-Version` names no published revision.
    McpVersionUnsupported: "mcp_version_unsupported", Caller, 400, PERMISSION_DENIED, MCP_UNSUPPORTED_VERSION, "the protocol version is not supported";
    /// An MCP header that mirrors the body says something else, or is missing where it is required.
    McpHeaderMismatch: "mcp_header_mismatch", Caller, 400, PERMISSION_DENIED, MCP_HEADER_MISMATCH, "headers and body disagree";
    /// `MCP-Session-Id`, or the query of a message, names no session that there could be, or two.
    McpSessionMalformed: "mcp_session_malformed", Caller, 400, PERMISSION_DENIED, INVALID_REQUEST, "the session is not valid";
    /// A web page of another origin than those that the target lists, or of none.
    OriginNotAllowed: "origin_not_allowed", Caller, 403, PERMISSION_DENIED, INVALID_REQUEST, "web pages of this origin are not allowed";
    /// A GET that opens a stream does not accept one.
    McpStreamNotAccepted: "mcp_stream_not_accepted", Caller, 406, PERMISSION_DENIED, INVALID_REQUEST, "there is an event stream and nothing else";
    /// In MCP 2026-07-28, a method that this revision does not have.
    McpMethodNotFound: "mcp_method_not_found", Caller, 404, PERMISSION_DENIED, METHOD_NOT_FOUND, "the method is not known";
    /// A protocol method that another revision has, or the other side, or that is none, so nothing can be said about it.
    ProtocolMethodUnknown: "protocol_method_unknown", Caller, 403, PERMISSION_DENIED, METHOD_NOT_FOUND, "the method is not known";
    /// The parameters of the protocol method are not as its specification says.
    ProtocolParamsMalformed: "protocol_params_malformed", Caller, 400, PERMISSION_DENIED, INVALID_PARAMS, "the parameters are not valid";
    /// The tool is not in the bundle's registry for this server.
    ToolUnregistered: "tool_unregistered", Caller, 403, PERMISSION_DENIED, DENIED, "the tool is not known";
    /// The server defines the tool in another way now than when it was registered, and the operator wants such calls denied.
    ToolDefinitionChanged: "tool_definition_changed", Policy, 403, PERMISSION_DENIED, DENIED, "the tool has changed";
    /// The arguments do not fit the types that the schema gives this tool, or the JSON Schema that it is registered with.
    ArgumentsMismatch: "arguments_mismatch", Caller, 403, PERMISSION_DENIED, INVALID_PARAMS, "the arguments do not fit the tool";
    /// `A2A-Version` names no version of the protocol that is known.
    A2aVersionUnsupported: "a2a_version_unsupported", Caller, 400, PERMISSION_DENIED, A2A_UNSUPPORTED_VERSION, "the protocol version is not supported";
    /// A request of A2A states one version and is called as another calls it, or states two.
    A2aVersionMismatch: "a2a_version_mismatch", Caller, 400, PERMISSION_DENIED, INVALID_REQUEST, "the request is not of the protocol version that it states";
    /// The body of a gRPC call is not one whole frame.
    GrpcFrameMalformed: "grpc_frame_malformed", Caller, 400, PERMISSION_DENIED, INVALID_REQUEST, "the body is not one gRPC message";
    /// A protobuf message is not what its definition says, or what no encoder writes.
    ProtobufMalformed: "protobuf_malformed", Caller, 400, PERMISSION_DENIED, INVALID_REQUEST, "the message could not be read";
    /// The path of a gRPC call is not exactly `/package.Service/Method`.
    GrpcPathMalformed: "grpc_path_malformed", Caller, 403, PERMISSION_DENIED, INVALID_REQUEST, "the path is not a gRPC method";

    // --- tokens -----------------------------------------------------------------------------------
    /// A token longer than 8 KiB.
    TokenTooLong: "token_too_long", Caller, 401, UNAUTHENTICATED, INVALID_REQUEST, "the token is too long";
    /// Something stands where a token has to stand and is none: not three parts of base64url, not JSON.
    TokenMalformed: "token_malformed", Caller, 401, UNAUTHENTICATED, INVALID_REQUEST, "the token could not be read";
    /// A token whose header or claims name a member twice.
    TokenDuplicateMember: "token_duplicate_member", Caller, 401, UNAUTHENTICATED, INVALID_REQUEST, "the token is ambiguous";
    /// A token that has to be understood in another way: `crit`, `b64`, `zip`, `enc`.
    TokenExtensionUnsupported: "token_extension_unsupported", Caller, 401, UNAUTHENTICATED, INVALID_REQUEST, "the token needs an extension that is not supported";
    /// A token that brings its own key, or says where one is: `jwk`, `jku`, `x5u`, `x5c`.
    TokenKeyEmbedded: "token_key_embedded", Caller, 401, UNAUTHENTICATED, INVALID_REQUEST, "the token brings its own key";
    /// `kid` is no plain name.
    TokenKeyIdMalformed: "token_key_id_malformed", Caller, 401, UNAUTHENTICATED, INVALID_REQUEST, "the token's key id is not valid";
    /// `alg` is `none`, an HMAC, unknown, or not one that this issuer or this key may use.
    TokenAlgorithmRefused: "token_algorithm_refused", Caller, 401, UNAUTHENTICATED, INVALID_REQUEST, "the token's algorithm is not allowed";
    /// `typ` is not that of an access token of this issuer: an ID token, a proof, a WIT.
    TokenTypeRefused: "token_type_refused", Caller, 401, UNAUTHENTICATED, INVALID_REQUEST, "this kind of token is not accepted here";
    /// `iss` is absent or not configured, or a JWT-SVID of a trust domain whose bundle is not.
    TokenIssuerUnknown: "token_issuer_unknown", Caller, 401, UNAUTHENTICATED, INVALID_REQUEST, "the token's issuer is not known";
    /// `kid` names none of the issuer's keys.
    TokenKeyUnknown: "token_key_unknown", Caller, 401, UNAUTHENTICATED, INVALID_REQUEST, "the token's key is not known";
    /// The signature is not the key's.
    TokenSignatureInvalid: "token_signature_invalid", Caller, 401, UNAUTHENTICATED, INVALID_REQUEST, "the token's signature is not valid";
    /// A claim that a token has to have is absent.
    TokenClaimMissing: "token_claim_missing", Caller, 401, UNAUTHENTICATED, INVALID_REQUEST, "the token lacks a claim";
    /// A claim has another type or form than its specification gives it.
    TokenClaimMalformed: "token_claim_malformed", Caller, 401, UNAUTHENTICATED, INVALID_REQUEST, "a claim of the token is not valid";
    /// `aud` does not name us.
    TokenAudienceMismatch: "token_audience_mismatch", Caller, 401, UNAUTHENTICATED, INVALID_REQUEST, "the token is meant for somebody else";
    /// `exp` is over.
    TokenExpired: "token_expired", Caller, 401, UNAUTHENTICATED, INVALID_REQUEST, "the token has expired";
    /// `nbf`, `iat` or `auth_time` is to come.
    TokenNotYetValid: "token_not_yet_valid", Caller, 401, UNAUTHENTICATED, INVALID_REQUEST, "the token is not valid yet";
    /// It lives longer than its issuer's tokens may.
    TokenLifetimeTooLong: "token_lifetime_too_long", Caller, 401, UNAUTHENTICATED, INVALID_REQUEST, "the token lives too long";
    /// More actors in `act` than are allowed.
    TokenDelegationTooDeep: "token_delegation_too_deep", Caller, 401, UNAUTHENTICATED, INVALID_REQUEST, "the chain of delegation is too long";
    /// `cnf` binds the token to something that is not checked here.
    TokenBindingUnsupported: "token_binding_unsupported", Caller, 401, UNAUTHENTICATED, INVALID_REQUEST, "the token is bound in a way that is not supported";
    /// An access token in the query of a URI, where it ends up in logs.
    TokenInQuery: "token_in_query", Caller, 400, UNAUTHENTICATED, INVALID_REQUEST, "a token may not be part of the address";
    /// `authorization` has a scheme other than Bearer and DPoP.
    TokenSchemeUnsupported: "token_scheme_unsupported", Caller, 401, UNAUTHENTICATED, INVALID_REQUEST, "this kind of authorization is not supported", Needed;
    /// The current actor of the token (or its client, or its subject) is another workload than the one that presents it.
    TokenActorMismatch: "token_actor_mismatch", Caller, 401, UNAUTHENTICATED, INVALID_REQUEST, "the token was issued to somebody else";
    /// The token is bound to another certificate than the peer's, or Envoy does not hand that over.
    TokenBindingMismatch: "token_binding_mismatch", Caller, 401, UNAUTHENTICATED, INVALID_REQUEST, "the token is bound to another certificate";
    /// The token is bound to a key, and no proof of that key came with it.
    TokenProofMissing: "token_proof_missing", Caller, 401, UNAUTHENTICATED, INVALID_REQUEST, "the token needs a proof", PROOF;
    /// A token that is bound to a key is not presented as `DPoP` in `authorization`, or one that is not is.
    TokenSchemeMismatch: "token_scheme_mismatch", Caller, 401, UNAUTHENTICATED, INVALID_REQUEST, "the token is presented in the wrong way", DPOP_TOKEN;
    /// A proof beside a token that is bound to no key.
    TokenProofUnexpected: "token_proof_unexpected", Caller, 401, UNAUTHENTICATED, INVALID_REQUEST, "the token is bound to no key, so no proof belongs to it", DPOP_TOKEN;
    /// Two proofs: one request has one.
    TokenProofDuplicate: "token_proof_duplicate", Caller, 401, UNAUTHENTICATED, INVALID_REQUEST, "there is more than one proof", PROOF;
    /// A proof longer than 4 KiB.
    TokenProofTooLong: "token_proof_too_long", Caller, 401, UNAUTHENTICATED, INVALID_REQUEST, "the proof is too long", PROOF;
    /// What stands in `dpop` is no JWT in compact form, or names a member twice.
    TokenProofMalformed: "token_proof_malformed", Caller, 401, UNAUTHENTICATED, INVALID_REQUEST, "the proof could not be read", PROOF;
    /// A proof that has to be understood in another way: `crit`, `b64`, `zip`, `enc`.
    TokenProofExtensionUnsupported: "token_proof_extension_unsupported", Caller, 401, UNAUTHENTICATED, INVALID_REQUEST, "the proof needs an extension that is not supported", PROOF;
    /// Its `typ` is not `dpop+jwt`.
    TokenProofTypeRefused: "token_proof_type_refused", Caller, 401, UNAUTHENTICATED, INVALID_REQUEST, "this is not a proof", PROOF;
    /// Its `alg` is `none`, an HMAC or unknown.
    TokenProofAlgorithmRefused: "token_proof_algorithm_refused", Caller, 401, UNAUTHENTICATED, INVALID_REQUEST, "the algorithm of the proof is not allowed", PROOF;
    /// Its `jwk` is absent, or no public key for its `alg`, or its header names another key.
    TokenProofKeyRefused: "token_proof_key_refused", Caller, 401, UNAUTHENTICATED, INVALID_REQUEST, "the key of the proof is not accepted", PROOF;
    /// A claim that a proof has to have is absent.
    TokenProofClaimMissing: "token_proof_claim_missing", Caller, 401, UNAUTHENTICATED, INVALID_REQUEST, "the proof lacks a claim", PROOF;
    /// A claim of a proof has another type or form than its specification gives it.
    TokenProofClaimMalformed: "token_proof_claim_malformed", Caller, 401, UNAUTHENTICATED, INVALID_REQUEST, "a claim of the proof is not valid", PROOF;
    /// The proof is by another key than the token is bound to.
    TokenProofKeyMismatch: "token_proof_key_mismatch", Caller, 401, UNAUTHENTICATED, INVALID_REQUEST, "the token is bound to another key", DPOP_TOKEN;
    /// `ath`: the proof is for another token.
    TokenProofTokenMismatch: "token_proof_token_mismatch", Caller, 401, UNAUTHENTICATED, INVALID_REQUEST, "the proof is for another token", PROOF;
    /// `htm`: the proof is for another method.
    TokenProofMethodMismatch: "token_proof_method_mismatch", Caller, 401, UNAUTHENTICATED, INVALID_REQUEST, "the proof is for another method", PROOF;
    /// `htu`: the proof is for another URI.
    TokenProofUriMismatch: "token_proof_uri_mismatch", Caller, 401, UNAUTHENTICATED, INVALID_REQUEST, "the proof is for another address", PROOF;
    /// The target has no `origins`: what a proof is for cannot be compared.
    TokenProofUriUnknown: "token_proof_uri_unknown", Caller, 401, UNAUTHENTICATED, INVALID_REQUEST, "proofs are not accepted here", PROOF;
    /// `iat` is too long ago, or `exp` is over.
    TokenProofExpired: "token_proof_expired", Caller, 401, UNAUTHENTICATED, INVALID_REQUEST, "the proof is too old", PROOF;
    /// `iat` or `nbf` is to come.
    TokenProofNotYetValid: "token_proof_not_yet_valid", Caller, 401, UNAUTHENTICATED, INVALID_REQUEST, "the proof is not valid yet", PROOF;
    /// The signature of the proof is not its key's.
    TokenProofSignatureInvalid: "token_proof_signature_invalid", Caller, 401, UNAUTHENTICATED, INVALID_REQUEST, "the signature of the proof is not valid", PROOF;
    /// The proof has no nonce, and has to have one of ours.
    TokenProofNonceMissing: "token_proof_nonce_missing", Caller, 401, UNAUTHENTICATED, INVALID_REQUEST, "the proof needs a nonce", NONCE;
    /// The nonce of the proof is none of ours, or too old.
    TokenProofNonceInvalid: "token_proof_nonce_invalid", Caller, 401, UNAUTHENTICATED, INVALID_REQUEST, "the proof needs a fresh nonce", NONCE;
    /// The proof was used before, or may have been.
    TokenProofReplayed: "token_proof_replayed", Caller, 401, UNAUTHENTICATED, INVALID_REQUEST, "the proof was used before", PROOF;
    /// So many used proofs of the token's key are remembered as may be of one key.
    TokenProofsTooMany: "token_proofs_too_many", Caller, 429, RESOURCE_EXHAUSTED, INVALID_REQUEST, "too many proofs in a short time";
    /// The token is bound to nothing, and its issuer's rules do not accept that.
    TokenUnbound: "token_unbound", Caller, 401, UNAUTHENTICATED, INVALID_REQUEST, "the token is bound to nobody";

    /// The session of the token, or all of its user's, has ended; or nobody knows here whether it has.
    SessionEnded: "session_ended", Caller, 401, UNAUTHENTICATED, INVALID_REQUEST, "the session has ended";
    /// The tokens of the agents before the caller do not lead to the caller's own.
    TokenChainBroken: "token_chain_broken", Caller, 401, UNAUTHENTICATED, INVALID_REQUEST, "the chain of delegation does not hold together";
    /// A token of a chain grants more than the one before it.
    TokenChainWidened: "token_chain_widened", Caller, 401, UNAUTHENTICATED, INVALID_REQUEST, "the chain of delegation widens";
    /// The target, or a policy, asks for a token, and none came.
    TokenAbsent: "token_absent", Caller, 401, UNAUTHENTICATED, INVALID_REQUEST, "a token is needed", Needed;

    // --- holds, grants and limits -----------------------------------------------------------------
    /// A hold: on everything, or on whoever or whatever the call has to do with.
    Held: "held", Policy, 403, PERMISSION_DENIED, DENIED, "calls like this are stopped for now";
    /// The grant that allowed the call has been used up meanwhile.
    GrantExhausted: "grant_exhausted", Policy, 403, PERMISSION_DENIED, DENIED, "denied by policy";
    /// What would permit the call has a limit, and that is reached.
    LimitExceeded: "limit_exceeded", Policy, 429, RESOURCE_EXHAUSTED, DENIED, "too much in a short time";
    /// The argument by which a limit measures what the call costs is no whole number that it could take.
    CostMalformed: "cost_malformed", Caller, 403, PERMISSION_DENIED, INVALID_PARAMS, "the arguments do not fit the tool";
    /// So many calls of this caller were denied lately that all are, for a while.
    DenialsTooMany: "denials_too_many", Caller, 429, RESOURCE_EXHAUSTED, DENIED, "too many denied calls in a short time";

    // --- policy -----------------------------------------------------------------------------------
    /// At least one `forbid` was satisfied.
    PolicyForbids: "policy_forbids", Policy, 403, PERMISSION_DENIED, DENIED, "denied by policy";
    /// No `permit` was satisfied.
    NoPolicyPermits: "no_policy_permits", Policy, 403, PERMISSION_DENIED, DENIED, "denied by policy";
    /// A policy that applied failed to evaluate; Cedar would skip it, Palisade denies.
    PolicyError: "policy_error", Policy, 403, PERMISSION_DENIED, DENIED, "denied by policy";

    /// A policy asks for a fresher or a stronger login (`@step_up`).
    StepUpRequired: "step_up_required", Policy, 401, UNAUTHENTICATED, DENIED, "a fresher or stronger login is needed", LOGIN;
    /// A policy asks for scopes that the token does not grant (`@scopes`).
    ScopeInsufficient: "scope_insufficient", Policy, 403, PERMISSION_DENIED, DENIED, "the token does not grant the scopes that are needed", SCOPE;

    /// A call comes back with a state that was not sealed for it, for this caller, or too long ago.
    RequestStateInvalid: "request_state_invalid", Caller, 403, PERMISSION_DENIED, INVALID_PARAMS, "the request state is not valid";

    // --- us ---------------------------------------------------------------------------------------
    /// No bundle has been loaded yet.
    BundleMissing: "bundle_missing", Us, 503, UNAVAILABLE, INTERNAL_ERROR, "the authorizer is not ready";
    /// More checks in flight than the configured limit.
    Overloaded: "overloaded", Us, 503, RESOURCE_EXHAUSTED, INTERNAL_ERROR, "the authorizer is overloaded";
    /// The decision was not ready before Palisade's own deadline.
    DeadlineMissed: "deadline_missed", Us, 503, UNAVAILABLE, INTERNAL_ERROR, "the authorizer was too slow";
    /// The keys of the token's issuer were never fetched, or are too old to be trusted.
    TokenKeysUnavailable: "token_keys_unavailable", Us, 503, UNAVAILABLE, INTERNAL_ERROR, "the keys of the token's issuer are not available";
    /// As many used proofs are remembered as may be, so that nobody could tell whether this one was used.
    TokenProofsFull: "token_proofs_full", Us, 503, RESOURCE_EXHAUSTED, INTERNAL_ERROR, "the authorizer cannot take more proofs";
    /// The record of the decision could not be taken.
    RecordUnavailable: "record_unavailable", Us, 503, UNAVAILABLE, INTERNAL_ERROR, "the authorizer cannot record its decision";
    /// It is not known what is held, granted or used: the shared store cannot be reached, or the journal not be written.
    StateUnavailable: "state_unavailable", Us, 503, UNAVAILABLE, INTERNAL_ERROR, "the authorizer does not know what is in force";
    /// As many holds or grants are kept, or uses of limits counted, as may be.
    StateFull: "state_full", Us, 503, RESOURCE_EXHAUSTED, INTERNAL_ERROR, "the authorizer cannot keep more";
    /// A panic while deciding: a bug of ours.
    InternalPanic: "internal_panic", Us, 503, UNAVAILABLE, INTERNAL_ERROR, "the authorizer failed";
    /// An impossible state while deciding: a bug of ours, or a schema that lacks an action of the protocol.
    InternalError: "internal_error", Us, 503, UNAVAILABLE, INTERNAL_ERROR, "the authorizer failed";
}

impl Reason {
    /// The stable code.
    #[must_use]
    pub const fn code(self) -> &'static str {
        self.wire().code
    }

    /// Whether the call could not be read, as opposed to being read and refused. `palisade check` has
    /// an exit code of its own for these.
    #[must_use]
    pub const fn is_unreadable(self) -> bool {
        matches!(self.wire().blame, Blame::Caller)
            // A token that is not believed is about who asks, not about what.
            && self.wire().http != 401
            && !matches!(
                self,
                Self::TokenInQuery
                    | Self::TokenProofsTooMany
                    | Self::CostMalformed
                    | Self::DenialsTooMany
                    | Self::IdentityAbsent
                    | Self::IdentityMalformed
                    | Self::IdentityUntrustedDomain
                    | Self::RequestStateInvalid
                    | Self::TargetUnknown
                    | Self::ToolUnregistered
                    | Self::ArgumentsMismatch
                    | Self::McpMethodNotFound
                    | Self::ProtocolMethodUnknown
                    | Self::MethodUnsupported
                    | Self::UpgradeRefused
            )
    }
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique_and_no_denial_looks_like_an_allow() {
        let mut codes: Vec<_> = Reason::ALL.iter().map(|reason| reason.code()).collect();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), Reason::ALL.len());
        for reason in Reason::ALL {
            let wire = reason.wire();
            assert_ne!(wire.grpc, 0, "{reason}");
            assert!((400..600).contains(&wire.http), "{reason}");
            assert_eq!(wire.blame == Blame::Us, wire.http == 503, "{reason}");
            assert!(wire.code.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'), "{reason}");
        }
    }
}
