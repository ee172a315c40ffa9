//! What an operator reads when a worker starts for the first time: where the token lies, and a command
//! that works when pasted.
//!
//! **Invariants**
//! - The token itself is never said: the command reads it from where it lies, or from where OpenClaw's tools have
//!   it in their environment.

use handoff::Address;

use crate::identity::TokenSource;

/// Where OpenClaw's own tools look for the token before they read the configuration.
const EXPORTED: &str = "OPENCLAW_GATEWAY_TOKEN";

/// Where the token lies, and a command that works when pasted.
pub(crate) fn greeting(addresses: &[Address], source: &TokenSource) -> Vec<String> {
    let (lies, secret) = match source {
        TokenSource::Variable(name) => {
            (format!("the token is the value of {name}"), format!("${name}"))
        }
        TokenSource::Config(path) => (
            format!("the token is gateway.auth.token of {}", path.display()),
            format!("${EXPORTED}"),
        ),
        TokenSource::File(path) => (
            format!("the token lies in {}", path.display()),
            format!("$(cat {})", quoted(&path.display().to_string())),
        ),
    };
    let Some(address) = addresses.first() else { return vec![lies] };
    let (option, host) = match address {
        Address::Tcp(address) => {
            let mut reachable = *address;
            // The address of every interface is no address to connect to.
            if address.ip().is_unspecified() {
                reachable.set_ip(match address.ip() {
                    std::net::IpAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
                    std::net::IpAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
                });
            }
            (String::new(), reachable.to_string())
        }
        Address::Unix(path) => {
            let path = quoted(&path.display().to_string());
            (format!(" --unix-socket {path}"), "localhost".to_owned())
        }
    };
    let body = r#"{"model":"openclaw","stream":true,"messages":[{"role":"user","content":"hello from holdfast"}]}"#;
    let command = format!(
        "curl -sN{option} http://{host}/v1/chat/completions -H \"Authorization: Bearer {secret}\" -H 'content-type: application/json' -d '{body}'"
    );
    vec![lies, command]
}

/// As one word of a POSIX shell.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_greeting_shows_a_command_and_never_the_token() {
        let address = |word: &str| vec![word.parse::<Address>().unwrap()];
        let file = TokenSource::File("/home/o'neil/.holdfast/token".into());
        let lines = greeting(&address("127.0.0.1:18789"), &file);
        assert_eq!(lines[0], "the token lies in /home/o'neil/.holdfast/token");
        assert!(lines[1].starts_with("curl -sN http://127.0.0.1:18789/v1/chat/completions"));
        assert!(
            lines[1]
                .contains(r#""Authorization: Bearer $(cat '/home/o'\''neil/.holdfast/token')""#)
        );
        let variable = TokenSource::Variable("HOLDFAST_TOKEN");
        let lines = greeting(&address("unix:/run/x.sock"), &variable);
        assert!(lines[1].contains("--unix-socket '/run/x.sock' http://localhost/"));
        assert!(lines[1].contains(r#""Authorization: Bearer $HOLDFAST_TOKEN""#));
        let config = TokenSource::Config("/etc/openclaw.json".into());
        let lines = greeting(&address("127.0.0.1:1"), &config);
        assert_eq!(lines[0], "the token is gateway.auth.token of /etc/openclaw.json");
        assert!(lines[1].contains(r#""Authorization: Bearer $OPENCLAW_GATEWAY_TOKEN""#));
        assert!(greeting(&address("[::]:80"), &variable)[1].contains("http://[::1]:80/"));
    }
}
