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
mod table;

/// All of them, by their number; and a test for each, on the monitor that has to have them all right.
macro_rules! scenarios {
    ($($number:literal $module:ident::$name:ident;)*) => {
        const SCENARIOS: &[(u8, &str, backend::Scenario)] =
            &[$(($number, stringify!($name), $module::$name)),*];

        mod ebpf {
            $(#[test]
            fn $name() -> anyhow::Result<()> {
                crate::$module::$name(crate::backend::Backend::Ebpf)
            })*
        }
    };
}

scenarios! {
    1 long::a_long_upload;
    2 long::a_long_download;
    3 datagrams::a_connected_socket;
    4 datagrams::an_unconnected_socket;
    5 datagrams::received_datagrams;
    6 long::ipv6;
    6 long::an_accepted_connection;
    7 datagrams::ipv6_datagrams;
    8 plain::fifty_processes_that_live_twenty_milliseconds;
    9 shared::prefork_workers_with_large_transfers_both_ways;
    10 shared::a_socket_passed_on_belongs_to_who_uses_it;
    11 long::open_before_the_start;
    12 plain::two_thousand_sockets_of_one_process;
    13 paths::loopback;
    14 long::line_rate_for_five_seconds;
    15 plain::two_processes_of_one_name;
    16 plain::a_process_that_ends_while_its_bytes_still_wait;
    17 odd::sendfile;
    17 odd::splice;
    18 datagrams::two_hundred_thousand_small_datagrams;
    19 shared::workers_that_share_a_port_have_their_own;
    19 shared::workers_have_their_own_on_sockets_that_their_parent_opened;
    20 shared::a_child_goes_on_with_the_connection_of_a_parent_that_has_ended;
    21 odd::io_uring;
    21 odd::io_uring_where_a_kernel_thread_does_it;
    22 paths::another_network_namespace;
    23 paths::through_a_tunnel;
    24 paths::a_link_that_loses_packets;
    25 shared::prefork_workers_that_speak_first;
    26 shared::prefork_workers_that_receive_small_uploads;
    27 shared::two_processes_take_turns_on_one_connection;
    28 shared::a_socket_passed_on_with_bytes_that_wait;
    29 odd::echo_requests_on_a_raw_socket;
    30 odd::a_pid_that_is_used_again;
    30 odd::a_process_that_becomes_another_program_keeps_its_bytes_and_gets_its_name;
}
