//! What both kinds of store promise.

use super::*;
use crate::store::Revoked;

#[test]
fn what_was_appended_is_listed_in_order_and_counted() {
    on_all(|mut world| {
        assert_eq!(world.list("u", 0, 10), Page::default());
        let ids: Vec<u64> = (0..3).map(|n| world.append("u", &n.to_string()).id).collect();
        assert!(ids.is_sorted_by(|a, b| a < b), "{ids:?}");
        let page = world.list("u", 0, 10);
        assert_eq!(page.notes.iter().map(|note| note.id).collect::<Vec<_>>(), ids);
        assert_eq!(world.payloads("u"), ["0", "1", "2"]);
        assert_eq!((page.unread, page.newest, page.more), (3, ids[2], false));
        assert_eq!((page.notes[0].at, &*page.notes[0].kind), (NOW, "\"mail\""));
        assert_eq!(world.list("other", 0, 10), Page::default());
    });
}

#[test]
fn a_page_ends_where_it_was_asked_to_and_says_whether_there_is_more() {
    on_all(|mut world| {
        let ids: Vec<u64> = (0..5).map(|n| world.append("u", &n.to_string()).id).collect();
        let of = |page: &Page| page.notes.iter().map(|note| note.id).collect::<Vec<_>>();
        let page = world.list("u", ids[0], 2);
        assert_eq!((of(&page), page.more, page.newest), (ids[1..3].to_vec(), true, ids[4]));
        let page = world.list("u", ids[2], 2);
        assert_eq!((of(&page), page.more), (ids[3..].to_vec(), false));
        let span = Span { after: ids[0], until: ids[2], limit: 10, bytes: u64::MAX };
        let page = world.list_span("u", span);
        assert_eq!((of(&page), page.more), (ids[1..3].to_vec(), false));
        let span = Span { after: 0, until: LAST_ID, limit: 10, bytes: 1 };
        let page = world.list_span("u", span);
        assert_eq!((of(&page), page.more), (ids[..1].to_vec(), true), "one in any case");
        let page = world.list("u", 0, 0);
        assert_eq!((of(&page), page.more, page.unread), (vec![], true, 5));
    });
}

#[test]
fn what_was_read_leaves_one_many_and_all() {
    on_all(|mut world| {
        let ids: Vec<u64> = (0..5).map(|n| world.append("u", &n.to_string()).id).collect();
        assert_eq!(world.read("u", Marked::Ids(vec![ids[1]])), (4, true));
        assert_eq!(world.read("u", Marked::Ids(vec![ids[1]])), (4, false), "twice is once");
        let many = Marked::Ids(vec![ids[0], ids[4], ids[0], 7]);
        assert_eq!(world.read("u", many), (2, true), "strangers and repeats are no error");
        assert_eq!(world.payloads("u"), ["2", "3"]);
        assert_eq!(world.list("u", 0, 10).newest, ids[4], "read ones count for the newest");
        assert_eq!(world.read("other", Marked::All), (0, false));
        assert_eq!(world.read("u", Marked::All), (0, true));
        assert_eq!(world.payloads("u"), [""; 0]);
    });
}

#[test]
fn users_with_names_that_begin_alike_have_inboxes_of_their_own() {
    on_all(|mut world| {
        for owner in ["u", "us", "u\u{1f}s", "", "acme\u{1f}\u{1e}u"] {
            world.append(owner, &format!("{owner:?}"));
        }
        for owner in ["u", "us", "u\u{1f}s", "", "acme\u{1f}\u{1e}u"] {
            assert_eq!(world.payloads(owner), [format!("{owner:?}")]);
        }
        world.read("u", Marked::All);
        assert_eq!(world.payloads("us").len(), 1);
    });
}

#[test]
fn a_name_is_kept_once_also_after_it_was_read_and_for_each_user() {
    on_all(|mut world| {
        let first = world.append_as("u", "1", "n");
        let again = world.append_as("u", "other", "n");
        assert_eq!((again.id, again.at, again.repeated), (first.id, NOW, true));
        assert_eq!(world.payloads("u"), ["1"], "the first one stays as it was");
        assert!(!world.append_as("v", "1", "n").repeated);
        world.read("u", Marked::All);
        world.now += 1000;
        let again = world.append_as("u", "1", "n");
        assert_eq!((again.id, again.at, again.repeated), (first.id, NOW, true));
        assert_eq!(world.payloads("u"), [""; 0], "what was read does not come back");
    });
}

#[test]
fn the_oldest_leaves_when_there_are_too_many_or_too_many_bytes() {
    on_all(|mut world| {
        for n in 0..7 {
            let appended = world.append("u", &n.to_string());
            assert_eq!(appended.dropped, u64::from(n >= 5), "{n}");
        }
        assert_eq!(world.payloads("u"), ["2", "3", "4", "5", "6"]);
        let large = "7".repeat(900);
        let appended = world.append("u", &large);
        assert_eq!((appended.dropped, appended.unread), (1, 5));
        let appended = world.append("u", &large);
        assert_eq!((appended.dropped, appended.unread), (5, 1), "two of them are too many bytes");
        let refused = world.ask(Ask::Append(draft("u", &"8".repeat(1001), "")));
        assert_eq!(refused, Err(Refused::TooLarge(1000)));
        assert_eq!(world.payloads("u"), [large]);
    });
}

#[test]
fn names_of_what_was_read_are_bounded_too_and_one_that_is_forgotten_may_come_again() {
    on_all(|mut world| {
        for n in 0..6 {
            world.append_as("u", "x", &format!("n{n}"));
            world.read("u", Marked::All);
        }
        assert!(world.append_as("u", "x", "n1").repeated);
        assert!(!world.append_as("u", "x", "n0").repeated, "the oldest of six was forgotten");
    });
}

#[test]
fn what_is_too_old_is_gone_for_readers_at_once_and_from_the_store_by_pruning() {
    on_all(|mut world| {
        world.append_as("u", "old", "n");
        world.append("idle", "old");
        world.now += 30 * DAY;
        world.append("u", "new");
        assert_eq!(world.payloads("u"), ["old", "new"], "on its last day");
        world.now += 1;
        let page = world.list("u", 0, 10);
        assert_eq!((page.notes.len(), page.unread), (1, 1));
        assert_eq!(world.list("idle", 0, 10).unread, 0);
        assert_eq!(world.prune(), 2);
        assert_eq!(world.prune(), 0);
        assert_eq!(world.list("idle", 0, 10), Page::default(), "the whole inbox is forgotten");
        assert!(!world.append_as("u", "again", "n").repeated, "the name has gone with it");
        assert_eq!(world.read("u", Marked::All).0, 0);
    });
}

#[test]
fn ids_grow_also_where_nothing_is_left_of_the_earlier_ones() {
    on_all(|mut world| {
        let first = world.append("u", "1").id;
        world.now += 31 * DAY;
        world.prune();
        assert_eq!(world.list("u", 0, 1).newest, 0);
        assert!(world.append("u", "2").id > first);
        world.now -= 20 * DAY;
        let before = world.list("u", 0, 1).newest;
        assert!(world.append("u", "3").id > before, "also when the clock goes back");
        assert!(before < LAST_ID);
    });
}

#[test]
fn a_walk_prunes_any_number_of_users_in_slices() {
    on_all(|mut world| {
        let owners: Vec<String> = (0..300).map(|n| format!("user-{n}")).collect();
        for owner in &owners {
            world.append(owner, "x");
        }
        let seen = gone(owners.iter().map(|owner| (owner.as_str(), NOW)));
        assert_eq!(world.ask(seen), Ok(Answer::Done));
        world.now += 91 * DAY;
        let mut slices = 0;
        let (mut from, mut left) = (Vec::new(), 0);
        loop {
            slices += 1;
            let Ok(Answer::Pruned { next, dropped }) = world.ask(Ask::Prune { from }) else {
                panic!("no slice");
            };
            left += dropped;
            let Some(next) = next else { break };
            from = next;
        }
        assert_eq!(left, 300);
        assert!(slices > 4, "{slices} slices");
        assert!(owners.iter().all(|owner| world.last_seen(owner).is_none()));
    });
}

#[test]
fn when_someone_was_last_here_never_goes_back() {
    on_all(|mut world| {
        assert_eq!(world.last_seen("u"), None);
        let seen = |owner: &'static str, at| gone([(owner, at)]);
        assert_eq!(world.ask(seen("u", NOW)), Ok(Answer::Done));
        assert_eq!(world.ask(seen("u", NOW - 5)), Ok(Answer::Done));
        assert_eq!((world.last_seen("u"), world.last_seen("us")), (Some(NOW), None));
    });
}

#[test]
fn those_who_were_here_last_are_found_whatever_their_names() {
    on_all(|mut world| {
        let users: Vec<(String, u64)> =
            (0..50).map(|n| (format!("user-{n}"), NOW + (n * 7) % 50)).collect();
        let seen = gone(users.iter().map(|(user, at)| (user.as_str(), *at)));
        assert_eq!(world.ask(seen), Ok(Answer::Done));
        for (limit, found) in [(0, 0), (3, 3), (100, 50)] {
            let Ok(Answer::Recent(mut recent)) = world.ask(Ask::Recent { limit }) else {
                panic!("no answer");
            };
            recent.sort_by_key(|(_, at)| *at);
            assert_eq!(recent.len(), found);
            let times = recent.iter().map(|(_, at)| *at);
            assert!(times.eq(NOW + 50 - found as u64..NOW + 50), "{recent:?}");
        }
    });
}

fn user(name: &str, issued: u64, until: u64) -> Revoked {
    Revoked { is_token: false, name: name.into(), issued, until }
}

fn revocations(world: &mut World) -> Vec<Revoked> {
    match world.ask(Ask::Revocations) {
        Ok(Answer::Revoked(all)) => all,
        other => panic!("{other:?}"),
    }
}

#[test]
fn revocations_are_listed_until_they_end_and_a_second_adds_to_the_first() {
    on_all(|mut world| {
        let second = NOW / 1000;
        let token = Revoked { is_token: true, name: "u".into(), issued: 0, until: second + 10 };
        for revoked in [user("u", 100, second + 20), user("u", 90, second + 30), token.clone()] {
            assert_eq!(world.ask(Ask::Revoke(revoked)), Ok(Answer::Done));
        }
        assert_eq!(revocations(&mut world), [token, user("u", 100, second + 30)]);
        world.now += 10_000;
        assert_eq!(revocations(&mut world), [user("u", 100, second + 30)]);
        world.now += 20_000;
        assert_eq!(revocations(&mut world), []);
    });
}

#[test]
fn one_revocation_too_many_is_refused_until_others_have_ended() {
    on_all(|mut world| {
        let second = NOW / 1000;
        for name in ["a", "b", "c"] {
            assert_eq!(world.ask(Ask::Revoke(user(name, 1, second + 10))), Ok(Answer::Done));
        }
        assert_eq!(world.ask(Ask::Revoke(user("d", 1, second + 99))), Err(Refused::Full));
        assert_eq!(world.ask(Ask::Revoke(user("a", 2, second + 11))), Ok(Answer::Done));
        world.now += 10_000;
        assert_eq!(world.ask(Ask::Revoke(user("d", 1, second + 99))), Ok(Answer::Done));
        assert_eq!(revocations(&mut world), [user("a", 2, second + 11), user("d", 1, second + 99)]);
        world.now += 100_000;
        world.prune();
        for name in ["e", "f", "g"] {
            let ask = Ask::Revoke(user(name, 1, second + 999));
            assert_eq!(world.ask(ask), Ok(Answer::Done), "pruned ones take no space");
        }
    });
}

#[test]
fn many_requests_are_one_transaction_and_see_each_other_in_order() {
    on_all(|mut world| {
        let owner: Arc<str> = "u".into();
        let span = Span { after: 0, until: LAST_ID, limit: 10, bytes: u64::MAX };
        let asks = [
            Ask::Append(draft("u", "1", "")),
            Ask::List { owner: Arc::clone(&owner), span },
            Ask::Append(draft("u", &"2".repeat(2000), "")),
            Ask::Read { owner, marked: Marked::All },
            Ask::Append(draft("u", "3", "")),
        ];
        let outcomes = world.store.commit(&asks, NOW).expect("a store that works");
        let Ok(Answer::Page(page)) = &outcomes[1] else { panic!("{outcomes:?}") };
        assert_eq!(page.notes.len(), 1);
        assert_eq!(outcomes[2], Err(Refused::TooLarge(1000)), "one refusal harms no other");
        assert_eq!(outcomes[3], Ok(Answer::Unread { unread: 0, changed: true }));
        assert_eq!(world.payloads("u"), ["3"]);
    });
}

#[test]
fn memory_is_bounded_and_gives_its_space_back() {
    let mut world = World { store: Box::new(Memory::new(limits(), 20_000)), now: NOW };
    let mut kept = 0;
    let refused = loop {
        match world.ask(Ask::Append(draft(&format!("u{kept}"), &"x".repeat(500), ""))) {
            Ok(_) => kept += 1,
            Err(refused) => break refused,
        }
    };
    assert_eq!(refused, Refused::Full);
    assert!((10..40).contains(&kept), "{kept}");
    world.now += 31 * DAY;
    assert_eq!(world.prune(), kept);
    for user in 0..kept {
        world.append(&format!("u{user}"), &"x".repeat(500));
    }
    let mut memory = Memory::new(limits(), 20_000);
    for now in [NOW, NOW + 31 * DAY] {
        memory.commit(&[Ask::Append(draft("u", "1", "n"))], now).expect("memory");
        memory
            .commit(&[Ask::Read { owner: "u".into(), marked: Marked::All }], now)
            .expect("memory");
        memory.commit(&[Ask::Prune { from: Vec::new() }], now + 31 * DAY).expect("memory");
        assert_eq!(memory.bytes(), 0);
    }
}
