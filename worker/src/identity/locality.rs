//! Whether a client is on this machine, as far as the worker can know.

use std::net::IpAddr;

use handoff::Peer;
use hyper::HeaderMap;
use hyper::header::{FORWARDED, HOST};

/// Where a client is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Locality {
    /// On this machine, and nothing stands between.
    Local,
    /// Elsewhere, or behind a proxy that may speak for somebody elsewhere.
    Remote,
}

impl Locality {
    /// Judges by the connection and the request that came over it: a loopback peer that names a loopback
    /// host and was forwarded by nobody.
    pub(crate) fn of(peer: Peer, headers: &HeaderMap) -> Self {
        let direct = peer.is_local() && !is_forwarded(headers);
        // A page of another site that was rebound to 127.0.0.1 still names its own host. Whoever
        // opens a Unix socket is no browser.
        let named = match (peer, headers.get(HOST)) {
            (Peer::Unix, _) => true,
            (Peer::Tcp(_), Some(host)) => host.to_str().is_ok_and(is_loopback_host),
            (Peer::Tcp(_), None) => false,
        };
        if direct && named { Self::Local } else { Self::Remote }
    }
}

/// The address by which somebody can be told where a client is: none for this machine's, and none when a proxy
/// speaks for somebody else.
pub(crate) fn reported_address(peer: Peer, headers: &HeaderMap) -> Option<IpAddr> {
    match peer {
        Peer::Tcp(address) if !peer.is_local() && !is_forwarded(headers) => {
            Some(address.ip().to_canonical())
        }
        Peer::Tcp(_) | Peer::Unix => None,
    }
}

fn is_forwarded(headers: &HeaderMap) -> bool {
    headers.contains_key(FORWARDED)
        || headers.keys().any(|name| {
            let name = name.as_str();
            name.starts_with("x-forwarded-") || name == "x-real-ip"
        })
}

/// Whether a Host header names this machine: `localhost`, `127.0.0.1:18789`, `[::1]:18789`.
pub(super) fn is_loopback_host(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name.eq_ignore_ascii_case("localhost")
        || name.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(peer: &str, headers: &[(&'static str, &'static str)]) -> Locality {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(*name, value.parse().unwrap());
        }
        Locality::of(Peer::Tcp(peer.parse().unwrap()), &map)
    }

    #[test]
    fn only_an_address_of_its_own_on_another_machine_is_reported() {
        let reported = |peer: &str, forwarded: Option<&'static str>| {
            let mut headers = HeaderMap::new();
            headers.extend(forwarded.map(|value| (FORWARDED, value.parse().unwrap())));
            reported_address(Peer::Tcp(peer.parse().unwrap()), &headers)
                .map(|address| address.to_string())
        };
        assert_eq!(reported("192.0.2.7:9", None).as_deref(), Some("192.0.2.7"));
        assert_eq!(reported("[::ffff:192.0.2.7]:9", None).as_deref(), Some("192.0.2.7"));
        assert_eq!(reported("192.0.2.7:9", Some("for=198.51.100.1")), None);
        assert_eq!(reported("127.0.0.1:9", None), None);
        assert_eq!(reported_address(Peer::Unix, &HeaderMap::new()), None);
    }

    #[test]
    fn only_a_direct_loopback_client_that_names_a_loopback_host_is_local() {
        for host in ["127.0.0.1:18789", "localhost", "LOCALHOST:1", "[::1]:18789", "127.9.9.9"] {
            assert_eq!(judged("127.0.0.1:9", &[("host", host)]), Locality::Local, "{host}");
        }
        for host in ["evil.example", "localhost.evil.example:18789", "192.0.2.1", ""] {
            assert_eq!(judged("127.0.0.1:9", &[("host", host)]), Locality::Remote, "{host}");
        }
        assert_eq!(judged("192.0.2.7:9", &[("host", "localhost")]), Locality::Remote);
        assert_eq!(judged("127.0.0.1:9", &[]), Locality::Remote);
        let proxied = [("host", "localhost"), ("x-forwarded-for", "192.0.2.7")];
        assert_eq!(judged("[::1]:9", &proxied), Locality::Remote);
    }
}
