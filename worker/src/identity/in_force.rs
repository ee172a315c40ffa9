//! The shared token in force: whatever the configuration says now, for requests, handshakes and those who are
//! connected because of it.
//!
//! ```text
//! the configuration changed ─► found again ─► another? ─► asked for from the next request on
//!                                   │             └─► whoever showed the one before hears of it
//!                                   └ cannot be used: the last good one stays in force
//! ```
//!
//! **Invariants**
//! - There is always one, and one at a time: a change is never a time without.
//! - A change costs no takeover, and nobody who has shown a token of their own.

use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::watch;
use tracing::{info, warn};

use super::token::{Fingerprint, SharedToken, TokenSource, TokenUnusable};
use crate::state::StateDir;
use crate::state::config::Settled;

/// Whether a worker may make up a token by itself: not where other machines can connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MayGenerate {
    /// It may.
    Yes,
    /// Somebody has to choose one.
    No,
}

/// Where a token is found.
#[derive(Debug)]
pub(crate) struct TokenPlaces {
    pub(crate) state: StateDir,
    pub(crate) config_path: PathBuf,
    pub(crate) may_generate: MayGenerate,
}

impl TokenPlaces {
    /// The token somebody has set, or else one that is made up; `None` where that must not be.
    ///
    /// # Errors
    /// [`TokenUnusable`], when one is set that cannot be used.
    pub(crate) fn find(
        &self,
        config: &Settled,
    ) -> Result<Option<(SharedToken, TokenSource)>, TokenUnusable> {
        match SharedToken::find(&self.state, config, &self.config_path)? {
            Some(found) => Ok(Some(found)),
            None if self.may_generate == MayGenerate::Yes => {
                SharedToken::generate(&self.state).map(Some)
            }
            None => Ok(None),
        }
    }
}

/// The token in force.
#[derive(Debug)]
pub(crate) struct TokenInForce {
    token: watch::Sender<Arc<SharedToken>>,
    places: TokenPlaces,
}

impl TokenInForce {
    /// This one, until another is found in these places.
    pub(crate) fn new(token: SharedToken, places: TokenPlaces) -> Self {
        Self { token: watch::Sender::new(Arc::new(token)), places }
    }

    /// What clients have to show now.
    pub(crate) fn current(&self) -> Arc<SharedToken> {
        Arc::clone(&self.token.borrow())
    }

    /// Looks for the token again, since the configuration has changed. It blocks for as long as reading takes.
    pub(crate) fn follow(&self, config: &Settled) {
        let found = match self.places.find(config) {
            Ok(Some((found, _))) => found,
            Ok(None) => {
                warn!(
                    "no token is set any more, and other machines can connect; the last one stays in force"
                );
                return;
            }
            Err(unusable) => {
                let error = &unusable as &dyn std::error::Error;
                warn!(error, "the shared token cannot be used; the last good one stays in force");
                return;
            }
        };
        let changed = self.token.send_if_modified(|token| {
            let changes = token.fingerprint() != found.fingerprint();
            if changes {
                *token = Arc::new(found);
            }
            changes
        });
        if changed {
            info!("the shared token has changed");
        }
    }

    /// Ends when this token is not in force, which may be now. Cancel safe.
    pub(crate) fn replaced(&self, shown: Fingerprint) -> impl Future<Output = ()> + Send + use<> {
        let mut token = self.token.subscribe();
        async move {
            let replaced = token.wait_for(|token| token.fingerprint() != shown).await.is_ok();
            if !replaced {
                // The worker ends, and that is told in other words.
                std::future::pending::<()>().await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;
    use crate::state::config::{Environment, understand};

    fn settled(text: &str) -> Settled {
        understand(text, &Environment::default()).unwrap().settled
    }

    fn of(token: &str) -> Settled {
        settled(&format!("{{gateway: {{auth: {{token: '{token}'}}}}}}"))
    }

    fn rig(may_generate: MayGenerate) -> (tempfile::TempDir, TokenInForce) {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(Some(dir.path().to_owned())).unwrap();
        let places = TokenPlaces { state, config_path: "/openclaw.json".into(), may_generate };
        let (token, _) = places.find(&of("one")).unwrap().unwrap();
        (dir, TokenInForce::new(token, places))
    }

    #[test]
    fn another_token_is_in_force_at_once_and_whoever_showed_the_one_before_hears_of_it() {
        let (_dir, token) = rig(MayGenerate::Yes);
        let one = token.current().fingerprint();
        let mut replaced = Box::pin(token.replaced(one));
        token.follow(&of("one"));
        assert_eq!(replaced.as_mut().now_or_never(), None);
        token.follow(&of("two"));
        assert_eq!(replaced.now_or_never(), Some(()));
        assert!(token.current().is(b"two") && !token.current().is(b"one"));
        // Too late to hear of it is not too late.
        assert_eq!(token.replaced(one).now_or_never(), Some(()));
    }

    #[test]
    fn a_token_that_cannot_be_used_leaves_the_last_one_in_force() {
        let (_dir, token) = rig(MayGenerate::No);
        let elsewhere = settled("{gateway: {auth: {token: {source: 'exec', id: 'x'}}}}");
        for unusable in [of(" "), elsewhere, settled("{}")] {
            token.follow(&unusable);
            assert!(token.current().is(b"one"));
        }
    }

    #[test]
    fn a_token_that_is_taken_out_is_followed_by_one_that_is_made_up() {
        let (dir, token) = rig(MayGenerate::Yes);
        token.follow(&settled("{}"));
        let made_up = std::fs::read(dir.path().join("token")).unwrap();
        assert!(token.current().is(made_up.trim_ascii()));
    }

    #[tokio::test]
    async fn the_end_of_the_worker_replaces_nothing() {
        let (_dir, token) = rig(MayGenerate::Yes);
        let replaced = Box::pin(token.replaced(token.current().fingerprint()));
        drop(token);
        assert_eq!(replaced.now_or_never(), None);
    }
}
