//! What goes wrong, and when: once in so many deliveries, counted over all connections of a proxy.
//!
//! A [`Plan`] is shared by the connections; a [`Meddler`] is one connection's and sees every byte that the
//! server sends on it. It takes frames apart by their headers, and event streams by their empty lines, and touches deliveries alone: publications,
//! echoes and answers to a roll call. Greetings, replies, gaps and control frames pass as they came, for a
//! server that loses those fails in other ways. It knows no socket, and when it holds a frame back its caller
//! decides how long.

use std::io::Cursor;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

/// What befalls a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    Nothing,
    Drop,
    Duplicate,
    /// It arrives after the one that follows it on its connection.
    Reorder,
    /// One byte of it is another.
    Corrupt,
}

/// One fault in every so many deliveries.
#[derive(Debug)]
pub(crate) struct Plan {
    fault: Fault,
    every: u64,
    deliveries: AtomicU64,
    struck: AtomicU64,
    /// Faults that were due and found no neighbour to change places with.
    owed: AtomicU64,
}

impl Plan {
    pub(crate) fn new(fault: Fault, every: u64) -> Self {
        let zero = AtomicU64::default;
        Self { fault, every, deliveries: zero(), struck: zero(), owed: zero() }
    }

    /// Deliveries that the server has sent.
    pub(crate) fn deliveries(&self) -> u64 {
        self.deliveries.load(Ordering::Relaxed)
    }

    /// Faults that have happened.
    pub(crate) fn struck(&self) -> u64 {
        self.struck.load(Ordering::Relaxed)
    }

    /// Counts a delivery and says what is to befall it.
    fn next(&self) -> Fault {
        let number = self.deliveries.fetch_add(1, Ordering::Relaxed) + 1;
        let pay = |owed: u64| owed.checked_sub(1);
        let owed = || self.owed.fetch_update(Ordering::Relaxed, Ordering::Relaxed, pay).is_ok();
        if number.is_multiple_of(self.every) || owed() { self.fault } else { Fault::Nothing }
    }

    fn strike(&self) {
        self.struck.fetch_add(1, Ordering::Relaxed);
    }
}

/// One connection's way from the server to the client.
pub(crate) struct Meddler<'a> {
    plan: &'a Plan,
    /// Bytes of a response or a frame that is not complete.
    pending: Vec<u8>,
    /// A frame that waits for its neighbour.
    held: Vec<u8>,
    /// How the bytes are taken apart, once the head of the answer has said it.
    apart: Option<Apart>,
}

/// What is the first whole piece of the bytes, and where its payload lies.
type Apart = fn(&[u8]) -> Option<(OpCode, Range<usize>)>;

impl<'a> Meddler<'a> {
    pub(crate) fn new(plan: &'a Plan) -> Self {
        Self { plan, pending: Vec::new(), held: Vec::new(), apart: None }
    }

    /// Takes what the server sent and appends what the client is to have of it.
    pub(crate) fn take(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        self.pending.extend_from_slice(bytes);
        let mut from = 0;
        let apart = match self.apart {
            Some(apart) => apart,
            None => {
                let Some(end) = self.pending.windows(4).position(|four| four == b"\r\n\r\n") else {
                    return;
                };
                from = end + 4;
                out.extend_from_slice(&self.pending[..from]);
                let streams = self.pending.starts_with(b"HTTP/1.1 200 ");
                *self.apart.insert(if streams { event } else { frame })
            }
        };
        let pending = std::mem::take(&mut self.pending);
        while let Some((opcode, body)) = apart(&pending[from..]) {
            let (head, end) = (body.start, from + body.end);
            self.pass(opcode, &pending[from..end], head, out);
            from = end;
        }
        self.pending.extend_from_slice(&pending[from..]);
    }

    /// True while a frame waits for its neighbour.
    pub(crate) fn is_holding(&self) -> bool {
        !self.held.is_empty()
    }

    /// Gives up waiting for a neighbour; another frame will be reordered instead.
    pub(crate) fn release(&mut self, out: &mut Vec<u8>) {
        if self.is_holding() {
            out.append(&mut self.held);
            self.plan.owed.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Passes a frame on, whose payload begins at `head`, as the plan has it.
    fn pass(&mut self, opcode: OpCode, frame: &[u8], head: usize, out: &mut Vec<u8>) {
        if opcode == OpCode::Control(Control::Close) {
            self.release(out);
        }
        if opcode != OpCode::Data(Data::Text) || !is_delivery(&frame[head..]) {
            return out.extend_from_slice(frame);
        }
        let fault = self.plan.next();
        if self.is_holding() {
            out.extend_from_slice(frame);
            out.append(&mut self.held);
            return self.plan.strike();
        }
        match fault {
            Fault::Nothing => return out.extend_from_slice(frame),
            Fault::Reorder => return self.held.extend_from_slice(frame),
            Fault::Drop => {}
            Fault::Duplicate => {
                out.extend_from_slice(frame);
                out.extend_from_slice(frame);
            }
            Fault::Corrupt => {
                let changed = out.len() + head + digit(&frame[head..]);
                out.extend_from_slice(frame);
                out[changed] ^= 1;
            }
        }
        self.plan.strike();
    }
}

/// The first frame when it is complete: what it is, and where its payload lies.
fn frame(bytes: &[u8]) -> Option<(OpCode, Range<usize>)> {
    let mut cursor = Cursor::new(bytes);
    let (header, length) = FrameHeader::parse(&mut cursor).expect("a frame of the server")?;
    let head = usize::try_from(cursor.position()).expect("a position");
    let end = head + usize::try_from(length).expect("a length");
    (end <= bytes.len()).then_some((header.opcode, head..end))
}

/// The first event of a stream, as a frame would be; what carries no data is like a ping.
fn event(bytes: &[u8]) -> Option<(OpCode, Range<usize>)> {
    const DATA: &[u8] = b"data: ";
    let end = bytes.windows(2).position(|two| two == b"\n\n")? + 2;
    Some(match bytes[..end].windows(DATA.len()).position(|part| part == DATA) {
        Some(at) => (OpCode::Data(Data::Text), at + DATA.len()..end),
        None => (OpCode::Control(Control::Ping), 0..end),
    })
}

/// True for what a client must have: a publication, an answer to a roll call, or an echo, which is the only
/// message that does not begin with a brace.
fn is_delivery(payload: &[u8]) -> bool {
    const OTHERS: [&[u8]; 2] = [br#"{"type":"load""#, br#"{"type":"throng:pong""#];
    !payload.starts_with(b"{") || OTHERS.iter().any(|begin| payload.starts_with(begin))
}

/// Where a digit of the generator's own stands in a message: within the sequence number, where it is a zero.
fn digit(payload: &[u8]) -> usize {
    const FIELD: &[u8] = br#""payload":""#;
    let field = payload.windows(FIELD.len()).position(|part| part == FIELD);
    field.map_or(0, |at| at + FIELD.len()) + 16
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\n\r\n";

    fn message(text: &str) -> Vec<u8> {
        let length = u8::try_from(text.len()).expect("a short message");
        [&[0x81, length], text.as_bytes()].concat()
    }

    /// What becomes of the messages when every second is meddled with, however they are cut.
    fn meddled(fault: Fault, texts: &[&str], chunk: usize) -> Vec<u8> {
        let plan = Plan::new(fault, 2);
        let mut meddler = Meddler::new(&plan);
        let bytes = [HEAD.to_vec(), texts.iter().flat_map(|text| message(text)).collect()].concat();
        let mut out = Vec::new();
        bytes.chunks(chunk).for_each(|piece| meddler.take(piece, &mut out));
        meddler.release(&mut out);
        out.split_off(HEAD.len())
    }

    #[test]
    fn events_of_a_stream_are_deliveries_like_frames() {
        const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\n\r\n";
        let event = |number: u8| {
            format!(
                "id: 1.{number}.r\ndata: {{\"type\":\"load\",\"payload\":\"0000000000000000{number}\"}}\n\n"
            )
        };
        let (one, two, three) = (event(1), event(2), event(3));
        let comment = ": ping\n\n";
        let stream =
            [HEAD, one.as_bytes(), comment.as_bytes(), two.as_bytes(), three.as_bytes()].concat();
        let of = |fault| {
            let plan = Plan::new(fault, 2);
            let mut meddler = Meddler::new(&plan);
            let mut out = Vec::new();
            stream.chunks(7).for_each(|piece| meddler.take(piece, &mut out));
            String::from_utf8(out.split_off(HEAD.len())).expect("text")
        };
        assert_eq!(of(Fault::Nothing), format!("{one}{comment}{two}{three}"));
        assert_eq!(of(Fault::Drop), format!("{one}{comment}{three}"));
        assert_eq!(of(Fault::Duplicate), format!("{one}{comment}{two}{two}{three}"));
        assert_eq!(of(Fault::Reorder), format!("{one}{comment}{three}{two}"));
        let changed = two.replace("00000000000000002", "00000000000000003");
        assert_eq!(of(Fault::Corrupt), format!("{one}{comment}{changed}{three}"));
    }

    #[test]
    fn each_fault_does_what_its_name_says_and_only_to_deliveries() {
        let reply = r#"{"type":"throng:reply"}"#;
        let texts = ["00000000000000001", reply, "00000000000000002", "00000000000000003"];
        let [one, two, three] = [0, 2, 3].map(|at| message(texts[at]));
        let reply = message(reply);
        let changed = message("00000000000000003");
        for chunk in [1, 3, 1000] {
            let of = |fault| meddled(fault, &texts, chunk);
            assert_eq!(of(Fault::Nothing), [&*one, &reply, &two, &three].concat());
            assert_eq!(of(Fault::Drop), [&*one, &reply, &three].concat());
            assert_eq!(of(Fault::Duplicate), [&*one, &reply, &two, &two, &three].concat());
            assert_eq!(of(Fault::Reorder), [&*one, &reply, &three, &two].concat());
            assert_eq!(of(Fault::Corrupt), [&*one, &reply, &changed, &three].concat());
        }
    }
}
