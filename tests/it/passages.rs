//! What another server says on the public listeners beyond plain answers: bodies without an end in sight, and sockets.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use throng::node::Node;
use tungstenite::client::IntoClientRequest as _;
use tungstenite::{Message, WebSocket};

use crate::authority::Spoken;
use crate::front::{connect, echoing, mirroring, of, proxy, read_head, serving, unchunked, upload};
use crate::support::{Client, exchange, node, on_both_drivers, wait_for, wait_until};
use crate::tls::client::{Secure, stream};

/// Bytes that show where they belong.
fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| u8::try_from((at ^ at >> 8 ^ at >> 16) & 0xff).unwrap()).collect()
}

/// A socket of the server behind `/app/`.
fn join<S: std::io::Read + std::io::Write>(stream: S, scheme: &str) -> WebSocket<S> {
    let request = format!("{scheme}://example.org/app/socket").into_client_request().unwrap();
    let (socket, response) = tungstenite::client(request, stream).expect("an upgrade");
    assert_eq!(response.status(), 101);
    socket
}

fn talk<S: std::io::Read + std::io::Write>(socket: &mut WebSocket<S>) {
    socket.send(Message::text("hello")).unwrap();
    assert_eq!(socket.read().unwrap(), Message::text("hello"));
    let large = Message::binary(pattern(1 << 20));
    socket.send(large.clone()).unwrap();
    assert!(socket.read().unwrap() == large, "a megabyte comes back as it was");
}

fn ended(node: &Node) {
    wait_until("all have ended", || of(node, "proxy_connections") == 0);
    assert_eq!(of(node, "proxy_tunnels"), 0);
    wait_for(node, "nothing is left", |counters| counters.connections == 0);
}

on_both_drivers! {
    fn bodies_without_a_length_pass_whole_in_both_directions(driver) {
        let node = node(driver, &[&proxy("/app/", mirroring(), ", max_body_bytes = 100_000_000")]);
        let body = pattern(8 << 20);
        let mut stream = connect(node.address());
        let mut writer = stream.try_clone().unwrap();
        let sent = body.clone();
        let writing =
            std::thread::Builder::new().spawn(move || upload(&mut writer, "/app/", &sent)).unwrap();
        let head = read_head(&mut stream);
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
        let back = unchunked(&mut stream).expect("all of it");
        writing.join().unwrap().unwrap();
        assert!(back == body, "{} of {} bytes came back", back.len(), body.len());
        ended(&node);
    }

    fn a_server_goes_no_faster_than_its_client_reads(driver) {
        const PIECE: usize = 1 << 16;
        const PIECES: usize = 4096;
        let (held, reads) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let (held_up, may_read) = (Arc::clone(&held), Arc::clone(&reads));
        let address = serving(move |mut stream| {
            read_head(&mut stream);
            stream.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", PIECE * PIECES);
            stream.write_all(head.as_bytes()).unwrap();
            let bytes = pattern(PIECE);
            let mut left = PIECE * PIECES;
            while left > 0 {
                let at = PIECE - (left - 1) % PIECE - 1;
                match stream.write(&bytes[at..]) {
                    Ok(written) => left -= written,
                    // Nobody takes it: only now may the client begin.
                    Err(_) => {
                        held_up.fetch_max(left, Ordering::SeqCst);
                        may_read.store(true, Ordering::SeqCst);
                    }
                }
            }
        });
        let node = node(driver, &[&proxy("/app/", address, "")]);
        let mut stream = connect(node.address());
        stream.write_all(b"GET /app/ HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        wait_until("the server is held up", || reads.load(Ordering::SeqCst));
        assert!(held.load(Ordering::SeqCst) > PIECE * PIECES / 2, "it was not held up early");
        let head = read_head(&mut stream);
        assert!(head.contains("content-length: 268435456\r\n"), "{head}");
        let (bytes, mut piece) = (pattern(PIECE), vec![0; PIECE]);
        for _ in 0..PIECES {
            stream.read_exact(&mut piece).unwrap();
            assert!(piece == bytes, "the bytes differ");
        }
        ended(&node);
    }

    fn a_socket_of_another_server_is_passed_on_beside_our_own(driver) {
        let node = node(driver, &[&proxy("/app/", echoing(), "")]);
        let mut own = Client::connect(node.address());
        let mut sockets: Vec<_> =
            (0..4).map(|_| join(connect(node.address()), "ws")).collect();
        wait_until("all are joined", || of(&node, "proxy_tunnels") == 4);
        for socket in &mut sockets {
            talk(socket);
        }
        own.join("lobby");
        assert_eq!(node.counters().open_connections, 1, "the others are the shards' no more");
        for mut socket in sockets {
            socket.close(None).unwrap();
            while socket.read().is_ok() {}
        }
        drop(own);
        ended(&node);
        assert_eq!((of(&node, "proxy_upgrades_total"), of(&node, "proxy_requests_total")), (4, 4));
        let refused = exchange(node.address(), b"GET /elsewhere HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\
            Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n");
        assert!(refused.starts_with("HTTP/1.1 404 "), "{refused}");
    }

    fn a_server_that_does_not_switch_answers_as_it_likes(driver) {
        let address = serving(|mut stream| {
            let head = read_head(&mut stream).to_lowercase();
            assert!(head.contains("\r\nupgrade: chat\r\n") && head.contains("\r\nconnection: upgrade\r\n"), "{head}");
            let answer = "HTTP/1.1 418 I'm a teapot\r\nContent-Length: 3\r\nConnection: close\r\n\r\ntea";
            stream.write_all(answer.as_bytes()).unwrap();
        });
        let unasked = serving(|mut stream| {
            read_head(&mut stream);
            let answer = "HTTP/1.1 101 Switching\r\nUpgrade: chat\r\nConnection: upgrade\r\n\r\n";
            stream.write_all(answer.as_bytes()).unwrap();
        });
        let both = format!(
            "proxy=[{{path = \"/app/\", to = \"http://{address}\"}}, {{path = \"/un/\", to = \"http://{unasked}\"}}]"
        );
        let node = node(driver, &[&both]);
        let answer = exchange(
            node.address(),
            b"GET /app/ HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: chat\r\n\r\n",
        );
        assert!(answer.starts_with("HTTP/1.1 418 ") && answer.ends_with("tea"), "{answer}");
        let answer = exchange(node.address(), b"GET /un/ HTTP/1.1\r\nHost: a\r\n\r\n");
        assert!(answer.starts_with("HTTP/1.1 502 "), "{answer}");
        ended(&node);
    }

    fn what_is_too_much_is_refused_or_cut_and_counted(driver) {
        let endless = serving(|mut stream| {
            read_head(&mut stream);
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n");
            while stream.write_all(&[b'x'; 1000]).is_ok() {}
        });
        let rows = format!(
            "proxy=[{{path = \"/small/\", to = \"http://{}\", max_body_bytes = 1000}}, \
            {{path = \"/endless/\", to = \"http://{endless}\", max_answer_bytes = 100000}}]",
            mirroring()
        );
        let node = node(driver, &[&rows]);
        // The server of the first answers before it has read all, so the client may hear of that and of the end,
        // or of nothing but the refusal.
        let mut stream = connect(node.address());
        let _ = upload(&mut stream, "/small/", &pattern(50_000));
        let mut heard = Vec::new();
        let _ = stream.read_to_end(&mut heard);
        assert!(!heard.ends_with(b"0\r\n\r\n") || heard.starts_with(b"HTTP/1.1 413 "), "it was not cut");
        let mut stream = connect(node.address());
        stream.write_all(b"GET /endless/ HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        read_head(&mut stream);
        assert_eq!(unchunked(&mut stream), None, "it breaks off");
        wait_until("the cut is counted", || of(&node, "proxy_cut_total") >= 1);
        ended(&node);
    }

    fn a_place_and_an_address_have_so_many_connections_and_no_more(driver) {
        // It takes what it is sent and says nothing.
        let mute = serving(|mut stream| _ = stream.read_to_end(&mut Vec::new()));
        let rows = format!(
            "proxy=[{{path = \"/app/\", to = \"http://{0}\", max_connections = 2}}, \
            {{path = \"/one/\", to = \"http://{mute}\", max_per_address = 1, timeout_ms = 60000}}]",
            echoing()
        );
        let node = node(driver, &[&rows]);
        let sockets: Vec<_> = (0..2).map(|_| join(connect(node.address()), "ws")).collect();
        let refused = exchange(node.address(), b"GET /app/ HTTP/1.1\r\nHost: a\r\n\r\n");
        assert!(refused.starts_with("HTTP/1.1 503 "), "{refused}");
        assert!(refused.contains("retry-after: 1\r\n"), "{refused}");
        let mut first = connect(node.address());
        first.write_all(b"POST /one/ HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n").unwrap();
        wait_until("it is under way", || of(&node, "proxy_requests_total") == 3);
        let refused = exchange(node.address(), b"GET /one/ HTTP/1.1\r\nHost: a\r\n\r\n");
        assert!(refused.starts_with("HTTP/1.1 503 "), "{refused}");
        assert_eq!(of(&node, "proxy_refused_total"), 2);
        drop((sockets, first));
        ended(&node);
        // Their seats have come back.
        talk(&mut join(connect(node.address()), "ws"));
    }

    fn nothing_for_too_long_is_the_end_of_a_socket(driver) {
        let node = node(driver, &[&proxy("/app/", echoing(), ", idle_timeout_ms = 300")]);
        let mut socket = join(connect(node.address()), "ws");
        socket.send(Message::text("hello")).unwrap();
        assert_eq!(socket.read().unwrap(), Message::text("hello"));
        assert!(socket.read().is_err(), "it ends by itself");
        wait_until("it is counted", || of(&node, "proxy_idle_total") == 1);
        ended(&node);
    }

    fn a_drain_ends_sockets_within_its_window_and_the_end_of_the_node_at_once(driver) {
        let drained = node(driver, &[&proxy("/app/", echoing(), "")]);
        let mut sockets: Vec<_> =
            (0..5).map(|_| join(connect(drained.address()), "ws")).collect();
        assert!(!drained.is_drained());
        drained.drain(Duration::from_millis(500));
        wait_until("it has drained", || drained.is_drained());
        for socket in &mut sockets {
            assert!(socket.read().is_err(), "its end was told");
        }
        assert_eq!(of(&drained, "proxy_drained_total"), 5);
        drained.stop().unwrap();
        let stopped = node(driver, &[&proxy("/app/", echoing(), "")]);
        let mut socket = join(connect(stopped.address()), "ws");
        stopped.stop().unwrap();
        assert!(socket.read().is_err(), "its end was told");
    }

    fn by_tls_requests_streams_and_sockets_pass_as_without(driver) {
        let plain = serving(|mut stream| {
            let head = read_head(&mut stream);
            assert!(head.to_lowercase().contains("\r\nx-forwarded-proto: https\r\n"), "{head}");
            let answer = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello";
            stream.write_all(answer.as_bytes()).unwrap();
        });
        let rows = format!(
            "proxy=[{{path = \"/app/\", to = \"http://{}\"}}, {{path = \"/mirror/\", to = \"http://{}\", \
            max_body_bytes = 100000000}}, {{path = \"/page/\", to = \"http://{plain}\"}}]",
            echoing(),
            mirroring()
        );
        let secure = Secure::start(driver, &[&rows]);
        for version in Spoken::BOTH {
            let config = secure.client(version);
            let open = || stream(secure.address(), &config, "example.org");
            let mut page = open();
            page.write_all(b"GET /page/ HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
            let mut answer = Vec::new();
            page.read_to_end(&mut answer).expect("it ends with the word that nothing follows");
            assert!(answer.ends_with(b"\r\n\r\nhello"), "{}", String::from_utf8_lossy(&answer));
            // In pieces, so that neither side waits for the other for ever.
            let (body, mut mirror) = (pattern(300_000), open());
            upload(&mut mirror, "/mirror/", &body).unwrap();
            read_head(&mut mirror);
            assert!(unchunked(&mut mirror).expect("all of it") == body, "the bytes differ");
            let mut socket = join(open(), "wss");
            talk(&mut socket);
            socket.close(None).unwrap();
            while socket.read().is_ok() {}
        }
        ended(&secure.node);
        wait_for(&secure.node, "no layer is left", |counters| counters.tls_connections == 0);
        let mut own = secure.connect(Spoken::Tls13);
        own.join("lobby");
    }

    fn a_client_that_vanishes_takes_its_connection_to_the_server_along(driver) {
        let (left, gone) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (come, went) = (Arc::clone(&left), Arc::clone(&gone));
        let address = serving(move |mut stream| {
            read_head(&mut stream);
            let answer = "HTTP/1.1 101 Switching\r\nUpgrade: chat\r\nConnection: upgrade\r\n\r\n";
            stream.write_all(answer.as_bytes()).unwrap();
            come.fetch_add(1, Ordering::SeqCst);
            let _ = stream.read_to_end(&mut Vec::new());
            went.fetch_add(1, Ordering::SeqCst);
        });
        let node = node(driver, &[&proxy("/app/", address, "")]);
        let request =
            b"GET /app/ HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: chat\r\n\r\n";
        let mut clients: Vec<TcpStream> = (0..3).map(|_| connect(node.address())).collect();
        for client in &mut clients {
            client.write_all(request).unwrap();
            assert!(read_head(client).starts_with("HTTP/1.1 101 "));
        }
        wait_until("all have come", || left.load(Ordering::SeqCst) == 3);
        drop(clients);
        wait_until("the server hears of it", || gone.load(Ordering::SeqCst) == 3);
        ended(&node);
    }
}
