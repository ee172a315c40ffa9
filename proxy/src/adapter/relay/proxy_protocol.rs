//! The PROXY protocol: the first bytes of a relayed connection say who the client is
//! (haproxy.org, doc/proxy-protocol.txt, sections 2.1 and 2.2).
//!
//! **Invariants**
//! - What is unknown is said to be unknown, never made up: clients of Unix sockets have no address.

use std::net::{IpAddr, SocketAddr};

use crate::adapter::flags::ProxyVersion;

/// What a binary header begins with.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Version 2, command LOCAL: nobody is relayed, the adapter itself asks.
const LOCAL: u8 = 0x20;
/// Version 2, command PROXY.
const PROXY: u8 = 0x21;

/// The two ends of a client's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ends {
    pub(super) client: SocketAddr,
    pub(super) listener: SocketAddr,
}

/// The header for a client's connection; `None` is one without addresses.
pub(super) fn header(version: ProxyVersion, ends: Option<Ends>) -> Vec<u8> {
    let ends = ends.map(|ends| (canonical(ends.client), canonical(ends.listener)));
    match version {
        ProxyVersion::V1 => match ends {
            Some((client, listener)) if client.is_ipv4() == listener.is_ipv4() => {
                let family = if client.is_ipv4() { "TCP4" } else { "TCP6" };
                let (from, to) = (client.ip(), listener.ip());
                format!("PROXY {family} {from} {to} {} {}\r\n", client.port(), listener.port())
            }
            _ => "PROXY UNKNOWN\r\n".to_owned(),
        }
        .into_bytes(),
        ProxyVersion::V2 => {
            let (family, addresses) = match ends
                .map(|(c, l)| ((c.ip(), l.ip()), c.port(), l.port()))
            {
                Some(((IpAddr::V4(from), IpAddr::V4(to)), source, destination)) => {
                    (0x11, with_ports([from.octets(), to.octets()].concat(), source, destination))
                }
                Some(((IpAddr::V6(from), IpAddr::V6(to)), source, destination)) => {
                    (0x21, with_ports([from.octets(), to.octets()].concat(), source, destination))
                }
                _ => (0x00, Vec::new()),
            };
            binary(PROXY, family, &addresses)
        }
    }
}

/// The header for a connection of the adapter's own.
pub(super) fn own_header(version: ProxyVersion) -> Vec<u8> {
    match version {
        ProxyVersion::V1 => header(version, None),
        ProxyVersion::V2 => binary(LOCAL, 0x00, &[]),
    }
}

fn binary(command: u8, family: u8, addresses: &[u8]) -> Vec<u8> {
    let length =
        u16::try_from(addresses.len()).expect("two addresses and ports are 36 bytes at most");
    [&SIGNATURE[..], &[command, family], &length.to_be_bytes(), addresses].concat()
}

fn with_ports(mut addresses: Vec<u8>, source: u16, destination: u16) -> Vec<u8> {
    addresses.extend(source.to_be_bytes());
    addresses.extend(destination.to_be_bytes());
    addresses
}

const fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends(client: &str, listener: &str) -> Option<Ends> {
        Some(Ends { client: client.parse().unwrap(), listener: listener.parse().unwrap() })
    }

    #[test]
    fn the_text_names_both_ends() {
        let said = |ends| String::from_utf8(header(ProxyVersion::V1, ends)).unwrap();
        let found = said(ends("192.0.2.1:1000", "192.0.2.2:80"));
        assert_eq!(found, "PROXY TCP4 192.0.2.1 192.0.2.2 1000 80\r\n");
        let found = said(ends("[2001:db8::1]:1000", "[2001:db8::2]:80"));
        assert_eq!(found, "PROXY TCP6 2001:db8::1 2001:db8::2 1000 80\r\n");
        let mapped = said(ends("[::ffff:192.0.2.1]:1000", "192.0.2.2:80"));
        assert_eq!(mapped, "PROXY TCP4 192.0.2.1 192.0.2.2 1000 80\r\n");
        assert_eq!(said(None), "PROXY UNKNOWN\r\n");
    }

    #[test]
    fn the_binary_header_names_both_ends() {
        let found = header(ProxyVersion::V2, ends("192.0.2.1:1000", "192.0.2.2:80"));
        assert_eq!(found[..12], SIGNATURE);
        assert_eq!(found[12..16], [0x21, 0x11, 0, 12]);
        assert_eq!(found[16..], [192, 0, 2, 1, 192, 0, 2, 2, 3, 232, 0, 80]);
        let found = header(ProxyVersion::V2, ends("[::1]:1", "[::1]:2"));
        assert_eq!((found[13], found.len()), (0x21, 16 + 36));
        assert_eq!(header(ProxyVersion::V2, None)[12..], [0x21, 0, 0, 0]);
        assert_eq!(own_header(ProxyVersion::V2)[12..], [0x20, 0, 0, 0]);
    }
}
