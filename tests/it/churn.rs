//! Clients that come and go without a word: nothing of them may stay.
//!
//! Every client ends with a reset, as a crashed one does, at one of three moments: right after it
//! connected, with its handshake under way, or as a member of a room. The last kind is awaited before it
//! is cut off, so that rooms have come into being on both shards and have to go again.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use socket2::SockRef;
use throng::base::counters::Counters;

use crate::support::{Client, node, on_both_drivers, wait_for};

const HANDSHAKE: &str = "GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";

/// Clients that are connected at one time, and how often so many come.
const WAVE: u64 = 1000;
const WAVES: u64 = 20;

/// Rooms over which the members of a wave are spread: some are shared, none is everybody's.
const ROOMS: u64 = 150;

/// A handshake and the command to join, in one write.
fn joining(room: u64) -> Vec<u8> {
    let command = format!(r#"{{"type":"throng:join","room":"churn-{room}"}}"#);
    let length = u8::try_from(command.len()).unwrap();
    assert!(length < 126, "the header below is a short one");
    // A mask of zeros leaves the payload as it is.
    [HANDSHAKE.as_bytes(), &[0x81, 0x80 | length, 0, 0, 0, 0], command.as_bytes()].concat()
}

/// A client that will be reset when it is dropped.
fn visitor(address: SocketAddr, number: u64) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
    match number % 4 {
        0 | 1 => stream.write_all(&joining(number % ROOMS)).unwrap(),
        2 => stream.write_all(HANDSHAKE.as_bytes()).unwrap(),
        _ => {}
    }
    stream
}

fn nothing_is_left(counters: &Counters) -> bool {
    let c = counters;
    let gauges = [
        c.connections,
        c.open_connections,
        c.rooms,
        c.memberships,
        c.home_rooms,
        c.queued_bytes,
        c.parked_mail,
        c.paused_connections,
    ];
    gauges == [0; 8]
}

on_both_drivers! {
    fn twenty_thousand_connects_and_aborts_leave_no_connection_and_no_room(driver) {
        let node = node(driver, &[]);
        for wave in 0..WAVES {
            let (mut staying, mut hasty) = (Vec::new(), Vec::new());
            for number in 0..WAVE {
                let stream = visitor(node.address(), wave * WAVE + number);
                if number % 4 < 2 { staying.push(stream) } else { hasty.push(stream) }
            }
            drop(hasty);
            wait_for(&node, "half of the wave has joined", |c| c.memberships == WAVE / 2);
            drop(staying);
        }
        wait_for(&node, "nothing is left", nothing_is_left);
        let counters = node.counters();
        assert_eq!(counters.accepted_total, WAVES * WAVE, "every visitor was met");
        assert!(counters.handshakes_total >= WAVES * WAVE / 2, "{counters:?}");
        assert_eq!(counters.panics_total, 0);
        let mut last = Client::connect(node.address());
        assert_eq!(last.join("churn-1")["members"], 1, "the room has begun anew");
    }
}
