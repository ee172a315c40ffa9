//! The attendance: which clients are connected here, as others are told of them.
//!
//! **Invariants**
//! - A client is on the list from the moment it is let in until its connection ends or moves, also by a panic.
//! - No secret is on it: neither a token nor what proved a device.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

/// How many are told of, the latest first: whoever asks reads a list and not a census.
pub(crate) const MOST_TOLD: usize = 200;

/// Which program has connected.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) id: String,
    pub(crate) display_name: Option<String>,
    pub(crate) version: String,
    pub(crate) platform: String,
    pub(crate) mode: String,
}

impl Client {
    /// Which client it is, in one word: as far as a connection that moved still knows.
    pub(crate) fn who(&self) -> String {
        format!("{}/{}/{}", self.id, self.mode, self.display_name.as_deref().unwrap_or_default())
    }
}

/// Somebody who is connected.
#[derive(Debug)]
pub(crate) struct Attendee {
    pub(crate) client: Arc<Client>,
    pub(crate) role: String,
    pub(crate) scopes: Vec<String>,
    pub(crate) device_id: Option<String>,
    /// Since when, in ms of the wall clock.
    pub(crate) since_ms: u64,
}

/// The same as it is told, also to the generation beside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Present {
    pub(crate) host: String,
    pub(crate) version: String,
    pub(crate) platform: String,
    pub(crate) mode: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) device_id: Option<String>,
    pub(crate) roles: Vec<String>,
    pub(crate) scopes: Vec<String>,
    pub(crate) reason: String,
    pub(crate) ts: u64,
    pub(crate) text: String,
}

impl Attendee {
    pub(crate) fn present(&self) -> Present {
        let Client { id, display_name, version, platform, mode } = &*self.client;
        let host = display_name.as_ref().unwrap_or(id);
        Present {
            host: host.clone(),
            version: version.clone(),
            platform: platform.clone(),
            mode: mode.clone(),
            device_id: self.device_id.clone(),
            roles: vec![self.role.clone()],
            scopes: self.scopes.clone(),
            reason: "connect".to_owned(),
            ts: self.since_ms,
            text: format!("Node: {host} · mode {mode}"),
        }
    }
}

/// Who is connected here. Clones are the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Attendance {
    list: Arc<Mutex<List>>,
}

#[derive(Debug, Default)]
struct List {
    attendees: BTreeMap<u64, Attendee>,
    next: u64,
}

/// A place on the list; it is struck out when this is dropped.
#[derive(Debug)]
pub(crate) struct Entry {
    list: Arc<Mutex<List>>,
    number: u64,
}

impl Attendance {
    /// Somebody has connected, or has moved here.
    pub(crate) fn enter(&self, attendee: Attendee) -> Entry {
        let mut list = lock(&self.list);
        let number = list.next;
        list.next += 1;
        list.attendees.insert(number, attendee);
        drop(list);
        Entry { list: Arc::clone(&self.list), number }
    }

    /// Those that came last.
    pub(crate) fn present(&self) -> Vec<Present> {
        let list = lock(&self.list);
        list.attendees.values().rev().take(MOST_TOLD).map(Attendee::present).collect()
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        lock(&self.list).attendees.remove(&self.number);
    }
}

fn lock(list: &Mutex<List>) -> MutexGuard<'_, List> {
    // A panic between two of its operations leaves the list whole.
    list.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn attendee(name: &str, since_ms: u64) -> Attendee {
        let client = Client {
            id: "gateway-client".into(),
            display_name: Some(name.into()),
            version: "1".into(),
            platform: "linux".into(),
            mode: "backend".into(),
        };
        Attendee {
            client: Arc::new(client),
            role: "operator".into(),
            scopes: vec!["operator.read".into()],
            device_id: None,
            since_ms,
        }
    }

    #[test]
    fn an_entry_looks_as_recorded() {
        let expected = json!({
            "host": "probe", "version": "1", "platform": "linux", "mode": "backend",
            "roles": ["operator"], "scopes": ["operator.read"], "reason": "connect", "ts": 7,
            "text": "Node: probe · mode backend",
        });
        assert_eq!(serde_json::to_value(attendee("probe", 7).present()).unwrap(), expected);
    }

    #[test]
    fn whoever_leaves_is_struck_out_and_the_latest_are_told_first() {
        let attendance = Attendance::default();
        let hosts =
            || -> Vec<_> { attendance.present().into_iter().map(|present| present.host).collect() };
        let first = attendance.enter(attendee("first", 1));
        let _second = attendance.enter(attendee("second", 2));
        assert_eq!(hosts(), ["second", "first"]);
        drop(first);
        assert_eq!(hosts(), ["second"]);
        let _crowd: Vec<_> =
            (0..500).map(|_| attendance.enter(attendee("one of many", 3))).collect();
        assert_eq!(hosts().len(), MOST_TOLD);
    }
}
