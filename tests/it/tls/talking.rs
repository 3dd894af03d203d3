//! Who gets in speaks as everybody else does.

use std::sync::Arc;
use std::time::Duration;

use rustls::HandshakeKind;
use serde_json::json;
use throng::auth::Revocation;

use crate::authority::Spoken;
use crate::support::{Client, on_both_drivers, wait_for, wait_until};
use crate::tls::client::{Files, Secure, SecureClient, stream};

on_both_drivers! {
    fn an_echo_of_any_size_comes_back_in_both_versions(driver) {
        let secure = Secure::start(driver, &[]);
        for version in Spoken::BOTH {
            let mut client = secure.echo(version);
            for bytes in [1, 125, 126, 16_383, 16_384, 65_536, 100_000, 1 << 20] {
                client.bounce(bytes);
            }
            client.close();
        }
        wait_for(&secure.node, "they are gone", |c| c.connections == 0 && c.tls_connections == 0);
        let counters = secure.node.counters();
        assert_eq!((counters.tls_handshakes_total, counters.tls_failed_total), (2, 0));
        assert_eq!(counters.closed_total, 2);
    }

    fn plain_and_secure_members_of_a_room_hear_each_other_over_all_shards(driver) {
        let secure = Secure::start(driver, &[]);
        let mut plain = Client::connect(secure.node.address());
        plain.join("r");
        let mut members: Vec<SecureClient> = (0..8)
            .map(|at| secure.connect(Spoken::BOTH[at % 2]))
            .collect();
        members.iter_mut().for_each(|member| member.join("r"));
        plain.send(&json!({"type": "t", "room": "r", "payload": 1}));
        assert_eq!(plain.next()["payload"], json!(1));
        for member in &mut members {
            assert_eq!(member.next()["payload"], json!(1));
        }
        members[0].send(&json!({"type": "t", "room": "r", "payload": 2}));
        assert_eq!(plain.next()["payload"], json!(2));
        for member in &mut members {
            assert_eq!(member.next()["payload"], json!(2));
        }
    }

    fn who_shows_a_certificate_is_its_user_on_all_shards(driver) {
        let sets = [
            "tls.client_auth=optional",
            "auth.mode=token",
            r#"auth.sources=["header", "certificate"]"#,
            r#"auth.certificate_rooms=["ours:*"]"#,
            r#"namespace=[{pattern="*", join="granted"}]"#,
            "auth.secret=a secret of no less than 32 bytes",
        ];
        let secure = Secure::start(driver, &sets);
        let authority = &secure.files.authority;
        let of = |name: &str, version| {
            let issued = authority.issue(name, &[name]);
            Arc::new(authority.client(version, Some(&issued)))
        };
        let mut alices: Vec<SecureClient> = (0..6)
            .map(|at| SecureClient::connect(secure.address(), &of("alice", Spoken::BOTH[at % 2])))
            .collect();
        let mut bob = SecureClient::connect(secure.address(), &of("bob", Spoken::Tls13));
        alices.iter_mut().for_each(|alice| alice.join("ours:1"));
        bob.send(&json!({"type": "throng:join", "room": "theirs", "ref": 1}));
        assert_eq!(bob.next()["code"], "forbidden");
        wait_for(&secure.node, "all are known", |c| c.logins_total == 7);
        let plain = stream(secure.address(), &secure.client(Spoken::Tls13), "example.org");
        assert!(SecureClient::over(plain, "/ws").is_none(), "nobody's");
        wait_for(&secure.node, "it is counted", |c| c.auth_missing_total == 1);
        let user = "CN=alice".into();
        secure.node.revoke(Revocation::User { tenant: None, user, issued: u64::MAX, until: u64::MAX });
        for alice in alices {
            assert_eq!(alice.close_code(), 1008);
        }
        bob.join("ours:1");
    }

    fn each_name_is_served_by_its_own_certificate_and_an_unknown_one_by_the_first(driver) {
        let files = Files::new();
        let names = [("first", "example.org"), ("second", "*.example.net")];
        let issued = names.map(|(file, name)| {
            let issued = files.authority.issue(file, &[name]);
            files.write(&format!("{file}.pem"), &issued.chain_pem);
            files.write(&format!("{file}.key"), &issued.key_pem);
            issued
        });
        let pairs = names.map(|(file, _)| {
            let [chain, key] = ["pem", "key"].map(|kind| files.path(&format!("{file}.{kind}")));
            format!("{{chain={chain:?}, key={key:?}}}")
        });
        let set = format!("certificate=[{}]", pairs.join(", "));
        let secure = Secure::start_with(driver, files, &[&set]);
        for version in Spoken::BOTH {
            let config = secure.client(version);
            for (name, of) in [("example.org", 0), ("chat.example.net", 1), ("EXAMPLE.ORG", 0)] {
                let stream = stream(secure.address(), &config, name);
                let client = SecureClient::over(stream, "/ws").expect("a certificate of that name");
                let shown = client.tls().peer_certificates().map(|chain| chain[0].clone());
                assert_eq!(shown.as_ref(), issued[of].chain.first(), "{name}");
            }
            // The first is shown, and the client is the one that does not take it for this name.
            let stream = stream(secure.address(), &config, "elsewhere.example");
            assert!(SecureClient::over(stream, "/ws").is_none());
        }
    }

    fn a_node_may_speak_nothing_but_tls(driver) {
        let secure = Secure::start(driver, &["server.listen="]);
        assert_eq!(secure.node.plain_address(), None);
        assert_eq!(secure.node.tls_address(), Some(secure.node.address()));
        secure.connect(Spoken::Tls13).join("r");
    }

    fn a_client_that_comes_again_resumes(driver) {
        // The shards share the keys of tickets, so it does not matter where it comes.
        let secure = Secure::start(driver, &[]);
        for version in Spoken::BOTH {
            let config = secure.client(version);
            let kind = |_| {
                let mut client = SecureClient::connect(secure.address(), &config);
                client.join("r");
                let kind = client.tls().handshake_kind();
                client.close();
                kind
            };
            let kinds: Vec<_> = (0..6).map(kind).collect();
            assert_ne!(kinds[0], Some(HandshakeKind::Resumed));
            assert!(kinds[1..].iter().all(|kind| *kind == Some(HandshakeKind::Resumed)), "{kinds:?}");
        }
        wait_for(&secure.node, "all are counted", |c| c.tls_resumed_total == 10);
    }

    /// What a client showed stands in its ticket, so a ticket ends with the rules by which that was believed.
    fn a_ticket_outlives_new_certificates_and_no_change_of_what_is_asked_of_clients(driver) {
        let secure = Secure::start(driver, &["tls.client_auth=optional"]);
        let (config, address) = (secure.client(Spoken::Tls13), secure.address());
        let is_resumed = || {
            let mut client = SecureClient::connect(address, &config);
            client.join("r");
            let kind = client.tls().handshake_kind();
            client.close();
            kind == Some(HandshakeKind::Resumed)
        };
        assert_eq!([is_resumed(), is_resumed()], [false, true]);
        secure.files.issue();
        secure.node.reload(&secure.config).unwrap();
        for _ in 0..4 {
            assert!(is_resumed(), "other certificates of the server are no reason");
        }
        // Another authority of clients: whoever showed a certificate of the old one is nobody now.
        secure.files.write("clients.pem", &crate::authority::Authority::new().pem());
        secure.node.reload(&secure.config).unwrap();
        crate::support::wait_until("an old ticket is worth nothing", || !is_resumed());
        crate::support::wait_until("a new one is", is_resumed);
    }

    fn a_drain_closes_secure_clients_with_1012_and_an_orderly_end(driver) {
        let secure = Secure::start(driver, &[]);
        let client = secure.connect(Spoken::Tls13);
        secure.node.drain(Duration::from_millis(200));
        assert_eq!(client.close_code(), 1012);
    }

    fn many_handshakes_at_once_do_not_stop_those_who_are_in(driver) {
        let secure = Secure::start(driver, &["tls.handshakes_per_turn=1"]);
        let mut inside = secure.echo(Spoken::Tls13);
        let address = secure.address();
        // Each is a stranger, so that every handshake is a full one.
        let mut strangers = (0..100).map(|_| secure.client(Spoken::Tls13));
        let crowds: [Vec<_>; 4] = std::array::from_fn(|_| strangers.by_ref().take(25).collect());
        std::thread::scope(|scope| {
            let shake = |crowd: Vec<_>| {
                for stranger in &crowd {
                    SecureClient::echo(address, stranger).bounce(10);
                }
            };
            let running = crowds.map(|crowd| scope.spawn(move || shake(crowd)));
            while !running.iter().all(|crowd| crowd.is_finished()) {
                inside.bounce(10);
            }
        });
        inside.bounce(100_000);
        wait_for(&secure.node, "the crowd is gone", |c| c.connections == 1);
        assert_eq!(secure.node.counters().tls_handshakes_total, 101);
    }

    fn handshakes_beyond_their_time_in_a_turn_wait_for_later_ones_and_all_are_made(driver) {
        // As many steps as there are, and time for one.
        let sets = ["server.shards=1", "tls.handshakes_per_turn=1024", "tls.handshake_time_us=1"];
        let secure = Secure::start(driver, &sets);
        let mut made = 0;
        wait_until("some wait", || {
            let mut crowd: Vec<_> = (0..16)
                .map(|at| {
                    let version = secure.client(Spoken::BOTH[at % 2]);
                    stream(secure.address(), &version, "example.org")
                })
                .collect();
            // All have said hello before any of them hears an answer.
            for client in &mut crowd {
                client.conn.write_tls(&mut client.sock).unwrap();
            }
            for client in crowd {
                let mut client = SecureClient::over(client, "/echo").expect("let in");
                client.bounce(1000);
                client.close();
                made += 1;
            }
            secure.node.counters().tls_waits_total > 0
        });
        wait_for(&secure.node, "all are made", |c| c.tls_handshakes_total == made && c.tls_connections == 0);
        assert_eq!(secure.node.counters().tls_failed_total, 0);
    }
}
