//! A well-behaved client, and what it makes of an answer.

use std::net::SocketAddr;
use std::path::Path;

use envoy_types::pb::envoy::config::core::v3::header_value_option::HeaderAppendAction;
use envoy_types::pb::envoy::config::core::v3::{HeaderValue, HeaderValueOption};
use envoy_types::pb::envoy::service::auth::v3::CheckResponse;
use envoy_types::pb::envoy::service::auth::v3::authorization_client::AuthorizationClient;
use envoy_types::pb::envoy::service::auth::v3::check_response::HttpResponse;
use envoy_types::pb::google::protobuf::value::Kind;
use serde_json::Value;
use tonic::transport::{Channel, Endpoint};

use super::ask::Ask;
use super::run;

/// A gRPC client; clones share its connection.
#[derive(Clone)]
pub struct Client {
    pub channel: Channel,
}

impl Client {
    pub fn tcp(address: SocketAddr) -> Self {
        Self::lazy(format!("http://{address}"))
    }

    pub fn unix(path: &Path) -> Self {
        Self::lazy(format!("unix:{}", path.display()))
    }

    fn lazy(uri: String) -> Self {
        run(async { Self { channel: Endpoint::from_shared(uri).unwrap().connect_lazy() } })
    }

    /// Asks, and checks what holds for every answer.
    pub fn check(&self, ask: &Ask) -> Answer {
        run(self.ask(ask)).expect("never a gRPC error")
    }

    pub async fn ask(&self, ask: &Ask) -> Result<Answer, tonic::Status> {
        let mut request = tonic::Request::new(ask.request());
        if let Some(traceparent) = &ask.metadata_traceparent {
            request.metadata_mut().insert("traceparent", traceparent.parse().unwrap());
        }
        let response = AuthorizationClient::new(self.channel.clone()).check(request).await?;
        Ok(Answer::sound(response.into_inner()))
    }
}

/// An answer for which everything holds that has to hold for every answer.
#[derive(Clone, Debug)]
pub struct Answer {
    pub response: CheckResponse,
    pub decision_id: String,
    pub permits: bool,
    /// Empty on a permit.
    pub reason: String,
    /// HTTP status of a denial, 0 on a permit.
    pub http: i32,
    /// Body of a denial.
    pub body: String,
}

impl Answer {
    /// Checks: a status that is set; code 0 with an OK response or another code with an explicit denial;
    /// one decision id in header, body and metadata; the verdict in the metadata.
    pub fn sound(response: CheckResponse) -> Self {
        let status = response.status.as_ref().expect("a status");
        let metadata = |name: &str| {
            let fields = &response.dynamic_metadata.as_ref().expect("metadata").fields;
            match fields.get(name).and_then(|value| value.kind.as_ref()) {
                Some(Kind::StringValue(text)) => text.clone(),
                None => String::new(),
                other => panic!("{name}: {other:?}"),
            }
        };
        let decision_id = metadata("decision_id");
        assert_eq!(decision_id.len(), 36, "{decision_id}");
        let (permits, http, body) = match response.http_response.as_ref().expect("an explicit answer") {
            HttpResponse::OkResponse(ok) => {
                assert_eq!(header(&ok.headers, "x-palisade-decision-id"), decision_id);
                assert_eq!(header(&ok.response_headers_to_add, "x-palisade-decision-id"), decision_id);
                (true, 0, String::new())
            }
            HttpResponse::DeniedResponse(denied) => {
                assert_eq!(header(&denied.headers, "x-palisade-decision-id"), decision_id);
                assert!(denied.body.contains(&decision_id), "{}", denied.body);
                let _json: Value = serde_json::from_str(&denied.body).expect("a denial's body is JSON");
                let http = denied.status.as_ref().expect("an HTTP status").code;
                let retry_after = denied.headers.iter().any(|h| h.header.as_ref().unwrap().key == "retry-after");
                assert!(retry_after == (http == 503) || http == 429, "{denied:?}");
                (false, http, denied.body.clone())
            }
            HttpResponse::ErrorResponse(_) => panic!("an error response may be let pass"),
        };
        assert_eq!(status.code == 0, permits, "{response:?}");
        assert_eq!(metadata("verdict"), if permits { "permit" } else { "denial" });
        let reason = metadata("reason");
        assert_eq!(reason.is_empty(), permits);
        assert!(permits || http == 200 || (400..600).contains(&http), "{http}");
        Self { decision_id, permits, reason, http, body, response }
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    pub fn ok(&self) -> &envoy_types::pb::envoy::service::auth::v3::OkHttpResponse {
        match self.response.http_response.as_ref().unwrap() {
            HttpResponse::OkResponse(ok) => ok,
            other => panic!("{other:?}"),
        }
    }

    #[track_caller]
    pub fn assert_permit(&self) {
        assert!(self.permits, "{} {}", self.reason, self.body);
    }

    #[track_caller]
    pub fn assert_denial(&self, reason: &str, http: i32) {
        assert_eq!((self.reason.as_str(), self.http), (reason, http), "{}", self.body);
    }
}

/// The one value of a header; it has to overwrite.
pub fn header(headers: &[HeaderValueOption], name: &str) -> String {
    let found: Vec<_> = headers.iter().filter(|h| h.header.as_ref().unwrap().key == name).collect();
    assert_eq!(found.len(), 1, "{name} in {headers:?}");
    assert_eq!(found[0].append_action, i32::from(HeaderAppendAction::OverwriteIfExistsOrAdd), "{name}");
    let HeaderValue { value, raw_value, .. } = found[0].header.as_ref().unwrap();
    assert!(raw_value.is_empty());
    value.clone()
}
