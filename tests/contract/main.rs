//! One suite over every driver: what `throng::contract` promises, each promise a sentence.
//!
//! A [`world::Rig`] makes a driver and peers for it; a [`world::World`] turns the driver, collects
//! what it reports and holds the rules of the contract against every single event, whatever the test
//! is about. The themes are written once and run for each rig in the list below. To add a driver,
//! write a rig and add a line.
//!
//! A kernel that refuses io_uring fails these tests, with the reason; set `THRONG_WITHOUT_URING=1`
//! to leave them out knowingly.

#![cfg(test)]

mod accepting;
mod ending;
mod leaving;
mod reading;
mod shortage;
mod sim;
mod tcp;
mod waking;
mod world;
mod writing;

macro_rules! suite {
    ($driver:ident, $rig:expr) => {
        mod $driver {
            suite! { @tests $rig;
                accepting:
                    a_socket_is_accepted_with_its_address_and_heard_once_opened
                    every_socket_tells_which_listener_it_came_from
                    a_refused_socket_is_closed_unseen
                    a_thousand_connections_are_served_at_once
                    stopping_frees_the_port_at_once_and_keeps_connections
                    what_arrives_while_accepting_stops_is_closed_and_not_leaked;
                reading:
                    bytes_arrive_in_order_in_whatever_pieces_they_were_sent
                    a_large_transfer_arrives_entirely
                    a_paused_connection_hears_nothing_new_until_resumed
                    a_look_tells_whether_something_lies_unread
                    pausing_and_resuming_at_random_loses_nothing
                    the_peers_end_comes_once_after_its_last_bytes
                    an_end_during_a_pause_is_told_on_resuming
                    many_talkers_outnumber_the_buffers_and_lose_nothing;
                writing:
                    a_batch_comes_back_empty_and_counted
                    small_parts_beyond_every_limit_are_written_in_order
                    a_large_batch_reaches_a_slow_reader_entirely
                    both_directions_at_once_do_not_block_each_other
                    one_write_follows_another
                    a_fin_follows_what_is_in_flight_and_reading_goes_on;
                ending:
                    a_reset_is_reported_lost_once_and_the_close_is_answered_once
                    operations_on_a_lost_connection_are_ignored
                    a_write_to_a_peer_that_reset_ends_in_lost
                    a_reset_behind_the_peers_end_is_found_by_writing
                    closing_with_a_write_in_flight_drops_the_batch
                    closing_an_idle_or_paused_connection_is_answered
                    closing_in_order_delivers_everything_and_then_fin
                    an_abort_resets_the_peer
                    both_ends_may_finish_in_turn
                    an_index_used_again_never_hears_its_former_owner
                    trimming_leaves_connections_alone_and_indexes_usable
                    a_driver_dropped_in_full_flight_frees_what_it_was_lent;
                leaving:
                    a_socket_is_handed_over_open_with_nothing_lost
                    what_ends_before_or_while_it_is_handed_over_shows_to_the_new_owner
                    an_index_is_free_once_its_socket_is_handed_over
                    a_socket_that_comes_back_goes_on_as_another_connection
                    what_has_ended_before_it_is_adopted_is_told;
                waking:
                    a_wake_up_from_another_thread_ends_an_endless_wait
                    a_wake_up_is_not_lost_when_it_comes_before_the_wait
                    a_wait_ends_when_its_time_is_up;
            }
        }
    };
    (@tests $rig:expr; $($theme:ident: $($test:ident)+;)+) => {
        $($(
            #[test]
            fn $test() {
                if let Some(rig) = $rig {
                    crate::$theme::$test(&mut crate::world::World::new(rig));
                }
            }
        )+)+
    };
}

suite!(simulated, crate::sim::rig(throng::driver::sim::Faults::none()));
suite!(epoll, crate::tcp::epoll());
suite!(uring_multishot_recv, crate::tcp::uring(throng::driver::uring::Idle::MultishotRecv));
suite!(uring_multishot_poll, crate::tcp::uring(throng::driver::uring::Idle::MultishotPoll));
suite!(uring_epoll_set, crate::tcp::uring(throng::driver::uring::Idle::EpollSet));
