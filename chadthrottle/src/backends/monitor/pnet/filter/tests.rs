use super::*;
use crate::sys::packet::{Framing, PacketSocket};

/// A packet as the kernel shows it to a program.
#[derive(Clone, Copy)]
struct Shown {
    packet_type: u32,
    interface: u32,
    link_type: u32,
    vlan: Option<u32>,
    protocol: u32,
    /// From the network layer header on.
    bytes: &'static [u8],
}

/// IPv4 of 40 bytes with TCP in it, as far as a program looks.
const SEGMENT: &[u8] = &[0x45, 0, 0, 40, 0, 0, 0, 0, 64, 6];
const OPTIONS: &[u8] = &[0x46, 0, 0, 44, 0, 0, 0, 0, 64, 6];
const EXTENSION: &[u8] = &[0x60, 0, 0, 0, 0, 40, 44];
const DATAGRAM: &[u8] = &[0x45, 0, 0, 40, 0, 0, 0, 0, 64, 17];
const BIG: &[u8] = &[0x45, 0, 0, 0, 0, 0, 0, 0, 64, 6];
const DATAGRAM_V6: &[u8] = &[0x60, 0, 0, 0, 0, 40, 17];
const BIG_V6: &[u8] = &[0x60, 0, 0, 0, 0, 0, 6];

const SENT: Shown = Shown {
    packet_type: PACKET_OUTGOING,
    interface: 2,
    link_type: ETHERNET,
    vlan: None,
    protocol: IPV4,
    bytes: SEGMENT,
};
const RECEIVED: Shown = Shown { packet_type: 0, ..SENT };

const SCOPE: Scope = Scope {
    include_loopback: false,
    udp_has_offload_header: true,
    excluded_upload: Vec::new(),
    excluded_download: Vec::new(),
};

/// How much of a packet a program lets through. Runs what the kernel would.
fn run(program: &[Instruction], shown: Shown) -> u32 {
    let mut accumulator = 0;
    let mut next = 0;
    loop {
        let Instruction { code, jt, jf, k } = program[next];
        let code = u32::from(code);
        next += 1;
        let jump = |holds| usize::from(if holds { jt } else { jf });
        match code {
            _ if code == BPF_RET | BPF_K => return k,
            _ if code == BPF_ALU | BPF_AND | BPF_K => accumulator &= k,
            _ if code == BPF_JMP | BPF_JEQ | BPF_K => next += jump(accumulator == k),
            _ if code == BPF_JMP | BPF_JGT | BPF_K => next += jump(accumulator > k),
            _ if code == BPF_LD | BPF_W | BPF_ABS => {
                accumulator = match k {
                    PROTOCOL => shown.protocol,
                    PACKET_TYPE => shown.packet_type,
                    INTERFACE => shown.interface,
                    LINK_TYPE => shown.link_type,
                    VLAN_TAG => shown.vlan.unwrap_or_default(),
                    VLAN_TAG_PRESENT => shown.vlan.is_some().into(),
                    _ => panic!("loads {k:#x}"),
                };
            }
            _ if code == BPF_LD | BPF_B | BPF_ABS => {
                accumulator = shown.bytes[(k - NETWORK) as usize].into();
            }
            _ if code == BPF_LD | BPF_H | BPF_ABS => {
                let offset = (k - NETWORK) as usize;
                accumulator = u16::from_be_bytes([shown.bytes[offset], shown.bytes[offset + 1]]).into();
            }
            _ => panic!("unknown instruction {code:#x}"),
        }
    }
}

/// Which of the four sockets get how much of a packet.
fn shown_to(scope: &Scope, shown: Shown) -> Vec<(Direction, LinkClass, u32)> {
    let mut taken = Vec::new();
    for direction in [Direction::Upload, Direction::Download] {
        for class in [LinkClass::Ethernet, LinkClass::Other] {
            let bytes = run(&program(scope, direction, class), shown);
            if bytes > 0 {
                taken.push((direction, class, bytes));
            }
        }
    }
    taken
}

#[test]
fn each_packet_goes_to_the_socket_of_its_direction_and_link() {
    use Direction::{Download, Upload};
    use LinkClass::{Ethernet, Other};
    let of = |shown| shown_to(&SCOPE, shown);
    assert_eq!(of(SENT), [(Upload, Ethernet, 14 + 40)]);
    assert_eq!(of(RECEIVED), [(Download, Ethernet, 14 + 40)]);
    // A broadcast, a multicast; and what is for another host.
    assert_eq!(of(Shown { packet_type: 1, ..RECEIVED }), [(Download, Ethernet, 14 + 40)]);
    assert_eq!(of(Shown { packet_type: 2, ..RECEIVED }), [(Download, Ethernet, 14 + 40)]);
    assert_eq!(of(Shown { packet_type: 3, ..RECEIVED }), []);
    // A tun device.
    let tunnel = Shown { link_type: 0xfffe, ..SENT };
    assert_eq!(of(tunnel), [(Upload, Other, 40)]);
    assert_eq!(of(Shown { protocol: IPV6, bytes: DATAGRAM_V6, ..tunnel }), [(Upload, Other, 60)]);
    assert_eq!(of(Shown { protocol: IPV6, bytes: DATAGRAM_V6, ..SENT }), [(Upload, Ethernet, 14 + 60)]);
    // With options, with an extension header.
    assert_eq!(of(Shown { bytes: OPTIONS, ..SENT }), [(Upload, Ethernet, BEGINNING)]);
    assert_eq!(of(Shown { protocol: IPV6, bytes: EXTENSION, ..tunnel }), [(Upload, Other, BEGINNING)]);
    // ARP.
    assert_eq!(of(Shown { protocol: 0x0806, ..SENT }), []);
    // What does not state its own length is needed whole.
    assert_eq!(of(Shown { bytes: BIG, ..SENT }), [(Upload, Ethernet, WHOLE)]);
    assert_eq!(of(Shown { protocol: IPV6, bytes: BIG_V6, ..RECEIVED }), [(Download, Ethernet, WHOLE)]);
}

#[test]
fn vlans_count_on_their_own_interface_and_priorities_are_no_vlans() {
    assert_eq!(shown_to(&SCOPE, Shown { vlan: Some(10), ..RECEIVED }), []);
    assert_eq!(shown_to(&SCOPE, Shown { vlan: Some(0xe00a), ..SENT }), []);
    assert_eq!(shown_to(&SCOPE, Shown { vlan: Some(0xe000), ..RECEIVED }).len(), 1);
    // In the frame; whether it counts is decided where the frame is read.
    assert_eq!(
        shown_to(&SCOPE, Shown { protocol: 0x8100, ..SENT }),
        [(Direction::Upload, LinkClass::Ethernet, BEGINNING)]
    );
}

#[test]
fn loopback_counts_on_request_and_excluded_interfaces_do_not() {
    let loopback = Shown { link_type: LOOPBACK, interface: 1, ..SENT };
    assert_eq!(shown_to(&SCOPE, loopback), []);
    let with_loopback = Scope { include_loopback: true, ..SCOPE };
    assert_eq!(shown_to(&with_loopback, loopback).len(), 1);
    let scope = Scope { excluded_upload: (2..302).collect(), excluded_download: vec![1, 3], ..SCOPE };
    assert_eq!(shown_to(&scope, SENT), []);
    assert_eq!(shown_to(&scope, Shown { interface: 301, ..SENT }), []);
    assert_eq!(shown_to(&scope, Shown { interface: 302, ..SENT }).len(), 1);
    assert_eq!(shown_to(&scope, RECEIVED).len(), 1);
    assert_eq!(shown_to(&scope, Shown { interface: 3, ..RECEIVED }), []);
}

#[test]
fn where_segmented_udp_cannot_be_described_udp_goes_another_way() {
    let scope = Scope { udp_has_offload_header: false, ..SCOPE };
    for (protocol, bytes) in [(IPV4, DATAGRAM), (IPV6, DATAGRAM_V6)] {
        let shown = Shown { protocol, bytes, ..SENT };
        let headers = if protocol == IPV4 { 40 } else { 60 };
        assert_eq!(shown_to(&scope, shown), [(Direction::Upload, LinkClass::Other, headers)]);
        assert_eq!(shown_to(&SCOPE, shown), [(Direction::Upload, LinkClass::Ethernet, 14 + headers)]);
    }
    assert_eq!(shown_to(&scope, SENT), [(Direction::Upload, LinkClass::Ethernet, 14 + 40)]);
}

#[test]
fn the_kernel_takes_the_longest_program_there_is() {
    let scope = Scope { excluded_upload: (0..100_000).collect(), udp_has_offload_header: false, ..SCOPE };
    let program = program(&scope, Direction::Upload, LinkClass::Ethernet);
    assert!(program.len() < 1000);
    // Needs a privilege, as the tests of this project do where they touch the kernel.
    if let Ok(socket) = PacketSocket::open(Framing::Network) {
        socket.set_filter(&program).expect("a sound program");
    }
}
