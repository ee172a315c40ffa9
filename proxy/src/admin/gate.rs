//! Who may ask: whoever knows the token, or, where there is none, whoever is on this machine and is no page of
//! somebody else's.
//!
//! **Invariants**
//! - A token is compared in constant time.
//! - Without one, a browser that was led here by a name that is not this machine's (DNS rebinding) is turned away.

use std::net::IpAddr;

use data_encoding::BASE64;
use hyper::HeaderMap;
use hyper::header::{AUTHORIZATION, HOST};
use subtle::ConstantTimeEq as _;

use super::flags::Token;

/// The user that a browser, which cannot send a Bearer token by itself, gives the token as the password of.
const USER: &str = "holdfast";

/// Who is let in.
pub(super) enum Gate {
    /// Whoever sends one of these as `Authorization`.
    Knowing { bearer: String, basic: String },
    /// Whoever calls this machine by an address, or by the name it has for itself.
    Here,
}

/// Why somebody is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outside {
    /// It does not know the token.
    Unknown,
    /// It calls this machine by somebody else's name.
    Misled,
}

impl Gate {
    pub(super) fn new(token: Option<&Token>) -> Self {
        let Some(token) = token.map(Token::as_str) else { return Self::Here };
        let bearer = format!("Bearer {token}");
        let basic = format!("Basic {}", BASE64.encode(format!("{USER}:{token}").as_bytes()));
        Self::Knowing { bearer, basic }
    }

    /// Whether a request may be answered.
    pub(super) fn admit(&self, headers: &HeaderMap) -> Result<(), Outside> {
        match self {
            Self::Knowing { bearer, basic } => {
                let given = headers.get(AUTHORIZATION).map_or(&b""[..], |value| value.as_bytes());
                // The word before the token is written in any case (RFC 9110 section 11.1).
                let knows = |wanted: &str| {
                    let (scheme, rest) = wanted.split_at(wanted.find(' ').unwrap_or(0));
                    given
                        .get(..scheme.len())
                        .is_some_and(|g| g.eq_ignore_ascii_case(scheme.as_bytes()))
                        && bool::from(given[scheme.len()..].ct_eq(rest.as_bytes()))
                };
                if knows(bearer) || knows(basic) { Ok(()) } else { Err(Outside::Unknown) }
            }
            Self::Here => {
                let host = headers.get(HOST).and_then(|value| value.to_str().ok());
                if host.is_none_or(is_of_this_machine) { Ok(()) } else { Err(Outside::Misled) }
            }
        }
    }
}

/// Whether a `Host` is an address, which no other machine's name leads to, or `localhost`.
fn is_of_this_machine(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let address = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    address.parse::<IpAddr>().is_ok() || name.eq_ignore_ascii_case("localhost")
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    fn with(name: hyper::header::HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_str(value).unwrap())])
    }

    fn knowing() -> Gate {
        Gate::Knowing { bearer: "Bearer abc".into(), basic: "Basic aG9sZGZhc3Q6YWJj".into() }
    }

    #[test]
    fn a_token_lets_in_by_either_scheme_and_nothing_else_does() {
        for (value, admitted) in [
            ("Bearer abc", Ok(())),
            ("bearer abc", Ok(())),
            ("Basic aG9sZGZhc3Q6YWJj", Ok(())),
            ("Basic aG9sZGZhc3Q6YWJk", Err(Outside::Unknown)),
            ("Bearer abcd", Err(Outside::Unknown)),
            ("Bearer ab", Err(Outside::Unknown)),
            ("Bearer", Err(Outside::Unknown)),
            ("abc", Err(Outside::Unknown)),
            ("", Err(Outside::Unknown)),
        ] {
            assert_eq!(knowing().admit(&with(AUTHORIZATION, value)), admitted, "{value:?}");
        }
        assert_eq!(knowing().admit(&HeaderMap::new()), Err(Outside::Unknown));
    }

    #[test]
    fn without_a_token_only_names_of_this_machine_lead_in() {
        for (host, admitted) in [
            ("127.0.0.1:18790", Ok(())),
            ("127.0.0.1", Ok(())),
            ("[::1]:18790", Ok(())),
            ("[::1]", Ok(())),
            ("localhost:18790", Ok(())),
            ("LOCALHOST", Ok(())),
            ("evil.example:18790", Err(Outside::Misled)),
            ("127.0.0.1.evil.example", Err(Outside::Misled)),
            ("", Err(Outside::Misled)),
        ] {
            assert_eq!(Gate::Here.admit(&with(HOST, host)), admitted, "{host:?}");
        }
        // HTTP/1.0 has none, and no browser speaks it.
        assert_eq!(Gate::Here.admit(&HeaderMap::new()), Ok(()));
    }
}
