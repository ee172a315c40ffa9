//! The parameters of `connect`: their shape, and what of them is used.

use serde::Deserialize;
use serde_json::Value;

use crate::shape::{Field, Shape};

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
pub(super) struct Params {
    pub(super) min_protocol: u64,
    pub(super) max_protocol: u64,
    pub(super) client: ClientParams,
    pub(super) role: Option<String>,
    #[serde(default)]
    pub(super) scopes: Vec<String>,
    pub(super) device: Option<DeviceParams>,
    #[serde(default)]
    pub(super) auth: Auth,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ClientParams {
    pub(super) id: String,
    pub(super) display_name: Option<String>,
    pub(super) version: String,
    pub(super) platform: String,
    pub(super) device_family: Option<String>,
    pub(super) mode: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct DeviceParams {
    pub(super) id: String,
    pub(super) public_key: String,
    pub(super) signature: String,
    pub(super) signed_at: u64,
    pub(super) nonce: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Auth {
    pub(super) token: Option<String>,
    pub(super) device_token: Option<String>,
    pub(super) bootstrap_token: Option<String>,
    pub(super) password: Option<String>,
}

// By hand: no token is ever formatted.
impl std::fmt::Debug for Auth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Auth(…)")
    }
}

impl Auth {
    /// What of a field counts: nobody means a token by blanks.
    pub(super) fn of(field: Option<&String>) -> Option<&str> {
        field.map(|field| field.trim()).filter(|field| !field.is_empty())
    }

    /// The token that a device signs, as it was sent.
    pub(super) fn signed(&self) -> Option<&str> {
        let tokens = [&self.token, &self.device_token, &self.bootstrap_token];
        tokens.into_iter().find_map(Option::as_deref)
    }
}

impl Params {
    /// Reads them, once their shape is right.
    ///
    /// # Errors
    /// What is wrong with them, in the words of the refusal.
    pub(super) fn read(params: &str) -> Result<Self, String> {
        let value: Value = serde_json::from_str(params).map_err(|error| error.to_string())?;
        CONNECT.check(&value).map_err(|violations| violations.to_string())?;
        serde_json::from_value(value).map_err(|error| error.to_string())
    }
}
