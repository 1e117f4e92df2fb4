//! Every byte is counted for the process that sent or received it, whoever opened the socket: through the binary, with
//! IP bytes known from the other side's kernel.

mod backend;
mod books;
mod datagrams;
mod interface;
mod long;
mod odd;
mod paths;
mod peer;
mod plain;
mod shared;
#[path = "../support/mod.rs"]
mod support;

/// A test for each scenario, on the monitor that has to have them all right.
macro_rules! scenarios {
    ($($module:ident::$name:ident;)*) => {
        mod ebpf {
            use crate::backend::{Backend, Scenario};

            $(#[test]
            fn $name() -> anyhow::Result<()> {
                let scenario: Scenario = crate::$module::$name;
                scenario(Backend::Ebpf)
            })*
        }
    };
}

scenarios! {
    long::a_long_upload;
    long::a_long_download;
    datagrams::a_connected_socket;
    datagrams::an_unconnected_socket;
    datagrams::received_datagrams;
    long::ipv6;
    long::an_accepted_connection;
    datagrams::ipv6_datagrams;
    plain::fifty_processes_that_live_twenty_milliseconds;
    shared::prefork_workers_with_large_transfers_both_ways;
    shared::a_socket_passed_on_belongs_to_who_uses_it;
    long::open_before_the_start;
    plain::two_thousand_sockets_of_one_process;
    paths::loopback;
    long::line_rate_for_five_seconds;
    plain::two_processes_of_one_name;
    plain::a_process_that_ends_while_its_bytes_still_wait;
    odd::sendfile;
    odd::splice;
    datagrams::two_hundred_thousand_small_datagrams;
    shared::workers_that_share_a_port_have_their_own;
    shared::workers_have_their_own_on_sockets_that_their_parent_opened;
    shared::a_child_goes_on_with_the_connection_of_a_parent_that_has_ended;
    odd::io_uring;
    odd::io_uring_where_a_kernel_thread_does_it;
    paths::another_network_namespace;
    paths::through_a_tunnel;
    paths::a_link_that_loses_packets;
    shared::prefork_workers_that_speak_first;
    shared::prefork_workers_that_receive_small_uploads;
    shared::two_processes_take_turns_on_one_connection;
    shared::a_socket_passed_on_with_bytes_that_wait;
    odd::echo_requests_on_a_raw_socket;
    odd::a_pid_that_is_used_again;
    odd::a_process_that_becomes_another_program_keeps_its_bytes_and_gets_its_name;
}
