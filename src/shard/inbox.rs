//! Notifications, as far as a shard has to do with them: it carries questions and answers.
//!
//! What a client asks of its user's inbox becomes an *errand*, which the loop hands to the store's thread. A
//! store that has no space for it gives it back, and the client is told; a shard never waits. The answer
//! comes as mail, and so does what is pushed to a user, both by one lane from one sender: so on every
//! connection they stand in the order in which the store did its work. Whoever has gone meanwhile is not
//! found by its address, and that is all.

use std::collections::VecDeque;
use std::sync::Arc;

use serde_json::value::RawValue;

use crate::auth::user_room;
use crate::base::id::{ConnAddress, ConnId};
use crate::base::inbox::{Marked, Note, Page, Span};
use crate::base::saved::Save;
use crate::base::shared::Shared;
use crate::base::time::Time;
use crate::connection::Form;
use crate::hub::Encoded;
use crate::session::inbox;
use crate::session::{Code, CommandError};
use crate::shard::forms;
use crate::shard::state::Shard;

/// What a connection wants of its user's inbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Task {
    /// A list of what is unread.
    List(Span),
    /// Noted what was read.
    Read(Marked),
}

/// A question to the store, on behalf of a connection.
#[derive(Clone, Debug)]
pub struct Errand {
    /// Who asks.
    pub to: ConnAddress,
    /// The command's `ref`.
    pub reference: Option<Box<RawValue>>,
    /// Whose inbox: the name of the user's own room.
    pub owner: Arc<str>,
    /// What is wanted.
    pub task: Task,
}

/// What a shard has for the store's thread.
#[derive(Clone, Debug)]
pub enum Errands {
    /// A question.
    Ask(Box<Errand>),
    /// A notice that asked for a receipt was queued for so many connections of this shard.
    Reached {
        /// The receipt's number.
        receipt: u64,
        /// Connections of the user here.
        connections: u64,
    },
    /// Publications of a room that are to be kept.
    Save(Box<Save>),
    /// A life of a room of which nothing is to be found any more.
    Forget(Arc<str>, u64),
}

/// What the store says to an errand.
#[derive(Clone, Debug)]
pub enum Said {
    /// The list that was asked for.
    Page(Page),
    /// So many are unread now.
    Unread(u64),
    /// It was not done; the text is for the client.
    Refused(&'static str),
}

/// The answer to an errand.
#[derive(Clone, Debug)]
pub struct Kept {
    /// Who asked.
    pub to: ConnId,
    /// The command's `ref`.
    pub reference: Option<Box<RawValue>>,
    /// What came of it.
    pub told: Said,
}

/// What a notice says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// There is a new notification, and so many are unread.
    Note(Note, u64),
    /// So many are unread.
    Unread(u64),
}

/// What all connections of a user are told. Every shard gets it and shows it to those it has.
#[derive(Debug)]
pub struct Notice {
    /// The name of the user's own room.
    pub owner: Arc<str>,
    /// What it says.
    pub news: News,
    /// The connection that knows it already.
    pub except: Option<ConnAddress>,
    /// Set when every shard is to say how many connections it has queued it for.
    pub receipt: Option<u64>,
    /// The bytes per class, once made.
    pub encoded: Encoded,
}

/// Errands for which space stays when a crowd has gone.
const KEPT: usize = 1024;

impl Notice {
    fn text(&self) -> Vec<u8> {
        let mut text = Vec::new();
        match &self.news {
            News::Note(note, unread) => inbox::notification(&mut text, note, *unread),
            News::Unread(unread) => inbox::unread(&mut text, *unread),
        }
        text
    }
}

impl Shard {
    /// Sends a client's question on its way to the store.
    pub(super) fn run_errand(
        &mut self,
        id: ConnId,
        task: Task,
        reference: Option<&RawValue>,
        now: Time,
    ) {
        let Some(person) = self.gate.people.get(id.index) else {
            let message = "only a user who has shown a token has an inbox";
            let error = CommandError::new(Code::Unauthorized, message, reference);
            return self.refuse(id, &error, now);
        };
        let (tenant, user) = person.names();
        let owner = user_room(tenant, user);
        if self.has_asked_enough(id) {
            return self.refuse(id, &CommandError::outstanding(reference), now);
        }
        self.note_asked(id);
        let owner = self.rooms.hub.name(&owner).map_or_else(|| owner.as_str().into(), Arc::clone);
        let reference = reference.map(RawValue::to_owned);
        let errand = Errand { to: self.address(id), reference, owner, task };
        self.outbox.errands.push_back(Errands::Ask(Box::new(errand)));
    }

    /// The next piece of work for the store's thread. To be called until there is none, once a turn.
    pub fn poll_errand(&mut self) -> Option<Errands> {
        let errands = &mut self.outbox.errands;
        if errands.is_empty() && errands.capacity() > KEPT {
            *errands = VecDeque::new();
        }
        errands.pop_front()
    }

    /// The store's thread has no space for this.
    pub fn handle_given_back(&mut self, errands: Errands, now: Time) {
        let errand = match errands {
            Errands::Ask(errand) => errand,
            Errands::Save(save) => return self.refuse_save(&save.room, now),
            Errands::Forget(room, epoch) => {
                return self.rooms.directory.ask_again(room, epoch);
            }
            // Whoever waits for it learns nothing.
            Errands::Reached { .. } => return,
        };
        self.counters.errands_refused_total += 1;
        let told = Said::Refused("too much waits for the store; send the same again after a pause");
        let kept = Kept { to: errand.to.conn, reference: errand.reference.clone(), told };
        self.handle_kept(&kept, now);
    }

    /// The store has answered. The client may be gone by now, and its index in other hands.
    pub(super) fn handle_kept(&mut self, kept: &Kept, now: Time) {
        let Kept { to, reference, told } = kept;
        if self.table.get(*to).is_none() {
            return;
        }
        self.note_answered(*to);
        let (mut text, reference) = (Vec::new(), reference.as_deref());
        match told {
            Said::Page(page) => inbox::page(&mut text, reference, page),
            Said::Unread(unread) => {
                if !inbox::read(&mut text, reference, *unread) {
                    return;
                }
            }
            Said::Refused(why) => {
                let error = CommandError::new(Code::Overloaded, *why, reference);
                return self.refuse(*to, &error, now);
            }
        }
        self.push_text(*to, &text, now);
    }

    /// Shows a notice to the user's connections in this shard.
    pub(super) fn handle_notice(&mut self, notice: &Notice, now: Time) {
        let connections = self.rooms.hub.members(&notice.owner).len();
        if connections > 0 {
            let form = |form: Form| {
                let make = || forms::framed(form, &notice.text());
                Shared::common(Arc::clone(notice.encoded.bytes(forms::class(form), make)))
            };
            let forms = self.forms(form);
            self.deliver_kept(&notice.owner, forms, notice.except, now);
            if matches!(notice.news, News::Note(..)) {
                self.counters.notifications_total += connections as u64;
            }
        }
        if let Some(receipt) = notice.receipt {
            let connections = connections as u64;
            self.outbox.errands.push_back(Errands::Reached { receipt, connections });
        }
    }
}

const _: () = {
    const fn crosses_threads<T: Send + Sync>() {}
    crosses_threads::<Notice>();
};
