//! Requests of devices that wait for somebody to approve them: `devices/pending.json`.
//!
//! **Invariants**
//! - A request lives for five minutes, whatever is asked again meanwhile.
//! - A device has one request: asking for something else puts everything asked for into a new one.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::rights;

/// How long a request waits, in ms.
const LIFE_MS: u64 = 300_000;

/// All of them, by their ids.
pub(crate) type Pending = BTreeMap<String, PendingRequest>;

/// What a device asks for.
// What is flattened is what other programs have written here: it must survive us.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PendingRequest {
    #[serde(default)]
    pub(crate) request_id: String,
    pub(crate) device_id: String,
    pub(crate) public_key: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) display_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) platform: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) device_family: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) client_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) client_mode: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) role: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) roles: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) scopes: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) remote_ip: Option<String>,
    /// Whether it may be approved without anybody looking at it.
    #[serde(default)]
    pub(crate) silent: bool,
    /// Whether the device is paired already.
    #[serde(default)]
    pub(crate) is_repair: bool,
    /// When it was first asked.
    pub(crate) ts: u64,
    #[serde(flatten)]
    pub(crate) unknown: Map<String, Value>,
}

impl PendingRequest {
    /// Every role it asks for.
    pub(crate) fn roles(&self) -> Vec<String> {
        rights::merged([self.roles.as_deref().unwrap_or_default(), self.role.as_slice()])
    }

    pub(crate) fn scopes(&self) -> &[String] {
        self.scopes.as_deref().unwrap_or_default()
    }

    /// Whether somebody who looks at either decides the same.
    fn asks_the_same(&self, other: &Self) -> bool {
        let set = |mut names: Vec<String>| {
            names.sort_unstable();
            names
        };
        self.public_key == other.public_key
            && self.role == other.role
            && set(self.roles()) == set(other.roles())
            && rights::normalized(self.scopes()) == rights::normalized(other.scopes())
    }

    /// The same request, made again.
    fn asked_again(self, incoming: Self) -> Self {
        Self {
            display_name: incoming.display_name.or(self.display_name),
            platform: incoming.platform.or(self.platform),
            device_family: incoming.device_family.or(self.device_family),
            client_id: incoming.client_id.or(self.client_id),
            client_mode: incoming.client_mode.or(self.client_mode),
            remote_ip: incoming.remote_ip.or(self.remote_ip),
            silent: self.silent && incoming.silent,
            is_repair: self.is_repair || incoming.is_repair,
            ..self
        }
    }
}

/// Forgets the requests that nobody has answered in time.
pub(crate) fn forget_expired(pending: &mut Pending, now_ms: u64) {
    pending.retain(|_, request| now_ms.saturating_sub(request.ts) <= LIFE_MS);
}

/// Adds a request to those that wait, or to what its device asked for before. Its id from now on.
pub(crate) fn ask(pending: &mut Pending, incoming: PendingRequest) -> String {
    let mut former: Vec<_> =
        pending.extract_if(.., |_, request| request.device_id == incoming.device_id).collect();
    former.sort_by_key(|(_, request)| std::cmp::Reverse(request.ts));
    let (id, request) = match former.pop_if(|(_, only)| only.asks_the_same(&incoming)) {
        Some((id, same)) if former.is_empty() => (id, same.asked_again(incoming)),
        popped => {
            former.extend(popped);
            let former = || former.iter().map(|(_, request)| request);
            let roles: Vec<_> = former().map(PendingRequest::roles).collect();
            let roles = roles.iter().map(Vec::as_slice);
            let request = PendingRequest {
                roles: Some(rights::merged(roles.chain([&*incoming.roles()]))),
                scopes: Some(rights::merged(
                    former().map(PendingRequest::scopes).chain([incoming.scopes()]),
                )),
                silent: incoming.silent && former().all(|request| request.silent),
                ..incoming
            };
            (request.request_id.clone(), request)
        }
    };
    pending.insert(id.clone(), request);
    id
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn request(id: &str, scopes: &str, ts: u64) -> PendingRequest {
        PendingRequest {
            request_id: id.to_owned(),
            device_id: "d1".to_owned(),
            public_key: "k1".to_owned(),
            role: Some("operator".to_owned()),
            scopes: Some(scopes.split_whitespace().map(str::to_owned).collect()),
            ts,
            ..PendingRequest::default()
        }
    }

    #[test]
    fn a_request_waits_for_five_minutes_and_asking_again_does_not_renew_it() {
        let mut pending = Pending::new();
        ask(&mut pending, request("r1", "operator.read", 1_000));
        assert_eq!(ask(&mut pending, request("r2", "operator.read", 200_000)), "r1");
        forget_expired(&mut pending, 301_000);
        assert_eq!(pending["r1"].ts, 1_000);
        forget_expired(&mut pending, 301_001);
        assert!(pending.is_empty());
    }

    #[test]
    fn asking_for_something_else_makes_one_new_request_for_everything() {
        let mut pending = Pending::new();
        ask(&mut pending, request("r1", "operator.read", 1));
        ask(&mut pending, PendingRequest { device_id: "d2".to_owned(), ..request("r9", "", 1) });
        let mut more = request("r2", "operator.pairing", 2);
        more.silent = true;
        assert_eq!(ask(&mut pending, more), "r2");
        assert_eq!(pending.keys().collect::<Vec<_>>(), ["r2", "r9"]);
        let scopes = ["operator.read", "operator.pairing"];
        assert_eq!(pending["r2"].scopes.as_deref().unwrap(), scopes);
        assert!(!pending["r2"].silent, "the former one had to be looked at");
    }

    #[test]
    fn what_is_read_is_written_again_with_every_field() {
        let file = json!({"r1": {
            "requestId": "r1", "deviceId": "d1", "publicKey": "k1", "displayName": "n",
            "role": "operator", "roles": ["operator"], "scopes": ["operator.read"],
            "remoteIp": "192.0.2.7", "silent": false, "isRepair": true, "ts": 5, "addedLater": {},
        }});
        let read: Pending = serde_json::from_value(file.clone()).unwrap();
        assert_eq!(serde_json::to_value(read).unwrap(), file);
    }
}
