//! `[[tenant]]`: limits of one tenant's own, where those of `[limits_tenant]` do not fit it.
//!
//! What an entry does not say is as everywhere. Connections and rooms are counted from a node's start or not at
//! all, so an entry may have a number of its own only where `[limits_tenant]` has one for everybody; then it is
//! taken over by a running node like the rates are.

use std::time::Duration;

use super::group::{group, of};
use super::kind::{Kind, Value, millis, one_of, whole};
use super::kind_text::text;
use super::limits::OverRate;
use super::list::{About, Row};

const DAY_MS: u64 = 86_400_000;
const GIB: u64 = 1 << 30;

group! {
    /// One `[[tenant]]`.
    pub struct Tenant in "tenant" {
        /// The tenant, as tokens name it; must be given.
        "name" Live name: String = String::new(), text(256).or_empty("not given");
        /// Its connections in the whole node; needs limits_tenant.max_connections.
        "max_connections" Live connections: u32 = 0,
            whole(1, 100_000_000).or_zero("as everywhere");
        /// Its rooms in the whole node; needs limits_tenant.max_rooms.
        "max_rooms" Live rooms: u32 = 0, whole(1, 100_000_000).or_zero("as everywhere");
        /// Bytes of a message of its connections, for those who log in from then on.
        "max_message_bytes" Live message_bytes: u32 = 0, whole(1, GIB).or_zero("as everywhere");
        /// Its commands that may await their answers, in the whole node.
        "max_outstanding" Live outstanding: u32 = 0,
            whole(1, 100_000_000).or_zero("as everywhere");
        /// Bytes of memory for what waits for its connections in the whole node.
        "memory_bytes" Live memory: u64 = 0, whole(1 << 16, 1 << 50).or_zero("as everywhere");
        /// Its messages per second in the whole node.
        "messages_per_second" Live messages: u32 = 0,
            whole(1, 100_000_000).or_zero("as everywhere");
        /// Its bytes of messages per second in the whole node.
        "bytes_per_second" Live bytes: u32 = 0, whole(1, GIB).or_zero("as everywhere");
        /// Rooms that it may join per second in the whole node.
        "joins_per_second" Live joins: u32 = 0, whole(1, 100_000_000).or_zero("as everywhere");
        /// Its publications per second in the whole node. A message to several targets is one for each.
        "publishes_per_second" Live publications: u32 = 0,
            whole(1, 100_000_000).or_zero("as everywhere");
        /// The length of a burst: what a rate allows in this time may come at once.
        "burst_ms" Live burst: Duration = Duration::ZERO, millis(1, DAY_MS).or_zero("as everywhere");
        /// What happens to a message over one of these rates, by the words of limits.over_rate.
        "over_rate" Live over: Option<OverRate> = None, one_of();
    }
}

impl Row for Tenant {
    const ABOUT: About = About {
        name: "tenant",
        about: &["Limits of one tenant's own, instead of those in [limits_tenant] (live)."],
        example: &["name = \"acme\"", "publishes_per_second = 5000"],
        required: &["name"],
        unique: Some("name"),
    };
}

#[cfg(test)]
mod tests {
    use super::super::tests::parse;

    #[test]
    fn a_tenants_own_numbers_need_everybodys_and_its_rates_do_not() {
        let entry = "[[tenant]]\nname = \"acme\"\n";
        for (own, all) in
            [("max_connections", "connections are counted"), ("max_rooms", "rooms are")]
        {
            let text = format!("{entry}{own} = 5\n");
            let error = parse(&text, &[]).expect_err("nobody counts");
            assert!(
                error.contains(&format!("limits_tenant.{own}")) && error.contains(all),
                "{error}"
            );
            let set = format!("limits_tenant.{own}=3");
            assert!(parse(&text, &[&set]).is_ok(), "{set}");
        }
        let config = parse(&format!("{entry}over_rate = \"delay\"\nbytes_per_second = 9\n"), &[]);
        let tenants = config.expect("a tenant").lists.tenants;
        assert_eq!((tenants.len(), tenants[0].bytes, tenants[0].connections), (1, 9, 0));
        let twice = parse(&format!("{entry}{entry}"), &[]).expect_err("two of a name");
        assert!(twice.contains("acme"), "{twice}");
    }
}
