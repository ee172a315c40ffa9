//! What a worker is furnished with before it opens: its runs, schedule, plugins and registry, and the gateway that
//! has all of them.
//!
//! ```text
//! configured, store ─► runs, timetable ─► plugins ─► registry ─► knowledge ─► gateway
//!                                                                   └─► follows the configuration's file
//! ```

use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwap;
use handoff::migrate::Post;
use handoff::{GenerationId, Worker};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::agents::fallback::Stock;
use crate::agents::harness::Keeping;
use crate::agents::{Runs, recover};
use crate::args::Args;
use crate::attendance::Attendance;
use crate::identity::{Devices, TokenInForce};
use crate::log_ring::LogRing;
use crate::methods::Knowledge;
use crate::methods::plugins::{self, permits};
use crate::neighbourhood::Neighbourhood;
use crate::plugins::{Catalogue, Plugins};
use crate::registry::Registry;
use crate::serve::{AccessLog, Gateway};
use crate::state::StateDir;
use crate::state::config::{self, CurrentConfig};
use crate::state::store::Store;
use crate::timetable::Timetable;

/// All that a worker serves with.
pub(super) struct Furnished {
    /// What connections share.
    pub(super) gateway: Arc<Gateway>,
    /// What methods know.
    pub(super) knowledge: Arc<Knowledge>,
    /// The plugins that are being started.
    pub(super) loaded: Arc<Catalogue>,
    /// What runs agents.
    pub(super) stock: Arc<Stock>,
    /// The schedule, which nobody drives yet.
    pub(super) timetable: Timetable,
    /// Why a fresh worker is wanted, whenever one is.
    pub(super) wishes: mpsc::Receiver<String>,
    /// Follows the configuration, until this is dropped.
    pub(super) following: JoinSet<()>,
}

/// Furnishes a worker that has its configuration and its database. From here on plugins are being started.
pub(super) async fn furnish(
    worker: &Worker,
    args: &Args,
    log: LogRing,
    (state, config, token): (StateDir, CurrentConfig, TokenInForce),
    store: Store,
    descriptors: Option<u64>,
) -> Furnished {
    let access_log = if args.access_log { AccessLog::On } else { AccessLog::Off };
    let post = Post::new(usize::try_from(args.limits.max_buffered_bytes).unwrap_or(usize::MAX));
    let runs = Arc::new(Runs::new(post.clone(), Arc::default(), store.clone()));
    recover(&runs).await;
    runs.overview().refresh(&store).await;
    let timetable = Timetable::new(store.clone(), post.clone());
    let (wants_takeover, wishes) = mpsc::channel(1);
    let generation = worker.generation().unwrap_or(GenerationId::new(0)).to_string();
    let plugins = Plugins::new(state.path(), generation, worker.lease(), post.clone())
        .giving_descriptors(descriptors);
    let holds = config.holds();
    let loaded = Arc::new(plugins.load(|id| permits(&holds, id)));
    let keeping = Keeping {
        most: args.cli.cli_sessions.get(),
        idle: args.cli.cli_idle_timeout,
        ..Keeping::default()
    };
    let word_delay = Duration::from_millis(args.echo_delay_ms);
    let stock = Stock::new(state.path().to_owned(), keeping, word_delay);
    let stock = Arc::new(stock);
    sweep(&stock).await;
    let clis = Arc::clone(&stock);
    runs.releases().part_by(Box::new(move |neighbour, session| {
        Some(Box::pin(clis.clis().part(neighbour, session)?))
    }));
    let knowledge = Knowledge {
        state_dir: state.path().to_owned(),
        token,
        devices: Devices::of_state(state.path()),
        registry: ArcSwap::from_pointee(Registry::of(
            &holds,
            Arc::clone(&stock),
            Arc::clone(&loaded),
        )),
        plugins,
        config: ArcSwap::new(holds),
        config_path: config.path().to_owned(),
        current_config: Mutex::new(config),
        config_writes: Mutex::default(),
        wants_takeover: worker.generation().map(|_| wants_takeover),
        wait_pause: args.wait_pause,
        attendance: Attendance::default(),
        neighbourhood: Neighbourhood::new(post.clone()),
        log,
        store,
        jobs: timetable.jobs(),
        runs: Arc::clone(&runs),
    };
    let knowledge = Arc::new(knowledge);
    let following = following(&knowledge);
    let gateway = Arc::new(Gateway::new(
        worker.generation(),
        Arc::clone(&knowledge),
        (args.limits.clone(), access_log),
        worker.stance(),
    ));
    // By now all of them are met. The plugins that take their time have named theirs.
    for condition in ["state-directory", "token", "config", "store"] {
        gateway.readiness.require(condition).met();
    }
    Furnished { gateway, knowledge, loaded, stock, timetable, wishes, following }
}

/// Ends what workers have left that died: before anything is started where they were.
async fn sweep(stock: &Arc<Stock>) {
    let stock = Arc::clone(stock);
    // A panic there has said why, and leaves it to the next worker.
    let _ = tokio::task::spawn_blocking(move || stock.clis().sweep()).await;
}

/// Follows the configuration's file and what it says of plugins, until this is dropped.
fn following(knowledge: &Arc<Knowledge>) -> JoinSet<()> {
    let follower = Arc::clone(knowledge);
    let mut following = JoinSet::new();
    let path = knowledge.config_path.clone();
    following.spawn(config::follow(path, move || follower.look_again()));
    following.spawn(plugins::follow(Arc::clone(knowledge)));
    following
}
