use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::*;

const V4: [u8; 8] = [192, 0, 2, 1, 198, 51, 100, 2];
const TCP: u8 = 6;
const UDP: u8 = 17;

fn tcp(flags: u8) -> Vec<u8> {
    let mut bytes = vec![0x04, 0xd2, 0x00, 0x50];
    bytes.extend([0; 8]);
    // 32 bytes: with timestamps.
    bytes.extend([0x80, flags, 0, 0, 0, 0, 0, 0]);
    bytes.extend([1; 12]);
    bytes
}

fn udp() -> Vec<u8> {
    vec![0x14, 0xe9, 0x01, 0xbb, 0, 8, 0, 0]
}

fn v4(total: u16, fragment: [u8; 2], protocol: u8, content: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x45, 0];
    bytes.extend(total.to_be_bytes());
    bytes.extend([0xbe, 0xef]);
    bytes.extend(fragment);
    bytes.extend([64, protocol, 0, 0]);
    bytes.extend(V4);
    bytes.extend(content);
    bytes
}

fn v6(payload: u16, next: u8, content: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x60, 0, 0, 0];
    bytes.extend(payload.to_be_bytes());
    bytes.extend([next, 64]);
    bytes.extend(Ipv6Addr::LOCALHOST.octets());
    bytes.extend("::ffff:192.0.2.9".parse::<Ipv6Addr>().expect("an address").octets());
    bytes.extend(content);
    bytes
}

fn ports(packet: &IpPacket) -> Option<(Protocol, u16, u16, bool)> {
    match packet.transport {
        Transport::Ports { protocol, source, destination, opens } => {
            Some((protocol, source, destination, opens))
        }
        _ => None,
    }
}

fn parse(bytes: &[u8]) -> IpPacket {
    IpPacket::parse(bytes).expect("a packet")
}

#[test]
fn tcp_in_ipv4() {
    let packet = parse(&v4(1500, [0x40, 0], TCP, &tcp(TcpFlags::ACK)));
    assert_eq!(packet.source, IpAddr::from(Ipv4Addr::new(192, 0, 2, 1)));
    assert_eq!(packet.destination, IpAddr::from(Ipv4Addr::new(198, 51, 100, 2)));
    assert_eq!(ports(&packet), Some((Protocol::Tcp, 1234, 80, false)));
    assert_eq!((packet.wire_len(None), packet.fragment), (1500, None));
    let opens = |flags| ports(&parse(&v4(52, [0, 0], TCP, &tcp(flags)))).expect("ports").3;
    assert!(opens(TcpFlags::SYN) && opens(TcpFlags::SYN | TcpFlags::ECE));
    assert!(!opens(TcpFlags::SYN | TcpFlags::ACK) && !opens(TcpFlags::FIN));
}

#[test]
fn a_super_packet_has_the_headers_of_each_segment() {
    // 40 segments of 1448 bytes, 20 and 32 bytes of headers each, as far as a filter lets it through.
    let packet = parse(&v4(57_920 + 52, [0x40, 0], TCP, &tcp(TcpFlags::ACK)));
    assert_eq!(packet.wire_len(Some(1448)), 60_000);
    // The last one is shorter.
    assert_eq!(packet.wire_len(Some(1400)), 57_920 + 42 * 52);
    assert_eq!(packet.wire_len(Some(0)), 57_972);
    // Nothing tells but the link's MTU.
    assert_eq!(packet.estimate_segment(1500), Some(1448));
    assert_eq!(packet.estimate_segment(65_535), None);
    assert_eq!(packet.estimate_segment(50), None);
    let datagrams = parse(&v6(12_008, UDP, &udp()));
    assert_eq!(datagrams.wire_len(Some(1200)), 10 * 1248);
}

#[test]
fn longer_than_its_field_can_tell() {
    let mut bytes = v4(0, [0x40, 0], TCP, &tcp(0));
    bytes.resize(144_852, 0);
    assert_eq!(parse(&bytes).wire_len(Some(1448)), 100 * 1500);
    let mut bytes = v6(0, TCP, &tcp(0));
    bytes.resize(142_872, 0);
    assert_eq!(parse(&bytes).wire_len(Some(1428)), 100 * 1500);
    // The kernel's own hop-by-hop header tells, and does not travel.
    let jumbo = 8_u32 + 32 + 142_800;
    let mut content = vec![TCP, 0, 0xc2, 4];
    content.extend(jumbo.to_be_bytes());
    content.extend(tcp(0));
    let packet = parse(&v6(0, 0, &content));
    assert_eq!(packet.wire_len(Some(1428)), 100 * 1500);
    assert_eq!(ports(&packet), Some((Protocol::Tcp, 1234, 80, false)));
    // Nothing in it, and padded to the shortest frame.
    let mut bytes = v6(0, 59, &[]);
    bytes.resize(46, 0);
    assert_eq!(parse(&bytes).wire_len(None), 40);
}

#[test]
fn extension_headers_are_headers() {
    // Hop-by-hop, routing of 24 bytes, destination options, authentication of 16 bytes.
    let mut content = vec![43, 0, 1, 4, 0, 0, 0, 0];
    content.extend([60, 2]);
    content.extend([0; 22]);
    content.extend([51, 0, 1, 4, 0, 0, 0, 0]);
    content.extend([UDP, 2]);
    content.extend([0; 14]);
    let extensions = content.len();
    content.extend(udp());
    let length = u16::try_from(content.len()).expect("short");
    let packet = parse(&v6(length, 0, &content));
    assert_eq!(ports(&packet), Some((Protocol::Udp, 5353, 443, false)));
    assert_eq!(packet.header as usize, 40 + extensions + 8);
    assert_eq!(packet.wire_len(None), 40 + u64::from(length));
    // The protocol is behind what was cut off.
    let cut = parse(&v6(length, 0, &content[..extensions + 4]));
    assert_eq!((cut.transport, cut.wire_len(None)), (Transport::Other, 40 + u64::from(length)));
    // More of them than anybody sends.
    let many: Vec<u8> = [60, 0, 1, 4, 0, 0, 0, 0].repeat(30);
    assert_eq!(parse(&v6(240, 60, &many)).transport, Transport::Other);
}

#[test]
fn only_the_first_fragment_has_ports() {
    let first = parse(&v4(1500, [0x20, 0], UDP, &udp()));
    assert_eq!((ports(&first).expect("ports").1, first.fragment), (5353, Some(0xbeef)));
    for more in [0x20, 0] {
        let further = parse(&v4(1500, [more, 185], UDP, &udp()));
        assert_eq!((further.transport, further.fragment), (Transport::Continued, Some(0xbeef)));
    }
    let fragment = |offset: u16, id: u8| {
        let mut content = vec![UDP, 0];
        content.extend(offset.to_be_bytes());
        content.extend([0, 0, 0, id]);
        content.extend(udp());
        v6(1456, 44, &content)
    };
    let first = parse(&fragment(1, 7));
    assert_eq!((ports(&first).expect("ports").1, first.fragment), (5353, Some(7)));
    assert_eq!(first.estimate_segment(1280), None, "it is a piece already");
    let further = parse(&fragment(1448, 7));
    assert_eq!((further.transport, further.fragment), (Transport::Continued, Some(7)));
    assert_eq!(further.wire_len(None), 1496);
}

#[test]
fn what_is_no_packet_is_none() {
    assert_eq!(IpPacket::parse(&[]), None);
    assert_eq!(IpPacket::parse(&[0x45; 19]), None);
    assert_eq!(IpPacket::parse(&[0x60; 39]), None);
    // Version 5; a header of 16 bytes; a packet that ends in its header.
    assert_eq!(IpPacket::parse(&[0x55; 60]), None);
    assert_eq!(IpPacket::parse(&[&[0x44][..], &[0; 60]].concat()), None);
    assert_eq!(IpPacket::parse(&v4(19, [0, 0], UDP, &udp())), None);
    // ICMP, TCP that is cut off.
    assert_eq!(parse(&v4(84, [0, 0], 1, &[8; 64])).transport, Transport::Other);
    assert_eq!(parse(&v4(84, [0, 0], TCP, &[8; 19])).transport, Transport::Other);
}

fn sound() -> impl Strategy<Value = Vec<u8>> {
    let mut chain = vec![43, 0, 0xc2, 4, 0, 1, 0, 0, 44, 0, 1, 4, 0, 0, 0, 0, TCP, 0, 0, 1, 0, 0, 0, 9];
    chain.extend(tcp(TcpFlags::SYN));
    prop::sample::select(vec![
        v4(1500, [0x40, 0], TCP, &tcp(TcpFlags::ACK)),
        v4(28, [0x20, 0], UDP, &udp()),
        v6(1460, TCP, &tcp(TcpFlags::ACK)),
        v6(0, 0, &chain),
        v6(56, 0, &chain),
    ])
}

fn use_all(bytes: &[u8], segment: u32) {
    if let Some(packet) = IpPacket::parse(bytes) {
        packet.wire_len(None);
        packet.wire_len(Some(segment));
        packet.wire_len(packet.estimate_segment(segment));
    }
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_a_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..300),
        version in prop::sample::select(vec![0x45_u8, 0x4f, 0x60, 0x61]),
        segment in any::<u32>(),
    ) {
        use_all(&bytes, segment);
        use_all(&[&[version][..], &bytes].concat(), segment);
    }

    #[test]
    fn a_damaged_or_truncated_packet_is_read_without_a_panic(
        mut bytes in sound(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        length in any::<prop::sample::Index>(),
        segment in 0_u32..70_000,
    ) {
        for (index, byte) in changes {
            let index = index.index(bytes.len());
            bytes[index] = byte;
        }
        bytes.truncate(length.index(bytes.len() + 1));
        use_all(&bytes, segment);
    }

    #[test]
    fn a_truncated_packet_is_as_long_as_it_says(bytes in sound(), length in 60_usize..100) {
        let whole = IpPacket::parse(&bytes).expect("sound");
        let part = IpPacket::parse(&bytes[..length.min(bytes.len())]).expect("its IP header is there");
        prop_assert_eq!(part.wire_len(None), whole.wire_len(None));
    }
}
