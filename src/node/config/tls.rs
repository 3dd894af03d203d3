//! The rows of `[tls]` and `[[certificate]]`.

use std::net::SocketAddr;
use std::time::Duration;

use super::group::{group, of};
use super::kind::{Flag, Kind, OptionalAddress, Value, Word, micros, millis, one_of, whole};
use super::kind_text::text;
use super::list::{About, Row};

/// The oldest version of TLS that is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsVersion {
    /// 1.2 and 1.3.
    V12,
    /// 1.3 only.
    V13,
}

impl Word for TlsVersion {
    const ALL: &'static [(Self, &'static str)] = &[(Self::V12, "1.2"), (Self::V13, "1.3")];
}

/// Whether clients are asked for certificates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientAuth {
    /// They are not.
    Off,
    /// Those who have one show it.
    Optional,
    /// Nobody gets in without.
    Required,
}

impl Word for ClientAuth {
    const ALL: &'static [(Self, &'static str)] =
        &[(Self::Off, "off"), (Self::Optional, "optional"), (Self::Required, "required")];
}

group! {
    /// `[tls]`.
    pub struct Tls in "tls" {
        /// Where TLS is spoken (`wss://`), with the certificates in `[[certificate]]`. Port 0 lets the
        /// kernel choose.
        "listen" Restart listen: Option<SocketAddr> = None, OptionalAddress;
        /// The oldest version of TLS that is spoken.
        "min_version" Live min_version: TlsVersion = TlsVersion::V12, one_of();
        /// Whether clients are asked for certificates of the authorities in `tls.client_ca`.
        "client_auth" Live client_auth: ClientAuth = ClientAuth::Off, one_of();
        /// A PEM file with the authorities whose certificates clients may show.
        "client_ca" Live client_ca: String = String::new(), text(4096).or_empty("none");
        /// Give clients tickets to resume with, which saves most of a handshake. Nothing is stored here.
        "tickets" Live tickets: bool = true, Flag;
        /// Steps of handshakes that a shard takes before it looks after everybody else again; more than
        /// that wait. A full handshake is one or two steps of 0.1 to 1 ms.
        "handshakes_per_turn" Live handshakes_per_turn: u32 = 4, whole(1, 1024);
        /// How long those steps may take together; the step that goes beyond it is the last before the others wait.
        "handshake_time_us" Live handshake_time: Duration = Duration::from_millis(2), micros(1, 1_000_000);
        /// How often the times of the certificates' files are looked at; what has changed is read again. 0: only on
        /// SIGHUP.
        "watch_interval_ms" Live watch_interval: Duration = Duration::from_secs(1), millis(0, 86_400_000);
    }
}

group! {
    /// One `[[certificate]]`.
    pub struct Certificate in "certificate" {
        /// A PEM file: our certificate, then those that vouch for it.
        "chain" Live chain: String = String::new(), text(4096);
        /// A PEM file: the key of the first certificate in the chain.
        "key" Live key: String = String::new(), text(4096);
    }
}

impl Row for Certificate {
    const ABOUT: About = About {
        name: "certificate",
        about: &[
            "Who we are to clients that speak TLS (live): each gets the first certificate that is good for the name",
            "it asks for, and the first of all when there is none. The files are read again when they change",
            "(`tls.watch_interval_ms`).",
        ],
        example: &[
            "chain = \"/etc/throng/example.org.pem\"",
            "key = \"/etc/throng/example.org.key\"",
        ],
        required: &["chain", "key"],
        unique: Some("chain"),
    };
}
