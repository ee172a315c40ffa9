//! `holdfast top`, and what else is drawn, in a real terminal: tmux's, whose screen is read and whose keys are pressed.

use std::path::PathBuf;
use std::process::Output;

use holdfast_tests::rig::{Front, Process, Signal, binaries, eventually, soon};
use tokio::process::Command;

use crate::{good, skipped};

/// A terminal of 80 × 24 in which a shell runs a command, and says how it ended.
struct Terminal {
    socket: PathBuf,
}

impl Terminal {
    /// One with `holdfast top`; `None` where there is no tmux.
    async fn showing(front: &Front) -> Option<Self> {
        Self::running(front, "", "top --interval 100ms").await
    }

    /// One with another command of `holdfast`, and what its environment has beyond the shell's.
    async fn running(front: &Front, environment: &str, words: &str) -> Option<Self> {
        let socket = front.directory().join("tmux");
        let this = Self { socket };
        let top = format!(
            "{environment} HOLDFAST_CONTROL='{}' '{}' {words}; echo \"ended with $?\"; stty -a; exec cat",
            front.control().display(),
            binaries::holdfast().display(),
        );
        let shape = ["-f", "/dev/null", "new-session", "-d", "-x", "80", "-y", "24", "sh", "-c"];
        let output = this.tmux(&[&shape[..], &[&top]].concat()).await?;
        assert!(output.status.success(), "{output:?}");
        Some(this)
    }

    /// Runs a command of tmux's, if there is a tmux.
    async fn tmux(&self, words: &[&str]) -> Option<Output> {
        let mut command = Command::new("tmux");
        command.env("LC_ALL", "C.UTF-8").env("TERM", "screen-256color");
        command.env_remove("TMUX").env_remove("NO_COLOR");
        let output = command.arg("-u").arg("-S").arg(&self.socket).args(words).output();
        soon("tmux answers", output).await.ok()
    }

    async fn told(&self, words: &[&str]) -> String {
        let output = self.tmux(words).await.expect("tmux was there a moment ago");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    async fn screen(&self) -> String {
        self.told(&["capture-pane", "-p"]).await
    }

    async fn press(&self, key: &str) {
        self.told(&["send-keys", key]).await;
    }

    /// The screen, once it has all these words.
    async fn until(&self, words: &[&str]) -> String {
        let what = format!("the screen shows {words:?}");
        eventually(&what, async || {
            let screen = self.screen().await;
            words.iter().all(|words| screen.contains(words)).then_some(screen)
        })
        .await
    }

    /// The process that draws.
    async fn top(&self) -> Process {
        let pid = self.told(&["display-message", "-p", "#{pane_pid}"]).await;
        let shell = pid.trim().parse().ok().and_then(Process::find).expect("the shell runs");
        shell.descendants()[0]
    }

    /// Whether the terminal is as it was before: its own page, a cursor, lines and echo.
    async fn assert_given_back(&self, code: u8) {
        let screen = self.until(&[&format!("ended with {code}"), "icanon"]).await;
        assert!(!screen.contains("-icanon") && !screen.contains("-echo "), "{screen}");
        let flags = self.told(&["display-message", "-p", "#{alternate_on} #{cursor_flag}"]).await;
        assert_eq!(flags.trim(), "0 1", "{screen}");
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // It is a server of this test's own, by its socket; one that is gone already is fine.
        let mut command = std::process::Command::new("tmux");
        let _ = command.arg("-S").arg(&self.socket).arg("kill-server").output();
    }
}

#[tokio::test]
async fn t_and_y_take_over_p_pauses_and_q_gives_the_terminal_back() {
    let front = Front::with(good).await;
    let Some(terminal) = Terminal::showing(&front).await else {
        return skipped("tmux is not installed");
    };
    let screen = terminal.until(&["g1 serves", "── takeovers", "q quit"]).await;
    assert!(screen.contains(&format!("pid {}", front.process().pid())), "{screen}");
    terminal.press("t").await;
    terminal.until(&["Replace the worker now?"]).await;
    terminal.press("n").await;
    terminal.until(&["t takeover"]).await;
    terminal.press("t").await;
    terminal.until(&["Replace the worker now?"]).await;
    terminal.press("y").await;
    let screen = terminal.until(&["g2 serves", "g1→g2", "committed", "takeover 1 began"]).await;
    assert!(screen.lines().all(|line| line.chars().count() <= 80), "{screen}");
    let status = front.until("it has settled", |status| status.is_settled()).await;
    assert_eq!(status.takeovers.committed, 1, "the first question was answered with no");
    terminal.press("p").await;
    terminal.until(&["paused for", "p resume"]).await;
    assert!(front.status().await.paused.is_some());
    terminal.press("p").await;
    terminal.until(&["g2 serves", "p pause"]).await;
    terminal.press("q").await;
    terminal.assert_given_back(0).await;
}

#[tokio::test]
async fn a_front_that_renews_itself_goes_away_or_is_another_one_is_told_and_found_again() {
    let mut front = Front::with(good).await;
    let Some(terminal) = Terminal::showing(&front).await else {
        return skipped("tmux is not installed");
    };
    terminal.until(&["g1 serves"]).await;
    front.run(&["reexec"]).await.assert_code(0);
    terminal.until(&["g1 serves", "the front renewed itself"]).await;
    front.kill().await;
    terminal.until(&["no front answers on", "trying again", "g1"]).await;
    front.start_again(good).await;
    terminal.until(&["another front answers", "g2 serves"]).await;
    terminal.press("Escape").await;
    terminal.assert_given_back(0).await;
}

#[tokio::test]
async fn a_terminal_may_be_small_and_large_and_is_given_back_when_top_is_told_to_end() {
    let front = Front::with(good).await;
    let Some(terminal) = Terminal::showing(&front).await else {
        return skipped("tmux is not installed");
    };
    terminal.until(&["g1 serves"]).await;
    terminal.told(&["resize-window", "-x", "60", "-y", "10"]).await;
    terminal.until(&["too small: 60 × 10"]).await;
    terminal.told(&["resize-window", "-x", "120", "-y", "40"]).await;
    let screen = terminal.until(&["── lately", "g1 serves"]).await;
    assert!(screen.lines().any(|line| line.chars().count() == 120), "{screen}");
    terminal.top().await.signal(Signal::SIGTERM);
    terminal.assert_given_back(143).await;
}

#[tokio::test]
async fn top_without_a_terminal_or_a_front_says_what_there_is_instead() {
    let mut front = Front::with(good).await;
    let outcome = front.run(&["top"]).await;
    outcome.assert_code(64).assert_says("holdfast status --json --watch");
    let outcome = front.run(&["top", "--interval", "1ms"]).await;
    outcome.assert_code(64).assert_says("holdfast top --interval 1s");
    front.kill().await;
    let Some(terminal) = Terminal::showing(&front).await else {
        return skipped("tmux is not installed");
    };
    let screen = terminal.until(&["no front answers on", "holdfast run", "ended with 1"]).await;
    let words = screen.split_whitespace().collect::<Vec<_>>().concat();
    assert!(words.contains(front.control().to_str().expect("a path is text")), "{screen}");
}

#[tokio::test]
async fn status_watch_draws_over_itself() {
    let front = Front::with(good).await;
    let Some(terminal) = Terminal::running(&front, "", "status --watch 0.1").await else {
        return skipped("tmux is not installed");
    };
    terminal.until(&["g1 runs", "next takeover: possible now"]).await;
    front.takeover().await.assert_committed();
    let screen = terminal.until(&["g2 runs", "last takeover: g1 to g2", "1 committed"]).await;
    assert_eq!(screen.matches("next takeover").count(), 1, "{screen}");
    assert!(!screen.contains("g1 runs"), "{screen}");
    terminal.top().await.signal(Signal::SIGTERM);
    terminal.assert_given_back(143).await;
}

#[tokio::test]
async fn there_are_colours_on_a_terminal_unless_nobody_wants_them() {
    // As one of eight colours, and as one of 256.
    const GREEN: [&str; 2] = ["\u{1b}[32m", "\u{1b}[38;5;2m"];
    for command in ["top", "status --watch"] {
        for environment in ["", "NO_COLOR=1", "TERM=dumb"] {
            let front = Front::with(good).await;
            let Some(terminal) = Terminal::running(&front, environment, command).await else {
                return skipped("tmux is not installed");
            };
            terminal.until(&["serving"]).await;
            let screen = terminal.told(&["capture-pane", "-p", "-e"]).await;
            let is_coloured = GREEN.iter().any(|green| screen.contains(green));
            assert_eq!(is_coloured, environment.is_empty(), "{command}, {environment}: {screen}");
        }
    }
    let front = Front::with(good).await;
    assert!(!front.run(&["status"]).await.output.contains('\u{1b}'), "it is no terminal");
}
