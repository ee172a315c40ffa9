//! Providers: whoever serves models by OpenAI's chat completions, as `models.providers` describes them.
//!
//! ```text
//! models.providers.<id> ─► Provider ── model ─► Model ── run ─► POST <baseUrl>/chat/completions, streamed
//! ```
//!
//! | key | |
//! | --- | --- |
//! | `baseUrl` | of the provider or the model; `openai` and `openrouter` need none |
//! | `apiKey`, or `<ID>_API_KEY` in the environment | sent as a bearer token; without either none is |
//! | `api` | `openai-completions`, unless it says something else, which is refused |
//! | `headers` | go with each request |
//! | `timeoutSeconds` | for a whole answer; without it [`run::SILENCE`] for each byte, and 10 s to connect |
//! | `models` | those that may be asked; without any, all |
//! | `models[].params` | go with each request |
//!
//! **Invariants**
//! - A key is in no message, no log and no `Debug`, also when the provider repeats it.
//! - What the configuration gets wrong is said when it is needed, and is never the provider's failure.

mod chunk;
mod connector;
mod refusal;
mod run;
mod sse;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{
    ACCEPT, AUTHORIZATION, CONNECTION, CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue,
    USER_AGENT,
};
use hyper::{Request, Uri};
use serde_json::{Map, Value, json};

pub(crate) use self::connector::Connector;
pub(crate) use self::run::ModelRun;
use self::run::{Limits, SILENCE};
use super::{Failure, Past, Reason, Turn};
use crate::state::config::{ProviderConfig, Sealed, Settled};

/// The one thing that is spoken here, as configurations call it.
const SPOKEN: &str = "openai-completions";
/// Who is known to be where.
const KNOWN: [(&str, &str); 2] =
    [("openai", "https://api.openai.com/v1"), ("openrouter", "https://openrouter.ai/api/v1")];
/// What a model's params do not decide.
const OURS: [&str; 4] = ["model", "messages", "stream", "stream_options"];

/// A provider, as the configuration describes it.
#[derive(Clone, Debug)]
pub(crate) struct Provider {
    id: String,
    config: ProviderConfig,
    credentials: Result<Credentials, Failure>,
    connector: Connector,
}

/// What is sent with each request and told to nobody else.
#[derive(Clone, Default)]
struct Credentials {
    headers: HeaderMap,
    secrets: Arc<[String]>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.headers.keys()).finish()
    }
}

/// A model that can be asked.
#[derive(Clone, Debug)]
pub(crate) struct Model {
    name: String,
    uri: Uri,
    params: Sealed,
    credentials: Credentials,
    limits: Limits,
    connector: Connector,
}

impl Provider {
    /// The provider that this configuration describes under this id.
    pub(crate) fn of(
        id: &str,
        config: &ProviderConfig,
        settled: &Settled,
        connector: Connector,
    ) -> Self {
        let credentials = Credentials::of(id, config, settled);
        Self { id: id.to_owned(), config: config.clone(), credentials, connector }
    }

    /// One of its models.
    ///
    /// # Errors
    /// A failure that is the configuration's.
    pub(crate) fn model(&self, name: &str) -> Result<Model, Failure> {
        let Self { id, config, credentials, connector } = self;
        let wrong =
            |words: &str| Failure::new(Reason::Config, &format!("models.providers.{id}{words}"));
        let model = config.models.iter().find(|model| model.id == name);
        if model.is_none() && !config.models.is_empty() {
            return Err(wrong(&format!(".models lists no \"{name}\"")));
        }
        let api = model.and_then(|model| model.api.as_ref()).or(config.api.as_ref());
        if let Some(api) = api.filter(|api| *api != SPOKEN) {
            return Err(wrong(&format!(": \"{api}\" is not spoken here; it can be \"{SPOKEN}\"")));
        }
        let base = model.and_then(|model| model.base_url.as_deref());
        let known = KNOWN.iter().find(|(known, _)| known == id).map(|(_, base)| *base);
        let Some(base) = base.or(config.base_url.as_deref()).or(known) else {
            return Err(wrong(".baseUrl is not set"));
        };
        let uri = address(base).ok_or_else(|| {
            wrong(".baseUrl is no http or https address without a name and password")
        })?;
        Ok(Model {
            name: name.to_owned(),
            uri,
            params: model.map(|model| model.params.clone()).unwrap_or_default(),
            credentials: credentials.clone()?,
            limits: Limits {
                silence: SILENCE,
                whole: config
                    .timeout_seconds
                    .filter(|s| *s > 0)
                    .map(u64::from)
                    .map(Duration::from_secs),
            },
            connector: connector.clone(),
        })
    }
}

/// Where completions are asked for.
fn address(base: &str) -> Option<Uri> {
    let uri: Uri = format!("{}/chat/completions", base.trim_end_matches('/')).parse().ok()?;
    let is_ours = matches!(uri.scheme_str(), Some("http" | "https"));
    let has_user = uri.authority().is_none_or(|authority| authority.as_str().contains('@'));
    (is_ours && !has_user && uri.query().is_none()).then_some(uri)
}

impl Credentials {
    fn of(id: &str, config: &ProviderConfig, settled: &Settled) -> Result<Self, Failure> {
        let wrong =
            |words: &str| Failure::new(Reason::Config, &format!("models.providers.{id}.{words}"));
        let mut headers = HeaderMap::new();
        let mut secrets = Vec::new();
        for (name, secret) in &config.headers {
            let value = settled.reveal(secret).ok_or_else(|| {
                wrong(&format!("headers.{name} is kept where this gateway does not reach"))
            })?;
            let header = HeaderName::from_bytes(name.as_bytes()).ok().zip(hidden(value));
            let (name, value_of) =
                header.ok_or_else(|| wrong(&format!("headers.{name} is no header")))?;
            headers.insert(name, value_of);
            secrets.push(value.to_owned());
        }
        let key = match &config.api_key {
            Some(secret) => Some(settled.reveal(secret).ok_or_else(|| {
                wrong("apiKey is kept where this gateway does not reach, or not set")
            })?),
            None => settled.variable(&variable(id)),
        };
        if let Some(key) = key.filter(|key| !key.is_empty()) {
            let value = hidden(&format!("Bearer {key}"))
                .ok_or_else(|| wrong("apiKey cannot be sent in a header"))?;
            headers.entry(AUTHORIZATION).or_insert(value);
            secrets.push(key.to_owned());
        }
        // One that is part of another must not leave the rest of that behind.
        secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        Ok(Self { headers, secrets: secrets.into() })
    }
}

/// The variable that a provider's key is in when the configuration has none: `OPENAI_API_KEY`.
fn variable(id: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
    let name: String = id.chars().map(plain).collect();
    format!("{name}_API_KEY")
}

fn hidden(value: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(value).ok()?;
    value.set_sensitive(true);
    Some(value)
}

impl Model {
    /// Begins a turn; nothing is sent until it is polled.
    pub(super) fn run(&self, turn: &Turn, past: &Past) -> ModelRun {
        let Self { credentials, limits, connector, .. } = self;
        let secrets = Arc::clone(&credentials.secrets);
        ModelRun::new(connector.clone(), self.request(turn, past), *limits, secrets)
    }

    fn request(&self, turn: &Turn, past: &Past) -> Result<Request<Full<Bytes>>, Failure> {
        let body = self.body(turn, past).to_string();
        let host = self.uri.authority().map(ToString::to_string).unwrap_or_default();
        let mut request = Request::post(self.uri.clone())
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| Failure::new(Reason::Config, &error.to_string()))?;
        let headers = request.headers_mut();
        headers.extend(self.credentials.headers.clone());
        let host = HeaderValue::from_str(&host)
            .map_err(|error| Failure::new(Reason::Config, &error.to_string()))?;
        headers.insert(HOST, host);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(ACCEPT, HeaderValue::from_static("text/event-stream"));
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
        let agent = HeaderValue::from_static(concat!("holdfast/", env!("CARGO_PKG_VERSION")));
        headers.entry(USER_AGENT).or_insert(agent);
        Ok(request)
    }

    fn body(&self, turn: &Turn, past: &Past) -> Value {
        let mut messages = Vec::new();
        if let Some(system) = &past.system {
            messages.push(json!({"role": "system", "content": &**system}));
        }
        let said = past.said.iter();
        messages.extend(said.map(|said| json!({"role": said.by.name(), "content": said.text})));
        messages.push(json!({"role": "user", "content": turn.message}));
        let mut body = Map::new();
        let params = self.params.members().iter();
        let params = params.filter(|(name, _)| !OURS.contains(&name.as_str()));
        body.extend(params.map(|(name, value)| (name.clone(), value.clone())));
        body.insert("model".to_owned(), self.name.as_str().into());
        body.insert("messages".to_owned(), messages.into());
        body.insert("stream".to_owned(), true.into());
        body.insert("stream_options".to_owned(), json!({"include_usage": true}));
        Value::Object(body)
    }
}
