//! The TLS state of one connection.
//!
//! The unbuffered interface of rustls is a loop: it is given the bytes that are there, says what is to be
//! done, and how many of them it is through with. What it is not through with has to be given again, in
//! front of what arrives next; that rest, at most one incomplete record or handshake message, is all that
//! is ever kept here. It must also be given when something is to be written, because rustls refers to
//! places in it.
//!
//! A layer has one write in flight, like its connection, and remembers how many plain bytes that write
//! carries: the outbound queue counts those. Frames stay plain in the queues, where connections share
//! them, until the batch is taken for the driver.
//!
//! A fault is the peer's and ends the connection. rustls has then made the alert that tells the peer, and
//! it leaves with the next write. After a fault or after our close_notify nothing more is sealed, and
//! after the peer's own nothing more is opened.

use std::fmt;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncodeTlsData, EncryptError, InsufficientSizeError,
    UnbufferedStatus, WriteTraffic,
};
use rustls::{HandshakeKind, ProtocolVersion, ServerConfig};

use super::names::{self, Peer};

/// Why a connection cannot go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault(String);

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Fault {}

impl From<rustls::Error> for Fault {
    fn from(error: rustls::Error) -> Self {
        Self(error.to_string())
    }
}

/// A write of the layer that the kernel has not taken yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flight {
    None,
    /// Handshake messages, alerts, tickets: nothing that the queue knows of.
    Own,
    /// A batch of so many plain bytes, perhaps behind some of our own.
    Batch(usize),
}

/// One connection's TLS.
pub struct Layer {
    inner: UnbufferedServerConnection,
    /// Ciphertext that came and is part of something incomplete; without memory while there is none.
    kept: Vec<u8>,
    /// Records of our own that await the next write.
    output: Vec<u8>,
    flight: Flight,
    /// Nothing is opened any more: the peer said that it is done, or there was a fault.
    deaf: bool,
    /// Nothing is sealed any more: we said that we are done, or there was a fault.
    mute: bool,
}

impl fmt::Debug for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Layer")
            .field("handshaking", &self.is_handshaking())
            .field("kept", &self.kept.len())
            .field("output", &self.output.len())
            .field("flight", &self.flight)
            .finish_non_exhaustive()
    }
}

impl Layer {
    /// The layer of a connection that is about to say hello.
    ///
    /// # Errors
    /// When the configuration is unusable, which [`super::server_config`] does not let happen.
    pub fn new(config: Arc<ServerConfig>) -> Result<Self, Fault> {
        Ok(Self {
            inner: UnbufferedServerConnection::new(config)?,
            kept: Vec::new(),
            output: Vec::new(),
            flight: Flight::None,
            deaf: false,
            mute: false,
        })
    }

    /// True until both ends have finished the handshake.
    #[must_use]
    pub fn is_handshaking(&self) -> bool {
        self.inner.is_handshaking()
    }

    /// True when the handshake went on from a ticket.
    #[must_use]
    pub fn is_resumed(&self) -> bool {
        self.inner.handshake_kind() == Some(HandshakeKind::Resumed)
    }

    /// True when the connection speaks TLS 1.3.
    #[must_use]
    pub fn is_newest(&self) -> bool {
        self.inner.protocol_version() == Some(ProtocolVersion::TLSv1_3)
    }

    /// Who the client has proved to be by a certificate; `None` when it showed none. Reads the certificate, so
    /// it is not for every message.
    #[must_use]
    pub fn peer(&self) -> Option<Peer> {
        let certificate: &CertificateDer<'_> = self.inner.peer_certificates()?.first()?;
        names::peer(certificate)
    }

    /// Keeps what came, to be opened later with an empty slice.
    ///
    /// # Errors
    /// When that is more than any handshake needs.
    pub fn keep(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        self.kept.extend_from_slice(bytes);
        self.check_kept()
    }

    /// Opens what came and appends what it says to `plain`. True when this was the peer's end: it has said
    /// that nothing more will come.
    ///
    /// # Errors
    /// The peer's fault, after which nothing is opened any more. What came before it is in `plain`.
    pub fn open(&mut self, bytes: &mut [u8], plain: &mut Vec<u8>) -> Result<bool, Fault> {
        if self.deaf {
            return Ok(false);
        }
        let result = self.open_all(bytes, plain);
        if result.is_err() {
            (self.deaf, self.mute) = (true, true);
        }
        if self.deaf {
            self.kept = Vec::new();
        }
        result.map(|()| self.deaf)
    }

    fn open_all(&mut self, bytes: &mut [u8], plain: &mut Vec<u8>) -> Result<(), Fault> {
        if self.kept.is_empty() {
            let used = self.work(bytes, plain, |_, _| Ok(()))?;
            if used < bytes.len() {
                self.kept = bytes[used..].to_vec();
            }
        } else {
            let mut kept = std::mem::take(&mut self.kept);
            kept.extend_from_slice(bytes);
            let used = self.work(&mut kept, plain, |_, _| Ok(()))?;
            kept.drain(..used);
            if !kept.is_empty() {
                self.kept = kept;
            }
        }
        self.check_kept()
    }

    fn check_kept(&self) -> Result<(), Fault> {
        let most = if self.is_handshaking() { MAX_HANDSHAKE } else { MAX_RECORD };
        if self.kept.len() > most {
            return Err(Fault(format!("{} bytes of something incomplete", self.kept.len())));
        }
        Ok(())
    }

    /// Does what rustls says until it waits for more bytes or for something to write, which `ready` may
    /// then do. How many of `bytes` are done with.
    fn work(
        &mut self,
        bytes: &mut [u8],
        plain: &mut Vec<u8>,
        ready: impl FnOnce(WriteTraffic<'_, Data>, &mut Vec<u8>) -> Result<(), Fault>,
    ) -> Result<usize, Fault> {
        let Self { inner, output, deaf, .. } = self;
        let mut used = 0;
        loop {
            let UnbufferedStatus { mut discard, state } =
                inner.process_tls_records(&mut bytes[used..]);
            match state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(record) = traffic.next_record() {
                        let record = record?;
                        plain.extend_from_slice(record.payload);
                        discard += record.discard;
                    }
                }
                Ok(ConnectionState::EncodeTlsData(mut data)) => encode(&mut data, output)?,
                Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
                Ok(ConnectionState::PeerClosed) => *deaf = true,
                Ok(ConnectionState::WriteTraffic(traffic)) => {
                    ready(traffic, output)?;
                    return Ok(used + discard);
                }
                Ok(_) => return Ok(used + discard),
                Err(error) => {
                    used += discard;
                    drain(inner, &mut bytes[used..], output);
                    return Err(error.into());
                }
            }
            used += discard;
        }
    }

    /// True while a write of this layer is in flight.
    #[must_use]
    pub fn is_sending(&self) -> bool {
        self.flight != Flight::None
    }

    /// True when there is something to write that no queue knows of.
    #[must_use]
    pub fn has_output(&self) -> bool {
        !self.output.is_empty()
    }

    /// True when nothing is opened any more.
    #[must_use]
    pub fn is_deaf(&self) -> bool {
        self.deaf
    }

    /// True when frames can be sealed.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        !self.mute && !self.is_handshaking()
    }

    /// Takes what is to be written and no queue knows of; it is in flight from here on.
    pub fn take_output(&mut self) -> Vec<u8> {
        self.flight = Flight::Own;
        std::mem::take(&mut self.output)
    }

    /// Seals `frames`, behind what else is to be written, into records that each gather as many as they
    /// hold. They are in flight from here on. `scratch` is lent to gather them in.
    ///
    /// # Errors
    /// When the keys must not be used any more.
    pub fn seal<'a>(
        &mut self,
        frames: impl Iterator<Item = &'a [u8]>,
        bytes: usize,
        scratch: &mut Vec<u8>,
    ) -> Result<Vec<u8>, Fault> {
        self.flight = Flight::Batch(bytes);
        let records = bytes.div_ceil(RECORD) + 1;
        self.output.reserve(bytes + records * OVERHEAD);
        let mut kept = std::mem::take(&mut self.kept);
        scratch.clear();
        let mut sealed = false;
        let worked = self.work(&mut kept, &mut Vec::new(), |mut traffic, output| {
            sealed = true;
            gather(frames, scratch, |record| {
                grow(output, record.len() + OVERHEAD, |to| traffic.encrypt(record, to))
            })
        });
        self.kept = kept;
        if worked.is_err() || !sealed {
            (self.deaf, self.mute) = (true, true);
        }
        worked
            .and_then(|_| sealed.then_some(()).ok_or_else(|| Fault("not to be written".into())))?;
        Ok(std::mem::take(&mut self.output))
    }

    /// Notes that the kernel took the write in flight; how many plain bytes of the queue that was.
    pub fn sent(&mut self) -> Option<usize> {
        match std::mem::replace(&mut self.flight, Flight::None) {
            Flight::Batch(bytes) => Some(bytes),
            Flight::Own | Flight::None => None,
        }
    }

    /// Says close_notify, once, with the next write.
    pub fn finish(&mut self) {
        if !self.is_ready() {
            return;
        }
        self.mute = true;
        let mut kept = std::mem::take(&mut self.kept);
        // What cannot be said here is told by the FIN that follows.
        let _ = self.work(&mut kept, &mut Vec::new(), |mut traffic, output| {
            grow(output, OVERHEAD, |to| traffic.queue_close_notify(to))
        });
        self.kept = kept;
    }

    /// Bytes held besides the layer itself and rustls' own state.
    #[must_use]
    pub fn held(&self) -> usize {
        self.kept.capacity() + self.output.capacity()
    }
}

type Data = rustls::server::ServerConnectionData;

/// Takes the alert that a fault has made, without reading on.
fn drain(inner: &mut UnbufferedServerConnection, bytes: &mut [u8], output: &mut Vec<u8>) {
    while inner.wants_write() {
        match inner.process_tls_records(bytes).state {
            Ok(ConnectionState::EncodeTlsData(mut data)) => {
                if encode(&mut data, output).is_err() {
                    return;
                }
            }
            Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                while traffic.next_record().is_some() {}
            }
            _ => return,
        }
    }
}

fn encode(data: &mut EncodeTlsData<'_, Data>, output: &mut Vec<u8>) -> Result<(), Fault> {
    let mut size = HANDSHAKE_OUTPUT;
    loop {
        let at = output.len();
        output.resize(at + size, 0);
        let result = data.encode(&mut output[at..]);
        output.truncate(at + *result.as_ref().unwrap_or(&0));
        match result {
            Ok(_) => return Ok(()),
            Err(EncodeError::InsufficientSize(InsufficientSizeError { required_size }))
                if required_size > size =>
            {
                size = required_size;
            }
            Err(error) => return Err(Fault(error.to_string())),
        }
    }
}

/// Lets `write` append to `output`, at first in `size` bytes, then in as many as it asks for.
fn grow(
    output: &mut Vec<u8>,
    size: usize,
    mut write: impl FnMut(&mut [u8]) -> Result<usize, EncryptError>,
) -> Result<(), Fault> {
    let mut size = size;
    loop {
        let at = output.len();
        output.resize(at + size, 0);
        let result = write(&mut output[at..]);
        output.truncate(at + *result.as_ref().unwrap_or(&0));
        match result {
            Ok(_) => return Ok(()),
            Err(EncryptError::InsufficientSize(InsufficientSizeError { required_size }))
                if required_size > size =>
            {
                size = required_size;
            }
            Err(error) => return Err(Fault(error.to_string())),
        }
    }
}

/// Hands `frames` on in records of [`RECORD`] bytes, the last one shorter. What fills a record by itself is
/// not copied.
fn gather<'a>(
    frames: impl Iterator<Item = &'a [u8]>,
    scratch: &mut Vec<u8>,
    mut record: impl FnMut(&[u8]) -> Result<(), Fault>,
) -> Result<(), Fault> {
    for mut frame in frames {
        while scratch.is_empty() && frame.len() >= RECORD {
            record(&frame[..RECORD])?;
            frame = &frame[RECORD..];
        }
        while !frame.is_empty() {
            let part = frame.len().min(RECORD - scratch.len());
            scratch.extend_from_slice(&frame[..part]);
            frame = &frame[part..];
            if scratch.len() == RECORD {
                record(scratch)?;
                scratch.clear();
            }
        }
    }
    if !scratch.is_empty() {
        record(scratch)?;
        scratch.clear();
    }
    Ok(())
}

/// Plain bytes of a record at most (RFC 8446, section 5.1).
const RECORD: usize = 16 * 1024;

/// What a record adds at most: header, content type and tag of TLS 1.3; header, nonce and tag of TLS 1.2.
const OVERHEAD: usize = 32;

/// An incomplete record, with the most that RFC 5246, section 6.2.3 lets it be longer than its text, and a
/// header; once more for a message between two records.
const MAX_RECORD: usize = 2 * (RECORD + 2048 + 5);

/// What may wait during a handshake: the longest message that rustls takes, a chain of certificates, in
/// records of its own.
const MAX_HANDSHAKE: usize = 72 * 1024;

/// Enough for most messages of a handshake.
const HANDSHAKE_OUTPUT: usize = 2048;
