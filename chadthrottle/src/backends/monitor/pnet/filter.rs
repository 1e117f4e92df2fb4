//! Which packets are of interest, as a program that the kernel runs before it queues one.
//!
//! What is decided here costs no copy, no memory and no system call. And a receiver of pnet's tells neither where a
//! packet came from nor which way it went: so each socket gets packets of one direction and one kind of link alone,
//! and it is known by the socket.

use nix::libc::{
    BPF_ABS, BPF_ALU, BPF_AND, BPF_B, BPF_H, BPF_JEQ, BPF_JGT, BPF_JMP, BPF_K, BPF_LD, BPF_RET, BPF_W,
};

use super::flow::Direction;
use crate::sys::packet::Instruction;

/// Bytes of a packet that are looked at: link, IP and transport headers, with options and extensions.
const BEGINNING: u32 = 256;
/// What nearly all packets have of them: TCP without its options behind IP without any. The kernel has these bytes at
/// hand, apart from the payload. One byte more, and all of a super-packet stays in memory until it has been read: then
/// 8 MB hold 100 of them instead of 8,000.
const ETHERNET_HEADER: u32 = 14;
const IPV4_HEADER: u32 = 20;
const IPV6_HEADER: u32 = 40;
const TCP_HEADER: u32 = 20;
/// The first byte of an IPv4 packet without options.
const IPV4_WITHOUT_OPTIONS: u32 = 0x45;
/// All of it. For what does not state its own length.
const WHOLE: u32 = 1 << 20;
const NOTHING: u32 = 0;

/// Where a load finds facts about the packet instead of its bytes (`SKF_AD_OFF`, include/uapi/linux/filter.h).
const FACTS: u32 = 0xffff_f000;
const PROTOCOL: u32 = FACTS;
const PACKET_TYPE: u32 = FACTS + 4;
const INTERFACE: u32 = FACTS + 8;
const LINK_TYPE: u32 = FACTS + 28;
const VLAN_TAG: u32 = FACTS + 44;
const VLAN_TAG_PRESENT: u32 = FACTS + 48;
/// Where its network layer header begins, whatever is before that (`SKF_NET_OFF`).
const NETWORK: u32 = 0xfff0_0000;

/// `PACKET_MULTICAST` and `PACKET_OUTGOING` (`include/uapi/linux/if_packet.h`). Smaller numbers are for this host in
/// one way or another; between the two is what is for others.
const PACKET_MULTICAST: u32 = 2;
const PACKET_OUTGOING: u32 = 4;
/// `ARPHRD_ETHER` and `ARPHRD_LOOPBACK` (`include/uapi/linux/if_arp.h`): those with an Ethernet header.
const ETHERNET: u32 = 1;
const LOOPBACK: u32 = 772;
/// Ether types.
const IPV4: u32 = 0x0800;
const IPV6: u32 = 0x86dd;
const VLANS: [u32; 2] = [0x8100, 0x88a8];
const TCP: u32 = 6;
const UDP: u32 = 17;

/// The interfaces that a program can tell apart. With more, two of them (the old one goes when the new one is there)
/// would need more memory than older kernels give a socket (`net.core.optmem_max`, 20 KB before 6.8). Devices have low
/// numbers. What has high ones on a host with so many are its containers' ends, whose packets are nobody's here in any
/// case.
const MOST_EXCLUDED: usize = 300;

/// On which links.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LinkClass {
    /// Those with Ethernet headers.
    Ethernet,
    /// All others: tunnels, PPP.
    Other,
}

/// What a program depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Scope {
    pub(super) include_loopback: bool,
    /// Whether the kernel can describe segmented UDP in front of a frame (Linux 6.2). One that cannot fails the whole
    /// read; then UDP goes the way of links without Ethernet headers.
    pub(super) udp_has_offload_header: bool,
    /// Interfaces whose packets pass another one too.
    pub(super) excluded_upload: Vec<u32>,
    pub(super) excluded_download: Vec<u32>,
}

/// The program for packets of one direction on links of one class.
///
/// Each condition is followed by the end for those that fail it: no jump is long.
pub(super) fn program(scope: &Scope, direction: Direction, class: LinkClass) -> Vec<Instruction> {
    let mut program = vec![load(BPF_W, PACKET_TYPE)];
    match direction {
        Direction::Upload => program.extend([unless(BPF_JEQ, PACKET_OUTGOING), end(NOTHING)]),
        Direction::Download => program.extend([when(BPF_JGT, PACKET_MULTICAST), end(NOTHING)]),
    }
    let excluded = match direction {
        Direction::Upload => &scope.excluded_upload,
        Direction::Download => &scope.excluded_download,
    };
    program.push(load(BPF_W, INTERFACE));
    for &index in excluded.iter().take(MOST_EXCLUDED) {
        program.extend([when(BPF_JEQ, index), end(NOTHING)]);
    }
    program.push(load(BPF_W, LINK_TYPE));
    if !scope.include_loopback {
        program.extend([when(BPF_JEQ, LOOPBACK), end(NOTHING)]);
    }
    // A tag with number 0 is no VLAN, only a priority.
    let tail_of_vlan = [
        load(BPF_W, VLAN_TAG_PRESENT),
        jump(BPF_JEQ, 0, 4, 0),
        load(BPF_W, VLAN_TAG),
        statement(BPF_ALU | BPF_AND | BPF_K, 0x0fff),
        jump(BPF_JEQ, 0, 1, 0),
        end(NOTHING),
    ];
    let ethernet = tail(scope, class, LinkClass::Ethernet);
    let other = tail(scope, class, LinkClass::Other);
    // Behind the end for Ethernet is that for the others.
    let skip = u8::try_from(tail_of_vlan.len() + ethernet.len()).unwrap_or(u8::MAX);
    program.extend([jump(BPF_JEQ, ETHERNET, 1, 0), jump(BPF_JEQ, LOOPBACK, 0, skip)]);
    program.extend(tail_of_vlan);
    program.extend(ethernet);
    program.extend(other);
    program
}

/// What becomes of a packet on a link of class `link` in a program for `class`.
fn tail(scope: &Scope, class: LinkClass, link: LinkClass) -> Vec<Instruction> {
    let v4 = [by_protocol(9, scope, class, link), v4_length(class)].concat();
    let v6 = [by_protocol(6, scope, class, link), v6_length(class)].concat();
    let mut program = vec![load(BPF_W, PROTOCOL)];
    let length = |part: &[Instruction]| u8::try_from(part.len()).unwrap_or(u8::MAX);
    program.push(jump(BPF_JEQ, IPV4, 0, length(&v4)));
    program.extend(&v4);
    program.push(jump(BPF_JEQ, IPV6, 0, length(&v6)));
    program.extend(&v6);
    if class == LinkClass::Ethernet && link == LinkClass::Ethernet {
        // Tags that an interface cannot add by itself are in the frame.
        for kind in VLANS {
            program.extend([when(BPF_JEQ, kind), end(BEGINNING)]);
        }
    }
    program.push(end(NOTHING));
    program
}

/// Ends for those IP packets that are for another socket, by where their header has the protocol.
fn by_protocol(offset: u32, scope: &Scope, class: LinkClass, link: LinkClass) -> Vec<Instruction> {
    let is_udp = |goes_on| {
        let check = if goes_on { unless(BPF_JEQ, UDP) } else { when(BPF_JEQ, UDP) };
        vec![load(BPF_B, NETWORK + offset), check, end(NOTHING)]
    };
    match (class, link) {
        (LinkClass::Ethernet, LinkClass::Other) => vec![end(NOTHING)],
        (LinkClass::Other, LinkClass::Ethernet) if scope.udp_has_offload_header => vec![end(NOTHING)],
        (LinkClass::Other, LinkClass::Ethernet) => is_udp(true),
        (LinkClass::Ethernet, LinkClass::Ethernet) if !scope.udp_has_offload_header => is_udp(false),
        _ => Vec::new(),
    }
}

/// How much of an IPv4 packet is needed.
fn v4_length(class: LinkClass) -> Vec<Instruction> {
    let headers = link_header(class) + IPV4_HEADER + TCP_HEADER;
    vec![
        load(BPF_H, NETWORK + 2),
        when(BPF_JEQ, 0),
        end(WHOLE),
        load(BPF_B, NETWORK),
        when(BPF_JEQ, IPV4_WITHOUT_OPTIONS),
        end(headers),
        end(BEGINNING),
    ]
}

/// How much of an IPv6 packet is needed.
fn v6_length(class: LinkClass) -> Vec<Instruction> {
    let headers = link_header(class) + IPV6_HEADER + TCP_HEADER;
    vec![
        load(BPF_H, NETWORK + 4),
        when(BPF_JEQ, 0),
        end(WHOLE),
        load(BPF_B, NETWORK + 6),
        when(BPF_JEQ, TCP),
        end(headers),
        when(BPF_JEQ, UDP),
        end(headers),
        end(BEGINNING),
    ]
}

/// Bytes before the IP header in what a socket of this class gets.
const fn link_header(class: LinkClass) -> u32 {
    match class {
        LinkClass::Ethernet => ETHERNET_HEADER,
        LinkClass::Other => 0,
    }
}

/// Takes a fact or a part of the packet into the accumulator.
fn load(size: u32, from: u32) -> Instruction {
    statement(BPF_LD | size | BPF_ABS, from)
}

fn end(bytes: u32) -> Instruction {
    statement(BPF_RET | BPF_K, bytes)
}

/// The next instruction only if the condition holds.
fn when(condition: u32, value: u32) -> Instruction {
    jump(condition, value, 0, 1)
}

/// The next instruction only if it does not.
fn unless(condition: u32, value: u32) -> Instruction {
    jump(condition, value, 1, 0)
}

fn jump(condition: u32, value: u32, if_true: u8, if_false: u8) -> Instruction {
    Instruction { jt: if_true, jf: if_false, ..statement(BPF_JMP | condition | BPF_K, value) }
}

fn statement(code: u32, k: u32) -> Instruction {
    // All codes are below 256.
    Instruction { code: u16::try_from(code).unwrap_or_default(), jt: 0, jf: 0, k }
}

#[cfg(test)]
mod tests;
