//! What the command line shows of a running node, asked by its admin listener.
//!
//! `throng rooms` is one question and a table. `throng top` looks at regular times and shows what changed between
//! two looks: rates are of the counters, whose differences nobody has to keep but who looks. A screen is a
//! function of two looks and the time between them. What came from clients, such as the name of a room, may
//! hold anything but what would move a terminal's cursor.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use form_urlencoded::Serializer;
use serde::Deserialize;

use crate::node::remote::Remote;
use crate::sys::clock::Clock;

/// Which rooms are listed.
#[derive(Clone, Copy, Debug)]
pub struct RoomQuery<'a> {
    /// Whose.
    pub tenant: Option<&'a str>,
    /// How their names begin.
    pub prefix: Option<&'a str>,
    /// Only behind this one.
    pub after: Option<&'a str>,
    /// Those with most members first.
    pub largest: bool,
    /// The most rooms.
    pub limit: u16,
}

#[derive(Debug, Default, Deserialize)]
struct RoomList {
    rooms: Vec<Room>,
    next: Option<String>,
    exact: Option<bool>,
    #[serde(default, rename = "missingShards")]
    missing: Vec<u16>,
}

#[derive(Debug, Deserialize)]
struct Room {
    room: String,
    members: u64,
}

#[derive(Debug, Default, Deserialize)]
struct LaggardList {
    laggards: Vec<Laggard>,
}

#[derive(Debug, Deserialize)]
struct Laggard {
    conn: String,
    user: Option<String>,
    #[serde(rename = "waitingBytes")]
    waiting: u64,
    rooms: u64,
    seconds: u64,
}

/// Rooms and readers on a screen.
const ROWS: u16 = 10;

/// Lists rooms as a table.
///
/// # Errors
/// Why there is no answer.
pub fn rooms(remote: &Remote<'_>, query: &RoomQuery<'_>) -> Result<String, String> {
    let list: RoomList = read(&remote.get(&query.path())?)?;
    let mut table = room_table(&list);
    if let Some(next) = &list.next {
        let _ = writeln!(table, "there are more behind {}", shown(next));
    }
    Ok(table)
}

impl RoomQuery<'_> {
    fn path(&self) -> String {
        let mut query = Serializer::new(String::new());
        query.append_pair("limit", &self.limit.to_string());
        if self.largest {
            query.append_pair("order", "members");
        }
        let texts = [("tenant", self.tenant), ("prefix", self.prefix), ("afterRoom", self.after)];
        for (name, value) in texts {
            query.extend_pairs(value.map(|value| (name, value)));
        }
        format!("/v1/rooms?{}", query.finish())
    }
}

/// The counters of one look, by name.
type Counts = BTreeMap<String, u64>;

/// Looks at a node again and again.
#[derive(Debug)]
pub struct Top<'a> {
    remote: Remote<'a>,
    rooms: String,
    interval: Duration,
    clock: Clock,
    /// When it last looked, in time since it began, and what it saw.
    before: Option<(Duration, Counts)>,
}

impl<'a> Top<'a> {
    /// One that looks every `interval`, at the rooms of this tenant.
    #[must_use]
    pub fn new(remote: Remote<'a>, tenant: Option<&'a str>, interval: Duration) -> Self {
        let query = RoomQuery { tenant, prefix: None, after: None, largest: true, limit: ROWS };
        Self { remote, rooms: query.path(), interval, clock: Clock::start(), before: None }
    }

    /// Waits until it is time for the next look: the screen that comes of it.
    ///
    /// # Errors
    /// Why there is no answer.
    pub fn look_again(&mut self) -> Result<String, String> {
        let (at, before) = match self.before.take() {
            Some(before) => before,
            None => self.look()?,
        };
        // Nothing else happens in this program meanwhile.
        let _ = crossbeam_channel::after(self.interval).recv();
        let (now, counts) = self.look()?;
        let rooms: RoomList = read(&self.remote.get(&self.rooms)?)?;
        let laggards: LaggardList = read(&self.remote.get("/v1/laggards")?)?;
        let passed = now.saturating_sub(at);
        let screen = screen(self.remote.url, &before, &counts, passed, &rooms, &laggards);
        self.before = Some((now, counts));
        Ok(screen)
    }

    fn look(&self) -> Result<(Duration, Counts), String> {
        let counts = read(&self.remote.get("/v1/counters")?)?;
        Ok((self.clock.now().since(crate::base::time::Time::ZERO), counts))
    }
}

pub(super) fn read<'a, T: Deserialize<'a>>(answer: &'a str) -> Result<T, String> {
    serde_json::from_str(answer).map_err(|error| format!("the answer cannot be read: {error}"))
}

fn room_table(list: &RoomList) -> String {
    let mut table = format!("{:>10}  room\n", "members");
    for room in &list.rooms {
        let _ = writeln!(table, "{:>10}  {}", room.members, shown(&room.room));
    }
    if list.exact == Some(false) {
        table.push_str("there may be others as large\n");
    }
    if !list.missing.is_empty() {
        let _ = writeln!(table, "shards that have not answered: {:?}", list.missing);
    }
    table
}

/// Counters that are shown as they are, with what they are called.
const STANDS: &[(&str, &str)] = &[
    ("connections", "open_connections"),
    ("streams", "stream_connections"),
    ("tls", "tls_connections"),
    ("users", "users_online"),
    ("memberships", "memberships"),
    ("rooms", "home_rooms"),
    ("queued bytes", "queued_bytes"),
    ("memory bytes", "charged_bytes"),
];

/// Counters that are shown by what they gain in a second.
const RATES: &[(&str, &str)] = &[
    ("accepted", "accepted_total"),
    ("greeted", "handshakes_total"),
    ("closed", "closed_total"),
    ("lost", "lost_total"),
    ("messages in", "received_messages_total"),
    ("bytes in", "received_bytes_total"),
    ("published", "publications_total"),
    ("deliveries", "deliveries_total"),
    ("frames out", "sent_frames_total"),
    ("bytes out", "sent_bytes_total"),
    ("slow readers closed", "slow_consumers_total"),
    ("refused for space", "shed_total"),
];

fn screen(
    url: &str,
    before: &Counts,
    counts: &Counts,
    passed: Duration,
    rooms: &RoomList,
    laggards: &LaggardList,
) -> String {
    let count = |counts: &Counts, name: &str| counts.get(name).copied().unwrap_or(0);
    let mut text = format!("throng at {}\n\n", shown(url));
    for (label, name) in STANDS {
        let _ = writeln!(text, "{label:<20} {:>14}", count(counts, name));
    }
    let _ = writeln!(text, "\nin a second, of the last {:.1} s", passed.as_secs_f64());
    for (label, name) in RATES {
        // A node that was started anew counts from zero again.
        let gained = count(counts, name).saturating_sub(count(before, name));
        let rate = gained as f64 / passed.as_secs_f64().max(0.001);
        let _ = writeln!(text, "{label:<20} {rate:>14.1}");
    }
    let _ = write!(text, "\nlargest rooms\n{}", room_table(rooms));
    let _ = writeln!(
        text,
        "\nslowest readers\n{:>10}  {:>6}  {:>8}  connection",
        "bytes", "rooms", "seconds"
    );
    for laggard in laggards.laggards.iter().take(usize::from(ROWS)) {
        let user = laggard.user.as_deref().unwrap_or("-");
        let Laggard { conn, waiting, rooms, seconds, .. } = laggard;
        let (conn, user) = (shown(conn), shown(user));
        let _ = writeln!(text, "{waiting:>10}  {rooms:>6}  {seconds:>8}  {conn} {user}");
    }
    text
}

/// A text from elsewhere without what would move the cursor.
pub(super) fn shown(text: &str) -> String {
    text.chars().map(|one| if one.is_control() { '?' } else { one }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_for_rooms_is_encoded() {
        let query = RoomQuery {
            tenant: Some("a&b"),
            prefix: Some("x/ü"),
            after: None,
            largest: true,
            limit: 3,
        };
        let path = "/v1/rooms?limit=3&order=members&tenant=a%26b&prefix=x%2F%C3%BC";
        assert_eq!(query.path(), path);
    }

    #[test]
    fn a_screen_shows_what_stands_and_what_was_gained() {
        let counts = |pairs: &[(&str, u64)]| -> Counts {
            pairs.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
        };
        let before = counts(&[("accepted_total", 10), ("lost_total", 9)]);
        let now = counts(&[("accepted_total", 25), ("lost_total", 2), ("open_connections", 7)]);
        let rooms = r#"{"rooms":[{"room":"lob\u001bby","members":5}],"exact":false}"#;
        let laggards =
            r#"{"laggards":[{"conn":"0-1-2","waitingBytes":300,"rooms":2,"seconds":61}]}"#;
        let (rooms, laggards) = (read(rooms).expect("rooms"), read(laggards).expect("laggards"));
        let text = screen("http://a", &before, &now, Duration::from_secs(2), &rooms, &laggards);
        let lines: Vec<Vec<&str>> =
            text.lines().map(|line| line.split_whitespace().collect()).collect();
        for line in [
            &["connections", "7"][..],
            &["accepted", "7.5"],
            &["lost", "0.0"],
            &["5", "lob?by"],
            &["there", "may", "be", "others", "as", "large"],
            &["300", "2", "61", "0-1-2", "-"],
        ] {
            assert!(lines.iter().any(|found| found == line), "{line:?} in\n{text}");
        }
    }

    #[test]
    fn every_counter_on_the_screen_exists() {
        let names = crate::base::counters::Counters::NAMES;
        for (_, name) in STANDS.iter().chain(RATES) {
            assert!(names.contains(name), "{name}");
        }
    }
}
