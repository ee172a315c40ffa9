//! All that is known of a connected client: another generation can go on from it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use handoff::Arrival;
use handoff::message::millis;
use tokio::time::Instant;

use super::connect::{Admission, AdmittedDevice, OwnToken};
use crate::args::Limits;
use crate::attendance::{Attendee, Client};
use crate::identity::{Caller, Fingerprint, Issued, Scopes};
use crate::methods::now_ms;
use crate::serve::moving::{ClientState, ConnectedState, DeviceState, LetIn};

/// How many calls of one client may be under way.
const MOST_OUTSTANDING: usize = 256;

/// See the module.
#[derive(Debug)]
pub(super) struct Standing {
    pub(super) protocol: u64,
    pub(super) client: Arc<Client>,
    pub(super) role: String,
    pub(super) scopes: Scopes,
    pub(super) device: Option<DeviceState>,
    /// The shared token that it was let in by.
    pub(super) shared_token: Option<Fingerprint>,
    /// What its device is told to come with; known where it has connected.
    pub(super) issued: Option<Issued>,
    /// The number of the last event; the first one is 1.
    pub(super) seq: u64,
    pub(super) tick_at: Instant,
    pub(super) ping_at: Instant,
    pub(super) outstanding: Outstanding,
    /// When it has connected, in ms of the wall clock.
    pub(super) since_ms: u64,
}

impl Standing {
    /// Of a client that was let in just now.
    pub(super) fn new(admission: Admission, limits: &Limits) -> Self {
        let Admission { protocol, client, role, scopes, device, shared_token, .. } = admission;
        let (device, issued) = match device {
            Some(AdmittedDevice { id, own_token, issued }) => {
                let let_in = match (own_token, &issued) {
                    (OwnToken::Shown, _) => LetIn::ByOwnToken,
                    (OwnToken::NotShown, Some(_)) => LetIn::BySharedToken,
                    (OwnToken::NotShown, None) => LetIn::Unpaired,
                };
                let issued_at_ms = issued.as_ref().map(|issued| issued.issued_at_ms);
                (Some(DeviceState { id, let_in, issued_at_ms }), issued)
            }
            None => (None, None),
        };
        let now = Instant::now();
        let (tick_at, ping_at) = (now + limits.tick_interval, now + limits.ping_interval);
        let outstanding = Outstanding::default();
        Self {
            protocol,
            client: Arc::new(client),
            role,
            scopes,
            device,
            shared_token,
            issued,
            seq: 0,
            tick_at,
            ping_at,
            outstanding,
            since_ms: now_ms(),
        }
    }

    /// Of a client that was let in before its connection was frozen, here or in another generation.
    pub(super) fn resumed(state: ConnectedState, arrival: Arrival) -> Self {
        let ClientState { id, display_name, version, platform, mode } = state.client;
        let now = Instant::now();
        Self {
            protocol: state.protocol,
            client: Arc::new(Client { id, display_name, version, platform, mode }),
            role: state.role,
            scopes: Scopes::new(state.scopes),
            device: state.device,
            shared_token: state.shared_token,
            issued: None,
            seq: state.seq,
            tick_at: now + Duration::from_millis(state.tick_in_ms),
            ping_at: now + Duration::from_millis(state.ping_in_ms),
            outstanding: Outstanding::resumed(state.outstanding, state.outstanding_before, arrival),
            since_ms: now_ms().saturating_sub(state.connected_ago_ms),
        }
    }

    /// Who calls, for methods that ask.
    pub(super) fn caller(&self) -> Caller {
        let own = self.device.as_ref().filter(|device| device.let_in == LetIn::ByOwnToken);
        Caller {
            device_id: own.map(|device| device.id.clone()),
            scopes: self.scopes.names().to_vec(),
        }
    }

    /// As others are told of it.
    pub(super) fn attendee(&self) -> Attendee {
        Attendee {
            client: Arc::clone(&self.client),
            role: self.role.clone(),
            scopes: self.scopes.names().to_vec(),
            device_id: self.device.as_ref().map(|device| device.id.clone()),
            since_ms: self.since_ms,
        }
    }

    /// What another generation has to know.
    pub(super) fn frozen(&self) -> ConnectedState {
        let Client { id, display_name, version, platform, mode } = &*self.client;
        let due = |at: Instant| millis(at.saturating_duration_since(Instant::now()));
        ConnectedState {
            protocol: self.protocol,
            client: ClientState {
                id: id.clone(),
                display_name: display_name.clone(),
                version: version.clone(),
                platform: platform.clone(),
                mode: mode.clone(),
            },
            role: self.role.clone(),
            scopes: self.scopes.names().to_vec(),
            device: self.device.clone(),
            shared_token: self.shared_token,
            seq: self.seq,
            tick_in_ms: due(self.tick_at),
            ping_in_ms: due(self.ping_at),
            outstanding: listed(&self.outstanding.here),
            outstanding_before: self.outstanding.begun_elsewhere(),
            connected_ago_ms: now_ms().saturating_sub(self.since_ms),
        }
    }
}

/// Requests that were begun and have no last answer, by their ids. A client may use an id twice.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Outstanding {
    /// Begun by this generation.
    here: BTreeMap<String, usize>,
    /// Begun by the one the connection came from.
    before: BTreeMap<String, usize>,
    /// Begun by those that had it earlier: they are gone, and their last words may still be on their way.
    earlier: BTreeMap<String, usize>,
}

impl Outstanding {
    fn resumed(frozen: Vec<String>, frozen_before: Vec<String>, arrival: Arrival) -> Self {
        let (frozen, frozen_before) = (counted(frozen), counted(frozen_before));
        match arrival {
            Arrival::Moved => Self { before: frozen, earlier: frozen_before, ..Self::default() },
            // They are told from one another no more: all end with the link to the generation before.
            Arrival::Returned | Arrival::Rejected => {
                Self { here: frozen, before: frozen_before, ..Self::default() }
            }
        }
    }

    /// A request was begun here; answers whether one more was allowed.
    pub(super) fn begin(&mut self, id: &str) -> bool {
        if self.here.len() + self.before.len() + self.earlier.len() >= MOST_OUTSTANDING {
            return false;
        }
        add(&mut self.here, id.to_owned());
        true
    }

    /// Whether a request has no last answer.
    pub(super) fn awaits(&self, id: &str) -> bool {
        [&self.here, &self.before, &self.earlier].iter().any(|begun| begun.contains_key(id))
    }

    /// Whether any has no last answer.
    pub(super) fn is_any(&self) -> bool {
        ![&self.here, &self.before, &self.earlier].iter().all(|begun| begun.is_empty())
    }

    /// A last answer has come; answers whether it was still awaited.
    pub(super) fn end(&mut self, id: &str) -> bool {
        remove(&mut self.earlier, id) || remove(&mut self.before, id) || remove(&mut self.here, id)
    }

    /// Those of other generations.
    fn begun_elsewhere(&self) -> Vec<String> {
        [listed(&self.before), listed(&self.earlier)].concat()
    }

    /// The generation that had the connection so many moves ago is gone: nobody will answer these.
    pub(super) fn sever(&mut self, moves: u32) -> Vec<String> {
        let gone = match moves {
            0 | 1 => [std::mem::take(&mut self.before), std::mem::take(&mut self.earlier)],
            2 => [std::mem::take(&mut self.earlier), BTreeMap::new()],
            // Whoever came after that one is gone as well, and says so next.
            _ => return Vec::new(),
        };
        gone.iter().flat_map(listed).collect()
    }
}

fn counted(ids: Vec<String>) -> BTreeMap<String, usize> {
    let mut requests = BTreeMap::new();
    ids.into_iter().for_each(|id| add(&mut requests, id));
    requests
}

fn add(requests: &mut BTreeMap<String, usize>, id: String) {
    *requests.entry(id).or_default() += 1;
}

fn remove(requests: &mut BTreeMap<String, usize>, id: &str) -> bool {
    let Some(count) = requests.get_mut(id) else { return false };
    *count -= 1;
    if *count == 0 {
        requests.remove(id);
    }
    true
}

fn listed(requests: &BTreeMap<String, usize>) -> Vec<String> {
    requests.iter().flat_map(|(id, count)| std::iter::repeat_n(id.clone(), *count)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(ids: &[&str]) -> Vec<String> {
        ids.iter().map(|id| (*id).to_owned()).collect()
    }

    #[test]
    fn what_another_generation_began_is_severed_with_it_and_nothing_else() {
        let mut outstanding = Outstanding::resumed(ids(&["a", "b"]), ids(&["c"]), Arrival::Moved);
        assert!(outstanding.begin("d"));
        assert!(outstanding.end("b"));
        assert!(!outstanding.end("b"));
        assert_eq!(outstanding.sever(1), ["a", "c"]);
        assert!(!outstanding.awaits("a") && outstanding.awaits("d"));
    }

    #[test]
    fn the_end_of_an_earlier_generation_is_not_that_of_the_one_before() {
        let mut outstanding = Outstanding::resumed(ids(&["a"]), ids(&["b", "c"]), Arrival::Moved);
        assert!(outstanding.end("c"));
        assert_eq!(outstanding.sever(3), Vec::<String>::new());
        assert_eq!(outstanding.sever(2), ["b"]);
        assert!(outstanding.awaits("a") && !outstanding.awaits("b") && outstanding.is_any());
        assert!(outstanding.end("a") && !outstanding.is_any());
    }

    #[test]
    fn what_is_begun_elsewhere_moves_on_whoever_began_it() {
        let outstanding = Outstanding::resumed(ids(&["a"]), ids(&["b"]), Arrival::Moved);
        assert_eq!(outstanding.begun_elsewhere(), ["a", "b"]);
    }

    #[test]
    fn what_comes_back_goes_on_as_it_was() {
        let mut outstanding = Outstanding::resumed(ids(&["a"]), ids(&["b"]), Arrival::Returned);
        assert_eq!(outstanding.sever(1), ["b"]);
        assert!(outstanding.end("a"));
    }

    #[test]
    fn an_id_that_is_used_twice_is_answered_twice() {
        let mut outstanding = Outstanding::default();
        assert!(outstanding.begin("a") && outstanding.begin("a"));
        assert_eq!(listed(&outstanding.here), ["a", "a"]);
        assert!(outstanding.end("a") && outstanding.end("a") && !outstanding.end("a"));
    }

    #[test]
    fn only_so_many_calls_are_under_way() {
        let mut outstanding = Outstanding::default();
        for id in 0..MOST_OUTSTANDING {
            assert!(outstanding.begin(&id.to_string()));
        }
        assert!(!outstanding.begin("one more"));
        assert!(outstanding.end("7") && outstanding.begin("one more"));
    }
}
