//! What programs emit as servers of Socket.IO let them, as orders of back ends.
//!
//! An event of the emitter's is packed by MessagePack: who it is, a packet, and whom it is for. Its name is the type,
//! its argument the payload; several arguments are one payload, a list. A room is a room, a connection's id that
//! connection, none of them everybody. Flags say how the library's servers may send, which is our queues' business here.

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::base::id::ConnAddress;
use crate::bridge::{Refused, Side as _};
use crate::node::link::Link;
use crate::wire::msgpack::{Bounds, to_json};

/// Bytes of an event as JSON.
const MOST: usize = 16 << 20;
/// Levels around the arguments.
const AROUND: usize = 3;
/// What a packet is that is an event; the library's number.
const EVENT: u8 = 2;

/// An event as it comes.
#[derive(Deserialize)]
struct Emitted<'a>(IgnoredAny, #[serde(borrow)] Packet<'a>, #[serde(default)] Whom);

#[derive(Deserialize)]
struct Packet<'a> {
    #[serde(rename = "type")]
    kind: u8,
    #[serde(borrow)]
    data: Vec<&'a RawValue>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Whom {
    rooms: Vec<String>,
    except: Vec<String>,
}

/// Rooms, and connections among them.
#[derive(Default, Serialize)]
struct Places<'a> {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    rooms: Vec<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    connections: Vec<&'a str>,
}

impl<'a> Places<'a> {
    fn of(names: &'a [String]) -> Self {
        let is_connection =
            |name: &&str| name.parse::<ConnAddress>().is_ok_and(|address| address.node.is_some());
        let names = names.iter().map(String::as_str);
        let (connections, rooms) = names.partition(is_connection);
        Self { rooms, connections }
    }

    fn is_empty(&self) -> bool {
        self.rooms.is_empty() && self.connections.is_empty()
    }
}

/// The same as a back end would order it.
#[derive(Serialize)]
struct Ordered<'a> {
    #[serde(rename = "type")]
    kind: &'a RawValue,
    #[serde(flatten)]
    to: Places<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    everyone: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Places::is_empty")]
    except: Places<'a>,
}

/// The order that an event means.
fn order(bytes: &[u8], depth: usize) -> Result<String, String> {
    let bounds = Bounds { depth: depth + AROUND, bytes: MOST };
    let text = to_json(bytes, bounds).map_err(|fault| fault.to_string())?;
    let Emitted(_, packet, whom) =
        serde_json::from_str(&text).map_err(|error| error.to_string())?;
    if packet.kind != EVENT {
        return Err(format!("expected a packet of type {EVENT}, an event"));
    }
    let (kind, arguments) = packet.data.split_first().ok_or("expected the name of an event")?;
    let several;
    let payload = match arguments {
        [] => None,
        [one] => Some(*one),
        _ => {
            several = serde_json::value::to_raw_value(arguments).map_err(|e| e.to_string())?;
            Some(&*several)
        }
    };
    let (to, except) = (Places::of(&whom.rooms), Places::of(&whom.except));
    let everyone = to.is_empty().then_some(true);
    let order = Ordered { kind, to, everyone, payload, except };
    serde_json::to_string(&order).map_err(|error| error.to_string())
}

impl Link {
    /// Delivers what an emitter has said.
    pub(super) fn take_emitted(&mut self, bytes: &[u8]) -> Result<(), Refused> {
        let [programs, _] = &self.limits;
        let order = order(bytes, programs.max_depth).map_err(Refused::Malformed)?;
        self.deliver(super::crossing::ALL, &order, None, true, None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Vec<u8> {
        let length = u8::try_from(text.len()).unwrap();
        [&[0xd9, length][..], text.as_bytes()].concat()
    }

    fn list(items: &[Vec<u8>]) -> Vec<u8> {
        [&[0x90 | u8::try_from(items.len()).unwrap()][..], &items.concat()].concat()
    }

    fn map(pairs: &[(&str, Vec<u8>)]) -> Vec<u8> {
        let mut out = vec![0x80 | u8::try_from(pairs.len()).unwrap()];
        pairs.iter().for_each(|(key, value)| out.extend([text(key), value.clone()].concat()));
        out
    }

    fn emitted(kind: u8, data: &[Vec<u8>], rooms: &[&str], except: &[&str]) -> Vec<u8> {
        let names = |names: &[&str]| list(&names.iter().map(|name| text(name)).collect::<Vec<_>>());
        let packet = map(&[("type", vec![kind]), ("data", list(data)), ("nsp", text("/"))]);
        let flags = map(&[("volatile", vec![0xc3])]);
        let whom = map(&[("rooms", names(rooms)), ("flags", flags), ("except", names(except))]);
        list(&[text("emitter"), packet, whom])
    }

    #[test]
    fn an_event_is_the_order_of_a_back_end() {
        let chat = text("chat");
        for (bytes, expected) in [
            (
                emitted(2, std::slice::from_ref(&chat), &[], &[]),
                r#"{"type":"chat","everyone":true}"#,
            ),
            (
                emitted(2, &[chat.clone(), vec![7]], &["lobby", "ab-1-2-3"], &["1-2-3"]),
                r#"{"type":"chat","rooms":["lobby"],"connections":["ab-1-2-3"],"payload":7,"except":{"rooms":["1-2-3"]}}"#,
            ),
            (
                emitted(2, &[chat.clone(), vec![0xc0], list(&[])], &[], &["ab-1-2-3"]),
                r#"{"type":"chat","everyone":true,"payload":[null,[]],"except":{"connections":["ab-1-2-3"]}}"#,
            ),
        ] {
            assert_eq!(order(&bytes, 8).as_deref(), Ok(expected));
        }
        for wrong in
            [emitted(5, &[chat], &[], &[]), emitted(2, &[], &[], &[]), list(&[]), b"{}".to_vec()]
        {
            assert!(order(&wrong, 8).is_err(), "{wrong:x?}");
        }
    }
}
