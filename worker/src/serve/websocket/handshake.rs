//! The upgrade: an HTTP request that becomes a WebSocket (RFC 6455, 4.2).
//!
//! `permessage-deflate` is offered by real clients and declined by saying nothing about it: its
//! window is state that no library gives back, and a connection must be able to move.

use std::net::IpAddr;
use std::time::Instant;

use handoff::Peer;
use hyper::header::{
    CONNECTION, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER, SEC_WEBSOCKET_ACCEPT,
    SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use hyper::{Method, Request, StatusCode};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::antechamber::Place;
use crate::identity::{Locality, PageOrigin, reported_address};
use crate::serve::Gateway;
use crate::serve::answer::{self, Response};
use crate::serve::http::not_found;

/// The only version of the protocol there is.
const VERSION: HeaderValue = HeaderValue::from_static("13");

/// What is known of a WebSocket when it begins.
#[derive(Debug)]
pub(crate) struct Upgrade {
    pub(super) place: Place,
    pub(super) locality: Locality,
    pub(super) origin: PageOrigin,
    /// Where the client is, when that is told.
    pub(super) remote_ip: Option<IpAddr>,
    pub(super) opened_at: Instant,
}

/// Answers a request on the WebSocket's path: with 101, or why not.
///
/// # Errors
/// The response for a request that cannot become a WebSocket.
pub(crate) fn upgrade<B>(
    gateway: &Gateway,
    peer: Peer,
    request: &Request<B>,
) -> Result<(Response, Upgrade), Box<Response>> {
    let headers = request.headers();
    if request.method() != Method::GET || !lists(headers, &UPGRADE, "websocket") {
        return Err(Box::new(not_found()));
    }
    if headers.get(SEC_WEBSOCKET_VERSION) != Some(&VERSION) {
        let mut response = answer::text(StatusCode::UPGRADE_REQUIRED, "Upgrade Required");
        response.headers_mut().insert(SEC_WEBSOCKET_VERSION, VERSION);
        return Err(Box::new(response));
    }
    let key = headers.get(SEC_WEBSOCKET_KEY).filter(|key| is_key(key.as_bytes()));
    let Some(key) = key.filter(|_| lists(headers, &CONNECTION, "upgrade")) else {
        return Err(Box::new(answer::text(StatusCode::BAD_REQUEST, "Bad Request")));
    };
    let Some(place) = gateway.antechamber.enter(peer) else {
        let message = format!(
            "Too many WebSockets of this address have not connected yet; the limit is {}.",
            gateway.antechamber.most()
        );
        let mut response =
            answer::refusal(StatusCode::TOO_MANY_REQUESTS, "too_many_connections", &message);
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
        return Err(Box::new(response));
    };
    let mut response = answer::empty(StatusCode::SWITCHING_PROTOCOLS);
    let accept = HeaderValue::try_from(derive_accept_key(key.as_bytes()));
    let headers = response.headers_mut();
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(SEC_WEBSOCKET_ACCEPT, accept.expect("base64 is a header value"));
    let headers = request.headers();
    let locality = Locality::of(peer, headers);
    let config = gateway.knowledge.config.load();
    let listed = &config.settled.config().gateway.control_ui.allowed_origins;
    let upgrade = Upgrade {
        place,
        locality,
        origin: PageOrigin::of(headers, locality, listed),
        remote_ip: reported_address(peer, headers),
        opened_at: Instant::now(),
    };
    Ok((response, upgrade))
}

/// Whether a comma-separated header lists a word.
fn lists(headers: &HeaderMap, name: &HeaderName, word: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|listed| listed.trim().eq_ignore_ascii_case(word))
}

/// Whether it is the base64 of 16 bytes.
fn is_key(key: &[u8]) -> bool {
    let digit = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    key.len() == 24 && key.ends_with(b"==") && key[..22].iter().all(digit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_found_among_others_whatever_its_case() {
        let mut headers = HeaderMap::new();
        headers.insert(CONNECTION, HeaderValue::from_static("keep-alive, Upgrade"));
        assert!(lists(&headers, &CONNECTION, "upgrade"));
        assert!(!lists(&headers, &CONNECTION, "up"));
        assert!(!lists(&headers, &UPGRADE, "upgrade"));
    }

    #[test]
    fn a_key_is_the_base64_of_sixteen_bytes() {
        assert!(is_key(b"dGhlIHNhbXBsZSBub25jZQ=="));
        for key in [
            &b""[..],
            b"dGhlIHNhbXBsZSBub25jZQ",
            b"dGhlIHNhbXBsZSBub25jZQ=a",
            b"dGhl SHNhbXBsZSBub25jZQ==",
        ] {
            assert!(!is_key(key));
        }
    }
}
