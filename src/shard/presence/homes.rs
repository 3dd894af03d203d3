//! As a home: users come and go, and rooms are shown to their observers.

use std::sync::Arc;

use crate::auth::{is_user_room, user_of};
use crate::base::counters::Counters;
use crate::base::id::{ConnAddress, ShardId};
use crate::base::tidings::TidingKind;
use crate::base::time::Time;
use crate::hub::{Display, Known, Next, Passage, Sight, Stand, Times};
use crate::shard::mail::Mail;
use crate::shard::presence::{LastSeen, Word};
use crate::shard::state::Shard;

/// Rooms whose roll is called or that are told in one turn.
const ROOMS_PER_TURN: usize = 32;

impl Shard {
    /// Milliseconds since 1970.
    pub(in crate::shard) fn unix_ms(&self, now: Time) -> u64 {
        let since = u64::try_from(now.since(Time::ZERO).as_millis()).unwrap_or(u64::MAX);
        self.identity.started_unix_ms.saturating_add(since)
    }

    /// Tells the home of a user how this shard stands with the user now.
    pub(in crate::shard) fn tell_stand(&mut self, user: Arc<str>, stand: Stand, now: Time) {
        let (home, shard) = (self.home(&user), self.identity.id);
        if home == shard {
            self.handle_stand(&user, shard, stand, now);
        } else {
            self.outbox.push(home, Mail::Stand { user, shard, stand });
        }
    }

    /// As the user's home: notes how a shard stands with the user.
    pub(in crate::shard) fn handle_stand(
        &mut self,
        user: &Arc<str>,
        shard: ShardId,
        stand: Stand,
        now: Time,
    ) {
        let times = (now, self.unix_ms(now));
        if self.rooms.directory.users.set(user, shard, stand, times) {
            self.report_online(user, now);
        }
    }

    /// Somebody has joined or left a room whose home this is.
    pub(in crate::shard) fn note_count(&mut self, room: &Arc<str>, now: Time) {
        if !self.rooms.presence.showcase.is_empty() {
            let until = self.window(now);
            self.rooms.presence.showcase.touch(room, until);
        }
    }

    /// Lets time pass: graces end, rooms are shown, observers are told; a bounded part of each.
    pub(in crate::shard) fn tend_presence(&mut self, now: Time) {
        self.rooms.presence.now = now;
        self.rooms.presence.spread = 0;
        let rules = &self.settings.rooms.presence;
        let (mut gone, is_told) = (Vec::new(), self.reports(TidingKind::Offline));
        let mut tell = |user: &Arc<str>, unix_ms| {
            if is_told {
                gone.push((Arc::clone(user), unix_ms));
            }
        };
        self.rooms.directory.users.expire(now, rules.grace, rules.remembered, &mut tell);
        for (user, unix_ms) in gone {
            self.report_offline(&user, unix_ms, now);
        }
        self.spread_notices(now);
        if self.is_overloaded() {
            return;
        }
        for _ in 0..ROOMS_PER_TURN {
            let Some((room, next)) = self.rooms.presence.showcase.poll_due(now) else { break };
            match next {
                Next::Roll(number) => self.call_roll(&room, number),
                Next::Tell => self.show(&room, now),
            }
        }
        self.rooms.presence.lookout.expire(now);
        self.tell_some(now);
        self.post_wants(now);
    }

    /// Fills in what is counted about presence.
    pub(in crate::shard) fn count_presence(&self, counters: &mut Counters) {
        self.rooms.presence.count(counters);
        let users = &self.rooms.directory.users;
        let counts = users.counts();
        counters.users_online = users.len() as u64;
        counters.last_seen_remembered = users.remembered() as u64;
        counters.graces_hurried_total = counts.hurried;
        counters.users_returned_total = counts.returned;
        counters.last_seen_forgotten_total = counts.forgotten;
        counters.last_seen_lost_total = counts.lost;
    }

    /// When there is something to do about presence.
    pub(in crate::shard) fn presence_due(&self) -> Option<Time> {
        let grace = self.rooms.directory.users.due(self.settings.rooms.presence.grace);
        // Nothing is told while mail is backed up; its leaving wakes the shard.
        let news = self.rooms.presence.due().filter(|_| !self.is_overloaded());
        [grace, news].into_iter().flatten().min()
    }

    /// Sends the news of users to the shards that watch them.
    pub(in crate::shard) fn post_news(&mut self, now: Time) {
        let mut here: Vec<Known> = Vec::new();
        let (outbox, own) = (&mut self.outbox, self.identity.id);
        self.rooms.directory.users.poll_news(&mut |shard, user, sight| {
            let user = Arc::clone(user);
            if shard == own {
                here.push((user, sight));
            } else {
                outbox.push(shard, Mail::Presence(Box::new(Word::News { user, sight })));
            }
        });
        for (user, sight) in here {
            self.handle_news(&user, sight, now);
        }
    }

    /// Tells homes of which users and rooms this shard wants news.
    pub(in crate::shard) fn post_wants(&mut self, now: Time) {
        let mut wants: Vec<(Arc<str>, bool)> = Vec::new();
        let lookout = &mut self.rooms.presence.lookout;
        lookout.poll_wants(is_user_room, |subject, on| wants.push((Arc::clone(subject), on)));
        let shard = self.identity.id;
        for (subject, on) in wants {
            let home = self.home(&subject);
            self.run(home, Word::Watch { subject, shard, on }, now);
        }
    }

    /// Sends a word to another shard, or takes it here.
    pub(super) fn run(&mut self, shard: ShardId, word: Word, now: Time) {
        if shard == self.identity.id {
            self.handle_word(word, now);
        } else {
            self.outbox.push(shard, Mail::Presence(Box::new(word)));
        }
    }

    /// Does what a shard asks, or takes in what one has said.
    pub(in crate::shard) fn handle_word(&mut self, word: Word, now: Time) {
        match word {
            Word::Watch { subject, shard, on } if is_user_room(&subject) => {
                self.rooms.directory.users.watch(&subject, shard, on);
                if on {
                    let sight = self.rooms.directory.users.sight(&subject);
                    self.run(shard, Word::News { user: subject, sight }, now);
                }
            }
            Word::Watch { subject, shard, on } => {
                let gone = self.rooms.presence.showcase.watch(&subject, shard, on, now);
                self.unlist(&subject, &gone);
            }
            Word::Repeat { user } => self.rooms.directory.users.repeat(&user),
            Word::Show { room, to } => {
                if let Some((to, display)) = self.rooms.presence.showcase.ask(&room, to) {
                    self.show_whole(to, display, now);
                }
            }
            Word::Roll { room, number, home } => {
                let (users, shard) = (self.present(&room), self.identity.id);
                self.run(home, Word::Present { room, number, shard, users }, now);
            }
            Word::Find { number, from, users } => {
                let known = &self.rooms.directory.users;
                let sights = users.iter().map(|(at, user)| (*at, known.sight(user))).collect();
                self.run(from, Word::Found { number, sights }, now);
            }
            Word::List { number, from, page } => {
                let (members, guests) = self.list(&page);
                self.run(from, Word::Listed { number, members, guests }, now);
            }
            Word::News { user, sight } => self.handle_news(&user, sight, now),
            Word::Present { room, number, shard, users } => {
                self.rooms.presence.showcase.answer(&room, number, shard, users);
            }
            Word::Shown(display) => self.handle_shown(&display, now),
            Word::Whole { to, display } => self.handle_whole(to, &display, now),
            Word::Found { number, sights } => self.handle_found(number, &sights, now),
            Word::Listed { number, members, guests } => {
                self.handle_listed(number, members, guests, now);
            }
            Word::Abroad { number, abroad } => self.handle_abroad(number, abroad, now),
        }
    }

    /// A user's home has told how the user stands.
    fn handle_news(&mut self, user: &Arc<str>, sight: Sight, now: Time) {
        let until = self.window(now);
        let presence = &mut self.rooms.presence;
        let heard = presence.lookout.hear(user, sight, until);
        for room in &heard.rooms {
            presence.showcase.note(room, user, heard.first, until);
        }
    }

    /// The end of a window that begins now.
    fn window(&self, now: Time) -> Time {
        now.plus(self.settings.rooms.presence.interval)
    }

    /// Asks the shards with members who they are, unless they are too many for a list.
    fn call_roll(&mut self, room: &Arc<str>, number: u64) {
        let directory = &self.rooms.directory;
        let over = directory.members(room) > self.settings.rooms.presence.list as u64;
        let shards: Vec<ShardId> = if over { Vec::new() } else { directory.shards(room).collect() };
        self.rooms.presence.showcase.begin(room, number, shards.iter().copied(), over);
        let home = self.identity.id;
        for shard in shards {
            if shard == home {
                let users = self.present(room);
                self.rooms.presence.showcase.answer(room, number, shard, users);
            } else {
                let word = Word::Roll { room: Arc::clone(room), number, home };
                self.outbox.push(shard, Mail::Presence(Box::new(word)));
            }
        }
    }

    /// The users with connections of this shard in the room, each once; `None` when there are too many members.
    fn present(&self, room: &str) -> Option<Vec<Arc<str>>> {
        let members = self.rooms.hub.members(room);
        if members.len() > self.settings.rooms.presence.list {
            return None;
        }
        let people = &self.gate.people;
        let known = members.iter().filter_map(|member| people.get(member.conn));
        let mut users: Vec<Arc<str>> = known.map(|person| Arc::clone(person.own())).collect();
        users.sort_unstable();
        users.dedup();
        Some(users)
    }

    /// Tells the observers of a room what has changed in it.
    fn show(&mut self, room: &Arc<str>, now: Time) {
        let (limit, until) = (self.settings.rooms.presence.list, self.window(now));
        let presence = &mut self.rooms.presence;
        let (showcase, lookout) = (&mut presence.showcase, &mut presence.lookout);
        let mut asked = Vec::new();
        let ask = |user: &Arc<str>| asked.push(Arc::clone(user));
        let is_ready = showcase.take_roll(room, limit, |user| lookout.list(user, room), ask);
        for user in asked {
            self.run(self.home(&user), Word::Repeat { user }, now);
        }
        if !is_ready {
            return;
        }
        let presence = &mut self.rooms.presence;
        let (showcase, lookout) = (&mut presence.showcase, &mut presence.lookout);
        let members = self.rooms.directory.members(room);
        let times = Times { now, until, grace: self.settings.rooms.presence.grace };
        let outcome = showcase.tell(room, members, times, |user| lookout.seen(user));
        self.unlist(room, &outcome.gone);
        if let Some(diff) = outcome.diff {
            let diff = Arc::new(diff);
            let watchers = self.rooms.presence.showcase.watchers(room).to_vec();
            for shard in watchers {
                self.run(shard, Word::Shown(Arc::clone(&diff)), now);
            }
        }
        for to in outcome.asks {
            if let Some(display) = self.rooms.presence.showcase.whole(room) {
                self.show_whole(to, display, now);
            }
        }
    }

    fn show_whole(&mut self, to: ConnAddress, display: Display, now: Time) {
        self.run(to.shard, Word::Whole { to: to.conn, display }, now);
    }

    /// These users interest the room no more.
    fn unlist(&mut self, room: &Arc<str>, users: &[Arc<str>]) {
        for user in users {
            self.rooms.presence.lookout.unlist(user, room);
        }
    }

    /// Takes over when users were last seen in an earlier life of the node, each by the name of its own room,
    /// with milliseconds since 1970. Those of other homes are passed over.
    pub fn recall_seen(&mut self, seen: &[(Arc<str>, u64)]) {
        let most = self.settings.rooms.presence.remembered;
        for (user, unix_ms) in seen {
            if self.home(user) == self.identity.id {
                self.rooms.directory.users.recall(user, *unix_ms, most);
            }
        }
    }

    /// The node ends: who has gone and whose grace is not over, as [`Shard::recall_seen`] takes it.
    pub fn end_presence(&mut self) -> Vec<(Arc<str>, u64)> {
        self.rooms.directory.users.end()
    }

    /// The next user who has come or gone offline, whose home this shard is, in the order in which each of them did.
    /// They are kept from the first call on, up to 65,536 of them; of more the earliest are lost and counted.
    pub fn poll_last_seen(&mut self) -> Option<LastSeen> {
        let Passage { user: own, unix_ms, here } = self.rooms.directory.users.poll_passage()?;
        let (tenant, user) = user_of(&own);
        Some(LastSeen { tenant: tenant.map(Box::from), user: Box::from(user), unix_ms, here })
    }
}
