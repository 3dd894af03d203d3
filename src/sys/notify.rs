//! What systemd is told, over the datagram socket it names in `NOTIFY_SOCKET`.
//!
//! The protocol is one line of text for each message (sd_notify(3)), so a library would be longer than
//! this. Nothing here waits: a manager that does not read loses messages, and the node goes on.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// A way to tell the service manager something.
#[derive(Debug)]
pub struct Notifier {
    socket: UnixDatagram,
    to: SocketAddr,
}

impl Notifier {
    /// Opens the way to the socket of that name: a path, or `@` and a name in the abstract namespace.
    ///
    /// # Errors
    /// When the name is neither, or the kernel refuses a socket.
    pub fn open(name: &OsStr) -> io::Result<Self> {
        let to = match name.as_bytes() {
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
            [b'/', ..] => SocketAddr::from_pathname(name)?,
            _ => {
                let expected = "expected a path from the root, or @ and a name";
                return Err(io::Error::new(io::ErrorKind::InvalidInput, expected));
            }
        };
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        Ok(Self { socket, to })
    }

    /// Sends one message.
    ///
    /// # Errors
    /// When nobody listens, or has no space.
    pub fn tell(&self, message: &str) -> io::Result<()> {
        self.socket.send_to_addr(message.as_bytes(), &self.to).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(socket: &UnixDatagram) -> String {
        let mut bytes = [0; 256];
        let length = socket.recv(&mut bytes).expect("a message");
        String::from_utf8_lossy(&bytes[..length]).into_owned()
    }

    #[test]
    fn a_message_reaches_a_socket_by_path_and_by_abstract_name() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("notify");
        let by_path = UnixDatagram::bind(&path).expect("a socket");
        let notifier = Notifier::open(path.as_os_str()).expect("a way");
        notifier.tell("READY=1").expect("a listener");
        assert_eq!(heard(&by_path), "READY=1");

        let name = format!("throng-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(name.as_bytes()).expect("an address");
        let by_name = UnixDatagram::bind_addr(&address).expect("a socket");
        let notifier = Notifier::open(OsStr::new(&format!("@{name}"))).expect("a way");
        notifier.tell("STOPPING=1").expect("a listener");
        assert_eq!(heard(&by_name), "STOPPING=1");
        drop(by_name);
        assert!(notifier.tell("READY=1").is_err(), "nobody listens any more");
    }

    #[test]
    fn a_name_that_is_neither_is_refused() {
        for name in ["", "relative", "vsock:2:1234"] {
            assert!(Notifier::open(OsStr::new(name)).is_err(), "{name}");
        }
    }
}
