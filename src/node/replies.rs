//! What back ends answer to events, from the text of an answer to publications.
//!
//! Each publication is read and judged by itself: by the rules that hold for everybody, by the tenant of the
//! events that are answered, and by what the webhook may publish. Those that pass go out together, in their
//! order. A publication of several tenants' events must say whose it is, and can only be one of theirs.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::admin::{NotPublished, Reach, Replied, Reply, Voice};
use crate::node::desk::NodeDesk;
use crate::node::publishing::Rules;
use crate::session::{Count, Order, parse_order};

/// An answer. Fields that are not known are passed over: it may say other things to other programs.
#[derive(Deserialize)]
struct Answer<'a> {
    #[serde(borrow, default)]
    publish: Vec<&'a RawValue>,
}

/// Publishes what may be published of an answer.
pub(super) fn reply(desk: &NodeDesk, reply: Reply<'_>) -> Result<Replied, NotPublished> {
    if reply.body.trim_ascii().is_empty() {
        return Ok(Replied::default());
    }
    let rules = desk.publishing.rules()?;
    let answer: Answer<'_> = match serde_json::from_slice(reply.body) {
        Ok(answer) => answer,
        Err(error) => {
            return Ok(Replied::refused(1, format!("the answer is not understood: {error}")));
        }
    };
    let (mut orders, refused, why) = judge(&answer, reply, &rules);
    if orders.is_empty() {
        return Ok(Replied { refused, why, ..Replied::default() });
    }
    desk.publishing.prepare(&mut orders);
    let order = desk.submit(&rules, &orders, None)?;
    Ok(Replied { order: Some(order), published: orders.len(), refused, why })
}

/// The publications that may be, how many may not, and why not the first of those.
fn judge<'a>(
    answer: &Answer<'a>,
    reply: Reply<'_>,
    rules: &Rules,
) -> (Vec<Order<'a>>, usize, Option<String>) {
    let (mut orders, mut refused, mut why) = (Vec::new(), 0, None);
    for (at, text) in answer.publish.iter().enumerate() {
        let order = if at < rules.batch {
            parse_order(text.get(), &rules.commands).map_err(|error| error.message)
        } else {
            Err(format!("an answer has at most {} publications", rules.batch))
        };
        let order =
            order.and_then(|order| match (rules.unstorable(&order), rules.misfit(&order)) {
                (Some(why), _) => Err(why.to_owned()),
                (None, Some(error)) => Err(error.message),
                (None, None) => permitted(order, reply),
            });
        match order {
            Ok(order) => orders.push(order),
            Err(reason) => {
                refused += 1;
                why.get_or_insert_with(|| format!("publish[{at}]: {reason}"));
            }
        }
    }
    (orders, refused, why)
}

/// The publication with its tenant; or why it may not be.
fn permitted<'a>(order: Order<'a>, reply: Reply<'_>) -> Result<Order<'a>, String> {
    if let Some(reason) = beyond(&order, reply.voice) {
        return Err(reason);
    }
    let among = |asked: &str| reply.tenants.iter().any(|one| one.as_deref() == Some(asked));
    let tenant = match (order.tenant.as_deref(), reply.tenants) {
        (None, [one]) => one.as_deref().map(|tenant| Cow::Owned(tenant.to_owned())),
        (None, _) => {
            let reason = "the events are of several tenants; `tenant` must say whose it is";
            return Err(reason.to_owned());
        }
        (Some(asked), _) if !among(asked) => {
            return Err(format!("tenant: none of the events is of {asked:?}"));
        }
        (Some(_), _) => order.tenant,
    };
    // How many it reached there is nobody to tell.
    Ok(Order { publish: order.publish, tenant, count: Count::No })
}

/// What of the targets the webhook may not publish to.
fn beyond(order: &Order<'_>, voice: &Voice) -> Option<String> {
    let targets = &order.publish.targets;
    let foreign = |room: &str| !voice.rooms.iter().any(|pattern| pattern.matches(room));
    if let Some(room) = targets.rooms.iter().find(|room| foreign(room)) {
        return Some(format!("webhook.may_publish does not allow the room {room:?}"));
    }
    let wanted = [
        (!targets.users().is_empty(), Reach::Users, "users"),
        (!targets.connections().is_empty(), Reach::Connections, "connections"),
        (targets.everyone, Reach::Everyone, "everyone"),
    ];
    let beyond =
        wanted.into_iter().find(|(wants, reach, _)| *wants && !voice.reach.contains(reach));
    beyond.map(|(_, _, name)| format!("webhook.may_reach does not allow \"{name}\""))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::glob::Glob;
    use crate::session::CommandLimits;

    fn judged(
        text: &str,
        rooms: &[&str],
        reach: &[Reach],
        tenants: &[Option<&str>],
    ) -> Result<Option<String>, String> {
        let order = parse_order(text, &CommandLimits::default()).map_err(|error| error.message)?;
        let voice = Voice {
            rooms: rooms.iter().map(|room| Glob::new(room)).collect(),
            reach: reach.to_vec(),
        };
        let tenants: Vec<Option<Box<str>>> =
            tenants.iter().map(|tenant| tenant.map(Box::from)).collect();
        let reply = Reply { body: b"", voice: &voice, tenants: &tenants };
        permitted(order, reply).map(|order| order.tenant.map(Cow::into_owned))
    }

    #[test]
    fn a_webhook_publishes_to_whom_it_was_allowed_to_and_to_nobody_else() {
        let own = [None];
        let room = r#"{"type":"a","rooms":["game:1","game:2"]}"#;
        assert_eq!(judged(room, &["game:*"], &[], &own), Ok(None));
        let why = judged(room, &["game:1"], &[Reach::Everyone], &own).expect_err("one of two");
        assert_eq!(why, r#"webhook.may_publish does not allow the room "game:2""#);
        for (text, reach, name) in [
            (r#"{"type":"a","users":["ada"]}"#, Reach::Users, "users"),
            (r#"{"type":"a","connections":["0-1-1"]}"#, Reach::Connections, "connections"),
            (r#"{"type":"a","everyone":true}"#, Reach::Everyone, "everyone"),
        ] {
            assert_eq!(judged(text, &[], &[reach], &own), Ok(None));
            let why = judged(text, &["*"], &[], &own).expect_err("rooms are not people");
            assert_eq!(why, format!("webhook.may_reach does not allow \"{name}\""));
        }
    }

    #[test]
    fn the_example_of_the_document_is_understood() {
        let document = include_str!("../../docs/webhooks.md");
        let (_, block) = document.split_once("```json reply\n").expect("an example");
        let (block, _) = block.split_once("\n```").expect("its end");
        let answer: Answer<'_> = serde_json::from_str(block).expect("JSON");
        assert_eq!(answer.publish.len(), 2);
        for order in answer.publish {
            let reach = [Reach::Connections];
            assert_eq!(judged(order.get(), &["game:*"], &reach, &[None]), Ok(None));
        }
    }

    #[test]
    fn a_publication_is_of_the_tenant_whose_events_are_answered() {
        let of = |tenant: &str, tenants: &[Option<&str>]| {
            judged(&format!(r#"{{"type":"a","room":"r"{tenant}}}"#), &["*"], &[], tenants)
        };
        let acme = r#","tenant":"acme""#;
        assert_eq!(of("", &[Some("acme")]), Ok(Some("acme".to_owned())));
        assert_eq!(of(acme, &[Some("acme")]), Ok(Some("acme".to_owned())));
        assert_eq!(of("", &[None]), Ok(None));
        assert!(of(acme, &[None]).is_err());
        assert!(of(acme, &[Some("other")]).is_err());
        let mixed = [Some("acme"), None];
        assert!(of("", &mixed).is_err(), "whose it is cannot be known");
        assert_eq!(of(acme, &mixed), Ok(Some("acme".to_owned())));
    }
}
