//! A device proves who it is: an Ed25519 signature over what it asks for and over this connection's nonce.
//!
//! ```text
//! v3|deviceId|clientId|clientMode|role|scope,scope|signedAtMs|token|nonce|platform|deviceFamily
//! v2|deviceId|clientId|clientMode|role|scope,scope|signedAtMs|token|nonce
//! ```
//!
//! **Invariants**
//! - A [`Device`] exists only for who holds the private key; its id is the SHA-256 of the public one.
//! - A signature is good for one connection (its nonce) and for two minutes.
//! - Words and codes of a refusal are those real clients know.

use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use ed25519_dalek::{PUBLIC_KEY_LENGTH, SIGNATURE_LENGTH, Signature, VerifyingKey};
use sha2::{Digest as _, Sha256};

/// How far a device's clock may be from ours, in ms.
const MAX_SKEW_MS: u64 = 120_000;

/// What a device says of itself. Nothing of it is proven.
#[derive(Debug)]
pub(crate) struct Claim<'a> {
    /// The SHA-256 of the public key, in hexadecimal.
    pub(crate) id: &'a str,
    /// The raw key in base64url.
    pub(crate) public_key: &'a str,
    /// The raw signature in base64url.
    pub(crate) signature: &'a str,
    /// When it signed, by its own clock.
    pub(crate) signed_at_ms: u64,
    /// What it was challenged with.
    pub(crate) nonce: &'a str,
}

/// What a device has signed beside its claim.
// The token is in here, so there is no `Debug`.
pub(crate) struct Statement<'a> {
    /// Which program.
    pub(crate) client_id: &'a str,
    /// What it is used as.
    pub(crate) client_mode: &'a str,
    /// The role asked for.
    pub(crate) role: &'a str,
    /// The scopes asked for, as they were sent.
    pub(crate) scopes: &'a [String],
    /// The token that was sent along, if any.
    pub(crate) token: Option<&'a str>,
    /// The operating system, as the client names it.
    pub(crate) platform: &'a str,
    /// What kind of machine.
    pub(crate) device_family: Option<&'a str>,
}

/// Why a device is not who it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DeviceRefused {
    /// Its id is not that of its key.
    #[error("device identity mismatch")]
    IdMismatch,
    /// It signed too long ago, or in the future.
    #[error("device signature expired")]
    Expired,
    /// It signed no nonce.
    #[error("device nonce required")]
    NonceMissing,
    /// It signed the nonce of another connection.
    #[error("device nonce mismatch")]
    NonceMismatch,
    /// It did not sign this.
    #[error("device signature invalid")]
    SignatureInvalid,
}

impl DeviceRefused {
    /// What a program can act on: the code and the reason of the refusal's details.
    pub(crate) const fn details(self) -> (&'static str, &'static str) {
        match self {
            Self::IdMismatch => ("DEVICE_AUTH_DEVICE_ID_MISMATCH", "device-id-mismatch"),
            Self::Expired => ("DEVICE_AUTH_SIGNATURE_EXPIRED", "device-signature-stale"),
            Self::NonceMissing => ("DEVICE_AUTH_NONCE_REQUIRED", "device-nonce-missing"),
            Self::NonceMismatch => ("DEVICE_AUTH_NONCE_MISMATCH", "device-nonce-mismatch"),
            Self::SignatureInvalid => ("DEVICE_AUTH_SIGNATURE_INVALID", "device-signature"),
        }
    }
}

/// A device that has proven who it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Device {
    id: String,
    public_key: String,
}

impl Device {
    /// Judges a claim at `now_ms` of the wall clock, on a connection that was challenged with `nonce`.
    ///
    /// # Errors
    /// [`DeviceRefused`]: the first check that fails.
    pub(crate) fn prove(
        claim: &Claim<'_>,
        statement: &Statement<'_>,
        nonce: &str,
        now_ms: u64,
    ) -> Result<Self, DeviceRefused> {
        let key = decoded(claim.public_key).ok_or(DeviceRefused::IdMismatch)?;
        if HEXLOWER.encode(&Sha256::digest(&key)) != claim.id {
            return Err(DeviceRefused::IdMismatch);
        }
        if now_ms.abs_diff(claim.signed_at_ms) > MAX_SKEW_MS {
            return Err(DeviceRefused::Expired);
        }
        let signed_nonce = claim.nonce.trim();
        if signed_nonce.is_empty() {
            return Err(DeviceRefused::NonceMissing);
        }
        if signed_nonce != nonce {
            return Err(DeviceRefused::NonceMismatch);
        }
        let common = common(claim, statement, nonce);
        let platform = machine_word(statement.platform);
        let family = machine_word(statement.device_family.unwrap_or_default());
        let signed = |text: &str| is_signed(&key, text, claim.signature);
        if signed(&format!("v3|{common}|{platform}|{family}")) || signed(&format!("v2|{common}")) {
            Ok(Self { id: claim.id.to_owned(), public_key: BASE64URL_NOPAD.encode(&key) })
        } else {
            Err(DeviceRefused::SignatureInvalid)
        }
    }

    /// The SHA-256 of its public key, in hexadecimal.
    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// Its public key in base64url, always spelled alike.
    pub(crate) fn public_key(&self) -> &str {
        &self.public_key
    }
}

/// A word about a machine, as it is signed and compared.
pub(crate) fn machine_word(word: &str) -> String {
    word.trim().to_ascii_lowercase()
}

fn common(claim: &Claim<'_>, statement: &Statement<'_>, nonce: &str) -> String {
    [
        claim.id,
        statement.client_id,
        statement.client_mode,
        statement.role,
        &statement.scopes.join(","),
        &claim.signed_at_ms.to_string(),
        statement.token.unwrap_or_default(),
        nonce,
    ]
    .join("|")
}

/// Base64 as clients write it: either alphabet, padded or not.
fn decoded(text: &str) -> Option<Vec<u8>> {
    let url = text.trim_end_matches('=').replace('+', "-").replace('/', "_");
    BASE64URL_NOPAD.decode(url.as_bytes()).ok()
}

/// Whether the holder of `key` has signed `text`. Keys of small order, which sign anything, do not count.
fn is_signed(key: &[u8], text: &str, signature: &str) -> bool {
    let verified = || {
        let key = <[u8; PUBLIC_KEY_LENGTH]>::try_from(key).ok()?;
        let signature = <[u8; SIGNATURE_LENGTH]>::try_from(decoded(signature)?).ok()?;
        let key = VerifyingKey::from_bytes(&key).ok()?;
        key.verify_strict(text.as_bytes(), &Signature::from_bytes(&signature)).ok()
    };
    verified().is_some()
}

#[cfg(test)]
pub(super) mod tests {
    use ed25519_dalek::{Signer as _, SigningKey};

    use super::*;

    /// A device that nobody has but the tests.
    pub(crate) fn proven(seed: u8) -> Device {
        let key = SigningKey::from_bytes(&[seed; 32]).verifying_key();
        Device {
            id: HEXLOWER.encode(&Sha256::digest(key.as_bytes())),
            public_key: BASE64URL_NOPAD.encode(key.as_bytes()),
        }
    }

    const NOW_MS: u64 = 1_795_224_764_600;

    /// What a test changes of an otherwise good claim.
    #[derive(Clone)]
    struct Said {
        id: String,
        public_key: String,
        signature: String,
        signed_at_ms: u64,
        nonce: String,
        client_id: String,
        client_mode: String,
        role: String,
        scopes: Vec<String>,
        token: Option<String>,
        platform: String,
        device_family: Option<String>,
    }

    impl Said {
        /// Says what is signed in this version, and signs it.
        fn signed(version: &str) -> Self {
            let key = SigningKey::from_bytes(&[7; 32]);
            let device = proven(7);
            let machine = if version == "v3" { "|linux|pi" } else { "" };
            let text = format!(
                "{version}|{}|cli|probe|operator|operator.read,operator.write|{NOW_MS}|tok|n-1{machine}",
                device.id
            );
            Self {
                id: device.id,
                public_key: device.public_key,
                signature: BASE64URL_NOPAD.encode(&key.sign(text.as_bytes()).to_bytes()),
                signed_at_ms: NOW_MS,
                nonce: "n-1".to_owned(),
                client_id: "cli".to_owned(),
                client_mode: "probe".to_owned(),
                role: "operator".to_owned(),
                scopes: vec!["operator.read".to_owned(), "operator.write".to_owned()],
                token: Some("tok".to_owned()),
                platform: " Linux ".to_owned(),
                device_family: Some("Pi".to_owned()),
            }
        }

        fn judged_at(&self, nonce: &str, now_ms: u64) -> Result<Device, DeviceRefused> {
            let claim = Claim {
                id: &self.id,
                public_key: &self.public_key,
                signature: &self.signature,
                signed_at_ms: self.signed_at_ms,
                nonce: &self.nonce,
            };
            let statement = Statement {
                client_id: &self.client_id,
                client_mode: &self.client_mode,
                role: &self.role,
                scopes: &self.scopes,
                token: self.token.as_deref(),
                platform: &self.platform,
                device_family: self.device_family.as_deref(),
            };
            Device::prove(&claim, &statement, nonce, now_ms)
        }

        fn judged(&self) -> Result<Device, DeviceRefused> {
            self.judged_at("n-1", NOW_MS)
        }
    }

    #[test]
    fn both_versions_of_the_signed_text_prove_the_device() {
        for version in ["v3", "v2"] {
            assert_eq!(Said::signed(version).judged().unwrap(), proven(7), "{version}");
        }
        assert!(Said::signed("v1").judged().is_err());
    }

    #[test]
    fn each_check_refuses_alone_and_in_its_own_words() {
        use DeviceRefused::{Expired, IdMismatch, NonceMismatch, NonceMissing, SignatureInvalid};
        type Change = fn(&mut Said);
        let cases: [(Change, DeviceRefused); 16] = [
            (|s| s.id = "d".to_owned(), IdMismatch),
            (|s| s.id = s.id.to_uppercase(), IdMismatch),
            (|s| s.id = proven(8).id, IdMismatch),
            (|s| s.public_key = proven(8).public_key, IdMismatch),
            (|s| s.public_key = "?".to_owned(), IdMismatch),
            (|s| s.signed_at_ms += MAX_SKEW_MS + 1, Expired),
            (|s| s.signed_at_ms -= MAX_SKEW_MS + 1, Expired),
            (|s| s.nonce = "  ".to_owned(), NonceMissing),
            (|s| s.nonce = "n-2".to_owned(), NonceMismatch),
            (|s| s.signature = "AAAA".to_owned(), SignatureInvalid),
            (|s| s.client_id = "test".to_owned(), SignatureInvalid),
            (|s| s.client_mode = "cli".to_owned(), SignatureInvalid),
            (|s| s.role = "node".to_owned(), SignatureInvalid),
            (|s| s.scopes.reverse(), SignatureInvalid),
            (|s| s.token = None, SignatureInvalid),
            // Not one ms that was not signed, either.
            (|s| s.signed_at_ms += 1, SignatureInvalid),
        ];
        for (number, (change, expected)) in cases.into_iter().enumerate() {
            for version in ["v3", "v2"] {
                let mut said = Said::signed(version);
                change(&mut said);
                assert_eq!(said.judged(), Err(expected), "case {number} of {version}");
            }
        }
        let mut elsewhere = Said::signed("v3");
        elsewhere.platform = "darwin".to_owned();
        assert_eq!(elsewhere.judged(), Err(SignatureInvalid));
        let mut other_family = Said::signed("v3");
        other_family.device_family = None;
        assert_eq!(other_family.judged(), Err(SignatureInvalid));
    }

    #[test]
    fn a_signature_is_good_for_two_minutes_either_way() {
        let said = Said::signed("v3");
        for now_ms in [NOW_MS - MAX_SKEW_MS, NOW_MS, NOW_MS + MAX_SKEW_MS] {
            assert!(said.judged_at("n-1", now_ms).is_ok());
        }
        for now_ms in [0, NOW_MS - MAX_SKEW_MS - 1, NOW_MS + MAX_SKEW_MS + 1, u64::MAX] {
            assert_eq!(said.judged_at("n-1", now_ms), Err(DeviceRefused::Expired));
        }
    }

    #[test]
    fn any_spelling_of_base64_is_the_same_key() {
        let mut said = Said::signed("v3");
        said.public_key = said.public_key.replace('-', "+").replace('_', "/") + "=";
        said.signature = said.signature.replace('-', "+").replace('_', "/") + "==";
        assert_eq!(said.judged().unwrap(), proven(7));
    }

    #[test]
    fn a_key_of_small_order_proves_nothing() {
        // The neutral element, under which R = the neutral element and s = 0 signs every text for
        // who verifies less strictly.
        let mut key = [0; 32];
        key[0] = 1;
        let mut signature = [0; 64];
        signature[0] = 1;
        assert!(!is_signed(&key, "anything", &BASE64URL_NOPAD.encode(&signature)));
    }

    /// Real clients, recorded with the token of that day.
    #[test]
    fn recorded_signatures_prove_their_devices_and_no_other_nonce() {
        let recorded = include_str!("../../tests/fixtures/connects.jsonl");
        let mut checked = 0;
        for line in recorded.lines() {
            let params: serde_json::Value = serde_json::from_str(line).unwrap();
            let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
            let (device, client) = (&params["device"], &params["client"]);
            let said = Said {
                id: text(&device["id"]),
                public_key: text(&device["publicKey"]),
                signature: text(&device["signature"]),
                signed_at_ms: device["signedAt"].as_u64().unwrap(),
                nonce: text(&device["nonce"]),
                client_id: text(&client["id"]),
                client_mode: text(&client["mode"]),
                role: text(&params["role"]),
                scopes: params["scopes"].as_array().unwrap().iter().map(text).collect(),
                token: Some(text(&params["auth"]["token"])),
                platform: text(&client["platform"]),
                device_family: None,
            };
            let proven = said.judged_at(&said.nonce, said.signed_at_ms).unwrap();
            assert_eq!((proven.id(), proven.public_key()), (&*said.id, &*said.public_key));
            assert_eq!(
                said.judged_at("another", said.signed_at_ms),
                Err(DeviceRefused::NonceMismatch)
            );
            let mut other = said.clone();
            other.token = Some("another".to_owned());
            assert_eq!(
                other.judged_at(&said.nonce, said.signed_at_ms),
                Err(DeviceRefused::SignatureInvalid)
            );
            checked += 1;
        }
        assert_eq!(checked, 6);
    }
}
