//! Manifests for Kustomize: one pod that writes, or several that share nothing.

use std::path::Path;

use super::super::Failed;
use super::compose::listed;
use super::words::{Words, flags_of};
use super::{Made, replaced};

const COMMON: [(&str, &str); 4] = [
    (
        "common/kustomization.yaml",
        include_str!("../../../../deploy/kubernetes/common/kustomization.yaml"),
    ),
    (
        "common/networkpolicy.yaml",
        include_str!("../../../../deploy/kubernetes/common/networkpolicy.yaml"),
    ),
    ("common/service.yaml", include_str!("../../../../deploy/kubernetes/common/service.yaml")),
    ("common/worker.env", include_str!("../../../../deploy/kubernetes/common/worker.env")),
];
const ONE_WRITER: [(&str, &str); 4] = [
    (
        "one-writer/kustomization.yaml",
        include_str!("../../../../deploy/kubernetes/one-writer/kustomization.yaml"),
    ),
    (
        "one-writer/statefulset.yaml",
        include_str!("../../../../deploy/kubernetes/one-writer/statefulset.yaml"),
    ),
    (
        "one-writer/poddisruptionbudget.yaml",
        include_str!("../../../../deploy/kubernetes/one-writer/poddisruptionbudget.yaml"),
    ),
    (
        "one-writer/programs.json",
        include_str!("../../../../deploy/kubernetes/one-writer/programs.json"),
    ),
];
const SHARED_NOTHING: [(&str, &str); 3] = [
    (
        "shared-nothing/kustomization.yaml",
        include_str!("../../../../deploy/kubernetes/shared-nothing/kustomization.yaml"),
    ),
    (
        "shared-nothing/deployment.yaml",
        include_str!("../../../../deploy/kubernetes/shared-nothing/deployment.yaml"),
    ),
    (
        "shared-nothing/poddisruptionbudget.yaml",
        include_str!("../../../../deploy/kubernetes/shared-nothing/poddisruptionbudget.yaml"),
    ),
];

/// The file of the pods.
const PODS: [&str; 2] = ["one-writer/statefulset.yaml", "shared-nothing/deployment.yaml"];
/// `preStop`, and what the kubelet waits longer than that and the front may take, in seconds.
const BEFORE: u64 = 5;
const LONGER: u64 = 10;
/// Where clients come to.
const PORT: u16 = 18789;

pub(super) fn made(words: &Words, out: &Path, shared_nothing: bool) -> Result<Made, Failed> {
    if shared_nothing && words.program.is_empty() {
        let meant = "--shared-nothing is for a server of yours: holdfast init kubernetes --shared-nothing -- -- PROGRAM";
        return Err(Failed::Usage { meant: meant.to_owned() });
    }
    let port = words.port()?.unwrap_or(PORT);
    let (folder, files) = if shared_nothing {
        ("shared-nothing", &SHARED_NOTHING[..])
    } else {
        ("one-writer", &ONE_WRITER[..])
    };
    let mut made = Vec::new();
    for (name, text) in COMMON.iter().chain(files) {
        let text = if PODS.contains(name) { pods(text, words, port)? } else { (*text).to_owned() };
        let text = match *name {
            "common/service.yaml" => {
                replaced(&text, &format!("port: {PORT}"), &format!("port: {port}"))
            }
            "one-writer/kustomization.yaml" if !words.program.is_empty() => {
                replaced(&text, "- name: holdfast\n", "- name: your-server\n")
            }
            _ => text,
        };
        made.push((*name, text));
    }
    let apply = format!("kubectl apply -k {}", out.join(folder).display());
    let first = if shared_nothing {
        "docker build -t your-server:0.1.0 .    # with the front in it: deploy/README.md shows how"
    } else {
        "kubectl create secret generic holdfast --from-literal=token=\"$(openssl rand -hex 32)\""
    };
    Ok(Made { files: made, next: [first.to_owned(), apply], note: None })
}

fn pods(text: &str, words: &Words, port: u16) -> Result<String, Failed> {
    let line = text.lines().find(|line| line.trim_start().starts_with("args: ["));
    let args = line.expect("each of them has one").trim_start();
    let defaults = flags_of(args.split([' ', '[', ']', ',']).filter(|word| !word.is_empty()));
    let all = words.all(&defaults);
    let stop = words.stop_timeout(&all)?.as_secs();
    // `$(NAME)` would be a variable's value.
    let said = format!("args: {}", listed(&all, |word| word.replace("$(", "$$(")));
    let mut text = replaced(text, args, &said);
    let before = format!("# preStop {BEFORE} s + drain 30 s + {LONGER} s.");
    text = replaced(&text, &before, &before.replace("30", &stop.to_string()));
    let grace = |seconds| format!("terminationGracePeriodSeconds: {seconds}");
    text = replaced(&text, &grace(45), &grace(BEFORE + stop + LONGER));
    text = replaced(&text, &format!("containerPort: {PORT}"), &format!("containerPort: {port}"));
    if !words.program.is_empty() && text.contains("image: holdfast\n") {
        let image = "image: your-server\n          command: [/usr/local/bin/holdfast]\n";
        text = replaced(&text, "image: holdfast\n", image);
        let places = "env:\n            - name: HOLDFAST_STATE_DIR\n              value: /data\n            - name: \
                      HOLDFAST_LISTEN\n              value: 0.0.0.0:18789\n";
        text = replaced(&text, "env:\n", places);
    }
    Ok(text)
}
