//! What becomes of CLI agents when the configuration changes, the worker ends, or another one goes on with them.

use std::sync::Arc;

use handoff::link::{self, Link};
use handoff::migrate::{Extent, Links, Moved, Post, Returned, Source, Target};
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};

use super::super::super::Reason;
use super::super::rig::{Rig, begin_run, fixture, keeping, next_piece, runs, until};
use super::*;
use crate::state::config::{Environment, understand};

fn settled(backends: &Value) -> Settled {
    let text = json!({"agents": {"defaults": {"cliBackends": backends}}}).to_string();
    understand(&text, &Environment::default()).unwrap().settled
}

fn agents(place: &Path, backends: &Value) -> CliAgents {
    let agents = CliAgents::kept(place, Toolbox::default(), keeping());
    agents.renew(&settled(backends));
    agents
}

fn at_leisure() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

fn claude(agents: &CliAgents) -> Cli {
    agents.model("claude-cli", "sonnet").unwrap().unwrap()
}

#[tokio::test]
async fn a_change_of_the_configuration_holds_from_the_next_turn_on() {
    let rig = Rig::new(json!({}));
    let place = tempfile::tempdir().unwrap();
    let agents = agents(place.path(), &json!({"claude-cli": {"command": fixture()}}));
    let cli = claude(&agents);
    let past = rig.past("a");
    assert_eq!(begin_run(&cli, "one", &past).await, Ok("hello turn 1: one".to_owned()));
    let changed = json!({"command": fixture(), "env": {"A": "1"}});
    agents.renew(&settled(&json!({"claude-cli": changed, "x": {}})));
    assert_eq!(begin_run(&cli, "two", &past).await, Ok("hello turn 2: two".to_owned()));
    assert_eq!(rig.starts().len(), 2);
    let failure = agents.model("x", "").unwrap().unwrap_err();
    assert_eq!(failure.reason, Reason::Config);
    assert!(agents.model("y", "").is_none());
    agents.close(at_leisure()).await;
}

#[tokio::test]
async fn a_backend_that_is_configured_no_more_keeps_its_sessions_and_gets_them_back() {
    let rig = Rig::new(json!({}));
    let place = tempfile::tempdir().unwrap();
    let mine = json!({"mine": {
        "command": fixture(), "output": "jsonl", "input": "stdin", "liveSession": "claude-stdio",
    }});
    let agents = agents(place.path(), &mine);
    let cli = agents.model("mine", "").unwrap().unwrap();
    let past = rig.past("a");
    begin_run(&cli, "one", &past).await.unwrap();
    agents.renew(&settled(&json!({})));
    assert!(agents.model("mine", "").is_none());
    agents.renew(&settled(&mine));
    let cli = agents.model("mine", "").unwrap().unwrap();
    assert_eq!(begin_run(&cli, "two", &past).await, Ok("hello turn 2: two".to_owned()));
    assert_eq!(rig.starts().len(), 1);
    agents.renew(&settled(&json!({})));
    agents.close(at_leisure()).await;
    assert_eq!(std::fs::read_dir(place.path().join(PLACE)).unwrap().count(), 0);
}

#[tokio::test]
async fn what_is_at_work_when_there_is_no_time_left_is_ended_with_its_directory() {
    let rig = Rig::new(json!({}));
    let place = tempfile::tempdir().unwrap();
    let agents = agents(place.path(), &json!({"claude-cli": {"command": fixture()}}));
    let cli = claude(&agents);
    let past = rig.past("a");
    let child = begin_run(&cli, "child", &past).await.unwrap();
    let mut run = cli.run("stubborn".to_owned(), &past);
    assert_eq!(next_piece(&mut run).await, Some(Ok("no".to_owned())));
    agents.close(Instant::now()).await;
    let failed = next_piece(&mut run).await.unwrap().unwrap_err();
    assert!(failed.contains("signal 9"), "{failed}");
    until("its group is gone", || !runs(&child)).await;
    assert_eq!(std::fs::read_dir(place.path().join(PLACE)).unwrap().count(), 0);
}

/// Two workers with a migration link between them.
struct Two {
    rig: Rig,
    place: tempfile::TempDir,
    first: Arc<CliAgents>,
    second: Arc<CliAgents>,
    extent: watch::Sender<Extent>,
    roster: Roster,
    moved: watch::Receiver<Moved>,
    links: Links,
    /// The sessions whose lanes were yielded.
    yielded: mpsc::Receiver<String>,
}

impl Two {
    fn new() -> Self {
        let (rig, place) = (Rig::new(json!({})), tempfile::tempdir().unwrap());
        let configured = json!({"claude-cli": {"command": fixture()}});
        let [first, second] = [(); 2].map(|()| Arc::new(agents(place.path(), &configured)));
        let (extent, wanted) = watch::channel(Extent::Nothing);
        let (source, roster, links, moved) = Source::new(wanted, Post::default());
        let back = Arc::clone(&first);
        tokio::spawn(source.run(move |frozen, returned| {
            let arrival = match returned {
                Returned::Aborted => Arrival::Returned,
                Returned::Rejected => Arrival::Rejected,
            };
            back.resume(frozen, arrival);
        }));
        let (yields, yielded) = mpsc::channel(100);
        // Nobody may look by then.
        first.move_by(roster.clone(), move |session| {
            let _ = yields.try_send(session.to_owned());
        });
        Self { rig, place, first, second, extent, roster, moved, links, yielded }
    }

    /// Everything is to move, to somebody who has this end of the link.
    fn begin(&self) -> Link {
        let (ours, theirs) = link::pair().unwrap();
        self.links.introduce(Link::new(ours).unwrap());
        self.extent.send_replace(Extent::Everything);
        Link::new(theirs).unwrap()
    }

    /// Everything is to move to the second.
    fn move_all(&self) {
        let (target, second) =
            (Target::new(self.begin(), Post::default()), Arc::clone(&self.second));
        tokio::spawn(async move {
            let resume = move |frozen| second.resume(frozen, Arrival::Moved);
            target.run(resume, std::future::pending()).await
        });
    }

    async fn turn(
        &self,
        agents: &CliAgents,
        session: &str,
        message: &str,
    ) -> Result<String, String> {
        begin_run(&claude(agents), message, &self.rig.past(session)).await
    }

    /// Lanes go as they are yielded; ends when so many sessions are gone.
    async fn part(&mut self, sessions: usize) {
        for _ in 0..sessions {
            let session = self.yielded.recv().await.unwrap();
            self.first.part(Neighbour::Successor, &session).unwrap().await;
        }
    }

    fn records(&self) -> usize {
        std::fs::read_dir(self.place.path().join(PLACE)).unwrap().count()
    }

    async fn end(self) {
        self.first.close(at_leisure()).await;
        self.second.close(at_leisure()).await;
        assert_eq!(self.records(), 0);
    }
}

#[tokio::test]
async fn sessions_move_to_another_worker_and_go_on_there_with_all_they_have() {
    let mut two = Two::new();
    for session in ["a", "b"] {
        assert_eq!(two.turn(&two.first, session, "one").await.unwrap(), "hello turn 1: one");
    }
    assert_eq!(two.roster.present(), 2);
    two.move_all();
    two.part(2).await;
    two.roster.emptied().await;
    assert_eq!(two.moved.borrow().sessions, 2);
    assert_eq!(two.records(), 4);
    for session in ["a", "b"] {
        assert_eq!(two.turn(&two.second, session, "two").await.unwrap(), "hello turn 2: two");
        let tools = two.turn(&two.second, session, "tools").await.unwrap();
        assert!(tools.contains(r#""tools":[]"#), "{tools}");
    }
    assert_eq!(two.rig.starts().len(), 2);
    two.end().await;
}

#[tokio::test]
async fn a_turn_under_way_is_finished_before_its_session_moves() {
    let mut two = Two::new();
    two.turn(&two.first, "other", "one").await.unwrap();
    let mut run = claude(&two.first).run("slow 300".to_owned(), &two.rig.past("a"));
    // It is polled first.
    let first = next_piece(&mut run);
    two.move_all();
    let (piece, ()) = tokio::join!(first, async {
        // Whoever is at rest does not wait for whoever is not.
        let session = two.yielded.recv().await.unwrap();
        assert_eq!(session, "other");
        two.first.part(Neighbour::Successor, &session).unwrap().await;
    });
    let mut said = piece.unwrap().unwrap();
    while let Some(more) = next_piece(&mut run).await {
        said.push_str(&more.unwrap());
    }
    assert_eq!(said, "hello turn 1: slow 300");
    two.part(1).await;
    assert_eq!(two.turn(&two.second, "a", "two").await.unwrap(), "hello turn 2: two");
    assert_eq!(two.rig.starts().len(), 2);
    two.end().await;
}

#[tokio::test]
async fn a_session_whose_lane_is_wanted_goes_at_once_and_another_stays() {
    let two = Two::new();
    for session in ["a", "b"] {
        two.turn(&two.first, session, "one").await.unwrap();
    }
    two.move_all();
    two.extent.send_replace(Extent::Canary);
    two.first.part(Neighbour::Successor, "b").unwrap().await;
    assert!(two.first.part(Neighbour::Successor, "b").is_none(), "it is gone");
    assert_eq!((two.roster.present(), two.moved.borrow().sessions), (1, 1));
    two.end().await;
}

#[tokio::test]
async fn a_session_whose_lane_goes_back_is_ended_and_resumed_there() {
    let two = Two::new();
    two.turn(&two.second, "a", "one").await.unwrap();
    two.second.part(Neighbour::Incumbent, "a").unwrap().await;
    assert_eq!(two.records(), 0);
    assert!(two.second.part(Neighbour::Incumbent, "a").is_none());
    two.end().await;
}

#[tokio::test]
async fn a_session_that_nobody_takes_is_ended_before_its_lane_goes() {
    let two = Two::new();
    two.turn(&two.first, "a", "one").await.unwrap();
    let link = two.begin();
    let parted = two.first.part(Neighbour::Successor, "a").unwrap();
    link.receive::<Value>().await.unwrap();
    let rejected = json!([{"index": 0, "reason": "what is that?"}]);
    link.send(&json!({"type": "prepared", "seq": 1, "rejected": rejected}), &[]).await.unwrap();
    parted.await;
    assert_eq!(two.records(), 0);
    two.roster.emptied().await;
    assert_eq!(two.moved.borrow().sessions, 0);
    two.end().await;
}

#[tokio::test]
async fn a_session_whose_successor_dies_before_it_has_it_goes_on_where_it_was() {
    let two = Two::new();
    two.turn(&two.first, "a", "one").await.unwrap();
    let link = two.begin();
    let _parted = two.first.part(Neighbour::Successor, "a").unwrap();
    link.receive::<Value>().await.unwrap();
    drop(link);
    two.moved.clone().wait_for(|moved| !moved.linked).await.unwrap();
    two.first.stay();
    assert_eq!(two.turn(&two.first, "a", "two").await.unwrap(), "hello turn 2: two");
    let failed = two.turn(&two.first, "a", "crash now").await.unwrap_err();
    assert!(failed.contains("exited with 3"), "its reaper is here: {failed}");
    assert_eq!(two.rig.starts().len(), 1);
    two.end().await;
}

#[tokio::test]
async fn what_is_dismissed_holds_nobody_up_and_is_ended_by_whoever_waits_for_it() {
    let two = Two::new();
    two.turn(&two.first, "a", "one").await.unwrap();
    two.turn(&two.first, "b", "one").await.unwrap();
    let parted = two.first.part(Neighbour::Successor, "a").unwrap();
    two.first.dismiss();
    two.roster.emptied().await;
    parted.await;
    assert_eq!(two.records(), 2);
    two.turn(&two.first, "c", "one").await.unwrap();
    assert_eq!(two.roster.present(), 0);
    two.end().await;
}

#[tokio::test]
async fn a_session_that_is_lost_with_its_successor_leaves_nothing_when_its_former_owner_ends() {
    let two = Two::new();
    two.turn(&two.first, "a", "one").await.unwrap();
    let link = two.begin();
    let parted = two.first.part(Neighbour::Successor, "a").unwrap();
    link.receive::<Value>().await.unwrap();
    link.send(&json!({"type": "prepared", "seq": 1}), &[]).await.unwrap();
    let commit = link.receive::<Value>().await.unwrap().unwrap().message;
    assert_eq!(commit, json!({"type": "commit", "seq": 1}));
    drop(link);
    parted.await;
    assert_eq!(two.records(), 2);
    two.end().await;
}
