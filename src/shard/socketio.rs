//! Clients of Socket.IO: the same protocol in other words.
//!
//! Their handshake is a WebSocket's with the first packet of Engine.IO behind it. Then nothing is said to them before
//! they have connected to the namespace `/`, and that is when a connection becomes somebody's: by what the
//! request has shown, which is kept aside until then, or by the token that the connect brings, which is the
//! first message of a login. After that each event is put into the words of the JSON protocol before anything
//! looks at what it means, so rights, limits, rates and what is held for the back end are those of every client,
//! and answers go out through the form that the connection reads.
//!
//! What the transport says to itself (pings, probes) has no part in that and counts as life alone.

use crate::auth::{Identity, TokenError};
use crate::base::id::ConnId;
use crate::base::shared::Shared;
use crate::base::time::Time;
use crate::connection::Disconnect;
use crate::flow::outbound::Control;
use crate::session::{Code, CommandError, Incoming, Session, Status, packets};
use crate::shard::pace::{Load, Pace};
use crate::shard::recall::written;
use crate::shard::settings::Settings;
use crate::shard::state::{Shard, enlist};
use crate::wire::engineio::{self, Opening};
use crate::wire::socketio::{Kind, Packet, ROOT};
use crate::wire::websocket::{self, CloseCode};

/// Bytes that a ping may bring along, as for one of WebSocket.
const PING_BYTES: usize = 125;

impl Shard {
    /// Appends the first packet to the response of a handshake.
    pub(super) fn append_opening(&self, conn: ConnId, response: &mut Vec<u8>) {
        let settings = &self.settings;
        let heartbeat = &settings.timeouts.heartbeat;
        let mut packet = Vec::new();
        let own = self.address(conn);
        let session = self.gate.people.petitions.carriers.session(own);
        let opening = Opening {
            upgrades: session.is_some(),
            sid: &session.unwrap_or_else(|| own.to_string()),
            ping_interval: heartbeat.interval,
            ping_timeout: heartbeat.timeout,
            max_payload: settings.messages.message_bytes as u64,
        };
        opening.write(&mut packet);
        response.extend_from_slice(&websocket::text(&packet));
    }

    /// The handshake is done; who it is is known as far as the request says it, and kept until the client connects.
    pub(super) fn await_connect(&mut self, conn: ConnId, identity: Option<Identity>, now: Time) {
        if let Some(identity) = identity {
            self.gate.people.knocks.insert(conn.index, Box::new(identity));
        }
        self.table.wheel.set(conn.index, now.tick().plus(self.settings.timeouts.login));
    }

    /// Says that the namespace is entered.
    pub(super) fn say_entered(&mut self, id: ConnId, now: Time) {
        let pid = self.rooms.replays.recalls.pid(id.index).map(written);
        let packet = packets::entered(self.address(id), pid.as_deref());
        self.push_kept(id, websocket::text(&packet), now);
    }

    /// A text message of a client of Socket.IO.
    pub(super) fn handle_packet(&mut self, id: ConnId, text: &str, settings: &Settings, now: Time) {
        let Some(session) = self.table.get(id).and_then(|c| c.open().map(|open| open.session))
        else {
            return;
        };
        match engineio::Packet::read(text) {
            Ok(engineio::Packet::Message(text)) => self.handle_message(id, text, settings, now),
            Ok(engineio::Packet::Pong(_) | engineio::Packet::Noop) => {}
            Ok(engineio::Packet::Ping(data)) if data.len() <= PING_BYTES => {
                let pong = websocket::text(format!("3{data}").as_bytes());
                if let Some(connection) = self.table.get(id) {
                    let (queues, pong) = (&mut self.queues, Shared::kept(pong));
                    connection.outbound.push_control(queues, pong, Control::Pong, now.tick());
                    enlist(connection, id.index, &mut self.writes);
                }
            }
            Ok(engineio::Packet::Close) => self.handle_close_frame(id, NORMAL, now),
            Ok(_) => {
                let message = "a packet of Engine.IO that a client does not send here";
                self.refuse_packet(id, session, text.len(), message, now);
            }
            Err(malformed) => {
                self.refuse_packet(id, session, text.len(), &malformed.to_string(), now);
            }
        }
    }

    fn handle_message(&mut self, id: ConnId, text: &str, settings: &Settings, now: Time) {
        let Some(session) = self.note_message(id, text.len(), now) else { return };
        let packet = match Packet::read(text) {
            Ok(packet) => packet,
            Err(fault) => {
                return self.refuse_packet(id, session, text.len(), fault.as_str(), now);
            }
        };
        match packet.kind {
            _ if packet.namespace != ROOT => self.refuse_namespace(id, &packet, text.len(), now),
            Kind::Connect => self.handle_connect(id, session, &packet, settings, now),
            Kind::Disconnect => {
                // It goes on purpose, and nobody waits for it.
                self.rooms.replays.recalls.forget(id.index);
                self.handle_close_frame(id, NORMAL, now);
            }
            Kind::Event | Kind::BinaryEvent if session == Session::Knock => {
                self.close(id, Disconnect::Idle, now);
            }
            Kind::Event | Kind::BinaryEvent => match packets::command(&packet) {
                Ok(command) => {
                    let message = session.handle_text(&command, &settings.commands);
                    self.weigh(id, session, (&command, text.len()), message, now);
                }
                Err(error) => self.weigh(id, session, ("", text.len()), Err(error), now),
            },
            // Nobody here asks clients for acknowledgements.
            Kind::Ack | Kind::BinaryAck => {
                self.counters.unknown_acks_total += 1;
                self.keeps_pace(id, text.len(), now);
            }
            Kind::ConnectError => {
                let message = "servers refuse connects, and clients do not";
                self.refuse_packet(id, session, text.len(), message, now);
            }
        }
    }

    /// The client connects to the one namespace there is.
    fn handle_connect(
        &mut self,
        id: ConnId,
        session: Session,
        packet: &Packet<'_>,
        settings: &Settings,
        now: Time,
    ) {
        if matches!(session, Session::Knock | Session::Login) {
            let before = packets::before(packet.data);
            self.note_wish(id, before.pid.as_deref(), before.offset.as_deref());
        }
        match session {
            Session::Knock if self.keeps_pace(id, packet.data.len(), now) => {
                self.enter_namespace(id, now)
            }
            Session::Login => match packets::login(packet.data) {
                Some(command) => {
                    let message = session.handle_text(&command, &settings.commands);
                    self.weigh(id, session, (&command, packet.data.len()), message, now);
                }
                None => self.deny_stranger(id, now),
            },
            // It is connected, and connecting twice is connecting once.
            _ => {
                self.keeps_pace(id, packet.data.len(), now);
            }
        }
    }

    /// Lets somebody in who was let through the door by the request.
    fn enter_namespace(&mut self, id: ConnId, now: Time) {
        let (unix, people) = (self.unix(now), &mut self.gate.people);
        let identity = people.knocks.remove(&id.index);
        if identity.as_ref().is_some_and(|identity| people.revocations.holds(identity, unix)) {
            self.note_refused_token(TokenError::Revoked);
            return self.close(id, Disconnect::Revoked, now);
        }
        let first = self.settings.timeouts.first(now.tick(), self.rng.u32(..));
        let Some(open) = self.table.get(id).and_then(|connection| connection.open_mut()) else {
            return;
        };
        open.session = Session::Json(Status::Active);
        self.table.wheel.set(id.index, first);
        if let Some(identity) = identity {
            self.recognise(id, *identity, now);
        }
        self.welcome(id, crate::session::Protocol::Packets, now);
    }

    /// A packet for a namespace that there is not.
    fn refuse_namespace(&mut self, id: ConnId, packet: &Packet<'_>, bytes: usize, now: Time) {
        if self.keeps_pace(id, bytes, now) && packet.kind == Kind::Connect {
            let refused =
                packets::refused(packet.namespace, NO_NAMESPACE, "Invalid namespace", None);
            self.push_kept(id, websocket::text(&refused), now);
        }
    }

    /// Tells the client that a packet is none, or ends with it where nobody is in yet.
    fn refuse_packet(
        &mut self,
        id: ConnId,
        session: Session,
        bytes: usize,
        message: &str,
        now: Time,
    ) {
        if session == Session::Knock {
            return self.close(id, Disconnect::Idle, now);
        }
        let error = CommandError::new(Code::BadJson, message, None);
        self.weigh(id, session, ("", bytes), Err(error), now);
    }

    /// Weighs a message that asks for nothing; false when it comes sooner than the rates allow.
    pub(super) fn keeps_pace(&mut self, id: ConnId, bytes: usize, now: Time) -> bool {
        matches!(self.pace(id, &Load::of(&Ok(Incoming::Bounce), bytes), now), Pace::Go)
    }
}

/// With what a client's own end is answered.
const NORMAL: Option<CloseCode> = Some(CloseCode::NORMAL);

/// The code of a connect to a namespace that there is not.
const NO_NAMESPACE: &str = "no_namespace";
