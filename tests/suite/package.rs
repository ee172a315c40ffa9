//! The Debian package: what is in it, and that an upgrade renews what runs instead of restarting it.
//!
//! It is installed by dpkg into a directory, with a `systemctl` that only writes down what it is told.

use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use holdfast_tests::rig::{Front, Outcome, Traffic, binaries};
use tokio::process::Command;

use crate::{generation, quick, skipped};

/// How long dpkg may take, which syncs files to the disk.
const LONG: std::time::Duration = std::time::Duration::from_secs(120);

fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/deb")
}

async fn ended(mut command: Command) -> Outcome {
    let output = tokio::time::timeout(LONG, command.kill_on_drop(true).output()).await;
    output.expect("it ends").expect("it can be started").into()
}

/// A root of its own for dpkg.
struct Machine {
    place: tempfile::TempDir,
}

impl Machine {
    fn new() -> Self {
        let place = tempfile::tempdir().expect("a directory can be made");
        let machine = Self { place };
        for directory in ["info", "updates", "triggers"] {
            let path = machine.at("var/lib/dpkg").join(directory);
            std::fs::create_dir_all(path).expect("a directory can be made");
        }
        std::fs::write(machine.at("var/lib/dpkg/status"), "").expect("a file can be made");
        let stubs = machine.place.path().join("stubs");
        std::fs::create_dir(&stubs).expect("a directory can be made");
        for stub in ["systemctl", "systemd-sysusers"] {
            let log = machine.place.path().join("told");
            let text = format!("#!/bin/sh\necho \"{stub} $*\" >>{}\n", log.display());
            write_program(&stubs.join(stub), &text);
        }
        machine
    }

    /// A path below its root.
    fn at(&self, path: &str) -> PathBuf {
        self.place.path().join("root").join(path)
    }

    /// What the stubs were told.
    fn told(&self) -> String {
        std::fs::read_to_string(self.place.path().join("told")).unwrap_or_default()
    }

    fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        let path = std::env::var("PATH").unwrap_or_default();
        let stubs = self.place.path().join("stubs");
        command.env("PATH", format!("{}:{path}", stubs.display()));
        command
    }

    async fn dpkg(&self, words: &[&str]) -> Outcome {
        let mut command = self.command("dpkg");
        command.arg("--root").arg(self.at("")).arg("--log=/dev/null");
        command.args(["--force-script-chrootless", "--force-depends"]).args(words);
        ended(command).await
    }

    /// Builds a package of these binaries.
    async fn package(&self, version: &str, binaries: &Path) -> String {
        let mut command = self.command(scripts().join("build"));
        command.arg(self.place.path().join("packages"));
        command.env("HOLDFAST_BINARIES", binaries).env("HOLDFAST_DEB_VERSION", version);
        // What is for the network only takes time here.
        command.env("DPKG_DEB_COMPRESSOR_TYPE", "none").env("HOLDFAST_KEEP_SYMBOLS", "1");
        let built = ended(command).await;
        built.assert_code(0);
        built.output.trim().to_owned()
    }

    /// A front of the system's unit, as far as it can be without systemd.
    async fn front(&self) -> Front {
        let holdfast = self.at("usr/bin/holdfast");
        let script = format!("shift; exec {} \"$@\"", holdfast.display());
        let state = self.at("var/lib/holdfast");
        Front::with(|s| {
            quick(s.wrapped_in(&["sh", "-c", &script, "sh"]))
                .control(&state.join("control.sock"))
                .environment("HOLDFAST_STATE_DIR", &state)
        })
        .await
    }
}

fn write_program(path: &Path, text: &str) {
    // Another file: the one that is there may be running.
    let _ = std::fs::remove_file(path);
    std::fs::write(path, text).expect("a file can be written");
    let mode = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(path, mode).expect("a mode can be set");
}

fn built() -> PathBuf {
    binaries::holdfast().parent().expect("it lies somewhere").to_owned()
}

/// Whether packages can be installed here.
async fn possible() -> bool {
    let there = Command::new("dpkg-deb").arg("--version").output().await.is_ok();
    if !there || !nix::unistd::geteuid().is_root() {
        skipped("only root can install packages, and only where dpkg is");
        return false;
    }
    true
}

#[tokio::test]
async fn an_upgrade_renews_the_front_and_the_worker_and_nobody_notices() {
    if !possible().await {
        return;
    }
    let machine = Machine::new();
    let first = machine.package("0.1.0", &built()).await;
    let installed = machine.dpkg(&["--install", &first]).await;
    installed.assert_code(0);
    assert!(installed.output.contains("systemctl enable --now holdfast"), "{installed:?}");
    let front = machine.front().await;
    let traffic = Traffic::to(&front).with_new().with_keep_alive();
    traffic.flows(1).await;

    let second = machine.package("0.2.0", &built()).await;
    let upgraded = machine.dpkg(&["--install", &second]).await;
    upgraded.assert_code(0);
    traffic.flows(1).await;
    traffic.stop().await.assert_no_failures();
    let status = front.status().await;
    assert_eq!(status.front.pid, front.process().pid(), "the front was started again");
    assert_eq!(status.takeovers.committed, 1, "{upgraded:?}");
    assert_eq!(status.serving().map(|g| g.generation), Some(generation(2)));
    for words in ["the front is holdfast", "g2 committed"] {
        assert!(upgraded.output.contains(words), "no {words:?}: {upgraded:?}");
    }
    let image = std::fs::read_link(format!("/proc/{}/exe", front.process().pid())).unwrap();
    assert_eq!(image, machine.at("usr/bin/holdfast"), "it is not the binary that lies there now");
    for word in ["stop", "restart", "disable"] {
        assert!(!machine.told().contains(word), "{}", machine.told());
    }
}

#[tokio::test]
async fn an_upgrade_whose_worker_or_front_is_broken_leaves_who_serves_and_says_so() {
    if !possible().await {
        return;
    }
    let machine = Machine::new();
    let first = machine.package("0.1.0", &built()).await;
    machine.dpkg(&["--install", &first]).await.assert_code(0);
    let front = machine.front().await;

    let broken = machine.place.path().join("broken");
    std::fs::create_dir(&broken).unwrap();
    symlink(binaries::holdfast(), broken.join("holdfast")).unwrap();
    write_program(&broken.join("holdfast-worker"), "#!/bin/sh\nexit 7\n");
    let second = machine.package("0.2.0", &broken).await;
    let upgraded = machine.dpkg(&["--install", &second]).await;
    upgraded.assert_code(0);
    assert!(upgraded.output.contains("of the version before serves on"), "{upgraded:?}");
    assert!(upgraded.output.contains("systemctl reload holdfast"), "{upgraded:?}");
    assert_eq!(front.serving().await.generation, generation(1));

    // A front that cannot even be started: as dpkg calls the script.
    write_program(
        &machine.at("usr/bin/holdfast"),
        "#!/bin/sh\n[ \"$1\" = status ] || { echo broken; exit 1; }\n",
    );
    let mut configure = machine.command(scripts().join("postinst"));
    configure.args(["configure", "0.2.0"]).env("DPKG_ROOT", machine.at(""));
    let configured = ended(configure).await;
    configured.assert_code(0);
    assert!(configured.output.contains("goes on as the version before: broken"), "{configured:?}");
    assert_eq!(front.serving().await.generation, generation(1));
}

#[tokio::test]
async fn a_removal_stops_and_a_purge_removes_what_is_ours_alone() {
    if !possible().await {
        return;
    }
    let machine = Machine::new();
    let package = machine.package("0.1.0", &built()).await;
    machine.dpkg(&["--install", &package]).await.assert_code(0);
    let state = machine.at("var/lib/holdfast");
    let mut front = machine.front().await;
    std::fs::write(state.join("somebodys"), "").unwrap();
    std::fs::write(machine.at("etc/holdfast/environment"), "HOLDFAST_TOKEN=x\n").unwrap();

    machine.dpkg(&["--remove", "holdfast"]).await.assert_code(0);
    let stop = "systemctl disable --now holdfast.socket holdfast.service";
    assert!(machine.told().contains(stop), "{}", machine.told());
    assert!(!machine.at("usr/bin/holdfast").exists());
    assert!(machine.at("etc/holdfast/environment").exists(), "a changed conffile is kept");
    front.signal(holdfast_tests::rig::Signal::SIGTERM);
    assert_eq!(front.exit_code().await, 0);
    assert!(state.join("state.sqlite").exists());

    let purged = machine.dpkg(&["--purge", "holdfast"]).await;
    purged.assert_code(0);
    let left: Vec<_> =
        std::fs::read_dir(&state).unwrap().flatten().map(|e| e.file_name()).collect();
    assert_eq!(left, ["somebodys"], "{purged:?}");
    assert!(purged.output.contains("is kept"), "{purged:?}");
    assert!(!machine.at("etc/holdfast").exists());
    std::fs::remove_file(state.join("somebodys")).unwrap();
}

#[tokio::test]
async fn the_package_has_units_pages_completions_and_a_conffile() {
    if !possible().await {
        return;
    }
    let machine = Machine::new();
    let package = machine.package("0.1.0", &built()).await;
    machine.dpkg(&["--install", &package]).await.assert_code(0);
    for unit in ["lib/systemd/system/holdfast.service", "usr/lib/systemd/user/holdfast.service"] {
        let text = std::fs::read_to_string(machine.at(unit)).unwrap();
        assert!(text.contains("ExecStart=/usr/bin/holdfast run"), "{text}");
        assert!(!text.contains("/usr/local"), "{text}");
    }
    for path in [
        "usr/bin/holdfast-worker",
        "usr/lib/sysusers.d/holdfast.conf",
        "usr/share/man/man1/holdfast-takeover.1.gz",
        "usr/share/bash-completion/completions/holdfast",
        "usr/share/zsh/vendor-completions/_holdfast",
        "usr/share/fish/vendor_completions.d/holdfast.fish",
        "usr/share/doc/holdfast/copyright",
    ] {
        assert!(machine.at(path).exists(), "no {path}");
    }
    let environment = std::fs::metadata(machine.at("etc/holdfast/environment")).unwrap();
    assert_eq!(environment.permissions().mode() & 0o777, 0o600);
    let mut asked = machine.command("dpkg-deb");
    let asked = ended({
        asked.args(["--field", &package, "Depends"]);
        asked
    })
    .await;
    assert!(asked.output.starts_with("libc6 (>= 2."), "{asked:?}");
}

#[tokio::test]
async fn the_scripts_of_the_package_are_without_a_fault_that_shellcheck_knows() {
    let mut command = Command::new("shellcheck");
    for script in ["build", "postinst", "prerm", "postrm"] {
        command.arg(scripts().join(script));
    }
    if Command::new("shellcheck").arg("--version").output().await.is_err() {
        return skipped("shellcheck is not installed");
    }
    ended(command).await.assert_code(0);
}
