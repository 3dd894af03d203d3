//! Who goes and comes back stays listed in the rooms, whatever is known first.

use serde_json::{Value, json};

use crate::auth::user_room;
use crate::shard::tests::presence::{SECOND, Trio, watched_lobby};

#[test]
fn who_goes_is_not_taken_for_one_who_leaves_though_the_news_of_it_come_after_the_roll() {
    let mut node = Trio::new(|_| {});
    // The room's home, the user's home and the connection are in three shards.
    let home_of = |name: &str| usize::from(node.rigs[0].shard.home(name).0);
    let names = || (0..).map(|n| format!("name{n}"));
    let room = names().find(|name| home_of(name) == 0).unwrap();
    let user = names().find(|name| home_of(&user_room(None, name)) == 1).unwrap();
    let eve = node.come(2, "eve");
    node.say(eve, &json!({"type": "throng:join", "room": room}));
    let ada = node.come(2, &user);
    node.say(ada, &json!({"type": "throng:join", "room": room}));
    node.say(eve, &json!({"type": "throng:watch", "room": room}));
    node.later(SECOND);
    assert_eq!(node.told(eve, "throng:presence").len(), 1, "the room as it is");
    // What the user's home is told stays under way for longer than an interval.
    node.withheld = Some((1, Vec::new()));
    node.go(ada);
    node.later(SECOND * 2);
    assert_eq!(node.told(eve, "throng:presence"), [] as [Value; 0], "nobody knows more");
    node.release();
    node.later(SECOND * 2);
    let diff = json!({"type": "throng:presence", "room": room, "members": 1});
    assert_eq!(node.told(eve, "throng:presence"), [diff], "one connection less, and still listed");
    node.later(SECOND * 5);
    node.later(SECOND);
    assert_eq!(node.told(eve, "throng:presence")[0]["left"], json!([user]));
    node.rigs.iter().for_each(|rig| rig.shard.check());
}

#[test]
fn who_comes_back_has_the_grace_to_join_again_before_the_room_shows_it_as_left() {
    let join = json!({"type": "throng:join", "room": "lobby"});
    let (mut node, ada, eve) = watched_lobby(&join);
    let mut last = ada;
    for rejoins in [true, false] {
        node.go(last);
        node.later(SECOND);
        let ada = node.come(0, "ada");
        last = ada;
        node.later(SECOND * 2);
        let diff = json!({"type": "throng:presence", "room": "lobby", "members": 0});
        assert_eq!(
            node.told(eve, "throng:presence"),
            [diff],
            "here again, and listed all the time"
        );
        if rejoins {
            node.say(ada, &join);
            node.later(SECOND * 6);
            let diff = json!({"type": "throng:presence", "room": "lobby", "members": 1});
            assert_eq!(node.told(eve, "throng:presence"), [diff]);
        }
    }
    node.later(SECOND * 2);
    assert_eq!(node.told(eve, "throng:presence"), [] as [Value; 0], "not yet over");
    node.later(SECOND);
    let left = json!({"type": "throng:presence", "room": "lobby", "members": 0, "left": ["ada"]});
    assert_eq!(node.told(eve, "throng:presence"), [left], "the grace after the return is over");
    node.rigs.iter().for_each(|rig| rig.shard.check());
}
