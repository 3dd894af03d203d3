//! The node's side of the store: errands become requests, and what comes of them becomes mail.
//!
//! The clerk lives on the store's thread and has a port of the mesh of its own. To every shard it posts, in
//! one lane and in the order in which the store did its work, the answers to that shard's errands and the
//! notices for a user's connections; so on every connection a page and the pushes around it stand in one
//! order. Which shards have connections of a user it does not know: a notice goes to all, and a shard
//! without any drops it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::value::RawValue;
use tokio::sync::oneshot;

use crate::auth::{Revocation, user_of, user_room};
use crate::base::id::{ConnAddress, ShardId};
use crate::base::inbox::Note;
use crate::hub::Encoded;
use crate::mesh::Port;
use crate::node::desk::Out;
use crate::node::noticing::Across;
use crate::session::Code;
use crate::shard::{Errands, Kept, Mail, News, Notice, Refusal, Said, Saved, Task};
use crate::store::{
    Answer, Appended, Ask, Clerk, Draft, Handle, Keeper, Outcome, Refused, Revoked, Seen,
};

/// Where requests to the store are handed in.
pub(super) type StoreHandle = Handle<NodeClerk>;

/// The store's thread.
pub(super) type StoreThread = Keeper<NodeClerk>;

/// Requests that wait for a receipt, above which those are forgotten whom nobody waits for any more.
const RECEIPTS: usize = 1024;

/// Who asks the store.
#[derive(Debug)]
pub(super) enum From {
    /// A connection.
    Connection { to: ConnAddress, reference: Option<Box<RawValue>> },
    /// The home of a room.
    Home(ShardId),
    /// Nobody who waits for an answer.
    Nobody,
    /// The admin listener.
    Admin {
        /// Is told what became of it.
        stored: oneshot::Sender<Outcome>,
        /// Is told how many connections a notification was queued for.
        reached: Option<oneshot::Sender<u64>>,
    },
}

/// A notice under way, of which every shard is to say how many connections it was queued for.
#[derive(Debug)]
struct Receipt {
    /// Shards that have not said it yet.
    left: u16,
    connections: u64,
    tell: oneshot::Sender<u64>,
}

/// Takes the store's answers to those who asked, and news to the users they are for.
#[derive(Debug)]
pub(super) struct NodeClerk {
    out: Out,
    across: Across,
    shards: u16,
    receipts: BTreeMap<u64, Receipt>,
    next_receipt: u64,
}

/// A shard's word: the receipt's number, and the connections.
pub(super) type Word = (u64, u64);

impl NodeClerk {
    /// `shared`: other nodes have the same store, and are told.
    pub(super) fn new(shards: u16, port: Port<Mail>, shared: bool) -> Self {
        let (out, across) = (Out::new(shards, port), Across::new(shared));
        Self { out, across, shards, receipts: BTreeMap::new(), next_receipt: 0 }
    }

    fn announce(&mut self, notice: Notice) {
        let notice = Arc::new(notice);
        self.across.push(&notice);
        for shard in 0..usize::from(self.shards) {
            self.out.push(shard, Mail::Notice(Arc::clone(&notice)));
        }
    }

    fn announce_note(
        &mut self,
        draft: Draft,
        appended: Appended,
        reached: Option<oneshot::Sender<u64>>,
    ) {
        let Draft { owner, kind, payload, .. } = draft;
        let Appended { id, at, unread, .. } = appended;
        let news = News::Note(Note { id, at, kind, payload }, unread);
        let receipt = reached.map(|tell| self.expect_receipt(tell));
        self.announce(Notice { owner, news, except: None, receipt, encoded: Encoded::default() });
    }

    fn expect_receipt(&mut self, tell: oneshot::Sender<u64>) -> u64 {
        if self.receipts.len() >= RECEIPTS {
            self.receipts.retain(|_, receipt| !receipt.tell.is_closed());
        }
        self.next_receipt += 1;
        let receipt = Receipt { left: self.shards, connections: 0, tell };
        self.receipts.insert(self.next_receipt, receipt);
        self.next_receipt
    }
}

impl Clerk for NodeClerk {
    type From = From;
    type Word = Word;

    fn answer(&mut self, from: From, ask: Ask, outcome: Outcome) {
        match from {
            From::Nobody => {}
            From::Home(shard) => {
                let (room, forgot) = match ask {
                    Ask::Save(save) => (save.room, None),
                    Ask::Forget { room, epoch } => (room, Some(epoch)),
                    _ => return,
                };
                let saved = Saved { room, kept: kept(&outcome), forgot };
                self.out.push(usize::from(shard.0), Mail::Saved(Box::new(saved)));
            }
            From::Connection { to, reference } => {
                if let (Ask::Read { owner, .. }, Ok(Answer::Unread { unread, changed: true })) =
                    (ask, &outcome)
                {
                    let (news, except) = (News::Unread(*unread), Some(to));
                    let encoded = Encoded::default();
                    self.announce(Notice { owner, news, except, receipt: None, encoded });
                }
                let kept = Kept { to: to.conn, reference, told: told(outcome) };
                self.out.push(usize::from(to.shard.0), Mail::Kept(Box::new(kept)));
            }
            From::Admin { stored, reached } => {
                match (ask, &outcome) {
                    (Ask::Append(draft), Ok(Answer::Appended(appended))) if !appended.repeated => {
                        self.announce_note(draft, *appended, reached);
                    }
                    (Ask::Read { owner, .. }, Ok(Answer::Unread { unread, changed: true })) => {
                        let (news, encoded) = (News::Unread(*unread), Encoded::default());
                        self.announce(Notice { owner, news, except: None, receipt: None, encoded });
                    }
                    _ => {}
                }
                // Whoever asked may have stopped waiting.
                let _ = stored.send(outcome);
            }
        }
    }

    fn hear(&mut self, (receipt, connections): Word) {
        let Some(entry) = self.receipts.get_mut(&receipt) else { return };
        entry.connections += connections;
        entry.left = entry.left.saturating_sub(1);
        if entry.left == 0
            && let Some(entry) = self.receipts.remove(&receipt)
        {
            let _ = entry.tell.send(entry.connections);
        }
    }

    fn deliver(&mut self) -> bool {
        self.out.offer();
        self.across.offer(&self.out.port, self.shards) && self.out.is_empty()
    }

    fn has_space(&self) -> bool {
        self.out.has_space()
    }
}

/// What a home is told of publications that were to be kept.
fn kept(outcome: &Outcome) -> Result<(), Refusal> {
    let message = match outcome {
        Ok(_) => return Ok(()),
        Err(Refused::Broken(_)) => {
            "the store cannot be written or read; send the same again after a pause"
        }
        Err(_) => "the store is full; send the same again after a pause",
    };
    Err(Refusal { code: Code::Overloaded, message })
}

fn told(outcome: Outcome) -> Said {
    match outcome {
        Ok(Answer::Page(page)) => Said::Page(page),
        Ok(Answer::Unread { unread, .. }) => Said::Unread(unread),
        Ok(_) => unreachable!("no errand is answered so"),
        Err(Refused::Broken(_)) => {
            Said::Refused("the store cannot be written or read; send the same again after a pause")
        }
        Err(_) => Said::Refused("the store is full; send the same again after a pause"),
    }
}

/// Hands a shard's work to the store's thread. Never waits.
///
/// # Errors
/// Gives back what there is no space for. A receipt that there is no space for is lost, and whoever
/// waits for it learns nothing.
pub(super) fn hand_in(store: &StoreHandle, home: ShardId, errands: Errands) -> Result<(), Errands> {
    let errand = match errands {
        Errands::Save(save) => {
            return match store.ask(From::Home(home), Ask::Save(*save)) {
                Err((_, Ask::Save(save))) => Err(Errands::Save(Box::new(save))),
                _ => Ok(()),
            };
        }
        Errands::Forget(room, epoch) => {
            let ask = Ask::Forget { room: Arc::clone(&room), epoch };
            return store.ask(From::Home(home), ask).map_err(|_| Errands::Forget(room, epoch));
        }
        Errands::Ask(errand) => errand,
        Errands::Reached { receipt, connections } => {
            store.tell((receipt, connections));
            return Ok(());
        }
    };
    let owner = Arc::clone(&errand.owner);
    let ask = match &errand.task {
        Task::List(span) => Ask::List { owner, span: *span },
        Task::Read(marked) => Ask::Read { owner, marked: marked.clone() },
    };
    let from = From::Connection { to: errand.to, reference: errand.reference.clone() };
    store.ask(from, ask).map_err(|_| Errands::Ask(errand))
}

/// Has it kept who has come and gone. What the store has no space for stays.
pub(super) fn keep_seen(store: &StoreHandle, seen: &mut Vec<Seen>) {
    if seen.is_empty() {
        return;
    }
    if let Err((_, Ask::Seen(back))) = store.ask(From::Nobody, Ask::Seen(std::mem::take(seen))) {
        *seen = back;
    }
}

/// The same at the end, when there is time to wait.
pub(super) fn keep_last_seen(store: &StoreHandle, seen: &[Seen]) {
    for part in seen.chunks(SEEN_AT_ONCE) {
        if !store.ask_patiently(From::Nobody, Ask::Seen(part.to_vec()), END_PATIENCE) {
            tracing::warn!("the store is too slow: when some users were last seen is not kept");
            return;
        }
    }
}

/// Users in one request.
pub(super) const SEEN_AT_ONCE: usize = 512;

/// How long a worker that ends waits for space in the store's queue.
const END_PATIENCE: Duration = Duration::from_secs(2);

/// How a revocation is kept.
pub(super) fn kept_revocation(revocation: &Revocation) -> Revoked {
    match revocation {
        Revocation::User { tenant, user, issued, until } => {
            let name = user_room(tenant.as_deref(), user).into();
            Revoked { is_token: false, name, issued: *issued, until: *until }
        }
        Revocation::Token { id, until } => {
            Revoked { is_token: true, name: id.clone(), issued: 0, until: *until }
        }
    }
}

/// A revocation that was kept.
pub(super) fn revocation(kept: Revoked) -> Revocation {
    let Revoked { is_token, name, issued, until } = kept;
    if is_token {
        return Revocation::Token { id: name, until };
    }
    let (tenant, user) = user_of(&name);
    Revocation::User { tenant: tenant.map(Box::from), user: user.into(), issued, until }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::id::ConnId;
    use crate::base::inbox::{LAST_ID, Marked, Page, Span};
    use crate::mesh::{Lane, mesh};
    use crate::shard::Errand;
    use crate::store::{Fault, Pace, Store};
    use crossbeam_channel::{Receiver, bounded};

    const PATIENCE: Duration = Duration::from_secs(20);
    const CONN: ConnAddress = ConnAddress::alone(ShardId(1), ConnId { index: 3, generation: 4 });

    fn clerk(shards: u16, capacity: usize) -> (NodeClerk, Vec<Port<Mail>>) {
        let mut ports = mesh(usize::from(shards) + 1, capacity).expect("eventfds");
        let own = ports.pop().expect("a port");
        (NodeClerk::new(shards, own, false), ports)
    }

    fn append(number: u64) -> (Ask, Outcome) {
        let payload = number.to_string().into();
        let draft = Draft { owner: "u".into(), kind: "".into(), payload, name: "".into() };
        let unread = number;
        let appended = Appended { id: number, at: 1, unread, repeated: false, dropped: 0 };
        (Ask::Append(draft), Ok(Answer::Appended(appended)))
    }

    fn list() -> Ask {
        let span = Span { after: 0, until: LAST_ID, limit: 1, bytes: 1 };
        Ask::List { owner: "u".into(), span }
    }

    fn notify(clerk: &mut NodeClerk, number: u64, reached: Option<oneshot::Sender<u64>>) {
        let (stored, _) = oneshot::channel();
        let (ask, outcome) = append(number);
        clerk.answer(From::Admin { stored, reached }, ask, outcome);
    }

    /// The ids of notices and the newest ids of pages, in the order of the mail.
    fn taken(port: &Port<Mail>) -> Vec<u64> {
        let mail = std::iter::from_fn(|| port.take(Lane::Delivery));
        mail.map(|mail| match mail {
            Mail::Notice(notice) => match &notice.news {
                News::Note(note, _) => note.id,
                News::Unread(unread) => *unread,
            },
            Mail::Kept(kept) => match kept.told {
                Said::Page(page) => page.newest,
                Said::Unread(unread) => unread,
                Said::Refused(why) => panic!("{why}"),
            },
            other => panic!("{other:?}"),
        })
        .collect()
    }

    #[test]
    fn news_go_to_every_shard_and_an_answer_to_its_own_in_the_order_of_the_store() {
        let (mut clerk, ports) = clerk(3, 16);
        notify(&mut clerk, 5, None);
        let from = From::Connection { to: CONN, reference: None };
        let page = Page { newest: 5, ..Page::default() };
        clerk.answer(from, list(), Ok(Answer::Page(page)));
        notify(&mut clerk, 6, None);
        assert!(clerk.deliver());
        assert_eq!(taken(&ports[1]), [5, 5, 6]);
        assert_eq!((taken(&ports[0]), taken(&ports[2])), (vec![5, 6], vec![5, 6]));
    }

    #[test]
    fn what_did_not_change_is_no_news() {
        let (mut clerk, ports) = clerk(2, 16);
        let read = || Ask::Read { owner: "u".into(), marked: Marked::All };
        for (changed, shards) in [(false, [0, 1]), (true, [1, 2])] {
            let from = From::Connection { to: CONN, reference: None };
            clerk.answer(from, read(), Ok(Answer::Unread { unread: 0, changed }));
            clerk.deliver();
            assert_eq!([taken(&ports[0]).len(), taken(&ports[1]).len()], shards);
        }
        let (stored, _) = oneshot::channel();
        let (tell, mut told) = oneshot::channel();
        let (ask, _) = append(1);
        let known = Appended { id: 1, at: 1, unread: 1, repeated: true, dropped: 0 };
        let from = From::Admin { stored, reached: Some(tell) };
        clerk.answer(from, ask, Ok(Answer::Appended(known)));
        clerk.deliver();
        assert_eq!(taken(&ports[0]), [0; 0], "a repeated one was pushed before");
        assert!(told.try_recv().is_err());
    }

    #[test]
    fn a_receipt_is_told_when_every_shard_has_said_its_part_and_forgotten_ones_do_not_stay() {
        let (mut clerk, _ports) = clerk(2, 4096);
        let (tell, mut told) = oneshot::channel();
        notify(&mut clerk, 1, Some(tell));
        clerk.hear((1, 2));
        assert!(told.try_recv().is_err());
        clerk.hear((1, 3));
        assert_eq!(told.try_recv(), Ok(5));
        clerk.hear((1, 7));
        for number in 0..3000 {
            notify(&mut clerk, number, Some(oneshot::channel().0));
            clerk.deliver();
        }
        assert!(clerk.receipts.len() <= RECEIPTS, "{}", clerk.receipts.len());
    }

    #[test]
    fn a_full_inbox_loses_nothing_and_stops_the_store_before_too_much_waits() {
        let (mut clerk, ports) = clerk(1, 4);
        let mut numbers = 0..;
        while clerk.has_space() {
            notify(&mut clerk, numbers.next().expect("endless"), None);
            clerk.deliver();
        }
        let sent = numbers.start;
        assert!(sent < 2000, "{sent}");
        let mut all = Vec::new();
        while !clerk.deliver() {
            all.extend(taken(&ports[0]));
        }
        all.extend(taken(&ports[0]));
        assert!(all.into_iter().eq(0..sent));
        assert!(clerk.has_space());
    }

    /// A disk that does nothing until it is let go.
    struct Stuck(Receiver<()>);

    impl Store for Stuck {
        fn commit(&mut self, asks: &[Ask], _: u64) -> Result<Vec<Outcome>, Fault> {
            let _ = self.0.recv_timeout(PATIENCE);
            Ok(asks.iter().map(|_| Err(Refused::Full)).collect())
        }
    }

    #[test]
    fn a_disk_that_stands_still_gives_a_shards_errands_back_at_once() {
        let (clerk, ports) = clerk(2, 64);
        let (go, stuck) = bounded::<()>(0);
        let pace = Pace {
            queue: 8,
            window: Duration::ZERO,
            prune: Duration::from_secs(3600),
            again: Duration::from_secs(3600),
            alive: Duration::ZERO,
        };
        let keeper = Keeper::start(Box::new(Stuck(stuck)), clerk, pace).expect("a thread");
        let errand = |index| {
            let to = ConnAddress { conn: ConnId { index, generation: 1 }, ..CONN };
            let task = Task::Read(Marked::All);
            Errands::Ask(Box::new(Errand { to, reference: None, owner: "u".into(), task }))
        };
        let handle = keeper.handle();
        let given_back =
            (0..1000).filter(|index| hand_in(&handle, ShardId(1), errand(*index)).is_err()).count();
        assert!(given_back >= 1000 - 8 - 512, "{given_back}");
        assert!(
            hand_in(&handle, ShardId(1), Errands::Reached { receipt: 1, connections: 1 }).is_ok()
        );
        drop(go);
        drop(keeper);
        let answers = std::iter::from_fn(|| ports[1].take(Lane::Delivery)).count();
        assert_eq!(answers, 1000 - given_back, "what was taken was answered");
    }

    #[test]
    fn a_revocation_comes_back_from_the_store_as_it_went() {
        let user = |tenant: Option<&str>| {
            let tenant = tenant.map(Box::from);
            Revocation::User { tenant, user: "ada".into(), issued: 7, until: 9 }
        };
        let token = Revocation::Token { id: "j".into(), until: 9 };
        for all in [user(None), user(Some("acme")), token] {
            assert_eq!(revocation(kept_revocation(&all)), all);
        }
    }
}
