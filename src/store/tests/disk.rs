//! What only a store in a file has: it outlives who opened it, and disks fail.

use std::fs;

use super::*;

#[test]
fn what_was_committed_is_there_when_the_file_is_opened_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut world = World { store: Box::new(open(folder.path())), now: NOW };
    let id = world.append_as("u", "1", "n").id;
    world.ask(gone([("u", NOW)])).expect("noted");
    drop(world);
    let mut world = World { store: Box::new(open(folder.path())), now: NOW };
    let page = world.list("u", 0, 10);
    assert_eq!((page.notes[0].id, &*page.notes[0].payload, page.unread), (id, "1", 1));
    assert!(world.append_as("u", "1", "n").repeated);
    assert_eq!(world.last_seen("u"), Some(NOW));
}

#[test]
fn a_file_that_cannot_be_opened_is_named_with_the_reason() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("no store");
    fs::write(&path, "this was never a store, and is long enough to be looked at twice")
        .expect("a file");
    let nowhere = folder.path().join("nowhere").join("store.redb");
    let open_one = open(folder.path());
    let busy = folder.path().join("store.redb");
    for path in [&path, &nowhere, &busy, &folder.path().to_owned()] {
        let error = Disk::open(path, limits(), 1 << 20).expect_err("no store").to_string();
        assert!(error.starts_with(&format!("{}: opening: ", path.display())), "{error}");
    }
    drop(open_one);
    assert!(Disk::open(&busy, limits(), 1 << 20).is_ok());
    let before = fs::read(&path).expect("the file");
    assert!(before.starts_with(b"this was never"), "what is not ours is left alone");
}
