//! Each check of `connect` failing alone, and who is let in.

use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use ed25519_dalek::{Signer as _, SigningKey};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::*;
use crate::state::StateDir;
use crate::state::config::{Environment, Settled};

const NOW_MS: u64 = 1_795_224_764_600;
const REMOTE_IP: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 7));
const NONCE: &str = "nonce-of-this-connection";

/// What the recorded backend says, with the test's token.
fn backend() -> Value {
    json!({
        "minProtocol": 4, "maxProtocol": 4,
        "client": {"id": "gateway-client", "displayName": "probe", "version": "2026.5.12",
            "platform": "linux", "mode": "backend"},
        "caps": [], "role": "operator", "scopes": ["operator.admin"],
        "auth": {"token": "secret"},
    })
}

/// What the recorded CLI says, without its device.
fn cli(scopes: &[&str]) -> Value {
    let mut params = backend();
    params["client"] =
        json!({"id": "cli", "version": "2026.5.12", "platform": "linux", "mode": "cli"});
    params["scopes"] = json!(scopes);
    params
}

/// The same, by a device that signs what is said.
fn signed(mut params: Value) -> Value {
    let key = SigningKey::from_bytes(&[7; 32]);
    let public = key.verifying_key();
    let id = HEXLOWER.encode(&Sha256::digest(public.as_bytes()));
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (client, auth) = (&params["client"], &params["auth"]);
    let scopes: Vec<_> = params["scopes"].as_array().unwrap().iter().map(text).collect();
    let token = ["token", "deviceToken", "bootstrapToken"]
        .iter()
        .find_map(|name| auth.get(name))
        .map_or(String::new(), text);
    let said = [
        "v3",
        &id,
        &text(&client["id"]),
        &text(&client["mode"]),
        &text(&params["role"]),
        &scopes.join(","),
        &NOW_MS.to_string(),
        &token,
        NONCE,
        &text(&client["platform"]),
        "",
    ]
    .join("|");
    params["device"] = json!({
        "id": id, "publicKey": BASE64URL_NOPAD.encode(public.as_bytes()),
        "signature": BASE64URL_NOPAD.encode(&key.sign(said.as_bytes()).to_bytes()),
        "signedAt": NOW_MS, "nonce": NONCE,
    });
    params
}

/// A gateway that knows the token `secret`.
struct House {
    dir: tempfile::TempDir,
    token: SharedToken,
    devices: Devices,
    origin: PageOrigin,
}

impl House {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("token"), "secret").unwrap();
        let state = StateDir::open(Some(dir.path().to_owned())).unwrap();
        let config = Settled::defaults(&Environment::default());
        let found = SharedToken::find(&state, &config, dir.path());
        let (token, _) = found.unwrap().unwrap();
        Self { token, devices: Devices::of_state(dir.path()), origin: PageOrigin::Absent, dir }
    }

    async fn judges_from(
        &self,
        params: &Value,
        locality: Locality,
    ) -> Result<Admission, Rejection> {
        self.judges_text(&params.to_string(), locality).await
    }

    async fn judges_text(&self, params: &str, locality: Locality) -> Result<Admission, Rejection> {
        let (token, devices) = (&self.token, &self.devices);
        let post = &Post::default();
        let (origin, remote_ip) = (self.origin, Some(REMOTE_IP));
        let (nonce, now_ms) = (NONCE, NOW_MS);
        let gate = Gate { token, devices, post, locality, origin, remote_ip, nonce, now_ms };
        admit(params, &gate).await
    }

    async fn judges(&self, params: &Value) -> Result<Admission, Rejection> {
        self.judges_from(params, Locality::Local).await
    }

    async fn rejects(&self, params: &Value) -> (String, u16, String) {
        let Rejection { refusal, close } = self.judges(params).await.unwrap_err();
        (refusal.message, close.code(), close.reason().to_owned())
    }
}

#[test]
fn the_newest_common_protocol_is_chosen() {
    for (least, most, chosen) in [
        (4, 4, Some(4)),
        (3, 3, Some(3)),
        (3, 4, Some(4)),
        (1, 9, Some(4)),
        (1, 3, Some(3)),
        (1, 2, None),
        (5, 9, None),
        (4, 3, None),
    ] {
        assert_eq!(choose(least, most), chosen, "{least}..={most}");
    }
}

#[tokio::test]
async fn each_wrong_connect_is_rejected_in_the_recorded_words() {
    let house = House::new();
    type Change = fn(&mut Value);
    let cases: [(Change, &str, u16); 8] = [
        (
            |p| p["client"]["id"] = json!("zzz"),
            "invalid connect params: at /client/id: must be equal to one of the allowed values",
            1008,
        ),
        (
            |p| p["foo"] = json!(1),
            "invalid connect params: at root: unexpected property 'foo'",
            1008,
        ),
        (
            |p| (p["minProtocol"], p["maxProtocol"]) = (json!(5), json!(6)),
            "protocol mismatch",
            1002,
        ),
        (|p| p["role"] = json!("root"), "invalid role", 1008),
        (
            |p| p["auth"]["token"] = json!("nope"),
            "unauthorized: gateway token mismatch (provide gateway auth token)",
            1008,
        ),
        (|p| p["auth"] = json!({}), "device identity required", 1008),
        (|p| p["role"] = json!("node"), "device identity required", 1008),
        (
            |p| p["client"]["id"] = json!("openclaw-tui"),
            "control ui requires device identity (use HTTPS or localhost secure context)",
            1008,
        ),
    ];
    for (change, words, code) in cases {
        let mut params = backend();
        change(&mut params);
        let expected = (words.to_owned(), code, words.to_owned());
        assert_eq!(house.rejects(&params).await, expected);
    }
}

#[tokio::test]
async fn a_page_connects_from_where_it_may_and_says_where_that_is() {
    use PageOrigin::{Absent, Allowed, Foreign, Invalid};
    let mut house = House::new();
    let page = |id: &str, mode: &str| {
        let mut params = cli(&["operator.read"]);
        (params["client"]["id"], params["client"]["mode"]) = (json!(id), json!(mode));
        signed(params)
    };
    let (ui, chat) = (page("openclaw-control-ui", "ui"), page("openclaw-ios", "webchat"));
    let program = signed(cli(&["operator.read"]));
    for (params, origin, reason) in [
        (&ui, Absent, Some("origin missing or invalid")),
        (&ui, Invalid, Some("origin missing or invalid")),
        (&ui, Foreign, Some("origin not allowed")),
        (&ui, Allowed, None),
        (&chat, Absent, Some("origin missing or invalid")),
        (&program, Foreign, Some("origin not allowed")),
        (&program, Invalid, Some("origin missing or invalid")),
        (&program, Absent, None),
    ] {
        house.origin = origin;
        let refused = house.judges(params).await.err();
        let details = refused.as_ref().map(|rejection| rejection.refusal.details.clone());
        let expected = reason
            .map(|reason| Some(json!({"code": "CONTROL_UI_ORIGIN_NOT_ALLOWED", "reason": reason})));
        assert_eq!(details, expected, "{origin:?} {params}");
        if let Some(Rejection { close, .. }) = refused {
            assert_eq!(close.code(), 1008);
            assert!(close.reason().starts_with("origin not allowed (open the Control UI"));
        }
    }
}

#[tokio::test]
async fn a_program_in_a_page_is_trusted_as_one_elsewhere_and_its_request_says_where() {
    let mut house = House::new();
    house.origin = PageOrigin::Allowed;
    // A backend on this machine would need no device.
    let admission = house.judges(&backend()).await.unwrap();
    assert!(admission.scopes.names().is_empty());
    let refused = house.judges(&signed(cli(&["operator.read"]))).await.unwrap_err();
    assert_eq!(refused.refusal.code, Code::NotPaired);
    let pending = std::fs::read(house.dir.path().join("devices/pending.json")).unwrap();
    let pending: Value = serde_json::from_slice(&pending).unwrap();
    let request = pending.as_object().unwrap().values().next().unwrap();
    assert_eq!(request["remoteIp"], "192.0.2.7");
}

#[tokio::test]
async fn the_first_thing_that_is_wrong_is_what_is_said() {
    let house = House::new();
    // Everything is wrong; what is wrong first is repaired, one after the other.
    let mut params = signed(cli(&["operator.read"]));
    params["device"]["signature"] = json!("AAAA");
    params["auth"]["token"] = json!("nope");
    params["role"] = json!("root");
    params["minProtocol"] = json!(9);
    params["foo"] = json!(1);
    let unexpected = "invalid connect params: at root: unexpected property 'foo'";
    assert_eq!(house.rejects(&params).await.0, unexpected);
    params.as_object_mut().unwrap().remove("foo");
    assert_eq!(house.rejects(&params).await.0, "protocol mismatch");
    params["minProtocol"] = json!(4);
    assert_eq!(house.rejects(&params).await.0, "invalid role");
    params["role"] = json!("operator");
    assert_eq!(house.rejects(&params).await.0, "device signature invalid");
    let mut params = cli(&["operator.read"]);
    params["auth"]["token"] = json!("nope");
    let words = "unauthorized: gateway token mismatch (set gateway.remote.token to match gateway.auth.token)";
    assert_eq!(house.rejects(&signed(params)).await.0, words);
    assert!(house.judges(&signed(cli(&["operator.read"]))).await.is_ok());
}

#[tokio::test]
async fn scopes_are_given_to_local_backends_and_to_devices_only() {
    let house = House::new();
    let scopes =
        async |params: &Value, locality| house.judges_from(params, locality).await.unwrap().scopes;
    assert!(scopes(&backend(), Locality::Local).await.administer());
    assert_eq!(scopes(&backend(), Locality::Remote).await, Scopes::default());
    assert_eq!(scopes(&cli(&["operator.admin"]), Locality::Local).await, Scopes::default());
    let device = signed(cli(&["operator.admin"]));
    assert!(scopes(&device, Locality::Local).await.administer());
    // What was approved for the device is not what it holds: that is what it asks for each time.
    let modest = signed(cli(&["operator.read"]));
    assert_eq!(scopes(&modest, Locality::Local).await.names(), ["operator.read"]);
}

#[tokio::test]
async fn each_device_check_is_told_with_its_code() {
    let house = House::new();
    type Change = fn(&mut Value);
    let cases: [(Change, &str, &str, &str); 5] = [
        (
            |d| d["id"] = json!("d"),
            "device identity mismatch",
            "DEVICE_AUTH_DEVICE_ID_MISMATCH",
            "device-id-mismatch",
        ),
        (
            |d| d["signedAt"] = json!(1),
            "device signature expired",
            "DEVICE_AUTH_SIGNATURE_EXPIRED",
            "device-signature-stale",
        ),
        (
            |d| d["nonce"] = json!(" "),
            "device nonce required",
            "DEVICE_AUTH_NONCE_REQUIRED",
            "device-nonce-missing",
        ),
        (
            |d| d["nonce"] = json!("zz"),
            "device nonce mismatch",
            "DEVICE_AUTH_NONCE_MISMATCH",
            "device-nonce-mismatch",
        ),
        (
            |d| d["signature"] = json!("AAAA"),
            "device signature invalid",
            "DEVICE_AUTH_SIGNATURE_INVALID",
            "device-signature",
        ),
    ];
    for (change, words, code, reason) in cases {
        let mut params = signed(cli(&["operator.read"]));
        change(&mut params["device"]);
        let Rejection { refusal, close } = house.judges(&params).await.unwrap_err();
        assert_eq!((refusal.code, &*refusal.message), (Code::InvalidRequest, words));
        assert_eq!(refusal.details, Some(json!({"code": code, "reason": reason})));
        assert_eq!((close.code(), close.reason()), (1008, words));
    }
    assert!(!house.dir.path().join("devices").exists(), "nobody was paired");
}

#[tokio::test]
async fn each_wrong_token_is_told_with_its_code_and_what_to_do() {
    let house = House::new();
    house.judges(&signed(cli(&["operator.read"]))).await.unwrap();
    for (auth, words, code, reason, retry, next) in [
        (
            json!({}),
            "gateway token missing (set gateway.remote.token to match gateway.auth.token)",
            "AUTH_TOKEN_MISSING",
            "token_missing",
            false,
            "update_auth_configuration",
        ),
        (
            json!({"token": "nope"}),
            "gateway token mismatch (set gateway.remote.token to match gateway.auth.token)",
            "AUTH_TOKEN_MISMATCH",
            "token_mismatch",
            true,
            "retry_with_device_token",
        ),
        (
            json!({"token": "nope", "deviceToken": "nope"}),
            "device token mismatch (rotate/reissue device token)",
            "AUTH_DEVICE_TOKEN_MISMATCH",
            "device_token_mismatch",
            false,
            "update_auth_credentials",
        ),
        (
            json!({"bootstrapToken": "nope"}),
            "bootstrap token invalid or expired (scan a fresh setup code)",
            "AUTH_BOOTSTRAP_TOKEN_INVALID",
            "bootstrap_token_invalid",
            false,
            "review_auth_configuration",
        ),
    ] {
        let mut params = cli(&["operator.read"]);
        params["auth"] = auth;
        let refusal = house.judges(&signed(params)).await.unwrap_err().refusal;
        assert_eq!(refusal.message, format!("unauthorized: {words}"));
        let details = json!({"code": code, "authReason": reason,
            "canRetryWithDeviceToken": retry, "recommendedNextStep": next});
        assert_eq!(refusal.details, Some(details));
    }
}

#[tokio::test]
async fn a_device_is_let_in_by_the_token_it_was_issued_in_either_field() {
    let house = House::new();
    let params = signed(cli(&["operator.read"]));
    let device = house.judges(&params).await.unwrap().device.unwrap();
    assert_eq!(json!(device.id), params["device"]["id"]);
    assert_eq!(device.own_token, OwnToken::NotShown);
    let issued = device.issued.unwrap();
    assert_eq!(issued.scopes, ["operator.read"]);
    for field in ["token", "deviceToken"] {
        let mut params = cli(&["operator.read"]);
        params["auth"] = json!({field: issued.token.reveal()});
        let again = house.judges_from(&signed(params), Locality::Remote).await.unwrap();
        let again = again.device.unwrap();
        assert_eq!(again.own_token, OwnToken::Shown);
        assert_eq!(again.issued.unwrap(), issued);
        // More than it carries is not had by it.
        let mut params = cli(&["operator.admin"]);
        params["auth"] = json!({field: issued.token.reveal()});
        let words = "unauthorized: device token scope mismatch (re-pair or approve scope upgrade)";
        assert_eq!(house.rejects(&signed(params)).await.0, words);
    }
    // Without its device it is nobody's token.
    let mut params = cli(&["operator.read"]);
    params["auth"] = json!({"token": issued.token.reveal()});
    assert!(house.rejects(&params).await.0.starts_with("unauthorized: gateway token mismatch"));
}

#[tokio::test]
async fn a_scope_upgrade_is_refused_as_recorded() {
    let house = House::new();
    house.judges(&signed(cli(&["operator.read"]))).await.unwrap();
    let upgrade = signed(cli(&["operator.admin"]));
    let Rejection { refusal, close } = house.judges(&upgrade).await.unwrap_err();
    assert_eq!(refusal.code, Code::NotPaired);
    let words = "pairing required: device is asking for more scopes than currently approved";
    assert_eq!(refusal.message, words);
    let details = refusal.details.unwrap();
    let request_id = details["requestId"].as_str().unwrap();
    assert_eq!(
        details,
        json!({
            "code": "PAIRING_REQUIRED", "reason": "scope-upgrade", "requestId": request_id,
            "remediationHint": "Review the requested scopes, then approve the pending upgrade.",
            "deviceId": upgrade["device"]["id"], "requestedRole": "operator",
            "requestedScopes": ["operator.admin"], "approvedRoles": ["operator"],
            "approvedScopes": ["operator.read"],
        })
    );
    let reason = format!("{words} (requestId: {request_id})");
    assert_eq!((close.code(), close.reason()), (1008, &reason[..120]));
}

#[tokio::test]
async fn a_local_backend_needs_no_pairing_for_its_device_and_is_issued_nothing() {
    let house = House::new();
    let local = house.judges(&signed(backend())).await.unwrap();
    assert!(local.scopes.administer() && local.device.unwrap().issued.is_none());
    let remote = house.judges_from(&signed(backend()), Locality::Remote).await.unwrap_err();
    assert_eq!(remote.refusal.message, "pairing required: device is not approved yet");
}

#[tokio::test]
async fn a_table_that_cannot_be_read_keeps_devices_out_and_nobody_else() {
    let house = House::new();
    let paired = house.dir.path().join("devices/paired.json");
    std::fs::create_dir(paired.parent().unwrap()).unwrap();
    std::fs::write(&paired, "{ no").unwrap();
    let refusal = house.judges(&signed(cli(&["operator.read"]))).await.unwrap_err().refusal;
    assert_eq!(refusal.code, Code::Unavailable);
    assert_eq!(refusal.message, "device pairing is unavailable");
    assert!(house.judges(&backend()).await.unwrap().scopes.administer());
    assert_eq!(std::fs::read_to_string(&paired).unwrap(), "{ no");
}

#[test]
fn the_token_of_a_client_is_never_formatted() {
    let params = Params::read(&backend().to_string()).unwrap();
    assert!(!format!("{params:?}").contains("secret"));
}

/// None of the corpus knows the token, and nothing that is done to it makes it know.
#[test]
fn nothing_that_is_nearly_right_is_let_in_or_makes_the_gateway_panic() {
    let house = House::new();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut runner = proptest::test_runner::TestRunner::new(crate::fuzzed::config());
    let outcome = runner.run(&crate::fuzzed::nearly("connect"), |params| {
        let judged = runtime.block_on(house.judges_text(&params, Locality::Remote));
        proptest::prop_assert!(judged.is_err(), "{:?}", judged);
        Ok(())
    });
    outcome.unwrap();
}
