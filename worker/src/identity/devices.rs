//! The gateway's knowledge of devices: the tables on disk, as this generation and the others keep them.
//!
//! ```text
//! handshake ─► has paired.json changed? read it ─► settled? ─► answer
//!                     │                               └ no: lock, read both, decide, write ─► answer
//!                     └ somebody lost access ─► Revoked, to every connection of this process
//! ```
//!
//! **Invariants**
//! - Whatever anybody writes into `paired.json` holds from the next handshake on, in every generation.
//! - What is decided under the lock is decided on what is in the files, not on what was read earlier.
//! - Nothing here runs on the runtime's threads.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::broadcast;
use tracing::{info, warn};

use super::ledger::{Ledger, LedgerUnusable, Stamp};
use super::paired::Paired;
use super::pairing::{self, Admitted, Ask, Refused, Tables};
use super::pending;
use super::revocations::{self, Revocations, Revoked};
use super::watch::Watch;

/// The folder of both tables, in the state directory.
const FOLDER: &str = "devices";
const PAIRED: &str = "paired.json";
const PENDING: &str = "pending.json";
/// Devices, and who may do what. Clones are the same.
#[derive(Clone, Debug)]
pub(crate) struct Devices {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    ledger: Ledger,
    known: Mutex<Known>,
    revocations: broadcast::Sender<Revoked>,
    /// Looks at the table while devices are connected.
    watch: Mutex<Weak<Watch>>,
}

/// `paired.json` as it was last read.
#[derive(Debug, Default)]
struct Known {
    stamp: Option<Stamp>,
    paired: Arc<Paired>,
}

impl Devices {
    /// The devices of a state directory. Nothing is read yet.
    pub(crate) fn of_state(state_dir: &Path) -> Self {
        Self::of(Ledger::new(state_dir.join(FOLDER)))
    }

    fn of(ledger: Ledger) -> Self {
        let shared = Shared {
            ledger,
            known: Mutex::default(),
            revocations: broadcast::Sender::new(revocations::LATEST),
            watch: Mutex::default(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Judges a device that wants to connect, at `now_ms` of the wall clock.
    ///
    /// Not cancel safe: what was begun is finished, and its answer is lost.
    ///
    /// # Errors
    /// [`LedgerUnusable`], when that cannot be known; within, why the device is refused.
    pub(crate) async fn admit(
        &self,
        ask: Ask,
        now_ms: u64,
    ) -> Result<Result<Admitted, Refused>, LedgerUnusable> {
        self.blocking(move |shared| {
            let paired = shared.refresh()?;
            let standing = pairing::standing(&paired, &ask);
            let settled = match standing {
                Some(Ok(admitted)) if pairing::is_news(&paired, &ask, now_ms) => admitted,
                Some(settled) => return Ok(settled),
                None => return shared.pair(&paired, &ask, now_ms),
            };
            // Only to note that it was here. Nobody is kept out because that could not be written.
            let noted = shared.change(now_ms, |tables| pairing::admit(tables, &ask, now_ms));
            noted.or_else(|reason| {
                let reason = handoff::chain(&reason);
                warn!(reason = %reason, "could not note that a device was here");
                Ok(Ok(settled))
            })
        })
        .await
    }

    /// Whether a device whose token was issued then may still be connected in this role: to be asked for a connection that came from
    /// another generation, which may have missed a revocation on its way.
    ///
    /// # Errors
    /// [`LedgerUnusable`], when that cannot be known.
    pub(super) async fn still_admits(
        &self,
        device_id: String,
        role: String,
        issued_at_ms: Option<u64>,
    ) -> Result<bool, LedgerUnusable> {
        self.blocking(move |shared| {
            let paired = shared.refresh()?;
            Ok(paired.get(&device_id).is_some_and(|known| known.keeps(&role, issued_at_ms)))
        })
        .await
    }

    /// Reads the table if it has changed: what others have revoked since is told to [`Revocations`].
    ///
    /// # Errors
    /// [`LedgerUnusable`].
    pub(super) async fn refresh(&self) -> Result<(), LedgerUnusable> {
        self.blocking(|shared| shared.refresh().map(drop)).await
    }

    /// What is revoked from now on.
    pub(super) fn revocations(&self) -> Revocations {
        Revocations::of_all(&self.shared.revocations)
    }

    /// Somebody looks at the table for as long as this is kept.
    pub(super) fn watch(&self) -> Arc<Watch> {
        let mut watch = self.shared.watch.lock().unwrap_or_else(PoisonError::into_inner);
        watch.upgrade().unwrap_or_else(|| {
            let begun = Arc::new(Watch::begin(self.clone()));
            *watch = Arc::downgrade(&begun);
            begun
        })
    }

    /// Both tables as they are, without requests that have expired.
    pub(super) async fn tables(&self, now_ms: u64) -> Result<Tables, LedgerUnusable> {
        self.blocking(move |shared| shared.tables(now_ms)).await
    }

    /// Changes the tables, unless somebody else keeps them locked.
    pub(super) async fn change<T: Send + 'static>(
        &self,
        now_ms: u64,
        change: impl FnOnce(&mut Tables) -> T + Send + 'static,
    ) -> Result<T, LedgerUnusable> {
        self.blocking(move |shared| shared.change(now_ms, change)).await
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Shared) -> T + Send + 'static,
    ) -> T {
        let shared = Arc::clone(&self.shared);
        match tokio::task::spawn_blocking(move || work(&shared)).await {
            Ok(done) => done,
            Err(stopped) => std::panic::resume_unwind(stopped.into_panic()),
        }
    }
}

impl Shared {
    /// The table as it is on disk.
    fn refresh(&self) -> Result<Arc<Paired>, LedgerUnusable> {
        // Held while reading, so that nobody takes what is older for news.
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if self.ledger.stamp(PAIRED)? != known.stamp {
            let (stamp, paired) = self.ledger.read::<Paired>(PAIRED)?;
            for revoked in revocations::between(&known.paired, &paired) {
                // Nobody may be connected.
                let _ = self.revocations.send(revoked);
            }
            *known = Known { stamp, paired: Arc::new(paired) };
        }
        Ok(Arc::clone(&known.paired))
    }

    fn pair(
        &self,
        paired: &Paired,
        ask: &Ask,
        now_ms: u64,
    ) -> Result<Result<Admitted, Refused>, LedgerUnusable> {
        let decided = self.change(now_ms, |tables| pairing::admit(tables, ask, now_ms))?;
        if decided.is_ok() && !paired.contains_key(ask.device.id()) {
            info!(device = ask.device.id(), role = ask.role, "a device was paired");
        }
        Ok(decided)
    }

    fn tables(&self, now_ms: u64) -> Result<Tables, LedgerUnusable> {
        let (_, paired) = self.ledger.read(PAIRED)?;
        let (_, mut pending) = self.ledger.read(PENDING)?;
        pending::forget_expired(&mut pending, now_ms);
        Ok(Tables { paired, pending })
    }

    fn change<T>(
        &self,
        now_ms: u64,
        change: impl FnOnce(&mut Tables) -> T,
    ) -> Result<T, LedgerUnusable> {
        let held = self.ledger.lock()?;
        let former = self.tables(now_ms)?;
        let mut tables = former.clone();
        let done = change(&mut tables);
        // A crash in between leaves a request that was approved, which can be approved again; the other
        // way round it would leave nothing of it.
        if tables.paired != former.paired {
            held.write(PAIRED, &tables.paired)?;
            self.refresh()?;
        }
        if tables.pending != former.pending {
            held.write(PENDING, &tables.pending)?;
        }
        Ok(done)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::path::PathBuf;
    use std::time::Duration;

    use serde_json::{Value, json};

    use super::*;
    use crate::identity::approval;
    use crate::identity::paired::DeviceToken;
    use crate::identity::pairing::tests::{NOW_MS, ask};
    use crate::identity::{Locality, Proof};

    /// A state directory with the devices that several generations know.
    pub(crate) struct House {
        dir: tempfile::TempDir,
    }

    impl House {
        pub(crate) fn new() -> Self {
            Self { dir: tempfile::tempdir().unwrap() }
        }

        /// The devices, as one more generation knows them.
        pub(crate) fn generation(&self) -> Devices {
            Devices::of_state(self.dir.path())
        }

        pub(crate) fn file(&self, name: &str) -> PathBuf {
            self.dir.path().join("devices").join(name)
        }

        pub(crate) fn content(&self, name: &str) -> Value {
            serde_json::from_slice(&std::fs::read(self.file(name)).unwrap()).unwrap()
        }

        fn edit(&self, name: &str, change: impl FnOnce(&mut Value)) {
            let mut content = self.content(name);
            change(&mut content);
            std::fs::write(self.file(name), content.to_string()).unwrap();
        }
    }

    /// The token that a device was issued by pairing.
    pub(crate) async fn pair(devices: &Devices, ask: Ask) -> DeviceToken {
        let admitted = devices.admit(ask, NOW_MS).await.unwrap().unwrap();
        admitted.issued.unwrap().token
    }

    fn of_remote(seed: u8) -> Ask {
        Ask { locality: Locality::Remote, ..ask(seed, "operator.read") }
    }

    async fn is_over(revoked: impl Future<Output = ()>) -> bool {
        tokio::time::timeout(Duration::ZERO, revoked).await.is_ok()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn generations_that_pair_at_the_same_time_lose_nobody() {
        let house = House::new();
        let generations = [house.generation(), house.generation()];
        let mut pairing = tokio::task::JoinSet::new();
        for seed in 0..24 {
            let devices = generations[usize::from(seed % 2)].clone();
            pairing.spawn(async move {
                let asked = if seed < 16 { ask(seed, "operator.read") } else { of_remote(seed) };
                devices.admit(asked, NOW_MS).await.unwrap().is_ok()
            });
        }
        let paired = pairing.join_all().await.into_iter().filter(|paired| *paired).count();
        assert_eq!(paired, 16);
        assert_eq!(house.content("paired.json").as_object().unwrap().len(), 16);
        assert_eq!(house.content("pending.json").as_object().unwrap().len(), 8);
        let left: Vec<_> = std::fs::read_dir(house.file("")).unwrap().collect();
        assert_eq!(left.len(), 3, "{left:?}");
    }

    #[tokio::test]
    async fn a_device_that_was_added_from_outside_is_known_at_the_next_handshake() {
        let (house, elsewhere) = (House::new(), House::new());
        let devices = house.generation();
        let token = pair(&elsewhere.generation(), ask(2, "operator.read")).await;
        pair(&devices, ask(1, "operator.read")).await;
        let own = Ask { proof: Proof::OwnToken(token.reveal().to_owned()), ..of_remote(2) };
        assert!(devices.admit(own.clone(), NOW_MS).await.unwrap().is_err());
        let added = elsewhere.content("paired.json");
        house.edit("paired.json", |paired| {
            paired.as_object_mut().unwrap().extend(added.as_object().unwrap().clone());
        });
        assert_eq!(devices.admit(own, NOW_MS).await.unwrap().unwrap().issued.unwrap().token, token);
    }

    #[tokio::test]
    async fn what_others_have_written_survives_every_change() {
        let house = House::new();
        let devices = house.generation();
        pair(&devices, ask(1, "operator.read")).await;
        devices.admit(of_remote(3), NOW_MS).await.unwrap().unwrap_err();
        for name in ["paired.json", "pending.json"] {
            house.edit(name, |content| {
                let entry = content.as_object_mut().unwrap().values_mut().next().unwrap();
                entry["addedLater"] = json!({"deep": [1, null, "x"]});
                if let Some(token) = entry.pointer_mut("/tokens/operator") {
                    token["hint"] = json!("kept");
                }
            });
        }
        let id = ask(1, "").device.id().to_owned();
        pair(&devices, ask(2, "operator.read")).await;
        devices.admit(of_remote(4), NOW_MS).await.unwrap().unwrap_err();
        // And an upgrade of that very device.
        devices.admit(ask(1, "operator.admin"), NOW_MS).await.unwrap().unwrap_err();
        let mut requests = devices.tables(NOW_MS).await.unwrap().pending.into_values();
        let request = requests.find(|request| request.device_id == id).unwrap().request_id;
        let all = vec!["operator.admin".to_owned()];
        let approve =
            move |tables: &mut Tables| approval::approve(tables, &request, &all, NOW_MS).map(drop);
        devices.change(NOW_MS, approve).await.unwrap().unwrap();
        let paired = house.content("paired.json");
        assert_eq!(paired[&id]["addedLater"], json!({"deep": [1, null, "x"]}));
        assert_eq!(paired[&id]["tokens"]["operator"]["hint"], "kept");
        let pending = house.content("pending.json");
        let kept = pending.as_object().unwrap().values().filter(|r| !r["addedLater"].is_null());
        assert_eq!(kept.count(), 1);
    }

    #[tokio::test]
    async fn a_file_that_cannot_be_understood_is_named_and_left_as_it_is() {
        for (name, wrong, place) in [
            (
                "paired.json",
                "{\n \"d\": {\"deviceId\": 7, \"publicKey\": \"k\"}\n}",
                "a string at line 2 column 20",
            ),
            ("paired.json", "{\n \"d\": ", "line 2 column 6"),
            ("paired.json", "[]", "line 1"),
            ("paired.json", "", "line 1"),
            (
                "pending.json",
                "{\n \"r\": {\"deviceId\": \"d\", \"publicKey\": \"k\"}\n}",
                "missing field `ts` at line 2",
            ),
        ] {
            let house = House::new();
            let devices = house.generation();
            pair(&devices, ask(1, "operator.read")).await;
            std::fs::write(house.file(name), wrong).unwrap();
            let unusable = devices.admit(ask(2, "operator.read"), NOW_MS).await.unwrap_err();
            let words = handoff::chain(&unusable).to_string();
            assert!(words.contains(name) && words.contains(place), "{words}");
            assert_eq!(std::fs::read_to_string(house.file(name)).unwrap(), wrong);
        }
    }

    #[tokio::test]
    async fn a_handshake_that_changes_nothing_writes_nothing_and_waits_for_nobody() {
        let house = House::new();
        let devices = house.generation();
        let token = pair(&devices, ask(1, "operator.read")).await;
        let stamp = || std::fs::metadata(house.file("paired.json")).unwrap().modified().unwrap();
        let before = stamp();
        let ledger = Ledger::new(house.file(""));
        let devices = Devices::of(ledger.clone().impatient());
        let held = ledger.lock().unwrap();
        assert_eq!(pair(&devices, ask(1, "operator.read")).await, token);
        assert_eq!(stamp(), before);
        // Whoever has to be paired waits in vain; whoever has only a new name is let in all the same.
        let busy = devices.admit(ask(2, "operator.read"), NOW_MS).await.unwrap_err();
        assert!(matches!(busy, LedgerUnusable::Busy { .. }), "{busy}");
        let renamed = Ask { display_name: Some("desk".to_owned()), ..ask(1, "operator.read") };
        assert_eq!(pair(&devices, renamed).await, token);
        assert_eq!(stamp(), before);
        drop(held);
    }

    #[tokio::test]
    async fn a_request_is_forgotten_after_five_minutes() {
        let house = House::new();
        let devices = house.generation();
        devices.admit(of_remote(1), NOW_MS).await.unwrap().unwrap_err();
        let waiting = async |now_ms| devices.tables(now_ms).await.unwrap().pending.len();
        assert_eq!(waiting(NOW_MS + 300_000).await, 1);
        assert_eq!(waiting(NOW_MS + 300_001).await, 0);
        devices.admit(of_remote(1), NOW_MS + 300_001).await.unwrap().unwrap_err();
        assert_eq!(house.content("pending.json").as_object().unwrap().len(), 1);
    }

    #[tokio::test]
    async fn a_revocation_is_told_in_every_generation_that_looks() {
        let house = House::new();
        let (here, there) = (house.generation(), house.generation());
        for seed in [1, 2] {
            pair(&here, ask(seed, "operator.read")).await;
        }
        there.refresh().await.unwrap();
        let (one, other) = (ask(1, "").device.id().to_owned(), ask(2, "").device.id().to_owned());
        let (mut at_here, mut at_there) = (here.revocations(), there.revocations());
        house.edit("paired.json", |paired| {
            paired[&one]["tokens"]["operator"]["revokedAtMs"] = json!(NOW_MS);
        });
        assert!(!is_over(at_there.of(&one, "operator")).await, "nobody has looked");
        there.refresh().await.unwrap();
        // Any handshake looks.
        here.admit(ask(2, "operator.read"), NOW_MS).await.unwrap().unwrap();
        assert!(is_over(at_here.of(&one, "operator")).await);
        assert!(!is_over(there.revocations().of(&one, "operator")).await, "it was told once");
        assert!(is_over(at_there.of(&one, "operator")).await);
        assert!(!is_over(at_there.of(&other, "operator")).await);
        assert!(!there.still_admits(one, "operator".to_owned(), None).await.unwrap());
        assert!(there.still_admits(other.clone(), "operator".to_owned(), None).await.unwrap());
        assert!(!there.still_admits(other, "node".to_owned(), None).await.unwrap());
    }
}
