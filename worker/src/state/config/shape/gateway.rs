//! How clients reach the gateway.

use std::num::{NonZeroU16, NonZeroU32};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::state::config::Secret;

/// The `gateway` section.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Gateway {
    /// The port.
    pub(crate) port: NonZeroU16,
    /// Which addresses.
    pub(crate) bind: Bind,
    /// The address when `bind` is `custom`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) custom_bind_host: Option<String>,
    /// Whether the gateway is on this machine.
    pub(crate) mode: Mode,
    /// How clients prove who they are.
    pub(crate) auth: Auth,
    /// Proxies that are believed about where a client comes from.
    pub(crate) trusted_proxies: Vec<String>,
    /// How long a WebSocket may take to connect, in ms.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) handshake_timeout_ms: Option<NonZeroU32>,
    /// TLS on the gateway's port.
    pub(crate) tls: Tls,
    /// The HTTP side.
    pub(crate) http: Http,
    /// The page for browsers.
    pub(crate) control_ui: ControlUi,
}

impl Default for Gateway {
    fn default() -> Self {
        Self {
            port: NonZeroU16::new(18789).expect("it is not zero"),
            bind: Bind::default(),
            custom_bind_host: None,
            mode: Mode::default(),
            auth: Auth::default(),
            trusted_proxies: Vec::new(),
            handshake_timeout_ms: None,
            tls: Tls::default(),
            http: Http::default(),
            control_ui: ControlUi::default(),
        }
    }
}

/// Which addresses the gateway listens on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Bind {
    /// Loopback, or all in a container.
    Auto,
    /// All.
    Lan,
    /// 127.0.0.1 and ::1.
    #[default]
    Loopback,
    /// The one named beside it.
    Custom,
    /// That of the tailnet.
    Tailnet,
}

/// Whether the gateway is on this machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Mode {
    /// It is.
    #[default]
    Local,
    /// The tools of this machine use another one's.
    Remote,
}

/// How clients prove who they are.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Auth {
    /// By what.
    pub(crate) mode: AuthMode,
    /// The token; the environment's goes before it.
    #[serde(skip_serializing)]
    pub(crate) token: Option<Secret>,
    /// The password.
    #[serde(skip_serializing)]
    pub(crate) password: Option<Secret>,
}

/// By what clients prove who they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum AuthMode {
    /// Nothing.
    None,
    /// The shared token.
    #[default]
    Token,
    /// The shared password.
    Password,
    /// A header of a trusted proxy.
    TrustedProxy,
}

/// TLS on the gateway's port.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Tls {
    /// Whether it is spoken.
    pub(crate) enabled: bool,
    /// The certificate's file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cert_path: Option<String>,
    /// The key's file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) key_path: Option<String>,
}

/// The HTTP side.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Http {
    /// What is served beside the WebSocket.
    pub(crate) endpoints: Endpoints,
}

/// What is served beside the WebSocket.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Endpoints {
    /// `/v1/chat/completions`.
    pub(crate) chat_completions: Endpoint,
    /// `/v1/responses`.
    pub(crate) responses: Endpoint,
}

/// One of them. Served unless the configuration says otherwise, where OpenClaw wants to be asked.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Endpoint {
    /// Whether it is served.
    pub(crate) enabled: bool,
    /// The longest request, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) max_body_bytes: Option<NonZeroU32>,
}

impl Default for Endpoint {
    fn default() -> Self {
        Self { enabled: true, max_body_bytes: None }
    }
}

/// The page for browsers.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ControlUi {
    /// The origins whose pages may connect.
    pub(crate) allowed_origins: Vec<String>,
}
