//! Publications of rooms: kept in order, within bounds, and of one life of the room only.

use std::sync::Arc;

use super::*;
use crate::base::saved::{Bounds, Save, SavedRoom, SavedRow};

const BOUNDS: Bounds = Bounds { count: 5, bytes: 10_000, age_ms: DAY };

pub(super) fn save(
    room: &str,
    epoch: u64,
    offsets: impl IntoIterator<Item = u64>,
    at: u64,
) -> Save {
    let row = |offset: u64| SavedRow { offset, at, bytes: offset.to_string().as_bytes().into() };
    let rows: Vec<SavedRow> = offsets.into_iter().map(row).collect();
    let reserved = rows.last().map_or(0, |row| row.offset);
    Save { room: room.into(), epoch, reserved, rows, bounds: BOUNDS }
}

pub(super) fn keep(world: &mut World, save: Save) {
    assert_eq!(world.ask(Ask::Save(save)), Ok(Answer::Done));
}

pub(super) fn rooms(world: &mut World, bytes: u64) -> Vec<SavedRoom> {
    let (mut all, mut after) = (Vec::new(), Arc::from(""));
    loop {
        match world.ask(Ask::Rooms { after, bytes }) {
            Ok(Answer::Rooms { rooms, next }) => {
                all.extend(rooms);
                let Some(next) = next else { return all };
                after = next;
            }
            other => panic!("{other:?}"),
        }
    }
}

pub(super) fn offsets(room: &SavedRoom) -> Vec<u64> {
    for row in &room.rows {
        assert_eq!(*row.bytes, *row.offset.to_string().as_bytes());
    }
    room.rows.iter().map(|row| row.offset).collect()
}

#[test]
fn what_was_kept_of_rooms_is_listed_in_the_order_of_its_numbers() {
    on_all(|mut world| {
        for (room, first) in [("b", 1), ("a", 7), ("a\u{1}x", 3), ("ab", 1)] {
            keep(&mut world, save(room, 40, first..first + 2, NOW));
            keep(&mut world, save(room, 40, [first + 3], NOW));
        }
        let reserve = Save { reserved: 900, ..save("b", 40, [], NOW) };
        keep(&mut world, reserve);
        for bytes in [0, u64::MAX] {
            let all = rooms(&mut world, bytes);
            let names: Vec<&str> = all.iter().map(|room| &*room.room).collect();
            assert_eq!(names, ["a", "a\u{1}x", "ab", "b"]);
            assert_eq!(offsets(&all[0]), [7, 8, 10]);
            assert_eq!((all[0].epoch, all[0].reserved, all[0].dropped), (40, 10, 0));
            assert_eq!((offsets(&all[3]), all[3].reserved), (vec![1, 2, 4], 900));
        }
    });
}

#[test]
fn a_room_keeps_to_its_count_its_bytes_and_its_age() {
    on_all(|mut world| {
        keep(&mut world, save("a", 1, 1..=4, NOW));
        keep(&mut world, save("a", 1, 5..=8, NOW));
        let all = rooms(&mut world, u64::MAX);
        assert_eq!((offsets(&all[0]), all[0].dropped), (vec![4, 5, 6, 7, 8], 3));
        let narrow = Bounds { bytes: 150, ..BOUNDS };
        keep(&mut world, Save { bounds: narrow, ..save("a", 1, [9], NOW + 10) });
        let all = rooms(&mut world, u64::MAX);
        assert_eq!((offsets(&all[0]), all[0].dropped), (vec![8, 9], 7));
        world.now = NOW + DAY;
        let all = rooms(&mut world, u64::MAX);
        assert_eq!(
            (offsets(&all[0]), all[0].dropped),
            (vec![9], 8),
            "what is too old is not listed"
        );
        world.prune();
        assert_eq!(rooms(&mut world, u64::MAX), all, "and leaves");
        world.now += 10;
        assert!(rooms(&mut world, u64::MAX).is_empty());
        world.prune();
        world.now = NOW;
        assert!(rooms(&mut world, u64::MAX).is_empty(), "nothing is left of it");
    });
}

#[test]
fn another_life_of_a_room_and_one_that_is_forgotten_leave_nothing() {
    on_all(|mut world| {
        let wide = Bounds { count: 1000, ..BOUNDS };
        keep(&mut world, Save { bounds: wide, ..save("a", 1, 1..=600, NOW) });
        keep(&mut world, Save { bounds: wide, ..save("a", 2, 1..=2, NOW) });
        let all = rooms(&mut world, u64::MAX);
        assert_eq!((all[0].epoch, offsets(&all[0]), all[0].reserved), (2, vec![1, 2], 2));
        world.ask(Ask::Forget { room: "a".into(), epoch: 1 }).expect("done");
        assert_eq!(rooms(&mut world, u64::MAX).len(), 1, "another life was meant");
        world.ask(Ask::Forget { room: "a".into(), epoch: 2 }).expect("done");
        assert!(rooms(&mut world, u64::MAX).is_empty());
        world.prune();
        keep(&mut world, save("a", 2, [9], NOW));
        let all = rooms(&mut world, u64::MAX);
        assert_eq!(offsets(&all[0]), [9], "the old rows have left");
    });
}

#[test]
fn what_is_left_of_a_write_that_was_said_to_have_failed_is_written_over() {
    on_all(|mut world| {
        keep(&mut world, save("a", 1, 1..=4, NOW));
        keep(&mut world, save("a", 1, 3..=3, NOW));
        let all = rooms(&mut world, u64::MAX);
        assert_eq!(offsets(&all[0]), [1, 2, 3]);
        keep(&mut world, save("a", 1, 4..=5, NOW));
        assert_eq!(
            offsets(&rooms(&mut world, u64::MAX)[0]),
            [1, 2, 3, 4, 5],
            "five are not too many"
        );
    });
}

#[test]
fn a_store_in_memory_without_space_refuses_and_keeps_nothing_of_it() {
    let mut world = World { store: Box::new(Memory::new(limits(), 4000)), now: NOW };
    let wide = Bounds { count: 1000, ..BOUNDS };
    let mut kept = 0;
    let refused = (1..100)
        .map(|offset| Save { bounds: wide, ..save("a", 1, [offset], NOW) })
        .find_map(|save| match world.ask(Ask::Save(save)) {
            Ok(_) => {
                kept += 1;
                None
            }
            Err(refused) => Some(refused),
        });
    assert_eq!(refused, Some(Refused::Full));
    assert!(kept > 5);
    assert_eq!(rooms(&mut world, u64::MAX)[0].rows.len(), kept);
}
