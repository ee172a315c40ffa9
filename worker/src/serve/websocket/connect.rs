//! `connect`: the first request of every client, and the only one that is judged before it may ask
//! for anything.
//!
//! ```text
//! shape → protocol → role → token → scopes
//! ```
//!
//! **Invariants**
//! - Words, codes and their order are those real clients know.
//! - A client that proves nothing but the token, and is neither a backend on this machine nor a
//!   device, is let in without any scope.

use std::time::Instant;

use serde::Deserialize;
use serde_json::{Value, json};

use super::farewell::Close;
use crate::identity::{Locality, Scopes, SharedToken};
use crate::methods::shape::{Field, Shape};
use crate::methods::{Code, Refusal};

/// The protocols that are spoken, the oldest first.
const PROTOCOLS: std::ops::RangeInclusive<u64> = 3..=4;
/// The clients there are.
const CLIENT_IDS: [&str; 13] = [
    "cli",
    "fingerprint",
    "gateway-client",
    "node-host",
    "openclaw-android",
    "openclaw-control-ui",
    "openclaw-ios",
    "openclaw-macos",
    "openclaw-probe",
    "openclaw-tui",
    "test",
    "webchat",
    "webchat-ui",
];
/// What a client may be used as.
const CLIENT_MODES: [&str; 7] = ["backend", "cli", "node", "probe", "test", "ui", "webchat"];

static CONNECT: Shape = Shape::Object(&[
    Field::required("minProtocol", Shape::Integer { least: 1 }),
    Field::required("maxProtocol", Shape::Integer { least: 1 }),
    Field::required(
        "client",
        Shape::Object(&[
            Field::required("id", Shape::OneOf(&CLIENT_IDS)),
            Field::optional("displayName", Shape::Text),
            Field::required("version", Shape::Text),
            Field::required("platform", Shape::Text),
            Field::optional("deviceFamily", Shape::Text),
            Field::optional("modelIdentifier", Shape::Text),
            Field::required("mode", Shape::OneOf(&CLIENT_MODES)),
            Field::optional("instanceId", Shape::Text),
        ]),
    ),
    Field::optional("caps", Shape::List(&Shape::Text)),
    Field::optional("commands", Shape::List(&Shape::Text)),
    Field::optional("permissions", Shape::Map(&Shape::Flag)),
    Field::optional("pathEnv", Shape::AnyText),
    Field::optional("role", Shape::Text),
    Field::optional("scopes", Shape::List(&Shape::Text)),
    Field::optional(
        "device",
        Shape::Object(&[
            Field::required("id", Shape::Text),
            Field::required("publicKey", Shape::Text),
            Field::required("signature", Shape::Text),
            Field::required("signedAt", Shape::Integer { least: 0 }),
            Field::required("nonce", Shape::Text),
        ]),
    ),
    Field::optional(
        "auth",
        Shape::Object(&[
            Field::optional("token", Shape::AnyText),
            Field::optional("bootstrapToken", Shape::AnyText),
            Field::optional("deviceToken", Shape::AnyText),
            Field::optional("password", Shape::AnyText),
        ]),
    ),
    Field::optional("locale", Shape::AnyText),
    Field::optional("userAgent", Shape::AnyText),
]);

/// What of the parameters is used, once their shape is right.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Params {
    min_protocol: u64,
    max_protocol: u64,
    client: Client,
    role: Option<String>,
    #[serde(default)]
    scopes: Vec<String>,
    /// Its signature is not looked at yet: only the shared token opens this door.
    device: Option<Value>,
    #[serde(default)]
    auth: Auth,
}

/// Which program connects.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Client {
    pub(super) id: String,
    pub(super) display_name: Option<String>,
    pub(super) version: String,
    pub(super) platform: String,
    pub(super) mode: String,
}

#[derive(Default, Deserialize)]
struct Auth {
    token: Option<String>,
}

// By hand: the token is never formatted.
impl std::fmt::Debug for Auth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Auth(…)")
    }
}

/// A client that was let in.
#[derive(Debug)]
pub(super) struct Admission {
    /// The protocol spoken from now on.
    pub(super) protocol: u64,
    pub(super) client: Client,
    pub(super) role: String,
    pub(super) scopes: Scopes,
    pub(super) admitted_at: Instant,
}

/// A client that was not let in: what it is told, and how its connection is closed.
#[derive(Debug, PartialEq)]
pub(super) struct Rejection {
    pub(super) refusal: Refusal,
    pub(super) close: Close,
}

impl Rejection {
    /// Against the rules; the close gives the same reason.
    fn policy(refusal: Refusal) -> Self {
        let close = Close::policy(&refusal.message);
        Self { refusal, close }
    }
}

/// The first request was something else than `connect`.
pub(super) fn not_connect() -> Rejection {
    Rejection::policy(Refusal::invalid("invalid handshake: first request must be connect"))
}

/// Judges a client by what it says of itself.
pub(super) fn admit(
    params: &str,
    token: &SharedToken,
    locality: Locality,
) -> Result<Admission, Rejection> {
    let params = read(params).map_err(|what| {
        Rejection::policy(Refusal::invalid(format!("invalid connect params: {what}")))
    })?;
    let protocol = choose(params.min_protocol, params.max_protocol).ok_or_else(|| {
        let details =
            json!({"expectedProtocol": PROTOCOLS.end(), "minimumProbeProtocol": PROTOCOLS.start()});
        let refusal = Refusal::invalid("protocol mismatch").with_details(details);
        Rejection { close: Close::protocol(&refusal.message), refusal }
    })?;
    let role = params.role.unwrap_or_else(|| "operator".to_owned());
    if !["operator", "node"].contains(&role.as_str()) {
        return Err(Rejection::policy(Refusal::invalid("invalid role")));
    }
    match &params.auth.token {
        Some(presented) if token.is(presented.as_bytes()) => {}
        Some(_) => return Err(wrong_token("mismatch", "AUTH_TOKEN_MISMATCH")),
        None if params.device.is_some() => {
            return Err(wrong_token("missing", "AUTH_TOKEN_MISSING"));
        }
        None => return Err(device_required()),
    }
    // A node acts for a device, so a token alone does not make one.
    if role == "node" && params.device.is_none() {
        return Err(device_required());
    }
    let backend = params.client.id == "gateway-client" && params.client.mode == "backend";
    let trusted = params.device.is_some() || (backend && locality == Locality::Local);
    let scopes = if trusted { Scopes::new(params.scopes) } else { Scopes::default() };
    Ok(Admission { protocol, client: params.client, role, scopes, admitted_at: Instant::now() })
}

fn read(params: &str) -> Result<Params, String> {
    let value: Value = serde_json::from_str(params).map_err(|error| error.to_string())?;
    CONNECT.check(&value).map_err(|violations| violations.to_string())?;
    serde_json::from_value(value).map_err(|error| error.to_string())
}

/// The newest protocol that both sides speak.
fn choose(least: u64, most: u64) -> Option<u64> {
    PROTOCOLS.rev().find(|protocol| (least..=most).contains(protocol))
}

fn wrong_token(how: &str, code: &str) -> Rejection {
    let message = format!("unauthorized: gateway token {how} (provide gateway auth token)");
    Rejection::policy(Refusal::invalid(message).with_details(json!({
        "code": code,
        "authReason": format!("token_{how}"),
        "canRetryWithDeviceToken": false,
        "recommendedNextStep": "update_auth_credentials",
    })))
}

fn device_required() -> Rejection {
    Rejection::policy(Refusal {
        code: Code::NotPaired,
        message: "device identity required".to_owned(),
        details: Some(json!({"code": "DEVICE_IDENTITY_REQUIRED"})),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::StateDir;

    /// What the recorded backend says, with the test's token.
    fn backend() -> Value {
        json!({
            "minProtocol": 4, "maxProtocol": 4,
            "client": {"id": "gateway-client", "displayName": "probe", "version": "2026.5.12",
                "platform": "linux", "mode": "backend"},
            "caps": [], "role": "operator", "scopes": ["operator.admin"],
            "auth": {"token": "secret"},
        })
    }

    fn device() -> Value {
        json!({"id": "d", "publicKey": "AAAA", "signature": "AAAA", "signedAt": 1, "nonce": "n"})
    }

    fn judge_from(params: &Value, locality: Locality) -> Result<Admission, Rejection> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("token"), "secret").unwrap();
        let state = StateDir::open(Some(dir.path().to_owned())).unwrap();
        let (token, _) = SharedToken::find(&state).unwrap().unwrap();
        admit(&params.to_string(), &token, locality)
    }

    fn judge(params: &Value) -> Result<Admission, Rejection> {
        judge_from(params, Locality::Local)
    }

    fn rejected(params: &Value) -> (String, u16, String) {
        let rejection = judge(params).unwrap_err();
        let close = rejection.close;
        (rejection.refusal.message, close.code(), close.reason().to_owned())
    }

    #[test]
    fn the_newest_common_protocol_is_chosen() {
        for (least, most, chosen) in [
            (4, 4, Some(4)),
            (3, 3, Some(3)),
            (3, 4, Some(4)),
            (1, 9, Some(4)),
            (1, 3, Some(3)),
            (1, 2, None),
            (5, 9, None),
            (4, 3, None),
        ] {
            assert_eq!(choose(least, most), chosen, "{least}..={most}");
        }
    }

    #[test]
    fn each_wrong_connect_is_rejected_in_the_recorded_words() {
        let mut params = backend();
        params["client"]["id"] = json!("zzz");
        let words =
            "invalid connect params: at /client/id: must be equal to one of the allowed values";
        assert_eq!(rejected(&params), (words.to_owned(), 1008, words.to_owned()));

        let mut params = backend();
        params["foo"] = json!(1);
        let words = "invalid connect params: at root: unexpected property 'foo'";
        assert_eq!(rejected(&params), (words.to_owned(), 1008, words.to_owned()));

        let mut params = backend();
        params["role"] = json!("root");
        assert_eq!(rejected(&params), ("invalid role".to_owned(), 1008, "invalid role".to_owned()));

        let mut params = backend();
        params["auth"]["token"] = json!("nope");
        let words = "unauthorized: gateway token mismatch (provide gateway auth token)";
        assert_eq!(rejected(&params), (words.to_owned(), 1008, words.to_owned()));

        let mut params = backend();
        params.as_object_mut().unwrap().remove("auth");
        let rejection = judge(&params).unwrap_err();
        assert_eq!(rejection.refusal.code, Code::NotPaired);
        assert_eq!(rejection.close.reason(), "device identity required");

        let mut params = backend();
        params["minProtocol"] = json!(5);
        params["maxProtocol"] = json!(6);
        let words = "protocol mismatch".to_owned();
        assert_eq!(rejected(&params), (words.clone(), 1002, words));
    }

    #[test]
    fn scopes_are_given_to_local_backends_and_to_devices_only() {
        let scopes = |params: &Value, locality| judge_from(params, locality).unwrap().scopes;
        assert!(scopes(&backend(), Locality::Local).administer());
        assert_eq!(scopes(&backend(), Locality::Remote), Scopes::default());
        let mut cli = backend();
        cli["client"]["id"] = json!("cli");
        cli["client"]["mode"] = json!("cli");
        assert_eq!(scopes(&cli, Locality::Local), Scopes::default());
        cli["device"] = device();
        assert!(scopes(&cli, Locality::Local).administer());
    }

    #[test]
    fn a_device_needs_the_token_and_a_node_needs_a_device() {
        let mut params = backend();
        params["device"] = device();
        params["auth"] = json!({});
        let words = "unauthorized: gateway token missing (provide gateway auth token)";
        assert_eq!(rejected(&params).0, words);
        let mut node = backend();
        node["role"] = json!("node");
        assert_eq!(rejected(&node).0, "device identity required");
        node["device"] = device();
        assert_eq!(judge(&node).unwrap().role, "node");
    }

    #[test]
    fn the_token_of_a_client_is_never_formatted() {
        let params = read(&backend().to_string()).unwrap();
        assert!(!format!("{params:?}").contains("secret"));
    }
}
