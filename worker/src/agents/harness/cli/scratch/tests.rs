//! Whose a directory is, and when it goes.

use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};

use super::*;

fn root() -> (tempfile::TempDir, ScratchRoot) {
    let dir = tempfile::tempdir().unwrap();
    let root = ScratchRoot::at(dir.path().join("cli"));
    root.open().unwrap();
    (dir, root)
}

fn furniture() -> Furniture {
    let text = |text: &str| Item::Text(text.to_owned());
    vec![
        ("mcp.json".into(), text("{}")),
        ("plugin/skills/a.md".into(), text("a")),
        ("plugin/skills/b".into(), Item::Link("/".into())),
    ]
}

/// A child that lives until its standard input ends.
fn child() -> (Child, Life) {
    let mut child = Command::new("cat");
    child.stdin(Stdio::piped()).stdout(Stdio::null()).process_group(0);
    let child = child.spawn().unwrap();
    let life = Life::of(i32::try_from(child.id()).unwrap()).unwrap();
    (child, life)
}

fn end(mut child: Child) {
    drop(child.stdin.take());
    child.wait().unwrap();
}

fn entries(root: &ScratchRoot) -> usize {
    fs::read_dir(&root.0.path).unwrap().count()
}

/// Writes down that somebody else owns it.
fn owned_by(root: &ScratchRoot, name: &str, owner: Life, child: Option<Life>) {
    let record = Record { owner, ..Record::of_this_process(child).unwrap() };
    record.write(&root.0.record_path(name)).unwrap();
}

fn dead() -> Life {
    Life { started: Life::own().unwrap().started + 1, ..Life::own().unwrap() }
}

#[test]
fn a_directory_and_its_files_are_their_owners_alone() {
    let (_dir, root) = root();
    let scratch = root.furnish(&furniture()).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
    assert_eq!(mode(&root.0.path), 0o700);
    assert_eq!(mode(&scratch.path()), 0o700);
    assert_eq!(mode(&scratch.path().join("plugin/skills")), 0o700);
    assert_eq!(mode(&scratch.path().join("mcp.json")), 0o600);
    assert_eq!(mode(&root.0.record_path(scratch.name())), 0o600);
}

#[test]
fn a_root_that_others_may_enter_is_closed_and_one_that_is_a_link_refused() {
    let dir = tempfile::tempdir().unwrap();
    let open = dir.path().join("open");
    DirBuilder::new().mode(0o755).create(&open).unwrap();
    ScratchRoot::at(open.clone()).open().unwrap();
    assert_eq!(fs::metadata(&open).unwrap().mode() & 0o777, 0o700);
    let link = dir.path().join("link");
    std::os::unix::fs::symlink(&open, &link).unwrap();
    assert!(matches!(ScratchRoot::at(link).open(), Err(ScratchFailed::NotOurs { .. })));
}

#[test]
fn one_that_no_child_has_used_goes_at_once() {
    let (_dir, root) = root();
    drop(root.furnish(&furniture()).unwrap());
    assert_eq!(entries(&root), 0);
}

#[test]
fn nothing_stays_of_one_that_could_not_be_furnished() {
    let (_dir, root) = root();
    for outside in ["../x", "/x", "a/../../x"] {
        let refused = root.furnish(&vec![(outside.into(), Item::Text(String::new()))]).unwrap_err();
        assert!(matches!(refused, ScratchFailed::Outside { .. }), "{outside}");
    }
    let twice = [(); 2].map(|()| ("x".into(), Item::Text(String::new()))).into();
    assert!(matches!(root.furnish(&twice), Err(ScratchFailed::Write { .. })));
    assert_eq!(entries(&root), 0);
}

#[test]
fn one_in_which_a_child_lives_stays_and_once_its_owner_is_dead_both_are_ended() {
    let (_dir, root) = root();
    let mut scratch = root.furnish(&furniture()).unwrap();
    let (mut child, life) = child();
    scratch.inhabit(life).unwrap();
    let (path, name) = (scratch.path(), scratch.name().to_owned());
    drop(scratch);
    assert_eq!(root.sweep().unwrap(), 0);
    assert!(path.join("mcp.json").exists());
    owned_by(&root, &name, dead(), Some(life));
    assert_eq!(root.sweep().unwrap(), 1);
    assert_eq!(entries(&root), 0);
    assert!(!child.wait().unwrap().success(), "it was ended");
}

#[test]
fn it_goes_when_the_child_has_gone() {
    let (_dir, root) = root();
    let mut scratch = root.furnish(&furniture()).unwrap();
    let (child, life) = child();
    scratch.inhabit(life).unwrap();
    end(child);
    drop(scratch);
    assert_eq!(entries(&root), 0);
}

#[test]
fn one_that_was_handed_over_is_its_new_owners_to_remove() {
    let (_dir, root) = root();
    let mut scratch = root.furnish(&furniture()).unwrap();
    let (child, life) = child();
    scratch.inhabit(life).unwrap();
    let (path, name) = (scratch.path(), scratch.name().to_owned());
    scratch.hand_over();
    owned_by(&root, &name, dead(), Some(life));
    let adopted = root.adopt(&name, life).unwrap();
    assert_eq!(adopted.path(), path);
    let record = Record::read(&root.0.record_path(&name)).unwrap();
    assert_eq!((record.owner, record.child), (Life::own().unwrap(), Some(life)));
    end(child);
    assert!(path.exists(), "only its owner removes it");
    drop(adopted);
    assert_eq!(entries(&root), 0);
}

#[test]
fn nobody_adopts_what_is_not_here() {
    let (_dir, root) = root();
    for name in ["", "..", "../../etc", "0123456789abcdef0123456789abcdef"] {
        assert!(
            matches!(root.adopt(name, Life::own().unwrap()), Err(ScratchFailed::Unknown { .. })),
            "{name}"
        );
    }
}

#[test]
fn whoever_leaves_at_once_ends_its_own_and_nobody_elses() {
    let (_dir, root) = root();
    let [mut mine, mut others] = [(); 2].map(|()| {
        let mut scratch = root.furnish(&furniture()).unwrap();
        let (child, life) = child();
        scratch.inhabit(life).unwrap();
        (scratch, child, life)
    });
    let beside = Life::of(1).unwrap();
    owned_by(&root, others.0.name(), beside, Some(others.2));
    assert_eq!(root.clear().unwrap(), 1);
    assert!(!mine.0.path().exists() && others.0.path().exists());
    assert!(!mine.1.wait().unwrap().success(), "it was ended");
    assert!(others.1.try_wait().unwrap().is_none());
    others.1.kill().unwrap();
    others.1.wait().unwrap();
}

#[test]
fn a_sweep_removes_what_the_dead_have_left_and_nothing_else() {
    let (_dir, root) = root();
    let [alive, left, used, elsewhere, torn] = [(); 5].map(|()| {
        let scratch = root.furnish(&furniture()).unwrap();
        let name = scratch.name().to_owned();
        scratch.hand_over();
        name
    });
    owned_by(&root, &left, dead(), None);
    owned_by(&root, &used, dead(), Some(dead()));
    let record = Record {
        owner: dead(),
        namespace: "pid:[1]".into(),
        ..Record::of_this_process(None).unwrap()
    };
    record.write(&root.0.record_path(&elsewhere)).unwrap();
    fs::write(root.0.record_path(&torn), "{").unwrap();
    fs::create_dir(root.0.path.join("unrecorded")).unwrap();
    assert_eq!(root.sweep().unwrap(), 2);
    for (name, stays) in
        [(&alive, true), (&left, false), (&used, false), (&elsewhere, true), (&torn, true)]
    {
        assert_eq!(root.0.path.join(name).exists(), stays);
        assert_eq!(root.0.record_path(name).exists(), stays);
    }
    assert!(root.0.path.join("unrecorded").exists());
    assert_eq!(root.sweep().unwrap(), 0);
}
