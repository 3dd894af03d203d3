#![expect(clippy::result_large_err, reason = "a refusal has the library's type")]
//! The peer tokio-tungstenite.
//!
//! Settings from its documentation. `read_buffer_size` is 4 KiB, which it advises where many connections
//! and no high read load are expected; the default of 128 KiB is allocated for every connection at once.
//! `write_buffer_size` stays at its default of 128 KiB, which is a threshold and no allocation: messages
//! are fed and reach the socket when they are flushed, so what waits for a connection leaves in one write.
//! A message is shared by all members of a room as reference-counted bytes; every connection frames it for
//! itself, since the library offers no frame made in advance.
//!
//! It reads until nothing is there and flushes only then. Taking the next message out of the stream is
//! safe to give up, hence a member may wait for its queue and its client at once.

use futures_util::{FutureExt, SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio::task::{spawn_local, unconstrained};
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::http::StatusCode;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, accept_hdr_async_with_config};

use throng_bench_peers::{Room, Rooms, Route, serve};

type Socket = WebSocketStream<TcpStream>;

fn main() -> std::io::Result<()> {
    let rooms = Rooms::default();
    serve(|stream| {
        let rooms = rooms.clone();
        // How a connection ends is its client's affair.
        spawn_local(unconstrained(async move { drop(connection(stream, rooms).await) }));
    })
}

async fn connection(stream: TcpStream, rooms: Rooms<Message>) -> Result<(), Error> {
    let mut route = None;
    let config = WebSocketConfig::default().read_buffer_size(4096);
    let socket = accept_hdr_async_with_config(
        stream,
        |r: &Request, a| admit(&mut route, r, a),
        Some(config),
    )
    .await?;
    match route {
        None => Ok(()),
        Some(Route::Echo) => echo(socket).await,
        Some(Route::Member(name)) => member(socket, &rooms.room(&name)).await,
        Some(Route::Publisher(name)) => publisher(socket, &rooms.room(&name)).await,
    }
}

fn admit(
    route: &mut Option<Route>,
    request: &Request,
    answer: Response,
) -> Result<Response, ErrorResponse> {
    *route = Route::of(request.uri().path());
    if route.is_some() {
        return Ok(answer);
    }
    let mut refusal = ErrorResponse::new(None);
    *refusal.status_mut() = StatusCode::NOT_FOUND;
    Err(refusal)
}

async fn echo(mut socket: Socket) -> Result<(), Error> {
    loop {
        let next = match socket.next().now_or_never() {
            Some(next) => next,
            None => {
                socket.flush().await?;
                socket.next().await
            }
        };
        match next {
            None => return Ok(()),
            Some(message) => {
                let message = message?;
                if is_data(&message) {
                    socket.feed(message).await?;
                }
            }
        }
    }
}

async fn member(mut socket: Socket, room: &std::rc::Rc<Room<Message>>) -> Result<(), Error> {
    let (membership, mut queue) = room.join();
    loop {
        tokio::select! {
            biased;
            Some(message) = queue.recv() => {
                socket.feed(message).await?;
                while let Ok(message) = queue.try_recv() {
                    socket.feed(message).await?;
                }
                socket.flush().await?;
            }
            next = socket.next() => match next {
                None => return Ok(()),
                Some(message) => {
                    let message = message?;
                    if is_data(&message) {
                        membership.publish(&message);
                    }
                }
            },
        }
    }
}

async fn publisher(mut socket: Socket, room: &Room<Message>) -> Result<(), Error> {
    while let Some(message) = socket.next().await {
        let message = message?;
        if is_data(&message) {
            room.publish(&message);
        }
    }
    Ok(())
}

/// The library answers pings and close frames by itself; what remains is text and binary.
fn is_data(message: &Message) -> bool {
    message.is_text() || message.is_binary()
}
