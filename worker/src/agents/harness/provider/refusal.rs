//! What a provider means by an error: a table, pure.
//!
//! | status, `type` or `code`, words | reason |
//! | --- | --- |
//! | 402; `insufficient_quota` and its like; 429 that speaks of quota or billing | billing |
//! | 413; `context_length_exceeded`; 400 that speaks of the context's length | context-overflow |
//! | 401, 403; `invalid_api_key` and its like | auth |
//! | 429; `rate_limit_error` and its like | rate-limit |
//! | 408, 504; `timeout` | timeout |
//! | 503, 529; `overloaded_error` and its like | overloaded |
//! | anything else | unknown |
//!
//! **Invariants**
//! - The words are the provider's; where it has none, the status's own. Nothing here says "billing" by itself.

use std::time::Duration;

use hyper::StatusCode;
use hyper::header::HeaderMap;
use jiff::Timestamp;
use serde_json::Value;

use crate::agents::harness::{Failure, Reason};

/// No provider is believed that wants to be left alone for longer.
const LONGEST_RETRY: Duration = Duration::from_secs(24 * 60 * 60);

/// What a provider has said instead of an answer.
#[derive(Debug, Default)]
pub(super) struct Refused {
    status: Option<u16>,
    /// Its `type` and `code`, in lower case.
    names: Vec<String>,
    message: String,
    retry_after: Option<Duration>,
}

impl Refused {
    /// With this response.
    pub(super) fn with(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Self {
        let retry_after = retry_after(headers, Timestamp::now());
        let known = Self { status: Some(status.as_u16()), retry_after, ..Self::default() };
        match serde_json::from_slice::<Value>(body) {
            Ok(Value::Object(mut body)) => {
                let inside = body.get_mut("error").filter(|e| !e.is_null()).map(Value::take);
                let said = Self::said(&inside.unwrap_or(Value::Object(body)));
                Self { status: known.status, retry_after, ..said }
            }
            Ok(Value::String(message)) => Self { message, ..known },
            Ok(_) => known,
            // A page for people says nothing in a line.
            Err(_) if body.trim_ascii_start().starts_with(b"<") => known,
            Err(_) => Self { message: String::from_utf8_lossy(body).into_owned(), ..known },
        }
    }

    /// In the midst of an answer, with this `error`.
    pub(super) fn midway(error: Value) -> Self {
        Self::said(&error)
    }

    fn said(error: &Value) -> Self {
        let texts = |keys: &[&str]| {
            let texts = keys.iter().filter_map(|key| error[*key].as_str());
            texts.map(str::to_owned).collect::<Vec<_>>()
        };
        let message = error.as_str().map(str::to_owned);
        let message = message.or_else(|| texts(&["message", "detail", "error"]).into_iter().next());
        let status = error["code"].as_u64().and_then(|code| u16::try_from(code).ok());
        Self {
            status: status.filter(|status| (400..600).contains(status)),
            names: texts(&["type", "code", "status"]).iter().map(|n| n.to_lowercase()).collect(),
            message: message.unwrap_or_default(),
            retry_after: None,
        }
    }
}

/// The failure that a refusal is.
pub(super) fn failure(refused: &Refused, secrets: &[String]) -> Failure {
    let Refused { status, names, message, retry_after } = refused;
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let reason = reason(*status, &names, &message.to_lowercase());
    let words = match message.trim() {
        "" => unsaid(*status),
        message => message,
    };
    let failure = Failure::hiding(reason, words, secrets);
    Failure { status: *status, retry_after: *retry_after, ..failure }
}

fn reason(status: Option<u16>, names: &[&str], message: &str) -> Reason {
    let named = |any: &[&str]| names.iter().any(|name| any.contains(name));
    let says = |any: &[&str]| any.iter().any(|words| message.contains(words));
    let unpaid = [
        "insufficient_quota",
        "billing_error",
        "billing_not_active",
        "billing_hard_limit_reached",
        "payment_required",
        "insufficient_credits",
    ];
    let too_long = ["context_length_exceeded", "request_too_large"];
    let no_key = ["invalid_api_key", "authentication_error", "permission_error"];
    let too_often = ["rate_limit_error", "rate_limit_exceeded"];
    match status {
        Some(402) => Reason::Billing,
        _ if named(&unpaid) => Reason::Billing,
        Some(429) if says(&["quota", "billing"]) => Reason::Billing,
        _ if named(&too_long) => Reason::ContextOverflow,
        Some(413) => Reason::ContextOverflow,
        Some(400) if says(&["context length", "context window", "prompt is too long"]) => {
            Reason::ContextOverflow
        }
        _ if named(&no_key) => Reason::Auth,
        Some(401 | 403) => Reason::Auth,
        _ if named(&too_often) => Reason::RateLimit,
        Some(429) => Reason::RateLimit,
        _ if named(&["overloaded_error", "overloaded", "server_overloaded"]) => Reason::Overloaded,
        Some(503 | 529) => Reason::Overloaded,
        _ if named(&["timeout", "timeout_error"]) => Reason::Timeout,
        Some(408 | 504) => Reason::Timeout,
        _ => Reason::Unknown,
    }
}

/// What a status says by itself.
fn unsaid(status: Option<u16>) -> &'static str {
    match status {
        Some(401) => "the key is not accepted",
        Some(402) => "payment required",
        Some(403) => "the key is not allowed to do this",
        Some(404) => "not found",
        Some(408 | 504) => "timed out",
        Some(413) => "the request is too large",
        Some(429) => "too many requests",
        Some(500) => "internal error",
        Some(502) => "bad gateway",
        Some(503) => "unavailable",
        Some(529) => "overloaded",
        Some(_) | None => "refused without a reason",
    }
}

/// How long the provider wants to be left alone: `retry-after-ms`, or `Retry-After` in seconds or as a date
/// (RFC 9110, section 10.2.3).
fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let value = |name| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    let ms = value("retry-after-ms").and_then(|ms| ms.parse().ok()).map(Duration::from_millis);
    let after = ms.or_else(|| {
        let value = value("retry-after")?;
        match value.parse() {
            Ok(seconds) => Some(Duration::from_secs(seconds)),
            Err(_) => {
                let at = jiff::fmt::rfc2822::parse(value).ok()?.timestamp();
                Some(Duration::try_from(at.duration_since(now)).unwrap_or_default())
            }
        }
    });
    after.map(|after| after.min(LONGEST_RETRY))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_status_and_name_has_its_reason() {
        for status in 400..600 {
            let expected = match status {
                401 | 403 => Reason::Auth,
                402 => Reason::Billing,
                408 | 504 => Reason::Timeout,
                413 => Reason::ContextOverflow,
                429 => Reason::RateLimit,
                503 | 529 => Reason::Overloaded,
                _ => Reason::Unknown,
            };
            assert_eq!(reason(Some(status), &[], ""), expected, "{status}");
        }
        for (name, expected) in [
            ("insufficient_quota", Reason::Billing),
            ("billing_not_active", Reason::Billing),
            ("context_length_exceeded", Reason::ContextOverflow),
            ("invalid_api_key", Reason::Auth),
            ("authentication_error", Reason::Auth),
            ("rate_limit_exceeded", Reason::RateLimit),
            ("overloaded_error", Reason::Overloaded),
            ("timeout", Reason::Timeout),
        ] {
            for status in [None, Some(400), Some(500)] {
                assert_eq!(reason(status, &[name], ""), expected, "{status:?} {name}");
            }
        }
        for (status, words, expected) in [
            (429, "you exceeded your current quota", Reason::Billing),
            (429, "check your billing details", Reason::Billing),
            (400, "maximum context length is 8192 tokens", Reason::ContextOverflow),
            (500, "check your billing details", Reason::Unknown),
            (500, "context length", Reason::Unknown),
        ] {
            assert_eq!(reason(Some(status), &[], words), expected, "{status} {words}");
        }
    }

    #[test]
    fn a_body_is_read_in_whatever_form_it_comes() {
        let told = |status: u16, body: &str| {
            let status = StatusCode::from_u16(status).unwrap();
            let refused = Refused::with(status, &HeaderMap::new(), body.as_bytes());
            let failure = failure(&refused, &["key-7-secret".to_owned()]);
            (failure.reason, failure.to_string())
        };
        for (status, body, reason, words) in [
            (
                401,
                r#"{"error":{"message":"invalid key","type":"x"}}"#,
                Reason::Auth,
                "401 invalid key",
            ),
            (401, r#"{"error":"no key-7-secret"}"#, Reason::Auth, "401 no [redacted]"),
            (400, r#"{"detail":"bad"}"#, Reason::Unknown, "400 bad"),
            (500, "it  broke\n", Reason::Unknown, "500 it broke"),
            (502, "<html><body>Bad Gateway", Reason::Unknown, "502 bad gateway"),
            (402, "", Reason::Billing, "402 payment required"),
            (529, "{}", Reason::Overloaded, "529 overloaded"),
            (503, "[]", Reason::Overloaded, "503 unavailable"),
            (418, "\"teapot\"", Reason::Unknown, "418 teapot"),
            (
                429,
                r#"{"error":{"message":"m","code":"insufficient_quota"}}"#,
                Reason::Billing,
                "429 m",
            ),
            (429, r#"{"error":null,"message":"m"}"#, Reason::RateLimit, "429 m"),
        ] {
            assert_eq!(told(status, body), (reason, words.to_owned()), "{body}");
        }
    }

    #[test]
    fn nothing_here_speaks_of_billing_unless_the_provider_does() {
        for status in (400..600).map(Some).chain([None]) {
            let refused = Refused { status, ..Refused::default() };
            let told = failure(&refused, &[]).to_string().to_lowercase();
            assert!(!told.contains("billing") && !told.contains("credit"), "{told}");
        }
    }

    #[test]
    fn a_provider_says_in_seconds_or_by_the_clock_when_to_come_back() {
        let now: Timestamp = "2026-05-12T10:00:00Z".parse().unwrap();
        let after = |name: &'static str, value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(name, value.parse().unwrap());
            retry_after(&headers, now)
        };
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        assert_eq!(after("retry-after", "7"), seconds(7));
        assert_eq!(after("retry-after", "Tue, 12 May 2026 10:00:30 GMT"), seconds(30));
        assert_eq!(after("retry-after", "Tue, 12 May 2026 09:00:00 GMT"), seconds(0));
        assert_eq!(after("retry-after", "99999999999"), Some(LONGEST_RETRY));
        assert_eq!(after("retry-after-ms", "250"), Some(Duration::from_millis(250)));
        for nothing in ["soon", "-1", ""] {
            assert_eq!(after("retry-after", nothing), None, "{nothing}");
        }
    }
}
