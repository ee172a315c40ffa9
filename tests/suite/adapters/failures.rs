//! Programs that are not what they should be: each has its own words, and costs nobody anything.

use holdfast_tests::rig::http::Request;
use holdfast_tests::rig::{Front, Gate, Process, Program, Setup, Signal, Traffic, eventually};

use super::{activated, answering, given, held, relayed, server};
use crate::generation;

/// Has a program fail in the place of a sound one, and proves what every such failure has in common.
async fn fails(setup: impl FnOnce(Setup) -> Setup, program: &Program, reasons: &[&str]) {
    let front = Front::with(|s| setup(s).flag("--ready-timeout", "3s")).await;
    let incumbent = answering(&front).await;
    let traffic = Traffic::to(&front).with_new();
    traffic.flows(2).await;
    let takeover = front.takeover_to(program).await;
    takeover.assert_rolled_back();
    for reason in reasons {
        assert!(takeover.reason().contains(reason), "no {reason:?}: {takeover:?}");
    }
    traffic.flows(2).await;
    traffic.stop().await.assert_no_failures();
    assert_eq!(answering(&front).await, incumbent);
    assert_eq!(front.serving().await.generation, generation(1));
    // An adapter and its program, and nobody else.
    eventually("nobody of the failed one is left", async || {
        (alive_below(front.process()).len() == 2).then_some(())
    })
    .await;
    front.takeover_to(&server(sound(&front).await)).await.assert_committed();
}

fn alive_below(front: Process) -> Vec<Process> {
    front.descendants().into_iter().filter(|process| !process.is_gone()).collect()
}

/// The words of the program that serves.
async fn sound(front: &Front) -> Vec<String> {
    let arguments = given(front, "argument ").await;
    let words = arguments.iter().filter_map(|line| line.split_once(' '));
    words.filter(|(index, _)| *index != "0").map(|(_, word)| word.to_owned()).collect()
}

fn activate(setup: Setup) -> Setup {
    activated(setup, ["listen-fds", "ready"])
}

fn relay(setup: Setup) -> Setup {
    relayed(setup, ["port:PORT"])
}

#[tokio::test]
async fn a_program_that_exits_as_if_all_were_well_is_told_of() {
    let reason = ["the program exited with code 0 before it was ready"];
    fails(activate, &server(["exit:0"]), &reason).await;
    fails(relay, &server(["exit:0"]), &reason).await;
}

#[tokio::test]
async fn a_program_that_exits_with_an_error_is_told_of() {
    fails(relay, &server(["exit:3"]), &["the program exited with code 3 before it was ready"])
        .await;
}

#[tokio::test]
async fn a_program_that_is_never_ready_is_told_of_with_its_own_words() {
    let words = ["listen-fds", "status:half way there"];
    let reasons = ["was not ready within 3s", "has not said READY=1", "half way there"];
    fails(activate, &server(words), &reasons).await;
    fails(relay, &server(["hang"]), &["was not ready within 3s", "nobody listens on 127.0.0.1:"])
        .await;
}

#[tokio::test]
async fn a_program_that_listens_elsewhere_than_it_was_told_is_told_of() {
    let elsewhere = server(["at:127.0.0.1:0"]);
    fails(relay, &elsewhere, &["the program listens on 127.0.0.1:", ", not on 127.0.0.1:"]).await;
}

#[tokio::test]
async fn a_program_that_forks_away_is_told_of_and_ended() {
    let reasons = ["exited with code 0", "left processes in the background", "foreground"];
    fails(activate, &server(["fork", "listen-fds"]), &reasons).await;
    fails(relay, &server(["fork", "port:PORT"]), &reasons).await;
}

#[tokio::test]
async fn a_program_that_takes_the_public_port_itself_is_told_of() {
    for (setup, words) in
        [(activate as fn(Setup) -> Setup, ["listen-fds", "ready"]), (relay, ["port:PORT", "ready"])]
    {
        let front = Front::with(setup).await;
        let incumbent = answering(&front).await;
        let public = format!("at:{}", front.tcp());
        let program = words.iter().fold(server([public]), |program, word| program.arg(*word));
        let takeover = front.takeover_to(&program).await;
        takeover.assert_rolled_back();
        for words in ["the program listens on", &front.tcp().to_string(), "itself"] {
            assert!(takeover.reason().contains(words), "no {words:?}: {takeover:?}");
        }
        assert_eq!(answering(&front).await, incumbent);
    }
}

#[tokio::test]
async fn a_program_that_cannot_be_executed_is_told_of() {
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("program");
    std::fs::write(&file, "#!/nonexistent/interpreter\n").unwrap();
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    fails(activate, &Program::new(&file), &["could not be executed"]).await;
    fails(relay, &Program::new("/nonexistent/program"), &["/nonexistent/program"]).await;
}

#[tokio::test]
async fn a_program_that_ignores_its_stop_signal_is_ended_at_the_deadline_and_what_it_had_is_counted()
 {
    for setup in
        [(|s| activated(s, ["listen-fds", "ready", "ignore-term"])) as fn(Setup) -> Setup, |s| {
            relayed(s, ["port:PORT", "ignore-term"])
        }]
    {
        let front = Front::with(|s| setup(s).flag("--drain-timeout", "500ms")).await;
        let program = answering(&front).await;
        let gate = Gate::closed();
        let mut held = held(&front, &gate.hold()).await;
        front.takeover().await.assert_cut(1);
        assert!(held.receive().await.is_err());
        assert!(program.is_gone());
        assert_eq!(front.log().lines_with("did not end by the deadline"), 1);
        let answer = super::get(&front, "/").await;
        assert_eq!(answer.generation(), generation(2));
    }
}

#[tokio::test]
async fn a_program_that_dies_is_started_again_and_nobody_is_refused() {
    for setup in [activate as fn(Setup) -> Setup, relay] {
        let front = Front::with(setup).await;
        answering(&front).await.signal(Signal::SIGKILL);
        front.until("the next one serves", |s| s.is_settled() && s.crashes == 1).await;
        assert_eq!(super::get(&front, "/").await.generation(), generation(2));
        assert_eq!(front.log().lines_with("the program was ended by SIGKILL while it served"), 1);
    }
}

#[tokio::test]
async fn a_program_goes_with_its_adapter() {
    for setup in [activate as fn(Setup) -> Setup, relay] {
        let front = Front::with(setup).await;
        let program = answering(&front).await;
        front.serving().await.worker().unwrap().signal(Signal::SIGKILL);
        front.until("the next one serves", |s| s.is_settled() && s.crashes == 1).await;
        eventually("the program is gone", async || program.is_gone().then_some(())).await;
    }
}

#[tokio::test]
async fn what_a_program_set_apart_goes_with_its_adapter_too() {
    for setup in [(|s| activated(s, ["apart", "fd:{fd}", "ready"])) as fn(Setup) -> Setup, |s| {
        relayed(s, ["apart", "port:PORT"])
    }] {
        let front = Front::with(setup).await;
        let apart = answering(&front).await;
        assert_eq!(apart.group(), Some(apart.pid()));
        front.serving().await.worker().unwrap().signal(Signal::SIGKILL);
        front.until("the next one serves", |s| s.is_settled() && s.crashes == 1).await;
        eventually("it is gone", async || apart.is_gone().then_some(())).await;
        assert_eq!(super::get(&front, "/").await.generation(), generation(2));
    }
}

#[tokio::test]
async fn a_program_under_an_adapter_stays_under_it_when_it_is_replaced_by_another() {
    let front = Front::with(relay).await;
    front.takeover_to(&server(["port:PORT", "status:other"])).await.assert_committed();
    front.takeover().await.assert_committed();
    assert_eq!(given(&front, "argument 2 ").await, ["status:other"]);
    let mut connection = held(&front, "/").await;
    connection.receive().await.unwrap();
    connection.exchange(&Request::get("/")).await.unwrap();
}
