//! What people may do with devices, and what not.

use serde_json::json;

use super::*;
use crate::identity::Locality;
use crate::identity::devices::tests::{House, pair};
use crate::identity::pairing::Ask;
use crate::identity::pairing::tests::{NOW_MS, ask};

fn caller(scopes: &str) -> Caller {
    let scopes = scopes.split_whitespace().map(str::to_owned).collect();
    Caller { device_id: None, scopes }
}

fn id(seed: u8) -> String {
    ask(seed, "").device.id().to_owned()
}

/// Who came with the own token of the device of this seed.
fn device(seed: u8, scopes: &str) -> Caller {
    Caller { device_id: Some(id(seed)), ..caller(scopes) }
}

fn operator(seed: u8) -> (String, String) {
    (id(seed), "operator".to_owned())
}

fn shown(result: impl Serialize) -> Value {
    serde_json::to_value(result).unwrap()
}

/// The id of a request that waits for somebody.
async fn asked(devices: &Devices, seed: u8) -> String {
    let remote = Ask { locality: Locality::Remote, ..ask(seed, "operator.read") };
    devices.admit(remote, NOW_MS).await.unwrap().unwrap_err();
    let mut requests = devices.tables(NOW_MS).await.unwrap().pending.into_values();
    requests.find(|request| request.device_id == id(seed)).unwrap().request_id
}

#[tokio::test]
async fn what_there_is_is_listed_as_recorded() {
    let house = House::new();
    let devices = house.generation();
    let nothing = shown(devices.list(&caller(""), NOW_MS).await.unwrap());
    assert_eq!(nothing, json!({"pending": [], "paired": []}));
    pair(&devices, ask(1, "operator.admin")).await;
    let request_id = asked(&devices, 2).await;
    let listed = shown(devices.list(&caller(""), NOW_MS).await.unwrap());
    let paired = json!([{
        "deviceId": id(1), "publicKey": ask(1, "").device.public_key(), "platform": "linux",
        "clientId": "cli", "clientMode": "cli", "role": "operator", "roles": ["operator"],
        "scopes": ["operator.admin"], "createdAtMs": NOW_MS, "approvedAtMs": NOW_MS,
        "tokens": [{"role": "operator", "createdAtMs": NOW_MS,
            "scopes": ["operator.admin", "operator.read", "operator.write"]}],
    }]);
    assert_eq!(listed["paired"], paired);
    let pending = json!([{
        "requestId": request_id, "deviceId": id(2), "publicKey": ask(2, "").device.public_key(),
        "platform": "linux", "clientId": "cli", "clientMode": "cli", "role": "operator",
        "roles": ["operator"], "scopes": ["operator.read"], "silent": false, "isRepair": false,
        "ts": NOW_MS,
    }]);
    assert_eq!(listed["pending"], pending);
    // Somebody else's device is nobody else's business.
    let own = shown(devices.list(&device(2, "operator.pairing"), NOW_MS).await.unwrap());
    assert_eq!((&own["paired"], &own["pending"]), (&json!([]), &pending));
}

#[tokio::test]
async fn a_request_is_approved_or_rejected_once() {
    let house = House::new();
    let devices = house.generation();
    let request_id = asked(&devices, 1).await;
    let lacking = caller("operator.pairing");
    let lacks = devices.approve(request_id.clone(), lacking, NOW_MS).await.unwrap_err();
    assert_eq!(lacks.to_string(), "missing scope: operator.read");
    let admin = caller("operator.admin");
    let approved = devices.approve(request_id.clone(), admin.clone(), NOW_MS).await.unwrap();
    let approved = shown(approved);
    assert_eq!(approved["requestId"], request_id);
    assert_eq!(approved["device"]["tokens"][0]["scopes"], json!(["operator.read"]));
    assert_eq!(approved["device"].pointer("/tokens/0/token"), None);
    let again = devices.approve(request_id, admin.clone(), NOW_MS).await.unwrap_err();
    assert_eq!(again.to_string(), "unknown requestId");
    let request_id = asked(&devices, 2).await;
    let rejected = devices.reject(request_id.clone(), admin.clone(), NOW_MS).await.unwrap();
    assert_eq!(shown(rejected), json!({"requestId": request_id, "deviceId": id(2)}));
    let again = devices.reject(request_id, admin, NOW_MS).await.unwrap_err();
    assert_eq!(again.to_string(), "unknown requestId");
}

#[tokio::test]
async fn an_expired_request_is_approved_by_nobody() {
    let house = House::new();
    let devices = house.generation();
    let request_id = asked(&devices, 1).await;
    let late = NOW_MS + 300_001;
    let refused = devices.approve(request_id, caller("operator.admin"), late).await;
    assert_eq!(refused.unwrap_err().to_string(), "unknown requestId");
}

#[tokio::test]
async fn a_device_that_is_removed_takes_its_requests_along() {
    let house = House::new();
    let devices = house.generation();
    pair(&devices, ask(1, "operator.read")).await;
    devices.admit(ask(1, "operator.admin"), NOW_MS).await.unwrap().unwrap_err();
    let mut revocations = devices.revocations();
    let removed = devices.remove(format!(" {} ", id(1)), caller(""), NOW_MS).await.unwrap();
    assert_eq!(shown(removed), json!({"deviceId": id(1)}));
    revocations.of(&id(1), "operator").await;
    assert_eq!(house.content("paired.json"), json!({}));
    assert_eq!(house.content("pending.json"), json!({}));
    let again = devices.remove(id(1), caller(""), NOW_MS).await.unwrap_err();
    assert_eq!(again.to_string(), "unknown deviceId");
}

#[tokio::test]
async fn a_rotated_token_is_told_to_its_own_device_alone() {
    let house = House::new();
    let devices = house.generation();
    let first = pair(&devices, ask(1, "operator.write")).await;
    let read = Some(vec!["operator.read".to_owned()]);
    let mut revocations = devices.revocations();
    let own = device(1, "operator.read");
    let rotated = devices.rotate(operator(1), read, own, NOW_MS + 5).await.unwrap();
    let rotated = shown(rotated);
    let told = rotated["token"].as_str().unwrap();
    assert!(!first.is(told));
    assert_eq!(
        rotated,
        json!({"deviceId": id(1), "role": "operator", "token": told,
        "scopes": ["operator.read"], "rotatedAtMs": NOW_MS + 5})
    );
    revocations.of(&id(1), "operator").await;
    let admin = caller("operator.admin");
    let rotated = shown(devices.rotate(operator(1), None, admin, NOW_MS + 6).await.unwrap());
    assert_eq!(rotated.get("token"), None);
    assert_eq!(rotated["scopes"], json!(["operator.read"]));
}

#[tokio::test]
async fn a_revoked_token_opens_nothing() {
    let house = House::new();
    let devices = house.generation();
    pair(&devices, ask(1, "operator.read")).await;
    let mut revocations = devices.revocations();
    let own = device(1, "operator.read");
    let revoked = devices.revoke(operator(1), own, NOW_MS + 5).await.unwrap();
    let expected = json!({"deviceId": id(1), "role": "operator", "revokedAtMs": NOW_MS + 5});
    assert_eq!(shown(revoked), expected);
    revocations.of(&id(1), "operator").await;
    assert!(!devices.still_admits(id(1), "operator".to_owned(), None).await.unwrap());
}

#[tokio::test]
async fn nobody_touches_another_device_or_goes_beyond_what_they_hold() {
    let house = House::new();
    let devices = house.generation();
    pair(&devices, ask(1, "operator.write")).await;
    let paired = house.content("paired.json");
    let request_id = asked(&devices, 2).await;
    let other = || device(3, "operator.write operator.pairing");
    let refused = |result: Result<(), AdministrationRefused>| result.unwrap_err().to_string();
    let result = devices.approve(request_id.clone(), other(), NOW_MS).await.map(drop);
    assert_eq!(refused(result), "device pairing approval denied");
    let result = devices.reject("no-such".to_owned(), other(), NOW_MS).await.map(drop);
    assert_eq!(refused(result), "device pairing rejection denied");
    let result = devices.remove(id(1), other(), NOW_MS).await.map(drop);
    assert_eq!(refused(result), "device pairing removal denied");
    let rotation = "device token rotation denied";
    let result = devices.rotate(operator(1), None, other(), NOW_MS).await.map(drop);
    assert_eq!(refused(result), rotation);
    let lacking = caller("operator.read");
    let result = devices.rotate(operator(1), None, lacking.clone(), NOW_MS).await.map(drop);
    assert_eq!(refused(result), rotation);
    let more = Some(vec!["operator.admin".to_owned()]);
    let admin = caller("operator.admin");
    let result = devices.rotate(operator(1), more, admin.clone(), NOW_MS).await.map(drop);
    assert_eq!(refused(result), rotation);
    let node = (id(1), "node".to_owned());
    let result = devices.rotate(node.clone(), None, admin.clone(), NOW_MS).await.map(drop);
    assert_eq!(refused(result), rotation);
    let revocation = "device token revocation denied";
    for (whose, caller) in [
        (operator(1), other()),
        (operator(1), lacking),
        (operator(9), admin.clone()),
        (node, admin),
    ] {
        let result = devices.revoke(whose, caller, NOW_MS).await.map(drop);
        assert_eq!(refused(result), revocation);
    }
    assert_eq!(house.content("paired.json"), paired);
}

#[tokio::test]
async fn who_moved_with_a_token_that_was_rotated_meanwhile_is_no_longer_admitted() {
    let house = House::new();
    let (here, there) = (house.generation(), house.generation());
    pair(&here, ask(1, "operator.read")).await;
    let admin = caller("operator.admin");
    let stays = async |issued_at_ms| {
        there.still_admits(id(1), "operator".to_owned(), Some(issued_at_ms)).await.unwrap()
    };
    assert!(stays(NOW_MS).await);
    there.rotate(operator(1), None, admin.clone(), NOW_MS + 10).await.unwrap();
    assert!(!stays(NOW_MS).await && stays(NOW_MS + 10).await);
    // An approval brings a token as well, and takes nothing from anybody.
    here.admit(ask(1, "operator.write"), NOW_MS + 20).await.unwrap().unwrap_err();
    let mut requests = here.tables(NOW_MS + 20).await.unwrap().pending.into_values();
    let request_id = requests.next().unwrap().request_id;
    here.approve(request_id, admin, NOW_MS + 30).await.unwrap();
    assert!(stays(NOW_MS + 10).await && stays(NOW_MS + 30).await);
}
