//! A panic of ours ends one connection and nothing else: row O13.

use serde_json::json;

use crate::support::{Client, node, on_both_drivers, wait_for};

on_both_drivers! {
    fn a_panic_closes_its_connection_with_1011_and_nobody_else_notices(driver) {
        let node = node(driver, &["debug.panic_command=true"]);
        let mut clients: Vec<Client> = (0..8).map(|_| Client::connect(node.address())).collect();
        for client in &mut clients {
            client.join("r");
        }
        for count in 1..=3 {
            let mut victim = clients.remove(0);
            victim.send(&json!({"type": "throng:panic"}));
            assert_eq!(victim.close_code(), 1011);
            wait_for(&node, "it is counted", |c| c.panics_total == count);
        }
        clients[0].send(&json!({"type": "x", "room": "r"}));
        for client in &mut clients {
            assert_eq!(client.next()["type"], "x");
        }
        wait_for(&node, "five are left", |c| c.connections == 5 && c.memberships == 5);
    }

    fn without_the_debug_switch_there_is_no_such_command(driver) {
        let node = node(driver, &[]);
        let mut client = Client::connect(node.address());
        let error = client.ask(json!({"type": "throng:panic"}));
        assert_eq!(error["code"], "unknown_command");
    }
}
