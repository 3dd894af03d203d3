//! The peer fastwebsockets.
//!
//! Built from its two examples: hyper with an upgrade, `FragmentCollector`, UTF-8 checked by simdutf8 (a
//! default feature), tasks outside of tokio's budget. Its `write_frame` writes to the stream at once, so a
//! burst would be one write for each message; the documentation of `flush` names the remedy, a buffered
//! stream. Echo and members therefore write into a `BufWriter` and flush when nothing more is to be read or
//! sent. It is allocated with the connection, so it is no larger than the longest burst measured needs.
//!
//! Reading a frame is not safe to give up half-way, hence a member is two loops in one task, on the split
//! halves of the connection. There the library cannot answer pings and close frames, so its automatics are
//! off and the answers go through the member's queue like anything else.

use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;

use bytes::Bytes;
use fastwebsockets::upgrade::{UpgradeFut, upgrade};
use fastwebsockets::{
    FragmentCollector, FragmentCollectorRead, Frame, OpCode, Payload, WebSocket, WebSocketError,
    WebSocketWrite,
};
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::upgrade::Upgraded;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{BufWriter, ReadHalf, WriteHalf, split};
use tokio::sync::mpsc::Receiver;
use tokio::task::{spawn_local, unconstrained};

use throng_bench_peers::{Membership, Room, Rooms, Route, serve};

/// Bytes that are gathered before they are written without a flush: sixteen messages of 64 bytes.
const WRITE_BUFFER: usize = 1280;

type Socket = WebSocket<TokioIo<Upgraded>>;
type Reader = FragmentCollectorRead<ReadHalf<TokioIo<Upgraded>>>;
type Writer = WebSocketWrite<BufWriter<WriteHalf<TokioIo<Upgraded>>>>;

/// A message as the members of a room share it.
#[derive(Clone)]
struct Shared {
    opcode: OpCode,
    payload: Bytes,
}

impl Shared {
    fn frame(&self) -> Frame<'_> {
        Frame::new(true, self.opcode, None, Payload::Borrowed(&self.payload))
    }
}

impl From<Frame<'_>> for Shared {
    fn from(frame: Frame<'_>) -> Self {
        let payload = match frame.payload {
            Payload::Bytes(bytes) => bytes.freeze(),
            other => Bytes::from(Vec::from(other)),
        };
        Self { opcode: frame.opcode, payload }
    }
}

fn main() -> std::io::Result<()> {
    let rooms = Rooms::default();
    serve(|stream| {
        let rooms = rooms.clone();
        spawn_local(async move {
            let service = service_fn(|request| admit(request, rooms.clone()));
            let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            // How a connection ends is its client's affair.
            drop(connection.with_upgrades().await);
        });
    })
}

async fn admit(
    mut request: Request<Incoming>,
    rooms: Rooms<Shared>,
) -> Result<Response<Empty<Bytes>>, WebSocketError> {
    let Some(route) = Route::of(request.uri().path()) else {
        let mut refusal = Response::new(Empty::new());
        *refusal.status_mut() = StatusCode::NOT_FOUND;
        return Ok(refusal);
    };
    let (response, upgraded) = upgrade(&mut request)?;
    spawn_local(unconstrained(async move { drop(connection(upgraded, route, rooms).await) }));
    Ok(response)
}

async fn connection(
    upgraded: UpgradeFut,
    route: Route,
    rooms: Rooms<Shared>,
) -> Result<(), WebSocketError> {
    let socket = upgraded.await?;
    match route {
        Route::Echo => echo(socket).await,
        // Boxed, so that an echo's task is not as large as a member's.
        Route::Member(name) => Box::pin(member(socket, &rooms.room(&name))).await,
        Route::Publisher(name) => publisher(socket, &rooms.room(&name)).await,
    }
}

fn halves(mut socket: Socket) -> (Reader, Writer) {
    socket.set_auto_pong(false);
    socket.set_auto_close(false);
    let (reader, writer) = socket.split(|stream| {
        let (read, write) = split(stream);
        (read, BufWriter::with_capacity(WRITE_BUFFER, write))
    });
    (FragmentCollectorRead::new(reader), writer)
}

/// Answers that the library owes while it reads; with its automatics off, only to an invalid close code,
/// after which reading fails.
async fn owed(_: Frame<'_>) -> Result<(), WebSocketError> {
    Ok(())
}

async fn echo(socket: Socket) -> Result<(), WebSocketError> {
    let (mut reader, mut writer) = halves(socket);
    loop {
        let frame = {
            let mut owed = owed;
            let mut reading = pin!(reader.read_frame(&mut owed));
            match futures_util::poll!(reading.as_mut()) {
                Poll::Ready(frame) => frame?,
                Poll::Pending => {
                    writer.flush().await?;
                    reading.await?
                }
            }
        };
        match frame.opcode {
            OpCode::Close => {
                writer.write_frame(Frame::close_raw(frame.payload)).await?;
                return writer.flush().await;
            }
            OpCode::Ping => writer.write_frame(Frame::pong(frame.payload)).await?,
            OpCode::Text | OpCode::Binary => writer.write_frame(frame).await?,
            _ => {}
        }
    }
}

async fn member(socket: Socket, room: &Rc<Room<Shared>>) -> Result<(), WebSocketError> {
    let (reader, writer) = halves(socket);
    let (membership, queue) = room.join();
    tokio::try_join!(listen(reader, &membership), deliver(writer, queue)).map(|_| ())
}

/// What the client of a member sends, until it closes.
async fn listen(mut reader: Reader, membership: &Membership<Shared>) -> Result<(), WebSocketError> {
    loop {
        let frame = reader.read_frame(&mut owed).await?;
        let answer = match frame.opcode {
            OpCode::Close => Frame::close_raw(frame.payload),
            OpCode::Ping => Frame::pong(frame.payload),
            OpCode::Text | OpCode::Binary => {
                membership.publish(&frame.into());
                continue;
            }
            _ => continue,
        };
        let closes = answer.opcode == OpCode::Close;
        if !membership.reply(answer.into()) {
            return Err(WebSocketError::ConnectionClosed);
        }
        if closes {
            return Ok(());
        }
    }
}

/// What waits for a member, all there is in one write, until a close frame was written.
async fn deliver(mut writer: Writer, mut queue: Receiver<Shared>) -> Result<(), WebSocketError> {
    while let Some(first) = queue.recv().await {
        writer.write_frame(first.frame()).await?;
        while let Ok(next) = queue.try_recv() {
            if writer.is_closed() {
                break;
            }
            writer.write_frame(next.frame()).await?;
        }
        writer.flush().await?;
        if writer.is_closed() {
            break;
        }
    }
    Ok(())
}

async fn publisher(socket: Socket, room: &Room<Shared>) -> Result<(), WebSocketError> {
    let mut socket = FragmentCollector::new(socket);
    loop {
        let frame = socket.read_frame().await?;
        match frame.opcode {
            OpCode::Close => return Ok(()),
            OpCode::Text | OpCode::Binary => room.publish(&frame.into()),
            _ => {}
        }
    }
}
