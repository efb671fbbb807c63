//! Where tokens are in a request (as text, see `message.rs`): each is what its header holds, and nobody can present two.

use palisade::authz::request::{Headers, HttpRequest};
use palisade::authz::token::jws::MAX_TOKEN_BYTES;
use palisade::authz::token::presented::{Place, Role, Scheme, find};

pub fn run(input: &[u8]) {
    let Some(request) = super::message::request(input) else { return };
    let http = request.http.as_ref().expect("it has one");
    assert_eq!(find(http, &[]), Ok(Vec::new()), "nothing is looked for unless configured");
    let places = [("authorization", Role::User), ("x-agent-token", Role::Agent)];
    let places = places.map(|(header, role)| Place { header: header.into(), role });
    let Ok(found) = find(http, &places) else { return };
    for Place { header, role } in &places {
        let value = http.headers.single(header).expect("it was found once");
        let token = found.iter().find(|presented| presented.role == *role);
        assert_eq!(value.is_some(), token.is_some(), "what is there is looked at");
        let (Some(value), Some(token)) = (value, token) else { continue };
        assert!((1..=MAX_TOKEN_BYTES).contains(&token.text.len()) && value.ends_with(token.text));
        let scheme = value.strip_suffix(token.text).expect("it ends so").to_ascii_lowercase();
        match (header.as_str(), token.scheme) {
            ("authorization", Scheme::Bearer) => assert_eq!(scheme, "bearer "),
            ("authorization", Scheme::Dpop) => assert_eq!(scheme, "dpop "),
            _ => assert!(scheme.is_empty() && token.scheme == Scheme::Bearer),
        }
        // The same with one more of them, and with one in the query.
        let fields = http.headers.iter().chain([(header.as_str(), "Bearer x")]);
        assert!(find(&with(http, &http.path, fields), &places).is_err(), "two were taken");
        let path = format!("{}{}access_token=x", http.path, if http.path.contains('?') { '&' } else { '?' });
        assert!(find(&with(http, &path, http.headers.iter()), &places).is_err(), "one in the query was taken");
    }
}

fn with<'f>(
    http: &HttpRequest<'_>,
    path: &str,
    fields: impl Iterator<Item = (&'f str, &'f str)>,
) -> HttpRequest<'static> {
    let fields: Vec<_> = fields.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    HttpRequest {
        method: http.method.to_string().into(),
        path: path.to_owned().into(),
        headers: Headers::new(fields, false),
        ..HttpRequest::default()
    }
}
