//! What is remembered of clients of Socket.IO, tried without connections.

use super::*;
use proptest::prelude::*;

const EPOCH: u64 = 7;

fn at(offset: u64) -> Cursor {
    Cursor { epoch: EPOCH, offset }
}

fn shown(room: &str, offset: u64) -> String {
    format!("{EPOCH:x}.{offset}.{room}")
}

fn recalls() -> Recalls {
    Recalls::new(&Seed::new(1), 2)
}

/// The memo of a connection in rooms from their beginnings, that was given these.
fn given(rooms: &[&str], numbers: &[(usize, u64)]) -> Memo {
    let mut memo = Memo::new(1, Time::ZERO, &Seed::new(1));
    let names: Vec<Arc<str>> = rooms.iter().map(|room| Arc::from(*room)).collect();
    names.iter().for_each(|room| memo.join(room, at(0)));
    numbers.iter().for_each(|(room, offset)| memo.give(&names[*room], *offset));
    memo
}

fn offsets(memo: &Memo, shown: Option<&str>) -> Option<Vec<u64>> {
    Some(memo.places(shown)?.iter().map(|(_, at)| at.offset).collect())
}

#[test]
fn a_place_in_one_room_says_what_was_heard_of_all() {
    let memo = given(&["a", "b"], &[(0, 1), (1, 1), (0, 2), (1, 4), (0, 3)]);
    assert_eq!(offsets(&memo, None), Some(vec![0, 0]), "it has heard nothing");
    assert_eq!(offsets(&memo, Some(&shown("b", 1))), Some(vec![1, 1]));
    assert_eq!(offsets(&memo, Some(&shown("a", 2))), Some(vec![2, 1]));
    assert_eq!(offsets(&memo, Some(&shown("b", 3))), Some(vec![2, 3]), "in the midst of several");
    assert_eq!(offsets(&memo, Some(&shown("a", 3))), Some(vec![3, 4]));
}

#[test]
fn a_place_that_was_never_given_recalls_nobody() {
    let memo = given(&["a", "b"], &[(0, 1), (1, 1)]);
    for wrong in ["", "7", "7.1", "7.1.c", "8.1.a", "7.2.a", "7.0.a", "7.x.a", "x.1.a"] {
        assert_eq!(offsets(&memo, Some(wrong)), None, "{wrong:?}");
    }
}

#[test]
fn what_fell_out_of_the_line_counts_as_heard_and_an_older_place_as_none() {
    let many: Vec<(usize, u64)> = (1..=MOST_GIVEN as u64 + 3).map(|offset| (0, offset)).collect();
    let memo = given(&["a"], &many);
    assert_eq!(memo.given.len(), MOST_GIVEN);
    assert_eq!(offsets(&memo, None), None);
    assert_eq!(offsets(&memo, Some(&shown("a", 2))), None);
    assert_eq!(offsets(&memo, Some(&shown("a", 3))), Some(vec![3]), "the last that fell out");
    assert_eq!(offsets(&memo, Some(&shown("a", 9))), Some(vec![9]));
}

#[test]
fn who_was_recalled_and_heard_nothing_since_is_recalled_again() {
    let mut recalls = recalls();
    let wish = Wish::of(&written(5), Some("7.9.a")).expect("a wish");
    recalls.go_on(3, &wish, &[], Time::ZERO);
    recalls.join(3, &"a".into(), at(9));
    recalls.join(3, &"b".into(), at(2));
    let memo = recalls.forget(3).expect("a memo");
    assert_eq!((memo.pid, offsets(&memo, Some("7.9.a"))), (5, Some(vec![9, 2])));
}

#[test]
fn who_is_lost_again_before_it_is_in_its_rooms_comes_back_to_all_the_same() {
    let mut recalls = recalls();
    let wish = Wish::of(&written(5), Some("7.9.a")).expect("a wish");
    let rooms = ["a", "b", "c", "d"].map(Arc::<str>::from);
    let places = [9, 2, 3, 4].map(at);
    let all: Vec<(Arc<str>, Cursor)> = rooms.iter().cloned().zip(places).collect();
    recalls.go_on(3, &wish, &all, Time::ZERO);
    // In one it is, and was given something there; one it has left already; two have not answered.
    recalls.join(3, &rooms[1], at(2));
    recalls.give(3, &rooms[1], 5);
    recalls.part(3, "d");
    let memo = recalls.forget(3).expect("a memo");
    recalls.lose(memo, None, |room| room == "b", Tick(9));
    let memo = recalls.take(5, None, Tick(1)).expect("it is kept").memo;
    let told = |shown: &str| {
        let places = memo.places(Some(shown)).expect("places");
        places.iter().map(|(room, at)| (room.to_string(), at.offset)).collect::<Vec<_>>()
    };
    let expected = |b| vec![("a".to_owned(), 9), ("b".to_owned(), b), ("c".to_owned(), 3)];
    assert_eq!(told("7.9.a"), expected(2), "it has heard nothing since");
    assert_eq!(told("7.5.b"), expected(5));
    // One that was let in where it could be is in no more rooms than those.
    recalls.go_on(3, &wish, &all, Time::ZERO);
    recalls.join(3, &rooms[0], at(9));
    recalls.arrive(3);
    let memo = recalls.forget(3).expect("a memo");
    recalls.lose(memo, None, |_| true, Tick(9));
    let memo = recalls.take(5, None, Tick(1)).expect("it is kept").memo;
    assert_eq!(memo.places(Some("7.9.a")).expect("places"), [(Arc::from("a"), at(9))]);
}

#[test]
fn a_pid_is_whole_or_none_and_no_two_are_alike() {
    let mut recalls = recalls();
    let mut pids = std::collections::BTreeSet::new();
    for index in 0..100 {
        recalls.begin(index, Time::ZERO);
        let pid = recalls.pid(index).expect("a pid");
        assert!(pids.insert(pid));
        assert_eq!(Wish::of(&written(pid), None).map(|wish| wish.pid), Some(pid));
    }
    for wrong in ["", "1", "+0000000000000000000000000000001", "zz"] {
        assert!(Wish::of(wrong, None).is_none(), "{wrong}");
    }
    assert!(Wish::of(&written(1), Some(&"a".repeat(MOST_SHOWN + 1))).is_none());
    assert_ne!(Recalls::new(&Seed::new(1), 3).key.sign_one(), recalls.key.sign_one());
}

trait SignOne {
    fn sign_one(&self) -> Vec<u8>;
}

impl SignOne for hmac::Key {
    fn sign_one(&self) -> Vec<u8> {
        hmac::sign(self, b"1").as_ref().to_vec()
    }
}

#[test]
fn a_memo_is_its_users_and_no_longer_than_its_time() {
    let mut recalls = recalls();
    let (ada, bob): (Arc<str>, Arc<str>) = ("ada".into(), "bob".into());
    let lose = |recalls: &mut Recalls, pid: u128, until: u32| {
        let mut memo = given(&["a", "b"], &[]);
        memo.pid = pid;
        recalls.lose(memo, Some(Arc::clone(&ada)), |room| room == "a", Tick(until));
    };
    lose(&mut recalls, 1, 10);
    assert!(recalls.take(1, Some(&bob), Tick(5)).is_none(), "another's");
    assert!(recalls.take(1, None, Tick(5)).is_none(), "nobody's");
    assert!(recalls.take(1, Some(&ada), Tick(10)).is_none(), "too late");
    let left = recalls.take(1, Some(&ada), Tick(9)).expect("the memo");
    assert_eq!(left.memo.places(None).expect("places").len(), 1, "it has left the other room");
    assert!(recalls.take(1, Some(&ada), Tick(9)).is_none(), "it is taken once");
    lose(&mut recalls, 2, 10);
    lose(&mut recalls, 3, 20);
    recalls.expire(Tick(10), u64::MAX);
    assert_eq!((recalls.lost(), recalls.due()), (1, Some(Tick(20))));
    recalls.expire(Tick(11), 0);
    assert_eq!((recalls.lost(), recalls.bytes(), recalls.due()), (0, 0, None), "too many bytes");
    for round in 0..5000 {
        lose(&mut recalls, 9, 30 + round);
        recalls.take(9, Some(&ada), Tick(12)).expect("the memo");
    }
    assert!(recalls.ends.len() < 2000, "{} ends of nothing", recalls.ends.len());
    recalls.check(|_| true);
}

#[derive(Clone, Debug)]
enum Step {
    Join(usize),
    Part(usize),
    /// So many of one room in one piece.
    Give(usize, u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        2 => (0..4usize).prop_map(Step::Join),
        1 => (0..4usize).prop_map(Step::Part),
        9 => (0..4usize, 1..4u64).prop_map(|(room, count)| Step::Give(room, count)),
    ];
    prop::collection::vec(step, 0..120)
}

proptest! {
    /// Whatever a client was given, and however much of it came: it goes on behind what it heard of each room,
    /// and never in front of where it last joined.
    #[test]
    fn a_client_goes_on_behind_what_it_heard(steps in steps(), cut in 0..200usize) {
        let names: Vec<Arc<str>> = (0..4).map(|n| Arc::from(format!("r{n}"))).collect();
        let mut memo = Memo::new(1, Time::ZERO, &Seed::new(1));
        let (mut offsets, mut floors) = ([0_u64; 4], [None; 4]);
        // What came, one by one: the room and its number.
        let mut came: Vec<(usize, u64)> = Vec::new();
        for step in steps {
            match step {
                Step::Join(room) if floors[room].is_none() => {
                    floors[room] = Some(offsets[room]);
                    memo.join(&names[room], at(offsets[room]));
                }
                Step::Join(_) => {}
                Step::Part(room) => {
                    floors[room] = None;
                    memo.part(&names[room]);
                }
                Step::Give(room, count) => {
                    if floors[room].is_some() {
                        came.extend((1..=count).map(|more| (room, offsets[room] + more)));
                        memo.give(&names[room], offsets[room] + count);
                    }
                    // Where it is not a member the room goes on all the same.
                    offsets[room] += count;
                }
            }
        }
        let heard = &came[..cut.min(came.len())];
        let last = heard.last().map(|(room, offset)| shown(&names[*room], *offset));
        let Some(places) = memo.places(last.as_deref()) else {
            // It cannot be said only where the room was left or joined anew behind that.
            let (room, offset) = heard.last().expect("without a place everything is known");
            prop_assert!(floors[*room].is_some_and(|floor| floor >= *offset));
            return Ok(());
        };
        let in_rooms: Vec<usize> = (0..4).filter(|room| floors[*room].is_some()).collect();
        prop_assert_eq!(places.len(), in_rooms.len());
        for (room, (name, place)) in in_rooms.into_iter().zip(places) {
            prop_assert_eq!(&name, &names[room]);
            let own = heard.iter().filter(|(other, _)| *other == room).map(|(_, offset)| *offset);
            let expected = own.max().into_iter().chain(floors[room]).max();
            prop_assert_eq!(Some(place.offset), expected);
        }
    }

    #[test]
    fn whatever_a_client_shows_is_no_panic(pid in ".{0,40}", shown in ".{0,40}") {
        let memo = given(&["a"], &[(0, 1)]);
        let _ = memo.places(Some(&shown));
        let _ = Wish::of(&pid, Some(&shown));
    }
}
