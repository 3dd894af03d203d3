//! A socket with what lies between it and what is said over it, and with what was read of it before.
//!
//! What a shard has read comes first. Then what arrives is opened if it is sealed, a record's worth at a time, so
//! that nothing gathers here which the other side has not room for. What is sealed leaves before more is taken.
//! Every byte that passes is noted, for whoever watches how long nothing has.

use std::io;
use std::os::fd::AsFd as _;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::base::outside::Seal;
use crate::sys::socket;

/// Plain bytes that are sealed at once.
const PIECE: usize = 16 * 1024;

/// How much has passed.
#[derive(Clone, Debug, Default)]
pub(super) struct Passed(Arc<AtomicU64>);

impl Passed {
    fn note(&self, bytes: usize) {
        self.0.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Returns once nothing has passed for so long.
    pub(super) async fn nothing_for(&self, patience: Duration) {
        loop {
            let before = self.0.load(Ordering::Relaxed);
            let _ = timeout(patience, std::future::pending::<()>()).await;
            if self.0.load(Ordering::Relaxed) == before {
                return;
            }
        }
    }
}

/// Plain bytes over a socket.
#[derive(Debug)]
pub(super) struct Spoken {
    socket: Arc<TcpStream>,
    seal: Option<Box<dyn Seal>>,
    /// Plain bytes that were read and not taken yet, from this place on.
    said: (Vec<u8>, usize),
    /// Sealed bytes that were read and not opened yet.
    unread: Vec<u8>,
    /// Sealed bytes that are not sent yet, from this place on.
    out: (Vec<u8>, usize),
    /// True once nothing more will be said by the peer.
    ended: bool,
    /// True once the word that nothing follows is sealed.
    finished: bool,
    passed: Passed,
}

impl Spoken {
    pub(super) fn new(
        socket: Arc<TcpStream>,
        seal: Option<Box<dyn Seal>>,
        said: Vec<u8>,
        unread: Vec<u8>,
    ) -> Self {
        Self {
            socket,
            seal,
            said: (said, 0),
            unread,
            out: (Vec::new(), 0),
            ended: false,
            finished: false,
            passed: Passed::default(),
        }
    }

    pub(super) fn passed(&self) -> Passed {
        self.passed.clone()
    }

    /// Takes what was said before into `buf`; false when there is nothing.
    fn repeat(&mut self, buf: &mut ReadBuf<'_>) -> bool {
        let (said, at) = &mut self.said;
        let rest = &said[*at..];
        if rest.is_empty() {
            return false;
        }
        let taken = rest.len().min(buf.remaining());
        buf.put_slice(&rest[..taken]);
        *at += taken;
        self.passed.note(taken);
        if *at == said.len() {
            self.said = (Vec::new(), 0);
        }
        true
    }

    /// Sends what is sealed.
    fn poll_out(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.out.1 < self.out.0.len() {
            let rest = &self.out.0[self.out.1..];
            let sent = ready!(poll_send(&self.socket, cx, rest))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.out.1 += sent;
            self.passed.note(sent);
        }
        self.out.0.clear();
        self.out.1 = 0;
        Poll::Ready(Ok(()))
    }

    /// Opens what was read.
    fn open(&mut self) -> io::Result<()> {
        let Some(seal) = &mut self.seal else { return Ok(()) };
        let mut sealed = std::mem::take(&mut self.unread);
        let opened = seal.open(&mut sealed, &mut self.said.0);
        // An alert or an answer of the layer's own; it leaves with what is sent next if there is no room now.
        let _ = seal.seal(&[], &mut self.out.0);
        self.ended |= opened.map_err(io::Error::other)?;
        Ok(())
    }
}

impl AsyncRead for Spoken {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let own = self.get_mut();
        if own.repeat(buf) {
            return Poll::Ready(Ok(()));
        }
        if own.seal.is_none() {
            let before = buf.filled().len();
            ready!(poll_receive(&own.socket, cx, buf))?;
            own.passed.note(buf.filled().len() - before);
            return Poll::Ready(Ok(()));
        }
        loop {
            if !own.unread.is_empty() {
                own.open()?;
                if own.out.1 < own.out.0.len() {
                    let _ = own.poll_out(cx)?;
                }
                if own.repeat(buf) {
                    return Poll::Ready(Ok(()));
                }
            }
            if own.ended {
                return Poll::Ready(Ok(()));
            }
            let mut piece = [0; PIECE];
            let mut read = ReadBuf::new(&mut piece);
            ready!(poll_receive(&own.socket, cx, &mut read))?;
            // An end without a word is one all the same: lengths and chunks tell what is missing.
            own.ended |= read.filled().is_empty();
            own.unread.extend_from_slice(read.filled());
        }
    }
}

impl AsyncWrite for Spoken {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let own = self.get_mut();
        if own.seal.is_none() {
            let sent = ready!(poll_send(&own.socket, cx, bytes))?;
            own.passed.note(sent);
            return Poll::Ready(Ok(sent));
        }
        ready!(own.poll_out(cx))?;
        let taken = bytes.len().min(PIECE);
        if let Some(seal) = &mut own.seal {
            seal.seal(&bytes[..taken], &mut own.out.0).map_err(io::Error::other)?;
        }
        let _ = own.poll_out(cx)?;
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_out(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let own = self.get_mut();
        if let Some(seal) = own.seal.as_mut().filter(|_| !own.finished) {
            own.finished = true;
            seal.finish(&mut own.out.0);
        }
        ready!(own.poll_out(cx))?;
        socket::finish(own.socket.as_fd());
        Poll::Ready(Ok(()))
    }
}

fn poll_receive(
    socket: &TcpStream,
    cx: &mut Context<'_>,
    buf: &mut ReadBuf<'_>,
) -> Poll<io::Result<()>> {
    loop {
        ready!(socket.poll_read_ready(cx))?;
        match socket.try_read(buf.initialize_unfilled()) {
            Ok(read) => {
                buf.advance(read);
                return Poll::Ready(Ok(()));
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Poll::Ready(Err(error)),
        }
    }
}

fn poll_send(socket: &TcpStream, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
    loop {
        ready!(socket.poll_write_ready(cx))?;
        match socket.try_write(bytes) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            done => return Poll::Ready(done),
        }
    }
}
