//! What a shard counts.
//!
//! Plain numbers, written by the one core that owns them. The rim copies them into shared atomics
//! once a turn ([`Counters::values`] and [`Counters::NAMES`] give them in one order), so counting
//! costs an addition and reading costs the shard nothing.

macro_rules! counters {
    ($($(#[doc = $doc:literal])* $name:ident,)*) => {
        /// One shard's counters. Gauges are named as nouns in the plural, totals end in `_total`.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Counters {
            $($(#[doc = $doc])* pub $name: u64,)*
        }

        impl Counters {
            /// The names, in the order of [`Counters::values`].
            pub const NAMES: &'static [&'static str] = &[$(stringify!($name)),*];

            /// What each of them counts, in the same order, as their documentation has it.
            pub const MEANINGS: &'static [&'static str] = &[$(concat!($($doc),*)),*];

            /// The number of counters.
            pub const LEN: usize = Self::NAMES.len();

            /// The values, in the order of [`Counters::NAMES`].
            #[must_use]
            pub fn values(&self) -> [u64; Self::LEN] {
                [$(self.$name),*]
            }

            /// Counters from values in the order of [`Counters::NAMES`].
            #[must_use]
            pub fn from_values(values: [u64; Self::LEN]) -> Self {
                let [$($name),*] = values;
                Self { $($name),* }
            }

            /// Adds another shard's counters to these.
            pub fn add(&mut self, other: &Self) {
                $(self.$name = self.$name.wrapping_add(other.$name);)*
            }
        }
    };
}

counters! {
    /// Gauge: connections in the slab, from accept to release.
    connections,
    /// Gauge: connections past their handshake and not yet closing.
    open_connections,
    /// Gauge: event streams, of the open connections.
    stream_connections,
    /// Gauge: connections that speak Socket.IO, of the open connections.
    packet_connections,
    /// Of those, clients that poll.
    polling_connections,
    /// Gauge: connections that may compress messages, of the open connections.
    deflate_connections,
    /// Frames that were compressed, each once however many read it.
    deflated_messages_total,
    /// Bytes of frames that were compressed, before.
    deflated_before_bytes_total,
    /// Bytes of frames that were compressed, afterwards.
    deflated_after_bytes_total,
    /// Payloads of clients that were given to a thread beside the shards to be compressed.
    deflated_beside_total,
    /// Messages that came compressed.
    inflated_messages_total,
    /// Bytes of messages that came compressed, as they came.
    inflated_before_bytes_total,
    /// Bytes of messages that came compressed, inflated.
    inflated_after_bytes_total,
    /// Gauge: rooms with at least one member in this shard.
    rooms,
    /// Gauge: memberships in this shard.
    memberships,
    /// Gauge: rooms this shard is home of.
    home_rooms,
    /// Gauge: rooms of which history is kept here, as their home.
    history_rooms,
    /// Gauge: publications kept in histories.
    history_publications,
    /// Gauge: publications that wait for the store, or behind one that does.
    waiting_to_be_stored,
    /// Gauge: what histories cost, in bytes.
    history_bytes,
    /// Gauge: connections that have not had everything they missed.
    replays,
    /// Gauge: messages that restore rooms and await an answer.
    restores,
    /// Gauge: clients of Socket.IO that were lost and may come back to their rooms.
    lost_clients,
    /// Gauge: identifiers of publications remembered, to find repeats.
    remembered_ids,
    /// Gauge: bytes in outbound queues, in flight included.
    queued_bytes,
    /// Gauge: mail parked because a target's inbox was full.
    parked_mail,
    /// Gauge: connections whose reads are paused.
    paused_connections,
    /// Gauge: connections of known users.
    authenticated_connections,
    /// Gauge: bytes of what tokens say about connections, where it is kept.
    metadata_bytes,
    /// Gauge: users with a connection, each counted at its home.
    users_online,
    /// Gauge: users of whom it is remembered when they were last seen.
    last_seen_remembered,
    /// Gauge: pairs of an observer and a user or room that it watches.
    presence_watches,
    /// Gauge: rooms with observers, each counted at its home.
    presence_rooms,
    /// Gauge: handshakes that wait for a ticket to be redeemed, or for the application's back end.
    pending_tickets,
    /// Gauge: revocations remembered.
    revocations,
    /// Gauge: questions to the application's back end that are not answered yet.
    pending_questions,
    /// Gauge: commands and logins that wait for such an answer, or behind one that does.
    held_commands,
    /// Gauge: requests for `[[proxy]]` and the public API that are gathered or wait for their answer.
    petitions,
    /// Gauge: connections with a TLS layer.
    tls_connections,
    /// Gauge: addresses with a connection, each shard counting its own.
    parties,
    /// Gauge: connections, addresses, users and tenants that have spent some of a rate and not earned it
    /// back.
    paced,
    /// Gauge: addresses, users and tenants whose connections are counted, each at its home shard.
    counted_parties,
    /// Gauge: addresses, users and tenants whose rates several shards share, each at its home shard.
    shared_parties,
    /// Gauge: rooms of tenants that are counted against a limit, each at its home shard.
    counted_rooms,
    /// Gauge: commands that were accepted and are not answered yet, wherever they wait.
    awaited_commands,
    /// Gauge: those of users and tenants with `max_outstanding` that await answers in other shards, as far as each shard
    /// that has some as well has heard.
    awaited_elsewhere,
    /// Gauge: joins that wait for the verdict on a room that has just begun.
    waiting_joins,
    /// Gauge: bytes charged to the memory budget.
    charged_bytes,
    /// Gauge: publications on their way to everyone, each shard counting its own.
    everyone_waiting,
    /// Commands whose publications went to the bridge, for other nodes.
    sent_across_total,
    /// Sockets accepted.
    accepted_total,
    /// Sockets refused before a connection existed.
    shed_total,
    /// Times accepting stopped because the kernel refused a descriptor or memory.
    accept_paused_total,
    /// Handshakes refused, by any status.
    handshakes_refused_total,
    /// Handshakes refused with 400 because the request broke a rule.
    refused_400_total,
    /// Handshakes refused with 401 because there was no token, or one that does not do.
    refused_401_total,
    /// Handshakes refused with 403 because whoever it was may not.
    refused_403_total,
    /// Handshakes refused with 404 because nothing is at the path.
    refused_404_total,
    /// Handshakes refused with 405 because of their method.
    refused_405_total,
    /// Handshakes refused with 408 because the request did not arrive in time.
    refused_408_total,
    /// Handshakes refused with 411 because the length of the body was not said.
    refused_411_total,
    /// Handshakes refused with 413 because of a body, or one that is too large.
    refused_413_total,
    /// Handshakes refused with 414 because the target was too long.
    refused_414_total,
    /// Handshakes refused with 426 because headers of an upgrade were missing.
    refused_426_total,
    /// Handshakes refused with 431 because the head was too large.
    refused_431_total,
    /// Handshakes refused with 503 because the node took nobody at the moment.
    refused_503_total,
    /// Handshakes of browsers that were made only to tell them by a close frame when to come back.
    refused_later_total,
    /// Handshakes refused with another status.
    refused_otherwise_total,
    /// Handshakes completed.
    handshakes_total,
    /// Logins: connections whose token or ticket was accepted.
    logins_total,
    /// Fresh tokens accepted on open connections.
    reauths_total,
    /// Tokens and tickets refused, by any reason, at the handshake and later.
    auth_refused_total,
    /// Those of them where there was none.
    auth_missing_total,
    /// Those that had expired, or were not valid yet.
    auth_expired_total,
    /// Those that had been revoked.
    auth_revoked_total,
    /// Those that named a key nobody knows.
    auth_unknown_key_total,
    /// Tickets that were none of ours, or used.
    auth_ticket_total,
    /// Those whose signature is no trusted key's, or that ask for what is not done here.
    auth_untrusted_total,
    /// Those that are in order and meant for somebody else: audience, issuer, user, or no end.
    auth_unsuited_total,
    /// Those that could not be read.
    auth_malformed_total,
    /// Those that the application refuses: by a claim, or when it was asked.
    auth_vetoed_total,
    /// Tickets of which nobody could tell whether another node had taken them.
    tickets_unsure_total,
    /// Tokens given to the threads that check what is dear.
    auth_proofs_total,
    /// Handshakes and logins put off because too many tokens wait to be checked.
    auth_proofs_shed_total,
    /// Questions to the application's back end.
    questions_total,
    /// Questions that needed not be asked, because the answer was remembered.
    questions_remembered_total,
    /// Questions answered with no.
    questions_refused_total,
    /// Questions that nobody answered in time, or so that it can be read, or that were too many.
    questions_undecided_total,
    /// Requests handed on to `[[proxy]]` and the public API.
    petitions_total,
    /// Those that were not, because they were too many or the client has no place.
    petitions_refused_total,
    /// Connections whose socket has left them: with a request that a `[[proxy]]` answers, for a session of Socket.IO that
    /// another shard has, or for one that polled.
    handed_over_total,
    /// Connections that came from another shard, as they are for a session of this one.
    transfers_total,
    /// Those that did not get there, for want of space, of descriptors, or at the end of the node.
    transfers_lost_total,
    /// Sessions of Socket.IO that polled and go on by WebSocket.
    socketio_upgrades_total,
    /// WebSockets that were tried for such a session and came to nothing; but for the last moment of it the session polls on.
    socketio_upgrades_failed_total,
    /// Events that back ends are told of.
    events_total,
    /// Events that found no space to wait in their shard, and are told to nobody.
    events_lost_total,
    /// Handshakes refused for the page they came from.
    origin_refused_total,
    /// Commands refused because the user, or the page it came from, has no right to the room.
    forbidden_total,
    /// Memberships ended because a fresh token grants less than the one before.
    withdrawn_total,
    /// Connections closed (1008) because the token was missing or wrong after the upgrade.
    auth_closed_total,
    /// Connections closed (4401) at the end of their token.
    expired_total,
    /// Connections closed (1008) because their token or user was revoked.
    revoked_total,
    /// Sets of fetched keys that were too many beside those of the configuration; the earlier ones stay.
    keys_refused_total,
    /// Revocations that could not be remembered because there are too many.
    revocations_lost_total,
    /// TLS handshakes completed.
    tls_handshakes_total,
    /// Those of them that went on from a ticket.
    tls_resumed_total,
    /// Connections ended because the peer broke TLS or the two ends could not agree.
    tls_failed_total,
    /// Times a TLS handshake waited because the turn had done its share of them.
    tls_waits_total,
    /// Connections that ended in order (close handshake, drain, response sent).
    closed_total,
    /// Connections that the peer or the network ended.
    lost_total,
    /// Connections reaped because the peer stayed silent past its heartbeat.
    heartbeat_lost_total,
    /// Times a connection was due to be reaped for its silence, and was not because what its peer had sent
    /// lay unread.
    heartbeat_spared_total,
    /// Connections closed for a protocol violation.
    violations_total,
    /// Connections closed as slow consumers.
    slow_consumers_total,
    /// Connections closed for sending more than their rate allows.
    rate_closed_total,
    /// Connections closed for having more of something than they may.
    limit_closed_total,
    /// Messages answered with `rate_limited`.
    rate_limited_total,
    /// Times a home was told what its address, user or tenant has spent of a rate in one shard.
    tolls_total,
    /// Times reading stopped until a rate was kept again.
    rate_delays_total,
    /// Connections refused because their address, or who else shares a limit with them, has too many.
    parties_refused_total,
    /// Connections closed (4409) because their user has come again.
    replaced_total,
    /// Connections closed because a back end sent them away.
    dismissed_total,
    /// Joins refused because the tenant has as many rooms as it may.
    rooms_refused_total,
    /// Memberships ended because two shards had let a user go over its number of rooms together.
    rooms_undone_total,
    /// Handshakes that were given a place in the line and asked to come back.
    handshakes_deferred_total,
    /// Times a publisher was not read from because memory was short.
    memory_pauses_total,
    /// Laggards closed because memory was short.
    memory_shed_total,
    /// Of those, the ones that were closed because too much waited for their tenant.
    hoarders_closed_total,
    /// Connections refused because memory was short.
    memory_refused_total,
    /// Connections closed unseen for want of a PROXY header that can be believed.
    unannounced_total,
    /// Connections closed because our own code panicked while handling them.
    panics_total,
    /// Publications to everyone that a shard had no place in line for.
    everyone_dropped_total,
    /// Numbers of connections reached that could not be told to a back end.
    reports_dropped_total,
    /// Bytes received.
    received_bytes_total,
    /// Data messages received.
    received_messages_total,
    /// Bytes the kernel took.
    sent_bytes_total,
    /// Frames handed to the kernel.
    sent_frames_total,
    /// Writes handed to the kernel; frames per write is `sent_frames_total / writes_total`.
    writes_total,
    /// Pings sent.
    pings_total,
    /// Command errors answered.
    command_errors_total,
    /// Publications of clients whose payload fits the schemas that speak of it.
    payloads_checked_total,
    /// Those that were refused because it does not.
    payloads_refused_total,
    /// Publications numbered by this shard as their home.
    publications_total,
    /// Publications that left a history because its room has a newer one in their place.
    history_evicted_count_total,
    /// Those that left because of the bytes of their room's history.
    history_evicted_bytes_total,
    /// Those that left because they were too old.
    history_evicted_age_total,
    /// Those that left because histories had their share of the node's memory.
    history_evicted_share_total,
    /// Joins with a cursor after which nothing was missing.
    resumes_total,
    /// Members that were told to begin anew.
    resyncs_total,
    /// Publications queued from histories.
    replayed_total,
    /// Times a room said nothing more to a reader that was behind, until it could have the rest from the room's history.
    pauses_total,
    /// Pages of history answered.
    history_pages_total,
    /// Publications that were stored before anybody had them.
    stored_total,
    /// Publications that were to be stored and are not, as far as is known.
    stored_refused_total,
    /// Publications given up because too much of their room waited for the store.
    unstored_dropped_total,
    /// Publications not sent because they were taken before under the same identifier.
    repeats_total,
    /// Identifiers forgotten early because there were too many.
    forgotten_ids_total,
    /// Publications not sent because their time was over.
    outdated_total,
    /// Deliveries queued to members of this shard.
    deliveries_total,
    /// Bytes of the frames of those.
    delivered_bytes_total,
    /// Publications dropped for a slow reader by `drop_new`.
    dropped_new_total,
    /// Publications dropped for a slow reader by `drop_oldest`.
    dropped_oldest_total,
    /// Publications replaced by a newer one of the same key.
    conflated_total,
    /// Acknowledgements of Socket.IO that nobody waits for.
    unknown_acks_total,
    /// Clients of Socket.IO that were lost and came back to all their rooms.
    recalled_total,
    /// Clients of Socket.IO that wanted to come back to their rooms and could not.
    unrecalled_total,
    /// Requests for Socket.IO in another version of its transport than 4.
    socketio_version_refused_total,
    /// Requests for Socket.IO by a transport that there is not.
    socketio_transport_refused_total,
    /// Requests of clients of Socket.IO that poll.
    polls_total,
    /// Requests for Socket.IO that are wrong in another way.
    socketio_request_refused_total,
    /// Notifications queued to connections of this shard.
    notifications_total,
    /// Questions to the store that it had no space for.
    errands_refused_total,
    /// Pushes to observers queued.
    presence_pushes_total,
    /// Users who went offline before their grace was over because too many graces were under way.
    graces_hurried_total,
    /// Users who came back within `presence.grace_ms`, or within a minute of when they were last seen.
    users_returned_total,
    /// Answers to the node's questions that it did not fetch in time.
    replies_lost_total,
    /// Users of whom it was forgotten when they were last seen.
    last_seen_forgotten_total,
    /// Moments of coming and going that were not fetched in time to be stored.
    last_seen_lost_total,
    /// Publish commands refused because mail could not be parked.
    publishes_refused_total,
    /// Mail sent to other shards.
    mail_sent_total,
    /// Mail taken from other shards.
    mail_taken_total,
    /// Ends of connections that the log was to tell and could not, as too many came at once.
    farewells_lost_total,
    /// Turns of the loop.
    turns_total,
    /// Writes that waited for the flush window.
    flush_waits_total,
}

impl Counters {
    /// Counts a handshake that is refused with that status.
    pub fn count_refusal(&mut self, status: u16) {
        self.handshakes_refused_total += 1;
        *match status {
            400 => &mut self.refused_400_total,
            401 => &mut self.refused_401_total,
            403 => &mut self.refused_403_total,
            404 => &mut self.refused_404_total,
            405 => &mut self.refused_405_total,
            408 => &mut self.refused_408_total,
            411 => &mut self.refused_411_total,
            413 => &mut self.refused_413_total,
            414 => &mut self.refused_414_total,
            426 => &mut self.refused_426_total,
            431 => &mut self.refused_431_total,
            503 => &mut self.refused_503_total,
            _ => &mut self.refused_otherwise_total,
        } += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_and_names_are_in_one_order() {
        let one = Counters { rooms: 3, turns_total: 9, ..Counters::default() };
        assert_eq!(Counters::from_values(one.values()), one);
        let at = Counters::NAMES.iter().position(|n| *n == "rooms").expect("a name");
        assert_eq!(one.values()[at], 3);
        assert_eq!(Counters::MEANINGS[at], " Gauge: rooms with at least one member in this shard.");
        let mut sum = one;
        sum.add(&one);
        assert_eq!((sum.rooms, sum.turns_total), (6, 18));
    }
}
