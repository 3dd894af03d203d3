//! A Redis that speaks TLS, with an authority of its own. Row O1.

use std::fs;
use std::path::PathBuf;

use serde_json::json;
use tempfile::TempDir;
use throng::node::Node;
use throng::node::config::Origin;

use super::cluster::{Redis, bridge, members, wait_link};
use crate::authority::{Authority, Issued};
use crate::support::{Client, free_port, node, on_both_drivers, wait_until};

/// A Redis that takes in only who shows a certificate of its authority, besides a plain port for the test.
pub(super) struct Sealed {
    pub(super) redis: Redis,
    port: u16,
    pub(super) authority: Authority,
    folder: TempDir,
}

impl Sealed {
    /// With a certificate for these names.
    pub(super) fn start(names: &[&str]) -> Self {
        let (authority, port) = (Authority::new(), free_port());
        let folder = tempfile::tempdir().unwrap();
        let files = Files(&folder);
        let ca = files.write("authority.pem", &authority.pem());
        let (chain, key) = files.both("redis", &authority.issue("redis", names));
        let port_text = port.to_string();
        let mut words = vec!["--tls-port", &port_text, "--tls-auth-clients", "yes"];
        words.extend(["--tls-ca-cert-file", &ca, "--tls-cert-file", &chain]);
        words.extend(["--tls-key-file", &key]);
        let redis = Redis::start_with(&words);
        Self { redis, port, authority, folder }
    }

    /// What a node is told that believes `roots` and shows `own`.
    pub(super) fn sets(&self, roots: &Authority, own: Option<&Issued>) -> Vec<String> {
        let files = Files(&self.folder);
        let name = format!("{}.pem", fastrand::u64(..));
        let mut sets = vec![
            format!("bridge.url=rediss://127.0.0.1:{}", self.port),
            format!("bridge.ca_file={}", files.write(&name, &roots.pem())),
            "bridge.canary_interval_ms=100".to_owned(),
        ];
        if let Some(own) = own {
            let (chain, key) = files.both("node", own);
            sets.extend([format!("bridge.cert_file={chain}"), format!("bridge.key_file={key}")]);
        }
        sets
    }

    fn node(&self, driver: &str, roots: &Authority, own: Option<&Issued>) -> Node {
        let sets = self.sets(roots, own);
        node(driver, &sets.iter().map(String::as_str).collect::<Vec<_>>())
    }
}

struct Files<'a>(&'a TempDir);

impl Files<'_> {
    fn write(&self, name: &str, text: &str) -> String {
        let path: PathBuf = self.0.path().join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    fn both(&self, name: &str, issued: &Issued) -> (String, String) {
        let chain = self.write(&format!("{name}.chain.pem"), &issued.chain_pem);
        (chain, self.write(&format!("{name}.key.pem"), &issued.key_pem))
    }
}

on_both_drivers! {
    fn nodes_work_together_over_tls_with_their_own_authority_certificates_and_user(driver) {
        let sealed = Sealed::start(&["127.0.0.1"]);
        let rights = ["+@connection", "+@pubsub", "+@scripting", "+@read", "+@write", "+time", "+multi", "+exec"];
        let user = ["ACL", "SETUSER", "throng", "on", ">secret", "~throng:*", "&throng:*"];
        sealed.redis.ask(&[&user[..], &rights[..]].concat());
        let nodes = [(); 2].map(|()| {
            let own = sealed.authority.issue("a node", &["node.example"]);
            let mut sets = sealed.sets(&sealed.authority, Some(&own));
            sets.extend(["bridge.user=throng", "bridge.password=secret"].map(str::to_owned));
            let node = node(driver, &sets.iter().map(String::as_str).collect::<Vec<_>>());
            wait_link(&node);
            node
        });
        let users = format!("{:?}", sealed.redis.ask(&["CLIENT", "LIST"]));
        assert_eq!(users.matches("user=throng").count(), 2, "{users}");
        let mut clients = members(&sealed.redis, &[&nodes[0], &nodes[1]], "lobby");
        for author in [0, 1] {
            clients[author].send(&json!({"type": "x", "room": "lobby", "payload": author}));
            for client in &mut clients {
                assert_eq!(client.next()["payload"], json!(author));
            }
        }
    }

    fn a_redis_that_is_not_to_be_believed_or_does_not_believe_us_gets_nothing(driver) {
        let (sealed, elsewhere) = (Sealed::start(&["127.0.0.1"]), Sealed::start(&["redis.example"]));
        let other = Authority::new();
        let (own, foreign) = (sealed.authority.issue("a", &["a"]), other.issue("a", &["a"]));
        let of_elsewhere = elsewhere.authority.issue("a", &["a"]);
        let nodes = [
            // It is vouched for by another authority; it is another one by name; it is shown nothing; it is shown
            // what another authority vouches for.
            sealed.node(driver, &other, Some(&own)),
            elsewhere.node(driver, &elsewhere.authority, Some(&of_elsewhere)),
            sealed.node(driver, &sealed.authority, None),
            sealed.node(driver, &sealed.authority, Some(&foreign)),
        ];
        for (case, node) in nodes.iter().enumerate() {
            wait_until("it was tried", || bridge(node, "bridge_failures_total") > 1);
            assert_eq!(bridge(node, "bridge_links_total"), 0, "case {case}");
            // The node serves all the same.
            let mut client = Client::connect(node.address());
            client.join("lobby");
            client.send(&json!({"type": "x", "room": "lobby", "payload": case}));
            assert_eq!(client.next()["payload"], json!(case));
        }
    }
}

#[test]
fn certificates_that_cannot_be_used_are_named_before_anybody_is_served() {
    let folder = tempfile::tempdir().unwrap();
    let files = Files(&folder);
    let authority = Authority::new();
    let (chain, _) = files.both("a", &authority.issue("a", &["a"]));
    let (_, key) = files.both("b", &authority.issue("b", &["b"]));
    let start = |sets: &[String]| {
        let own = ["server.listen=127.0.0.1:0", "bridge.url=rediss://127.0.0.1:1"];
        let sets = own.iter().map(|set| (*set).to_owned()).chain(sets.iter().cloned()).collect();
        let config = Origin { file: None, sets }.load().expect("a valid configuration");
        Node::start(&config).expect_err("a fault").to_string()
    };
    let error = start(&[format!("bridge.cert_file={chain}"), format!("bridge.key_file={key}")]);
    assert!(error.contains("bridge.key_file") && error.contains("belongs"), "{error}");
    let error = start(&[format!("bridge.ca_file={key}")]);
    assert!(error.contains("bridge.ca_file: expected certificates in PEM"), "{error}");
    let error = start(&["bridge.ca_file=/nowhere/ca.pem".to_owned()]);
    assert!(error.contains("bridge.ca_file = \"/nowhere/ca.pem\""), "{error}");
}
