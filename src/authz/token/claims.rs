//! What a token claims (RFC 7519, section 4; RFC 9068; RFC 8693, section 4), read into types. Nothing is checked against
//! a clock or a rule here.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::Refused;
use crate::authz::call::json::Json;
use crate::authz::reason::Reason;

/// Longest name of a subject, an issuer or a client, in bytes.
const MAX_NAME_BYTES: usize = 1_024;
const MAX_SUBJECT_BYTES: usize = 255;
/// Most scopes: those of one token are held against those of another.
const MAX_SCOPES: usize = 256;
/// Latest moment that is read: the end of the year 9999, in seconds since 1970.
const MAX_SECONDS: i64 = 253_402_300_799;
/// Claims with a meaning of their own, which are no tags of a user.
pub const REGISTERED: [&str; 18] = [
    "act",
    "aud",
    "auth_time",
    "azp",
    "client_id",
    "cnf",
    "exp",
    "iat",
    "iss",
    "jti",
    "may_act",
    "nbf",
    "nonce",
    "scope",
    "sid",
    "sub",
    "acr",
    "amr",
];

/// To what a token is bound (RFC 7800).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Confirmation {
    /// `x5t#S256`: SHA-256 of the client certificate (RFC 8705, section 3.1).
    pub certificate: Option<[u8; 32]>,
    /// `jkt`: SHA-256 thumbprint of the key of a DPoP proof (RFC 9449, section 6.1).
    pub key: Option<[u8; 32]>,
}

/// An actor of `act`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Actor {
    /// Its `sub`.
    pub subject: String,
    /// Its `iss`, where it is another one than the token's.
    pub issuer: Option<String>,
}

/// The claims of a token. A claim that is there has the right form, or the token was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claims {
    /// `iss`
    pub issuer: Option<String>,
    /// `sub`
    pub subject: String,
    /// `aud`, a text or a list.
    pub audiences: Vec<String>,
    /// `exp`, in seconds since 1970.
    pub expires: i64,
    /// `nbf`
    pub not_before: Option<i64>,
    /// `iat`
    pub issued: Option<i64>,
    /// `jti`
    pub id: Option<String>,
    /// `client_id`, else `azp`.
    pub client: Option<String>,
    /// `scope`, split; `None` without that claim.
    pub scopes: Option<Vec<String>>,
    /// `act`, the current actor first.
    pub actors: Vec<Actor>,
    /// The user's groups, by the claim that the issuer's rules name.
    pub groups: Vec<String>,
    /// `cnf`
    pub confirmation: Confirmation,
    /// `sid`
    pub session: Option<String>,
    /// `acr`
    pub acr: Option<String>,
    /// `amr`
    pub amr: Vec<String>,
    /// `auth_time`
    pub authenticated: Option<i64>,
    /// All others that are texts, numbers, truths, or lists of such: each as a set of texts.
    pub others: Vec<(String, Vec<String>)>,
    /// The names of all claims.
    pub names: Vec<String>,
}

impl Claims {
    /// Reads the claims of a token.
    ///
    /// # Errors
    /// [`Reason::TokenClaimMissing`] without `sub`, `aud` or `exp`; [`Reason::TokenClaimMalformed`] for one that has not
    /// the form its specification gives it.
    pub fn read(json: &Json<'_>) -> Result<Self, Refused> {
        let reader = Reader(json);
        let actors = reader.actors()?;
        Ok(Self {
            issuer: reader.name("iss")?,
            subject: reader.subject()?,
            audiences: reader.required("aud", Reader::texts)?,
            expires: reader.required("exp", Reader::seconds)?,
            not_before: reader.seconds("nbf")?,
            issued: reader.seconds("iat")?,
            id: reader.name("jti")?,
            client: reader.client()?,
            scopes: reader.scopes()?,
            actors,
            groups: Vec::new(),
            confirmation: reader.confirmation()?,
            session: reader.name("sid")?,
            acr: reader.name("acr")?,
            amr: reader.texts("amr")?.unwrap_or_default(),
            authenticated: reader.seconds("auth_time")?,
            others: reader.others(),
            names: json.members().unwrap_or_default().iter().map(|(name, _)| name.to_string()).collect(),
        })
    }
}

/// Claims of tokens that are no access tokens: ID tokens (OpenID Connect Core 1.0, section 3.3.2.11), logout and event tokens (RFC
/// 8417), transaction tokens. Where `typ` does not tell them apart, these do.
pub const OF_OTHERS: [&str; 6] = ["at_hash", "c_hash", "events", "nonce", "s_hash", "txn"];

/// The groups of a user by the claim of this name: a text or a list of texts.
///
/// # Errors
/// [`Reason::TokenClaimMalformed`] for any other form, and where the provider says that they are somewhere else: a forbid about a
/// group must not miss its members.
pub fn groups_of(json: &Json<'_>, name: &str) -> Result<Vec<String>, Refused> {
    let elsewhere = json.get("_claim_names").is_some_and(|names| names.get(name).is_some());
    if elsewhere || json.get("hasgroups").is_some() {
        return Err(malformed(name));
    }
    Ok(Reader(json).texts(name)?.unwrap_or_default())
}

/// `iss` of claims whose rules are not known yet: it says which they are.
///
/// # Errors
/// [`Reason::TokenClaimMalformed`] if it is no text: a list with a good issuer in it names none.
pub fn issuer_of<'j>(json: &'j Json<'_>) -> Result<Option<&'j str>, Refused> {
    match json.get("iss") {
        None => Ok(None),
        Some(value) => value.as_str().map(Some).ok_or_else(|| malformed("iss")),
    }
}

fn malformed(name: &str) -> Refused {
    Refused::new(Reason::TokenClaimMalformed, format!("`{name}` has not the form that it has to have"))
}

/// Reads claims, each in the form that its specification gives it.
pub(super) struct Reader<'j, 't>(pub(super) &'j Json<'t>);

impl Reader<'_, '_> {
    pub(super) fn required<T>(
        &self,
        name: &str,
        read: impl Fn(&Self, &str) -> Result<Option<T>, Refused>,
    ) -> Result<T, Refused> {
        read(self, name)?.ok_or_else(|| Refused::new(Reason::TokenClaimMissing, format!("no `{name}`")))
    }

    /// A text that names something: not empty, not long, and of characters that are seen.
    pub(super) fn name(&self, name: &str) -> Result<Option<String>, Refused> {
        let Some(value) = self.0.get(name) else { return Ok(None) };
        name_of(value).map(Some).ok_or_else(|| malformed(name))
    }

    /// `sub` of at most 255 bytes (OpenID Connect Core 1.0, section 2), or a SPIFFE ID: it is a part of ids and records.
    fn subject(&self) -> Result<String, Refused> {
        let subject = self.required("sub", Self::name)?;
        let fits = subject.len() <= MAX_SUBJECT_BYTES || subject.starts_with("spiffe://");
        if fits { Ok(subject) } else { Err(malformed("sub")) }
    }

    /// `client_id`, else `azp`; both are the same, or somebody mixes two tokens up.
    fn client(&self) -> Result<Option<String>, Refused> {
        match (self.name("client_id")?, self.name("azp")?) {
            (Some(client), Some(party)) if client != party => Err(malformed("azp")),
            (client, party) => Ok(client.or(party)),
        }
    }

    /// A NumericDate, as a whole number of seconds.
    pub(super) fn seconds(&self, name: &str) -> Result<Option<i64>, Refused> {
        let Some(value) = self.0.get(name) else { return Ok(None) };
        // Beyond it nothing would ever expire; the rule for lifetimes says so in better words.
        let seconds = value.as_i64().filter(|seconds| *seconds >= 0).map(|seconds| seconds.min(MAX_SECONDS));
        seconds.map(Some).ok_or_else(|| malformed(name))
    }

    /// A text, or a list of texts.
    pub(super) fn texts(&self, name: &str) -> Result<Option<Vec<String>>, Refused> {
        let texts = match self.0.get(name) {
            None => return Ok(None),
            Some(Json::Array(all)) => all.iter().map(name_of).collect(),
            Some(value) => name_of(value).map(|text| vec![text]),
        };
        texts.map(Some).ok_or_else(|| malformed(name))
    }

    /// Names that are separated by single spaces (RFC 6749, section 3.3).
    fn scopes(&self) -> Result<Option<Vec<String>>, Refused> {
        let Some(value) = self.0.get("scope") else { return Ok(None) };
        let text = value.as_str().ok_or_else(|| malformed("scope"))?;
        if text.is_empty() {
            return Ok(Some(Vec::new()));
        }
        let is_scope = |scope: &str| {
            !scope.is_empty() && scope.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\')
        };
        let mut all: Vec<String> = text.split(' ').map(str::to_owned).collect();
        if !all.iter().all(|scope| is_scope(scope)) {
            return Err(malformed("scope"));
        }
        // Each once, and in no order that means anything.
        all.sort_unstable();
        all.dedup();
        if all.len() > MAX_SCOPES {
            return Err(Refused::new(
                Reason::TokenClaimMalformed,
                format!("`scope` has more than {MAX_SCOPES} scopes"),
            ));
        }
        Ok(Some(all))
    }

    /// `act`, and whatever is nested in it.
    fn actors(&self) -> Result<Vec<Actor>, Refused> {
        let (mut actors, mut at) = (Vec::new(), self.0);
        while let Some(actor) = at.get("act") {
            let text = |name| actor.get(name).map(|value| name_of(value).ok_or_else(|| malformed("act"))).transpose();
            let subject = text("sub")?.ok_or_else(|| malformed("act"))?;
            actors.push(Actor { subject, issuer: text("iss")? });
            at = actor;
        }
        Ok(actors)
    }

    fn confirmation(&self) -> Result<Confirmation, Refused> {
        let Some(value) = self.0.get("cnf") else { return Ok(Confirmation::default()) };
        let members = value.members().ok_or_else(|| malformed("cnf"))?;
        let mut confirmation = Confirmation::default();
        for (name, value) in members {
            let hash = || digest_of(value).ok_or_else(|| malformed("cnf"));
            match name.as_ref() {
                "x5t#S256" => confirmation.certificate = Some(hash()?),
                "jkt" => confirmation.key = Some(hash()?),
                // Bound to something that is not checked here would be as good as not bound.
                other => {
                    let known = other.chars().filter(char::is_ascii_graphic).take(32).collect::<String>();
                    return Err(Refused::new(Reason::TokenBindingUnsupported, format!("`cnf` has `{known}`")));
                }
            }
        }
        Ok(confirmation)
    }

    fn others(&self) -> Vec<(String, Vec<String>)> {
        let scalar = |value: &Json<'_>| match value {
            Json::String(text) => Some(text.to_string()),
            Json::Number(text) => Some((*text).to_owned()),
            Json::Bool(truth) => Some(truth.to_string()),
            _ => None,
        };
        let texts = |value: &Json<'_>| match value {
            Json::Array(all) => all.iter().map(scalar).collect(),
            value => scalar(value).map(|text| vec![text]),
        };
        let members = self.0.members().unwrap_or_default().iter();
        let others = members.filter(|(name, _)| !REGISTERED.contains(&name.as_ref()));
        others.filter_map(|(name, value)| Some((name.to_string(), texts(value)?))).collect()
    }
}

fn name_of(value: &Json<'_>) -> Option<String> {
    let text = value.as_str()?;
    let is_name = (1..=MAX_NAME_BYTES).contains(&text.len()) && !text.chars().any(char::is_control);
    is_name.then(|| text.to_owned())
}

/// 32 bytes in base64url.
pub(super) fn digest_of(value: &Json<'_>) -> Option<[u8; 32]> {
    URL_SAFE_NO_PAD.decode(value.as_str()?).ok()?.try_into().ok()
}
