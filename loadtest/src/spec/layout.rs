//! Who is in which room, and who publishes where: a scenario worked out for each client.
//!
//! A *stream* is the publications of one publisher to one room; its number travels in every payload, and
//! sequence numbers count per stream. One room has a stream per publisher; of many rooms each has one stream,
//! and the publishers share the rooms among themselves.

use super::{Kind, Spec};
use crate::dialect::Dialect;

/// The whole cast.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    /// Members of each room before its number in the order of clients; one more entry than rooms.
    bounds: Vec<u32>,
    /// Idle: everyone is in room 0.
    everyone: bool,
    /// Idle: the first so many clients are in the side room.
    side: u32,
    side_room: u32,
    /// The room of each stream.
    pub(crate) streams: Vec<u32>,
    pub(crate) publishers: Vec<PublisherPlan>,
}

/// What one publisher does.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct PublisherPlan {
    pub(crate) streams: Vec<u32>,
    /// Messages a second.
    pub(crate) rate: f64,
    pub(crate) rate_to: f64,
    pub(crate) burst: u32,
    /// 0: no limit but time.
    pub(crate) messages: u64,
    /// Seconds from the first message of the run to this publisher's first.
    pub(crate) from_s: f64,
    /// 0: until all messages are sent.
    pub(crate) duration_s: f64,
}

impl Layout {
    /// Works a scenario out.
    pub(crate) fn new(spec: &Spec) -> Self {
        match spec.scenario {
            Kind::Echo => Self::silent(),
            Kind::Idle => Self::idle(spec),
            _ => Self::published(spec),
        }
    }

    fn silent() -> Self {
        Self {
            bounds: vec![0],
            everyone: false,
            side: 0,
            side_room: 0,
            streams: Vec::new(),
            publishers: Vec::new(),
        }
    }

    fn idle(spec: &Spec) -> Self {
        let (load, rooms) = (&spec.load, &spec.rooms);
        let mut layout = Self { everyone: rooms.broadcast > 0, side: rooms.side, ..Self::silent() };
        let mut room = 0;
        if rooms.broadcast > 0 {
            layout.publishers.push(PublisherPlan {
                streams: vec![u32::try_from(layout.streams.len()).unwrap_or(0)],
                rate: 1.0,
                rate_to: 0.0,
                burst: 1,
                messages: rooms.broadcast,
                from_s: if rooms.side > 0 { load.duration_s } else { 0.0 },
                duration_s: 0.0,
            });
            layout.streams.push(room);
            room += 1;
        }
        if rooms.side > 0 {
            layout.side_room = room;
            layout.publishers.push(PublisherPlan {
                streams: vec![u32::try_from(layout.streams.len()).unwrap_or(0)],
                rate: load.rate,
                rate_to: load.rate_to,
                burst: load.burst,
                messages: load.messages,
                from_s: 0.0,
                duration_s: load.duration_s,
            });
            layout.streams.push(room);
        }
        layout
    }

    fn published(spec: &Spec) -> Self {
        let (load, rooms) = (&spec.load, &spec.rooms);
        // Where the path names the room, a connection publishes to one room only.
        let publishers = match spec.target.dialect {
            Dialect::Plain => rooms.publishers.max(rooms.count),
            _ => rooms.publishers,
        };
        let streams: Vec<u32> = match rooms.count {
            1 => vec![0; usize::try_from(publishers).unwrap_or(1)],
            count => (0..count).collect(),
        };
        let plan = |publisher: u32| {
            let own =
                (0_u32..).take(streams.len()).filter(|stream| stream % publishers == publisher);
            PublisherPlan {
                streams: own.collect(),
                rate: load.rate / f64::from(publishers),
                rate_to: load.rate_to / f64::from(publishers),
                burst: load.burst,
                messages: load.messages.div_ceil(u64::from(publishers)),
                from_s: 0.0,
                duration_s: load.duration_s,
            }
        };
        let plans = (0..publishers).map(plan).filter(|plan| !plan.streams.is_empty());
        Self {
            bounds: bounds(spec.crowd.clients, rooms.count, rooms.zipf),
            publishers: plans.collect(),
            streams,
            ..Self::silent()
        }
    }

    /// True when a paced load of a room is followed by what goes to everyone.
    pub(crate) fn ends_with_broadcast(&self) -> bool {
        self.everyone && self.side > 0
    }

    /// The rooms of a client, by number.
    pub(crate) fn rooms_of(&self, client: u32) -> Vec<u32> {
        let mut rooms = Vec::new();
        if self.bounds.len() > 1 {
            let above = self.bounds.partition_point(|bound| *bound <= client);
            rooms.push(u32::try_from(above.saturating_sub(1)).unwrap_or(0));
        }
        if self.everyone {
            rooms.push(0);
        }
        if client < self.side {
            rooms.push(self.side_room);
        }
        rooms
    }

    /// True for the busy room of an idle crowd.
    pub(crate) fn is_side(&self, room: u32) -> bool {
        self.side > 0 && room == self.side_room
    }

    /// Members that a stream's publications reach when everyone is there.
    pub(crate) fn members_of(&self, stream: u32, clients: u32) -> u32 {
        let Some(room) = usize::try_from(stream).ok().and_then(|at| self.streams.get(at)) else {
            return 0;
        };
        let Ok(at) = usize::try_from(*room) else { return 0 };
        match (self.bounds.get(at), self.bounds.get(at + 1)) {
            (Some(from), Some(to)) => to - from,
            _ if self.is_side(*room) => self.side,
            _ => clients,
        }
    }
}

/// Where each room's members begin and end among the clients, each room having at least one.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "shares of a u32")]
fn bounds(clients: u32, rooms: u32, zipf: f64) -> Vec<u32> {
    let weight = |rank: u32| f64::from(rank + 1).powf(-zipf);
    let total: f64 = (0..rooms).map(weight).sum();
    let spare = f64::from(clients - rooms.min(clients));
    let mut bounds = vec![0];
    let mut sum = 0.0;
    for rank in 0..rooms {
        sum += weight(rank);
        bounds.push(rank + 1 + (spare * sum / total).round() as u32);
    }
    if let Some(last) = bounds.last_mut() {
        *last = clients;
    }
    bounds
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sizes(layout: &Layout, clients: u32, rooms: usize) -> Vec<u32> {
        let mut sizes = vec![0; rooms];
        for client in 0..clients {
            for room in layout.rooms_of(client) {
                sizes[room as usize] += 1;
            }
        }
        sizes
    }

    #[test]
    fn every_room_has_members_and_every_client_a_room() {
        let mut spec = Spec::new(Kind::Rooms);
        let sizes = sizes(&Layout::new(&spec), spec.crowd.clients, 50);
        assert_eq!(sizes.iter().sum::<u32>(), spec.crowd.clients);
        assert!(sizes.iter().all(|size| *size > 0) && sizes[0] > 10 * sizes[49], "{sizes:?}");
        spec.rooms.zipf = 0.0;
        let layout = Layout::new(&spec);
        assert_eq!(super::tests::sizes(&layout, spec.crowd.clients, 50), [4; 50]);
        assert!((0..50).all(|stream| layout.members_of(stream, 200) == 4));
    }

    #[test]
    fn publishers_share_the_rooms_or_the_one_room() {
        let layout = Layout::new(&Spec::new(Kind::Rooms));
        let mut streams: Vec<u32> =
            layout.publishers.iter().flat_map(|p| p.streams.clone()).collect();
        streams.sort_unstable();
        assert_eq!(streams, (0..50).collect::<Vec<_>>());
        let mut spec = Spec::new(Kind::Fanout);
        spec.rooms.publishers = 3;
        let layout = Layout::new(&spec);
        assert_eq!(layout.streams, [0, 0, 0]);
        assert_eq!(layout.publishers.len(), 3);
        assert_eq!(layout.members_of(2, spec.crowd.clients), spec.crowd.clients);
    }

    #[test]
    fn an_idle_crowd_may_have_a_busy_room_and_a_room_of_everyone() {
        let mut spec = Spec::new(Kind::Idle);
        assert!(Layout::new(&spec).publishers.is_empty());
        assert!(Layout::new(&spec).rooms_of(0).is_empty());
        (spec.rooms.side, spec.rooms.broadcast) = (10, 2);
        let layout = Layout::new(&spec);
        assert_eq!((layout.rooms_of(9), layout.rooms_of(10)), (vec![0, 1], vec![0]));
        assert_eq!((layout.members_of(0, 1000), layout.members_of(1, 1000)), (1000, 10));
        assert_eq!((layout.is_side(0), layout.is_side(1)), (false, true));
        assert_eq!(layout.publishers[0].messages, 2);
    }
}
