//! The listening socket, and the options that every accepted socket inherits from it.
//!
//! On Linux an accepted socket is a copy of the listener's, so options are set once on the listener
//! and cost nothing per connection (the test below asks the kernel for each of them). A worker binds
//! its own listener to the common address with `SO_REUSEPORT`; the kernel spreads arrivals over them.
//!
//! `TCP_DEFER_ACCEPT` is not used: a client that connects and stays silent must meet our handshake
//! deadline, not the kernel's.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};

/// TCP options of accepted connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketOptions {
    /// Milliseconds that sent bytes may stay unacknowledged before the kernel declares the peer dead
    /// (`TCP_USER_TIMEOUT`); 0 leaves it to the kernel's retransmission limit (about 15 minutes).
    /// Set it to the heartbeat's interval plus timeout, so that a peer dead with unsent data is
    /// found no later than a silent one.
    pub user_timeout_ms: u32,
    /// Seconds of silence before the kernel probes the peer; 0 turns keepalive off. It finds dead
    /// peers of connections without a heartbeat.
    pub keepalive_s: u32,
    /// Bytes not yet sent above which the kernel says it has no room (`TCP_NOTSENT_LOWAT`); 0 leaves
    /// the system's value. Low values make our own bounded queue the real one.
    pub notsent_lowat: u32,
    /// Kernel send buffer in bytes; `None` lets the kernel tune it.
    pub send_buffer: Option<u32>,
    /// Kernel receive buffer in bytes; `None` lets the kernel tune it.
    pub receive_buffer: Option<u32>,
}

impl Default for SocketOptions {
    fn default() -> Self {
        Self {
            user_timeout_ms: 45_000,
            keepalive_s: 60,
            notsent_lowat: 16 * 1024,
            send_buffer: None,
            receive_buffer: None,
        }
    }
}

/// How to listen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListenOptions {
    /// Let several listeners share the address; all of them must say so.
    pub reuse_port: bool,
    /// Connections that may wait to be accepted; the kernel caps it at `net.core.somaxconn`.
    pub backlog: u32,
    /// What accepted sockets inherit.
    pub socket: SocketOptions,
}

impl Default for ListenOptions {
    fn default() -> Self {
        Self { reuse_port: true, backlog: 4096, socket: SocketOptions::default() }
    }
}

/// Binds and listens. An unspecified IPv6 address (`[::]`) serves IPv4 as well.
///
/// # Errors
/// The failed call's error with the call and the address in its text: EADDRINUSE, EADDRNOTAVAIL,
/// EACCES for ports below 1024, EMFILE.
pub fn listen(address: SocketAddr, options: &ListenOptions) -> io::Result<OwnedFd> {
    let socket = open(address)?;
    if options.reuse_port {
        socket.set_reuse_port(true).map_err(named("set SO_REUSEPORT on", address))?;
    }
    apply(&socket, &options.socket).map_err(named("set TCP options on", address))?;
    socket.bind(&address.into()).map_err(named("bind", address))?;
    let backlog = i32::try_from(options.backlog).unwrap_or(i32::MAX);
    socket.listen(backlog).map_err(named("listen on", address))?;
    Ok(socket.into())
}

/// Whether nobody listens on `address`. To be asked before the first of the listeners that share it:
/// `SO_REUSEPORT` would let them in beside those of another process of the same user, and the kernel
/// would deal the arrivals out to both.
///
/// # Errors
/// EADDRINUSE when somebody does; otherwise as [`listen`].
pub fn ensure_free(address: SocketAddr) -> io::Result<()> {
    open(address)?.bind(&address.into()).map_err(named("bind", address))
}

fn open(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))
        .map_err(named("socket for", address))?;
    socket.set_nonblocking(true).map_err(named("set O_NONBLOCK on", address))?;
    // Lets a restarted node bind while connections of the previous one linger in TIME_WAIT.
    socket.set_reuse_address(true).map_err(named("set SO_REUSEADDR on", address))?;
    if address.is_ipv6() {
        let only_v6 = !address.ip().is_unspecified();
        socket.set_only_v6(only_v6).map_err(named("set IPV6_V6ONLY on", address))?;
    }
    Ok(socket)
}

fn named(call: &'static str, address: SocketAddr) -> impl Fn(io::Error) -> io::Error {
    move |e| io::Error::new(e.kind(), format!("{call} {address}: {e}"))
}

/// The address a socket is bound to: tells the port when 0 was asked for.
///
/// # Errors
/// When the descriptor is not an IP socket.
pub fn local_address(socket: &impl AsFd) -> io::Result<SocketAddr> {
    let address = SockRef::from(socket).local_addr()?;
    address.as_socket().ok_or_else(|| io::Error::from_raw_os_error(libc::EAFNOSUPPORT))
}

fn apply(socket: &Socket, options: &SocketOptions) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    if options.user_timeout_ms > 0 {
        let limit = Duration::from_millis(u64::from(options.user_timeout_ms));
        socket.set_tcp_user_timeout(Some(limit))?;
    }
    if options.keepalive_s > 0 {
        let idle = Duration::from_secs(u64::from(options.keepalive_s));
        socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(idle).with_interval(idle))?;
    }
    if options.notsent_lowat > 0 {
        socket.set_tcp_notsent_lowat(options.notsent_lowat)?;
    }
    if let Some(bytes) = options.send_buffer {
        socket.set_send_buffer_size(bytes as usize)?;
    }
    if let Some(bytes) = options.receive_buffer {
        socket.set_recv_buffer_size(bytes as usize)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpStream;

    #[test]
    fn an_accepted_socket_inherits_every_option() {
        let socket = SocketOptions {
            user_timeout_ms: 12_345,
            keepalive_s: 77,
            notsent_lowat: 9_999,
            send_buffer: Some(64 * 1024),
            receive_buffer: Some(32 * 1024),
        };
        for host in ["127.0.0.1:0", "[::1]:0"] {
            let options = ListenOptions { socket, ..ListenOptions::default() };
            let listener = listen(host.parse().expect("an address"), &options).expect("listen");
            let _peer = TcpStream::connect(local_address(&listener).expect("address"));
            let listener = Socket::from(listener);
            listener.set_nonblocking(false).expect("blocking");
            let (accepted, _) = listener.accept().expect("accept");
            assert!(accepted.tcp_nodelay().expect("option"));
            let limit = accepted.tcp_user_timeout().expect("option");
            assert_eq!(limit, Some(Duration::from_millis(12_345)));
            assert!(accepted.keepalive().expect("option"));
            assert_eq!(accepted.tcp_keepalive_time().expect("option"), Duration::from_secs(77));
            assert_eq!(accepted.tcp_notsent_lowat().expect("option"), 9_999);
            // The kernel doubles what was asked for, to pay for its own records.
            assert_eq!(accepted.send_buffer_size().expect("option"), 128 * 1024);
            assert_eq!(accepted.recv_buffer_size().expect("option"), 64 * 1024);
        }
    }

    #[test]
    fn an_address_in_use_is_refused_by_name_unless_shared() {
        let any = "127.0.0.1:0".parse().expect("an address");
        let alone = ListenOptions { reuse_port: false, ..ListenOptions::default() };
        let first = listen(any, &alone).expect("listen");
        let address = local_address(&first).expect("address");
        let error = listen(address, &alone).expect_err("the port is taken");
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        assert!(error.to_string().contains(&address.to_string()), "{error}");
        let shared = ListenOptions::default();
        let first = listen(any, &shared).expect("listen");
        let address = local_address(&first).expect("address");
        listen(address, &shared).expect("both said that they share");
    }
}
