//! What shards want done outside the node, on its way to the admin thread and back.
//!
//! Inquiries come by mail to the desk's own port; what came of them goes back as mail. An answer is never
//! dropped: what an inbox has no space for waits at the desk, and there are no more answers than questions,
//! which are bounded. The port's bell rings for new inquiries and when a full inbox has space again.

use std::io;
use std::os::fd::OwnedFd;

use crate::admin::{Inquiries, Outgoing};
use crate::auth::Ruling;
use crate::base::id::ShardId;
use crate::base::outside::Inquiry;
use crate::mesh::Lane;
use crate::node::desk::NodeDesk;
use crate::shard::Mail;

impl Inquiries for NodeDesk {
    fn bell(&self) -> io::Result<OwnedFd> {
        self.out().port.wake_fd().try_clone_to_owned()
    }

    fn next(&self) -> Option<Outgoing> {
        let out = self.out();
        while let Some(mail) = out.port.take(Lane::Request) {
            match mail {
                Mail::Inquiry(inquiry) => return Some(Outgoing::Question(*inquiry)),
                Mail::Petition(petition) => return Some(Outgoing::Petition(*petition)),
                Mail::Tidings(events) => return Some(Outgoing::Events(events)),
                // Nobody posts anything else here.
                _ => {}
            }
        }
        None
    }

    fn rest(&self) -> bool {
        self.out().port.before_sleep(&[Lane::Request])
    }

    fn rise(&self) {
        let mut out = self.out();
        // In this order: the notice of space is used up before what waited for it is tried.
        out.port.awake();
        out.offer();
    }

    fn finish(&self, inquiry: &Inquiry, answer: Option<&[u8]>) -> Result<(), String> {
        let read = answer.map_or(Ok(Ruling::Undecided), Ruling::read);
        let (ruling, result) = match read {
            Ok(ruling) => (ruling, Ok(())),
            Err(why) => (Ruling::Undecided, Err(why.to_owned())),
        };
        let mut out = self.out();
        let mail = Mail::Ruling(Box::new((inquiry.number, ruling)));
        out.waiting[usize::from(inquiry.from.0)].push_back(mail);
        out.offer();
        result
    }

    fn answer(&self, shard: ShardId, number: u64, response: Vec<u8>) {
        let mut out = self.out();
        let mail = Mail::Answered(Box::new((number, response)));
        out.waiting[usize::from(shard.0)].push_back(mail);
        out.offer();
    }
}
