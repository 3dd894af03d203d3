//! Rooms and connections: what is asked of the node, and what is answered.

use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::json;

use super::office::{Office, SECRET, SmallDesk};
use crate::admin::{
    ConnectionSeen, Crowd, Dismissal, Limits, Lookup, Overview, Refused, Registry, RoomSeen, Whom,
};
use crate::base::id::{ConnAddress, ConnId, ShardId};

const COUNTS: &str = "a secret for counting";
const ACME: &str = "a secret of one tenant";

impl Registry for SmallDesk {
    fn look_up(&self, tenant: Option<&str>, ask: &Lookup) -> Result<u64, Refused> {
        let looked = (tenant.map(str::to_owned), ask.clone());
        self.told.looked.try_send(looked).map_err(|_| Refused::Busy)?;
        Ok(0)
    }

    fn looked_up(&self, number: u64) -> Option<Overview> {
        let is_taken = self.takes.load(Ordering::Relaxed);
        is_taken.then(|| Overview { missing: Vec::new(), ..self.part_looked_up(number) })
    }

    fn part_looked_up(&self, _: u64) -> Overview {
        let room =
            |room: &str, members, position| RoomSeen { room: room.to_owned(), members, position };
        let connection = |index, user: Option<&str>| ConnectionSeen {
            client: ConnAddress::alone(ShardId(0), ConnId { index, generation: 7 }),
            tenant: None,
            user: user.map(str::to_owned),
            waiting: 70,
            rooms: 2,
            names: vec!["lobby".to_owned()],
            life: Duration::from_millis(3500),
            transport: if user.is_none() { "sse" } else { "websocket" },
            is_secure: false,
        };
        Overview {
            rooms: vec![room("a", 3, Some((16, 18))), room("b", 9, None), room("c", 0, None)],
            untold: 4,
            connections: vec![connection(1, Some("ada")), connection(2, None)],
            members: 3,
            disconnected: 2,
            accounts: Vec::new(),
            missing: vec![1],
            nodes: Vec::new(),
            absent: None,
            is_cut: false,
        }
    }
}

#[test]
fn rooms_are_asked_for_as_the_request_says_and_told_in_pages() {
    let office = Office::open();
    let answer = office.get("/v1/rooms?prefix=a%2F&afterRoom=7&limit=2&tenant=t", SECRET);
    let told = json!([
        {"room": "a", "members": 3, "offset": 18, "epoch": "10"},
        {"room": "b", "members": 9},
    ]);
    assert_eq!((answer.status, answer.json()), (200, json!({"rooms": told, "next": "b"})));
    let rooms = |largest, limit| Lookup::Rooms {
        prefix: "a/".to_owned(),
        after: Some("7".to_owned()),
        largest,
        limit,
    };
    assert_eq!(office.looked.try_recv(), Ok((Some("t".to_owned()), rooms(false, 3))));
    let all = office.get("/v1/rooms", SECRET).json();
    assert_eq!((all["rooms"].as_array().map(Vec::len), all.get("next")), (Some(3), None));
}

#[test]
fn the_largest_rooms_are_named_by_the_shards_and_then_counted() {
    let office = Office::open();
    let answer = office.get("/v1/rooms?order=members&limit=2", ACME).json();
    let told = json!([
        {"room": "b", "members": 9},
        {"room": "a", "members": 3, "offset": 18, "epoch": "10"},
    ]);
    // The shards had fewer rooms than they could have told of: there are no others.
    assert_eq!(answer, json!({"rooms": told, "exact": true}));
    let acme = Some("acme".to_owned());
    let named = Lookup::Rooms { prefix: String::new(), after: None, largest: true, limit: 102 };
    assert_eq!(office.looked.try_recv(), Ok((acme.clone(), named)));
    let names = ["a", "b", "c"].map(str::to_owned).to_vec();
    assert_eq!(office.looked.try_recv(), Ok((acme, Lookup::Counts(names))));
}

#[test]
fn one_room_and_connections_are_told_as_they_are() {
    let office = Office::open();
    let room = office.get("/v1/rooms/a%2Fb", SECRET).json();
    assert_eq!(room, json!({"room": "a", "members": 3, "offset": 18, "epoch": "10"}));
    let counts = Lookup::Counts(vec!["a/b".to_owned()]);
    assert_eq!(office.looked.try_recv(), Ok((None, counts)));
    let ada = json!({"clientId": "0-1-7", "user": "ada", "transport": "websocket", "tls": false,
        "seconds": 3, "waitingBytes": 70, "rooms": 2});
    let page = office.get("/v1/connections?room=r&limit=1&after=0-1-0", ACME).json();
    assert_eq!(page, json!({"connections": [ada], "total": 3, "next": "0-1-7"}));
    let after = "0-1-0".parse().ok();
    let of = Crowd::Room("r".to_owned());
    let asked = (Some("acme".to_owned()), Lookup::Connections { of, after, limit: 2 });
    assert_eq!(office.looked.try_recv(), Ok(asked));
    let one = office.get("/v1/connections/0-1-7", SECRET).json();
    assert_eq!((&one["user"], &one["roomNames"]), (&json!("ada"), &json!(["lobby"])));
    let id = "0-1-7".parse().expect("an id");
    assert_eq!(office.looked.try_recv(), Ok((None, Lookup::Connection(id))));
}

#[test]
fn connections_are_sent_away_by_what_names_them() {
    let office = Office::open();
    let id = "0-1-7".parse().expect("an id");
    let cases = [
        (r#"{"connection":"0-1-7"}"#, Whom::Connection(id), 1008, None),
        (
            r#"{"user":"ada","code":4100,"reason":"bye"}"#,
            Whom::Crowd(Crowd::User("ada".to_owned())),
            4100,
            Some("bye".to_owned()),
        ),
        (r#"{"room":"r"}"#, Whom::Crowd(Crowd::Room("r".to_owned())), 1008, None),
    ];
    for (body, whom, code, reason) in cases {
        let answer = office.post("/v1/disconnect", SECRET, body);
        assert_eq!((answer.status, answer.json()), (200, json!({"disconnected": 2})), "{body}");
        let order = Lookup::Disconnect(Dismissal { whom, code, reason });
        assert_eq!(office.looked.try_recv(), Ok((None, order)));
    }
    let acme = office.post("/v1/disconnect", ACME, r#"{"room":"r"}"#);
    assert_eq!(acme.status, 200);
    assert_eq!(office.looked.try_recv().expect("an order").0, Some("acme".to_owned()));
}

#[test]
fn what_cannot_be_asked_is_refused_with_the_field_that_is_to_blame() {
    let office = Office::open();
    let gets = [
        ("/v1/rooms?order=size", "order"),
        ("/v1/rooms?order=members&limit=101", "limit"),
        ("/v1/rooms?order=members&afterRoom=a", "afterRoom"),
        ("/v1/rooms?limit=0", "limit"),
        ("/v1/rooms/%07", "room"),
        ("/v1/connections?user=a&room=b", "room"),
        ("/v1/connections?user=a&after=b", "after"),
        ("/v1/connections/x", "id"),
    ];
    for (path, field) in gets {
        let expected = (400, "bad_field".to_owned(), Some(field.to_owned()));
        assert_eq!(office.get(path, SECRET).error(), expected, "{path}");
    }
    let (status, code, field) = office.get("/v1/connections", SECRET).error();
    assert_eq!((status, &*code, field.as_deref()), (400, "missing_field", Some("user")));
    let long = format!(r#"{{"room":"r","reason":"{}"}}"#, "a".repeat(124));
    let posts = [
        (r#"{"connection":"x"}"#, "connection"),
        (r#"{"connection":"0-1-1","user":"a"}"#, "connection"),
        (r#"{"room":"r","code":1006}"#, "code"),
        (r#"{"room":"r","code":3000}"#, "code"),
        (long.as_str(), "reason"),
    ];
    for (body, field) in posts {
        let expected = (400, "bad_field".to_owned(), Some(field.to_owned()));
        assert_eq!(office.post("/v1/disconnect", SECRET, body).error(), expected, "{body}");
    }
    assert_eq!(office.get("/v1/rooms", "").status, 401);
    assert_eq!(office.get("/v1/rooms?tenant=other", ACME).status, 403);
    assert_eq!(office.post("/v1/disconnect", COUNTS, r#"{"room":"r"}"#).status, 403);
    assert_eq!(office.looked.try_recv().ok(), None, "the node is asked none of this");
}

#[test]
fn shards_that_are_late_are_named_and_a_connection_of_theirs_is_not_said_to_be_gone() {
    let shard_timeout = Duration::from_millis(20);
    let office = Office::with(Limits { shard_timeout, ..Limits::default() });
    office.desk.takes.store(false, Ordering::Relaxed);
    let answer = office.get("/v1/rooms?order=members", SECRET).json();
    assert_eq!((&answer["exact"], &answer["missingShards"]), (&json!(false), &json!([1])));
    let answer = office.post("/v1/disconnect", SECRET, r#"{"room":"r"}"#).json();
    assert_eq!(answer, json!({"disconnected": 2, "missingShards": [1]}));
}
