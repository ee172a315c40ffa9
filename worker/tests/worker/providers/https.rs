//! A provider behind https. Its certificate is made here and signed by itself: whoever trusts it trusts nobody else.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use data_encoding::BASE64;
use ed25519_dalek::{Signer as _, SigningKey};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};

use super::{AUTHORITIES, KEY, Scene, turn};

/// DER of an algorithm: Ed25519 (RFC 8410).
const ED25519: [u8; 7] = [0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70];

/// Who a server is: a certificate for `localhost`, and its key.
struct Identity {
    certificate: Vec<u8>,
    key: Vec<u8>,
}

impl Identity {
    /// Of this seed, and always the same.
    fn of(seed: [u8; 32]) -> Self {
        let key = SigningKey::from_bytes(&seed);
        let common = der(0x30, &[&[0x06, 0x03, 0x55, 0x04, 0x03], &der(0x0c, &[b"test"])]);
        let name = der(0x30, &[&der(0x31, &[&common])]);
        let validity =
            der(0x30, &[&der(0x17, &[b"200101000000Z"]), &der(0x18, &[b"99991231235959Z"])]);
        let public = der(0x30, &[&ED25519, &bits(key.verifying_key().as_bytes())]);
        // `subjectAltName` with one `dNSName` (RFC 5280, section 4.2.1.6).
        let names = der(0x04, &[&der(0x30, &[&der(0x82, &[b"localhost"])])]);
        let extension = der(0x30, &[&[0x06, 0x03, 0x55, 0x1d, 0x11], &names]);
        let extensions = der(0xa3, &[&der(0x30, &[&extension])]);
        let (version, serial) = ([0xa0, 0x03, 0x02, 0x01, 0x02], [0x02, 0x01, 0x01]);
        let signed = der(
            0x30,
            &[&version, &serial, &ED25519, &name, &validity, &name, &public, &extensions],
        );
        let signature = bits(&key.sign(&signed).to_bytes());
        Self {
            certificate: der(0x30, &[&signed, &ED25519, &signature]),
            key: der(0x30, &[&[0x02, 0x01, 0x00], &ED25519, &der(0x04, &[&der(0x04, &[&seed])])]),
        }
    }

    /// As a file of authorities has it.
    fn pem(&self) -> String {
        let text = BASE64.encode(&self.certificate);
        format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n")
    }

    fn acceptor(self) -> TlsAcceptor {
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth();
        let key = PrivatePkcs8KeyDer::from(self.key).into();
        let config = config.with_single_cert(vec![CertificateDer::from(self.certificate)], key);
        Arc::new(config.unwrap()).into()
    }
}

/// A value of this tag, made of these parts.
fn der(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let value = parts.concat();
    let length = u16::try_from(value.len()).unwrap();
    let mut whole = match length {
        0..0x80 => vec![tag, u8::try_from(length).unwrap()],
        0x80..0x100 => vec![tag, 0x81, u8::try_from(length).unwrap()],
        _ => [&[tag, 0x82][..], &length.to_be_bytes()].concat(),
    };
    whole.extend(value);
    whole
}

fn bits(value: &[u8]) -> Vec<u8> {
    der(0x03, &[&[0], value])
}

/// Ends TLS before a server, for as long as the runtime lives.
fn end_tls(listener: TcpListener, acceptor: TlsAcceptor, server: SocketAddr) {
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                // One who does not trust us is what some of the tests are about.
                let mut client = acceptor.accept(stream).await.ok()?;
                let mut server = TcpStream::connect(server).await.ok()?;
                tokio::io::copy_bidirectional(&mut client, &mut server).await.ok()
            });
        }
    });
}

/// A worker whose `main` has a model of a provider behind https, which is reached by this name.
async fn scene(host: &str) -> Scene {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base_url = format!("https://{host}:{}/v1", listener.local_addr().unwrap().port());
    let scene = Scene::configured(|config| {
        config["agents"]["defaults"]["model"] = json!("secure/echo");
        let provider = json!({"baseUrl": base_url, "apiKey": KEY});
        config["models"]["providers"]["secure"] = provider;
    })
    .await;
    let plain = scene.provider.base_url();
    let plain = plain.trim_start_matches("http://").trim_end_matches("/v1").parse().unwrap();
    end_tls(listener, Identity::of([1; 32]).acceptor(), plain);
    scene
}

/// The authorities of that worker, which it reads when it needs them.
fn authorities(scene: &Scene) -> PathBuf {
    scene.worker.dir.path().join(AUTHORITIES)
}

#[tokio::test]
async fn a_provider_whose_certificate_is_trusted_answers_as_soon_as_it_is() {
    let scene = scene("localhost").await;
    let mut socket = scene.socket().await;
    let nobody = "no model answered: secure/echo: not asked: this machine trusts no certificate authorities (SSL_CERT_FILE, SSL_CERT_DIR)";
    assert_eq!(turn(&mut socket, "1", "hello").await.unwrap_err(), nobody);
    std::fs::write(authorities(&scene), Identity::of([1; 32]).pem()).unwrap();
    assert_eq!(turn(&mut socket, "2", "hello there").await.as_deref(), Ok("hello there"));
    scene.log().await;
}

#[tokio::test]
async fn a_provider_that_cannot_prove_its_name_is_told_nothing() {
    for (host, trusted) in [("localhost", [2; 32]), ("127.0.0.1", [1; 32])] {
        let scene = scene(host).await;
        std::fs::write(authorities(&scene), Identity::of(trusted).pem()).unwrap();
        let mut socket = scene.socket().await;
        let failed = turn(&mut socket, "1", "hello").await.unwrap_err();
        let begins = "secure/echo failed: could not connect: ";
        assert!(failed.starts_with(begins) && failed.contains("certificate"), "{failed}");
        assert_eq!(scene.provider.heard().borrow().requests, Vec::<Value>::new());
        scene.log().await;
    }
}
