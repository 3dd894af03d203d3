//! Publications on their way to other nodes: as JSON, in the form in which a back end would order them.
//!
//! A command becomes one order with all of its targets, whoever its homes are, so that the other end splits it
//! as it would split its own. What crosses is what the author wrote: type, payload and identifier are copied
//! as they are. A conflation key crosses as its hash, which the other end takes for the key. A time to live
//! crosses as what is left of it. Names of channels are made here too: a tenant's name has the characters
//! escaped that would make two rooms share one.

use std::sync::Arc;

use serde::Serialize;
use serde_json::value::RawValue;
use smallvec::SmallVec;

use crate::auth::{Place, place, plain, tenant_of, user_of};
use crate::base::time::Time;
use crate::bridge::{Channel, Parcel};
use crate::hub::{Except, Publication, Target};

/// The channel of what concerns all nodes.
pub(super) const ALL: &str = "all";
const ROOM: &str = "room:";
const TENANT: &str = "tenant:";

/// An order; the fields of what a back end sends.
#[derive(Serialize)]
struct Order<'a> {
    #[serde(rename = "type")]
    kind: &'a RawValue,
    #[serde(skip_serializing_if = "Option::is_none")]
    tenant: Option<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    rooms: Vec<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    users: Vec<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    connections: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    everyone: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", rename = "ttlMs")]
    ttl: Option<u128>,
    #[serde(skip_serializing_if = "Option::is_none")]
    except: Option<Exceptions<'a>>,
}

#[derive(Serialize)]
struct Exceptions<'a> {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    connections: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    users: Vec<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    rooms: Vec<&'a str>,
}

/// What is to be published of the publications of one command; `None` when nobody is to have them any more.
pub(super) fn parcel(
    publications: &[Arc<Publication>],
    in_turn: bool,
    now: Time,
) -> Option<Parcel> {
    let first = publications.first().filter(|first| !first.is_over(now))?;
    let mut order = Order {
        kind: &first.kind,
        tenant: tenant_of(&first.room),
        rooms: Vec::new(),
        users: Vec::new(),
        connections: Vec::new(),
        everyone: None,
        payload: first.payload.as_deref(),
        id: first.id.as_deref(),
        key: (first.key != 0).then(|| format!("{:x}", first.key)),
        ttl: first.terms.until.map(|until| until.since(now).as_millis().max(1)),
        except: first.to.except.as_deref().map(exceptions),
    };
    for publication in publications {
        match &publication.to.target {
            Target::Room => order.rooms.push(plain(&publication.room)),
            Target::User => order.users.push(user_of(&publication.room).1),
            Target::Connections(list) => {
                order.connections.extend(list.iter().map(ToString::to_string));
            }
            Target::Everyone => order.everyone = Some(true),
        }
    }
    let is_of_rooms =
        order.users.is_empty() && order.connections.is_empty() && order.everyone.is_none();
    let channels = if is_of_rooms {
        order.rooms.iter().map(|room| channel(order.tenant, room)).collect()
    } else {
        vec![Channel::from(ALL)]
    };
    let from = first.origin.connection().map(|address| address.to_string());
    Some(Parcel { channels, order: serde_json::to_vec(&order).ok()?, from, in_turn, count: None })
}

fn exceptions(except: &Except) -> Exceptions<'_> {
    let (mut users, mut rooms) = (Vec::new(), Vec::new());
    for name in &except.rooms {
        match place(name) {
            Place::Room(room) => rooms.push(room),
            Place::User => users.push(user_of(name).1),
            Place::Connections | Place::Everyone => {}
        }
    }
    let connections = except.connections.iter().map(ToString::to_string).collect();
    Exceptions { connections, users, rooms }
}

/// The channel of a room, by its name within the node.
pub(super) fn channel_of(room: &str) -> Channel {
    channel(tenant_of(room), plain(room))
}

fn channel(tenant: Option<&str>, room: &str) -> Channel {
    Channel::from(match tenant {
        None => format!("{ROOM}{room}"),
        Some(tenant) => format!("{TENANT}{}:{ROOM}{room}", escape(tenant)),
    })
}

fn escape(tenant: &str) -> String {
    tenant.replace('%', "%25").replace(':', "%3A")
}

/// The tenant and the room whose channel that is; `None` for the channel of all nodes, and for others.
pub(super) fn room_of(channel: &str) -> Option<(Option<String>, &str)> {
    if let Some(room) = channel.strip_prefix(ROOM) {
        return Some((None, room));
    }
    let (tenant, rest) = channel.strip_prefix(TENANT)?.split_once(':')?;
    let tenant = tenant.replace("%3A", ":").replace("%25", "%");
    Some((Some(tenant), rest.strip_prefix(ROOM)?))
}

/// What another program published on a room's channel, with the room and the tenant in it.
///
/// # Errors
/// When it is no JSON object.
pub(super) fn addressed(channel: &str, order: &str) -> Result<String, String> {
    let Some((tenant, room)) = room_of(channel) else { return Ok(order.to_owned()) };
    let rest = order.trim_start().strip_prefix('{').ok_or("expected a JSON object")?;
    let mut fields: SmallVec<[(&str, &str); 2]> = SmallVec::new();
    fields.push(("room", room));
    fields.extend(tenant.as_deref().map(|tenant| ("tenant", tenant)));
    let mut text = String::from("{");
    for (key, value) in fields {
        let value = serde_json::to_string(value).map_err(|error| error.to_string())?;
        text.push_str(&format!("\"{key}\":{value},"));
    }
    if rest.trim_start().starts_with('}') {
        text.pop();
    }
    text.push_str(rest);
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::room;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_room_has_a_channel_of_its_own(
            a in "[a:%r]{1,6}", b in "[a:%room]{1,6}", c in "[a:%r]{1,6}", d in "[a:%room]{1,6}",
            with in any::<bool>(),
        ) {
            let one = room(Some(&a), &b).into_owned();
            let other = if with { room(Some(&c), &d).into_owned() } else { d.clone() };
            let (first, second) = (channel_of(&one), channel_of(&other));
            prop_assert_eq!(first == second, one == other, "{:?} {:?}", &first, &second);
            prop_assert_eq!(room_of(&first), Some((Some(a), b.as_str())));
        }
    }

    #[test]
    fn what_a_program_publishes_on_a_rooms_channel_is_for_that_room() {
        let addressed = |channel, order| addressed(channel, order);
        assert_eq!(
            addressed("room:lo\"by", r#" {"type":"x"}"#).as_deref(),
            Ok(r#"{"room":"lo\"by","type":"x"}"#)
        );
        assert_eq!(
            addressed("tenant:a%3Ab:room:r", "{}").as_deref(),
            Ok(r#"{"room":"r","tenant":"a:b"}"#)
        );
        assert_eq!(addressed("all", "{}").as_deref(), Ok("{}"));
        assert!(addressed("room:r", "[]").is_err());
    }
}
