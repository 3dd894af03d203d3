//! The node's side of the bridge: mail becomes parcels, and what other nodes and programs publish becomes
//! drafts for homes.
//!
//! It lives on the bridge's thread and has a port of the mesh of its own, the last. What comes is split by homes
//! as a client's command is, and goes to them as such, but is not sent on again. What an inbox has no
//! space for waits here up to a number; then it is dropped and the bridge is told.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fs;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use serde_json::value::RawValue;

use crate::auth::is_user_room;
use crate::base::id::{ConnAddress, NodeTag, ShardId};
use crate::base::map::Seed;
use crate::base::secret::Secret;
use crate::bridge::{
    self, Absent, Bounds, Bridge, Change, Channel, Claimed, Extras, Mark, Options, Papers, Parcel,
    Part, Patience, Place, Pose, Receipt, Refused, Sentinels, Sequence, Server, Side, Surveyed,
    Tally, Word,
};
use crate::hub::{Afar, Here, Origin, Stand, Terms, home};
use crate::mesh::{Lane, Port};
use crate::node::board::Board;
use crate::node::config::{self, Config};
use crate::node::counting;
use crate::node::crossing::{self, room_of};
use crate::node::keys;
use crate::node::noticing;
use crate::node::polling::Polling;
use crate::node::revoking;
use crate::node::running::LaunchError;
use crate::node::settings;
use crate::node::sharing::Sharing;
use crate::session::command::AudienceLimits;
use crate::session::{CommandLimits, Order, Publish, parse_orders};
use crate::shard::{self, Author, Crossing, Identity, Mail, NO_HOME, Packer, Places, RoomRules};
use crate::sys::clock::Clock;

/// Makes the ids of groups of copies unique beside those of shards and of the admin listener.
const MAKER: u16 = u16::MAX - 1;
/// Publications to everyone that may be in line in a shard.
const TO_EVERYONE: u64 = 256;
/// Rooms in one piece of mail that tells of gaps.
const ROOMS: usize = 64;

/// The bridge's port: behind those of the shards, the node, the admin listener and the store.
pub(super) fn bridge_port(shards: usize) -> usize {
    shards + 3
}

/// The tag of a node as the configuration has it: another at every start.
pub(super) fn tag(config: &Config) -> NodeTag {
    if config.inside.is_linked() { NodeTag(fastrand::u32(1..)) } else { NodeTag::NONE }
}

/// What a bridge counts, and whose users it does not know.
pub(super) type Known = (Option<Arc<Tally>>, Option<Arc<Absent>>);

/// What is known of the bridge, where there is one; of users only where that is wanted.
pub(super) fn known(config: &Config, bridge: Option<&Bridge>) -> Known {
    let absent = bridge.filter(|_| config.inside.bridge.presence);
    let tally = bridge.map(|bridge| Arc::clone(bridge.tally()));
    (tally, absent.map(|bridge| Arc::clone(bridge.absent())))
}

/// The node, as the bridge sees it.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) port: Port<Mail>,
    board: Arc<Board>,
    pub(super) clock: Clock,
    pub(super) seed: Seed,
    pub(super) node: NodeTag,
    pub(super) rules: RoomRules,
    /// What clients and programs are held to, and what nodes are.
    pub(super) limits: [CommandLimits; 2],
    pub(super) making: Making,
    /// Of rooms whose history nodes share.
    pub(super) sharing: Sharing,
    /// Questions to all nodes.
    pub(super) polling: Polling,
    sequence: Sequence<Crossing>,
    pub(super) waiting: Waiting,
}

/// What publications of other nodes are made with.
#[derive(Debug)]
pub(super) struct Making {
    groups: u64,
    /// For payloads that are too long for shards to compress. Behind a cell, as nothing else changes by it.
    pub(super) packer: RefCell<Option<Packer>>,
}

impl Making {
    /// Compresses the payload of one, if it is long.
    pub(super) fn prepare(&self, publish: &mut Publish<'_>) {
        if let Some(packer) = &mut *self.packer.borrow_mut() {
            packer.prepare(publish);
        }
    }
}

/// What inboxes had no space for.
#[derive(Debug)]
pub(super) struct Waiting {
    /// Per shard, in order.
    pub(super) lines: Vec<VecDeque<Mail>>,
    /// Beyond so many nothing more is heard of the bridge.
    most: usize,
}

impl Link {
    /// Starts the bridge's thread.
    ///
    /// # Errors
    /// When a file that the configuration names cannot be used, or an option.
    pub(super) fn start(
        config: &Config,
        identity: &Identity,
        port: Port<Mail>,
        board: &Arc<Board>,
        clock: Clock,
    ) -> Result<Bridge, LaunchError> {
        let own = &config.inside.bridge;
        let limits = settings::commands(config);
        // What a node has let through is not to be refused by another whose limits are narrower.
        let of_nodes = CommandLimits {
            max_keys: usize::MAX,
            max_room_bytes: 1024,
            max_rooms: 1024,
            audience: AudienceLimits { targets: 2048, except: 4096 },
            max_type_bytes: 1024,
            max_id_bytes: 1024,
            ..limits.clone()
        };
        let options = options(config, identity)?;
        let polling = Polling::of(&options.node);
        let link = Self {
            port,
            board: Arc::clone(board),
            clock,
            seed: identity.seed.clone(),
            node: identity.node,
            rules: settings::rooms(config),
            limits: [limits, of_nodes],
            making: Making {
                groups: 0,
                packer: RefCell::new(settings::compression(config).as_ref().map(Packer::new)),
            },
            sharing: Sharing::default(),
            polling,
            sequence: Sequence::default(),
            waiting: Waiting {
                lines: (0..identity.shards).map(|_| VecDeque::new()).collect(),
                most: own.incoming as usize,
            },
        };
        let bridge = Bridge::start(options, link);
        bridge.map_err(|error| LaunchError::new("bridge", error))
    }

    pub(super) fn shards(&self) -> u16 {
        u16::try_from(self.waiting.lines.len()).unwrap_or(u16::MAX)
    }

    pub(super) fn is_full(&self) -> bool {
        self.waiting.lines.iter().map(VecDeque::len).sum::<usize>() >= self.waiting.most
    }

    fn has_long_line(&self) -> bool {
        let waiting = |shard| self.board.shard(ShardId(shard)).everyone_waiting;
        (0..self.shards()).map(waiting).max().is_some_and(|longest| longest >= TO_EVERYONE)
    }

    fn spread(&mut self, order: &Order<'_>, origin: Origin, count: Option<Mark>) {
        let now = self.clock.now();
        let number = count.and_then(|mark| self.polling.counting.begin(mark, now));
        let origin = number.map_or(origin, counting::origin);
        let until = order.publish.ttl.map(|ttl| now.plus(ttl));
        let terms = |_: &str| Terms { until, foreign: true, ..Terms::default() };
        let author = Author { tenant: order.tenant.as_deref(), origin, at: now, across: false };
        let (shards, node) = (self.shards(), self.node);
        let places = Places { seed: &self.seed, shards, rules: &self.rules, node };
        let parts = places.parts(&order.publish, &author, &terms);
        let groups = &mut self.making.groups;
        let group = parts.group(MAKER, || {
            *groups += 1;
            *groups
        });
        for (home, drafts) in parts.homes {
            let mail = match number {
                Some(number) => counting::submission(number, drafts, group, order.publish.ttl),
                None => Mail::Publish { drafts: drafts.into_vec(), group, across: None },
            };
            self.polling.counting.expect(number);
            self.waiting.lines[usize::from(home.0)].push_back(mail);
        }
    }

    /// What one crossing is to the bridge; `None` when nobody is to have it any more.
    fn parcel(&mut self, crossing: &Crossing, in_turn: bool) -> Option<Parcel> {
        let publications = crossing.publications();
        let slip = publications.first().and_then(|first| first.origin.slip());
        let slip = slip.filter(|slip| slip.everywhere);
        let parcel = crossing::parcel(publications, in_turn, self.clock.now());
        match (parcel, slip) {
            (Some(parcel), Some(slip)) => {
                Some(Parcel { count: Some(self.ask_for_reach(slip)), ..parcel })
            }
            (None, Some(slip)) => {
                self.polling.counting.tell(slip, Surveyed::default());
                None
            }
            (parcel, None) => parcel,
        }
    }
}

impl Side for Link {
    fn next(&mut self) -> Option<Word> {
        loop {
            if let Some(poll) = self.polling.counting.next_answer() {
                return Some(Word::Answer(poll));
            }
            while let Some((crossing, in_turn)) = self.sequence.pop() {
                if let Some(parcel) = self.parcel(&crossing, in_turn) {
                    return Some(Word::Publish(parcel));
                }
            }
            let mail = self.port.take(Lane::Request).or_else(|| self.port.take(Lane::Delivery))?;
            match mail {
                Mail::Across { home, crossing } => {
                    let part = match &crossing {
                        Crossing::Part(whole) if whole.homes > 1 => {
                            Some(Part { id: whole.id, homes: whole.homes })
                        }
                        Crossing::One(_) | Crossing::Part(_) => None,
                    };
                    let author = author_of(&crossing);
                    self.sequence.take(home.0, author, part, crossing);
                }
                Mail::Interest { room, wanted } => {
                    return Some(Word::Interest(crossing::channel_of(&room), wanted));
                }
                Mail::Joint(share) => {
                    if let Some(word) = self.share(*share) {
                        return Some(word);
                    }
                }
                Mail::Presence(word) => {
                    if let Some(word) = self.hear_word(*word) {
                        return Some(word);
                    }
                }
                Mail::Inquire(number, inquire) => {
                    if let Some(word) = self.hear_inquiry(number, &inquire) {
                        return Some(word);
                    }
                }
                Mail::Notice(notice) => {
                    if let Some(parcel) = noticing::parcel(&notice) {
                        return Some(Word::Publish(parcel));
                    }
                }
                Mail::Replied(reply) => {
                    if let Some(word) = self.hear_reply(*reply) {
                        return Some(word);
                    }
                }
                Mail::Revoke(taken) => return Some(Word::Ban(revoking::ban(&taken))),
                Mail::Record(record) => {
                    let shard::Statement { to, reference, documents } = *record;
                    let reference = reference.map(|raw| raw.get().into());
                    let receipt = to.map(|to| Receipt { to, reference });
                    return Some(Word::Record(bridge::Record { documents, receipt }));
                }
                Mail::Claim(claim) => {
                    let shard::Claim { to: by, id, expires: until } = *claim;
                    let era = keys::era_of(id);
                    return Some(Word::Claim(bridge::Claim { id, era, until, by }));
                }
                Mail::Name(naming) => return Some(Word::Name(once(*naming))),
                Mail::Here(users) => {
                    return Some(Word::Here(users.into_iter().map(change).collect()));
                }
                Mail::Report(report) => self.polling.counting.hear(&report),
                // Nothing else is sent here.
                _ => {}
            }
        }
    }

    fn deliver(
        &mut self,
        channel: &str,
        order: &str,
        from: Option<&str>,
        foreign: bool,
        count: Option<Mark>,
    ) -> Result<(), Refused> {
        if self.is_full() {
            return Err(Refused::Full);
        }
        if let (false, Some(taken)) = (foreign, self.take_notice(order)) {
            self.flush();
            return taken;
        }
        let own;
        let order = if foreign {
            own = crossing::addressed(channel, order).map_err(Refused::Malformed)?;
            &own
        } else {
            order
        };
        let limits = self.limits[usize::from(!foreign)].clone();
        let mut orders = parse_orders(order, &limits, 1)
            .map_err(|wrong| Refused::Malformed(wrong.error.message))?;
        let origin = match from.map(str::parse::<ConnAddress>) {
            None => Origin::BackEnd(None),
            Some(Ok(address)) => Origin::Connection(address),
            Some(Err(error)) => return Err(Refused::Malformed(error.to_string())),
        };
        for order in &mut orders.list {
            self.refuse_shared(order).map_err(Refused::Malformed)?;
            if order.publish.targets.everyone && self.has_long_line() {
                return Err(Refused::Full);
            }
            self.making.prepare(&mut order.publish);
            self.spread(order, origin, count.filter(|_| from.is_none()));
        }
        self.flush();
        Ok(())
    }

    fn emitted(&mut self, bytes: &[u8]) -> Result<(), Refused> {
        self.take_emitted(bytes)
    }

    fn astray(&mut self, channels: &[Channel]) {
        let rooms = channels.iter().filter_map(|channel| {
            let (tenant, room) = room_of(channel)?;
            Some(Arc::from(&*crate::auth::room(tenant.as_deref(), room)))
        });
        let rooms: Vec<Arc<str>> = rooms.collect();
        for some in rooms.chunks(ROOMS) {
            let some: Arc<[Arc<str>]> = some.into();
            for waiting in &mut self.waiting.lines {
                waiting.push_back(Mail::Astray(Arc::clone(&some)));
            }
        }
        self.flush();
    }

    fn banned(&mut self, text: &str) -> Result<u64, Refused> {
        self.take_ban(text)
    }

    fn recorded(&mut self, Receipt { to, reference }: Receipt, is_written: bool) {
        let reference = reference.and_then(|text| RawValue::from_string(text.into()).ok());
        if let Some(waiting) = self.waiting.lines.get_mut(usize::from(to.shard.0)) {
            waiting.push_back(Mail::Recorded(Box::new((to.conn, reference, is_written))));
        }
    }

    fn named(&mut self, named: bridge::Named) {
        let bridge::Named { home, room, first } = named;
        if let Some(waiting) = self.waiting.lines.get_mut(usize::from(home.0)) {
            waiting.push_back(Mail::Named(Box::new(shard::Named { room, first })));
        }
    }

    fn claimed(&mut self, by: ConnAddress, claimed: Claimed) {
        let fresh = match claimed {
            Claimed::First => Some(true),
            Claimed::Taken => Some(false),
            Claimed::Unknown => None,
        };
        if let Some(waiting) = self.waiting.lines.get_mut(usize::from(by.shard.0)) {
            waiting.push_back(Mail::Redeemed { to: by.conn, fresh });
        }
    }

    fn has_space(&self) -> bool {
        !self.is_full()
    }

    fn afar(&mut self, news: Vec<bridge::Afar>) {
        let shards = self.shards();
        let mut homes: Vec<Vec<Afar>> = vec![Vec::new(); self.waiting.lines.len()];
        for one in news.into_iter().filter(|one| is_user_room(&one.user)) {
            let at = home(&self.seed, &one.user, shards);
            homes[usize::from(at.0)].push(afar(one));
        }
        for (waiting, news) in self.waiting.lines.iter_mut().zip(homes) {
            if !news.is_empty() {
                waiting.push_back(Mail::Afar(news));
            }
        }
        self.flush();
    }

    fn flush(&mut self) -> bool {
        let replies = std::mem::take(&mut self.polling.replies);
        let board = &self.board;
        self.polling.replies =
            replies.into_iter().filter_map(|reply| board.tell_reply(reply)).collect();
        self.tell_desk();
        let mut empty = self.polling.replies.is_empty();
        for (shard, waiting) in self.waiting.lines.iter_mut().enumerate() {
            while let Some(mail) = waiting.pop_front() {
                let lane = if mail.is_request() { Lane::Request } else { Lane::Delivery };
                if let Err(mail) = self.port.post(shard, lane, mail) {
                    waiting.push_front(mail);
                    empty = false;
                    break;
                }
            }
        }
        empty
    }

    fn wake_fd(&self) -> BorrowedFd<'_> {
        self.port.wake_fd()
    }

    fn before_sleep(&self) -> bool {
        !self.polling.counting.has_answer() && self.port.before_sleep(&Lane::ALL)
    }

    fn awake(&self) {
        self.port.awake();
    }
}

fn change(here: Here) -> Change {
    let pose = match here.stand {
        Stand::Gone => Pose::Gone,
        Stand::Idle => Pose::Idle,
        Stand::Active => Pose::Active,
    };
    Change { user: here.user, pose, at: here.unix_ms, last: here.last }
}

fn afar(one: bridge::Afar) -> Afar {
    let stand = match one.pose {
        Pose::Gone => Stand::Gone,
        Pose::Idle => Stand::Idle,
        Pose::Active => Stand::Active,
    };
    let bridge::Afar { user, place: node, at: unix_ms, speaks, ended, .. } = one;
    Afar { user, node, stand, unix_ms, speaks, ended }
}

/// By what all nodes know publications that are to be taken once.
fn once(naming: shard::Naming) -> bridge::Naming {
    let shard::Naming { home, room, names, window } = naming;
    let name = |text: &String| {
        let hash = digest(&SHA256, text.as_bytes());
        hash.as_ref().iter().take(16).fold(0, |name, byte| name << 8 | u128::from(*byte))
    };
    let names = names.iter().map(name).collect();
    bridge::Naming { home, room, names, window }
}

/// Whose commands keep their order: those of a shard's clients, and those of back ends.
fn author_of(crossing: &Crossing) -> u16 {
    let author = crossing.publications().first().and_then(|first| first.origin.connection());
    author.map_or(NO_HOME, |address| address.shard).0
}

fn read(key: &str, path: &str) -> Result<Vec<u8>, LaunchError> {
    fs::read(path).map_err(|error| LaunchError::new(format_args!("{key} = {path:?}"), error))
}

pub(super) fn server(inside: &config::values::Inside) -> Result<Server, LaunchError> {
    let (own, asked) = (&inside.redis, &inside.sentinels);
    let mut papers = Papers::default();
    if !own.ca_file.is_empty() {
        papers.roots = Some(read("bridge.ca_file", &own.ca_file)?);
    }
    if !own.cert_file.is_empty() {
        let key = read("bridge.key_file", &own.key_file)?;
        let key = Secret::new(&String::from_utf8_lossy(&key));
        papers.own = Some((read("bridge.cert_file", &own.cert_file)?, key));
    }
    let place = if own.cluster {
        Place::Cluster([std::slice::from_ref(&own.url), &own.seeds[..]].concat())
    } else if asked.urls.is_empty() {
        Place::Url(own.url.clone())
    } else {
        let (key, path) = ("bridge.sentinel_password_file", &asked.password_file);
        Place::Sentinels(Sentinels {
            urls: asked.urls.clone(),
            primary: asked.primary.clone(),
            user: asked.user.clone(),
            password: keys::secret(key, path, &asked.password)?,
        })
    };
    let password = keys::secret("bridge.password_file", &own.password_file, &own.password)?;
    Ok(Server { place, user: own.user.clone(), password, papers })
}

fn options(config: &Config, identity: &Identity) -> Result<Options, LaunchError> {
    let own = &config.inside.bridge;
    Ok(Options {
        server: server(&config.inside)?,
        prefix: own.prefix.clone(),
        extras: Extras {
            emitter: (!own.emitter.is_empty()).then(|| own.emitter.clone()),
            tickets: !own.ticket_secret.is_empty() || !own.ticket_secret_file.is_empty(),
        },
        node: if own.node.is_empty() {
            format!("{:08x}", identity.node.0)
        } else {
            own.node.clone()
        },
        epoch: identity.epoch,
        tag: identity.node.0,
        patience: Patience { connect: own.connect_timeout, command: own.command_timeout },
        cluster: config.inside.redis.cluster,
        bounds: Bounds {
            queue: own.queue_messages as usize,
            queue_bytes: own.queue_bytes as usize,
            incoming: own.incoming as usize,
            stream: own.stream as usize,
        },
        canary: own.canary,
        linger: own.linger,
        presence: bridge::Presence {
            lease: own.presence.then_some(own.lease),
            most_users: own.users as usize,
            survey_timeout: own.survey_timeout,
        },
    })
}
