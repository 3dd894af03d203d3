//! Rights by pattern, and the names of rooms within the node.

use proptest::prelude::*;

use crate::auth::{Common, Grants, Right, is_user_room, plain, room, user_of, user_room};
use crate::base::map::Seed;

fn grants(json: &str) -> Grants {
    serde_json::from_str(json).expect(json)
}

#[test]
fn a_list_grants_every_right_and_an_object_those_it_names() {
    let list = grants(r#"["lobby","team:7:*"]"#);
    for right in Right::ALL {
        assert!(list.allows("lobby", *right) && list.allows("team:7:x", *right));
        assert!(!list.allows("lobby2", *right) && !list.allows("team:70:x", *right));
    }
    let object = grants(r#"{"a*":["join"],"ab":["publish","presence"],"c":[]}"#);
    assert!(object.allows("ab", Right::Join), "two patterns add up");
    assert!(object.allows("ab", Right::Publish));
    assert!(!object.allows("ax", Right::Publish));
    assert!(!object.allows("c", Right::Join));
    assert!(!Grants::default().allows("", Right::Join));
}

#[test]
fn equal_grants_share_their_memory_while_they_are_short() {
    let first = |grants: &Grants| grants.iter().next().map(|(pattern, _)| pattern.as_ptr());
    let mut common = Common::new(&Seed::new(1));
    let one = common.share(grants(r#"["lobby","team:*"]"#));
    for number in 0..1000 {
        let other = grants(&format!(r#"["team:{number}"]"#));
        let shared = common.share(other.clone());
        assert!(shared == other && shared.allows(&format!("team:{number}"), Right::Join));
        assert!(!shared.allows("lobby", Right::Join));
    }
    let again = [(); 2].map(|()| common.share(grants(r#"["lobby","team:*"]"#)));
    assert!(again.iter().all(|grants| *grants == one));
    assert_eq!(first(&again[0]), first(&again[1]));
    let rights = common.share(grants(r#"{"lobby":["join"],"team:*":["join"]}"#));
    assert!(!rights.allows("lobby", Right::Publish));
    let long = grants(&format!(r#"["{}"]"#, "x".repeat(300)));
    assert_ne!(
        first(&common.share(long.clone())),
        first(&common.share(grants(&format!(r#"["{}"]"#, "x".repeat(300)))))
    );
    common.clear();
    assert_eq!(common.share(again[0].clone()), one);
}

proptest! {
    #[test]
    fn rooms_of_two_tenants_and_rooms_of_users_never_meet(
        tenants in prop::array::uniform2(prop::option::of("[ab:.]{1,3}")),
        names in prop::array::uniform2("[ab:.]{1,3}"),
    ) {
        let inner = |at: usize| room(tenants[at].as_deref(), &names[at]).into_owned();
        let same = tenants[0] == tenants[1] && names[0] == names[1];
        prop_assert_eq!(inner(0) == inner(1), same);
        let own = |at: usize| user_room(tenants[at].as_deref(), &names[at]);
        prop_assert_eq!(own(0) == own(1), same);
        let own_room = own(0);
        prop_assert_eq!(user_of(&own_room), (tenants[0].as_deref(), &*names[0]));
        prop_assert_ne!(own(0), inner(1));
        let first = inner(0);
        prop_assert_eq!(plain(&first), &names[0]);
        prop_assert!(is_user_room(&own(0)) && !is_user_room(&first));
    }
}
