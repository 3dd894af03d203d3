//! What shards tell each other, and what happens when an inbox is full.
//!
//! Mail is never awaited. What an inbox has no space for is parked here, in order, and offered again
//! every turn; meanwhile the sender stops reading from the connections that publish, and above a limit
//! refuses what would add to it. Two kinds keep this from becoming a deadlock: a request (to a room's
//! home) may produce deliveries, a delivery (to the shard of a member) produces no mail. A shard always
//! takes deliveries, and takes requests only while it has no delivery parked. So deliveries always
//! drain, then requests do, and no cycle of full inboxes can form, even with inboxes of one. A few
//! requests produce another request (a room that begins is told to its tenant's home, whose verdict comes
//! back); such a chain ends after three, and a parked request stops nobody from taking mail.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use serde_json::value::RawValue;
use smallvec::SmallVec;

use crate::auth::{KeySet, Proven, Revocation, Ruling, Ticket};
use crate::base::cursor::{Cursor, Stale};
use crate::base::id::{ConnAddress, ConnId, ShardId};
use crate::base::outside::{Inquiry, Petition};
use crate::base::party::Party;
use crate::base::tidings::Tiding;
use crate::flow::shares::Share;
use crate::hub::{Afar, Excess, Group, Here, Publication, Slice, Stand};
use crate::session::Code;
use crate::shard::awaited::Awaits;
use crate::shard::comeback::{Recall, Recalled};
use crate::shard::holdings::Holding;
use crate::shard::inbox::{Errands, Kept, Notice};
use crate::shard::joint::Joint;
use crate::shard::naming::{Named, Naming};
use crate::shard::orders::{Report, Reports, Submission};
use crate::shard::packing::PackingDone;
use crate::shard::polling::Polling;
use crate::shard::presence::{Inquire, Reply, Word};
use crate::shard::quota::Begin;
use crate::shard::settings::{PARTY_COSTS, Settings};
use crate::shard::shares::Toll;
use crate::shard::transfers::Transfer;

/// What was asked of a room's home.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// The connection has joined; its reply waits until the home knows of it.
    Join(Joining),
    /// How many members are there?
    Members,
    /// What came after the cursor? The membership waits for the end of it.
    Missed {
        /// Up to where it has been sent.
        after: Cursor,
        /// Tells apart what one connection asks for.
        number: u64,
    },
    /// Is all there that came after the cursor? Nobody joins by it.
    Reach {
        /// The cursor.
        since: Cursor,
    },
    /// A part of the room's history.
    Page {
        /// Only what came after it, the earliest first.
        since: Option<Cursor>,
        /// Only what has a lower offset.
        before: Option<u64>,
        /// Publications at most.
        limit: usize,
    },
    /// Was the publication, which came along, taken before?
    Once,
}

/// How a connection joins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Joining {
    /// Everything up to here has been seen.
    pub since: Option<Cursor>,
    /// The `throng:restore` that the join is a part of, and which part.
    pub part: Option<(u64, u16)>,
}

/// What a home found besides the room's position.
#[derive(Clone, Debug)]
pub enum Found {
    /// Nothing was looked for.
    Nothing,
    /// What came after a cursor, or a page.
    Slice(Slice),
    /// The newest, as not all that came after the cursor is there.
    Anew(Slice),
    /// That what came after the cursor is not all there, or cannot be.
    Stale(Stale),
    /// That a publication was taken before.
    Repeat,
    /// Nothing: the room's history is shared, and cannot be reached now.
    Away,
    /// That a publication is stored; with the author's identifier for it.
    Stored(Option<Box<RawValue>>),
    /// That a publication is not stored, as far as is known, and why.
    Refused(Refusal),
}

/// Why a publication that was to be stored is not, as far as is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// For programs.
    pub code: Code,
    /// For people.
    pub message: &'static str,
}

/// The store's answer about a room.
#[derive(Debug)]
pub struct Saved {
    /// The room, by its name within the node.
    pub room: Arc<str>,
    /// Whether what was asked for is kept now.
    pub kept: Result<(), Refusal>,
    /// Set when it was asked to forget that life of the room instead.
    pub forgot: Option<u64>,
}

/// A question to a room's home, on behalf of a connection.
#[derive(Clone, Debug)]
pub struct Question {
    /// Who asks.
    pub to: ConnAddress,
    /// What is asked.
    pub asked: Asked,
    /// The command's `ref`.
    pub reference: Option<Box<RawValue>>,
    /// The room.
    pub room: Arc<str>,
}

impl Found {
    /// Publications that were found.
    fn len(&self) -> usize {
        match self {
            Self::Slice(slice) | Self::Anew(slice) => slice.publications.len(),
            Self::Nothing
            | Self::Stale(_)
            | Self::Repeat
            | Self::Away
            | Self::Stored(_)
            | Self::Refused(_) => 0,
        }
    }
}

/// A home's answer to a question.
#[derive(Clone, Debug)]
pub struct Answer {
    /// What it answers.
    pub question: Question,
    /// Members over all shards.
    pub members: u64,
    /// The newest publication.
    pub position: Cursor,
    /// What was found.
    pub found: Found,
}

/// A command with several targets, as other nodes are to have it: in one piece, so that whoever is meant
/// twice there is found.
#[derive(Debug)]
pub struct Whole {
    /// Unique in the node while parts are under way; of no meaning when there is one home.
    pub id: u64,
    /// Homes that have a part of it and tell the bridge so, each once.
    pub homes: u16,
    /// One for each target; never empty.
    pub publications: SmallVec<[Arc<Publication>; 1]>,
}

/// What other nodes are to have.
#[derive(Clone, Debug)]
pub enum Crossing {
    /// A publication to one target.
    One(Arc<Publication>),
    /// A command of which the sender has numbered its part.
    Part(Arc<Whole>),
}

impl Crossing {
    /// All that it consists of: one for each target.
    #[must_use]
    pub fn publications(&self) -> &[Arc<Publication>] {
        match self {
            Self::One(one) => std::slice::from_ref(one),
            Self::Part(whole) => &whole.publications,
        }
    }
}

/// Stands for the home of what has none and comes from no shard.
pub const NO_HOME: ShardId = ShardId(u16::MAX);

/// What shards tell each other.
#[derive(Debug)]
pub enum Mail {
    /// Request: number these publications, all of rooms whose home the receiver is, and fan them out.
    Publish {
        /// Their offsets are not assigned yet. On the heap, because an inbox holds thousands of places of
        /// the largest mail's size.
        drafts: Vec<Publication>,
        /// Set when the command named rooms of several homes.
        group: Option<Group>,
        /// The whole command, where the home is to tell the bridge in its turn that it has its part.
        across: Option<Arc<Whole>>,
    },
    /// Request, from the node: number these, all of targets whose home the receiver is, fan them out, and say so.
    Submit(Box<Submission>),
    /// To the node and not between shards: what came of an order.
    Report(Box<Report>),
    /// Request: this many members of the room are in the sender's shard now.
    Count {
        /// The room.
        room: Arc<str>,
        /// The sender.
        shard: ShardId,
        /// Zero when the last has left.
        members: u32,
    },
    /// Request: this is how the sender's shard stands with a user now.
    Stand {
        /// The room of the user's own.
        user: Arc<str>,
        /// The sender.
        shard: ShardId,
        /// How it stands.
        stand: Stand,
    },
    /// Delivery, from the node: answer this question, under its number.
    Inquire(u64, Arc<Inquire>),
    /// To the bridge, and to no shard: the answer to a question of another node.
    Replied(Box<Reply>),
    /// Request or delivery, as it says itself: about who is there.
    Presence(Box<Word>),
    /// Request: answer this.
    Ask(Box<Question>),
    /// Request: number this publication and fan it out, unless it was taken before, and say which.
    Once(Box<(Publication, Question)>),
    /// Request: this ticket, whose home the receiver is, is to be used by the handshake at this address, which
    /// waits; was it used before?
    Redeem(Box<(ConnAddress, Ticket)>),
    /// Delivery: hand these to the members in the receiver's shard.
    Deliver {
        /// Numbered; all from one command.
        publications: SmallVec<[Arc<Publication>; 1]>,
        /// Set when other homes send their part of the command's rooms as well.
        group: Option<Group>,
    },
    /// Delivery: the answer to an `Ask`.
    Answer(Box<Answer>),
    /// Delivery: the answer to a `Redeem`, or to a `Claim`.
    Redeemed {
        /// The handshake that waits.
        to: ConnId,
        /// True when the ticket was not used before; `None` when nobody can tell now.
        fresh: Option<bool>,
    },
    /// Delivery: what a token was found to be.
    Proven(Box<Proven>),
    /// Delivery: what a payload was compressed to.
    Packed(Box<PackingDone>),
    /// To the bridge, and to no shard: this ticket is to be used by a handshake that waits; was it used on any node?
    Claim(Box<Claim>),
    /// To the bridge, and to no shard: these publications are to be taken once; did any node take them?
    Name(Box<Naming>),
    /// Request, from the bridge: the answer to that.
    Named(Box<Named>),
    /// To the bridge, and to no shard: a client says this to back ends.
    Record(Box<Statement>),
    /// Delivery, from the bridge: whether what this connection calls so was written for back ends.
    Recorded(Box<(ConnId, Option<Box<RawValue>>, bool)>),
    /// To the bridge, and to no shard: other nodes are to have this, in the order in which the home has it.
    Across {
        /// The home; the author's shard, or [`NO_HOME`], of what has none.
        home: ShardId,
        /// What.
        crossing: Crossing,
    },
    /// To the bridge, and to no shard: whether the room, whose home the sender is, has members in the node.
    Interest {
        /// The room.
        room: Arc<str>,
        /// True since the first has come, false since the last has left.
        wanted: bool,
    },
    /// To the bridge, and to no shard: how users, whose home the sender is, stand in this node now.
    Here(Vec<Here>),
    /// Request, from the bridge: how users, whose home the receiver is, stand in other nodes now.
    Afar(Vec<Afar>),
    /// Delivery, from the bridge: publications of other nodes to these rooms may have been lost.
    Astray(Arc<[Arc<str>]>),
    /// Request or delivery, as it says itself: about a room whose history all nodes share.
    Joint(Box<Joint>),
    /// To the node's desk, and to no shard: see to this.
    Inquiry(Box<Inquiry>),
    /// To the node's desk, and to no shard: tell these to whoever wants to hear of them.
    Tidings(Vec<Tiding>),
    /// To the node's desk, and to no shard: answer this request.
    Petition(Box<Petition>),
    /// Request: a client that polls wants something of its session, which the receiver has.
    Polling(Box<Polling>),
    /// Request: a connection comes whose request is for a session of the receiver's. By the number its socket is found,
    /// which came another way; who turns the shard sees to that.
    Transfer(Box<(u64, Transfer)>),
    /// Delivery: the response to a request of a client that polls, by the connection that it came over.
    Polled(Box<(ConnId, Vec<u8>)>),
    /// Request: whoever has this memo, give it to that connection.
    Recall(Box<Recall>),
    /// Delivery: the answer to that.
    Recalled(Box<Recalled>),
    /// Delivery, from the node: the response to the request of that number.
    Answered(Box<(u64, Vec<u8>)>),
    /// Delivery, from the node: what came of the inquiry of that number.
    Ruling(Box<(u64, Ruling)>),
    /// Delivery, from the node: close whom this takes, and let nobody in whom it takes.
    Revoke(Arc<Revocation>),
    /// Delivery, from the node: check tokens with these keys as well, and no more with those sent before.
    Keys(Arc<KeySet>),
    /// Request: a connection of this party has arrived.
    Enter {
        /// The party whose home the receiver is.
        party: Party,
        /// The connection.
        conn: ConnAddress,
        /// How many there may be.
        most: u32,
    },
    /// Request: a connection of this party, of which `Enter` has told, has gone.
    Leave {
        /// The party whose home the receiver is.
        party: Party,
        /// The connection.
        conn: ConnAddress,
    },
    /// Delivery: this connection is one too many of its party.
    Evict {
        /// The connection.
        conn: ConnId,
        /// Whether it goes as the newest or as the oldest.
        excess: Excess,
    },
    /// Request, to a party's home: what was let through of what it sends.
    Toll(Box<Toll>),
    /// Delivery: what its home knows of a party's budgets.
    Share(Box<(Party, Share<PARTY_COSTS>)>),
    /// Request, to a user's home: how many rooms the user has in the sender's shard.
    Hold(Box<Holding>),
    /// Delivery: how many it has in all others, and how many are too many.
    Held(Box<Holding>),
    /// Request, to a party's home: how many of its commands await their answers in the sender's shard.
    Awaits(Box<Awaits>),
    /// Delivery: how many do in all others.
    Awaited(Box<Awaits>),
    /// Request, to a tenant's home: a room of the tenant has begun, at this home; may it be?
    Begin(Box<Begin>, ShardId),
    /// Request, to a tenant's home: a room of the tenant has ended.
    End(Party),
    /// Request, to the room's home: whether the room may be. Joins wait for it, so it causes answers.
    Verdict(Box<Begin>, bool),
    /// Delivery: the room that was joined may not be.
    Refused(Box<Question>),
    /// Delivery, from the store: the answer to an errand.
    Kept(Box<Kept>),
    /// Delivery, from the store: whether publications of a room are kept. A home numbers them then and sends them
    /// to the shards with members; that is bounded by what waits in line.
    Saved(Box<Saved>),
    /// Delivery, from the store: show this to the connections of a user.
    Notice(Arc<Notice>),
    /// Delivery, from the node: end within this time.
    Drain(Duration),
    /// Delivery, from the node: the configuration was read again.
    Settings(Arc<Settings>),
    /// Delivery, from the node: tell the board this number, so that whoever posted it knows that what was
    /// posted before it has been taken.
    Mark(u64),
    /// Delivery, from the node: say which connections have most to read, under this number.
    Survey(u64),
    /// Delivery, from the node: take a turn, which shows that you live.
    Wake,
    /// Delivery, from the node: end now.
    Stop,
}

/// What a client says to back ends that read a stream.
#[derive(Debug)]
pub struct Statement {
    /// Who is told what became of it.
    pub to: Option<ConnAddress>,
    /// What that calls its message.
    pub reference: Option<Box<RawValue>>,
    /// The events, one for each room: JSON objects.
    pub documents: Vec<Box<[u8]>>,
}

/// A ticket that any node may take, and a handshake here wants to use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The handshake.
    pub to: ConnAddress,
    /// The ticket's number.
    pub id: u128,
    /// When it ends.
    pub expires: u64,
}

impl Mail {
    /// True for mail that may produce other mail; see the module's words on deadlock.
    #[must_use]
    pub fn is_request(&self) -> bool {
        if let Self::Presence(word) = self {
            return word.is_request();
        }
        if let Self::Joint(joint) = self {
            return joint.is_request();
        }
        matches!(
            self,
            Self::Publish { .. }
                | Self::Submit(_)
                | Self::Across { .. }
                | Self::Interest { .. }
                | Self::Here(_)
                | Self::Afar(_)
                | Self::Count { .. }
                | Self::Stand { .. }
                | Self::Ask(_)
                | Self::Once(_)
                | Self::Redeem(_)
                | Self::Claim(_)
                | Self::Record(_)
                | Self::Name(_)
                | Self::Named(_)
                | Self::Polling(_)
                | Self::Transfer(_)
                | Self::Recall(_)
                | Self::Enter { .. }
                | Self::Leave { .. }
                | Self::Toll(_)
                | Self::Hold(_)
                | Self::Awaits(_)
                | Self::Begin(..)
                | Self::End(_)
                | Self::Verdict(..)
        )
    }
}

impl Mail {
    /// What the mail costs while it waits, about, in bytes: its place, and what nobody else refers to.
    fn cost(&self) -> u64 {
        let payload = |draft: &Publication| draft.payload.as_ref().map_or(0, |raw| raw.get().len());
        let extra = match self {
            Self::Publish { drafts, .. } => {
                drafts.iter().map(|draft| size_of::<Publication>() + payload(draft)).sum()
            }
            Self::Once(asked) => size_of::<(Publication, Question)>() + payload(&asked.0),
            Self::Ask(_) | Self::Refused(_) => size_of::<Answer>(),
            Self::Answer(answer) => size_of::<Answer>() + answer.found.len() * size_of::<usize>(),
            Self::Presence(word) => word.cost(),
            Self::Toll(_) => size_of::<Toll>(),
            Self::Hold(_) | Self::Held(_) => size_of::<Holding>(),
            Self::Awaits(_) | Self::Awaited(_) => size_of::<Awaits>(),
            Self::Share(_) => size_of::<(Party, Share<PARTY_COSTS>)>(),
            Self::Joint(joint) => joint.cost(),
            Self::Polling(polling) => size_of::<Polling>() + polling.cost(),
            Self::Polled(answer) => answer.1.len(),
            Self::Transfer(transfer) => transfer.1.cost(),
            Self::Recall(_) => size_of::<Recall>(),
            Self::Recalled(recalled) => recalled.cost(),
            Self::Record(record) => {
                let documents = record.documents.iter();
                size_of::<Statement>()
                    + documents.map(|one| one.len() + size_of_val(one)).sum::<usize>()
            }
            Self::Here(users) => size_of_val(users.as_slice()),
            _ => 0,
        };
        (size_of::<Self>() + extra) as u64
    }
}

/// Mail on its way out, and who waits for it.
#[derive(Debug)]
pub(super) struct Outbox {
    /// Per shard: requests, deliveries.
    queues: Vec<[VecDeque<Mail>; 2]>,
    /// Items in the queues: requests, deliveries.
    waiting: [usize; 2],
    /// What the items in the queues cost.
    bytes: u64,
    /// True since an inbox refused mail and until everything parked has left.
    blocked: bool,
    /// For the store's thread; what it has no space for it gives back, so nothing stays here over a turn.
    pub(super) errands: VecDeque<Errands>,
    /// Connections whose reads are paused until then.
    pub(super) paused: Vec<ConnId>,
    /// What the node is to be told.
    pub(super) reports: Reports,
}

impl Outbox {
    pub(super) fn new(shards: u16) -> Self {
        Self {
            queues: (0..shards).map(|_| Default::default()).collect(),
            waiting: [0; 2],
            bytes: 0,
            blocked: false,
            errands: VecDeque::new(),
            paused: Vec::new(),
            reports: Reports::default(),
        }
    }

    /// Mail not yet taken by the mesh.
    pub(super) fn len(&self) -> usize {
        self.waiting[0] + self.waiting[1]
    }

    /// What that mail costs, in bytes.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// True while an inbox is full.
    pub(super) fn is_blocked(&self) -> bool {
        self.blocked
    }

    /// True while deliveries are parked: no request may be taken.
    pub(super) fn has_parked_deliveries(&self) -> bool {
        self.blocked && self.waiting[1] > 0
    }

    pub(super) fn push(&mut self, to: ShardId, mail: Mail) {
        let lane = usize::from(!mail.is_request());
        self.waiting[lane] += 1;
        self.bytes += mail.cost();
        self.queues[usize::from(to.0)][lane].push_back(mail);
    }

    /// Offers everything to the mesh, in order; what it gives back stays in front. Returns how much left.
    pub(super) fn offer(&mut self, post: &mut dyn FnMut(ShardId, Mail) -> Result<(), Mail>) -> u64 {
        let before = self.len();
        if before == 0 {
            return 0;
        }
        for (shard, lanes) in (0..).zip(&mut self.queues) {
            for (lane, waiting) in lanes.iter_mut().zip(&mut self.waiting) {
                while let Some(mail) = lane.pop_front() {
                    let cost = mail.cost();
                    if let Err(mail) = post(ShardId(shard), mail) {
                        lane.push_front(mail);
                        break;
                    }
                    *waiting -= 1;
                    self.bytes -= cost;
                }
                if lane.is_empty() && lane.capacity() > 4096 {
                    *lane = VecDeque::new();
                }
            }
        }
        self.blocked = self.len() > 0;
        (before - self.len()) as u64
    }
}
