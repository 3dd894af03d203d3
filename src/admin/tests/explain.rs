//! What shards remember of a publication, put together in words.

use serde_json::json;

use super::office::{Office, SECRET};
use crate::admin::explain::judge;
use crate::admin::{Lookup, Subject};
use crate::base::cursor::Cursor;
use crate::base::fate::{Account, Destiny, Fate, Sighting};
use crate::base::id::{ConnAddress, ConnId, ShardId};
use crate::base::shared::Overflow;

fn destiny(index: u32, begun: u64, fate: Option<Fate>) -> Destiny {
    let conn = ConnAddress::alone(ShardId(0), ConnId { index, generation: 1 });
    Destiny { conn, begun, ended: None, fate: fate.map(|fate| (fate, 1010)) }
}

/// A shard that remembers everything since `since`.
fn shard(since: u64) -> Account {
    Account { is_on: true, since, ..Account::default() }
}

fn sighting(at: u64) -> Option<Sighting> {
    Some(Sighting { at, epoch: 5 })
}

fn home(since: u64) -> Account {
    let position = Some(Cursor { epoch: 5, offset: 9 });
    Account { numbered: sighting(1000), arrived: sighting(1001), position, ..shard(since) }
}

fn outcome(accounts: Vec<Account>) -> &'static str {
    judge(accounts, 7, true).outcome
}

#[test]
fn the_best_of_a_users_connections_decides() {
    let fates = [Fate::Dropped(Overflow::DropOldest), Fate::Written, Fate::Queued];
    let connections = (0..).zip(fates).map(|(at, fate)| destiny(at, 500, Some(fate))).collect();
    let verdict = judge(vec![Account { connections, ..home(0) }, shard(0)], 7, true);
    assert_eq!((verdict.outcome, verdict.published), ("written", Some(1000)));
    assert!(verdict.text.starts_with("1 of 3 connections: written"), "{}", verdict.text);
    let dropped = vec![destiny(0, 500, Some(fates[0])), destiny(1, 500, None)];
    let verdict = judge(vec![Account { connections: dropped, ..home(0) }], 7, true);
    assert_eq!(verdict.outcome, "dropped");
    assert!(verdict.text.contains("drop_oldest"), "{}", verdict.text);
}

#[test]
fn who_has_no_outcome_was_not_meant_where_all_is_remembered_and_else_it_is_not_known() {
    let there = |account: Account| Account { connections: vec![destiny(0, 500, None)], ..account };
    assert_eq!(outcome(vec![there(home(0)), shard(1000)]), "not_a_member");
    assert_eq!(outcome(vec![home(0), shard(1000)]), "not_connected");
    let later = Account { connections: vec![destiny(0, 2000, None)], ..home(0) };
    assert_eq!(outcome(vec![later]), "not_connected");
    // The other shard may have had it, and remembers nothing of that time.
    assert_eq!(outcome(vec![there(home(0)), shard(1001)]), "not_remembered");
    assert_eq!(outcome(vec![there(home(0)), Account::default()]), "not_remembered");
    assert_eq!(judge(vec![there(home(0))], 7, false).outcome, "not_remembered");
    // The home has forgotten when it was.
    let came = Account { arrived: sighting(1001), ..shard(1001) };
    assert_eq!(outcome(vec![came, shard(0)]), "not_remembered");
    // And an outcome that is known is told all the same.
    let known = Account { connections: vec![destiny(0, 500, Some(Fate::Lost))], ..shard(2000) };
    assert_eq!(outcome(vec![known, shard(2000)]), "lost");
}

#[test]
fn what_was_never_published_and_what_was_over_is_said_to_be_so() {
    let home_of = |offset| {
        let position = Some(Cursor { epoch: 5, offset });
        Account { position, ..shard(0) }
    };
    assert_eq!(outcome(vec![shard(0), home_of(6)]), "not_published");
    assert_eq!(outcome(vec![shard(0), home_of(7)]), "not_remembered");
    assert_eq!(outcome(vec![Account { outdated: true, ..home(0) }]), "outdated");
}

#[test]
fn what_is_of_an_earlier_life_of_the_room_does_not_count() {
    let earlier = Account {
        arrived: Some(Sighting { at: 400, epoch: 4 }),
        connections: vec![destiny(0, 300, Some(Fate::Written))],
        ..shard(0)
    };
    assert_eq!(outcome(vec![earlier, home(0)]), "not_a_member");
}

#[test]
fn a_question_names_a_room_a_number_and_one_who_is_asked_about() {
    let office = Office::open();
    let cases = [
        ("/v1/explain?offset=1&user=a", "missing_field", "room"),
        ("/v1/explain?room=r&user=a", "missing_field", "offset"),
        ("/v1/explain?room=r&offset=1", "missing_field", "user"),
        ("/v1/explain?room=r&offset=0&user=a", "bad_field", "offset"),
        ("/v1/explain?room=r&offset=x&user=a", "bad_field", "offset"),
        ("/v1/explain?room=r&offset=1&connection=x", "bad_field", "connection"),
        ("/v1/explain?room=r&offset=1&user=a&connection=0-1-1", "bad_field", "connection"),
    ];
    for (path, code, field) in cases {
        let expected = (400, code.to_owned(), Some(field.to_owned()));
        assert_eq!(office.get(path, SECRET).error(), expected, "{path}");
    }
    assert_eq!(office.get("/v1/explain?room=r&offset=1&user=a", "").status, 401);
    assert_eq!(office.looked.try_recv().ok(), None, "the node is asked none of this");
    // This desk's shards remember nothing.
    let answer = office.get("/v1/explain?room=r&offset=1&user=a&tenant=t", SECRET);
    assert_eq!((answer.status, &answer.json()["error"]["code"]), (501, &json!("not_configured")));
    let of = Subject::User("a".to_owned());
    let ask = Lookup::Explain { room: "r".to_owned(), offset: 1, of };
    assert_eq!(office.looked.try_recv(), Ok((Some("t".to_owned()), ask)));
}
